//! The routes.

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use weir_store::Fault;

use super::{Delivery, InForce};
use crate::registry::{ActivePolicy, Decision, Seen};
use crate::tokens::{Refusal, Role};
use crate::views::PolicyList;
use crate::{PublisherError, events};

const POLICY_ID: HeaderName = HeaderName::from_static("x-weir-policy-id");
const SIGNATURE: HeaderName = HeaderName::from_static("x-weir-signature");
const KEY_ID: HeaderName = HeaderName::from_static("x-weir-key-id");

/// Bytes of a decision at most: a reason is a few sentences.
const MAX_BODY_BYTES: usize = 64 << 10;

/// The endpoints of the [module's table](super).
pub fn router(delivery: Delivery) -> Router {
    Router::new()
        .route("/v1/policy/active", get(active))
        .route("/v1/policies", get(list))
        .route("/v1/policies/{id}", get(show))
        .route("/v1/policies/{id}/approve", post(approve))
        .route("/v1/policies/{id}/reject", post(reject))
        .route("/v1/policy/rollback", post(rollback))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(delivery)
}

async fn active(State(delivery): State<Delivery>, headers: HeaderMap) -> Response {
    let in_force = delivery.0.in_force.borrow().clone();
    let response = match in_force {
        InForce::Unknown => not_read(),
        InForce::Nothing => failure(StatusCode::NOT_FOUND, "no policy is active: approve one", Fault::User, true),
        InForce::Policy(active) if asks_for_another(&headers, &active) => {
            (policy_headers(&active), active.tar.clone()).into_response()
        }
        InForce::Policy(active) => (StatusCode::NOT_MODIFIED, policy_headers(&active)).into_response(),
    };
    events::fetched(response.status().as_u16());
    response
}

/// RFC 9110, section 13.1.2: a list of tags, weakly compared, or `*`.
fn asks_for_another(headers: &HeaderMap, active: &ActivePolicy) -> bool {
    let ours = format!("\"{}\"", active.id);
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = tags.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    !tags.any(|tag| tag == ours || tag == "*")
}

fn policy_headers(active: &ActivePolicy) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: String| {
        // Ids, digits and our own words are always legal header values.
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, format!("\"{}\"", active.id));
    set(header::CONTENT_TYPE, "application/x-tar".to_owned());
    set(header::CACHE_CONTROL, "no-cache".to_owned()); // keep it, but ask before use
    set(POLICY_ID, active.id.to_string());
    if let Some(signature) = &active.signature {
        set(SIGNATURE, signature.signature.clone());
        set(KEY_ID, signature.key_id.clone());
    }
    headers
}

/// Not 404: a router must not take a server that cannot read for a decision of a person.
fn not_read() -> Response {
    let sentence = "the policy in force could not be read or does not hold: this server's log says why";
    failure(StatusCode::SERVICE_UNAVAILABLE, sentence, Fault::Outside, true)
}

async fn list(State(delivery): State<Delivery>) -> Response {
    match delivery.loaded() {
        Some(loaded) => Json(PolicyList::new(&loaded.state)).into_response(),
        None => not_read(),
    }
}

async fn show(State(delivery): State<Delivery>, Path(id): Path<String>) -> Response {
    match delivery.loaded() {
        Some(loaded) => answer(delivery.0.registry.detail(&loaded, &id).await),
        None => not_read(),
    }
}

/// What the body of a decision may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DecisionBody {
    reason: Option<String>,
    force: bool,
    /// Of an approval: the policy that its maker saw in force, or `none`.
    over: Option<String>,
    /// Of a rollback: the policy to withdraw.
    from: Option<String>,
}

const SAY_OVER: &str = "send \"over\" with the id of the policy in force, or \"none\"";
const SAY_FROM: &str = "send \"from\" with the id of the policy to withdraw";

async fn approve(
    State(delivery): State<Delivery>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let (actor, body) = match decision(&delivery, &headers, &body) {
        Ok(decided) => decided,
        Err(refusal) => return refusal,
    };
    let registry = &delivery.0.registry;
    let outcome = async {
        let over = match said(body.over.as_deref(), &headers) {
            None => return Err(PublisherError::NeedsSeen { how: SAY_OVER }),
            Some("none") => Seen::Nothing,
            Some(text) => Seen::Policy(registry.resolve(text).await?),
        };
        let decision = Decision { actor, reason: body.reason, force: body.force, over };
        registry.approve(&registry.resolve(&id).await?, &decision).await
    };
    changed(&delivery, outcome.await).await
}

