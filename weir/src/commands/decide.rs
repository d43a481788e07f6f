//! `weir decide`: a sidecar that scores the active policy, explores within its limits, and logs what it intended.
//!
//! `POST /v1/decide` takes what is known of a request and answers with a model and the exact probability with which it
//! was drawn. The draw is a salted hash of the session, so every replica gives the same session the same draw; the first
//! choice is then kept for the session's life while its model stays allowed, and the propensity that is logged with
//! later turns is the one of that first draw: the session, not the turn, is what was randomised.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weir_policy_runtime::{OwnedContext, Scratch, Trust, sticky_uniform};
use weir_store::Keyring;

use super::stop_on_signal;
use crate::cli::{Common, DecideArgs};
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::http::{self, Listener, Readiness};
use crate::policy_client::{self, Loaded, PolicyClient, Poll};

/// Sessions whose model is remembered; the oldest half goes when there are more.
const SESSIONS_MAX: usize = 200_000;
/// How often the active policy is asked for.
const POLL_EVERY: Duration = Duration::from_secs(2);

/// What is known of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    request_id: Option<String>,
    session_id: Option<String>,
    tenant: Option<String>,
    #[serde(default)]
    context: OwnedContext,
    /// Models that may be chosen; all of the policy's when left out.
    candidates: Option<Vec<String>>,
}

/// One candidate with the probability with which it would have been drawn.
#[derive(Debug, Serialize, Clone)]
struct Candidate {
    model: String,
    propensity: f64,
}

/// The answer, and with an id and a time the logged line.
#[derive(Debug, Serialize, Clone)]
struct Answer {
    model: String,
    /// Null for a turn that was not randomised over its candidates.
    propensity: Option<f64>,
    policy_id: String,
    /// The session's first choice was kept.
    sticky: bool,
    candidates: Vec<Candidate>,
    /// Pseudonym; for the log, the caller knows its own.
    #[serde(skip)]
    session_id: Option<String>,
}

#[derive(Serialize)]
struct LogLine<'a> {
    decided_ms: i64,
    request_id: Option<&'a str>,
    /// Pseudonym; the session's own id stays with the caller.
    session_id: Option<&'a str>,
    tenant: Option<&'a str>,
    intended_model: &'a str,
    propensity: Option<f64>,
    policy_version: &'a str,
    candidates: &'a [Candidate],
}

#[derive(Clone)]
struct Assignment {
    model: String,
    propensity: f64,
    policy_id: String,
    candidates: Vec<Candidate>,
    since_ms: i64,
}

impl Assignment {
    fn answer(&self) -> Answer {
        Answer {
            model: self.model.clone(),
            propensity: Some(self.propensity),
            policy_id: self.policy_id.clone(),
            sticky: false,
            candidates: self.candidates.clone(),
            session_id: None,
        }
    }
}

struct Sidecar {
    active: watch::Receiver<Option<Loaded>>,
    sessions: Mutex<HashMap<String, Assignment>>,
    log: Mutex<Box<dyn Write + Send>>,
    keyring: Keyring,
    salt: Vec<u8>,
}

/// Runs the sidecar until a signal stops it.
pub async fn run(common: &Common, args: DecideArgs) -> Result<()> {
    let config = Config::load(common.config.as_deref())?;
    let keys = args.trusted_keys.clone().unwrap_or_else(|| config.policy.trusted_keys.clone());
    let trust = Trust::Signed(weir_policy_publisher::keys::read_trusted(&keys)?);
    let keyring = Keyring::open(&config.keys.path)?;
    let listener = Listener::bind(&args.listen).await?;
    let log: Box<dyn Write + Send> =
        match &args.log {
            Some(path) => {
                Box::new(OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
                    Failure::user(format!("cannot append decisions to {}: {error}", path.display()))
                })?)
            }
            None => Box::new(std::io::stdout()),
        };
    let (active_sender, active) = watch::channel(None);
    let stop = stop_on_signal();
    let readiness = Readiness::of(&[http::POLICY]);
    follow_policy(&args.policy, trust, active_sender, readiness.clone(), stop.clone())?;
    let metrics = http::install_metrics()?;
    eprintln!("weir decide answers at {}/v1/decide", listener.url());
    let sidecar = Arc::new(Sidecar {
        active,
        sessions: Mutex::default(),
        log: Mutex::new(log),
        keyring,
        salt: args.salt.into_bytes(),
    });
    let router = Router::new().route("/v1/decide", post(decide)).with_state(sidecar);
    listener.serve(router.merge(http::operations(metrics, readiness)), stop).await
}

