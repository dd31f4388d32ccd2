//! A turn: one message handled by one agent, as a state machine without input and output.
//!
//! The state is folded from the turn's events, and the next action follows from the state. Nothing else is remembered,
//! so a turn that was cut off anywhere goes on where its last event stands: what a model answered is never asked again.

#[cfg(test)]
mod tests;

use caxton_events::conversation::Performative;
use caxton_events::turn::ToolCall;
use caxton_events::{MessageId, Seq, TurnEvent, TurnId};

use super::reply::{Reply, failure, reply_to};
use crate::llm::{ChatMessage, Role};

/// What a model is told about a call whose result was lost.
pub const INTERRUPTED: &str = "interrupted by a restart; it may have happened";

/// What holds for all of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What the message does.
    pub performative: Performative,
    /// Whether what only informs is answered too.
    pub auto_respond: bool,
    /// Requests to the model at most.
    pub steps_max: u32,
    /// Calls of tools at most.
    pub calls_max: u32,
    /// Calls of tools at a time.
    pub concurrent_calls: usize,
    /// Tools whose calls may be made twice with the effect of one.
    pub repeatable: &'static [&'static str],
}

/// What a turn does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Take up the message, for the first time or again.
    Begin {
        /// 1 for the first time.
        attempt: u32,
    },
    /// Gather what the model should know, and render the prompts.
    PrepareContext,
    /// Ask the model.
    AskModel {
        /// Which request of the turn, from 1.
        step: u32,
        /// Whether it may call tools; in the last step it may not.
        with_tools: bool,
    },
    /// Call these tools, at the same time.
    CallTools(Vec<ToolCall>),
    /// Record that the result of a call was lost.
    GiveUpCall(ToolCall),
    /// Record that a tool is not called.
    RefuseTool {
        /// The call.
        call: ToolCall,
        /// Which limit says no.
        reason: String,
    },
    /// Answer the sender, then finish.
    Reply(Reply),
    /// Finish without an answer.
    Finish,
    /// Give up for now; the message is taken up again later.
    Retry {
        /// What failed.
        reason: String,
    },
    /// Give up for good, and tell a sender that waits.
    Fail {
        /// What failed.
        reason: String,
        /// What the sender is told.
        reply: Option<Reply>,
    },
    /// Nothing: the turn has ended.
    Done(Ended),
}

/// How a turn ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With an answer, or without one where none is due.
    Finished(Option<MessageId>),
    /// With nothing.
    Failed,
}

/// What the events of a turn add up to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TurnState {
    begun: Option<Begun>,
    prompts: Option<Prompted>,
    rounds: Vec<Round>,
    failure: Option<Failure>,
    end: Option<End>,
}

/// The newest attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The number of the turn.
    pub turn: TurnId,
    /// Where the agent's text stands.
    pub config: Seq,
    /// 1 for the first attempt.
    pub attempt: u32,
}

/// What the model is told first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompted {
    /// What it should be, and what it should know.
    pub system: String,
    /// What it is asked.
    pub user: String,
    /// Names of the memories that were used.
    pub memories: Vec<String>,
}

/// An answer of the model, and what became of the calls it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    text: String,
    calls: Vec<Call>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    wish: ToolCall,
    /// Whether it was made, or was about to be.
    started: bool,
    result: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    reason: String,
    will_retry: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ForNow,
    ForGood(Ended),
}

