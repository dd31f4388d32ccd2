//! Models behind HTTP: one request, one answer, whole or as a stream, within bounds of time and size.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::Value;

use super::anthropic::Messages;
use super::openai::ChatCompletions;
use super::sse;
use super::wire::{self, Dialect, Draft, Fault, Shape, shown};
use super::{Answer, Ask, LanguageModel, ModelError, ModelErrorKind, Pieces, Secret};
use crate::failure::chain;

/// Bytes of an error's body that are looked at.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Bytes of a stream for each byte of the largest answer: each piece of a word is an event with much around it.
const STREAM_BYTES_PER_BYTE: usize = 256;
/// Bytes of one event of a stream that may be, however small the largest answer is.
const EVENT_BYTES_MIN: usize = 64 << 10;
/// Longest wait that a provider may ask for; more is taken as this.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
/// Idle connections kept for each provider.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// Where a model is and how it is asked.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Name of the provider in the configuration.
    pub provider: String,
    /// Address below which the paths of the interface lie, as in `http://127.0.0.1:11434/v1`.
    pub base_url: String,
    /// The key.
    pub key: Option<Secret>,
    /// The model, when a request names none.
    pub model: String,
    /// Tokens of an answer at most, when a request does not say.
    pub max_tokens: Option<u32>,
    /// Whether answers are asked for in pieces.
    pub stream: bool,
    /// Time to reach the provider.
    pub connect_timeout: Duration,
    /// Time between two pieces, and until the first.
    pub read_timeout: Duration,
    /// Time for a whole answer.
    pub total_timeout: Duration,
    /// Largest answer, in bytes: of a stream what is said and called, else the whole response.
    pub answer_bytes_max: usize,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
