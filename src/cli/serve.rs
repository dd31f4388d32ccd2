//! `caxton serve`: the server, from its report to its end.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::args::{Common, Serve};
use super::backend::ENDPOINT_FILE;
use super::failure::{Exit, Failure};
use super::feed::INTERRUPTED;
use super::progress::Progress;
use super::setup;
use super::threads;
use crate::agents::{AgentDirectory, AgentRuntime, Roster};
use crate::api;
use crate::api::rest::{BackupFiles, RestOptions};
use crate::config::{Allocator, Config, Flag, KeyHashes, Loaded};
use crate::engine::Engine;
use crate::engine::caretaker::Caretaker;
use crate::llm;
use crate::telemetry::{self, Telemetry};

/// Runs the server until SIGTERM or SIGINT.
pub(super) fn run(serve: &Serve, common: &Common) -> Result<(), Failure> {
    let started = Instant::now();
    let loaded = load(serve, common)?;
    let config = &loaded.config;
    setup::can_hold_data(&config.server.data_dir)?;
    telemetry::start_logging(&config.logging).map_err(|error| Failure::of(Exit::Usage, &error))?;
    if !config.memory_allocation.embedding_model.huge_pages {
        threads::use_small_pages();
    }
    let telemetry = Telemetry::install().map_err(|error| Failure::of(Exit::Failed, &error))?;
    let _upkeep = telemetry.start_upkeep().map_err(|error| Failure::of(Exit::Failed, &error))?;
    let keys = config.api_keys().map_err(|problem| Failure::new(Exit::Usage, problem.to_string()))?;
    config.check_exposure(&keys).map_err(|error| Failure::of(Exit::Usage, &error))?;
    let models = setup::language_models(config)?;
    let runtime = runtime(config)?;
    let (doors, signals) = Doors::open(&runtime, config)?;
    let (engine, mut signals, is_stopping) = heeding(&runtime, signals, |stop| {
        let mut progress = Progress::new("catching up with the log", "events", !common.no_progress);
        setup::serving_engine(&loaded, common, &mut progress, stop)
    });
    let engine = engine?;
    if is_stopping {
        runtime.spawn(async move { signals.second().await });
        engine.stop();
        return ended_in_order(&engine);
    }
    let caretakers = caretakers(config, &engine).inspect_err(|_| engine.stop())?;
    let (agents, turns) = start_agents(config, models, &engine).inspect_err(|_| engine.stop())?;
    let served = Endpoint::write(&config.server.data_dir, doors.address).and_then(|endpoint| {
        let threads = threads::apply(&config.runtime.cpu_optimization);
        report(&loaded, &engine, &agents, (&doors, &threads), &keys)?;
        telemetry::server_started(started.elapsed());
        let options = RestOptions {
            agents: Some(agents.clone()),
            turns: Some(turns.clone()),
            backup: backup_files(config, common),
            ..setup::rest_options(config, Some(keys))
        };
        let orphaned = input_closed(serve.until_input_closes);
        let asked = (signals, orphaned);
        let served = runtime.block_on(until_stopped(doors, asked, &engine, options, telemetry));
        drop(endpoint);
        served
    });
    drop(caretakers);
    turns.stop();
    agents.stop();
    engine.stop();
    // Requests that did not end in time have nobody to answer them any more.
    runtime.shutdown_background();
    served.and_then(|()| ended_in_order(&engine))
}

/// Who waits for the server to end is told when its log was not closed in order.
fn ended_in_order(engine: &Engine) -> Result<(), Failure> {
    let Some(why) = engine.failed_end() else { return Ok(()) };
    let message = format!(
        "could not close the log in order: {why}; what was acknowledged is found again at the next start"
    );
    Err(Failure::new(Exit::Failed, message))
}

/// Who looks after the engine.
fn caretakers(config: &Config, engine: &Engine) -> Result<Vec<Caretaker>, Failure> {
    let failed = |error| Failure::of(Exit::Failed, &error);
    let mut caretakers = vec![Caretaker::watch(engine).map_err(failed)?];
    caretakers.push(Caretaker::words(engine).map_err(failed)?);
    caretakers.push(Caretaker::sweep(engine, setup::cleanup(config)).map_err(failed)?);
    if config.memory.embedding_config.precompute_common {
        caretakers.push(Caretaker::queries(engine).map_err(failed)?);
    }
    Ok(caretakers)
}

/// What a backup takes along besides the log.
fn backup_files(config: &Config, common: &Common) -> BackupFiles {
    let agents = config.agents.directory.clone();
    let agents = agents.unwrap_or_else(|| config.server.data_dir.join("agents"));
    BackupFiles { agents: Some(agents), config: common.config.clone() }
}

/// The agents of files: looked after, and running.
fn start_agents(
    config: &Config,
    models: llm::Registry,
    engine: &Engine,
) -> Result<(AgentDirectory, AgentRuntime), Failure> {
    let equipment = setup::equipment(config, engine, models);
    let agents = setup::agents(config, engine, &equipment)?;
    let turns = AgentRuntime::start(config, engine, &agents, equipment);
    match turns {
        Ok(turns) => Ok((agents, turns)),
        Err(error) => {
            agents.stop();
            Err(Failure::of(Exit::Failed, &error))
        }
    }
}

