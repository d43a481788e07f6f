//! `weir decide`: a sidecar that scores the active policy, explores within its limits, and logs what it intended.
//!
//! `POST /v1/decide` takes what is known of a request and answers with a model and the exact probability with which it
//! was drawn. The draw is a salted hash of tenant and session, so every replica with the same salt gives the same session
//! the same draw; the first choice is then kept for the session's life while its model stays allowed, and the propensity
//! that is logged with later turns is the one of that first draw: the session, not the turn, is what was randomised. A policy
//! whose `policy.json` says `per_turn` is drawn from anew at every turn, and each turn is logged with the probability of its own draw.
//!
//! `POST /v1/cascade` says whether a cheap answer will do, by the bundle's cascade.
//!
//! `GET /v1/knobs` names the tables that came with the policy, and `GET /v1/knobs/NAME` is one of them, for routers that set
//! something from it.

mod ask;
mod cascade;
mod explore;
mod follow;
mod gates;
mod log;
mod sessions;

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio::sync::watch;
use weir_policy_publisher::keys;
use weir_policy_runtime::{ActionParts, Exploration, KnobTable, Objective, Scratch, Terms, Trust, sticky_uniform_of};
use weir_schemas::TenantKey;
use weir_store::{Keyring, UtcDay};

use self::ask::Ask;
use self::cascade::CascadeAsk;
use self::explore::Explorer;
use self::follow::Source;
use self::gates::Gates;
use self::log::{DecisionLog, Line};
use self::sessions::{Assignment, Sessions};
use super::stop_on_signal;
use crate::cli::{Common, DecideArgs};
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::http::{self, Listener, Readiness};
use crate::policy_client::Loaded;
use crate::training::now_ms;

/// One candidate with the probability with which it would have been drawn.
#[derive(Debug, Serialize, Clone, PartialEq)]
struct Candidate {
    model: String,
    propensity: f64,
}

/// The answer; with an id and a time it is the logged line.
#[derive(Debug, Serialize)]
struct Answer {
    model: String,
    /// Null for a turn that was not randomised over its candidates.
    propensity: Option<f64>,
    policy_id: String,
    /// The session's first choice was kept.
    sticky: bool,
    candidates: Vec<Candidate>,
    /// Is the answer worth checking for hallucination? Only where `--check` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<bool>,
    #[serde(skip)]
    expected_loss: f64,
}

/// The answer as it goes out.
#[derive(Debug, Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    answer: &'a Answer,
    /// What to call, where the action is more than a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<ActionParts<'a>>,
}

impl Answer {
    fn told(&self) -> Told<'_> {
        Told { answer: self, parts: Some(ActionParts::of(&self.model)).filter(|parts| !parts.is_model_alone()) }
    }

    fn of(drawn: &Assignment, sticky: bool) -> Self {
        Self {
            model: drawn.model.clone(),
            propensity: Some(drawn.propensity),
            policy_id: drawn.policy_id.clone(),
            sticky,
            candidates: drawn.candidates.clone(),
            check: None,
            expected_loss: drawn.expected_loss,
        }
    }
}

/// Sessions, log and what exploration has spent, under one lock: of two first turns of a session one is logged and kept, and the
/// other is answered with it.
struct Desk {
    sessions: Sessions,
    log: DecisionLog,
    explorer: Explorer,
}

struct Sidecar {
    active: watch::Receiver<Option<Loaded>>,
    desk: Arc<Mutex<Desk>>,
    pseudonyms: Pseudonyms,
    salt: Vec<u8>,
    gates: Gates,
    gate: cascade::Gate,
}

/// A session by the names that memory and log know it by; the session's own id stays with the caller.
struct Session {
    key: String,
    logged: String,
}

/// Who a session is, to those who may not know its id.
struct Pseudonyms {
    /// Tenants' keys, for those that ingest has met: then log and tables name a session alike. A request must not make
    /// a key, or anybody who can ask could fill the disk.
    keyring: Keyring,
    /// This process's own key, which nobody else holds.
    own: TenantKey,
}

