//! Claims about replayed traces. The expected counts and sums were computed from the same files with PyArrow.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use weir_schemas::Request;
use weir_tests::{shared, shared_data};
use weir_traffic::replay::{ReplayConfig, ServeGenSelection, TraceFormat, detect, open};
use weir_traffic::{Event, Fault, TrafficError};

fn requests(path: &Path, config: ReplayConfig) -> Vec<Request> {
    let mut last_ms = i64::MIN;
    let request = |timed: Result<weir_traffic::Timed, TrafficError>| {
        let timed = timed.unwrap();
        assert!(timed.at_ms >= last_ms, "arrivals went back in time");
        last_ms = timed.at_ms;
        let Event::Request(request) = timed.event else { panic!("a trace holds requests only") };
        assert_eq!(request.arrival_ms.0, timed.at_ms);
        *request
    };
    open(path, config).unwrap().map(request).collect()
}

fn sums(requests: &[Request]) -> (usize, i64, i64) {
    let prompt = requests.iter().map(|request| i64::from(request.prompt_tokens.unwrap().0)).sum();
    let completion = requests.iter().map(|request| i64::from(request.completion_tokens.unwrap().0)).sum();
    (requests.len(), prompt, completion)
}

#[test]
fn azure_keeps_every_request_token_and_time() {
    let Some(folder) = shared_data("azure_llm_2023") else { return };
    let code = requests(&folder.join("code.parquet"), ReplayConfig::default());
    assert_eq!(sums(&code), (7_491, 15_282_456, 206_626));
    assert_eq!(code[0].request_id, "azure-code-000001");
    assert_eq!(code[0].arrival_ms.0, 1_700_158_623_979);
    assert_eq!(code.last().unwrap().arrival_ms.0, 1_700_161_016_535);
    assert_eq!(
        (code[0].ttft_ms, &code[0].session_id, &code[0].domain, &code[0].propensity),
        (None, &None, &None, &None)
    );

    let both = requests(&folder, ReplayConfig::default());
    assert_eq!(sums(&both), (7_491 + 14_453, 15_282_456 + 17_181_419, 206_626 + 2_917_114));
    assert_eq!(both[0].request_id, "azure-conv-000001");
}

#[test]
fn mooncake_keeps_its_prefix_blocks() {
    let Some(folder) = shared_data("mooncake_fast25") else { return };
    let conversation = requests(&folder.join("conversation.parquet"), ReplayConfig::default());
    assert_eq!(sums(&conversation), (8_125, 100_489_310, 2_816_151));
    let blocks: usize = conversation.iter().map(|request| request.prefix_block_hashes.as_ref().unwrap().len()).sum();
    assert_eq!(blocks, 200_107);
    let synthetic = requests(&folder.join("synthetic.parquet"), ReplayConfig::default());
    assert_eq!(sums(&synthetic), (2_730, 36_432_810, 496_540));
}

#[test]
fn speed_and_start_move_arrivals_and_nothing_else() {
    let Some(folder) = shared_data("azure_llm_2023") else { return };
    let file = folder.join("code.parquet");
    let plain = requests(&file, ReplayConfig::default());
    let config = ReplayConfig { start_ms: Some(1_000), speed: 10.0, limit: Some(500), ..ReplayConfig::default() };
    let fast = requests(&file, config);
    assert_eq!(fast.len(), 500);
    assert_eq!(fast[0].arrival_ms.0, 1_000);
    for (slow, fast) in plain.iter().zip(&fast) {
        let gap_ms = (slow.arrival_ms.0 - plain[0].arrival_ms.0) as f64 / 10.0;
        assert!((fast.arrival_ms.0 as f64 - 1_000.0 - gap_ms).abs() <= 1.0);
        assert_eq!((&slow.request_id, slow.prompt_tokens), (&fast.request_id, fast.prompt_tokens));
    }
}

