//! Messages routed and made durable in process, and whether the projections keep up with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_events::conversation::{Message, Performative, Priority, Strategy};
use caxton_events::log::Log;
use caxton_events::{ConversationEvent, Draft};

use crate::crowd::closed_loop::{Load, Running, rate};
use crate::crowd::medium::{at, syncs};
use crate::crowd::table::Table;
use crate::crowd::{Crowd, Mode, fresh, runtime};
use crate::log::{groups_of, open_log};

const AGENTS: usize = 1_000;
const IN_FLIGHT: usize = 2_048;
const RATE_MIN: f64 = 200_000.0;
const SUSTAINED_MIN: f64 = 100_000.0;
const SHARE_OF_LOG_MIN: f64 = 0.4;
/// Records that the projections may be behind at any moment of the long run: eight groups of the router.
const LAG_MAX: u64 = 8 * 2_048;

/// What was asked for.
pub(crate) struct Options {
    pub(crate) dir: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    pub(crate) only: String,
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Every way to send, in turns.
pub(crate) fn rates(options: &Options, table: &mut Table) {
    let direct = Mode::Direct;
    let round_robin = Mode::Capability(Strategy::RoundRobin);
    let best_match = Mode::Capability(Strategy::BestMatch);
    let way = |mode, group| Load { mode, in_flight: IN_FLIGHT, group };
    let ways = [
        ("direct, one a call", way(direct, 1), true),
        ("direct, 64 a call", way(direct, 64), true),
        ("direct with message_id, one a call", way(Mode::Numbered, 1), true),
        ("capability round_robin, one a call", way(round_robin, 1), true),
        ("capability round_robin, 64 a call", way(round_robin, 64), true),
        ("capability best_match, one a call", way(best_match, 1), true),
        ("capability best_match, 64 a call", way(best_match, 64), true),
        ("each opens a conversation, one a call", way(Mode::Opening, 1), false),
    ];
    let runtime = runtime();
    let mut rates = vec![Vec::new(); ways.len()];
    for round in 0..options.rounds {
        for turn in 0..ways.len() {
            let which = (round + turn) % ways.len();
            let (what, load, _) = ways[which];
            if what.contains(&options.only) {
                let crowd = Arc::new(Crowd::start(&fresh(&options.dir), &runtime, AGENTS));
                let (rate, _) = rate(&crowd, &runtime, load, Duration::from_secs(options.seconds), 0);
                println!("  round {}: {what}: {rate:.0}/s", round + 1);
                crowd.engine.stop();
                rates[which].push(rate);
            }
        }
    }
    for ((what, _, judged), rates) in ways.iter().zip(&mut rates).filter(|(_, rates)| !rates.is_empty()) {
        let median = median(rates);
        let figure = format!("{median:.0}/s ({:.0} to {:.0})", rates[0], rates[rates.len() - 1]);
        if *judged {
            table.row(*what, figure, format!("≥ {RATE_MIN:.0}/s"), median >= RATE_MIN);
        } else {
            table.note(*what, figure);
        }
    }
    let medium = syncs(&fresh(&options.dir), 500);
    table.note("fdatasync of 4 KiB", format!("p50 {:?}, p99 {:?}", at(&medium, 0.5), at(&medium, 0.99)));
}

/// The messages as events, for the log alone.
fn draft(crowd: &Crowd, n: u64) -> Draft {
    let wish = crowd.message(n, Mode::Direct);
    let caxton::commands::talk::To::Agents(receivers) = wish.to else { unreachable!("it is direct") };
    let (conversation, actor) = (wish.conversation.unwrap(), wish.sender.as_str().to_owned());
    let stream = conversation.as_str().to_owned();
    let message = Message {
        id: caxton_events::MessageId::from_bytes(u128::from(n).to_be_bytes()),
        id_given: false,
        performative: Performative::Inform,
        sender: wish.sender,
        receivers,
        routing: None,
        conversation,
        content: wish.content,
        priority: Priority::Normal,
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        expires_at: None,
        extras: None,
    };
    let event = ConversationEvent::MessageSent(Box::new(message)).into();
    Draft { stream, actor, correlation: None, causation: None, event }
}

/// Messages a second that the log alone takes, in groups of 2,048, until it holds `count`: it slows down as its file
/// grows.
fn log_alone(dir: &Path, crowd: &Crowd, count: u64) -> f64 {
    let log: Log = open_log(&fresh(dir), 4_096);
    groups_of(&log, IN_FLIGHT, (count as usize).div_ceil(IN_FLIGHT), |n| draft(crowd, n))
}

/// A long run at full speed: how far behind the projections are, and how soon they are there after it.
pub(crate) fn sustained(options: &Options, table: &mut Table) {
    let runtime = runtime();
    let dir = options.dir.join("sustained");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let crowd = Arc::new(Crowd::start(&dir, &runtime, AGENTS));
    let load = Load { mode: Mode::Direct, in_flight: IN_FLIGHT, group: 64 };
    let running = Running::start(&crowd, &runtime, load, 0);
    let (start, time) = (Instant::now(), Duration::from_secs(options.seconds));
    let (mut lags, mut slowest, mut last) = (Vec::new(), f64::MAX, (0, start));
    while start.elapsed() < time {
        std::thread::sleep(Duration::from_millis(50));
        lags.push(crowd.lag());
        if last.1.elapsed() >= Duration::from_secs(5) {
            let now = (running.answered(), Instant::now());
            let rate = (now.0 - last.0) as f64 / (now.1 - last.1).as_secs_f64();
            println!(
                "  {:.0} s: {rate:.0}/s, {} behind",
                start.elapsed().as_secs_f64(),
                lags[lags.len() - 1]
            );
            (slowest, last) = (slowest.min(rate), now);
        }
    }
    let sent = running.answered();
    let rate = sent as f64 / start.elapsed().as_secs_f64();
    let sent_at_all = running.stop(&runtime);
    let stopped = Instant::now();
    while crowd.lag() > 0 && stopped.elapsed() < Duration::from_mins(1) {
        std::thread::yield_now();
    }
    let settled = stopped.elapsed();
    crowd.engine.stop();
    let _ = std::fs::remove_dir_all(&dir);
    let alone = log_alone(&options.dir, &crowd, sent_at_all);
    lags.sort_unstable();
    let (p99, worst) = (lags[lags.len() * 99 / 100], lags[lags.len() - 1]);
    let what = format!("sustained for {} s", options.seconds);
    table.row(
        &what,
        format!("{rate:.0}/s, slowest 5 s {slowest:.0}/s"),
        format!("≥ {SUSTAINED_MIN:.0}/s"),
        rate >= SUSTAINED_MIN,
    );
    let share = rate / alone;
    table.row(
        "its share of the log alone",
        format!("{share:.2} of {alone:.0}/s"),
        format!("≥ {SHARE_OF_LOG_MIN}"),
        share >= SHARE_OF_LOG_MIN,
    );
    table.row("records behind", format!("p99 {p99}, most {worst}"), format!("≤ {LAG_MAX}"), worst <= LAG_MAX);
    table.row("none behind after", format!("{settled:?}"), "≤ 5 s", settled <= Duration::from_secs(5));
}