impl Pseudonyms {
    fn session(&self, tenant: &str, session: &str) -> Result<Session> {
        // The length keeps tenant and session apart: equal ids of two tenants are two sessions.
        let key = self.own.pseudonym(&format!("{}:{tenant}", tenant.len()), session);
        let logged = match self.keyring.known_tenant_key(tenant)? {
            Some(tenants) => tenants.pseudonym("session_id", session),
            None => key.clone(),
        };
        Ok(Session { key, logged })
    }
}

/// Runs the sidecar until a signal stops it.
pub async fn run(common: &Common, args: DecideArgs) -> Result<()> {
    let config = Config::load(common.config.as_deref())?;
    let folder = args.trusted_keys.as_ref().unwrap_or(&config.policy.trusted_keys);
    let trusted = keys::read_trusted(folder)?;
    if trusted.is_empty() {
        return Err(Failure::user(format!(
            "no key is trusted: {} holds no *.pub file; copy there the public keys of those who may sign policies",
            folder.display()
        )));
    }
    // Whatever can be wrong is found out before a file is written.
    let source = Source::open(&args.policy, Trust::Signed(trusted))?;
    let salt = salt(args.salt)?;
    let listener = Listener::bind(&args.listen).await?;
    let mut explorer = Explorer::parse(&args.explore)?;
    match &args.log {
        Some(log) => explorer.recall(log, UtcDay::today())?,
        None if !args.explore.is_empty() => {
            return Err(Failure::user(
                "--explore needs --log FILE: what exploration has spent is read back from it after a restart",
            ));
        }
        None => {}
    }
    let desk = Desk { sessions: Sessions::default(), log: DecisionLog::open(args.log.as_deref())?, explorer };
    let desk = Arc::new(Mutex::new(desk));
    let (active_sender, active) = watch::channel(None);
    let stop = stop_on_signal();
    let readiness = Readiness::of(&[http::POLICY]);
    let metrics = http::install_metrics()?;
    source.follow(active_sender, desk.clone(), readiness.clone(), stop.clone());
    eprintln!("weir decide answers at {}/v1/decide", listener.url());
    let pseudonyms = Pseudonyms { keyring: Keyring::reading(&config.keys.path), own: TenantKey::new(rand::random()) };
    let gates = Gates { hallucination_max: args.hallucination_max, check_share: args.check };
    let sidecar = Arc::new(Sidecar { active, desk, pseudonyms, salt, gates, gate: cascade::Gate::default() });
    let router = Router::new()
        .route("/v1/decide", post(decide))
        .route("/v1/cascade", post(cascade))
        .route("/v1/knobs", get(knobs))
        .route("/v1/knobs/{name}", get(knob))
        .layer(DefaultBodyLimit::max(ask::MAX_BODY_BYTES))
        .with_state(sidecar);
    listener.serve(router.merge(http::operations(metrics, readiness)), stop).await
}

/// Whoever knows the salt can choose a session id that draws the model of their choice, so there is no default.
fn salt(given: Option<String>) -> Result<Vec<u8>> {
    match given {
        Some(salt) if salt.is_empty() => {
            Err(Failure::user("--salt is empty: give a secret, the same to every replica, or leave it out"))
        }
        Some(salt) => Ok(salt.into_bytes()),
        None => {
            tracing::warn!(
                "no --salt was given: this process draws with a secret of its own, so after a restart, and on another \
                 replica, sessions draw anew; make one with `openssl rand -hex 16` and give it to every replica"
            );
            Ok(rand::random::<[u8; 16]>().to_vec())
        }
    }
}

/// The body, or the refusal that it gets.
#[expect(clippy::result_large_err, reason = "made once a refusal")]
fn readable(body: std::result::Result<Bytes, BytesRejection>) -> std::result::Result<Bytes, Response> {
    body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let sentence = format!("the body has more than {} bytes: send less context", ask::MAX_BODY_BYTES);
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, &sentence);
        }
        refuse(rejection.status(), "the body could not be read: send it again")
    })
}

