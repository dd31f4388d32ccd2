//! What a key may hold: the trait behind every setting, and the macros that declare sections and choices.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::document::{Entry, Node, NodeId, Yaml};
use super::units::{Bytes, format_duration, parse_bytes, parse_duration};

/// What a value must lie in, beside being of the right type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limits {
    /// Whatever the type holds.
    Any,
    /// A whole number from `min` to `max`.
    Whole { min: u64, max: u64 },
    /// A power of two from `min` to `max`.
    PowerOfTwo { min: u64, max: u64 },
    /// A number from `min` to `max`.
    Real { min: f64, max: f64 },
    /// A duration from `min` to `max`.
    Time { min: Duration, max: Duration },
    /// A text of at least one character.
    NotEmpty,
}

/// A whole number from `min` to `max`.
pub(crate) const fn whole(min: u64, max: u64) -> Limits {
    Limits::Whole { min, max }
}

/// A share: 0 to 1.
pub(crate) const fn share() -> Limits {
    Limits::Real { min: 0.0, max: 1.0 }
}

/// A duration from `min` to `max` milliseconds.
pub(crate) const fn millis(min: u64, max: u64) -> Limits {
    Limits::Time { min: Duration::from_millis(min), max: Duration::from_millis(max) }
}

/// A day in milliseconds.
pub(crate) const DAY: u64 = 86_400_000;

/// A value that does not fit its key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wrong {
    /// The node to point at.
    pub(crate) node: NodeId,
    /// What to add to the key's name, as in `[2].priority`; empty for the key itself.
    pub(crate) below: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) remedy: String,
}

impl Wrong {
    fn new(node: &Node, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { node: node.id, below: String::new(), message: message.into(), remedy: remedy.into() }
    }

    fn kind(node: &Node, takes: &str) -> Self {
        Self::new(node, format!("{} is not {takes}", node.value.shown()), format!("write {takes}"))
    }

    fn below(mut self, part: &str) -> Self {
        self.below.insert_str(0, part);
        self
    }
}

/// A value that one key holds.
pub(crate) trait Setting {
    /// Takes the value of `node` over, or says why not and stays as it was.
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong>;
    /// The value as JSON, in the form in which it is written.
    fn show(&self) -> serde_json::Value;
    /// What may be written, with its bounds, as in "a whole number from 1 to 64".
    fn takes(&self, limits: Limits) -> String;
}

/// One field of a section.
pub(crate) struct Field<'a> {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) limits: Limits,
    pub(crate) slot: Slot<'a>,
}

/// A section below, or a value.
pub(crate) enum Slot<'a> {
    Section(&'a mut dyn Section),
    Key(&'a mut dyn Setting),
}

/// A map of known keys.
pub(crate) trait Section {
    /// Its fields, in the order in which they are documented.
    fn fields(&mut self) -> Vec<Field<'_>>;
}

/// Whatever can be a field.
pub(crate) trait Fill {
    fn slot(&mut self) -> Slot<'_>;
}

/// Declares a section: a struct with documented public fields, each with its default and its limits.
macro_rules! section {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[doc = $doc:literal])+ pub $field:ident: $type:ty = $default:expr $(, $limits:expr)?;)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::config::setting::Section for $name {
            fn fields(&mut self) -> Vec<$crate::config::setting::Field<'_>> {
                vec![$($crate::config::setting::Field {
                    name: stringify!($field),
                    doc: concat!($($doc),+),
                    limits: $crate::config::setting::section!(@limits $($limits)?),
                    slot: $crate::config::setting::Fill::slot(&mut self.$field),
                },)*]
            }
        }

        impl $crate::config::setting::Fill for $name {
            fn slot(&mut self) -> $crate::config::setting::Slot<'_> {
                $crate::config::setting::Slot::Section(self)
            }
        }
    };
    (@limits) => { $crate::config::setting::Limits::Any };
    (@limits $limits:expr) => { $limits };
}
pub(crate) use section;

