//! The rules of messages, and what a message becomes.

use caxton_events::agent::AgentStatus;
use caxton_events::conversation::{Content, DeadLetterReason, Message, Performative, Priority, Routing};
use caxton_events::limits::{
    MESSAGE_CONTENT_BYTES_MAX, MESSAGE_EXTRAS_BYTES_MAX, RECEIVERS_MAX, REPLY_WORD_BYTES_MAX, TOPIC_BYTES_MAX,
};
use caxton_events::{
    AgentEvent, AgentId, ConversationEvent, ConversationId, Draft, MessageId, RegistrationId, Seq, Timestamp,
};
use caxton_projections::conversations::SYSTEM;
use serde::de::IgnoredAny;

use super::draft;
use super::protocol::{answers_to, may_answer, may_cancel};
use super::routing::{NoChoice, choose, in_version, similar};
use super::situation::{Ask, Overlay, Situation, Standing};
use super::wish::{Outgoing, To, begins_like_json};
use crate::commands::check::{excerpt, refuse};
use crate::commands::{Refusal, RefusalCode};

/// Agents among which names like an unknown one are looked for at the most.
const COMPARED_MAX: usize = 1_000;

/// New numbers: an endless stream of bytes out of one seed.
pub struct Numbers {
    source: blake3::OutputReader,
    bytes: [u8; 1_000],
    used: usize,
}

impl Numbers {
    /// From 32 random bytes.
    pub fn seeded(seed: &[u8; 32]) -> Self {
        let source = blake3::Hasher::new_keyed(seed).finalize_xof();
        Self { source, bytes: [0; 1_000], used: 1_000 }
    }

    fn draw(&mut self) -> [u8; 10] {
        if self.used == self.bytes.len() {
            self.source.fill(&mut self.bytes);
            self.used = 0;
        }
        let mut drawn = [0; 10];
        drawn.copy_from_slice(&self.bytes[self.used..self.used + 10]);
        self.used += 10;
        drawn
    }

    /// A number for a message.
    pub fn message(&mut self, now: Timestamp) -> MessageId {
        MessageId::new(now, self.draw())
    }

    /// A number for a registration.
    pub fn registration(&mut self, now: Timestamp) -> RegistrationId {
        RegistrationId::new(now, self.draw())
    }

    /// A name for a conversation.
    ///
    /// # Errors
    ///
    /// None in practice: the name is made of letters, digits and `-`.
    pub fn conversation(&mut self, now: Timestamp) -> Result<ConversationId, Refusal> {
        format!("conv-{}", self.message(now)).parse().map_err(|error: caxton_events::id::NameError| {
            refuse(RefusalCode::Validation, "conversation_id", error.to_string(), "give a name of your own")
        })
    }
}

/// Who gets a message, and what follows when nobody does.
struct Addressed {
    receivers: Vec<AgentId>,
    routing: Option<Routing>,
    failure: Option<(DeadLetterReason, String)>,
}

/// Decides one message: its events are added to `drafts`, and its place among them is returned. What it changes for
/// later decisions is noted in `own`. A rule that says no has left both as they were.
///
/// # Errors
///
/// The first rule that says no.
pub fn decide_send(
    situation: &Situation<'_>,
    own: &mut Overlay,
    wish: Outgoing,
    numbers: &mut Numbers,
    drafts: &mut Vec<Draft>,
) -> Result<usize, Refusal> {
    let is_json = checked(&wish, situation)?;
    let standing = wish.conversation.as_ref().and_then(|id| situation.conversation(own, id));
    check_conversation(situation, own, &wish, standing.as_ref())?;
    check_answer(&wish)?;
    let addressed = address(situation, own, &wish, standing.as_ref())?;
    let joining = check_room(situation, own, &wish, &addressed.receivers, standing.as_ref())?;
    let first = drafts.len();
    if wish.registers && !situation.is_known(own, &wish.sender) {
        drafts.push(introduced(own, &wish));
    }
    let conversation = match wish.conversation {
        Some(id) => id,
        None => open(situation, own, &wish, numbers, drafts)?,
    };
    note(own, &conversation, joining, &addressed);
    let (id, id_given) = match wish.id {
        Some(id) => {
            own.ids.insert(id);
            (id, true)
        }
        None => (numbers.message(situation.now), false),
    };
    let at = drafts.len();
    let failed = addressed.failure.map(|(reason, detail)| {
        let word = wish.reply_with.clone().unwrap_or_else(|| id.to_string());
        (reason, detail, word, wish.sender.clone())
    });
    let stopped = stopped(situation, &addressed.receivers);
    // A message of the same request has no place yet; its word finds it.
    let answered = wish.answered.map(|answered| answered.seq).filter(|seq| *seq != Seq::ZERO);
    let actor = wish.sender.as_str().to_owned();
    let message = Message {
        id,
        id_given,
        performative: wish.performative,
        sender: wish.sender,
        receivers: addressed.receivers,
        routing: addressed.routing,
        conversation: conversation.clone(),
        content: said(wish.content, is_json),
        priority: wish.priority,
        reply_with: wish.reply_with,
        in_reply_to: wish.in_reply_to,
        reply_by: wish.reply_by,
        expires_at: wish.expires_at,
        extras: wish.extras,
    };
    drafts.push(Draft {
        stream: conversation.as_str().to_owned(),
        actor,
        correlation: wish.correlation,
        causation: answered.or(wish.causation),
        event: ConversationEvent::MessageSent(Box::new(message)).into(),
    });
    for receiver in stopped {
        let detail = format!("{receiver} is stopped");
        let letter = dead_letter(id, Some(receiver), DeadLetterReason::AgentStopped, detail);
        drafts.push(draft(conversation.as_str(), SYSTEM, None, letter));
    }
    if let Some((reason, detail, word, sender)) = failed {
        let letter = dead_letter(id, None, reason, detail.clone());
        drafts.push(draft(conversation.as_str(), SYSTEM, None, letter));
        drafts.push(failure_reply(situation, own, conversation, sender, word, detail, numbers)?);
    }
    tie(drafts, first, at);
    Ok(at)
}