async fn cascade(State(sidecar): State<Arc<Sidecar>>, body: std::result::Result<Bytes, BytesRejection>) -> Response {
    let body = match readable(body) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let ask = match CascadeAsk::parse(&body) {
        Ok(ask) => ask,
        Err(sentence) => return refuse(StatusCode::BAD_REQUEST, &sentence),
    };
    let Some(loaded) = sidecar.active.borrow().clone() else { return no_policy() };
    match sidecar.gate.decide(&ask, &loaded, now_ms()) {
        Some(answer) => axum::Json(answer).into_response(),
        None => refuse(
            StatusCode::NOT_FOUND,
            "the policy in force brings no cascade: learn one with `weir learn cascade`, and a policy with --cascade",
        ),
    }
}

async fn decide(State(sidecar): State<Arc<Sidecar>>, body: std::result::Result<Bytes, BytesRejection>) -> Response {
    let body = match readable(body) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let ask = match Ask::parse(&body) {
        Ok(ask) => ask,
        Err(sentence) => return refuse(StatusCode::BAD_REQUEST, &sentence),
    };
    let Some(loaded) = sidecar.active.borrow().clone() else {
        return no_policy();
    };
    match sidecar.answer(&ask, &loaded) {
        Ok(mut answer) => {
            answer.check = sidecar.gates.check(&ask, &loaded, &answer.model, rand::random::<f64>());
            metrics::counter!("weir_decide_decisions_total", "model" => answer.model.clone()).increment(1);
            axum::Json(answer.told()).into_response()
        }
        Err(failure) if failure.is_users() => refuse(StatusCode::UNPROCESSABLE_ENTITY, &failure.to_string()),
        Err(failure) => refuse(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()),
    }
}

async fn knobs(State(sidecar): State<Arc<Sidecar>>) -> Response {
    let Some(loaded) = sidecar.active.borrow().clone() else { return no_policy() };
    let about = |(name, table): (&String, &KnobTable)| (name.clone(), serde_json::json!({ "about": table.about }));
    let tables: serde_json::Map<String, serde_json::Value> = loaded.knobs.iter().map(about).collect();
    axum::Json(serde_json::json!({ "policy_id": loaded.id, "tables": tables })).into_response()
}

async fn knob(State(sidecar): State<Arc<Sidecar>>, Path(name): Path<String>) -> Response {
    let Some(loaded) = sidecar.active.borrow().clone() else { return no_policy() };
    match loaded.knobs.get(&name) {
        Some(table) => axum::Json(table).into_response(),
        None => {
            refuse(StatusCode::NOT_FOUND, "the policy in force brings no such table: GET /v1/knobs names those it has")
        }
    }
}

fn no_policy() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "no policy is in force: route as you would without Weir")
}

fn refuse(status: StatusCode, sentence: &str) -> Response {
    metrics::counter!("weir_decide_refusals_total", "status" => status.as_u16().to_string()).increment(1);
    (status, axum::Json(serde_json::json!({ "error": sentence }))).into_response()
}

impl Sidecar {
    /// Decides a turn by itself: of no session, or under a policy that draws at every turn. A model that the session was given by another
    /// policy is neither asked for nor forgotten.
    fn answer_turn(&self, ask: &Ask, loaded: &Loaded) -> Result<Answer> {
        let session =
            ask.session_id.as_deref().map(|session| self.pseudonyms.session(ask.tenant(), session)).transpose()?;
        let answer = Answer::of(&self.draw(ask, loaded, false)?, false);
        self.desk().write(ask, session.as_ref(), &answer)?;
        Ok(answer)
    }

