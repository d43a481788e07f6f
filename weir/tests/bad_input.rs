//! Bad input gets one clear sentence that says how to mend it, a non-zero exit, and leaves nothing half-written.

use std::path::Path;
use std::process::{Command, Output};

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.current_dir(folder).args(arguments).env("WEIR_LOG", "off");
    command
}

fn weir(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().expect("the binary starts")
}

/// The sentence on standard error, after checking that it is the only one and that the exit code says failure.
fn sentence(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(output.status.code(), Some(0), "exit code 0 although: {stderr}");
    assert!(output.status.code().is_some(), "ended by a signal: {stderr}");
    let said: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(said.len(), 1, "one sentence, not: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    said[0].trim_start_matches("weir: ").to_owned()
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// A port on which nobody listens: bound once to learn its number, then released.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

#[test]
fn an_unreachable_broker_is_named_and_no_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let brokers = format!("127.0.0.1:{}", closed_port());
    let said = sentence(&weir(folder.path(), &["run", "--brokers", &brokers, "--no-http"]));
    assert!(said.contains(&brokers) && said.contains("no Kafka broker answered"), "{said}");
    assert_eq!(entries(folder.path()), Vec::<String>::new(), "something was written");
}

#[test]
fn positions_are_told_without_a_broker_and_moved_only_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let said = sentence(&weir(folder.path(), &["positions", "list"]));
    assert!(said.contains("there is no data folder"), "{said}");
    std::fs::create_dir(folder.path().join("weir-data")).unwrap();
    let brokers = format!("127.0.0.1:{}", closed_port());
    let toml =
        format!("[kafka]\nbrokers = \"{brokers}\"\n[kafka.properties]\n\"metadata.request.timeout.ms\" = \"500\"\n");
    std::fs::write(folder.path().join("weir.toml"), toml).unwrap();
    let listed = weir(folder.path(), &["positions", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("one object");
    assert!(listed["kafka_error"].as_str().is_some_and(|error| error.contains(&brokers)), "{listed}");
    for (arguments, words) in [
        (["skip", "requests/0", "--to", "latest"], "has no positions of topic requests"),
        (["skip", "requests", "--to", "latest"], "write TOPIC/PARTITION"),
        (["skip", "requests/0", "--to", "sooner"], "write an offset, earliest or latest"),
    ] {
        let output = weir(folder.path(), &[&["positions"], &arguments[..], &["--actor", "ann"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(words), "{arguments:?}: {stderr}");
    }
    let said = sentence(&weir(folder.path(), &["positions", "forget", "requests", "--actor", "ann"]));
    assert!(said.contains("has no positions of topic requests"), "{said}");
    assert_eq!(entries(&folder.path().join("weir-data")), Vec::<String>::new(), "something was written");
}

#[test]
fn entries_of_topics_without_a_usable_name_or_pattern_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (entry, mend) in [
        ("", "give name, or pattern"),
        ("name = \"a\"\npattern = \"b.*\"", "has name and pattern: keep one of them"),
        ("pattern = \"llm.(\"", "unclosed group; write a regular expression that whole names match"),
        ("pattern = \"\"", "it is empty; write a regular expression"),
    ] {
        std::fs::write(folder.path().join("weir.toml"), format!("[[kafka.topics]]\n{entry}\nformat = \"requests\"\n"))
            .unwrap();
        let said = sentence(&weir(folder.path(), &["run", "--no-http"]));
        assert!(said.contains(mend), "{said}");
        assert_eq!(entries(folder.path()), ["weir.toml"], "something was written");
    }
}

#[test]
fn producing_to_an_unreachable_broker_says_so_too() {
    let folder = tempfile::tempdir().unwrap();
    let brokers = format!("127.0.0.1:{}", closed_port());
    let said = sentence(&weir(folder.path(), &["simulate", "--seconds", "1", "--brokers", &brokers]));
    assert!(said.contains(&brokers), "{said}");
}

#[test]
fn an_unknown_trace_format_lists_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("trace.csv"), "a,b\n1,2\n").unwrap();
    for arguments in [
        &["replay", "trace.csv", "--out", "events.jsonl"][..],
        &["replay", "trace.csv", "--format", "burstgpt", "--out", "events.jsonl"][..],
    ] {
        let said = sentence(&weir(folder.path(), arguments));
        assert!(said.contains("azure-llm") && said.contains("mooncake") && said.contains("servegen"), "{said}");
        assert!(!folder.path().join("events.jsonl").exists(), "an output file was left behind");
    }
}

#[test]
fn a_missing_trace_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let said = sentence(&weir(folder.path(), &["replay", "nowhere", "--out", "-"]));
    assert!(said.contains("nowhere"), "{said}");
}

