//! Events about agents, conversations and turns as JSON, with the field names of the REST API.

use caxton_events::agent::{ConfigProblem, ConfigSource};
use caxton_events::conversation::{Content, Message};
use caxton_events::turn::{ContextPart, ToolCall};
use caxton_events::{AgentEvent, ConversationEvent, TurnEvent};
use serde_json::{Value, json};

use super::payload::object;

pub(super) fn agent(event: &AgentEvent) -> Value {
    match event {
        AgentEvent::ExternalRegistered { agent, workspace } => {
            json!({ "agent_id": agent, "workspace": workspace })
        }
        AgentEvent::ConfigLoaded { agent, version, workspace, source, path, sha256, content } => json!({
            "agent_id": agent, "version": version, "workspace": workspace, "source": config_source(source),
            "path": path, "sha256": sha256, "content": content,
        }),
        AgentEvent::ConfigRejected { agent, path, sha256, problems } => json!({
            "agent_id": agent, "path": path, "sha256": sha256,
            "problems": problems.iter().map(problem).collect::<Value>(),
        }),
        AgentEvent::ConfigRemoved { agent, path } => json!({ "agent_id": agent, "path": path }),
        AgentEvent::StatusChanged { agent, status, reason } => {
            json!({ "agent_id": agent, "status": status, "reason": reason })
        }
        AgentEvent::CapabilityRegistered {
            registration,
            agent,
            capability,
            version,
            priority,
            metadata,
            health_check_url,
        } => json!({
            "registration_id": registration, "agent_id": agent, "capability": capability, "version": version,
            "priority": priority, "metadata": object(metadata.as_deref()), "health_check_url": health_check_url,
        }),
        AgentEvent::CapabilityUpdated { registration, priority, metadata, health_check_url } => json!({
            "registration_id": registration, "priority": priority, "metadata": object(metadata.as_deref()),
            "health_check_url": health_check_url,
        }),
        AgentEvent::CapabilityRemoved { registration, agent, capability } => {
            json!({ "registration_id": registration, "agent_id": agent, "capability": capability })
        }
        AgentEvent::HealthChanged { agent, capability, health, reason } => {
            json!({ "agent_id": agent, "capability": capability, "health": health, "reason": reason })
        }
        AgentEvent::CircuitChanged { agent, circuit, failures, until } => {
            json!({ "agent_id": agent, "circuit": circuit, "failures": failures, "until": until })
        }
    }
}

fn config_source(source: &ConfigSource) -> Value {
    match source {
        ConfigSource::Directory => json!("directory"),
        ConfigSource::Request => json!("request"),
        ConfigSource::Rollback { to, file_sha256 } => {
            json!({ "rollback": { "to_seq": to, "file_sha256": file_sha256 } })
        }
    }
}

fn problem(problem: &ConfigProblem) -> Value {
    let ConfigProblem { line, column, field, reason, remedy } = problem;
    json!({ "line": line, "column": column, "field": field, "reason": reason, "remedy": remedy })
}

pub(super) fn conversation(event: &ConversationEvent) -> Value {
    match event {
        ConversationEvent::Opened {
            conversation,
            topic,
            protocol,
            parent,
            idle_timeout_millis,
            life_timeout_millis,
            participants_max,
            messages_max,
        } => json!({
            "conversation_id": conversation, "topic": topic, "protocol": protocol, "parent": parent,
            "idle_timeout_ms": idle_timeout_millis, "life_timeout_ms": life_timeout_millis,
            "max_participants": participants_max, "max_messages": messages_max,
        }),
        ConversationEvent::MessageSent(message) => sent(message),
        ConversationEvent::MessageExpired { sent, message, receivers } => {
            json!({ "sent_seq": sent, "message_id": message, "receivers": receivers })
        }
        ConversationEvent::ReplyOverdue { sent, message } => {
            json!({ "sent_seq": sent, "message_id": message })
        }
        ConversationEvent::DeliveryRetried { sent, message, receiver, attempts, not_before, error } => {
            json!({
                "sent_seq": sent, "message_id": message, "receiver": receiver, "attempts": attempts,
                "not_before": not_before, "error": error,
            })
        }
        ConversationEvent::MessageDeadLettered { sent, message, receiver, reason, attempts, detail } => {
            json!({
                "sent_seq": sent, "message_id": message, "receiver": receiver, "reason": reason,
                "attempts": attempts, "detail": detail,
            })
        }
        ConversationEvent::DeadLetterReplayed { dead_letter, message } => {
            json!({ "dead_letter_seq": dead_letter, "message_id": message })
        }
        ConversationEvent::InboxAcknowledged { agent, through, also } => {
            json!({ "agent_id": agent, "through_seq": through, "also": also })
        }
        ConversationEvent::Extended { conversation, idle_timeout_millis, life_timeout_millis } => json!({
            "conversation_id": conversation, "idle_timeout_ms": idle_timeout_millis,
            "life_timeout_ms": life_timeout_millis,
        }),
        ConversationEvent::Closed { conversation, end } => {
            json!({ "conversation_id": conversation, "end": end })
        }
        ConversationEvent::Archived { conversation } => json!({ "conversation_id": conversation }),
    }
}

