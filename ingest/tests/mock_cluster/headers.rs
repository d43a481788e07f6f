//! Headers that a topic lists land with the row, from Kafka and from a replayed letter alike.

use std::time::Duration;

use arrow::array::{Array, AsArray};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use weir_ingest::{DeadLetters, Format, LetterFilter, LetterPayload, ReplayMode, replay};

use crate::bench::{Bench, assert_rows, ids, request};

/// Headers of one message, in their order.
pub type Sent<'a> = &'a [(&'a str, Option<&'a [u8]>)];

/// `None` is a tombstone.
pub fn produce_with_headers(bench: &Bench, topic: &str, messages: &[(Option<Vec<u8>>, Sent<'_>)]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bench.cluster.bootstrap_servers()).create().unwrap();
    for (payload, headers) in messages {
        let sent =
            headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: *value }));
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(0).headers(sent);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(20)).unwrap();
}

/// `extra` of each row, by offset.
async fn extras(bench: &Bench) -> Vec<(i64, Vec<String>)> {
    let mut found = Vec::new();
    for batch in bench.rows("requests").await {
        let offsets = batch.column_by_name("source_offset").unwrap().as_primitive::<arrow::datatypes::Int64Type>();
        let extra = batch.column_by_name("extra").unwrap().as_map();
        for row in 0..batch.num_rows() {
            let entries = extra.value(row);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
            let pairs = keys.iter().flatten().zip(values.iter().flatten());
            let pairs = pairs.filter(|_| extra.is_valid(row)).map(|(key, value)| format!("{key}={value}"));
            found.push((offsets.value(row), pairs.collect()));
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_headers_land_with_the_row_and_a_replayed_letter_has_them_too() {
    let bench = Bench::new(&[("llm", 1)]).await;
    let traced: Sent<'_> = &[
        ("traceparent", Some(b"00-first")),
        ("authorization", Some(b"secret")),
        ("x-request-id", Some(b"\xff\xfe")),
        ("traceparent", Some(b"00-last")),
    ];
    let messages = [
        (request("a"), traced),
        (request("b"), &[][..]),
        (None, traced),
        (request("c"), &[("traceparent", None)]),
        (request("d"), &[("Traceparent", Some(b"another name"))]),
    ];
    produce_with_headers(&bench, "llm", &messages);

    // First as another system's: every message is a dead letter, with its headers.
    let mut wrong = bench.config(&[("llm", Format::VllmSemanticRouter)]);
    wrong.topics[0].headers = ["traceparent", "x-request-id"].map(str::to_owned).to_vec();
    let summary = bench.run(wrong.clone()).await.unwrap();
    assert_eq!((summary.dead_letters, summary.tombstones), (4, 1));
    let letters = DeadLetters::open(&bench.store, "test", 7).await.unwrap();
    let letter = letters.find(&"llm/0/0".parse().unwrap()).await.unwrap().unwrap();
    let LetterPayload::Message { payload, headers } = letter.payload(&bench.keyring).unwrap() else {
        panic!("it is new")
    };
    assert_eq!((Some(&payload), letter.payload_bytes), (request("a").as_ref(), i64::try_from(payload.len()).unwrap()));
    let kept = [("traceparent", &b"00-last"[..]), ("x-request-id", b"\xff\xfe")];
    assert_eq!(headers, kept.map(|(name, value)| (name.to_owned(), value.to_vec())));

    let mut mended = bench.config(&[("llm", Format::Requests)]);
    mended.topics[0].headers = wrong.topics[0].headers.clone();
    let all = LetterFilter::default();
    let report = replay(&bench.store, &bench.keyring, &mended, &all, ReplayMode::Store, |_, _, _| {}).await.unwrap();
    assert_eq!(report.stored, 4);
    let replayed = extras(&bench).await;
    let trace = vec!["header.traceparent=00-last".to_owned()];
    assert_eq!(replayed, [(0, trace), (1, vec![]), (3, vec![]), (4, vec![])]);

    // The same from Kafka at once.
    let bench = bench.with_new_store().await;
    bench.run(mended.clone()).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, [0, 1, 3, 4]));
    assert_eq!(extras(&bench).await, replayed);

    // Without a list nothing of them is read.
    let bench = bench.with_new_store().await;
    mended.topics[0].headers.clear();
    bench.run(mended).await.unwrap();
    assert!(extras(&bench).await.iter().all(|(_, extra)| extra.is_empty()));
}
