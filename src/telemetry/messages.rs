//! Metrics of messages: what was sent and what became of it, routing, inboxes, conversations, deadlines, streams.
//!
//! Messages are counted in plain numbers of the process and become metrics when somebody asks: a message is worth a few
//! nanoseconds of counting, not more.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use caxton_events::conversation::{ConversationEnd, DeadLetterReason, Message, Performative, Strategy};
use caxton_events::{ConversationEvent, Event, Record};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const MESSAGES: &str = "caxton_messages_total";
const MESSAGE_LATENCY: &str = "caxton_message_latency_seconds";
const ROUTING_DECISIONS: &str = "caxton_routing_decisions_total";
const DEAD_LETTERS: &str = "caxton_dead_letters_total";
const DEAD_LETTERS_KEPT: &str = "caxton_dead_letters_kept";
const DEADLINES: &str = "caxton_deadlines_fired_total";
const RETRIES: &str = "caxton_message_retries_total";
const REQUESTS_WAITING: &str = "caxton_message_requests_waiting";
const INBOX_WAITING: &str = "caxton_inbox_messages_waiting";
const INBOX_WAITING_MAX: &str = "caxton_inbox_messages_waiting_max";
const INBOX_LAG: &str = "caxton_inbox_lag_seconds";
const CONVERSATIONS_OPEN: &str = "caxton_conversations_open";
const CONVERSATIONS_KEPT: &str = "caxton_conversations_kept";
const AGENTS: &str = "caxton_agents_registered";
const STREAMS_OPEN: &str = "caxton_sse_streams_open";

/// Gives each metric its help text, and the idle ones their first value.
pub(super) fn describe() {
    for (name, help) in [
        (MESSAGES, "Messages since the start, by performative and outcome."),
        (ROUTING_DECISIONS, "Messages to a capability, by strategy and outcome."),
        (DEAD_LETTERS, "Messages that were given up, by reason."),
        (DEADLINES, "Deadlines that passed: of a reply, of a message, of a conversation."),
        (RETRIES, "Attempts to handle a message that failed and are made again."),
    ] {
        describe_counter!(name, Unit::Count, help);
    }
    let latency = "Time of a request to send messages, from hand-over to recorded, folded and answered.";
    describe_histogram!(MESSAGE_LATENCY, Unit::Seconds, latency);
    for (name, unit, help) in [
        (REQUESTS_WAITING, Unit::Count, "Requests that wait for the message router."),
        (INBOX_WAITING, Unit::Count, "Messages that their receivers are not done with, in all inboxes."),
        (INBOX_WAITING_MAX, Unit::Count, "The same in the fullest inbox."),
        (INBOX_LAG, Unit::Seconds, "Age of the oldest message that its receiver is not done with."),
        (CONVERSATIONS_OPEN, Unit::Count, "Conversations that take messages."),
        (CONVERSATIONS_KEPT, Unit::Count, "Conversations that are known, ended ones too."),
        (DEAD_LETTERS_KEPT, Unit::Count, "Dead letters that are listed."),
        (AGENTS, Unit::Count, "Agents that are known, by kind: from files, or outside of the server."),
        (STREAMS_OPEN, Unit::Count, "Server-sent event streams to clients, by what they show."),
    ] {
        describe_gauge!(name, unit, help);
    }
    talk_measured(&TalkMeasured::default());
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageOutcome {
    /// It is in the inbox of somebody.
    Delivered,
    /// It is recorded and nobody gets it.
    DeadLettered,
    /// Its number was known with the same content: nothing was recorded.
    Repeated,
    /// The rules said no: nothing was recorded.
    Refused,
}

impl MessageOutcome {
    const ALL: [Self; 4] = [Self::Delivered, Self::DeadLettered, Self::Repeated, Self::Refused];

    /// The word in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::DeadLettered => "dead_lettered",
            Self::Repeated => "repeated",
            Self::Refused => "refused",
        }
    }
}

