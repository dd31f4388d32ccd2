//! The rules of conversations, inboxes and offers.

use caxton_events::limits::{METADATA_BYTES_MAX, TOPIC_BYTES_MAX};
use caxton_events::{AgentEvent, AgentId, ConversationEvent, ConversationId, Draft, Seq};
use caxton_projections::conversations::SYSTEM;

use super::draft;
use super::routing::is_version;
use super::send::{Numbers, nearest};
use super::situation::{Overlay, Situation, Standing};
use super::wish::{NewCapability, NewConversation, Upkeep};
use crate::commands::check::{excerpt, refuse};
use crate::commands::{Refusal, RefusalCode};

/// Largest priority of an offer.
const PRIORITY_MAX: u16 = 1_000;
/// Longest reason of a state of health.
const HEALTH_REASON_BYTES_MAX: usize = 1_024;

/// Decides one wish: its events are added to `drafts`; none when everything is as asked already. `head` is the end of
/// the log.
///
/// # Errors
///
/// The first rule that says no; `own` and `drafts` are then as before.
pub fn decide_upkeep(
    situation: &Situation<'_>,
    own: &mut Overlay,
    actor: &str,
    wish: &Upkeep,
    head: Seq,
    numbers: &mut Numbers,
    drafts: &mut Vec<Draft>,
) -> Result<(), Refusal> {
    match wish {
        Upkeep::RegisterAgent { agent, workspace } => {
            if agent.as_str() == SYSTEM {
                let message = format!("{SYSTEM} is the name of the server itself");
                return Err(refuse(RefusalCode::Validation, "name", message, "use another name"));
            }
            if !situation.is_known(own, agent) {
                let event =
                    AgentEvent::ExternalRegistered { agent: agent.clone(), workspace: workspace.clone() };
                drafts.push(draft("agents", actor, None, event));
                own.agents.insert(agent.clone());
            }
            Ok(())
        }
        Upkeep::Open(wish) => open(situation, own, actor, wish, numbers, drafts),
        Upkeep::Close { conversation, end } => {
            let standing = known(situation, own, conversation)?;
            if standing.open {
                let event = ConversationEvent::Closed { conversation: conversation.clone(), end: *end };
                drafts.push(draft(conversation.as_str(), actor, None, event));
                own.conversations.entry(conversation.clone()).or_default().ended = true;
            }
            Ok(())
        }
        Upkeep::Extend { .. } => extend(situation, own, actor, wish, drafts),
        Upkeep::Archive { conversations } => archive(situation, own, actor, conversations, drafts),
        Upkeep::ReportHealth { .. } => report_health(situation, own, actor, wish, drafts),
        Upkeep::Acknowledge { agent, through, also } => {
            acknowledge(situation, own, (agent, *through, also), head, drafts)
        }
        Upkeep::Offer(offer) => register(situation, own, actor, offer, numbers, drafts),
        Upkeep::ChangeOffer { .. } => change(situation, own, actor, wish, drafts),
        Upkeep::Withdraw { agent, capability } => {
            withdraw(situation, own, actor, (agent, capability), drafts)
        }
    }
}

/// Other timeouts. What is not named stays as it is folded: a conversation that is extended already is to be folded before.
fn extend(
    situation: &Situation<'_>,
    own: &Overlay,
    actor: &str,
    wish: &Upkeep,
    drafts: &mut Vec<Draft>,
) -> Result<(), Refusal> {
    let Upkeep::Extend { conversation, idle_timeout_millis, life_timeout_millis } = wish else {
        return Ok(());
    };
    let standing = known(situation, own, conversation)?;
    if !standing.open {
        let message = format!("conversation {conversation} has ended");
        let remedy = "open a new one, with parent_conversation set to this one";
        return Err(refuse(RefusalCode::ConversationClosed, "conversation", message, remedy));
    }
    let Some(row) = situation.state.conversations.get(conversation) else {
        let message = format!("conversation {conversation} is being opened");
        return Err(refuse(RefusalCode::WrongState, "conversation", message, "ask again"));
    };
    let idle = idle_timeout_millis.unwrap_or(row.idle_timeout_millis);
    let life = life_timeout_millis.unwrap_or(row.life_timeout_millis);
    let deadline = row.deadline_with(idle, life);
    // A turn that sets the idle time is about to answer: what its message waited before does not end the conversation.
    if deadline <= situation.now && actor != SYSTEM {
        let field =
            if life_timeout_millis.is_some() { "life_timeout_seconds" } else { "idle_timeout_seconds" };
        let message = format!("the conversation would have ended at {deadline}");
        return Err(refuse(RefusalCode::Expired, field, message, "give it longer, or close it"));
    }
    if (idle, life) != (row.idle_timeout_millis, row.life_timeout_millis) {
        let event = ConversationEvent::Extended {
            conversation: conversation.clone(),
            idle_timeout_millis: idle,
            life_timeout_millis: life,
        };
        drafts.push(draft(conversation.as_str(), actor, None, event));
    }
    Ok(())
}

