//! What an agent takes when it is made known, after a thousand messages, and when it is stored.

use std::path::Path;
use std::time::{Duration, Instant};

use caxton::commands::talk::Upkeep;
use caxton_events::{AgentId, Seq};
use caxton_projections::talk::stored;
use caxton_tools::benchmark::{Better, Figure};

use super::counting::{self, Allocated};
use super::found::Found;
use crate::crowd::medium::anonymous_bytes;
use crate::crowd::{Crowd, Mode, fresh, register, runtime};

/// Messages to each agent.
const MESSAGES: u64 = 1_000;
/// Messages of one call.
const GROUP: u64 = 100;
/// Longest time until everything is stored.
const PATIENCE: Duration = Duration::from_mins(1);

/// What all agents together took.
#[derive(Clone, Copy)]
struct Taken {
    allocated: Allocated,
    /// Memory of the process that is no file.
    anonymous: u64,
}

fn taken() -> Taken {
    Taken { allocated: counting::so_far(), anonymous: anonymous_bytes() }
}

/// Agents are made known, get and acknowledge a thousand messages each, and are stored; what each stage takes, an agent.
///
/// SQLite takes its memory from elsewhere: it is in the resident memory alone. What is stored each second while messages
/// come in counts for them.
pub(crate) fn stages(dir: &Path, agents: u64, found: &mut Found) {
    let dir = fresh(dir);
    let runtime = runtime();
    let crowd = Crowd::again(&dir, agents as usize, agents as usize);
    // The first agent pays for what all of them share.
    runtime.block_on(register(&crowd.engine, &["first".parse().unwrap()]));
    wait_until_stored(&dir, &crowd);
    counting::count();
    let mut stages = vec![taken()];
    crowd.introduce(&runtime);
    stages.push(taken());
    for n in (0..agents * MESSAGES).step_by(GROUP as usize) {
        let wishes = (n..n + GROUP).map(|n| crowd.message(n, Mode::Direct)).collect();
        crowd.engine.send_many_blocking(wishes, true).unwrap();
    }
    for agent in crowd.agents() {
        acknowledge_all(&crowd, agent);
    }
    stages.push(taken());
    wait_until_stored(&dir, &crowd);
    stages.push(taken());
    let whole = [stages[0], stages[stages.len() - 1]];
    for (name, two) in ["agent created", "1,000 messages", "checkpoint"].into_iter().zip(stages.windows(2)) {
        stage(found, name, agents, two);
    }
    stage(found, "all of it", agents, &whole);
    crowd.engine.stop();
    let _ = std::fs::remove_dir_all(&dir);
}

fn stage(found: &mut Found, name: &str, agents: u64, two: &[Taken]) {
    let Allocated { times, bytes, held } = two[1].allocated - two[0].allocated;
    let resident = two[1].anonymous as i64 - two[0].anonymous as i64;
    let each = |value: f64| value / agents as f64;
    let kib = |bytes: f64| each(bytes) / 1_024.0;
    found.figures(
        name,
        [
            Figure::new("allocations", each(times as f64), "an agent", Better::Lower),
            Figure::new("allocated", kib(bytes as f64), "KiB", Better::Lower),
            Figure::new("held", kib(held as f64), "KiB", Better::Lower),
            Figure::new("resident", kib(resident as f64), "KiB", Better::Lower),
        ],
    );
}

fn acknowledge_all(crowd: &Crowd, agent: &AgentId) {
    let inbox = crowd.engine.inbox(agent, Seq::ZERO, usize::MAX);
    let Some(through) = inbox.last().copied() else { return };
    let wish = Upkeep::Acknowledge { agent: agent.clone(), through, also: Vec::new() };
    crowd.engine.upkeep_blocking(agent, wish).unwrap();
}

fn wait_until_stored(dir: &Path, crowd: &Crowd) {
    let head = crowd.engine.log().head().seq;
    let started = Instant::now();
    while stored(&dir.join("talk")).unwrap().is_none_or(|stored| stored.checkpoint < head) {
        assert!(started.elapsed() < PATIENCE, "agents were not stored within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
