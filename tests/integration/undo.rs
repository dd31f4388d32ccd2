//! Undo through the door and on the command line.

use serde_json::{Value, json};

use super::cli::{check, check_failure, json as cli_json, run};
use super::client::Reply;
use super::server::Server;

impl Server {
    /// Agent `agent` notes `texts` about a thing that all see.
    #[track_caller]
    fn note(&self, agent: &str, name: &str, texts: &[&str]) -> Value {
        let body = json!({
            "agent_id": agent, "memory_scope": "global", "entity_name": name, "entity_type": "thing",
            "observations": texts,
        });
        self.post("/memory/entities", &body).json()
    }

    #[track_caller]
    fn undo(&self, body: &Value) -> Reply {
        self.post("/memory/undo", body)
    }

    /// Names of the things that a search for `text` finds.
    #[track_caller]
    fn finds(&self, mode: &str, text: &str) -> Vec<String> {
        let least = if mode == "semantic" { "&min_similarity=0.9" } else { "" };
        let path = format!("/memory/search?agent_id=ada&mode={mode}&query={text}{least}");
        let found = self.get(&path).expect(200).json();
        let hits = found["results"].as_array().unwrap();
        hits.iter().map(|hit| hit["entity_name"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn an_agents_writes_are_shown_undone_and_brought_back() {
    let server = Server::with_model();
    server.note("ada", "engine", &["weaves algebraical patterns"]);
    server
        .ask("DELETE", "/memory/entities/engine?agent_id=eve&memory_scope=global&wait=indexed")
        .send()
        .expect(200);
    server.note("eve", "quack", &["sells snake oil"]);
    let head = server.engine.log().head().seq;

    let preview = server.undo(&json!({"agent": "eve", "dry_run": true})).expect(200).json();
    assert_eq!((&preview["status"], &preview["selected"]), (&json!("would_be_undone"), &json!(4)));
    let changes = preview["changes"].as_array().unwrap();
    let shown: Vec<_> =
        changes.iter().map(|row| (row["id"].as_str().unwrap(), row["change"].as_str().unwrap())).collect();
    assert_eq!(
        shown,
        [("obs_4", "removed"), ("ent_3", "removed"), ("ent_1", "restored"), ("obs_2", "restored")]
    );
    assert_eq!(changes[0]["before"]["content"], "sells snake oil");
    assert_eq!(changes[2]["after"]["entity_name"], "engine");
    assert!(changes[1]["after"].is_null() && changes[2]["before"].is_null());
    assert_eq!(server.engine.log().head().seq, head, "a preview writes nothing");

    let ask = || server.ask("POST", "/memory/undo?wait=indexed").header("Idempotency-Key", "u1");
    let done = ask().json(&json!({"agent": "eve"})).send().expect(200).json();
    assert_eq!((&done["status"], &done["undone"]), (&json!("undone"), &json!(4)));
    assert_eq!((&done["removed"], &done["restored"]), (&json!(2), &json!(2)));
    for mode in ["semantic", "keyword"] {
        assert_eq!(server.finds(mode, "weaves%20algebraical%20patterns"), ["engine"], "{mode}");
        assert_eq!(server.finds(mode, "sells%20snake%20oil"), Vec::<String>::new(), "{mode}");
    }
    let shown = server.get("/memory/entities/engine?agent_id=ada").expect(200).json();
    assert_eq!(
        (&shown["entity_id"], &shown["version"], &shown["agent_id"]),
        (&json!("ent_1"), &json!(2), &json!("ada"))
    );

    let again = ask().json(&json!({"agent": "eve"})).send().expect(200).json();
    assert_eq!(
        (&again["replayed"], &again["seq"], &again["undone"]),
        (&json!(true), &done["seq"], &json!(4))
    );
    ask().json(&json!({"agent": "bob"})).send().problem(409, "IDEMPOTENCY_KEY_CONFLICT");
    let nothing = server.undo(&json!({"agent": "eve"})).expect(200).json();
    assert_eq!((&nothing["status"], &nothing["already_undone"]), (&json!("unchanged"), &json!(4)));
    let nothing = server.undo(&json!({"agent": "bob", "dry_run": true})).expect(200).json();
    assert_eq!((&nothing["status"], &nothing["selected"]), (&json!("unchanged"), &json!(0)));

    // The log names what was undone; each record that does it names its cause.
    let events = server.get(&format!("/events?from_seq={}", done["undo_seq"])).expect(200).json();
    let events = events["events"].as_array().unwrap();
    assert_eq!((&events[0]["kind"], &events[0]["actor"]), (&json!("memory.undone"), &json!("system")));
    assert_eq!(events[0]["data"]["chosen"], json!({"agent": "eve"}));
    let undoes = events[0]["data"]["undoes"].as_array().unwrap();
    for (event, undone) in events[1..].iter().zip(undoes) {
        assert_eq!(&event["causation_seq"], undone.as_array().unwrap().last().unwrap());
    }

    let back = json!({"from_seq": done["undo_seq"], "to_seq": done["seq"]});
    let back = server.ask("POST", "/memory/undo?wait=indexed").json(&back).send().expect(200).json();
    assert_eq!((&back["removed"], &back["restored"]), (&json!(2), &json!(2)));
    assert_eq!(server.finds("keyword", "snake%20oil"), ["quack"]);
    assert_eq!(server.finds("semantic", "sells%20snake%20oil"), ["quack"]);
    assert_eq!(server.finds("keyword", "algebraical"), Vec::<String>::new());
}

#[test]
fn why_names_the_undo_that_wrote_a_row_and_what_it_took_back() {
    let server = Server::start();
    server.note("eve", "engine", &["is a hoax"]);
    let done = server.undo(&json!({"agent": "eve"})).expect(200).json();
    let range = json!({"from_seq": done["undo_seq"], "to_seq": done["seq"], "agent_id": "eve"});
    let back = server.undo(&range).expect(200).json();
    let why = server.get("/audit/why/obs_2").expect(200).json();
    let [written, taken, returned] = why["because"].as_array().unwrap().as_slice() else {
        panic!("three versions: {why}");
    };
    for (version, undo, undone, actor) in [(taken, &done, written, "system"), (returned, &back, taken, "eve")]
    {
        let [by, what] = version["because"].as_array().unwrap().as_slice() else {
            panic!("two causes: {version}");
        };
        assert_eq!((&by["relation"], &by["event"]["seq"]), (&json!("done by"), &undo["undo_seq"]));
        assert_eq!((&by["event"]["kind"], &by["event"]["actor"]), (&json!("memory.undone"), &json!(actor)));
        assert_eq!((&what["relation"], &what["event"]["seq"]), (&json!("undoes"), &undone["event"]["seq"]));
    }
    let why = server.get(&format!("/audit/why/{}", done["undo_seq"])).expect(200).json();
    let led_to = why["led_to"].as_array().unwrap();
    let last = led_to.last().map(|event| &event["event"]["seq"]);
    assert_eq!((led_to.len(), last), (2, Some(&done["seq"])), "{why}");
}

#[test]
fn later_facts_are_listed_and_treated_as_asked() {
    let server = Server::start();
    server.note("eve", "engine", &["is a hoax"]);
    server.note("bob", "engine", &["is brass"]);
    server.note("eve", "spoon", &[]);
    let head = server.engine.log().head().seq;
    let problem = server.undo(&json!({"agent": "eve"})).problem(409, "UNDO_BLOCKED");
    let facts = problem["details"]["later_facts"].as_array().unwrap();
    assert_eq!((facts.len(), &facts[0]["id"], &facts[0]["actor"]), (1, &json!("obs_3"), &json!("bob")));
    assert_eq!(facts[0]["why"], "is about ent_1, which would go");
    assert_eq!(server.engine.log().head().seq, head, "something was written");
    let preview = server.undo(&json!({"agent": "eve", "dry_run": true})).expect(200).json();
    assert_eq!((&preview["status"], &preview["later_facts_total"]), (&json!("would_be_refused"), &json!(1)));
    let along: Vec<_> =
        preview["changes"].as_array().unwrap().iter().map(|row| &row["taken_along"]).collect();
    assert_eq!(along.iter().filter(|along| **along == &json!(true)).count(), 1);

    let kept = server.undo(&json!({"agent": "eve", "later": "keep"})).expect(200).json();
    assert_eq!((&kept["undone"], &kept["kept"]), (&json!(2), &json!(1)));
    let shown = server.get("/memory/entities/engine?agent_id=ada").expect(200).json();
    assert_eq!(shown["observation_count"], 1);
    let all = server.undo(&json!({"agent": "eve", "later": "undo"})).expect(200).json();
    assert_eq!((&all["undone"], &all["already_undone"]), (&json!(2), &json!(2)));
    server.get("/memory/entities/engine?agent_id=ada").problem(404, "ENTITY_NOT_FOUND");
}

/// The names of the ends of the one relation among the changes: before the undo, and behind it.
#[track_caller]
fn ends(answer: &Value) -> [[Value; 2]; 2] {
    let changes = answer["changes"].as_array().unwrap();
    let mut relations = changes.iter().filter(|row| row["id"].as_str().unwrap().starts_with("rel_"));
    let row = relations.next().unwrap();
    assert!(relations.next().is_none(), "{answer}");
    ["before", "after"].map(|side| ["from_entity", "to_entity"].map(|end| row[side][end].clone()))
}

#[test]
fn a_relation_is_shown_with_the_names_of_its_ends() {
    let server = Server::start();
    server.note("ada", "engine", &[]);
    server.note("ada", "steam", &[]);
    let relation = json!({
        "agent_id": "eve", "memory_scope": "global", "from_entity": "engine", "to_entity": "steam",
        "relation_type": "shuns",
    });
    let relation = server.post("/memory/relations", &relation).expect(201).json();
    let of = |agent: &str| json!({"agent": agent, "dry_run": true});
    let none = [Value::Null, Value::Null];
    let named = |from: &str, to: &str| [json!(from), json!(to)];
    // Both ends are there, before and behind it.
    let preview = server.undo(&of("eve")).expect(200).json();
    assert_eq!(ends(&preview), [named("engine", "steam"), none.clone()]);

    // One end gets its old name back.
    let change = |path: &str, body: Value| server.ask("PATCH", path).json(&body).send().expect(200);
    change("/memory/entities/steam?agent_id=tom&memory_scope=global", json!({"entity_name": "vapour"}));
    let path = format!("/memory/relations/{}?agent_id=tom", relation["relation_id"].as_str().unwrap());
    change(&path, json!({"strength": 0.9}));
    let preview = server.undo(&of("tom")).expect(200).json();
    assert_eq!(ends(&preview), [named("engine", "vapour"), named("engine", "steam")]);

    // One end comes back with it.
    server.delete("/memory/entities/engine?agent_id=bob&memory_scope=global").expect(200);
    let preview = server.undo(&of("bob")).expect(200).json();
    assert_eq!(ends(&preview), [none.clone(), named("engine", "vapour")]);
    let done = server.undo(&json!({"agent": "bob"})).expect(200).json();
    assert_eq!(ends(&done), [none.clone(), named("engine", "vapour")]);
    // And goes with it again.
    let gone = server.undo(&json!({"from_seq": done["undo_seq"], "to_seq": done["seq"]})).expect(200).json();
    assert_eq!(ends(&gone), [named("engine", "vapour"), none]);
}

#[test]
fn facts_are_chosen_by_range_time_request_and_nothing_else() {
    let server = Server::start();
    let seq = |answer: &Value| answer["seq"].as_u64().unwrap();
    let first = server.note("ada", "one", &[]);
    let second = server.note("ada", "two", &["x", "y"]);
    let named =
        json!({"agent_id": "ada", "memory_scope": "global", "entity_name": "three", "entity_type": "thing"});
    let ask = server.ask("POST", "/memory/entities").header("X-Request-Id", "request-3").json(&named);
    ask.send().expect(201);
    let preview = |body: Value| {
        let mut body = body;
        body["dry_run"] = json!(true);
        server.undo(&body).expect(200).json()["selected"].as_u64().unwrap()
    };
    assert_eq!(preview(json!({"from_seq": seq(&first) + 1, "to_seq": seq(&second)})), 3);
    assert_eq!(preview(json!({"correlation_id": "request-3"})), 1);
    assert_eq!(preview(json!({"correlation_id": "request-3", "agent": "bob"})), 0);
    assert_eq!(preview(json!({"agent": "ada"})), 5);
    assert_eq!(preview(json!({"agent": "ada", "since": "2999-01-01T00:00:00Z"})), 0);
    assert_eq!(preview(json!({"agent": "ada", "until": "2999-01-01T00:00:00Z"})), 5);
    for (body, field) in [
        (json!({}), "agent"),
        (json!({"from_seq": 3}), "agent"),
        (json!({"since": "2020-01-01T00:00:00Z"}), "agent"),
        (json!({"from_seq": 9, "to_seq": 3}), "to_seq"),
        (json!({"agent": "ada", "since": "2026-02-01", "until": "2026-01-01"}), "until"),
        (json!({"from_seq": 0, "to_seq": 3}), "from_seq"),
        (json!({"agent": "ada", "later": "perhaps"}), "later"),
        (json!({"agent": "ada", "since": "yesterday"}), "since"),
        (json!({"agent": "no such\nname"}), "agent"),
        (json!({"agent": "ada", "depth": 3}), "depth"),
    ] {
        let problem = server.undo(&body).problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["field"], field, "{body}");
    }
}

#[test]
fn who_asks_as_an_agent_changes_only_what_it_sees() {
    let server = Server::start();
    let private =
        json!({"agent_id": "eve", "memory_scope": "agent", "entity_name": "diary", "entity_type": "thing"});
    server.post("/memory/entities", &private).expect(201);
    let problem =
        server.undo(&json!({"agent": "eve", "agent_id": "bob"})).problem(422, "INVALID_ENTITY_DATA");
    assert_eq!(problem["field"], "agent_id");
    let done = server.undo(&json!({"agent": "eve", "agent_id": "eve"})).expect(200).json();
    let events = server.get(&format!("/events?from_seq={}", done["undo_seq"])).expect(200).json();
    assert_eq!(events["events"][0]["actor"], "eve");
}

#[test]
fn writes_that_come_between_are_never_lost() {
    let server = Server::start();
    for round in 0..10 {
        let name = format!("thing {round}");
        server.note("eve", &name, &[]);
        let undone = std::thread::scope(|scope| {
            let noting = scope.spawn(|| server.note("bob", &name, &["bob saw it"]));
            let undone = server.undo(&json!({"agent": "eve", "later": "keep"}));
            noting.join().unwrap();
            undone.expect(200).json()
        });
        // Before the undo the note keeps the thing; behind it, it makes the thing anew.
        let shown = server.get(&format!("/memory/entities/{}?agent_id=ada", name.replace(' ', "%20")));
        assert_eq!(shown.expect(200).json()["observation_count"], 1, "round {round}: {undone}");
    }
}

#[test]
fn the_command_line_undoes_on_a_server_and_on_a_stopped_directory() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("data");
    let place = ["--data-dir", path.to_str().unwrap(), "--keyword-only"];
    let with = |args: &[&'static str]| [args, &place[..]].concat();
    check(
        &with(&["memory", "add", "engine", "is brass", "--agent", "ada", "--scope", "global"]),
        &["created"],
    );
    check(
        &with(&["memory", "add", "engine", "is a hoax", "--agent", "eve", "--scope", "global"]),
        &["updated"],
    );
    let preview = with(&["memory", "undo", "--agent", "eve", "--dry-run"]);
    check(&preview, &["obs_3", "removed", "is a hoax", "1 fact chosen, 1 undone; nothing was done"]);
    check(&with(&["memory", "undo", "--agent", "eve"]), &["to take it back: caxton memory undo --from-seq"]);
    check(&with(&["memory", "undo", "--agent", "eve"]), &["1 undone before; there was nothing to do"]);
    let found = cli_json(&with(&["--json", "memory", "search", "hoax", "--agent", "ada"]));
    assert_eq!(found["results"].as_array().unwrap().len(), 0);
    check_failure(&with(&["memory", "undo"]), 2, "--agent");
    check(
        &with(&["memory", "add", "engine", "is steel", "--agent", "bob", "--scope", "global"]),
        &["updated"],
    );
    check_failure(&with(&["memory", "undo", "--agent", "ada"]), 5, "UNDO_BLOCKED");
    let remedy = "see them all with --dry-run; then choose --later keep (they stay, with what they build on) or --later undo";
    check_failure(&with(&["memory", "undo", "--agent", "ada"]), 5, remedy);
    let listed = with(&["memory", "undo", "--agent", "ada", "--dry-run"]);
    // As the undo ends, and what it shows says from the first line on that nothing of it was done.
    check_failure(&listed, 5, "the undo would be refused for 1 later fact, which");
    let shown = String::from_utf8(run(&listed).stdout).unwrap();
    assert!(shown.starts_with("What would change if it were not refused"), "{shown}");
    assert!(shown.contains("Facts that build on them:"), "{shown}");
    assert!(shown.contains("is about ent_1, which would go"), "{shown}");
    check_failure(&[&["--json"][..], &listed[..]].concat(), 5, "choose --later keep or --later undo");
    check(&with(&["memory", "undo", "--agent", "ada", "--later", "undo"]), &["3 undone"]);

    let server = Server::start();
    let url = format!("http://{}", server.address);
    server.note("eve", "quack", &[]);
    check(&["--url", &url, "memory", "undo", "--agent", "eve"], &["ent_1", "1 undone"]);
}

#[test]
fn arguments_that_cannot_be_are_refused_in_the_words_of_the_flags() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("data");
    let place = ["--data-dir", path.to_str().unwrap(), "--keyword-only"];
    check(&[&["memory", "add", "engine", "is brass", "--agent", "eve"][..], &place].concat(), &["created"]);
    let server = Server::start();
    let url = format!("http://{}", server.address);
    for (args, says) in [
        (&["--agent", "a b"][..], "--agent \"a b\": the name contains ' '; use letters"),
        (&["--agent", ""], "--agent \"\": the name is empty"),
        (&["--conversation", "a/b"], "--conversation \"a/b\": the name contains '/'"),
        (&["--agent", "eve", "--as", "a b"], "--as \"a b\": the name contains"),
        (&["--agent", "eve", "--as", "eve", "--workspace", "a b"], "--workspace \"a b\": the name contains"),
        (&["--from-seq", "3"], "--from-seq alone is no choice of facts; give --to-seq too, or --agent"),
        (&["--from-seq", "0", "--to-seq", "3"], "--from-seq"),
        (&["--from-seq", "9", "--to-seq", "3"], "--to-seq 3: lies before --from-seq (9)"),
        (&["--agent", "eve", "--since", "noon"], "--since: \"noon\" is no RFC 3339 time"),
        (
            &["--agent", "eve", "--since", "2026-02-01", "--until", "2026-01-01"],
            "is not after --since (2026-02",
        ),
    ] {
        for place in [&place[..], &["--url", &url]] {
            check_failure(&[&["memory", "undo", "--dry-run"][..], args, place].concat(), 2, says);
        }
    }
    // What the rules refuse is told in flags, too.
    let foreign = [&["memory", "undo", "--agent", "eve", "--as", "bob"][..], &place].concat();
    check_failure(&foreign, 5, "caxton: --as: ");
    check_failure(&foreign, 5, "lives in agent:eve, which bob in workspace default does not see");
    check_failure(&foreign, 5, "or ask as the operator: without --as");
}
