//! Keys of formats: MessagePack in and out.

use serde_json::{Value, json};

use super::super::client::Reply;
use super::super::program::Program;

const MSGPACK: &str = "application/msgpack";

fn unpacked(reply: &Reply) -> Value {
    assert_eq!(reply.header("content-type"), Some(MSGPACK));
    rmp_serde::from_slice(&reply.body).unwrap()
}

fn packed(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap()
}

#[test]
fn bodies_have_the_format_that_the_file_offers() {
    let entity = json!({"agent_id": "ada", "entity_name": "kettle", "entity_type": "thing",
                        "observations": ["boils"], "metadata": {"litres": 1.5, "count": 3, "on": null}});
    let program = Program::start("api_optimization: {enable_msgpack: true}");
    let made = program
        .ask("POST", "/memory/entities")
        .header("Content-Type", MSGPACK)
        .header("Accept", MSGPACK)
        .raw(&packed(&entity))
        .send()
        .expect(201);
    assert!(unpacked(&made)["seq"].is_u64());
    let path = "/memory/entities/kettle?agent_id=ada";
    let plain = program.get(path).expect(200);
    assert_eq!(
        (plain.header("content-type"), plain.header("vary")),
        (Some("application/json"), Some("accept"))
    );
    let small = program.ask("GET", path).header("Accept", MSGPACK).send().expect(200);
    assert_eq!(unpacked(&small), plain.json());
    assert!(small.body.len() < plain.body.len());
    assert_ne!(small.header("etag"), plain.header("etag"), "another format is another answer");
    let tag = small.header("etag").unwrap();
    let asked = program.ask("GET", path).header("Accept", MSGPACK).header("If-None-Match", tag);
    asked.send().expect(304);

    let audit = program.ask("GET", "/audit").header("Accept", MSGPACK).send().expect(200);
    assert!(unpacked(&audit)["events"].is_array());

    let missing = program.ask("GET", "/memory/entities/none").header("Accept", MSGPACK).send().expect(404);
    assert_eq!(unpacked(&missing)["code"], "ENTITY_NOT_FOUND");
    let broken = program.ask("POST", "/memory/entities").header("Content-Type", MSGPACK).raw(&[0xc1]).send();
    assert_eq!(broken.problem(400, "MALFORMED_MSGPACK")["field"], "body");

    let first = Program::start("api_optimization: {enable_msgpack: true, default_format: msgpack}");
    assert_eq!(unpacked(&first.get("/health").expect(200))["status"], "healthy");
    let json = first.ask("GET", "/health").header("Accept", "application/json").send().expect(200);
    assert_eq!(json.json()["status"], "healthy");
}

#[test]
fn a_format_that_is_not_offered_is_refused_with_the_header_and_the_key() {
    let program = Program::start("");
    let asked = program.ask("GET", "/health").header("Accept", MSGPACK).send();
    let problem = asked.problem(406, "NOT_ACCEPTABLE");
    assert_eq!((&problem["field"], &problem["value"]), (&json!("Accept"), &json!(MSGPACK)));
    let sent = program
        .ask("POST", "/memory/entities")
        .header("Content-Type", MSGPACK)
        .raw(&packed(&json!({})))
        .send();
    let problem_415 = sent.problem(415, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(problem_415["field"], "Content-Type");
    for problem in [problem, problem_415] {
        assert!(
            problem["remedy"].as_str().is_some_and(|remedy| remedy.contains("enable_msgpack")),
            "{problem}"
        );
    }
}
