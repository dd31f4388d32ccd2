//! Maps of front matter, read key by key: every value is checked where it is taken, unknown keys are named at the end.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use super::fault::{Faults, Phase, Spot};
use crate::config::document::{Entry, Node, NodeId, Yaml};
use crate::config::parse_duration;

/// How alike two keys must be to suggest one for the other.
const ALIKE: f64 = 0.8;
/// Items of one list at most.
pub(super) const ITEMS_MAX: usize = 256;
/// Maps and lists inside one another at most.
pub(super) const DEPTH_MAX: usize = 16;

/// A text and the node that holds it.
pub(super) type Placed = (NodeId, String);

/// One map, of which some keys have been taken.
pub(super) struct Section<'a> {
    path: String,
    entries: &'a [Entry],
    known: BTreeSet<&'static str>,
    phase: Phase,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    /// The map `entries`, whose keys are called `path.key`. A key that is given twice is a fault.
    pub(super) fn new(path: &str, entries: &'a [Entry], faults: &'a Faults) -> Self {
        let mut seen = BTreeSet::new();
        for entry in entries {
            if !seen.insert(entry.key.as_str()) {
                let reason = format!("{} is given twice", entry.key);
                let field = below(path, &entry.key);
                faults.add(Phase::Syntax, Spot::Node(entry.key_id), &field, reason, "remove one of them");
            }
        }
        Self { path: path.to_owned(), entries, known: BTreeSet::new(), phase: Phase::Values, faults }
    }

    /// The dotted name of `key`.
    pub(super) fn name(&self, key: &str) -> String {
        below(&self.path, key)
    }

    /// The value of `key`; nothing and `null` are the same.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.insert(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (entry.value.value != Yaml::Null).then_some(&entry.value)
    }

    /// The place of `key`, of the first of the file where it is missing.
    pub(super) fn spot(&self, key: &str) -> Spot {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map_or(Spot::File, |entry| Spot::Node(entry.key_id))
    }

    /// Notes that `node`, the value of `key`, is not what the key takes.
    pub(super) fn wrong(&self, key: &str, node: &Node, takes: &str) {
        let reason = format!("{} is not {takes}", node.value.shown());
        self.fault(key, node, &reason, &format!("write {takes}"));
    }

    /// Notes a fault of the value of `key`.
    pub(super) fn fault(&self, key: &str, node: &Node, reason: &str, remedy: &str) {
        self.faults.add(self.phase, Spot::Node(node.id), &self.name(key), reason, remedy);
    }

    /// Notes something harmless about `key`.
    pub(super) fn warn(&self, key: &str, reason: &str, remedy: &str) {
        self.faults.warn(self.spot(key), &self.name(key), reason, remedy);
    }

    /// A text of at most `bytes_max`, with its node.
    pub(super) fn placed_text(&mut self, key: &'static str, bytes_max: usize) -> Option<Placed> {
        let node = self.take(key)?;
        let takes = format!("a text of 1 to {bytes_max} bytes");
        match &node.value {
            Yaml::Text(text) if !text.trim().is_empty() && text.len() <= bytes_max => {
                Some((node.id, text.clone()))
            }
            Yaml::Text(_)
            | Yaml::Null
            | Yaml::Bool(_)
            | Yaml::Whole(_)
            | Yaml::Real(_)
            | Yaml::List(_)
            | Yaml::Map(_) => {
                self.wrong(key, node, &takes);
                None
            }
        }
    }

    /// A text of at most `bytes_max`.
    pub(super) fn text(&mut self, key: &'static str, bytes_max: usize) -> Option<String> {
        self.placed_text(key, bytes_max).map(|(_, text)| text)
    }

    /// A value without inner parts, as text: dates and numbers are written bare.
    pub(super) fn loose_text(&mut self, key: &'static str) -> Option<String> {
        let node = self.take(key)?;
        match &node.value {
            Yaml::Text(text) => Some(text.clone()),
            Yaml::Bool(_) | Yaml::Whole(_) | Yaml::Real(_) => Some(node.value.shown()),
            Yaml::Null | Yaml::List(_) | Yaml::Map(_) => {
                self.wrong(key, node, "a text");
                None
            }
        }
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        if let Yaml::Bool(flag) = node.value {
            return Some(flag);
        }
        self.wrong(key, node, "true or false");
        None
    }

    /// A whole number.
    pub(super) fn whole(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.take(key)?;
        let found = if let Yaml::Whole(number) = node.value { u64::try_from(number).ok() } else { None };
        let found = found.filter(|number| range.contains(number));
        if found.is_none() {
            self.wrong(key, node, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        found
    }

    /// A whole number that fits a size.
    pub(super) fn count(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
        self.whole(key, range).and_then(|number| usize::try_from(number).ok())
    }

    /// A number.
    pub(super) fn real(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let node = self.take(key)?;
        let found = match node.value {
            Yaml::Whole(number) => Some(number as f64),
            Yaml::Real(number) => Some(number),
            Yaml::Null | Yaml::Bool(_) | Yaml::Text(_) | Yaml::List(_) | Yaml::Map(_) => None,
        };
        let found = found.filter(|number| range.contains(number));
        if found.is_none() {
            self.wrong(key, node, &format!("a number from {} to {}", range.start(), range.end()));
        }
        found
    }

    /// A duration from 1 ms to 7 days.
    pub(super) fn time(&mut self, key: &'static str) -> Option<Duration> {
        let node = self.take(key)?;
        let range = Duration::from_millis(1)..=Duration::from_hours(24 * 7);
        let what = match node.value.text().and_then(parse_duration) {
            Some(found) if range.contains(&found) => return Some(found),
            Some(_) => "is not within its bounds",
            None => "is not a duration",
        };
        let reason = format!("{} {what}", node.value.shown());
        self.fault(key, node, &reason, "write a duration from 1ms to 7d, such as 500ms, 10s or 5m");
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let node = self.take(key)?;
        let found = node.value.text().and_then(|text| {
            words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, choice)| *choice)
        });
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let suggested = node.value.text().and_then(|text| nearest(text, words.iter().copied()));
            let takes = format!("one of {}", words.join(", "));
            let remedy =
                suggested.map_or_else(|| format!("write {takes}"), |near| format!("did you mean {near}?"));
            self.fault(key, node, &format!("{} is not {takes}", node.value.shown()), &remedy);
        }
        found
    }

    /// The items of a list.
    pub(super) fn list(&mut self, key: &'static str) -> Option<&'a [Node]> {
        let node = self.take(key)?;
        let Yaml::List(items) = &node.value else {
            self.wrong(key, node, "a list, one `- item` a line");
            return None;
        };
        if items.len() > ITEMS_MAX {
            let reason = format!("the list has {} items, the limit is {ITEMS_MAX}", items.len());
            self.fault(key, node, &reason, "shorten it");
            return None;
        }
        Some(items)
    }

    /// The texts of a list.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let items = self.list(key)?;
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.value.text() {
                Some(text) if !text.trim().is_empty() => texts.push(text.to_owned()),
                _ => self.wrong(&format!("{key}[{index}]"), item, "a text"),
            }
        }
        Some(texts)
    }

    /// The map below `key`.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let node = self.take(key)?;
        let Yaml::Map(entries) = &node.value else {
            self.wrong(key, node, "a map of keys");
            return None;
        };
        Some(Section::new(&self.name(key), entries, self.faults))
    }

    /// The map below `key`, whatever its keys.
    pub(super) fn free(&mut self, key: &'static str) -> Option<Map<String, Value>> {
        let node = self.take(key)?;
        if let (Yaml::Map(entries), Value::Object(map)) = (&node.value, to_json(node)) {
            Section::new(&self.name(key), entries, self.faults);
            return Some(map);
        }
        self.wrong(key, node, "a map of keys");
        None
    }

    /// The entries of the map below `key`, for maps whose keys are names.
    pub(super) fn named(&mut self, key: &'static str) -> &'a [Entry] {
        let Some(node) = self.take(key) else { return &[] };
        let Yaml::Map(entries) = &node.value else {
            self.wrong(key, node, "a map of names");
            return &[];
        };
        Section::new(&self.name(key), entries, self.faults);
        entries
    }

    /// Keys that other systems know and that change nothing here.
    pub(super) fn ignore(&mut self, keys: &[&'static str]) {
        for key in keys {
            if self.take(key).is_some() {
                self.warn(key, &format!("{key} has no effect here"), "remove it, or leave it as a note");
            }
        }
    }

    /// Names whatever was not taken, with the nearest key.
    pub(super) fn finish(self) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(entry.key.as_str())) {
            let remedy = nearest(&entry.key, self.known.iter().copied()).map_or_else(
                || format!("the keys here are {}", self.known.iter().copied().collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean {near}?"),
            );
            let (field, reason) = (self.name(&entry.key), format!("unknown key {}", entry.key));
            self.faults.warn(Spot::Node(entry.key_id), &field, reason, &remedy);
        }
    }
}

