//! `weir learn`, `weir evaluate` and `weir estimate`, on tables that hold simulated traffic.

mod support;
#[path = "support/tables.rs"]
mod tables;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value;
use support::weir;
use tables::append;
use weir_learners::exports::vllm_sr::Artifact;
use weir_policy_runtime::{Bundle, Lineage, Manifest};
use weir_schemas::{Feedback, Request};
use weir_store::Store;

fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = weir(folder, arguments);
    assert!(output.status.success(), "weir {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the binary prints UTF-8")
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(folder, arguments)).expect("one JSON object")
}

/// The one sentence of a command that failed through its user's fault.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = weir(folder, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "weir {}: {stderr}", arguments.join(" "));
    let said: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(said.len(), 1, "one sentence, not: {stderr}");
    said[0].trim_start_matches("weir: ").to_owned()
}

/// Simulated traffic in the raw tables of `weir-data`, as ingest would have left it.
fn simulated(folder: &Path, seconds: &str) {
    simulated_with(folder, seconds, |_| {});
}

/// The same, with something done to every request.
fn simulated_with(folder: &Path, seconds: &str, change: impl Fn(&mut Value)) {
    let mut events = simulated_events(folder, seconds, "3");
    events.iter_mut().filter(|line| line["topic"] == "requests").for_each(|line| change(&mut line["event"]));
    stored(folder, &events);
}

/// More traffic, an hour after what began at the same time, of other sessions.
fn simulated_later(folder: &Path, seconds: &str) {
    let mut events = simulated_events(folder, seconds, "4");
    for line in &mut events {
        let event = line["event"].as_object_mut().expect("an event");
        for (name, value) in event.iter_mut() {
            match name.as_str() {
                "arrival_ms" | "event_ms" => *value = (value.as_i64().expect("a time") + 3_600_000).into(),
                "request_id" | "session_id" | "feedback_id" if value.is_string() => {
                    *value = format!("later-{}", value.as_str().expect("an id")).into();
                }
                _ => {}
            }
        }
    }
    stored(folder, &events);
}

fn simulated_events(folder: &Path, seconds: &str, seed: &str) -> Vec<Value> {
    done(folder, &["simulate", "--seconds", seconds, "--rate", "20", "--seed", seed, "--out", "events.jsonl"]);
    let text = std::fs::read_to_string(folder.join("events.jsonl")).expect("simulated events");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

fn stored(folder: &Path, lines: &[Value]) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(folder.join("weir-data").to_str().expect("UTF-8")).await.expect("the store opens");
        for (contract, topic) in [(Request::contract(), "requests"), (Feedback::contract(), "feedback")] {
            let events: Vec<&Value> =
                lines.iter().filter(|line| line["topic"] == topic).map(|line| &line["event"]).collect();
            append(&store, contract, &events).await;
        }
    });
}

#[test]
fn a_policy_is_judged_on_sessions_that_it_was_not_trained_on_and_against_the_one_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    simulated(folder, "900");
    done(folder, &["policy", "keygen", "signing.key"]);
    let learned = json(folder, &["learn", "policy", "--key", "signing.key", "--json"]);
    let id = learned["policy_id"].as_str().expect("an id").to_owned();
    let held_out = learned["report"]["data"]["decisions"].as_u64().expect("a count");
    assert!(learned["report"]["in_force"].is_null(), "none was in force");
    assert!(!learned["report"]["estimators"]["output length"]["metrics"]["by domain"].is_null(), "{learned}");

    // The same logs again: baselines are chosen on the training sessions, and none of them is judged on.
    let judged = json(folder, &["evaluate", &id, "--json"]);
    let decisions = judged["report"]["data"]["decisions"].as_u64().expect("a count");
    assert!(decisions > 0 && decisions == held_out, "{decisions} judged, {held_out} were held out");
    let text = done(folder, &["evaluate", &id]);
    assert!(text.contains("Judged on ") && text.contains(" had no reward"), "{text}");

    // On the queries of a matrix it would have to say that it saw no test query.
    std::fs::create_dir(folder.join("matrix")).unwrap();
    let said = refused(folder, &["evaluate", &id, "--matrix", "matrix"]);
    assert!(said.contains("split=train"), "{said}");

    let approve = ["policy", "approve", &id, "--actor", "tests", "--reason", "to be in force", "--force"];
    done(folder, &approve);
    let second = json(folder, &["learn", "policy", "--key", "signing.key", "--seed", "8", "--json"]);
    assert_eq!(second["report"]["in_force"]["policy_id"].as_str(), Some(id.as_str()));
    assert_eq!(second["report"]["data"]["decisions"].as_u64(), Some(held_out), "another seed, the same exam");
    assert_ne!(second["verdict"], "better", "the same logs taught both");
    let second_id = second["policy_id"].as_str().expect("an id").to_owned();
    let text = done(folder, &["evaluate", &second_id]);
    assert!(text.contains("policy in force"), "{text}");
    // In force itself, it has nobody to beat.
    assert!(!done(folder, &["evaluate", &id]).contains("policy in force"));
}

