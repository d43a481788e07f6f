//! The console in a real browser: what the page shows is what the views say.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use weir_tests::{Kafka, Weir, skip};

/// Without these Chromium asks the network for things that have nothing to do with the page.
const QUIET: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

#[test]
fn the_page_shows_the_models_and_the_mix_that_sql_reports() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    if Command::new("chromium").arg("--version").output().is_err() {
        skip("browser", "no chromium");
        return;
    }
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let weir = Weir::new(folder.path());
    weir.configure(&format!("[kafka]\nbrokers = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n", kafka.brokers));
    weir.run(&["simulate", "--seconds", "120", "--rate", "8", "--brokers", &kafka.brokers, "--create-topics", "1"])
        .ok();
    weir.run(&["run", "--until-drained", "--no-http"]).ok();
    let models = weir.sql("select model, requests from models");
    assert!(models.len() > 1, "{models:?}");

    let mut server = weir.command(&["serve"]).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let lines = BufReader::new(server.stderr.take().expect("standard error is piped")).lines();
    let url = lines
        .map_while(Result::ok)
        .find_map(|line| line.rsplit(' ').next().filter(|last| last.starts_with("http://")).map(str::to_owned))
        .expect("it says where it listens");
    let page = Command::new("chromium")
        .args(QUIET)
        .arg(format!("--user-data-dir={}", folder.path().join("browser").display()))
        .args(["--virtual-time-budget=6000", "--dump-dom", &url])
        .output();
    server.kill().and_then(|()| server.wait()).expect("the server stops");
    let page = page.expect("chromium runs");
    let dom = String::from_utf8_lossy(&page.stdout);
    assert!(dom.contains("Workload mix") && dom.contains("multi-turn"), "no mix on the page: {dom}");
    for row in &models {
        let (model, requests) = (row["model"].as_str().expect("a name"), row["requests"].as_i64().expect("a count"));
        let cells = format!("<td>{model}</td><td class=\"n\">{requests}</td>");
        assert!(dom.contains(&cells), "{model} with {requests} requests is not on the page: {dom}");
    }
}
