//! `llm`: the language models that agents ask.

use std::path::PathBuf;
use std::time::Duration;

use caxton_events::limits::EVENT_BYTES_MAX;

use super::document::{Node, Yaml};
use super::setting::{DAY, Limits, Rows, Setting, Wrong, choice, keys, millis, section, whole};
use super::units::Bytes;

/// The provider that is always there: it quotes memory and needs no network.
pub const EXTRACTIVE: &str = "extractive";
/// The provider that is always there and runs a small model in this process, once its files are.
pub const LOCAL: &str = "local";

/// Largest answer that can be asked for, in bytes: it is recorded in one event, with what is known about it.
const ANSWER_BYTES_MAX: u64 = (EVENT_BYTES_MAX - (1 << 20)) as u64;

section! {
    /// `llm`: language models. Two providers are there without a row: `extractive`, which quotes memory, and `local`,
    /// which rewords it with the small model that `caxton model pull smollm2` fetches.
    pub struct Llm {
        /// Provider of the agents that name none.
        pub default: String = EXTRACTIVE.to_owned(), Limits::NotEmpty;
        /// Providers that are asked, in this order, when the one an agent names does not answer.
        pub chain: Vec<String> = Vec::new();
        /// Answers of all providers together kept at most, for `agents.response_cache_ttl`.
        pub cache_entries: usize = 1_000, whole(1, 1_000_000);
        /// Size of the answers of all providers together kept at most, in bytes.
        pub cache_size: Bytes = Bytes(32 << 20), whole(4_096, 16 << 30);
        /// The providers.
        pub providers: Rows<LlmProvider> = Rows::default();
    }
}

section! {
    /// One row of `llm.providers`.
    pub struct LlmProvider {
        /// Its name, as agents and metrics call it.
        pub name: String = String::new(), Limits::NotEmpty;
        /// What it speaks.
        pub kind: ProviderKind = ProviderKind::OpenAi;
        /// Address of the interface; unset: that of OpenAI or Anthropic.
        pub base_url: Option<String> = None, Limits::NotEmpty;
        /// The model, when an agent names none.
        pub model: Option<String> = None, Limits::NotEmpty;
        /// Variable of the environment that holds the key.
        pub api_key_env: Option<String> = None, Limits::NotEmpty;
        /// File that holds the key; only its owner may read it.
        pub api_key_file: Option<PathBuf> = None;
        /// File of rules, for `kind: scripted`.
        pub script: Option<PathBuf> = None;
        /// Tokens of an answer, when an agent does not say.
        pub max_tokens: Option<u32> = None, whole(1, 10_000_000);
        /// Ask for answers in pieces.
        pub stream: bool = true;
        /// Time to reach the provider.
        pub connect_timeout: Duration = Duration::from_secs(10), millis(1, DAY);
        /// Time until the first piece of an answer, and between two.
        pub read_timeout: Duration = Duration::from_mins(1), millis(1, DAY);
        /// Time for a whole answer.
        pub total_timeout: Duration = Duration::from_mins(2), millis(1, DAY);
        /// Largest answer, in bytes.
        pub max_answer_size: Bytes = Bytes(4 << 20), whole(1_024, ANSWER_BYTES_MAX);
        /// Times that a request is made again when that can help.
        pub retries: u32 = 3, whole(0, 20);
        /// Wait before the first repetition; each later one waits twice as long, half of it by chance.
        pub retry_delay: Duration = Duration::from_secs(1), millis(1, DAY);
        /// Longest wait; a provider that asks for a longer one is not waited for.
        pub retry_delay_max: Duration = Duration::from_secs(10), millis(1, DAY);
        /// Requests under way at once.
        pub max_concurrent: usize = 8, whole(1, 100_000);
        /// Requests that may wait for those; then they are turned away.
        pub max_waiting: usize = 64, whole(0, 1_000_000);
        /// Failures in a row after which the provider is left alone; 0 never leaves it alone.
        pub breaker_failures: u32 = 5, whole(0, 1_000_000);
        /// How long it is left alone.
        pub breaker_pause: Duration = Duration::from_mins(1), millis(1, DAY);
        /// Successes in a row, one request at a time, after which it is used as before.
        pub breaker_successes: u32 = 3, whole(1, 1_000_000);
        /// Not a place for a key: see `api_key_env` and `api_key_file`.
        pub api_key: NoKeyHere = NoKeyHere;
    }
}

