//! What an agent's file says, with types: a [`Definition`] that exists is valid.

use std::collections::BTreeMap;
use std::time::Duration;

use caxton_events::{AgentId, CapabilityName, WorkspaceId};
use serde_json::{Map, Value};

use crate::config::MemoryScope;
use crate::toolbox::Permissions;

/// Everything in an agent's file.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Who it is.
    pub name: AgentId,
    /// Its version, as `MAJOR.MINOR.PATCH`.
    pub version: String,
    /// The workspace it works in. Default: `default`.
    pub workspace: WorkspaceId,
    /// What people read about it.
    pub about: About,
    /// What `agents.overrides` match.
    pub agent_type: Option<String>,
    /// What it offers, at least one.
    pub capabilities: Vec<Offer>,
    /// Capabilities of others that it asks for.
    pub requires: Vec<CapabilityName>,
    /// What it may call, and under which limits.
    pub permissions: Permissions,
    /// Settings of single tools, as they were written.
    pub tool_config: Map<String, Value>,
    /// What it is told before everything else: the key `system_prompt`, or else the body of the file.
    pub system_prompt: String,
    /// The text below the front matter, without blank lines at its ends.
    pub body: String,
    /// How messages are put to the model.
    pub templates: PromptTemplates,
    /// Values for templates.
    pub parameters: Map<String, Value>,
    /// Limits of its own; what is unset is inherited, see [`super::limits`].
    pub limits: OwnLimits,
    /// How it is run.
    pub performance: Performance,
    /// How it converses.
    pub conversation: Conversation,
    /// How it remembers.
    pub memory: MemoryUse,
    /// The model it thinks with; what is unset is the server's.
    pub llm: ModelWish,
}

/// What people read about an agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// One sentence.
    pub description: Option<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// Under which terms.
    pub license: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// When it was written, as it stands there.
    pub created: Option<String>,
    /// When it was changed, as it stands there.
    pub updated: Option<String>,
}

/// A capability that an agent offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Its name.
    pub name: CapabilityName,
    /// The version of what it offers. Default: `1.0.0`.
    pub version: String,
    /// 0 to 1,000; higher is preferred. Default: 50.
    pub priority: u16,
    /// Whatever else `capability_metadata` says about it.
    pub metadata: Option<Map<String, Value>>,
}

/// Texts with placeholders, by what they are for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptTemplates {
    /// For every message that has none of its own.
    pub user: Option<String>,
    /// For requests.
    pub request: Option<String>,
    /// For queries.
    pub query: Option<String>,
    /// For what others tell it.
    pub inform: Option<String>,
    /// Others, by their name in the file.
    pub named: BTreeMap<String, String>,
}

/// Limits that a file sets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OwnLimits {
    /// Who sees its memory.
    pub memory_scope: Option<MemoryScope>,
    /// Open conversations.
    pub max_conversations: Option<usize>,
    /// Entities it may own.
    pub max_memory_entities: Option<u64>,
    /// Time for a whole answer.
    pub response_timeout: Option<Duration>,
    /// Time for one call of a tool.
    pub tool_call_timeout: Option<Duration>,
    /// Time for one search of memory.
    pub memory_search_timeout: Option<Duration>,
    /// Results of one search of memory.
    pub memory_search_limit: Option<usize>,
    /// Tokens of the context it is given.
    pub max_context_length: Option<u32>,
    /// Calls of tools in one turn, as [`Permissions::calls_max`] has it, if the file says so.
    pub max_tool_calls: Option<u32>,
}

/// How an agent is run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "these are the four switches that a file has")]
pub struct Performance {
    /// Reuse answers. Default: false.
    pub cache_responses: bool,
    /// Load its memory at the start. Default: false.
    pub preload_memory: bool,
    /// Open tools at their first use. Default: true.
    pub lazy_tool_loading: bool,
    /// Compile templates when the file is loaded. Default: true.
    pub optimize_prompts: bool,
    /// Calls of tools at a time. Default: 1.
    pub concurrent_tools: usize,
    /// Age of a prepared context.
    pub context_cache_ttl: Option<Duration>,
}

impl Default for Performance {
    fn default() -> Self {
        Self {
            cache_responses: false,
            preload_memory: false,
            lazy_tool_loading: true,
            optimize_prompts: true,
            concurrent_tools: 1,
            context_cache_ttl: None,
        }
    }
}

/// How an agent converses.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// Turns of one conversation. Default: 50.
    pub max_turns: u32,
    /// Idle time after which a conversation ends.
    pub timeout: Option<Duration>,
    /// Messages of the conversation that a turn is shown. Default: 5.
    pub depth: usize,
    /// Answer what only informs. Default: false.
    pub auto_respond: bool,
}

impl Default for Conversation {
    fn default() -> Self {
        Self { max_turns: 50, timeout: None, depth: 5, auto_respond: false }
    }
}

/// How an agent remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryUse {
    /// Search before each turn, and allow the tool. Default: true.
    pub enabled: bool,
    /// Keep what was said by itself. Default: false.
    pub auto_store: bool,
    /// Results shown to a turn. Default: 10.
    pub max_results: usize,
    /// Lowest cosine of a result, -1 to 1; none: any.
    pub min_similarity: Option<f64>,
    /// Weight of meaning against words, 0 to 1. Default: the server's.
    pub semantic_weight: Option<f64>,
    /// What is searched for, as a template; none: the message.
    pub query_template: Option<String>,
    /// Show what results are related to. Default: false.
    pub include_relationships: bool,
}

impl Default for MemoryUse {
    fn default() -> Self {
        Self {
            enabled: true,
            auto_store: false,
            max_results: 10,
            min_similarity: None,
            semantic_weight: None,
            query_template: None,
            include_relationships: false,
        }
    }
}

/// The model an agent thinks with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelWish {
    /// The provider.
    pub provider: Option<String>,
    /// The model's name there.
    pub model: Option<String>,
    /// 0 (always the likeliest) to 2.
    pub temperature: Option<f64>,
    /// Tokens of an answer.
    pub max_tokens: Option<u32>,
    /// Share of likely words that are considered, 0 to 1.
    pub top_p: Option<f64>,
    /// Against repeating words, -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Against staying with a subject, -2 to 2.
    pub presence_penalty: Option<f64>,
}
