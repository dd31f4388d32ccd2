//! Providers that are asked one after the other until one answers.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::resilient::Once;
use super::{Answer, Ask, LanguageModel, ModelError, Pieces};

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
            let mut error = match self.first.ask(ask, &hear).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // The name of a model means nothing at another provider.
            let ask = Ask { model: String::new(), ..ask.clone() };
            for other in &self.others {
                once.attempt_broke();
                tracing::warn!(%error, next = other.provider(), "the next model is asked");
                match other.ask(&ask, &hear).await {
                    Ok(answer) => return Ok(answer),
                    Err(next) => {
                        let message =
                            format!("{} (before it, {}: {})", next.message, error.provider, error.message);
                        error = ModelError { message, asked: error.asked || next.asked, ..next };
                    }
                }
            }
            Err(error)
        })
    }
}
