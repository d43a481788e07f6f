//! Whoever sends requests: asks `weir decide` which model to take, calls LiteLLM's proxy with it, and says what the answer
//! was worth.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::parts;
use crate::world::{KINDS, Kind, MODELS, place};

/// What the proxy's callers present.
pub const KEY: &str = "sk-invented";
/// How a router without a policy divides its traffic: weights in its configuration.
pub const OWN_WEIGHTS: [f64; MODELS.len()] = [0.25, 0.2, 0.25, 0.3];
/// Share of sessions that ask twice.
const SECOND_TURNS: f64 = 0.05;
/// Share of answers of which somebody says whether they were good.
const JUDGED: f64 = 0.95;

/// Where everything is.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    pub brokers: &'a str,
    pub decide: u16,
    pub proxy: u16,
}

/// What one caller saw of one decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub kind: Kind,
    /// Probabilities of all models.
    pub probabilities: [f64; MODELS.len()],
    /// Who drew: a policy's id, or the router itself.
    pub policy_id: String,
    pub is_judged: bool,
}

/// Plays `sessions` sessions of a round, `callers` at a time; what was seen, in no order. A session's requests are a function of round
/// and number.
pub fn play(places: Places<'_>, round: &str, sessions: usize, callers: usize) -> Vec<Seen> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", places.brokers).set("linger.ms", "50");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer starts");
    let next = AtomicUsize::new(0);
    let caller = || {
        let mut seen = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= sessions {
                return seen;
            }
            session(places, round, number, &producer, &mut seen);
        }
    };
    let seen = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..callers).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().flat_map(|caller| caller.join().expect("no caller fails")).collect()
    });
    producer.flush(Duration::from_secs(30)).expect("Kafka takes what was said");
    seen
}

fn session(
    places: Places<'_>,
    round: &str,
    number: usize,
    producer: &ThreadedProducer<DefaultProducerContext>,
    seen: &mut Vec<Seen>,
) {
    let name = format!("session-{round}-{number}");
    let mut random = StdRng::from_seed(Sha256::digest(&name).into());
    let kind = Kind(random.random_range(0..KINDS));
    let own = own_draw(&mut random);
    let turns = 1 + usize::from(random.random_bool(SECOND_TURNS));
    for turn in 0..turns {
        let context = context(kind, turn);
        let decision = decide(places.decide, &name, &context).unwrap_or_else(|| own.clone());
        let answer = call(places.proxy, &name, round, &question(kind, &name, turn), &context, &decision);
        let is_judged = random.random_bool(JUDGED);
        if is_judged {
            let opinion = opinion(&answer);
            producer
                .send(BaseRecord::to("feedback").key(&name).payload(&opinion.to_string()))
                .unwrap_or_else(|(error, _)| panic!("the producer's queue is full: {error}"));
        }
        let policy_id = decision["policy_id"].as_str().expect("a decision names its policy").to_owned();
        seen.push(Seen { kind, probabilities: probabilities(&decision), policy_id, is_judged });
    }
}

/// What is known of a request when its model is chosen: the same as the tables will hold of it, or the policy would be
/// learned from other contexts than it decides on.
pub fn context(kind: Kind, turn: usize) -> Value {
    json!({
        "domain": kind.domain(),
        "complexity": kind.complexity(),
        "turn": turn,
        "api": "chat_completions",
        "message_count": 1,
        "prompt_tokens": kind.prompt_tokens(),
    })
}

/// What a router does by itself: a draw by weights, which it knows.
fn own_draw(random: &mut StdRng) -> Value {
    let mut left = random.random::<f64>();
    let chosen = OWN_WEIGHTS.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    let chosen = chosen.unwrap_or(MODELS.len() - 1);
    let candidates = MODELS.iter().zip(OWN_WEIGHTS).map(|(model, p)| json!({ "model": model, "propensity": p }));
    json!({
        "model": MODELS[chosen],
        "propensity": OWN_WEIGHTS[chosen],
        "policy_id": "own-weights",
        "candidates": candidates.collect::<Vec<_>>(),
    })
}

/// The sidecar's answer; `None` where no policy is in force.
pub fn decide(port: u16, session: &str, context: &Value) -> Option<Value> {
    let ask = json!({ "session_id": session, "context": context });
    let (status, answer) = parts::post(port, "/v1/decide", &[], &ask.to_string());
    assert!(status == 200 || status == 503, "{answer}");
    (status == 200).then(|| body(&answer))
}

/// The probabilities of a decision by model.
pub fn probabilities(decision: &Value) -> [f64; MODELS.len()] {
    let mut probabilities = [0.0; MODELS.len()];
    for candidate in decision["candidates"].as_array().expect("a decision names its candidates") {
        let model = candidate["model"].as_str().expect("a candidate has a name");
        probabilities[place(model)] = candidate["propensity"].as_f64().expect("and a probability");
    }
    probabilities
}

/// A question of the kind's length, another one each time.
fn question(kind: Kind, session: &str, turn: usize) -> String {
    let head = [kind.domain(), kind.complexity(), session, &turn.to_string()].join(" ");
    let filler = " word".repeat(kind.prompt_tokens() - head.split(' ').count());
    head + &filler
}

/// Through LiteLLM's proxy, which gets the draw as the call's metadata.
fn call(port: u16, session: &str, round: &str, question: &str, context: &Value, decision: &Value) -> Value {
    let request = json!({
        "model": decision["model"],
        "messages": [{ "role": "user", "content": question }],
        "metadata": {
            "tags": [format!("round:{round}")],
            "weir": { "context": context, "decision": decision },
        },
    });
    let authorization = format!("Bearer {KEY}");
    let headers = [("authorization", authorization.as_str()), ("x-litellm-session-id", session)];
    let (status, answer) = parts::post(port, "/v1/chat/completions", &headers, &request.to_string());
    assert_eq!(status, 200, "{answer}");
    body(&answer)
}

/// A user's word on an answer.
fn opinion(answer: &Value) -> Value {
    let id = answer["id"].as_str().expect("an answer has an id");
    let said = answer["choices"][0]["message"]["content"].as_str().expect("an answer has a text");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    json!({
        "feedback_id": format!("thumb-{id}"),
        "event_ms": since.as_millis() as u64,
        "source": "user",
        "kind": "thumb",
        "request_id": id,
        "value": if said == "right" { 1.0 } else { 0.0 },
    })
}

fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a body");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("not JSON ({error}): {answer}"))
}