/// The configuration with the flags of this command.
fn load(serve: &Serve, common: &Common) -> Result<Loaded, Failure> {
    let mut flags = Vec::new();
    if let Some(port) = serve.port {
        flags.push(Flag::new("--port", "server.port", port.to_string()));
    }
    if let Some(port) = &serve.metrics_port {
        let value = if port == "off" { "null" } else { port };
        flags.push(Flag::new("--metrics-port", "server.metrics_port", value));
    }
    if let Some(host) = serve.host {
        // The address is a host with a port; the port is what it would be without this flag.
        let port = setup::load(common, flags.clone())?.config.http_server.bind_address.port();
        let address = SocketAddr::new(host, port);
        flags.push(Flag::new("--host", "http_server.bind_address", format!("'{address}'")));
    }
    setup::load(common, flags)
}

fn runtime(config: &Config) -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .worker_threads(config.tokio_worker_threads())
        .max_blocking_threads(config.http_server.max_blocking_threads)
        .thread_name("caxton-http")
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Exit::Failed, format!("could not start the threads for requests: {error}"))
        })
}

/// The sockets, open before anything that takes long: a port in use is reported at once.
struct Doors {
    rest: TcpListener,
    address: SocketAddr,
    metrics: Option<(TcpListener, SocketAddr)>,
}

impl Doors {
    /// The sockets, and the signals, which from then on do not end the process by themselves.
    fn open(runtime: &Runtime, config: &Config) -> Result<(Self, Signals), Failure> {
        let _inside = runtime.enter();
        let (rest, address) = bind(runtime, config.http_server.bind_address, "--port")?;
        let metrics = match config.server.metrics_port {
            Some(port) => {
                Some(bind(runtime, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "--metrics-port")?)
            }
            None => None,
        };
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(Exit::Failed, format!("could not listen to signals: {error}")))
        };
        let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(listen);
        let [terminate, interrupt, hangup] = signals;
        let signals = Signals { terminate: terminate?, interrupt: interrupt?, hangup: hangup? };
        Ok((Self { rest, address, metrics }, signals))
    }
}

/// What asks the server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Done when the server shall stop in order.
    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
            _ = self.hangup.recv() => (),
        }
    }

    /// Ends the process at the next one: the log is as safe as after a crash.
    async fn second(&mut self) {
        tokio::select! { _ = self.terminate.recv() => (), _ = self.interrupt.recv() => () }
        tracing::warn!("stopping at once");
        std::process::exit(INTERRUPTED);
    }
}

