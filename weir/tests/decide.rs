//! The sidecar over HTTP: exact propensities, sessions that keep their model, a log without session ids.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

struct Sidecar {
    process: Child,
    url: String,
}

impl Sidecar {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_weir"))
            .current_dir(folder)
            .args(["decide", "--policy", "bundle", "--listen", "127.0.0.1:0", "--log", "decisions.jsonl"])
            .env("WEIR_LOG", "off")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = process.stderr.take().expect("standard error is piped");
        let line = BufReader::new(stderr).lines().next().expect("it says where it listens").expect("readable");
        let url = line.rsplit(' ').next().expect("the address is the last word").to_owned();
        Self { process, url }
    }

    fn ask(&self, body: &Value) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = agent.post(&self.url).send_json(body).expect("the sidecar answers");
        let status = response.status().as_u16();
        (status, response.body_mut().read_json().expect("answers are JSON"))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the sidecar was not stopped: {error}");
        }
    }
}

#[test]
fn sessions_keep_their_model_and_draws_follow_the_propensities() {
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    let sidecar = Sidecar::start(folder.path());

    let mut chosen: BTreeMap<String, u32> = BTreeMap::new();
    let sessions = 600;
    let mut expected = BTreeMap::new();
    for session in 0..sessions {
        let ask = json!({ "session_id": format!("secret-session-{session}"), "context": { "fact_check": true } });
        let (status, first) = sidecar.ask(&ask);
        assert_eq!(status, 200, "{first}");
        let candidates = first["candidates"].as_array().unwrap();
        let sum: f64 = candidates.iter().map(|candidate| candidate["propensity"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "propensities sum to {sum}");
        let logged = candidates.iter().find(|candidate| candidate["model"] == first["model"]).unwrap();
        assert_eq!(logged["propensity"], first["propensity"], "the propensity is that of the chosen model");
        for candidate in candidates {
            expected.insert(candidate["model"].as_str().unwrap().to_owned(), candidate["propensity"].as_f64().unwrap());
        }
        let (_, second) = sidecar.ask(&ask);
        assert_eq!(second["model"], first["model"]);
        assert_eq!(second["propensity"], first["propensity"]);
        assert_eq!(second["sticky"], json!(true));
        *chosen.entry(first["model"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    for (model, propensity) in expected {
        let share = f64::from(chosen.get(&model).copied().unwrap_or(0)) / f64::from(sessions);
        // Five binomial standard deviations: wrong about once in two million runs.
        let tolerance = 5.0 * (propensity * (1.0 - propensity) / f64::from(sessions)).sqrt();
        assert!((share - propensity).abs() <= tolerance, "{model}: share {share}, propensity {propensity}");
    }

    let log = std::fs::read_to_string(folder.path().join("decisions.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 2 * sessions as usize, "every decision is logged");
    assert!(!log.contains("secret-session"), "a session id reached the log");
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    for field in ["intended_model", "propensity", "policy_version", "session_id", "candidates"] {
        assert!(!line[field].is_null(), "{field} is missing from the log: {line}");
    }
}

#[test]
fn candidates_restrict_the_choice_and_bad_requests_are_told_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    let sidecar = Sidecar::start(folder.path());

    let (status, only) = sidecar.ask(&json!({ "request_id": "r1", "candidates": ["small"] }));
    assert_eq!((status, only["model"].as_str(), only["propensity"].as_f64()), (200, Some("small"), Some(1.0)));
    let (status, unknown) = sidecar.ask(&json!({ "request_id": "r2", "candidates": ["elsewhere"] }));
    assert_eq!(status, 422);
    assert!(unknown["error"].as_str().unwrap().contains("small"), "{unknown}");
    let (status, misspelt) = sidecar.ask(&json!({ "sesion_id": "s" }));
    assert_eq!(status, 400);
    assert!(misspelt["error"].as_str().unwrap().contains("sesion_id"), "{misspelt}");
}

#[test]
fn a_turn_that_excludes_the_sessions_model_is_answered_but_is_no_draw() {
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    let sidecar = Sidecar::start(folder.path());

    let (_, first) = sidecar.ask(&json!({ "session_id": "s1" }));
    let kept = first["model"].as_str().unwrap();
    let other = if kept == "small" { "large" } else { "small" };
    let (status, excluded) = sidecar.ask(&json!({ "session_id": "s1", "candidates": [other] }));
    assert_eq!((status, excluded["model"].as_str()), (200, Some(other)));
    assert!(excluded["propensity"].is_null(), "a forced choice has no propensity to divide by: {excluded}");
    let (_, later) = sidecar.ask(&json!({ "session_id": "s1" }));
    assert_eq!(
        (&later["model"], &later["propensity"]),
        (&first["model"], &first["propensity"]),
        "the first draw stays"
    );
    assert_eq!(later["candidates"], first["candidates"], "with the candidates that it was drawn from");
}

#[test]
fn equal_session_ids_of_two_tenants_are_two_sessions() {
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    let sidecar = Sidecar::start(folder.path());
    let (_, first) = sidecar.ask(&json!({ "session_id": "s1", "tenant": "a" }));
    let (_, second) = sidecar.ask(&json!({ "session_id": "s1", "tenant": "b" }));
    let (_, again) = sidecar.ask(&json!({ "session_id": "s1", "tenant": "a" }));
    assert_eq!((&first["sticky"], &second["sticky"], &again["sticky"]), (&json!(false), &json!(false), &json!(true)));
}