fn archive(
    situation: &Situation<'_>,
    own: &Overlay,
    actor: &str,
    conversations: &[ConversationId],
    drafts: &mut Vec<Draft>,
) -> Result<(), Refusal> {
    for conversation in conversations {
        let standing = known(situation, own, conversation)?;
        if standing.open {
            let message = format!("conversation {conversation} is open");
            return Err(refuse(RefusalCode::WrongState, "conversation", message, "close it first"));
        }
    }
    for conversation in conversations {
        if !situation.state.conversations.get(conversation).is_some_and(|folded| folded.archived) {
            let event = ConversationEvent::Archived { conversation: conversation.clone() };
            drafts.push(draft(conversation.as_str(), actor, None, event));
        }
    }
    Ok(())
}

/// How an agent is. Nothing is recorded when that is known.
fn report_health(
    situation: &Situation<'_>,
    own: &Overlay,
    actor: &str,
    wish: &Upkeep,
    drafts: &mut Vec<Draft>,
) -> Result<(), Refusal> {
    let Upkeep::ReportHealth { agent, capability, health, reason } = wish else { return Ok(()) };
    if !situation.is_known(own, agent) {
        return Err(no_agent(situation, "agent", agent));
    }
    if reason.len() > HEALTH_REASON_BYTES_MAX {
        let message = format!("takes {} bytes, the limit is {HEALTH_REASON_BYTES_MAX}", reason.len());
        return Err(refuse(RefusalCode::TooLarge, "reason", message, "shorten it"));
    }
    if let Some(name) = capability
        && !situation.state.registry.providers(name).any(|row| row.agent == *agent)
    {
        let message = format!("{agent} does not offer {name}");
        let remedy = "register it with POST /capabilities, or leave capability out";
        return Err(refuse(RefusalCode::RegistrationNotFound, "capability", message, remedy));
    }
    let known = situation.state.registry.agent(agent).is_some_and(|row| {
        let same = row.health.iter().find(|row| row.capability == *capability);
        same.is_some_and(|row| row.health == *health && row.reason == *reason)
    });
    if !known {
        let (agent, capability) = (agent.clone(), capability.clone());
        let event = AgentEvent::HealthChanged { agent, capability, health: *health, reason: reason.clone() };
        drafts.push(draft("agents", actor, None, event));
    }
    Ok(())
}

/// An offer with other properties. What is not named is that of the folded offer: one that is changed already is to be folded
/// before.
fn change(
    situation: &Situation<'_>,
    own: &Overlay,
    actor: &str,
    wish: &Upkeep,
    drafts: &mut Vec<Draft>,
) -> Result<(), Refusal> {
    let Upkeep::ChangeOffer { registration, priority, metadata, health_check_url } = wish else {
        return Ok(());
    };
    let row = situation.state.registry.registration(*registration);
    let Some(row) = row.filter(|row| !situation.is_withdrawn(own, row.id)) else {
        let message = format!("there is no registration {registration}");
        let remedy = "see GET /capabilities for the registrations there are";
        return Err(refuse(RefusalCode::RegistrationNotFound, "registration_id", message, remedy));
    };
    not_of_a_file(situation, &row.agent)?;
    check_offer(priority.unwrap_or(row.priority), metadata.as_ref().and_then(|text| text.as_deref()))?;
    let event = AgentEvent::CapabilityUpdated {
        registration: *registration,
        priority: priority.unwrap_or(row.priority),
        metadata: metadata.clone().unwrap_or_else(|| row.metadata.clone()),
        health_check_url: health_check_url.clone().unwrap_or_else(|| row.health_check_url.clone()),
    };
    drafts.push(draft("agents", actor, None, event));
    Ok(())
}

