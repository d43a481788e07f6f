//! `deploy/recipes/otel-collector`: a program with OpenTelemetry's SDK and its instrumentation of OpenAI's client, through
//! the OpenTelemetry Collector, or straight to the bridge.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use weir_tests::{Kafka, Weir};

use crate::parts::{self, Running, Tap};
use crate::topics;

/// What people and models said, in every form in which the program sends it, and what the provider said of its refusal.
const TEXT: [&str; 5] = ["lighthouse keeper", "the bridge open", "opens at noon", "{\"place\"", "Rate limit reached"];

/// Four calls and the turn that they belong to.
const SPANS: i64 = 5;

/// How the instrumentation writes text down: in the bodies of events, or in the attributes of spans and of an event.
#[derive(Clone, Copy)]
enum Conventions {
    Older,
    Latest,
}

impl Conventions {
    /// Log records of a run: an event of each message and answer, or one of each call; and an evaluation.
    fn records(self) -> i64 {
        match self {
            Self::Older => 12,
            Self::Latest => 5,
        }
    }
}

#[test]
fn a_programs_spans_become_requests_and_nothing_that_was_said_is_stored() {
    let Some(sdk) = parts::tool("otel-sdk") else { return };
    let Some(collector) = parts::tool("otelcol") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let weir = Weir::new(folder.path());
    configure(&weir, &kafka.brokers);
    let program = Program::start(&sdk, folder.path());
    let [grpc, http] = [(); 2].map(|()| parts::free_port());
    let mut bridge = parts::bridge(&weir, &[http, grpc], folder.path());
    let dropped = || parts::metric(http, "weir_bridge_text_dropped_total", "");
    let end = |topic: &str| topics::end(&kafka.brokers, topic);
    let mut traces = Vec::new();
    let both = Conventions::Older.records() + Conventions::Latest.records();

    // The recipe as it stands: by gRPC into the collector, by HTTP out of it. Uncompressed, so that the tap can read it.
    let tap = Tap::start(http);
    let mut recipe =
        Collector::start(&collector, folder.path(), "recipe", tap.port, "exporters::otlp_http/weir::compression: none");
    traces.push(program.calls("grpc", recipe.grpc, Conventions::Older));
    traces.push(program.calls("http/protobuf", recipe.http, Conventions::Latest));
    // What waits in its queue when it stops would stay on its disk.
    recipe.running.wait_until("send everything", || end("otel_spans") == 2 * SPANS && end("otel_logs") == both);
    recipe.running.stop();
    let heard = tap.heard();
    assert!(heard.contains("gen_ai.user.message") && heard.contains("gen_ai.client.inference.operation.details"));
    // The text does not even reach the bridge.
    nowhere(&heard);

    // A collector that leaves text to the bridge, by gRPC out of it.
    let by_grpc = format!(
        "{{exporters: {{otlp_grpc/weir: {{endpoint: '127.0.0.1:{grpc}', tls: {{insecure: true}}}}}}, service: {{pipelines: {{\
         traces: {{processors: [], exporters: [otlp_grpc/weir]}}, logs: {{processors: [], exporters: [otlp_grpc/weir]}}, \
         metrics: {{exporters: [otlp_grpc/weir]}}}}}}}}"
    );
    let before = dropped();
    let mut plain = Collector::start(&collector, folder.path(), "plain", http, &by_grpc);
    traces.push(program.calls("http/protobuf", plain.http, Conventions::Older));
    traces.push(program.calls("grpc", plain.grpc, Conventions::Latest));
    plain.running.wait_until("send everything", || end("otel_spans") == 4 * SPANS && end("otel_logs") == 2 * both);
    plain.running.stop();
    assert!(dropped() > before, "what the collector left in was there to be dropped");

    // No collector.
    let before = dropped();
    traces.push(program.calls("grpc", grpc, Conventions::Older));
    traces.push(program.calls("http/protobuf", http, Conventions::Latest));
    assert!(dropped() > before);
    let ok = parts::metric(http, "weir_bridge_requests_total", "status=\"200\"");
    assert_eq!(parts::metric(http, "weir_bridge_requests_total", ""), ok, "every request was taken");
    for receiver in ["otlp_http", "otlp_grpc"] {
        assert!(parts::metric(http, "weir_bridge_requests_total", receiver) >= 6.0, "{receiver}");
    }
    // Of the program's own metrics the contract has none.
    assert!(parts::metric(http, "weir_bridge_ignored_samples_total", "histogram") > 0.0);
    bridge.stop();

    assert_eq!((end("otel_spans"), end("otel_logs")), (6 * SPANS, 3 * both));
    let spans = topics::read(&kafka.brokers, "otel_spans", 6 * SPANS as usize);
    let records = topics::read(&kafka.brokers, "otel_logs", 3 * both as usize);
    for message in spans.iter().chain(&records) {
        nowhere(&message.value.to_string());
    }
    weir.run(&["run", "--until-drained", "--no-http"]).ok();
    assert_eq!(weir.number("select count(*) from dead_letters"), 0.0);
    for table in ["raw_requests", "raw_feedback"] {
        nowhere(&json!(weir.sql(&format!("select * from {table}"))).to_string());
    }
    rows_are_what_was_called(&weir, &traces);
}