/// What comes with a message has its correlation: the first sight of its sender, its conversation, dead letters.
fn tie(drafts: &mut [Draft], first: usize, message: usize) {
    if drafts.len() == first + 1 || drafts[message].correlation.is_none() {
        return;
    }
    let correlation = drafts[message].correlation.clone();
    for draft in &mut drafts[first..] {
        draft.correlation.clone_from(&correlation);
    }
}

/// Makes a sender known that was not.
fn introduced(own: &mut Overlay, wish: &Outgoing) -> Draft {
    let (agent, workspace) = (wish.sender.clone(), wish.workspace.clone());
    own.agents.insert(agent.clone());
    draft("agents", wish.sender.as_str(), None, AgentEvent::ExternalRegistered { agent, workspace })
}

/// The content as it is kept: JSON is JSON, whatever it was sent as.
fn said(content: Content, is_json: bool) -> Content {
    match content {
        Content::Text(text) | Content::Json(text) if is_json => Content::Json(text),
        Content::Text(_) | Content::Json(_) => content,
    }
}

/// Receivers that do not get it, because they are stopped.
fn stopped(situation: &Situation<'_>, receivers: &[AgentId]) -> Vec<AgentId> {
    let is_stopped = |agent: &&AgentId| {
        let known = situation.state.registry.agent(agent);
        known.is_some_and(|agent| agent.status == Some(AgentStatus::Stopped))
    };
    receivers.iter().filter(is_stopped).cloned().collect()
}

/// Its message is the one in front of it in the batch, whose position is not known yet.
fn dead_letter(
    message: MessageId,
    receiver: Option<AgentId>,
    reason: DeadLetterReason,
    detail: String,
) -> ConversationEvent {
    ConversationEvent::MessageDeadLettered { sent: Seq::ZERO, message, receiver, reason, attempts: 0, detail }
}

/// The rules of its parts; whether what it says is JSON.
fn checked(wish: &Outgoing, situation: &Situation<'_>) -> Result<bool, Refusal> {
    let now = situation.now;
    let text = wish.content.as_str();
    if text.is_empty() {
        let message = "is empty".to_owned();
        return Err(refuse(RefusalCode::Validation, "content", message, "say something"));
    }
    let size = |field: &str, bytes: usize, bytes_max: usize| {
        if bytes <= bytes_max {
            return Ok(());
        }
        let message = format!("takes {bytes} bytes, the limit is {bytes_max}");
        Err(refuse(RefusalCode::TooLarge, field, message, "shorten it, or send a reference to it"))
    };
    size("content", text.len(), situation.settings.content_bytes_max.min(MESSAGE_CONTENT_BYTES_MAX))?;
    size("extras", wish.extras.as_ref().map_or(0, String::len), MESSAGE_EXTRAS_BYTES_MAX)?;
    size("reply_with", wish.reply_with.as_ref().map_or(0, String::len), REPLY_WORD_BYTES_MAX)?;
    size("in_reply_to", wish.in_reply_to.as_ref().map_or(0, String::len), REPLY_WORD_BYTES_MAX)?;
    size("topic", wish.topic.as_ref().map_or(0, String::len), TOPIC_BYTES_MAX)?;
    size("protocol", wish.protocol.as_ref().map_or(0, String::len), TOPIC_BYTES_MAX)?;
    for (field, at) in [("reply_by", wish.reply_by), ("expires_at", wish.expires_at)] {
        if let Some(at) = at.filter(|at| *at <= now) {
            let message = format!("{at} is over, it is {now}");
            return Err(refuse(
                RefusalCode::Expired,
                field,
                message,
                "give a moment to come, or leave it out",
            ));
        }
    }
    let is_json = match &wish.content {
        Content::Json(_) => true,
        Content::Text(text) => !wish.plain && begins_like_json(text),
    };
    if is_json && let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let message = format!("{} begins like JSON but is none: {error}", excerpt(text));
        let remedy = "correct it there, or send it with content_type=text to have it taken as a text";
        return Err(refuse(RefusalCode::Validation, "content", message, remedy));
    }
    Ok(is_json)
}

