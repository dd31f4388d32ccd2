//! What an agent said, heard and did: its log, and its figures.

use caxton_events::turn::{ContextPart, TurnEvent};
use caxton_events::{AgentEvent, Draft, Event, Seq, TurnId};
use serde_json::{Value, json};

use super::messages::{request, send, with_agents};
use super::server::Server;

/// The lines of one page.
#[track_caller]
fn lines(server: &Server, query: &str) -> (Vec<Value>, Option<String>) {
    let page = server.get(&format!("/agents/bob/logs?{query}")).expect(200).json();
    let next = page["next_cursor"].as_str().map(str::to_owned);
    (page["logs"].as_array().unwrap().clone(), next)
}

/// The texts of all pages of this size.
#[track_caller]
fn all(server: &Server, query: &str, limit: usize) -> Vec<String> {
    let (mut texts, mut cursor) = (Vec::new(), String::new());
    loop {
        let (page, next) = lines(server, &format!("limit={limit}{query}{cursor}"));
        assert!(page.len() <= limit);
        texts.extend(page.iter().map(|line| line["text"].as_str().unwrap().to_owned()));
        let Some(next) = next else { return texts };
        cursor = format!("&cursor={next}");
    }
}

#[test]
fn what_waits_for_an_agent_that_was_removed_is_read_and_cleared_away() {
    let server = with_agents(&["ada", "bob"]);
    let sent = server.post("/messages", &request("ada", "bob", "hello")).expect(201).json();
    let removed = AgentEvent::ConfigRemoved { agent: "bob".parse().unwrap(), path: "bob.md".to_owned() };
    let draft = Draft {
        stream: "agents".to_owned(),
        actor: "system".to_owned(),
        correlation: None,
        causation: None,
        event: removed.into(),
    };
    server.engine.record(vec![draft]).unwrap();
    server.get("/agents/bob").problem(404, "AGENT_NOT_FOUND");
    let waiting = server.get("/agents/bob/inbox").expect(200).json();
    assert_eq!((&waiting["waiting"], &waiting["messages"][0]["seq"]), (&json!(1), &sent["seq"]));
    let done = server.post("/agents/bob/inbox/ack", &json!({"through": sent["seq"]})).expect(200).json();
    assert_eq!((&done["status"], &done["waiting"]), (&json!("acknowledged"), &json!(0)));
    server.get("/agents/bob").problem(404, "AGENT_NOT_FOUND");
    server.get("/agents/nobody/inbox").problem(404, "AGENT_NOT_FOUND");
}

/// Bob runs by a file here, and takes up the message at `message`.
fn turn(server: &Server, message: Seq) {
    let bob = "bob";
    let turn = TurnId::from_bytes([9; 16]);
    let draft = |event: Event| Draft {
        stream: "s".to_owned(),
        actor: bob.to_owned(),
        correlation: None,
        causation: None,
        event,
    };
    let loaded = AgentEvent::ConfigLoaded {
        agent: bob.parse().unwrap(),
        version: "1.0.0".to_owned(),
        workspace: "default".parse().unwrap(),
        source: caxton_events::agent::ConfigSource::Directory,
        path: "bob.md".to_owned(),
        sha256: "0".to_owned(),
        content: "text".to_owned(),
    };
    let parts: Vec<ContextPart> = Vec::new();
    let (conversation, text) = ("c".parse().unwrap(), String::new);
    let events: Vec<Event> = vec![
        loaded.into(),
        TurnEvent::Started {
            turn,
            agent: bob.parse().unwrap(),
            config: Seq(1),
            message,
            conversation,
            attempt: 1,
        }
        .into(),
        TurnEvent::ContextPrepared {
            turn,
            parts,
            budget_tokens: 10,
            missing_variables: vec!["x".to_owned()],
            system_prompt: text(),
            user_prompt: text(),
        }
        .into(),
        TurnEvent::Failed { turn, reason: "no model".to_owned(), will_retry: false }.into(),
    ];
    server.engine.record(events.into_iter().map(draft).collect()).unwrap();
}

#[test]
fn messages_and_turns_of_an_agent_are_one_log() {
    let server = with_agents(&["ada", "bob"]);
    let first = send(&server, &request("ada", "bob", "one"));
    turn(&server, Seq(first["seq"].as_u64().unwrap()));
    send(&server, &request("bob", "ada", "two"));
    send(&server, &request("ada", "bob", "three"));
    let expected = [
        "REQUEST from ada: one".to_owned(),
        format!("took up the message at {}, attempt 1", first["seq"]),
        "prepared a context of 0 of 10 tokens".to_owned(),
        "came to nothing: no model".to_owned(),
        "REQUEST to ada: two".to_owned(),
        "REQUEST from ada: three".to_owned(),
    ];
    for limit in 1..=7 {
        assert_eq!(all(&server, "&order=oldest", limit), expected, "{limit}");
        let mut newest = all(&server, "", limit);
        newest.reverse();
        assert_eq!(newest, expected, "{limit}");
        assert_eq!(all(&server, "&level=warn&order=oldest", limit), expected[2..4], "{limit}");
        assert_eq!(all(&server, "&level=error", limit), expected[3..4], "{limit}");
    }
    let (page, _) = lines(&server, "order=oldest");
    assert_eq!((&page[0]["event"], &page[0]["level"]), (&json!("message.received"), &json!("info")));
    assert_eq!(page[0]["conversation_id"], first["conversation_id"]);
    assert_eq!((&page[3]["event"], &page[3]["level"]), (&json!("turn.failed"), &json!("error")));
    assert!(page[3]["turn"].as_str().unwrap().starts_with("turn_"), "{}", page[3]);
    assert_eq!(page[4]["event"], "message.sent");
    server.get("/agents/nobody/logs").problem(404, "AGENT_NOT_FOUND");
    assert_eq!(server.get("/agents/bob/logs?level=loud").problem(422, "VALIDATION_ERROR")["field"], "level");
}

#[test]
fn an_agent_shows_what_it_answered_and_when_it_was_active() {
    let server = with_agents(&["ada", "bob"]);
    let fresh = server.get("/agents/bob").expect(200).json();
    assert_eq!(
        (&fresh["last_activity"], &fresh["execution_stats"]["total_requests"]),
        (&Value::Null, &json!(0))
    );
    assert_eq!(fresh["execution_stats"]["average_response_time_ms"], Value::Null);
    for performative in ["INFORM", "FAILURE"] {
        let mut question = request("ada", "bob", "?");
        question["reply_with"] = json!("q");
        let sent = send(&server, &question);
        let answer = json!({
            "performative": performative, "sender": "bob", "receiver": "ada", "content": "!",
            "conversation_id": sent["conversation_id"], "in_reply_to": "q",
        });
        let answered = send(&server, &answer);
        let bob = server.get("/agents/bob").expect(200).json();
        assert_eq!(bob["last_activity"], answered["recorded_at"]);
    }
    let bob = server.get("/agents/bob").expect(200).json();
    let stats = &bob["execution_stats"];
    assert_eq!(
        (&stats["total_requests"], &stats["successful_requests"], &stats["failed_requests"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert!(stats["average_response_time_ms"].as_f64().unwrap() > 0.0, "{stats}");
    assert_eq!((&bob["messages_sent"], &bob["messages_received"]), (&json!(2), &json!(2)));
    let listed = server.get("/agents").expect(200).json();
    assert_eq!(listed["agents"][1]["execution_stats"], *stats);
}
