//! What stops a server at its start because of its configuration, found before one is started: its own parts are asked.

use std::path::Path;
use std::time::Duration;

use super::{model, setup};
use crate::config::{Loaded, Problem, Report, file_in_the_way, resolved};
use crate::failure::chain;
use crate::llm::scripted::ScriptError;
use crate::llm::{self, KeyError, RegistryError};

/// The key of the rows that language models are made of.
const PROVIDERS: &str = "llm.providers";

/// Adds to `report` for what a server that is started with `loaded` would end.
pub(super) fn add(loaded: &Loaded, report: &mut Report) {
    let config = &loaded.config;
    if let Err(failure) = setup::can_hold_data(&config.server.data_dir) {
        report.problems.push(loaded.refused("server.data_dir", &failure.to_string(), ""));
    }
    if let Some(agents) = config.agents.directory.as_deref()
        && let Some(file) = file_in_the_way(agents)
    {
        let (agents, file) = (agents.display(), file.display());
        let message = format!("could not open the agents directory {agents}: {file} is a file, not a folder");
        report.problems.push(loaded.problem("agents.directory", message, "name a folder, or a new one"));
    }
    let environment = |name: &str| std::env::var(name).ok();
    let around = llm::Surroundings::of_machine(&environment, Duration::ZERO);
    for (row, error) in llm::unusable(&config.llm, &around) {
        let path = config.llm.providers.get(row).and_then(|row| row.script.as_deref());
        let problem = provider(loaded, &error, path);
        // The file can be used where the variable is set: it is no fault of the file, and a server ends all the same.
        let unset = matches!(&error, RegistryError::Key { source: KeyError::Unset { .. }, .. });
        let list = if unset { &mut report.warnings } else { &mut report.problems };
        list.push(problem);
    }
    for (row, server) in config.mcp_servers.iter().enumerate() {
        for (message, remedy) in server.doubts(|name| environment(name).is_some()) {
            let message = format!("row {}: {message}", row + 1);
            report.warnings.push(loaded.problem("mcp_servers", message, remedy));
        }
    }
    if !config.embedding.keyword_only
        && let Some(words) = model::named_in_vain(loaded)
    {
        report.problems.push(loaded.refused(model::PATH_KEY, &words, "fetch it again"));
    }
}

/// What is wrong with a provider of language models, whose rules are in the file `script`.
fn provider(loaded: &Loaded, error: &RegistryError, script: Option<&Path>) -> Problem {
    let words = match error {
        // What stands in place of a path may be a key that was pasted there, and is not repeated.
        RegistryError::Key { provider, source: KeyError::Unreadable { source, .. } } => {
            format!("{provider} has no key: could not read the file that its api_key_file names: {source}")
        }
        RegistryError::Key { .. }
        | RegistryError::Script { .. }
        | RegistryError::Client { .. }
        | RegistryError::Unknown { .. } => chain(error),
    };
    // The place says that already.
    let words = words.strip_prefix(PROVIDERS).and_then(|words| words.strip_prefix(": ")).unwrap_or(&words);
    let unreadable = matches!(error, RegistryError::Script { source: ScriptError::Unreadable { .. }, .. });
    let remedy = match script.filter(|path| unreadable && path.is_relative()) {
        Some(path) => format!(
            "from here it is {}: relative paths count from the folder in which Caxton is started, not from that of the file; \
             start it where they lead somewhere, or write the whole path",
            resolved(path).display()
        ),
        None => "correct it, or put there what is missing".to_owned(),
    };
    loaded.refused(PROVIDERS, words, &remedy)
}
