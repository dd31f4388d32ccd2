//! Agents from files through REST and the command line, over a directory of their own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use caxton::agents::{AgentDirectory, DirectoryOptions, MemoryLog};
use caxton::api::rest::RestOptions;
use caxton::config::Config;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Reply;
use super::server::Server;

/// A server with an agents directory.
struct World {
    server: Server,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(RestOptions::default())
    }

    fn with(rest: RestOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let log = Arc::new(MemoryLog::default());
        let options = DirectoryOptions::new(&Config::default(), folder.path());
        let agents = AgentDirectory::start(log, options).unwrap();
        Self { server: Server::with(RestOptions { agents: Some(agents), ..rest }), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("agents").join(name)
    }

    #[track_caller]
    fn create(&self, name: &str, content: &str) -> Reply {
        self.server.post("/config-agents", &json!({ "name": name, "content": content }))
    }
}

fn file(name: &str, version: &str) -> String {
    format!("---\nname: {name}\nversion: {version}\ncapabilities: [answering]\n---\nYou answer.\n")
}

#[test]
fn an_agent_is_made_shown_changed_taken_back_and_removed() {
    let world = World::new();
    let made = world.create("Ada", &file("Ada", "1.0.0")).expect(201).json();
    assert_eq!((&made["status"], &made["version"]), (&json!("running"), &json!("1.0.0")));
    assert_eq!(made["capabilities"], json!(["answering"]));
    let shown = world.server.get("/config-agents/Ada").expect(200).json();
    assert_eq!(shown["content"], json!(file("Ada", "1.0.0")));
    assert_eq!(shown["limits"]["response_timeout"], "30s");
    let changed = json!({ "content": file("Ada", "1.1.0").replace("You", "They") });
    let put = world.server.ask("PUT", "/config-agents/Ada").json(&changed).send().expect(200).json();
    assert_eq!(put["changes"], json!(["version", "body"]));
    assert!(fs::read_to_string(world.path("Ada.md")).unwrap().contains("They answer"));
    let back =
        world.server.post("/config-agents/Ada/rollback", &json!({ "version": "1.0.0" })).expect(200).json();
    assert_eq!((&back["version"], &back["pinned"]), (&json!("1.0.0"), &json!(true)));
    let shown = world.server.get("/config-agents/Ada").expect(200).json();
    let versions: Vec<_> =
        shown["versions"].as_array().unwrap().iter().map(|v| v["version"].clone()).collect();
    assert_eq!(versions, ["1.0.0", "1.1.0", "1.0.0"]);
    world.server.ask("POST", "/config-agents/Ada/restart").send().expect(200);
    world.server.delete("/config-agents/Ada").expect(204);
    assert!(!world.path("Ada.md").exists());
    world.server.get("/config-agents/Ada").expect(404);
}

#[test]
fn a_list_is_filtered_and_paged_and_names_files_that_are_not_in_use() {
    let world = World::new();
    for name in ["Ada", "Bob", "Cyd"] {
        world.create(name, &file(name, "1.0.0")).expect(201);
    }
    let lab =
        json!({ "name": "Dan", "content": file("Dan", "1.0.0"), "workspace": "lab", "auto_start": false });
    let dan = world.server.post("/config-agents", &lab).expect(201).json();
    assert_eq!((&dan["workspace"], &dan["status"]), (&json!("lab"), &json!("stopped")));
    fs::write(world.path("bad.md"), "no agent").unwrap();
    let list = |query: &str| {
        let answer = world.server.get(&format!("/config-agents{query}")).expect(200).json();
        let names = answer["agents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|agent| agent["name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), answer["total"].as_u64().unwrap())
    };
    assert_eq!(list(""), (vec!["Ada".into(), "Bob".into(), "Cyd".into(), "Dan".into()], 4));
    assert_eq!(list("?limit=2&offset=1"), (vec!["Bob".into(), "Cyd".into()], 4));
    assert_eq!(list("?workspace=lab"), (vec!["Dan".into()], 1));
    assert_eq!(list("?status=stopped&capability=answering"), (vec!["Dan".into()], 1));
    assert_eq!(list("?capability=none"), (vec![], 0));
    let reloaded = world.server.post("/config-agents/reload", &json!({})).expect(200).json();
    assert_eq!(reloaded["files_rejected"][0]["path"], "bad.md");
    assert_eq!(reloaded["files_rejected"][0]["errors"][0]["location"], json!({ "line": 1, "column": 1 }));
}

