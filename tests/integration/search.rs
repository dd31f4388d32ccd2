//! Search by words and by meaning, its filters and its reasons; embeddings for others.

use caxton::api::rest::{RestOptions, SearchDefaults};
use caxton_projections::queries::SearchMode;
use serde_json::{Value, json};

use super::client::Ask;
use super::server::Server;

fn tools(server: &Server) {
    server.entity("gnuplot", "Tool", &["draws plots in a terminal", "reads columns of numbers"]);
    server.entity("htop", "Tool", &["shows processes in a terminal"]);
    server.entity("Ada", "Person", &["draws conclusions about engines"]);
    server.relation("Ada", "gnuplot", "uses");
}

fn names(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().unwrap();
    results.iter().map(|hit| hit["entity_name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn words_find_what_was_noted_and_say_why() {
    let server = Server::start();
    tools(&server);
    let answer = server.get("/memory/search?agent_id=ada&query=draw+plots+terminal").expect(200).json();
    assert_eq!(answer["query"], "draw plots terminal");
    // Without a model hybrid search is keyword search, and says so.
    assert_eq!(answer["mode"], "keyword");
    assert_eq!(names(&answer)[0], "gnuplot");
    assert_eq!(answer["total_results"].as_u64().unwrap() as usize, names(&answer).len());
    assert!(answer["search_time_ms"].is_f64() && answer["seq"].is_u64());
    let hit = &answer["results"][0];
    assert_eq!(hit["why"]["matched_by"], json!(["keyword"]));
    assert_eq!(hit["why"]["matched_observation"]["content"], "draws plots in a terminal");
    assert!(hit["why"]["bm25"].is_f64());
    assert_eq!(hit["similarity_score"], json!(null));
    assert_eq!(hit["observations"].as_array().unwrap().len(), 2);
    assert_eq!(hit["agent_id"], "ada");
}

#[test]
fn a_body_asks_the_same_question() {
    let server = Server::start();
    tools(&server);
    let body = json!({
        "agent_id": "ada", "query": "terminal", "mode": "keyword", "entity_types": ["Tool"], "limit": 1,
        "include_relations": true, "neighbours": 1, "observation_limit": 0, "owner": "ada",
    });
    let answer = server.post("/memory/search", &body).expect(200).json();
    assert_eq!(names(&answer).len(), 1);
    let wide = json!({"agent_id": "ada", "query": "gnuplot", "include_relations": true, "neighbours": 1});
    let answer = server.post("/memory/search", &wide).expect(200).json();
    let hit = &answer["results"][0];
    assert_eq!(hit["entity_name"], "gnuplot");
    assert_eq!(hit["why"]["matched_name"], true);
    assert_eq!(
        (&hit["relations"][0]["from_entity"], &hit["relations"][0]["to_entity"]),
        (&json!("Ada"), &json!("gnuplot"))
    );
    assert!(hit["neighbours"].is_array());
}

#[test]
fn relations_of_others_do_not_hide_ones_own() {
    let server = Server::start();
    let shared = |agent: &str, names: Vec<String>| {
        let entities: Vec<Value> = names
            .iter()
            .map(|name| json!({"entity_name": name, "entity_type": "Tool", "observations": []}))
            .collect();
        let body = json!({"agent_id": agent, "memory_scope": "global", "entities": entities});
        server.post("/memory/entities/batch", &body).expect(201);
    };
    shared("bob", (0..60).map(|number| format!("part {number}")).collect());
    shared("ada", vec!["hub".to_owned()]);
    let relate = |agent: &str, numbers: std::ops::Range<u32>| {
        let relations: Vec<Value> = numbers
            .map(|number| json!({"from_entity": "hub", "to_entity": format!("part {number}"), "relation_type": "has"}))
            .collect();
        let body = json!({"agent_id": agent, "relations": relations});
        server.post("/memory/relations/batch", &body).expect(201);
    };
    relate("bob", 0..60);
    relate("ada", 7..8);
    let found = |agent: &str| {
        let body = json!({"agent_id": agent, "query": "hub", "include_relations": true});
        let answer = server.post("/memory/search", &body).expect(200).json();
        assert_eq!(names(&answer), ["hub"]);
        answer["results"][0].clone()
    };
    let relations = |hit: &Value| hit["relations"].as_array().unwrap().clone();
    let (others, own) = (found("bob"), found("ada"));
    assert_eq!((relations(&others).len(), &others["truncated"]), (50, &json!(true)), "ten are not shown");
    assert_eq!(own.get("truncated"), None);
    let own = relations(&own);
    assert_eq!(own.iter().map(|row| &row["to_entity"]).collect::<Vec<_>>(), [&json!("part 7")]);
    let listed = server.get("/memory/relations?agent_id=ada&entity=hub&limit=10").expect(200).json();
    assert_eq!(listed["count"], 1);
    let walk = server.get("/memory/graph/hub?agent_id=ada").expect(200).json();
    assert_eq!(walk["traversal_stats"]["edges_found"], 1);
}

#[test]
fn relations_of_a_hit_are_those_of_the_time_that_is_asked_for() {
    let server = Server::start();
    tools(&server);
    for (relation_type, time) in [
        ("used", json!({"valid_from": "1990-01-01", "valid_to": "2000-01-01"})),
        ("will_use", json!({"valid_from": "2200-01-01"})),
    ] {
        let mut body = json!({
            "agent_id": "ada", "from_entity": "Ada", "to_entity": "htop", "relation_type": relation_type,
        });
        for (name, value) in time.as_object().unwrap() {
            body[name] = value.clone();
        }
        server.post("/memory/relations", &body).expect(201);
    }
    let find = |time: &str| -> Vec<String> {
        let path = format!("/memory/search?agent_id=ada&query=Ada&include_relations=true{time}");
        let answer = server.get(&path).expect(200).json();
        let relations = answer["results"][0]["relations"].as_array().unwrap().clone();
        relations.iter().map(|row| row["relation_type"].as_str().unwrap().to_owned()).collect()
    };
    let seq = server.get("/memory/search?agent_id=ada&query=Ada").expect(200).json()["seq"].clone();
    let range = |from: &str, to: &str| format!("&temporal_filter=date_range&start_date={from}&end_date={to}");
    for (time, then) in [
        (String::new(), &["uses"][..]),
        (format!("&as_of={seq}"), &["uses"]),
        ("&temporal_filter=all".to_owned(), &["uses", "used", "will_use"]),
        ("&valid_at=1995-05-05".to_owned(), &["uses", "used"]),
        (range("1980-01-01", "1990-01-02"), &["uses", "used"]),
        (range("2000-01-01", "2001-01-01"), &["uses"]),
        (range("2150-01-01", "2250-01-01"), &["uses", "will_use"]),
        (format!("{}&as_of={seq}", range("1980-01-01", "1990-01-02")), &["uses", "used"]),
    ] {
        assert_eq!(find(&time), then, "{time}");
    }
}

#[test]
fn filters_keep_scope_type_owner_and_time() {
    let server = Server::start();
    tools(&server);
    let old = json!({
        "agent_id": "ada", "entity_name": "telegraph", "entity_type": "Tool", "observations": ["terminal of its time"],
        "valid_from": "1990-01-01", "valid_to": "2000-01-01",
    });
    server.post("/memory/entities", &old).expect(201);
    let find = |query: &str| {
        let mut found = names(
            &server.get(&format!("/memory/search?agent_id=ada&query=terminal{query}")).expect(200).json(),
        );
        found.sort();
        found
    };
    assert_eq!(find(""), ["gnuplot", "htop"]);
    assert_eq!(find("&temporal_filter=current"), ["gnuplot", "htop"]);
    assert_eq!(find("&temporal_filter=all"), ["gnuplot", "htop", "telegraph"]);
    assert_eq!(find("&valid_at=1995-05-05"), ["gnuplot", "htop", "telegraph"]);
    let range = "&temporal_filter=date_range&start_date=1980-01-01&end_date=1991-01-01";
    assert_eq!(find(range), ["gnuplot", "htop", "telegraph"]);
    assert_eq!(find("&entity_types=Person"), Vec::<String>::new());
    assert_eq!(find("&owner=bob"), Vec::<String>::new());
    assert_eq!(find("&memory_scope=global"), Vec::<String>::new());
    assert_eq!(find("&limit=1").len(), 1);
    let other = server.get("/memory/search?agent_id=bob&query=terminal").expect(200).json();
    assert_eq!(other["total_results"], 0);
}

#[test]
fn observations_count_when_they_were_true() {
    let server = Server::with_model();
    let bea = json!({
        "agent_id": "ada", "entity_name": "Bea", "entity_type": "Person", "observations": [
            {"content": "lives in London", "valid_from": "1998-01-01", "valid_to": "2000-01-01"},
            {"content": "lives in Paris", "valid_from": "2000-01-01"},
        ],
    });
    server.post("/memory/entities?wait=indexed", &bea).expect(201);
    let find = |time: &str, mode: &str, limit: u32| {
        let path = format!(
            "/memory/search?agent_id=ada&query=lives+London+Paris&mode={mode}&observation_limit={limit}{time}"
        );
        let answer = server.get(&path).expect(200).json();
        let text = |row: &Value| row["content"].as_str().map(str::to_owned);
        let hit = answer["results"].get(0).cloned()?;
        let shown = hit["observations"].as_array().unwrap().iter().filter_map(text).collect::<Vec<_>>();
        Some((text(&hit["why"]["matched_observation"]), shown))
    };
    let (london, paris) = ("lives in London".to_owned(), "lives in Paris".to_owned());
    let range = |from: &str, to: &str| format!("&temporal_filter=date_range&start_date={from}&end_date={to}");
    for mode in ["keyword", "semantic", "hybrid"] {
        let only = |row: &String| Some((Some(row.clone()), vec![row.clone()]));
        assert_eq!(find("", mode, 10), only(&paris), "{mode}: now");
        assert_eq!(
            find("", mode, 1),
            only(&paris),
            "{mode}: the first that is shown is the first that is true"
        );
        assert_eq!(find("&valid_at=1999-01-01", mode, 10), only(&london), "{mode}");
        assert_eq!(find(&range("1997-01-01", "1999-01-01"), mode, 10), only(&london), "{mode}");
        assert_eq!(find(&range("2001-01-01", "2002-01-01"), mode, 10), only(&paris), "{mode}");
        let both = find(&range("1999-01-01", "2001-01-01"), mode, 10).unwrap();
        assert_eq!(both.1, [london.clone(), paris.clone()], "{mode}");
    }
    // Neither was true then; in words there is nothing else that could be found.
    assert_eq!(find(&range("1974-01-01", "1975-06-01"), "keyword", 10), None);
    assert_eq!(find("&valid_at=1990-01-01", "keyword", 10), None);
}

#[test]
fn a_question_that_makes_no_sense_is_refused_with_its_field() {
    let server = Server::start();
    for (query, field) in [
        ("", "query"),
        ("query=", "query"),
        ("query=%20%20", "query"),
        ("query=x&limit=0", "limit"),
        ("query=x&limit=-5", "limit"),
        ("query=x&limit=101", "limit"),
        ("query=x&limit=ten", "limit"),
        ("query=x&min_similarity=NaN", "min_similarity"),
        ("query=x&min_similarity=1.5", "min_similarity"),
        ("query=x&semantic_weight=-0.1", "semantic_weight"),
        ("query=x&mode=psychic", "mode"),
        ("query=x&memory_scope=galaxy", "memory_scope"),
        ("query=x&temporal_filter=never", "temporal_filter"),
        ("query=x&temporal_filter=date_range", "start_date"),
        ("query=x&temporal_filter=date_range&start_date=2026-01-02&end_date=2026-01-01", "end_date"),
        ("query=x&temporal_filter=all&valid_at=2026-01-01", "temporal_filter"),
        ("query=x&valid_at=yesterday", "valid_at"),
        ("query=x&fusion=reciprocal_rank&semantic_weight=0.5", "semantic_weight"),
        ("query=x&mode=keyword&min_similarity=0.5", "min_similarity"),
        ("query=x&mode=keyword&semantic_weight=0.5", "semantic_weight"),
        ("query=x&mode=semantic&semantic_weight=0.5", "semantic_weight"),
        ("query=x&mode=semantic&fusion=rrf", "fusion"),
        ("query=x&mode=keyword&exact=true", "exact"),
        ("query=x&exact=maybe", "exact"),
        ("query=x&limti=3", "limti"),
    ] {
        let reply = server.get(&format!("/memory/search?agent_id=ada&{query}"));
        let problem = reply.problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["field"], field, "{query}: {problem}");
        assert!(problem["remedy"].is_string(), "{query}");
    }
    let long = json!({"agent_id": "ada", "query": "x".repeat(20_000)});
    assert_eq!(server.post("/memory/search", &long).problem(422, "VALIDATION_ERROR")["field"], "query");
    let types = |count: usize| json!({"query": "x", "entity_types": vec!["Tool"; count]});
    server.post("/memory/search", &types(100)).expect(200);
    let many = server.post("/memory/search", &types(101)).problem(422, "VALIDATION_ERROR");
    assert_eq!(many["field"], "entity_types", "{many}");
    assert_eq!(many["errors"].as_array().unwrap().len(), 1, "{many}");
    let many = vec!["x"; 101].join(",");
    for (path, field) in [
        ("search?query=x&entity_types=", "entity_types"),
        ("entities?entity_types=", "entity_types"),
        ("relations?relation_types=", "relation_types"),
        ("graph/x?relation_types=", "relation_types"),
    ] {
        let problem = server.get(&format!("/memory/{path}{many}")).problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["field"], field, "{path}: {problem}");
    }
    let number = server.post("/memory/search", &json!({"query": 7})).problem(422, "VALIDATION_ERROR");
    assert_eq!(number["errors"].as_array().unwrap().len(), 1, "{number}");
    server.get("/memory/search?agent_id=ada&query=x&mode=semantic").problem(503, "NO_MODEL");
    // What changes nothing is not refused, nor what only a model would need.
    for query in ["mode=keyword&exact=false", "exact=true", "semantic_weight=0.5", "fusion=rrf"] {
        server.get(&format!("/memory/search?agent_id=ada&query=x&{query}")).expect(200);
    }
}