async fn reject(
    State(delivery): State<Delivery>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let (actor, body) = match decision(&delivery, &headers, &body) {
        Ok(decided) => decided,
        Err(refusal) => return refusal,
    };
    let registry = &delivery.0.registry;
    let decision = Decision { actor, reason: body.reason, ..Decision::default() };
    let outcome = async { registry.reject(&registry.resolve(&id).await?, &decision).await };
    changed(&delivery, outcome.await).await
}

async fn rollback(State(delivery): State<Delivery>, headers: HeaderMap, body: String) -> Response {
    let (actor, body) = match decision(&delivery, &headers, &body) {
        Ok(decided) => decided,
        Err(refusal) => return refusal,
    };
    let registry = &delivery.0.registry;
    let outcome = async {
        let from = said(body.from.as_deref(), &headers).ok_or(PublisherError::NeedsSeen { how: SAY_FROM })?;
        let decision = Decision { actor, reason: body.reason, ..Decision::default() };
        registry.rollback(&registry.resolve(from).await?, &decision).await
    };
    changed(&delivery, outcome.await).await
}

/// What was seen in force: by the body, else by `If-Match` (RFC 9110, section 13.1.1). `active` says nothing: it is
/// whatever is in force when the request arrives.
fn said<'a>(body: Option<&'a str>, headers: &'a HeaderMap) -> Option<&'a str> {
    let tag = || headers.get(header::IF_MATCH)?.to_str().ok().map(|tag| tag.trim().trim_matches('"'));
    body.or_else(tag).filter(|text| !matches!(*text, "active" | "*" | ""))
}

/// Who decides is the token's name: nobody can decide in another's.
#[allow(clippy::result_large_err)] // the error is the response itself, made once per refused request
fn decision(delivery: &Delivery, headers: &HeaderMap, body: &str) -> Result<(String, DecisionBody), Response> {
    let refuse = |status: StatusCode, sentence: &str| {
        events::change_refused(status.as_u16());
        failure(status, sentence, Fault::User, false)
    };
    let Some(tokens) = &delivery.0.tokens else {
        let sentence = "this server takes no changes over http: give it a token file, or use weir policy";
        return Err(refuse(StatusCode::FORBIDDEN, sentence));
    };
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let actor = tokens.authorise(authorization, Role::Approver).map_err(|refusal| match refusal {
        Refusal::Unauthenticated => {
            let mut response = refuse(StatusCode::UNAUTHORIZED, &refusal.to_string());
            if let Ok(scheme) = "Bearer".parse() {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            }
            response
        }
        Refusal::Forbidden { .. } => refuse(StatusCode::FORBIDDEN, &refusal.to_string()),
    })?;
    let body: DecisionBody = if body.trim().is_empty() {
        DecisionBody::default()
    } else {
        let sentence = "the body is not a decision: it may hold \"reason\", \"force\", and \"over\" or \"from\"";
        serde_json::from_str(body).map_err(|_| refuse(StatusCode::BAD_REQUEST, sentence))?
    };
    Ok((actor, body))
}

/// A decision that was taken is answered as taken, even if handing it out has to wait for the next refresh.
async fn changed<T: Serialize>(delivery: &Delivery, outcome: Result<T, PublisherError>) -> Response {
    if outcome.is_ok()
        && let Err(error) = delivery.refresh().await
    {
        events::refresh_failed(&error);
    }
    answer(outcome)
}

fn answer<T: Serialize>(outcome: Result<T, PublisherError>) -> Response {
    let error = match outcome {
        Ok(value) => return Json(value).into_response(),
        Err(error) => error,
    };
    let status = match &error {
        PublisherError::Unknown { .. } => StatusCode::NOT_FOUND,
        PublisherError::NeedsReason | PublisherError::NeedsSeen { .. } | PublisherError::Ambiguous { .. } => {
            StatusCode::BAD_REQUEST
        }
        PublisherError::Signature(_) | PublisherError::Bundle(_) | PublisherError::Policy(_) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        error if error.fault() == Fault::User => StatusCode::CONFLICT,
        PublisherError::Overtaken { .. } | PublisherError::Contended { .. } => StatusCode::CONFLICT,
        error if error.retry_helps() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    failure(status, &error.to_string(), error.fault(), error.retry_helps())
}

fn failure(status: StatusCode, sentence: &str, fault: Fault, retry_helps: bool) -> Response {
    let fault = match fault {
        Fault::User => "user",
        Fault::Outside => "outside",
        Fault::Ours => "ours",
    };
    let body = serde_json::json!({ "error": sentence, "fault": fault, "retry_helps": retry_helps });
    (status, Json(body)).into_response()
}
