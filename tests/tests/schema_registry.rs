//! What `weir check` says of the schemas that a registry has for the topics.

use rdkafka::mocking::MockCluster;
use serde_json::{Value, json};
use weir_tests::{Outcome, SchemaRegistry, Weir};

const TOPICS: [&str; 3] = ["llm.requests", "llm.feedback", "llm.telemetry"];

/// `user:password` of the registry that lets not everybody in, and what a client sends of it.
const CREDENTIALS: &str = "weir:hunter2";
const AUTHORIZATION: &str = "Basic d2VpcjpodW50ZXIy";

fn avro(fields: &[&str]) -> Value {
    let fields: Vec<Value> = fields.iter().map(|name| json!({ "name": name, "type": "string" })).collect();
    json!({ "schema": json!({ "type": "record", "name": "R", "fields": fields }).to_string() })
}

/// Topics with their encodings, and where the registry is.
fn configure(weir: &Weir, brokers: &str, topics: &[(&str, &str, &str)], registry: &str) {
    let topics = topics.iter().map(|(name, format, encoding)| {
        format!("[[kafka.topics]]\nname = \"{name}\"\nformat = \"{format}\"\nencoding = \"{encoding}\"\n")
    });
    let topics: String = topics.collect();
    weir.configure(&format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[ingest]\nallowed_unknown = [\"flavour\"]\n[kafka]\nbrokers = \"{brokers}\"\n\
         {topics}[kafka.registry]\n{registry}\n"
    ));
}

/// The lines about the registry, without what stands before their sentences but with how it went.
fn registry_lines(outcome: &Outcome) -> Vec<(bool, String)> {
    let lines = outcome.stdout.lines().filter_map(|line| {
        let (verdict, rest) = line.split_once(' ')?;
        let says = rest.trim_start().strip_prefix("registry ")?;
        Some((verdict == "ok", says.trim_start().to_owned()))
    });
    lines.collect()
}

#[test]
fn check_says_what_becomes_of_the_fields_of_the_schemas_and_what_is_wrong_with_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weir = Weir::new(folder.path());
    let cluster = MockCluster::new(1).expect("a broker in this process");
    for topic in TOPICS {
        cluster.create_topic(topic, 1, 1).expect("a new topic");
    }
    let brokers = cluster.bootstrap_servers();

    // Nothing needs a schema, so nobody is asked.
    configure(&weir, &brokers, &[("llm.requests", "requests", "json")], "url = \"http://127.0.0.1:1\"");
    assert_eq!(registry_lines(&weir.run(&["check"]).ok()), []);

    let registry = SchemaRegistry::start();
    let _first = registry.register("llm.requests-value", avro(&["id"]));
    let _base = registry.register(
        "shared",
        json!({ "schemaType": "PROTOBUF", "schema": "syntax = \"proto3\"; message Base { string b = 1; }" }),
    );
    let file = "syntax = \"proto3\"; import \"base.proto\"; message Request { string request_id = 1; int64 arrival_ms = 2; \
                string flavour = 3; Base colour = 4; }";
    let reference = json!({ "name": "base.proto", "subject": "shared", "version": 1 });
    let latest = json!({ "schemaType": "PROTOBUF", "schema": file, "references": [reference] });
    let _second = registry.register("llm.requests-value", latest);
    let _feedback = registry.register("llm.feedback-value", avro(&["request_id"]));
    let url = format!("url = \"{}\"", registry.url);

    // A subject that is not there is said and not failed.
    let requests = ("llm.requests", "requests", "protobuf");
    let telemetry = ("llm.telemetry", "gpu_telemetry", "avro");
    configure(&weir, &brokers, &[requests, telemetry], &url);
    let lines = registry_lines(&weir.run(&["check"]).ok());
    let fits = "llm.requests: 2 of 4 fields of llm.requests-value, version 2, are columns of requests; \
                kept as unknown: flavour; dropped as unknown: colour";
    assert_eq!(lines[0], (true, fits.to_owned()));
    assert!(lines[1].0 && lines[1].1.contains("the registry has no subject llm.telemetry-value"), "{lines:?}");
    assert_eq!(lines.len(), 2);

    // A schema that lacks a required column, and one of another language.
    let other = ("llm.requests", "requests", "avro");
    configure(&weir, &brokers, &[("llm.feedback", "feedback", "avro"), other], &url);
    let outcome = weir.run(&["check"]);
    let lines = registry_lines(&outcome);
    assert_eq!((outcome.code, lines.len()), (2, 2), "{outcome:?}");
    assert!(!lines[0].0 && lines[0].1.contains("no field feeds the required column"), "{lines:?}");
    assert!(!lines[1].0 && lines[1].1.contains("another language than its topic's encoding"), "{lines:?}");
    assert!(outcome.sentence().contains("2 of "), "{outcome:?}");
    let found = weir.run(&["check", "--json"]);
    let found: Value = serde_json::from_str(&found.stdout).expect("one JSON object");
    assert_eq!(found["fault"], "user", "{found}");
    let of_registry =
        found["findings"].as_array().expect("a list").iter().filter(|finding| finding["part"] == "registry");
    assert!(of_registry.map(|finding| finding["ok"].as_bool()).eq([Some(false), Some(false)]), "{found}");

    // An adapter decides for itself what it needs.
    configure(&weir, &brokers, &[("llm.feedback", "adapter:litellm", "avro")], &url);
    let lines = registry_lines(&weir.run(&["check"]).ok());
    assert!(lines[0].1.contains("0 of 1 fields") && lines[0].1.contains("dropped"), "{lines:?}");
}

#[test]
fn a_registry_that_is_not_there_or_refuses_is_one_line_without_its_credentials() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weir = Weir::new(folder.path());
    let cluster = MockCluster::new(1).expect("a broker in this process");
    let topics = TOPICS.map(|topic| (topic, "requests", "avro"));
    for topic in TOPICS {
        cluster.create_topic(topic, 1, 1).expect("a new topic");
    }
    let registry = SchemaRegistry::guarded(AUTHORIZATION);
    for topic in TOPICS {
        let _id = registry.register(&format!("{topic}-value"), avro(&["request_id", "arrival_ms"]));
    }
    let credentials = |text: &str| {
        std::fs::write(folder.path().join("credentials"), text).expect("the test folder is writable");
        format!("url = \"{}\"\nbasic_auth_file = \"credentials\"", registry.url)
    };
    let check = |registry: &str| {
        configure(&weir, &cluster.bootstrap_servers(), &topics, registry);
        let outcome = weir.run(&["check"]);
        assert!(!outcome.stdout.contains("hunter") && !outcome.stderr.contains("hunter"), "{outcome:?}");
        (outcome.code, registry_lines(&outcome))
    };

    let (code, lines) = check(&credentials(CREDENTIALS));
    assert_eq!(code, 0, "{lines:?}");
    assert_eq!(lines.len(), TOPICS.len());

    for (registry, why, mend) in [
        ("url = \"http://127.0.0.1:1\"".to_owned(), "did not answer", "check that it is up"),
        (credentials("weir:hunter3"), "refused access", "correct the credentials file"),
        (format!("url = \"{}\"", registry.url), "refused access", "basic_auth_file or bearer_token_file"),
        (
            format!("url = \"{}\"\nbearer_token_file = \"no-such-file\"", registry.url),
            "no-such-file, which cannot be read",
            "name a file that this user can read",
        ),
    ] {
        let (code, lines) = check(&registry);
        assert_eq!((code, lines.len()), (2, 1), "{lines:?}");
        assert!(!lines[0].0 && lines[0].1.contains(why) && lines[0].1.contains(mend), "{lines:?}");
    }
}
