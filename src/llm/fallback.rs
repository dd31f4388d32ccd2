//! Providers that are asked one after the other until one answers, each in its part of the time.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::resilient::Once;
use super::{Answer, Ask, LanguageModel, ModelError, Pieces, part_of};

/// A provider with others that stand in for it.
#[derive(Debug)]
pub struct Fallback {
    first: Arc<dyn LanguageModel>,
    others: Vec<Arc<dyn LanguageModel>>,
}

impl Fallback {
    /// `first`, and `others` in their order when it fails.
    pub fn new(first: Arc<dyn LanguageModel>, others: Vec<Arc<dyn LanguageModel>>) -> Self {
        Self { first, others }
    }
}

impl LanguageModel for Fallback {
    fn provider(&self) -> &str {
        self.first.provider()
    }

    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async move {
            let once = Once::new(pieces);
            let hear = |piece: &str| once.hear(piece);
            let mut ask = Ask { first_word_by: share(ask, self.others.len()), ..ask.clone() };
            let mut error = match self.first.ask(&ask, &hear).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // The name of a model means nothing at another provider.
            ask.model.clear();
            for (number, other) in self.others.iter().enumerate() {
                // Nobody would hear it, and what has failed would be told as a wait for a place there.
                if ask.until.is_some_and(|until| Instant::now() >= until) {
                    break;
                }
                once.attempt_broke();
                ask.first_word_by = share(&ask, self.others.len() - 1 - number);
                tracing::warn!(%error, next = other.provider(), "the next model is asked");
                match other.ask(&ask, &hear).await {
                    Ok(answer) => return Ok(answer),
                    Err(next) => error = together(error, next),
                }
            }
            Err(error)
        })
    }
}

/// When the one who is asked now is given up if it has said nothing: the `others` behind it have as much of the time.
fn share(ask: &Ask, others: usize) -> Option<Instant> {
    ask.until.map(|until| part_of(until, others as u32 + 1))
}

/// The error of `first` and of `next`, which was asked in its place. What may pass is not made final by one who refuses.
fn together(first: ModelError, next: ModelError) -> ModelError {
    if first.kind.is_transient() && !next.kind.is_transient() {
        let message = format!("{} (after it, {}: {})", first.message, next.provider, next.message);
        return ModelError { message, ..first };
    }
    let message = format!("{} (before it, {}: {})", next.message, first.provider, first.message);
    ModelError { message, asked: first.asked || next.asked, ..next }
}
