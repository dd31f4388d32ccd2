//! From what a file says and the limits that hold for it to a version that can run.

use std::time::Duration;

use caxton_events::Seq;

use crate::agents::definition::Definition;
use crate::agents::limits::Limits as Held;
use crate::agents::prompt::PromptError;
use crate::agents::spec::{Agent, AgentSpec, Limits, MemorySettings, ModelSettings, Performance, Templates};
use crate::toolbox::Permissions;

/// The version whose text stands at `config`. What was found for a question is kept for `context_cache_ttl` unless the
/// file says otherwise.
///
/// # Errors
///
/// [`PromptError`] for a template that cannot be used; files with one are refused, so this is a text of an earlier build.
pub(super) fn agent(
    definition: &Definition,
    held: &Held,
    config: Seq,
    context_cache_ttl: Duration,
) -> Result<Agent, PromptError> {
    let usual = Limits::default();
    let own = &definition.limits;
    let (memory, performance, llm) = (&definition.memory, &definition.performance, &definition.llm);
    Agent::new(AgentSpec {
        agent: definition.name.clone(),
        workspace: definition.workspace.clone(),
        config,
        capabilities: definition.capabilities.iter().map(|offer| offer.name.clone()).collect(),
        system_prompt: definition.system_prompt.clone(),
        templates: Templates {
            user: definition.templates.user.clone(),
            request: definition.templates.request.clone(),
            query: definition.templates.query.clone(),
            inform: definition.templates.inform.clone(),
        },
        parameters: definition.parameters.clone(),
        model: ModelSettings {
            provider: llm.provider.clone(),
            model: llm.model.clone().unwrap_or_default(),
            temperature: llm.temperature.map(|value| value as f32),
            top_p: llm.top_p.map(|value| value as f32),
            max_tokens: llm.max_tokens,
            frequency_penalty: llm.frequency_penalty.map(|value| value as f32),
            presence_penalty: llm.presence_penalty.map(|value| value as f32),
        },
        permissions: Permissions {
            memory_scope: held.memory_scope,
            memory_entities_max: Some(held.max_memory_entities),
            memory_search_timeout: Some(held.memory_search_timeout),
            ..definition.permissions.clone()
        },
        limits: Limits {
            // A model may call one tool at a time.
            steps_max: own.max_tool_calls.map_or(0, |calls| calls.saturating_add(1)).max(usual.steps_max),
            response_timeout: held.response_timeout,
            tool_call_timeout: held.tool_call_timeout,
            memory_search_timeout: held.memory_search_timeout,
            context_tokens_max: own.max_context_length.unwrap_or(usual.context_tokens_max),
            conversations_max: held.max_conversations,
            turns_max: definition.conversation.max_turns,
            idle_timeout: definition.conversation.timeout,
        },
        memory: MemorySettings {
            enabled: memory.enabled,
            results_max: memory.max_results.min(held.memory_search_limit),
            min_similarity: memory.min_similarity,
            semantic_weight: memory.semantic_weight,
            query_template: memory.query_template.clone(),
            include_relationships: memory.include_relationships,
            auto_store: memory.auto_store,
        },
        history_depth: definition.conversation.depth,
        auto_respond: definition.conversation.auto_respond,
        performance: Performance {
            optimize_prompts: performance.optimize_prompts,
            lazy_tool_loading: performance.lazy_tool_loading,
            concurrent_tools: performance.concurrent_tools,
            context_cache_ttl: performance.context_cache_ttl.unwrap_or(context_cache_ttl),
            cache_responses: performance.cache_responses,
            preload_memory: performance.preload_memory,
        },
    })
}
