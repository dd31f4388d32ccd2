//! `agents`, `conversation_processing`, `request_handling`: limits and queues of agents.

use std::path::PathBuf;
use std::time::Duration;

use super::setting::{DAY, Limits, Rows, choice, millis, section, whole};

section! {
    /// `agents`: limits of agents.
    pub struct Agents {
        /// Folder of the agents' files; unset: `agents` in the data directory.
        pub directory: Option<PathBuf> = None;
        /// Refuse agent files with unknown keys and other doubtful parts.
        pub strict: bool = false;
        /// Time for a check of a changed agent file. One that took longer is thrown away: the old version stays until the
        /// file changes again.
        pub hot_reload_timeout: Duration = Duration::from_secs(5), millis(1, DAY);
        /// Validation results kept, by content.
        pub validation_cache_size: usize = 100, whole(0, 10_000_000);
        /// Cap on every limit of a tool call's time; it makes none longer. The usual limit is
        /// `agents.default_limits.tool_call_timeout`. Unset: no cap.
        pub tool_call_timeout: Option<Duration> = None, millis(1, DAY);
        /// Age of cached answers; `0s` turns the cache off. An agent's file asks for them: `performance.cache_responses: true`.
        pub response_cache_ttl: Duration = Duration::ZERO;
        /// Failed turns in a row after which an agent is left alone.
        pub circuit_failures: u32 = 10, whole(1, 100);
        /// How long it is left alone; then one message is tried.
        pub circuit_pause: Duration = Duration::from_mins(1), millis(1, DAY);
        /// Agents loaded at most.
        pub max_agents: usize = 1_000, whole(1, 10_000_000);
        /// Scope of an agent's memory unless its file says otherwise, and of what requests write and export without `memory_scope`.
        pub memory_scope: MemoryScope = MemoryScope::Agent;
        /// Limits of every agent, unless an override or its file says otherwise.
        pub default_limits: DefaultLimits = DefaultLimits::default();
        /// Limits by agent type; the first match wins.
        pub overrides: Rows<AgentOverride> = Rows::default();
    }
}

impl Agents {
    /// What allows a call of a tool more time than [`Agents::tool_call_timeout`], and so is cut to it: its key, its name in
    /// words and its time.
    pub(crate) fn cut(&self) -> Vec<(&'static str, String, Duration)> {
        let Some(cap) = self.tool_call_timeout else { return Vec::new() };
        let usual = (
            "agents.default_limits.tool_call_timeout",
            "the usual time for a call".to_owned(),
            self.default_limits.tool_call_timeout,
        );
        let rows = self.overrides.iter().filter_map(|row| {
            let whose = format!("the time for a call of {}", row.agent_type);
            Some(("agents.overrides", whose, row.tool_call_timeout?))
        });
        [usual].into_iter().chain(rows).filter(|(_, _, time)| *time > cap).collect()
    }
}

choice! {
    /// Who sees a memory.
    #[derive(Default)]
    pub enum MemoryScope {
        /// The agent alone.
        #[default]
        Agent = "agent",
        /// Everyone in its workspace.
        Workspace = "workspace",
        /// Everyone.
        Global = "global",
    }
}

section! {
    /// `agents.default_limits`: limits of every agent.
    pub struct DefaultLimits {
        /// Conversations that one agent works on at a time; messages of others wait in the queues.
        pub max_conversations: usize = 100, whole(1, 10_000_000);
        /// Entities that one agent may own.
        pub max_memory_entities: u64 = 5_000, whole(1, u64::MAX);
        /// Time for a whole answer.
        pub response_timeout: Duration = Duration::from_secs(30), millis(1, DAY);
        /// Time for one tool call.
        pub tool_call_timeout: Duration = Duration::from_secs(10), millis(1, DAY);
        /// Time for one search of memory.
        pub memory_search_timeout: Duration = Duration::from_secs(5), millis(1, DAY);
    }
}

section! {
    /// One row of `agents.overrides`. What is unset is inherited.
    pub struct AgentOverride {
        /// The agents it is for.
        pub agent_type: String = String::new(), Limits::NotEmpty;
        /// Conversations that one agent works on at a time; messages of others wait in the queues.
        pub max_conversations: Option<usize> = None, whole(1, 10_000_000);
        /// Entities that one agent may own.
        pub max_memory_entities: Option<u64> = None, whole(1, u64::MAX);
        /// Time for a whole answer.
        pub response_timeout: Option<Duration> = None, millis(1, DAY);
        /// Time for one tool call.
        pub tool_call_timeout: Option<Duration> = None, millis(1, DAY);
        /// Time for one search of memory.
        pub memory_search_timeout: Option<Duration> = None, millis(1, DAY);
        /// Scope of the agent's memory.
        pub memory_scope: Option<MemoryScope> = None;
    }
}

