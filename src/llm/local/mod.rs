//! A small model in this process that words what memory knows, and is believed only when it adds nothing.
//!
//! It is given the facts that [`extractive`] would quote. Its sentence is used when everything it
//! says stands in one of them (`grounding`); else the facts are quoted. One thread runs it, behind a bounded queue; the
//! model is loaded by the first question.

mod grounding;
mod smollm;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Answer, Ask, LanguageModel, ModelError, ModelErrorKind, Pieces, by, extractive};

/// Name of the model in answers that are its own words.
pub const MODEL: &str = "SmolLM2-135M-Instruct";
/// Questions that may wait for the one that is answered; then they are turned away.
pub const WAITING_MAX: usize = 16;
/// Tokens that it says at most: a sentence or two.
const TOKENS_MAX: u32 = 96;
/// What a caller is told to wait when the queue is full.
const QUEUE_FULL_WAIT: Duration = Duration::from_secs(2);

/// Words given facts anew.
trait Reworder {
    /// An answer to `question` out of `facts`, of `tokens_max` tokens at most; it may end early once `gone` holds.
    fn reword(
        &mut self,
        question: &str,
        facts: &[String],
        tokens_max: u32,
        gone: &dyn Fn() -> bool,
    ) -> Result<String, String>;
}

/// Makes the reworder, in the thread that runs it.
type Load = Arc<dyn Fn() -> Result<Box<dyn Reworder>, String> + Send + Sync>;

struct Job {
    question: String,
    facts: Vec<String>,
    tokens_max: u32,
    /// Hears that it is this question's turn.
    begins: oneshot::Sender<()>,
    reply: oneshot::Sender<Result<String, String>>,
}

/// The provider.
pub struct Local {
    provider: String,
    /// `None`: the model is not on this machine.
    load: Option<Load>,
    /// The way to the thread, once there is one.
    worker: Mutex<Option<SyncSender<Job>>>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl Local {
    /// A provider that runs the model in the verified file `model`; without one it answers that it is not here.
    pub fn new(provider: &str, model: Option<PathBuf>) -> Self {
        let load = model.map(|path| -> Load {
            Arc::new(move || {
                let loaded = smollm::SmolLm::load(&path);
                loaded.map(|model| Box::new(model) as Box<dyn Reworder>)
            })
        });
        Self::with(provider, load)
    }

    fn with(provider: &str, load: Option<Load>) -> Self {
        Self { provider: provider.to_owned(), load, worker: Mutex::new(None) }
    }

    fn error(&self, kind: ModelErrorKind, message: impl Into<String>) -> ModelError {
        ModelError::new(&self.provider, kind, message)
    }

    /// An error of this side: the model has not seen the question.
    fn turned_away(&self, message: impl Into<String>) -> ModelError {
        let kind = ModelErrorKind::RateLimited { retry_after: Some(QUEUE_FULL_WAIT) };
        ModelError { asked: false, ..self.error(kind, message) }
    }

    /// Hands a job to the thread, which is started by the first and again after it ended.
    fn hand_over(&self, job: Job) -> Result<(), ModelError> {
        let Some(load) = &self.load else {
            let message = "the model is not on this machine; fetch it with `caxton model pull smollm2`";
            return Err(self.error(ModelErrorKind::Refused, message));
        };
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let running = match worker.as_ref() {
            Some(running) => running.clone(),
            None => self.start(load)?,
        };
        let full = || self.turned_away(format!("{WAITING_MAX} questions wait already"));
        match running.try_send(job) {
            Ok(()) => *worker = Some(running),
            Err(TrySendError::Full(_)) => return Err(full()),
            // The thread is gone, as after a panic in the model.
            Err(TrySendError::Disconnected(job)) => {
                let again = self.start(load)?;
                again.try_send(job).map_err(|_| full())?;
                *worker = Some(again);
            }
        }
        Ok(())
    }

    fn start(&self, load: &Load) -> Result<SyncSender<Job>, ModelError> {
        let (sender, jobs) = sync_channel(WAITING_MAX);
        let load = Arc::clone(load);
        let started =
            std::thread::Builder::new().name("local-model".to_owned()).spawn(move || work(&load, &jobs));
        let failed = |error| self.error(ModelErrorKind::Failed, format!("no thread for the model: {error}"));
        started.map(|_| sender).map_err(failed)
    }

    async fn answer(&self, ask: &Ask, pieces: Pieces<'_>) -> Result<Answer, ModelError> {
        let facts = extractive::chosen(ask);
        let quoted = || (extractive::compose(ask), extractive::MODEL);
        let (text, model) = if facts.is_empty() {
            quoted()
        } else {
            let ((begins, turn), (reply, answer)) = (oneshot::channel(), oneshot::channel());
            let told = facts.iter().map(|fact| format!("{}: {}", fact.entity, fact.text)).collect();
            let tokens_max = ask.max_tokens.map_or(TOKENS_MAX, |max| max.clamp(1, TOKENS_MAX));
            self.hand_over(Job { question: ask.question.clone(), facts: told, tokens_max, begins, reply })?;
            let ended = |_| self.error(ModelErrorKind::Failed, "the model's thread ended");
            let turn = by(ask.turn_by(), turn).await;
            turn.ok_or_else(|| self.turned_away("other questions took too long"))?.map_err(ended)?;
            let answer = by(ask.patience(), answer).await;
            let late = || self.error(ModelErrorKind::Timeout, "no answer in time");
            let said = answer.ok_or_else(late)?.map_err(ended)?;
            let said = said.map_err(|reason| self.error(ModelErrorKind::Failed, reason))?;
            grounding::cited(&said, &facts).map_or_else(quoted, |text| (text, MODEL))
        };
        // What it says is heard only when it is believed, so in one piece.
        pieces(&text);
        let (usage, model, provider) = (ask.estimate(&text), model.to_owned(), self.provider.clone());
        Ok(Answer { text, usage, model, provider, ..Answer::default() })
    }
}

impl LanguageModel for Local {
    fn provider(&self) -> &str {
        &self.provider
    }

    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(self.answer(ask, pieces))
    }
}

/// The thread: loads the model, then answers until nobody can ask any more.
fn work(load: &Load, jobs: &Receiver<Job>) {
    let mut model: Option<Box<dyn Reworder>> = None;
    for Job { question, facts, tokens_max, begins, reply } in jobs {
        // Whoever asked may have gone.
        if begins.send(()).is_err() {
            continue;
        }
        let gone = || reply.is_closed();
        let reworded = match &mut model {
            Some(model) => model.reword(&question, &facts, tokens_max, &gone),
            // A model that cannot be loaded is tried again by the next question: its file may have come.
            none => {
                load().and_then(|loaded| none.insert(loaded).reword(&question, &facts, tokens_max, &gone))
            }
        };
        drop(reply.send(reworded));
    }
}

#[cfg(test)]
mod tests;
