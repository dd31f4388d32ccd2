//! `caxton config explain`: what a key means, what it holds now and why, what the program does with it, and how to see that.

mod agents;
mod entries;
mod memory;
mod server;
#[cfg(test)]
mod tests;
mod tuning;

use serde::Serialize;
use serde_json::Value;

use super::aliases::canonical;
use super::effect;
use super::environment;
use super::load::{Loaded, Origin};
use super::setting::RowField;
use super::show::{aliases_of, canonical_keys, paired};
use super::table::{Known, known, nearest, value_of, with_key};

/// What there is to say about a name.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Explained {
    /// About one key.
    Key(Box<ExplainedKey>),
    /// About the keys below a section.
    Section {
        /// The section; empty for all there are.
        section: String,
        /// Its keys, in order of their names.
        keys: Vec<KeyLine>,
    },
}

/// One key.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedKey {
    /// Its name.
    pub key: String,
    /// Its other names.
    pub aliases: Vec<&'static str>,
    /// What it means.
    pub about: &'static str,
    /// What it takes, with its bounds.
    pub takes: String,
    /// What it holds when nobody says otherwise.
    pub default: Value,
    /// What it holds.
    pub value: Value,
    /// Where that came from, as in `caxton.yaml:12:5` or `default`.
    pub source: String,
    /// The variable that sets it.
    pub variable: String,
    /// What the program does differently; `None` where no value changes anything.
    pub effect: Option<&'static str>,
    /// The command, answer or metric that shows it.
    pub see: Option<&'static str>,
    /// Why the value in force changes nothing, or none does.
    pub without_effect: Option<&'static str>,
    /// The keys of each row, for a key that holds rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowField>,
}

/// One key of a section.
#[derive(Debug, Clone, Serialize)]
pub struct KeyLine {
    /// Its name.
    pub key: &'static str,
    /// What it means.
    pub about: &'static str,
    /// What it holds.
    pub value: Value,
    /// Where that came from.
    pub source: String,
    /// Why the value in force changes nothing, or none does.
    pub without_effect: Option<&'static str>,
}

/// A name that no key and no section has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no key {name:?}; {remedy}")]
pub struct UnknownKey {
    /// The name, as it was asked for.
    pub name: String,
    /// The names it was probably meant to be.
    pub nearest: Vec<&'static str>,
    remedy: String,
}

/// Explains the key `name`, an alias of one, or every key below the section `name`; the empty name is above all.
///
/// ```
/// use caxton::config::{Explained, Sources, explain, load};
///
/// let loaded = load(&Sources::default())?;
/// let Ok(Explained::Key(key)) = explain(&loaded, "memory.search.limit") else { unreachable!() };
/// assert_eq!(key.value, 10);
/// # Ok::<(), caxton::config::LoadError>(())
/// ```
///
/// # Errors
///
/// [`UnknownKey`] with the nearest names.
pub fn explain(loaded: &Loaded, name: &str) -> Result<Explained, UnknownKey> {
    let name = name.trim().trim_end_matches('.');
    match known(name) {
        Some(Known::Key) => Ok(Explained::Key(Box::new(key(loaded, &canonical(name))))),
        Some(Known::Section) => Ok(section(loaded, &canonical(name))),
        None if name.is_empty() => Ok(section(loaded, name)),
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> UnknownKey {
    let nearest = nearest(name);
    let remedy = match nearest.as_slice() {
        [] => "`caxton config explain` lists all".to_owned(),
        [only] => format!("did you mean {only}?"),
        several => format!("the nearest are {}", several.join(", ")),
    };
    UnknownKey { name: name.to_owned(), nearest, remedy }
}

fn section(loaded: &Loaded, name: &str) -> Explained {
    let below =
        |key: &&str| name.is_empty() || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let line = |key: &'static str| KeyLine {
        key,
        about: described(key).0,
        value: value_of(&loaded.config, key),
        source: source(loaded, key),
        without_effect: without_effect(loaded, key),
    };
    let keys = canonical_keys().filter(below).map(line).collect();
    Explained::Section { section: name.to_owned(), keys }
}

fn key(loaded: &Loaded, name: &str) -> ExplainedKey {
    let (about, takes, default, rows) = described(name);
    let entry = entries::of(name);
    ExplainedKey {
        key: name.to_owned(),
        aliases: aliases_of(name),
        about,
        takes,
        default,
        value: value_of(&loaded.config, name),
        source: source(loaded, name),
        variable: environment::variable_of(name),
        effect: entry.map(|entry| entry.effect),
        see: entry.map(|entry| entry.see),
        without_effect: without_effect(loaded, name),
        rows,
    }
}

fn without_effect(loaded: &Loaded, key: &str) -> Option<&'static str> {
    effect::reason(&loaded.config, key).or_else(|| effect::never(key))
}

/// What a key means and takes, its default, and the keys of its rows.
fn described(name: &str) -> (&'static str, String, Value, Vec<RowField>) {
    let described = with_key(&mut super::Config::default(), name, |leaf| {
        let takes = leaf.setting.takes(leaf.limits);
        (leaf.doc.trim(), takes, leaf.setting.show(), leaf.setting.rows())
    });
    described.unwrap_or_default()
}

fn source(loaded: &Loaded, key: &str) -> String {
    match loaded.origin(key) {
        Some(origin) => placed(origin, key),
        None => paired(loaded, key).unwrap_or_else(|| "default".to_owned()),
    }
}

fn placed(origin: &Origin, key: &str) -> String {
    super::show::from(origin, key)
}