/// Each session's model is called in one of two modes, drawn evenly and logged as the draw of an action.
#[test]
fn a_policy_chooses_modes_of_reasoning_where_they_were_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    simulated_with(folder, "900", |event| {
        let session = event["session_id"].as_str().unwrap_or_default().to_owned();
        let mode = if session.bytes().map(u32::from).sum::<u32>() % 2 == 0 { "low" } else { "high" };
        let named = |model: &Value, mode: &str| format!("{};reasoning={mode}", model.as_str().expect("a name"));
        event["reasoning_effort"] = mode.into();
        event["intended_model"] = named(&event["intended_model"], mode).into();
        event["propensity"] = (event["propensity"].as_f64().expect("it is logged") / 2.0).into();
        let halves = event["candidates"].as_array().expect("they are logged").iter().flat_map(|candidate| {
            let half = candidate["propensity"].as_f64().expect("it is logged") / 2.0;
            ["low", "high"]
                .map(|mode| serde_json::json!({ "model": named(&candidate["model"], mode), "propensity": half }))
        });
        event["candidates"] = halves.collect::<Vec<Value>>().into();
    });
    done(folder, &["policy", "keygen", "signing.key"]);
    let learn = ["learn", "policy", "--key", "signing.key", "--json"];
    let of_models = json(folder, &learn);
    std::fs::write(folder.join("parts.toml"), "[objective]\naction_parts = [\"reasoning\"]\n").unwrap();
    let with_parts = [&learn[..], &["--config", "parts.toml"]].concat();
    let of_actions = json(folder, &with_parts);
    let evaluated = |learned: &Value| learned["report"]["data"]["evaluated"].as_u64().expect("a count");
    assert!(evaluated(&of_models) > 0);
    assert_eq!(evaluated(&of_actions), evaluated(&of_models), "every draw can judge, read either way");
    for learned in [&of_models, &of_actions] {
        assert_eq!(learned["report"]["data"]["inconsistent_propensity"], 0);
    }
    let actions = |learned: &Value| -> Vec<String> {
        let id = learned["policy_id"].as_str().expect("an id");
        done(folder, &["policy", "export", id, &id[7..19]]);
        let spec = std::fs::read_to_string(folder.join(&id[7..19]).join("policy.json")).expect("policy.json");
        let spec: Value = serde_json::from_str(&spec).expect("JSON");
        let names = spec["actions"].as_array().expect("a list").iter().map(|action| action["model"].as_str());
        names.map(|name| name.expect("a name").to_owned()).collect()
    };
    let (models, modes) = (actions(&of_models), actions(&of_actions));
    assert!(models.iter().all(|name| !name.contains(';')), "{models:?}");
    let both = |model: &String| ["high", "low"].map(|mode| format!("{model};reasoning={mode}"));
    assert_eq!(modes, models.iter().flat_map(both).collect::<Vec<String>>());

    // One of models in force is not what modes are held against, and the other way round.
    for (in_force, held) in [(&of_models, &learn[..]), (&of_actions, &with_parts[..])] {
        let id = in_force["policy_id"].as_str().expect("an id");
        done(folder, &["policy", "approve", id, "--actor", "tests", "--reason", "to be in force", "--force"]);
        for learn in [&learn[..], &with_parts[..]] {
            let second = json(folder, &[learn, &["--seed", "8"]].concat());
            assert_eq!(!second["report"]["in_force"].is_null(), learn == held, "{}", second["report"]["in_force"]);
        }
    }
    let id = of_actions["policy_id"].as_str().expect("an id");
    let judged = json(folder, &["evaluate", id, "--json"]);
    assert!(
        judged["report"]["data"]["decisions"].as_u64().expect("a count") > 0,
        "its own names are its log's: {judged}"
    );
    let refused = refused(folder, &[&with_parts[..], &["--vllm-sr", "64"]].concat());
    assert!(refused.contains("leave out --vllm-sr"), "{refused}");
}

