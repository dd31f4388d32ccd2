//! Files that can be used, and what they say.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::limits::{Caps, Limits};
use super::super::templates::{FillError, TEMPLATES, Template};
use super::super::{Definition, Surroundings, judge};
use super::{file, told};
use crate::config::{self, Config, MemoryScope};
use crate::toolbox::Permissions;

#[track_caller]
fn read(file: &str) -> Definition {
    let judgement = judge(file.as_bytes(), &Surroundings::default());
    judgement.definition.unwrap_or_else(|| panic!("{file}\n{}", told(&judgement.problems)))
}

/// The example of the tuning guide.
const GUIDE: &str = "---
name: OptimizedAgent
version: \"1.0.0\"
capabilities:
  - data-processing
tools:
  - http_client
parameters:
  response_timeout: \"10s\"
  max_context_length: 4000
resource_limits:
  memory_scope: agent
  max_conversations: 50
  max_memory_entities: 1000
  tool_call_timeout: \"5s\"
  memory_search_limit: 100
performance:
  cache_responses: true
  preload_memory: false
  lazy_tool_loading: true
  optimize_prompts: true
---

# Optimized Agent

You process data.
";

#[test]
fn the_example_of_the_tuning_guide_means_what_it_says() {
    let definition = read(GUIDE);
    assert_eq!(definition.name.as_str(), "OptimizedAgent");
    assert_eq!(definition.system_prompt, "# Optimized Agent\n\nYou process data.");
    assert_eq!(definition.permissions.tools, ["http_client"]);
    assert_eq!(definition.permissions.memory_results_max, 100);
    assert_eq!(definition.limits.max_context_length, Some(4_000));
    assert_eq!(definition.limits.response_timeout, Some(Duration::from_secs(10)));
    assert_eq!(definition.limits.tool_call_timeout, Some(Duration::from_secs(5)));
    assert!(definition.performance.cache_responses);
    assert_eq!(definition.capabilities[0].priority, 50);
}

#[test]
fn marks_line_ends_and_comments_of_editors_do_no_harm() {
    let plain = read(GUIDE);
    assert_eq!(read(&format!("\u{feff}{GUIDE}")), plain);
    assert_eq!(read(&GUIDE.replace('\n', "\r\n")), plain);
    assert_eq!(read(&GUIDE.replacen("---\n", "---  \n# a comment\n\n", 1)), plain);
    let tabs =
        read(&GUIDE.replace("name: OptimizedAgent", "name:\tOptimizedAgent\nsystem_prompt: |\n  a\n  \tb"));
    assert_eq!(tabs.system_prompt, "a\n\tb", "a tab inside a text is a tab");
}

#[test]
fn doubtful_parts_are_told_and_refused_only_when_asked() {
    let text = "---\nname: Ada\nversion: 1.0.0\ncapabilites: [b]\ncapabilities: [answering]\nschedule: daily\nresource_limits:\n  max_conversation: 5\n---\nHi\n";
    let lenient = judge(text.as_bytes(), &Surroundings::default());
    assert!(lenient.definition.is_some());
    let told_of = "4:1 capabilites: unknown key capabilites; did you mean capabilities?\n\
                   6:1 schedule: schedule has no effect here; remove it, or leave it as a note\n\
                   8:3 resource_limits.max_conversation: unknown key max_conversation; did you mean max_conversations?\n";
    assert_eq!(told(&lenient.warnings), told_of);
    let strict = judge(text.as_bytes(), &Surroundings { strict: true, ..Surroundings::default() });
    assert!(strict.definition.is_none() && strict.warnings.is_empty());
    assert_eq!(told(&strict.problems), told_of);
    assert_eq!(strict.name.map(String::from).as_deref(), Some("Ada"));
}