fn check_conversation(
    situation: &Situation<'_>,
    own: &Overlay,
    wish: &Outgoing,
    standing: Option<&Standing<'_>>,
) -> Result<(), Refusal> {
    let Some(id) = &wish.conversation else {
        if wish.in_reply_to.is_some() {
            let message = "is missing, and an answer belongs to the conversation of its question".to_owned();
            let remedy = "give the conversation_id of the message that in_reply_to names";
            return Err(refuse(RefusalCode::Validation, "conversation_id", message, remedy));
        }
        return match &wish.parent {
            Some(parent) if situation.conversation(own, parent).is_none() => {
                let message = format!("there is no conversation {parent}");
                let remedy = "correct the name, or leave it out";
                Err(refuse(RefusalCode::ConversationNotFound, "parent_conversation", message, remedy))
            }
            _ => Ok(()),
        };
    };
    let Some(standing) = standing else {
        let message = format!("there is no conversation {id}");
        let remedy = "leave conversation_id out to open one, or open it first with POST /conversations";
        return Err(refuse(RefusalCode::ConversationNotFound, "conversation_id", message, remedy));
    };
    if !standing.open {
        let message = format!("conversation {id} has ended");
        let remedy = "open a new one, with parent_conversation set to this one";
        return Err(refuse(RefusalCode::ConversationClosed, "conversation_id", message, remedy));
    }
    if standing.messages >= u64::from(standing.messages_max) {
        let message = format!("conversation {id} holds {} messages, its limit", standing.messages);
        let remedy = "open a new one, with parent_conversation set to this one";
        return Err(refuse(RefusalCode::LimitReached, "conversation_id", message, remedy));
    }
    Ok(())
}

fn check_answer(wish: &Outgoing) -> Result<(), Refusal> {
    let Some(word) = &wish.in_reply_to else { return Ok(()) };
    let Some(question) = &wish.answered else {
        let message = format!("no message of this conversation bears {}", excerpt(word));
        let remedy =
            "give the reply_with or the message_id of a message of this conversation, or leave it out";
        return Err(refuse(RefusalCode::MessageNotFound, "in_reply_to", message, remedy));
    };
    let (asked, answer) = (question.performative, wish.performative);
    if answer == Performative::Cancel {
        if question.sender != wish.sender || !may_cancel(asked) {
            let message = format!("{} cannot take back {}'s {asked}", wish.sender, question.sender);
            let remedy =
                "only who sent a REQUEST, QUERY, PROPOSE, CFP, SUBSCRIBE or ACCEPT_PROPOSAL can cancel it";
            return Err(refuse(RefusalCode::ProtocolViolation, "performative", message, remedy));
        }
        return Ok(());
    }
    if !question.receivers.contains(&wish.sender) {
        let message = format!("{} is no receiver of the message {}", wish.sender, excerpt(word));
        let remedy = "answer what you were sent; leave in_reply_to out for a message of your own";
        return Err(refuse(RefusalCode::ProtocolViolation, "in_reply_to", message, remedy));
    }
    if !may_answer(asked, answer) {
        let known: Vec<&str> = answers_to(asked).iter().map(|known| known.as_str()).collect();
        let message = format!("{answer} does not answer {asked}");
        let remedy = if known.is_empty() {
            format!("nothing answers {asked}: leave in_reply_to out")
        } else {
            format!("use {}, or leave in_reply_to out", known.join(", "))
        };
        return Err(refuse(RefusalCode::ProtocolViolation, "performative", message, &remedy));
    }
    Ok(())
}

