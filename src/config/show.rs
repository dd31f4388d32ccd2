//! `caxton config show`: the effective values, each with where it came from.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::aliases::canonical;
use super::effect;
use super::load::{Loaded, Origin};
use super::table::{all_keys, value_of, with_key};
use super::{Config, environment};

/// The effective configuration: for people as YAML that can be saved and loaded again, with where each value came
/// from as a comment; for machines as JSON with one object a key.
pub fn show(loaded: &Loaded, as_json: bool) -> String {
    if as_json {
        let keys: Vec<Value> = canonical_keys().map(|key| as_object(loaded, key)).collect();
        return json!({ "keys": keys, "warnings": loaded.warnings }).to_string();
    }
    let mut text = String::new();
    let mut above: Vec<&str> = Vec::new();
    let keys = keys_in_order();
    for key in &keys {
        let parts: Vec<&str> = key.split('.').collect();
        let Some((leaf, sections)) = parts.split_last() else { continue };
        let shared = above.iter().zip(sections).take_while(|(a, b)| a == b).count();
        for (depth, section) in sections.iter().enumerate().skip(shared) {
            let _ = writeln!(text, "{:indent$}{section}:", "", indent = depth * 2);
        }
        above = sections.to_vec();
        let value = value_of(&loaded.config, key);
        let line = format!("{:indent$}{leaf}: {value}", "", indent = sections.len() * 2);
        let _ = writeln!(text, "{line:<48} # {}", comment(loaded, key));
    }
    text
}

/// Every key, with its documentation, what it takes, its default and its variable: the reference of the
/// configuration, as JSON objects.
pub fn known_keys() -> Vec<Value> {
    let mut config = Config::default();
    let described = canonical_keys().filter_map(|key| {
        with_key(&mut config, key, |leaf| {
            let (setting, limits) = (leaf.setting, leaf.limits);
            json!({
                "key": key,
                "about": leaf.doc.trim(),
                "takes": setting.takes(limits),
                "default": setting.show(),
                "variable": environment::variable_of(key),
                "aliases": aliases_of(key),
            })
        })
    });
    described.collect()
}

pub(super) fn canonical_keys() -> impl Iterator<Item = &'static str> {
    all_keys().filter(|key| canonical(key) == *key)
}

/// The other names of a key.
pub(super) fn aliases_of(key: &str) -> Vec<&'static str> {
    all_keys().filter(|alias| *alias != key && canonical(alias) == key).collect()
}

/// The keys as they are declared: a section's own before those of sections below it.
fn keys_in_order() -> Vec<String> {
    use super::setting::{Section, Slot};
    fn below(section: &mut dyn Section, prefix: &str, keys: &mut Vec<String>) {
        let mut sections = Vec::new();
        for field in section.fields() {
            let path = super::table::join(prefix, field.name);
            match field.slot {
                Slot::Key(_) => keys.push(path),
                Slot::Section(section) => sections.push((path, section)),
            }
        }
        for (path, section) in sections {
            below(section, &path, keys);
        }
    }
    let mut keys = Vec::new();
    below(&mut Config::default(), "", &mut keys);
    keys
}

/// Where a value came from, in one line.
pub(super) fn from(origin: &Origin, key: &str) -> String {
    let mut text = origin.source.to_string();
    if let Some(place) = origin.place() {
        let _ = write!(text, ":{place}");
    }
    if origin.written != key {
        let _ = write!(text, " as {}", origin.written);
    }
    text
}

fn comment(loaded: &Loaded, key: &str) -> String {
    let mut text = match loaded.origin(key) {
        Some(origin) => from(origin, key),
        None => match paired(loaded, key) {
            Some(text) => text,
            None => "default".to_owned(),
        },
    };
    if loaded.origin(key).is_some()
        && let Some(reason) = effect::reason(&loaded.config, key)
    {
        let _ = write!(text, "; no effect: {reason}");
    }
    text
}

/// The port that follows an address, and the address that follows a port.
pub(super) fn paired(loaded: &Loaded, key: &str) -> Option<String> {
    let other = match key {
        "server.port" => "http_server.bind_address",
        "http_server.bind_address" => "server.port",
        _ => return None,
    };
    loaded.origin(other).map(|origin| format!("follows {other}, {}", from(origin, other)))
}

fn as_object(loaded: &Loaded, key: &str) -> Value {
    let origin = loaded.origin(key);
    json!({
        "key": key,
        "value": value_of(&loaded.config, key),
        "source": origin.map_or_else(|| "default".to_owned(), |origin| origin.source.to_string()),
        "place": origin.and_then(Origin::place),
        "written": origin.map(|origin| &origin.written),
        "without_effect": effect::reason(&loaded.config, key),
    })
}
