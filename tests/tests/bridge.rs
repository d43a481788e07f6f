//! Telemetry through the bridge and a real Apache Kafka into tables, also when the bridge dies in between.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::time::{Duration, Instant};

use prost::Message;
use weir_bridge::proto::remote_write::{Label, Sample, TimeSeries, WriteRequest};
use weir_tests::{Kafka, Weir};

const AT_MS: i64 = 1_767_225_600_000;

/// A port that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Posts a body and returns the status.
fn post(port: u16, path: &str, headers: &str, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the bridge listens");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("the bridge reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the bridge answers");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {answer}"))
}

/// A scrape of `gpus` GPUs by Prometheus, `n` scrapes after the first.
fn scrape(gpus: usize, n: i64) -> Vec<u8> {
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let series = |gpu: usize| TimeSeries {
        labels: vec![
            label("__name__", "DCGM_FI_DEV_GPU_UTIL"),
            label("instance", "node-1:9400"),
            label("pool", "h100"),
            label("UUID", &format!("GPU-{gpu:04}")),
        ],
        samples: vec![Sample { value: 50.0, timestamp: AT_MS + 15_000 * n }],
        histograms: Vec::new(),
    };
    let request = WriteRequest { timeseries: (0..gpus).map(series).collect() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).expect("a request is small")
}

fn remote_write(port: u16, body: &[u8]) -> u16 {
    post(port, "/api/v1/write", "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n", body)
}

fn configure(weir: &Weir, brokers: &str) {
    weir.configure(&format!("[kafka]\nbrokers = \"{brokers}\"\n[ingest]\nflush_interval_ms = 200\n"));
}

fn start(weir: &Weir, port: u16, more: &[&str]) -> Child {
    let listen = format!("127.0.0.1:{port}");
    let child = weir.start(&[&["bridge", "--listen", &listen][..], more].concat());
    let began = Instant::now();
    while TcpStream::connect(&listen).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "the bridge does not listen at {listen}");
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

/// Ends a bridge as an orchestrator does, and waits for it.
fn terminate(mut child: Child) {
    let killed = std::process::Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
    assert!(killed.success());
    assert!(child.wait().expect("a child ends").success(), "the bridge did not end well");
}

#[test]
fn telemetry_becomes_rows_and_what_a_killed_bridge_had_taken_is_delivered_by_the_next() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let weir = Weir::new(folder.path());
    let port = free_port();

    // A bridge whose Kafka is not there takes what comes, and is killed.
    configure(&weir, &format!("127.0.0.1:{}", free_port()));
    let mut killed = start(&weir, port, &[]);
    for n in 0..20 {
        assert_eq!(remote_write(port, &scrape(8, n)), 204);
    }
    killed.kill().expect("SIGKILL reaches a child");
    killed.wait().expect("a killed child ends");

    // The next one has a Kafka.
    configure(&weir, &kafka.brokers);
    let topics = ["simulate", "--seconds", "1", "--rate", "1", "--brokers", &kafka.brokers, "--create-topics", "2"];
    weir.run(&topics).ok();
    let before = weir_rows(&weir);
    let bridge = start(&weir, port, &["--create-topics", "2"]);
    assert_eq!(remote_write(port, &scrape(8, 20)), 204);
    let otlp = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"service.instance.id","value":{{"stringValue":"node-1:8000"}}}}]}},
            "scopeMetrics":[{{"metrics":[{{"name":"vllm:num_requests_running","gauge":{{"dataPoints":[
              {{"timeUnixNano":"{}000000","asDouble":31}}]}}}}]}}]}}]}}"#,
        AT_MS
    );
    assert_eq!(post(port, "/v1/metrics", "Content-Type: application/json\r\n", otlp.as_bytes()), 200);
    terminate(bridge);

    let after = weir_rows(&weir);
    assert_eq!(after - before, f64::from(21 * 8 + 1), "a row a GPU and scrape, and one of the engine");
    let of_bridge = "from raw_gpu_telemetry where instance = 'node-1:9400'";
    assert_eq!(weir.number(&format!("select count(distinct concat(gpu, event_ms)) {of_bridge}")), f64::from(21 * 8));
    let running = "select \"vllm:num_requests_running\" from raw_gpu_telemetry where instance = 'node-1:8000'";
    assert_eq!(weir.number(running), 31.0);
    assert_eq!(weir.number("select count(*) from dead_letters"), 0.0);
}

/// Reads the topics to their end; how many samples are in the table then.
fn weir_rows(weir: &Weir) -> f64 {
    weir.run(&["run", "--until-drained", "--no-http"]).ok();
    weir.number("select count(*) from raw_gpu_telemetry")
}
