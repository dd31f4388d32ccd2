//! Tools that are not there, not allowed, hang, say too much or lead elsewhere.

use serde_json::{Value, json};

use super::super::web::{Reply, Request, Web};
use super::{Town, file, of, provider};

/// A model that calls the tool and the arguments that its question names, and then says what came of it.
fn obedient() -> Web {
    Web::start(|request: &Request| {
        let wish: Value = serde_json::from_str(request.last("user")).unwrap();
        if request.step() == 1 {
            return Reply::calls("c", wish["tool"].as_str().unwrap(), &wish["arguments"]);
        }
        let said = request.last("tool");
        let (start, end) = (said.chars().take(300), said.chars().rev().take(300).collect::<Vec<_>>());
        let shown: String = start.chain(['…']).chain(end.into_iter().rev()).collect();
        Reply::says(&format!("{} bytes: {shown}", said.len()))
    })
}

/// Bytes of the result that the model saw.
fn bytes(said: &str) -> usize {
    said.split(' ').next().unwrap().parse().unwrap()
}

fn fetch(url: &str) -> String {
    json!({"tool": "http_client", "arguments": {"url": url}}).to_string()
}

#[test]
fn a_tool_that_is_not_there_or_not_allowed_is_refused_and_the_turn_goes_on() {
    let model = obedient();
    let agents = [("ada", file("ada", "talk", "tools: [memory]"))];
    let town = Town::with(&[provider("m", &model, "")], "", &agents);
    for (tool, words) in [
        ("teleport", "there is no tool"),
        ("http_client", "may not call"),
        ("mcp__none__x", "there is no tool"),
        ("", "a tool without a name"),
    ] {
        let sent = town.ask("ada", &json!({"tool": tool, "arguments": {"url": "http://x/"}}).to_string());
        let answer = town.answer(&sent);
        let (turn, said) = (town.turn(&sent), answer["content"].as_str().unwrap());
        assert!(said.contains(words), "{tool}: {answer}");
        if tool.is_empty() {
            assert_eq!(answer["performative"], "FAILURE");
            continue;
        }
        assert_eq!(answer["performative"], "INFORM", "{tool}: {answer}");
        assert_eq!(of(&turn, "turn.tool_refused", "tool"), [tool]);
        assert!(of(&turn, "turn.tool_answered", "result").is_empty());
    }
}

#[test]
fn arguments_that_a_tool_does_not_take_are_told_to_the_model() {
    let model = obedient();
    let agents = [("ada", file("ada", "talk", "tools: [memory]"))];
    let town = Town::with(&[provider("m", &model, "")], "", &agents);
    let wish = json!({"tool": "memory", "arguments": {"operation": "store", "entity": "x", "color": "red"}});
    let sent = town.ask("ada", &wish.to_string());
    assert!(town.answer(&sent)["content"].as_str().unwrap().contains("color"));
    assert_eq!(of(&town.turn(&sent), "turn.tool_answered", "failed"), [true]);
    assert!(town.events("memory.entity_created").is_empty());
}

#[test]
fn a_site_that_hangs_floods_or_leads_elsewhere_fails_its_call_alone() {
    let model = obedient();
    let site = Web::start(|request: &Request| {
        let path = request.head.split(' ').nth(1).unwrap();
        match path {
            "/hang" => Reply::silence(),
            "/flood" => Reply::of(200, "content-type: text/plain\r\n", &vec![b'x'; 50_000_000]),
            "/endless" => {
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\n";
                Reply::raw(&(head.to_owned() + &"y".repeat(50_000_000)))
            }
            "/metadata" => Reply::of(302, "location: http://169.254.169.254/latest/meta-data/\r\n", b""),
            "/elsewhere" => Reply::of(302, "location: http://10.0.0.1/secret\r\n", b""),
            "/round" => Reply::of(302, "location: /round\r\n", b""),
            _ => Reply::of(200, "content-type: text/plain\r\n", b"a page"),
        }
    });
    let open = "tools: [http_client]\npermissions: {allowed_hosts: [127.0.0.1, 169.254.169.254], private_addresses: true}\n\
                resource_limits: {tool_call_timeout: 300ms, response_timeout: 1m}";
    let unhurried = open.replace("tool_call_timeout: 300ms", "tool_call_timeout: 1m");
    let narrow = "tools: [http_client]\npermissions: {allowed_hosts: [127.0.0.1, localhost]}";
    let agents = [
        ("hasty", file("hasty", "hurry", open)),
        ("open", file("open", "browse", &unhurried)),
        ("narrow", file("narrow", "look", narrow)),
    ];
    let town = Town::with(&[provider("m", &model, "")], "agents: {tool_call_timeout: 1m}", &agents);
    for (agent, url, words) in [
        ("open", site.url("/page"), "a page"),
        ("hasty", site.url("/hang"), "no result within"),
        ("open", site.url("/flood"), "\"truncated\":true"),
        ("open", site.url("/endless"), "\"truncated\":true"),
        ("open", site.url("/metadata"), "metadata service"),
        ("open", site.url("/elsewhere"), "10.0.0.1"),
        ("open", site.url("/round"), "more than 3 redirects"),
        ("narrow", site.url("/page"), "a private network"),
        ("narrow", site.url("/page").replace("127.0.0.1", "localhost"), "a private network"),
        ("narrow", "http://example.com/".to_owned(), "example.com"),
        ("open", site.url("/page"), "a page"),
    ] {
        let sent = town.ask(agent, &fetch(&url));
        let answer = town.answer(&sent);
        let said = answer["content"].as_str().unwrap();
        assert!(answer["performative"] == "INFORM" && said.contains(words), "{url}: {said:.500}");
        assert!(bytes(said) <= 1 << 20, "{url}: {} bytes", bytes(said));
        let turn = town.turn(&sent);
        let (failed, refused) =
            (of(&turn, "turn.tool_answered", "failed"), of(&turn, "turn.tool_refused", "tool"));
        if agent == "narrow" {
            assert!(failed.is_empty() && refused == ["http_client"], "{url}: {turn:?}");
        } else {
            let whole = ["/page", "/flood", "/endless"].iter().any(|path| url.ends_with(path));
            assert!(refused.is_empty() && failed == [!whole], "{url}: {failed:?} {refused:?}");
        }
    }
}

#[test]
fn what_the_turns_of_a_conversation_wrote_is_undone_and_nothing_else() {
    let model = obedient();
    let agents = [("ada", file("ada", "talk", "tools: [memory]"))];
    let town = Town::with(&[provider("m", &model, "")], "", &agents);
    let store = |entity: &str| {
        let arguments = json!({"operation": "store", "entity": entity, "observations": ["was heard of"]});
        let sent = town.ask("ada", &json!({"tool": "memory", "arguments": arguments}).to_string());
        assert_eq!(town.answer(&sent)["performative"], "INFORM");
        sent
    };
    let (rumour, _) = (store("rumour"), store("truth"));
    let ask = json!({"conversation_id": rumour["conversation_id"]});
    let undone = town.post("/memory/undo", &ask);
    assert_eq!((&undone["selected"], &undone["removed"]), (&json!(2), &json!(2)), "{undone}");
    let left = town.get("/memory/entities?agent_id=ada");
    let names: Vec<_> = left["entities"].as_array().unwrap().iter().map(|row| &row["entity_name"]).collect();
    assert_eq!(names, [&json!("truth")]);
}