/// What an agent of a file offers stands in its file, and nowhere else.
fn not_of_a_file(situation: &Situation<'_>, agent: &AgentId) -> Result<(), Refusal> {
    let config = situation.state.registry.agent(agent).and_then(|agent| agent.config.as_ref());
    config.map_or(Ok(()), |config| {
        let message = format!("what {agent} offers stands in its file {}", config.path);
        let remedy = format!(
            "change `capabilities` in the file, or give it another text with PUT /config-agents/{agent}"
        );
        Err(refuse(RefusalCode::WrongState, "agent_id", message, &remedy))
    })
}

fn withdraw(
    situation: &Situation<'_>,
    own: &mut Overlay,
    actor: &str,
    (agent, capability): (&AgentId, &caxton_events::CapabilityName),
    drafts: &mut Vec<Draft>,
) -> Result<(), Refusal> {
    let mut rows = situation.state.registry.providers(capability);
    let row = rows.find(|row| row.agent == *agent && !situation.is_withdrawn(own, row.id));
    let Some(row) = row else {
        let message = format!("{agent} does not offer {capability}");
        let remedy = "see GET /capabilities for who offers what";
        return Err(refuse(RefusalCode::RegistrationNotFound, "capability", message, remedy));
    };
    not_of_a_file(situation, agent)?;
    let (agent, capability) = (agent.clone(), capability.clone());
    let event = AgentEvent::CapabilityRemoved { registration: row.id, agent, capability };
    drafts.push(draft("agents", actor, None, event));
    own.withdrawn.insert(row.id);
    Ok(())
}

fn no_agent(situation: &Situation<'_>, field: &str, agent: &AgentId) -> Refusal {
    let remedy = match nearest(situation, agent) {
        near if near.is_empty() => "register it with POST /agents".to_owned(),
        near => format!("did you mean {}?", near.join(", ")),
    };
    refuse(RefusalCode::AgentNotFound, field, format!("there is no agent {agent}"), &remedy)
}

/// The conversation, which there must be.
fn known<'a>(
    situation: &'a Situation<'_>,
    own: &'a Overlay,
    id: &ConversationId,
) -> Result<Standing<'a>, Refusal> {
    situation.conversation(own, id).ok_or_else(|| {
        let message = format!("there is no conversation {id}");
        refuse(RefusalCode::ConversationNotFound, "conversation", message, "see GET /conversations")
    })
}

fn open(
    situation: &Situation<'_>,
    own: &mut Overlay,
    actor: &str,
    wish: &NewConversation,
    numbers: &mut Numbers,
    drafts: &mut Vec<Draft>,
) -> Result<(), Refusal> {
    for (field, text) in [("topic", &wish.topic), ("protocol", &wish.protocol)] {
        if let Some(text) = text.as_ref().filter(|text| text.len() > TOPIC_BYTES_MAX) {
            let message = format!("takes {} bytes, the limit is {TOPIC_BYTES_MAX}", text.len());
            return Err(refuse(RefusalCode::TooLarge, field, message, "shorten it"));
        }
    }
    if let Some(parent) = &wish.parent
        && situation.conversation(own, parent).is_none()
    {
        let message = format!("there is no conversation {parent}");
        return Err(refuse(
            RefusalCode::ConversationNotFound,
            "parent_conversation",
            message,
            "correct the name, or leave it out",
        ));
    }
    let id = match &wish.id {
        Some(id) if situation.conversation(own, id).is_some() => {
            let message = format!("conversation {id} exists");
            return Err(refuse(
                RefusalCode::AlreadyExists,
                "conversation_id",
                message,
                "choose another name",
            ));
        }
        Some(id) => id.clone(),
        None => numbers.conversation(situation.now)?,
    };
    let settings = situation.settings;
    let participants_max = wish.participants_max.unwrap_or(settings.participants_max);
    let messages_max = wish.messages_max.unwrap_or(settings.messages_max);
    let event = ConversationEvent::Opened {
        conversation: id.clone(),
        topic: wish.topic.clone(),
        protocol: wish.protocol.clone(),
        parent: wish.parent.clone(),
        idle_timeout_millis: wish.idle_timeout_millis.unwrap_or(settings.idle_timeout_millis),
        life_timeout_millis: wish.life_timeout_millis.unwrap_or(settings.life_timeout_millis),
        participants_max,
        messages_max,
    };
    drafts.push(draft(id.as_str(), actor, None, event));
    own.conversations.entry(id).or_default().opened = Some((participants_max, messages_max));
    Ok(())
}