fn configure(weir: &Weir, brokers: &str) {
    weir.configure(&format!(
        "[kafka]\nbrokers = \"{brokers}\"\n\
         [[kafka.topics]]\nname = \"otel_spans\"\nformat = \"adapter:otel_genai_spans\"\n\
         [[kafka.topics]]\nname = \"otel_logs\"\nformat = \"adapter:otel_genai_logs\"\n"
    ));
}

fn rows_are_what_was_called(weir: &Weir, traces: &[String]) {
    let rows = weir.sql(
        "select request_id, parent_request_id, router, requested_model, executed_model, provider, prompt_tokens,
         completion_tokens, finish_reason, error_class, prompt_text, response_text
         from raw_requests order by arrival_ms",
    );
    assert_eq!(rows.len(), 4 * traces.len());
    let mut of = BTreeMap::<&str, Vec<&Value>>::new();
    for row in &rows {
        let id = row["request_id"].as_str().expect("an id");
        of.entry(id.split('-').next().expect("a trace")).or_default().push(row);
    }
    for trace in traces {
        let calls = &of[trace.as_str()];
        let of_all = |name: &str| calls.iter().map(|call| call[name].clone()).collect::<Vec<_>>();
        assert_eq!(of_all("requested_model"), ["steady", "steady", "tools", "busy"].map(Value::from));
        let answered = |value: Value| vec![value.clone(), value.clone(), value, Value::Null];
        // The provider's dated name of the model is no fallback.
        assert_eq!(of_all("executed_model"), ["steady".into(), "steady".into(), "tools".into(), Value::Null]);
        assert_eq!(of_all("prompt_tokens"), answered(1210.into()));
        assert_eq!(of_all("completion_tokens"), answered(96.into()));
        assert_eq!(of_all("error_class"), [Value::Null, Value::Null, Value::Null, "RateLimitError".into()]);
        assert_eq!([&calls[0]["finish_reason"], &calls[2]["finish_reason"]], ["stop", "tool_calls"]);
        for call in calls {
            assert_eq!([&call["router"], &call["provider"]], ["assistant", "openai"]);
            assert!(call["parent_request_id"].as_str().is_some_and(|parent| parent.starts_with(trace)), "{call}");
            assert!(call["prompt_text"].is_null() && call["response_text"].is_null(), "{call}");
        }
    }
    let opinions = weir.sql("select request_id, source, estimator, value, label from raw_feedback");
    let firsts = traces.iter().map(|trace| of[trace.as_str()][0]["request_id"].clone());
    assert_eq!(opinions.len(), traces.len(), "{opinions:?}");
    for first in firsts {
        let expected = json!({ "request_id": first, "source": "evaluation", "estimator": "Relevance", "value": 0.75, "label": "relevant" });
        assert!(opinions.contains(&expected), "{first} is not in {opinions:?}");
    }
}

fn nowhere(haystack: &str) {
    for text in TEXT {
        assert!(!haystack.contains(text), "{text:?} is in {haystack}");
    }
}

/// The instrumented program, and the provider that it calls.
struct Program {
    python: std::path::PathBuf,
    provider: u16,
    _serving: Running,
}

impl Program {
    fn start(sdk: &Path, folder: &Path) -> Self {
        let python = sdk.join("bin/python");
        let provider = parts::free_port();
        let mut server = Command::new(&python);
        server.arg("-B").arg(parts::here("openai_server.py")).arg(provider.to_string());
        let mut serving = Running::start("provider", server, folder);
        serving.wait_for_port(provider);
        Self { python, provider, _serving: serving }
    }

    /// Runs it to its end, and returns the id of its trace.
    fn calls(&self, protocol: &str, port: u16, conventions: Conventions) -> String {
        let mut command = Command::new(&self.python);
        command.arg("-B").arg(parts::here("otel_calls.py")).arg(format!("http://127.0.0.1:{}/v1", self.provider));
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"));
        let captured = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
        match conventions {
            Conventions::Older => command.env(captured, "true"),
            Conventions::Latest => command
                .env(captured, "SPAN_AND_EVENT")
                .env("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental"),
        };
        let output = command.output().expect("python runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{protocol}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// The recipe's collector, with a few lines of configuration on top.
struct Collector {
    grpc: u16,
    http: u16,
    running: Running,
}

impl Collector {
    fn start(program: &Path, folder: &Path, name: &'static str, bridge: u16, more: &str) -> Self {
        let [grpc, http] = [(); 2].map(|()| parts::free_port());
        let state = folder.join(name);
        std::fs::create_dir(&state).expect("a folder");
        let mut command = Command::new(program.join("otelcol"));
        command.arg("--config").arg(parts::recipe("otel-collector").join("collector.yaml"));
        command.arg("--config").arg(format!("yaml:{more}"));
        command
            .env("OTLP_GRPC_LISTEN", format!("127.0.0.1:{grpc}"))
            .env("OTLP_HTTP_LISTEN", format!("127.0.0.1:{http}"));
        command.env("WEIR_BRIDGE", format!("http://127.0.0.1:{bridge}")).env("COLLECTOR_STATE", state);
        let mut running = Running::start(name, command, folder);
        running.wait_for_port(grpc);
        running.wait_for_port(http);
        Self { grpc, http, running }
    }
}
