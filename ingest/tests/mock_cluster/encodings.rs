//! Avro and Protobuf as Confluent's own serializers write them, with a schema registry over HTTP.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use serde_json::{Value, json};
use weir_ingest::{
    Encoding, Format, IngestConfig, IngestError, LetterFilter, RegistryAccess, RegistryConfig, ReplayMode, replay,
};
use weir_tests::SchemaRegistry;

use crate::bench::{Bench, assert_rows, ids};
use crate::headers::produce_with_headers;

const AVRO: &str = include_str!("../../../decode/src/wire/golden/avro.json");
const PROTOBUF: &str = include_str!("../../../decode/src/wire/golden/protobuf.json");

/// Registers the golden file's schema, with what it refers to; its id.
fn register(registry: &SchemaRegistry, golden: &Value, language: &str) -> u32 {
    let schema = golden["schemas"].as_object().unwrap().values().next().unwrap();
    let references = schema["references"].as_array().unwrap().iter().map(|reference| {
        let _id = registry.register("shared", json!({ "schema": reference[1], "schemaType": language }));
        json!({ "name": reference[0], "subject": "shared", "version": 1 })
    });
    let references: Vec<Value> = references.collect();
    registry.register("requests", json!({ "schema": schema["text"], "schemaType": language, "references": references }))
}

/// The golden file's first message, with the id that this registry gave.
fn message(golden: &Value, id: u32) -> Vec<u8> {
    let digits = golden["messages"][0]["hex"].as_str().unwrap();
    let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
    let mut bytes: Vec<u8> = bytes.collect();
    bytes[1..5].copy_from_slice(&id.to_be_bytes());
    bytes
}

