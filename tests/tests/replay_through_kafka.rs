//! A public trace through a real Apache Kafka into tables: every row once, whatever dies.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use weir_tests::{Kafka, Weir, shared_data};

/// `kill -9` lands at this many moments of a run.
const KILLS: usize = 3;

/// Small commits, so that a kill lands between, before and inside them: so many messages each.
const SMALL_COMMIT: u32 = 700;
/// The score matrix has fewer messages, and three kills must leave some.
const SMALLEST_COMMIT: u32 = 100;

/// Both folders of one test use the same keys, so that pseudonyms compare.
fn configure(weir: &Weir, folder: &Path, brokers: &str, group: &str, flush_rows: u32) {
    let keys = folder.join("keys");
    std::fs::write(
        weir.data().with_file_name("weir.toml"),
        format!(
            "[store]\nurl = \"{}\"\n[keys]\npath = \"{}\"\n[kafka]\nbrokers = \"{brokers}\"\ngroup_id = \"{group}\"\n\
             [ingest]\nflush_rows = {flush_rows}\nflush_interval_ms = 200\n",
            weir.data().display(),
            keys.display()
        ),
    )
    .expect("the test folder is writable");
}

/// Starts a run again and again, and kills each after it has committed and while it has more to read. Each has a consumer
/// group of its own: Kafka keeps the partitions of a dead member for a while, and there would be nothing to hit.
fn kill_at_random_moments(weir: &Weir, folder: &Path, brokers: &str, flush_rows: u32) -> u64 {
    let seed =
        std::env::var("WEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    eprintln!("WEIR_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for kill in 0..KILLS {
        configure(weir, folder, brokers, &format!("killed-{kill}"), flush_rows);
        let commits = random.random_range(1..5);
        let mut child = weir.start_until_committed(&["run", "--until-drained", "--no-http"], "requests", commits);
        std::thread::sleep(Duration::from_millis(random.random_range(0..100)));
        let ended = child.try_wait().expect("a child can be asked");
        assert!(ended.is_none(), "it ended by itself ({ended:?}) before it was killed (WEIR_TEST_SEED={seed})");
        child.kill().expect("SIGKILL reaches a child"); // SIGKILL, which nothing can catch
        child.wait().expect("a killed child ends");
    }
    seed
}

#[test]
fn the_azure_trace_arrives_once_to_the_row_and_kill_9_changes_nothing() {
    let Some(trace) = shared_data("azure_llm_2023") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let (calm, killed) = (Weir::in_subfolder(folder.path(), "calm"), Weir::in_subfolder(folder.path(), "killed"));
    configure(&calm, folder.path(), &kafka.brokers, "calm", SMALL_COMMIT);

    let expected = token_columns(&trace);
    let path = trace.display().to_string();
    let replayed =
        calm.run(&["replay", &path, "--brokers", &kafka.brokers, "--create-topics", "3", "--json"]).ok().json();
    assert_eq!(replayed["produced"].as_u64(), Some(expected.prompt.len() as u64), "the file's rows are the messages");

    // One run without trouble.
    calm.run(&["run", "--until-drained", "--no-http", "--json"]).ok();
    assert_exact(&calm, expected.prompt.len());

    // A second run adds none.
    calm.run(&["run", "--until-drained", "--no-http", "--json"]).ok();
    assert_exact(&calm, expected.prompt.len());

    // Another run, killed at random moments, then left to finish.
    let seed = kill_at_random_moments(&killed, folder.path(), &kafka.brokers, SMALL_COMMIT);
    assert!(
        killed.number("select count(*) from raw_requests") < expected.prompt.len() as f64,
        "nothing was left to do"
    );
    killed.run(&["run", "--until-drained", "--no-http", "--json"]).ok();
    assert_exact(&killed, expected.prompt.len());
    for (what, query) in COMPARED {
        assert_eq!(calm.sql(query), killed.sql(query), "{what} differ after kill -9 (WEIR_TEST_SEED={seed})");
    }

    // Means agree with the files exactly, quantiles within the sketch's stated error.
    let row = &calm.sql("select sum(prompt_tokens_sum) as prompt, sum(completion_tokens_sum) as completion, sum(requests) as n from workload_minute")[0];
    assert_eq!(row["n"].as_u64(), Some(expected.prompt.len() as u64));
    assert_eq!(row["prompt"].as_i64(), Some(expected.prompt.iter().map(|n| i64::from(*n)).sum()));
    assert_eq!(row["completion"].as_i64(), Some(expected.completion.iter().map(|n| i64::from(*n)).sum()));
    for (column, values) in [("prompt_tokens", &expected.prompt), ("completion_tokens", &expected.completion)] {
        for q in [0.5, 0.9, 0.99] {
            let query = format!("select ddsketch_quantile(ddsketch_merge({column}), {q}) as q from workload_sketch");
            let sketched = calm.number(&query);
            let exact = f64::from(nearest_rank(values, q));
            // 1 % is the sketch's stated relative error (DDSketch, alpha = 0.01).
            assert!((sketched - exact).abs() <= 0.01 * exact + 1e-9, "{column} p{q}: sketch {sketched}, file {exact}");
        }
    }
}

/// What must not depend on where the process died.
const COMPARED: &[(&str, &str)] = &[
    (
        "raw rows",
        "select request_id, arrival_ms, prompt_tokens, completion_tokens, source_topic, source_partition, source_offset
         from raw_requests order by source_topic, source_partition, source_offset",
    ),
    (
        "summaries",
        "select window_start_ms, sum(requests) as requests, sum(prompt_tokens_sum) as prompt,
                sum(completion_tokens_sum) as completion
         from workload_minute group by window_start_ms order by window_start_ms",
    ),
    (
        "sketch bytes",
        "select encode(ddsketch_merge(prompt_tokens), 'hex') as prompt,
                encode(ddsketch_merge(completion_tokens), 'hex') as completion
         from workload_sketch",
    ),
];

fn assert_exact(weir: &Weir, rows: usize) {
    let rows = rows as f64;
    assert_eq!(weir.number("select count(*) from raw_requests"), rows, "rows in the table");
    let distinct =
        "select count(*) from (select distinct source_topic, source_partition, source_offset from raw_requests)";
    assert_eq!(weir.number(distinct), rows, "distinct messages in the table");
    assert_eq!(weir.number("select count(*) from dead_letters"), 0.0, "dead letters");
    assert_eq!(weir.number("select sum(requests) from workload_minute"), rows, "requests in the summaries");
}

struct Tokens {
    prompt: Vec<i32>,
    completion: Vec<i32>,
}

/// The columns as another reader sees them: straight from the Parquet files, without any code of ours.
fn token_columns(folder: &Path) -> Tokens {
    let mut columns: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for name in ["code.parquet", "conv.parquet"] {
        let file = std::fs::File::open(folder.join(name)).expect("the data set has this file");
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build()).expect("Parquet");
        for batch in reader {
            let batch: RecordBatch = batch.expect("a readable row group");
            for column in ["context_tokens", "generated_tokens"] {
                let values = batch.column_by_name(column).expect("the README's column").as_primitive::<Int32Type>();
                columns.entry(column).or_default().extend(values.values().iter());
            }
        }
    }
    let mut take = |name| columns.remove(name).unwrap_or_default();
    Tokens { prompt: take("context_tokens"), completion: take("generated_tokens") }
}