/// `deepseek-r1` in the window at 0 s: PyArrow sums the published rates of its clients to the expected rate. The
/// clients are bursty, so the bound is wide; the mean of the generator itself is tested beside it.
#[test]
fn servegen_streams_are_generated_at_the_published_rate() {
    let Some(folder) = shared_data("servegen_clients") else { return };
    let config = ReplayConfig {
        servegen: ServeGenSelection { seconds: 6_000, ..ServeGenSelection::default() },
        ..ReplayConfig::default()
    };
    let stream = requests(&folder, config.clone());
    let expected = EXPECTED_R1_REQUESTS_IN_6000_S;
    assert!((stream.len() as f64 / expected - 1.0).abs() < 0.05, "{} requests, expected {expected}", stream.len());
    assert!(stream.iter().all(|request| request.gateway_tags.as_ref().unwrap()["generated"] == "true"));
    assert!(stream.iter().all(|request| request.prompt_tokens.is_some() && request.completion_tokens.is_some()));
    assert!(stream.iter().all(|request| request.reasoning_tokens <= request.completion_tokens));
    assert_eq!(stream, requests(&folder, config.clone()));
    assert_ne!(stream, requests(&folder, ReplayConfig { seed: 2, ..config }));
}

/// Sum over the windows that start before 6000 s of rate_per_s x 600 s.
const EXPECTED_R1_REQUESTS_IN_6000_S: f64 = 121_773.0;

#[test]
fn a_thinned_stream_holds_some_of_the_arrivals_of_the_whole() {
    let Some(folder) = shared_data("servegen_clients") else { return };
    // The worst hour of the reasoning model: the hour with the largest sum of rate_per_s x 600 s.
    let drawn = |model: &str, keep| {
        let servegen = ServeGenSelection { model: model.to_owned(), from_s: 7_200, seconds: 3_600, keep };
        requests(&folder, ReplayConfig { servegen, start_ms: Some(0), ..ReplayConfig::default() })
    };
    let (whole, thin) = (drawn("deepseek-r1", 1.0), drawn("deepseek-r1", 0.01));
    let worst = EXPECTED_R1_REQUESTS_IN_THE_WORST_HOUR;
    assert!((whole.len() as f64 / worst - 1.0).abs() < 0.05, "{} requests, expected {worst}", whole.len());
    // Four standard deviations of a binomial count.
    let (kept, expected) = (thin.len() as f64, whole.len() as f64 / 100.0);
    assert!((kept - expected).abs() < 4.0 * expected.sqrt(), "{kept} of {} requests", whole.len());
    // Both count from their own first arrival.
    let arrivals = |stream: &[Request], offset_ms: i64| -> BTreeSet<(i64, Option<String>)> {
        stream.iter().map(|request| (request.arrival_ms.0 + offset_ms, request.caller.clone())).collect()
    };
    let of_whole = arrivals(&whole, 0);
    let offset_ms = whole.iter().map(|request| request.arrival_ms.0).find(|at_ms| {
        let shifted = arrivals(&thin[..20], *at_ms);
        shifted.iter().filter(|(at_ms, caller)| near(&of_whole, *at_ms, caller.as_ref())).count() == shifted.len()
    });
    let offset_ms = offset_ms.expect("the first of the thinned stream is an arrival of the whole");
    for (at_ms, caller) in arrivals(&thin, offset_ms) {
        assert!(near(&of_whole, at_ms, caller.as_ref()), "{caller:?} at {at_ms} ms is not of the whole");
    }

    let everyone = drawn("all", 0.001);
    let models: BTreeSet<_> = everyone.iter().filter_map(|request| request.executed_model.as_deref()).collect();
    assert!(models.contains("m-mid") && models.contains("m-small"), "{models:?}");
}

/// Times are rounded to the millisecond after they were shifted.
fn near(arrivals: &BTreeSet<(i64, Option<String>)>, at_ms: i64, caller: Option<&String>) -> bool {
    (at_ms - 1..=at_ms + 1).any(|at_ms| arrivals.contains(&(at_ms, caller.cloned())))
}

/// Sum over the windows from 7200 s to 10800 s of rate_per_s x 600 s, as DuckDB adds them up.
const EXPECTED_R1_REQUESTS_IN_THE_WORST_HOUR: f64 = 117_294.0;

