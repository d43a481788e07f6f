//! The parts of the loop, all real: Kafka, upstreams behind LiteLLM's proxy, `weir run` over the tables, `weir decide`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::{Kafka, Weir};

use crate::parts::{self, PATIENCE, Running};
use crate::topics;
use crate::traffic::{self, KEY, Places};
use crate::world::{Choices, KINDS, Kind, MODELS, World};

/// Seed of the upstreams' draws.
const SEED: u64 = 11;
/// The exported bundle's sidecar explores with whoever asks it.
const ENDLESS: &str = "*=1000000";
/// γ of the policies. The default, `sqrt(models x decisions)`, is about 85 here. A candidate that turns away from the policy that
/// logged is then judged on too few of the sessions that are held out: with 30, and 2,000 sessions a round, a run ended with
/// 185 effective sessions of the 200 that a verdict takes.
const GAMMA: f64 = 15.0;

/// Everything but the sidecar, which is started and stopped by the test. Fields are dropped in this order.
pub struct Stack {
    run: Running,
    _proxy: Running,
    _upstreams: Running,
    kafka: Kafka,
    weir: Weir,
    folder: PathBuf,
    upstreams_port: u16,
    proxy_port: u16,
    run_port: u16,
}

impl Stack {
    /// Starts it, or says what is missing.
    pub fn start(folder: &Path) -> Option<Self> {
        let litellm = parts::tool("litellm")?;
        let kafka = Kafka::start(folder)?;
        topics::create(&kafka.brokers, "litellm");
        topics::create(&kafka.brokers, "feedback");
        let [upstreams_port, proxy_port, run_port] = [parts::free_port(), parts::free_port(), parts::free_port()];

        let mut server = Command::new(litellm.join("bin/python"));
        server.arg(here("upstreams.py")).arg(upstreams_port.to_string());
        let mut upstreams = Running::start("upstreams", server, folder);
        upstreams.wait_for_port(upstreams_port);
        let proxy = proxy(&litellm, folder, &kafka.brokers, (upstreams_port, proxy_port));
        let mut proxy = Running::start("litellm", proxy, folder);
        proxy.wait_for_port(proxy_port);

        let weir = Weir::new(folder);
        weir.configure(&format!(
            "[kafka]\nbrokers = \"{}\"\n\
             [[kafka.topics]]\nname = \"litellm\"\nformat = \"adapter:litellm\"\n\
             [[kafka.topics]]\nname = \"feedback\"\nformat = \"feedback\"\n\
             [ingest]\nflush_interval_ms = 2000\n[http]\nlisten = \"127.0.0.1:{run_port}\"\n\
             [policy]\nrefresh_ms = 500\n[objective]\ngamma = {GAMMA}\n",
            kafka.brokers
        ));
        weir.run(&["policy", "keygen", "signing.key"]).ok();
        let mut run = Running::start("run", weir.command(&["run"]), folder);
        run.wait_for_port(run_port);
        let folder = folder.to_owned();
        Some(Self {
            run,
            _proxy: proxy,
            _upstreams: upstreams,
            kafka,
            weir,
            folder,
            upstreams_port,
            proxy_port,
            run_port,
        })
    }

    /// From now on models answer so.
    pub fn set_world(&self, world: &World) {
        let (status, answer) = parts::post(self.upstreams_port, "/world", &[], &world.to_json(SEED).to_string());
        assert_eq!(status, 200, "{answer}");
    }

    /// `weir decide` on the policy in force, with this budget a day. What is spent of it stands in the log.
    pub fn decide(&self, log: &str, budget: &str) -> Sidecar {
        let policy = format!("http://127.0.0.1:{}", self.run_port);
        self.sidecar(&policy, log, budget)
    }

    fn sidecar(&self, policy: &str, log: &str, budget: &str) -> Sidecar {
        let port = parts::free_port();
        let listen = format!("127.0.0.1:{port}");
        let arguments = ["decide", "--policy", policy, "--listen", &listen, "--log", log, "--salt", "closed loop"];
        let command = self.weir.command(&[&arguments[..], &["--explore", budget]].concat());
        let mut running = Running::start("decide", command, &self.folder);
        running.wait_for_port(port);
        Sidecar { running, port, log: self.folder.join(log) }
    }

