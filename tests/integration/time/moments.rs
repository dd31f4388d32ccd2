//! Which moments there are: positions, times, and what is none; the same on the command line.

use serde_json::{Value, json};

use super::super::cli::{check, check_failure, json};
use super::super::cli_talk::url;
use super::super::server::Server;

/// Two notes with a while between them, and the places of both.
fn two_notes(server: &Server) -> [u64; 2] {
    ["first", "second"].map(|name| {
        server.entity(name, "Note", &["of tea"]);
        server.engine.log().head().seq.0
    })
}

fn names(server: &Server, as_of: &str) -> Vec<String> {
    let page = server.get(&format!("/memory/entities?agent_id=ada&as_of={as_of}")).expect(200).json();
    let rows = page["entities"].as_array().unwrap().iter();
    rows.map(|row| row["entity_name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_time_means_the_last_record_that_was_there() {
    let server = Server::start();
    let [first, second] = two_notes(&server);
    let time = |seq: u64| -> u64 {
        let log = server.engine.log();
        log.recorded_at(caxton_events::Seq(seq)).unwrap().unwrap().unix_micros()
    };
    let at = |micros: u64| caxton_events::Timestamp::from_unix_micros(micros).to_string();
    assert_eq!(names(&server, &at(time(first))), ["first"]);
    assert_eq!(names(&server, &at(time(second))), ["first", "second"]);
    assert_eq!(names(&server, &at(time(1) - 1)), Vec::<String>::new());
    let page = server.get(&format!("/memory/entities?agent_id=ada&as_of={}", at(time(first)))).json();
    let seq = page["as_of"].as_u64().unwrap();
    assert!(seq >= first && seq < second, "{page}");
    // The same answer by its place.
    assert_eq!(server.get(&format!("/memory/entities?agent_id=ada&as_of={seq}")).json(), page);
}

#[test]
fn before_the_first_record_the_memory_is_empty() {
    let server = Server::start();
    two_notes(&server);
    for moment in ["0", "1970-01-01", "2000-01-01T00:00:00Z"] {
        let page = server.get(&format!("/memory/entities?agent_id=ada&as_of={moment}")).expect(200).json();
        assert_eq!((&page["count"], &page["as_of"]), (&json!(0), &json!(0)));
        server
            .get(&format!("/memory/entities/first?agent_id=ada&as_of={moment}"))
            .problem(404, "ENTITY_NOT_FOUND");
        let stats = server.get(&format!("/memory/stats?as_of={moment}")).expect(200).json();
        assert_eq!(stats["global_stats"]["total_entities"], 0);
        let found = server.get(&format!("/memory/search?agent_id=ada&query=tea&as_of={moment}")).expect(200);
        assert_eq!(found.json()["total_results"], 0);
        let talk = server.get(&format!("/conversations?as_of={moment}")).expect(200).json();
        assert_eq!(talk["count"], 0);
        assert_eq!(server.get(&format!("/agents?as_of={moment}")).expect(200).json()["count"], 0);
    }
}

const READS: &[&str] = &[
    "/memory/entities?agent_id=ada",
    "/memory/entities/first?agent_id=ada",
    "/memory/entities/first/history?agent_id=ada",
    "/memory/entities/first/observations?agent_id=ada",
    "/memory/relations?agent_id=ada",
    "/memory/graph/first?agent_id=ada",
    "/memory/stats?agent_id=ada",
    "/memory/search?agent_id=ada&query=tea",
    "/memory/export?agent_id=ada",
    "/conversations?limit=9",
    "/conversations/c?x",
    "/conversations/c/messages?limit=9",
    "/messages?limit=9",
    "/agents?limit=9",
    "/agents/ada?x",
    "/agents/ada/logs?limit=9",
];

#[test]
fn a_moment_that_is_not_there_yet_or_is_none_is_refused_by_every_read() {
    let server = Server::start();
    server.post("/conversations", &json!({"conversation_id": "c"})).expect(201);
    let [first, second] = two_notes(&server);
    for path in READS {
        let path = path.trim_end_matches("?x");
        let and = if path.contains('?') { '&' } else { '?' };
        let ask = |more: &str| server.get(&format!("{path}{and}{more}"));
        for future in ["999999999", "2999-01-01T00:00:00Z"] {
            let problem = ask(&format!("as_of={future}")).problem(422, "AS_OF_IN_FUTURE");
            assert_eq!(problem["field"], "as_of", "{path}");
            assert!(problem["details"]["head_seq"].as_u64().unwrap() >= second, "{path}");
        }
        for nonsense in ["", "-1", "yesterday", "18446744073709551616"] {
            let problem = ask(&format!("as_of={nonsense}")).problem(422, "VALIDATION_ERROR");
            assert_eq!(problem["field"], "as_of", "{path}");
        }
        let problem = ask(&format!("as_of={first}&min_seq={second}")).problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["field"], "as_of", "{path}");
        assert!(problem["detail"].as_str().unwrap().contains("min_seq"), "{problem}");
        ask(&format!("as_of={second}&min_seq={first}")).expect(200);
    }
    // What is written knows no past.
    let body = json!({"agent_id": "ada", "entity_name": "x", "entity_type": "y"});
    server.post("/memory/entities?as_of=1", &body).problem(422, "VALIDATION_ERROR");
    server.get("/agents/ada/inbox?as_of=1").problem(422, "VALIDATION_ERROR");
}

#[test]
fn a_page_of_the_past_goes_on_in_the_past() {
    let server = Server::start();
    for number in 0..6 {
        server.entity(&format!("thing {number}"), "T", &[]);
    }
    let seq = server.engine.log().head().seq.0;
    let page = |cursor: &str| {
        server.get(&format!("/memory/entities?agent_id=ada&limit=2&as_of={seq}{cursor}")).expect(200).json()
    };
    let mut found: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = page(&cursor);
        found.extend(page["entities"].as_array().unwrap().iter().map(|row| row["entity_name"].clone()));
        server.delete(&format!("/memory/entities/thing%20{}?agent_id=ada", found.len() - 1)).expect(200);
        server.entity(&format!("later {}", found.len()), "T", &[]);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, (0..6).map(|number| json!(format!("thing {number}"))).collect::<Vec<_>>());
    // A cursor belongs to its moment.
    let other = format!("/memory/entities?agent_id=ada&limit=2&as_of={}{cursor}", seq - 1);
    server.get(&other).problem(400, "INVALID_CURSOR");
}

