//! The tree of known keys: finding one, walking all, and naming the closest to one that is unknown.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::Config;
use super::aliases::{ALIASES, canonical};
use super::setting::{Field, Limits, Section, Setting, Slot};

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// A map of keys.
    Section,
    /// A key with a value.
    Key,
}

/// Every name that may be written, aliases too.
struct Names {
    sections: BTreeSet<String>,
    keys: BTreeSet<String>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut names = Names { sections: BTreeSet::new(), keys: BTreeSet::new() };
    collect(&mut Config::default(), "", &mut names);
    // Longer chains first: an alias of a key inside an aliased section becomes known in a second round.
    for _ in 0..2 {
        for (alias, target) in ALIASES {
            let below = format!("{target}.");
            let mirrored = |set: &BTreeSet<String>| -> Vec<String> {
                let under = set.iter().filter_map(|name| name.strip_prefix(&below));
                under.map(|rest| format!("{alias}.{rest}")).collect()
            };
            let (sections, keys) = (mirrored(&names.sections), mirrored(&names.keys));
            names.sections.extend(sections);
            names.keys.extend(keys);
            if names.sections.contains(*target) {
                names.sections.insert((*alias).to_owned());
            } else {
                names.keys.insert((*alias).to_owned());
            }
        }
    }
    names
});

fn collect(section: &mut dyn Section, prefix: &str, names: &mut Names) {
    for Field { name, slot, .. } in section.fields() {
        let path = join(prefix, name);
        match slot {
            Slot::Section(below) => {
                collect(below, &path, names);
                names.sections.insert(path);
            }
            Slot::Key(_) => {
                names.keys.insert(path);
            }
        }
    }
}

/// `name` below `prefix`.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// What `name` is, aliases included.
pub(crate) fn known(name: &str) -> Option<Known> {
    if NAMES.keys.contains(name) {
        Some(Known::Key)
    } else {
        NAMES.sections.contains(name).then_some(Known::Section)
    }
}

/// Every key that holds a value, aliases included, in order of its name.
pub(crate) fn all_keys() -> impl Iterator<Item = &'static str> {
    NAMES.keys.iter().map(String::as_str)
}

/// One key with its documentation and its setting.
pub(crate) struct Leaf<'a> {
    pub(crate) doc: &'static str,
    pub(crate) limits: Limits,
    pub(crate) setting: &'a mut dyn Setting,
}

