//! The same messages through a real Apache Kafka in order and once; and shuffled within each hour, one in twenty twice, read
//! by one, two and three consumers that are killed on the way. What was asked is what every view says, to the last digit
//! that a sum in another order can keep.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use weir_tests::{Kafka, Weir, shared_data};

const HOUR_MS: i64 = 3_600_000;
const PARTITIONS: i32 = 3;
const TOPICS: [&str; 3] = ["requests", "feedback", "gpu_telemetry"];
/// So many messages of a hundred come twice. Samples of GPUs bear no id, and nothing can tell two apart from one twice.
const TWICE_PERCENT: u32 = 5;
const RUN: [&str; 3] = ["run", "--until-drained", "--no-http"];

/// Everything that is a function of the requests and opinions, and not of where in Kafka they stood.
const VIEWS: [&str; 45] = [
    "workload_mix",
    "workload_mix_by_minute",
    "latency",
    "cost",
    "tokens",
    "token_totals",
    "arrivals",
    "arrival_process",
    "diurnal_profile",
    "workload_cdf",
    "models",
    "quality",
    "propensities",
    "axis_mix",
    "fingerprints",
    "request_axes",
    "prefix_requests",
    "prefix_cache",
    "prefix_routing",
    "pool_state",
    "gpu_pools",
    "sessions",
    "session_turns",
    "request_opinions",
    "rewards",
    "reward_delays",
    "drift_series",
    "drift",
    "failure_checks",
    "failure_rates",
    "model_reputation",
    "reputation_pieces",
    "outcome_pieces",
    "attribution",
    "handoff_penalties",
    "token_budgets",
    "budget_trials",
    "caller_budgets",
    "cut_back_gains",
    "effective_context",
    "tools",
    "tool_ranking",
    "tool_sequences",
    "tool_transitions",
    "resume_curves",
];

struct Message {
    topic: String,
    at_ms: i64,
    payload: String,
}

/// The messages that a command writes to a file.
fn messages(weir: &Weir, folder: &Path, command: &[&str]) -> Vec<Message> {
    let file = folder.join("messages.jsonl");
    let path = file.display().to_string();
    weir.run(&[command, &["--out", &path]].concat()).ok();
    let text = std::fs::read_to_string(&file).expect("the command writes it");
    let message = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("JSON lines");
        let event = &value["event"];
        let at_ms = event["arrival_ms"].as_i64().or_else(|| event["event_ms"].as_i64()).expect("events have a time");
        Message { topic: value["topic"].as_str().expect("a topic").to_owned(), at_ms, payload: event.to_string() }
    };
    text.lines().map(message).collect()
}

/// Positions in `messages`: some twice, in any order within each hour of event time.
fn disturbed(messages: &[Message], random: &mut StdRng) -> Vec<usize> {
    let mut hours: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (at, message) in messages.iter().enumerate() {
        let hour = hours.entry(message.at_ms.div_euclid(HOUR_MS)).or_default();
        hour.push(at);
        if message.topic != "gpu_telemetry" && random.random_ratio(TWICE_PERCENT, 100) {
            hour.push(at);
        }
    }
    hours.values_mut().for_each(|hour| hour.shuffle(random));
    hours.into_values().flatten().collect()
}

async fn produce(brokers: &str, prefix: &str, messages: impl Iterator<Item = &Message>, random: &mut StdRng) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().expect("an admin client");
    let names = TOPICS.map(|topic| format!("{prefix}-{topic}"));
    let topics = names.each_ref().map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)));
    for created in admin.create_topics(&topics, &AdminOptions::new()).await.expect("the broker answers") {
        created.expect("the topic is new");
    }
    let producer: BaseProducer = config.set("queue.buffering.max.messages", "1000000").create().expect("a producer");
    for message in messages {
        let topic = format!("{prefix}-{}", message.topic);
        let record =
            BaseRecord::<str, str>::to(&topic).payload(&message.payload).partition(random.random_range(0..PARTITIONS));
        producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
    }
    producer.flush(Duration::from_secs(60)).expect("the broker takes everything");
}

fn reader(folder: &Path, name: &str, topics: &str, brokers: &str) -> Weir {
    let weir = Weir::in_subfolder(folder, name);
    let read = TOPICS.map(|topic| format!("[[kafka.topics]]\nname = \"{topics}-{topic}\"\nformat = \"{topic}\"\n"));
    // A member that died is gone after six seconds, the least that a broker allows.
    // One key for all, so that pseudonyms of callers compare.
    let settings = format!(
        "[store]\nurl = \"{}\"\n[keys]\npath = \"{}\"\n[kafka]\nbrokers = \"{brokers}\"\ngroup_id = \"{name}\"\n{}\
         [kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n[ingest]\nflush_rows = 700\nflush_interval_ms = 200\n",
        weir.data().display(),
        folder.join("keys").display(),
        read.concat()
    );
    std::fs::write(weir.data().with_file_name("weir.toml"), settings).expect("the test folder is writable");
    weir
}

