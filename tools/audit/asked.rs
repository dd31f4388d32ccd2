//! A question as it is typed: texts by their names, with what is wrong with them. REST and the command line share it.

use std::str::FromStr;

use caxton_events::{Family, Kind, MemoryId, Scope, Seq, Timestamp};
use caxton_projections::audit::Question;
use caxton_projections::audit::terms::memory_id;

/// Names that are less alike are not offered.
const LIKENESS_MIN: f64 = 0.7;
/// Nobody mistypes a name of so many bytes.
const NAME_BYTES_MAX: usize = 64;

/// The parameters of a question, as they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Who caused it.
    pub actor: Option<String>,
    /// Who caused it, or whom it is about.
    pub agent_id: Option<String>,
    /// The conversation.
    pub conversation_id: Option<String>,
    /// An entity, observation or relation: `ent_5`, `obs_7`, `rel_9`.
    pub entity_id: Option<String>,
    /// The message.
    pub message_id: Option<String>,
    /// The turn.
    pub turn_id: Option<String>,
    /// Names of kinds, or the beginning of their names up to the dot.
    pub kinds: Vec<String>,
    /// The correlation.
    pub correlation_id: Option<String>,
    /// The event that led to it.
    pub causation_seq: Option<String>,
    /// The stream.
    pub stream: Option<String>,
    /// The scope of memory, which is the stream of what is written there.
    pub scope: Option<String>,
    /// Recorded at this time or later.
    pub since: Option<String>,
    /// Recorded before this time.
    pub until: Option<String>,
    /// At this position or behind it.
    pub from_seq: Option<String>,
    /// At this position or before it.
    pub to_seq: Option<String>,
    /// `oldest` (first) or `newest`.
    pub order: Option<String>,
}

/// What is wrong with a parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?}{}{message}; {remedy}", between(message))]
pub struct Wrong {
    /// Its name.
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// What stands between a value and what is said of it: nothing but a space where that goes on with the sentence.
fn between(message: &str) -> &'static str {
    if message.starts_with("is ") || message.starts_with("lies ") { " " } else { ": " }
}

impl Asked {
    /// Names of all parameters.
    pub const FIELDS: &[&str] = &[
        "actor",
        "agent_id",
        "conversation_id",
        "entity_id",
        "message_id",
        "turn_id",
        "kinds",
        "correlation_id",
        "causation_seq",
        "stream",
        "scope",
        "since",
        "until",
        "from_seq",
        "to_seq",
        "order",
    ];

    /// The question that was asked.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn question(&self) -> Result<Question, Vec<Wrong>> {
        let mut read = Reading::default();
        let scope: Option<Scope> = read.parsed("scope", self.scope.as_deref());
        let question = Question {
            actor: read.text("actor", self.actor.as_deref()),
            agent: read.parsed("agent_id", self.agent_id.as_deref()),
            conversation: read.parsed("conversation_id", self.conversation_id.as_deref()),
            row: read.row("entity_id", self.entity_id.as_deref()),
            reads: None,
            message: read.parsed("message_id", self.message_id.as_deref()),
            turn: read.parsed("turn_id", self.turn_id.as_deref()),
            kinds: read.kinds(&self.kinds),
            correlation: read.text("correlation_id", self.correlation_id.as_deref()),
            cause: read.seq("causation_seq", self.causation_seq.as_deref()),
            stream: read.text("stream", self.stream.as_deref()),
            since: read.parsed("since", self.since.as_deref()),
            until: read.parsed("until", self.until.as_deref()),
            from: read.seq("from_seq", self.from_seq.as_deref()),
            to: read.seq("to_seq", self.to_seq.as_deref()),
            newest_first: read.newest_first(self.order.as_deref()),
        };
        read.whole(&question, scope.as_ref());
        if !read.wrong.is_empty() {
            return Err(read.wrong);
        }
        let scope = scope.map(|scope| scope.to_string());
        Ok(Question { stream: question.stream.or(scope), ..question })
    }
}

/// Parameters under reading.
#[derive(Default)]
struct Reading {
    wrong: Vec<Wrong>,
}