#[test]
fn a_bundle_that_does_not_say_what_it_was_trained_on_is_not_judged_by_logs() {
    let folder = tempfile::tempdir().unwrap();
    support::signed_bundle(folder.path());
    simulated(folder.path(), "20");
    let said = refused(folder.path(), &["evaluate", "bundle"]);
    assert!(said.contains("lineage.data.holdout_share") && said.contains("weir learn policy"), "{said}");
}

fn labelled(path: &Path, pairs: usize) {
    let text =
        |of: &dyn Fn(usize) -> String| Arc::new((0..pairs).map(|i| Some(of(i))).collect::<StringArray>()) as ArrayRef;
    let context = |i: usize| format!("The river number {i} flows through valley {} and feeds lake {}.", i * 7, i * 13);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", text(&|i| i.to_string())),
        ("dataset", text(&|_| "made up".to_owned())),
        ("context", text(&context)),
        ("response", text(&|i| if i % 2 == 0 { format!("Mount {i} erupted near Paris.") } else { context(i) })),
        ("label", Arc::new((0..pairs).map(|i| Some(if i % 2 == 0 { 1.0 } else { 0.0 })).collect::<Float64Array>())),
    ];
    parquet(path, columns);
}

fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let file = std::fs::File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("is written");
    writer.close().expect("is closed");
}

#[test]
fn an_estimator_is_learned_from_a_folder_and_judges_a_file_without_quoting_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("labelled")).unwrap();
    labelled(&folder.join("labelled/pairs.parquet"), 300);
    let report =
        json(folder, &["learn", "hallucination", "--labelled", "labelled", "--out", "estimator.weir", "--json"]);
    assert!(report["overall"]["estimator"]["auroc"].as_f64() > Some(0.9), "{report}");

    let lines = [
        r#"{"id": "a", "context": "The dam is 90 metres high.", "response": "The dam is 90 metres high."}"#,
        r#"{"id": "b", "context": "The dam is 90 metres high.", "response": "Mount Etna erupted near Paris."}"#,
        r#"{"context": "", "response": "It is 42."}"#,
    ];
    std::fs::write(folder.join("pairs.jsonl"), lines.join("\n")).unwrap();
    let printed = done(folder, &["estimate", "pairs.jsonl", "--artifact", "estimator.weir"]);
    let judged: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    let probability = |row: usize| judged[row]["hallucination_probability"].as_f64();
    assert!(probability(0) < probability(1) && probability(1).is_some(), "{printed}");
    assert_eq!((judged[2]["checked"].as_bool(), probability(2)), (Some(false), None), "{printed}");
    assert!(!printed.contains("dam") && !printed.contains("Etna"), "{printed}");

    std::fs::write(folder.join("pairs.jsonl"), "{\"context\": \"a secret\", \"response\": 7}").unwrap();
    let said = refused(folder, &["estimate", "pairs.jsonl", "--artifact", "estimator.weir"]);
    assert!(
        said.contains("pairs.jsonl line 1") && said.contains("context and response") && !said.contains("secret"),
        "{said}"
    );
    std::fs::write(folder.join("other.weir"), "{}").unwrap();
    let said = refused(folder, &["estimate", "pairs.jsonl", "--artifact", "other.weir"]);
    assert!(said.contains("hallucination estimator"), "{said}");
    let said = refused(folder, &["estimate", "absent.jsonl", "--artifact", "estimator.weir"]);
    assert!(said.contains("absent.jsonl"), "{said}");
}

