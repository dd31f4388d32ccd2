//! Files that cannot be used leave their agents as they are.

use std::time::Instant;

use serde_json::{Value, json};

use super::super::process::post;
use super::super::web::{Reply, Request, Web};
use super::{PATIENCE, Town, file, provider};

#[test]
fn a_template_with_unbalanced_braces_is_told_and_the_version_before_it_goes_on() {
    let model = Web::start(|request: &Request| {
        Reply::says(&format!("{} / {}", request.last("system"), request.last("user")))
    });
    let good = file("ada", "talk", "user_prompt_template: 'asked: {{message_content}}'");
    let town = Town::with(&[provider("m", &model, "")], "", &[("ada", good.clone())]);
    let said = "You are ada. / asked: hello".to_owned();
    assert_eq!(town.hear("ada", "hello"), ("INFORM".to_owned(), said.clone()));
    for bad in [
        "asked: {{message_content",
        "asked: {{message_content}",
        "{{ {{message_content}} }}",
        "{{}}",
        "{{a b}}",
    ] {
        let text = good.replace("asked: {{message_content}}", bad).replace("1.0.0", "2.0.0");
        town.put("ada", &text);
        let started = Instant::now();
        let rejected = loop {
            let found = town.events("agent.config_rejected");
            let newest = found.into_iter().next_back().unwrap_or_default();
            let told = newest["data"]["problems"].to_string();
            if told.contains("user_prompt_template")
                && town.get("/config-agents")["files_rejected"].to_string().contains("ada.md")
            {
                break newest;
            }
            assert!(started.elapsed() < PATIENCE, "{bad:?} was not refused");
            std::thread::yield_now();
        };
        let problem = &rejected["data"]["problems"][0];
        assert!(problem["line"].as_u64().is_some_and(|line| line > 1), "{bad:?}: {problem}");
        assert!(problem["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{bad:?}: {problem}");
        assert_eq!(town.hear("ada", "hello"), ("INFORM".to_owned(), said.clone()), "{bad:?}");
        assert_eq!(town.get("/config-agents/ada")["version"], "1.0.0");
        // Each text is judged for itself.
        town.put("ada", &good);
        let started = Instant::now();
        while town.get("/config-agents")["files_rejected"].as_array().is_some_and(|files| !files.is_empty()) {
            assert!(started.elapsed() < PATIENCE, "the good text is not taken");
            std::thread::yield_now();
        }
    }
}

#[test]
fn an_agent_of_a_file_takes_nobodys_name_and_its_offers_stand_in_its_file_alone() {
    let model = Web::start(|_: &Request| Reply::says("yes"));
    let town = Town::with(&[provider("m", &model, "")], "", &[("ada", file("ada", "talk", ""))]);
    town.post("/agents", &json!({ "agent_id": "eve" }));
    let refused = |path: &str, body: &Value, code: &str| {
        let (status, problem) = post(town.base(), &format!("/api/v1{path}"), body).unwrap();
        assert_eq!((status, problem["code"].as_str()), (409, Some(code)), "{problem}");
        assert!(problem["errors"][0]["remedy"].is_string() || problem["remedy"].is_string(), "{problem}");
    };
    refused("/capabilities", &json!({ "agent_id": "ada", "capability": "sing" }), "WRONG_STATE");
    let eve = file("eve", "listen", "");
    refused("/config-agents", &json!({ "name": "eve", "content": eve }), "NAME_CONFLICT");
    town.put("eve", &eve);
    let rejected = town.await_events("agent.config_rejected", 1, |data| data["path"] == "eve.md");
    let reason = rejected[0]["data"]["problems"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("eve is the name of an agent outside the server"), "{reason}");
    assert_eq!(town.get("/agents/eve")["kind"], "external");
}
