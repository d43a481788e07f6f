//! Tables in a real S3 store: commits that happen once, whatever the network does to their answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use weir_store::{Advance, PutNew, Store, StoreError, StoreOptions, Table, TableSpec};
use weir_tests::{S3, Weir};

fn spec() -> TableSpec {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, false)]);
    TableSpec { name: "events".to_owned(), schema: Arc::new(schema), partition_by: None }
}

fn rows(ids: std::ops::Range<i64>) -> Vec<RecordBatch> {
    vec![RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(ids)) as _)]).unwrap()]
}

fn advance(app_id: &str, expected: Option<i64>, next: i64) -> Vec<Advance> {
    vec![Advance { app_id: app_id.to_owned(), expected, next }]
}

fn options(s3: &S3, settings: &[(&str, &str)]) -> StoreOptions {
    let settings: BTreeMap<_, _> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    StoreOptions { settings, credentials: Some(s3.credentials()) }
}

async fn all_ids(table: &Table) -> Vec<i64> {
    let mut ids = Vec::new();
    for version in 1..=table.version() {
        for batch in table.appended(version).await.unwrap() {
            ids.extend(batch.column(0).as_primitive::<Int64Type>().values());
        }
    }
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_table_in_s3_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(s3) = S3::start(folder.path()) else { return };
    let store = Store::open_with(&s3.url("data"), &options(&s3, &[])).await.unwrap();
    assert_eq!(store.put_new("note", "one".into()).await.unwrap(), PutNew::Created);
    assert_eq!(store.put_new("note", "two".into()).await.unwrap(), PutNew::Existed);

    let writers = (0..4_i64).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut table = store.table(&spec()).await.unwrap();
            let app_id = format!("writer-{writer}");
            for step in 0..10 {
                let (first, expected) = (writer * 1_000 + step * 10, (step > 0).then_some(step));
                table.commit(rows(first..first + 10), advance(&app_id, expected, step + 1)).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    // A stale writer, with the credentials of all.
    let mut zombie = store.table(&spec()).await.unwrap();
    let fenced = zombie.commit(rows(0..10), advance("writer-0", Some(3), 4)).await;
    assert!(matches!(fenced, Err(StoreError::Fenced { found: Some(10), .. })), "{fenced:?}");

    let table = store.existing("events").await.unwrap().unwrap();
    let expected: Vec<i64> = (0..4).flat_map(|writer| writer * 1_000..writer * 1_000 + 100).collect();
    assert_eq!(all_ids(&table).await, expected);
    assert_eq!(table.version(), 40);
}

/// A proxy in front of the server. It loses the answers to the first puts of log entries: the server has done what it was
/// asked, the client is told 503, as by a load balancer, and tries again below the commit protocol.
fn proxy_that_loses_answers(endpoint: &str, losses: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = endpoint.trim_start_matches("http://").to_owned();
    let left = Arc::new(AtomicUsize::new(losses));
    let counter = left.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, server, left) = (client.unwrap(), server.clone(), left.clone());
            std::thread::spawn(move || {
                while let Some(request) = message(&mut client) {
                    let mut upstream = TcpStream::connect(&server).unwrap();
                    upstream.write_all(&request).unwrap();
                    let Some(answer) = message(&mut upstream) else { return };
                    let head = String::from_utf8_lossy(&request[..request.len().min(400)]).into_owned();
                    let lost = head.starts_with("PUT ")
                        && head.contains("_delta_log/0")
                        && left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
                    let answer =
                        if lost { b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n".to_vec() } else { answer };
                    if client.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, counter)
}

/// One HTTP message with its body, as it came; `None` at the end of the connection.
fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 65_536]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let complete = match field("content-length:") {
                Some(length) => bytes.len() >= end + 4 + length.parse::<usize>().unwrap(),
                None if field("transfer-encoding:") == Some("chunked") => bytes.ends_with(b"0\r\n\r\n"),
                None => true,
            };
            if complete {
                return Some(bytes);
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend(&buffer[..read]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_and_that_was_tried_again_below_us_is_recognised_as_ours() {
    let folder = tempfile::tempdir().unwrap();
    let Some(s3) = S3::start(folder.path()) else { return };
    let direct = Store::open_with(&s3.url("data"), &options(&s3, &[])).await.unwrap();
    direct.table(&spec()).await.unwrap();

    let (proxy, left) = proxy_that_loses_answers(&s3.endpoint, 3);
    let through = Store::open_with(&s3.url("data"), &options(&s3, &[("endpoint", &proxy)])).await.unwrap();
    let mut table = through.existing("events").await.unwrap().unwrap();
    for step in 0..5 {
        let expected = (step > 0).then_some(step);
        let committed = table.commit(rows(step * 10..step * 10 + 10), advance("a", expected, step + 1)).await.unwrap();
        assert_eq!(committed.version, step + 1, "one version a commit");
    }
    assert_eq!(left.load(SeqCst), 0, "three answers were lost");

    let table = direct.existing("events").await.unwrap().unwrap();
    assert_eq!(table.version(), 5);
    assert_eq!(all_ids(&table).await, (0..50).collect::<Vec<_>>());
}

fn weir_in(folder: &Path, s3: &S3, url: &str, more: &str) -> Weir {
    let weir = Weir::new(folder);
    let credentials = s3.credentials();
    // There is no Kafka here, and nobody is to wait for one.
    let store = format!(
        "[store]\nurl = \"{url}\"\ncredentials = \"{}\"\n{more}\n[kafka.properties]\n\"metadata.request.timeout.ms\" = \"100\"\n",
        credentials.display()
    );
    std::fs::write(folder.join("weir.toml"), store).unwrap();
    weir
}

#[test]
fn weir_check_tries_to_write_to_the_bucket_and_says_what_the_store_answered() {
    let folder = tempfile::tempdir().unwrap();
    let Some(s3) = S3::start(folder.path()) else { return };
    let line = |url: &str, more: &str| {
        let outcome = weir_in(folder.path(), &s3, url, more).run(&["check"]);
        let found = outcome.stdout.lines().find(|line| line.contains(" store ")).unwrap_or_default().to_owned();
        assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains("weir-test-secret"), "a secret was shown");
        found.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("s3://weir/data", ""), "ok store s3://weir/data");
    assert_eq!(
        line("s3://nowhere/data", ""),
        "FAILED store cannot write to the data folder s3://nowhere/data: the store answered NoSuchBucket: The specified \
         bucket does not exist; give a place that this user may write to"
    );
    let stranger = line("s3://weir/data", "[store.options]\naccess_key_id = \"stranger\"\n");
    assert!(stranger.contains("the store answered") && stranger.contains("access key"), "{stranger}");
    let secret = line("s3://weir/data", "[store.options]\nsecret_access_key = \"hunter2\"\n");
    assert!(secret.contains("store.options.secret_access_key is a secret"), "{secret}");
    assert!(!secret.contains("hunter2"), "{secret}");
    let nobody = "[store.options]\nendpoint = \"http://127.0.0.1:1\"\nallow_http = \"true\"\n";
    let down = line("s3://weir/data", nobody);
    assert!(down.starts_with("FAILED store the object store of s3://weir/data does not answer: "), "{down}");
    let misspelt = line("s3://weir/data", "[store.options]\nendpiont = \"https://x\"\n");
    assert!(misspelt.contains("no option \"endpiont\""), "{misspelt}");
}

#[test]
fn sql_reads_tables_in_s3() {
    let folder = tempfile::tempdir().unwrap();
    let Some(s3) = S3::start(folder.path()) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open_with(&s3.url("data"), &options(&s3, &[])).await.unwrap();
        let mut table = store.table(&spec()).await.unwrap();
        table.commit(rows(0..100), advance("a", None, 1)).await.unwrap();
    });
    let weir = weir_in(folder.path(), &s3, "s3://weir/data", "");
    let outcome = weir.run(&["sql", "select count(*) as n, sum(id) as total from events", "--json"]).ok();
    assert_eq!(outcome.json(), serde_json::json!([{ "n": 100, "total": 4950 }]));
}
