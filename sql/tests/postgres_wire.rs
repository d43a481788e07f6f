//! PostgreSQL's wire, with the real psql and the real psycopg.

mod common;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use common::append;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use weir_schemas::Request;
use weir_sql::postgres::{PostgresConfig, serve};
use weir_store::Store;

/// 2023-11-14 22:13:20 UTC.
const T0_MS: i64 = 1_700_000_000_000;
const PASSWORD: &str = "correct horse, battery staple";

fn requests() -> Vec<Value> {
    let request = |id: &str, after_ms: i64, domain: &str, model: &str, prompt_tokens: i64| {
        json!({ "request_id": id, "arrival_ms": T0_MS + after_ms, "domain": domain, "pool": "p1",
            "intended_model": model, "executed_model": model, "prompt_tokens": prompt_tokens, "completion_tokens": 50,
            "modalities": ["text"], "http_status": 200, "ttft_ms": 10.0, "tpot_ms": 2.0, "end_to_end_ms": 110.0,
            "cost_usd": 0.001, "tools_called": [{ "name": "search", "success": true }] })
    };
    vec![
        request("r1", 0, "math", "small", 100),
        request("r2", 1_000, "math", "small", 800),
        request("r3", 60_000, "math", "large", 20),
        request("r4", 3_000, "history", "large", 300),
    ]
}

/// The listener over a few rows, in a thread pool of its own.
struct Server {
    runtime: Runtime,
    store: Store,
    port: u16,
    _stop: watch::Sender<bool>,
}

impl Server {
    fn start(folder: &Path, change: impl FnOnce(&mut PostgresConfig)) -> Self {
        let mut config = PostgresConfig {
            user: "weir".into(),
            password: PASSWORD.into(),
            max_connections: 32,
            query_time: Duration::from_secs(60),
            max_rows: 100_000,
        };
        change(&mut config);
        let runtime = Runtime::new().expect("threads");
        let (sender, stop) = watch::channel(false);
        let (store, port) = runtime.block_on(async {
            let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
            append(&store, Request::contract(), 0, &requests()).await;
            weir_features::catch_up(&store).await.expect("catches up");
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a free port");
            let port = listener.local_addr().expect("it has an address").port();
            tokio::spawn(serve(listener, store.clone(), config, stop));
            (store, port)
        });
        Self { runtime, store, port, _stop: sender }
    }

    fn psql(&self, user: &str, password: &str, arguments: &[&str]) -> Output {
        Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"])
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", user, "-d", "weir"])
            .args(arguments)
            .env("PGPASSWORD", password)
            .env("PGCONNECT_TIMEOUT", "30")
            .output()
            .expect("psql runs")
    }

    /// What psql prints for commands that must succeed.
    fn told(&self, commands: &[&str]) -> String {
        let arguments: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
        let output = self.psql("weir", PASSWORD, &arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
    }

    /// What psql says of a command that must fail.
    fn refused(&self, command: &str) -> String {
        let output = self.psql("weir", PASSWORD, &["-c", command]);
        assert!(!output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).expect("UTF-8")
    }
}

/// Is psql here? Says why the test is skipped when it is not.
fn has_psql() -> bool {
    let found = Command::new("psql").arg("--version").output().is_ok();
    if !found {
        weir_tests::skip("psql", "no psql");
    }
    found
}

#[test]
fn psql_reads_the_views_and_sees_what_is_committed_meanwhile() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), |_| {});
    assert_eq!(server.told(&["SELECT model, requests FROM models ORDER BY model"]), "large|2\nsmall|2");
    assert_eq!(server.told(&["SELECT round(total_usd, 6) FROM cost ORDER BY model"]), "0.002\n0.002");
    assert_eq!(server.told(&["SELECT requests FROM workload_mix"]), "4");
    assert_eq!(server.told(&["SELECT model FROM latency ORDER BY 1"]), "large\nsmall");
    // Several statements in one text, comments, and a semicolon in a string.
    assert_eq!(server.told(&["SELECT 1; -- one\nSELECT ';' /* ; */; SELECT 3"]), "1\n;\n3");
    assert_eq!(server.told(&[";"]), "");

    let more = [json!({ "request_id": "r5", "arrival_ms": T0_MS + 9_000, "intended_model": "small" })];
    server.runtime.block_on(append(&server.store, Request::contract(), 4, &more));
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(server.told(&["SELECT count(*) FROM raw_requests"]), "5");
}

