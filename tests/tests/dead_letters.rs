//! `weir deadletters` as operators use it: messages on a real Kafka that a wrong configuration turned down, the fix, and
//! their rows after all. The replay is killed at random moments, and run twice at once.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use weir_tests::{Kafka, Weir};

/// Simulated traffic, event seconds at 4 requests a second.
const EVENT_SECONDS: &str = "600";
const KILLS: usize = 9;
const REPLAY: [&str; 2] = ["deadletters", "replay"];

fn configure(weir: &Weir, brokers: &str, format: &str, flush_rows: u32) {
    let topic = |name: &str| {
        format!("[[kafka.topics]]\nname = \"{name}\"\nformat = \"{}\"\n", if format.is_empty() { name } else { format })
    };
    weir.configure(&format!(
        "[kafka]\nbrokers = \"{brokers}\"\n{}{}[ingest]\nflush_rows = {flush_rows}\n",
        topic("requests"),
        topic("feedback")
    ));
}

#[test]
fn letters_get_their_rows_once_after_the_fix_whatever_kills_the_replay() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let weir = Weir::new(folder.path());
    let brokers = kafka.brokers.as_str();
    let produced = weir
        .run(&[
            "simulate",
            "--seconds",
            EVENT_SECONDS,
            "--rate",
            "8",
            "--brokers",
            brokers,
            "--create-topics",
            "3",
            "--json",
        ])
        .ok()
        .json();
    let count = |topic: &str| produced["by_topic"][topic].as_u64().expect("a count per topic");
    let (requests, feedback) = (count("requests"), count("feedback"));
    let letters = requests + feedback;

    // Every native message is none of that router's records.
    configure(&weir, brokers, "vllm_semantic_router", 5_000);
    let wrong = weir.run(&["run", "--until-drained", "--no-http", "--json"]).ok().json();
    assert_eq!(wrong["ingest"]["dead_letters"].as_u64(), Some(letters), "{wrong}");
    assert_eq!(weir.number("select count(*) from raw_requests"), 0.0);
    let listed = weir.run(&["deadletters", "list", "--json"]).ok().json();
    let sum = |list: &Value, of: &str| -> u64 {
        let groups = list["groups"].as_array().expect("groups");
        groups.iter().map(|group| group[of].as_u64().expect("a count")).sum()
    };
    assert_eq!((sum(&listed, "pending"), sum(&listed, "readable"), sum(&listed, "expired")), (letters, letters, 0));

    // Small epochs: a kill lands before, inside and between them.
    configure(&weir, brokers, "", 25);
    let dry = weir.run(&["deadletters", "replay", "--dry-run", "--json"]).ok().json();
    assert_eq!((dry["stored"].as_u64(), dry["rows"]["requests"].as_u64()), (Some(letters), Some(requests)));
    assert_eq!(weir.number("select count(*) from raw_requests"), 0.0, "a dry run stored something");

    let seed =
        std::env::var("WEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    eprintln!("WEIR_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..KILLS {
        // Every third round two replays run at once, and `weir run` beside them.
        let beside = if round % 3 == 2 {
            vec![weir.start(&REPLAY), weir.start(&["run", "--until-drained", "--no-http"])]
        } else {
            Vec::new()
        };
        // Hit after it has claimed an epoch or two, anywhere in what follows.
        let mut child = weir.start_until_committed(&REPLAY, "dead_letter_replays", random.random_range(1..4));
        std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
        let ended = child.try_wait().expect("a child can be asked");
        assert!(ended.is_none(), "it ended by itself ({ended:?}) before it was killed (WEIR_TEST_SEED={seed})");
        for mut process in std::iter::once(child).chain(beside) {
            process.kill().expect("SIGKILL reaches a child");
            process.wait().expect("a killed child ends");
        }
        let stored = weir.number("select count(*) from raw_requests");
        eprintln!("round {round}: {stored} of {requests} requests stored");
    }
    let pending = weir.number("select count(*) from dead_letters_pending");
    assert!(pending > 0.0 && pending < letters as f64, "{pending} of {letters} are pending: the kills hit nothing");
    weir.run(&["deadletters", "replay", "--json"]).ok();
    for (table, wanted) in [("raw_requests", requests), ("raw_feedback", feedback)] {
        let row = &weir.sql(&format!(
            "select count(*) as stored, count(distinct source_topic || '/' || source_partition || '/' || source_offset) as \
             distinct_rows from {table}"
        ))[0];
        let found = (row["stored"].as_u64(), row["distinct_rows"].as_u64());
        assert_eq!(found, (Some(wanted), Some(wanted)), "{table} (WEIR_TEST_SEED={seed})");
    }

    // Again adds none, nothing is pending, ingest goes on, and the summaries see the rows like any others.
    let again = weir.run(&["deadletters", "replay", "--json"]).ok().json();
    assert_eq!((again["stored"].as_u64(), again["finished_rows"].as_u64()), (Some(0), Some(0)), "{again}");
    assert_eq!(weir.number("select count(*) from dead_letters_pending"), 0.0);
    weir.run(&["run", "--until-drained", "--no-http"]).ok();
    assert_eq!(weir.number("select count(*) from raw_requests"), requests as f64);
    assert_eq!(weir.number("select sum(requests) from workload_minute"), requests as f64);
    let listed = weir.run(&["deadletters", "list", "--json"]).ok().json();
    assert_eq!((sum(&listed, "replayed"), sum(&listed, "pending")), (letters, 0));
}