impl Reading {
    fn complain(
        &mut self,
        field: &'static str,
        value: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let value = value.chars().take(120).collect();
        self.wrong.push(Wrong { field, value, message: message.into(), remedy: remedy.into() });
    }

    fn text(&mut self, field: &'static str, text: Option<&str>) -> Option<String> {
        if text == Some("") {
            self.complain(field, "", "is empty", "give a value, or leave it out");
        }
        text.map(str::to_owned)
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        field: &'static str,
        text: Option<&str>,
    ) -> Option<T> {
        let text = text?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                // These messages carry their remedy behind the semicolon.
                let error = T::Err::to_string(&error);
                let (message, remedy) = error.rsplit_once("; ").unwrap_or((&error, "correct it"));
                self.complain(field, text, message, remedy);
                None
            }
        }
    }

    fn row(&mut self, field: &'static str, text: Option<&str>) -> Option<MemoryId> {
        let text = text?;
        let id = memory_id(text);
        if id.is_none() {
            let remedy = "write ent_ID, obs_ID or rel_ID, as answers about the memory show them";
            self.complain(field, text, "is no entity, observation or relation", remedy);
        }
        id
    }

    fn seq(&mut self, field: &'static str, text: Option<&str>) -> Option<Seq> {
        let text = text?;
        let number = text.strip_prefix('#').unwrap_or(text);
        let digits = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        let seq = number.parse().ok().filter(|seq| digits && *seq > 0).map(Seq);
        if seq.is_none() {
            self.complain(field, text, "is no position", "give a whole number from 1 up");
        }
        seq
    }

    fn newest_first(&mut self, text: Option<&str>) -> bool {
        match text {
            None | Some("oldest") => false,
            Some("newest") => true,
            Some(other) => {
                self.complain("order", other, "is no order", "use oldest or newest: which comes first");
                false
            }
        }
    }

    fn kinds(&mut self, names: &[String]) -> Option<Vec<Kind>> {
        let mut kinds = Vec::new();
        for name in names {
            let found = Kind::named(name);
            if found.is_empty() {
                let remedy = match nearest_kind(name) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("use a kind or a family: {}", Family::PREFIXES.join(" ")),
                };
                self.complain("kinds", name, "is no kind of event", remedy);
            }
            kinds.extend(found);
        }
        kinds.sort_unstable();
        kinds.dedup();
        (!names.is_empty()).then_some(kinds)
    }

    /// What must fit together.
    fn whole(&mut self, question: &Question, scope: Option<&Scope>) {
        if let (Some(since), Some(until)) = (question.since, question.until)
            && until <= since
        {
            self.complain(
                "until",
                &until.to_string(),
                format!("is not after since ({since})"),
                "give a later moment, or leave it out",
            );
        }
        if let (Some(from), Some(to)) = (question.from, question.to)
            && to < from
        {
            self.complain(
                "to_seq",
                &to.0.to_string(),
                format!("lies before from_seq ({})", from.0),
                "give a later position, or leave it out",
            );
        }
        if let (Some(stream), Some(scope)) = (&question.stream, scope)
            && *stream != scope.to_string()
        {
            let remedy = "leave one of them out: a scope is the stream of what is written there";
            self.complain("scope", &scope.to_string(), format!("is another stream than {stream:?}"), remedy);
        }
    }
}

/// The kind, or the family, whose name is most alike.
fn nearest_kind(name: &str) -> Option<&'static str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    // Kinds are often called without their family.
    let likeness = |known: &str| {
        let own = known.split_once('.').map_or(known, |(_, own)| own);
        strsim::jaro_winkler(name, known).max(if own.is_empty() {
            0.0
        } else {
            strsim::jaro_winkler(name, own)
        })
    };
    let known = Kind::ALL.iter().map(|kind| kind.name()).chain(Family::PREFIXES.iter().copied());
    known
        .map(|known| (likeness(known), known))
        .filter(|(likeness, _)| *likeness > LIKENESS_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known)
}

