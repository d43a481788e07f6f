//! The router's side of policy delivery: poll with an ETag, verify, load.
//!
//! `weir decide` and the demo's simulated routers use this very code, so the demo shows what a router really does. A
//! policy that fails its signature or hash check is refused and the one in force stays.

use std::sync::Arc;
use std::time::Duration;

use weir_policy_runtime::{Bundle, Policy, PolicyId, Signature, Trust};

use crate::error::{Failure, Result};

/// Largest answer that is read.
const MAX_ANSWER_BYTES: u64 = weir_policy_runtime::MAX_BUNDLE_BYTES;

/// A verified policy and its id.
#[derive(Clone)]
pub struct Loaded {
    pub id: PolicyId,
    pub policy: Arc<Policy>,
}

/// What one poll found.
pub enum Poll {
    /// The policy in force is still this one.
    Unchanged,
    /// Another policy is in force now.
    Changed(Loaded),
    /// No policy is in force.
    None,
}

/// Polls one Weir for the active policy. Blocking: run it on a thread of its own.
pub struct PolicyClient {
    agent: ureq::Agent,
    url: String,
    trust: Trust,
    current: Option<PolicyId>,
}

impl PolicyClient {
    /// A client of the Weir at `base_url`.
    pub fn new(base_url: &str, trust: Trust) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(5)))
            .http_status_as_error(false)
            .build();
        let url = format!("{}/v1/policy/active", base_url.trim_end_matches('/'));
        Self { agent: config.into(), url, trust, current: None }
    }

    /// Asks once.
    ///
    /// # Errors
    /// When nobody answers, or the answer is not a policy that we trust.
    pub fn poll(&mut self) -> Result<Poll> {
        let mut request = self.agent.get(&self.url);
        if let Some(id) = &self.current {
            request = request.header("If-None-Match", format!("\"{id}\""));
        }
        let mut response = request
            .call()
            .map_err(|error| Failure::outside(format!("no policy could be read from {}: {error}", self.url)))?;
        match response.status().as_u16() {
            200 => {}
            304 => return Ok(Poll::Unchanged),
            404 if is_weirs_own_answer(&mut response) => {
                let had_one = self.current.take().is_some();
                return Ok(if had_one { Poll::None } else { Poll::Unchanged });
            }
            404 => {
                return Err(Failure::user(format!(
                    "{} is not a Weir: give the address of `weir run` or `weir serve`",
                    self.url
                )));
            }
            status => return Err(Failure::outside(format!("{} answered with status {status}", self.url))),
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let signature = header("X-Weir-Signature");
        let key_id = header("X-Weir-Key-Id");
        let bytes = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER_BYTES)
            .read_to_vec()
            .map_err(|error| Failure::outside(format!("the policy from {} is incomplete: {error}", self.url)))?;
        let bundle = Bundle::from_tar(&bytes)
            .map_err(|error| Failure::outside(format!("the policy from {}: {error}", self.url)))?;
        if let Trust::Signed(keys) = &self.trust {
            let (Some(signature), Some(key_id)) = (signature, key_id) else {
                return Err(Failure::outside(format!("the policy from {} carries no signature", self.url)));
            };
            let signature = Signature { algorithm: "ed25519".into(), key_id, policy_id: bundle.id.clone(), signature };
            keys.verify(&bundle.id, &signature).map_err(Failure::user)?;
        }
        let loaded = load(&bundle)?;
        self.current = Some(loaded.id.clone());
        Ok(Poll::Changed(loaded))
    }
}

/// Weir says "no policy is active" as a JSON object with an `error`; any other 404 is somebody else's.
fn is_weirs_own_answer(response: &mut ureq::http::Response<ureq::Body>) -> bool {
    let body: Result<serde_json::Value, _> = response.body_mut().read_json();
    body.is_ok_and(|body| body.get("error").is_some())
}

/// Loads a verified bundle.
pub fn load(bundle: &Bundle) -> Result<Loaded> {
    let policy = Policy::load(bundle).map_err(Failure::user)?;
    Ok(Loaded { id: bundle.id.clone(), policy: Arc::new(policy) })
}
