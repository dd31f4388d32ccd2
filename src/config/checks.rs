//! Rules that concern more than one key, or that a type cannot say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use tracing_subscriber::EnvFilter;

use super::load::Origin;
use super::memory::{Durability, EmbeddingEngine, MODEL_TOKENS_MAX, SearchMode};
use super::problem::{Problem, Source};
use super::{Config, EXTRACTIVE, Format, LOCAL, Precision, format_duration};

/// The rules, over a configuration whose values each fit their keys.
struct Checks<'a> {
    origins: &'a BTreeMap<String, Origin>,
    problems: &'a mut Vec<Problem>,
    warnings: &'a mut Vec<Problem>,
}

/// Applies every rule. What can be put right with no loss (a default above an explicit bound, a token limit above the
/// model's) is put right in `config`.
pub(crate) fn check(
    config: &mut Config,
    origins: &BTreeMap<String, Origin>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    let mut checks = Checks { origins, problems, warnings };
    checks.pages(config);
    checks.formats(config);
    checks.embedding(config);
    checks.threads(config);
    checks.ports(config);
    checks.hosts(config);
    checks.log(config);
    checks.rows(config);
    checks.classification(config);
    checks.models(config);
    checks.logging(config);
    checks.mcp_servers(config);
    if config.memory.scaling.auto_migrate_enabled {
        let key = "memory.scaling.auto_migrate_enabled";
        checks.problem(key, "Caxton does not move data by itself", "set it to false");
    }
}