/// What routing to a capability came to.
#[derive(Debug, Clone, Copy)]
enum Routed {
    Found,
    NoProvider,
    AllUnavailable,
}

impl Routed {
    const ALL: [Self; 3] = [Self::Found, Self::NoProvider, Self::AllUnavailable];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "routed",
            Self::NoProvider => "no_provider",
            Self::AllUnavailable => "all_unavailable",
        }
    }
}

/// Whose time was over.
#[derive(Debug, Clone, Copy)]
enum Fired {
    Reply,
    Expiry,
    Idle,
    Life,
}

impl Fired {
    const ALL: [Self; 4] = [Self::Reply, Self::Expiry, Self::Idle, Self::Life];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Expiry => "message",
            Self::Idle => "conversation_idle",
            Self::Life => "conversation_life",
        }
    }
}

/// Counts since the process started.
struct Counts {
    messages: [[AtomicU64; MessageOutcome::ALL.len()]; Performative::ALL.len()],
    routed: [[AtomicU64; Routed::ALL.len()]; Strategy::ALL.len()],
    dead_letters: [AtomicU64; DeadLetterReason::ALL.len()],
    deadlines: [AtomicU64; Fired::ALL.len()],
    retries: AtomicU64,
}

impl Counts {
    const fn new() -> Self {
        Self {
            messages: [const { [const { AtomicU64::new(0) }; MessageOutcome::ALL.len()] };
                Performative::ALL.len()],
            routed: [const { [const { AtomicU64::new(0) }; Routed::ALL.len()] }; Strategy::ALL.len()],
            dead_letters: [const { AtomicU64::new(0) }; DeadLetterReason::ALL.len()],
            deadlines: [const { AtomicU64::new(0) }; Fired::ALL.len()],
            retries: AtomicU64::new(0),
        }
    }

    fn message(&self, performative: Performative, outcome: MessageOutcome) {
        add(&self.messages[performative as usize][outcome as usize]);
    }

    fn recorded(&self, record: &Record) {
        let Event::Conversation(event) = &record.event else { return };
        match event {
            ConversationEvent::MessageSent(message) => self.sent(message),
            ConversationEvent::MessageExpired { .. } => add(&self.deadlines[Fired::Expiry as usize]),
            ConversationEvent::ReplyOverdue { .. } => add(&self.deadlines[Fired::Reply as usize]),
            ConversationEvent::Closed { end: ConversationEnd::IdleTimeout, .. } => {
                add(&self.deadlines[Fired::Idle as usize]);
            }
            ConversationEvent::Closed { end: ConversationEnd::LifeTimeout, .. } => {
                add(&self.deadlines[Fired::Life as usize]);
            }
            ConversationEvent::DeliveryRetried { .. } => add(&self.retries),
            ConversationEvent::MessageDeadLettered { reason, .. } => {
                add(&self.dead_letters[*reason as usize]);
            }
            ConversationEvent::Opened { .. }
            | ConversationEvent::Closed { .. }
            | ConversationEvent::DeadLetterReplayed { .. }
            | ConversationEvent::InboxAcknowledged { .. }
            | ConversationEvent::Extended { .. }
            | ConversationEvent::Archived { .. } => (),
        }
    }

    fn sent(&self, message: &Message) {
        let nobody = message.receivers.is_empty();
        let outcome = if nobody { MessageOutcome::DeadLettered } else { MessageOutcome::Delivered };
        self.message(message.performative, outcome);
        if let Some(routing) = &message.routing {
            let routed = match (nobody, routing.candidates.is_empty()) {
                (false, _) => Routed::Found,
                (true, true) => Routed::NoProvider,
                (true, false) => Routed::AllUnavailable,
            };
            add(&self.routed[routing.strategy as usize][routed as usize]);
        }
    }

