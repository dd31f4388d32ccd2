//! The past over REST and on the command line: as of each record, what was answered when it was the last.

mod differences;
mod memory;
mod moments;
mod talk;

use serde_json::Value;

use super::server::Server;

/// Members that differ from one answer to the next whatever the memory holds.
const PASSING: &[&str] = &[
    "as_of",
    "exact",
    "exported_at",
    "intervened",
    "performance_metrics",
    "search_time_ms",
    "storage_size_mb",
    "traversal_time_ms",
];

/// The value without those members, at any depth.
fn lasting(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(name, _)| !PASSING.contains(&name.as_str()));
            Value::Object(kept.map(told).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(lasting).collect()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

/// A member as it is compared: of a cursor, which belongs to its moment, that there is one.
fn told((name, value): (String, Value)) -> (String, Value) {
    let is_cursor = name == "next_cursor" && value.is_string();
    (name, if is_cursor { Value::Bool(true) } else { lasting(value) })
}

/// An answer: its status, and what it says in each line.
type Answer = (u16, Vec<Value>);

fn answer(server: &Server, path: &str) -> Answer {
    let reply = server.get(path);
    if reply.status != 200 {
        return (reply.status, vec![reply.json()["code"].clone()]);
    }
    (200, reply.lines().into_iter().map(lasting).collect())
}

/// What was answered at some position.
struct Shot {
    seq: u64,
    answers: Vec<Answer>,
}

/// Answers to the same questions at several positions of one server.
struct Album<'a> {
    server: &'a Server,
    paths: &'a [&'a str],
    shots: Vec<Shot>,
}

impl<'a> Album<'a> {
    fn new(server: &'a Server, paths: &'a [&'a str]) -> Self {
        let mut album = Self { server, paths, shots: Vec::new() };
        album.shoot();
        album
    }

    /// Notes what is answered now.
    fn shoot(&mut self) {
        let seq = self.server.engine.log().head().seq.0;
        let ask = |path: &&str| {
            let and = if path.contains('?') { '&' } else { '?' };
            answer(self.server, &format!("{path}{and}min_seq={seq}"))
        };
        self.shots.push(Shot { seq, answers: self.paths.iter().map(ask).collect() });
    }

    /// As of each of those positions, the same is answered now.
    #[track_caller]
    fn check(&self) {
        for shot in &self.shots {
            for (path, then) in self.paths.iter().zip(&shot.answers) {
                let and = if path.contains('?') { '&' } else { '?' };
                let path = format!("{path}{and}as_of={}", shot.seq);
                let now = answer(self.server, &path);
                assert_eq!(&now, then, "{path}");
            }
        }
        let spread = self.shots.len();
        for (at, path) in self.paths.iter().enumerate() {
            let mut different: Vec<&Answer> = self.shots.iter().map(|shot| &shot.answers[at]).collect();
            different.dedup();
            assert!(different.len() > 1, "{path} was the same all {spread} times: it shows nothing");
        }
    }
}