#[test]
fn a_least_cosine_is_not_passed_over_where_words_alone_rank() {
    let search = SearchDefaults { mode: SearchMode::Keyword, ..SearchDefaults::default() };
    for (mode, options) in
        [(Some("keyword"), RestOptions::default()), (None, RestOptions { search, ..RestOptions::default() })]
    {
        let server = Server::with_model_and(options);
        let mut body = json!({"agent_id": "ada", "query": "x"});
        if let Some(mode) = mode {
            body["mode"] = json!(mode);
        }
        // Nothing is refused that the client did not ask for.
        assert_eq!(server.post("/memory/search", &body).expect(200).json()["mode"], "keyword");
        body["min_similarity"] = json!(0.25);
        let problem = server.post("/memory/search", &body).problem(422, "VALIDATION_ERROR");
        assert_eq!((&problem["field"], &problem["value"]), (&json!("min_similarity"), &json!("0.25")));
        assert!(problem["remedy"].as_str().unwrap().contains("mode=hybrid"), "{problem}");
        body["mode"] = json!("hybrid");
        assert_eq!(server.post("/memory/search", &body).expect(200).json()["mode"], "hybrid");
    }
}

#[test]
fn meaning_and_words_are_fused() {
    let server = Server::with_model();
    tools(&server);
    let last = server.entity("plotter", "Tool", &["plots"]);
    let seq = last["seq"].as_u64().unwrap();
    for (mode, matched) in [("semantic", json!(["semantic"])), ("hybrid", json!(["semantic", "keyword"]))] {
        let path = format!("/memory/search?agent_id=ada&query=plots&mode={mode}&min_seq={seq}");
        let answer = server.get(&path).expect(200).json();
        assert_eq!(answer["mode"], mode);
        assert_eq!(names(&answer)[0], "plotter", "{answer}");
        let hit = &answer["results"][0];
        assert_eq!(hit["why"]["matched_by"], matched);
        assert!(hit["similarity_score"].as_f64().unwrap() > 0.9, "{hit}");
    }
    let path =
        format!("/memory/search?agent_id=ada&query=plots&min_similarity=0.95&min_seq={seq}&mode=semantic");
    let answer = server.get(&path).expect(200).json();
    assert!(names(&answer).iter().all(|name| name == "plotter"), "{answer}");
    let rank =
        server.get("/memory/search?agent_id=ada&query=plots&fusion=reciprocal_rank").expect(200).json();
    assert_eq!(names(&rank)[0], "plotter");
    let created = json!({
        "agent_id": "ada", "entity_name": "chart", "entity_type": "Tool", "observations": ["charts"],
    });
    let answer = server.post("/memory/entities?wait=indexed", &created).expect(201).json();
    assert_eq!(answer["embedding_generated"], true);
}

