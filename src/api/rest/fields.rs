//! The values of a request by name: each is read once, every complaint is kept, unknown names are named.

#![allow(clippy::wildcard_enum_match_arm, reason = "JSON has six kinds of values and will not get a seventh")]

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::http::StatusCode;
use caxton_events::Timestamp;
use caxton_events::memory::Validity;
use serde_json::{Map, Value};

use super::problem::{Complaint, Problem, nearest, shortened};

/// More complaints than this help nobody.
const COMPLAINTS_MAX: usize = 20;

/// Types that one request names at the most: each is compared with every row that is looked at.
const TYPES_MAX: usize = 100;

/// What clients call some choices elsewhere, with the word for it here: by its letters another one may be nearer, as
/// `oldest` is to `latest`.
const MEANT: &[(&str, &str)] = &[
    ("latest", "newest"),
    ("recent", "newest"),
    ("desc", "newest"),
    ("descending", "newest"),
    ("earliest", "oldest"),
    ("asc", "oldest"),
    ("ascending", "oldest"),
];

/// The values of one JSON object or query string.
///
/// A getter whose value is wrong notes a complaint and answers a neutral value; [`Fields::finish`] then refuses the
/// request with all of them.
pub(super) struct Fields {
    values: Map<String, Value>,
    /// What stands before a name in complaints, as in `entities[3].`.
    prefix: String,
    /// The values are texts out of a query string: numbers and lists are parsed from them.
    texts: bool,
    is_no_object: bool,
    complaints: Vec<Complaint>,
    /// What a refusal tells programs besides.
    details: Map<String, Value>,
}

impl Fields {
    /// The members of `value` at `prefix`, of which only `known` may occur.
    pub(super) fn object(value: Value, prefix: String, known: &[&[&str]]) -> Self {
        let mut fields = Self {
            values: Map::new(),
            prefix,
            texts: false,
            is_no_object: false,
            complaints: Vec::new(),
            details: Map::new(),
        };
        match value {
            Value::Object(values) => {
                fields.values = values;
                fields.refuse_unknown(known, "field");
            }
            other => fields.wrong_whole(&other),
        }
        fields
    }

