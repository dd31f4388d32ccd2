//! The beginning of a turn: what its model should know, and the prompts made of it.

use std::future::Future;
use std::time::Duration;

use caxton_events::TurnEvent;
use caxton_events::turn::ContextKind;
use tokio::time::timeout;

use super::Turn;
use crate::agents::context::{Budget, Context, Gathered, assemble, tokens};
use crate::agents::ports::{Delivery, MemoryAsk, PortError};
use crate::agents::prompt::{PromptError, Rendered, Values, values};
use crate::agents::reply::instruction;
use crate::agents::spec::Agent;
use crate::failure;
use crate::llm::{Fact, ToolSpec};

/// The tool by which agents reach others: without it, what others can do is of no use.
const MESSAGE_TOOL: &str = "message";

/// What the model is given besides its prompts. It follows from the sources, so it is not recorded.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) facts: Vec<Fact>,
    pub(super) tools: Vec<ToolSpec>,
}

/// What memory is asked before this agent answers this message; `None` when it is not asked.
pub fn memory_ask(agent: &Agent, delivery: &Delivery) -> Option<MemoryAsk> {
    let spec = &agent.spec;
    let memory = &spec.memory;
    if !memory.enabled || memory.results_max == 0 {
        return None;
    }
    // The time is not known yet, and a search does not depend on it.
    let values = values(spec, &delivery.message, "", &Values::new());
    let query = agent.prompts.search(&values).map(|rendered| rendered.text).ok()?;
    (!query.trim().is_empty()).then(|| MemoryAsk {
        agent: spec.agent.clone(),
        workspace: spec.workspace.clone(),
        query,
        limit: memory.results_max,
        min_similarity: memory.min_similarity,
        semantic_weight: memory.semantic_weight,
        include_relationships: memory.include_relationships,
        keep_for: spec.performance.context_cache_ttl,
    })
}

/// A question about what this agent does, to have its memory at hand; `None` when it does not search.
pub fn memory_ask_of(agent: &Agent) -> Option<MemoryAsk> {
    let spec = &agent.spec;
    let offers: Vec<&str> = spec.capabilities.iter().map(caxton_events::CapabilityName::as_str).collect();
    (spec.memory.enabled && spec.memory.results_max > 0).then(|| MemoryAsk {
        agent: spec.agent.clone(),
        workspace: spec.workspace.clone(),
        query: offers.join(" "),
        limit: spec.memory.results_max,
        min_similarity: spec.memory.min_similarity,
        semantic_weight: spec.memory.semantic_weight,
        include_relationships: spec.memory.include_relationships,
        keep_for: Duration::ZERO,
    })
}