#[test]
fn others_get_embeddings_as_they_know_them() {
    let server = Server::with_model();
    let ask = |body: &Value| Ask::new(server.address, "POST", "/v1/embeddings").json(body).send();
    let answer = ask(&json!({"model": "letters", "input": ["one", "two"]})).expect(200).json();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("letters")));
    assert_eq!(answer["data"][1]["index"], 1);
    let vector = answer["data"][0]["embedding"].as_array().unwrap();
    assert_eq!(vector.len(), 384);
    assert_eq!(answer["usage"]["total_tokens"], 6);
    let body =
        json!({"model": "org/letters", "input": "one", "encoding_format": "base64", "dimensions": 384});
    let packed = ask(&body).expect(200).json();
    assert_eq!(packed["data"][0]["embedding"].as_str().unwrap().len(), 384 * 4 / 3 * 4);

    for (body, status, code, field) in [
        (json!({"model": "ada-002", "input": "x"}), 404, "MODEL_NOT_FOUND", "model"),
        (json!({"model": "letters"}), 422, "VALIDATION_ERROR", "input"),
        (json!({"model": "letters", "input": ""}), 422, "VALIDATION_ERROR", "input[0]"),
        (json!({"model": "letters", "input": []}), 422, "VALIDATION_ERROR", "input"),
        (json!({"model": "letters", "input": [1, 2]}), 422, "VALIDATION_ERROR", "input"),
        (json!({"model": "letters", "input": "x", "dimensions": 100}), 422, "VALIDATION_ERROR", "dimensions"),
        (
            json!({"model": "letters", "input": "x", "encoding_format": "hex"}),
            422,
            "VALIDATION_ERROR",
            "encoding_format",
        ),
    ] {
        assert_eq!(ask(&body).problem(status, code)["field"], field, "{body}");
    }
    let without = Server::start();
    let body = json!({"model": "letters", "input": "x"});
    Ask::new(without.address, "POST", "/v1/embeddings").json(&body).send().problem(503, "NO_MODEL");
}