impl Checks<'_> {
    fn made(&self, key: &str, message: &str, remedy: &str) -> Problem {
        let (source, place, written) = match self.origins.get(key) {
            Some(origin) => (origin.source.clone(), origin.place(), origin.written.as_str()),
            None => (Source::Default, None, key),
        };
        Problem::new(source, written, message, remedy).at(place)
    }

    fn problem(&mut self, key: &str, message: &str, remedy: &str) {
        let problem = self.made(key, message, remedy);
        self.problems.push(problem);
    }

    fn warn(&mut self, key: &str, message: &str, remedy: &str) {
        let warning = self.made(key, message, remedy);
        self.warnings.push(warning);
    }

    /// A value at or below its bound: a default follows the bound, an explicit value must fit.
    fn at_most(&mut self, (small_key, small): (&str, &mut usize), (large_key, large): (&str, &mut usize)) {
        if *small <= *large {
            return;
        }
        match (self.origins.contains_key(small_key), self.origins.contains_key(large_key)) {
            (false, _) => *small = *large,
            (true, false) => *large = *small,
            (true, true) => {
                let message = format!("{small} is more than {large_key} = {large}");
                self.problem(small_key, &message, "lower it, or raise the other");
            }
        }
    }

    fn pages(&mut self, config: &mut Config) {
        let api = &mut config.api_optimization;
        self.at_most(
            ("api_optimization.default_page_size", &mut api.default_page_size),
            ("api_optimization.max_page_size", &mut api.max_page_size),
        );
        let search = &mut config.memory.search;
        self.at_most(
            ("memory.search.limit", &mut search.limit),
            ("memory.search.max_limit", &mut search.max_limit),
        );
    }

    fn embedding(&mut self, config: &mut Config) {
        let tokens = &mut config.memory.embedding_config.max_sequence_length;
        if *tokens > MODEL_TOKENS_MAX {
            let message = format!("{tokens} is more than the {MODEL_TOKENS_MAX} tokens the model reads");
            let remedy =
                format!("{MODEL_TOKENS_MAX} is used; longer texts are cut into chunks of that length");
            *tokens = MODEL_TOKENS_MAX;
            self.warn("memory.embedding_config.max_sequence_length", &message, &remedy);
        }
        if config.embedding.engine == EmbeddingEngine::Candle
            && config.advanced_memory_tuning.embedding_advanced.model_precision != Precision::Fp32
        {
            let key = "advanced_memory_tuning.embedding_advanced.model_precision";
            let message = "the candle engine computes with fp32 alone";
            self.problem(key, message, "choose fp32, or embedding.engine: fused");
        }
        let mode = config.memory.search.mode;
        if config.embedding.keyword_only && mode == SearchMode::Semantic {
            let message = "search by meaning needs the model that embedding.keyword_only turns off";
            self.problem("memory.search.mode", message, "choose keyword or hybrid, or allow the model");
        }
    }

    fn formats(&mut self, config: &Config) {
        let api = &config.api_optimization;
        if api.default_format == Format::Msgpack && !api.enable_msgpack {
            let key = "api_optimization.default_format";
            let remedy = "set api_optimization.enable_msgpack to true, or choose json";
            self.problem(key, "MessagePack is not offered, so no answer can be in it", remedy);
        }
    }

    fn threads(&mut self, config: &Config) {
        let total = config.runtime.cpu_optimization.tokio_worker_threads;
        if let (Some(total), Some(http)) = (total, config.http_server.worker_threads)
            && total < http
        {
            let message =
                format!("{total} threads in all are fewer than the {http} of http_server.worker_threads");
            let key = "runtime.cpu_optimization.tokio_worker_threads";
            self.problem(key, &message, "raise it, or leave one of the two out");
        }
    }

    fn ports(&mut self, config: &Config) {
        let address = config.http_server.bind_address;
        if config.server.metrics_port == Some(address.port()) && address.port() != 0 {
            let message = format!("port {} is the REST API's", address.port());
            self.problem("server.metrics_port", &message, "choose another port");
        }
        if !address.ip().is_loopback() {
            let message = format!("{address} can be reached from other machines");
            let remedy = "Caxton starts there only with an API key (auth.keys_file) and does not encrypt: put a TLS \
                          proxy before it, or listen on 127.0.0.1";
            self.warn("http_server.bind_address", &message, remedy);
        }
    }

    /// What could never be the name in a request is no name of a host.
    fn hosts(&mut self, config: &Config) {
        for name in &config.server.allowed_hosts {
            let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let is_name = name.bytes().all(|sign| sign.is_ascii_alphanumeric() || b"-._".contains(&sign));
            if !is_name && bare.is_none_or(|address| address.parse::<Ipv6Addr>().is_err()) {
                let message = format!("{name:?} is no name of a host");
                let remedy =
                    "write the name alone, without https:// and port, as in caxton.example.com or [fd00::1]";
                self.problem("server.allowed_hosts", &message, remedy);
            }
        }
    }

    fn log(&mut self, config: &Config) {
        match config.log.durability {
            Durability::Always => (),
            Durability::Interval => {
                let window = format_duration(config.log.flush_interval);
                let message = format!("a power cut may lose the last {window} of acknowledged writes");
                self.warn("log.durability", &message, "set it to always to lose none");
            }
            Durability::Off => {
                let message = "a power cut may lose any acknowledged write";
                self.warn("log.durability", message, "set it to always, unless this is a benchmark");
            }
        }
    }

    fn logging(&mut self, config: &Config) {
        let filter = &config.logging.filter;
        if let Err(error) = EnvFilter::builder().parse(filter) {
            let remedy =
                "write a level (error, warn, info, debug, trace), or levels as in `info,caxton=debug`";
            self.problem("logging.filter", &format!("{filter:?} is not a filter: {error}"), remedy);
        }
    }

    fn rows(&mut self, config: &Config) {
        for (key, whose, time) in config.agents.cut() {
            // A default that is above the cap was not written by anybody.
            if self.origins.contains_key(key) {
                let message =
                    format!("{whose}, {}, is cut by agents.tool_call_timeout", format_duration(time));
                self.warn(key, &message, "raise agents.tool_call_timeout, or leave it out");
            }
        }
        for (index, row) in config.agents.overrides.iter().enumerate() {
            if row.agent_type.is_empty() {
                let message = format!("row {} has no agent_type", index + 1);
                self.problem("agents.overrides", &message, "say which agents it is for");
            }
        }
        let queues = &config.request_handling.priority_queues;
        let key = "request_handling.priority_queues.queues";
        let mut names = BTreeSet::new();
        for (index, queue) in queues.queues.iter().enumerate() {
            if queue.name.is_empty() {
                self.problem(key, &format!("row {} has no name", index + 1), "name it");
            } else if !names.insert(queue.name.as_str()) {
                let message = format!("two queues are called {}", queue.name);
                self.problem(key, &message, "give each its own name");
            }
        }
        if queues.enabled && queues.queues.is_empty() {
            self.problem(key, "there is no queue", "add one, or set priority_queues.enabled to false");
        }
    }

    /// Each list of capabilities is of a queue that there is, and a capability is in one list: else the queue of a message
    /// would be another than was written.
    fn classification(&mut self, config: &Config) {
        let handling = &config.request_handling;
        let (rows, lists) = (&handling.priority_queues.queues, &handling.classification);
        // Without priority queues no list counts. Queues that nobody could read may be those that are missing: what was
        // told of them is told once.
        let key = "request_handling.priority_queues.queues";
        let is_told = self.problems.iter().any(|problem| problem.key.starts_with(key));
        if is_told || !handling.priority_queues.enabled {
            return;
        }
        let queues: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        let mut listed = BTreeMap::new();
        for (key, queue, names) in [
            (
                "request_handling.classification.critical_capabilities",
                "critical",
                &lists.critical_capabilities,
            ),
            ("request_handling.classification.high_capabilities", "high", &lists.high_capabilities),
            ("request_handling.classification.normal_capabilities", "normal", &lists.normal_capabilities),
            (
                "request_handling.classification.background_capabilities",
                "background",
                &lists.background_capabilities,
            ),
        ] {
            if !names.is_empty() && !queues.contains(&queue) {
                let message = format!("there is no queue {queue:?}; the queues are {}", queues.join(", "));
                let remedy = "add a queue of that name, or move these capabilities to the list of another";
                self.problem(key, &message, remedy);
            }
            for name in names {
                let first = *listed.entry(name.as_str()).or_insert(key);
                if first != key {
                    let message = format!("{name:?} is in {first} too");
                    self.problem(key, &message, "leave it in one of the two");
                }
            }
        }
    }

    fn models(&mut self, config: &Config) {
        let llm = &config.llm;
        let key = "llm.providers";
        // Names that nobody could read may be those that are asked for: what was told of the rows is told once.
        let is_told = self.problems.iter().any(|problem| problem.key.starts_with(key));
        let is_unknown = is_told || llm.providers.iter().any(|row| row.name.is_empty());
        let mut names = BTreeSet::from([EXTRACTIVE, LOCAL]);
        for (index, row) in llm.providers.iter().enumerate() {
            let place = format!("row {}", index + 1);
            if row.name.is_empty() {
                self.problem(key, &format!("{place} has no name"), "name it");
            } else if [EXTRACTIVE, LOCAL].contains(&row.name.as_str()) {
                let message = format!("{place} is called {}, which is there already", row.name);
                self.problem(key, &message, "give it another name");
            } else if !names.insert(&row.name) {
                let message = format!("two providers are called {}", row.name);
                self.problem(key, &message, "give each its own name");
            }
            if let Some((below, message, remedy)) = row.fault() {
                self.problem(key, &format!("{place}, {below}: {message}"), remedy);
            } else if row.exposes_key() {
                let message = format!("the key of {} crosses the network unencrypted", row.name);
                self.warn(key, &message, "write an https address");
            }
        }
        for row in llm.providers.iter().filter(|row| row.needs_a_model() && llm.chain.contains(&row.name)) {
            let message = format!("{} has no model, and those of agents mean nothing there", row.name);
            self.warn("llm.chain", &message, "name its model in its row of llm.providers");
        }
        let named = llm.chain.iter().map(|name| ("llm.chain", name));
        for (key, name) in named.chain([("llm.default", &llm.default)]) {
            if !is_unknown && !names.contains(name.as_str()) {
                let known: Vec<&str> = names.iter().copied().collect();
                let message = format!("there is no provider {name:?}");
                self.problem(key, &message, &format!("the providers are {}", known.join(", ")));
            }
        }
    }

    fn mcp_servers(&mut self, config: &Config) {
        let mut names = BTreeSet::new();
        for (index, server) in config.mcp_servers.iter().enumerate() {
            let row = format!("row {}", index + 1);
            for (message, remedy) in server.faults() {
                self.problem("mcp_servers", &format!("{row}: {message}"), remedy);
            }
            if !server.name.is_empty() && !names.insert(server.name.as_str()) {
                let message = format!("two servers are called {}", server.name);
                self.problem("mcp_servers", &message, "give each its own name");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;

    #[test]
    fn a_provider_that_could_not_be_read_is_told_once_and_not_that_it_is_missing() {
        for (providers, told) in [
            ("[{name: a, retries: 21}]", "llm.providers[0].retries"),
            ("{name: a}", "is not a list of maps"),
            ("[{kind: anthropic}]", "row 1 has no name"),
            ("[{name: b}]", "there is no provider \"a\""),
        ] {
            let report = check(&format!("llm: {{default: a, chain: [extractive], providers: {providers}}}"));
            assert_eq!(report.problems.len(), 1, "{report}");
            assert!(report.to_string().contains(told), "{report}");
        }
    }

    #[test]
    fn a_list_of_capabilities_is_of_a_queue_that_there_is_and_a_capability_in_one_list() {
        let two = "queues: [{name: normal, priority: 1}, {name: high, priority: 0}]";
        let report = |queues: &str, lists: &str| {
            check(&format!(
                "request_handling: {{priority_queues: {{{queues}}}, classification: {{{lists}}}}}"
            ))
        };
        for (queues, lists, told) in [
            (
                two,
                "critical_capabilities: [a, b]",
                "critical_capabilities: there is no queue \"critical\"; the queues are normal, high; add a queue",
            ),
            (
                "enabled: true",
                "high_capabilities: [a], background_capabilities: [b, a]",
                "background_capabilities: \"a\" is in request_handling.classification.high_capabilities too",
            ),
            ("queues: [{name: normal}, {priority: 1}]", "high_capabilities: [a]", "row 2 has no name"),
        ] {
            let report = report(queues, lists);
            assert_eq!(report.problems.len(), 1, "{report}");
            assert!(report.to_string().contains(told), "{report}");
        }
        for (queues, lists) in [
            (two, "high_capabilities: [a, a], normal_capabilities: [b], critical_capabilities: []"),
            ("enabled: false", "high_capabilities: [a], normal_capabilities: [a]"),
        ] {
            let report = report(queues, lists);
            assert!(report.is_ok(), "{report}");
        }
    }
}