#[test]
fn the_command_line_asks_about_the_past() {
    let server = Server::start();
    let place = url(&server);
    let body = json!({"agent_id": "ada", "entity_name": "Ada", "entity_type": "person", "observations": ["likes tea"]});
    server.post("/memory/entities", &body).expect(201);
    server.entity("engine", "machine", &["runs on steam"]);
    server.relation("Ada", "engine", "uses");
    let then = server.engine.log().head().seq.0.to_string();
    let renamed = json!({"entity_name": "Lady Ada"});
    server.ask("PATCH", "/memory/entities/Ada?agent_id=ada").json(&renamed).send().expect(200);
    server.delete("/memory/entities/engine?agent_id=ada").expect(200);
    let now = server.engine.log().head().seq.0.to_string();

    let who = ["--url", place.as_str(), "--agent", "ada"];
    let with = |args: &[&'static str], more: &[&str]| {
        let mut all: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        all.extend(who.iter().chain(more).map(|arg| (*arg).to_owned()));
        all
    };
    let refs = |args: &[String]| args.iter().map(|arg| arg.as_str().to_owned()).collect::<Vec<_>>();
    let run = |args: Vec<String>, prints: &[&str]| {
        let args = refs(&args);
        check(&args.iter().map(String::as_str).collect::<Vec<_>>(), prints);
    };
    run(with(&["memory", "search", "steam"], &["--as-of", &then]), &["engine", "1 hit in"]);
    run(with(&["memory", "search", "steam"], &[]), &["0 hits in"]);
    run(with(&["memory", "graph", "Ada"], &["--as-of", &then]), &["uses", "2 things, 1 relation"]);
    run(with(&["memory", "graph", "Ada"], &["--as-of", &then, "--valid-at", "2000-01-01"]), &["2 things"]);
    run(with(&["memory", "export"], &["--as-of", &then]), &["\"Ada\"", "\"runs on steam\""]);
    run(with(&["memory", "stats"], &["--as-of", &then]), &["total entities", "2"]);
    run(
        with(&["memory", "diff"], &["--from", &then, "--to", &now]),
        &[
            "changed",
            "Ada (person)",
            "Lady Ada (person)",
            "removed",
            "engine: runs on steam",
            "Ada uses engine",
            "4 differences",
        ],
    );
    let mut diff = with(&["--json", "memory", "diff"], &["--from", "0", "-n", "1"]);
    let page = json(&diff.iter().map(String::as_str).collect::<Vec<_>>());
    let first = &page["differences"][0];
    assert_eq!(
        (&page["count"], &first["change"], &first["after"]["content"]),
        (&json!(1), &json!("added"), &json!("likes tea"))
    );
    diff.extend(["--cursor".to_owned(), page["next_cursor"].as_str().unwrap().to_owned()]);
    let page = json(&diff.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(page["differences"][0]["after"]["entity_name"], "Lady Ada");
    let wrong = with(&["memory", "search", "steam"], &["--as-of", "soon"]);
    check_failure(&wrong.iter().map(String::as_str).collect::<Vec<_>>(), 5, "as_of");
}
