//! `weir compact` as its users run it.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use weir_store::{Advance, Store, TableSpec, UtcDay};
use weir_tests::Weir;

/// A table of feedback with ten commits for each of the last four days, today included.
fn fill(weir: &Weir) {
    let schema =
        Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("event_date", DataType::Utf8, false)]);
    let spec = TableSpec {
        name: "feedback".to_owned(),
        schema: Arc::new(schema),
        partition_by: Some("event_date".to_owned()),
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(weir.data().to_str().unwrap()).await.unwrap();
        let mut table = store.table(&spec).await.unwrap();
        for step in 0..40_i64 {
            let day = UtcDay::today().minus_days(u32::try_from(step % 4).unwrap()).to_string();
            let rows = RecordBatch::try_from_iter([
                ("id", Arc::new(Int64Array::from(vec![step])) as _),
                ("event_date", Arc::new(StringArray::from(vec![day])) as _),
            ]);
            let advance = Advance { app_id: "test".to_owned(), expected: (step > 0).then_some(step), next: step + 1 };
            table.commit(vec![rows.unwrap()], vec![advance]).await.unwrap();
        }
    });
}

/// Rows of the newest version, by what the log says of its files.
fn rows(weir: &Weir) -> usize {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(weir.data().to_str().unwrap()).await.unwrap();
        let delta = store.existing("feedback").await.unwrap().unwrap().delta().await.unwrap();
        delta.snapshot().unwrap().log_data().iter().map(|file| file.num_records().unwrap()).sum()
    })
}

#[test]
fn compact_says_what_it_would_do_then_does_it_and_then_finds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let weir = Weir::new(folder.path());
    weir.configure("[retention]\nfeedback = 2\n");
    fill(&weir);
    assert_eq!(rows(&weir), 40);

    let planned = weir.run(&["compact", "--dry-run"]).ok();
    let plan = "feedback  40 files: would be: 10 past their days, 20 small ones merged (0.0 MiB)\n";
    assert_eq!(planned.stdout, plan);
    assert_eq!(weir.run(&["compact", "--dry-run"]).ok().stdout, plan, "a dry run changes nothing");

    let done = weir.run(&["compact", "feedback"]).ok();
    assert_eq!(done.stdout, "feedback  40 files: 10 past their days, 20 small ones merged into 2 (0.0 MiB)\n");
    assert_eq!(rows(&weir), 30);

    let again = weir.run(&["compact", "--json"]).ok().json();
    assert_eq!(again["feedback"]["files"], 12, "today's ten have not settled: {again}");
    assert_eq!(again["feedback"]["merged_files"], 0, "{again}");
    assert_eq!(weir.run(&["compact"]).ok().stdout, "feedback  12 files: nothing to do\n");
}

#[test]
fn a_table_that_is_not_there_is_named_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let weir = Weir::new(folder.path());
    weir.configure("");
    let nowhere = weir.run(&["compact"]);
    assert_eq!(nowhere.code, 2);
    assert!(nowhere.sentence().starts_with("there is no data folder"), "{}", nowhere.sentence());
    fill(&weir);
    let misspelt = weir.run(&["compact", "feedbak"]);
    assert_eq!(misspelt.code, 2);
    assert_eq!(misspelt.sentence(), "there is no table \"feedbak\"; there are: feedback");
}
