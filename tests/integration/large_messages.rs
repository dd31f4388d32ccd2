//! Messages that are so large that a page of them is short.

use serde_json::{Value, json};

use super::messages::{inbox, request, send, with_agents};
use super::server::Server;

/// How many rows each page has, up to the last one.
#[track_caller]
fn pages(server: &Server, path: &str, rows: &str) -> Vec<usize> {
    let (mut counts, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{path}{cursor}")).expect(200).json();
        counts.push(page[rows].as_array().unwrap().len());
        let Some(next) = page["next_cursor"].as_str() else { return counts };
        cursor = format!("&cursor={next}");
    }
}

#[test]
fn a_page_of_large_messages_is_short_and_the_next_one_goes_on_behind_it() {
    let server = with_agents(&["bob"]);
    server.post("/conversations", &json!({"conversation_id": "c"})).expect(201);
    let large = "x".repeat(9 << 20);
    let mut seqs = Vec::new();
    for _ in 0..3 {
        let mut body = request("ada", "bob", &large);
        body["performative"] = json!("INFORM");
        body["conversation_id"] = json!("c");
        seqs.push(send(&server, &body)["seq"].as_u64().unwrap());
    }
    for (path, rows) in [
        ("/conversations/c/messages?limit=9", "messages"),
        ("/messages?receiver=bob", "messages"),
        ("/messages?order=oldest", "messages"),
        ("/agents/bob/logs?order=newest", "logs"),
        ("/agents/bob/logs?order=oldest", "logs"),
    ] {
        assert_eq!(pages(&server, path, rows), [2, 1], "{path}");
    }

    let events = |from: u64| -> Value {
        let path = format!("/events?kinds=conversation.message_sent&from_seq={from}");
        server.get(&path).expect(200).json()
    };
    let first = events(1);
    assert_eq!((&first["count"], &first["next_seq"]), (&json!(2), &json!(seqs[2])));
    assert_eq!(events(seqs[2])["count"], 1);

    let first = inbox(&server, "bob", "");
    assert_eq!((&first["count"], &first["next_after"]), (&json!(2), &json!(seqs[1])));
    let rest = inbox(&server, "bob", &format!("?after={}", seqs[1]));
    assert_eq!((&rest["count"], &rest["next_after"]), (&json!(1), &json!(seqs[2])));

    // What a consumer did not get it gets when it has done what it got.
    assert_eq!(inbox(&server, "bob", "?consumer=one")["count"], 2);
    server.post("/agents/bob/inbox/ack", &json!({"through": seqs[1]})).expect(200);
    assert_eq!(inbox(&server, "bob", "?consumer=one")["messages"][0]["seq"], seqs[2]);
}
