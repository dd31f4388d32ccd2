//! What language models do: requests, errors, time, tokens, answers that were kept.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::names;

/// A request to a model that is under way; it ends when this is dropped.
#[derive(Debug)]
pub struct ModelRequest(String);

impl Drop for ModelRequest {
    fn drop(&mut self) {
        gauge!(names::LLM_ACTIVE, "provider" => self.0.clone()).decrement(1.0);
    }
}

/// A request to `provider`, a name of the configuration, is under way.
pub fn model_request_began(provider: &str) -> ModelRequest {
    gauge!(names::LLM_ACTIVE, "provider" => provider.to_owned()).increment(1.0);
    ModelRequest(provider.to_owned())
}

/// A model answered and took so many tokens.
pub fn model_answered(provider: &str, took: Duration, input_tokens: u32, output_tokens: u32) {
    request_ended(provider, "ok", took);
    for (direction, tokens) in [("input", input_tokens), ("output", output_tokens)] {
        let labels = [("provider", provider.to_owned()), ("direction", direction.to_owned())];
        counter!(names::LLM_TOKENS, &labels).increment(u64::from(tokens));
    }
}

/// A model did not answer. `kind` is a word of a fixed set.
pub fn model_failed(provider: &str, kind: &'static str, took: Duration) {
    request_ended(provider, "error", took);
    let labels = [("provider", provider.to_owned()), ("kind", kind.to_owned())];
    counter!(names::LLM_ERRORS, &labels).increment(1);
}

fn request_ended(provider: &str, outcome: &'static str, took: Duration) {
    let labels = [("provider", provider.to_owned()), ("outcome", outcome.to_owned())];
    counter!(names::LLM_REQUESTS, &labels).increment(1);
    histogram!(names::LLM_REQUEST_DURATION, "provider" => provider.to_owned()).record(took.as_secs_f64());
}

/// A request was not sent, because of a full queue or an open circuit.
pub fn model_turned_away(provider: &str, reason: &'static str) {
    let labels = [("provider", provider.to_owned()), ("kind", reason.to_owned())];
    counter!(names::LLM_ERRORS, &labels).increment(1);
}

/// A request is made again.
pub fn model_retried(provider: &str) {
    counter!(names::LLM_RETRIES, "provider" => provider.to_owned()).increment(1);
}

/// Whether `provider` is left alone for now.
pub fn model_circuit(provider: &str, open: bool) {
    gauge!(names::LLM_CIRCUIT_OPEN, "provider" => provider.to_owned()).set(f64::from(u8::from(open)));
}

/// An answer was looked for among those that were kept.
pub fn model_cache_asked(found: bool) {
    let name = if found { names::LLM_CACHE_HITS } else { names::LLM_CACHE_MISSES };
    counter!(name).increment(1);
}
