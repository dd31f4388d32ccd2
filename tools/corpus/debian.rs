//! Reads the text of `apt-cache dumpavail`: stanzas of `Field: value` lines, a blank line between two.

use std::io::{self, BufRead};

use super::{Need, NeedKind, Package};

/// Facets of Debian's tags that say what a package is for; the others say how it is built.
const FACETS: &[&str] = &[
    "admin",
    "biology",
    "field",
    "game",
    "hardware",
    "interface",
    "mail",
    "network",
    "office",
    "protocol",
    "science",
    "security",
    "sound",
    "use",
    "web",
    "works-with",
    "works-with-format",
];

/// Sections whose packages people rarely ask for by purpose.
const PARTS: &[&str] = &[
    "debug",
    "doc",
    "introspection",
    "kernel",
    "libdevel",
    "libs",
    "localization",
    "metapackages",
    "oldlibs",
];

/// The packages in `input`, in its order. Stanzas without a name or a description are left out; bytes that are not
/// UTF-8 are replaced.
///
/// # Errors
///
/// What `input` says.
pub fn read(mut input: impl BufRead) -> io::Result<Vec<Package>> {
    let mut packages = Vec::new();
    let mut stanza = Stanza::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let end = input.read_until(b'\n', &mut line)? == 0;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if end || text.is_empty() {
            packages.extend(std::mem::take(&mut stanza).package());
        } else {
            stanza.take_line(text);
        }
        if end {
            return Ok(packages);
        }
    }
}

/// The fields of one stanza that matter here. Continuation lines go to `current`.
#[derive(Default)]
struct Stanza {
    fields: Vec<(String, String)>,
}

impl Stanza {
    fn take_line(&mut self, line: &str) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = self.fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            self.fields.push((field.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }

    fn package(self) -> Option<Package> {
        let name = self.field("package");
        // `apt-cache show` calls it Description-en where translations are installed, and then it is the long text.
        let description = [self.field("description-en"), self.field("description")]
            .into_iter()
            .max_by_key(|text| text.len())
            .unwrap_or_default();
        if name.is_empty() || description.is_empty() {
            return None;
        }
        let tags = self.field("tag");
        let section = self.field("section").rsplit('/').next().unwrap_or_default();
        let mut observations = paragraphs(description);
        observations.extend(purposes(tags));
        let metadata =
            [("version", self.field("version")), ("section", section), ("homepage", self.field("homepage"))]
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(field, value)| (field, value.to_owned()))
                .collect();
        let needs = [
            ("pre-depends", NeedKind::DependsOn),
            ("depends", NeedKind::DependsOn),
            ("recommends", NeedKind::Recommends),
            ("suggests", NeedKind::Suggests),
        ]
        .into_iter()
        .flat_map(|(field, kind)| needs(self.field(field), kind))
        .collect();
        let rank = match (tags.contains("role::program"), PARTS.contains(&section)) {
            (true, _) => 2,
            (false, false) => 1,
            (false, true) => 0,
        };
        Some(Package {
            name: name.to_owned(),
            package_type: "debian_package",
            observations,
            metadata,
            needs,
            rank,
        })
    }
}

/// The summary line and the paragraphs below it; a line with a single dot stands for a blank one.
fn paragraphs(description: &str) -> Vec<String> {
    let (summary, rest) = description.split_once('\n').unwrap_or((description, ""));
    let mut paragraphs = vec![summary.to_owned()];
    let mut paragraph = String::new();
    for line in rest.lines().chain(["."]) {
        if line != "." {
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(line);
        } else if !paragraph.is_empty() {
            paragraphs.push(std::mem::take(&mut paragraph));
        }
    }
    paragraphs
}

/// The tags that say what a package is for, as a sentence.
fn purposes(tags: &str) -> Option<String> {
    let purposes: Vec<String> = tags
        .split([',', '\n'])
        .filter_map(|tag| tag.trim().split_once("::"))
        .filter(|(facet, value)| FACETS.contains(facet) && !value.contains("TODO"))
        .map(|(facet, value)| format!("{} {}", facet.replace('-', " "), value.replace(['-', ':'], " ")))
        .collect();
    (!purposes.is_empty()).then(|| format!("Tagged: {}", purposes.join(", ")))
}