#[test]
fn labelled_sets_that_cannot_teach_are_refused_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("empty")).unwrap();
    labelled(&folder.join("few.parquet"), 2);
    for (path, says) in
        [("empty", "no .parquet file"), ("absent.parquet", "no labelled set"), ("few.parquet", "1 hallucinated")]
    {
        let said = refused(folder, &["learn", "hallucination", "--labelled", path, "--out", "estimator.weir"]);
        assert!(said.contains(says), "{path}: {said}");
        assert!(!folder.join("estimator.weir").exists());
    }
}

#[test]
fn learning_without_logs_or_with_a_bad_tag_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    done(folder, &["policy", "keygen", "signing.key"]);
    std::fs::create_dir(folder.join("weir-data")).unwrap();
    let said = refused(folder, &["learn", "policy", "--key", "signing.key"]);
    assert!(said.contains("0 model(s)"), "{said}");
    let said = refused(folder, &["learn", "policy", "--key", "signing.key", "--tag", "train"]);
    assert!(said.contains("--tag split=train"), "{said}");
    let said = refused(folder, &["evaluate", "--matrix", "nowhere"]);
    assert!(said.contains("nowhere"), "{said}");
}

/// A score matrix of two parts, each with two models of its own, on a hundred queries.
fn matrix(folder: &Path) {
    std::fs::create_dir(folder).expect("is made");
    let ids: Vec<String> = (0..100).map(|i| format!("q{i:03}")).collect();
    let texts = |of: &dyn Fn(usize) -> String, rows: usize| {
        Arc::new((0..rows).map(|i| Some(of(i))).collect::<StringArray>()) as ArrayRef
    };
    let numbers = |of: &dyn Fn(usize) -> f64, rows: usize| {
        Arc::new((0..rows).map(|i| Some(of(i))).collect::<Float64Array>()) as ArrayRef
    };
    for (prefix, models) in [("", ["a", "b"]), ("nq_", ["small", "large"])] {
        let queries = vec![
            ("query_id", texts(&|i| ids[i].clone(), 100)),
            ("query", texts(&|i| format!("question number {i}?"), 100)),
            ("task", texts(&|_| "trivia".to_owned(), 100)),
        ];
        let scores = vec![
            ("query_id", texts(&|i| ids[i / 2].clone(), 200)),
            ("model", texts(&|i| models[i % 2].to_owned(), 200)),
            ("score", numbers(&|i| (i % 2) as f64, 200)),
            ("cost_usd", numbers(&|i| 1e-4 * (i % 2 + 1) as f64, 200)),
        ];
        parquet(&folder.join(format!("{prefix}queries.parquet")), queries);
        parquet(&folder.join(format!("{prefix}scores.parquet")), scores);
    }
    let prices = vec![
        ("model", texts(&|i| ["a", "b"][i].to_owned(), 2)),
        ("input_usd_per_mtok", numbers(&|_| 1.0, 2)),
        ("output_usd_per_mtok", numbers(&|_| 1.0, 2)),
    ];
    parquet(&folder.join("models.parquet"), prices);
}

#[test]
fn a_policy_is_judged_on_the_part_of_a_matrix_whose_models_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    matrix(&folder.join("matrix"));
    let lineage = Lineage { data: [("tag".to_owned(), "split=train".to_owned())].into(), ..Lineage::default() };
    let manifest = Manifest::routing_policy("questions", 0, lineage, serde_json::json!({}));
    let bundle = Bundle::build(manifest, support::bundle().files).unwrap();
    bundle.write_dir(&folder.join("questions"), None).unwrap();
    let report = json(folder, &["evaluate", "questions", "--matrix", "matrix", "--json"]);
    assert_eq!(report["matrix"], "llmrouter-nq");
    assert!(report["scores"].as_array().unwrap().iter().any(|score| score["policy"] == "policy as published"));

    for part in ["nq_queries.parquet", "nq_scores.parquet"] {
        std::fs::copy(folder.join("matrix").join(part.trim_start_matches("nq_")), folder.join("matrix").join(part))
            .unwrap();
    }
    let said = refused(folder, &["evaluate", "questions", "--matrix", "matrix"]);
    assert!(said.contains("small, large"), "{said}");
}

