//! From defaults, preset, file, environment and flags to one configuration that knows where each value came from.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::aliases::canonical;
use super::document::{Document, Entry, Node, NodeId, Place, SyntaxError, TEXT_BYTES_MAX, Yaml};
use super::effect::{self, Ineffective};
use super::environment::{Variable, variable, variable_of};
use super::presets::Preset;
use super::problem::{LoadError, Problem, Source};
use super::setting::Wrong;
use super::table::{Known, join, known, remedy, with_key};
use super::{Config, checks};

/// Faults of one file that are told at most. A file with more is not a configuration, and each costs another reading
/// of the text to find its line.
const PROBLEMS_MAX: usize = 50;

/// Where to look for values.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A shipped profile, below the file.
    pub preset: Option<Preset>,
    /// A YAML file.
    pub file: Option<PathBuf>,
    /// Variables with their values, as [`environment`](super::environment()) gives them.
    pub environment: Vec<(String, OsString)>,
    /// Flags, above all else.
    pub flags: Vec<Flag>,
}

/// A flag of the command line that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// As it was written, with its dashes, as in `--port`.
    pub name: String,
    /// The key it sets, as in `server.port`.
    pub key: String,
    /// The value, as it would stand in a file, or as it is meant.
    pub value: String,
    /// Whether the value is a text as it is, and not what a file would hold.
    is_text: bool,
}

impl Flag {
    /// A flag that sets `key` to `value`.
    pub fn new(name: &str, key: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), key: key.to_owned(), value: value.into(), is_text: false }
    }

    /// A flag that sets `key` to a text, whatever a file would read into its signs: the name of a folder may be `2026` or
    /// `data #2`.
    pub fn text(name: &str, key: &str, value: impl Into<String>) -> Self {
        Self { is_text: true, ..Self::new(name, key, value) }
    }
}

/// Where an effective value came from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The source.
    pub source: Source,
    /// The name under which it was given there: the key itself or an alias.
    pub written: String,
    document: Arc<Document>,
    key: Option<NodeId>,
}

impl Origin {
    /// The place of the key there; `None` where the source has no lines.
    ///
    /// Reads the text again: a millisecond for a long file.
    pub fn place(&self) -> Option<Place> {
        self.document.place(self.key?)
    }
}

/// A configuration with the story of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    /// What is allowed and should be known.
    pub warnings: Vec<Problem>,
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Where the value of `key` (or an alias of it) came from; `None` for a default.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.origins.get(&canonical(key))
    }

    /// A fault of the value of `key`, at the place where that was given.
    pub(crate) fn problem(&self, key: &str, message: impl Into<String>, remedy: &str) -> Problem {
        let (source, place, written) = match self.origin(key) {
            Some(origin) => (origin.source.clone(), origin.place(), origin.written.as_str()),
            None => (Source::Default, None, key),
        };
        Problem::new(source, written, message, remedy).at(place)
    }

    /// The fault for which a server does not start with the value of `key`, in the words that it ends with: what stands behind
    /// their first `; ` is the remedy, and `remedy` where there is no such sign.
    pub(crate) fn refused(&self, key: &str, words: &str, remedy: &str) -> Problem {
        let (message, remedy) = words.split_once("; ").unwrap_or((words, remedy));
        self.problem(key, message, remedy)
    }

    /// The keys that were set, in order of their names, and change nothing.
    pub fn without_effect(&self) -> Vec<Ineffective> {
        let keys = self.origins.iter().map(|(name, origin)| (name.as_str(), origin.written.as_str()));
        effect::among(&self.config, keys)
    }
}

/// Loads a configuration.
///
/// ```
/// use caxton::config::{Flag, Sources, load};
///
/// let flags = vec![Flag::new("--port", "server.port", "9000")];
/// let loaded = load(&Sources { flags, ..Sources::default() })?;
/// assert_eq!(loaded.config.http_server.bind_address.to_string(), "127.0.0.1:9000");
/// # Ok::<(), caxton::config::LoadError>(())
/// ```
///
/// # Errors
///
/// [`LoadError`] with every fault of every source.
pub fn load(sources: &Sources) -> Result<Loaded, LoadError> {
    let mut loading = Loading::default();
    if let Some(preset) = sources.preset {
        loading.text(Source::Preset(preset), preset.text());
    }
    if let Some(path) = &sources.file {
        match read(path) {
            Ok(text) => loading.text(Source::File(path.clone()), &text),
            Err(problem) => loading.problems.push(*problem),
        }
    }
    loading.variables(&sources.environment);
    loading.flags(&sources.flags);
    loading.finish()
}