/// The needs of a field such as `a (>= 1) | b:any [amd64], c`.
fn needs(field: &str, kind: NeedKind) -> impl Iterator<Item = Need> {
    field.split(',').filter_map(move |need| {
        let alternatives: Vec<String> = need
            .split('|')
            .filter_map(|name| name.trim().split([' ', '(', '[', ':', '<']).next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        (!alternatives.is_empty()).then_some(Need { alternatives, kind })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::read;
    use crate::corpus::{Corpus, NeedKind, Package};

    const DUMP: &str = include_str!("fixtures/dumpavail.txt");

    fn package(name: &str) -> Package {
        read(DUMP.as_bytes())
            .expect("memory is readable")
            .into_iter()
            .find(|package| package.name == name)
            .expect("it is in the fixture")
    }

    #[test]
    fn a_stanza_becomes_a_package_with_texts_and_needs() {
        let gnuplot = package("gnuplot");
        assert_eq!(
            gnuplot.observations,
            [
                "Command-line driven interactive plotting program.",
                "Tagged: field mathematics, interface commandline, use converting, works with image, works with image vector",
            ]
        );
        assert_eq!(gnuplot.rank, 2);
        let metadata: Vec<_> =
            gnuplot.metadata.iter().map(|(field, value)| (*field, value.as_str())).collect();
        assert_eq!(
            metadata,
            [
                ("homepage", "http://gnuplot.sourceforge.net/"),
                ("section", "math"),
                ("version", "5.4.4+dfsg1-2"),
            ]
        );
        let needs: Vec<_> =
            gnuplot.needs.iter().map(|need| (need.kind, need.alternatives.join(" | "))).collect();
        assert_eq!(
            needs,
            [
                (NeedKind::DependsOn, "gnuplot-qt | gnuplot-x11 | gnuplot-nox".to_owned()),
                (NeedKind::Suggests, "gnuplot-doc".to_owned()),
            ]
        );
    }

    #[test]
    fn a_long_description_is_cut_into_paragraphs() {
        assert_eq!(
            package("gnuplot-nox").observations,
            [
                "Command-line driven interactive plotting program. No-X package",
                "Gnuplot is a portable command-line driven interactive data and function plotting utility.",
                "This package is for working without an X server.",
            ]
        );
    }

    #[test]
    fn versions_architectures_and_qualifiers_are_not_part_of_a_name() {
        let needs: Vec<_> = package("gnuplot-nox")
            .needs
            .into_iter()
            .map(|need| (need.kind.relation_type(), need.alternatives.join(" ")))
            .collect();
        let then = [
            ("depends_on", "dpkg"),
            ("depends_on", "libc6"),
            ("depends_on", "perl"),
            ("suggests", "gnuplot-doc"),
        ];
        assert_eq!(needs, then.map(|(kind, name)| (kind, name.to_owned())));
    }

    #[test]
    fn stanzas_without_name_or_description_are_left_out() {
        let names: Vec<_> = read(DUMP.as_bytes()).unwrap().into_iter().map(|package| package.name).collect();
        assert_eq!(names, ["gnuplot", "gnuplot-nox", "gnuplot-doc", "latin1"]);
        assert_eq!(read("".as_bytes()).unwrap(), []);
        assert_eq!(read(" leads nowhere\n\n: \nno colon\n".as_bytes()).unwrap(), []);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let dump = b"Package: x\nDescription: na\xefve\n".as_slice();
        assert_eq!(read(dump).unwrap()[0].observations, ["na\u{fffd}ve"]);
    }

    #[test]
    fn the_fixture_makes_a_connected_corpus() {
        let corpus = Corpus::new(read(DUMP.as_bytes()).unwrap(), usize::MAX);
        assert_eq!(corpus.size().to_string(), "4 entities, 7 observations, 3 relations");
    }
}
