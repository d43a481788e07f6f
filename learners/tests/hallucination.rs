//! The hallucination estimator on people's labels.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use weir_learners::hallucination::{
    Estimator, HallucinationConfig, LabelledPair, read_labelled, train_hallucination, train_on_labelled,
};
use weir_learners::matrix::load_llmrouter;
use weir_store::Fault;

async fn labelled() -> Option<Vec<LabelledPair>> {
    let mut pairs = Vec::new();
    for set in ["hallu_begin", "hallu_faithdial_audit", "hallu_summedits", "hallu_xsum_tokens"] {
        let file = weir_tests::shared(&format!("data/{set}/data.parquet"))?;
        pairs.extend(read_labelled(&file).await.expect("the labelled pairs load"));
    }
    Some(pairs)
}

#[tokio::test]
async fn the_estimator_beats_length_novelty_and_always_positive_on_unseen_documents() {
    let Some(pairs) = labelled().await else { return };
    let (estimator, report) = train_hallucination(&pairs, &HallucinationConfig::default()).expect("training succeeds");
    for (dataset, methods) in
        [("all", &report.overall)].into_iter().chain(report.by_dataset.iter().map(|(d, m)| (d.as_str(), m)))
    {
        for (method, m) in methods {
            println!(
                "{dataset:24} {method:16} n {:5}, hallucinated {:.2}, AUROC {:.3}, AUPRC {:.3}, F1 {:.3}, Brier {:.3}, ECE {:.3}",
                m.rows, m.positive_share, m.auroc, m.auprc, m.f1, m.brier, m.calibration_error
            );
        }
    }
    let own = &report.overall["estimator"];
    for (baseline, metrics) in report.overall.iter().filter(|(method, _)| *method != "estimator") {
        assert!(
            own.auroc > metrics.auroc + 0.03,
            "{baseline} has AUROC {:.3}, the estimator {:.3}",
            metrics.auroc,
            own.auroc
        );
        assert!(own.f1 > metrics.f1, "{baseline} has F1 {:.3}, the estimator {:.3}", metrics.f1, own.f1);
        assert!(own.brier < metrics.brier, "{baseline} has Brier {:.3}, the estimator {:.3}", metrics.brier, own.brier);
    }
    // A scorer that only told corpora apart would be worth a coin within each of them.
    let within: Vec<f64> = report.by_dataset.values().map(|methods| methods["estimator"].auroc).collect();
    assert!(within.iter().sum::<f64>() / within.len() as f64 > 0.65, "within corpora: {within:.3?}");
    assert_eq!(estimator.metrics(), own);
    assert!(own.calibration_error < 0.06, "{own:?}");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_artefact() {
    let Some(file) = weir_tests::shared("data/hallu_faithdial_audit/data.parquet") else { return };
    let pairs = read_labelled(&file).await.expect("the labelled pairs load").pairs;
    let id = |seed| {
        let config = HallucinationConfig { seed, epochs: 5, ..HallucinationConfig::default() };
        train_hallucination(&pairs, &config).expect("training succeeds").0.id().to_owned()
    };
    assert_eq!(id(1), id(1));
    assert_ne!(id(1), id(2));
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .expect("columns of one length");
    let mut writer = ArrowWriter::try_new(File::create(path).expect("a file"), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("is written");
    writer.close().expect("is closed");
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[tokio::test]
async fn a_file_that_is_no_labelled_set_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lacking = folder.path().join("lacking.parquet");
    write_parquet(&lacking, vec![("id", texts(&[Some("1")])), ("context", texts(&[Some("c")]))]);
    let text = folder.path().join("text.parquet");
    std::fs::write(&text, "id,label").expect("is written");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).expect("is made");
    for (path, says) in [
        (
            lacking,
            "it lacks the column(s) dataset, response, label; the columns needed are id, dataset, context, response, label",
        ),
        (text, "it is no Parquet file, or a damaged one"),
        (folder.path().join("absent.parquet"), "there is no such file or folder"),
        (empty, "there is no .parquet file in that folder"),
    ] {
        let refused = read_labelled(&path).await.expect_err("it is no labelled set");
        assert_eq!(refused.to_string(), format!("cannot read {}: {says}", path.display()));
        assert_eq!(refused.fault(), Fault::User);
    }
}

#[tokio::test]
async fn a_folder_is_read_as_all_of_its_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["one", "two"] {
        let columns = vec![
            ("id", texts(&[Some(name)])),
            ("dataset", texts(&[Some("d")])),
            ("context", texts(&[Some("c")])),
            ("response", texts(&[Some(name)])),
            ("label", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef),
        ];
        write_parquet(&folder.path().join(format!("{name}.parquet")), columns);
    }
    std::fs::write(folder.path().join("README.md"), "two files").expect("is written");
    let labelled = read_labelled(folder.path()).await.expect("both files are labelled sets");
    let responses: Vec<&str> = labelled.pairs.iter().map(|pair| pair.response.as_str()).collect();
    assert_eq!(responses, ["one", "two"]);
}

