//! `weir features export`: Parquet that others read, split by session and time.

use std::fs::File;
use std::path::Path;
use std::process::Output;

use arrow::array::{AsArray, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use weir_schemas::{EventTimeMs, Propensity, Request};
use weir_store::Store;

#[path = "support/tables.rs"]
mod tables;

/// 1 January 2026.
const START_MS: i64 = 1_767_225_600_000;

fn weir(folder: &Path, arguments: &[&str]) -> Output {
    tables::weir(folder, ["features", "export"], arguments)
}

fn exported(folder: &Path, arguments: &[&str]) -> RecordBatch {
    let output = weir(folder, &[&["examples.parquet"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let file = File::open(folder.join("examples.parquet")).expect("the file is there");
    let mut batches = ParquetRecordBatchReaderBuilder::try_new(file).expect("is Parquet").build().expect("reads");
    let batch = batches.next().expect("has rows").expect("reads");
    assert!(batches.next().is_none() && !folder.join("examples.parquet.part").exists());
    batch
}

/// One request a minute for two hours, ten to a session.
fn observed(folder: &Path) {
    let requests: Vec<Request> = (0..120)
        .map(|n| Request {
            request_id: format!("r{n:03}"),
            arrival_ms: EventTimeMs(START_MS + 60_000 * n),
            session_id: Some(format!("s{}", n / 10)),
            intended_model: Some("small".to_owned()),
            propensity: Propensity::new(0.5).ok(),
            ..Request::default()
        })
        .collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(folder.join("weir-data").to_str().expect("UTF-8")).await.expect("the store opens");
        tables::append(&store, Request::contract(), &requests).await;
    });
}

#[test]
fn a_session_is_never_on_both_sides_of_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    observed(folder.path());
    assert_eq!(exported(folder.path(), &[]).num_rows(), 120);
    assert_eq!(exported(folder.path(), &["--from", "2026-01-01T01:00"]).num_rows(), 60);
    // The sixth session has requests of 00:50 to 00:59; the cut goes through it.
    let batch = exported(folder.path(), &["--cut", "2026-01-01T00:55"]);
    assert_eq!(batch.num_rows(), 110);
    let (splits, clusters) = (batch.column_by_name("split").unwrap(), batch.column_by_name("cluster").unwrap());
    let (splits, clusters) = (splits.as_string::<i32>(), clusters.as_string::<i32>());
    for (split, cluster) in splits.iter().zip(clusters) {
        let number: u32 = cluster.unwrap()[1..].parse().unwrap();
        assert_eq!(split, Some(if number < 5 { "train" } else { "test" }), "{cluster:?}");
        assert_ne!(number, 5);
    }
}

#[test]
fn what_cannot_be_cut_or_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    observed(folder.path());
    let refused = |arguments: &[&str]| {
        let output = weir(folder.path(), arguments);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["x.parquet", "--from", "2026-01-02", "--cut", "2026-01-01"]).contains("--cut must lie within"));
    assert!(refused(&["x.parquet", "--from", "2026-01-02", "--to", "2026-01-01"]).contains("--from must be before"));
    assert!(refused(&["nowhere/x.parquet"]).contains("cannot write nowhere/x.parquet"));
    assert!(!folder.path().join("x.parquet").exists());
}