#[test]
fn an_unwritable_output_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("occupied"), "not a folder").unwrap();
    let output = weir(folder.path(), &["simulate", "--seconds", "1", "--out", "occupied/events.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(sentence(&output).contains("occupied/events.jsonl"));
    assert_eq!(entries(folder.path()), ["occupied"]);
}

#[test]
fn a_full_disk_behind_standard_output_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["simulate", "--seconds", "1", "--out", "events.jsonl"][..],
        &["simulate", "--seconds", "60", "--out", "-"][..],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = command(folder.path(), arguments);
        let output =
            command.stdout(full).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(sentence(&output).contains("standard output"), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), &["simulate", "--seconds", "600", "--out", "-"]);
    let mut process = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(process.stdout.take());
    assert_eq!(process.wait().unwrap().code(), Some(0));
}

#[test]
fn with_events_on_standard_output_the_summary_is_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    for json in [&[][..], &["--json"][..]] {
        let output = weir(folder.path(), &[&["simulate", "--seconds", "30", "--out", "-"], json].concat());
        assert_eq!(output.status.code(), Some(0));
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let event: serde_json::Value = serde_json::from_str(line).expect("only JSON lines");
            assert!(event["topic"].is_string() && event["event"].is_object(), "{line}");
        }
        assert!(String::from_utf8_lossy(&output.stderr).contains("requests"), "no summary");
    }
}

/// A file with the columns of the Azure trace and `rows` rows.
fn azure_trace(path: &Path, rows: i64) {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    let numbers = || std::sync::Arc::new(Int64Array::from_iter_values(1..=rows)) as ArrayRef;
    let service = std::sync::Arc::new(StringArray::from_iter_values((0..rows).map(|_| "code"))) as ArrayRef;
    let columns = [
        ("ts_unix_ns", numbers()),
        ("service", service),
        ("context_tokens", numbers()),
        ("generated_tokens", numbers()),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_damaged_trace_is_bad_input_and_leaves_the_output_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.parquet");
    azure_trace(&trace, 10_000);
    // The footer is whole, so the damage is found when rows are read: late, after the output was opened.
    let mut bytes = std::fs::read(&trace).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle - 400..middle].fill(0xff);
    std::fs::write(&trace, &bytes).unwrap();
    std::fs::write(folder.path().join("events.jsonl"), "earlier\n").unwrap();
    let output = weir(folder.path(), &["replay", "trace.parquet", "--out", "events.jsonl"]);
    assert!(sentence(&output).contains("trace.parquet"));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(folder.path().join("events.jsonl")).unwrap(), "earlier\n");
    assert_eq!(entries(folder.path()), ["events.jsonl", "trace.parquet"]);
}

#[test]
fn an_output_that_is_the_input_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.parquet");
    azure_trace(&trace, 10);
    let before = std::fs::read(&trace).unwrap();
    for input in ["trace.parquet", "."] {
        let said = sentence(&weir(folder.path(), &["replay", input, "--out", "trace.parquet"]));
        assert!(said.contains("--out"), "{said}");
    }
    assert_eq!(std::fs::read(&trace).unwrap(), before);
}

#[test]
fn an_option_that_a_trace_would_ignore_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    azure_trace(&folder.path().join("trace.parquet"), 10);
    for option in
        [&["--passes", "2"], &["--part", "nq"], &["--logging", "uniform"], &["--model", "m"], &["--from", "0"]]
    {
        let arguments = [&["replay", "trace.parquet", "--out", "events.jsonl"], &option[..]].concat();
        let said = sentence(&weir(folder.path(), &arguments));
        assert!(said.contains(option[0]) && said.contains("azure-llm"), "{said}");
    }
    for (command, rest) in
        [("replay", &["trace.parquet", "--out", "events.jsonl"][..]), ("estimate", &["-", "--artifact", "a"])]
    {
        let said = sentence(&weir(folder.path(), &[&[command], rest, &["--data", "elsewhere"]].concat()));
        assert!(said.contains("--data"), "{said}");
    }
    assert_eq!(entries(folder.path()), ["trace.parquet"]);
}