#[tokio::test]
async fn rows_that_are_no_pair_are_counted_and_named_when_a_class_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("pairs.parquet");
    write_parquet(
        &file,
        vec![
            ("id", texts(&[Some("1"), Some("2"), Some("3"), Some("4")])),
            ("dataset", texts(&[Some("d"); 4])),
            ("context", texts(&[Some("a"), Some("b"), None, Some("d")])),
            ("response", texts(&[Some("a"); 4])),
            ("label", Arc::new(Float64Array::from(vec![Some(1.0), Some(0.7), Some(0.0), None]))),
        ],
    );
    let labelled = read_labelled(&file).await.expect("it is a labelled set");
    assert_eq!((labelled.pairs.len(), labelled.left_out), (2, 2));
    let refused = train_on_labelled(&labelled, &HallucinationConfig::default()).expect_err("there is one class");
    let said = refused.to_string();
    assert!(said.contains("2 hallucinated and 0 faithful pairs were read, while 2 rows were left out"), "{said}");
    assert!(said.starts_with("cannot train a hallucination estimator: ") && !said.contains("policy"), "{said}");
    assert_eq!(refused.fault(), Fault::User);
}

#[test]
fn a_report_warns_of_labels_that_the_corpus_gives_away() {
    // Two corpora, one of them all hallucinated, and texts that say nothing about the label.
    let pairs: Vec<LabelledPair> = (0..300)
        .map(|i| {
            let context = format!("The river number {i} feeds lake {}.", i * 13);
            LabelledPair {
                dataset: if i % 2 == 0 { "made up" } else { "copied" }.to_owned(),
                response: context.clone(),
                context,
                hallucinated: i % 2 == 0,
            }
        })
        .collect();
    let config = HallucinationConfig { epochs: 5, ..HallucinationConfig::default() };
    let (estimator, report) = train_hallucination(&pairs, &config).expect("both classes are on each side");
    let of_corpus = "a trivial baseline (corpus_rate, AUROC 1.000) does as well";
    assert!(report.warnings.iter().any(|warning| warning.starts_with(of_corpus)), "{:?}", report.warnings);
    // The file itself carries the comparison, for whoever reports on the estimator later.
    let summary = Estimator::from_bytes(estimator.bytes()).expect("its own file").summary();
    assert_eq!(summary.artifact, estimator.id());
    assert_eq!(summary.metrics.keys().collect::<Vec<_>>(), report.overall.keys().collect::<Vec<_>>());
    assert_eq!(summary.metrics["corpus_rate"]["auroc"], 1.0);
}

#[tokio::test]
async fn a_folder_that_is_no_score_matrix_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().display();
    let refused = load_llmrouter(folder.path()).await.expect_err("the folder is empty");
    assert_eq!(
        refused.to_string(),
        format!(
            "cannot read the score matrix llmrouter in {place}: there is no queries.parquet, no scores.parquet, no \
             models.parquet in that folder"
        )
    );
    for name in ["queries.parquet", "scores.parquet", "models.parquet"] {
        write_parquet(&folder.path().join(name), vec![("query_id", texts(&[Some("q")]))]);
    }
    let refused = load_llmrouter(folder.path()).await.expect_err("the files hold something else");
    assert!(refused.to_string().contains("queries.parquet: it lacks the column(s) query, task;"), "{refused}");
    assert_eq!(refused.fault(), Fault::User);
}
