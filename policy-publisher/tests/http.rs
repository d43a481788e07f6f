//! The endpoints, over a real socket.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::{because, by, key, proposed, registry};
use serde_json::Value;
use tokio::sync::watch;
use weir_policy_publisher::delivery::{Delivery, InForce, router};
use weir_policy_publisher::tokens::{Role, Tokens, issue};
use weir_policy_publisher::{Decision, Registry};
use weir_policy_runtime::{Bundle, Signature};

struct Server {
    url: String,
    delivery: Delivery,
    approver: String,
    viewer: String,
    registry: Registry,
}

struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn server(with_tokens: bool) -> Server {
    serve(registry().await.1, with_tokens).await
}

async fn serve(registry: Registry, with_tokens: bool) -> Server {
    let ((approver, approver_line), (viewer, viewer_line)) =
        (issue(Role::Approver, "alice"), issue(Role::Viewer, "bob"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, format!("{approver_line}\n{viewer_line}\n")).unwrap();
    let tokens = with_tokens.then(|| Tokens::read(&file).unwrap());
    let delivery = Delivery::open(registry.clone(), tokens).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router(delivery.clone())).into_future());
    Server { url, delivery, approver, viewer, registry }
}

impl Server {
    async fn ask(&self, method: &str, path: &str, header: Option<(&str, &str)>, body: &str) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(body.to_owned()).unwrap();
        tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let mut response = agent.run(request).unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Answer { status, headers, body: response.body_mut().read_to_vec().unwrap() }
        })
        .await
        .unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None, "").await
    }

    async fn post(&self, path: &str, token: &str, body: &str) -> Answer {
        self.ask("POST", path, Some(("Authorization", &format!("Bearer {token}"))), body).await
    }
}

#[tokio::test]
async fn a_router_gets_the_active_policy_once_and_then_304() {
    let server = server(true).await;
    let none = server.get("/v1/policy/active").await;
    assert_eq!((none.status, none.json()["error"].as_str()), (404, Some("no policy is active: approve one")));

    let policy = proposed(&server.registry, "demo", 1.0, "better").await;
    server.registry.approve(&policy.id, &by("alice")).await.unwrap();
    assert_eq!(server.get("/v1/policy/active").await.status, 404, "answered from memory until the next refresh");
    server.delivery.refresh().await.unwrap();

    let full = server.get("/v1/policy/active").await;
    assert_eq!(full.status, 200);
    assert_eq!(Bundle::from_tar(&full.body).unwrap(), policy);
    assert_eq!(full.header("X-Weir-Policy-Id"), Some(policy.id.as_str()));
    let signature = Signature {
        algorithm: "ed25519".to_owned(),
        key_id: full.header("X-Weir-Key-Id").unwrap().to_owned(),
        policy_id: policy.id.clone(),
        signature: full.header("X-Weir-Signature").unwrap().to_owned(),
    };
    assert!(signature.check(&policy.id, key(1).public()).is_ok());

    let etag = full.header("ETag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", policy.id));
    for tags in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
        let same = server.ask("GET", "/v1/policy/active", Some(("If-None-Match", &tags)), "").await;
        assert_eq!((same.status, same.body.len(), same.header("ETag")), (304, 0, Some(etag.as_str())), "{tags}");
    }
    let other = server.ask("GET", "/v1/policy/active", Some(("If-None-Match", "\"sha256:0\"")), "").await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn policies_are_listed_and_shown() {
    let server = server(true).await;
    let policy = proposed(&server.registry, "demo", 1.0, "better").await;
    server.delivery.refresh().await.unwrap();
    let list = server.get("/v1/policies").await.json();
    assert_eq!(list["policies"][0]["id"], policy.id.as_str());
    assert_eq!(list["policies"][0]["status"], "proposed");
    let shown = server.get(&format!("/v1/policies/{}", policy.id)).await.json();
    assert_eq!((&shown["manifest"]["name"], &shown["signature"]["trusted"]), (&"demo".into(), &true.into()));
    assert_eq!(server.get("/v1/policies/0000000").await.status, 404);
}

