//! A running engine with many agents in it, messages for them, and what measures them: for several benches. `allocator.rs` is
//! for those that do not count what they allocate.

#![allow(dead_code, reason = "each bench uses its part")]

pub(crate) mod arguments;
pub(crate) mod closed_loop;
pub(crate) mod medium;
pub(crate) mod ratios;
pub(crate) mod table;

use std::path::{Path, PathBuf};

use caxton::commands::talk::{NewCapability, NewConversation, Outgoing, To, Upkeep};
use caxton::engine::{Engine, EngineOptions};
use caxton_events::conversation::{Content, Performative, Strategy};
use caxton_events::{AgentId, CapabilityName, ConversationId, MessageId};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Text of a message, in bytes.
pub(crate) const BODY_BYTES: usize = 1_024;
/// Providers of one capability.
const PROVIDERS: usize = 10;
/// Different texts: enough that none is near its repetition in a group.
const TEXTS: usize = 4_096;
/// Less than the engine lets wait.
const AT_ONCE: usize = 8_192;

/// How the receiver of a message is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The sender names it, in a conversation that stands.
    Direct,
    /// The same, and the sender gives each message a number of its own.
    Numbered,
    /// One of ten providers of a capability.
    Capability(Strategy),
    /// The sender names it; each message opens a conversation.
    Opening,
}

/// An engine with agents that know each other.
pub(crate) struct Crowd {
    pub(crate) engine: Engine,
    agents: Vec<AgentId>,
    capabilities: Vec<CapabilityName>,
    conversations: Vec<ConversationId>,
    texts: Vec<String>,
    run: u64,
}

/// A runtime for what sends; the engine has threads of its own.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// An engine on an empty or a used directory.
pub(crate) fn engine(dir: &Path) -> Engine {
    // What a server of one inbox that nobody reads would be stopped by is no part of the figures.
    let mut options = EngineOptions::new(dir);
    options.talk.inbox_max = u64::MAX;
    Engine::start(&options, &mut |_| {}).unwrap()
}

/// An empty folder in `dir`.
pub(crate) fn fresh(dir: &Path) -> PathBuf {
    let dir = dir.join("run");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Names of agents.
pub(crate) fn names(count: usize) -> Vec<AgentId> {
    (0..count).map(|n| format!("agent-{n:05}").parse().unwrap()).collect()
}

/// Registers agents, all at the same time.
pub(crate) async fn register(engine: &Engine, agents: &[AgentId]) {
    let workspace = |agent: &AgentId| Upkeep::RegisterAgent {
        agent: agent.clone(),
        workspace: "default".parse().unwrap(),
    };
    all(engine, agents.iter().map(|agent| (agent, workspace(agent)))).await;
}

/// Hands over wishes that do not wait for each other, at most [`AT_ONCE`] at a time.
async fn all<'a>(engine: &Engine, wishes: impl Iterator<Item = (&'a AgentId, Upkeep)>) {
    let mut tasks = JoinSet::new();
    for (agent, wish) in wishes {
        if tasks.len() == AT_ONCE {
            tasks.join_next().await.unwrap().unwrap();
        }
        let (engine, agent) = (engine.clone(), agent.clone());
        tasks.spawn(async move { drop(engine.upkeep(&agent, wish).await.unwrap()) });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

/// [`BODY_BYTES`] of letters, different in each, so that nothing is saved by repetition.
fn texts() -> Vec<String> {
    let text = |n: usize| {
        let mut text = format!("{n:08} ");
        let mut state = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while text.len() < BODY_BYTES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push(char::from(b'a' + (state % 26) as u8));
        }
        text
    };
    (0..TEXTS).map(text).collect()
}

impl Crowd {
    /// Starts an engine on `dir` with so many agents, each with a capability and with a standing conversation for its
    /// messages.
    pub(crate) fn start(dir: &Path, runtime: &Runtime, agents: usize) -> Self {
        Self::talking(dir, runtime, agents, agents)
    }

    /// The same with so many standing conversations.
    pub(crate) fn talking(dir: &Path, runtime: &Runtime, agents: usize, conversations: usize) -> Self {
        let crowd = Self::again(dir, agents, conversations);
        crowd.introduce(runtime);
        crowd
    }

    pub(crate) fn agents(&self) -> &[AgentId] {
        &self.agents
    }

    /// Makes the agents known, with their capabilities, and opens the conversations.
    pub(crate) fn introduce(&self, runtime: &Runtime) {
        let crowd = self;
        runtime.block_on(async {
            register(&crowd.engine, &crowd.agents).await;
            let offers = crowd.agents.iter().enumerate().map(|(n, agent)| {
                let offer = NewCapability {
                    agent: agent.clone(),
                    capability: crowd.capabilities[n / PROVIDERS].clone(),
                    version: "1.0.0".to_owned(),
                    priority: 50,
                    metadata: None,
                    health_check_url: None,
                };
                (agent, Upkeep::Offer(offer))
            });
            all(&crowd.engine, offers).await;
            let opened = crowd.conversations.iter().zip(crowd.agents.iter().cycle()).map(|(id, agent)| {
                (agent, Upkeep::Open(NewConversation { id: Some(id.clone()), ..NewConversation::default() }))
            });
            all(&crowd.engine, opened).await;
        });
    }

    /// The same on a directory where they are already.
    pub(crate) fn again(dir: &Path, agents: usize, conversations: usize) -> Self {
        let engine = engine(dir);
        let agents = names(agents);
        let capabilities =
            (0..agents.len().div_ceil(PROVIDERS)).map(|n| format!("skill-{n}").parse().unwrap());
        let conversations = (0..conversations).map(|n| format!("talk-{n:07}").parse().unwrap());
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        Self {
            capabilities: capabilities.collect(),
            conversations: conversations.collect(),
            engine,
            agents,
            texts: texts(),
            run: now,
        }
    }

    /// The `n`-th message. Neighbours have other senders, receivers and conversations; a conversation has the same two.
    pub(crate) fn message(&self, n: u64, mode: Mode) -> Outgoing {
        let at = n as usize;
        // Odd and without a factor of the counts: walks through all of them before it repeats.
        let pair = at.wrapping_mul(7_919);
        let which = pair % self.conversations.len().max(1);
        let sender = which % self.agents.len();
        let receiver = (sender + 1 + which / self.agents.len()) % self.agents.len();
        let content = Content::Text(self.texts[at % TEXTS].clone());
        let (performative, to) = match mode {
            Mode::Direct | Mode::Numbered | Mode::Opening => {
                (Performative::Inform, To::Agents(vec![self.agents[receiver].clone()]))
            }
            Mode::Capability(strategy) => {
                let name = self.capabilities[receiver / PROVIDERS].clone();
                (Performative::Inform, To::Capability { name, version: None, strategy })
            }
        };
        let mut wish = Outgoing::new(self.agents[sender].clone(), performative, to, content);
        if mode != Mode::Opening {
            wish.conversation = Some(self.conversations[which].clone());
        }
        if mode == Mode::Numbered {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&self.run.to_be_bytes());
            bytes[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            wish.id = Some(MessageId::from_bytes(bytes));
        }
        wish
    }

    /// Records in the log that are not folded into agents and conversations.
    pub(crate) fn lag(&self) -> u64 {
        let folded = self.engine.view().talk().read().checkpoint;
        self.engine.log().head().seq.0.saturating_sub(folded.0)
    }
}
