//! The one HTTP listener: health, readiness, metrics, policy delivery, console.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::error::{Failure, Result};

/// How long requests under way may take to end once the process is told to stop.
const OPEN_CONNECTIONS_GET: Duration = Duration::from_secs(3);

/// What readiness depends on; each part says so itself.
#[derive(Clone)]
pub struct Readiness(Arc<[(&'static str, AtomicBool)]>);

impl Readiness {
    /// Parts of these names, none of them ready.
    pub fn of(parts: &[&'static str]) -> Self {
        Self(parts.iter().map(|part| (*part, AtomicBool::new(false))).collect())
    }

    /// The part is ready, or no longer.
    pub fn set(&self, part: &'static str, ready: bool) {
        for (name, flag) in self.0.iter() {
            if *name == part {
                flag.store(ready, Ordering::Relaxed);
            }
        }
    }

    fn missing(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, ready)| !ready.load(Ordering::Relaxed)).map(|(name, _)| *name).collect()
    }
}

/// Ingest runs: the group has given it partitions, or said that there are none for it, and it knows where each starts.
pub const INGEST: &str = "ingest";
/// The last pass over the raw tables succeeded.
pub const FEATURES: &str = "features";
/// A broker is connected, or there is room on disk until one is.
pub const BRIDGE: &str = "bridge";
/// A verified policy is in force.
pub const POLICY: &str = "policy";

/// Installs the process-wide recorder; every counter of every crate ends in it.
pub fn install_metrics() -> Result<PrometheusHandle> {
    // Commits and passes take milliseconds to tens of seconds; the edges are shared so that panels compare.
    let seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &seconds)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| Failure::ours(format!("cannot install the metrics recorder: {error}")))?;
    // The one series that every Weir has from its start: dashboards list processes by it.
    metrics::gauge!("weir_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Health, readiness and metrics.
pub fn operations(metrics: PrometheusHandle, readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(render).with_state(metrics))
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let missing = readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
    }
}

async fn render(State(metrics): State<PrometheusHandle>) -> impl IntoResponse {
    metrics.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
}

/// A bound listener, so that a port in use is an error before anything else starts.
pub struct Listener(TcpListener);

impl Listener {
    /// Binds `address`, a host name or number and a port.
    ///
    /// # Errors
    /// When the address is not one, or is in use.
    pub async fn bind(address: &str) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => {
                Failure::user(format!("{address} is not a listener: write HOST:PORT, for example 127.0.0.1:8077"))
            }
            _ => Failure::user(format!(
                "cannot listen on {address}: {error}; choose another port with --listen or http.listen"
            )),
        })?;
        Ok(Self(listener))
    }

    /// Can only this machine reach it?
    pub fn is_loopback(&self) -> bool {
        self.0.local_addr().is_ok_and(|address| address.ip().is_loopback())
    }

    /// Where it listens, with the port that the system chose when the port was 0.
    pub fn url(&self) -> String {
        self.0.local_addr().map_or_else(|_| "http://127.0.0.1".to_owned(), |address| format!("http://{address}"))
    }

    /// Serves until `stop` turns true.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) -> Result<()> {
        let mut stopped = stop.clone();
        let server = axum::serve(self.0, router).with_graceful_shutdown(async move {
            let _closed = stop.wait_for(|stop| *stop).await;
        });
        let forced = async move {
            // The guard that a wait returns must be gone before the next await.
            drop(stopped.wait_for(|stop| *stop).await);
            tokio::time::sleep(OPEN_CONNECTIONS_GET).await;
        };
        tokio::select! {
            served = server => served.map_err(|error| Failure::outside(format!("the HTTP listener failed: {error}"))),
            // A browser that keeps a connection open must not keep the process alive.
            () = forced => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_is_a_host_and_a_port() {
        Listener::bind("localhost:0").await.unwrap();
        for wrong in ["8077", "localhost", "127.0.0.1:many"] {
            let said = Listener::bind(wrong).await.err().unwrap().to_string();
            assert!(said.contains("write HOST:PORT"), "{said}");
        }
    }
}
