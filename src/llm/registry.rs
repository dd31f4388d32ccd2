//! The models of a configuration, by name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::cache::{Cache, CacheOptions, Cached};
use super::clock::{Chance, Clock, SystemChance, SystemClock};
use super::extractive::Extractive;
use super::fallback::Fallback;
use super::http::{self, ClientError, HttpOptions};
use super::local::Local;
use super::meter::Metered;
use super::resilient::{BreakerOptions, Resilience, Resilient};
use super::scripted::{ScriptError, Scripted};
use super::{KeyError, LanguageModel, Secret};
use crate::config::{EXTRACTIVE, LOCAL, Llm, LlmProvider, ProviderKind};

/// What the models need from outside.
pub struct Surroundings<'a> {
    /// Variables of the environment.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// File of the small model, verified; `None` when it is not here.
    pub local_model: Option<PathBuf>,
    /// Age of kept answers at most; zero: none are kept.
    pub cache_ttl: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub chance: Arc<dyn Chance>,
}

impl<'a> Surroundings<'a> {
    /// The machine's own time and chance.
    pub fn of_machine(environment: &'a dyn Fn(&str) -> Option<String>, cache_ttl: Duration) -> Self {
        let (clock, chance) = (Arc::new(SystemClock::default()), Arc::new(SystemChance));
        Self { environment, local_model: None, cache_ttl, clock, chance }
    }
}

/// Why the models of a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A key is missing or lies open.
    #[error("llm.providers: {provider} has no key")]
    Key {
        /// The provider.
        provider: String,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The rules of a scripted provider are wrong.
    #[error("llm.providers: {provider} has no rules")]
    Script {
        /// The provider.
        provider: String,
        /// Why.
        #[source]
        source: ScriptError,
    },
    /// HTTP could not be set up.
    #[error("llm.providers: {provider} cannot be asked")]
    Client {
        /// The provider.
        provider: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// A name that no provider has.
    #[error("there is no language model {name:?}; the providers are {}", known.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The providers there are.
        known: Vec<String>,
    },
}

/// The models by the names of their providers.
#[derive(Debug, Clone)]
pub struct Registry {
    models: BTreeMap<String, Arc<dyn LanguageModel>>,
    default: String,
}

impl Registry {
    /// Builds the models of `llm`: each with its limits and retries, the chain behind it, and a cache in front.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] for the first that cannot be used.
    pub fn build(llm: &Llm, around: &Surroundings<'_>) -> Result<Self, RegistryError> {
        let mut bare: BTreeMap<String, Arc<dyn LanguageModel>> = BTreeMap::new();
        bare.insert(EXTRACTIVE.to_owned(), metered(Arc::new(Extractive::new(EXTRACTIVE)), around));
        bare.insert(LOCAL.to_owned(), local(LOCAL, around));
        for row in llm.providers.iter() {
            bare.insert(row.name.clone(), provider(row, around)?);
        }
        let find = |name: &str| {
            let unknown =
                || RegistryError::Unknown { name: name.to_owned(), known: bare.keys().cloned().collect() };
            bare.get(name).cloned().ok_or_else(unknown)
        };
        find(&llm.default)?;
        let cache = cache(llm, around);
        let mut models = BTreeMap::new();
        for (name, model) in &bare {
            let others = llm.chain.iter().filter(|other| *other != name);
            let others = others.map(|other| find(other)).collect::<Result<Vec<_>, _>>()?;
            models.insert(name.clone(), in_front(model, others, cache.as_ref(), around));
        }
        Ok(Self { models, default: llm.default.clone() })
    }

    /// The model called `name`; the default one when that is empty.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unknown`] when there is none.
    pub fn get(&self, name: &str) -> Result<Arc<dyn LanguageModel>, RegistryError> {
        let name = if name.is_empty() { &self.default } else { name };
        self.models.get(name).cloned().ok_or_else(|| RegistryError::Unknown {
            name: name.to_owned(),
            known: self.models.keys().cloned().collect(),
        })
    }

    /// What makes every model forget the answers that it kept.
    pub fn forgetting(&self) -> impl Fn() + Send + Sync + 'static {
        let models: Vec<_> = self.models.values().cloned().collect();
        move || models.iter().for_each(|model| model.forget())
    }

    /// The names of the providers, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// The provider of those who name none.
    pub fn default_name(&self) -> &str {
        &self.default
    }
}