#[test]
fn psql_describes_tables_and_views() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), |_| {});
    let tables = server.told(&["\\dt"]);
    assert!(tables.contains("public|raw_requests|table"), "{tables}");
    let views = server.told(&["\\dv"]);
    for view in ["workload_mix", "latency", "cost", "models"] {
        assert!(views.contains(&format!("public|{view}|view")), "{view}: {views}");
    }
    let all = server.told(&["\\d"]);
    assert!(all.contains("raw_requests") && all.contains("workload_mix"), "{all}");
    let columns = server.told(&["\\d raw_requests"]);
    assert!(columns.contains("request_id|text"), "{columns}");
    let columns = server.told(&["\\d cost"]);
    assert!(columns.contains("total_usd|double precision"), "{columns}");
    for other in ["\\l", "\\dn", "\\conninfo"] {
        server.told(&[other]);
    }
}

#[test]
fn values_of_every_type_are_written_as_postgresql_writes_them() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), |_| {});
    for (value, text) in [
        ("CAST(-9000000000 AS BIGINT)", "-9000000000"),
        ("CAST(0.1 AS DOUBLE)", "0.1"),
        ("CAST(18446744073709551615 AS BIGINT UNSIGNED)", "18446744073709551615"),
        ("CAST(12.340 AS DECIMAL(20, 3))", "12.340"),
        ("'ä;''ö'", "ä;'ö"),
        ("TIMESTAMP '2026-01-02T03:04:05.5'", "2026-01-02 03:04:05.500000"),
        ("DATE '2026-01-02'", "2026-01-02"),
        ("true", "t"),
        ("NULL", ""),
        ("X'00ff'", "\\x00ff"),
        ("[1, NULL, 3]", "{1,NULL,3}"),
        ("['a b', 'c\"d']", "{\"a b\",\"c\\\"d\"}"),
        ("[[1, 2], [3]]", "[[1,2],[3]]"),
        ("named_struct('a', 1, 'b', ['x'])", "{\"a\":1,\"b\":[\"x\"]}"),
        ("MAP {'k': 1.5}", "{\"k\":1.5}"),
    ] {
        assert_eq!(server.told(&[&format!("SELECT {value} AS v")]), text, "{value}");
    }
    let tools = server.told(&["SELECT tools_called FROM requests WHERE request_id = 'r1'"]);
    assert!(tools.starts_with("[{") && tools.contains("\"name\":\"search\""), "{tools}");
}

#[test]
fn whatever_is_no_query_is_refused_and_errors_have_their_code() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), |_| {});
    for statement in [
        "INSERT INTO raw_requests SELECT * FROM raw_requests",
        "DELETE FROM raw_requests",
        "UPDATE raw_requests SET tenant = 'x'",
        "TRUNCATE raw_requests",
        "CREATE TABLE t AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/tmp/t.parquet'",
        "DROP VIEW requests",
        "COPY (SELECT 1) TO '/tmp/t.csv'",
        "SET datafusion.execution.batch_size = 1",
        "EXPLAIN ANALYZE INSERT INTO raw_requests SELECT * FROM raw_requests",
        "GRANT ALL ON requests TO weir",
        "CALL something()",
    ] {
        let said = server.refused(statement);
        assert!(said.contains("25006") && said.contains("only reads"), "{statement}: {said}");
    }
    for (statement, code) in [
        ("SELECT * FROM no_such_table", "42P01"),
        ("SELECT no_such_column FROM requests", "42703"),
        ("SELECT no_such_function(1)", "42883"),
        ("SELEC 1", "42601"),
        ("SELECT 'open", "42601"),
        ("SELECT CAST(request_id AS INT) FROM requests", "22000"),
        ("SET TIME ZONE 'Europe/Berlin'", "22023"),
        ("SELECT * FROM generate_series(1, 200000)", "54000"),
    ] {
        let said = server.refused(statement);
        assert!(said.contains(&format!("ERROR:  {code}:")), "{statement}: {said}");
    }
    // What comes before the refused one is no transaction: it was a query.
    assert!(server.refused("SELECT 1; DROP TABLE requests; SELECT 2").contains("25006"));
    assert_eq!(server.told(&["BEGIN", "SELECT 1", "COMMIT", "SHOW transaction_read_only"]), "1\non");
}

