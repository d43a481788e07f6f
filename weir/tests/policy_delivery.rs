//! A policy's way from the registry to a router and back, by the commands that people use.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Running, better, propose, refused, signed_bundle, told, weir};
use weir_policy_publisher::keys::SigningKey;

const CONFIG: &str = "[http]\nlisten = \"127.0.0.1:0\"\n[policy]\nrefresh_ms = 100\n";

fn decide(folder: &Path, serving: &Running) -> Running {
    let arguments = [
        "decide",
        "--policy",
        serving.url(),
        "--listen",
        "127.0.0.1:0",
        "--log",
        "decisions.jsonl",
        "--salt",
        "s",
        "--explore",
        "*=1000000",
    ];
    Running::start(folder, &[&arguments[..], &["--trusted-keys", "router-keys"]].concat())
}

fn ask(sidecar: &Running, session: &str) -> (u16, Value) {
    sidecar.request("POST", "", &[], &json!({ "session_id": session }).to_string())
}

/// Asks until the answer is the one that is waited for; the name of the session that got it comes too. A session that got
/// another keeps it, so the caller may name a new one for each try.
fn until(sidecar: &Running, session: impl Fn(u32) -> String, wanted: impl Fn(u16, &Value) -> bool) -> (String, Value) {
    let mut tries = 0..;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let session = session(tries.next().unwrap_or_default());
        let (status, answer) = ask(sidecar, &session);
        if wanted(status, &answer) {
            return (session, answer);
        }
        assert!(Instant::now() < deadline, "never came; the last answer: {status} {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_router_takes_up_what_is_approved_refuses_a_stranger_and_follows_a_rollback() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (key, _) = signed_bundle(at);
    std::fs::create_dir(at.join("router-keys")).unwrap();
    std::fs::write(at.join("router-keys/signer.pub"), format!("{}\n", key.public())).unwrap();
    // The registry trusts one more than the router does.
    let stranger = SigningKey::generate();
    std::fs::write(at.join("weir-keys/trusted/stranger.pub"), format!("{}\n", stranger.public())).unwrap();
    std::fs::write(at.join("weir.toml"), CONFIG).unwrap();
    let (first, second, strange) = (better("first"), better("second"), better("strange"));
    propose(at, &first, &key);
    propose(at, &second, &key);
    propose(at, &strange, &stranger);
    let serving = Running::start(at, &["serve"]);
    let sidecar = decide(at, &serving);

    let (status, nothing) = ask(&sidecar, "early");
    assert_eq!((status, nothing["error"].as_str().unwrap().starts_with("no policy is in force")), (503, true));

    told(at, &["policy", "approve", first.id.as_str(), "--over", "none", "--actor", "ann"]);
    let (_, kept) = until(&sidecar, |_| "s-first".to_owned(), |status, _| status == 200);
    assert_eq!(kept["policy_id"], first.id.as_str());
    let tag = format!("\"{}\"", first.id);
    assert_eq!(serving.request("GET", "/v1/policy/active", &[("If-None-Match", &tag)], "").0, 304);

    told(at, &["policy", "approve", second.id.as_str(), "--over", first.id.short(), "--actor", "ann"]);
    let (under_second, taken) =
        until(&sidecar, |n| format!("s-{n}"), |_, answer| answer["policy_id"] == second.id.as_str());
    assert_eq!(taken["sticky"], json!(false));
    // Sessions that a superseded policy drew stay as they are.
    assert_eq!(ask(&sidecar, "s-first").1["policy_id"], first.id.as_str());

    told(at, &["policy", "approve", strange.id.as_str(), "--actor", "ann"]);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(ask(&sidecar, "s-strange").1["policy_id"], second.id.as_str(), "an untrusted policy was taken up");

    // Back over the strange one, then over the second: its sessions must leave it, those of the first stay.
    told(at, &["policy", "rollback", strange.id.as_str(), "--reason", "a stranger's", "--actor", "ann"]);
    told(at, &["policy", "rollback", second.id.as_str(), "--reason", "errors", "--actor", "ann"]);
    let (_, left) = until(&sidecar, |_| under_second.clone(), |_, answer| answer["policy_id"] == first.id.as_str());
    assert_eq!(left["sticky"], json!(false), "a rollback reaches sessions that are under way");
    let (_, stays) = ask(&sidecar, "s-first");
    assert_eq!((&stays["sticky"], &stays["model"]), (&json!(true), &kept["model"]));

    told(at, &["policy", "rollback", first.id.as_str(), "--reason", "all of it", "--actor", "ann"]);
    until(&sidecar, |_| "s-first".to_owned(), |status, _| status == 503);
}

#[test]
fn the_registrys_commands_say_what_they_did_and_do_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (key, _) = signed_bundle(at);
    let (first, second) = (better("first"), better("second"));
    propose(at, &first, &key);
    propose(at, &second, &key);

    let difference = told(at, &["policy", "diff", first.id.short(), second.id.short()]);
    assert!(difference.contains("first") && difference.contains("second"), "{difference}");
    assert!(told(at, &["policy", "reject", second.id.short(), "--actor", "ann"]).contains("is rejected"));
    assert!(refused(at, &["policy", "approve", second.id.short(), "--actor", "ann"]).contains("propose it again"));
    let late = refused(at, &["policy", "approve", first.id.short(), "--over", second.id.short(), "--actor", "ann"]);
    assert!(late.contains("the active policy changed meanwhile and is none now"), "{late}");
    let approved = told(at, &["policy", "approve", first.id.short(), "--actor", "ann"]);
    assert!(approved.contains("none was before"), "{approved}");

    told(at, &["policy", "export", "active", "exported"]);
    assert!(told(at, &["policy", "verify", "exported"]).contains("signed by trusted key"));
    let tar =
        std::process::Command::new("tar").current_dir(at).args(["cf", "exported.tar", "-C", "exported", "."]).status();
    if tar.is_ok_and(|status| status.success()) {
        assert!(told(at, &["policy", "verify", "exported.tar"]).contains("signed by trusted key"));
    }

    let back = ["policy", "rollback", first.id.short(), "--reason", "errors", "--actor", "ann"];
    assert!(told(at, &back).contains("is withdrawn, no policy is active now"));
    assert!(refused(at, &back).contains("there is nothing to roll back"), "sent twice, it goes back once");
}