fn sent(message: &Message) -> Value {
    let content = match &message.content {
        Content::Text(text) => Value::from(text.as_str()),
        Content::Json(text) => object(Some(text)),
    };
    let routing = message.routing.as_ref().map(|routing| {
        let candidate = |candidate: &caxton_events::conversation::Candidate| {
            json!({ "agent_id": candidate.agent, "score": candidate.score, "because": candidate.because })
        };
        json!({
            "capability": routing.capability, "strategy": routing.strategy, "reason": routing.reason,
            "candidates": routing.candidates.iter().map(candidate).collect::<Value>(),
        })
    });
    let mut data = json!({
        "message_id": message.id, "performative": message.performative, "sender": message.sender,
        "receivers": message.receivers, "conversation_id": message.conversation, "priority": message.priority,
        "content": content,
    });
    for (name, value) in [
        ("routing", routing),
        ("reply_with", message.reply_with.as_deref().map(Value::from)),
        ("in_reply_to", message.in_reply_to.as_deref().map(Value::from)),
        ("reply_by", message.reply_by.map(|at| json!(at))),
        ("expires_at", message.expires_at.map(|at| json!(at))),
        ("extras", message.extras.as_deref().map(|extras| object(Some(extras)))),
    ] {
        if let Some(value) = value {
            data[name] = value;
        }
    }
    data
}

pub(super) fn turn(event: &TurnEvent) -> Value {
    match event {
        TurnEvent::Started { turn, agent, config, message, conversation, attempt } => json!({
            "turn_id": turn, "agent_id": agent, "config_seq": config, "message_seq": message,
            "conversation_id": conversation, "attempt": attempt,
        }),
        TurnEvent::ContextPrepared {
            turn,
            parts,
            budget_tokens,
            missing_variables,
            system_prompt,
            user_prompt,
        } => json!({
            "turn_id": turn, "parts": parts.iter().map(part).collect::<Value>(), "budget_tokens": budget_tokens,
            "missing_variables": missing_variables, "system_prompt": system_prompt, "user_prompt": user_prompt,
        }),
        TurnEvent::ModelAnswered {
            turn,
            step,
            provider,
            model,
            text,
            tool_calls,
            usage,
            cached,
            took_micros,
        } => json!({
            "turn_id": turn, "step": step, "provider": provider, "model": model, "text": text,
            "tool_calls": tool_calls.iter().map(call).collect::<Value>(), "usage": usage, "cached": cached,
            "took_micros": took_micros,
        }),
        TurnEvent::ModelFailed { turn, step, provider, model, error, will_retry } => json!({
            "turn_id": turn, "step": step, "provider": provider, "model": model, "error": error,
            "will_retry": will_retry,
        }),
        TurnEvent::ToolStarted { turn, call, tool } => {
            json!({ "turn_id": turn, "call_id": call, "tool": tool })
        }
        TurnEvent::ToolAnswered { turn, call, tool, result, failed, took_micros } => json!({
            "turn_id": turn, "call_id": call, "tool": tool, "result": result, "failed": failed,
            "took_micros": took_micros,
        }),
        TurnEvent::ToolRefused { turn, call, tool, reason } => {
            json!({ "turn_id": turn, "call_id": call, "tool": tool, "reason": reason })
        }
        TurnEvent::Finished { turn, reply } => json!({ "turn_id": turn, "reply_message_id": reply }),
        TurnEvent::Failed { turn, reason, will_retry } => {
            json!({ "turn_id": turn, "reason": reason, "will_retry": will_retry })
        }
    }
}

fn part(part: &ContextPart) -> Value {
    let ContextPart { kind, used, tokens, left_out, unavailable } = part;
    json!({
        "source": kind, "used": used, "tokens": tokens, "left_out": left_out, "unavailable": unavailable,
    })
}

fn call(call: &ToolCall) -> Value {
    json!({ "call_id": call.id, "tool": call.tool, "arguments": object(Some(&call.arguments)) })
}
