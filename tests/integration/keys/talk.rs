//! Keys of messages and conversations.

use serde_json::{Value, json};

use super::super::client::Reply;
use super::super::program::Program;

fn with(keys: &str) -> Program {
    let program = Program::start(&format!("messaging: {{{keys}}}"));
    for agent in ["ada", "bob", "cyd"] {
        program.post("/agents", &json!({"agent_id": agent})).expect(201);
    }
    program
}

fn send(program: &Program, more: &Value) -> Reply {
    let mut body = json!({"performative": "INFORM", "sender": "ada", "receiver": "bob", "content": "hello"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    program.post("/messages", &body)
}

#[test]
fn a_message_is_no_longer_than_the_file_says() {
    let program = with("max_message_size: 10");
    send(&program, &json!({})).expect(201);
    let problem = send(&program, &json!({"content": "longer than that"})).expect(413).json();
    assert!(problem["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{problem}");
}

#[test]
fn an_inbox_holds_as_many_as_the_file_says() {
    let program = with("queue_size: 2");
    send(&program, &json!({})).expect(201);
    send(&program, &json!({})).expect(201);
    send(&program, &json!({})).expect(429);
    send(&program, &json!({"receiver": "cyd"})).expect(201);
}

#[test]
fn a_conversation_has_the_messages_and_agents_of_the_file() {
    let program = with("max_messages: 2, max_participants: 2");
    let first = send(&program, &json!({})).expect(201).json();
    let within = json!({"conversation_id": first["conversation_id"]});
    let third = json!({"conversation_id": first["conversation_id"], "receiver": "cyd"});
    let refused = send(&program, &third).expect(409).json();
    assert!(refused.to_string().contains("participants"), "{refused}");
    send(&program, &within).expect(201);
    let refused = send(&program, &within).expect(409).json();
    assert!(refused.to_string().contains("messages"), "{refused}");
}

#[test]
fn a_conversation_ends_at_the_times_of_the_file() {
    for (keys, end) in
        [("conversation_ttl: 1s", "idle_timeout"), ("conversation_lifetime: 1s", "life_timeout")]
    {
        let program = with(keys);
        let id =
            send(&program, &json!({})).expect(201).json()["conversation_id"].as_str().unwrap().to_owned();
        let mut from = 1;
        loop {
            let path = format!("/events?kinds=conversation.closed&from_seq={from}&wait_seconds=20");
            let page = program.get(&path).expect(200).json();
            from = page["next_seq"].as_u64().unwrap();
            if page["count"] == 1 {
                break;
            }
        }
        // What is in the log is shown a moment later.
        let path = format!("/conversations/{id}?min_seq={}", from - 1);
        let shown = program.get(&path).expect(200).json();
        assert_eq!(shown["end"], end, "{keys}: {shown}");
    }
}