/// Prompts of a session grow: their blocks are its own, as many as 512 tokens each make.
#[test]
fn a_bundle_brings_a_table_of_retention_where_the_cache_is_named_and_prompts_have_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    simulated_with(folder, "600", |request| {
        let session: i64 = request["session_id"]
            .as_str()
            .map_or(0, |id| id.bytes().fold(7, |sum, byte| (sum * 31 + i64::from(byte)) % 1_000_003));
        let blocks = request["prompt_tokens"].as_i64().unwrap_or(0) / 512 + 1;
        request["prefix_block_hashes"] = (0..blocks).map(|block| session * 1_000 + block).collect();
    });
    done(folder, &["policy", "keygen", "signing.key"]);
    let learn = ["learn", "policy", "--key", "signing.key", "--json"];
    let retention = |more: &[&str], place: &str| -> Option<Value> {
        let learned = json(folder, &[&learn[..], more].concat());
        done(folder, &["policy", "export", learned["policy_id"].as_str().expect("an id"), place]);
        let text = std::fs::read_to_string(folder.join(place).join("knobs/kv_retention.json")).ok()?;
        Some(serde_json::from_str(&text).expect("JSON"))
    };
    assert_eq!(retention(&[], "without"), None, "nobody named a cache");
    // Few, so that last use alone does not keep everything.
    let table = retention(&["--seed", "8", "--kv-blocks", "100"], "with").expect("there is a table");
    let rows = table["rows"].as_array().expect("rows");
    let ttl = table["values"].as_array().expect("names").iter().position(|name| name == "ttl_s").expect("is a value");
    assert!(rows.iter().any(|row| row["values"][ttl].as_f64() > Some(0.0)), "{table}");
    assert!(rows.iter().all(|row| row["key"][0].is_string() && row["evidence"].as_u64() > Some(0)), "{table}");
    assert_eq!(table["routers"]["weir-decide"], "advisory");
    let said = refused(folder, &[&learn[..4], &["--kv-blocks", "2000", "--kv-pool", "elsewhere"]].concat());
    assert!(said.contains("prefix_block_hashes"), "{said}");
}

/// Simulated routers draw among five models; the dearest answers best.
#[test]
fn a_cascade_is_learned_from_logs_and_travels_in_the_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    simulated(folder, "4500");
    let learn = ["learn", "cascade", "--cheap", "mosaic-9b", "--strong", "summit-200b", "--out", "cascade.json"];
    let learned = json(folder, &[&learn[..], &["--alpha", "0.3", "--weight-max", "50", "--json"]].concat());
    assert!(learned["metrics"]["rows"].as_u64() >= Some(50) && learned["decisions"].as_u64() > Some(0), "{learned}");
    assert!(learned["choice"]["risk"].as_f64() <= Some(0.3), "{learned}");
    let text = std::fs::read_to_string(folder.join("cascade.json")).expect("it is written");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&file["cheap_model"], &file["threshold"]), (&"mosaic-9b".into(), &learned["choice"]["threshold"]));

    done(folder, &["policy", "keygen", "signing.key"]);
    let policy = ["learn", "policy", "--key", "signing.key", "--cascade", "cascade.json"];
    let id = json(folder, &[&policy[..], &["--json"]].concat())["policy_id"].as_str().expect("an id").to_owned();
    done(folder, &["policy", "export", &id, "bundle"]);
    assert_eq!(std::fs::read_to_string(folder.join("bundle/cascade.json")).expect("it is in the bundle"), text);

    std::fs::write(folder.join("cascade.json"), text.replace("\"grace_ms\": 5000", "\"grace_ms\": -1")).unwrap();
    assert!(refused(folder, &policy).contains("grace_ms"));
    std::fs::write(folder.join("cascade.json"), text.replace("mosaic-9b", "nope")).unwrap();
    let said = refused(folder, &policy);
    assert!(said.contains("the model \"nope\"") && said.contains("mosaic-9b"), "{said}");
    let said = refused(folder, &learn);
    assert!(said.contains("cascade.json is there already") && said.contains("--overwrite"), "{said}");
    let said =
        refused(folder, &["learn", "cascade", "--cheap", "nobody", "--strong", "summit-200b", "--out", "x.json"]);
    assert!(said.contains("nobody") && said.contains("mosaic-9b"), "{said}");
}