/// Loads the text of a file on its own, as if nothing else were set.
///
/// # Errors
///
/// As [`load`].
pub fn load_text(text: &str) -> Result<Loaded, LoadError> {
    let mut loading = Loading::default();
    loading.text(Source::Text, text);
    loading.finish()
}

pub(crate) fn load_file_alone(path: PathBuf) -> Result<Loaded, LoadError> {
    load(&Sources { file: Some(path), ..Sources::default() })
}

fn read(path: &Path) -> Result<String, Box<Problem>> {
    let source = Source::File(path.to_owned());
    let unreadable = |error: std::io::Error| {
        let message = format!("could not read the file: {error}");
        Box::new(Problem::new(source.clone(), "", message, "check the path and its permissions"))
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > TEXT_BYTES_MAX as u64 {
        let message = format!("the file takes {size} bytes, the limit is {TEXT_BYTES_MAX}");
        return Err(Box::new(Problem::new(source, "", message, "give a configuration file")));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let message = format!("byte {} is not UTF-8", error.utf8_error().valid_up_to());
        Box::new(Problem::new(source, "", message, "save the file as UTF-8"))
    })
}

/// One value that a source gives.
struct Given {
    source: Source,
    /// The key as written, or an alias.
    written: String,
    document: Arc<Document>,
    /// The key's own node; `None` for a value that stands alone.
    key: Option<NodeId>,
    node: Node,
}

impl Given {
    fn key_place(&self) -> Option<Place> {
        self.document.place(self.key?)
    }
}

/// The values of one rank of precedence. Two names of the same key must agree within it.
type Rank = Vec<Given>;