/// `key` below `path`.
fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The word of `known` that is most like `word`, when one is like it.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase();
    known
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_lowercase()), candidate))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A node as JSON.
pub(super) fn to_json(node: &Node) -> Value {
    match &node.value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(*flag),
        Yaml::Whole(number) => i64::try_from(*number)
            .map(Value::from)
            .or_else(|_| u64::try_from(*number).map(Value::from))
            .unwrap_or(Value::Null),
        Yaml::Real(number) => Value::from(*number),
        Yaml::Text(text) => Value::from(text.as_str()),
        Yaml::List(items) => items.iter().map(to_json).collect(),
        Yaml::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), to_json(&entry.value))).collect())
        }
    }
}

/// The first node that lies deeper than [`DEPTH_MAX`].
pub(super) fn too_deep(node: &Node, depth: usize) -> Option<NodeId> {
    if depth > DEPTH_MAX {
        return Some(node.id);
    }
    match &node.value {
        Yaml::List(items) => items.iter().find_map(|item| too_deep(item, depth + 1)),
        Yaml::Map(entries) => entries.iter().find_map(|entry| too_deep(&entry.value, depth + 1)),
        Yaml::Null | Yaml::Bool(_) | Yaml::Whole(_) | Yaml::Real(_) | Yaml::Text(_) => None,
    }
}
