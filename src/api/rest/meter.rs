//! What the door counts about itself, for `/memory/stats` and the metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};

use crate::telemetry;

/// Counts since the start of the server.
#[derive(Debug, Default)]
pub(super) struct Meter {
    searches: Mean,
    stores: Mean,
}

impl Meter {
    /// A search was answered.
    pub(super) fn search_finished(&self, took: Duration) {
        telemetry::search_finished(took);
        self.searches.add(took);
    }

    /// A write was acknowledged.
    pub(super) fn store_finished(&self, took: Duration) {
        self.stores.add(took);
    }

    /// Mean time of a search, in milliseconds; `None` before the first.
    pub(super) fn search_millis(&self) -> Option<f64> {
        self.searches.millis()
    }

    /// Mean time of a write, in milliseconds; `None` before the first.
    pub(super) fn store_millis(&self) -> Option<f64> {
        self.stores.millis()
    }
}

/// A request was answered. Methods that nobody has heard of count as one, so that labels stay few.
pub(super) fn request_finished(route: &str, method: &Method, status: StatusCode, took: Duration) {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let method = known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other");
    telemetry::request_finished(method, route, status.as_u16(), took);
}

#[derive(Debug, Default)]
struct Mean {
    count: AtomicU64,
    micros: AtomicU64,
}

impl Mean {
    fn add(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    fn millis(&self) -> Option<f64> {
        let count = self.count.load(Ordering::Relaxed);
        (count > 0).then(|| self.micros.load(Ordering::Relaxed) as f64 / count as f64 / 1e3)
    }
}