#[test]
fn reading_an_empty_registry_leaves_the_folder_empty() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("weir-data")).unwrap();
    assert!(told(folder.path(), &["policy", "list"]).contains("no policy yet"));
    refused(folder.path(), &["policy", "show", "active"]);
    assert_eq!(std::fs::read_dir(folder.path().join("weir-data")).unwrap().count(), 0);
}

#[test]
fn a_new_key_is_trusted_or_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    told(at, &["policy", "keygen", "signing.key"]);
    assert_eq!(std::fs::read_dir(at.join("weir-keys/trusted")).unwrap().count(), 1);
    assert!(refused(at, &["policy", "keygen", "signing.key"]).contains("never overwritten"));

    let blocked = tempfile::tempdir().unwrap();
    std::fs::write(blocked.path().join("weir-keys"), "a file where the folder should be").unwrap();
    refused(blocked.path(), &["policy", "keygen", "signing.key"]);
    assert!(!blocked.path().join("signing.key").exists(), "a key that nobody trusts was left behind");
}

#[test]
fn without_keys_a_server_starts_and_a_sidecar_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir_all(at.join("weir-keys/trusted")).unwrap();
    std::fs::create_dir(at.join("weir-data")).unwrap();
    std::fs::write(at.join("weir.toml"), CONFIG).unwrap();
    let serving = Running::start(at, &["serve"]);
    assert_eq!(serving.request("GET", "/v1/policy/active", &[], "").0, 404);

    let said = refused(at, &["decide", "--policy", serving.url(), "--log", "decisions.jsonl"]);
    assert!(said.contains("no key is trusted"), "{said}");
    assert!(!at.join("decisions.jsonl").exists(), "a log was made before the start could fail");
}

#[test]
fn a_server_needs_no_broker_to_serve() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir(at.join("weir-data")).unwrap();
    let config = format!("{CONFIG}kafka_topic = \"weir.policies\"\n[kafka]\nbrokers = \"127.0.0.1:1\"\n");
    std::fs::write(at.join("weir.toml"), config).unwrap();
    let serving = Running::start(at, &["serve"]);
    assert_eq!(serving.request("GET", "/v1/policies", &[], "").0, 200);
}

#[test]
fn check_reads_what_run_reads_and_knows_a_weir_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir(at.join("weir-data")).unwrap();
    std::fs::write(at.join("weir.toml"), CONFIG).unwrap();
    let serving = Running::start(at, &["serve"]);
    let listen = serving.url().trim_start_matches("http://");
    let config = format!(
        "[http]\nlisten = \"{listen}\"\ntokens = \"no-such-file\"\n[ingest]\nkeep_text = true\n\
         [estimators.hallucination]\nartifact = \"no-such-artifact\"\n[kafka]\nbrokers = \"127.0.0.1:1\"\n"
    );
    std::fs::write(at.join("weir.toml"), config).unwrap();
    let output = weir(at, &["check"]);
    let findings = String::from_utf8(output.stdout).unwrap();
    let line = |part: &str| findings.lines().find(|line| line.contains(part)).unwrap_or_default().to_owned();
    assert!(line(" http ").starts_with("ok"), "{findings}");
    assert!(line(" policy ").starts_with("FAILED") && line(" policy ").contains("no-such-file"), "{findings}");
    assert!(line(" estimators ").starts_with("FAILED"), "{findings}");
}