/// Does what cannot be broken off everywhere without leaving it half done, and heeds signals meanwhile, the first of which `work` is
/// told: what came of it, the signals to go on with, and whether one came.
fn heeding<T>(
    runtime: &Runtime,
    signals: Signals,
    work: impl FnOnce(&Arc<AtomicBool>) -> T,
) -> (T, Signals, bool) {
    let (done, is_done) = oneshot::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let heeded = runtime.spawn(heed(signals, is_done, Arc::clone(&stop)));
    let worked = work(&stop);
    // Who listens waits for this, and for nothing else.
    let _ = done.send(());
    match runtime.block_on(heeded) {
        Ok((signals, came)) => (worked, signals, came),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn heed(
    mut signals: Signals,
    mut is_done: oneshot::Receiver<()>,
    stop: Arc<AtomicBool>,
) -> (Signals, bool) {
    let came = tokio::select! { _ = &mut is_done => false, () = signals.first() => true };
    if came {
        tracing::warn!(
            "stopping: a download is broken off, a log is closed once it is open; a second signal does not wait"
        );
        stop.store(true, Ordering::Relaxed);
        tokio::select! { _ = is_done => (), () = signals.second() => () }
    }
    (signals, came)
}

fn bind(runtime: &Runtime, address: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let failed = |error: io::Error| {
        let message = format!("could not listen on {address}: {error}; choose another port with {flag}");
        Failure::new(Exit::Failed, message)
    };
    let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Done when standard input is closed, if that is `awaited`.
async fn input_closed(awaited: bool) {
    if !awaited {
        return std::future::pending().await;
    }
    let (closed, told) = oneshot::channel();
    thread::spawn(move || {
        // An input that cannot be read is as good as closed.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        // Nobody waits any more where the server has stopped.
        let _ = closed.send(());
    });
    let _ = told.await;
}

/// Serves until a signal comes, or `orphaned` does. A second signal ends the process at once: the log is as safe as after a crash.
async fn until_stopped(
    doors: Doors,
    (mut signals, orphaned): (Signals, impl Future<Output = ()> + Send + 'static),
    engine: &Engine,
    options: RestOptions,
    telemetry: Telemetry,
) -> Result<(), Failure> {
    let (stop, stopped) = watch::channel(false);
    let turns = options.turns.clone();
    tokio::spawn(async move {
        tokio::select! { () = signals.first() => (), () = orphaned => () }
        tracing::info!("stopping: no new connections, finishing what is under way");
        // The receivers are gone only when the server has ended for another reason.
        let _ = stop.send(true);
        // Turns have the same time to finish as requests, not the time after them.
        if let Some(turns) = turns {
            turns.begin_stop();
        }
        signals.second().await;
    });
    if let Some((listener, _)) = doors.metrics {
        let stopped = until(stopped.clone());
        let gauged = engine.clone();
        let render = move || {
            gauged.gauge();
            telemetry.render()
        };
        tokio::spawn(async move {
            if let Err(error) = api::metrics::serve(listener, telemetry::CONTENT_TYPE, render, stopped).await
            {
                tracing::error!(%error, "metrics are no longer served");
            }
        });
    }
    api::rest::serve(doors.rest, engine.clone(), options, until(stopped))
        .await
        .map_err(|error| Failure::of(Exit::Failed, &error))
}

/// Done when the server shall stop.
async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The file that tells other commands where the server is; removed with this value.
struct Endpoint {
    path: PathBuf,
}

impl Endpoint {
    fn write(data_dir: &Path, address: SocketAddr) -> Result<Self, Failure> {
        let path = data_dir.join(ENDPOINT_FILE);
        let part = data_dir.join("endpoint.part");
        let written =
            std::fs::write(&part, format!("{}\n", url(address))).and_then(|()| std::fs::rename(&part, &path));
        written.map_err(|error| Failure::file("write", &path, &error))?;
        Ok(Self { path })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the endpoint file");
        }
    }
}

/// The address as clients on this machine reach it.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// How many agents there are, and which of them and of their files are not used.
fn counted(roster: &Roster) -> String {
    let kept_out = roster.agents.values().filter(|agent| agent.registered.is_kept_out()).count();
    let mut told = format!("{} from files", roster.agents.len());
    if !roster.rejected.is_empty() {
        // Writing to a text cannot fail.
        let _ = write!(told, ", {} rejected (caxton agents list)", roster.rejected.len());
    }
    if kept_out > 0 {
        let _ = write!(told, ", {kept_out} not run (agents.max_agents)");
    }
    told
}

/// Says what runs where, and what must be known about it.
fn report(
    loaded: &Loaded,
    engine: &Engine,
    agents: &AgentDirectory,
    (doors, threads): (&Doors, &threads::Done),
    keys: &KeyHashes,
) -> Result<(), Failure> {
    let config = &loaded.config;
    let mut text = format!("Caxton {} is ready\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, value: &str| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("REST", &format!("{}/api/v1", url(doors.address)));
    let metrics = doors.metrics.as_ref().map(|(_, address)| format!("{}/metrics", url(*address)));
    line("metrics", metrics.as_deref().unwrap_or("off"));
    line("data", &config.server.data_dir.display().to_string());
    line("durability", &setup::loss_window(config));
    let model = engine.view().semantic().map(|semantic| {
        use caxton_projections::embedding::Embedder as _;
        let identity = semantic.embedding.identity();
        let digits = identity.weights_sha256.get(..12).unwrap_or_default();
        let precision = identity.precision;
        let on = match semantic.embedding.instructions() {
            "" => String::new(),
            instructions => format!(" on {instructions}"),
        };
        let dimensions = identity.dimensions;
        format!("{} ({dimensions} dimensions, weights {digits}…, {precision}{on})", identity.name)
    });
    line("model", model.as_deref().unwrap_or("none: search by words only"));
    let who = if keys.is_empty() {
        "none: whoever reaches the port".to_owned()
    } else {
        format!("{} known", keys.len())
    };
    line("API keys", &who);
    line("allocator", Allocator::BUILT_IN.as_str());
    for (name, told) in [("priority", &threads.priority), ("affinity", &threads.affinity)] {
        if let Some(told) = told {
            line(name, told);
        }
    }
    if let Some(limits) = setup::swept(config) {
        line("cleanup", &limits);
    }
    line("agents", &counted(&agents.roster()));
    let recovery = engine.recovery();
    line("log", &format!("{} events, {} replayed", engine.log().head().seq.0, recovery.replayed));
    if let Some(reason) = &recovery.graph_rebuilt {
        line("rebuilt", &format!("the graph: {reason}"));
    }
    if let Some(reason) = &recovery.vectors {
        line("rebuilt", &format!("the vectors: {reason}"));
    }
    for warning in &loaded.warnings {
        line("warning", &warning.to_string());
    }
    for key in loaded.without_effect() {
        line("no effect", &format!("{} = {}: {}", key.key, key.value, key.reason));
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever started the server may not care for its report.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::output(&error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::{ENDPOINT_FILE, Endpoint, url};

    #[test]
    fn the_address_is_one_that_clients_can_use() {
        for (bound, reached) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://127.0.0.1:80"),
            ("[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(url(bound.parse().expect("an address")), reached);
        }
    }

    #[test]
    fn the_endpoint_file_lives_as_long_as_the_server() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join(ENDPOINT_FILE);
        let endpoint = Endpoint::write(folder.path(), "127.0.0.1:1234".parse().expect("an address"));
        let endpoint = endpoint.expect("a writable folder");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "http://127.0.0.1:1234\n");
        drop(endpoint);
        assert!(!file.exists());
    }
}
