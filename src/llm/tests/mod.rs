//! Providers against a server on this machine, and what stands around them against a clock of the tests' own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod conformance;
mod guards;
mod requests;
mod stub;
mod whole;

use std::sync::Mutex;
use std::time::Duration;

use caxton_events::turn::ToolCall;
use futures::future::BoxFuture;

use super::clock::{Chance, Clock};
use super::{Answer, Ask, ChatMessage, LanguageModel, ModelError, Role, ToolSpec};

/// A clock that stands still, but for sleeps: they end at once and move it.
#[derive(Debug, Default)]
pub(super) struct ManualClock(Mutex<(Duration, Vec<Duration>)>);

impl ManualClock {
    pub(super) fn advance(&self, time: Duration) {
        self.0.lock().unwrap().0 += time;
    }

    /// The sleeps so far.
    pub(super) fn slept(&self) -> Vec<Duration> {
        self.0.lock().unwrap().1.clone()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        self.0.lock().unwrap().0
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let mut state = self.0.lock().unwrap();
        state.0 += time;
        state.1.push(time);
        Box::pin(std::future::ready(()))
    }
}

/// Chance that always falls the same way.
#[derive(Debug)]
pub(super) struct Always(pub(super) f64);

impl Chance for Always {
    fn draw(&self) -> f64 {
        self.0
    }
}

pub(super) fn said(role: Role, content: &str) -> ChatMessage {
    ChatMessage { role, content: content.to_owned(), tool_calls: Vec::new(), answers: None }
}

pub(super) fn call(id: &str, tool: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), tool: tool.to_owned(), arguments: arguments.to_owned() }
}

/// A question with a tool.
pub(super) fn question(text: &str) -> Ask {
    Ask {
        reuse: true,
        model: "m1".to_owned(),
        system: "You are a librarian.".to_owned(),
        messages: vec![said(Role::User, text)],
        tools: vec![ToolSpec {
            name: "memory".to_owned(),
            description: "Searches memory.".to_owned(),
            parameters: serde_json::json!({ "type": "object", "properties": { "q": { "type": "string" } } }),
        }],
        question: text.to_owned(),
        ..Ask::default()
    }
}

/// Asks, and tells what was heard meanwhile.
pub(super) async fn ask(model: &dyn LanguageModel, ask: &Ask) -> (Result<Answer, ModelError>, Vec<String>) {
    let heard = Mutex::new(Vec::new());
    let answered = model.ask(ask, &|piece| heard.lock().unwrap().push(piece.to_owned())).await;
    (answered, heard.into_inner().unwrap())
}
