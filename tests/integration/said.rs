//! Finding messages again: by who said them to whom, where, what for and when, from either end.

use serde_json::{Value, json};

use super::messages::{contents, offer, request, send, with_agents};
use super::server::Server;

/// What is found, over all pages of two.
#[track_caller]
fn found(server: &Server, query: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.get(&format!("/messages?limit=2{query}{cursor}")).expect(200).json();
        assert!(page["count"].as_u64().unwrap() <= 2, "{page}");
        all.extend(contents(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next_cursor"].as_str() else { return all };
        cursor = format!("&cursor={next}");
    }
}

/// The same from the other end is the same turned round.
#[track_caller]
fn check(server: &Server, query: &str, expected: &[&str]) {
    assert_eq!(found(server, query), expected, "{query}");
    let mut oldest = found(server, &format!("{query}&order=oldest"));
    oldest.reverse();
    assert_eq!(oldest, expected, "{query}&order=oldest");
}

/// Five messages among three agents, one of them to a capability.
fn talk() -> (Server, Vec<Value>) {
    let server = with_agents(&["ada", "bob", "eve"]);
    offer(&server, "bob", "chess", 1);
    let mut sent = Vec::new();
    for (sender, receiver, content) in
        [("ada", "bob", "1"), ("ada", "eve", "2"), ("bob", "ada", "3"), ("ada", "bob", "4")]
    {
        let mut body = request(sender, receiver, content);
        if content == "4" {
            body["performative"] = json!("INFORM");
            body["conversation_id"] =
                sent.first().map_or(Value::Null, |first: &Value| first["conversation_id"].clone());
        }
        sent.push(send(&server, &body));
    }
    let body = json!({"performative": "QUERY", "sender": "eve", "capability": "chess", "content": "5"});
    sent.push(send(&server, &body));
    (server, sent)
}

#[test]
fn messages_are_found_by_every_filter_and_their_combinations() {
    let (server, sent) = talk();
    let first = sent[0]["conversation_id"].as_str().unwrap();
    check(&server, "", &["5", "4", "3", "2", "1"]);
    check(&server, "&sender=ada", &["4", "2", "1"]);
    check(&server, "&receiver=bob", &["5", "4", "1"]);
    check(&server, "&sender=ada&receiver=bob", &["4", "1"]);
    check(&server, "&capability=chess", &["5"]);
    check(&server, "&capability=chess&sender=eve", &["5"]);
    check(&server, "&capability=chess&sender=ada", &[]);
    check(&server, &format!("&conversation_id={first}"), &["4", "1"]);
    check(&server, &format!("&conversation_id={first}&sender=bob"), &[]);
    check(&server, "&performative=request", &["3", "2", "1"]);
    check(&server, "&performative=INFORM&sender=ada", &["4"]);
    for nothing in ["&sender=nobody", "&capability=golf", "&conversation_id=none", "&performative=CFP"] {
        check(&server, nothing, &[]);
    }
    let total =
        |query: &str| server.get(&format!("/messages?limit=1{query}")).expect(200).json()["total"].clone();
    assert_eq!((total(""), total("&sender=ada"), total("&sender=nobody")), (json!(5), json!(3), json!(0)));
    assert_eq!(total("&sender=ada&performative=INFORM"), Value::Null);
    let whole = server.get("/messages?sender=eve").expect(200).json();
    assert_eq!(whole["messages"][0]["message_id"], sent[4]["message_id"]);
    assert_eq!(whole["messages"][0]["routing"]["capability"], "chess");
}

#[test]
fn a_stretch_of_time_begins_at_its_first_and_ends_before_its_last_moment() {
    let (server, sent) = talk();
    let at = |index: usize| sent[index]["recorded_at"].as_str().unwrap().to_owned();
    // Two messages may be recorded in one microsecond: then both are in or both are out.
    let within = |index: usize, since: usize, until: usize| at(index) >= at(since) && at(index) < at(until);
    for (since, until) in [(1, 3), (0, 4), (2, 2), (3, 1)] {
        let query = format!("&since={}&until={}", at(since), at(until));
        if at(until) <= at(since) {
            let problem = server.get(&format!("/messages?{}", &query[1..])).problem(422, "VALIDATION_ERROR");
            assert_eq!((&problem["field"], &problem["value"]), (&json!("until"), &json!(at(until))));
            continue;
        }
        let expected: Vec<String> = (0..5)
            .rev()
            .filter(|index| within(*index, since, until))
            .map(|index| (index + 1).to_string())
            .collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(&server, &query, &expected);
        let of_ada: Vec<&str> = expected.into_iter().filter(|text| ["1", "2", "4"].contains(text)).collect();
        check(&server, &format!("{query}&sender=ada"), &of_ada);
    }
    check(&server, "&since=2999-01-01", &[]);
    check(&server, "&until=2001-01-01&receiver=bob", &[]);
    check(&server, "&since=2001-01-01&receiver=eve", &["2"]);
}

#[test]
fn wrong_filters_are_named() {
    let server = with_agents(&["ada"]);
    for (query, field) in [
        ("sender=a%20b", "sender"),
        ("performative=SHOUT", "performative"),
        ("capability=No%20Name", "capability"),
        ("since=yesterday", "since"),
        ("order=random", "order"),
        ("limit=0", "limit"),
        ("reciever=bob", "reciever"),
    ] {
        let problem = server.get(&format!("/messages?{query}")).problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["field"], field, "{query}");
    }
    let page = server.get("/messages?cursor=nonsense");
    page.problem(400, "INVALID_CURSOR");
}
