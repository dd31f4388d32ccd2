//! From records about messages to conversations and inboxes.

use caxton_events::conversation::{Message, Performative};
use caxton_events::{AgentId, ConversationEvent, ConversationId, Record, Seq};

use super::exchange::{ends, waits};
use super::{
    Conversation, Conversations, DeadLetter, Deadline, Ending, Exchange, Inbox, Postings, Retry, SYSTEM,
    Timer,
};
use crate::talk::changes::{Changes, Table};

/// Of how many answers the average response time remembers most.
const RESPONSES_REMEMBERED: u64 = 8;

impl Conversations {
    /// Folds one record in and notes what must be stored.
    pub(crate) fn apply(&mut self, record: &Record, event: &ConversationEvent, changes: &mut Changes) {
        match event {
            ConversationEvent::Opened { .. } => self.opened(record, event, changes),
            ConversationEvent::MessageSent(message) => self.sent(record, message, changes),
            ConversationEvent::MessageExpired { sent, receivers, .. } => {
                self.end_deadline(*sent, Deadline::Expiry, changes);
                for receiver in receivers {
                    self.acknowledge(receiver, Seq::ZERO, &[*sent], changes);
                }
            }
            ConversationEvent::ReplyOverdue { sent, .. } => {
                self.end_deadline(*sent, Deadline::Reply, changes);
            }
            ConversationEvent::DeliveryRetried { sent, receiver, attempts, not_before, error, .. } => {
                let retry = Retry {
                    sent: *sent,
                    receiver: receiver.clone(),
                    attempts: *attempts,
                    not_before: *not_before,
                    error: error.clone(),
                };
                changes.put(Table::Retries, &retry_key(*sent, receiver), &retry);
                self.retries.insert((*sent, receiver.clone()), retry);
            }
            ConversationEvent::MessageDeadLettered { .. } => self.given_up(record, event, changes),
            ConversationEvent::DeadLetterReplayed { dead_letter, message } => {
                if let Some(letter) = self.dead_letters.get_mut(dead_letter) {
                    letter.replayed.push(*message);
                    changes.put(Table::DeadLetters, &seq_key(*dead_letter), letter);
                }
            }
            ConversationEvent::InboxAcknowledged { agent, through, also } => {
                self.acknowledge(agent, *through, also, changes);
                if let Some(inbox) = self.inboxes.get_mut(agent) {
                    inbox.active_at = Some(record.recorded_at);
                }
            }
            ConversationEvent::Extended { conversation, idle_timeout_millis, life_timeout_millis } => {
                if let Some(row) = self.changed(conversation, changes) {
                    row.idle_timeout_millis = *idle_timeout_millis;
                    row.life_timeout_millis = *life_timeout_millis;
                }
            }
            ConversationEvent::Closed { conversation, end } => {
                let ending = Ending { end: *end, seq: record.seq, at: record.recorded_at };
                if let Some(row) = self.changed(conversation, changes)
                    && row.ending.replace(ending).is_none()
                {
                    row.exchanges.clear();
                    self.open -= 1;
                }
            }
            ConversationEvent::Archived { conversation } => {
                if let Some(row) = self.changed(conversation, changes) {
                    row.archived = true;
                }
            }
        }
    }

    fn opened(&mut self, record: &Record, event: &ConversationEvent, changes: &mut Changes) {
        let ConversationEvent::Opened {
            conversation,
            topic,
            protocol,
            parent,
            idle_timeout_millis,
            life_timeout_millis,
            participants_max,
            messages_max,
        } = event
        else {
            return;
        };
        if self.all.contains_key(conversation) {
            return;
        }
        let key = conversation.apart();
        let row = Conversation {
            id: key.clone(),
            topic: topic.clone(),
            protocol: protocol.clone(),
            parent: parent.clone(),
            idle_timeout_millis: *idle_timeout_millis,
            life_timeout_millis: *life_timeout_millis,
            participants_max: *participants_max,
            messages_max: *messages_max,
            opened: record.seq,
            opened_at: record.recorded_at,
            participants: Vec::new(),
            last_at: record.recorded_at,
            ending: None,
            archived: false,
            exchanges: Vec::new(),
            messages: Postings::default(),
            dirty: true,
        };
        changes.conversations.push(key.clone());
        self.opened.push((record.seq, key.clone()));
        self.all.insert(key, Box::new(row));
        self.open += 1;
    }

