//! Claims about score matrices. The expected means were computed from the same files with PyArrow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use weir_policy_runtime::hash_embedding::hash_embedding;
use weir_traffic::matrix::{MatrixConfig, MatrixPart, MatrixQuery, ScoreMatrix, Split, estimated_cost_usd, play};
use weir_traffic::{Event, Fault, ModelInfo, Timed, UniformRouter};

fn shared() -> Option<PathBuf> {
    weir_tests::shared_data("routing_llmrouter")
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    sum / n
}

fn column(matrix: &ScoreMatrix, model: &str) -> usize {
    matrix.models.iter().position(|info| info.name == model).unwrap()
}

#[test]
fn the_nine_model_part_is_read_whole() {
    let Some(folder) = shared() else { return };
    let matrix = ScoreMatrix::open(&folder, MatrixPart::LlmRouter).unwrap();
    assert_eq!((matrix.models.len(), matrix.queries.len()), (9, 4_499));
    for (model, expected) in [
        ("llama-3.1-nemotron-51b-instruct", 0.616_948_251_146_388_2),
        ("llama3-chatqa-1.5-8b", 0.174_147_174_978_995_37),
    ] {
        let of_model = column(&matrix, model);
        assert!((mean(matrix.queries.iter().map(|query| query.scores[of_model])) - expected).abs() < 1e-12);
    }
    assert!(matrix.models.iter().all(|model| model.input_usd_per_mtok.is_some()));
    let train = matrix.queries.iter().filter(|query| query.split == Split::Train).count() as f64;
    // Binomial(4499, 0.7): standard deviation 31.
    assert!((train - 0.7 * 4_499.0).abs() < 155.0, "{train} of 4499 queries are for training");
}

#[test]
fn the_natural_questions_part_has_the_costs_that_were_paid() {
    let Some(folder) = shared() else { return };
    let matrix = ScoreMatrix::open(&folder, MatrixPart::NaturalQuestions).unwrap();
    assert_eq!((matrix.models.len(), matrix.queries.len()), (6, 382));
    let gemma = column(&matrix, "google/gemma-2-27b-it");
    assert!((mean(matrix.queries.iter().map(|query| query.scores[gemma])) - 0.450_057_154_733_674_64).abs() < 1e-12);
    assert!(
        (mean(matrix.queries.iter().map(|query| query.costs_usd[gemma])) - 2.997_696_335_078_533_6e-5).abs() < 1e-15
    );
}

/// Two models, three queries: small enough to know every answer.
fn small() -> ScoreMatrix {
    let model = |name: &str, price| ModelInfo {
        name: name.to_owned(),
        input_usd_per_mtok: Some(price),
        output_usd_per_mtok: Some(price),
    };
    let models = vec![model("cheap", 1.0), model("dear", 10.0)];
    let query = |text: &str, scores: [f64; 2]| MatrixQuery {
        id: format!("q-{text}"),
        text: text.to_owned(),
        task: "words".to_owned(),
        metric: "exact".to_owned(),
        split: Split::of_text(text),
        scores: scores.to_vec(),
        costs_usd: models.iter().map(|model| estimated_cost_usd(text, model).unwrap()).collect(),
    };
    let queries = vec![query("one", [0.0, 1.0]), query("two words", [0.5, 1.0]), query("a third", [1.0, 0.25])];
    ScoreMatrix { part: MatrixPart::LlmRouter, models, queries }
}

#[test]
fn every_request_gets_the_score_of_the_model_that_was_chosen() {
    let matrix = small();
    let config = MatrixConfig { passes: 200, embedding_dim: 16, ..MatrixConfig::default() };
    let events: Vec<Timed> = play(&matrix, config.clone(), Box::new(UniformRouter::new("salt"))).unwrap().collect();
    assert!(events.is_sorted_by_key(|timed| timed.at_ms));
    assert_eq!(events.len(), 2 * 3 * 200);
    let mut scores = BTreeMap::new();
    let mut requests = Vec::new();
    for timed in &events {
        match &timed.event {
            Event::Request(request) => requests.push(request),
            Event::Feedback(row) => {
                assert!(scores.insert(row.request_id.clone().unwrap(), row.value.unwrap()).is_none())
            }
            Event::Gpu(_) => panic!("a score matrix has no telemetry"),
        }
    }
    let mut dear = 0;
    for request in &requests {
        let query = matrix
            .queries
            .iter()
            .find(|query| query.id == request.gateway_tags.as_ref().unwrap()["weir.query_id"])
            .unwrap();
        let chosen = column(&matrix, request.executed_model.as_deref().unwrap());
        assert_eq!(scores[&request.request_id], query.scores[chosen]);
        assert_eq!(request.cost_usd.unwrap().0, query.costs_usd[chosen]);
        assert_eq!(request.propensity.unwrap().get(), 0.5);
        assert_eq!(request.embedding.as_ref().unwrap(), &hash_embedding(&query.text, 16));
        assert_eq!(request.embedding_model.as_deref(), Some("weir-hash-16"));
        assert_eq!(request.prompt_tokens, None, "the data has no token counts");
        assert_eq!(request.prompt_text, None, "text is off by default");
        dear += chosen;
    }
    // Binomial(600, 1/2): standard deviation 12.2.
    assert!((dear as f64 - 300.0).abs() < 61.0, "{dear} of 600 went to one of two models");

    let again: Vec<Timed> = play(&matrix, config, Box::new(UniformRouter::new("salt"))).unwrap().collect();
    assert_eq!(events, again);
}

