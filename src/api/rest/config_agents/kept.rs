//! Lists of agents that are given again while nothing they show has changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use caxton_events::Seq;

use crate::agents::Roster;
use crate::telemetry;

/// Lists that are kept; beyond them all are forgotten.
const KEPT_MAX: usize = 64;

/// Lists by what was asked for.
#[derive(Debug, Default)]
pub(in crate::api::rest) struct KeptLists(Mutex<HashMap<String, Kept>>);

/// What a list shows: the agents, and what was said, by which it knows when each was last active.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) roster: Arc<Roster>,
    pub(super) talk: Seq,
}

impl Shown {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.roster, &other.roster) && self.talk == other.talk
    }
}

#[derive(Debug)]
struct Kept {
    made: Instant,
    shown: Shown,
    body: Bytes,
}

impl KeptLists {
    fn lists(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list for `query`, if it shows what there is now and is no older than `age`.
    pub(super) fn find(&self, query: &str, now: &Shown, age: Duration) -> Option<Bytes> {
        let lists = self.lists();
        let kept = lists.get(query).filter(|kept| kept.shown.is(now) && kept.made.elapsed() < age);
        let body = kept.map(|kept| kept.body.clone());
        telemetry::agent_list_asked(body.is_some());
        body
    }

    /// Keeps a list.
    pub(super) fn keep(&self, query: &str, shown: Shown, body: Bytes) {
        let mut lists = self.lists();
        if lists.len() >= KEPT_MAX && !lists.contains_key(query) {
            lists.clear();
        }
        lists.insert(query.to_owned(), Kept { made: Instant::now(), shown, body });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_found_while_it_shows_what_there_is() {
        let (lists, roster) = (KeptLists::default(), Arc::new(Roster::default()));
        let shown = Shown { roster, talk: Seq(7) };
        lists.keep("a", shown.clone(), Bytes::from_static(b"[]"));
        let hour = Duration::from_hours(1);
        assert_eq!(lists.find("a", &shown, hour).as_deref(), Some(&b"[]"[..]));
        assert_eq!(lists.find("b", &shown, hour), None);
        assert_eq!(lists.find("a", &shown, Duration::ZERO), None, "too old");
        assert_eq!(
            lists.find("a", &Shown { talk: Seq(8), ..shown.clone() }, hour),
            None,
            "somebody said something"
        );
        let other = Shown { roster: Arc::new(Roster::default()), ..shown.clone() };
        assert_eq!(lists.find("a", &other, hour), None, "an agent changed");
        for n in 0..200 {
            lists.keep(&n.to_string(), shown.clone(), Bytes::new());
        }
        assert!(lists.lists().len() <= KEPT_MAX);
    }
}
