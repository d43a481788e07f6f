//! The router's side of policy delivery: poll with an ETag, verify, load.
//!
//! `weir decide` and the demo's simulated routers use this very code to get a policy. A policy that fails its signature or
//! hash check is refused and the one in force stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use weir_policy_runtime::{Bundle, Cascade, KnobTable, MAX_TAR_BYTES, Policy, PolicyId, Signature, Trust, knob_tables};

use crate::error::{Failure, Result};

/// Largest list of policies that is read: some tens of thousands of them.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// A verified policy and its id.
#[derive(Clone)]
pub struct Loaded {
    pub id: PolicyId,
    pub policy: Arc<Policy>,
    /// The bundle's tables for other knobs, by name.
    pub knobs: Arc<BTreeMap<String, KnobTable>>,
    /// The bundle's cascade, if it brings one.
    pub cascade: Option<Arc<Cascade>>,
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
    base_url: String,
    url: String,
    trust: Trust,
    current: Option<PolicyId>,
}

impl PolicyClient {
    /// A client of the Weir at `base_url`.
    ///
    /// # Errors
    /// When that is no address of one.
    pub fn new(base_url: &str, trust: Trust) -> Result<Self> {
        let address: Option<ureq::http::Uri> = base_url.parse().ok();
        let scheme = address.as_ref().and_then(|address| address.scheme_str());
        if !matches!(scheme, Some("http" | "https")) {
            return Err(Failure::user(format!(
                "{base_url} is not the address of a Weir: write http://HOST:PORT or https://HOST, or name a bundle"
            )));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(5)))
            .http_status_as_error(false)
            .tls_config(tls())
            .build();
        let base_url = base_url.trim_end_matches('/').to_owned();
        let url = format!("{base_url}/v1/policy/active");
        Ok(Self { agent: config.into(), base_url, url, trust, current: None })
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
            .limit(MAX_TAR_BYTES)
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

    /// Ids of the policies that were rolled back or rejected: what they decided holds no longer.
    ///
    /// # Errors
    /// When nobody answers with a list of policies.
    pub fn withdrawn(&self) -> Result<BTreeSet<String>> {
        let url = format!("{}/v1/policies", self.base_url);
        let failed =
            |why: &dyn std::fmt::Display| Failure::outside(format!("no policies could be read from {url}: {why}"));
        let mut response = self.agent.get(&url).call().map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(failed(&format!("status {status}")));
        }
        let listed: Listed =
            response.body_mut().with_config().limit(MAX_LIST_BYTES).read_json().map_err(|error| failed(&error))?;
        Ok(listed.policies.into_iter().filter(ListedPolicy::is_withdrawn).map(|policy| policy.id).collect())
    }
}

/// `GET /v1/policies`, as far as a router needs it.
#[derive(Deserialize)]
struct Listed {
    policies: Vec<ListedPolicy>,
}

#[derive(Deserialize)]
struct ListedPolicy {
    id: String,
    status: String,
    #[serde(default)]
    withdrawn: bool,
}

impl ListedPolicy {
    fn is_withdrawn(&self) -> bool {
        self.withdrawn || matches!(self.status.as_str(), "rolled_back" | "rejected")
    }
}

/// TLS by the system's own roots, with the cryptography that the object stores' client uses too.
fn tls() -> ureq::tls::TlsConfig {
    ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build()
}

/// Weir says "no policy is active" as a JSON object with an `error`; any other 404 is somebody else's.
fn is_weirs_own_answer(response: &mut ureq::http::Response<ureq::Body>) -> bool {
    let body: Result<serde_json::Value, _> = response.body_mut().read_json();
    body.is_ok_and(|body| body.get("error").is_some())
}

/// Loads a verified bundle.
pub fn load(bundle: &Bundle) -> Result<Loaded> {
    let policy = Policy::load(bundle).map_err(Failure::user)?;
    let knobs = knob_tables(bundle).into_iter().map(|(name, table)| (name.to_owned(), table)).collect();
    let cascade = Cascade::of_bundle(bundle).map_err(Failure::user)?.map(Arc::new);
    Ok(Loaded { id: bundle.id.clone(), policy: Arc::new(policy), knobs: Arc::new(knobs), cascade })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use weir_policy_runtime::TrustedKeys;

    use super::*;

    fn client(address: &str) -> Result<PolicyClient> {
        PolicyClient::new(address, Trust::Signed(TrustedKeys::default()))
    }

    #[test]
    fn an_https_address_is_spoken_to_in_tls() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let heard = std::thread::spawn(move || {
            let mut first = [0];
            listener.accept().unwrap().0.read_exact(&mut first).unwrap();
            first[0]
        });
        assert!(client(&address).unwrap().poll().is_err(), "nobody answered");
        // RFC 8446, section 5.1: the record type of a handshake.
        assert_eq!(heard.join().unwrap(), 22);
    }

    #[test]
    fn what_is_no_address_of_a_weir_is_refused_at_the_start() {
        for wrong in ["ftp://weir", "https://", "kafka://weir:9092"] {
            let said = client(wrong).err().unwrap().to_string();
            assert!(said.contains("write http://HOST:PORT"), "{wrong}: {said}");
        }
    }
}
