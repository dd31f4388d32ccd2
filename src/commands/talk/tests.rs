//! Decisions about messages, as tables.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use caxton_events::agent::Health;
use caxton_events::conversation::{Content, Performative, Strategy};
use caxton_events::{AgentId, Seq, Timestamp};
use caxton_projections::talk::TalkState;

use super::protocol::{may_answer, may_cancel};
use super::routing::{NoChoice, Provider, choose, fits, in_version, version_in};
use super::{Answered, Numbers, Outgoing, Overlay, Settings, Situation, To, decide_send};
use crate::commands::RefusalCode;

const NOW: Timestamp = Timestamp::from_unix_micros(1_700_000_000_000_000);

fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

#[test]
fn the_version_that_was_asked_for_is_read_out_of_the_reason() {
    for version in [None, Some("2"), Some("2.0"), Some("1.0.0-rc.1+b7")] {
        let wanted = in_version(version);
        for reason in
            [format!("nobody offers it{wanted}"), format!("none of 3 providers{wanted} can take a message")]
        {
            assert_eq!(version_in(&reason), version, "{reason}");
        }
    }
}

/// What a message with these changes to a valid one becomes: the field and the code of its refusal.
#[track_caller]
fn check(change: impl FnOnce(&mut Outgoing), then: Option<(&str, RefusalCode)>) {
    let state = TalkState::default();
    let settings = Settings { inbox_max: 3, participants_max: 3, ..Settings::default() };
    let situation = Situation { state: &state, under_way: &[], now: NOW, settings: &settings };
    let mut own = Overlay::default();
    own.agents.extend(["bob", "eve", "joe"].map(agent));
    own.load.insert(agent("joe"), 3);
    let ended = || super::situation::Delta { opened: Some((2, 10)), ..Default::default() };
    own.conversations.insert("open".parse().unwrap(), ended());
    own.conversations.insert("full".parse().unwrap(), super::situation::Delta { messages: 10, ..ended() });
    own.conversations.insert("over".parse().unwrap(), super::situation::Delta { ended: true, ..ended() });
    let (to, content) = (To::Agents(vec![agent("bob")]), Content::Text("hi".to_owned()));
    let mut wish = Outgoing::new(agent("ada"), Performative::Inform, to, content);
    change(&mut wish);
    let mut drafts = Vec::new();
    let decided = decide_send(&situation, &mut own, wish, &mut Numbers::seeded(&[1; 32]), &mut drafts);
    let refused = decided.as_ref().err().map(|refusal| (refusal.field.as_str(), refusal.code));
    assert_eq!(refused, then, "{decided:?}");
    if let Err(refusal) = decided {
        assert!(!refusal.message.is_empty() && !refusal.remedy.is_empty());
        assert!(drafts.is_empty());
    }
}

