//! What the operator serves over HTTP: `/livez`, `/readyz` and `/metrics`.

mod limits;
mod metrics;
mod series;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use limits::{BucketLimits, BucketShare};
pub use metrics::Metrics;
pub use series::{PolicyName, PolicySeries};

/// Whether the operator does what is its part: it has seen the cluster's policies, or stands by for the one that has.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// How many listings are still to come.
    awaited: Arc<AtomicUsize>,
    standby: Arc<AtomicBool>,
}

/// One listing of several that readiness waits for.
#[derive(Debug)]
pub struct Listed {
    awaited: Arc<AtomicUsize>,
    done: AtomicBool,
}

impl Readiness {
    /// Ready when as many listings have been completed, at least one.
    #[must_use]
    pub fn after(listings: usize) -> (Self, Vec<Listed>) {
        let awaited = Arc::new(AtomicUsize::new(listings.max(1)));
        let parts =
            (0..listings).map(|_| Listed { awaited: Arc::clone(&awaited), done: AtomicBool::new(false) }).collect();
        (Self { awaited, standby: Arc::default() }, parts)
    }

    /// Whether it stands by, knowing that it has to: then it is ready though it lists nothing.
    pub fn stands_by(&self, stands_by: bool) {
        self.standby.store(stands_by, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.standby.load(Ordering::Acquire) || self.awaited.load(Ordering::Acquire) == 0
    }
}

impl Listed {
    /// This listing is complete. Saying it twice counts once.
    pub fn set(&self) {
        if !self.done.swap(true, Ordering::AcqRel) {
            self.awaited.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[derive(Debug, Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    readiness: Readiness,
}

/// Binds the address, so that a port that is taken is an error at the start and not a line in the log.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Shared { metrics, readiness });
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn readyz(State(shared): State<Shared>) -> Response {
    if shared.readiness.get() {
        "ok\n".into_response()
    } else {
        const UNREADY: &str = "neither the policies of the cluster nor the Lease of a leader election were read yet\n";
        (StatusCode::SERVICE_UNAVAILABLE, UNREADY).into_response()
    }
}

async fn scrape(State(shared): State<Shared>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match shared.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_ready_when_every_listing_is_complete() {
        let (readiness, parts) = Readiness::after(2);
        let [first, second] = parts.as_slice() else { panic!("two were asked for") };
        first.set();
        first.set();
        assert!(!readiness.get(), "one listing said twice is still one");
        second.set();
        assert!(readiness.get());
    }

    #[test]
    fn one_that_stands_by_is_ready_until_it_leads_and_then_when_it_has_listed() {
        let (readiness, parts) = Readiness::after(1);
        assert!(!readiness.get(), "it does not know yet whether it leads");
        readiness.stands_by(true);
        assert!(readiness.get());
        readiness.stands_by(false);
        assert!(!readiness.get());
        parts[0].set();
        assert!(readiness.get());
    }
}
