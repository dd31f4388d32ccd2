//! One event of every kind about agents, conversations, turns and the server, for the golden files: every optional part is present
//! somewhere.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::agent::{AgentEvent, AgentStatus, Circuit, ConfigProblem, ConfigSource, Health};
use crate::conversation::{
    Candidate, Content, ConversationEnd, ConversationEvent, DeadLetterReason, Message, Performative,
    Priority, Routing, Strategy,
};
use crate::memory::{Chosen, Later, Origin, Validity};
use crate::system::SystemEvent;
use crate::turn::{ContextKind, ContextPart, ToolCall, TurnEvent, Usage};
use crate::{
    AgentId, ConversationId, MemoryEvent, MemoryId, MessageId, RegistrationId, Scope, Seq, Subject,
    Timestamp, TurnId,
};

const AT: Timestamp = Timestamp::from_unix_micros(1_700_000_000_000_000);

fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

pub(crate) fn undone() -> Vec<MemoryEvent> {
    let origin = || Origin { first: Seq(17), created_at: AT, author: "bob".to_owned() };
    let validity = Validity { from: Some(AT), to: None };
    let metadata = || Some(r#"{"source":"letter"}"#.to_owned());
    vec![
        MemoryEvent::EntityRestored {
            id: MemoryId(300),
            scope: "agent:ada".parse().unwrap(),
            name: "Analytical Engine".to_owned(),
            entity_type: "machine".to_owned(),
            metadata: metadata(),
            confidence: 0.75,
            validity,
            owner: "ada".to_owned(),
            version: 3,
            origin: origin(),
        },
        MemoryEvent::ObservationRestored {
            id: MemoryId(301),
            entity: MemoryId(300),
            content: "weaves algebra".to_owned(),
            validity,
            origin: origin(),
        },
        MemoryEvent::RelationRestored {
            id: MemoryId(302),
            scope: "global".parse().unwrap(),
            from: MemoryId(300),
            to: MemoryId(7),
            relation_type: "designed_by".to_owned(),
            strength: 0.5,
            confidence: 0.25,
            metadata: metadata(),
            validity,
            origin: origin(),
        },
        MemoryEvent::Undone {
            chosen: Chosen {
                agent: Some(agent("eve")),
                conversation: Some("conv-7".parse().unwrap()),
                correlation: Some("request-1".to_owned()),
                from: Some(Seq(18)),
                to: Some(Seq(400)),
                since: Some(AT),
                until: Some(AT),
            },
            later: Later::Keep,
            through: Seq(412),
            undoes: vec![vec![Seq(20), Seq(399)], vec![Seq(21)], vec![Seq(300)]],
        },
    ]
}

pub(crate) fn agents() -> Vec<AgentEvent> {
    let registration = RegistrationId::from_bytes([9; 16]);
    let capability = || "data-analysis.visual".parse().unwrap();
    let sha256 = || "9f86d081".to_owned();
    vec![
        AgentEvent::ExternalRegistered { agent: agent("ada"), workspace: "default".parse().unwrap() },
        AgentEvent::ConfigLoaded {
            agent: agent("Librarian"),
            version: "1.0.0".to_owned(),
            workspace: "lab".parse().unwrap(),
            source: ConfigSource::Rollback { to: Seq(4), file_sha256: sha256() },
            path: "librarian.md".to_owned(),
            sha256: sha256(),
            content: "---\nname: Librarian\n---\nAnswer.\n".to_owned(),
        },
        AgentEvent::ConfigRejected {
            agent: Some(agent("Librarian")),
            path: "librarian.md".to_owned(),
            sha256: sha256(),
            problems: vec![ConfigProblem {
                line: 3,
                column: 1,
                field: "capabilites".to_owned(),
                reason: "is no key of an agent".to_owned(),
                remedy: "did you mean capabilities?".to_owned(),
            }],
        },
        AgentEvent::ConfigRemoved { agent: agent("Librarian"), path: "librarian.md".to_owned() },
        AgentEvent::StatusChanged {
            agent: agent("Librarian"),
            status: AgentStatus::Stopped,
            reason: "by request".to_owned(),
        },
        AgentEvent::CapabilityRegistered {
            registration,
            agent: agent("ada"),
            capability: capability(),
            version: "2.1.0".to_owned(),
            priority: 500,
            metadata: Some(r#"{"languages":["en"]}"#.to_owned()),
            health_check_url: Some("http://127.0.0.1:9/health".to_owned()),
        },
        AgentEvent::CapabilityUpdated { registration, priority: 50, metadata: None, health_check_url: None },
        AgentEvent::CapabilityRemoved { registration, agent: agent("ada"), capability: capability() },
        AgentEvent::HealthChanged {
            agent: agent("ada"),
            capability: Some(capability()),
            health: Health::Degraded,
            reason: "answered after 4 s".to_owned(),
        },
        AgentEvent::CircuitChanged {
            agent: agent("ada"),
            circuit: Circuit::Open,
            failures: 10,
            until: Some(AT),
        },
    ]
}

fn message() -> Message {
    Message {
        id: MessageId::from_bytes([1; 16]),
        id_given: true,
        performative: Performative::Request,
        sender: agent("ada"),
        receivers: vec![agent("Librarian"), agent("Scribe")],
        routing: Some(Routing {
            capability: "answer".parse().unwrap(),
            strategy: Strategy::BestMatch,
            candidates: vec![Candidate {
                agent: agent("Librarian"),
                score: 0.75,
                because: "priority 50, load 0.00".into(),
            }],
            reason: "the best of 1".to_owned(),
        }),
        conversation: conversation(),
        content: Content::Json(r#"{"question":"why?"}"#.to_owned()),
        priority: Priority::High,
        reply_with: Some("q1".to_owned()),
        in_reply_to: Some("q0".to_owned()),
        reply_by: Some(AT),
        expires_at: Some(AT),
        extras: Some(r#"{"language":"en"}"#.to_owned()),
    }
}

fn conversation() -> ConversationId {
    "conv-1".parse().unwrap()
}

pub(crate) fn conversations() -> Vec<ConversationEvent> {
    let (sent, message_id) = (Seq(300), MessageId::from_bytes([1; 16]));
    vec![
        ConversationEvent::Opened {
            conversation: conversation(),
            topic: Some("engines".to_owned()),
            protocol: Some("fipa-request".to_owned()),
            parent: Some("conv-0".parse().unwrap()),
            idle_timeout_millis: 86_400_000,
            life_timeout_millis: 604_800_000,
            participants_max: 10,
            messages_max: 1_000_000,
        },
        ConversationEvent::MessageSent(Box::new(message())),
        ConversationEvent::MessageExpired { sent, message: message_id, receivers: vec![agent("Scribe")] },
        ConversationEvent::ReplyOverdue { sent, message: message_id },
        ConversationEvent::DeliveryRetried {
            sent,
            message: message_id,
            receiver: agent("Librarian"),
            attempts: 2,
            not_before: AT,
            error: "the model did not answer".to_owned(),
        },
        ConversationEvent::MessageDeadLettered {
            sent,
            message: message_id,
            receiver: Some(agent("Librarian")),
            reason: DeadLetterReason::RetriesExhausted,
            attempts: 3,
            detail: "the model did not answer".to_owned(),
        },
        ConversationEvent::DeadLetterReplayed {
            dead_letter: Seq(305),
            message: MessageId::from_bytes([2; 16]),
        },
        ConversationEvent::InboxAcknowledged {
            agent: agent("Scribe"),
            through: sent,
            also: vec![Seq(302), Seq(70_000)],
        },
        ConversationEvent::Extended {
            conversation: conversation(),
            idle_timeout_millis: 1,
            life_timeout_millis: 2,
        },
        ConversationEvent::Closed { conversation: conversation(), end: ConversationEnd::Completed },
        ConversationEvent::Archived { conversation: conversation() },
    ]
}

pub(crate) fn turns() -> Vec<TurnEvent> {
    let turn = TurnId::from_bytes([3; 16]);
    let (call, tool) = ("call_1".to_owned(), "memory".to_owned());
    let (provider, model) = ("scripted".to_owned(), "rules".to_owned());
    vec![
        TurnEvent::Started {
            turn,
            agent: agent("Librarian"),
            config: Seq(4),
            message: Seq(300),
            conversation: conversation(),
            attempt: 1,
        },
        TurnEvent::ContextPrepared {
            turn,
            parts: vec![ContextPart {
                kind: ContextKind::Memory,
                used: vec!["obs_5".to_owned()],
                tokens: 12,
                left_out: 1,
                unavailable: Some("took longer than 5s".to_owned()),
            }],
            budget_tokens: 4_000,
            missing_variables: vec!["user_id".to_owned()],
            system_prompt: "Answer.".to_owned(),
            user_prompt: "why?".to_owned(),
        },
        TurnEvent::ModelAnswered {
            turn,
            step: 1,
            provider: provider.clone(),
            model: model.clone(),
            text: "Let me look.".to_owned(),
            tool_calls: vec![ToolCall {
                id: call.clone(),
                tool: tool.clone(),
                arguments: r#"{"action":"search","query":"why"}"#.to_owned(),
            }],
            usage: Usage { input_tokens: 300, output_tokens: 9, estimated: true },
            cached: false,
            took_micros: 1_500,
        },
        TurnEvent::ModelFailed {
            turn,
            step: 2,
            provider,
            model,
            error: "answered 500".to_owned(),
            will_retry: true,
        },
        TurnEvent::ToolStarted { turn, call: call.clone(), tool: tool.clone() },
        TurnEvent::ToolAnswered {
            turn,
            call: call.clone(),
            tool: tool.clone(),
            result: "[]".to_owned(),
            failed: true,
            took_micros: 80,
        },
        TurnEvent::ToolRefused { turn, call, tool, reason: "the agent has no permission".to_owned() },
        TurnEvent::Finished { turn, reply: Some(MessageId::from_bytes([2; 16])) },
        TurnEvent::Failed { turn, reason: "the model did not answer".to_owned(), will_retry: false },
    ]
}

pub(crate) fn system() -> Vec<SystemEvent> {
    vec![
        SystemEvent::ServerStarted { version: "0.1.0".to_owned() },
        SystemEvent::ServerStopped,
        SystemEvent::EmbeddingModelChanged {
            name: "all-MiniLM-L6-v2".to_owned(),
            weights_sha256: "53aa5117".to_owned(),
            dimensions: 384,
        },
        SystemEvent::LogTrimmed {
            through: Seq(17_000),
            root: "98167ea0".to_owned(),
            by: "operator".to_owned(),
        },
        SystemEvent::ErasureOrdered {
            subjects: vec![
                Subject::Scope(Scope::Agent("ada".parse().unwrap())),
                Subject::Conversation("c-1".parse().unwrap()),
            ],
            asked: "agent:ada".to_owned(),
            keys: vec![7, 1 << 40],
            events: 300,
            next_memory_id: 12,
            reason: Some("by request".to_owned()),
            by: "system".to_owned(),
        },
        SystemEvent::Erased { order: Seq(70), keys: 2, events: 300 },
    ]
}
