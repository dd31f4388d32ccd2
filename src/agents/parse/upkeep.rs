//! How an agent is run: limits, memory, conversation, model.

use super::super::definition::{Conversation, MemoryUse, ModelWish, OwnLimits, Performance};
use super::super::fault::{Faults, Phase, Spot};
use super::super::reading::{Section, nearest};
use super::Surroundings;
use super::prompts::{Parameters, single};
use crate::config::{MemoryScope, format_duration};

/// Keys of other systems' agent files: read over.
pub(super) const IGNORED: &[&str] = &[
    "schedule",
    "deployment",
    "monitoring",
    "audit",
    "development",
    "cache",
    "routing_rules",
    "workflows",
    "error_handling",
    "error_templates",
    "domain_specializations",
];

const SCOPES: &[(&str, MemoryScope)] = &[
    ("agent", MemoryScope::Agent),
    ("workspace", MemoryScope::Workspace),
    ("global", MemoryScope::Global),
    ("agent-only", MemoryScope::Agent),
];
const BACKENDS: &[(&str, ())] = &[("embedded", ())];
const ANY: u64 = 10_000_000;

/// `memory`, with the scope it names.
pub(super) struct Memory {
    pub(super) used: MemoryUse,
    pub(super) scope: Option<MemoryScope>,
}

/// The scope in a section; two different ones are a fault.
fn scope(
    section: &mut Section<'_>,
    key: &'static str,
    before: Option<MemoryScope>,
    faults: &Faults,
) -> Option<MemoryScope> {
    let node = section.take(key)?;
    let field = section.name(key);
    let given = node.value.text().and_then(|text| {
        SCOPES.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, scope)| *scope)
    });
    let complain = |reason: String, remedy: &str| {
        faults.add(Phase::Memory, Spot::Node(node.id), &field, reason, remedy);
    };
    match given {
        None => complain(
            format!("{} is not one of agent, workspace, global", node.value.shown()),
            "write agent (the agent alone), workspace (all in its workspace) or global (everyone)",
        ),
        Some(given) if before.is_some_and(|before| before != given) => {
            complain(format!("{given} contradicts another memory scope in this file"), "name one scope");
        }
        Some(_) => (),
    }
    given
}

/// `memory`, `memory_enabled`, `memory_scope` and the wishes about context.
pub(super) fn memory(top: &mut Section<'_>, parameters: &Parameters, faults: &Faults) -> Memory {
    let mut used = MemoryUse::default();
    let mut found = scope(top, "memory_scope", None, faults);
    if let Some(mut limits) = top.section("resource_limits") {
        found = scope(&mut limits, "memory_scope", found, faults).or(found);
    }
    if let Some(enabled) = top.flag("memory_enabled") {
        used.enabled = enabled;
    }
    if let Some(mut memory) = top.section("memory") {
        if let Some(enabled) = memory.flag("enabled") {
            used.enabled = enabled;
        }
        found = scope(&mut memory, "scope", found, faults).or(found);
        memory.choice("backend", BACKENDS);
        if let Some(auto) = memory.flag("auto_store") {
            used.auto_store = auto;
        }
        for key in ["search", "settings"] {
            if let Some(section) = memory.section(key) {
                search(section, &mut used, parameters, faults);
            }
        }
        memory.take("max_entities");
        memory.ignore(&[
            "retention",
            "retention_days",
            "semantic_search",
            "relationship_tracking",
            "auto_cleanup",
            "max_relations",
            "context_preparation",
        ]);
        memory.finish();
    }
    for key in ["context_requirements", "context_preferences", "context_configuration"] {
        if let Some(mut context) = top.section(key) {
            context.take("conversation_depth");
            if let Some(section) = context.section("memory_search") {
                search(section, &mut used, parameters, faults);
            }
            context.ignore(&["capability_info", "tool_data", "cross_conversation_refs", "temporal_boost"]);
            context.finish();
        }
    }
    Memory { used, scope: found }
}

/// How memory is searched.
fn search(mut section: Section<'_>, used: &mut MemoryUse, parameters: &Parameters, faults: &Faults) {
    if let Some(results) = section.count("max_results", 1..=100) {
        used.max_results = results;
    }
    for key in ["similarity_threshold", "search_threshold", "min_similarity"] {
        used.min_similarity = section.real(key, -1.0..=1.0).or(used.min_similarity);
    }
    used.semantic_weight = section.real("semantic_weight", 0.0..=1.0).or(used.semantic_weight);
    used.query_template =
        single(&mut section, "query_template", parameters, faults).or(used.query_template.take());
    if let Some(related) = section.flag("include_relationships") {
        used.include_relationships = related;
    }
    if let Some(auto) = section.flag("auto_store") {
        used.auto_store = auto;
    }
    section.ignore(&[
        "cache_ttl",
        "hybrid_search",
        "content_types",
        "exclude_patterns",
        "version_limit",
        "focus_areas",
    ]);
    section.finish();
}