    /// Decides. What was randomised is the session, over the candidates of its first turn: that choice, its propensity
    /// and its candidates stay with the session. A turn whose own candidates exclude the session's model is answered from
    /// what is left, but it is not a draw that an estimator may use, so it carries no propensity and changes nothing.
    fn answer(&self, ask: &Ask, loaded: &Loaded) -> Result<Answer> {
        let Some(session) = ask.session_id.as_deref().filter(|_| !loaded.policy.spec().per_turn) else {
            return self.answer_turn(ask, loaded);
        };
        let session = self.pseudonyms.session(ask.tenant(), session)?;
        let actions = loaded.policy.actions();
        loop {
            let mut desk = self.desk();
            let kept = desk.sessions.kept(&session.key, actions);
            // A flagged request, or one of a slice that is never explored with, is not answered by a model that was drawn to learn something.
            let greedy_only = ask.flagged == Some(true) || desk.explorer.forbids(ask);
            let may_stay = |kept: &Assignment| {
                !(greedy_only && kept.explored) && ask.may_serve(&kept.model) && self.admits(ask, loaded, &kept.model)
            };
            if let Some(kept) = kept.filter(|kept| may_stay(kept)) {
                let answer = Answer::of(kept, true);
                desk.write(ask, Some(&session), &answer)?;
                return Ok(answer);
            }
            let leaves = kept.is_some();
            // The network runs without the lock, so another turn of the session may come first; it then decides.
            drop(desk);
            let drawn = self.draw(ask, loaded, leaves)?;
            let mut desk = self.desk();
            if desk.sessions.kept(&session.key, actions).is_some() != leaves {
                continue;
            }
            let mut answer = Answer::of(&drawn, false);
            if leaves {
                answer.propensity = None;
            }
            desk.write(ask, Some(&session), &answer)?;
            if !leaves {
                desk.sessions.keep(session.key, drawn);
            }
            return Ok(answer);
        }
    }

    fn draw(&self, ask: &Ask, loaded: &Loaded, leaves: bool) -> Result<Assignment> {
        thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());
        let actions = loaded.policy.actions();
        let may_answer = |model: &str| {
            let (may_serve, admits) = (ask.may_serve(model), self.admits(ask, loaded, model));
            if may_serve && !admits {
                gates::events::kept_away(model);
            }
            may_serve && admits
        };
        let allowed: Vec<bool> = actions.iter().map(|action| may_answer(&action.model)).collect();
        if !allowed.contains(&true) {
            return Err(Failure::user(format!(
                "none of the candidates is known to the policy; it knows {}",
                actions.iter().map(|action| action.model.as_str()).collect::<Vec<_>>().join(", ")
            )));
        }
        // A turn that leaves its session's model is no evidence, so nothing is paid for it.
        let may_cost = if leaves { 0.0 } else { self.desk().explorer.may_cost(ask, UtcDay::today()) };
        let waits: Vec<f64> = actions.iter().map(|action| ask.wait_s(&action.model)).collect();
        let objective = Objective {
            usd: ask.usd_weight.unwrap_or(loaded.policy.spec().objective.usd),
            ..loaded.policy.spec().objective
        };
        SCRATCH.with_borrow_mut(|scratch| {
            let uniform = self.uniform(ask, loaded.policy.spec().per_turn, leaves);
            let decide = |exploration, scratch: &mut Scratch| {
                let terms = Terms { exploration, objective, wait_s: &waits };
                let context = ask.context.as_context();
                loaded.policy.decide_under(&terms, &context, &allowed, uniform, scratch).map_err(Failure::user)
            };
            // What drawing costs is known before the draw, so a decision that costs too much is taken by its looks, and its
            // probability is no less true.
            let own = if may_cost > 0.0 { loaded.policy.spec().exploration } else { Exploration::NONE };
            let mut decision = decide(own, scratch)?;
            if scratch.expected_loss() > may_cost {
                decision = decide(Exploration::NONE, scratch)?;
            }
            // All that could have been chosen, those with probability 0 too: a reader of the log must see what it cannot judge.
            let candidates = actions
                .iter()
                .zip(scratch.propensities())
                .zip(&allowed)
                .filter(|(_, allowed)| **allowed)
                .map(|((action, propensity), _)| Candidate { model: action.model.clone(), propensity: *propensity })
                .collect();
            Ok(Assignment {
                model: actions[decision.action].model.clone(),
                propensity: decision.propensity,
                policy_id: loaded.id.to_string(),
                candidates,
                expected_loss: scratch.expected_loss(),
                explored: scratch.expected_loss() > 0.0 || scratch.explores(decision.action),
                since_ms: now_ms(),
            })
        })
    }

    /// Does the limit on hallucinations let the model answer, or does it leave nobody? A limit that does is none.
    fn admits(&self, ask: &Ask, loaded: &Loaded, model: &str) -> bool {
        let admits = |model: &str| self.gates.admits(ask, loaded, model);
        let some =
            || loaded.policy.actions().iter().any(|action| ask.may_serve(&action.model) && admits(&action.model));
        admits(model) || !some()
    }

    /// A function of what the caller sent and of the salt alone, so that replicas draw alike.
    fn uniform(&self, ask: &Ask, per_turn: bool, leaves: bool) -> f64 {
        let draw = |what: &str, id: &str| sticky_uniform_of(&self.salt, &[what, ask.tenant(), id]);
        match (&ask.session_id, &ask.request_id) {
            // A session that must leave its model for a turn draws anew: its first draw is used up.
            // The session's own draw would be the same at every turn; a request that is sent again is answered alike.
            (Some(session), Some(request)) if per_turn => {
                sticky_uniform_of(&self.salt, &["turn", ask.tenant(), session, request])
            }
            (Some(_), None) if per_turn => rand::random::<f64>(),
            (Some(session), _) if leaves => draw("leave", session),
            (Some(session), _) => draw("session", session),
            (None, Some(request)) => draw("request", request),
            (None, None) => rand::random::<f64>(),
        }
    }

    fn desk(&self) -> std::sync::MutexGuard<'_, Desk> {
        self.desk.lock().expect("no holder panics")
    }
}

