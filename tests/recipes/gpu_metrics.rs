//! `deploy/recipes/gpu-metrics`: DCGM's exporter and vLLM, scraped by Prometheus or by the OpenTelemetry Collector.
//!
//! The pages are those of the adapters' golden tests; one value on each says which scrape it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use weir_tests::{Kafka, Weir};

use crate::parts::{self, Exporter, Running, Tap};
use crate::topics;

const TOPIC: &str = "gpu_telemetry";
/// Two GPUs and two engines.
const MESSAGES_A_SCRAPE: i64 = 4;
const GPU: &str = "GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e5";

#[test]
fn prometheus_as_an_agent_sends_every_scrape_by_protocol_2_also_when_the_bridge_was_away() {
    let Some(prometheus) = parts::tool("prometheus") else { return };
    let Some(stage) = Stage::set() else { return };
    let mut bridge = stage.bridge();
    let config = stage.prometheus_config(&|config| config);
    let mut agent = Command::new(prometheus.join("prometheus"));
    agent.arg("--agent").arg("--storage.agent.path").arg(stage.path().join("agent-data"));
    let mut agent = stage.prometheus(agent, &config);
    agent.wait_until("send three scrapes", || stage.messages() >= 3 * MESSAGES_A_SCRAPE);
    bridge.stop();
    let asked = stage.dcgm.asked();
    agent.wait_until("scrape while the bridge is away", || stage.dcgm.asked() >= asked + 2);
    let mut bridge = stage.bridge();
    agent.wait_until("send what it kept", || stage.messages() >= (asked as i64 + 4) * MESSAGES_A_SCRAPE);
    agent.stop();
    bridge.stop();
    assert!(stage.tap.heard().contains("application/x-protobuf;proto=io.prometheus.write.v2.Request"));
    stage.rows_are_what_was_served();
}