/// The smallest value such that at least a share `q` of the values is at most it.
fn nearest_rank(values: &[i32], q: f64) -> i32 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted[rank - 1]
}

#[test]
fn traces_with_relative_times_are_stored_without_dead_letters() {
    let (Some(mooncake), Some(servegen)) = (shared_data("mooncake_fast25"), shared_data("servegen_clients")) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let weir = Weir::in_subfolder(folder.path(), "traces");
    configure(&weir, folder.path(), &kafka.brokers, "traces", SMALL_COMMIT);
    let mut produced = 0;
    for trace in [mooncake, servegen] {
        let path = trace.display().to_string();
        let replayed =
            weir.run(&["replay", &path, "--brokers", &kafka.brokers, "--create-topics", "2", "--json"]).ok().json();
        produced += replayed["produced"].as_u64().expect("a count");
    }
    weir.run(&["run", "--until-drained", "--no-http", "--json"]).ok();
    assert_exact(&weir, usize::try_from(produced).expect("a count fits"));
}

#[test]
fn a_policy_learned_from_the_llmrouter_matrix_through_kafka_is_judged_signed_and_served() {
    let Some(matrix) = shared_data("routing_llmrouter") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let weir = Weir::in_subfolder(folder.path(), "matrix");
    configure(&weir, folder.path(), &kafka.brokers, "matrix", SMALL_COMMIT);

    let path = matrix.display().to_string();
    let replayed = weir
        .run(&["replay", &path, "--passes", "2", "--brokers", &kafka.brokers, "--create-topics", "2", "--json"])
        .ok()
        .json();
    let requests = replayed["by_topic"]["requests"].as_u64().expect("a count of requests");
    let feedback = replayed["by_topic"]["feedback"].as_u64().expect("a count of feedback");
    assert!(requests > 1_000 && feedback > 1_000, "{replayed}");

    weir.run(&["run", "--until-drained", "--no-http", "--json"]).ok();
    assert_eq!(weir.number("select count(*) from raw_requests"), requests as f64);
    assert_eq!(weir.number("select count(*) from raw_feedback"), feedback as f64);
    assert_eq!(weir.number("select count(*) from requests where propensity is null"), 0.0);

    // A second run adds none, and kill -9 changes nothing: neither table of the two loses or doubles a row.
    weir.run(&["run", "--until-drained", "--no-http", "--json"]).ok();
    let killed = Weir::in_subfolder(folder.path(), "matrix-killed");
    let seed = kill_at_random_moments(&killed, folder.path(), &kafka.brokers, SMALLEST_COMMIT);
    assert!(killed.number("select count(*) from raw_requests") < requests as f64, "nothing was left to do");
    killed.run(&["run", "--until-drained", "--no-http", "--json"]).ok();
    for (table, rows) in [("raw_requests", requests), ("raw_feedback", feedback)] {
        let messages = format!(
            "select count(distinct source_topic || '/' || source_partition || '/' || source_offset) from {table}"
        );
        for (who, folder) in [("calm", &weir), ("killed", &killed)] {
            let found = [&format!("select count(*) from {table}"), &messages].map(|query| folder.number(query));
            assert_eq!(found, [rows as f64; 2], "rows and messages of {table}, {who} (WEIR_TEST_SEED={seed})");
        }
    }

    let key = folder.path().join("signing.key").display().to_string();
    weir.run(&["policy", "keygen", &key]).ok();
    let learned = weir.run(&["learn", "policy", "--key", &key, "--tag", "split=train", "--json"]).ok().json();
    let id = learned["policy_id"].as_str().expect("an id").to_owned();
    let verdict = learned["verdict"].as_str().expect("a verdict");
    assert!(["better", "worse", "not shown", "insufficient support"].contains(&verdict), "{learned}");

    weir.run(&["policy", "verify", &id]).ok();
    let listed: Value = weir.run(&["policy", "list", "--json"]).ok().json();
    assert!(listed.to_string().contains(&id), "{listed}");
    let force: &[&str] = if verdict == "better" { &[] } else { &["--force"] };
    let approve = [&["policy", "approve", &id, "--actor", "tests", "--reason", "end-to-end test"][..], force].concat();
    weir.run(&approve).ok();
    assert!(weir.run(&["policy", "show", &id]).ok().stdout.contains("active"));

    // On the queries that it never saw, against what every model would have scored.
    let judged = weir.run(&["evaluate", &id, "--matrix", &path, "--json"]).ok().json();
    let quality = |policy: &str, price: &str| {
        let scores = judged["scores"].as_array().expect("a list of policies");
        let row = scores.iter().find(|row| row["policy"] == policy && row["price"] == price);
        row.and_then(|row| row["quality"]["value"].as_f64())
    };
    let rows: Vec<String> = judged["scores"]
        .as_array()
        .expect("a list of policies")
        .iter()
        .map(|row| format!("{} at {}: {}", row["policy"], row["price"], row["quality"]["value"]))
        .collect();
    eprintln!("{}", rows.join("\n"));
    // How much better than others it is depends on the data, and bench/RESULTS.md says so; that it beats a draw must hold.
    let learned = quality("learned policy", "full price").expect("the learned policy is in the report");
    let uniform = quality("uniform", "none").expect("uniform choice is in the report");
    assert!(learned > uniform + 0.1, "learned {learned}, uniform {uniform}");
}
