//! Agents and conversations at a moment: the present, or what is folded from the log as of an earlier record.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::Seq;
use caxton_events::log::Reader;
use caxton_projections::talk::{PAST_RECORDS_MAX, PastError, PastTalk, TalkPart, TalkState};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::super::Api;
use super::super::moment::{AsOf, dropped, marked};
use super::super::problem::Problem;
use super::super::refusals::{log_unreadable, stopping};
use super::super::rows;

/// Folds that run at a time: each takes memory and a core.
const FOLDS_MAX: usize = 2;

/// The last fold of all agents and conversations: the next page of a list goes on with it.
#[derive(Debug)]
pub(in crate::api::rest) struct Folds {
    running: Semaphore,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    fold: Option<PastTalk>,
    /// Erasures so far: a fold that was begun before the last one may hold what is gone.
    erasures: u64,
}

impl Default for Folds {
    fn default() -> Self {
        Self { running: Semaphore::new(FOLDS_MAX), kept: Mutex::default() }
    }
}

impl Folds {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is kept, and keeps nothing that is under way: something was erased.
    pub(in crate::api::rest) fn forget(&self) {
        let mut kept = self.kept();
        kept.erasures += 1;
        kept.fold = None;
    }

    /// Reads `part` as of `through`.
    fn read<T>(
        &self,
        log: &Reader,
        through: Seq,
        part: TalkPart,
        read: impl FnOnce(&TalkState) -> T,
    ) -> Result<T, PastError> {
        // Taken out, so that nobody waits for a fold of somebody else.
        let usable = |fold: &mut PastTalk| *fold.part() == part && fold.through() <= through;
        let (taken, erasures) = {
            let mut kept = self.kept();
            (kept.fold.take_if(usable), kept.erasures)
        };
        let mut fold = taken.unwrap_or_else(|| PastTalk::new(part));
        fold.fold_to(log, through, PAST_RECORDS_MAX)?;
        let answer = read(fold.state());
        let mut kept = self.kept();
        if kept.erasures == erasures && !matches!(fold.part(), TalkPart::Conversation(_)) {
            kept.fold = Some(fold);
        }
        Ok(answer)
    }
}

impl Api {
    /// Reads agents and conversations at `moment`; of the past, as much as `part` says.
    pub(in crate::api::rest) async fn read_talk<T: Send + 'static>(
        &self,
        moment: AsOf,
        part: TalkPart,
        read: impl FnOnce(&TalkState) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let Some(moment) = moment else {
            return self.read(move |view| read(&view.talk().read())).await;
        };
        let _turn = self.folds.running.acquire().await.map_err(|_| stopping())?;
        let api = self.clone();
        self.read(move |_| {
            let found = api.folds.read(api.engine.log(), moment.seq, part, read);
            let found = found.map_err(|error| too_far(&error)).flatten();
            found.map_err(|problem| moment.explained(problem))
        })
        .await
    }
}

fn too_far(error: &PastError) -> Problem {
    match error {
        PastError::Read(error) => log_unreadable(error),
        PastError::Dropped { first } => dropped("as_of", *first),
        PastError::TooFar { max, .. } => {
            let remedy =
                "ask for one conversation, for messages or for memory as of it: that has no such bound";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "AS_OF_TOO_FAR", error.to_string())
                .field("as_of")
                .detail("records_max", *max)
                .remedy(remedy)
        }
    }
}

/// An answer at `moment`, which says of which record it is when it is of the past.
pub(in crate::api::rest) fn answer(moment: AsOf, mut body: Value) -> Result<Response, Problem> {
    let Some(moment) = moment else { return rows::json(StatusCode::OK, &body) };
    body["as_of"] = json!(moment.seq);
    Ok(marked(rows::json(StatusCode::OK, &body)?, moment))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use caxton_projections::talk::TalkPart;

    use super::Folds;
    use crate::engine::{Engine, EngineOptions};

    #[test]
    fn a_fold_that_was_begun_before_an_erasure_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {}).unwrap();
        let (folds, head) = (Folds::default(), engine.log().head().seq);
        let read = |meanwhile: &dyn Fn()| {
            folds.read(engine.log(), head, TalkPart::Everything, |_| meanwhile()).unwrap();
            folds.kept().fold.is_some()
        };
        assert!(read(&|| ()));
        folds.forget();
        assert!(folds.kept().fold.is_none());
        assert!(read(&|| ()));
        assert!(!read(&|| folds.forget()), "something is erased while it is folded");
        assert!(read(&|| ()));
        engine.stop();
    }
}