fn with_registry(mut config: IngestConfig, encodings: &[Encoding], registry: &SchemaRegistry) -> IngestConfig {
    for (topic, encoding) in config.topics.iter_mut().zip(encodings) {
        topic.encoding = *encoding;
    }
    config.registry = Some(RegistryConfig { url: registry.url.clone(), access: RegistryAccess::Open });
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn avro_and_protobuf_land_and_what_does_not_follow_its_schema_is_a_dead_letter() {
    let registry = SchemaRegistry::start();
    let bench = Bench::new(&[("avro", 1), ("protobuf", 1)]).await;
    for (topic, golden, language) in [("avro", AVRO, "AVRO"), ("protobuf", PROTOBUF, "PROTOBUF")] {
        let golden: Value = serde_json::from_str(golden).unwrap();
        let good = message(&golden, register(&registry, &golden, language));
        let cut = good[..good.len() - 1].to_vec();
        bench.produce(topic, 0, [Some(good.clone()), Some(cut), Some(b"{}".to_vec()), None, Some(good)]);
    }
    let config = bench.config(&[("avro", Format::Requests), ("protobuf", Format::Requests)]);
    let config = with_registry(config, &[Encoding::Avro, Encoding::Protobuf], &registry);
    let summary = bench.run(config).await.unwrap();
    assert_eq!((summary.rows["requests"], summary.dead_letters, summary.tombstones), (4, 4, 2));
    assert_rows(&bench.row_ids("requests").await, &[ids("avro", 0, [0, 4]), ids("protobuf", 0, [0, 4])].concat());
    assert_rows(&bench.row_ids("dead_letters").await, &[ids("avro", 0, [1, 2]), ids("protobuf", 0, [1, 2])].concat());
    for batch in bench.rows("requests").await {
        let arrivals = batch.column_by_name("arrival_ms").unwrap().as_primitive::<Int64Type>();
        // `AT_MS` of golden/make.py, sent as a point in time.
        assert!(arrivals.values().iter().all(|arrival| *arrival == 1_700_000_000_123));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_schema_nobody_registered_holds_up_no_other_and_is_replayed_once_it_is_there() {
    let registry = SchemaRegistry::start();
    let bench = Bench::new(&[("avro", 1), ("raw", 1)]).await;
    let golden: Value = serde_json::from_str(AVRO).unwrap();
    let id = register(&registry, &golden, "AVRO");
    let (good, early) = (Some(message(&golden, id)), Some(message(&golden, id + 1)));
    bench.produce("avro", 0, [early.clone(), good.clone(), early, good]);
    // Bytes that begin with a zero or a one by chance: numbers that could be a registry's, that could not, and a GUID.
    let chance = [b"\0\x12\x34\x56\x78rest".to_vec(), b"\0\xff\xff\xff\xff".to_vec(), vec![1; 40]];
    bench.produce("raw", 0, chance.map(Some));
    let config = bench.config(&[("avro", Format::Requests), ("raw", Format::Requests)]);
    let config = with_registry(config, &[Encoding::Avro, Encoding::Avro], &registry);

    let summary = bench.run(config.clone()).await.unwrap();
    assert_eq!((summary.rows["requests"], summary.dead_letters), (2, 5));
    assert_rows(&bench.row_ids("requests").await, &ids("avro", 0, [1, 3]));
    for letters in bench.rows("dead_letters").await {
        let classes = letters.column_by_name("reason_class").unwrap().as_string::<i32>();
        assert!(classes.iter().all(|class| class == Some("unknown_schema")), "{classes:?}");
    }

    // The same with a blank more, so that it has another id.
    let mut late = golden.clone();
    let schema = late["schemas"].as_object_mut().unwrap().values_mut().next().unwrap();
    schema["text"] = json!(format!(" {}", schema["text"].as_str().unwrap()));
    assert_eq!(register(&registry, &late, "AVRO"), id + 1);
    let all = LetterFilter::default();
    let report = replay(&bench.store, &bench.keyring, &config, &all, ReplayMode::Store, |_, _, _| {}).await.unwrap();
    assert_eq!((report.stored, report.rejected.iter().map(|group| group.letters).sum::<u64>()), (2, 3));
    assert_rows(&bench.row_ids("requests").await, &ids("avro", 0, 0..4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_out_of_reach_ends_the_run_without_a_verdict_and_the_next_one_goes_on() {
    let registry = SchemaRegistry::guarded("Basic YTpi");
    let bench = Bench::new(&[("avro", 1)]).await;
    let golden: Value = serde_json::from_str(AVRO).unwrap();
    let id = register(&registry, &golden, "AVRO");
    bench.produce("avro", 0, (0..3).map(|_| Some(message(&golden, id))));
    let mut config = with_registry(bench.config(&[("avro", Format::Requests)]), &[Encoding::Avro], &registry);

    let error = bench.run(config.clone()).await.unwrap_err();
    assert!(matches!(error, IngestError::Schema(_)) && error.retry_helps(), "{error}");
    assert!(error.to_string().contains("refused access"), "{error}");
    assert!(bench.rows("dead_letters").await.is_empty());

    let credentials = bench.folder.path().join("credentials");
    std::fs::write(&credentials, "a:b").unwrap();
    config.registry.as_mut().unwrap().access = RegistryAccess::Basic(credentials);
    bench.run(config).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &ids("avro", 0, 0..3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_may_be_named_in_a_header_by_its_id_or_its_guid() {
    let registry = SchemaRegistry::start();
    let bench = Bench::new(&[("avro", 1), ("protobuf", 1)]).await;
    let mut dead = Vec::new();
    for (topic, golden, language, path) in [("avro", AVRO, "AVRO", 0), ("protobuf", PROTOBUF, "PROTOBUF", 3)] {
        let golden: Value = serde_json::from_str(golden).unwrap();
        let id = register(&registry, &golden, language);
        let framed = message(&golden, id);
        // Of Protobuf the path to the type goes into the header too.
        let (frame, value) = framed.split_at(5 + path);
        let (by_id, value) = (frame.to_vec(), Some(value.to_vec()));
        let by_guid = [&[1][..], &[0; 12], &id.to_be_bytes(), &frame[5..]].concat();
        let broken = by_guid[..7].to_vec();
        produce_with_headers(
            &bench,
            topic,
            &[
                (value.clone(), &[("__value_schema_id", Some(&by_guid))]),
                (value.clone(), &[("__value_schema_id", Some(&by_id))]),
                (Some(framed.clone()), &[("__key_schema_id", Some(&by_guid))]),
                (None, &[("__value_schema_id", Some(&by_guid))]),
                (value, &[("__value_schema_id", Some(&broken))]),
            ],
        );
        dead.extend(ids(topic, 0, [4]));
    }
    let config = bench.config(&[("avro", Format::Requests), ("protobuf", Format::Requests)]);
    let config = with_registry(config, &[Encoding::Avro, Encoding::Protobuf], &registry);
    let summary = bench.run(config).await.unwrap();
    assert_eq!((summary.rows["requests"], summary.tombstones), (6, 2));
    assert_rows(&bench.row_ids("requests").await, &[ids("avro", 0, 0..3), ids("protobuf", 0, 0..3)].concat());
    assert_rows(&bench.row_ids("dead_letters").await, &dead);
}
