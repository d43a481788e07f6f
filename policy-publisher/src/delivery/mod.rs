//! Handing out the active policy over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/policy/active` | 200 tar, `ETag: "<id>"`, `X-Weir-Policy-Id`, `X-Weir-Signature` and `X-Weir-Key-Id` (if signed); 304 when `If-None-Match` names it; 404 when none is active |
//! | `GET /v1/policies` | every policy |
//! | `GET /v1/policies/{id}` | one policy; `active`, an id, or its first digits |
//! | `POST /v1/policies/{id}/approve`, `.../reject` | decides; role approver |
//! | `POST /v1/policy/rollback` | withdraws the active policy; role approver |
//!
//! Routers poll the first one, so it is answered from memory: the registry is read at an interval, and a policy whose
//! content or signature does not hold any more is not taken up, the one before stays.

mod http;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::watch;

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
    loaded: RwLock<Arc<Loaded>>,
    active: watch::Sender<Option<Arc<ActivePolicy>>>,
}

impl Delivery {
    /// Reads the registry for the first time. Without `tokens` no change is taken over HTTP.
    ///
    /// # Errors
    /// When the registry cannot be read, or the active policy does not hold.
    pub async fn open(registry: Registry, tokens: Option<Tokens>) -> Result<Self> {
        let inner = Inner { registry, tokens, loaded: RwLock::default(), active: watch::Sender::new(None) };
        let delivery = Self(Arc::new(inner));
        delivery.refresh().await?;
        Ok(delivery)
    }

    /// Takes up what the registry says now.
    ///
    /// # Errors
    /// When it cannot be read, or the active policy does not hold; what was handed out before is handed out still.
    pub async fn refresh(&self) -> Result<()> {
        let loaded = self.0.registry.load().await?;
        let known = self.0.active.borrow().as_ref().map(|active| active.id.clone());
        if known.as_ref() != loaded.state.active() {
            let active = self.0.registry.active(&loaded).await?;
            events::active_changed(active.as_ref().map(|active| &active.id));
            self.0.active.send_replace(active.map(Arc::new));
        }
        *self.0.loaded.write().unwrap_or_else(std::sync::PoisonError::into_inner) = loaded;
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
    pub fn active(&self) -> watch::Receiver<Option<Arc<ActivePolicy>>> {
        self.0.active.subscribe()
    }

    fn loaded(&self) -> Arc<Loaded> {
        self.0.loaded.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