    fn given_up(&mut self, record: &Record, event: &ConversationEvent, changes: &mut Changes) {
        let ConversationEvent::MessageDeadLettered { sent, message, receiver, reason, attempts, detail } =
            event
        else {
            return;
        };
        let sent = if *sent == Seq::ZERO {
            let before = self.dead_letters.get(&record.seq.previous());
            before.filter(|row| row.message == *message).map_or(record.seq.previous(), |row| row.sent)
        } else {
            *sent
        };
        let letter = DeadLetter {
            seq: record.seq,
            sent,
            message: *message,
            receiver: receiver.clone(),
            reason: *reason,
            attempts: *attempts,
            detail: detail.clone(),
            at: record.recorded_at,
            replayed: Vec::new(),
        };
        changes.put(Table::DeadLetters, &seq_key(record.seq), &letter);
        self.dead_letters.insert(record.seq, letter);
        if let Some(receiver) = receiver {
            self.acknowledge(receiver, Seq::ZERO, &[sent], changes);
        }
    }

    fn sent(&mut self, record: &Record, message: &Message, changes: &mut Changes) {
        if message.id_given {
            changes.id(message.id, record.seq);
        }
        if let Some(routing) = &message.routing {
            let capability = routing.capability.as_str();
            if !changes.routed.contains(capability) {
                changes.routed.insert(capability.to_owned());
            }
            match self.routed.get_mut(capability) {
                Some(routed) => routed.push(record.seq),
                None => self.routed.entry(capability.to_owned()).or_default().push(record.seq),
            }
        }
        if message.reply_by.is_some() || message.expires_at.is_some() {
            let timer = Timer {
                sent: record.seq,
                id: message.id,
                conversation: message.conversation.clone(),
                reply_by: message.reply_by,
                expires_at: message.expires_at,
                receivers: message.receivers.clone(),
            };
            changes.put(Table::Timers, &seq_key(record.seq), &timer);
            self.restore_timer(timer);
        }
        for receiver in &message.receivers {
            if receiver.as_str() != SYSTEM {
                self.inbox_of(receiver, changes).messages.push(record.seq);
            }
        }
        if message.sender.as_str() != SYSTEM {
            let inbox = self.inbox_of(&message.sender, changes);
            inbox.sent.push(record.seq);
            inbox.active_at = Some(record.recorded_at);
        }
        let answered = self.said(record, message, changes);
        if let Some(question) = answered {
            self.end_deadline(question.sent, Deadline::Reply, changes);
            if message.sender.as_str() != SYSTEM {
                self.responded(record, message, &question, changes);
            }
        } else if message.in_reply_to.is_some()
            && let Some(question) = record.causation
            && self.timers.get(&question).is_some_and(|timer| timer.conversation == message.conversation)
        {
            // So many others were asked since that the conversation does not keep the question any more: it is answered all the
            // same. A fold from before this was so has the same rows once the deadline is recorded as overdue.
            self.end_deadline(question, Deadline::Reply, changes);
        }
    }

    /// Puts the message into its conversation; the question it answers first, if it does.
    fn said(&mut self, record: &Record, message: &Message, changes: &mut Changes) -> Option<Exchange> {
        let row = self.changed(&message.conversation, changes)?;
        row.messages.push(record.seq);
        row.last_at = record.recorded_at;
        for agent in std::iter::once(&message.sender).chain(&message.receivers) {
            if agent.as_str() != SYSTEM && !row.participants.contains(agent) {
                row.participants.push(agent.apart());
            }
        }
        let mut answered = None;
        if let Some(word) = &message.in_reply_to {
            let at = match record.causation {
                Some(seq) => row.exchanges.iter().position(|exchange| exchange.sent == seq),
                None => None,
            };
            let at = at.or_else(|| {
                let sent = row.exchange(word)?.sent;
                row.exchanges.iter().position(|exchange| exchange.sent == sent)
            });
            if let Some(at) = at {
                let exchange = &mut row.exchanges[at];
                if exchange.answer.is_none() {
                    answered = Some(exchange.clone());
                }
                if ends(exchange.performative, message.performative) {
                    row.exchanges.remove(at);
                } else {
                    exchange.answer = Some(message.performative);
                }
            }
        }
        if waits(message.performative) {
            if row.exchanges.len() == Exchange::OPEN_MAX {
                row.exchanges.remove(0);
            }
            row.exchanges.push(Exchange {
                sent: record.seq,
                id: message.id,
                performative: message.performative,
                sender: message.sender.clone(),
                receivers: message.receivers.clone(),
                reply_with: message.reply_with.clone(),
                at: record.recorded_at,
                answer: None,
            });
        }
        self.messages += 1;
        answered
    }