/// Runs `act` on the key `name`, which may be an alias; `None` when there is no such key.
pub(crate) fn with_key<T>(config: &mut Config, name: &str, act: impl FnOnce(Leaf<'_>) -> T) -> Option<T> {
    let name = canonical(name);
    let mut section: &mut dyn Section = config;
    let mut parts = name.split('.');
    loop {
        let part = parts.next()?;
        let field = section.fields().into_iter().find(|field| field.name == part)?;
        match field.slot {
            Slot::Section(below) => section = below,
            Slot::Key(setting) if parts.next().is_none() => {
                return Some(act(Leaf { doc: field.doc, limits: field.limits, setting }));
            }
            Slot::Key(_) => return None,
        }
    }
}

/// The value of the key `name` as JSON; `Null` when there is no such key.
pub(crate) fn value_of(config: &Config, name: &str) -> serde_json::Value {
    with_key(&mut config.clone(), name, |leaf| leaf.setting.show()).unwrap_or_default()
}

/// How alike two names must be to suggest one for the other.
pub(crate) const ALIKE: f64 = 0.8;

/// How many names are suggested for one that is unknown.
const SUGGESTED_MAX: usize = 5;

/// How alike the known name `candidate` is to `name`.
fn likeness(name: &str, candidate: &str) -> f64 {
    let (parent, leaf) = name.rsplit_once('.').unwrap_or(("", name));
    let (its_parent, its_leaf) = candidate.rsplit_once('.').unwrap_or(("", candidate));
    let alike = strsim::jaro_winkler(&leaf.to_lowercase(), its_leaf);
    // A name in the same place is likelier than the same name elsewhere is far.
    if its_parent == parent { alike + 0.1 } else { alike }
}

/// The known names that are like the unknown `name`, the most alike first.
pub(crate) fn nearest(name: &str) -> Vec<&'static str> {
    let names = NAMES.keys.iter().chain(&NAMES.sections).map(String::as_str);
    let mut near: Vec<(f64, &str)> = names
        .map(|candidate| (likeness(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    // Where one is far ahead, the others are noise.
    let best = near.first().map_or(0.0, |(likeness, _)| *likeness);
    near.retain(|(likeness, _)| *likeness >= best - 0.1);
    near.into_iter().take(SUGGESTED_MAX).map(|(_, candidate)| candidate).collect()
}

/// What to do about the unknown key `name`: the closest known one, else those that may stand there.
pub(crate) fn remedy(name: &str) -> String {
    let parent = name.rsplit_once('.').map_or("", |(parent, _)| parent);
    let names = || NAMES.keys.iter().chain(&NAMES.sections).map(String::as_str);
    let best =
        names().map(|candidate| (likeness(name, candidate), candidate)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, candidate)) if score >= ALIKE => format!("did you mean {candidate}?"),
        _ => match children(parent).as_slice() {
            [] => "see `caxton config show` for the known keys".to_owned(),
            children if parent.is_empty() => format!("the sections are {}", children.join(", ")),
            children => format!("the keys of {parent} are {}", children.join(", ")),
        },
    }
}

/// The names directly below `parent`.
fn children(parent: &str) -> Vec<&'static str> {
    let prefix = if parent.is_empty() { String::new() } else { format!("{parent}.") };
    let below =
        |set: &'static BTreeSet<String>| set.iter().filter_map(|name| name.strip_prefix(&prefix as &str));
    let mut children: Vec<&str> = below(&NAMES.keys).chain(below(&NAMES.sections)).collect();
    children.retain(|name| !name.contains('.'));
    children.sort_unstable();
    children
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn every_alias_leads_to_a_key_that_exists() {
        for (alias, target) in ALIASES {
            assert!(known(alias).is_some(), "{alias}");
            assert_eq!(known(alias), known(target), "{alias} and {target} are the same kind");
        }
        for key in all_keys() {
            assert!(with_key(&mut Config::default(), key, |_| ()).is_some(), "{key}");
        }
    }

    #[test]
    fn an_alias_inside_an_aliased_section_is_known() {
        assert_eq!(known("embedding_config.memory_map_model"), Some(Known::Key));
        let target = "memory_allocation.embedding_model.memory_mapping";
        assert_eq!(canonical("embedding_config.memory_map_model"), target);
    }

    #[test]
    fn the_closest_key_is_named() {
        for (unknown, remedy_is) in [
            ("server.prot", "did you mean server.port?"),
            ("memory.sqlite_config.cache_size", "did you mean memory.sqlite_config.cache_size_mb?"),
            ("sqlite_config", "did you mean memory.sqlite_config?"),
            ("wal_mode", "did you mean memory.sqlite_config.wal_mode?"),
            ("Server", "did you mean server?"),
            ("server.PORT", "did you mean server.port?"),
        ] {
            assert_eq!(remedy(unknown), remedy_is, "{unknown}");
        }
        assert!(
            remedy("log.qqq").starts_with("the keys of log are cache_mb, durability"),
            "{}",
            remedy("log.qqq")
        );
        assert!(remedy("zzz").starts_with("the sections are "), "{}", remedy("zzz"));
    }

    #[test]
    fn every_key_says_what_it_is_and_what_it_takes() {
        for key in all_keys() {
            let (doc, takes) =
                with_key(&mut Config::default(), key, |leaf| (leaf.doc, leaf.setting.takes(leaf.limits)))
                    .unwrap();
            assert!(doc.trim().len() > 5 && !takes.is_empty(), "{key}: {doc} {takes}");
        }
    }
}
