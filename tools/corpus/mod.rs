//! Real input: the packages that this machine already describes, as entities, observations and relations.
//!
//! [`debian`] reads the text of `apt-cache dumpavail`, [`python`] the metadata of installed distributions. Both give
//! [`Package`]s; [`Corpus::new`] chooses and connects them, and [`Corpus::write_jsonl`] writes what
//! `caxton memory import` reads.

pub mod debian;
pub mod python;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

/// A package as its metadata describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    /// Its name: the entity's name.
    pub name: String,
    /// The entity's type, as in `debian_package`.
    pub package_type: &'static str,
    /// What is known about it, the summary first.
    pub observations: Vec<String>,
    /// Version, section, homepage and the like.
    pub metadata: BTreeMap<&'static str, String>,
    /// What it needs or would like to have.
    pub needs: Vec<Need>,
    /// Larger is kept first when a corpus is limited.
    pub rank: u8,
}

/// One need of a package, to be met by any one of its alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Names of packages, the preferred one first.
    pub alternatives: Vec<String>,
    /// How badly it is needed.
    pub kind: NeedKind,
}

/// How badly a package needs another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeedKind {
    /// It would add something.
    Suggests,
    /// Usual installations have it.
    Recommends,
    /// It does not work without.
    DependsOn,
}

impl NeedKind {
    /// The relation's type.
    pub const fn relation_type(self) -> &'static str {
        match self {
            Self::DependsOn => "depends_on",
            Self::Recommends => "recommends",
            Self::Suggests => "suggests",
        }
    }

    /// The relation's strength.
    pub const fn strength(self) -> f64 {
        match self {
            Self::DependsOn => 1.0,
            Self::Recommends => 0.7,
            Self::Suggests => 0.3,
        }
    }
}

/// Packages and the relations among them.
#[derive(Debug, Clone, PartialEq)]
pub struct Corpus {
    packages: Vec<Package>,
    relations: Vec<(usize, usize, NeedKind)>,
}

/// What a corpus holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CorpusSize {
    /// Packages.
    pub entities: usize,
    /// Texts about them.
    pub observations: usize,
    /// Needs among them.
    pub relations: usize,
}

impl fmt::Display for CorpusSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entities, observations, relations } = self;
        write!(f, "{entities} entities, {observations} observations, {relations} relations")
    }
}

/// A line of the import format.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Entity {
        entity_name: &'a str,
        entity_type: &'a str,
        observations: &'a [String],
        metadata: &'a BTreeMap<&'static str, String>,
    },
    Relation {
        from_entity: &'a str,
        to_entity: &'a str,
        relation_type: &'a str,
        strength: f64,
    },
}

impl Corpus {
    /// Keeps at most `packages_max` packages, those of the highest rank and then the first by name, and connects
    /// them. Of several packages with one name the last one stays. Needs that no kept package meets are left out.
    pub fn new(packages: impl IntoIterator<Item = Package>, packages_max: usize) -> Self {
        let by_name: BTreeMap<String, Package> =
            packages.into_iter().map(|package| (package.name.clone(), package)).collect();
        let mut packages: Vec<Package> = by_name.into_values().collect();
        packages.sort_by_key(|package| Reverse(package.rank));
        packages.truncate(packages_max);
        let relations = relations(&packages);
        Self { packages, relations }
    }

    /// How much there is.
    pub fn size(&self) -> CorpusSize {
        CorpusSize {
            entities: self.packages.len(),
            observations: self.packages.iter().map(|package| package.observations.len()).sum(),
            relations: self.relations.len(),
        }
    }

    /// Writes one JSON object a line, all entities before the first relation.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn write_jsonl(&self, out: &mut dyn Write) -> io::Result<()> {
        for package in &self.packages {
            let line = Line::Entity {
                entity_name: &package.name,
                entity_type: package.package_type,
                observations: &package.observations,
                metadata: &package.metadata,
            };
            write_line(out, &line)?;
        }
        for &(from, to, kind) in &self.relations {
            let line = Line::Relation {
                from_entity: &self.packages[from].name,
                to_entity: &self.packages[to].name,
                relation_type: kind.relation_type(),
                strength: kind.strength(),
            };
            write_line(out, &line)?;
        }
        out.flush()
    }
}

fn write_line(out: &mut dyn Write, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Each need as a relation to its first alternative that is there; one relation between two packages, the strongest.
fn relations(packages: &[Package]) -> Vec<(usize, usize, NeedKind)> {
    let places: HashMap<&str, usize> =
        packages.iter().enumerate().map(|(place, package)| (package.name.as_str(), place)).collect();
    let mut found = Vec::new();
    for (from, package) in packages.iter().enumerate() {
        let mut needs: Vec<&Need> = package.needs.iter().collect();
        needs.sort_by_key(|need| Reverse(need.kind));
        let mut met = BTreeSet::new();
        for need in needs {
            let to = need.alternatives.iter().find_map(|name| places.get(name.as_str()).copied());
            if let Some(to) = to.filter(|to| *to != from && met.insert(*to)) {
                found.push((from, to, need.kind));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::{Corpus, Need, NeedKind, Package};

    fn package(name: &str, rank: u8, needs: &[(NeedKind, &[&str])]) -> Package {
        let needs = needs
            .iter()
            .map(|(kind, names)| Need {
                alternatives: names.iter().map(|name| (*name).to_owned()).collect(),
                kind: *kind,
            })
            .collect();
        Package { name: name.to_owned(), package_type: "test", rank, needs, ..Package::default() }
    }

    #[track_caller]
    fn check(packages: &[Package], packages_max: usize, then: &[&str]) {
        let mut out = Vec::new();
        Corpus::new(packages.to_vec(), packages_max).write_jsonl(&mut out).expect("memory takes it");
        let lines: Vec<String> = String::from_utf8(out)
            .expect("JSON is UTF-8")
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
                let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
                let ends = format!("{} {} {}", text("from_entity"), text("relation_type"), text("to_entity"));
                let relation = format!("{ends} {}", line["strength"]);
                if line["type"] == "entity" { text("entity_name") } else { relation }
            })
            .collect();
        assert_eq!(lines, then);
    }

    #[test]
    fn a_limit_keeps_high_ranks_and_then_early_names() {
        let packages =
            [package("c", 1, &[]), package("a", 0, &[]), package("d", 1, &[]), package("b", 0, &[])];
        check(&packages, 3, &["c", "d", "a"]);
        check(&packages, 0, &[]);
        check(&packages, 9, &["c", "d", "a", "b"]);
    }

    #[test]
    fn relations_lead_to_kept_packages_only() {
        use NeedKind::{DependsOn, Recommends, Suggests};
        let a =
            package("a", 0, &[(Suggests, &["b"]), (DependsOn, &["gone", "b"]), (Recommends, &["a", "c"])]);
        let packages =
            [a, package("b", 0, &[(Recommends, &["gone"])]), package("c", 0, &[(Suggests, &["a"])])];
        check(&packages, 9, &["a", "b", "c", "a depends_on b 1.0", "c suggests a 0.3"]);
        check(&packages, 1, &["a"]);
    }

    #[test]
    fn of_two_packages_with_one_name_the_last_stays() {
        let old = package("a", 0, &[(NeedKind::DependsOn, &["b"])]);
        check(&[old, package("b", 0, &[]), package("a", 0, &[])], 9, &["a", "b"]);
    }
}