#[test]
fn show_prints_a_message_only_when_asked_and_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let weir = Weir::new(folder.path());
    weir.run(&["simulate", "--seconds", "60", "--brokers", &kafka.brokers, "--create-topics", "1", "--json"]).ok();
    configure(&weir, &kafka.brokers, "vllm_semantic_router", 5_000);
    weir.run(&["run", "--until-drained", "--no-http"]).ok();

    let letter = "requests/0/0";
    let shown = weir.run(&["deadletters", "show", letter]).ok();
    assert!(shown.stdout.contains("adapter") && !shown.stdout.contains("arrival_ms"), "{}", shown.stdout);
    let escaped = weir.run(&["deadletters", "show", letter, "--payload"]).ok();
    assert!(escaped.stdout.contains("arrival_ms"), "{}", escaped.stdout);
    let raw = weir.run(&["deadletters", "show", letter, "--payload", "--raw"]).ok();
    let message: Value = serde_json::from_str(&raw.stdout).expect("the message as it came, and nothing else");
    assert!(message["arrival_ms"].is_i64());

    let none = weir.run(&["deadletters", "show", "requests/0/99999999"]);
    assert!(
        none.code == 2 && none.sentence().contains("there is no dead letter requests/0/99999999"),
        "{}",
        none.stderr
    );
    let day = std::fs::read_dir(folder.path().join("keys/deadletters")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(day).unwrap();
    let expired = weir.run(&["deadletters", "show", letter, "--payload"]);
    assert!(expired.code == 2 && expired.sentence().contains("have expired"), "{}", expired.stderr);
    weir.run(&["deadletters", "show", letter]).ok();
    std::fs::remove_dir_all(folder.path().join("keys")).unwrap();
    for arguments in [&["deadletters", "show", letter, "--payload"][..], &["deadletters", "replay"][..]] {
        let keyless = weir.run(arguments);
        assert!(keyless.code == 2 && keyless.sentence().contains("keys folder"), "{}", keyless.stderr);
    }
    let listed = weir.run(&["deadletters", "list"]).ok();
    assert!(listed.stderr.contains("whether bytes can be read is not known"), "{}", listed.stderr);
    assert!(!folder.path().join("keys").exists(), "a command that needs keys made an empty folder of them");
}