impl TurnState {
    /// The state after these events, all of one message and one agent.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a TurnEvent>) -> Self {
        let mut state = Self::default();
        for event in events {
            state.apply(event);
        }
        state
    }

    /// Folds an event in. One of another turn, or one that does not fit, changes nothing.
    pub fn apply(&mut self, event: &TurnEvent) {
        if let TurnEvent::Started { turn, config, attempt, .. } = event {
            if self.begun.is_none_or(|begun| begun.turn != *turn) {
                *self = Self::default();
            }
            self.begun = Some(Begun { turn: *turn, config: *config, attempt: *attempt });
            self.failure = None;
            self.end = None;
            return;
        }
        if self.begun.is_none_or(|begun| begun.turn != turn_of(event)) || self.end.is_some() {
            return;
        }
        match event {
            TurnEvent::ContextPrepared { parts, system_prompt, user_prompt, .. } => {
                let memory =
                    parts.iter().filter(|part| part.kind == caxton_events::turn::ContextKind::Memory);
                self.prompts = Some(Prompted {
                    system: system_prompt.clone(),
                    user: user_prompt.clone(),
                    memories: memory.flat_map(|part| part.used.iter().cloned()).collect(),
                });
            }
            TurnEvent::ModelAnswered { step, text, tool_calls, .. } if *step == self.steps() + 1 => {
                let wished = |wish: &ToolCall| Call { wish: wish.clone(), started: false, result: None };
                let calls = tool_calls.iter().map(wished).collect();
                self.rounds.push(Round { text: text.clone(), calls });
                self.failure = None;
            }
            TurnEvent::ModelFailed { error, will_retry, .. } => {
                self.failure = Some(Failure { reason: error.clone(), will_retry: *will_retry });
            }
            TurnEvent::ToolStarted { call, .. } => self.open_call(call, |open| open.started = true),
            TurnEvent::ToolAnswered { call, result, .. } => {
                self.open_call(call, |open| open.result = Some(result.clone()));
            }
            TurnEvent::ToolRefused { call, reason, .. } => {
                self.open_call(call, |open| open.result = Some(format!("refused: {reason}")));
            }
            TurnEvent::Finished { reply, .. } => self.end = Some(End::ForGood(Ended::Finished(*reply))),
            TurnEvent::Failed { will_retry: true, .. } => self.end = Some(End::ForNow),
            TurnEvent::Failed { .. } => self.end = Some(End::ForGood(Ended::Failed)),
            TurnEvent::ModelAnswered { .. } | TurnEvent::Started { .. } => (),
        }
    }

    /// The newest attempt.
    pub const fn begun(&self) -> Option<Begun> {
        self.begun
    }

    /// Attempts that ended with a failure, or are under way.
    pub fn attempts(&self) -> u32 {
        self.begun.map_or(0, |begun| begun.attempt)
    }

    /// What the model is told first, once that is known.
    pub const fn prompts(&self) -> Option<&Prompted> {
        self.prompts.as_ref()
    }

    /// Answers of the model so far.
    pub fn steps(&self) -> u32 {
        self.rounds.len() as u32
    }

    /// Whether something was done that a new turn would do again.
    pub fn has_acted(&self) -> bool {
        self.calls_started() > 0
    }

    /// Calls that were made, or were about to be.
    pub fn calls_started(&self) -> usize {
        self.calls().filter(|call| call.started).count()
    }

    /// Whether this call was made already, or was about to be.
    pub fn has_started(&self, call: &str) -> bool {
        self.calls().any(|one| one.wish.id == call && one.started)
    }

    /// The chat so far: the question, then answers and results of tools.
    pub fn messages(&self) -> Vec<ChatMessage> {
        let said = |role, content: &str| ChatMessage {
            role,
            content: content.to_owned(),
            tool_calls: Vec::new(),
            answers: None,
        };
        let mut chat: Vec<ChatMessage> =
            self.prompts.iter().map(|prompts| said(Role::User, &prompts.user)).collect();
        for round in &self.rounds {
            let tool_calls = round.calls.iter().map(|call| call.wish.clone()).collect();
            chat.push(ChatMessage { tool_calls, ..said(Role::Assistant, &round.text) });
            for call in &round.calls {
                if let Some(result) = &call.result {
                    chat.push(ChatMessage {
                        answers: Some(call.wish.id.clone()),
                        ..said(Role::Tool, result)
                    });
                }
            }
        }
        chat
    }

    /// `calls` with numbers that no call of the turn has had: models number from 0 in every answer, or not at all.
    pub fn numbered(&self, calls: Vec<ToolCall>) -> Vec<ToolCall> {
        let mut seen: Vec<String> = self.calls().map(|call| call.wish.id.clone()).collect();
        let step = self.steps() + 1;
        calls
            .into_iter()
            .enumerate()
            .map(|(at, call)| {
                let mut id = call.id.clone();
                while id.is_empty() || seen.contains(&id) {
                    id = format!("{id}_{step}_{at}");
                }
                seen.push(id.clone());
                ToolCall { id, ..call }
            })
            .collect()
    }

    /// What is to be done next. The same state gives the same action.
    pub fn next(&self, rules: &Rules) -> Action {
        match self.end {
            Some(End::ForGood(ended)) => return Action::Done(ended),
            Some(End::ForNow) => return Action::Begin { attempt: self.attempts() + 1 },
            None if self.begun.is_none() => return Action::Begin { attempt: 1 },
            None => (),
        }
        if let Some(failed) = &self.failure {
            let reason = failed.reason.clone();
            return if failed.will_retry { Action::Retry { reason } } else { fail(rules, reason) };
        }
        if self.prompts.is_none() {
            return Action::PrepareContext;
        }
        let Some(round) = self.rounds.last() else { return ask(1, rules) };
        if round.calls.is_empty() {
            return match reply_to(rules.performative, rules.auto_respond, &round.text) {
                Some(reply) => Action::Reply(reply),
                None => Action::Finish,
            };
        }
        if self.steps() >= rules.steps_max {
            let reason = format!("the model asked for tools in step {}, its last", self.steps());
            return fail(rules, reason);
        }
        self.next_calls(round, rules).unwrap_or_else(|| ask(self.steps() + 1, rules))
    }

    /// What is to be done about the calls of the newest answer, while some have no result.
    fn next_calls(&self, round: &Round, rules: &Rules) -> Option<Action> {
        let mut made = self.calls_started() as u32;
        let mut now = Vec::new();
        for open in round.calls.iter().filter(|call| call.result.is_none()) {
            let repeatable = rules.repeatable.contains(&open.wish.tool.as_str());
            let other = if open.started && !repeatable {
                Some(Action::GiveUpCall(open.wish.clone()))
            } else if !open.started && made >= rules.calls_max {
                let reason = format!("a turn of this agent calls tools {} times at most", rules.calls_max);
                Some(Action::RefuseTool { call: open.wish.clone(), reason })
            } else {
                None
            };
            match other {
                Some(action) if now.is_empty() => return Some(action),
                Some(_) => break,
                None => now.push(open.wish.clone()),
            }
            made += u32::from(!open.started);
            if now.len() >= rules.concurrent_calls.max(1) {
                break;
            }
        }
        (!now.is_empty()).then_some(Action::CallTools(now))
    }

    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.rounds.iter().flat_map(|round| &round.calls)
    }

    /// Changes the call of the newest answer with this number, if it has no result yet.
    fn open_call(&mut self, id: &str, change: impl FnOnce(&mut Call)) {
        let calls = self.rounds.last_mut().map(|round| &mut round.calls);
        let open = calls.into_iter().flatten().find(|call| call.wish.id == id && call.result.is_none());
        if let Some(open) = open {
            change(open);
        }
    }
}

fn ask(step: u32, rules: &Rules) -> Action {
    Action::AskModel { step, with_tools: step < rules.steps_max && rules.calls_max > 0 }
}

fn fail(rules: &Rules, reason: String) -> Action {
    Action::Fail { reply: failure(rules.performative, &reason), reason }
}

/// The number of the turn that an event belongs to.
pub const fn turn_of(event: &TurnEvent) -> TurnId {
    match event {
        TurnEvent::Started { turn, .. }
        | TurnEvent::ContextPrepared { turn, .. }
        | TurnEvent::ModelAnswered { turn, .. }
        | TurnEvent::ModelFailed { turn, .. }
        | TurnEvent::ToolStarted { turn, .. }
        | TurnEvent::ToolAnswered { turn, .. }
        | TurnEvent::ToolRefused { turn, .. }
        | TurnEvent::Finished { turn, .. }
        | TurnEvent::Failed { turn, .. } => *turn,
    }
}
