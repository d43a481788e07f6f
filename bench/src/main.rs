//! Benchmarks that print a ratio against a ceiling, or a peer, of the same run. The last line is one JSON object.
//!
//! | command | measures | beside |
//! |---|---|---|
//! | `ingest BROKERS EVENTS` | Kafka to committed Delta rows | consuming, decoding, encoding alone |
//! | `features BROKERS EVENTS` | the same with the feature tables kept level | the same without |
//! | `commits [COMMITS]` | many small commits, latency and memory by the thousand | the first thousand of the same run |
//! | `decide [DECISIONS]` | one routing decision, and what it allocates | dot products of the same size |
//! | `ope [ROUNDS]` | an off-policy evaluation with both kinds of interval | one pass over the rows |
//! | `fleet [REPETITIONS]` | sizing a fleet at every boundary; the simulator | one pool of a given size; an event heap |
//! | `routing [FOLDER]` | a policy learned from logs of a public score matrix | single model, per domain, k-NN, oracle |
//!
//! The first two need a broker: `bench/kafka.sh` starts one. `make bench-<command>` runs the release build of each.

mod allocations;
mod ceilings;
mod commits;
mod decide;
mod events;
mod features;
mod fleet;
mod ingest;
mod kafka;
mod ope;
mod routing;
mod timing;
mod usage;

const USAGE: &str = "usage: weir-bench ingest BROKERS EVENTS | features BROKERS EVENTS | commits [COMMITS] | \
                     decide [DECISIONS] | ope [ROUNDS] | fleet [REPETITIONS] | routing [FOLDER]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ingest", brokers, events] => ingest::run(brokers, events.parse()?),
        // What `ingest` starts for its own measurement.
        ["ingest-alone", brokers, topic] => ingest::alone(brokers, topic),
        ["features", brokers, events] => features::run(brokers, events.parse()?),
        ["commits"] => commits::run(10_000),
        ["commits", commits] => commits::run(commits.parse()?),
        ["decide"] => decide::run(200_000),
        ["decide", decisions] => decide::run(decisions.parse()?),
        ["ope"] => ope::run(100_000),
        ["ope", rounds] => ope::run(rounds.parse()?),
        ["fleet"] => fleet::run(30),
        ["fleet", repetitions] => fleet::run(repetitions.parse()?),
        ["routing"] => routing::run(None),
        ["routing", folder] => routing::run(Some(folder.as_ref())),
        _ => Err(USAGE.into()),
    }
}
