//! Which limits hold for an agent: its file, else an override for its type, else the defaults; never above the caps.

use std::time::Duration;

use super::definition::Definition;
use crate::config::{AgentOverride, Agents, MemoryScope};

/// Results of one search of memory unless a file says otherwise.
const MEMORY_SEARCH_LIMIT_DEFAULT: usize = 100;

/// The limits that hold for one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Who sees its memory.
    pub memory_scope: MemoryScope,
    /// Open conversations.
    pub max_conversations: usize,
    /// Entities it may own.
    pub max_memory_entities: u64,
    /// Time for a whole answer.
    pub response_timeout: Duration,
    /// Time for one call of a tool.
    pub tool_call_timeout: Duration,
    /// Time for one search of memory.
    pub memory_search_timeout: Duration,
    /// Results of one search of memory.
    pub memory_search_limit: usize,
}

/// What no agent may exceed, whatever its file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Open conversations of all agents together, so of one as well.
    pub max_conversations: usize,
    /// Time for one call of a tool, where there is such a bound.
    pub tool_call_timeout: Option<Duration>,
}

impl Limits {
    /// The limits of `definition` under `agents`, below `caps`.
    pub fn of(definition: &Definition, agents: &Agents, caps: Caps) -> Self {
        let own = &definition.limits;
        let by_type = definition
            .agent_type
            .as_deref()
            .and_then(|kind| agents.overrides.iter().find(|row| row.agent_type == kind));
        let inherited = Inherited { by_type };
        let usual = &agents.default_limits;
        Self {
            memory_scope: inherited.pick(own.memory_scope, |row| row.memory_scope, agents.memory_scope),
            max_conversations: inherited
                .pick(own.max_conversations, |row| row.max_conversations, usual.max_conversations)
                .min(caps.max_conversations),
            max_memory_entities: inherited.pick(
                own.max_memory_entities,
                |row| row.max_memory_entities,
                usual.max_memory_entities,
            ),
            response_timeout: inherited.pick(
                own.response_timeout,
                |row| row.response_timeout,
                usual.response_timeout,
            ),
            tool_call_timeout: inherited
                .pick(own.tool_call_timeout, |row| row.tool_call_timeout, usual.tool_call_timeout)
                .min(caps.tool_call_timeout.unwrap_or(Duration::MAX)),
            memory_search_timeout: inherited.pick(
                own.memory_search_timeout,
                |row| row.memory_search_timeout,
                usual.memory_search_timeout,
            ),
            memory_search_limit: own.memory_search_limit.unwrap_or(MEMORY_SEARCH_LIMIT_DEFAULT),
        }
    }
}

/// The override that applies, if any.
struct Inherited<'a> {
    by_type: Option<&'a AgentOverride>,
}

impl Inherited<'_> {
    fn pick<T>(&self, own: Option<T>, by_type: impl Fn(&AgentOverride) -> Option<T>, usual: T) -> T {
        own.or_else(|| self.by_type.and_then(by_type)).unwrap_or(usual)
    }
}