    /// The parameters of a query string, of which only `known` may occur.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when it is not percent-encoded UTF-8.
    pub(super) fn query(query: Option<&str>, known: &[&[&str]]) -> Result<Self, Problem> {
        let mut fields = Self {
            values: Map::new(),
            prefix: String::new(),
            texts: true,
            is_no_object: false,
            complaints: Vec::new(),
            details: Map::new(),
        };
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if fields.values.contains_key(&name) {
                fields.complain(&name, Some(&value), "is given twice", "give it once");
            }
            fields.values.insert(name, Value::String(value));
        }
        fields.refuse_unknown(known, "parameter");
        Ok(fields)
    }

    fn refuse_unknown(&mut self, known: &[&[&str]], what: &str) {
        let names = || known.iter().flat_map(|names| names.iter().copied());
        for name in self.unknown(known) {
            let remedy = match nearest(&name, names()) {
                Some(near) => format!("did you mean {near:?}?"),
                None if names().next().is_none() => format!("leave it out: there is no {what} here"),
                None => format!("known are: {}", names().collect::<Vec<_>>().join(", ")),
            };
            let value = self.values.get(&name).map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            self.complain(&shortened(&name), value.as_deref(), &format!("is no known {what}"), &remedy);
        }
    }

    /// The first names that are not among `known`: no more than are told of, for a body has room for millions.
    fn unknown(&self, known: &[&[&str]]) -> Vec<String> {
        let is_known = |name: &str| known.iter().any(|names| names.contains(&name));
        self.values.keys().filter(|name| !is_known(name)).take(COMPLAINTS_MAX).cloned().collect()
    }

    fn wrong_whole(&mut self, value: &Value) {
        self.is_no_object = true;
        let field = self.prefix.trim_end_matches('.').to_owned();
        self.complaints.push(Complaint {
            field: if field.is_empty() { "body".to_owned() } else { field },
            code: "VALIDATION_ERROR",
            value: Some(shortened(&value.to_string())),
            message: format!("must be a JSON object, not {}", kind_of(value)),
            remedy: "write {\"name\": value, …}".to_owned(),
        });
    }

    /// Notes that the value of `name` is wrong.
    pub(super) fn complain(&mut self, name: &str, value: Option<&str>, message: &str, remedy: &str) {
        // Of what is no object every member is missing; one complaint says so.
        if self.complaints.len() < COMPLAINTS_MAX && !self.is_no_object {
            self.complaints.push(Complaint {
                field: format!("{}{name}", self.prefix),
                code: "VALIDATION_ERROR",
                value: value.map(shortened),
                message: message.to_owned(),
                remedy: remedy.to_owned(),
            });
        }
    }

    /// Adds a member to the `details` of a refusal: what several complaints refer to stands there once.
    pub(super) fn explain(&mut self, name: &str, value: impl Into<Value>) {
        self.details.insert(name.to_owned(), value.into());
    }

    /// Adds what others say of this request.
    pub(super) fn tell(&mut self, complaint: Complaint) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(complaint);
        }
    }

    /// The members of a value inside this one, at `name`.
    pub(super) fn part(&self, value: Value, name: &str, known: &[&[&str]]) -> Self {
        Self::object(value, format!("{}{name}.", self.prefix), known)
    }

    /// Takes over the complaints of a part of this request.
    pub(super) fn absorb(&mut self, part: Self) {
        let room = COMPLAINTS_MAX.saturating_sub(self.complaints.len());
        self.complaints.extend(part.complaints.into_iter().take(room));
    }

    /// The end of reading.
    ///
    /// # Errors
    ///
    /// A [`Problem`] with every complaint.
    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.complaints.is_empty() {
            return Ok(());
        }
        let problem = Problem::complaints(StatusCode::UNPROCESSABLE_ENTITY, self.complaints);
        Err(self.details.into_iter().fold(problem, |problem, (name, value)| problem.detail(&name, value)))
    }

    /// The first complaint, when there is one: for answers per line.
    pub(super) fn into_complaint(self) -> Option<Complaint> {
        self.complaints.into_iter().next()
    }

    /// Whether `name` was given, be it as null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Whether `name` was given as something else than null.
    pub(super) fn given(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| !value.is_null())
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_fine(&self) -> bool {
        self.complaints.is_empty()
    }

    /// The items of a list by their places in it, and what is wrong with the others when each stands alone. When they
    /// do not, or when no item can be read, every complaint is one of the whole request.
    pub(super) fn sorted<T>(&mut self, items: Vec<(T, Self)>, atomic: bool) -> Sorted<T> {
        let alone = !atomic && items.iter().any(|(_, part)| part.is_fine());
        let mut sorted = Sorted { good: Vec::with_capacity(items.len()), bad: Vec::new() };
        for (index, (item, part)) in items.into_iter().enumerate() {
            if part.is_fine() {
                sorted.good.push((index, item));
            } else if alone {
                sorted.bad.extend(part.into_complaint().map(|complaint| (index, complaint, item)));
            } else {
                self.absorb(part);
            }
        }
        sorted
    }

    /// The value as it is; `None` when it is absent or null.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name).filter(|value| !value.is_null())
    }

    fn wrong(&mut self, name: &str, value: &Value, expected: &str) {
        let shown = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let message = format!("must be {expected}, not {}", kind_of(value));
        self.complain(name, Some(&shown), &message, &format!("give {expected}"));
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(name, &other, "a text");
                None
            }
        }
    }

    /// A text that a later getter reads and checks.
    pub(super) fn peek_text(&self, name: &str) -> Option<String> {
        self.values.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    /// A text that must be there; empty when it is not.
    pub(super) fn required_text(&mut self, name: &str) -> String {
        if self.values.get(name).is_none_or(Value::is_null) {
            self.values.remove(name);
            self.complain(name, None, "is missing", "add it: it is required");
            return String::new();
        }
        self.text(name).unwrap_or_default()
    }

    /// A number within `range`.
    pub(super) fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.take(name)?;
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) if self.texts => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong(name, &value, &format!("a number from {} to {}", range.start(), range.end()));
            return None;
        };
        // NaN is in no range.
        if range.contains(&number) {
            return Some(number);
        }
        let expected = format!("from {} to {}", range.start(), range.end());
        self.complain(
            name,
            Some(&number.to_string()),
            &format!("must be {expected}"),
            &format!("give a number {expected}"),
        );
        None
    }

    /// A whole number within `range`.
    pub(super) fn integer(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.take(name)?;
        let expected = if *range.end() == u64::MAX {
            format!("a whole number from {} up", range.start())
        } else {
            format!("a whole number from {} to {}", range.start(), range.end())
        };
        let number: Option<i128> = match &value {
            Value::Number(number) => {
                number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from))
            }
            Value::String(text) if self.texts => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong(name, &value, &expected);
            return None;
        };
        let within = u64::try_from(number).ok().filter(|number| range.contains(number));
        if within.is_none() {
            let message = format!("must be {expected}");
            self.complain(name, Some(&number.to_string()), &message, &format!("give {expected}"));
        }
        within
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            Value::String(text) if self.texts && text == "true" => Some(true),
            Value::String(text) if self.texts && text == "false" => Some(false),
            other => {
                self.wrong(name, &other, "true or false");
                None
            }
        }
    }

    /// A text with a form of its own.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                // These messages carry their remedy after the semicolon.
                let error = T::Err::to_string(&error);
                let (message, remedy) = error.rsplit_once("; ").unwrap_or((&error, "correct it"));
                self.complain(name, Some(&text), message, remedy);
                None
            }
        }
    }

    /// A moment in RFC 3339.
    pub(super) fn time(&mut self, name: &str) -> Option<Timestamp> {
        self.parsed(name)
    }

    /// A stretch of time, from `since` up to `until`, which is not in it; one that holds no moment is a complaint.
    pub(super) fn stretch(&mut self) -> (Option<Timestamp>, Option<Timestamp>) {
        let (since, until) = (self.time("since"), self.time("until"));
        if let (Some(since), Some(until)) = (since, until)
            && until <= since
        {
            let message = format!("is not after since ({since})");
            let remedy = "give a later moment, or leave it out";
            self.complain("until", Some(&until.to_string()), &message, remedy);
        }
        (since, until)
    }

    /// One of a few words; case does not matter.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text));
        if let Some((_, value)) = found {
            return Some(*value);
        }
        let words = choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let meant = MEANT.iter().find(|(said, _)| said.eq_ignore_ascii_case(&text)).map(|(_, meant)| *meant);
        let meant = meant.filter(|meant| choices.iter().any(|(word, _)| word == meant));
        let near = meant.or_else(|| nearest(&text, choices.iter().map(|(word, _)| *word)));
        let remedy = match near {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("use one of: {words}"),
        };
        self.complain(name, Some(&text), &format!("must be one of: {words}"), &remedy);
        None
    }

    /// Some texts: a JSON array, or separated by commas in a query string.
    pub(super) fn texts(&mut self, name: &str) -> Vec<String> {
        match self.take(name) {
            None => Vec::new(),
            Some(Value::String(text)) if self.texts => {
                let parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
                // Nothing at all would mean everything: an empty variable of a script must not.
                if parts.iter().any(String::is_empty) {
                    let remedy = "leave it out, or give words with one comma between two";
                    self.complain(name, Some(&text), "has an empty word", remedy);
                    return Vec::new();
                }
                parts
            }
            Some(Value::Array(items)) => {
                let mut texts = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    match item {
                        // The request is refused already, and nobody is told of more.
                        _ if self.complaints.len() >= COMPLAINTS_MAX => break,
                        Value::String(text) => texts.push(text),
                        other => self.wrong(&format!("{name}[{index}]"), &other, "a text"),
                    }
                }
                texts
            }
            Some(other) => {
                self.wrong(name, &other, "a list of texts");
                Vec::new()
            }
        }
    }

    /// Names of types, as [`texts`](Self::texts) reads them, at most [`TYPES_MAX`].
    pub(super) fn types(&mut self, name: &str) -> Vec<String> {
        let count = match self.values.get(name) {
            Some(Value::Array(items)) => items.len(),
            Some(Value::String(text)) if self.texts => text.split(',').count(),
            _ => 0,
        };
        if count > TYPES_MAX {
            self.values.remove(name);
            let message = format!("has {count} items, the limit is {TYPES_MAX}");
            self.complain(name, None, &message, "name fewer, and send several requests");
            return Vec::new();
        }
        self.texts(name)
    }

    /// A list with at most `items_max` items; a missing one is a complaint when `required`.
    pub(super) fn list(&mut self, name: &str, required: bool, items_max: usize) -> Vec<Value> {
        let given = self.has(name);
        match self.take(name) {
            Some(Value::Array(items)) if items.len() > items_max => {
                let message = format!("has {} items, the limit is {items_max}", items.len());
                self.complain(name, None, &message, "send several requests, or NDJSON, one item a line");
                Vec::new()
            }
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.wrong(name, &other, "a list");
                Vec::new()
            }
            None => {
                if required && !given {
                    self.complain(name, None, "is missing", "add it: it is required");
                } else if required {
                    self.complain(name, Some("null"), "must be a list", "give a list");
                }
                Vec::new()
            }
        }
    }

    /// A JSON object as text: `None` when absent, `Some(None)` when null.
    #[expect(
        clippy::option_option,
        reason = "absent, null and an object are three things, as in the command"
    )]
    pub(super) fn metadata(&mut self, name: &str) -> Option<Option<String>> {
        match self.values.remove(name)? {
            Value::Null => Some(None),
            value @ Value::Object(_) => Some(Some(value.to_string())),
            other => {
                self.wrong(name, &other, "a JSON object");
                None
            }
        }
    }

    /// `valid_from` and `valid_to`; `None` when neither was given.
    pub(super) fn validity(&mut self) -> Option<Validity> {
        if !self.has("valid_from") && !self.has("valid_to") {
            return None;
        }
        let validity = Validity { from: self.time("valid_from"), to: self.time("valid_to") };
        if let (Some(from), Some(to)) = (validity.from, validity.to)
            && to <= from
        {
            self.complain(
                "valid_to",
                Some(&to.to_string()),
                &format!("is not after valid_from ({from})"),
                "give a later moment or leave it out",
            );
        }
        Some(validity)
    }

    /// A new validity for something that has one: both ends or neither, so that nobody closes an end unasked.
    pub(super) fn validity_change(&mut self) -> Option<Validity> {
        for (given, other) in [("valid_from", "valid_to"), ("valid_to", "valid_from")] {
            if self.has(given) && !self.has(other) {
                self.complain(
                    other,
                    None,
                    &format!("is missing beside {given}"),
                    "give both ends; null leaves an end open",
                );
                return None;
            }
        }
        self.validity()
    }
}

/// The items of a list with their places: those that were read, and those that were not.
pub(super) struct Sorted<T> {
    pub(super) good: Vec<(usize, T)>,
    pub(super) bad: Vec<(usize, Complaint, T)>,
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number of this kind",
        Value::String(_) => "this text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Undoes percent-encoding and `+`.
fn decoded(text: &str) -> Result<String, Problem> {
    let malformed = |message: &str| {
        Problem::new(StatusCode::BAD_REQUEST, "MALFORMED_QUERY", format!("the query string {message}"))
            .value(text)
            .remedy("percent-encode it as UTF-8, as in q=caf%C3%A9")
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = rest.next().and_then(hex).zip(rest.next().and_then(hex));
                let (high, low) = digits.ok_or_else(|| malformed("has a % without two hex digits"))?;
                bytes.push(high << 4 | low);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed("is not UTF-8"))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests;