fn acknowledge(
    situation: &Situation<'_>,
    own: &Overlay,
    (agent, through, also): (&AgentId, Seq, &[Seq]),
    head: Seq,
    drafts: &mut Vec<Draft>,
) -> Result<(), Refusal> {
    // One that was removed has its inbox still: what it had begun is done with, and what waits can be cleared away.
    if !situation.is_known(own, agent) && situation.state.registry.agent(agent).is_none() {
        return Err(no_agent(situation, "agent", agent));
    }
    let mut named = std::iter::once(("through", &through)).chain(also.iter().map(|seq| ("seqs", seq)));
    if let Some((field, beyond)) = named.find(|(_, seq)| **seq > head) {
        let message = format!("{} is beyond the end of the log, {}", beyond.0, head.0);
        return Err(refuse(RefusalCode::Validation, field, message, "acknowledge what the inbox gave"));
    }
    let Some(inbox) = situation.state.conversations.inbox(agent) else { return Ok(()) };
    let mut fresh: Vec<Seq> =
        also.iter().copied().filter(|seq| *seq > through && inbox.is_open(*seq)).collect();
    fresh.sort_unstable();
    fresh.dedup();
    let moves = inbox.open_after(Seq::ZERO).next().is_some_and(|first| first <= through);
    if moves || !fresh.is_empty() {
        let through = if moves { through } else { inbox.low };
        let event = ConversationEvent::InboxAcknowledged { agent: agent.clone(), through, also: fresh };
        drafts.push(draft("inboxes", agent.as_str(), None, event));
    }
    Ok(())
}

fn check_offer(priority: u16, metadata: Option<&str>) -> Result<(), Refusal> {
    if priority > PRIORITY_MAX {
        let message = format!("{priority} is no priority");
        return Err(refuse(
            RefusalCode::Validation,
            "priority",
            message,
            "use 0 to 1000; higher is preferred",
        ));
    }
    if let Some(bytes) = metadata.map(str::len).filter(|bytes| *bytes > METADATA_BYTES_MAX) {
        let message = format!("takes {bytes} bytes, the limit is {METADATA_BYTES_MAX}");
        return Err(refuse(RefusalCode::TooLarge, "metadata", message, "shorten it"));
    }
    Ok(())
}

fn register(
    situation: &Situation<'_>,
    own: &mut Overlay,
    actor: &str,
    offer: &NewCapability,
    numbers: &mut Numbers,
    drafts: &mut Vec<Draft>,
) -> Result<(), Refusal> {
    check_offer(offer.priority, offer.metadata.as_deref())?;
    let version_is_plain = offer.version.len() <= 64 && is_version(&offer.version);
    if !version_is_plain {
        let message = format!("{} is no version", excerpt(&offer.version));
        return Err(refuse(RefusalCode::Validation, "version", message, "write it as in 1.0.0"));
    }
    if !situation.is_known(own, &offer.agent) {
        return Err(no_agent(situation, "agent_id", &offer.agent));
    }
    not_of_a_file(situation, &offer.agent)?;
    let key = (offer.agent.clone(), offer.capability.clone());
    let offers = situation.under_way.iter().chain(std::iter::once(&*own));
    let known = situation.state.registry.providers(&offer.capability).any(|row| row.agent == offer.agent)
        || offers.into_iter().any(|layer| layer.offers.contains(&key));
    if known {
        let message = format!("{} offers {} already", offer.agent, offer.capability);
        let remedy = "change it with PUT /capabilities/{registration_id}, or withdraw it first";
        return Err(refuse(RefusalCode::DuplicateRegistration, "capability", message, remedy));
    }
    let event = AgentEvent::CapabilityRegistered {
        registration: numbers.registration(situation.now),
        agent: offer.agent.clone(),
        capability: offer.capability.clone(),
        version: offer.version.clone(),
        priority: offer.priority,
        metadata: offer.metadata.clone(),
        health_check_url: offer.health_check_url.clone(),
    };
    drafts.push(draft("agents", actor, None, event));
    own.offers.insert(key);
    Ok(())
}
