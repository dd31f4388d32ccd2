//! Who an agent is and what it offers.

use caxton_events::{AgentId, CapabilityName, WorkspaceId};
use caxton_projections::conversations::SYSTEM;

use super::super::definition::{About, Offer};
use super::super::fault::{Faults, Phase, Spot};
use super::super::reading::{Section, to_json};
use crate::config::document::{Node, Yaml};

/// Longest name of a config agent, in bytes; the shortest has 2.
const NAME_BYTES_MAX: usize = 64;
/// Longest description that is shown whole, in characters.
const DESCRIPTION_CHARS_MAX: usize = 200;
/// Capabilities of one agent at most.
const CAPABILITIES_MAX: usize = 64;
/// Capabilities above which an agent is doubtful: those with few are found better.
const CAPABILITIES_MANY: usize = 20;
/// The workspace of agents that name none.
pub(super) const DEFAULT_WORKSPACE: &str = "default";

const NAME_REMEDY: &str = "write 2 to 64 letters, digits, `-` or `_`, beginning with a letter, as in DataAnalyzer; system is the server itself";

/// `name`: a letter, then letters, digits, `-` and `_`.
pub(super) fn name(top: &mut Section<'_>, faults: &Faults) -> Option<AgentId> {
    let Some(node) = top.take("name") else {
        faults.add(Phase::Required, top.spot("name"), "name", "name is missing", NAME_REMEDY);
        return None;
    };
    let fits = |name: &str| {
        (2..=NAME_BYTES_MAX).contains(&name.len())
            && name.starts_with(|sign: char| sign.is_ascii_alphabetic())
            && name.bytes().all(|sign| sign.is_ascii_alphanumeric() || matches!(sign, b'-' | b'_'))
            && name != SYSTEM
    };
    let name = node.value.text().filter(|name| fits(name)).and_then(|name| name.parse().ok());
    if name.is_none() {
        let reason = format!("{} is no name of an agent", node.value.shown());
        faults.add(Phase::Required, Spot::Node(node.id), "name", reason, NAME_REMEDY);
    }
    name
}

/// `version`: as semantic versioning has it.
pub(super) fn version(top: &mut Section<'_>, faults: &Faults) -> Option<String> {
    const REMEDY: &str = "write MAJOR.MINOR.PATCH, as in 1.0.0";
    let Some(node) = top.take("version") else {
        faults.add(Phase::Required, top.spot("version"), "version", "version is missing", REMEDY);
        return None;
    };
    let version = node.value.text().filter(|text| semver::Version::parse(text).is_ok());
    if version.is_none() {
        // `1.0` without quotes is a number to YAML.
        let reason = format!("{} is no version", node.value.shown());
        top.fault("version", node, &reason, REMEDY);
    }
    version.map(str::to_owned)
}

/// `workspace`: where it works.
pub(super) fn workspace(top: &mut Section<'_>) -> WorkspaceId {
    let given = top.take("workspace").and_then(|node| {
        let workspace = node.value.text().and_then(|text| text.parse().ok());
        if workspace.is_none() {
            top.wrong("workspace", node, "a name of letters, digits and `- _ . : @`");
        }
        workspace
    });
    given.unwrap_or_else(default_workspace)
}

#[expect(clippy::expect_used, reason = "the constant is a valid name; a test parses it")]
fn default_workspace() -> WorkspaceId {
    DEFAULT_WORKSPACE.parse().expect("a valid name")
}

/// What people read.
pub(super) fn about(top: &mut Section<'_>) -> About {
    let description = top.loose_text("description");
    if description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_CHARS_MAX) {
        let reason = format!("the description is longer than {DESCRIPTION_CHARS_MAX} characters");
        top.warn("description", &reason, "shorten it to a sentence");
    }
    About {
        description,
        author: top.loose_text("author"),
        license: top.loose_text("license"),
        tags: top.texts("tags").unwrap_or_default(),
        created: top.loose_text("created"),
        updated: top.loose_text("updated"),
    }
}

/// `capabilities` with what `capability_metadata` says about each.
pub(super) fn capabilities(top: &mut Section<'_>, faults: &Faults) -> Option<Vec<Offer>> {
    const REMEDY: &str = "list what the agent can do, as in `capabilities: [data-analysis]`";
    let described = top.named("capability_metadata");
    let items = top.list("capabilities").unwrap_or_default();
    if items.is_empty() {
        let spot = top.spot("capabilities");
        faults.add(Phase::Required, spot, "capabilities", "the agent has no capability", REMEDY);
        return None;
    }
    if items.len() > CAPABILITIES_MAX {
        let reason = format!("there are {} capabilities, the limit is {CAPABILITIES_MAX}", items.len());
        faults.add(
            Phase::Capabilities,
            top.spot("capabilities"),
            "capabilities",
            reason,
            "keep the specific ones",
        );
    } else if items.len() > CAPABILITIES_MANY {
        let reason = format!("there are {} capabilities", items.len());
        top.warn("capabilities", &reason, "keep the specific ones, or make two agents");
    }
    let mut offers: Vec<Offer> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let field = format!("capabilities[{index}]");
        let Some((name, version)) = capability(item, &field, faults) else { continue };
        if offers.iter().any(|offer| offer.name == name) {
            let reason = format!("{name} is listed twice");
            faults.add(Phase::Capabilities, Spot::Node(item.id), &field, reason, "remove one of them");
            continue;
        }
        offers.push(Offer { name, version, priority: 50, metadata: None });
    }
    for entry in described {
        let field = format!("capability_metadata.{}", entry.key);
        let Some(offer) = offers.iter_mut().find(|offer| offer.name.as_str() == entry.key) else {
            let reason = format!("{} is none of the agent's capabilities", entry.key);
            faults.warn(
                Spot::Node(entry.key_id),
                &field,
                reason,
                "list it under `capabilities`, or remove it",
            );
            continue;
        };
        describe(offer, &entry.value, &field, faults);
    }
    Some(offers)
}