#[test]
fn what_matched_is_named_whether_it_is_shown_or_not() {
    let server = Server::start();
    server.entity("gnuplot", "Tool", &["reads columns", "reads rows", "draws a violin"]);
    for (shown, count) in [(0, None), (1, Some(1)), (3, Some(3)), (10, Some(3))] {
        let path = format!("/memory/search?agent_id=ada&query=violin&observation_limit={shown}");
        let hit = server.get(&path).expect(200).json()["results"][0].clone();
        assert_eq!(hit["why"]["matched_observation"]["content"], "draws a violin", "{hit}");
        assert_eq!(hit["observations"].as_array().map(Vec::len), count, "{hit}");
    }
}

#[test]
fn a_filter_on_owners_looks_beyond_the_best_rows() {
    let server = Server::start();
    let write = |agent: &str, name: &str, text: &str| {
        let body = json!({
            "agent_id": agent, "memory_scope": "global", "entity_name": name, "entity_type": "Tool",
            "observations": [text],
        });
        server.post("/memory/entities", &body).expect(201);
    };
    for number in 0..40 {
        write("bob", &format!("violin {number}"), "a violin");
    }
    for number in 0..3 {
        write("ada", &format!("tool {number}"), "one of the many things that one may see beside a violin");
    }
    let find = |query: &str| {
        names(&server.get(&format!("/memory/search?agent_id=ada&query=violin{query}")).expect(200).json())
    };
    assert!(find("&limit=2").iter().all(|name| name.starts_with("violin")));
    assert_eq!(find("&limit=2&owner=ada"), ["tool 0", "tool 1"]);
    assert_eq!(find("&limit=100&owner=ada").len(), 3);
}