#[test]
fn an_unknown_model_of_servegen_names_the_known_ones() {
    let Some(folder) = shared_data("servegen_clients") else { return };
    let servegen = ServeGenSelection { model: "m-huge".to_owned(), ..ServeGenSelection::default() };
    let error = open(&folder, ReplayConfig { servegen, ..ReplayConfig::default() }).err().unwrap().to_string();
    assert!(error.contains("m-huge") && error.contains("deepseek-r1 0 to"), "{error}");
}

#[test]
fn formats_are_known_by_their_columns() {
    let Some(data) = shared("data") else { return };
    for (folder, format) in [
        ("azure_llm_2023", TraceFormat::AzureLlm),
        ("mooncake_fast25", TraceFormat::Mooncake),
        ("servegen_clients", TraceFormat::ServeGen),
        ("routing_llmrouter", TraceFormat::ScoreMatrix),
    ] {
        assert_eq!(detect(&data.join(folder)).unwrap(), format);
    }
    let error = open(&data.join("routing_llmrouter"), ReplayConfig::default()).err().unwrap();
    assert!(error.to_string().ends_with("holds a score matrix and not a trace"), "{error}");
}

fn parquet_file(folder: &Path, column: &str) -> PathBuf {
    parquet_with(&folder.join("some.parquet"), &[column])
}

/// A file with one row of ones.
fn parquet_with(path: &Path, columns: &[&str]) -> PathBuf {
    let fields: Vec<Field> = columns.iter().map(|column| Field::new(*column, DataType::Int32, false)).collect();
    let ones = columns.iter().map(|_| Arc::new(Int32Array::from(vec![1])) as ArrayRef).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), ones).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path.to_owned()
}

const AZURE: [&str; 4] = ["ts_unix_ns", "service", "context_tokens", "generated_tokens"];
const MOONCAKE: [&str; 4] = ["timestamp_ms", "input_length", "output_length", "hash_ids"];

#[test]
fn a_truncated_trace_in_a_folder_is_an_error_and_not_a_shorter_replay() {
    let folder = tempfile::tempdir().unwrap();
    parquet_with(&folder.path().join("a.parquet"), &AZURE);
    let second = parquet_with(&folder.path().join("b.parquet"), &AZURE);
    // What is no trace at all may lie beside one.
    parquet_with(&folder.path().join("c.parquet"), &["weather"]);
    assert_eq!(requests(folder.path(), ReplayConfig::default()).len(), 2);
    let bytes = std::fs::read(&second).unwrap();
    std::fs::write(&second, &bytes[..bytes.len() / 2]).unwrap();
    let error = open(folder.path(), ReplayConfig::default()).err().unwrap();
    assert!(error.to_string().contains("b.parquet is not a readable parquet file"), "{error}");
    assert_eq!(error.fault(), Fault::User);
}

#[test]
fn a_folder_with_traces_of_two_formats_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    parquet_with(&folder.path().join("a.parquet"), &AZURE);
    parquet_with(&folder.path().join("b.parquet"), &MOONCAKE);
    let error = detect(folder.path()).unwrap_err().to_string();
    assert!(error.contains("azure-llm and mooncake"), "{error}");
}

#[test]
fn what_is_no_trace_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let says = |path: &Path, words: &[&str]| {
        let error = open(path, ReplayConfig::default()).err().unwrap().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(!error.contains('\n'), "{error}");
    };
    says(folder.path(), &["holds no .parquet file"]);
    says(&folder.path().join("absent.parquet"), &["cannot read", "absent.parquet"]);
    let path = parquet_file(folder.path(), "weather");
    says(&path, &["is not a known trace", "weather", "azure-llm, mooncake, servegen and score-matrix"]);
    std::fs::write(&path, b"PAR1 but no more").unwrap();
    says(&path, &["is not a readable parquet file"]);
    let error = open(&path, ReplayConfig { speed: 0.0, ..ReplayConfig::default() }).err().unwrap().to_string();
    assert_eq!(error, "speed is 0: give a number above 0");
    let late = ReplayConfig { start_ms: Some(i64::MAX), ..ReplayConfig::default() };
    let error = open(&path, late).err().unwrap().to_string();
    assert!(error.starts_with("start_ms is 9223372036854775807: give a moment from 1970 to 2100"), "{error}");
}