/// A capability and its version, as in `ocr` and `ocr:v2.0`.
fn capability(item: &Node, field: &str, faults: &Faults) -> Option<(CapabilityName, String)> {
    let complain = |reason: String, remedy: &str| {
        faults.add(Phase::Capabilities, Spot::Node(item.id), field, reason, remedy);
    };
    let Some(text) = item.value.text() else {
        complain(
            format!("{} is not a text", item.value.shown()),
            "write it in kebab-case, as in data-analysis",
        );
        return None;
    };
    let (name, version) = text.split_once(':').unwrap_or((text, "1.0.0"));
    let Some(version) = full_version(version) else {
        complain(format!("{version:?} is no version"), "write it as in data-analysis:v2.0");
        return None;
    };
    if let Ok(name) = name.parse() {
        return Some((name, version));
    }
    let kebab = kebab(name);
    let remedy = if kebab.parse::<CapabilityName>().is_ok() {
        format!("write {kebab}")
    } else {
        "write it in kebab-case, as in data-analysis.visual".to_owned()
    };
    complain(format!("{name:?} is no name of a capability"), &remedy);
    None
}

/// `v2`, `2.0` and `2.0.0` as `2.0.0`.
fn full_version(text: &str) -> Option<String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let dots = text.matches('.').count();
    let full = format!("{text}{}", ".0".repeat(2_usize.saturating_sub(dots)));
    semver::Version::parse(&full).ok().map(|_| full)
}

/// A name as it would be written here.
fn kebab(name: &str) -> String {
    let mut kebab = String::with_capacity(name.len());
    let mut small = false;
    for sign in name.trim().chars() {
        if sign.is_ascii_uppercase() && small {
            kebab.push('-');
        }
        small = sign.is_ascii_lowercase();
        kebab.push(if matches!(sign, ' ' | '_' | '/') { '-' } else { sign.to_ascii_lowercase() });
    }
    kebab
}

/// Priority, version and whatever else is said about a capability.
fn describe(offer: &mut Offer, node: &Node, field: &str, faults: &Faults) {
    let Yaml::Map(entries) = &node.value else {
        let reason = format!("{} is not a map of keys", node.value.shown());
        faults.add(
            Phase::Values,
            Spot::Node(node.id),
            field,
            reason,
            "write `priority: 80` and the like below it",
        );
        return;
    };
    let mut described = Section::new(field, entries, faults);
    if let Some(priority) = described.whole("priority", 0..=1_000) {
        offer.priority = u16::try_from(priority).unwrap_or(1_000);
    }
    if let Some(version) = described.take("version") {
        match version.value.text().and_then(full_version) {
            Some(version) => offer.version = version,
            None => described.wrong("version", version, "a version such as 1.0.0"),
        }
    }
    let others = entries.iter().filter(|entry| !matches!(entry.key.as_str(), "priority" | "version"));
    let metadata: serde_json::Map<_, _> =
        others.map(|entry| (entry.key.clone(), to_json(&entry.value))).collect();
    offer.metadata = (!metadata.is_empty()).then_some(metadata);
}

/// `requires`: capabilities of others.
pub(super) fn requires(top: &mut Section<'_>, faults: &Faults) -> Vec<CapabilityName> {
    let items = top.list("requires").unwrap_or_default();
    let mut required = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        if let Some((name, _)) = capability(item, &format!("requires[{index}]"), faults) {
            required.push(name);
        }
    }
    required
}

#[cfg(test)]
mod tests {
    use super::{default_workspace, full_version, kebab};

    #[test]
    fn names_are_put_into_kebab_case() {
        for (given, then) in [
            ("Data Analysis", "data-analysis"),
            ("data_analysis", "data-analysis"),
            ("DataAnalysis", "data-analysis"),
            ("OCR", "ocr"),
        ] {
            assert_eq!(kebab(given), then);
        }
        assert_eq!(default_workspace().as_str(), "default");
    }

    #[test]
    fn short_versions_are_completed() {
        for (given, then) in [
            ("v2", Some("2.0.0")),
            ("2.1", Some("2.1.0")),
            ("1.2.3-a", Some("1.2.3-a")),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(full_version(given).as_deref(), then, "{given}");
        }
    }
}
