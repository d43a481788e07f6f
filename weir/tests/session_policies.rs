//! `weir learn sessions` on the tables of a simulated router, and `weir decide` with what it learned. What is true comes from the
//! simulator's chances, added up.

mod support;
#[path = "support/tables.rs"]
mod tables;

use std::path::Path;

use serde_json::{Value, json};
use support::{Running, refused, told};
use tables::append;
use weir_learners::is_holdout;
use weir_learners::sessions::{SimulatedLog, SimulatedState, Simulator, SimulatorConfig};
use weir_policy_runtime::{Action, Bundle, Exploration, OwnedContext, Policy};
use weir_schemas::{Candidate, EventTimeMs, Feedback, Propensity, Request, Tokens, ToolCall, Usd};
use weir_store::Store;

const SESSIONS: usize = 8_000;
/// Waiting for a turn, in units of utility: seconds, at the price of 1.
const WAIT_S: f64 = 0.03;
const DOMAINS: [&str; 2] = ["easy", "hard"];
const PROMPT_TOKENS: [u32; 3] = [500, 3_000, 10_000];
const COMPLETION_TOKENS: u32 = 50;

fn simulator() -> Simulator {
    Simulator::new(SimulatorConfig { step_worth: 0.0, ..SimulatorConfig::default() }).unwrap()
}

/// A router that explores, and stays with the warm model in most turns.
fn logging(simulator: &Simulator) -> Vec<f64> {
    simulator.exploring(Exploration { gamma: 5.0, floor: 0.3 }, 0.6)
}

fn model(simulator: &Simulator, index: usize) -> String {
    simulator.config().models[index].name.clone()
}

/// What a router would say of a turn. Failures so far are not in the simulator's state: the last one is.
fn context(simulator: &Simulator, state: &SimulatedState, failures: u32, warm_tokens: Option<u32>) -> OwnedContext {
    OwnedContext {
        domain: Some(DOMAINS[state.domain].to_owned()),
        prompt_tokens: Some(PROMPT_TOKENS[state.context]),
        turn: Some(state.turn as u32),
        warm_model: state.warm.map(|warm| model(simulator, warm)),
        warm_tokens,
        failures: Some(failures),
        failed_last: Some(state.failed),
        tool_calls: Some(state.turn as u32),
        ..OwnedContext::default()
    }
}

/// The simulated log as requests and opinions. A tool call of each turn fails where the turn did.
fn events(simulator: &Simulator, drawn: &SimulatedLog) -> (Vec<Request>, Vec<Feedback>) {
    let actions = simulator.actions();
    let table = logging(simulator);
    let (mut requests, mut opinions) = (Vec::new(), Vec::new());
    for (number, (session, states)) in drawn.log.trajectories().iter().zip(&drawn.states).enumerate() {
        let started_ms = 20_000 * number as i64;
        for (place, (turn, index)) in session.turns.iter().zip(states).enumerate() {
            let state = simulator.state(*index);
            let failed = states.get(place + 1).is_some_and(|next| simulator.state(*next).failed);
            let done = session.completed && place + 1 == states.len();
            let cost = simulator.config().completion_worth * f64::from(u8::from(done)) - turn.reward - WAIT_S;
            let candidates = (0..actions).filter(|action| turn.allowed[*action]).map(|action| Candidate {
                model: model(simulator, action),
                score: None,
                propensity: Some(table[index * actions + action]),
            });
            requests.push(Request {
                request_id: format!("r-{number}-{place}"),
                session_id: Some(format!("session-{number}")),
                arrival_ms: EventTimeMs(started_ms + 1_000 * place as i64),
                domain: Some(DOMAINS[state.domain].to_owned()),
                prompt_tokens: Some(Tokens(PROMPT_TOKENS[state.context] as i32)),
                completion_tokens: Some(Tokens(COMPLETION_TOKENS as i32)),
                intended_model: Some(model(simulator, turn.action)),
                executed_model: Some(model(simulator, turn.action)),
                propensity: Some(Propensity::new(table[index * actions + turn.action]).unwrap()),
                candidates: Some(candidates.collect()),
                cost_usd: Some(Usd(cost)),
                end_to_end_ms: Some(1_000.0 * WAIT_S),
                finish_reason: Some("stop".to_owned()),
                tools_called: Some(vec![ToolCall {
                    name: "shell".into(),
                    success: Some(!failed),
                    error_class: None,
                    latency_ms: None,
                }]),
                ..Request::default()
            });
        }
        opinions.push(Feedback {
            feedback_id: format!("f-{number}"),
            event_ms: EventTimeMs(started_ms + 60_000),
            source: "verifier".to_owned(),
            kind: "task_success".to_owned(),
            session_id: Some(format!("session-{number}")),
            value: Some(f64::from(u8::from(session.completed))),
            ..Feedback::default()
        });
    }
    // What comes long after closes every session before it, and stays open itself.
    let last = requests.last().expect("there are requests").clone();
    let arrival_ms = EventTimeMs(20_000 * SESSIONS as i64 + 4_000_000);
    requests.push(Request { request_id: "last".into(), session_id: Some("open".into()), arrival_ms, ..last });
    (requests, opinions)
}