/// Decisions of another system in a file: every estimator, and a refusal that says how to mend it.
#[test]
fn a_file_of_decisions_is_judged_by_every_estimator() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Two models drawn evenly; the target always takes the second, which is right in four of five and the first in two of five.
    let mut csv = String::from("reward,propensity,target_probability,q_logged,q_policy,cluster\n");
    for n in 0..1_000 {
        let second = n % 2 == 1;
        let reward = if second { n % 10 != 1 } else { n % 10 < 4 };
        let (target, guess) = if second { (1.0, 0.8) } else { (0.0, 0.4) };
        csv.push_str(&format!("{},0.5,{target},{guess},0.8,s{}\n", u8::from(reward), n / 2));
    }
    std::fs::write(folder.join("rounds.csv"), &csv).unwrap();
    let judged =
        json(folder, &["evaluate", "--rounds", "rounds.csv", "--reward-range", "0,1", "--weight-max", "2", "--json"]);
    assert_eq!(
        (&judged["verdict"], &judged["rounds"]),
        (&serde_json::json!("better"), &serde_json::json!(1_000)),
        "{judged}"
    );
    for one in judged["methods"].as_array().unwrap() {
        // In exact proportion to the probabilities, so each estimator that alters no weight gives the closed form.
        if one["is_consistent"] == serde_json::json!(true) {
            assert!((one["value"].as_f64().unwrap() - 0.8).abs() < 1e-9, "{one}");
        }
    }
    let text = done(folder, &["evaluate", "--rounds", "rounds.csv", "--bootstraps", "200", "--reward-range", "0,1"]);
    assert!(text.starts_with("1000 decisions: better\n") && text.contains("SWITCH-DR"), "{text}");
    assert!(text.contains("DM                 0.8000 (0.8000 to 0.8000) (shown, never decisive)"), "{text}");
    assert!(text.contains("at every moment together"), "{text}");

    std::fs::write(folder.join("few.jsonl"), "{\"reward\":1,\"propensity\":0.5,\"target_probability\":1}\n").unwrap();
    let text = done(folder, &["evaluate", "--rounds", "few.jsonl"]);
    assert!(text.starts_with("1 decisions: insufficient support\n") && !text.contains("IPS"), "{text}");
    std::fs::write(folder.join("bad.csv"), "reward,target_probability\n1,0.5\n").unwrap();
    for (arguments, why) in [
        (&["--rounds", "bad.csv"][..], "there is no column `propensity`"),
        (&["--rounds", "nowhere.csv"], "there is no such file"),
        (&["--rounds", "rounds.txt"], "there is no such file"),
        (&["--rounds", "rounds.csv", "--reward-range", "1,2"], "outside the range of 1 to 2"),
        (&["--rounds", "rounds.csv", "--reward-range", "2,1"], "the least and the largest reward"),
        (&["--rounds", "rounds.csv", "--reward-range", "0,1", "--weight-max", "1.5"], "above the largest one of 1.5"),
        (&["--rounds", "rounds.csv", "--confidence", "0.2"], "from 0.5 to below 1"),
        (
            &["--rounds", "rounds.csv", "--reward-range", "0,1", "--weight-max", "NaN"],
            "--weight-max takes a number from 1",
        ),
        (&["--rounds", "rounds.csv", "--cut-back"], "--cut-back goes with --session-simulator only"),
        (&["--bootstraps", "200", "active"], "--bootstraps goes with --rounds only"),
    ] {
        let said = refused(folder, &[&["evaluate"][..], arguments].concat());
        assert!(said.contains(why), "{said}");
    }
}

