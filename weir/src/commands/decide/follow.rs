//! Which policy is in force: read once from a bundle, or polled from a Weir.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weir_policy_runtime::Trust;

use super::Desk;
use crate::error::{Failure, Result};
use crate::http::{self, Readiness};
use crate::policy_client::{self, Loaded, PolicyClient, Poll};

/// How often the active policy is asked for.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// How often withdrawn policies are asked for while the active one stays: one that is not in force can be rejected too.
const ASK_FOR_WITHDRAWN_EVERY: Duration = Duration::from_secs(60);

/// Where the policy comes from, checked as far as it can be before anything is written.
pub(super) enum Source {
    /// A bundle, verified and loaded; it stays.
    Bundle(Loaded),
    /// A Weir.
    Weir(PolicyClient),
}

impl Source {
    /// A URL is a Weir; anything else is a bundle's folder or tar.
    pub(super) fn open(place: &str, trust: Trust) -> Result<Self> {
        if place.contains("://") {
            return Ok(Self::Weir(PolicyClient::new(place, trust)?));
        }
        let (bundle, signature) = weir_policy_publisher::read_path(Path::new(place))?;
        trust.check(&bundle.id, signature.as_ref()).map_err(Failure::user)?;
        Ok(Self::Bundle(policy_client::load(&bundle)?))
    }

    /// Keeps `active` at the policy in force, and the desk at what was withdrawn, until `stop` turns true.
    pub(super) fn follow(
        self,
        active: watch::Sender<Option<Loaded>>,
        desk: Arc<Mutex<Desk>>,
        readiness: Readiness,
        stop: watch::Receiver<bool>,
    ) {
        match self {
            Self::Bundle(loaded) => {
                active.send_replace(Some(loaded));
                readiness.set(http::POLICY, true);
            }
            Self::Weir(client) => {
                let follower = Follower { client, active, desk, readiness, asked: None };
                std::thread::spawn(move || follower.run(&stop));
            }
        }
    }
}

struct Follower {
    client: PolicyClient,
    active: watch::Sender<Option<Loaded>>,
    desk: Arc<Mutex<Desk>>,
    readiness: Readiness,
    /// When withdrawn policies were last told; none when they must be asked for.
    asked: Option<Instant>,
}

impl Follower {
    fn run(mut self, stop: &watch::Receiver<bool>) {
        // An open channel that says "go on": a closed one is a process that is over.
        while !*stop.borrow() && stop.has_changed().is_ok() {
            let outcome = self.poll();
            if let Err(failure) = outcome {
                metrics::counter!("weir_decide_policy_refused_total").increment(1);
                tracing::warn!(error = %failure, "the policy in force stays");
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    fn poll(&mut self) -> Result<()> {
        let poll = self.client.poll()?;
        let changed = !matches!(poll, Poll::Unchanged);
        if changed || self.asked.is_none_or(|at| at.elapsed() > ASK_FOR_WITHDRAWN_EVERY) {
            self.asked = None;
            // First what holds no longer, then what holds now, so that no session meets the new policy with an old model.
            match self.client.withdrawn() {
                Ok(policies) => {
                    self.desk.lock().expect("no holder panics").sessions.withdraw(policies);
                    self.asked = Some(Instant::now());
                }
                Err(failure) => tracing::warn!(error = %failure, "sessions of withdrawn policies not looked for"),
            }
        }
        match poll {
            Poll::Changed(loaded) => {
                tracing::info!(policy_id = %loaded.id, "policy taken up");
                self.active.send_replace(Some(loaded));
                self.readiness.set(http::POLICY, true);
            }
            Poll::None => {
                tracing::info!("no policy is in force any more");
                self.active.send_replace(None);
                self.readiness.set(http::POLICY, false);
            }
            Poll::Unchanged => {}
        }
        Ok(())
    }
}