/// Declares a setting that takes one of a few words.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$doc:meta])+ $variant:ident = $word:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])+ $variant,)+
        }

        impl $name {
            /// The words that may be written, in the order of the variants.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            fn from_word(word: &str) -> Option<Self> {
                [$(($word, Self::$variant)),+]
                    .into_iter()
                    .find_map(|(known, choice)| known.eq_ignore_ascii_case(word).then_some(choice))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::config::setting::Setting for $name {
            fn set(
                &mut self,
                node: &$crate::config::document::Node,
                _: $crate::config::setting::Limits,
            ) -> Result<(), $crate::config::setting::Wrong> {
                *self = $crate::config::setting::word(node, Self::WORDS, Self::from_word)?;
                Ok(())
            }

            fn show(&self) -> serde_json::Value {
                self.as_str().into()
            }

            fn takes(&self, _: $crate::config::setting::Limits) -> String {
                $crate::config::setting::one_of(Self::WORDS)
            }
        }

        $crate::config::setting::keys!($name);
    };
}
pub(crate) use choice;

/// Makes types usable as fields that hold one value.
macro_rules! keys {
    ($($type:ty),+) => {
        $(impl $crate::config::setting::Fill for $type {
            fn slot(&mut self) -> $crate::config::setting::Slot<'_> {
                $crate::config::setting::Slot::Key(self)
            }
        })+
    };
}
pub(crate) use keys;

keys!(bool, u16, u32, u64, usize, f64, String, PathBuf, Duration, Bytes, SocketAddr, Vec<String>);

impl<T: Setting + Default> Fill for Option<T> {
    fn slot(&mut self) -> Slot<'_> {
        Slot::Key(self)
    }
}

impl<T: Section + Default + Clone> Fill for Rows<T> {
    fn slot(&mut self) -> Slot<'_> {
        Slot::Key(self)
    }
}

pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [only] => format!("`{only}`"),
        _ => format!("one of {}", words.join(", ")),
    }
}

pub(crate) fn word<T>(node: &Node, words: &[&str], from: fn(&str) -> Option<T>) -> Result<T, Wrong> {
    let given = match &node.value {
        Yaml::Text(text) => text.clone(),
        // `off` is a word here, but YAML 1.1 tools write it as `false`.
        Yaml::Bool(false) if words.contains(&"off") => "off".to_owned(),
        Yaml::Null if words.contains(&"none") => "none".to_owned(),
        Yaml::Null | Yaml::Bool(_) | Yaml::Whole(_) | Yaml::Real(_) | Yaml::List(_) | Yaml::Map(_) => {
            return Err(Wrong::kind(node, &one_of(words)));
        }
    };
    from(&given).ok_or_else(|| Wrong::kind(node, &one_of(words)))
}

impl Setting for bool {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let Yaml::Bool(value) = node.value else { return Err(Wrong::kind(node, &self.takes(limits))) };
        *self = value;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }

    fn takes(&self, _: Limits) -> String {
        "true or false".to_owned()
    }
}

/// The bounds of a whole number of a type that holds up to `type_max`.
fn whole_bounds(limits: Limits, type_max: u64) -> (u64, u64, bool) {
    match limits {
        Limits::Whole { min, max } => (min, max.min(type_max), false),
        Limits::PowerOfTwo { min, max } => (min, max.min(type_max), true),
        Limits::Any | Limits::Real { .. } | Limits::Time { .. } | Limits::NotEmpty => (0, type_max, false),
    }
}

fn check_whole(node: &Node, value: i128, limits: Limits, type_max: u64) -> Result<u64, Wrong> {
    let (min, max, power) = whole_bounds(limits, type_max);
    let found = u64::try_from(value).ok().filter(|found| (min..=max).contains(found));
    match found {
        Some(found) if !power || found.is_power_of_two() => Ok(found),
        _ => Err(Wrong::kind(node, &takes_whole(limits, type_max))),
    }
}

fn takes_whole(limits: Limits, type_max: u64) -> String {
    let (min, max, power) = whole_bounds(limits, type_max);
    let what = if power { "a power of two" } else { "a whole number" };
    match (min, max) {
        (min, max) if max > 1 << 40 => format!("{what} of at least {min}"),
        (min, max) => format!("{what} from {min} to {max}"),
    }
}

