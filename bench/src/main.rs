//! Benchmarks that print a ratio against a ceiling, or a peer, of the same run. The last line is one JSON object.
//!
//! | command | measures | beside |
//! |---|---|---|
//! | `ingest BROKERS EVENTS [PARTITIONS]` | Kafka to committed Delta rows | consuming, decoding, encoding alone |
//! | `freshness BROKERS [SECONDS] [EVENTS_PER_S]` | from produced to visible in SQL | the highest rate of the same run |
//! | `features BROKERS EVENTS` | ingest with the feature tables kept level | the same without |
//! | `growth [EVENTS]` | summarising with a million live sessions, to 1e8 events | the first million of the same run |
//! | `commits [COMMITS]` | many small commits, latency and memory by the thousand | the first thousand of the same run |
//! | `decide [DECISIONS]` | one routing decision, and what it allocates | dot products of the same size |
//! | `ope [ROUNDS]` | an off-policy evaluation with both kinds of interval | one pass over the rows |
//! | `train [ROWS] [OUT]` | training of the reward model and of a neural policy, CPU or GPU | PyTorch, by `bench/gpu.sh` |
//! | `fleet [REPETITIONS]` | sizing a fleet at every boundary; the simulator | one pool of a given size; an event heap |
//! | `drift [SEEDS] [FILE]` | delay and false alarms on seeded changes | detectors of `river`, by `bench/drift/run.sh` |
//! | `routing [FOLDER]` | a policy learned from logs of a public score matrix | single model, per domain, k-NN, oracle |
//! | `bandits OUT [SEED]` | contextual bandits on logs of that matrix, which it also writes to OUT | Vowpal Wabbit and MABWiser, by `bench/bandits/run.sh` |
//!
//! The first three need a broker: `bench/kafka.sh` starts one. `make bench-<command>` runs the release build of each.
//! `bench/peers/` measures other programs on the topic that `produce` fills, beside `ingest-alone`.

mod allocations;
mod bandits;
mod ceilings;
mod commits;
mod decide;
mod drift;
mod events;
mod features;
mod fleet;
mod freshness;
mod growth;
mod ingest;
mod kafka;
mod ope;
mod routing;
mod schema;
mod timing;
mod train;
mod usage;

const USAGE: &str = "usage: weir-bench ingest BROKERS EVENTS [PARTITIONS] | freshness BROKERS [SECONDS] [EVENTS_PER_S] | \
                     features BROKERS EVENTS | growth [EVENTS] | commits [COMMITS] | decide [DECISIONS] | ope [ROUNDS] | \
                     fleet [REPETITIONS] | drift [SEEDS] [FILE] | routing [FOLDER] | bandits OUT [SEED] | train [ROWS] [OUT] | produce BROKERS TOPIC EVENTS PARTITIONS | schema";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ingest", brokers, events] => ingest::run(brokers, events.parse()?, kafka::PARTITIONS),
        ["ingest", brokers, events, partitions] => ingest::run(brokers, events.parse()?, partitions.parse()?),
        // What `ingest`, `freshness` and bench/peers start for their own measurements.
        ["ingest-alone", brokers, topic, folder] => ingest::alone(brokers, topic, folder.as_ref()),
        ["ingest-until-stopped", brokers, topic, folder] => freshness::ingest(brokers, topic, folder.as_ref()),
        ["freshness", brokers] => freshness::run(brokers, 30, None),
        ["freshness", brokers, seconds] => freshness::run(brokers, seconds.parse()?, None),
        ["freshness", brokers, seconds, rate] => freshness::run(brokers, seconds.parse()?, Some(rate.parse()?)),
        ["features", brokers, events] => features::run(brokers, events.parse()?),
        ["growth"] => growth::run(100_000_000),
        ["growth", events] => growth::run(events.parse()?),
        ["commits"] => commits::run(10_000),
        ["commits", commits] => commits::run(commits.parse()?),
        ["decide"] => decide::run(200_000),
        ["decide", decisions] => decide::run(decisions.parse()?),
        ["bandits", out] => bandits::run(out.as_ref(), 1),
        ["bandits", out, seed] => bandits::run(out.as_ref(), seed.parse()?),
        ["train"] => train::run(400_000, None),
        ["train", rows] => train::run(rows.parse()?, None),
        ["train", rows, out] => train::run(rows.parse()?, Some(out.as_ref())),
        ["ope"] => ope::run(1_000_000),
        ["ope", rounds] => ope::run(rounds.parse()?),
        ["fleet"] => fleet::run(30),
        ["fleet", repetitions] => fleet::run(repetitions.parse()?),
        ["drift"] => drift::run(100, None),
        ["drift", seeds] => drift::run(seeds.parse()?, None),
        ["drift", seeds, file] => drift::run(seeds.parse()?, Some(file.as_ref())),
        ["routing"] => routing::run(None),
        ["routing", folder] => routing::run(Some(folder.as_ref())),
        ["produce", brokers, topic, events, partitions] => {
            kafka::produce(brokers, topic, events.parse()?, partitions.parse()?)
        }
        ["schema"] => schema::print(),
        _ => Err(USAGE.into()),
    }
}