section! {
    /// `conversation_processing`: batches of conversations.
    pub struct ConversationProcessing {
        /// Conversations of one batch.
        pub batch_size: usize = 10, whole(1, 1_000_000);
        /// Longest wait for a batch to fill.
        pub batch_timeout: Duration = Duration::from_millis(100), millis(0, DAY);
        /// Conversations of a batch that are prepared at the same time.
        pub parallel_conversations: usize = 4, whole(1, 1_000_000);
        /// Search memory for the conversations of a batch at the same time, so that their questions share passes of the
        /// model; else each searches for itself.
        pub memory_batch_search: bool = true;
        /// Texts of one embedding call.
        pub embedding_batch_size: usize = 32, whole(1, 4_096);
        /// Conversations whose state is kept in memory.
        pub conversation_cache_size: usize = 1_000, whole(0, 100_000_000);
        /// How long what memory gave to a question is used again, while nothing in memory changes; `0s` never. An agent's
        /// file may say otherwise.
        pub context_cache_ttl: Duration = Duration::from_mins(5);
        /// Keep answers of models for `agents.response_cache_ttl`, which is `0s` unless it is set.
        pub response_cache_enabled: bool = true;
    }
}

section! {
    /// `request_handling`: queues before agents.
    pub struct RequestHandling {
        /// The queues.
        pub priority_queues: PriorityQueues = PriorityQueues::default();
        /// Which capability goes to which queue.
        pub classification: Classification = Classification::default();
    }
}

section! {
    /// `request_handling.priority_queues`: one queue a priority.
    pub struct PriorityQueues {
        /// Use them; else there is one queue for all.
        pub enabled: bool = true;
        /// The queues.
        pub queues: Rows<Queue> = Rows(vec![
            Queue::new("critical", 0, 1, 100),
            Queue::new("high", 1, 5, 500),
            Queue::new("normal", 2, 15, 1_000),
            Queue::new("background", 3, 60, 2_000),
        ]);
    }
}

section! {
    /// One row of `request_handling.priority_queues.queues`.
    pub struct Queue {
        /// Its name.
        pub name: String = String::new(), Limits::NotEmpty;
        /// Its place: 0 is served first.
        pub priority: u32 = 0, whole(0, 255);
        /// Wait above which a request is late.
        pub max_latency: Duration = Duration::from_secs(15), millis(1, DAY);
        /// Requests that may wait; then 429, except for one to an agent for which nothing waits in it.
        pub queue_size: usize = 1_000, whole(1, 10_000_000);
    }
}

impl Queue {
    fn new(name: &str, priority: u32, max_latency_seconds: u64, queue_size: usize) -> Self {
        let max_latency = Duration::from_secs(max_latency_seconds);
        Self { name: name.to_owned(), priority, max_latency, queue_size }
    }
}

section! {
    /// `request_handling.classification`: capabilities by queue. What is in none goes to `normal`.
    pub struct Classification {
        /// To `critical`.
        pub critical_capabilities: Vec<String> = Vec::new();
        /// To `high`.
        pub high_capabilities: Vec<String> = Vec::new();
        /// To `normal`.
        pub normal_capabilities: Vec<String> = Vec::new();
        /// To `background`.
        pub background_capabilities: Vec<String> = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load_text;

    /// What is warned of in this text.
    fn warned(text: &str) -> Vec<String> {
        let loaded = load_text(text).unwrap_or_else(|error| panic!("{error}"));
        loaded.warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_cap_cuts_that_somebody_set_is_named() {
        let rows = "overrides: [{agent_type: slow, tool_call_timeout: 30s}, {agent_type: quick, tool_call_timeout: 1s}]";
        let cut = warned(&format!("agents: {{tool_call_timeout: 5s, {rows}}}"));
        let [slow] = &cut[..] else { panic!("{cut:?}") };
        assert!(slow.contains("slow, 30s, is cut by agents.tool_call_timeout"), "{slow}");
        assert!(warned(&format!("agents: {{{rows}}}")).is_empty());
        let usual = warned("agents: {tool_call_timeout: 5s, default_limits: {tool_call_timeout: 7s}}");
        assert!(usual.len() == 1 && usual[0].contains("the usual time for a call, 7s"), "{usual:?}");
    }
}
