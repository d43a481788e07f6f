//! The sidecar over HTTP: exact propensities, sessions that keep their model, a log without session ids, and what a
//! stranger may send.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use support::Running;
use weir_policy_runtime::{
    Bundle, KNOB_SCHEMA, KnobRow, KnobTable, Lineage, Manifest, POLICY_FILE, PolicySpec, knob_path,
};

/// Starts with a budget for exploration that no test spends.
fn sidecar(folder: &std::path::Path) -> Running {
    logging_to(folder, "decisions.jsonl")
}

fn logging_to(folder: &std::path::Path, log: &str) -> Running {
    start(folder, log, &["--explore", "*=1000000"])
}

fn start(folder: &std::path::Path, log: &str, more: &[&str]) -> Running {
    let arguments = ["decide", "--policy", "bundle", "--listen", "127.0.0.1:0", "--log", log, "--salt", "test"];
    Running::start(folder, &[&arguments[..], more].concat())
}

impl Running {
    fn ask(&self, body: &Value) -> (u16, Value) {
        self.send(body.to_string())
    }

    fn send(&self, body: String) -> (u16, Value) {
        self.request("POST", "", &[], &body)
    }
}

#[test]
fn sessions_keep_their_model_and_draws_follow_the_propensities() {
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    let sidecar = sidecar(folder.path());

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
    let sidecar = sidecar(folder.path());

    let (status, only) = sidecar.ask(&json!({ "request_id": "r1", "candidates": ["small"] }));
    assert_eq!((status, only["model"].as_str(), only["propensity"].as_f64()), (200, Some("small"), Some(1.0)));
    let (status, unknown) = sidecar.ask(&json!({ "request_id": "r2", "candidates": ["elsewhere"] }));
    assert_eq!(status, 422);
    assert!(unknown["error"].as_str().unwrap().contains("small"), "{unknown}");
    let (status, misspelt) = sidecar.ask(&json!({ "sesion_id": "s" }));
    assert_eq!(status, 400);
    assert!(misspelt["error"].as_str().unwrap().contains("sesion_id"), "{misspelt}");
}

/// The same model in two modes.
fn with_modes() -> Bundle {
    let plain = support::bundle();
    let mut spec: PolicySpec = PolicySpec::from_json(&plain.files[POLICY_FILE]).unwrap();
    for (action, mode) in spec.actions.iter_mut().zip(["low", "high"]) {
        action.model = format!("small;provider=own;reasoning={mode}");
    }
    let mut files = plain.files.clone();
    files.insert(POLICY_FILE.to_owned(), spec.to_json().unwrap());
    Bundle::build(Manifest::routing_policy("modes", 0, Lineage::default(), json!({})), files).unwrap()
}

#[test]
fn an_action_that_is_more_than_a_model_is_answered_with_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    support::signed(folder.path(), &with_modes());
    let sidecar = sidecar(folder.path());
    let mut modes = BTreeSet::new();
    for session in 0..40 {
        let (status, answer) =
            sidecar.ask(&json!({ "session_id": session.to_string(), "candidates": ["small", "large"] }));
        assert_eq!(status, 200, "{answer}");
        let mode = answer["parts"]["reasoning"].as_str().expect("a mode").to_owned();
        assert_eq!(answer["parts"], json!({ "model": "small", "provider": "own", "reasoning": mode }));
        assert_eq!(answer["model"], format!("small;provider=own;reasoning={mode}"));
        assert_eq!(answer["candidates"].as_array().map(Vec::len), Some(2), "{answer}");
        modes.insert(mode);
    }
    assert_eq!(modes.len(), 2, "both look alike, and both are drawn");
    let (_, one) = sidecar.ask(&json!({ "candidates": ["small;provider=own;reasoning=low"] }));
    assert_eq!((&one["parts"]["reasoning"], &one["propensity"]), (&json!("low"), &json!(1.0)));
}

#[test]
fn a_turn_that_excludes_the_sessions_model_is_answered_but_is_no_draw() {
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    let sidecar = sidecar(folder.path());

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
    let sidecar = sidecar(folder.path());
    let (_, first) = sidecar.ask(&json!({ "session_id": "s1", "tenant": "a" }));
    let (_, second) = sidecar.ask(&json!({ "session_id": "s1", "tenant": "b" }));
    let (_, again) = sidecar.ask(&json!({ "session_id": "s1", "tenant": "a" }));
    assert_eq!((&first["sticky"], &second["sticky"], &again["sticky"]), (&json!(false), &json!(false), &json!(true)));
}

