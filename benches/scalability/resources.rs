//! What so many agents take: time until they are there, memory, processor while nothing happens and while they talk.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_tools::benchmark::{Better, Figure, Target};
use serde::{Deserialize, Serialize};

use super::found::Found;
use crate::crowd::closed_loop::{Load, Running};
use crate::crowd::medium::{anonymous_bytes, used};
use crate::crowd::{Crowd, Mode, fresh, runtime};

const SIZES: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const LOAD: Load = Load { mode: Mode::Direct, in_flight: 2_048, group: 1 };
/// Until what was made known is stored.
const SETTLES: Duration = Duration::from_millis(2_500);
const IDLE: Duration = Duration::from_secs(4);
const TALKS: Duration = Duration::from_secs(4);

/// What a process with so many agents found about itself.
#[derive(Serialize, Deserialize)]
struct Resources {
    spawn_seconds: f64,
    /// Memory that is no file, more than before there was an agent, in bytes.
    idle_bytes: u64,
    /// Seconds of processor a second.
    idle_processor: f64,
    /// One agent alone has nobody to talk to.
    talking: Option<Talking>,
}

/// The same while messages are under way.
#[derive(Serialize, Deserialize)]
struct Talking {
    bytes: u64,
    processor: f64,
    messages_per_second: f64,
}

/// The other process: each number of agents has one of its own, since memory that was given back stays with a process.
pub(crate) fn child(dir: &Path, agents: usize) {
    let runtime = runtime();
    let crowd = Arc::new(Crowd::again(&fresh(dir), agents, agents));
    let before = anonymous_bytes();
    let start = Instant::now();
    crowd.introduce(&runtime);
    let spawn_seconds = start.elapsed().as_secs_f64();
    std::thread::sleep(SETTLES);
    let idle_bytes = anonymous_bytes().saturating_sub(before);
    let (busy, start) = (used(), Instant::now());
    std::thread::sleep(IDLE);
    let idle_processor = used().saturating_sub(busy).as_secs_f64() / start.elapsed().as_secs_f64();
    let talking = (agents > 1).then(|| {
        let (busy, start) = (used(), Instant::now());
        let running = Running::start(&crowd, &runtime, LOAD, 0);
        std::thread::sleep(TALKS);
        let (answered, took) = (running.answered(), start.elapsed().as_secs_f64());
        let processor = used().saturating_sub(busy).as_secs_f64() / took;
        let bytes = anonymous_bytes().saturating_sub(before);
        running.stop(&runtime);
        Talking { bytes, processor, messages_per_second: answered as f64 / took }
    });
    crowd.engine.stop();
    let found = Resources { spawn_seconds, idle_bytes, idle_processor, talking };
    println!("{}", serde_json::to_string(&found).unwrap());
}

/// One process after the other.
pub(crate) fn by_count(dir: &Path, found: &mut Found) {
    for agents in SIZES {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--child", "resources", "--agents", &agents.to_string(), "--dir"])
            .arg(dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let resources: Resources = serde_json::from_slice(&output.stdout).unwrap();
        found.figures(&format!("{agents} agents"), figures(&resources, agents as f64));
    }
}

fn figures(resources: &Resources, agents: f64) -> Vec<Figure> {
    let Resources { spawn_seconds, idle_bytes, idle_processor, talking } = resources;
    let kib_each = *idle_bytes as f64 / 1_024.0 / agents;
    let mut figures = vec![
        Figure::new("spawn", spawn_seconds * 1e3, "ms", Better::Lower).against(Target::SPAWN_MS),
        Figure::new("idle memory of each", kib_each, "KiB", Better::Lower),
        Figure::new("idle processor, all", idle_processor * 100.0, "% of a core", Better::Lower),
    ];
    if let Some(Talking { bytes, processor, messages_per_second }) = talking {
        let micros = processor / messages_per_second * 1e6;
        figures.extend([
            Figure::new("messages", *messages_per_second, "1/s", Better::Higher),
            Figure::new("talking processor, all", processor * 100.0, "% of a core", Better::Lower),
            Figure::new("a message", micros, "µs of processor", Better::Lower),
            Figure::new("talking memory, all", *bytes as f64 / 1e6, "MB", Better::Lower),
        ]);
    }
    figures
}
