//! Connections: taken, limited, watched, and ended in order.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::Api;
use super::options::RestOptions;
use super::problem::Told;
use super::refusals::overloaded;
use super::routes::{unlogged, with_layers};
use super::watch::{Activity, Held, Limits, Watched};
use crate::engine::Engine;
use crate::telemetry;

/// Connections over the limit that are told so at a time; further ones are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
/// Time in which a connection over the limit is told so.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(2);
/// The least read buffer that hyper takes.
const BUFFER_BYTES_MIN: usize = 8_192;

/// Why the door does not open.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener has no address: it is not bound.
    #[error("could not read the address that the REST API listens on")]
    Listener(#[source] std::io::Error),
}

/// Serves the API on `listener` until `shutdown` is done; then takes no more connections, lets the requests under way
/// finish for at most `drain_timeout`, and comes back.
///
/// The engine is not stopped: its owner does that afterwards.
///
/// ```no_run
/// # async fn run(engine: caxton::engine::Engine) -> Result<(), Box<dyn std::error::Error>> {
/// use caxton::api::rest::{RestOptions, serve};
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let interrupted = async { drop(tokio::signal::ctrl_c().await) };
/// serve(listener, engine.clone(), RestOptions::default(), interrupted).await?;
/// engine.stop();
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`ServeError`].
pub async fn serve(
    listener: TcpListener,
    engine: Engine,
    options: RestOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let api = Api::new(engine, options, is_local(&listener));
    connections(listener, with_layers(&api), &api, shutdown).await
}

/// The door with `POST /api/v1/messages` alone, which reads and answers as [`serve`] does and records nothing: what the
/// log costs is measured against it.
///
/// # Errors
///
/// [`ServeError`].
#[doc(hidden)]
pub async fn serve_unlogged(
    listener: TcpListener,
    engine: Engine,
    options: RestOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let api = Api::new(engine, options, is_local(&listener));
    connections(listener, unlogged(&api), &api, shutdown).await
}

/// Whether only this machine reaches the listener.
fn is_local(listener: &TcpListener) -> bool {
    listener.local_addr().is_ok_and(|address| address.ip().is_loopback())
}

async fn connections(
    listener: TcpListener,
    router: Router,
    api: &Api,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    tracing::info!(%address, "the REST API listens");
    let options = api.options.clone();
    let door = Door {
        router,
        places: Arc::new(Semaphore::new(options.connections_max.max(1))),
        turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
        options: Arc::new(options),
    };
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => (),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => door.admit(stream, &mut connections, &stopped),
                Err(error) => {
                    // Out of file descriptors, most likely: wait until connections have ended.
                    tracing::warn!(%error, "could not take a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    api.leaving.store(true, Ordering::Relaxed);
    let _ = stop.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(door.options.drain_timeout, drained).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "requests did not finish in time; their connections are closed"
        );
        connections.shutdown().await;
    }
    Ok(())
}

struct Door {
    router: Router,
    places: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    options: Arc<RestOptions>,
}

impl Door {
    fn admit(&self, stream: TcpStream, connections: &mut JoinSet<()>, stopped: &watch::Receiver<bool>) {
        // An answer is one write; waiting for more would only delay it.
        let _ = stream.set_nodelay(true);
        if let Some(bytes) = self.options.send_buffer_bytes
            && let Err(error) = set_socket_send_buffer_size(&stream, bytes)
        {
            tracing::debug!(%error, bytes, "the system did not take the size of a send buffer");
        }
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            let (router, options) = (self.router.clone(), Arc::clone(&self.options));
            connections.spawn(connection(stream, router, options, stopped.clone(), Place::of(place)));
        } else if let Ok(place) = Arc::clone(&self.turned_away).try_acquire_owned() {
            connections.spawn(turn_away(stream, place));
        }
    }
}

/// A connection's place among those that may be open. It is counted until this is dropped, however the connection ends.
struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn of(permit: OwnedSemaphorePermit) -> Self {
        telemetry::connection_opened();
        Self { _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        telemetry::connection_closed();
    }
}

/// How long a connection may do nothing. In the middle of a request that is longer than any of them may take: an import
/// moves no byte from the end of its body to the beginning of its answer.
fn limits(options: &RestOptions) -> Limits {
    let answer = options.answer_timeout();
    let body = options.body_timeout.max(options.import_body_timeout());
    Limits {
        first_request: options.connection_timeout,
        idle: options.keep_alive_timeout,
        stalled: answer + body + options.keep_alive_timeout,
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    options: Arc<RestOptions>,
    mut stopped: watch::Receiver<bool>,
    _place: Place,
) {
    let activity = Arc::new(Activity::new());
    let requests = Arc::clone(&activity);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (router, under_way) = (router.clone(), requests.request());
        async move {
            let response = router.oneshot(request.map(Body::new)).await;
            // The request lasts until its answer is sent, which a stream takes its time for.
            response.map(|response| response.map(|body| Body::new(Held::new(body, under_way))))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        // The watch below ends idle connections sooner; this bounds a head that trickles in.
        .header_read_timeout(options.connection_timeout.max(options.keep_alive_timeout))
        .max_buf_size(options.request_buffer_bytes.max(BUFFER_BYTES_MIN));
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
    let mut served = pin!(http.serve_connection(stream, service));
    let mut expired = pin!(activity.expired(limits(&options)));
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = &mut expired => return,
            _ = stopped.wait_for(|stop| *stop), if !leaving => {
                leaving = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Answers 503 to the first request and closes.
async fn turn_away(stream: TcpStream, _place: OwnedSemaphorePermit) {
    let service = service_fn(|_: Request<hyper::body::Incoming>| async {
        let problem = overloaded("all connections are in use").close();
        Ok::<Response, Infallible>(problem.render("", Told::default()))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(TURN_AWAY_TIMEOUT).keep_alive(false);
    let served = http.serve_connection(TokioIo::new(stream), service);
    // Whether the client heard it or not, the connection ends here.
    let _ = tokio::time::timeout(TURN_AWAY_TIMEOUT, served).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{RestOptions, limits};

    #[test]
    fn a_connection_is_not_stalled_while_its_request_has_time() {
        for (request, import) in [(1, 600), (700, 600)] {
            let options = RestOptions {
                request_timeout: Duration::from_secs(request),
                body_timeout: Duration::from_secs(request),
                import_timeout: Duration::from_secs(import),
                ..RestOptions::default()
            };
            let longest = [
                options.body_timeout + options.request_timeout,
                options.import_body_timeout() + options.import_timeout,
            ];
            let stalled = limits(&options).stalled;
            assert!(longest.iter().all(|longest| stalled > *longest), "{stalled:?}, {longest:?}");
        }
    }
}