fn address(
    situation: &Situation<'_>,
    own: &Overlay,
    wish: &Outgoing,
    standing: Option<&Standing<'_>>,
) -> Result<Addressed, Refusal> {
    let (name, version, strategy) = match &wish.to {
        To::Agents(agents) => {
            check_receivers(situation, own, wish, agents)?;
            return Ok(Addressed { receivers: agents.clone(), routing: None, failure: None });
        }
        To::Capability { name, version, strategy } => (name, version.as_deref(), *strategy),
    };
    let ask =
        Ask { capability: name, version, sender: Some(&wish.sender), standing, strategy: Some(strategy) };
    let (mut providers, versions) = situation.candidates(own, &ask);
    if let Some(among) = &wish.among {
        providers.retain(|provider| among.contains(provider.agent));
    }
    for provider in providers.iter_mut().filter(|provider| wish.passed_over.contains(provider.agent)) {
        provider.unavailable = Some("it had this message and failed");
    }
    let routing =
        |candidates, reason| Some(Routing { capability: name.clone(), strategy, candidates, reason });
    match choose(strategy, &providers, situation.turn(own, name)) {
        Ok(choice) => Ok(Addressed {
            receivers: choice.receivers,
            routing: routing(choice.candidates, choice.reason),
            failure: None,
        }),
        Err(NoChoice::AllUnavailable { candidates }) => {
            let wanted = in_version(version);
            let reason = format!("none of {} providers{wanted} can take a message", candidates.len());
            let why: Vec<String> =
                candidates.iter().map(|row| format!("{}: {}", row.agent, row.because)).collect();
            let detail = format!("{reason} of {name} now ({})", why.join("; "));
            let failure = Some((DeadLetterReason::AllUnavailable, detail));
            Ok(Addressed { receivers: Vec::new(), routing: routing(candidates, reason), failure })
        }
        Err(NoChoice::NoProvider { .. }) => {
            let near = similar(name.as_str(), situation.state.registry.capabilities());
            let mut detail = match version {
                Some(version) if !versions.is_empty() => {
                    format!("nobody offers {name} in version {version}; there is {}", versions.join(", "))
                }
                _ => format!("nobody offers {name}"),
            };
            let near: Vec<String> = near
                .iter()
                .filter(|(other, _)| *other != name)
                .map(|(other, count)| format!("{other} ({count})"))
                .collect();
            if !near.is_empty() {
                detail.push_str("; similar capabilities: ");
                detail.push_str(&near.join(", "));
            }
            let routing = routing(Vec::new(), format!("nobody offers it{}", in_version(version)));
            let failure = Some((DeadLetterReason::NoProvider, detail));
            Ok(Addressed { receivers: Vec::new(), routing, failure })
        }
    }
}

fn check_receivers(
    situation: &Situation<'_>,
    own: &Overlay,
    wish: &Outgoing,
    agents: &[AgentId],
) -> Result<(), Refusal> {
    let invalid =
        |message: String, remedy: &str| Err(refuse(RefusalCode::Validation, "receiver", message, remedy));
    if agents.is_empty() {
        return invalid("names nobody".to_owned(), "name at least one agent, or a capability instead");
    }
    if agents.len() > RECEIVERS_MAX {
        let message = format!("names {} agents, the limit is {RECEIVERS_MAX}", agents.len());
        return invalid(message, "send to a capability with routing_strategy=broadcast, or in parts");
    }
    for (index, agent) in agents.iter().enumerate() {
        if *agent == wish.sender {
            return invalid(format!("{agent} is the sender itself"), "name another agent");
        }
        if agents.len() > 1 && agents[..index].contains(agent) {
            return invalid(format!("names {agent} twice"), "name each agent once");
        }
        if !situation.is_known(own, agent) {
            let remedy = match nearest(situation, agent) {
                near if near.is_empty() => {
                    "register it with POST /agents, or send to a capability".to_owned()
                }
                near => format!("did you mean {}?", near.join(", ")),
            };
            let message = format!("there is no agent {agent}");
            return Err(refuse(RefusalCode::AgentNotFound, "receiver", message, &remedy));
        }
    }
    Ok(())
}