/// Why providers of `llm` cannot be used, each with its row from 0: all of them, where [`Registry::build`] tells the first.
pub fn unusable(llm: &Llm, around: &Surroundings<'_>) -> Vec<(usize, RegistryError)> {
    let rows = llm.providers.iter().enumerate();
    rows.filter_map(|(row, wanted)| Some((row, provider(wanted, around).err()?))).collect()
}

fn metered(model: Arc<dyn LanguageModel>, around: &Surroundings<'_>) -> Arc<dyn LanguageModel> {
    Arc::new(Metered::new(model, Arc::clone(&around.clock)))
}

fn local(name: &str, around: &Surroundings<'_>) -> Arc<dyn LanguageModel> {
    metered(Arc::new(Local::new(name, around.local_model.clone())), around)
}

/// The provider of a row, with its limits and retries.
fn provider(row: &LlmProvider, around: &Surroundings<'_>) -> Result<Arc<dyn LanguageModel>, RegistryError> {
    let name = || row.name.clone();
    let model: Arc<dyn LanguageModel> = match row.kind {
        ProviderKind::Extractive => return Ok(metered(Arc::new(Extractive::new(&row.name)), around)),
        ProviderKind::Local => return Ok(local(&row.name, around)),
        ProviderKind::Scripted => {
            let path = row.script.clone().unwrap_or_default();
            let loaded = Scripted::load(&row.name, &path, Arc::clone(&around.clock));
            Arc::new(loaded.map_err(|source| RegistryError::Script { provider: name(), source })?)
        }
        ProviderKind::OpenAi | ProviderKind::Anthropic => {
            let options = http_options(row, around)?;
            let anthropic = row.kind == ProviderKind::Anthropic;
            let made = if anthropic { http::anthropic(options) } else { http::openai(options) };
            made.map_err(|source| RegistryError::Client { provider: name(), source })?
        }
    };
    let resilience = Resilience {
        retries: row.retries,
        retry_delay: row.retry_delay,
        retry_delay_max: row.retry_delay_max,
        concurrent_max: row.max_concurrent,
        waiting_max: row.max_waiting,
        breaker: BreakerOptions {
            failures: row.breaker_failures,
            pause: row.breaker_pause,
            successes: row.breaker_successes,
        },
    };
    let (clock, chance) = (Arc::clone(&around.clock), Arc::clone(&around.chance));
    Ok(Arc::new(Resilient::new(metered(model, around), resilience, clock, chance)))
}

fn http_options(row: &LlmProvider, around: &Surroundings<'_>) -> Result<HttpOptions, RegistryError> {
    let key = match (&row.api_key_env, &row.api_key_file) {
        (Some(variable), _) => Secret::from_variable(variable, around.environment).map(Some),
        (None, Some(path)) => Secret::from_file(path).map(Some),
        (None, None) => Ok(None),
    };
    let key = key.map_err(|source| RegistryError::Key { provider: row.name.clone(), source })?;
    let base_url = row.base_url.as_deref().or(row.kind.base_url()).unwrap_or_default().to_owned();
    Ok(HttpOptions {
        provider: row.name.clone(),
        base_url,
        key,
        model: row.model.clone().unwrap_or_default(),
        max_tokens: row.max_tokens,
        stream: row.stream,
        connect_timeout: row.connect_timeout,
        read_timeout: row.read_timeout,
        total_timeout: row.total_timeout,
        answer_bytes_max: row.max_answer_size.0,
    })
}

/// Where the answers of all models are kept, if they are: the bounds are of all together.
fn cache(llm: &Llm, around: &Surroundings<'_>) -> Option<Arc<Cache>> {
    let (entries_max, bytes_max) = (llm.cache_entries, llm.cache_size.0);
    let options = CacheOptions { ttl: around.cache_ttl, entries_max, bytes_max };
    (!around.cache_ttl.is_zero()).then(|| Arc::new(Cache::new(options)))
}

/// The chain behind a model and the cache in front of both.
fn in_front(
    model: &Arc<dyn LanguageModel>,
    others: Vec<Arc<dyn LanguageModel>>,
    cache: Option<&Arc<Cache>>,
    around: &Surroundings<'_>,
) -> Arc<dyn LanguageModel> {
    let mut model = Arc::clone(model);
    if !others.is_empty() {
        model = Arc::new(Fallback::new(model, others));
    }
    if let Some(cache) = cache {
        model = Arc::new(Cached::new(model, Arc::clone(cache), Arc::clone(&around.clock)));
    }
    model
}