fn fill(folder: &Path, simulator: &Simulator, drawn: &SimulatedLog) {
    let (requests, opinions) = events(simulator, drawn);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let store = Store::open(folder.join("weir-data").to_str().expect("UTF-8")).await.expect("the store opens");
        append(&store, Request::contract(), &requests).await;
        append(&store, Feedback::contract(), &opinions).await;
    });
}

#[test]
fn a_session_policy_is_learned_judged_and_drawn_from_at_every_turn() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let simulator = simulator();
    let table = logging(&simulator);
    let drawn = simulator.draw(&table, SESSIONS, 3).unwrap();
    fill(folder, &simulator, &drawn);
    told(folder, &["policy", "keygen", "signing.key"]);
    let prices = ["--usd", "1", "--second", "1", "--turn", "0", "--completion", "1"];
    let learn = [&["learn", "sessions", "--key", "signing.key", "--json"], &prices[..]].concat();
    let learned: Value = serde_json::from_str(&told(folder, &learn)).expect("one JSON object");
    let report = &learned["report"];
    println!("{report:#}");

    // The sessions that were held out, by the hash of their ids, were worth what their dollars, seconds and ends add up to.
    let held_out: Vec<f64> = (drawn.log.trajectories().iter().enumerate())
        .filter(|(number, _)| is_holdout(&format!("session-{number}"), 0.3))
        .map(|(_, session)| session.turns.iter().map(|turn| turn.reward).sum())
        .collect();
    let mean = held_out.iter().sum::<f64>() / held_out.len() as f64;
    assert_eq!(report["held_out_sessions"].as_u64(), Some(held_out.len() as u64));
    assert_eq!(report["train_sessions"].as_u64(), Some((SESSIONS - held_out.len()) as u64));
    let logged = report["arms"][0]["judgement"]["value"]["logging"]["value"].as_f64().expect("a number");
    assert!((logged - mean).abs() < 1e-6, "{logged}, and the log holds {mean}");
    assert_eq!(learned["verdict"], "better", "{report:#}");

    let id = learned["policy_id"].as_str().expect("an id");
    told(folder, &["policy", "export", id, "bundle"]);
    let bundle = Bundle::read_dir(&folder.join("bundle")).unwrap();
    let policy = Policy::load(&bundle).unwrap();
    assert!(policy.spec().per_turn);
    let markdown = String::from_utf8(bundle.files["report.md"].clone()).unwrap();
    assert!(markdown.contains("logging policy") && markdown.contains("doubly robust bandit per turn"), "{markdown}");
    let served = simulator.policy_of(|state| {
        let warm_tokens = state.warm.map(|_| PROMPT_TOKENS[state.context] + COMPLETION_TOKENS);
        let context = context(&simulator, state, u32::from(state.failed), warm_tokens);
        // The policy has its models in the order of their names, and the simulator from small to large.
        let place = |action: &Action| (0..3).find(|index| model(&simulator, *index) == action.model).unwrap();
        let allowed = simulator.allowed(state);
        let allowed: Vec<bool> = policy.actions().iter().map(|action| allowed[place(action)]).collect();
        let mut scratch = policy.scratch();
        let shares = policy.propensities(&context.as_context(), &allowed, &mut scratch).unwrap();
        let mut by_size = vec![0.0; 3];
        policy.actions().iter().zip(shares).for_each(|(action, share)| by_size[place(action)] = *share);
        by_size
    });
    let (truth, before) = (simulator.truth(&served), simulator.truth(&table));
    println!("truly worth {:.4}, logged {:.4}", truth.value, before.value);
    assert!(truth.value > before.value + 0.1 && truth.completion_rate > before.completion_rate - 0.02);
    let said = refused(folder, &["evaluate", id]);
    assert!(said.contains("turn by turn") && said.contains("weir learn sessions"), "{said}");
    // A policy for requests is not held against one for sessions; and this one is approved like any other.
    told(folder, &["policy", "approve", id, "--actor", "tests", "--reason", "it is better"]);

    the_next_is_held_against_it(folder, id, &learn);
    turns_are_drawn_anew(folder, &policy, &context(&simulator, &simulator.state(0), 0, None));
}