#[tokio::test]
async fn changes_need_an_approvers_token() {
    let server = server(true).await;
    let policy = proposed(&server.registry, "demo", 1.0, "not_shown").await;
    let approve = format!("/v1/policies/{}/approve", policy.id);

    let anonymous = server.ask("POST", &approve, None, "").await;
    assert_eq!((anonymous.status, anonymous.header("WWW-Authenticate")), (401, Some("Bearer")));
    assert_eq!(server.post(&approve, "wrong", "").await.status, 401);
    let viewer = server.post(&approve, &server.viewer, "").await;
    assert_eq!(viewer.status, 403);
    assert!(viewer.json()["error"].as_str().unwrap().starts_with("bob has the role viewer"));

    assert_eq!(server.post(&approve, &server.approver, "{\"forse\": true}").await.status, 400);
    let doubtful = server.post(&approve, &server.approver, r#"{"over": "none"}"#).await;
    assert_eq!(doubtful.status, 409);
    assert!(doubtful.json()["error"].as_str().unwrap().contains("has the verdict not shown"));
    let approved =
        server.post(&approve, &server.approver, r#"{"reason": "a trial", "force": true, "over": "none"}"#).await;
    assert_eq!((approved.status, &approved.json()["forced"]), (200, &true.into()));
    assert_eq!(server.get("/v1/policy/active").await.status, 200, "a change is handed out at once");
    let event = server.registry.load().await.unwrap().events.last().cloned().unwrap();
    assert_eq!(event.actor, "alice", "the token says who decides");

    let from = format!(r#"{{"from": "{}"}}"#, policy.id);
    assert_eq!(server.post("/v1/policy/rollback", &server.approver, &from).await.status, 400, "a reason is missing");
    let from = format!(r#"{{"reason": "enough", "from": "{}"}}"#, policy.id);
    let back = server.post("/v1/policy/rollback", &server.approver, &from).await;
    assert_eq!((back.status, &back.json()["to"]), (200, &Value::Null));
    assert_eq!(server.get("/v1/policy/active").await.status, 404);
    assert_eq!(server.post(&format!("/v1/policies/{}/reject", policy.id), &server.approver, "").await.status, 200);
    assert_eq!(server.post("/v1/policies/0000000/reject", &server.approver, "").await.status, 404);
}

#[tokio::test]
async fn without_a_token_file_nothing_is_changed_over_http() {
    let server = server(false).await;
    let answer = server.post("/v1/policy/rollback", "any", "").await;
    assert_eq!(answer.status, 403);
    assert!(answer.json()["error"].as_str().unwrap().contains("takes no changes over http"));
}

#[tokio::test]
async fn changes_made_elsewhere_are_taken_up_and_told_on() {
    let server = server(true).await;
    let (_keep, stop) = watch::channel(false);
    let mut in_force = server.delivery.in_force();
    let delivery = server.delivery.clone();
    tokio::spawn(async move { delivery.keep_fresh(Duration::from_millis(20), stop).await });

    let policy = proposed(&server.registry, "demo", 1.0, "better").await;
    server.registry.approve(&policy.id, &by("alice")).await.unwrap();
    in_force.wait_for(|now| now.policy().is_some_and(|now| now.id == policy.id)).await.unwrap();
    server.registry.rollback(&policy.id, &because("alice", "enough")).await.unwrap();
    in_force.wait_for(|now| *now == InForce::Nothing).await.unwrap();
}

#[tokio::test]
async fn a_policy_that_no_longer_holds_is_not_handed_out() {
    let (store, registry) = registry().await;
    let first = proposed(&registry, "first", 1.0, "better").await;
    let second = proposed(&registry, "second", 2.0, "better").await;
    registry.approve(&first.id, &by("alice")).await.unwrap();
    let delivery = Delivery::open(registry.clone(), None).await;
    let force = Decision { force: true, ..because("alice", "x") };
    registry.approve(&second.id, &force).await.unwrap();
    store.put(&format!("policies/{}/report.md", second.id.hex()), "changed".into()).await.unwrap();
    assert!(delivery.refresh().await.is_err());
    assert_eq!(delivery.in_force().borrow().policy().unwrap().id, first.id, "the one before stays");
}

#[tokio::test]
async fn a_rollback_that_is_sent_twice_goes_back_one_step() {
    let server = server(true).await;
    let first = proposed(&server.registry, "first", 1.0, "better").await;
    let second = proposed(&server.registry, "second", 2.0, "better").await;
    server.registry.approve(&first.id, &by("alice")).await.unwrap();
    server.registry.approve(&second.id, &by("alice")).await.unwrap();

    let unsaid = server.post("/v1/policy/rollback", &server.approver, r#"{"reason": "errors"}"#).await;
    assert_eq!(unsaid.status, 400);
    assert!(unsaid.json()["error"].as_str().unwrap().contains("\"from\""));
    let active =
        server.post("/v1/policy/rollback", &server.approver, r#"{"reason": "errors", "from": "active"}"#).await;
    assert_eq!(active.status, 400, "active is whatever is in force when the request arrives");

    let from = format!(r#"{{"reason": "errors", "from": "{}"}}"#, second.id);
    let back = server.post("/v1/policy/rollback", &server.approver, &from).await;
    assert_eq!((back.status, back.json()["to"].as_str()), (200, Some(first.id.as_str())));
    assert_eq!(server.post("/v1/policy/rollback", &server.approver, &from).await.status, 409);
    assert_eq!(server.registry.load().await.unwrap().state.active(), Some(&first.id));
}

#[tokio::test]
async fn an_approval_holds_only_over_what_its_maker_saw() {
    let server = server(true).await;
    let first = proposed(&server.registry, "first", 1.0, "better").await;
    let second = proposed(&server.registry, "second", 2.0, "better").await;
    server.registry.approve(&first.id, &by("alice")).await.unwrap();
    let approve = format!("/v1/policies/{}/approve", second.id);
    assert_eq!(server.post(&approve, &server.approver, "").await.status, 400);
    let late = server.post(&approve, &server.approver, r#"{"over": "none"}"#).await;
    assert_eq!(late.status, 409);
    assert!(late.json()["error"].as_str().unwrap().contains("the active policy changed meanwhile"));
    let over = format!(r#"{{"over": "{}"}}"#, first.id.short());
    assert_eq!(server.post(&approve, &server.approver, &over).await.status, 200);
}

#[tokio::test]
async fn a_damaged_policy_does_not_stop_the_server_and_is_not_taken_for_a_rollback() {
    let (store, registry) = registry().await;
    let policy = proposed(&registry, "demo", 1.0, "better").await;
    registry.approve(&policy.id, &by("alice")).await.unwrap();
    let report = format!("policies/{}/report.md", policy.id.hex());
    let whole = store.get(&report).await.unwrap().unwrap();
    store.put(&report, "changed".into()).await.unwrap();

    let server = serve(registry, true).await;
    assert_eq!(*server.delivery.in_force().borrow(), InForce::Unknown);
    let answer = server.get("/v1/policy/active").await;
    assert_eq!(answer.status, 503, "routers keep what they have: only a person's decision is a 404");
    assert_eq!(server.get("/v1/policies").await.json()["active"], policy.id.as_str());

    store.put(&report, whole).await.unwrap();
    server.delivery.refresh().await.unwrap();
    assert_eq!(server.get("/v1/policy/active").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refreshes_that_overlap_end_with_the_newest_policy() {
    let server = server(true).await;
    for round in 0..8 {
        let policy = proposed(&server.registry, &format!("round {round}"), 1.0, "better").await;
        let before = {
            let delivery = server.delivery.clone();
            tokio::spawn(async move { delivery.refresh().await })
        };
        server.registry.approve(&policy.id, &by("alice")).await.unwrap();
        server.delivery.refresh().await.unwrap();
        before.await.unwrap().unwrap();
        assert_eq!(server.delivery.in_force().borrow().policy().unwrap().id, policy.id);
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let server = server(true).await;
    let body = format!(r#"{{"reason": "{}"}}"#, "x".repeat(65 << 10));
    assert_eq!(server.post("/v1/policy/rollback", &server.approver, &body).await.status, 413);
}
