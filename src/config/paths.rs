//! Paths of a configuration that lead nowhere: `caxton config check` tells them before a server that needs them does.
//!
//! Relative paths count from the folder in which Caxton is started, wherever the file lies that has them. So what is found here
//! may be right where the server runs, and is a warning. What stops a server is a fault, and found by whoever reads it.

use std::path::{Path, PathBuf};

use super::load::Loaded;
use super::problem::Problem;

/// What is to stand at a path.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Folder,
    File,
}

impl Wanted {
    fn is_missing_at(self, path: &Path) -> bool {
        match self {
            // A file in place of a folder, or on the way to it, stops a server: that is no warning.
            Self::Folder => !path.exists() && file_in_the_way(path).is_none(),
            // A pipe can be read, too.
            Self::File => !path.exists() || path.is_dir(),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::File => "file",
        }
    }
}

/// A path that was set, and what a server does where it leads nowhere.
struct Need<'a> {
    key: &'static str,
    /// The row, counted from 0, and the key in it.
    row: Option<(usize, &'static str)>,
    path: &'a Path,
    wanted: Wanted,
    otherwise: &'static str,
}

/// A warning for each path that was set, that a server or its agents need, and at which there is nothing of the kind.
pub(super) fn leading_nowhere(loaded: &Loaded) -> Vec<Problem> {
    let needs = needs(loaded).into_iter();
    needs.filter(|need| need.wanted.is_missing_at(need.path)).map(|need| warning(loaded, &need)).collect()
}

/// The path in full.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    // Where the folder that Caxton was started in is gone, nobody can say more than what was written.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What is no folder at `path` or on the way to it, so that there can be no folder.
pub(crate) fn file_in_the_way(path: &Path) -> Option<&Path> {
    path.ancestors().find(|above| above.exists()).filter(|above| !above.is_dir())
}

fn needs(loaded: &Loaded) -> Vec<Need<'_>> {
    let config = &loaded.config;
    let mut needs = Vec::new();
    if let Some(path) = config.agents.directory.as_deref() {
        let (wanted, otherwise) = (Wanted::Folder, "a server makes it, and has no agents");
        needs.push(Need { key: "agents.directory", row: None, path, wanted, otherwise });
    }
    for (index, row) in config.mcp_servers.iter().enumerate() {
        // A bare name is looked for in the PATH of the server, which may be another one than ours. With a space in it, it is
        // rather a program with its arguments: see `McpServer::doubts`.
        let is_path = |command: &&str| command.contains('/') && !command.contains(char::is_whitespace);
        if let Some(command) = row.command.as_deref().filter(is_path) {
            let (row, path) = (Some((index, "command")), Path::new(command));
            let (wanted, otherwise) = (Wanted::File, "its tools are missing then");
            needs.push(Need { key: "mcp_servers", row, path, wanted, otherwise });
        }
    }
    needs
}

fn warning(loaded: &Loaded, need: &Need<'_>) -> Problem {
    let Need { key, row, path, wanted, otherwise } = *need;
    let row = row.map_or_else(String::new, |(index, name)| format!("row {}, {name}: ", index + 1));
    let place = if path.is_relative() {
        format!("{} (from here {})", path.display(), resolved(path).display())
    } else {
        path.display().to_string()
    };
    let message = format!("{row}there is no {} {place}; {otherwise}", wanted.word());
    let remedy = if path.is_relative() {
        "relative paths count from the folder in which Caxton is started, not from that of the file: start it where they lead \
         somewhere, or write the whole path"
    } else {
        "correct the path, or put there what is missing"
    };
    loaded.problem(key, message, remedy)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::path::Path;

    use super::super::{Report, check, check_file};

    fn told(report: &Report) -> Vec<String> {
        assert!(report.is_ok(), "a warning is enough: the server may run elsewhere: {report}");
        report.warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_path_that_leads_nowhere_is_named_with_what_it_means_here() {
        let here = std::env::current_dir().unwrap();
        for (text, line, words) in [
            (
                "agents:\n  directory: no/agents",
                2,
                ["agents.directory: there is no folder no/agents", "no/agents"],
            ),
            (
                "mcp_servers:\n- {name: a, command: uvx}\n- {name: b, command: no/tool}",
                1,
                ["row 2, command: there is no file no/tool", "no/tool"],
            ),
        ] {
            let report = check(text);
            let warnings = told(&report);
            let [warning] = &warnings[..] else { panic!("{report}") };
            let [what, below] = words;
            assert!(warning.contains(what), "{warning}");
            assert!(warning.contains(here.join(below).to_str().unwrap()), "{warning}");
            assert!(warning.contains("relative paths count from the folder"), "{warning}");
            assert_eq!(report.warnings[0].place.unwrap().line, line, "{warning}");
        }
    }

    #[test]
    fn paths_that_lead_somewhere_and_those_that_nobody_set_are_no_warning() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("agents: {{directory: '{}'}}", dir.path().display());
        for text in [
            text.as_str(),
            "",
            "server: {data_dir: no/data}",
            "mcp_servers: [{name: a, command: no-such-program}]",
        ] {
            assert_eq!(told(&check(text)), [""; 0], "{text}");
        }
        let nowhere = dir.path().join("nowhere");
        let warnings = told(&check(&format!("agents: {{directory: '{}'}}", nowhere.display())));
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.contains("correct the path") && !warning.contains("from here"), "{warning}");
    }

    #[test]
    fn the_examples_paths_count_from_the_repository() {
        // Tests run there, and it is where README says to start the server.
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/caxton.yaml");
        assert_eq!(told(&check_file(&file)), [""; 0]);
    }
}