#[derive(Default)]
struct Loading {
    config: Config,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Loading {
    /// Takes over a file or a preset.
    fn text(&mut self, source: Source, text: &str) {
        let document = match Document::parse(text) {
            Ok(document) => Arc::new(document),
            Err(error) => return self.syntax(source, text, error),
        };
        let mut rank = Rank::new();
        match &document.root.value {
            Yaml::Null => (),
            Yaml::Map(entries) => self.flatten(&source, &document, entries, "", &mut rank),
            other @ (Yaml::Bool(_) | Yaml::Whole(_) | Yaml::Real(_) | Yaml::Text(_) | Yaml::List(_)) => {
                let message = format!("the file holds {} and not a map of keys", other.shown());
                let place = document.place(document.root.id);
                let remedy = "write `section:` and indented keys below it";
                self.problems.push(Problem::new(source, "", message, remedy).at(place));
            }
        }
        self.apply(&rank);
    }

    fn syntax(&mut self, source: Source, text: &str, error: SyntaxError) {
        let remedy = "correct the YAML; indentation is in spaces and `key: value` needs the space";
        let mut problem = Problem::new(source, "", error.message, remedy).at(error.place);
        problem.snippet = error.place.and_then(|at| text.lines().nth(at.line - 1)).map(str::to_owned);
        self.problems.push(problem);
    }

    /// Lists the values of a map under their full names; unknown and repeated names become problems.
    fn flatten(
        &mut self,
        source: &Source,
        document: &Arc<Document>,
        entries: &[Entry],
        prefix: &str,
        given: &mut Rank,
    ) {
        let mut seen = BTreeMap::new();
        for entry in entries {
            if self.problems.len() >= PROBLEMS_MAX {
                return;
            }
            let name = join(prefix, &entry.key);
            let mut problem = |message: String, remedy: &str, node: NodeId| {
                let problem = Problem::new(source.clone(), &name, message, remedy).at(document.place(node));
                self.problems.push(with_snippet(problem, document));
            };
            if let Some(first) = seen.insert(entry.key.as_str(), entry.key_id) {
                let first = document.place(first).map_or(0, |place| place.line);
                problem(format!("given twice, first in line {first}"), "remove one of the two", entry.key_id);
                continue;
            }
            match (known(&name), &entry.value.value) {
                (Some(Known::Section), Yaml::Map(below)) => {
                    self.flatten(source, document, below, &name, given);
                }
                // A section whose keys are all commented out.
                (Some(Known::Section), Yaml::Null) => (),
                (Some(Known::Section), other) => {
                    let message = format!("{} is not a map of keys", other.shown());
                    problem(message, "indent its keys below it", entry.value.id);
                }
                (Some(Known::Key), _) => given.push(Given {
                    source: source.clone(),
                    written: name,
                    document: Arc::clone(document),
                    key: Some(entry.key_id),
                    node: entry.value.clone(),
                }),
                (None, _) => problem("unknown key".to_owned(), &remedy(&name), entry.key_id),
            }
        }
    }

    fn variables(&mut self, environment: &[(String, OsString)]) {
        let mut rank = Rank::new();
        for (name, value) in environment {
            let source = Source::Environment(name.clone());
            match variable(name) {
                Variable::Key(key) => self.of_variable(&mut rank, source, key, value),
                Variable::Foreign => (),
                Variable::Unknown(closest) => {
                    let remedy = closest.map_or_else(
                        || "unset it; `caxton config show` lists the keys".to_owned(),
                        |closest| format!("did you mean {closest}?"),
                    );
                    self.problems.push(Problem::new(source, "", "no key has this name", &remedy));
                }
            }
        }
        self.apply(&rank);
    }

    /// Adds the value of a variable. One that is no text would silently become another.
    fn of_variable(&mut self, rank: &mut Rank, source: Source, key: &str, value: &OsStr) {
        if let Some(text) = value.to_str() {
            return self.single(rank, source, key, text);
        }
        let message = "the value is not UTF-8, as it must be";
        let remedy = "write it in UTF-8; rename a folder whose name is not, or name a symbolic link to it";
        self.problems.push(Problem::new(source, key, message, remedy));
    }

    fn flags(&mut self, flags: &[Flag]) {
        let mut rank = Rank::new();
        for Flag { name, key, value, is_text } in flags {
            let source = Source::Flag(name.clone());
            if known(key) != Some(Known::Key) {
                self.problems.push(Problem::new(source, key, "unknown key", &remedy(key)));
            } else if *is_text {
                rank.push(alone(source, key, Document::of_text(value)));
            } else {
                self.single(&mut rank, source, key, value);
            }
        }
        self.apply(&rank);
    }

    /// Adds one value that stands alone, in the notation of a file.
    fn single(&mut self, rank: &mut Rank, source: Source, key: &str, value: &str) {
        let fault = match Document::parse(value) {
            Ok(document) if document.is_cut(value) => {
                "what stands behind ` #` would be left out, as a comment".to_owned()
            }
            Ok(document) => return rank.push(alone(source, key, document)),
            Err(error) => error.message,
        };
        let remedy = format!("write the value as in a file; {} as text needs quotes", variable_of(key));
        self.problems.push(Problem::new(source, key, fault, &remedy));
    }

    /// Takes the values of a rank over, above those of the ranks before.
    fn apply(&mut self, rank: &[Given]) {
        let mut first_of: BTreeMap<String, (usize, serde_json::Value)> = BTreeMap::new();
        for (index, given) in rank.iter().enumerate() {
            let name = canonical(&given.written);
            let set = with_key(&mut self.config, &name, |leaf| {
                leaf.setting.set(&given.node, leaf.limits).map(|()| leaf.setting.show())
            });
            let value = match set {
                None => continue,
                Some(Err(wrong)) => {
                    self.problems.push(wrong_value(given, wrong));
                    continue;
                }
                Some(Ok(value)) => value,
            };
            match first_of.get(&name) {
                Some((first, before)) if *before != value => {
                    let first = &rank[*first];
                    self.problems.push(contradiction(first, before, given, &value));
                }
                Some(_) => (),
                None => {
                    first_of.insert(name.clone(), (index, value));
                }
            }
            let origin = Origin {
                source: given.source.clone(),
                written: given.written.clone(),
                document: Arc::clone(&given.document),
                key: given.key,
            };
            self.origins.insert(name, origin);
        }
        self.reconcile_ports(&first_of, rank);
    }

    /// `server.port` and the port of `http_server.bind_address` are one: a rank that gives one of them moves the
    /// other, and a rank that gives both must give the same.
    fn reconcile_ports(&mut self, set: &BTreeMap<String, (usize, serde_json::Value)>, rank: &[Given]) {
        let (port, address) = (set.get("server.port"), set.get("http_server.bind_address"));
        let bind = &mut self.config.http_server.bind_address;
        match (port, address) {
            (Some((port, port_shown)), Some((address, address_shown))) => {
                if bind.port() != self.config.server.port {
                    let (port, address) = (&rank[*port], &rank[*address]);
                    self.problems.push(contradiction(port, port_shown, address, address_shown));
                }
            }
            (Some(_), None) => bind.set_port(self.config.server.port),
            (None, Some(_)) => self.config.server.port = bind.port(),
            (None, None) => (),
        }
    }

    fn finish(mut self) -> Result<Loaded, LoadError> {
        let mut warnings = Vec::new();
        checks::check(&mut self.config, &self.origins, &mut self.problems, &mut warnings);
        if self.problems.is_empty() {
            return Ok(Loaded { config: self.config, warnings, origins: self.origins });
        }
        // Reading order within each source; sources stay in order of precedence.
        let mut order = Vec::new();
        let mut known_sources: BTreeSet<String> = BTreeSet::new();
        for problem in &self.problems {
            let source = problem.source.to_string();
            if known_sources.insert(source.clone()) {
                order.push(source);
            }
        }
        let rank = |problem: &Problem| order.iter().position(|source| *source == problem.source.to_string());
        self.problems.sort_by_key(|problem| (rank(problem), problem.place));
        Err(LoadError { problems: self.problems })
    }
}

/// A value that stands alone, as what `key` is set to.
fn alone(source: Source, key: &str, document: Document) -> Given {
    let node = document.root.clone();
    Given { source, written: key.to_owned(), document: Arc::new(document), key: None, node }
}

fn wrong_value(given: &Given, wrong: Wrong) -> Problem {
    let Wrong { node, below, message, remedy } = wrong;
    let key = format!("{}{below}", given.written);
    let mut problem = Problem::new(given.source.clone(), &key, message, &remedy);
    if let Some(key) = given.key {
        // A list or a map is best pointed at by its key.
        let itself = |node: NodeId| node == given.node.id;
        let nested = matches!(given.node.value, Yaml::List(_) | Yaml::Map(_) | Yaml::Null);
        problem.place = given.document.place(if nested && itself(node) { key } else { node });
    }
    with_snippet(problem, &given.document)
}

/// Adds the line to look at. Not for keys of `auth` and of providers: the line may hold a secret that was pasted by
/// mistake.
fn with_snippet(mut problem: Problem, document: &Document) -> Problem {
    if !["auth", "llm.providers"].iter().any(|secret| problem.key.starts_with(secret)) {
        problem.snippet = problem.place.and_then(|at| document.line(at.line)).map(str::to_owned);
    }
    problem
}

fn contradiction(
    first: &Given,
    first_value: &serde_json::Value,
    second: &Given,
    second_value: &serde_json::Value,
) -> Problem {
    let place = |given: &Given| match given.key_place() {
        Some(place) => format!("in line {}", place.line),
        None => format!("by {}", given.source),
    };
    let message = format!(
        "{second_value} ({}) contradicts {} = {first_value} ({}): they are the same setting",
        place(second),
        first.written,
        place(first)
    );
    let remedy = "remove one of the two, or make them equal";
    let problem =
        Problem::new(second.source.clone(), &second.written, message, remedy).at(second.key_place());
    with_snippet(problem, &second.document)
}