#[test]
fn what_words_find_is_kept_by_its_cosine_however_many_are_nearer() {
    let server = Server::with_model();
    // The model counts letters: these are as near as can be, and have no word of the query.
    let nearest: Vec<Value> = (0..100)
        .map(|number| {
            let name = format!("part {number}");
            json!({"entity_name": name, "entity_type": "Tool", "observations": ["silent stone"]})
        })
        .collect();
    let body = json!({"agent_id": "ada", "entities": nearest});
    server.post("/memory/entities/batch", &body).expect(201);
    let body = json!({
        "agent_id": "ada", "entity_name": "keeper", "entity_type": "Tool", "observations": ["listen tones z"],
    });
    server.post("/memory/entities?wait=indexed", &body).expect(201);
    for fusion in ["weighted", "rrf"] {
        let path = format!(
            "/memory/search?agent_id=ada&query=listen+tones&min_similarity=0.9&limit=10&fusion={fusion}"
        );
        let answer = server.get(&path).expect(200).json();
        assert_eq!((names(&answer)[0].as_str(), names(&answer).len()), ("keeper", 10), "{answer}");
        assert!(answer["results"][0]["similarity_score"].as_f64().unwrap() > 0.9, "{answer}");
        assert_eq!(answer.get("incomplete"), None);
    }
}
