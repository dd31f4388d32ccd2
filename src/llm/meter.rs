//! Counts what a provider does: requests, errors, time, tokens.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::clock::Clock;
use super::{Answer, Ask, LanguageModel, ModelError, Pieces};
use crate::telemetry;

/// A provider whose requests are counted under its name.
#[derive(Debug)]
pub struct Metered {
    inner: Arc<dyn LanguageModel>,
    clock: Arc<dyn Clock>,
}

impl Metered {
    /// `inner`, counted.
    pub fn new(inner: Arc<dyn LanguageModel>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock }
    }
}

impl LanguageModel for Metered {
    fn provider(&self) -> &str {
        self.inner.provider()
    }

    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async move {
            let _active = telemetry::model_request_began(self.provider());
            let began = self.clock.now();
            let answered = self.inner.ask(ask, pieces).await;
            let took = self.clock.now().saturating_sub(began);
            match &answered {
                Ok(answer) => {
                    let usage = answer.usage;
                    telemetry::model_answered(self.provider(), took, usage.input_tokens, usage.output_tokens);
                }
                Err(error) => telemetry::model_failed(self.provider(), error.kind.as_str(), took),
            }
            answered
        })
    }
}