    /// Counts an answer and how long it took.
    fn responded(&mut self, record: &Record, message: &Message, question: &Exchange, changes: &mut Changes) {
        let took = record.recorded_at.unix_micros().saturating_sub(question.at.unix_micros());
        let inbox = self.inbox_of(&message.sender, changes);
        inbox.response_micros = if took == 0 {
            // Question and answer came in one batch: nobody waited.
            inbox.response_micros
        } else if inbox.response_micros == 0 {
            took
        } else {
            // Whole numbers, so that two folds agree to the last digit.
            let before = u128::from(inbox.response_micros) * u128::from(RESPONSES_REMEMBERED - 1);
            ((before + u128::from(took)) / u128::from(RESPONSES_REMEMBERED)) as u64
        };
        inbox.answered += 1;
        inbox.failed += u64::from(matches!(
            message.performative,
            Performative::Failure | Performative::Refuse | Performative::NotUnderstood
        ));
    }

    fn acknowledge(&mut self, agent: &AgentId, through: Seq, also: &[Seq], changes: &mut Changes) {
        if !self.inboxes.contains_key(agent) {
            return;
        }
        let inbox = self.inbox_of(agent, changes);
        let before = inbox.low;
        inbox.acknowledge(through, also);
        if !self.timers.is_empty() {
            let done: Vec<Seq> = (through > before)
                .then(|| self.timers.range(before.next()..=through).map(|(sent, _)| *sent))
                .into_iter()
                .flatten()
                .chain(also.iter().copied())
                .collect();
            for sent in done {
                self.delivered(sent, agent, changes);
            }
        }
        if !self.retries.is_empty() {
            let done: Vec<(Seq, AgentId)> = self
                .retries
                .keys()
                .filter(|(sent, receiver)| receiver == agent && (*sent <= through || also.contains(sent)))
                .cloned()
                .collect();
            for key in done {
                changes.remove(Table::Retries, &retry_key(key.0, &key.1));
                self.retries.remove(&key);
            }
        }
    }

    /// One receiver has the message; nothing expires once all have.
    fn delivered(&mut self, sent: Seq, agent: &AgentId, changes: &mut Changes) {
        let Some(timer) = self.timers.get_mut(&sent) else { return };
        let before = timer.receivers.len();
        timer.receivers.retain(|receiver| receiver != agent);
        if timer.receivers.is_empty() && timer.expires_at.is_some() {
            self.end_deadline(sent, Deadline::Expiry, changes);
        } else if timer.receivers.len() < before {
            changes.put(Table::Timers, &seq_key(sent), timer);
        }
    }

    fn end_deadline(&mut self, sent: Seq, which: Deadline, changes: &mut Changes) {
        let Some(timer) = self.timers.get_mut(&sent) else { return };
        let ended = match which {
            Deadline::Reply => timer.reply_by.take(),
            Deadline::Expiry => timer.expires_at.take(),
        };
        let Some(at) = ended else { return };
        self.due.remove(&(at, sent, which));
        if timer.reply_by.is_none() && timer.expires_at.is_none() {
            self.timers.remove(&sent);
            changes.remove(Table::Timers, &seq_key(sent));
        } else {
            changes.put(Table::Timers, &seq_key(sent), timer);
        }
    }

    fn changed(&mut self, id: &ConversationId, changes: &mut Changes) -> Option<&mut Conversation> {
        let row = self.all.get_mut(id)?;
        if !row.dirty {
            row.dirty = true;
            changes.conversations.push(row.id.clone());
        }
        Some(row)
    }

    fn inbox_of(&mut self, agent: &AgentId, changes: &mut Changes) -> &mut Inbox {
        // Looked up twice, because an entry would need a copy of the name for each message.
        if !self.inboxes.contains_key(agent) {
            let key = agent.apart();
            self.inboxes.insert(key.clone(), Box::new(Inbox::new(key)));
        }
        #[expect(clippy::expect_used, reason = "it was put there a line above")]
        let inbox = self.inboxes.get_mut(agent).expect("an inbox that is there");
        if !inbox.dirty {
            inbox.dirty = true;
            changes.inboxes.push(inbox.agent.clone());
        }
        inbox
    }
}

/// Positions as keys, so that rows lie in order.
pub(crate) fn seq_key(seq: Seq) -> String {
    format!("{:020}", seq.0)
}

fn retry_key(sent: Seq, receiver: &AgentId) -> String {
    format!("{:020} {receiver}", sent.0)
}
