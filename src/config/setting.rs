//! What a key may hold: the trait behind every setting, and the macros that declare sections and choices.

use std::ops::Deref;
use std::time::Duration;

use super::document::{Entry, Node, NodeId, Yaml};
use super::table::ALIKE;

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

/// What a key says it takes that only says where its value belongs, as [`NoKeyHere`](super::NoKeyHere) does.
const NOTHING: &str = "nothing";

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
    pub(crate) fn new(node: &Node, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { node: node.id, below: String::new(), message: message.into(), remedy: remedy.into() }
    }

    pub(crate) fn kind(node: &Node, takes: &str) -> Self {
        Self::new(node, format!("{} is not {takes}", node.value.shown()), format!("write {takes}"))
    }

    /// A size or a time that `what` is said of: how one is written stands in the remedy alone.
    pub(crate) fn measure(node: &Node, what: &str, takes: &str) -> Self {
        Self::new(node, format!("{} {what}", node.value.shown()), format!("write {takes}"))
    }

    pub(crate) fn below(mut self, part: &str) -> Self {
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
    /// The keys of each row, for a setting that holds rows.
    fn rows(&self) -> Vec<RowField> {
        Vec::new()
    }
}

/// One key of the rows of a list.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct RowField {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub about: &'static str,
    /// What it takes, with its bounds.
    pub takes: String,
    /// What it holds when the row does not say.
    pub default: serde_json::Value,
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

    fn rows(&self) -> Vec<RowField> {
        let mut row = T::default();
        let field = |Field { name, doc, limits, slot }: Field<'_>| {
            let (takes, default) = match slot {
                Slot::Section(below) => ("a map of keys".to_owned(), show_section(below)),
                Slot::Key(setting) => (setting.takes(limits), setting.show()),
            };
            RowField { name, about: doc.trim(), takes, default }
        };
        row.fields().into_iter().map(field).collect()
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
            let all = names.join(", ");
            let remedy = match meant(key, &fields) {
                Some(name) => format!("did you mean {name}? The keys here are {all}"),
                None => format!("the keys here are {all}"),
            };
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

/// The key of a row that an unknown one was probably meant to be: none of those that only say where their value belongs.
fn meant(key: &str, fields: &[Field<'_>]) -> Option<&'static str> {
    let takes_some = |field: &&Field<'_>| match &field.slot {
        Slot::Section(_) => true,
        Slot::Key(setting) => setting.takes(field.limits) != NOTHING,
    };
    let likeness = |field: &Field<'_>| (strsim::jaro_winkler(&key.to_lowercase(), field.name), field.name);
    let near = fields.iter().filter(takes_some).map(likeness).filter(|(likeness, _)| *likeness >= ALIKE);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
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
