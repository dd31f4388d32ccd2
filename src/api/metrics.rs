//! `GET /metrics` on a port of its own, for Prometheus.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use tokio::net::TcpListener;

/// Serves what `render` gives, as `content_type`, until `shutdown` is done.
///
/// # Errors
///
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    content_type: &'static str,
    render: impl Fn() -> String + Send + Sync + 'static,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let render = Arc::new(render);
    let answer = move || {
        let text = render();
        async move { ([(header::CONTENT_TYPE, content_type)], text) }
    };
    let router = Router::new().route("/metrics", get(answer));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}
