//! Paths of a configuration that lead nowhere: `caxton config check` tells them before a server that needs them does.
//!
//! Relative paths count from the folder in which Caxton is started, wherever the file lies that has them. So what is found here
//! may be right where the server runs, and is a warning.

use std::path::{Path, PathBuf};

use super::load::Loaded;
use super::problem::{Problem, Source};

/// What is to stand at a path.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Folder,
    File,
}

impl Wanted {
    fn stands_at(self, path: &Path) -> bool {
        match self {
            Self::Folder => path.is_dir(),
            // A pipe can be read, too.
            Self::File => path.exists() && !path.is_dir(),
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
    /// What was written may be a key of the provider, and is not repeated.
    secret: bool,
    otherwise: &'static str,
}

/// A warning for each path that was set, that a server or its agents need, and at which there is nothing of the kind.
///
/// `auth.keys_file` is not among them: it is read, and a fault when that fails.
pub(super) fn leading_nowhere(loaded: &Loaded) -> Vec<Problem> {
    let needs = needs(loaded).into_iter();
    needs.filter(|need| !need.wanted.stands_at(need.path)).map(|need| warning(loaded, &need)).collect()
}

/// The path in full.
pub(super) fn resolved(path: &Path) -> PathBuf {
    // Where the folder that Caxton was started in is gone, nobody can say more than what was written.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn needs(loaded: &Loaded) -> Vec<Need<'_>> {
    const STOPS: &str = "a server does not start without it";
    let config = &loaded.config;
    let mut needs = Vec::new();
    let mut need = |key, row: Option<(usize, &'static str)>, path, wanted, otherwise| {
        let secret = matches!(row, Some((_, "api_key_file")));
        needs.push(Need { key, row, path, wanted, secret, otherwise });
    };
    if let Some(path) = config.agents.directory.as_deref() {
        need("agents.directory", None, path, Wanted::Folder, "a server makes it, and has no agents");
    }
    let model = "memory.embedding_config.model_path";
    if loaded.origin(model).is_some() && !config.embedding.keyword_only {
        need(model, None, config.memory.embedding_config.model_path.as_path(), Wanted::Folder, STOPS);
    }
    for (index, row) in config.llm.providers.iter().enumerate() {
        let files = [("script", &row.script), ("api_key_file", &row.api_key_file)];
        for (name, path) in files.into_iter().filter_map(|(name, path)| Some((name, path.as_deref()?))) {
            need("llm.providers", Some((index, name)), path, Wanted::File, STOPS);
        }
    }
    for (index, row) in config.mcp_servers.iter().enumerate() {
        // A bare name is looked for in the PATH of the server, which may be another one than ours.
        if let Some(command) = row.command.as_deref().filter(|command| command.contains('/')) {
            let (row, path) = (Some((index, "command")), Path::new(command));
            need("mcp_servers", row, path, Wanted::File, "its tools are missing then");
        }
    }
    needs
}

fn warning(loaded: &Loaded, need: &Need<'_>) -> Problem {
    let Need { key, row, path, wanted, secret, otherwise } = *need;
    let row = row.map_or_else(String::new, |(index, name)| format!("row {}, {name}: ", index + 1));
    let place = match (secret, path.is_relative()) {
        (true, _) => "of this name".to_owned(),
        (false, true) => format!("{} (from here {})", path.display(), resolved(path).display()),
        (false, false) => path.display().to_string(),
    };
    let message = format!("{row}there is no {} {place}; {otherwise}", wanted.word());
    let remedy = if path.is_relative() {
        "relative paths count from the folder in which Caxton is started, not from that of the file: start it where they lead \
         somewhere, or write the whole path"
    } else {
        "correct the path, or put there what is missing"
    };
    let (source, place, written) = match loaded.origin(key) {
        Some(origin) => (origin.source.clone(), origin.place(), origin.written.as_str()),
        None => (Source::Default, None, key),
    };
    Problem::new(source, written, message, remedy).at(place)
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
                "embedding_config:\n  model_path: ./no-model",
                2,
                ["embedding_config.model_path: there is no folder ./no-model", "no-model"],
            ),
            (
                "llm:\n  providers:\n  - {name: a, kind: scripted, script: no.yaml}",
                2,
                ["row 1, script: there is no file no.yaml", "no.yaml"],
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
    fn what_may_be_a_key_is_not_repeated() {
        let report = check("llm: {providers: [{name: a, api_key_file: sk-secret}]}");
        let warnings = told(&report);
        let [warning] = &warnings[..] else { panic!("{report}") };
        assert!(warning.contains("row 1, api_key_file: there is no file"), "{warning}");
        assert!(!report.to_string().contains("secret"), "{report}");
    }

    #[test]
    fn paths_that_lead_somewhere_and_those_that_nobody_set_are_no_warning() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("agents: {{directory: '{}'}}", dir.path().display());
        for text in [
            text.as_str(),
            "",
            "server: {data_dir: no/data}",
            "embedding: {keyword_only: true}\nembedding_config: {model_path: no/model}",
            "mcp_servers: [{name: a, command: no-such-program}]",
        ] {
            assert_eq!(told(&check(text)), [""; 0], "{text}");
        }
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let text = format!("agents: {{directory: '{}'}}", file.display());
        let warnings = told(&check(&text));
        let [warning] = &warnings[..] else { panic!("a file is no folder") };
        assert!(warning.contains("correct the path") && !warning.contains("from here"), "{warning}");
    }

    #[test]
    fn the_examples_paths_count_from_the_repository() {
        // Tests run there, and it is where README says to start the server.
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/caxton.yaml");
        assert_eq!(told(&check_file(&file)), [""; 0]);
    }
}