    pub fn places(&self, sidecar: &Sidecar) -> Places<'_> {
        Places { brokers: &self.kafka.brokers, decide: sidecar.port, proxy: self.proxy_port }
    }

    /// Waits until the tables hold a round: so many requests, so many of them judged.
    pub fn wait_for_rows(&mut self, round: &str, requests: usize, judged: usize) {
        let query = format!(
            "select count(*) as requests, count(w.quality) as judged from requests r
             left join rewards w on w.request_id = r.request_id where r.gateway_tags['round'] = '{round}'"
        );
        let began = Instant::now();
        let count = |row: &Value, name: &str| row[name].as_u64().unwrap_or_default() as usize;
        loop {
            let row = self.weir.sql(&query).remove(0);
            let found = (count(&row, "requests"), count(&row, "judged"));
            if found == (requests, judged) {
                return;
            }
            let said = || self.run.said();
            assert!(found.0 <= requests && found.1 <= judged, "{found:?} of {:?}", (requests, judged));
            assert!(began.elapsed() < PATIENCE, "{found:?} of {:?} came: {}", (requests, judged), said());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Learns a candidate from a round; its report.
    pub fn learn(&self, round: &str) -> Value {
        let tag = format!("round={round}");
        self.weir.run(&["learn", "policy", "--key", "signing.key", "--tag", &tag, "--json"]).ok().json()
    }

    /// Approves a policy, by force where its verdict is "not shown".
    pub fn approve(&self, id: &str, verdict: &str) {
        let command = ["policy", "approve", id, "--actor", "ann", "--reason", "the closed loop"];
        let force: &[&str] = if verdict == "better" { &[] } else { &["--force"] };
        self.weir.run(&[&command[..], force].concat()).ok();
    }

    /// The sentence with which an approval is refused.
    pub fn refused(&self, id: &str) -> String {
        let outcome = self.weir.run(&["policy", "approve", id, "--actor", "ann", "--reason", "the closed loop"]);
        assert_ne!(outcome.code, 0, "it was approved: {}", outcome.stdout);
        outcome.sentence().to_owned()
    }

    /// What a policy would do with each kind of request, asked of a sidecar that serves its exported bundle.
    pub fn choices(&self, id: &str) -> Choices {
        let short = id.trim_start_matches("sha256:");
        self.weir.run(&["policy", "export", id, short]).ok();
        let sidecar = self.sidecar(short, &format!("{short}.jsonl"), ENDLESS);
        let mut choices = [[0.0; MODELS.len()]; KINDS];
        for kind in Kind::all() {
            let context = traffic::context(kind, 0);
            let name = format!("{}-{}", kind.domain(), kind.complexity());
            let decision = traffic::decide(sidecar.port, &name, &context).expect("a bundle is always in force");
            choices[kind.0] = traffic::probabilities(&decision);
        }
        choices
    }
}

/// A running `weir decide`.
pub struct Sidecar {
    running: Running,
    port: u16,
    log: PathBuf,
}

impl Sidecar {
    /// Waits until it has taken up a policy.
    pub fn wait_for(&mut self, id: &str) {
        let port = self.port;
        self.running.wait_until("take up the policy", || parts::get(port, "/v1/knobs").contains(id));
    }

    /// Every decision so far.
    pub fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).expect("the log is there");
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("closed_loop").join(name)
}

/// The proxy, with its configuration and the recipe's callback side by side, as the recipe says.
fn proxy(litellm: &Path, folder: &Path, brokers: &str, (upstreams, port): (u16, u16)) -> Command {
    let callback = "weir_callback.py";
    std::fs::copy(here("litellm.yaml"), folder.join("litellm.yaml")).expect("the test folder is writable");
    std::fs::copy(parts::recipe("litellm").join(callback), folder.join(callback)).expect("it is");
    let mut command = Command::new(litellm.join("bin/python"));
    command
        .args(["-c", "from litellm import run_server; run_server()", "--config"])
        .arg(folder.join("litellm.yaml"))
        .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--telemetry", "False"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // Prices are in the configuration; nothing is looked up outside.
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("WEIR_KAFKA_BROKERS", brokers)
        // The callers are the test's own.
        .env("WEIR_DRAWS", "1")
        .env("PROVIDER_URL", format!("http://127.0.0.1:{upstreams}/v1"))
        .env("LITELLM_MASTER_KEY", KEY);
    command
}