    /// Brings the counters of the recorder up to these.
    fn publish(&self) {
        for (performative, outcomes) in Performative::ALL.iter().zip(&self.messages) {
            for (outcome, count) in MessageOutcome::ALL.iter().zip(outcomes) {
                if let Some(count) = some(count) {
                    let labels = [("performative", performative.as_str()), ("outcome", outcome.as_str())];
                    counter!(MESSAGES, &labels).absolute(count);
                }
            }
        }
        for (strategy, outcomes) in Strategy::ALL.iter().zip(&self.routed) {
            for (outcome, count) in Routed::ALL.iter().zip(outcomes) {
                if let Some(count) = some(count) {
                    let labels = [("strategy", strategy.as_str()), ("outcome", outcome.as_str())];
                    counter!(ROUTING_DECISIONS, &labels).absolute(count);
                }
            }
        }
        // These have few labels: they are there from the start, so that an alarm can be written before the first.
        for (reason, count) in DeadLetterReason::ALL.iter().zip(&self.dead_letters) {
            counter!(DEAD_LETTERS, "reason" => reason.as_str()).absolute(count.load(Ordering::Relaxed));
        }
        for (fired, count) in Fired::ALL.iter().zip(&self.deadlines) {
            counter!(DEADLINES, "deadline" => fired.as_str()).absolute(count.load(Ordering::Relaxed));
        }
        counter!(RETRIES).absolute(self.retries.load(Ordering::Relaxed));
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn some(count: &AtomicU64) -> Option<u64> {
    Some(count.load(Ordering::Relaxed)).filter(|count| *count > 0)
}

static COUNTS: Counts = Counts::new();

/// Events of messages and conversations were recorded.
pub fn talk_recorded(records: &[Record]) {
    for record in records {
        COUNTS.recorded(record);
    }
}

/// A message was not recorded: the rules said no, or it is there already.
pub fn message_not_recorded(performative: Performative, outcome: MessageOutcome) {
    COUNTS.message(performative, outcome);
}

/// A request to send messages was answered with success.
pub fn messages_answered(took: Duration) {
    histogram!(MESSAGE_LATENCY).record(took.as_secs_f64());
}

/// What waits and what is there, at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct TalkMeasured {
    /// Requests that wait for the message router.
    pub requests_waiting: usize,
    /// Messages that their receivers are not done with.
    pub inbox_waiting: u64,
    /// The same in the fullest inbox.
    pub inbox_waiting_max: u64,
    /// Age of the oldest of them.
    pub inbox_lag: Duration,
    /// Conversations that take messages.
    pub conversations_open: usize,
    /// All conversations.
    pub conversations: usize,
    /// Dead letters.
    pub dead_letters: usize,
    /// Agents from files.
    pub config_agents: usize,
    /// Agents outside of the server.
    pub external_agents: usize,
}

/// Notes what waits and what is there.
pub fn talk_measured(now: &TalkMeasured) {
    gauge!(REQUESTS_WAITING).set(now.requests_waiting as f64);
    gauge!(INBOX_WAITING).set(now.inbox_waiting as f64);
    gauge!(INBOX_WAITING_MAX).set(now.inbox_waiting_max as f64);
    gauge!(INBOX_LAG).set(now.inbox_lag.as_secs_f64());
    gauge!(CONVERSATIONS_OPEN).set(now.conversations_open as f64);
    gauge!(CONVERSATIONS_KEPT).set(now.conversations as f64);
    gauge!(DEAD_LETTERS_KEPT).set(now.dead_letters as f64);
    gauge!(AGENTS, "kind" => "config").set(now.config_agents as f64);
    gauge!(AGENTS, "kind" => "external").set(now.external_agents as f64);
}

/// What a stream of server-sent events shows.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    /// Events of the log.
    Events,
    /// The messages of an inbox.
    Inbox,
}

impl Stream {
    const ALL: [Self; 2] = [Self::Events, Self::Inbox];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Inbox => "inbox",
        }
    }
}

static STREAMS: [AtomicI64; 2] = [const { AtomicI64::new(0) }; 2];