#[test]
fn each_refusal_has_its_status_and_its_code() {
    let world = World::new();
    world.create("Ada", &file("Ada", "1.0.0")).expect(201);
    let code = |reply: Reply, status: u16, code: &str| {
        let problem = reply.expect(status).json();
        assert_eq!(problem["code"], code, "{problem}");
        assert!(problem["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{problem}");
    };
    code(world.create("Ada", &file("Ada", "2.0.0")), 409, "NAME_CONFLICT");
    code(world.create("Bob", &file("Eve", "1.0.0")), 422, "VALIDATION_ERROR");
    code(world.create("../../etc/passwd", &file("Eve", "1.0.0")), 422, "VALIDATION_ERROR");
    code(world.create("Bob", "no agent"), 422, "VALIDATION_ERROR");
    code(world.create("Bob", ""), 422, "VALIDATION_ERROR");
    code(world.create("Bob", &"x".repeat(300 << 10)), 422, "VALIDATION_ERROR");
    code(world.server.get("/config-agents/Nobody"), 404, "AGENT_NOT_FOUND");
    code(world.server.get("/config-agents/a%2Fb"), 404, "AGENT_NOT_FOUND");
    code(world.server.delete("/config-agents/Nobody"), 404, "AGENT_NOT_FOUND");
    let versions = [json!({ "version": "9.9.9" }), json!({ "seq": 999 }), json!({})];
    for body in versions {
        code(world.server.post("/config-agents/Ada/rollback", &body), 404, "VERSION_NOT_FOUND");
    }
    let both = json!({ "version": "1.0.0", "seq": 1 });
    code(world.server.post("/config-agents/Ada/rollback", &both), 422, "VALIDATION_ERROR");
    code(world.server.get("/config-agents?status=lazy"), 422, "VALIDATION_ERROR");
    let elsewhere = file("Bob", "1.0.0").replace("version", "workspace: lab\nversion");
    let body = json!({ "name": "Bob", "content": elsewhere, "workspace": "office" });
    code(world.server.post("/config-agents", &body), 422, "VALIDATION_ERROR");
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 1, "what was refused left no file");
    code(Server::start().get("/config-agents"), 503, "AGENTS_NOT_RUNNING");
}

#[test]
fn a_text_is_judged_without_being_used() {
    let world = World::new();
    let judge = |content: &str, status| {
        world.server.post("/config-agents/validate", &json!({ "content": content })).expect(status).json()
    };
    let good = judge(&file("Ada", "1.0.0").replace("version", "verison: x\nversion"), 200);
    assert_eq!((&good["valid"], &good["parsed_config"]["name"]), (&json!(true), &json!("Ada")));
    assert_eq!(good["warnings"][0]["remedy"], "did you mean version?");
    let bad = judge(&file("Ada", "one"), 422);
    assert_eq!(bad["valid"], false);
    assert_eq!(bad["errors"][0]["field"], "version");
    assert_eq!(bad["errors"][0]["location"], json!({ "line": 3, "column": 10 }));
    assert!(world.server.get("/config-agents").json()["agents"].as_array().unwrap().is_empty());
}

#[test]
fn templates_are_listed_shown_and_filled_in() {
    let world = World::new();
    let all = world.server.get("/config-agents/templates").expect(200).json();
    assert_eq!(all["total"], 5);
    let one = world.server.get("/config-agents/templates?category=analysis").expect(200).json();
    assert_eq!(one["templates"][0]["id"], "data-analyzer");
    let shown = world.server.get("/config-agents/templates/data-analyzer").expect(200).json();
    assert_eq!(shown["parameters"][0]["name"], "NAME");
    world.server.get("/config-agents/templates/data-analyser").expect(404);
    let fill = |parameters: Value, status| {
        let path = "/config-agents/templates/data-analyzer/generate";
        world.server.post(path, &json!({ "parameters": parameters })).expect(status).json()
    };
    assert_eq!(fill(json!({}), 422)["code"], "PARAMETER_MISSING");
    assert_eq!(fill(json!({ "NAME": 7 }), 422)["code"], "VALIDATION_ERROR");
    let made = fill(json!({ "NAME": "Ada" }), 201);
    assert_eq!(made["ready_to_deploy"], true);
    world.create("Ada", made["generated_content"].as_str().unwrap()).expect(201);
}

/// The program with these arguments, deaf to the environment.
fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caxton"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CAXTON_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