#[test]
fn the_distributions_prometheus_sends_by_protocol_1() {
    let Some(prometheus) = parts::tool("prometheus-debian") else { return };
    let Some(stage) = Stage::set() else { return };
    let mut bridge = stage.bridge();
    // As the recipe says for a Prometheus before 3.0.
    let without_2 = |config: String| {
        let lines = config.lines().filter(|line| !line.contains("protobuf_message"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let config = stage.prometheus_config(&without_2);
    let mut server = Command::new(prometheus.join("prometheus"));
    server.arg("--storage.tsdb.path").arg(stage.path().join("data"));
    let mut server = stage.prometheus(server, &config);
    server.wait_until("send five scrapes", || stage.messages() >= 5 * MESSAGES_A_SCRAPE);
    server.stop();
    bridge.stop();
    assert!(stage.tap.heard().to_lowercase().contains("x-prometheus-remote-write-version: 0.1.0"));
    stage.rows_are_what_was_served();
}

#[test]
fn the_collector_sends_what_it_scraped_by_grpc() {
    let Some(collector) = parts::tool("otelcol") else { return };
    let Some(stage) = Stage::set() else { return };
    let mut bridge = stage.bridge();
    let state = stage.path().join("state");
    std::fs::create_dir(&state).expect("a folder");
    let config = stage.recipe("collector.yaml");
    let mut command = Command::new(collector.join("otelcol"));
    command.arg("--config").arg(config).env("COLLECTOR_STATE", state);
    command.env("WEIR_BRIDGE", format!("127.0.0.1:{}", stage.tap.port));
    let mut running = Running::start("otelcol", command, stage.path());
    running.wait_until("send five scrapes", || stage.messages() >= 5 * MESSAGES_A_SCRAPE);
    running.stop();
    bridge.stop();
    stage.rows_are_what_was_served();
}

/// Exporters, a Kafka and the place for a bridge.
struct Stage {
    kafka: Kafka,
    weir: Weir,
    dcgm: Exporter,
    vllm: Exporter,
    port: u16,
    tap: Tap,
    // Last, so that it is there until Kafka has stopped.
    folder: tempfile::TempDir,
}

impl Stage {
    fn set() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let kafka = Kafka::start(folder.path())?;
        let weir = Weir::new(folder.path());
        weir.configure(&format!(
            "[kafka]\nbrokers = \"{}\"\n[[kafka.topics]]\nname = \"{TOPIC}\"\nformat = \"gpu_telemetry\"\n[bridge]\nsignals = [\"metrics\"]\n",
            kafka.brokers
        ));
        let dcgm = include_str!("../../adapters/golden/dcgm_exporter/1.prom");
        let vllm = include_str!("../../adapters/golden/vllm_metrics/1.prom");
        let port = parts::free_port();
        Some(Self {
            kafka,
            weir,
            dcgm: Exporter::start(move |scrape| with(dcgm, "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"", scrape)),
            vllm: Exporter::start(move |scrape| with(vllm, "vllm:num_requests_waiting{engine=\"0\"", scrape)),
            port,
            tap: Tap::start(port),
            folder,
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn bridge(&self) -> Running {
        parts::bridge(&self.weir, &[self.port], self.path())
    }

    /// The recipe, with this test's addresses in place of the usual ones, and a scrape a second.
    fn recipe(&self, name: &str) -> std::path::PathBuf {
        let mut config = std::fs::read_to_string(parts::recipe("gpu-metrics").join(name)).expect("the recipe");
        let here = |port: u16| format!("127.0.0.1:{port}");
        for (usual, this) in [
            ("scrape_interval: 10s", "scrape_interval: 1s".to_owned()),
            ("127.0.0.1:9400", here(self.dcgm.port)),
            ("127.0.0.1:8000", here(self.vllm.port)),
            ("127.0.0.1:4318", here(self.tap.port)),
        ] {
            // The collector has the bridge's address from its environment.
            assert!(config.contains(usual) || usual.ends_with("4318"), "{name} has no {usual}");
            config = config.replace(usual, &this);
        }
        let path = self.path().join(name);
        std::fs::write(&path, config).expect("the folder is writable");
        path
    }

    fn prometheus_config(&self, change: &dyn Fn(String) -> String) -> std::path::PathBuf {
        let path = self.recipe("prometheus.yml");
        let config = change(std::fs::read_to_string(&path).expect("it was written"));
        std::fs::write(&path, config).expect("the folder is writable");
        path
    }

    fn prometheus(&self, mut command: Command, config: &Path) -> Running {
        let listen = format!("127.0.0.1:{}", parts::free_port());
        command.arg("--config.file").arg(config).args(["--web.listen-address", &listen]);
        Running::start("prometheus", command, self.path())
    }

    /// How many messages the topic has.
    fn messages(&self) -> i64 {
        topics::end(&self.kafka.brokers, TOPIC)
    }

    /// Reads the topic into the table, and compares it with the pages.
    fn rows_are_what_was_served(&self) {
        self.weir.run(&["run", "--until-drained", "--no-http"]).ok();
        assert_eq!(self.weir.number("select count(*) from dead_letters"), 0.0);
        // A sender may split a scrape: what belongs together is put together.
        let columns = COLUMNS.map(|name| format!("max(\"{name}\") as \"{name}\"")).join(", ");
        let rows = self.weir.sql(&format!(
            "select event_ms, pool, instance, gpu, gpu_model, model, {columns} from raw_gpu_telemetry
             group by event_ms, pool, instance, gpu, gpu_model, model order by event_ms"
        ));
        let mut of = BTreeMap::<(String, String), Vec<&Value>>::new();
        for row in &rows {
            assert_eq!(row["pool"], "default", "{row}");
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            of.entry((text("instance"), text("gpu"))).or_default().push(row);
        }
        let (dcgm, vllm) = (format!("127.0.0.1:{}", self.dcgm.port), format!("127.0.0.1:{}", self.vllm.port));
        let gpu = |number: u32| (dcgm.clone(), format!("{GPU}{number}"));
        let engine = |suffix: &str| (format!("{vllm}{suffix}"), String::new());
        let expected = BTreeSet::from([gpu(0), gpu(1), engine(""), engine("/engine-1")]);
        assert_eq!(of.keys().cloned().collect::<BTreeSet<_>>(), expected);

        // Each scrape came, and came once.
        for (who, column) in [(gpu(0), "DCGM_FI_DEV_GPU_UTIL"), (engine(""), "vllm:num_requests_waiting")] {
            let scrapes: Vec<i64> =
                of[&who].iter().filter_map(|row| row[column].as_f64()).map(|value| value as i64).collect();
            let first = *scrapes.first().expect("a scrape");
            assert_eq!(scrapes, (first..first + scrapes.len() as i64).collect::<Vec<_>>(), "{who:?}");
            assert!(first <= 2 && scrapes.len() >= 5, "{scrapes:?}");
        }

        let same = |who: (String, String), expected: &[(&str, f64)]| {
            for row in &of[&who] {
                // The value that counts scrapes has been looked at.
                let counts = ["DCGM_FI_DEV_GPU_UTIL", "vllm:num_requests_waiting"];
                let found = COLUMNS.iter().filter(|name| !counts.contains(name));
                let found: Vec<_> = found.filter_map(|name| Some((*name, row[*name].as_f64()?))).collect();
                assert_eq!(found, expected, "{who:?}");
            }
        };
        assert_eq!(of[&gpu(0)][0]["gpu_model"], "NVIDIA H100 80GB HBM3");
        // Its memory's temperature is one of DCGM's blanks, which is no value.
        same(
            gpu(0),
            &[
                ("DCGM_FI_DEV_FB_USED", 71234.0),
                ("DCGM_FI_DEV_POWER_USAGE", 512.345),
                ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 88_123_456_789.0),
                ("DCGM_FI_DEV_SM_CLOCK", 1980.0),
                ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.961_234),
            ],
        );
        same(
            gpu(1),
            &[
                ("DCGM_FI_DEV_FB_USED", 4.0),
                ("DCGM_FI_DEV_POWER_USAGE", 71.12),
                ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 7_123_456.0),
                ("DCGM_FI_DEV_MEMORY_TEMP", 38.0),
                ("DCGM_FI_DEV_SM_CLOCK", 345.0),
                ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.0),
            ],
        );
        assert_eq!(of[&engine("")][0]["model"], "qwen3-8b");
        same(
            engine(""),
            &[
                ("vllm:num_requests_running", 12.0),
                ("vllm:kv_cache_usage_perc", 0.4375),
                ("vllm:prefix_cache_queries_total", 1.83e6),
                ("vllm:prefix_cache_hits_total", 1.2e6),
                ("vllm:prompt_tokens_total", 1.9e6),
                ("vllm:generation_tokens_total", 310_000.0),
                // 980 stopped and 20 were cut off.
                ("vllm:request_success_total", 1000.0),
            ],
        );
        same(
            engine("/engine-1"),
            &[
                ("vllm:num_requests_running", 9.0),
                ("vllm:kv_cache_usage_perc", 0.25),
                ("vllm:prefix_cache_queries_total", 900_000.0),
                ("vllm:prefix_cache_hits_total", 450_000.0),
                ("vllm:prompt_tokens_total", 950_000.0),
                ("vllm:generation_tokens_total", 150_000.0),
                ("vllm:request_success_total", 470.0),
            ],
        );
    }
}

/// The page, with the number of its scrape as the value of one series.
fn with(page: &str, series: &str, scrape: usize) -> String {
    let lines = page.lines().map(|line| match line.rsplit_once(' ') {
        Some((labels, _)) if line.starts_with(series) => format!("{labels} {scrape}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// The columns of numbers.
const COLUMNS: [&str; 23] = [
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_MEM_COPY_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_MEMORY_TEMP",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_MEM_CLOCK",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_SM_ACTIVE",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_DRAM_ACTIVE",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:num_preemptions_total",
    "vllm:request_success_total",
];
