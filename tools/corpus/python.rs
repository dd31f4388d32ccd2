//! Reads the metadata of installed Python distributions: `NAME-VERSION.dist-info/METADATA` in `site-packages`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Need, NeedKind, Package};

/// Classifiers that say what a distribution is for.
const CLASSIFIERS: &[&str] = &["Topic :: ", "Framework :: ", "Intended Audience :: "];

/// A folder or file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read {}", path.display())]
pub struct ReadError {
    /// Which one.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// The distributions installed in `folders`, by folder and then by file name. A folder that does not exist has none;
/// a distribution without a name or a summary is left out.
///
/// # Errors
///
/// [`ReadError`] for a folder or a metadata file that exists and cannot be read.
pub fn read(folders: &[PathBuf]) -> Result<Vec<Package>, ReadError> {
    let mut packages = Vec::new();
    for folder in folders {
        for path in metadata_files(folder)? {
            let bytes = fs::read(&path).map_err(|source| ReadError { path, source })?;
            packages.extend(package(&String::from_utf8_lossy(&bytes)));
        }
    }
    Ok(packages)
}

/// The metadata files of a folder, sorted.
fn metadata_files(folder: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let failed = |source| ReadError { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "dist-info") {
            let file = path.join("METADATA");
            if file.is_file() {
                files.push(file);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The distribution that a metadata text describes.
fn package(text: &str) -> Option<Package> {
    let fields = fields(text);
    let field = |name: &str| {
        fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map_or("", |(_, value)| *value)
    };
    let (name, summary) = (field("Name"), field("Summary"));
    if name.is_empty() || summary.is_empty() || summary == "UNKNOWN" {
        return None;
    }
    let mut observations = vec![summary.to_owned()];
    if !field("Keywords").is_empty() {
        let keywords: Vec<_> = field("Keywords").split([',', ' ']).filter(|word| !word.is_empty()).collect();
        observations.push(format!("Keywords: {}", keywords.join(", ")));
    }
    observations.extend(purposes(&fields));
    let metadata =
        [("version", field("Version")), ("license", field("License")), ("homepage", field("Home-page"))]
            .into_iter()
            .filter(|(_, value)| !value.is_empty() && *value != "UNKNOWN" && value.len() <= 200)
            .map(|(field, value)| (field, value.to_owned()))
            .collect();
    let needs = fields
        .iter()
        .filter(|(field, _)| field.eq_ignore_ascii_case("Requires-Dist"))
        .filter_map(|(_, value)| need(value))
        .collect();
    Some(Package {
        name: normalised(name),
        package_type: "python_package",
        observations,
        metadata,
        needs,
        rank: 0,
    })
}

/// The header lines up to the first blank one; continuation lines are not needed by any field read here.
fn fields(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| !line.starts_with([' ', '\t']))
        .filter_map(|line| line.split_once(':'))
        .map(|(field, value)| (field, value.trim()))
        .collect()
}

/// The classifiers that say what a distribution is for, as a sentence.
fn purposes(fields: &[(&str, &str)]) -> Option<String> {
    let purposes: Vec<String> = fields
        .iter()
        .filter(|(field, _)| field.eq_ignore_ascii_case("Classifier"))
        .filter(|(_, value)| CLASSIFIERS.iter().any(|prefix| value.starts_with(prefix)))
        .map(|(_, value)| value.replace(" :: ", ", "))
        .collect();
    (!purposes.is_empty()).then(|| format!("Classified: {}", purposes.join("; ")))
}

/// The distribution named by a requirement such as `a[x]>=1; extra == 'y'`. Requirements of an extra are suggestions.
fn need(requirement: &str) -> Option<Need> {
    let (wanted, marker) = requirement.split_once(';').unwrap_or((requirement, ""));
    let end = wanted.find(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.')));
    let name = wanted[..end.unwrap_or(wanted.len())].trim();
    let kind = if marker.contains("extra") { NeedKind::Suggests } else { NeedKind::DependsOn };
    (!name.is_empty()).then(|| Need { alternatives: vec![normalised(name)], kind })
}

/// The name as PEP 503 compares it: lower case, runs of `-`, `_` and `.` as one `-`.
fn normalised(name: &str) -> String {
    let parts: Vec<_> = name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect();
    parts.join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::path::PathBuf;

    use super::{need, package, read};
    use crate::corpus::{Corpus, NeedKind};

    const PLOTEXT: &str = "\
Metadata-Version: 2.1
Name: Plot_Ext.Mini
Version: 5.2.8
Summary: plots directly on terminal
Home-page: UNKNOWN
Keywords: plot,terminal  ascii
Classifier: Programming Language :: Python
Classifier: Topic :: Scientific/Engineering :: Visualization
Requires-Dist: Pillow (>=8.4) ; extra == 'image'
Requires-Dist: six[all]>=1; python_version < '4'
Description: Summary: not this one
        Summary: nor this one

Summary: nor that
";

    #[test]
    fn metadata_becomes_a_package() {
        let package = package(PLOTEXT).expect("it has name and summary");
        assert_eq!(package.name, "plot-ext-mini");
        assert_eq!(
            package.observations,
            [
                "plots directly on terminal",
                "Keywords: plot, terminal, ascii",
                "Classified: Topic, Scientific/Engineering, Visualization",
            ]
        );
        assert_eq!(package.metadata.into_iter().collect::<Vec<_>>(), [("version", "5.2.8".to_owned())]);
        let needs: Vec<_> =
            package.needs.iter().map(|need| (need.kind, need.alternatives[0].as_str())).collect();
        assert_eq!(needs, [(NeedKind::Suggests, "pillow"), (NeedKind::DependsOn, "six")]);
    }

    #[test]
    fn a_distribution_without_name_or_summary_is_left_out() {
        for text in
            ["", "\nName: a\nSummary: b\n", "Name: a\n", "Summary: b\n", "Name: a\nSummary: UNKNOWN\n"]
        {
            assert_eq!(package(text), None, "{text:?}");
        }
        assert_eq!(need(" ; extra == 'x'"), None);
    }

    #[test]
    fn installed_distributions_are_found_in_every_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in
            [("six-1", "Name: six\nSummary: two and three\n"), ("p-5", PLOTEXT), ("broken-0", "")]
        {
            let info = folder.path().join(format!("{name}.dist-info"));
            fs::create_dir(&info).expect("a new folder");
            fs::write(info.join("METADATA"), text).expect("a new file");
        }
        fs::create_dir(folder.path().join("empty.dist-info")).expect("a new folder");
        let folders = [PathBuf::from("/nowhere/at/all"), folder.path().to_owned()];
        let corpus = Corpus::new(read(&folders).expect("readable folders"), usize::MAX);
        assert_eq!(corpus.size().to_string(), "2 entities, 4 observations, 1 relations");
    }
}