#[error("could not set up HTTP")]
pub struct ClientError(#[source] reqwest::Error);

/// A provider of chat completions: OpenAI, Ollama, vLLM, llama.cpp and others.
///
/// # Errors
///
/// [`ClientError`] when the system gives no client.
pub fn openai(options: HttpOptions) -> Result<Arc<dyn LanguageModel>, ClientError> {
    HttpModel::<ChatCompletions>::new(options).map(|model| Arc::new(model) as Arc<dyn LanguageModel>)
}

/// A provider of Anthropic's messages.
///
/// # Errors
///
/// [`ClientError`] when the system gives no client.
pub fn anthropic(options: HttpOptions) -> Result<Arc<dyn LanguageModel>, ClientError> {
    HttpModel::<Messages>::new(options).map(|model| Arc::new(model) as Arc<dyn LanguageModel>)
}

#[derive(Debug)]
struct HttpModel<D> {
    options: HttpOptions,
    url: String,
    client: Client,
    dialect: PhantomData<D>,
}

impl<D: Dialect> HttpModel<D> {
    fn new(options: HttpOptions) -> Result<Self, ClientError> {
        // For the whole process; whoever is second finds the same one in place.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = Client::builder()
            .user_agent(concat!("caxton/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            .timeout(options.total_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            // A key that follows a redirect goes to whomever the first host names.
            .redirect(redirect::Policy::none());
        if is_loopback(&options.base_url) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(ClientError)?;
        let url = join(&options.base_url, D::PATH);
        Ok(Self { options, url, client, dialect: PhantomData })
    }

    async fn answer(&self, ask: &Ask, pieces: Pieces<'_>) -> Result<Answer, Fault> {
        let options = &self.options;
        let shape = Shape {
            model: &options.model,
            max_tokens: options.max_tokens,
            stream: options.stream,
            base_url: &options.base_url,
        };
        if shape.model_of(ask).is_empty() {
            let message = "no model is named; set `model` of the provider, or in the agent's file";
            return Err(Fault::new(ModelErrorKind::Refused, message));
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !D::authorise(&mut headers, options.key.as_ref()) {
            return Err(Fault::new(ModelErrorKind::Refused, "the key does not fit into a header"));
        }
        let body = D::body(ask, &shape).to_string();
        let request = self.client.post(&self.url).headers(headers).body(body);
        let mut intake = Intake::of(request.send().await.map_err(broken)?, options.answer_bytes_max);
        if intake.response.status() != StatusCode::OK {
            return Err(refusal(intake).await);
        }
        let mut draft = Draft::default();
        if intake.is_stream() {
            stream::<D>(&mut intake, &mut draft, pieces).await?;
        } else {
            let bytes = intake.rest().await?;
            D::whole(&wire::json(&String::from_utf8_lossy(&bytes))?, &mut draft)?;
            if !draft.text.is_empty() {
                pieces(&draft.text);
            }
        }
        draft.finish(ask, &options.provider, shape.model_of(ask))
    }
}

impl<D: Dialect> LanguageModel for HttpModel<D> {
    fn provider(&self) -> &str {
        &self.options.provider
    }

    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async move {
            self.answer(ask, pieces).await.map_err(|Fault { kind, message }| {
                let message = wire::told(&message, self.options.key.as_ref());
                ModelError::new(&self.options.provider, kind, message)
            })
        })
    }
}

async fn stream<D: Dialect>(intake: &mut Intake, draft: &mut Draft, pieces: Pieces<'_>) -> Result<(), Fault> {
    let mut parser = sse::Parser::default();
    let mut events = Vec::new();
    let answer_max = intake.answer_bytes_max;
    intake.bytes_max = answer_max.saturating_mul(STREAM_BYTES_PER_BYTE);
    while !draft.ended {
        let chunk = match intake.next().await {
            Ok(chunk) => chunk,
            // Servers that cut the line after the last word have said all the same.
            Err(fault) if fault.kind == ModelErrorKind::Failed && draft.stop.is_some() => break,
            Err(fault) => return Err(fault),
        };
        let last = chunk.is_none();
        match chunk {
            Some(bytes) => parser.feed(&bytes, &mut events),
            None => events.extend(std::mem::take(&mut parser).finish()),
        }
        for event in events.drain(..) {
            let (heard, before) = (draft.text.len(), draft.pieces);
            D::event(&event.name, &event.data, draft)?;
            if draft.pieces > before {
                pieces(draft.text.get(heard..).unwrap_or_default());
            }
        }
        if draft.bytes() > answer_max || parser.held() > answer_max.max(EVENT_BYTES_MIN) {
            return Err(intake.too_large());
        }
        if last {
            break;
        }
    }
    Ok(())
}

/// A response that is read up to a limit.
struct Intake {
    response: Response,
    bytes: usize,
    bytes_max: usize,
    /// Largest answer, as it was configured.
    answer_bytes_max: usize,
}

impl Intake {
    const fn of(response: Response, answer_bytes_max: usize) -> Self {
        Self { response, bytes: 0, bytes_max: answer_bytes_max, answer_bytes_max }
    }

    fn is_stream(&self) -> bool {
        let kind = self.response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with(b"text/event-stream"))
    }

    /// An answer that is too large is so for good: it would be as large the next time, and is paid for each time.
    fn too_large(&self) -> Fault {
        let limit = self.answer_bytes_max;
        let message = format!("the answer takes more than {limit} bytes (`max_answer_size` of the provider)");
        Fault::new(ModelErrorKind::Refused, message)
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let chunk = self.response.chunk().await.map_err(broken)?.map(Vec::from);
        self.bytes += chunk.as_ref().map_or(0, Vec::len);
        if self.bytes > self.bytes_max { Err(self.too_large()) } else { Ok(chunk) }
    }

    async fn rest(&mut self) -> Result<Vec<u8>, Fault> {
        if self.response.content_length().is_some_and(|length| length > self.bytes_max as u64) {
            return Err(self.too_large());
        }
        let mut all = Vec::new();
        while let Some(chunk) = self.next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

/// What an error of the connection means. Its text does not hold the address.
fn broken(error: reqwest::Error) -> Fault {
    let error = error.without_url();
    let (kind, what) = if error.is_connect() {
        (ModelErrorKind::Unreachable, "could not reach the provider")
    } else if error.is_timeout() {
        (ModelErrorKind::Timeout, "no answer in time")
    } else if error.is_builder() {
        (ModelErrorKind::Refused, "the request could not be made; check `base_url`")
    } else {
        (ModelErrorKind::Failed, "the connection broke off")
    };
    Fault::new(kind, format!("{what}: {}", chain(&error)))
}

/// What an answer that is not 200 means.
async fn refusal(mut intake: Intake) -> Fault {
    let (status, headers) = (intake.response.status(), intake.response.headers().clone());
    intake.bytes_max = ERROR_BYTES_MAX;
    let body = intake.rest().await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let parsed: Value = serde_json::from_str(&text).unwrap_or_default();
    let said = match wire::message_of(&parsed) {
        Some(message) => format!(": {message}"),
        None if text.trim().is_empty() => String::new(),
        None => format!(": {:?}", shown(&text, 120)),
    };
    let retry_after = retry_after(&headers, SystemTime::now());
    // Spent money does not come back by waiting.
    let spent = wire::text_of(&parsed["error"]["code"]) == "insufficient_quota";
    let kind = match status.as_u16() {
        429 if spent => ModelErrorKind::Refused,
        429 | 529 => ModelErrorKind::RateLimited { retry_after },
        503 if retry_after.is_some() => ModelErrorKind::RateLimited { retry_after },
        408 | 504 => ModelErrorKind::Timeout,
        409 | 425 | 500.. => ModelErrorKind::Failed,
        _ => ModelErrorKind::Refused,
    };
    let remedy = match status.as_u16() {
        401 | 403 => "; check the key (`api_key_env` or `api_key_file` of the provider) and what it may do",
        404 => "; check `model` and `base_url` of the provider",
        300..=399 => "; redirects are not followed: write the address it leads to as `base_url`",
        413 => "; the request is too large: shorten the context",
        _ => "",
    };
    Fault::new(kind, format!("answered {status}{said}{remedy}"))
}

/// When the provider says that it may be asked again: as milliseconds, seconds, or a date.
///
/// A date is counted from the provider's own clock, where it shows one, and else from `now`.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    if let Some(millis) = text("retry-after-ms").and_then(number) {
        return Some(Duration::from_secs_f64((millis / 1e3).min(RETRY_AFTER_MAX.as_secs_f64())));
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Some(seconds) = number(value) {
        return Some(Duration::from_secs_f64(seconds.min(RETRY_AFTER_MAX.as_secs_f64())));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = text(DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(at.duration_since(now).unwrap_or_default().min(RETRY_AFTER_MAX))
}

/// The path below the address. An address that ends in the version is not given it twice.
fn join(base_url: &str, path: &str) -> String {
    let base = base_url.trim_end_matches('/');
    let base = if path.starts_with("/v1/") { base.strip_suffix("/v1").unwrap_or(base) } else { base };
    format!("{base}{path}")
}

/// Whether the address is this machine's own, which no proxy must see.
fn is_loopback(base_url: &str) -> bool {
    let host = base_url.split("//").nth(1).unwrap_or_default();
    ["localhost", "127.", "[::1]"].iter().any(|own| host.starts_with(own))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn a_path_is_joined_once() {
        for (base, path, url) in [
            ("http://h/v1", "/chat/completions", "http://h/v1/chat/completions"),
            ("http://h/v1/", "/chat/completions", "http://h/v1/chat/completions"),
            ("https://h", "/v1/messages", "https://h/v1/messages"),
            ("https://h/v1", "/v1/messages", "https://h/v1/messages"),
        ] {
            assert_eq!(join(base, path), url);
        }
        for (url, own) in
            [("http://127.0.0.1:1/v1", true), ("http://localhost/v1", true), ("https://api.example", false)]
        {
            assert_eq!(is_loopback(url), own, "{url}");
        }
    }

    #[test]
    fn the_wait_is_read_in_every_form() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (rows, wait) in [
            (vec![("retry-after", "7")], Some(Duration::from_secs(7))),
            (vec![("retry-after", "0.5")], Some(Duration::from_millis(500))),
            (vec![("retry-after-ms", "250"), ("retry-after", "7")], Some(Duration::from_millis(250))),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], Some(Duration::from_secs(10))),
            (
                vec![
                    ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT"),
                    ("date", "Sun, 06 Nov 1994 08:49:44 GMT"),
                ],
                Some(Duration::from_secs(3)),
            ),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:49:30 GMT")], Some(Duration::ZERO)),
            (vec![("retry-after", "1e300")], Some(RETRY_AFTER_MAX)),
            (vec![("retry-after", "-1")], None),
            (vec![("retry-after", "NaN")], None),
            (vec![("retry-after", "soon")], None),
            (vec![], None),
        ] {
            let headers = rows.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let headers: HeaderMap = headers.collect::<HeaderMap<HeaderValue>>();
            assert_eq!(retry_after(&headers, now), wait, "{rows:?}");
        }
    }
}
