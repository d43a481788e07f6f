//! The closed loop through a real router: traffic, a policy learned from it, judged, promoted, taken up, and again.
//!
//! LiteLLM's proxy stands in front of upstreams whose quality is known, because the test says it. A driver asks `weir decide`
//! for each request, calls the proxy with the model that it got and sends what the answer was worth. The proxy's callback
//! and the driver produce to a real Kafka, `weir run` makes tables of it, `weir learn policy` learns from the last round and
//! `weir policy approve` puts the result in force, with a signature. Between the rounds a provider changes a model for the
//! worse, so that yesterday's policy is wrong on some subject.
//!
//! What is held: no verdict says "insufficient support", what is called better is better in truth, estimates agree with the
//! truth, exploring costs no more than its budget, and in the end the third policy is worth more than the first and than the
//! router's own weights. And the control: with a budget of nothing the same traffic through the same parts cannot judge a
//! policy, and the verdict says so. In between a budget that is too small for the traffic: exploring stops where it is spent.
//!
//! ```text
//! world     the truth, and what a policy is worth in closed form
//! stack     the parts: Kafka, upstreams.py behind the proxy, weir run, weir decide
//! traffic   the driver
//! ```

// Those of the recipes' tests: each program takes what it needs.
#[path = "../recipes/parts.rs"]
#[expect(dead_code, reason = "parts that other recipes need")]
mod parts;
#[path = "../recipes/topics.rs"]
#[expect(dead_code, reason = "parts that other recipes need")]
mod topics;

mod stack;
mod traffic;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

use crate::stack::{Sidecar, Stack};
use crate::traffic::{OWN_WEIGHTS, Seen};
use crate::world::{Choices, KINDS, World};

/// Sessions of a round.
const SESSIONS: usize = 2_500;
/// What exploring may cost a day, in units of utility, by the policies' own expectation.
const LOSS_PER_DAY: f64 = 600.0;
const MS_PER_DAY: i64 = 86_400_000;
/// Callers at a time.
const CALLERS: usize = 8;
/// A day's budget that the tight round uses up: in the rounds before, exploring was expected to cost about 0.08 a request.
const TIGHT_LOSS_PER_DAY: f64 = 8.0;
const TIGHT_SESSIONS: usize = 400;

