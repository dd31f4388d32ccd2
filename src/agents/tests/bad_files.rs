//! Every way in which a file may be wrong, as a table: what is reported, where, and what to do about it.

use super::super::{Surroundings, judge};
use super::{file, told};

/// The file is refused with exactly these problems: `line:column field`, and words of reason and remedy.
#[track_caller]
fn check(file: impl AsRef<[u8]>, then: &[(&str, &str)]) {
    let judgement = judge(file.as_ref(), &Surroundings::default());
    let told = told(&judgement.problems);
    let shown = String::from_utf8_lossy(file.as_ref());
    let shown: String = shown.chars().take(400).collect();
    assert_eq!(judgement.problems.len(), then.len(), "{shown}\n{told}");
    for (line, (place, words)) in told.lines().zip(then) {
        assert!(line.starts_with(&format!("{place}: ")), "{shown}\n{line}\nis not at {place}");
        for word in words.split(" … ") {
            assert!(line.contains(word), "{shown}\n{line}\nsays nothing of {word:?}");
        }
    }
    assert!(judgement.definition.is_none() && !then.is_empty());
    for problem in &judgement.problems {
        assert!(!problem.remedy.is_empty() && !problem.reason.is_empty(), "{told}");
    }
}

/// A good file with `lines` added to its front matter, whose first is line 5.
fn with(lines: &str) -> String {
    format!("---\nname: Ada\nversion: 1.0.0\ncapabilities: [answering]\n{lines}\n---\nYou answer.\n")
}

#[test]
fn what_is_no_file_of_ours() {
    check("", &[("1:1 ", "empty … `---`")]);
    check(" \n\n", &[("1:1 ", "empty")]);
    check("# Ada\n\nHello\n", &[("1:1 ", "no front matter … begin the file with `---`")]);
    check("\n---\nname: Ada\n---\n", &[("1:1 ", "stands before … make `---` the first line")]);
    check("---\nname: Ada\nversion: 1.0.0\n", &[("1:1 ", "not closed … `---` after its last key")]);
    check("--- x\nname: Ada\n---\n", &[("1:1 ", "stands before")]);
    check(b"---\nname: Ad\xff\n---\n", &[("2:9 ", "not UTF-8 … save it as UTF-8")]);
    check(b"\xff\xfe-\0-\0-\0", &[("1:1 ", "not UTF-8")]);
    let big = format!("{}{}", file("Ada", "1.0.0"), "x".repeat(300 << 10));
    check(&big, &[("0:0 ", "bytes, the limit is 262144 … shorten")]);
}

#[test]
fn what_is_no_yaml() {
    check(with("\ttools: [memory]"), &[("5:1 ", "a tab indents this line … spaces")]);
    check(with("memory:\n \tenabled: true"), &[("6:2 ", "a tab indents")]);
    check(with("description: a: b"), &[("5:15 ", "no YAML: mapping values … quotes")]);
    check(with("tags: [a, b"), &[("5:7 ", "no YAML … close the bracket")]);
    check(with("description: \"open"), &[("5:14 ", "no YAML")]);
    check(with("tags: *nothing"), &[("5:7 ", "unknown anchor … quotes")]);
    check(with("description: !secret x"), &[("5:14 ", "tags … remove the tag")]);
    check(with("? [a, b]\n: c"), &[("5:3 ", "no YAML")]);
    check("---\n- a\n- b\n---\n", &[("2:1 ", "is a list, not a map … `key: value`")]);
    check("---\nhello\n---\n", &[("2:1 ", "not a map")]);
    check(with("name: Bob"), &[("5:1 name", "given twice … remove one")]);
    check(with("memory: {enabled: true, enabled: false}"), &[("5:25 memory.enabled", "given twice")]);
}

#[test]
fn what_would_take_too_much() {
    let brackets = with(&format!("tags: {}", "[".repeat(100_000)));
    check(&brackets, &[("5:507 ", "brackets are open … close them")]);
    let deep = with(&format!("parameters: {}x{}", "{a: ".repeat(20), "}".repeat(20)));
    check(&deep, &[("5:77 ", "levels deep … flatten")]);
    let laughs = with(
        "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
         c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
         e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]",
    );
    let judgement = judge(laughs.as_bytes(), &Surroundings::default());
    assert!(told(&judgement.problems).contains("write the values out"), "{}", told(&judgement.problems));
    let long = with(&format!("a: &a {}\nb: [{}]", "x".repeat(100_000), "*a, ".repeat(20_000)));
    let judgement = judge(long.as_bytes(), &Surroundings::default());
    assert!(told(&judgement.problems).contains("write the values out"), "{}", told(&judgement.problems));
    let many = with(&format!("tags: [{}]", "a, ".repeat(300)));
    check(&many, &[("5:7 tags", "the limit is 256")]);
}