/// The largest value of a type, as far as 64 bits go.
fn type_max<T: TryInto<u64>>(max: T) -> u64 {
    max.try_into().unwrap_or(u64::MAX)
}

macro_rules! whole_settings {
    ($($type:ty),+) => {
        $(impl Setting for $type {
            fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
                let Yaml::Whole(value) = node.value else {
                    return Err(Wrong::kind(node, &self.takes(limits)));
                };
                let value = check_whole(node, value, limits, type_max(<$type>::MAX))?;
                *self = value as $type;
                Ok(())
            }

            fn show(&self) -> serde_json::Value {
                json!(self)
            }

            fn takes(&self, limits: Limits) -> String {
                takes_whole(limits, type_max(<$type>::MAX))
            }
        })+
    };
}
whole_settings!(u16, u32, u64, usize);

fn real_bounds(limits: Limits) -> (f64, f64) {
    if let Limits::Real { min, max } = limits { (min, max) } else { (f64::MIN, f64::MAX) }
}

fn time_bounds(limits: Limits) -> (Duration, Duration) {
    if let Limits::Time { min, max } = limits { (min, max) } else { (Duration::ZERO, Duration::MAX) }
}

impl Setting for f64 {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let value = match node.value {
            Yaml::Real(value) => value,
            Yaml::Whole(value) => value as Self,
            Yaml::Null | Yaml::Bool(_) | Yaml::Text(_) | Yaml::List(_) | Yaml::Map(_) => Self::NAN,
        };
        let (min, max) = real_bounds(limits);
        if !(min..=max).contains(&value) {
            return Err(Wrong::kind(node, &self.takes(limits)));
        }
        *self = value;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }

    fn takes(&self, limits: Limits) -> String {
        let (min, max) = real_bounds(limits);
        format!("a number from {min} to {max}")
    }
}

impl Setting for String {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        if let Yaml::Text(value) = &node.value
            && !(limits == Limits::NotEmpty && value.trim().is_empty())
        {
            self.clone_from(value);
            return Ok(());
        }
        Err(Wrong::kind(node, &self.takes(limits)))
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }

    fn takes(&self, limits: Limits) -> String {
        if limits == Limits::NotEmpty { "a text that is not empty".to_owned() } else { "a text".to_owned() }
    }
}

impl Setting for PathBuf {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        if let Yaml::Text(value) = &node.value
            && !value.is_empty()
            && !value.contains('\0')
        {
            *self = Self::from(value);
            return Ok(());
        }
        Err(Wrong::kind(node, &self.takes(limits)))
    }

    fn show(&self) -> serde_json::Value {
        json!(self.to_string_lossy())
    }

    fn takes(&self, _: Limits) -> String {
        "a path".to_owned()
    }
}

impl Setting for Duration {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        if let Yaml::Whole(number) = node.value {
            let remedy = format!("write a unit, as in {number}s (ms, s, m, h or d)");
            return Err(Wrong::new(node, format!("{number} is a duration without a unit"), remedy));
        }
        let found = node.value.text().and_then(parse_duration);
        let (min, max) = time_bounds(limits);
        let Some(value) = found.filter(|found| (min..=max).contains(found)) else {
            return Err(Wrong::kind(node, &self.takes(limits)));
        };
        *self = value;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(format_duration(*self))
    }

    fn takes(&self, limits: Limits) -> String {
        let (min, max) = time_bounds(limits);
        if max == Self::MAX {
            return "a duration such as 30s".to_owned();
        }
        format!("a duration from {} to {}, such as 30s", format_duration(min), format_duration(max))
    }
}

impl Setting for Bytes {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let written = if let Yaml::Whole(number) = node.value { Some(number) } else { None };
        let Some(found) = written.or_else(|| node.value.text().and_then(parse_bytes)) else {
            return Err(Wrong::kind(node, &self.takes(limits)));
        };
        check_whole(node, found, limits, u64::MAX)
            .map_err(|_| Wrong::kind(node, &self.takes(limits)))
            .map(|bytes| *self = Self(bytes as usize))
    }

    fn show(&self) -> serde_json::Value {
        json!(self.0)
    }

    fn takes(&self, limits: Limits) -> String {
        if let Limits::Whole { min, max } = limits {
            return format!("a size from {min} to {max} bytes, such as 8192 or 8KB");
        }
        "a size in bytes, such as 8192 or 8KB".to_owned()
    }
}