/// Ends with this exit code and prints these texts.
#[track_caller]
fn check(args: &[&str], code: i32, prints: &[&str]) {
    let output = run(args);
    let both =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {both}");
    for text in prints {
        assert!(both.contains(text), "{args:?} should print {text:?}, but: {both}");
    }
}

#[test]
fn the_command_line_lists_shows_reloads_and_takes_back() {
    let world = World::new();
    world.create("Ada", &file("Ada", "1.0.0")).expect(201);
    fs::write(world.path("Ada.md"), file("Ada", "1.1.0")).unwrap();
    fs::write(world.path("bad.md"), "no agent").unwrap();
    let url = format!("http://{}", world.server.address);
    let place: &[&str] = &["--url", &url];
    let with = |args: &[&'static str]| [args, place].concat();
    check(&with(&["agents", "reload"]), 0, &["1 agent", "not in use: bad.md:1:1: there is no front matter"]);
    check(&with(&["agents", "list"]), 0, &["Ada", "1.1.0", "running", "answering", "Ada.md"]);
    check(&with(&["agents", "show", "Ada"]), 0, &["max conversations", "in use", "1.0.0"]);
    check(&with(&["agents", "show", "Ada", "--content"]), 0, &["You answer."]);
    check(&with(&["agents", "rollback", "Ada"]), 0, &["Ada is back at 1.0.0"]);
    check(&with(&["agents", "list"]), 0, &["1.0.0 (pinned)"]);
    check(&with(&["agents", "rollback", "Ada", "--to-version", "7.0.0"]), 3, &["VERSION_NOT_FOUND"]);
    check(&with(&["agents", "show", "Nobody"]), 3, &["AGENT_NOT_FOUND"]);
    let empty = TempDir::new().unwrap();
    check(&["agents", "list", "--data-dir", empty.path().to_str().unwrap()], 4, &["no server runs here"]);
}

#[test]
fn commands_take_pages_of_the_size_that_the_server_gives() {
    let sizes = RestOptions { page_size_default: 2, page_size_max: 3, ..RestOptions::default() };
    let world = World::with(sizes);
    for name in ["Ada", "Bob", "Cyd"] {
        world.create(name, &file(name, "1.0.0")).expect(201);
    }
    world.server.post("/agents", &json!({ "agent_id": "eve" })).expect(201);
    for capability in ["chess", "go", "poker"] {
        let offer = json!({ "agent_id": "eve", "capability": capability });
        world.server.post("/capabilities", &offer).expect(201);
    }
    let mut message =
        json!({ "performative": "REQUEST", "sender": "zoe", "receiver": "eve", "content": "play" });
    for _ in 0..3 {
        let sent = world.server.post("/messages", &message).expect(201).json();
        message["conversation_id"] = sent["conversation_id"].clone();
    }
    let page = world.server.get("/config-agents").expect(200).json();
    assert_eq!((&page["limit"], page["agents"].as_array().unwrap().len()), (&json!(2), 2));
    world.server.get("/config-agents?limit=4").problem(422, "VALIDATION_ERROR");
    let url = format!("http://{}", world.server.address);
    let conversation = message["conversation_id"].as_str().unwrap();
    for (args, name, count) in [
        (&["agents", "list"][..], "agents", 5),
        (&["capabilities", "list"], "capabilities", 3),
        (&["conversations", "list"], "conversations", 1),
        (&["conversations", "show", conversation], "messages", 3),
        (&["audit", "query"], "events", 2),
    ] {
        let output = run(&[&["--url", &url, "--json"][..], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer[name].as_array().map(Vec::len), Some(count), "{args:?}: {answer}");
    }
}

#[test]
fn agents_that_registered_are_listed_beside_those_from_files() {
    let world = World::new();
    world.create("Ada", &file("Ada", "1.0.0")).expect(201);
    for (name, workspace) in [("bob", "default"), ("eve", "lab")] {
        world.server.post("/agents", &json!({ "agent_id": name, "workspace": workspace })).expect(201);
    }
    let url = format!("http://{}", world.server.address);
    let list = |args: &[&str]| {
        let args = [&["--url", &url, "--json", "agents", "list"][..], args].concat();
        let output = run(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(list["total"], list["agents"].as_array().unwrap().len());
        let rows = list["agents"].as_array().unwrap().iter();
        let text = |agent: &Value, name: &str| agent[name].as_str().unwrap().to_owned();
        let row = |agent: &Value| {
            // The word of `GET /agents`, whatever a row is from.
            assert_eq!(text(agent, "agent_id"), text(agent, "name"));
            (text(agent, "name"), text(agent, "kind"))
        };
        rows.map(row).collect::<Vec<_>>()
    };
    let row = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
    let (ada, bob, eve) = (row("Ada", "config"), row("bob", "external"), row("eve", "external"));
    assert_eq!(list(&[]), [ada.clone(), bob, eve.clone()]);
    assert_eq!(list(&["--workspace", "lab"]), [eve]);
    assert_eq!(list(&["--status", "running"]), [ada]);
    let shown = ["Ada.md", "registered", "3 agents: 1 from files, 2 registered by programs outside"];
    check(&["--url", &url, "agents", "list"], 0, &shown);
}

#[test]
fn an_agent_that_registered_is_shown_by_its_name_as_one_of_a_file_is() {
    let world = World::new();
    world.create("Ada", &file("Ada", "1.0.0")).expect(201);
    world.server.post("/agents", &json!({ "agent_id": "bob", "workspace": "lab" })).expect(201);
    let url = format!("http://{}", world.server.address);
    let place: &[&str] = &["--url", &url];
    let with = |args: &[&'static str]| [args, place].concat();
    let told = ["bob", "registered", "lab", "messages received", "successful requests"];
    check(&with(&["agents", "show", "bob"]), 0, &told);
    let json = |name| {
        let output = run(&with(&["--json", "agents", "show", name]));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (ada, bob) = (json("Ada"), json("bob"));
    assert_eq!(
        (&ada["agent_id"], &ada["name"], &ada["kind"]),
        (&json!("Ada"), &json!("Ada"), &json!("config"))
    );
    assert_eq!((&bob["name"], &bob["kind"]), (&json!("bob"), &json!("external")));
    let rest = world.server.get("/agents/bob").expect(200).json();
    for (name, value) in rest.as_object().unwrap() {
        assert_eq!(&bob[name], value, "{name}");
    }
    check(&with(&["agents", "show", "bob", "--content"]), 3, &["has no file to print; leave out --content"]);
    check(&with(&["agents", "show", "nobody"]), 3, &["AGENT_NOT_FOUND"]);
}

#[test]
fn files_are_checked_without_a_server() {
    let folder = TempDir::new().unwrap();
    let place = folder.path().to_str().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("ada.md", &file("Ada", "1.0.0").replace("version", "verison: x\nversion"));
    write("README.md", "# A note for people, which is no agent\n");
    check(
        &["agents", "validate", place],
        0,
        &["Ada 1.0.0 can be used", "⚠ verison: unknown key", "did you mean version?"],
    );
    check(&["agents", "validate", "--strict", place], 5, &["× verison", "1 of 1 file cannot be used"]);
    write("bob.md", &file("Bob", "one"));
    write("double.md", &file("Ada", "1.0.0"));
    let marks = [
        "× version: \"one\" is no version",
        "bob.md:3:10]",
        "─┬─",
        "help: write MAJOR.MINOR.PATCH",
        "both define the agent Ada",
    ];
    check(&["agents", "validate", place], 5, &marks);
    let output = run(&["agents", "validate", "--json", place]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["valid"], &report["files"][1]["errors"][0]["location"]["line"]),
        (&json!(false), &json!(3))
    );
    check(&["agents", "validate", "/no/such/file.md"], 3, &["could not read"]);
}

#[test]
fn servers_and_models_of_the_configuration_are_known_where_there_is_one() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (agent, config) = (path("one.md"), path("caxton.yaml"));
    let text = file("One", "1.0.0");
    let with =
        |more: &str| fs::write(&agent, text.replace("\n---\nYou", &format!("\n{more}\n---\nYou"))).unwrap();
    with("tools: ['mcp:good', memory]\nllm: {provider: mine}");
    let note =
        "not checked: tool mcp:good, model provider mine; name the server's configuration with --config";
    check(&["agents", "validate", "--strict", &agent], 0, &["One 1.0.0 can be used", note]);
    let known = "mcp_servers: [{name: good, command: mcp-good}]\nllm: {providers: [{name: mine, kind: extractive}]}\n";
    fs::write(&config, known).unwrap();
    let validate = ["--config", &config, "agents", "validate", &agent];
    check(&validate, 0, &["One 1.0.0 can be used"]);
    with("tools: ['mcp:bad/x']\nllm: {provider: nope}");
    check(
        &validate,
        5,
        &["× tools[0]: there is no tool \"mcp:bad/x\"", "× llm.provider: there is no model provider"],
    );
}