#[test]
fn what_is_missing() {
    check(
        "---\n---\n",
        &[
            ("0:0 name", "missing … DataAnalyzer"),
            ("0:0 version", "missing … 1.0.0"),
            ("0:0 capabilities", "no capability … list"),
            ("0:0 system_prompt", "no instructions … below the front matter"),
        ],
    );
    check(
        "---\nname: Ada\nversion: 1.0.0\ncapabilities: []\n---\nHi\n",
        &[("4:1 capabilities", "no capability")],
    );
    check("---\nname:\nversion: 1.0.0\ncapabilities: [a]\n---\nHi\n", &[("2:1 name", "missing")]);
}

#[test]
fn names_and_versions() {
    for name in [
        "a b",
        "../../etc/passwd",
        "a/b",
        ".ada",
        "a",
        "\"\"",
        "1st",
        "Ådå",
        "[x]",
        "7",
        "system",
        &"x".repeat(65),
    ] {
        let file = format!("---\nname: {name}\nversion: 1.0.0\ncapabilities: [a]\n---\nHi\n");
        check(&file, &[("2:7 name", "no name of an agent … 2 to 64 letters")]);
    }
    for version in ["1.0", "1", "v1.0.0", "one", "1.0.0.0", "[1]"] {
        let file = format!("---\nname: Ada\nversion: {version}\ncapabilities: [a]\n---\nHi\n");
        check(&file, &[("3:10 version", "no version … MAJOR.MINOR.PATCH")]);
    }
}

#[test]
fn capabilities() {
    let given = |list: &str| format!("---\nname: Ada\nversion: 1.0.0\ncapabilities: {list}\n---\nHi\n");
    check(
        given("[Data Analysis]"),
        &[("4:16 capabilities[0]", "no name of a capability … write data-analysis")],
    );
    check(given("[ok, data_analysis]"), &[("4:20 capabilities[1]", "write data-analysis")]);
    check(
        given("[7, {a: b}]"),
        &[("4:16 capabilities[0]", "not a text"), ("4:19 capabilities[1]", "not a text")],
    );
    check(given("[a, a]"), &[("4:19 capabilities[1]", "listed twice")]);
    check(given("[a:vx]"), &[("4:16 capabilities[0]", "no version … v2.0")]);
    check(given("[é]"), &[("4:16 capabilities[0]", "kebab-case")]);
    check(given("answering"), &[("4:1 capabilities", "no capability"), ("4:15 capabilities", "not a list")]);
    let many: Vec<String> = (0..65).map(|number| format!("c{number}")).collect();
    check(given(&format!("[{}]", many.join(", "))), &[("4:1 capabilities", "the limit is 64")]);
}

#[test]
fn tools() {
    check(with("tools: [memry]"), &[("5:9 tools[0]", "no tool \"memry\" … did you mean memory?")]);
    check(
        with("tools: [http_client, shell]"),
        &[("5:22 tools[1]", "no tool \"shell\" … the tools are http_client, memory, message")],
    );
    check(with("tools: [mcp:files/read]"), &[("5:9 tools[0]", "no tool")]);
    check(with("tools: [memory, memory]"), &[("5:17 tools[1]", "listed twice")]);
    check(with("tools: memory"), &[("5:8 tools", "not a list")]);
    check(with("tools: [{permissions: {}}]"), &[("5:9 tools[0]", "names no tool")]);
    let host = "tools: [http_client]\npermissions:\n  allowed_hosts: [https://a.b/c]";
    check(with(host), &[("7:19 permissions.allowed_hosts[0]", "no name of a host … api.example.com")]);
    check(
        with("tools: [memory]\nsecurity:\n  restricted_tools: [memry, 7]"),
        &[("7:29 security.restricted_tools[1]", "not the name of a tool")],
    );
}