#[test]
fn permissions_without_effect_are_doubtful() {
    let text = "---\nname: Ada\nversion: 1.0.0\ncapabilities: [a]\ntools:\n  - {name: memory, permissions: {network: none, private_addresses: true}}\n\
                security:\n  restricted_tools: [memry]\n---\nHi\n";
    let told_of = told(&judge(text.as_bytes(), &Surroundings::default()).warnings);
    let lines: Vec<&str> = told_of.lines().collect();
    let [network, private, memry] = &lines[..] else { panic!("{told_of}") };
    assert!(network.starts_with("6:34 tools[0].permissions.network: has no effect here"), "{network}");
    assert!(private.contains(" tools[0].permissions.private_addresses: has no effect here"), "{private}");
    assert!(memry.starts_with("8:22 security.restricted_tools[0]: there is no tool \"memry\""), "{memry}");
    assert!(memry.ends_with("did you mean memory?"), "{memry}");
}

#[test]
fn placeholders_that_nothing_fills_are_doubtful() {
    let text = "---\nname: Ada\nversion: 1.0.0\ncapabilities: [a]\nparameters: {tone: dry}\n\
                user_prompt_template: '{{tone}} {{request}} {{topic}}'\n---\nBe {{tone}} and {{nope}}, {{kind:fair}}.\n";
    let lenient = judge(text.as_bytes(), &Surroundings::default());
    assert!(lenient.definition.is_some());
    let told_of = told(&lenient.warnings);
    let lines: Vec<&str> = told_of.lines().collect();
    let [topic, nope] = &lines[..] else { panic!("{told_of}") };
    assert!(topic.starts_with("6:45 user_prompt_template: nothing fills {{topic}}"), "{topic}");
    assert!(nope.starts_with("8:17 body: nothing fills {{nope}}"), "{nope}");
    assert!(
        nope.contains("as in {{nope:none}}; the names are request, context") && nope.ends_with(", tone"),
        "{nope}"
    );
    let strict = judge(text.as_bytes(), &Surroundings { strict: true, ..Surroundings::default() });
    assert!(strict.definition.is_none());
    assert_eq!(told(&strict.problems), told_of);
}

#[test]
fn tools_and_permissions_add_up() {
    let text = "---\nname: Ada\nversion: 1.0.0\ncapabilities: [ocr:v2, b.c]\nrequires: [other]\ncapability_metadata:\n  ocr: {priority: 900, languages: [de]}\n\
                tools:\n  - name: http_client\n    permissions: {allowed_hosts: [API.example.com]}\n  - memory\n  - mcp:files/read\n\
                permissions:\n  allowed_domains: ['*.b.c']\n  restricted_tools: [memory]\n  max_tool_calls: 5\n  memory_writes: false\n\
                tool_config:\n  http_client: {max_redirects: 0, max_response_size: 1000, timeout: 2s, headers: {a: b}}\n---\nHi\n";
    let mut around = Surroundings::default();
    around.tools.insert("mcp:files".to_owned());
    let judgement = judge(text.as_bytes(), &around);
    let definition = judgement.definition.unwrap_or_else(|| panic!("{}", told(&judgement.problems)));
    let permissions = &definition.permissions;
    assert_eq!(permissions.tools, ["http_client", "mcp:files/read"]);
    assert_eq!(permissions.allowed_hosts, ["api.example.com", "*.b.c"]);
    assert_eq!((permissions.redirects_max, permissions.http_bytes_max, permissions.calls_max), (0, 1_000, 5));
    assert_eq!(permissions.http_timeout, Some(Duration::from_secs(2)));
    assert_eq!(permissions.result_bytes_max, 1 << 20, "what limits HTTP limits no other tool");
    assert!(!permissions.memory_writes && !permissions.private_addresses);
    assert_eq!(definition.tool_config["http_client"]["headers"]["a"], "b");
    let offers: Vec<_> =
        definition.capabilities.iter().map(|o| (o.name.as_str(), o.version.as_str(), o.priority)).collect();
    assert_eq!(offers, [("ocr", "2.0.0", 900), ("b.c", "1.0.0", 50)]);
    assert_eq!(definition.capabilities[0].metadata.as_ref().unwrap()["languages"][0], "de");
}