/// `resource_limits`, with those that stand elsewhere.
pub(super) fn limits(
    top: &mut Section<'_>,
    parameters: &Parameters,
    scope: Option<MemoryScope>,
    around: &Surroundings,
) -> OwnLimits {
    let mut own = OwnLimits {
        memory_scope: scope,
        response_timeout: parameters.response_timeout,
        max_context_length: parameters.max_context_length,
        ..OwnLimits::default()
    };
    if let Some(mut memory) = top.section("memory") {
        own.max_memory_entities = memory.whole("max_entities", 1..=u64::MAX);
    }
    if let Some(mut limits) = top.section("resource_limits") {
        limits.take("memory_scope");
        own.max_conversations = limits.count("max_conversations", 1..=ANY);
        if let Some(most) = limits.count("conversation_limit", 1..=ANY) {
            own.max_conversations = Some(own.max_conversations.map_or(most, |other| other.min(most)));
        }
        own.max_memory_entities =
            limits.whole("max_memory_entities", 1..=u64::MAX).or(own.max_memory_entities);
        own.response_timeout = limits.time("response_timeout").or(own.response_timeout);
        own.tool_call_timeout = limits.time("tool_call_timeout");
        if let (Some(wanted), Some(most)) = (own.tool_call_timeout, around.tool_call_max)
            && wanted > most
        {
            let (wanted, most) = (format_duration(wanted), format_duration(most));
            let reason = format!("{wanted} is cut to {most}, agents.tool_call_timeout of the server");
            limits.warn("tool_call_timeout", &reason, "shorten it, or raise agents.tool_call_timeout");
        }
        own.memory_search_timeout = limits.time("memory_search_timeout");
        own.memory_search_limit = limits.count("memory_search_limit", 1..=10_000);
        limits.finish();
    }
    own
}

/// `performance`.
pub(super) fn performance(top: &mut Section<'_>, around: &Surroundings) -> Performance {
    let mut performance = Performance::default();
    let Some(mut section) = top.section("performance") else { return performance };
    for (key, slot) in [
        ("cache_responses", &mut performance.cache_responses),
        ("preload_memory", &mut performance.preload_memory),
        ("lazy_tool_loading", &mut performance.lazy_tool_loading),
        ("optimize_prompts", &mut performance.optimize_prompts),
    ] {
        if let Some(flag) = section.flag(key) {
            *slot = flag;
        }
    }
    if performance.cache_responses && !around.keeps_answers {
        let reason =
            "answers are not kept: agents.response_cache_ttl of the server is 0s, or its cache is off";
        section.warn("cache_responses", reason, "set agents.response_cache_ttl, or remove this");
    }
    if let Some(parallel) = section.flag("parallel_tool_calls") {
        performance.concurrent_tools = if parallel { 4 } else { 1 };
    }
    if let Some(tools) = section.count("concurrent_tools", 1..=64) {
        performance.concurrent_tools = tools;
    }
    performance.context_cache_ttl = section.time("context_cache_ttl");
    section.ignore(&["max_execution_time", "max_memory_usage", "response_streaming"]);
    section.finish();
    performance
}

/// `conversation` and `messaging`.
pub(super) fn conversation(top: &mut Section<'_>) -> Conversation {
    let mut conversation = Conversation::default();
    for key in ["context_requirements", "context_preferences", "context_configuration"] {
        let depth = top.section(key).and_then(|mut section| section.count("conversation_depth", 0..=1_000));
        conversation.depth = depth.unwrap_or(conversation.depth);
    }
    if let Some(mut section) = top.section("conversation") {
        if let Some(turns) = section.whole("max_turns", 1..=100_000) {
            conversation.max_turns = turns as u32;
        }
        conversation.timeout = section.time("timeout");
        section.ignore(&["context_window", "temperature", "memory_integration", "memory_strategy"]);
        section.finish();
    }
    if let Some(mut section) = top.section("messaging") {
        if let Some(auto) = section.flag("auto_respond") {
            conversation.auto_respond = auto;
        }
        conversation.timeout = section.time("conversation_timeout").or(conversation.timeout);
        if let Some(turns) = section.whole("max_conversation_length", 1..=100_000) {
            conversation.max_turns = turns as u32;
        }
        section.ignore(&[
            "context_window",
            "response_format",
            "context_optimization",
            "response_caching",
            "batch_processing",
        ]);
        section.finish();
    }
    conversation
}

/// `llm`.
pub(super) fn llm(top: &mut Section<'_>, around: &Surroundings) -> ModelWish {
    let Some(mut section) = top.section("llm") else { return ModelWish::default() };
    let provider = section.text("provider", 100);
    if let Some(unknown) = provider.as_deref().filter(|_| !around.providers.is_empty())
        && !around.providers.contains(unknown)
        && let Some(node) = section.take("provider")
    {
        let names = || around.providers.iter().map(String::as_str);
        let remedy = nearest(unknown, names()).map_or_else(
            || format!("the providers are {}", names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean {near}?"),
        );
        section.fault("provider", node, &format!("there is no model provider {unknown:?}"), &remedy);
    }
    let wish = ModelWish {
        provider,
        model: section.text("model", 200),
        temperature: section.real("temperature", 0.0..=2.0),
        max_tokens: section.whole("max_tokens", 1..=1_000_000).map(|tokens| tokens as u32),
        top_p: section.real("top_p", 0.0..=1.0),
        frequency_penalty: section.real("frequency_penalty", -2.0..=2.0),
        presence_penalty: section.real("presence_penalty", -2.0..=2.0),
    };
    section.finish();
    wish
}