fn to(names: &[&str]) -> To {
    To::Agents(names.iter().map(|name| agent(name)).collect())
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_rule_of_a_message_names_its_field() {
    use Performative as P;
    use RefusalCode as R;
    let text = |text: &str| Content::Text(text.to_owned());
    let at = |micros: u64| Some(Timestamp::from_unix_micros(micros));
    let past = NOW.unix_micros();
    check(|_| (), None);
    check(|wish| wish.to = to(&[]), Some(("receiver", R::Validation)));
    check(|wish| wish.to = to(&["ada"]), Some(("receiver", R::Validation)));
    check(|wish| wish.to = to(&["bob", "bob"]), Some(("receiver", R::Validation)));
    check(|wish| wish.to = to(&["bbo"]), Some(("receiver", R::AgentNotFound)));
    check(|wish| wish.to = to(&["bob", "eve"]), None);
    check(|wish| wish.to = to(&["bob", "eve", "joe"]), Some(("receiver", R::LimitReached)));
    check(|wish| wish.to = to(&["joe"]), Some(("receiver", R::QueueFull)));
    check(|wish| wish.content = text(""), Some(("content", R::Validation)));
    check(|wish| wish.content = text("{\"a\": 1}"), None);
    check(|wish| wish.content = text("{\"a\": 1"), Some(("content", R::Validation)));
    check(|wish| wish.content = text("[1, 2"), Some(("content", R::Validation)));
    check(|wish| (wish.content, wish.plain) = (text("[1, 2"), true), None);
    check(|wish| wish.content = Content::Json("nul".to_owned()), Some(("content", R::Validation)));
    check(|wish| wish.content = text(&"x".repeat((10 << 20) + 1)), Some(("content", R::TooLarge)));
    check(|wish| wish.extras = Some("x".repeat((256 << 10) + 1)), Some(("extras", R::TooLarge)));
    check(|wish| wish.reply_with = Some("x".repeat(256)), Some(("reply_with", R::TooLarge)));
    check(|wish| wish.reply_by = at(past), Some(("reply_by", R::Expired)));
    check(|wish| wish.expires_at = at(past - 1), Some(("expires_at", R::Expired)));
    check(|wish| wish.expires_at = at(past + 1), None);
    check(|wish| wish.in_reply_to = Some("q".to_owned()), Some(("conversation_id", R::Validation)));
    let conversation = |name: &str| Some(name.parse().unwrap());
    check(|wish| wish.conversation = conversation("open"), None);
    check(
        |wish| (wish.conversation, wish.to) = (conversation("open"), to(&["bob", "eve"])),
        Some(("receiver", R::LimitReached)),
    );
    check(
        |wish| wish.conversation = conversation("none"),
        Some(("conversation_id", R::ConversationNotFound)),
    );
    check(|wish| wish.conversation = conversation("over"), Some(("conversation_id", R::ConversationClosed)));
    check(|wish| wish.conversation = conversation("full"), Some(("conversation_id", R::LimitReached)));
    check(|wish| wish.parent = conversation("none"), Some(("parent_conversation", R::ConversationNotFound)));
    let answer = |wish: &mut Outgoing, asked, sender: &str, receiver: &str, performative| {
        (wish.conversation, wish.in_reply_to) = (conversation("open"), Some("q".to_owned()));
        (wish.performative, wish.answered) = (performative, None);
        wish.answered = Some(Answered {
            seq: Seq(1),
            performative: asked,
            sender: agent(sender),
            receivers: vec![agent(receiver)],
        });
    };
    check(|wish| answer(wish, P::Request, "bob", "ada", P::Inform), None);
    check(
        |wish| answer(wish, P::Request, "bob", "eve", P::Inform),
        Some(("in_reply_to", R::ProtocolViolation)),
    );
    check(
        |wish| answer(wish, P::Request, "bob", "ada", P::Propose),
        Some(("performative", R::ProtocolViolation)),
    );
    check(
        |wish| answer(wish, P::Inform, "bob", "ada", P::Inform),
        Some(("performative", R::ProtocolViolation)),
    );
    check(|wish| answer(wish, P::Request, "ada", "bob", P::Cancel), None);
    check(
        |wish| answer(wish, P::Request, "bob", "ada", P::Cancel),
        Some(("performative", R::ProtocolViolation)),
    );
    check(
        |wish| {
            answer(wish, P::Request, "bob", "ada", P::Inform);
            wish.answered = None;
        },
        Some(("in_reply_to", R::MessageNotFound)),
    );
}

#[test]
fn each_performative_has_its_answers() {
    use Performative::{
        AcceptProposal, Agree, Cfp, Confirm, Failure, Inform, NotUnderstood, Propose, Query, Refuse,
        RejectProposal, Request, Subscribe,
    };
    for (question, answer, fits) in [
        (Request, Agree, true),
        (Request, Inform, true),
        (Request, Failure, true),
        (Request, NotUnderstood, true),
        (Request, Propose, false),
        (Query, Inform, true),
        (Query, Confirm, true),
        (Query, AcceptProposal, false),
        (Propose, AcceptProposal, true),
        (Propose, RejectProposal, true),
        (Propose, Inform, false),
        (Cfp, Propose, true),
        (Cfp, Refuse, true),
        (Cfp, Inform, false),
        (AcceptProposal, Inform, true),
        (Subscribe, Inform, true),
        (Inform, Inform, false),
        (Inform, NotUnderstood, true),
        (NotUnderstood, NotUnderstood, false),
    ] {
        assert_eq!(may_answer(question, answer), fits, "{question} {answer}");
    }
    assert!(may_cancel(Request) && !may_cancel(Inform));
}

#[test]
fn each_strategy_chooses_by_its_own_measure() {
    let (a, b, c) = (agent("a"), agent("b"), agent("c"));
    let plain = |agent| Provider {
        agent,
        version: "1.0.0",
        priority: 50,
        health: Health::Healthy,
        unavailable: None,
        load: 0,
        response_micros: Some(1_000),
        success: 1.0,
        in_conversation: false,
    };
    let providers = [
        Provider { priority: 900, load: 500, health: Health::Degraded, ..plain(&a) },
        Provider { load: 3, response_micros: Some(10), ..plain(&b) },
        Provider { load: 1, in_conversation: true, priority: 300, ..plain(&c) },
    ];
    for (strategy, turn, chosen) in [
        (Strategy::Priority, 0, vec![&c]),
        (Strategy::Failover, 0, vec![&c]),
        (Strategy::LeastLoaded, 0, vec![&c]),
        (Strategy::FastestResponse, 0, vec![&b]),
        (Strategy::RoundRobin, 0, vec![&a]),
        (Strategy::RoundRobin, 1, vec![&b]),
        (Strategy::RoundRobin, 5, vec![&c]),
        (Strategy::Broadcast, 0, vec![&a, &b, &c]),
        (Strategy::ContextContinuity, 0, vec![&c]),
        (Strategy::BestMatch, 0, vec![&c]),
    ] {
        let choice = choose(strategy, &providers, turn).unwrap();
        assert_eq!(choice.receivers.iter().collect::<Vec<_>>(), chosen, "{strategy}: {}", choice.reason);
        assert_eq!(choice.candidates.len(), 3);
        assert!(choice.candidates.iter().all(|row| !row.because.is_empty()));
    }
    let rounded = Provider { success: 0.666_66, load: 1_234, response_micros: Some(250_000), ..plain(&a) };
    let choice = choose(Strategy::BestMatch, &[rounded], 0).unwrap();
    let because = "health 1, load 1.000, speed 0.800, success 0.667, priority 50";
    assert_eq!(choice.candidates[0].because, because);
    let others = [1_u64, 2, 1, 7, 2].map(|load| Provider { load, ..plain(&b) });
    let choice = choose(Strategy::BestMatch, &others, 0).unwrap();
    let told: Vec<&str> = choice.candidates.iter().map(|row| &row.because[..20]).collect();
    let each = ["health 1, load 0.001", "health 1, load 0.002", "health 1, load 0.007"];
    assert_eq!(told, [each[0], each[0], each[1], each[1], each[2]], "each by its own weights");
    let down = [
        Provider { health: Health::Unhealthy, ..plain(&a) },
        Provider { unavailable: Some("its circuit is open"), ..plain(&b) },
    ];
    assert!(matches!(choose(Strategy::Broadcast, &down, 0), Err(NoChoice::AllUnavailable { candidates })
        if candidates[1].because == "its circuit is open"));
    assert!(matches!(choose(Strategy::BestMatch, &[], 0), Err(NoChoice::NoProvider { .. })));
}

#[test]
fn a_version_asks_for_its_beginning() {
    for (version, wanted, fit) in [
        ("2.1.0", None, true),
        ("2.1.0", Some("2"), true),
        ("2.1.0", Some("2.1"), true),
        ("2.1.0", Some("2.1.0"), true),
        ("2.1.0", Some("1"), false),
        ("21.0.0", Some("2"), false),
    ] {
        assert_eq!(fits(version, wanted), fit, "{version} {wanted:?}");
    }
}

#[test]
fn a_version_is_numbers_or_what_semantic_versioning_allows() {
    for (text, then) in [
        ("2", true),
        ("2.1", true),
        ("2.1.0", true),
        ("1.0.0-rc.1+b7", true),
        ("1.0.0+b7", true),
        ("", false),
        ("v2", false),
        ("banana", false),
        ("2.", false),
        ("01.0.0", false),
        ("1.0.0.0", false),
        ("2-rc", false),
        ("1.0.0-", false),
    ] {
        assert_eq!(super::routing::is_version(text), then, "{text}");
    }
}