#[test]
fn only_the_user_with_the_password_is_let_in() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), |_| {});
    for (user, password) in [("weir", "wrong"), ("postgres", PASSWORD), ("", PASSWORD)] {
        let output = server.psql(if user.is_empty() { "nobody" } else { user }, password, &["-c", "SELECT 1"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{user}: {said}");
        assert!(said.contains("password authentication failed for user"), "{said}");
    }
}

#[test]
fn limits_of_time_and_of_connections_are_told() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), |config| {
        config.query_time = Duration::from_millis(500);
        config.max_connections = 1;
    });
    let endless = "SELECT sum(a.value * b.value) FROM generate_series(1, 1000000) AS a(value), \
                   generate_series(1, 1000000) AS b(value)";
    let said = server.refused(endless);
    assert!(said.contains("ERROR:  57014:") && said.contains("500 ms"), "{said}");

    let mut first = Command::new("psql")
        .args(["-X", "-h", "127.0.0.1", "-p", &server.port.to_string(), "-U", "weir", "-d", "weir"])
        .args(["-c", "\\! sleep 5"])
        .env("PGPASSWORD", PASSWORD)
        .spawn()
        .expect("psql runs");
    std::thread::sleep(Duration::from_secs(2));
    let said = server.refused("SELECT 1");
    first.kill().and_then(|()| first.wait()).expect("psql ends");
    assert!(said.contains("too many connections") && said.contains("postgres.max_connections"), "{said}");
}

/// What Grafana's query builder asks of a PostgreSQL data source.
#[test]
fn grafanas_query_builder_finds_tables_and_columns() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), |_| {});
    let schemas = "SELECT CASE WHEN trim(s[i]) = '\"$user\"' THEN user ELSE trim(s[i]) END \
                   FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1), \
                   array_upper(string_to_array(current_setting('search_path'),','),1)) as i, \
                   string_to_array(current_setting('search_path'),',') s";
    let tables = server.told(&[&format!(
        "SELECT CASE WHEN quote_ident(table_schema) IN ({schemas}) THEN quote_ident(table_name) \
         ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS \"table\" \
         FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', \
         '_timescaledb_cache', '_timescaledb_catalog', '_timescaledb_internal', '_timescaledb_config', \
         'timescaledb_information', 'timescaledb_experimental') \
         ORDER BY CASE WHEN quote_ident(table_schema) IN ({schemas}) THEN 0 ELSE 1 END, 1"
    )]);
    assert!(tables.contains("workload_mix"), "{tables}");
    let name = tables.lines().find(|line| line.ends_with("cost")).expect("the view is listed");
    let columns = server.told(&[&format!(
        "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns WHERE \
         CASE WHEN array_length(parse_ident('{name}'),1) = 2 \
         THEN quote_ident(table_schema) = (parse_ident('{name}'))[1] AND quote_ident(table_name) = (parse_ident('{name}'))[2] \
         ELSE quote_ident(table_name) = '{name}' AND quote_ident(table_schema) IN ({schemas}) END"
    )]);
    assert!(columns.contains("total_usd|"), "{columns}");
    assert_eq!(server.told(&["SELECT current_setting('server_version_num')::int/100 as version"]), "1600");
}

#[test]
fn psycopg_speaks_the_extended_protocol_in_text_and_in_binary() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres");
    let output = Command::new("bash").arg(here.join("psycopg.sh")).output().expect("bash runs the script");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code() == Some(3) {
        weir_tests::skip("psycopg", said.lines().last().unwrap_or_default().trim_start_matches("skipped: "));
        return;
    }
    assert!(output.status.success(), "psycopg.sh: {}", String::from_utf8_lossy(&output.stderr));
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), |_| {});
    let output = Command::new(said.trim())
        .arg(here.join("client.py"))
        .args([&server.port.to_string(), PASSWORD])
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));
}