#[test]
fn three_policies_in_a_row_are_learned_judged_and_promoted_through_litellm() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(mut stack) = Stack::start(folder.path()) else { return };
    let mut sidecar = stack.decide("decisions.jsonl", &format!("*={LOSS_PER_DAY}"));
    let first = World::first();
    let second = first.clone().with("large", "math", 0.40, 0.15);
    let third = second.clone().with("scholar", "law", 0.35, 0.20);

    // Nobody's policy is in force at first: the router draws by its own weights, and says so.
    let mut in_force = ("own-weights".to_owned(), [OWN_WEIGHTS; KINDS]);
    let mut policies = vec![in_force.clone()];
    for (round, world) in [&first, &second, &third].into_iter().enumerate() {
        stack.set_world(world);
        let seen = play(&mut stack, &sidecar, &round.to_string());
        assert!(seen.iter().all(|seen| seen.policy_id == in_force.0), "another policy than {} decided", in_force.0);
        let learned = Learned(stack.learn(&round.to_string()));
        // Approved by force where it is not shown to be better; never where the logs could not tell.
        assert!(["better", "not shown"].contains(&learned.verdict()), "{}", learned.0);
        let choices = stack.choices(learned.id());
        let explored = booked(&sidecar.log(), &in_force.0);
        learned.say(round + 1, (world, &in_force.1, &choices), (explored, loss(world, &seen)));

        let (truth, before) = (world.value(&choices), world.value(&in_force.1));
        assert!(
            learned.verdict() != "better" || truth > before,
            "it is called better: {truth} in truth, {before} before"
        );
        assert!(truth > world.value(&policies[0].1), "the router's own weights are worth more than {truth}");
        learned.agrees("/candidate/estimates/dr", truth);
        learned.agrees("/candidate/estimates/logging", before);
        if round > 0 {
            // The sidecar's draws met LiteLLM's rows: what the policy in force would do is what was logged, for every row.
            let weight = learned.number("/in_force/support/weight_max");
            assert!((weight - 1.0).abs() < 1e-6, "weights of the policy in force go up to {weight}");
        }
        stack.approve(learned.id(), learned.verdict());
        sidecar.wait_for(learned.id());
        in_force = (learned.id().to_owned(), choices);
        policies.push(in_force.clone());
    }

    let by_day = booked_by_day(&sidecar.log());
    let spent: f64 = by_day.values().sum();
    eprintln!("exploring was expected to cost {spent:.1} in all; the budget is {LOSS_PER_DAY} a day");
    assert!(spent > 0.0 && by_day.values().all(|loss| *loss <= LOSS_PER_DAY), "{by_day:?}");
    let worth: Vec<f64> = policies.iter().map(|(_, choices)| third.value(choices)).collect();
    eprintln!(
        "in the last world the router's own weights are worth {:.3}, the three policies {:.3?}",
        worth[0],
        &worth[1..]
    );
    assert!(worth[0] < worth[3] && worth[1] < worth[3], "{worth:?}");

    drop(sidecar);
    a_tight_budget_binds(&stack, &in_force.0);

    // The control: the last policy goes on, and nobody pays for exploring.
    let mut greedy = stack.decide("greedy.jsonl", "*=0");
    greedy.wait_for(&in_force.0);
    let seen = play(&mut stack, &greedy, "greedy");
    let is_certain = |seen: &Seen| seen.probabilities.iter().all(|p| *p == 0.0 || *p == 1.0);
    assert!(seen.iter().all(is_certain), "a budget of nothing explored");
    let learned = Learned(stack.learn("greedy"));
    eprintln!("  {}: {}", learned.verdict(), learned.0["report"]["candidate"]["reasons"]);
    assert_eq!(learned.verdict(), "insufficient support", "{}", learned.0);
    assert!(stack.refused(learned.id()).contains("insufficient support"));
}

/// A session is drawn only where what that is expected to cost is left; what it asks later keeps its model, and costs. One caller: of
/// several at a time each may pass the budget by a decision of its own.
fn a_tight_budget_binds(stack: &Stack, policy_id: &str) {
    let mut sidecar = stack.decide("tight.jsonl", &format!("*={TIGHT_LOSS_PER_DAY}"));
    sidecar.wait_for(policy_id);
    let seen = traffic::play(stack.places(&sidecar), "tight", TIGHT_SESSIONS, 1);
    let log = sidecar.log();
    assert_eq!(log.len(), seen.len(), "each decision is logged");
    // If midnight comes within the round, there is a budget for either day.
    let mut spent: BTreeMap<i64, f64> = BTreeMap::new();
    let mut sessions = BTreeSet::new();
    let (mut drawn, mut not_drawn) = (0, 0);
    for line in &log {
        let loss = line["expected_loss"].as_f64().unwrap_or_default();
        let of_day = spent.entry(day_of(line)).or_default();
        if sessions.insert(line["session_id"].as_str()) {
            let is_left = loss == 0.0 || *of_day + loss <= TIGHT_LOSS_PER_DAY;
            assert!(is_left, "{loss} was spent on exploring after {of_day} of {TIGHT_LOSS_PER_DAY}: {line}");
            *if loss > 0.0 { &mut drawn } else { &mut not_drawn } += 1;
        }
        *of_day += loss;
    }
    eprintln!("a budget of {TIGHT_LOSS_PER_DAY} a day drew {drawn} sessions and not {not_drawn} others: {spent:.2?}");
    assert!(drawn > 0 && not_drawn > sessions.len() / 4, "the budget does not bind: {drawn} drawn, {not_drawn} not");
    // Sessions are drawn until little is left.
    assert!(spent.values().any(|spent| *spent > 0.9 * TIGHT_LOSS_PER_DAY), "{spent:?}");
}