/// Keeps `active` at the policy in force: read once from a folder, or polled from a Weir.
fn follow_policy(
    source: &str,
    trust: Trust,
    active: watch::Sender<Option<Loaded>>,
    readiness: Readiness,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    if !source.starts_with("http://") && !source.starts_with("https://") {
        let folder = std::path::Path::new(source);
        let bundle = weir_policy_runtime::Bundle::read_dir(folder).map_err(Failure::user)?;
        if let Trust::Signed(keys) = &trust {
            let signature =
                weir_policy_runtime::Bundle::read_signature(folder).map_err(Failure::user)?.ok_or_else(|| {
                    Failure::user(format!("{source} carries no signature.json: export it from the registry"))
                })?;
            keys.verify(&bundle.id, &signature).map_err(Failure::user)?;
        }
        active.send_replace(Some(policy_client::load(&bundle)?));
        readiness.set(http::POLICY, true);
        return Ok(());
    }
    let mut client = PolicyClient::new(source, trust);
    std::thread::spawn(move || {
        while !*stop.borrow() {
            match client.poll() {
                Ok(Poll::Changed(loaded)) => {
                    tracing::info!(policy_id = %loaded.id, "policy taken up");
                    active.send_replace(Some(loaded));
                    readiness.set(http::POLICY, true);
                }
                Ok(Poll::None) => {
                    tracing::info!("no policy is in force any more");
                    active.send_replace(None);
                    readiness.set(http::POLICY, false);
                }
                Ok(Poll::Unchanged) => {}
                Err(failure) => {
                    metrics::counter!("weir_decide_policy_refused_total").increment(1);
                    tracing::warn!(error = %failure, "the policy in force stays");
                }
            }
            std::thread::sleep(POLL_EVERY);
        }
    });
    Ok(())
}

async fn decide(State(sidecar): State<Arc<Sidecar>>, body: axum::body::Bytes) -> Response {
    let ask: Ask = match serde_json::from_slice(&body) {
        Ok(ask) => ask,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("the body is not a decision request: {error}")),
    };
    let Some(loaded) = sidecar.active.borrow().clone() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "no policy is in force: route as you would without Weir");
    };
    match sidecar.answer(&ask, &loaded) {
        Ok(answer) => {
            metrics::counter!("weir_decide_decisions_total", "model" => answer.model.clone()).increment(1);
            axum::Json(answer).into_response()
        }
        Err(failure) if failure.is_users() => refuse(StatusCode::UNPROCESSABLE_ENTITY, &failure.to_string()),
        Err(failure) => refuse(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()),
    }
}

fn refuse(status: StatusCode, sentence: &str) -> Response {
    metrics::counter!("weir_decide_refusals_total", "status" => status.as_u16().to_string()).increment(1);
    (status, axum::Json(serde_json::json!({ "error": sentence }))).into_response()
}