#[test]
fn a_response_that_no_event_has_room_for_is_cut_and_told() {
    let text = |size: u32| {
        let lines = format!("tool_config: {{http_client: {{max_response_size: {size}}}}}");
        format!("---\nname: Ada\nversion: 1.0.0\ncapabilities: [c]\n{lines}\n---\nHi\n")
    };
    for (size, warned) in [(15 << 20, false), ((15 << 20) + 1, true), (64 << 20, true)] {
        let judgement = judge(text(size).as_bytes(), &Surroundings::default());
        let definition = judgement.definition.unwrap_or_else(|| panic!("{}", told(&judgement.problems)));
        assert_eq!(definition.permissions.http_bytes_max, 15 << 20, "{size}");
        let words = format!("tool_config.http_client.max_response_size: {size} is cut to 15728640");
        assert_eq!(told(&judgement.warnings).contains(&words), warned, "{}", told(&judgement.warnings));
    }
}

/// What a file with these lines may do.
fn allowed(lines: &str) -> Permissions {
    let text = format!("---\nname: Ada\nversion: 1.0.0\ncapabilities: [c]\n{lines}\n---\nHi\n");
    let mut around = Surroundings::default();
    around.tools.insert("mcp:files".to_owned());
    let judgement = judge(text.as_bytes(), &around);
    judgement.definition.unwrap_or_else(|| panic!("{}", told(&judgement.problems))).permissions
}

#[test]
fn the_narrowest_word_about_the_network_holds() {
    let web = "tools: [http_client]\n";
    for (lines, hosts) in [
        ("permissions: {network: full}\nsecurity: {network: none}", &[][..]),
        ("permissions: {network: none}\nsecurity: {network: full}", &[]),
        ("permissions: {network: none, allowed_hosts: [a.b]}", &[]),
        ("security: {network: false}\ntool_config: {http_client: {allowed_hosts: [a.b]}}", &[]),
        ("permissions: {network: full}\nsecurity: {network: restricted, allowed_hosts: [a.b]}", &["a.b"]),
        ("permissions: {network: full}\ntool_config: {http_client: {allowed_hosts: [a.b]}}", &["*"]),
        ("tool_config: {http_client: {allowed_hosts: ['[::1]:80', 'A.b:81']}}", &["[::1]:80", "a.b:81"]),
    ] {
        assert_eq!(allowed(&format!("{web}{lines}")).allowed_hosts, hosts, "{lines}");
    }
    let beside = "tools:\n  - http_client\n  - {name: mcp:files, permissions: {network: none, allowed_hosts: [x.y]}}\n\
                  permissions: {allowed_hosts: [a.b]}";
    assert_eq!(allowed(beside).allowed_hosts, ["a.b"]);
}

#[test]
fn no_map_opens_what_another_one_closes() {
    let http = |said: &str| format!("  - {{name: http_client, permissions: {{private_addresses: {said}}}}}");
    let files = |said: &str| format!("  - {{name: mcp:files, permissions: {{private_addresses: {said}}}}}");
    let private = |key: &str, said: &str| format!("{key}: {{private_addresses: {said}}}");
    for (tools, more, then) in [
        (http("true"), String::new(), true),
        (http("false"), private("security", "true"), false),
        (files("true"), String::new(), false),
        (files("false"), private("permissions", "true"), true),
        ("  - message".to_owned(), private("permissions", "true"), true),
        (
            "  - message".to_owned(),
            private("permissions", "false") + "\n" + &private("security", "true"),
            false,
        ),
        ("  - message".to_owned(), String::new(), false),
    ] {
        let lines = format!("tools:\n{tools}\n  - memory\n{more}");
        assert_eq!(allowed(&lines).private_addresses, then, "{lines}");
    }
    for (lines, writes, calls) in [
        ("", true, 20),
        ("security: {max_tool_calls: 50}", true, 50),
        ("permissions: {memory_writes: false, max_tool_calls: 5}\nsecurity: {memory_writes: true}", false, 5),
        ("permissions: {max_tool_calls: 5}\nsecurity: {max_tool_calls: 50, memory_writes: false}", false, 5),
    ] {
        let permissions = allowed(lines);
        assert_eq!((permissions.memory_writes, permissions.calls_max), (writes, calls), "{lines}");
    }
}