fn ended(mut child: Child) {
    let status = child.wait().expect("a child can be waited for");
    assert!(status.success(), "{status}");
}

/// So many consumers at once. All of them but the last are killed after some commits, and a last one reads what is left.
fn read_by(weir: &Weir, consumers: usize, random: &mut StdRng) {
    let first = weir.start_until_committed(&RUN, "requests", random.random_range(1..4));
    let mut members = vec![first];
    members.extend((1..consumers).map(|_| weir.start(&RUN)));
    let survivor = (consumers > 1).then(|| members.pop().expect("more than one"));
    for mut member in members {
        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        member.kill().expect("SIGKILL reaches a child, also one that has ended");
        member.wait().expect("a killed child ends");
    }
    survivor.into_iter().for_each(ended);
    weir.run(&RUN).ok();
}

/// Rows of a view in an order of their own; numbers to ten digits, as sums of doubles in any order agree.
fn rows(weir: &Weir, view: &str) -> Vec<String> {
    fn rounded(value: &mut Value) {
        match value {
            Value::Number(number) if number.is_f64() => {
                *value = format!("{:.9e}", number.as_f64().unwrap_or(f64::NAN) + 0.0).into();
            }
            Value::Array(values) => values.iter_mut().for_each(rounded),
            Value::Object(fields) => fields.values_mut().for_each(rounded),
            _ => {}
        }
    }
    let mut rows = weir.sql(&format!("select * from {view}"));
    let text = |row: &mut Value| {
        // Where a row came from, and which of its two copies is the canonical one, is no part of what it says.
        if let Some(fields) = row.as_object_mut() {
            fields.retain(|name, _| !name.starts_with("source_"));
        }
        rounded(row);
        row.to_string()
    };
    let mut rows: Vec<String> = rows.iter_mut().map(text).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn shuffled_doubled_and_killed_the_views_are_equal() {
    let Some(trace) = shared_data("mooncake_fast25") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let seed =
        std::env::var("WEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    eprintln!("WEIR_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    // A public trace with blocks of prompts, and simulated traffic with sessions, opinions and GPUs.
    let maker = Weir::in_subfolder(folder.path(), "maker");
    let conversation = trace.join("conversation.parquet").display().to_string();
    let mut all = messages(&maker, folder.path(), &["replay", &conversation]);
    assert!(all.len() > 5_000, "{} requests of the trace", all.len());
    all.extend(messages(&maker, folder.path(), &["simulate", "--seconds", "5400", "--rate", "2"]));

    produce(&kafka.brokers, "calm", all.iter(), &mut random).await;
    let order = disturbed(&all, &mut random);
    assert!(order.len() > all.len() + all.len() / 50, "{} messages, {} of them once", order.len(), all.len());
    produce(&kafka.brokers, "wild", order.iter().map(|at| &all[*at]), &mut random).await;

    let calm = reader(folder.path(), "calm", "calm", &kafka.brokers);
    calm.run(&RUN).ok();
    let wanted: BTreeMap<&str, Vec<String>> = VIEWS.into_iter().map(|view| (view, rows(&calm, view))).collect();
    let empty: BTreeSet<&str> = wanted.iter().filter(|(_, rows)| rows.is_empty()).map(|(view, _)| *view).collect();
    assert!(empty.is_subset(&BTreeSet::from(["drift"])), "nothing to compare in {empty:?}");
    let asked = all.iter().filter(|message| message.topic == "requests").count() as f64;
    assert_eq!(calm.number("select count(*) from requests"), asked);

    let of = |topic: &str| order.iter().filter(|at| all[**at].topic == topic).count() as f64;
    for consumers in 1..=3 {
        let wild = reader(folder.path(), &format!("wild-{consumers}"), "wild", &kafka.brokers);
        read_by(&wild, consumers, &mut random);
        let context = format!("{consumers} consumers, WEIR_TEST_SEED={seed}");
        // Raw keeps what came, each message once; the canonical rows are one a request.
        for topic in TOPICS {
            let messages = format!(
                "select count(distinct source_topic || '/' || source_partition || '/' || source_offset) from raw_{topic}"
            );
            let found = [wild.number(&format!("select count(*) from raw_{topic}")), wild.number(&messages)];
            assert_eq!(found, [of(topic); 2], "rows and messages of {topic}, {context}");
        }
        assert_eq!(wild.number("select count(*) from requests"), asked, "{context}");
        for (view, wanted) in &wanted {
            let found = rows(&wild, view);
            if &found != wanted {
                let other = found.iter().zip(wanted).find(|(found, wanted)| found != wanted);
                panic!("{view}: {} rows for {}, {context}; first {other:#?}", found.len(), wanted.len());
            }
        }
    }
}
