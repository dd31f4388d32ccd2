//! What the medium takes by itself: a small append with fdatasync.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Times of 4 KiB appends with fdatasync, ascending.
pub(crate) fn syncs(dir: &Path, count: usize) -> Vec<Duration> {
    let path = dir.join("medium");
    let mut file = File::create(&path).unwrap();
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&[7; 4_096]).unwrap();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    std::fs::remove_file(path).unwrap();
    times.sort_unstable();
    times
}

/// The value that `share` of an ascending list does not exceed.
pub(crate) fn at(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Time that the processors spent on this process.
pub(crate) fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    // Fields 14 and 15 of proc(5), in ticks of a hundredth of a second on every Linux there is.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Memory of this process that is not a mapped file, in bytes.
pub(crate) fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}