/// Up to three names that look like `wanted`; none where there are too many to compare all of them while everybody waits.
pub(super) fn nearest(situation: &Situation<'_>, wanted: &AgentId) -> Vec<String> {
    let names = situation.state.registry.names();
    if names.len() > COMPARED_MAX {
        return Vec::new();
    }
    let known = names.filter(|name| situation.state.registry.is_known(name)).map(AgentId::as_str);
    let scored = known.map(|name| (strsim::jaro_winkler(wanted.as_str(), name), name));
    let mut near: Vec<(f64, &str)> = scored.filter(|(score, _)| *score > 0.8).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// Room in the conversation and in the inboxes; who joins the conversation by this message.
fn check_room(
    situation: &Situation<'_>,
    own: &Overlay,
    wish: &Outgoing,
    receivers: &[AgentId],
    standing: Option<&Standing<'_>>,
) -> Result<Vec<AgentId>, Refusal> {
    let (known, limit) = match standing {
        Some(standing) => (standing.participants(), standing.participants_max),
        None => (0, situation.settings.participants_max),
    };
    let takes_part = |agent: &AgentId| standing.is_some_and(|standing| standing.takes_part(agent));
    let joining: Vec<AgentId> = std::iter::once(&wish.sender)
        .chain(receivers)
        .filter(|agent| agent.as_str() != SYSTEM && !takes_part(agent))
        .cloned()
        .collect();
    let wanted = known + joining.len();
    if wanted > limit as usize {
        let message = format!("the conversation would have {wanted} participants, its limit is {limit}");
        let remedy = "address fewer agents, or open a conversation with a higher participants_max";
        return Err(refuse(RefusalCode::LimitReached, "receiver", message, remedy));
    }
    for agent in receivers {
        let load = situation.load(own, agent);
        if load >= situation.settings.inbox_max {
            let message = format!("the inbox of {agent} holds {load} messages, its limit");
            return Err(refuse(
                RefusalCode::QueueFull,
                "receiver",
                message,
                "try again when it has caught up",
            ));
        }
    }
    Ok(joining)
}

fn open(
    situation: &Situation<'_>,
    own: &mut Overlay,
    wish: &Outgoing,
    numbers: &mut Numbers,
    drafts: &mut Vec<Draft>,
) -> Result<ConversationId, Refusal> {
    let (id, settings) = (numbers.conversation(situation.now)?, situation.settings);
    let event = ConversationEvent::Opened {
        conversation: id.clone(),
        topic: wish.topic.clone(),
        protocol: wish.protocol.clone(),
        parent: wish.parent.clone(),
        idle_timeout_millis: settings.idle_timeout_millis,
        life_timeout_millis: settings.life_timeout_millis,
        participants_max: settings.participants_max,
        messages_max: settings.messages_max,
    };
    drafts.push(draft(id.as_str(), wish.sender.as_str(), None, event));
    own.conversations.entry(id.clone()).or_default().opened =
        Some((settings.participants_max, settings.messages_max));
    Ok(id)
}

/// Notes what the message changes for later decisions.
fn note(own: &mut Overlay, conversation: &ConversationId, joining: Vec<AgentId>, addressed: &Addressed) {
    if let Some(delta) = own.conversations.get_mut(conversation) {
        delta.messages += 1;
        delta.joined.extend(joining);
    } else {
        let delta = super::situation::Delta { messages: 1, joined: joining, ..Default::default() };
        own.conversations.insert(conversation.clone(), delta);
    }
    for agent in &addressed.receivers {
        match own.load.get_mut(agent) {
            Some(load) => *load += 1,
            None => drop(own.load.insert(agent.clone(), 1)),
        }
    }
    if let Some(routing) = &addressed.routing {
        *own.routed.entry(routing.capability.clone()).or_default() += 1;
    }
}

/// What the sender hears when nobody takes its message.
fn failure_reply(
    situation: &Situation<'_>,
    own: &mut Overlay,
    conversation: ConversationId,
    sender: AgentId,
    word: String,
    detail: String,
    numbers: &mut Numbers,
) -> Result<Draft, Refusal> {
    let system: AgentId = SYSTEM.parse().map_err(|error: caxton_events::id::NameError| {
        refuse(RefusalCode::Validation, "sender", error.to_string(), "use another name")
    })?;
    if let Some(delta) = own.conversations.get_mut(&conversation) {
        delta.messages += 1;
    }
    let stream = conversation.as_str().to_owned();
    let message = Message {
        id: numbers.message(situation.now),
        id_given: false,
        performative: Performative::Failure,
        sender: system,
        receivers: vec![sender],
        routing: None,
        conversation,
        content: Content::Text(detail),
        priority: Priority::Normal,
        reply_with: None,
        in_reply_to: Some(word),
        reply_by: None,
        expires_at: None,
        extras: None,
    };
    Ok(draft(&stream, SYSTEM, None, ConversationEvent::MessageSent(Box::new(message))))
}