/// The moment so long before `now`; the beginning of time when that lies before it.
pub fn ago(now: Timestamp, micros: u64) -> Timestamp {
    Timestamp::from_unix_micros(now.unix_micros().saturating_sub(micros))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use caxton_events::{Family, Kind, MemoryId, Seq};

    use super::Asked;

    #[track_caller]
    fn check(asked: &Asked, then: &str) {
        let wrong = asked.question().unwrap_err();
        assert_eq!(wrong.iter().map(ToString::to_string).collect::<Vec<_>>(), [then]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value_and_a_remedy() {
        let of = |kinds: &str| Asked { kinds: vec![kinds.to_owned()], ..Asked::default() };
        check(
            &of("entity_creatd"),
            "kinds \"entity_creatd\" is no kind of event; did you mean \"memory.entity_created\"?",
        );
        check(&of("memroy."), "kinds \"memroy.\" is no kind of event; did you mean \"memory.\"?");
        check(
            &of("xyzzy"),
            "kinds \"xyzzy\" is no kind of event; use a kind or a family: memory. conversation. agent. turn. system.",
        );
        check(
            &Asked { since: Some(String::from("yesterday")), ..Asked::default() },
            "since \"yesterday\": \"yesterday\" is no RFC 3339 time from 1970 on; write 2026-11-23T14:05:00Z, 2026-11-23T15:05:00+01:00 or 2026-11-23",
        );
        check(
            &Asked {
                since: Some(String::from("2026-02-01")),
                until: Some(String::from("2026-02-01")),
                ..Asked::default()
            },
            "until \"2026-02-01T00:00:00.000000Z\" is not after since (2026-02-01T00:00:00.000000Z); give a later moment, or leave it out",
        );
        for bad in ["0", "-1", "+1", "x", "", "#", "99999999999999999999"] {
            let asked = Asked { from_seq: Some(String::from(bad)), ..Asked::default() };
            check(&asked, &format!("from_seq {bad:?} is no position; give a whole number from 1 up"));
        }
        check(
            &Asked { from_seq: Some(String::from("9")), to_seq: Some(String::from("8")), ..Asked::default() },
            "to_seq \"8\" lies before from_seq (9); give a later position, or leave it out",
        );
        for bad in ["5", "ent_", "ent_x", "entity_5", "ent_99999999999999999999"] {
            let remedy = "write ent_ID, obs_ID or rel_ID, as answers about the memory show them";
            let asked = Asked { entity_id: Some(String::from(bad)), ..Asked::default() };
            check(&asked, &format!("entity_id {bad:?} is no entity, observation or relation; {remedy}"));
        }
        check(
            &Asked { order: Some(String::from("up")), ..Asked::default() },
            "order \"up\" is no order; use oldest or newest: which comes first",
        );
        check(
            &Asked {
                stream: Some(String::from("global")),
                scope: Some(String::from("agent:ada")),
                ..Asked::default()
            },
            "scope \"agent:ada\" is another stream than \"global\"; leave one of them out: a scope is the stream of what is written there",
        );
        let several = Asked {
            agent_id: Some(String::from("a b")),
            message_id: Some(String::from("x")),
            ..Asked::default()
        };
        assert_eq!(several.question().unwrap_err().len(), 2);
    }

    #[test]
    fn families_and_kinds_add_up() {
        let kinds = vec!["memory.".to_owned(), "system.*".to_owned(), "turn.started".to_owned()];
        let asked = Asked {
            kinds,
            entity_id: Some(String::from("obs_7")),
            from_seq: Some(String::from("#3")),
            scope: Some(String::from("agent:ada")),
            order: Some(String::from("newest")),
            ..Asked::default()
        };
        let question = asked.question().unwrap();
        let mut then = Family::kinds(&[Family::Memory, Family::System]);
        then.push(Kind::TurnStarted);
        then.sort_unstable();
        assert_eq!(question.kinds, Some(then));
        assert_eq!((question.row, question.from), (Some(MemoryId(7)), Some(Seq(3))));
        assert_eq!((question.stream.as_deref(), question.newest_first), (Some("agent:ada"), true));
    }
}