#[test]
fn values_of_the_wrong_kind() {
    for (line, place, words) in [
        ("description: [a]", "5:14 description", "not a text"),
        ("tags: one", "5:7 tags", "not a list"),
        ("tags: [1]", "5:8 tags[0]", "not a text"),
        ("agent_type: 7", "5:13 agent_type", "not a text"),
        ("workspace: a/b", "5:12 workspace", "not a name"),
        ("parameters: [a]", "5:13 parameters", "not a map"),
        (
            "parameters: {response_timeout: 10}",
            "5:32 parameters.response_timeout",
            "not a duration … 500ms, 10s",
        ),
        (
            "resource_limits: {max_conversations: -1}",
            "5:38 resource_limits.max_conversations",
            "whole number from 1",
        ),
        (
            "resource_limits: {max_conversations: many}",
            "5:38 resource_limits.max_conversations",
            "whole number",
        ),
        (
            "resource_limits: {tool_call_timeout: 0s}",
            "5:38 resource_limits.tool_call_timeout",
            "from 1ms to 7d",
        ),
        ("performance: {cache_responses: maybe}", "5:32 performance.cache_responses", "true or false"),
        ("performance: fast", "5:14 performance", "not a map"),
        ("llm: {temperature: 3}", "5:20 llm.temperature", "a number from 0 to 2"),
        ("llm: {temperature: .nan}", "5:20 llm.temperature", "a number from 0 to 2"),
        ("conversation: {max_turns: 0}", "5:27 conversation.max_turns", "whole number"),
        ("memory: {backend: neo4j}", "5:19 memory.backend", "embedded"),
        (
            "tool_config: {http_client: {max_response_size: 67108865}}",
            "5:48 tool_config.http_client.max_response_size",
            "whole number from 1 to 67108864",
        ),
        ("permissions: {network: ful}", "5:24 permissions.network", "did you mean full?"),
        ("system_prompt: [a]", "5:16 system_prompt", "not a text"),
    ] {
        check(with(line), &[(place, words)]);
    }
    check(with("memory_scope: everyone"), &[("5:15 memory_scope", "agent, workspace, global … write agent")]);
    let two = "resource_limits:\n  memory_scope: agent\nmemory:\n  scope: global";
    check(with(two), &[("8:10 memory.scope", "contradicts … name one")]);
}

#[test]
fn templates() {
    let body = "---\nname: Ada\nversion: 1.0.0\ncapabilities: [a]\n---\nHi\nYou are {{name\n";
    check(body, &[("7:9 body", "unbalanced … write {{name}}")]);
    check(body.replace('\n', "\r\n"), &[("7:9 body", "unbalanced")]);
    check(
        with("system_prompt: |\n  You are\n\n    é {{#if a}} x"),
        &[("8:7 system_prompt", "blocks … write the text out")],
    );
    check(with("system_prompt: \"Hi name}}\""), &[("5:24 system_prompt", "closes nothing … put `{{`")]);
    check(with("user_prompt_template: '{{a b}}'"), &[("5:24 user_prompt_template", "no name of a value")]);
    let named = "prompt_templates:\n  request_handler: '{{each'\n  other: 7";
    check(
        with(named),
        &[
            ("7:10 prompt_templates.other", "not a text"),
            ("6:21 prompt_templates.request_handler", "unbalanced"),
        ],
    );
    check(
        with("parameters: {request: x}"),
        &[("5:14 parameters.request", "filled by every turn … another name")],
    );
    let query = "memory:\n  search:\n    query_template: '{{'";
    check(with(query), &[("7:22 memory.search.query_template", "unbalanced")]);
}

#[test]
fn everything_is_told_at_once_in_the_order_of_the_phases() {
    let file = "---\nllm: {top_p: 2}\ncapabilities: [Bad Name]\ntools: [nothing]\nmemory_scope: x\nversion: 1\n---\n{{\n";
    check(
        file,
        &[
            ("0:0 name", "missing"),
            ("3:16 capabilities[0]", "write bad-name"),
            ("4:9 tools[0]", "no tool"),
            ("2:14 llm.top_p", "a number"),
            ("6:10 version", "no version"),
            ("5:15 memory_scope", "not one of"),
            ("8:1 body", "unbalanced"),
        ],
    );
    let many =
        with(&format!("tools: [{}]", (0..200).map(|n| format!("t{n}")).collect::<Vec<_>>().join(", ")));
    let judgement = judge(many.as_bytes(), &Surroundings::default());
    assert_eq!(judgement.problems.len(), 50, "there is a limit to what is told");
}

#[test]
fn how_a_time_is_written_is_told_once() {
    for (value, what) in [("10", "10 is not a duration"), ("8d", "\"8d\" is not within its bounds")] {
        let text = with(&format!("parameters: {{response_timeout: {value}}}"));
        let told = told(&judge(text.as_bytes(), &Surroundings::default()).problems);
        assert!(told.contains(what), "{told}");
        assert_eq!(told.matches("from 1ms to 7d, such as 500ms").count(), 1, "{told}");
    }
}