impl Desk {
    fn write(&mut self, ask: &Ask, session: Option<&Session>, answer: &Answer) -> Result<()> {
        self.log.write(&Line {
            decided_ms: now_ms(),
            request_id: ask.request_id.as_deref(),
            session_id: session.map(|session| session.logged.as_str()),
            tenant: ask.tenant.as_deref(),
            domain: self.explorer.slice(ask),
            intended_model: &answer.model,
            propensity: answer.propensity,
            policy_version: &answer.policy_id,
            candidates: &answer.candidates,
            expected_loss: Some(answer.expected_loss).filter(|loss| *loss > 0.0),
            usd_weight: ask.usd_weight.filter(|_| !answer.sticky),
            wait_s: Some(&ask.wait_s).filter(|waits| !answer.sticky && !waits.is_empty()),
        })?;
        self.explorer.charge(ask, answer.expected_loss, UtcDay::today());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_salt_is_refused_and_a_missing_one_is_drawn() {
        assert!(salt(Some(String::new())).is_err());
        assert_eq!(salt(Some("shared".into())).unwrap(), b"shared");
        assert_ne!(salt(None).unwrap(), salt(None).unwrap());
    }

    #[test]
    fn a_session_is_known_by_tenant_and_id_and_no_key_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let pseudonyms = Pseudonyms { keyring: Keyring::reading(&keys), own: TenantKey::new([7; 32]) };
        let key = |tenant: &str, session: &str| pseudonyms.session(tenant, session).unwrap().key;
        assert_eq!(key("a", "s"), key("a", "s"));
        assert_ne!(key("a", "s"), key("b", "s"));
        assert_ne!(key("a\u{1f}1", "s"), key("a", "1\u{1f}s"));
        assert!(!keys.exists(), "a request made a key");

        let ingests = Keyring::open(&keys).unwrap().tenant_key("a").unwrap().pseudonym("session_id", "s");
        assert_eq!(pseudonyms.session("a", "s").unwrap().logged, ingests, "log and tables name a session alike");
    }
}
