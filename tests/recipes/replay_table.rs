//! `deploy/recipes/debezium`: the replay table of vLLM Semantic Router in a real PostgreSQL, by Debezium.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use weir_tests::{Kafka, Weir};

use crate::parts::{self, Running};
use crate::topics;

const TOPIC: &str = "replay.public.router_replay_records";

/// The record as the router writes it when routing is over, with a column so large that PostgreSQL keeps it elsewhere:
/// an update that does not touch it does not log it either.
const INSERT: &str = "INSERT INTO router_replay_records SELECT * FROM jsonb_populate_record(null::router_replay_records,
    :'record'::jsonb || jsonb_build_object('lifecycle_state', 'in_progress', 'completion_tokens', null, 'created_at', now(),
    'signal_values', (SELECT jsonb_object_agg(md5(i::text), i) FROM generate_series(1, 400) i)))";
const UPDATE: &str = "UPDATE router_replay_records SET lifecycle_state = 'completed', completion_tokens = 96";

#[test]
fn rows_of_the_replay_table_become_requests() {
    let Some(debezium) = parts::tool("debezium") else { return };
    let Some(programs) = postgresql() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    topics::create(&kafka.brokers, TOPIC);
    let (mut server, database) = Database::start(programs, folder.path());
    database.sql(include_str!("replay_table.sql"));
    database.sql(INSERT);
    let mut connect = connect(&debezium, &kafka.brokers, database.port, folder.path());
    connect.wait_until("send the snapshot", || topics::end(&kafka.brokers, TOPIC) >= 1);
    database.sql(UPDATE);
    connect.wait_until("send the update", || topics::end(&kafka.brokers, TOPIC) >= 2);
    // What the router's TTL deletes is no news.
    database.sql("DELETE FROM router_replay_records");
    let messages = topics::read(&kafka.brokers, TOPIC, 2);
    connect.stop();
    server.stop();

    assert_eq!(messages.len(), 2, "{messages:?}");
    let states: Vec<&Value> = messages.iter().map(|message| &message.value["lifecycle_state"]).collect();
    assert_eq!(states, ["in_progress", "completed"]);
    for message in &messages {
        let values = message.value["signal_values"].as_str().expect("a JSON column is text");
        let values: Value = serde_json::from_str(values).expect("and the text is JSON");
        assert_eq!(values.as_object().map(serde_json::Map::len), Some(400));
        for text in ["prompt", "request_body", "response_body", "tool_trace", "tool_definitions", "hallucination_spans"]
        {
            assert!(message.value.get(text).is_none(), "{text} left the database");
        }
    }

    let weir = Weir::new(folder.path());
    weir.configure(&format!(
        "[kafka]\nbrokers = \"{}\"\n[[kafka.topics]]\nname = \"{TOPIC}\"\nformat = \"vllm_semantic_router\"\n",
        kafka.brokers
    ));
    weir.run(&["run", "--until-drained", "--no-http"]).ok();
    let (rows, dead) = ("select count(*) from raw_requests", "select count(*) from dead_letters");
    assert_eq!((weir.number(rows), weir.number(dead)), (2.0, 0.0));
    let rows =
        weir.sql("select request_id, executed_model, prompt_tokens, completion_tokens, policy_version from requests");
    assert_eq!(rows.len(), 1, "two moments of one call are one request: {rows:?}");
    assert_eq!(rows[0]["request_id"], "0f6e2d4c81ba4b7f9d03a6c5e2f19b70");
    assert_eq!(rows[0]["executed_model"], "amber-70b");
    assert_eq!((&rows[0]["prompt_tokens"], &rows[0]["completion_tokens"]), (&4130.into(), &96.into()));
    // Out of a JSON column.
    assert_eq!(rows[0]["policy_version"], "rp-2026-09-14.1");
}

/// The folder of PostgreSQL's server programs.
fn postgresql() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").is_file()).max();
    if found.is_none() {
        weir_tests::skip("recipes", "PostgreSQL's server is not installed");
    }
    found
}

/// One PostgreSQL on the loopback.
struct Database {
    programs: PathBuf,
    port: u16,
}

impl Database {
    fn start(programs: PathBuf, folder: &Path) -> (Running, Self) {
        // The server refuses to run as root, and its user must reach its folder.
        let home = tempfile::tempdir_in("/tmp").expect("a temporary folder").keep();
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o777)).expect("its mode can be set");
        let data = home.join("data");
        let mut init = as_postgres(&programs.join("initdb"));
        init.args(["--auth=trust", "--username=postgres", "--no-sync", "--pgdata"]).arg(&data).current_dir(&home);
        let made = init.output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let database = Self { programs, port: parts::free_port() };
        let mut command = as_postgres(&database.programs.join("postgres"));
        command.arg("-D").arg(&data).args(["-p", &database.port.to_string(), "-c", "wal_level=logical"]);
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c"]);
        command.arg(format!("unix_socket_directories={}", home.display())).current_dir(&home);
        let mut server = Running::start("postgres", command, folder);
        server.removes(home);
        server.wait_until("answer", || database.psql("SELECT 1").output().is_ok_and(|output| output.status.success()));
        (server, database)
    }

    fn psql(&self, sql: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "-qX"]);
        command.args(["-v", "ON_ERROR_STOP=1", "-v"]);
        command.arg(format!("record={}", include_str!("../../schemas/tests/vllm_sr/complete.json")));
        // Variables are replaced in what is read, not in what -c gives.
        command.args(["-f", "-"]).stdin(parts::holding(sql)).stdout(std::process::Stdio::null());
        command
    }

    fn sql(&self, sql: &str) {
        let output = self.psql(sql).output().expect("psql runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn as_postgres(program: &Path) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

/// Kafka Connect with one connector, and the recipe's two files.
fn connect(debezium: &Path, brokers: &str, port: u16, folder: &Path) -> Running {
    let recipe = parts::recipe("debezium");
    let rest = parts::free_port();
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"]);
    command.arg(format!("{}/libs/*", debezium.display())).arg("org.apache.kafka.connect.cli.ConnectStandalone");
    command.args([recipe.join("worker.properties"), recipe.join("connector.properties")]);
    command
        .env("KAFKA_BROKERS", brokers)
        .env("CONNECT_PORT", rest.to_string())
        .env("CONNECT_OFFSETS", folder.join("offsets"))
        .env("REPLAY_DB_HOST", "127.0.0.1")
        .env("REPLAY_DB_PORT", port.to_string())
        .env("REPLAY_DB_NAME", "postgres")
        .env("REPLAY_DB_USER", "postgres")
        .env("REPLAY_DB_PASSWORD", "none");
    Running::start("connect", command, folder)
}
