//! Agents are made known: how long it takes, and what they take while they do nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton::agents::{AgentDirectory, DirectoryOptions, EngineLog};
use caxton::config::Config;

use crate::crowd::medium::{anonymous_bytes, used};
use crate::crowd::table::Table;
use crate::crowd::{engine, fresh, names, register, runtime};

const SIZES: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const SPAWN_MAX: Duration = Duration::from_millis(100);
const IDLE_BYTES_MAX: u64 = 50 << 10;
const IDLE_CORE_MAX: f64 = 0.05;

/// Memory of 10,000 idle agents, and the processor's time while nothing happens.
pub(crate) fn idle(dir: &Path, table: &mut Table) {
    let count = 10_000;
    let engine = engine(&fresh(dir));
    let before = anonymous_bytes();
    {
        let runtime = runtime();
        runtime.block_on(register(&engine, &names(count)));
    }
    // The store writes each second; what it needs for that is part of it.
    std::thread::sleep(Duration::from_millis(2_500));
    let each = anonymous_bytes().saturating_sub(before) / count as u64;
    let (busy, start) = (used(), Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let share = used().saturating_sub(busy).as_secs_f64() / start.elapsed().as_secs_f64();
    let figure = format!("{:.1} KiB each", each as f64 / 1_024.0);
    table.row("memory of 10,000 idle agents", figure, "≤ 50 KiB each", each <= IDLE_BYTES_MAX);
    let figure = format!("{:.2} % of a core, all of them", share * 100.0);
    table.row("processor of 10,000 idle agents", figure, "< 5 % each", share < IDLE_CORE_MAX);
    engine.stop();
}

/// So many agents register at once; the median of the rounds.
pub(crate) fn registered(dir: &Path, rounds: u64, table: &mut Table) {
    let runtime = runtime();
    for count in SIZES {
        let names = names(count);
        let mut times: Vec<Duration> = (0..rounds)
            .map(|_| {
                let engine = engine(&fresh(dir));
                let start = Instant::now();
                runtime.block_on(register(&engine, &names));
                let time = start.elapsed();
                assert_eq!(engine.view().talk().read().registry.agents().len(), count);
                engine.stop();
                time
            })
            .collect();
        times.sort_unstable();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        let figure = format!("{median:.1?} (most {worst:.1?})");
        table.row(format!("{count} agents register"), figure, "< 100 ms", median < SPAWN_MAX);
    }
}

/// Agents of files: the directory starts and has judged and recorded all of them.
pub(crate) fn of_files(dir: &Path, table: &mut Table) {
    for count in SIZES {
        let dir = fresh(dir);
        let files = dir.join("agents");
        std::fs::create_dir_all(&files).unwrap();
        for n in 0..count {
            let text = format!(
                "---\nname: Agent{n}\nversion: 1.0.0\ndescription: Answers questions.\ncapabilities: [skill-{}]\n\
                 ---\nYou answer questions about the {n}th thing there is.\n",
                n / 10
            );
            std::fs::write(files.join(format!("agent-{n}.md")), text).unwrap();
        }
        let engine = engine(&dir);
        let before = anonymous_bytes();
        let mut options = DirectoryOptions::new(&Config::default(), &dir);
        options.agents.max_agents = count;
        let start = Instant::now();
        let directory = AgentDirectory::start(Arc::new(EngineLog::of(engine.clone())), options).unwrap();
        let time = start.elapsed();
        assert_eq!(directory.roster().agents.len(), count, "{:?}", directory.roster().rejected.first());
        let each = anonymous_bytes().saturating_sub(before) as f64 / count as f64 / 1_024.0;
        let memory = if count < 1_000 { String::new() } else { format!(", {each:.1} KiB each") };
        // The bar is for one agent after the other: a file more costs so much.
        let figure = format!("{time:.1?}{memory}");
        if count <= 100 {
            table.row(format!("{count} agents of files"), figure, "< 100 ms", time < SPAWN_MAX);
        } else {
            table.note(format!("{count} agents of files"), figure);
        }
        directory.stop();
        engine.stop();
    }
}
