//! `weir serve` with a section `[postgres]`: what psql and the dashboard of `deploy/grafana/sql` get from it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const PASSWORD: &str = "correct-horse";

/// `weir serve`, ended with the test.
struct Serving {
    process: Child,
    port: String,
    // Closed, the process could not write its last lines.
    _lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Serving {
    fn start(folder: &Path) -> Self {
        let mut process = weir(folder, &["serve", "--listen", "127.0.0.1:0"]);
        let mut process = process.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(process.stderr.take().expect("standard error is piped")).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("weir: PostgreSQL's wire at 127.0.0.1:").map(str::to_owned))
            .expect("it says where it listens");
        Self { process, port, _lines: lines }
    }

    fn psql(&self, sql: &str) -> Output {
        Command::new("psql")
            .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-c", sql])
            .arg(format!("host=127.0.0.1 port={} user=reader dbname=weir", self.port))
            .env("PGPASSWORD", PASSWORD)
            .output()
            .expect("psql runs")
    }

    fn told(&self, sql: &str) -> String {
        let output = self.psql(sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the process was not stopped: {error}");
        }
    }
}

fn weir(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.current_dir(folder).args(arguments).env("WEIR_LOG", "off");
    command
}

fn configured(folder: &Path) {
    std::fs::create_dir(folder.join("weir-data")).unwrap();
    std::fs::write(folder.join("password"), format!("{PASSWORD}\n")).unwrap();
    let config =
        "[postgres]\nlisten = \"127.0.0.1:0\"\nuser = \"reader\"\npassword_file = \"password\"\nmax_rows = 1000\n";
    std::fs::write(folder.join("weir.toml"), config).unwrap();
}

fn has_psql() -> bool {
    let found = Command::new("psql").arg("--version").output().is_ok();
    if !found {
        let required = std::env::var("WEIR_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|part| part.trim() == "psql"), "psql is required here but missing");
        eprintln!("skipped: no psql");
    }
    found
}

#[test]
fn what_the_configuration_says_holds() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    configured(folder.path());
    let serving = Serving::start(folder.path());
    assert_eq!(serving.told("SELECT current_setting('transaction_read_only'), count(*) FROM requests"), "on|0");
    let output = serving.psql("SELECT * FROM generate_series(1, 2000)");
    assert!(String::from_utf8_lossy(&output.stderr).contains("more than 1000 rows"), "{output:?}");
    let output = serving.psql("DROP TABLE raw_requests");
    assert!(String::from_utf8_lossy(&output.stderr).contains("25006"), "{output:?}");
}

/// Grafana puts the time range chosen in place of its macro, in this form.
fn as_grafana_sends_it(sql: &str) -> String {
    let mut parts = sql.split("$__timeFilter(");
    let mut sent = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (column, rest) = part.split_once(')').expect("a macro is closed");
        sent += &format!("{column} BETWEEN '2023-01-01T00:00:00Z' AND '2030-01-01T00:00:00Z'{rest}");
    }
    sent
}

#[test]
fn every_panel_of_the_dashboard_is_answered() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    configured(folder.path());
    let serving = Serving::start(folder.path());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/sql/dashboard.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().expect("there are panels");
    let mut asked = 0;
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let sql = as_grafana_sends_it(target["rawSql"].as_str().expect("a query"));
            assert!(!sql.contains("$_"), "{}: an unknown macro: {sql}", panel["title"]);
            serving.told(&sql);
            asked += 1;
        }
    }
    assert!(asked >= 10, "{asked} queries");
}

#[test]
fn a_listener_without_its_password_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    configured(folder.path());
    std::fs::remove_file(folder.path().join("password")).unwrap();
    let output = weir(folder.path(), &["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot read the password of postgres"), "{said}");
}