/// A router that logs no propensities can be judged by how often it chose each model, and the verdict says so.
#[test]
fn estimated_propensities_are_labelled_and_take_a_person_s_word() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    simulated_with(folder, "2400", |request| {
        for field in ["propensity", "candidates"] {
            request.as_object_mut().unwrap().remove(field);
        }
    });
    done(folder, &["policy", "keygen", "key"]);
    let without = json(folder, &["learn", "policy", "--key", "key", "--json"]);
    assert_eq!(without["verdict"], "insufficient support", "{}", without["report"]["reasons"]);
    let with = json(folder, &["learn", "policy", "--key", "key", "--seed", "8", "--estimate-propensities", "--json"]);
    let verdict = with["verdict"].as_str().unwrap();
    assert!(verdict.ends_with(" on estimated propensities"), "{verdict}");
    assert_eq!(with["report"]["data"]["estimated_propensities"], with["report"]["data"]["evaluated"]);
    let id = with["policy_id"].as_str().unwrap();
    let said = refused(folder, &["policy", "approve", id, "--actor", "ann"]);
    assert!(said.contains("force") && said.contains("on estimated propensities"), "{said}");
    // The simulated router draws evenly, whatever the request: there the estimates are the truth.
    let judged = json(folder, &["evaluate", id, "--estimate-propensities", "--json"]);
    let mean_weight = &judged["report"]["candidate"]["support"]["mean_weight"];
    assert!(mean_weight["low"].as_f64().unwrap() < 1.0 && mean_weight["high"].as_f64().unwrap() > 1.0, "{judged}");
    let text = done(folder, &["evaluate", id, "--estimate-propensities"]);
    assert!(text.contains("have propensities that were estimated"), "{text}");
}

/// What an outcome is worth is an operator's signed file; without a trusted signature nothing is learned by it.
#[test]
fn an_outcome_file_is_signed_and_says_what_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    simulated(folder, "2400");
    done(folder, &["policy", "keygen", "key"]);
    let file = "name = \"support\"\n[weights]\nquality = 1.0\nusd = 15.0\nlatency_s = 0.001\n[guardrails]\nlatency_s = 30.0\nhallucination = 0.5\nunsafe = 0.5\n";
    std::fs::write(folder.join("outcome.toml"), file).unwrap();
    std::fs::write(
        folder.join("weir.toml"),
        "[objective]\noutcome = \"outcome.toml\"\n# Near to even, so that few sessions suffice.\ngamma = 10.0\n",
    )
    .unwrap();
    let learn = ["learn", "policy", "--key", "key", "--json"];
    assert!(refused(folder, &learn).contains("weir outcome sign"));
    let said = done(folder, &["outcome", "sign", "outcome.toml", "--key", "key"]);
    assert!(said.contains("a unit of latency (s) costs 0.001\nlatency (s) may become worse by 30"), "{said}");
    assert!(done(folder, &["outcome", "show", "outcome.toml"]).contains("signed by "));

    let learned = json(folder, &[&learn[..], &["--vllm-sr", "768"]].concat());
    let report = &learned["report"];
    assert_eq!(report["outcome"]["weights"]["latency_s"], 0.001, "{report}");
    // The bundle brings the files that vLLM Semantic Router loads, judged as they are.
    done(folder, &["policy", "export", learned["policy_id"].as_str().unwrap(), "out"]);
    let read = |file: &str| std::fs::read(folder.join("out").join(file)).expect(file);
    // And says by whose file it was judged.
    let manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
    assert!(manifest["lineage"]["data"]["outcome"].as_str().unwrap().starts_with("sha256:"), "{manifest}");
    assert!(manifest["lineage"]["data"]["outcome_signed_by"].is_string(), "{manifest}");
    let artifact = Artifact::from_json(&read(report["exports"][0]["file"].as_str().unwrap())).expect("it loads");
    assert_eq!(artifact.model_names().len(), 5, "the simulated fleet's models");
    assert!(report["exports"][0]["agreement"].as_f64().unwrap() > 0.5, "{report}");
    assert!(read("exports/vllm-sr/golden.json").starts_with(b"[{\"input\":["));
    let parts: Vec<&str> =
        report["parts"].as_array().unwrap().iter().map(|part| part["part"].as_str().unwrap()).collect();
    // Nobody checked an answer for hallucinations, so that is unknown, and a limit on it is not shown to be kept.
    assert_eq!(parts, ["quality", "usd", "latency_s", "hallucination", "unsafe"], "{report}");
    let standings = [2, 3, 4].map(|at| report["parts"][at]["guardrail"]["standing"].as_str().unwrap().to_owned());
    assert_eq!(standings, ["kept", "not_shown", "kept"], "{report}");
    assert_ne!(report["verdict"], "better");

    // Another weight under the same signature is refused.
    std::fs::write(folder.join("outcome.toml"), file.replace("15.0", "1.0")).unwrap();
    let said = refused(folder, &learn);
    assert!(said.contains("not to be trusted"), "{said}");
    std::fs::write(folder.join("outcome.toml"), "[weights]\nbeauty = 1\n").unwrap();
    assert!(refused(folder, &["outcome", "sign", "outcome.toml", "--key", "key"]).contains("not understood"));
}