/// Plays a round, and waits until the tables hold it.
fn play(stack: &mut Stack, sidecar: &Sidecar, round: &str) -> Vec<Seen> {
    let began = Instant::now();
    let seen = traffic::play(stack.places(sidecar), round, SESSIONS, CALLERS);
    let played_s = began.elapsed().as_secs_f64();
    stack.wait_for_rows(round, seen.len(), seen.iter().filter(|seen| seen.is_judged).count());
    let stored_s = began.elapsed().as_secs_f64();
    eprintln!("round {round}: {} requests in {played_s:.0} s, all in the tables after {stored_s:.0} s", seen.len());
    seen
}

/// What drawing cost in truth, beside taking what the policy in force likes best.
fn loss(world: &World, seen: &[Seen]) -> f64 {
    seen.iter().map(|seen| world.loss(&seen.probabilities, seen.kind)).sum()
}

/// What `weir learn policy --json` printed.
struct Learned(Value);

impl Learned {
    fn id(&self) -> &str {
        self.0["policy_id"].as_str().expect("a candidate has an id")
    }

    fn verdict(&self) -> &str {
        self.0["verdict"].as_str().expect("and a verdict")
    }

    fn say(&self, number: usize, (world, before, after): (&World, &Choices, &Choices), (booked, lost): (f64, f64)) {
        let estimate = |at: &str| {
            let [value, low, high] = self.interval(at);
            format!("{value:.3} ({low:.3} to {high:.3})")
        };
        let logging = estimate("/candidate/estimates/logging");
        eprintln!("  before    {logging} measured, {:.3} in truth", world.value(before));
        let value = estimate("/candidate/estimates/dr");
        eprintln!("  policy {number}  {value} measured, {:.3} in truth; {}", world.value(after), self.verdict());
        let [effective, all] =
            ["effective_clusters", "clusters"].map(|of| self.number(&format!("/candidate/support/{of}")));
        eprintln!(
            "            {effective:.0} effective of {all} sessions; who knows the truth gets {:.3}",
            world.best()
        );
        if booked > 0.0 {
            eprintln!("            exploring was expected to cost {booked:.1}, and cost {lost:.1} in truth");
        }
    }

    fn number(&self, at: &str) -> f64 {
        let found = self.0["report"].pointer(at).and_then(Value::as_f64);
        found.unwrap_or_else(|| panic!("no number at {at}: {}", self.0))
    }

    /// Value, low and high end at 95 %.
    fn interval(&self, at: &str) -> [f64; 3] {
        ["value", "low", "high"].map(|name| self.number(&format!("{at}/{name}")))
    }

    /// Four standard errors: sound intervals miss so far about once in 16,000 times.
    fn agrees(&self, at: &str, truth: f64) {
        let [value, low, high] = self.interval(at);
        let standard_error = (high - low) / (2.0 * 1.96);
        assert!((value - truth).abs() <= 4.0 * standard_error, "{at}: {value} ({low} to {high}), {truth} in truth");
    }
}

/// What the decision log says that exploring under a policy was expected to cost.
fn booked(log: &[Value], policy_id: &str) -> f64 {
    let of_policy = log.iter().filter(|line| line["policy_version"] == policy_id);
    of_policy.filter_map(|line| line["expected_loss"].as_f64()).sum()
}

/// The same of all policies, by day.
fn booked_by_day(log: &[Value]) -> BTreeMap<i64, f64> {
    let mut booked = BTreeMap::new();
    for line in log {
        *booked.entry(day_of(line)).or_default() += line["expected_loss"].as_f64().unwrap_or_default();
    }
    booked
}

fn day_of(line: &Value) -> i64 {
    line["decided_ms"].as_i64().expect("a time") / MS_PER_DAY
}