#[test]
fn replicas_with_one_salt_draw_alike_whatever_keys_they_have() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (_, bundle) = support::signed_bundle(folders[0].path());
    // The same signed bundle and trusted key, but no tenant's key in common.
    let mut copy = std::process::Command::new("cp");
    copy.arg("-r").args([&bundle, &folders[0].path().join("weir-keys")]).arg(folders[1].path());
    let copied = copy.status().unwrap();
    assert!(copied.success());
    weir_store::Keyring::open(folders[0].path().join("weir-keys")).unwrap().tenant_key("acme").unwrap();
    let replicas = folders.each_ref().map(|folder| sidecar(folder.path()));

    let mut models = BTreeSet::new();
    for session in 0..60 {
        for ask in [
            json!({ "session_id": format!("s-{session}"), "tenant": "acme" }),
            json!({ "request_id": format!("r-{session}"), "tenant": "acme" }),
        ] {
            let [(_, one), (_, other)] = replicas.each_ref().map(|replica| replica.ask(&ask));
            assert_eq!(one, other, "{ask}");
            models.insert(one["model"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(models.len(), 2, "equal answers say something only where both models are drawn");
    let draws = |tenant: &str| -> Vec<Value> {
        let ask = |n: u32| replicas[0].ask(&json!({ "session_id": format!("s-{n}"), "tenant": tenant })).1;
        (0..60).map(|n| ask(n)["model"].clone()).collect()
    };
    assert_ne!(draws("acme"), draws("another"), "tenants draw apart");
}

#[test]
fn first_turns_that_arrive_together_are_one_draw() {
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    let sidecar = sidecar(folder.path());
    for session in 0..20 {
        // Other contexts give other probabilities, so two draws would differ in what they log.
        let answers: Vec<Value> = std::thread::scope(|scope| {
            let turns: Vec<_> = (0..8)
                .map(|turn| {
                    let ask =
                        json!({ "session_id": format!("s-{session}"), "context": { "fact_check": turn % 2 == 0 } });
                    let sidecar = &sidecar;
                    scope.spawn(move || sidecar.ask(&ask).1)
                })
                .collect();
            turns.into_iter().map(|turn| turn.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|answer| answer["sticky"] == json!(false)).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer["model"] == answers[0]["model"]), "{answers:?}");
        assert!(answers.iter().all(|answer| answer["propensity"] == answers[0]["propensity"]), "{answers:?}");
    }
}

#[test]
fn a_decision_that_cannot_be_logged_is_not_made() {
    if !std::path::Path::new("/dev/full").exists() {
        println!("skipped: this system has no /dev/full");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    let sidecar = logging_to(folder.path(), "/dev/full");
    for _ in 0..2 {
        let (status, answer) = sidecar.ask(&json!({ "session_id": "s1" }));
        assert_eq!(status, 503, "nothing was kept for the second turn either: {answer}");
        assert!(answer["error"].as_str().unwrap().contains("must not be used"), "{answer}");
    }
}

#[test]
fn a_stranger_fills_neither_the_disk_nor_the_errors() {
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    let sidecar = sidecar(folder.path());
    for tenant in 0..50 {
        assert_eq!(sidecar.ask(&json!({ "session_id": "s", "tenant": format!("t-{tenant}") })).0, 200);
    }
    assert!(!folder.path().join("weir-keys/tenants").exists(), "a request made a key");
    let (status, answer) = sidecar.ask(&json!({ "session_id": "" }));
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().contains("session_id is empty"), "{answer}");
    let (status, answer) = sidecar.ask(&json!({ "context": "my secret prompt" }));
    assert_eq!((status, answer["error"].as_str()), (400, Some("context must be an object")));
    let (status, answer) = sidecar.send(format!(r#"{{"request_id": "{}"}}"#, "x".repeat(1 << 20)));
    assert_eq!(status, 413, "{answer}");
}

/// Two models, of which `large` is shown to hallucinate on law, and `small` is said to, from little evidence.
fn with_tables() -> Bundle {
    let row = |key: &[&str], values: &[f64], evidence| KnobRow {
        key: key.iter().map(|part| Some((*part).to_owned())).collect(),
        values: values.iter().copied().map(Some).collect(),
        evidence,
    };
    let table = |keys: &[&str], values: &[&str], rows| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let table = KnobTable {
            schema: KNOB_SCHEMA,
            about: "what is known".to_owned(),
            routers: BTreeMap::new(),
            from_ms: 0,
            to_ms: 1,
            keys: names(keys),
            values: names(values),
            rows,
            left_out: 0,
        };
        table.finished().unwrap().to_json().unwrap()
    };
    let reputation = vec![row(&["large", "law"], &[0.3, 0.25], 900), row(&["small", "law"], &[0.3, 0.01], 4)];
    let checks = vec![
        row(&["law", "hard", "small"], &[0.0, 0.4], 50),
        row(&["code", "hard", "small"], &[0.6, 1.0], 50),
        row(&["chat", "hard", "small"], &[0.4, 0.6], 50),
    ];
    let mut files = support::bundle().files;
    let values = ["hallucination_rate", "hallucination_rate_low"];
    files.insert(knob_path("model_reputation"), table(&["model", "domain"], &values, reputation));
    files.insert(
        knob_path("fact_check_gates"),
        table(&["domain", "complexity", "model"], &["share_before", "share_through"], checks),
    );
    Bundle::build(Manifest::routing_policy("tables", 0, Lineage::default(), json!({})), files).unwrap()
}

#[test]
fn a_model_that_hallucinates_on_a_subject_is_kept_away_from_its_facts() {
    let folder = tempfile::tempdir().unwrap();
    support::signed(folder.path(), &with_tables());
    let limits = ["--explore", "*=1000000", "--hallucination-max", "0.1", "--check", "0.5"];
    let sidecar = start(folder.path(), "d.jsonl", &limits);
    let candidates = |context: Value| {
        let (status, answer) = sidecar.ask(&json!({ "request_id": "r", "context": context }));
        assert_eq!(status, 200, "{answer}");
        let models = answer["candidates"].as_array().unwrap().iter();
        let models: BTreeSet<String> = models.map(|one| one["model"].as_str().unwrap().to_owned()).collect();
        (models, answer)
    };
    let both = BTreeSet::from(["large".to_owned(), "small".to_owned()]);
    let (on_law, answer) = candidates(json!({ "fact_check": true, "domain": "law", "complexity": "hard" }));
    assert_eq!(
        on_law,
        BTreeSet::from(["small".to_owned()]),
        "one is shown to hallucinate, of the other little is known"
    );
    assert_eq!((&answer["propensity"], &answer["check"]), (&json!(1.0), &json!(true)));
    assert_eq!(candidates(json!({ "fact_check": false, "domain": "law" })).0, both, "no facts are sought");
    assert_eq!(candidates(json!({ "fact_check": true, "domain": "code" })).0, both, "nothing is known of code");

    // What checks find least on comes after half of them.
    let check = |context: Value| {
        let body = json!({ "request_id": "r", "candidates": ["small"], "context": context });
        sidecar.ask(&body).1["check"].clone()
    };
    let checked = |domain: &str| {
        let context = json!({ "fact_check": true, "domain": domain, "complexity": "hard" });
        (0..400).filter(|_| check(context.clone()) == json!(true)).count()
    };
    assert_eq!(checked("law"), 400);
    // Half of what lies across the share, and one in twenty of what is behind it: within six standard deviations.
    assert!((140..=260).contains(&checked("chat")) && (1..=46).contains(&checked("code")));
    assert_eq!(check(json!({ "fact_check": true, "domain": "maths", "complexity": "hard" })), json!(true));
    assert_eq!(check(json!({ "fact_check": false, "domain": "law", "complexity": "hard" })), Value::Null);

    // A limit that leaves nobody is none.
    let (status, only) = sidecar.ask(
        &json!({ "request_id": "r", "candidates": ["large"], "context": { "fact_check": true, "domain": "law" } }),
    );
    assert_eq!((status, only["model"].as_str()), (200, Some("large")), "{only}");

    // A session whose model may not answer this turn is answered by another, and its choice stays.
    let session = (0..)
        .map(|n| format!("s{n}"))
        .find(|session| {
            let first = sidecar.ask(&json!({ "session_id": session, "context": { "domain": "law" } })).1;
            first["model"] == "large"
        })
        .unwrap();
    let facts = json!({ "session_id": session, "context": { "fact_check": true, "domain": "law" } });
    let (_, turn) = sidecar.ask(&facts);
    assert_eq!((turn["model"].as_str(), &turn["propensity"]), (Some("small"), &Value::Null));
    let (_, back) = sidecar.ask(&json!({ "session_id": session, "context": { "domain": "law" } }));
    assert_eq!((back["model"].as_str(), &back["sticky"]), (Some("large"), &json!(true)));
}

#[test]
fn the_tables_of_the_policy_in_force_are_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    support::signed(folder.path(), &with_tables());
    let sidecar = sidecar(folder.path());
    let get = |path: &str| {
        let url = sidecar.url().replace("/v1/decide", path);
        sidecar.request_at("GET", &url, &[], "")
    };
    let (status, all) = get("/v1/knobs");
    assert_eq!(status, 200, "{all}");
    assert_eq!(all["tables"].as_object().unwrap().keys().collect::<Vec<_>>(), ["fact_check_gates", "model_reputation"]);
    let (status, table) = get("/v1/knobs/model_reputation");
    assert_eq!((status, &table["rows"][0]["evidence"]), (200, &json!(900)), "{table}");
    let (status, none) = get("/v1/knobs/weather");
    assert_eq!(status, 404, "{none}");
}

/// The beginning of the log: what came after is forgotten.
fn first_lines(folder: &std::path::Path, count: usize) -> String {
    let log = std::fs::read_to_string(folder.join("d.jsonl")).unwrap();
    log.lines().take(count).map(|line| format!("{line}\n")).collect()
}

/// Nobody is explored with who was not named, and a budget that is spent ends it, across a restart too.
#[test]
fn exploration_is_off_until_a_tenant_has_a_budget_and_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    // The first model looks better.
    support::signed(folder.path(), &support::bundle_with([1.0, 0.0, 0.0, 0.0]));
    let start = |explore: &[&str]| start(folder.path(), "d.jsonl", explore);
    let ask = |sidecar: &Running, n: u32, more: Value| {
        let mut body = json!({ "session_id": format!("s{n}"), "tenant": "a", "context": { "fact_check": true } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = sidecar.ask(&body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let explores = |answer: &Value| answer["propensity"].as_f64().unwrap() < 1.0;
    {
        let sidecar = start(&[]);
        assert!((0..50).all(|n| !explores(&ask(&sidecar, n, json!({})))), "off by default");
        // Who reads the log must see that the other one had no chance.
        let candidates = ask(&sidecar, 0, json!({}))["candidates"].clone();
        assert_eq!(
            candidates,
            json!([{ "model": "small", "propensity": 1.0 }, { "model": "large", "propensity": 0.0 }])
        );
    }
    let loss = |line: &str| serde_json::from_str::<Value>(line).unwrap()["expected_loss"].as_f64().unwrap_or_default();
    let spent = || -> f64 { std::fs::read_to_string(folder.path().join("d.jsonl")).unwrap().lines().map(loss).sum() };
    assert_eq!(spent(), 0.0);
    let one = {
        let sidecar = start(&["--explore", "a=1000"]);
        let answer = ask(&sidecar, 100, json!({}));
        assert!(explores(&answer), "{answer}");
        assert!(!explores(&ask(&sidecar, 101, json!({ "flagged": true }))), "never on flagged traffic");
        assert!(!explores(&ask(&sidecar, 102, json!({ "tenant": "b" }))), "b has no budget");
        spent()
    };
    {
        let sidecar = start(&["--explore", "a=1000"]);
        let drawn = (400..).find(|n| ask(&sidecar, *n, json!({}))["model"] == "large").unwrap();
        let flagged = ask(&sidecar, drawn, json!({ "flagged": true }));
        assert_eq!(
            (&flagged["model"], &flagged["propensity"]),
            (&json!("small"), &Value::Null),
            "not by the explored one"
        );
        assert_eq!(ask(&sidecar, drawn, json!({}))["model"], "large", "the session goes on");
    }
    std::fs::write(folder.path().join("d.jsonl"), first_lines(folder.path(), 54)).unwrap();
    assert!(one > 0.0, "exploring is expected to cost something");
    // Room for eight more; what was spent before the restart counts, and nothing is drawn that would cost more than is left.
    let budget = format!("a={}", one * 9.5);
    let explored = {
        let sidecar = start(&["--explore", &budget]);
        (200..260).filter(|n| explores(&ask(&sidecar, *n, json!({})))).count()
    };
    assert_eq!(explored, 8, "{budget}");
    assert!(spent() <= one * 9.5, "a budget is not overdrawn");
    let sidecar = start(&["--explore", &budget]);
    assert!(!explores(&ask(&sidecar, 300, json!({}))), "spent is spent");
    let (status, said) = sidecar.ask(&json!({ "usd_weight": 1e308 }));
    assert!(status >= 400 && said["error"].as_str().unwrap().contains("usd_weight lies outside"), "{status} {said}");
    // A session that was drawn keeps its model.
    let (first, again) = (ask(&sidecar, 300, json!({})), ask(&sidecar, 300, json!({})));
    assert_eq!(first["model"], again["model"]);
}

/// Quality and cost are predicted apart, so one policy serves any trade-off.
#[test]
fn a_request_may_say_what_its_dollars_are_worth() {
    let folder = tempfile::tempdir().unwrap();
    // The second model is better, and costs e^-2 USD where the first costs e^-6.
    support::signed(folder.path(), &support::bundle_with([0.0, 2.0, -6.0, -2.0]));
    let sidecar = start(folder.path(), "d.jsonl", &[]);
    let chosen = |weight: f64| {
        let (status, answer) = sidecar.ask(&json!({ "request_id": "r", "usd_weight": weight }));
        assert_eq!(status, 200, "{answer}");
        answer["model"].as_str().unwrap().to_owned()
    };
    assert_eq!(chosen(0.0), "large");
    assert_eq!(chosen(50.0), "small");
    let (status, refused) = sidecar.ask(&json!({ "request_id": "r", "usd_weight": -1 }));
    assert_eq!(status, 400);
    assert!(refused["error"].as_str().unwrap().contains("usd_weight"), "{refused}");
    let log = std::fs::read_to_string(folder.path().join("d.jsonl")).unwrap();
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["usd_weight"], json!(50.0));
}

/// The bundle's cascade: a score of one half for everything, and a threshold above it.
fn with_cascade() -> Bundle {
    let plain = support::bundle();
    let limits = json!({
        "engine_waiting_max": 10.0, "engine_waiting_resume": 4.0, "queue_wait_ms_max": 500.0, "queue_wait_ms_resume": 200.0,
        "grace_ms": 0, "recovery_ms": 60_000, "stale_after_ms": 60_000,
    });
    let cascade = json!({
        "schema": 1,
        "routers": {},
        "cheap_model": "small",
        "strong_model": "large",
        "accept": {
            "features": { "features": [] },
            "answer": [{ "field": "verifier_score", "mean": 0.0, "std": 1.0 }],
            "weights": [1.0, 0.0],
            "bias": 0.0,
            "calibration": [],
        },
        "threshold": 0.7,
        "evidence": { "loss": "harm", "alpha": 0.05, "delta": 0.1, "clusters": 100, "risk": 0.01, "escalation_rate": 0.5 },
        "limits": limits,
        "mid_tier": null,
        "fallbacks": ["compress_and_retry"],
    });
    let mut files = plain.files.clone();
    files.insert("cascade.json".to_owned(), cascade.to_string().into_bytes());
    Bundle::build(Manifest::routing_policy("cascade", 0, Lineage::default(), json!({})), files).unwrap()
}

fn about_a_cascade(sidecar: &Running, body: &str) -> (u16, Value) {
    sidecar.request_at("POST", &sidecar.url().replace("/v1/decide", "/v1/cascade"), &[], body)
}

#[test]
fn a_cheap_answer_is_served_escalated_or_held_back_by_the_pools_state() {
    let folder = tempfile::tempdir().unwrap();
    support::signed(folder.path(), &with_cascade());
    let sidecar = sidecar(folder.path());
    let ask = |verifier: f64, wait_ms: f64, more: Value| {
        let mut body = json!({
            "answer": { "verifier_score": verifier }, "ttft_budget_left_ms": 1_000.0, "prompt_tokens": 1_000,
            "strong_pool": { "engine_waiting": 1.0, "queue_wait_ms": wait_ms, "ttft_base_ms": 100.0, "prefill_tokens_per_s": 2_000.0 },
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = about_a_cascade(&sidecar, &body.to_string());
        assert_eq!(status, 200, "{answer}");
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        (text("action"), text("reason"), text("model"))
    };
    let said = |action: &str, reason: &str, model: &str| (action.to_owned(), reason.to_owned(), model.to_owned());
    // σ(2) = 0.88 is above the threshold, σ(0) = 0.5 is not; the strong pool takes 100 + 500 ms and its queue.
    assert_eq!(ask(2.0, 0.0, json!({})), said("serve_cheap", "accepted", "small"));
    assert_eq!(ask(0.0, 50.0, json!({})), said("escalate", "in_time", "large"));
    // The queue is overloaded, and there is no grace.
    assert_eq!(ask(0.0, 900.0, json!({})), said("serve_cheap", "pool_overloaded", "small"));
    // It is fine again, but not for long enough; with half of the prompt gone the answer would be in time.
    assert_eq!(
        ask(0.0, 50.0, json!({ "compressible_tokens": 500 })),
        said("compress_and_retry", "pool_overloaded", "large")
    );
    let (status, refusal) = about_a_cascade(&sidecar, "{}");
    assert!(status == 400 && refusal["error"].as_str().unwrap().contains("ttft_budget_left_ms"), "{refusal}");
}

#[test]
fn a_policy_without_a_cascade_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    let (status, refusal) = about_a_cascade(&sidecar(folder.path()), r#"{"ttft_budget_left_ms": 1.0}"#);
    assert!(status == 404 && refusal["error"].as_str().unwrap().contains("weir learn cascade"), "{refusal}");
}
