//! Memory and processor time of a process, as Linux tells them under `/proc`.

use std::time::Duration;

use metrics::gauge;

use super::names;

/// Ticks of processor time in a second: fixed at 100 for programs on every processor Caxton is built for.
const TICKS_PER_SECOND: u64 = 100;

/// Memory of this process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessMemory {
    /// In memory now.
    pub resident: u64,
    /// In memory at most so far.
    pub resident_max: u64,
    /// Of `resident`: pages of mapped files, which the system takes back when it needs them.
    pub file_backed: u64,
}

/// Measures this process; `None` where the system does not tell.
pub fn process_memory() -> Option<ProcessMemory> {
    parse_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Measures the process with this id; `None` where there is none, or the system does not tell.
pub fn process_memory_of(id: u32) -> Option<ProcessMemory> {
    parse_status(&std::fs::read_to_string(format!("/proc/{id}/status")).ok()?)
}

/// Processor time that the process with this id used so far, of all its threads.
pub fn process_time_of(id: u32) -> Option<Duration> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// Processor time that this process used so far, of all its threads; `None` where the system does not tell.
pub(super) fn process_time() -> Option<Duration> {
    parse_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Measures memory and records it.
pub(super) fn record_memory() {
    if let Some(memory) = process_memory() {
        gauge!(names::SERVER_MEMORY_USED).set(memory.resident as f64);
        gauge!(names::SERVER_MEMORY_PEAK).set(memory.resident_max as f64);
        gauge!(names::SERVER_MEMORY_FILES).set(memory.file_backed as f64);
    }
}

fn parse_status(status: &str) -> Option<ProcessMemory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1_024)
    };
    Some(ProcessMemory {
        resident: bytes("VmRSS")?,
        resident_max: bytes("VmHWM")?,
        file_backed: bytes("RssFile")?,
    })
}

fn parse_stat(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses and may hold anything, so count from its end.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_its_lines() {
        let status =
            "Name:\tcaxton\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\nRssAnon:\t 150 kB\nRssFile:\t  50 kB\n";
        let then = ProcessMemory { resident: 204_800, resident_max: 307_200, file_backed: 51_200 };
        assert_eq!(parse_status(status), Some(then));
        assert_eq!(parse_status("Name:\tcaxton\n"), None);
        assert_eq!(parse_status(&status.replace("200 kB", "many")), None);
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse_stat(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_time() {
        let memory = process_memory();
        assert!(memory.is_some_and(|memory| memory.resident > 0 && memory.resident <= memory.resident_max));
        assert!(process_time().is_some());
    }
}
