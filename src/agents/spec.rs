//! What an agent is made of, as far as running it needs to know.

use std::time::Duration;

use caxton_events::{AgentId, CapabilityName, Seq, WorkspaceId};
use serde_json::{Map, Value};

use super::prompt::{PromptError, Prompts};
use crate::toolbox::Permissions;

/// One version of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSpec {
    /// Its name.
    pub agent: AgentId,
    /// The workspace it works in.
    pub workspace: WorkspaceId,
    /// Where the text stands that it runs by.
    pub config: Seq,
    /// What it offers.
    pub capabilities: Vec<CapabilityName>,
    /// What it is told before everything else; may have placeholders.
    pub system_prompt: String,
    /// How messages are put to the model.
    pub templates: Templates,
    /// Values for placeholders.
    pub parameters: Map<String, Value>,
    /// The model it thinks with.
    pub model: ModelSettings,
    /// What its tools may do.
    pub permissions: Permissions,
    /// What a turn may take.
    pub limits: Limits,
    /// What it remembers by itself.
    pub memory: MemorySettings,
    /// Messages of the conversation that a turn is shown.
    pub history_depth: usize,
    /// Whether what only informs is answered too.
    pub auto_respond: bool,
    /// How it is run.
    pub performance: Performance,
}

/// Texts with placeholders, by the performative they are for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Templates {
    /// For every message that has none of its own; without it, the message as it is.
    pub user: Option<String>,
    /// For requests.
    pub request: Option<String>,
    /// For queries.
    pub query: Option<String>,
    /// For what others tell it.
    pub inform: Option<String>,
}

/// The model an agent thinks with; what is unset is the server's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelSettings {
    /// The provider's name in the configuration.
    pub provider: Option<String>,
    /// The model's name at the provider; empty: the provider's default.
    pub model: String,
    /// 0 to 2.
    pub temperature: Option<f32>,
    /// 0 to 1.
    pub top_p: Option<f32>,
    /// Tokens of an answer at most.
    pub max_tokens: Option<u32>,
    /// -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// -2 to 2.
    pub presence_penalty: Option<f32>,
}

/// What a turn may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests to the model in one turn. The last one is made without tools, so that it is an answer. Default: 8; an agent
    /// whose file says how often it may call tools has one more than that, where that is more.
    pub steps_max: u32,
    /// Time for a whole answer; then the sender is told that there is none. Default: 30 s.
    pub response_timeout: Duration,
    /// Time for one call of a tool. Default: 10 s.
    pub tool_call_timeout: Duration,
    /// Time for each source of the context. Default: 5 s.
    pub memory_search_timeout: Duration,
    /// Tokens of a request: instructions, message, descriptions of tools and context. Instructions and message are never
    /// cut; where they take more than half, descriptions have half all the same. Default: 4,000.
    pub context_tokens_max: u32,
    /// Turns of this agent at a time. Default: 100.
    pub conversations_max: usize,
    /// Messages that it answers in one conversation; further ones are refused. Default: 50.
    pub turns_max: u32,
    /// Time without a message after which its conversations end; none: the server's.
    pub idle_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps_max: 8,
            response_timeout: Duration::from_secs(30),
            tool_call_timeout: Duration::from_secs(10),
            memory_search_timeout: Duration::from_secs(5),
            context_tokens_max: 4_000,
            conversations_max: 100,
            turns_max: 50,
            idle_timeout: None,
        }
    }
}

/// What an agent remembers by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct MemorySettings {
    /// Search before each turn. Default: true.
    pub enabled: bool,
    /// Results shown to a turn. Default: 10.
    pub results_max: usize,
    /// Lowest cosine of a result; none: any.
    pub min_similarity: Option<f64>,
    /// Weight of meaning against words, 0 to 1; none: the server's.
    pub semantic_weight: Option<f64>,
    /// What is searched for, with placeholders; none: the message.
    pub query_template: Option<String>,
    /// Show what results are related to. Default: false.
    pub include_relationships: bool,
    /// Keep what was asked and answered. Default: false.
    pub auto_store: bool,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            results_max: 10,
            min_similarity: None,
            semantic_weight: None,
            query_template: None,
            include_relationships: false,
            auto_store: false,
        }
    }
}

/// How an agent is run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "these are the four switches that a file has")]
pub struct Performance {
    /// Compile templates once, when the version is loaded, and not at every turn. Default: true.
    pub optimize_prompts: bool,
    /// Open tools at their first use and not when the version is loaded. Default: true.
    pub lazy_tool_loading: bool,
    /// Calls of tools at a time. Default: 1.
    pub concurrent_tools: usize,
    /// How long an answer of memory to the same question is good for, while memory is as it was. Default: 0.
    pub context_cache_ttl: Duration,
    /// An answer of the model to exactly the same request may be given again. Default: false.
    pub cache_responses: bool,
    /// Look at its memory when the version is loaded, so that its first turn finds it at hand. Default: false.
    pub preload_memory: bool,
}

impl Default for Performance {
    fn default() -> Self {
        Self {
            optimize_prompts: true,
            lazy_tool_loading: true,
            concurrent_tools: 1,
            context_cache_ttl: Duration::ZERO,
            cache_responses: false,
            preload_memory: false,
        }
    }
}

/// A version of an agent that can run: its templates are known to be good.
#[derive(Debug)]
pub struct Agent {
    /// What it is made of.
    pub spec: AgentSpec,
    /// Its templates.
    pub prompts: Prompts,
}

impl Agent {
    /// Checks the templates, and compiles them if `optimize_prompts` says so.
    ///
    /// # Errors
    ///
    /// [`PromptError`] for the first template that is none.
    pub fn new(spec: AgentSpec) -> Result<Self, PromptError> {
        let prompts = Prompts::new(&spec)?;
        Ok(Self { spec, prompts })
    }
}
