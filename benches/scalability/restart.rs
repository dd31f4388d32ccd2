//! How soon the engine is ready again over a log full of messages.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_projections::Projection as _;
use caxton_projections::talk::TalkStore;

use crate::crowd::closed_loop::{Load, Running};
use crate::crowd::table::Table;
use crate::crowd::{Crowd, Mode, fresh, runtime};

const AGENTS: usize = 1_000;
const CONVERSATIONS: usize = 100_000;
const LOAD: Load = Load { mode: Mode::Direct, in_flight: 2_048, group: 64 };
const READY_MAX: Duration = Duration::from_secs(2);
/// How long the process that is killed has sent.
const GOES_ON: Duration = Duration::from_secs(4);

/// The other process: `fill` ends in order, `go-on` sends until it is killed.
pub(crate) fn child(dir: &Path, role: &str, messages: u64) {
    let runtime = runtime();
    let crowd = Arc::new(match role {
        "fill" => Crowd::talking(dir, &runtime, AGENTS, CONVERSATIONS),
        _ => Crowd::again(dir, AGENTS, CONVERSATIONS),
    });
    let running = Running::start(&crowd, &runtime, LOAD, 0);
    println!("ready");
    while role != "fill" || running.answered() < messages {
        std::thread::sleep(Duration::from_millis(1));
    }
    running.stop(&runtime);
    crowd.engine.stop();
}

/// Starts the other process and waits until it sends.
fn start(dir: &Path, role: &str, messages: u64) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--child", role, "--messages", &messages.to_string(), "--dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    child
}

/// What a start was like.
struct Ready {
    started: Duration,
    /// When the first message was durable.
    sent: Duration,
    messages: u64,
    /// Records that were not stored and had to be folded.
    folded: u64,
}

/// Starts the engine, sends a message, stops.
fn ready(dir: &Path) -> Ready {
    let stored = TalkStore::open(&dir.join("talk")).unwrap().0.checkpoint();
    let begin = Instant::now();
    let crowd = Crowd::again(dir, AGENTS, CONVERSATIONS);
    let started = begin.elapsed();
    crowd.engine.send_blocking(crowd.message(0, Mode::Direct)).unwrap();
    let sent = begin.elapsed();
    let messages = crowd.engine.view().talk().read().conversations.messages();
    let folded = crowd.engine.log().head().seq.0 - stored.0;
    crowd.engine.stop();
    Ready { started, sent, messages, folded }
}

/// After an orderly end, after a kill, and without what was folded.
pub(crate) fn restarts(dir: &Path, messages: u64, table: &mut Table) {
    let dir = fresh(dir);
    assert!(start(&dir, "fill", messages).wait().unwrap().success());
    let mut row = |what: &str, judged: bool| {
        let Ready { started, sent, messages: found, folded } = ready(&dir);
        assert!(found > messages, "{found} messages");
        let figure = format!(
            "{started:.2?}, first message after {sent:.2?}; {found} messages, {folded} records to fold"
        );
        if judged {
            table.row(what, figure, "≤ 2 s", sent <= READY_MAX);
        } else {
            table.note(what, figure);
        }
    };
    row("start after an orderly end", true);
    let mut killed = start(&dir, "go-on", messages);
    std::thread::sleep(GOES_ON);
    killed.kill().unwrap();
    killed.wait().unwrap();
    row("start after a kill", true);
    std::fs::remove_dir_all(dir.join("talk")).unwrap();
    row("start without what was folded", false);
}
