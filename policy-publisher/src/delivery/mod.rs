//! Handing out the active policy over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/policy/active` | 200 tar, `ETag: "<id>"`, `X-Weir-Policy-Id`, `X-Weir-Signature` and `X-Weir-Key-Id` (if signed); 304 when `If-None-Match` names it; 404 when none is active; 503 when it cannot be handed out |
//! | `GET /v1/policies` | every policy |
//! | `GET /v1/policies/{id}` | one policy; `active`, an id, or its first digits |
//! | `POST /v1/policies/{id}/approve`, `.../reject` | decides; role approver |
//! | `POST /v1/policy/rollback` | withdraws the active policy; role approver |
//!
//! An approval and a rollback say which policy their maker saw in force (`over` and `from` in the body, or `If-Match`),
//! so that a request that is sent twice, or too late, changes nothing more. Reading needs no token.
//!
//! Routers poll the first one, so it is answered from memory: the registry is read at an interval, and a policy whose
//! content or signature does not hold any more is not taken up, the one before stays. A server that has nothing to hand
//! out although a policy is in force answers 503, not 404: routers keep what they have.

mod http;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use weir_policy_runtime::PolicyId;

pub use http::router;

use crate::registry::{ActivePolicy, Loaded, Registry};
use crate::tokens::Tokens;
use crate::{Result, events};

/// What the endpoints answer from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Delivery(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    tokens: Option<Tokens>,
    loaded: RwLock<Option<Arc<Loaded>>>,
    in_force: watch::Sender<InForce>,
    /// One refresh at a time: of two that overlap the older one must not have the last word.
    refreshing: Mutex<()>,
}

/// What is known of the policy in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum InForce {
    /// It was not read yet, or does not hold: routers keep what they have.
    #[default]
    Unknown,
    /// No policy is in force.
    Nothing,
    /// This one, verified.
    Policy(Arc<ActivePolicy>),
}

impl InForce {
    /// The policy, if one can be handed out.
    #[must_use]
    pub fn policy(&self) -> Option<&Arc<ActivePolicy>> {
        match self {
            Self::Policy(policy) => Some(policy),
            Self::Unknown | Self::Nothing => None,
        }
    }

    fn is(&self, active: Option<&PolicyId>) -> bool {
        match self {
            Self::Unknown => false,
            Self::Nothing => active.is_none(),
            Self::Policy(policy) => active == Some(&policy.id),
        }
    }
}

impl Delivery {
    /// Reads the registry for the first time. What cannot be read now is logged, counted and tried again by
    /// [`Delivery::keep_fresh`]: a damaged policy must not stop the process that serves others. Without `tokens` no
    /// change is taken over HTTP.
    pub async fn open(registry: Registry, tokens: Option<Tokens>) -> Self {
        let in_force = watch::Sender::new(InForce::Unknown);
        let delivery = Self(Arc::new(Inner {
            registry,
            tokens,
            loaded: RwLock::default(),
            in_force,
            refreshing: Mutex::default(),
        }));
        if let Err(error) = delivery.refresh().await {
            events::refresh_failed(&error);
        }
        delivery
    }

    /// Takes up what the registry says now.
    ///
    /// # Errors
    /// When it cannot be read, or the active policy does not hold; what was handed out before is handed out still.
    pub async fn refresh(&self) -> Result<()> {
        let _one_at_a_time = self.0.refreshing.lock().await;
        let loaded = self.0.registry.load().await?;
        *self.0.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(loaded.clone());
        if self.0.in_force.borrow().is(loaded.state.active()) {
            return Ok(());
        }
        let active = self.0.registry.active(&loaded).await?;
        events::active_changed(active.as_ref().map(|active| &active.id));
        self.0.in_force.send_replace(active.map_or(InForce::Nothing, |active| InForce::Policy(Arc::new(active))));
        Ok(())
    }

    /// Refreshes at an interval until `stop` turns true. A refresh that fails is logged and counted, and tried again.
    pub async fn keep_fresh(&self, every: Duration, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(every) => {}
            }
            if let Err(error) = self.refresh().await {
                events::refresh_failed(&error);
            }
        }
    }

    /// The policy in force, and every change of it.
    #[must_use]
    pub fn in_force(&self) -> watch::Receiver<InForce> {
        self.0.in_force.subscribe()
    }

    fn loaded(&self) -> Option<Arc<Loaded>> {
        self.0.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