#[test]
fn a_tool_is_taken_away_wherever_it_is_named() {
    for (lines, yes, no) in [
        ("tools: [memory, mcp:files]", &["memory", "mcp:files/read"][..], &["message"][..]),
        (
            "tools: [memory, mcp:files]\npermissions: {restricted_tools: [mcp:files/rm]}",
            &["mcp:files/read", "memory"],
            &["mcp:files/rm", "mcp__files__rm"],
        ),
        (
            "tools: [mcp:files/rm, mcp:files/read]\nsecurity: {restricted_tools: [mcp__files__rm]}",
            &["mcp__files__read"],
            &["mcp:files/rm"],
        ),
        (
            "tools: [memory, mcp:files/rm]\nsecurity: {restricted_tools: [mcp:files]}",
            &["memory"],
            &["mcp:files/rm"],
        ),
        (
            "tools:\n  - {name: mcp:files, permissions: {restricted_tools: [memory]}}\n  - memory",
            &["mcp:files/x"],
            &["memory"],
        ),
    ] {
        let permissions = allowed(lines);
        for name in yes {
            assert!(permissions.allow(name), "{lines}: {name}");
        }
        for name in no {
            assert!(!permissions.allow(name), "{lines}: {name}");
        }
    }
}

/// The limits of a file with these lines under this configuration.
fn limits(lines: &str, agents: &str) -> Limits {
    let mut config = Config::default();
    config.agents =
        config::load_text(agents).map_or_else(|error| panic!("{error}"), |loaded| loaded.config.agents);
    let text = format!("---\nname: Ada\nversion: 1.0.0\ncapabilities: [a]\n{lines}\n---\nHi\n");
    let caps = Caps { max_conversations: 500, tool_call_timeout: config.agents.tool_call_timeout };
    Limits::of(&read(&text), &config.agents, caps)
}

#[test]
fn the_file_wins_over_its_type_and_that_over_the_defaults_below_the_caps() {
    let agents = "agents:\n  tool_call_timeout: 8s\n  memory_scope: workspace\n  default_limits: {max_conversations: 100, tool_call_timeout: 4s}\n  \
                  overrides:\n    - {agent_type: heavy, max_conversations: 200, tool_call_timeout: 30s, memory_scope: global}\n    - {agent_type: heavy, max_conversations: 1}\n";
    let seconds = Duration::from_secs;
    let plain = limits("description: x", agents);
    assert_eq!((plain.max_conversations, plain.tool_call_timeout), (100, seconds(4)));
    assert_eq!((plain.memory_scope, plain.memory_search_limit), (MemoryScope::Workspace, 100));
    let heavy = limits("agent_type: heavy", agents);
    assert_eq!((heavy.max_conversations, heavy.tool_call_timeout), (200, seconds(8)));
    assert_eq!(heavy.memory_scope, MemoryScope::Global);
    let own = "agent_type: heavy\nresource_limits: {max_conversations: 900, tool_call_timeout: 1s, memory_scope: agent}";
    let own = limits(own, agents);
    assert_eq!((own.max_conversations, own.tool_call_timeout), (500, seconds(1)));
    assert_eq!((own.memory_scope, own.response_timeout), (MemoryScope::Agent, seconds(30)));
}

#[test]
fn an_override_may_give_a_call_more_time_than_usual_where_no_cap_is_set() {
    let guide = include_str!("../../../tests/fixtures/config/agent-limits.yaml");
    let seconds = Duration::from_secs;
    assert_eq!(limits("agent_type: data-analyzer", guide).tool_call_timeout, seconds(30));
    assert_eq!(limits("agent_type: quick-responder", guide).tool_call_timeout, seconds(10));
    assert_eq!(
        limits("resource_limits: {tool_call_timeout: 40s}", "agents: {}").tool_call_timeout,
        seconds(40)
    );
    assert_eq!(limits("description: x", "agents: {}").tool_call_timeout, seconds(10));
}