choice! {
    /// What a provider speaks.
    pub enum ProviderKind {
        /// Chat completions: OpenAI, Ollama, vLLM, llama.cpp and others.
        OpenAi = "openai",
        /// Anthropic's messages.
        Anthropic = "anthropic",
        /// No model: the best of memory, verbatim.
        Extractive = "extractive",
        /// A small model in this process that rewords what memory knows.
        Local = "local",
        /// Rules in a file, for tests.
        Scripted = "scripted",
    }
}

impl ProviderKind {
    /// Where it is, unless a row says otherwise; `None` when it is not behind HTTP.
    pub const fn base_url(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("https://api.openai.com/v1"),
            Self::Anthropic => Some("https://api.anthropic.com"),
            Self::Extractive | Self::Local | Self::Scripted => None,
        }
    }
}

impl LlmProvider {
    /// What is wrong with the row beyond the bounds of its keys: the key below it, what, and the remedy. What was
    /// written is not repeated where it may be a key of the provider.
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str, &'static str)> {
        if let Some(variable) = &self.api_key_env {
            let fits = variable.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !fits || variable.starts_with(|sign: char| sign.is_ascii_digit()) {
                let remedy = "write the name, as in OPENAI_API_KEY, and put the key into that variable";
                return Some(("api_key_env", "this is not the name of a variable", remedy));
            }
        }
        if self.api_key_env.is_some() && self.api_key_file.is_some() {
            return Some(("api_key_file", "the key has two places", "leave api_key_env or api_key_file out"));
        }
        if let Some(url) = &self.base_url {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            let Some(host) = rest.and_then(|rest| rest.split('/').next()).filter(|host| !host.is_empty())
            else {
                let remedy = "write one, as in http://127.0.0.1:11434/v1";
                return Some(("base_url", "this is not an http or https address", remedy));
            };
            if host.contains('@') || url.contains(['?', '#', ' ']) {
                let remedy = "write the address alone; the key goes into api_key_env or api_key_file";
                return Some(("base_url", "this holds more than an address", remedy));
            }
        }
        let http = self.kind.base_url().is_some();
        match (self.kind, &self.script) {
            (ProviderKind::Scripted, None) => {
                Some(("script", "a scripted provider has no rules", "name the file that holds them"))
            }
            (ProviderKind::Scripted, Some(_)) => None,
            (_, Some(_)) => Some(("script", "only a scripted provider has rules", "leave it out")),
            (_, None) if !http && (self.api_key_env.is_some() || self.api_key_file.is_some()) => {
                Some(("api_key_env", "this kind of provider has no key", "leave it out"))
            }
            (_, None) => None,
        }
    }

    /// Whether it can answer only those who name a model: whoever comes by `llm.chain` names none.
    pub(crate) fn needs_a_model(&self) -> bool {
        self.kind.base_url().is_some() && self.model.is_none()
    }

    /// Whether its key would cross a network unencrypted.
    pub(crate) fn exposes_key(&self) -> bool {
        let keyed = self.api_key_env.is_some() || self.api_key_file.is_some();
        let host = self.base_url.as_deref().and_then(|url| url.strip_prefix("http://"));
        let own = |host: &str| ["127.", "localhost", "[::1]"].iter().any(|own| host.starts_with(own));
        keyed && host.is_some_and(|host| !own(host))
    }
}

/// A key that takes nothing: configuration files are shown, copied and committed, keys must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoKeyHere;

impl Setting for NoKeyHere {
    fn set(&mut self, node: &Node, _: Limits) -> Result<(), Wrong> {
        if node.value == Yaml::Null {
            return Ok(());
        }
        // The value is not repeated: it may be a key.
        let remedy = "remove it; put the key into a variable and name that in api_key_env, or into a file of mode 600 \
                      and name that in api_key_file. A key that stood in a file that others saw must be replaced";
        Err(Wrong::new(node, "a key does not belong into this file", remedy))
    }

    fn show(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn takes(&self, _: Limits) -> String {
        "nothing".to_owned()
    }
}

keys!(NoKeyHere);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::super::{Report, check, load_text};
    use super::*;

    fn report(row: &str) -> Report {
        check(&format!("llm:\n  providers:\n    - {row}\n"))
    }