#[test]
fn settings_beyond_all_bounds_are_refused_by_the_name_of_their_option() {
    let folder = tempfile::tempdir().unwrap();
    for (option, value) in [
        ("--seconds", "9223372036854775"),
        ("--seconds", "0"),
        ("--start-ms", "9223372036854775807"),
        ("--rate", "0"),
        ("--rate", "1e300"),
    ] {
        let output = weir(folder.path(), &["simulate", option, value, "--out", "events.jsonl"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(option) && stderr.contains(value), "{stderr}");
    }
    assert_eq!(entries(folder.path()), Vec::<String>::new());
}

#[test]
fn an_unwritable_data_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    // A file where the folder should be cannot be written below, whoever asks (root may write anywhere else).
    std::fs::write(folder.path().join("occupied"), "not a folder").unwrap();
    let output = weir(folder.path(), &["--data", "occupied/data", "check"]);
    // Another part that is missing here is named beside it; the folder must be whoever else fails.
    sentence(&output);
    let listed = String::from_utf8_lossy(&output.stdout);
    assert!(listed.contains("FAILED store") && listed.contains("occupied"), "{listed}");
}

#[test]
fn a_data_folder_that_is_not_there_is_not_taken_for_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["sql", "select 1"][..], &["policy", "list"][..], &["serve"][..]] {
        let said = sentence(&weir(folder.path(), command));
        assert!(said.contains("weir-data") && said.contains("--data"), "{said}");
    }
    assert_eq!(entries(folder.path()), Vec::<String>::new(), "something was written");
}

#[test]
fn a_misspelt_configuration_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("weir.toml"), "[ingest]\nflush_row = 10\n").unwrap();
    let said = sentence(&weir(folder.path(), &["run"]));
    assert!(said.contains("flush_row") && said.contains("weir.toml"), "{said}");
}

#[test]
fn an_adapter_that_does_not_compile_is_named_with_its_output_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let config = |adapter: &str| std::fs::write(folder.path().join("weir.toml"), adapter).unwrap();
    let sql = "SELECT id AS request_id, epoch_ms(at) AS arrival_ms, prompt AS tenant FROM message";
    let own = |name: &str| {
        format!(
            "[[adapters]]\nname = \"{name}\"\ncolumns = \"id text, at text, prompt text\"\npersonal = [\"prompt\"]\n\
             [[adapters.outputs]]\ntable = \"requests\"\nsql = \"{sql}\"\n"
        )
    };
    config(&own("house"));
    let said = sentence(&weir(folder.path(), &["adapters", "list"]));
    assert!(said.contains("adapter house, output requests, column tenant") && said.contains("people's text"), "{said}");
    config(&own("litellm"));
    let said = sentence(&weir(folder.path(), &["adapters", "list"]));
    assert!(said.contains("there is an adapter litellm already"), "{said}");
    config("");
    let said = sentence(&weir(folder.path(), &["adapters", "show", "lite"]));
    assert!(said.contains("there is no adapter lite: take one of litellm, "), "{said}");
    let shown = weir(folder.path(), &["adapters", "show", "litellm", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("one object");
    assert_eq!(shown["outputs"][0]["table"], "requests");
}

#[test]
fn a_query_that_would_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    for query in [
        "drop table raw_requests",
        "copy (select 1) to 'out.csv'",
        "insert into raw_requests select * from raw_requests",
    ] {
        let said = sentence(&weir(folder.path(), &["--data", "data", "sql", query]));
        assert!(said.contains("read"), "{query}: {said}");
    }
    assert!(!folder.path().join("out.csv").exists());
}

#[test]
fn with_json_the_sentence_is_on_standard_output_too() {
    let folder = tempfile::tempdir().unwrap();
    let output = weir(folder.path(), &["sql", "select 1", "--json"]);
    let said = sentence(&output);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(json["error"].as_str(), Some(said.as_str()));
    assert_eq!(json["fault"].as_str(), Some("user"));
}
