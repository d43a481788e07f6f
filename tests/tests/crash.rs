//! `make crash SEEDS=n`: the same traffic through a real Kafka again and again, killed at other moments each time.
//!
//! Each seed runs `weir run` on a folder of its own over the same topics, kills it (SIGKILL, which nothing can catch) a
//! few times at seeded moments, freezes it once (SIGSTOP) while another process takes its partitions over, lets a last
//! run drain, and counts. Without `WEIR_CRASH_SEEDS` it plays one seed, as part of the tests.

use std::process::Child;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use weir_tests::{Kafka, Weir};

/// Event seconds of simulated traffic.
const EVENT_SECONDS: &str = "1500";
/// Kills of one seed.
const KILLS: std::ops::RangeInclusive<u32> = 2..=4;

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
        weir.configure(&format!(
            "[kafka]\nbrokers = \"{}\"\ngroup_id = \"seed-{seed}\"\n[kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n\
             [ingest]\nflush_rows = 900\nflush_interval_ms = 150\n",
            kafka.brokers
        ));
        let damage = play(&weir, seed, &expected);
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

fn play(weir: &Weir, seed: u64, expected: &[(&str, u64)]) -> Damage {
    let mut random = StdRng::seed_from_u64(seed);
    let run = ["run", "--until-drained", "--no-http"];
    for _ in 0..random.random_range(KILLS) {
        let mut child = weir.start(&run);
        std::thread::sleep(Duration::from_millis(random.random_range(200..3_000)));
        end(&mut child);
    }
    // A zombie: frozen until the group has given its partitions away, then woken while another one writes.
    let mut zombie = weir.start(&run);
    std::thread::sleep(Duration::from_millis(random.random_range(800..2_000)));
    signal(&zombie, "STOP");
    std::thread::sleep(Duration::from_millis(7_000));
    let mut successor = weir.start(&run);
    std::thread::sleep(Duration::from_millis(random.random_range(500..2_500)));
    signal(&zombie, "CONT");
    std::thread::sleep(Duration::from_millis(random.random_range(500..2_500)));
    end(&mut zombie);
    end(&mut successor);

    weir.run(&["run", "--until-drained", "--no-http"]).ok();
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

fn end(child: &mut Child) {
    // It may have drained and ended by itself already.
    let _ended = child.kill();
    child.wait().expect("a killed child ends");
}

fn signal(child: &Child, name: &str) {
    let sent = std::process::Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()) || name == "CONT", "kill -{name} failed");
}