impl Turn<'_> {
    /// Gathers the context, renders the prompts and records both.
    pub(super) async fn prepare_context(&mut self) -> Result<(), PortError> {
        let spec = &self.agent.spec;
        let within = spec.limits.memory_search_timeout;
        // Servers of tools are somebody else's: one that does not answer must not hold the others of the batch up.
        let tools = offered(self.world, &spec.permissions, within).await;
        for missing in tools.iter().flat_map(|(_, missing)| missing) {
            tracing::warn!(agent = %spec.agent, missing, "a turn does without tools that its file allows");
        }
        let gate = self.prepared.gate.take();
        let _turn_to_prepare = match &gate {
            Some(gate) => gate.acquire().await.ok(),
            None => None,
        };
        let gathered = self.gather(tools).await;
        let budget = self.agent.spec.limits.context_tokens_max;
        let (context, system, user) = match self.rendered(gathered, budget) {
            Ok(done) => done,
            // Templates are checked when they are loaded, so this is a value that the engine refuses.
            Err(error) => return self.model_failed(1, String::new(), failure::chain(&error), false).await,
        };
        if !context.tools_left_out.is_empty() {
            let left_out = context.tools_left_out.join(", ");
            tracing::warn!(
                agent = %self.agent.spec.agent,
                left_out,
                "a turn does without tools that take more than max_context_length has room for"
            );
        }
        let history = context.parts.iter().find(|part| part.kind == ContextKind::History);
        if history.is_some_and(|history| history.used.is_empty() && history.left_out > 0) {
            tracing::warn!(
                agent = %self.agent.spec.agent,
                "a turn is told nothing of what was said before: instructions, message and tools leave it no room in \
                 max_context_length"
            );
        }
        let mut missing = system.missing;
        missing.extend(user.missing);
        self.known = Some(Known { facts: context.facts, tools: context.tools });
        self.note(TurnEvent::ContextPrepared {
            turn: self.id,
            parts: context.parts,
            budget_tokens: budget,
            missing_variables: missing.into_iter().collect(),
            system_prompt: system.text,
            user_prompt: user.text,
        })
        .await
    }

    /// Asks all sources but the tools at the same time, each for its time at most.
    async fn gather(&mut self, tools: Option<(Vec<ToolSpec>, Vec<String>)>) -> Gathered {
        let (world, spec, delivery) = (self.world, &self.agent.spec, self.delivery);
        let within = spec.limits.memory_search_timeout;
        let conversation = &delivery.message.conversation;
        let history = async {
            let ask = world.sources.history(&spec.agent, conversation, delivery.seq, spec.history_depth);
            if spec.history_depth > 0 { Some(bounded(within, ask).await) } else { None }
        };
        let may_message = spec.permissions.tools.iter().any(|tool| tool == MESSAGE_TOOL);
        let capabilities = async {
            let ask = world.sources.capabilities(&spec.agent, &spec.workspace);
            if may_message { Some(bounded(within, ask).await) } else { None }
        };
        let found = self.prepared.found.take();
        let agent = self.agent;
        let memory = async {
            let ask = memory_ask(agent, delivery)?;
            let found = match found {
                Some(found) => found.map_err(|error| failure::chain(&error)),
                None => bounded(within, async { one(world.sources.search(vec![ask]).await) }).await,
            };
            Some(found)
        };
        let (history, memory, capabilities) = tokio::join!(history, memory, capabilities);
        let (tools, missing) = tools.unzip();
        let tools_missing = missing.filter(|missing| !missing.is_empty()).map(|missing| missing.join("; "));
        Gathered { history, memory, capabilities, tools: tools.map(Ok), tools_missing }
    }

    /// The prompts with as much context as the budget has room for behind tools, instructions and message.
    fn rendered(
        &self,
        gathered: Gathered,
        budget: u32,
    ) -> Result<(Context, Rendered, Rendered), PromptError> {
        let (spec, prompts) = (&self.agent.spec, &self.agent.prompts);
        let performative = self.delivery.message.performative;
        let now = self.world.clock.now().to_string();
        let context = assemble(gathered, Budget { all: budget, prompts: self.bare_tokens(&now)? });
        let values = values(spec, &self.delivery.message, &now, &context.texts);
        let mut system = prompts.system(&values)?;
        let user = prompts.user(performative, &values)?;
        let placed = ["context", "memory_context", "conversation_history"]
            .iter()
            .any(|name| prompts.places(performative, name));
        let all = context.texts.get("context").map(String::as_str).filter(|all| !placed && !all.is_empty());
        for added in all.into_iter().chain(instruction(performative)) {
            if !system.text.is_empty() {
                system.text.push_str("\n\n");
            }
            system.text.push_str(added);
        }
        Ok((context, system, user))
    }

    /// Tokens that instructions and message take by themselves.
    fn bare_tokens(&self, now: &str) -> Result<u32, PromptError> {
        let (message, prompts) = (&self.delivery.message, &self.agent.prompts);
        let bare = values(&self.agent.spec, message, now, &Values::new());
        Ok(tokens(&prompts.system(&bare)?.text) + tokens(&prompts.user(message.performative, &bare)?.text))
    }

    /// What the model is given besides its prompts. After a restart it is asked for again, and narrowed to the memories
    /// that the recorded context names.
    pub(super) async fn known(&mut self) -> Known {
        if let Some(known) = &self.known {
            return known.clone();
        }
        let (world, spec) = (self.world, &self.agent.spec);
        let within = spec.limits.memory_search_timeout;
        let used = self.state.prompts().map(|prompts| prompts.memories.clone()).unwrap_or_default();
        let ask = memory_ask(self.agent, self.delivery).filter(|_| !used.is_empty());
        let facts = async {
            let Some(ask) = ask else { return Vec::new() };
            let found = bounded(within, async { one(world.sources.search(vec![ask]).await) }).await;
            let mut facts = found.unwrap_or_default();
            facts.retain(|fact| used.contains(&fact.source));
            facts
        };
        let (facts, tools) = tokio::join!(facts, offered(world, &spec.permissions, within));
        // Tools come first, so those that had room then have it again. Every time of day takes as many tokens.
        let gathered = Gathered { tools: tools.map(|(tools, _)| Ok(tools)), ..Gathered::default() };
        let prompts = self.bare_tokens(&world.clock.now().to_string()).unwrap_or_default();
        let budget = Budget { all: spec.limits.context_tokens_max, prompts };
        let known = Known { facts, tools: assemble(gathered, budget).tools };
        self.known = Some(known.clone());
        known
    }
}

/// The tools an agent may call, and those that are not there, with their reasons; `None` when its file names none.
async fn offered(
    world: &super::World,
    permissions: &crate::toolbox::Permissions,
    within: Duration,
) -> Option<(Vec<ToolSpec>, Vec<String>)> {
    if permissions.tools.is_empty() {
        return None;
    }
    Some(world.tools.offer(permissions, within).await)
}

/// The answer to the only question.
fn one(mut found: Vec<crate::agents::ports::Found>) -> crate::agents::ports::Found {
    found.pop().unwrap_or_else(|| Ok(Vec::new()))
}

async fn bounded<T>(
    within: Duration,
    asked: impl Future<Output = Result<T, PortError>>,
) -> Result<T, String> {
    match timeout(within, asked).await {
        Ok(answered) => answered.map_err(|error| failure::chain(&error)),
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}