impl Setting for SocketAddr {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let found = node.value.text().and_then(|text| text.replace("localhost:", "127.0.0.1:").parse().ok());
        *self = found.ok_or_else(|| Wrong::kind(node, &self.takes(limits)))?;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(self.to_string())
    }

    fn takes(&self, _: Limits) -> String {
        "an IP address with a port, such as 127.0.0.1:8080".to_owned()
    }
}

impl Setting for Vec<String> {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let Yaml::List(items) = &node.value else { return Err(Wrong::kind(node, &self.takes(limits))) };
        let mut list = Self::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let mut text = String::new();
            text.set(item, Limits::NotEmpty).map_err(|wrong| wrong.below(&format!("[{index}]")))?;
            list.push(text);
        }
        *self = list;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }

    fn takes(&self, _: Limits) -> String {
        "a list of texts".to_owned()
    }
}

/// A value that may be left out: `null` (or nothing) clears it.
impl<T: Setting + Default> Setting for Option<T> {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        *self = if node.value == Yaml::Null {
            None
        } else {
            let mut value = T::default();
            value.set(node, limits)?;
            Some(value)
        };
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, Setting::show)
    }

    fn takes(&self, limits: Limits) -> String {
        T::default().takes(limits)
    }
}

/// A list of maps, each with the keys of `T`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows<T>(pub Vec<T>);

impl<T> Deref for Rows<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Section + Default + Clone> Setting for Rows<T> {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let Yaml::List(items) = &node.value else { return Err(Wrong::kind(node, &self.takes(limits))) };
        let mut rows = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let Yaml::Map(entries) = &item.value else {
                return Err(Wrong::kind(item, "a map of keys").below(&format!("[{index}]")));
            };
            let mut row = T::default();
            fill(&mut row, entries).map_err(|wrong| wrong.below(&format!("[{index}]")))?;
            rows.push(row);
        }
        self.0 = rows;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        self.0.iter().map(|row| show_section(&mut row.clone())).collect()
    }

    fn takes(&self, _: Limits) -> String {
        "a list of maps".to_owned()
    }
}

/// Takes the entries of a map over into a section that is one row of a list.
fn fill(section: &mut dyn Section, entries: &[Entry]) -> Result<(), Wrong> {
    for (index, entry) in entries.iter().enumerate() {
        let Entry { key, key_id, value } = entry;
        let wrong = |message: String, remedy: String| Wrong {
            node: *key_id,
            below: format!(".{key}"),
            message,
            remedy,
        };
        if entries[..index].iter().any(|before| before.key == *key) {
            return Err(wrong(format!("{key} is given twice"), "remove one of them".to_owned()));
        }
        let mut fields = section.fields();
        let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
        let Some(at) = names.iter().position(|name| name == key) else {
            let remedy = format!("the keys here are {}", names.join(", "));
            return Err(wrong(format!("unknown key {key}"), remedy));
        };
        let Field { limits, slot, .. } = fields.swap_remove(at);
        match (slot, &value.value) {
            (Slot::Key(setting), _) => setting.set(value, limits),
            (Slot::Section(below), Yaml::Map(entries)) => fill(below, entries),
            (Slot::Section(_), _) => Err(Wrong::kind(value, "a map of keys")),
        }
        .map_err(|wrong| wrong.below(&format!(".{key}")))?;
    }
    Ok(())
}

/// A section as a JSON object.
pub(crate) fn show_section(section: &mut dyn Section) -> serde_json::Value {
    let fields = section.fields().into_iter();
    let shown = fields.map(|Field { name, slot, .. }| {
        let value = match slot {
            Slot::Section(below) => show_section(below),
            Slot::Key(setting) => setting.show(),
        };
        (name.to_owned(), value)
    });
    serde_json::Value::Object(shown.collect())
}
