//! A server in this process, on a free port, over a directory of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton::api::rest::{RestOptions, serve};
use caxton::engine::{Engine, EngineOptions};
use caxton_projections::embedding::{
    DIMENSIONS, EmbedError, Embedder, EmbeddingService, ModelIdentity, Precision, ServiceOptions,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::{Ask, Reply};

/// A running server; it stops in order when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Engine,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
    dir: TempDir,
}

impl Server {
    /// With keyword search only.
    pub(crate) fn start() -> Self {
        Self::with(RestOptions::default())
    }

    /// With keyword search only and these settings.
    pub(crate) fn with(options: RestOptions) -> Self {
        Self::over(options, |_| ())
    }

    /// With a model that knows words by their letters.
    pub(crate) fn with_model() -> Self {
        Self::over(RestOptions::default(), |engine| {
            engine.embedding = Some(letters());
        })
    }

    /// With such a model and these settings.
    pub(crate) fn with_model_and(options: RestOptions) -> Self {
        Self::over(options, |engine| {
            engine.embedding = Some(letters());
        })
    }

    fn over(options: RestOptions, change: impl FnOnce(&mut EngineOptions)) -> Self {
        Self::on(TempDir::new().unwrap(), options, change)
    }

    /// Over a directory that may be there already, with a model that knows words by their letters.
    pub(crate) fn beside(dir: TempDir, change: impl FnOnce(&mut EngineOptions)) -> Self {
        Self::on(dir, RestOptions::default(), |engine| {
            engine.embedding = Some(letters());
            change(engine);
        })
    }

    /// Stops in order and gives the directory back.
    pub(crate) fn leave(mut self) -> TempDir {
        self.stop();
        self.engine.stop();
        std::mem::replace(&mut self.dir, TempDir::new().unwrap())
    }

    /// Where it keeps everything.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// On a directory that was in use before.
    pub(crate) fn on(dir: TempDir, options: RestOptions, change: impl FnOnce(&mut EngineOptions)) -> Self {
        let mut engine = EngineOptions::new(dir.path());
        change(&mut engine);
        let engine = Engine::start(&engine, &mut |_| ()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = engine.clone();
        let served = runtime.spawn(async move {
            let shutdown = async move { drop(stopped.await) };
            serve(listener, serving, options, shutdown).await.unwrap();
        });
        Self { address, engine, stop: Some(stop), served: Some(served), runtime: Some(runtime), dir }
    }

    /// Asks the server to stop and waits until it has.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let (Some(served), Some(runtime)) = (self.served.take(), &self.runtime) {
            runtime.block_on(served).unwrap();
        }
    }

    /// Asks the server to stop without waiting.
    pub(crate) fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(self.address, method, &format!("/api/v1{path}"))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path).send()
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Reply {
        self.ask("DELETE", path).send()
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path).json(body).send()
    }

    /// Creates an entity of agent `ada` and answers what the server said.
    #[track_caller]
    pub(crate) fn entity(&self, name: &str, entity_type: &str, observations: &[&str]) -> Value {
        let body = json!({
            "agent_id": "ada", "entity_name": name, "entity_type": entity_type, "observations": observations,
        });
        self.post("/memory/entities", &body).expect(201).json()
    }

    /// Relates two entities of agent `ada` and answers what the server said.
    #[track_caller]
    pub(crate) fn relation(&self, from: &str, to: &str, relation_type: &str) -> Value {
        let body = json!({
            "agent_id": "ada", "from_entity": from, "to_entity": to, "relation_type": relation_type,
        });
        self.post("/memory/relations", &body).expect(201).json()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
        self.engine.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

fn letters() -> Arc<EmbeddingService> {
    let started = Instant::now();
    let options = ServiceOptions::new(Arc::new(move || started.elapsed()));
    Arc::new(EmbeddingService::start(Arc::new(Letters::new()), options).unwrap())
}

/// A model without weights: a text's vector counts its letters, so that like words are alike.
struct Letters {
    identity: ModelIdentity,
}

impl Letters {
    fn new() -> Self {
        let identity = ModelIdentity {
            name: "letters".to_owned(),
            weights_sha256: "0".repeat(64),
            dimensions: DIMENSIONS,
            precision: Precision::Fp32,
        };
        Self { identity }
    }
}

impl Embedder for Letters {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let vector = |text: &&str| {
            let mut vector = vec![0.01; DIMENSIONS];
            for byte in text.to_lowercase().bytes().filter(u8::is_ascii_alphabetic) {
                vector[usize::from(byte)] += 1.0;
            }
            let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
            vector.iter().map(|number| number / length).collect()
        };
        Ok(texts.iter().map(vector).collect())
    }

    fn chunk(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        if text.is_empty() { Vec::new() } else { std::iter::once(0..text.len()).collect() }
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.split_whitespace().count() + 2
    }
}