#[test]
fn estimated_cost_is_a_quarter_of_the_characters_both_ways() {
    let model = ModelInfo { name: "m".to_owned(), input_usd_per_mtok: Some(0.2), output_usd_per_mtok: Some(0.6) };
    // 9 characters round up to 3 tokens: 3 x (0.2 + 0.6) / 10^6.
    assert!((estimated_cost_usd("two words", &model).unwrap() - 2.4e-6).abs() < 1e-18);
    let half_known = ModelInfo { output_usd_per_mtok: None, ..model };
    assert_eq!(estimated_cost_usd("two words", &half_known), None, "a call of unknown cost is not a free one");
}

/// The halves are part of the data's contract: a policy learned before an upgrade must not have seen what is a test
/// query after it. So they are pinned, by hashes computed outside of this crate.
#[test]
fn a_text_never_changes_its_side_of_the_split() {
    for (text, side) in SPLITS {
        assert_eq!(Split::of_text(text), side, "{text:?}");
    }
}

/// FNV-1a of "split", 0x1f, the text, 0x1f, finished by SplitMix64, modulo 100: below 70 is for training.
const SPLITS: [(&str, Split); 6] = [
    ("What is the capital of France", Split::Train),
    ("a third", Split::Train),
    ("Übung", Split::Train),
    ("", Split::Test),
    ("what is the capital of France", Split::Test),
    ("two words", Split::Test),
];

#[test]
fn a_trace_is_no_score_matrix() {
    let Some(folder) = shared() else { return };
    let trace = folder.parent().unwrap().join("azure_llm_2023");
    let error = ScoreMatrix::open(&trace, MatrixPart::LlmRouter).unwrap_err().to_string();
    assert!(error.ends_with("holds a trace and not a score matrix"), "{error}");
}

fn table(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn text(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn numbers(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

/// Both parts of a matrix with one query and two models, at these prices and costs.
fn written(folder: &Path, priced: &[(&str, Option<f64>)], nq_costs: [Option<f64>; 2]) {
    let cells = |costs: Option<[Option<f64>; 2]>| {
        let mut columns = vec![
            ("query_id", text(&["q", "q"])),
            ("model", text(&["cheap", "dear"])),
            ("score", numbers(&[Some(0.5), Some(1.0)])),
        ];
        columns.extend(costs.map(|costs| ("cost_usd", numbers(&costs))));
        columns
    };
    table(&folder.join("scores.parquet"), cells(None));
    table(&folder.join("nq_scores.parquet"), cells(Some(nq_costs)));
    let query = |task| vec![("query_id", text(&["q"])), ("query", text(&["two words"])), (task, text(&["words"]))];
    table(&folder.join("nq_queries.parquet"), query("source"));
    let with_metric = [query("task"), vec![("metric", text(&["exact"]))]].concat();
    table(&folder.join("queries.parquet"), with_metric);
    let names: Vec<&str> = priced.iter().map(|(name, _)| *name).collect();
    let prices: Vec<Option<f64>> = priced.iter().map(|(_, price)| *price).collect();
    table(
        &folder.join("models.parquet"),
        vec![
            ("model", text(&names)),
            ("input_usd_per_mtok", numbers(&vec![Some(1.0); names.len()])),
            ("output_usd_per_mtok", numbers(&prices)),
        ],
    );
}

#[test]
fn a_model_without_a_price_or_a_cost_is_named_and_never_free() {
    let folder = tempfile::tempdir().unwrap();
    let open = |part| ScoreMatrix::open(folder.path(), part);
    let paid = [Some(0.25), Some(2.5)];
    written(folder.path(), &[("cheap", Some(1.0)), ("dear", Some(9.0))], paid);
    // 3 tokens at 1 + 9 USD per million.
    assert!((open(MatrixPart::LlmRouter).unwrap().queries[0].costs_usd[1] - 3e-5).abs() < 1e-18);
    assert_eq!(open(MatrixPart::NaturalQuestions).unwrap().queries[0].costs_usd, [0.25, 2.5]);
    let by_table = ScoreMatrix::open(&folder.path().join("scores.parquet"), MatrixPart::LlmRouter).unwrap();
    assert_eq!(by_table, open(MatrixPart::LlmRouter).unwrap(), "a table of the matrix stands for its folder");

    let says = |part, words: &[&str]| {
        let error = open(part).unwrap_err();
        assert_eq!(error.fault(), Fault::User);
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    };
    written(folder.path(), &[("cheap", Some(1.0))], paid);
    says(MatrixPart::LlmRouter, &["models.parquet", "dear"]);
    for price in [None, Some(f64::NAN), Some(-1.0)] {
        written(folder.path(), &[("cheap", Some(1.0)), ("dear", price)], paid);
        says(MatrixPart::LlmRouter, &["models.parquet", "row 1", "output_usd_per_mtok"]);
    }
    written(folder.path(), &[("cheap", Some(1.0))], [Some(0.25), None]);
    says(MatrixPart::NaturalQuestions, &["nq_scores.parquet", "row 1", "cost_usd"]);
}
