//! The arguments of a call by name: what is wrong with one is told with what to do instead.

#![allow(clippy::wildcard_enum_match_arm, reason = "JSON has six kinds of values and will not get a seventh")]

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::ToolError;

/// Characters of a wrong value that are repeated in the error.
const SHOWN_CHARS_MAX: usize = 80;

/// The arguments of one call. `null` is as good as absent.
#[derive(Debug)]
pub(super) struct Arguments<'a>(&'a Map<String, Value>);

impl<'a> Arguments<'a> {
    /// The members of `value`, of which only `known` may occur.
    pub(super) fn of(value: &'a Value, known: &[&str]) -> Result<Self, ToolError> {
        let Value::Object(values) = value else {
            let reason = format!("must be a JSON object, not {}", kind_of(value));
            return Err(ToolError::argument("arguments", reason, "write {\"name\": value, …}"));
        };
        match values.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                let remedy = format!("known are: {}", known.join(", "));
                Err(ToolError::argument(&shortened(name), "is no known argument", remedy))
            }
            None => Ok(Self(values)),
        }
    }

    /// The value as it is.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Yes or no.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ToolError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(wrong(name, other, "true or false")),
        }
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ToolError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, other, "a text")),
        }
    }

    /// A text that must be there and say something.
    pub(super) fn required(&self, name: &str) -> Result<&'a str, ToolError> {
        match self.text(name)? {
            None => Err(ToolError::argument(name, "is missing", "add it: it is required")),
            Some(text) if text.trim().is_empty() => {
                Err(ToolError::argument(name, "is empty", "give a text that says something"))
            }
            Some(text) => Ok(text),
        }
    }

    /// A text that reads as a `T`.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ToolError> {
        self.text(name)?.map(|text| parse(name, text)).transpose()
    }

    /// A whole number within `range`.
    pub(super) fn count(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ToolError> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        let Some(value) = self.value(name) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(wrong(name, value, &expected())),
        }
    }

    /// A number within `range`.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ToolError> {
        let expected = || format!("a number from {} to {}", range.start(), range.end());
        let Some(value) = self.value(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(wrong(name, value, &expected())),
        }
    }

    /// A list of texts; one text alone counts as a list of one. Empty when absent.
    pub(super) fn texts(&self, name: &str, max: usize) -> Result<Vec<String>, ToolError> {
        let items = match self.value(name) {
            None => return Ok(Vec::new()),
            Some(Value::String(text)) => return Ok(vec![text.clone()]),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(wrong(name, other, "a list of texts")),
        };
        if items.len() > max {
            let reason = format!("has {} items, the limit is {max}", items.len());
            return Err(ToolError::argument(name, reason, "make several calls"));
        }
        let text = |(index, item): (usize, &Value)| match item {
            Value::String(text) => Ok(text.clone()),
            other => Err(wrong(&format!("{name}[{index}]"), other, "a text")),
        };
        items.iter().enumerate().map(text).collect()
    }

    /// An object.
    pub(super) fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, ToolError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(other) => Err(wrong(name, other, "a JSON object")),
        }
    }
}

/// `text` as a `T`, or the argument `name` is wrong.
pub(super) fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, ToolError> {
    text.parse().map_err(|error: T::Err| ToolError::argument(name, error.to_string(), "give another"))
}

fn wrong(name: &str, value: &Value, expected: &str) -> ToolError {
    let shown = match value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => shortened(&value.to_string()),
        other => kind_of(other).to_owned(),
    };
    ToolError::argument(name, format!("must be {expected}, not {shown}"), format!("give {expected}"))
}

/// `text` cut to what fits into an error.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The longest start of `text` that takes at most `bytes`.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The longest start of `text` that takes at most `bytes` as a JSON string, without its quotes.
pub(super) fn fitting(text: &str, bytes: usize) -> &str {
    let mut taken = 0;
    for (at, sign) in text.char_indices() {
        taken += match sign {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            _ => sign.len_utf8(),
        };
        if taken > bytes {
            return &text[..at];
        }
    }
    text
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use serde_json::json;

    use super::*;

    const KNOWN: &[&str] = &["a", "b"];

    #[track_caller]
    fn says<T: std::fmt::Debug>(result: Result<T, ToolError>, text: &str) {
        assert_eq!(result.unwrap_err().to_string(), text);
    }

    #[test]
    fn arguments_are_an_object_of_known_names() {
        for value in [json!(null), json!(1), json!("x"), json!([]), json!(true)] {
            let error = Arguments::of(&value, KNOWN).unwrap_err();
            assert!(error.to_string().starts_with("arguments: must be a JSON object, not "), "{error}");
        }
        says(Arguments::of(&json!({"c": 1}), KNOWN), "c: is no known argument; known are: a, b");
    }

    #[test]
    fn each_kind_of_value_says_what_it_takes() {
        let value = json!({"a": 7, "b": null});
        let arguments = Arguments::of(&value, KNOWN).unwrap();
        assert_eq!(arguments.count("a", 1..=7).unwrap(), Some(7));
        assert_eq!(arguments.text("b").unwrap(), None);
        says(arguments.required("b"), "b: is missing; add it: it is required");
        says(arguments.text("a"), "a: must be a text, not 7; give a text");
        says(
            arguments.count("a", 1..=6),
            "a: must be a whole number from 1 to 6, not 7; give a whole number from 1 to 6",
        );
        says(
            arguments.number("a", 0.0..=1.0),
            "a: must be a number from 0 to 1, not 7; give a number from 0 to 1",
        );
        says(arguments.object("a"), "a: must be a JSON object, not 7; give a JSON object");
        says(arguments.texts("a", 2), "a: must be a list of texts, not 7; give a list of texts");
    }

    #[test]
    fn a_list_of_texts_may_be_one_text_and_has_a_limit() {
        let value = json!({"a": "one", "b": ["x", "y", 3]});
        let arguments = Arguments::of(&value, KNOWN).unwrap();
        assert_eq!(arguments.texts("a", 1).unwrap(), ["one"]);
        says(arguments.texts("b", 3), "b[2]: must be a text, not 3; give a text");
        says(arguments.texts("b", 2), "b: has 3 items, the limit is 2; make several calls");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!((cut("aä", 2), cut("aä", 3), cut("aä", 9)), ("a", "aä", "aä"));
        assert_eq!(shortened(&"ä".repeat(81)).chars().count(), 81);
    }
}
