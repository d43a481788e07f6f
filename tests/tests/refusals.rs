//! What only a real broker can show: a topic that is missing, and tables that were filled from another cluster.

use std::path::Path;

use weir_tests::{Kafka, Weir};

fn configure(weir: &Weir, brokers: &str) {
    weir.configure(&format!("[kafka]\nbrokers = \"{brokers}\"\n"));
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

#[test]
fn a_missing_topic_and_a_foreign_cluster_are_refused_in_one_sentence() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(first) = Kafka::start(&folder.path().join("first")) else { return };
    let weir = Weir::new(folder.path());
    configure(&weir, &first.brokers);

    // No topic is there yet.
    let refused = weir.run(&["run", "--until-drained", "--no-http"]);
    assert_ne!(refused.code, 0);
    assert!(refused.sentence().contains("requests") && refused.sentence().contains("topic"), "{}", refused.stderr);
    assert_eq!(files_below(&weir.data()), 0, "something was written although nothing could be read");

    // With topics and traffic it runs.
    weir.run(&["simulate", "--seconds", "60", "--rate", "5", "--brokers", &first.brokers, "--create-topics", "1"]).ok();
    weir.run(&["run", "--until-drained", "--no-http"]).ok();
    let rows = weir.number("select count(*) from raw_requests");
    assert!(rows > 0.0);

    // The tables are of one job: another one would read the topics into them a second time.
    let files = files_below(&weir.data());
    weir.configure(&format!("[kafka]\nbrokers = \"{}\"\njob = \"another\"\n", first.brokers));
    let refused = weir.run(&["run", "--until-drained", "--no-http"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.sentence().contains("from another job"), "{}", refused.stderr);
    assert_eq!(files_below(&weir.data()), files, "the refused job left something behind");

    // A data folder that takes no files, not even from root.
    let unwritable = Weir::in_subfolder(folder.path(), "unwritable");
    let toml = format!("[store]\nurl = \"/proc/weir\"\n[kafka]\nbrokers = \"{}\"\n", first.brokers);
    std::fs::write(unwritable.data().with_file_name("weir.toml"), toml).expect("the test folder is writable");
    let refused = unwritable.run(&["run", "--until-drained", "--no-http"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.sentence().contains("cannot write to the data folder /proc/weir"), "{}", refused.stderr);

    // Another cluster with topics of the same names is not what these tables' positions are about.
    let Some(second) = Kafka::start(&folder.path().join("second")) else { return };
    configure(&weir, &second.brokers);
    weir.run(&["simulate", "--seconds", "60", "--rate", "5", "--brokers", &second.brokers, "--create-topics", "1"])
        .ok();
    let refused = weir.run(&["run", "--until-drained", "--no-http"]);
    assert_ne!(refused.code, 0);
    assert!(refused.sentence().contains("on Kafka cluster"), "{}", refused.stderr);
    assert_eq!(files_below(&weir.data()), files, "the refused job left something behind");
}