/// Thompson sampling from logs, and on from the stream: each decision is learned from once, whoever asks how often.
#[test]
fn a_policy_that_knows_how_sure_it_is_learns_on_from_what_came_since() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    simulated(folder, "150");
    done(folder, &["policy", "keygen", "signing.key"]);
    let learn = ["--json", "learn", "policy", "--key", "signing.key", "--learner", "thompson", "--checkpoint", "kept"];
    let first = json(folder, &learn);
    assert_eq!(first["report"]["learned"]["learning"], "thompson", "{first}");
    let kept = std::fs::read_dir(folder.join("kept")).expect("a folder of checkpoints");
    let names: Vec<_> = kept.map(|file| file.expect("a file").file_name()).filter(|name| name != "lock").collect();
    assert_eq!(names, ["fit-00.checkpoint"], "one network was fitted");
    let again = json(folder, &learn);
    assert_eq!(again["report"]["reward_model"], first["report"]["reward_model"], "nothing was left to train");
    let id = |answer: &Value| answer["policy_id"].as_str().expect("an id").to_owned();
    let update = |from: &str, more: &[&str]| {
        done(folder, &[&["learn", "update", "--key", "signing.key", "--policy", from][..], more].concat())
    };
    let nothing_came = |from: &str| {
        let output = weir(folder, &["learn", "update", "--key", "signing.key", "--policy", from]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success() && output.stdout.is_empty() && said.contains("nothing has come since")
    };
    assert!(nothing_came(&id(&first)), "all of it was learned from");

    simulated_later(folder, "150");
    let said: Value = serde_json::from_str(&update(&id(&first), &["--json", "--half-life-days", "30"])).expect("JSON");
    assert!(said["decisions"].as_u64().expect("a count") > 100, "{said}");
    assert!(nothing_came(&id(&said)), "each decision once");
    // The new bundle is a policy like any other: it is judged, and can be approved.
    let judged = json(folder, &["--json", "evaluate", &id(&said)]);
    assert!(judged["report"]["candidate"]["verdict"].is_string(), "{judged}");

    let plain = json(folder, &["--json", "learn", "policy", "--key", "signing.key"]);
    let refusal = refused(folder, &["learn", "update", "--key", "signing.key", "--policy", &id(&plain)]);
    assert!(refusal.contains("--learner thompson"), "{refusal}");
}

#[test]
fn ways_to_learn_that_make_no_sense_are_refused_with_what_to_write() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    simulated(folder, "60");
    done(folder, &["policy", "keygen", "signing.key"]);
    let refused = |more: &[&str]| refused(folder, &[&["learn", "policy", "--key", "signing.key"][..], more].concat());
    assert!(refused(&["--quality-at-least", "0.7"]).contains("--learner policy-gradient"));
    assert!(refused(&["--new-model", "newest"]).contains("MODEL=LIKE:SHARE"));
    assert!(refused(&["--new-model", "newest=unheard-of:0.02"]).contains("is not in the logs"));
    assert!(refused(&["--half-life-days", "0"]).contains("half_life_days"));
    let far = refused(&["--learner", "policy-gradient", "--quality-at-least", "1"]);
    assert!(far.contains("ask for less"), "{far}");
}
