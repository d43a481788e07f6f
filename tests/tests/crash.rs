//! `make crash SEEDS=n`: the same traffic through a real Kafka again and again, killed at other moments each time.
//!
//! Each seed runs `weir run` on a folder of its own over the same topics, kills it (SIGKILL, which nothing can catch) a
//! few times at seeded moments, freezes it once (SIGSTOP) while another process reads on, lets a last run drain, and
//! counts. Without `WEIR_CRASH_SEEDS` it plays one seed, as part of the tests.
//!
//! Every process has a consumer group of its own. So none waits for Kafka to notice that the one before is dead, and
//! nothing but the tables keeps two of them apart. A process is hit only after it has committed rows, and while it has
//! more to read.

use std::process::Child;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use weir_tests::{Kafka, Weir};

/// Event seconds of simulated traffic.
const EVENT_SECONDS: &str = "1500";
/// Kills of one seed, before the one that is frozen.
const KILLS: usize = 3;
const RUN: [&str; 3] = ["run", "--until-drained", "--no-http"];

#[derive(Default)]
struct Damage {
    lost: u64,
    doubled: u64,
    wrong_summaries: bool,
}

#[test]
fn whatever_dies_nothing_is_lost_or_doubled() {
    let seeds: u64 = std::env::var("WEIR_CRASH_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let producer = Weir::in_subfolder(folder.path(), "producer");
    let produced = producer
        .run(&[
            "simulate",
            "--seconds",
            EVENT_SECONDS,
            "--rate",
            "12",
            "--brokers",
            &kafka.brokers,
            "--create-topics",
            "3",
            "--json",
        ])
        .ok()
        .json();
    let count = |topic: &str| produced["by_topic"][topic].as_u64().expect("a count per topic");
    let expected = [
        ("raw_requests", count("requests")),
        ("raw_feedback", count("feedback")),
        ("raw_gpu_telemetry", count("gpu_telemetry")),
    ];
    let events: u64 = expected.iter().map(|(_, count)| count).sum();

    let (mut lost, mut doubled, mut failed) = (0, 0, Vec::new());
    for seed in 0..seeds {
        let weir = Weir::in_subfolder(folder.path(), &format!("seed-{seed}"));
        let damage = play(&weir, &kafka.brokers, seed, &expected);
        lost += damage.lost;
        doubled += damage.doubled;
        if damage.lost + damage.doubled > 0 || damage.wrong_summaries {
            failed.push(seed);
        }
        eprintln!("seed {seed}: {} lost, {} doubled", damage.lost, damage.doubled);
    }
    println!(
        "{}",
        serde_json::json!({
            "seeds": seeds, "events": events * seeds, "lost": lost, "doubled": doubled, "failed_seeds": failed
        })
    );
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}

fn play(weir: &Weir, brokers: &str, seed: u64, expected: &[(&str, u64)]) -> Damage {
    let mut random = StdRng::seed_from_u64(seed);
    let mut processes = 0;
    let mut start_and_commit = |commits: usize| {
        processes += 1;
        weir.configure(&format!(
            "[kafka]\nbrokers = \"{brokers}\"\ngroup_id = \"seed-{seed}-{processes}\"\n\
             [ingest]\nflush_rows = 300\nflush_interval_ms = 150\n"
        ));
        weir.start_until_committed(&RUN, "requests", commits)
    };
    let mut pause = |ms| std::thread::sleep(Duration::from_millis(random.random_range(ms)));
    for kill in 0..KILLS {
        let mut child = start_and_commit(1 + kill);
        pause(0..200);
        end(&mut child);
    }
    // A zombie: frozen with rows that it has read and not committed, then woken while another one writes.
    let mut zombie = start_and_commit(1);
    pause(0..100);
    signal(&zombie, "STOP");
    let mut successor = start_and_commit(2);
    signal(&zombie, "CONT");
    pause(100..600);
    end(&mut successor);
    // It may have been fenced out, which ends it.
    let _woken = zombie.kill();
    zombie.wait().expect("a killed child ends");
    let rows = weir.number("select count(*) from raw_requests");
    assert!(rows < expected[0].1 as f64, "nothing was left to read when the last process was hit: {rows} rows");

    weir.run(&RUN).ok();
    let mut damage = Damage::default();
    for (table, count) in expected {
        let row = &weir.sql(&format!(
            "select count(*) as stored, count(distinct source_topic || '/' || source_partition || '/' || source_offset) as \
             distinct_rows from {table}"
        ))[0];
        let stored = row["stored"].as_u64().expect("a count");
        let distinct = row["distinct_rows"].as_u64().expect("a count");
        damage.lost += count.saturating_sub(distinct);
        damage.doubled += stored - distinct;
    }
    let requests = expected[0].1 as f64;
    damage.wrong_summaries = (weir.number("select sum(requests) from workload_minute") - requests).abs() > 0.0;
    damage
}

/// Kills a process that is in the middle of its work.
fn end(child: &mut Child) {
    let ended = child.try_wait().expect("a child can be asked");
    assert!(ended.is_none(), "it ended by itself ({ended:?}) before it was killed: nothing was tested");
    child.kill().expect("SIGKILL reaches a child");
    child.wait().expect("a killed child ends");
}

/// Bash's own `kill`: the program of that name is not everywhere.
fn signal(child: &Child, name: &str) {
    let sent = std::process::Command::new("bash").arg("-c").arg(format!("kill -{name} {}", child.id())).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} failed");
}