#[test]
fn what_the_server_cuts_or_never_does_is_doubtful() {
    let mut config = Config::default();
    config.agents.tool_call_timeout = Some(Duration::from_secs(2));
    let told_of = |config: &Config| told(&judge(GUIDE.as_bytes(), &Surroundings::of(config)).warnings);
    let (cut, not_kept) =
        ("15:3 resource_limits.tool_call_timeout: 5s is cut to 2s", "18:3 performance.cache_responses");
    let both = told_of(&config);
    assert!(both.contains(cut) && both.contains(not_kept), "{both}");
    config.agents.tool_call_timeout = Some(Duration::from_secs(5));
    config.agents.response_cache_ttl = Duration::from_mins(1);
    let neither = told_of(&config);
    assert!(!neither.contains("is cut") && !neither.contains(not_kept), "{neither}");
    config.conversation_processing.response_cache_enabled = false;
    assert!(told_of(&config).contains(not_kept), "{}", told_of(&config));
}

#[test]
fn every_built_in_template_makes_a_good_file() {
    let strict = Surroundings { strict: true, ..Surroundings::default() };
    for template in TEMPLATES {
        let examples = template.parameters.iter().filter(|parameter| parameter.required);
        let required: BTreeMap<_, _> = examples.map(|p| (p.name.to_owned(), p.example.to_owned())).collect();
        let text = template.fill(&required).unwrap();
        let judgement = judge(text.as_bytes(), &strict);
        assert_eq!(told(&judgement.problems), "", "{}", template.id);
        let definition = judgement.definition.unwrap();
        let offered: Vec<_> = definition.capabilities.iter().map(|offer| offer.name.as_str()).collect();
        assert_eq!(offered, template.capabilities, "{}", template.id);
        assert_eq!(definition.permissions.tools, template.required_tools, "{}", template.id);
        assert!(
            matches!(template.fill(&BTreeMap::new()), Err(FillError::Missing("NAME"))),
            "{}",
            template.id
        );
    }
}

#[test]
fn values_of_templates_cannot_add_keys() {
    let template = Template::find("data-analyzer").unwrap();
    let fill = |name: &str, subject: &str| {
        let values =
            [("NAME", name), ("SUBJECT", subject)].map(|(key, value)| (key.to_owned(), value.to_owned()));
        template.fill(&values.into())
    };
    for name in ["A\ntools: [x]", "", "a b", "x: y"] {
        assert!(matches!(fill(name, "x"), Err(FillError::Value { parameter: "NAME", .. })), "{name}");
    }
    assert!(fill("Ada", "a\nb").is_err() && fill("Ada", "{{request}}").is_err());
    let definition = read(&fill("Ada", "\"quotes\", back\\slashes: and # signs").unwrap());
    assert!(definition.about.description.unwrap().contains("'quotes', back'slashes: and # signs"));
    let unknown = template.fill(&[("NAEM".to_owned(), "x".to_owned())].into()).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no parameter NAEM; did you mean NAME?");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No file, however it was cut or mixed, stops the judge, and none is both good and bad.
    #[test]
    fn any_bytes_are_judged(cut in 0_usize..600, at in 0_usize..600, noise in prop::collection::vec(any::<u8>(), 0..8)) {
        let mut bytes = GUIDE.as_bytes().to_vec();
        let at = at.min(bytes.len());
        bytes.splice(at..at, noise);
        bytes.truncate(bytes.len().saturating_sub(cut));
        let judgement = judge(&bytes, &Surroundings::default());
        prop_assert_eq!(judgement.definition.is_some(), judgement.problems.is_empty());
        for problem in judgement.problems.iter().chain(&judgement.warnings) {
            prop_assert!(!problem.reason.is_empty() && !problem.remedy.is_empty());
        }
    }
}

#[test]
fn the_smallest_file_is_enough() {
    assert_eq!(read(&file("Ada", "1.0.0")).workspace.as_str(), "default");
}
