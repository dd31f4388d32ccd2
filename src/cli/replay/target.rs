//! `caxton replay --target`: what a log recorded, sent to a running server as requests.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caxton_events::Timestamp;
use caxton_events::log::Reader;
use caxton_tools::replay::{Pace, Range, Watch, due};
use serde_json::{Value, json};
use ureq::Agent;

use super::load::{Load, Report, Server};
use super::plan::Planner;
use super::wish::Sent;
use crate::cli::backend::{is_address, loading_agent, pointed_to};
use crate::cli::failure::{Exit, Failure};
use crate::failure::chain;

/// Stack of a thread that sends, in bytes.
const STACK_BYTES: usize = 512 << 10;

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Timing {
    /// As their events were recorded, or so many times as fast.
    Recorded(f64),
    /// So many a second, whatever was recorded.
    Rate(f64),
    /// As soon as there is room.
    AtOnce,
}

/// Where to, and how.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) url: &'a str,
    pub(super) key: Option<String>,
    pub(super) timing: Timing,
    pub(super) in_flight: usize,
}

/// A server over HTTP; connections are kept and used again.
struct Http {
    agent: Agent,
    base: String,
    key: Option<String>,
}

impl Http {
    fn new(target: &Target<'_>) -> Result<Self, Failure> {
        let url = target.url;
        is_address(url, "--target: ")?;
        let agent = loading_agent(target.in_flight);
        Ok(Self { agent, base: url.trim_end_matches('/').to_owned(), key: target.key.clone() })
    }
}

impl Server for Http {
    fn send(&self, sent: Sent) -> Result<(u16, Value), String> {
        let mut builder = ureq::http::Request::builder()
            .method(sent.method)
            .uri(format!("{}{}", self.base, sent.path))
            .header("accept", "application/json, */*;q=0.5")
            .header("user-agent", concat!("caxton/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &self.key {
            builder = builder.header("authorization", format!("Bearer {key}"));
        }
        let response = match sent.body {
            Some(body) => {
                let request = builder.header("content-type", "application/json").body(body.to_string());
                self.agent.run(request.map_err(|error| error.to_string())?)
            }
            None => self.agent.run(builder.body(()).map_err(|error| error.to_string())?),
        };
        let mut response = response.map_err(|error| chain(&error))?;
        let status = response.status().as_u16();
        if let Some(to) = pointed_to(response.status(), response.headers()) {
            return Ok((status, json!({ POINTED_TO: to })));
        }
        let body = response.body_mut().read_to_vec().map_err(|error| chain(&error))?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

/// What the body of an answer that points elsewhere is taken for: where to.
const POINTED_TO: &str = "pointed_to";
/// Where a server says what it is.
const HEALTH: &str = "/api/v1/health";

/// Makes sure that a Caxton answers at this address, and takes the key.
pub(super) fn recognise(server: &dyn Server, url: &str) -> Result<(), Failure> {
    let asked = Sent { method: "GET", path: HEALTH.to_owned(), body: None };
    let (status, body) = server.send(asked).map_err(|silence| {
        let message = format!("--target: no answer from {url}: {silence}; is it running?");
        Failure::new(Exit::Unreachable, message)
    })?;
    let code = body.get("code").and_then(Value::as_str);
    let message = match status {
        200 if body.get("version").is_some_and(Value::is_string) && body.get("status").is_some() => {
            return Ok(());
        }
        401 | 403 => {
            format!("--target: {url} does not take the key ({status}); give one that it takes with --api-key")
        }
        300..=399 => {
            let to = body.get(POINTED_TO).and_then(Value::as_str).unwrap_or_default();
            format!(
                "--target: {url} answers GET {HEALTH} with {status} and points to {to}, where nothing was asked; name the address \
                 of the server itself"
            )
        }
        _ => match code {
            Some(code) => {
                format!("--target: {url} answers {code}; wait until GET {HEALTH} is answered with 200")
            }
            None => format!(
                "--target: {url} is no Caxton: it answers GET {HEALTH} with {status}; name the address of one"
            ),
        },
    };
    let refused = matches!(status, 300..=399 | 401 | 403);
    Err(Failure::new(if refused { Exit::Refused } else { Exit::Usage }, message))
}

/// Sends what the events of the range imply. `progress` hears the last position that was read, and the last there is.
pub(super) fn send(
    reader: &Reader,
    range: &Range,
    target: &Target<'_>,
    watch: &dyn Watch,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, Failure> {
    let bounds = range.resolve(reader).map_err(|error| Failure::of(Exit::Usage, &error))?;
    let server = Http::new(target)?;
    recognise(&server, target.url)?;
    let load = Load::new(&server, watch, target.in_flight);
    let mut planner = Planner::new(reader.scan(bounds.from, &bounds.filter(bounds.until)));
    let started = watch.elapsed();
    let (offered, answers) = thread::scope(|scope| {
        for _ in 0..target.in_flight {
            let sender = thread::Builder::new().name("replay-send".to_owned()).stack_size(STACK_BYTES);
            if let Err(error) = sender.spawn_scoped(scope, || load.run()) {
                load.end();
                return (Err(Failure::new(Exit::Failed, format!("could not start a thread: {error}"))), true);
            }
        }
        let mut answers = true;
        let offered = (|| {
            let mut number = 0_u64;
            while let Some(planned) = planner.next().map_err(|error| Failure::of(Exit::Failed, &error))? {
                let after = match target.timing {
                    Timing::Recorded(times) => due(bounds.begins_at, planned.at, times),
                    Timing::Rate(rate) => {
                        Duration::try_from_secs_f64(number as f64 / rate).unwrap_or(Duration::MAX)
                    }
                    Timing::AtOnce => watch.elapsed().saturating_sub(started),
                };
                number += 1;
                progress(planner.reached.0 + 1 - bounds.from.0, bounds.events());
                if !load.offer(planned, started.saturating_add(after)) {
                    answers = false;
                    break;
                }
            }
            Ok(())
        })();
        load.end();
        (offered, answers)
    });
    offered?;
    let took = watch.elapsed().saturating_sub(started);
    let report = load.report(target.url.to_owned(), planner.left_out, took);
    // Requests that were under way when the last one was offered may have found that nobody answers any more.
    if answers && !report.is_gone {
        return Ok(report);
    }
    let message = format!("{report}\n{} answers no more; start it and replay what is missing", target.url);
    Err(Failure::new(Exit::Unreachable, message))
}

/// When requests are sent, from the flags.
pub(super) fn timing(speed: Option<Pace>, rate: Option<f64>) -> Timing {
    match (rate, speed) {
        (Some(rate), _) => Timing::Rate(rate),
        (None, Some(Pace::Full)) => Timing::AtOnce,
        (None, Some(Pace::Times(times))) => Timing::Recorded(times),
        (None, None) => Timing::Recorded(1.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::{Exit, Http, Target, Timing, recognise};

    #[test]
    fn a_target_that_points_elsewhere_is_refused_and_not_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while !lines.next().unwrap().unwrap().is_empty() {}
            let head = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/there\r\n";
            write!(stream, "{head}content-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        });
        let target = Target { url: &url, key: None, timing: Timing::AtOnce, in_flight: 1 };
        let refused = recognise(&Http::new(&target).unwrap(), &url).unwrap_err();
        serving.join().unwrap();
        assert_eq!(refused.exit, Some(Exit::Refused), "{refused}");
        let told = "with 302 and points to http://127.0.0.1:1/there, where nothing was asked";
        assert!(refused.to_string().contains(told), "{refused}");
    }
}