impl Sidecar {
    /// Decides. What was randomised is the session, over the candidates of its first turn: that choice, its propensity
    /// and its candidates stay with the session. A turn whose own candidates exclude the session's model is answered from
    /// what is left, but it is not a draw that an estimator may use, so it carries no propensity and changes nothing.
    fn answer(&self, ask: &Ask, loaded: &Loaded) -> Result<Answer> {
        let tenant = ask.tenant.as_deref().unwrap_or("default");
        // Sessions are known by their pseudonym only, so equal ids of two tenants are two sessions.
        let session = match &ask.session_id {
            Some(session) => Some(self.keyring.tenant_key(tenant)?.pseudonym("session_id", session)),
            None => None,
        };
        let actions = loaded.policy.actions();
        let may_serve =
            |model: &str| ask.candidates.as_ref().is_none_or(|named| named.iter().any(|name| name == model));
        let kept = session.as_ref().and_then(|session| self.kept(session));
        if let Some(kept) = &kept
            && may_serve(&kept.model)
        {
            let answer = Answer { sticky: true, session_id: session, ..kept.answer() };
            self.write_log(ask, &answer)?;
            return Ok(answer);
        }
        let allowed: Vec<bool> = actions.iter().map(|action| may_serve(&action.model)).collect();
        if !allowed.contains(&true) {
            return Err(Failure::user(format!(
                "none of the candidates is known to the policy; it knows {}",
                actions.iter().map(|action| action.model.as_str()).collect::<Vec<_>>().join(", ")
            )));
        }
        let context = ask.context.as_context();
        let mut scratch = Scratch::default();
        let uniform = match (&session, &ask.request_id) {
            // A session that must leave its model draws anew: its first draw is used up.
            (Some(session), _) if kept.is_some() => sticky_uniform(&self.salt, &format!("{session}/again")),
            (Some(session), _) => sticky_uniform(&self.salt, session),
            (None, Some(request)) => sticky_uniform(&self.salt, request),
            (None, None) => rand::random::<f64>(),
        };
        let decision = loaded.policy.decide(&context, &allowed, uniform, &mut scratch).map_err(Failure::user)?;
        let propensities = loaded.policy.propensities(&context, &allowed, &mut scratch).map_err(Failure::user)?;
        let candidates: Vec<Candidate> = actions
            .iter()
            .zip(propensities)
            .filter(|(_, propensity)| **propensity > 0.0)
            .map(|(action, propensity)| Candidate { model: action.model.clone(), propensity: *propensity })
            .collect();
        let drawn = Assignment {
            model: actions[decision.action].model.clone(),
            propensity: decision.propensity,
            policy_id: loaded.id.to_string(),
            candidates,
            since_ms: now_ms(),
        };
        let mut answer = Answer { session_id: session.clone(), ..drawn.answer() };
        match (session, kept.is_some()) {
            (Some(session), false) => self.keep(session, drawn),
            (Some(_), true) => answer.propensity = None,
            (None, _) => {}
        }
        self.write_log(ask, &answer)?;
        Ok(answer)
    }

    fn kept(&self, session: &str) -> Option<Assignment> {
        self.sessions.lock().expect("no holder panics").get(session).cloned()
    }

    fn keep(&self, session: String, drawn: Assignment) {
        let mut sessions = self.sessions.lock().expect("no holder panics");
        if sessions.len() >= SESSIONS_MAX {
            let mut ages: Vec<i64> = sessions.values().map(|assignment| assignment.since_ms).collect();
            let middle = ages.len() / 2;
            let (_, median, _) = ages.select_nth_unstable(middle);
            let median = *median;
            sessions.retain(|_, assignment| assignment.since_ms > median);
        }
        sessions.insert(session, drawn);
    }

    fn write_log(&self, ask: &Ask, answer: &Answer) -> Result<()> {
        let line = LogLine {
            decided_ms: now_ms(),
            request_id: ask.request_id.as_deref(),
            session_id: answer.session_id.as_deref(),
            tenant: ask.tenant.as_deref(),
            intended_model: &answer.model,
            propensity: answer.propensity,
            policy_version: &answer.policy_id,
            candidates: &answer.candidates,
        };
        let mut bytes =
            serde_json::to_vec(&line).map_err(|error| Failure::ours(format!("cannot write a decision: {error}")))?;
        bytes.push(b'\n');
        let mut log = self.log.lock().expect("no holder panics");
        log.write_all(&bytes).and_then(|()| log.flush()).map_err(|error| {
            Failure::outside(format!("the decision could not be logged, so it must not be used: {error}"))
        })
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