/// A stream to a client, open until this is dropped.
#[derive(Debug)]
pub struct OpenStream(Stream);

/// A client opened a stream.
pub fn stream_opened(stream: Stream) -> OpenStream {
    STREAMS[stream as usize].fetch_add(1, Ordering::Relaxed);
    OpenStream(stream)
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        STREAMS[self.0 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Brings the metrics up to what was counted.
pub(super) fn publish() {
    COUNTS.publish();
    for (stream, open) in Stream::ALL.iter().zip(&STREAMS) {
        gauge!(STREAMS_OPEN, "stream" => stream.as_str()).set(open.load(Ordering::Relaxed) as f64);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use caxton_events::conversation::{Candidate, Content, Priority, Routing};
    use caxton_events::{MessageId, Seq, Timestamp};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn record(event: ConversationEvent) -> Record {
        Record {
            seq: Seq(1),
            recorded_at: Timestamp::from_unix_micros(1),
            stream: "s".to_owned(),
            actor: "a".to_owned(),
            correlation: None,
            causation: None,
            event: event.into(),
        }
    }

    fn message(receivers: &[&str], candidates: Option<usize>) -> ConversationEvent {
        let candidate = Candidate { agent: "bob".parse().unwrap(), score: 1.0, because: "".into() };
        let routing = candidates.map(|count| Routing {
            capability: "chess".parse().unwrap(),
            strategy: Strategy::Failover,
            candidates: vec![candidate.clone(); count],
            reason: String::new(),
        });
        ConversationEvent::MessageSent(Box::new(Message {
            id: MessageId::from_bytes([1; 16]),
            id_given: false,
            performative: Performative::Subscribe,
            sender: "ada".parse().unwrap(),
            receivers: receivers.iter().map(|name| name.parse().unwrap()).collect(),
            routing,
            conversation: "c".parse().unwrap(),
            content: Content::Text("x".to_owned()),
            priority: Priority::Normal,
            reply_with: None,
            in_reply_to: None,
            reply_by: None,
            expires_at: None,
            extras: None,
        }))
    }

    #[test]
    fn each_event_moves_the_counter_it_is_about() {
        let counts = Counts::new();
        let conversation = || "c".parse().unwrap();
        let closed = |end| ConversationEvent::Closed { conversation: conversation(), end };
        for event in [
            message(&["bob"], None),
            message(&["bob"], Some(1)),
            message(&[], Some(0)),
            message(&[], Some(2)),
            closed(ConversationEnd::Completed),
            closed(ConversationEnd::IdleTimeout),
            closed(ConversationEnd::LifeTimeout),
            ConversationEvent::ReplyOverdue { sent: Seq(1), message: MessageId::from_bytes([1; 16]) },
        ] {
            counts.recorded(&record(event));
        }
        counts.message(Performative::Cfp, MessageOutcome::Refused);
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            counts.publish();
            counts.publish();
        });
        let text = recorder.handle().render();
        for line in [
            "caxton_messages_total{performative=\"SUBSCRIBE\",outcome=\"delivered\"} 2",
            "caxton_messages_total{performative=\"SUBSCRIBE\",outcome=\"dead_lettered\"} 2",
            "caxton_messages_total{performative=\"CFP\",outcome=\"refused\"} 1",
            "caxton_routing_decisions_total{strategy=\"failover\",outcome=\"routed\"} 1",
            "caxton_routing_decisions_total{strategy=\"failover\",outcome=\"no_provider\"} 1",
            "caxton_routing_decisions_total{strategy=\"failover\",outcome=\"all_unavailable\"} 1",
            "caxton_deadlines_fired_total{deadline=\"reply\"} 1",
            "caxton_deadlines_fired_total{deadline=\"message\"} 0",
            "caxton_deadlines_fired_total{deadline=\"conversation_idle\"} 1",
            "caxton_deadlines_fired_total{deadline=\"conversation_life\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }
}
