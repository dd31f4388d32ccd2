//! Agents that a benchmark makes on a server that runs already. They are gone when the benchmark is: at its end, or when a signal
//! ends it.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::door::{Ask, Door, code};
use crate::cli::failure::{Exit, Failure};
use crate::cli::interrupt::Open;

/// Agents on a server. Dropping it removes them; what is left then is told on standard error.
pub(super) struct Made {
    door: Door,
    held: Arc<Held>,
    /// Removes those that are still held.
    _open: Open,
}

/// Names of those that are there, or may be; `None` when they were removed.
struct Held(Mutex<Option<Vec<String>>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Made {
    /// None yet. From now on a signal removes them as well.
    pub(super) fn new(door: &Door) -> Self {
        let held = Arc::new(Held(Mutex::new(Some(Vec::new()))));
        let (own, names) = (door.another(), Arc::clone(&held));
        let open = Open::closed_by(move || {
            let names = names.lock().take();
            names.map_or_else(Vec::new, |names| removed(&own, names)).join("; ")
        });
        Self { door: door.another(), held, _open: open }
    }

    /// Makes one from the text of its file.
    pub(super) fn make(&self, name: &str, content: &str) -> Result<(), Failure> {
        let mut held = self.held.lock();
        let Some(names) = &mut *held else {
            return Err(Failure::new(Exit::Failed, "it was interrupted"));
        };
        let body = json!({ "name": name, "content": content });
        let made = self.door.send(&Ask::post("/config-agents", &body));
        // Without an answer nobody knows whether it is there.
        if made.as_ref().map_or(true, |(status, _)| (200..300).contains(status)) {
            names.push(name.to_owned());
        }
        drop(held);
        match made {
            Ok((200..300, _)) => Ok(()),
            Ok((status, body)) => {
                let message = format!("the server did not take the agent {name}: {}", code(status, &body));
                Err(Failure::new(Exit::Refused, message))
            }
            Err(silence) => Err(Failure::new(Exit::Unreachable, silence)),
        }
    }

    /// Removes them; what there is to say about those that are left.
    pub(super) fn remove(&self) -> Vec<String> {
        let mut held = self.held.lock();
        held.take().map_or_else(Vec::new, |names| removed(&self.door, names))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        tell(&self.remove());
    }
}

fn tell(lines: &[String]) {
    for line in lines {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Removes agents, those with open conversations, too; a line for each reason why some are left.
fn removed(door: &Door, names: Vec<String>) -> Vec<String> {
    let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut silence = None;
    for name in names {
        // A server that does not answer is not waited for once more for each of them.
        let why = silence.clone().map_or_else(|| refused(door, &name, &mut silence), Some);
        if let Some(why) = why {
            left.entry(why).or_default().push(name);
        }
    }
    let command = door.by_hand(&delete("NAME"));
    left.into_iter().map(|(why, names)| told(&why, &names, &command)).collect()
}

fn delete(name: &str) -> Ask {
    // Their conversations stay open, and would keep them.
    Ask { method: "DELETE", path: format!("/config-agents/{name}?force=true"), ..Ask::default() }
}

/// Why the agent is still there; `None` when it is gone. Where there is no answer, that is `silence`.
fn refused(door: &Door, name: &str, silence: &mut Option<String>) -> Option<String> {
    match door.send(&delete(name)) {
        Ok((200..300 | 404, _)) => None,
        Ok((status, body)) => Some(code(status, &body)),
        Err(why) => {
            *silence = Some(format!("no answer: {why}"));
            silence.clone()
        }
    }
}

fn told(why: &str, names: &[String], command: &str) -> String {
    format!("not removed from the server ({why}): {}; remove each with: {command}", names.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::{Door, removed};

    /// What is said when a server gives these answers, one a connection, and then none; and the first lines of what it was asked.
    fn said(answers: &'static [&'static str], names: &[&str]) -> (Vec<String>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4_096];
                let read = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                asked.push(request.lines().next().unwrap_or_default().to_owned());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let lines = removed(&Door::new(&url, None), names);
        (lines.iter().map(|line| line.replace(&url, "URL")).collect(), server.join().unwrap())
    }

    #[test]
    fn agents_are_removed_whoever_talks_to_them_and_those_that_are_left_are_told() {
        let answers = &[
            "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 20\r\nconnection: close\r\n\r\n{\"code\":\"FORBIDDEN\"}",
        ];
        let (lines, asked) = said(answers, &["a", "b", "c"]);
        let line = "not removed from the server (FORBIDDEN): c; remove each with: curl -X DELETE \
                    'URL/api/v1/config-agents/NAME?force=true'";
        assert_eq!(lines, [line]);
        assert_eq!(asked[0], "DELETE /api/v1/config-agents/a?force=true HTTP/1.1");
    }

    #[test]
    fn a_server_that_is_gone_is_told_once() {
        let (lines, _) = said(&[], &["a", "b"]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("not removed from the server (no answer: "), "{lines:?}");
        assert!(lines[0].contains("): a, b; remove each with: "), "{lines:?}");
    }
}