    #[test]
    fn a_row_says_only_what_differs() {
        let text = "
llm:
  default: ollama
  chain: [claude, extractive]
  providers:
    - {name: ollama, base_url: 'http://127.0.0.1:11434/v1', model: llama3.2, max_concurrent: 2}
    - {name: claude, kind: anthropic, api_key_env: ANTHROPIC_API_KEY, total_timeout: 30s, api_key: null}
    - {name: rules, kind: scripted, script: ./rules.yaml}
";
        let llm = load_text(text).unwrap().config.llm;
        let [ollama, claude, rules] = &llm.providers[..] else { panic!("{llm:?}") };
        assert_eq!(ollama.kind, ProviderKind::OpenAi);
        assert_eq!((ollama.max_concurrent, ollama.retries), (2, 3));
        assert_eq!(claude.total_timeout, Duration::from_secs(30));
        assert_eq!(claude.kind.base_url(), Some("https://api.anthropic.com"));
        assert_eq!(rules.script.as_deref(), Some(std::path::Path::new("./rules.yaml")));
        assert_eq!(load_text("").unwrap().config.llm.default, EXTRACTIVE);
    }

    #[test]
    fn a_key_in_the_file_is_refused_and_not_repeated() {
        for row in [
            "{name: a, api_key: sk-very-secret}",
            "{name: a, api_key: [sk-very-secret]}",
            "{name: a, api_key_env: sk-very-secret}",
            "{name: a, token: sk-very-secret}",
            "{name: a, base_url: 'https://me:sk-very-secret@host/v1'}",
            "{name: a, base_url: 'https://host/v1?key=sk-very-secret'}",
        ] {
            let report = report(row);
            assert_eq!(report.problems.len(), 1, "{report}");
            let shown = report.to_string();
            assert!(!shown.contains("secret"), "{shown}");
            assert!(report.problems[0].place.is_some(), "{shown}");
        }
        let told = report("{name: a, api_key: sk-1}").to_string();
        assert!(told.contains("api_key_env") && told.contains("mode 600"), "{told}");
    }

    #[test]
    fn rows_that_cannot_work_are_refused() {
        for (row, words) in [
            ("{kind: anthropic}", "row 1 has no name"),
            ("{name: extractive}", "which is there already"),
            ("{name: a}\n    - {name: a}", "two providers are called a"),
            ("{name: a, base_url: 'ftp://host'}", "not an http or https address"),
            ("{name: a, base_url: 'https:///v1'}", "not an http or https address"),
            ("{name: a, kind: scripted}", "has no rules"),
            ("{name: a, script: rules.yaml}", "only a scripted provider"),
            ("{name: a, kind: local, api_key_env: KEY}", "has no key"),
            ("{name: a, api_key_env: KEY, api_key_file: key}", "two places"),
            ("{name: a, kind: telepathy}", "one of openai, anthropic, extractive, local, scripted"),
            ("{name: a, retries: 21}", "from 0 to 20"),
            ("{name: a, max_concurrent: 0}", "from 1 to 100000"),
            ("{name: a, total_timeout: 0s}", "from 1ms"),
        ] {
            let report = report(row);
            assert_eq!(report.problems.len(), 1, "{row}: {report}");
            assert!(report.to_string().contains(words), "{words:?} is not in {report}");
        }
        for text in ["llm: {default: nobody}", "llm: {chain: [extractive, nobody]}"] {
            let told = check(text).to_string();
            assert!(told.contains("\"nobody\"") && told.contains("extractive, local"), "{told}");
        }
    }

    #[test]
    fn a_provider_of_the_chain_that_nobody_can_ask_for_a_model_is_told() {
        for (row, warned) in [
            ("{name: a}", true),
            ("{name: a, kind: anthropic}", true),
            ("{name: a, model: m}", false),
            ("{name: a, kind: extractive}", false),
            ("{name: b}\n    - {name: a, model: m}", false),
        ] {
            let report = check(&format!("llm:\n  chain: [a]\n  providers:\n    - {row}\n"));
            assert!(report.is_ok(), "{report}");
            assert_eq!(report.warnings.len(), usize::from(warned), "{row}: {report}");
            assert_eq!(report.to_string().contains("a has no model"), warned, "{report}");
        }
    }

    #[test]
    fn a_key_that_crosses_the_network_unencrypted_is_told() {
        for (url, warned) in [
            ("http://models.example/v1", true),
            ("https://models.example/v1", false),
            ("http://127.0.0.1:8000/v1", false),
        ] {
            let report = report(&format!("{{name: a, api_key_env: KEY, base_url: '{url}'}}"));
            assert!(report.is_ok(), "{report}");
            assert_eq!(report.warnings.len(), usize::from(warned), "{report}");
        }
    }
}