/// Learned once more from the same sessions, a policy is as good beside what was logged, and no better than the one in force.
fn the_next_is_held_against_it(folder: &Path, in_force: &str, learn: &[&str]) {
    let learned: Value = serde_json::from_str(&told(folder, learn)).expect("one JSON object");
    let report = &learned["report"];
    let held = &report["in_force"];
    assert_eq!(held["policy_id"], in_force, "{report:#}");
    let own = &report["arms"][0]["judgement"];
    assert!(own["value"]["difference"]["low"].as_f64().expect("a number") > 0.0, "{own:#}");
    assert_eq!(held["judgement"]["value"], own["value"], "one seed and one log make one policy");
    for name in ["difference", "completion_difference"] {
        // But for the order of sums.
        let is_none = |end: &str| held[name][end].as_f64().expect("a number").abs() < 1e-12;
        assert!(["value", "low", "high"].into_iter().all(is_none), "{held:#}");
    }
    assert_eq!(learned["verdict"], "not shown");
    let in_words: Vec<&str> = learn.iter().copied().filter(|argument| *argument != "--json").collect();
    let said = told(folder, &in_words);
    assert!(
        said.contains(&format!("policy in force ({})", &in_force.rsplit(':').next().expect("an id")[..12])),
        "{said}"
    );
}

fn turns_are_drawn_anew(folder: &Path, policy: &Policy, context: &OwnedContext) {
    let arguments = ["decide", "--policy", "bundle", "--listen", "127.0.0.1:0", "--log", "decisions.jsonl"];
    let sidecar = Running::start(folder, &[&arguments[..], &["--salt", "test", "--explore", "*=1000000"]].concat());
    let mut scratch = policy.scratch();
    let expected = policy.propensities(&context.as_context(), &[true; 3], &mut scratch).unwrap().to_vec();
    let ask = |turn: usize| {
        let body = json!({ "session_id": "s", "request_id": format!("turn-{turn}"), "context": context });
        let (status, answer) = sidecar.request("POST", "", &[], &body.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let turns = 1_000;
    let mut counts = [0_u32; 3];
    for turn in 0..turns {
        let answer = ask(turn);
        assert_eq!(answer["sticky"], json!(false), "{answer}");
        let drawn = policy.actions().iter().position(|action| answer["model"] == json!(action.model)).unwrap();
        let logged = answer["propensity"].as_f64().unwrap();
        assert!((logged - expected[drawn]).abs() < 1e-12, "{answer} of {expected:?}");
        counts[drawn] += 1;
    }
    assert!(counts.iter().filter(|count| **count > 0).count() > 1, "a session that may change models never did");
    for (count, expected) in counts.iter().zip(&expected) {
        // Five binomial standard deviations: wrong about once in two million runs, and the draws are fixed by the salt.
        let tolerance = 5.0 * (expected * (1.0 - expected) / turns as f64).sqrt();
        let share = f64::from(*count) / turns as f64;
        assert!((share - expected).abs() <= tolerance, "share {share}, propensity {expected}");
    }
    assert_eq!(ask(7)["model"], ask(7)["model"], "a request that is sent again is answered alike");
    let log = std::fs::read_to_string(folder.join("decisions.jsonl")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), turns + 2);
    assert!(lines.iter().all(|line| line["session_id"] == lines[0]["session_id"] && line["propensity"].is_f64()));
    let dearer = json!({ "usd_weight": 99.0, "context": context });
    let (status, said) = sidecar.request("POST", "", &[], &dearer.to_string());
    assert_eq!(status, 422, "{said}");
    assert!(said["error"].as_str().unwrap().contains("worth of a dollar"), "{said}");
}
