#!/usr/bin/env bash
# Weir and other programs, one after another, from the same Kafka topic into Delta tables of the same columns.
# The last line is one JSON object. What each is and how it is set up: bench/peers/README.md.
#
#   EVENTS=500000         events in the topic, about 0.9 kB each
#   PARTITIONS=2          its partitions
#   ROUNDS=3              times that each program reads it; ratios are medians over rounds
#   CONTESTANTS=...       which ones, by name (default: weir spark bytewax kafka-delta-ingest)
#   KAFKA_DELTA_INGEST_BIN=...   the program kafka-delta-ingest, which nobody publishes ready to run
#
# A program that is not to be had on this machine is named with its reason and skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
events=${EVENTS:-500000}
partitions=${PARTITIONS:-2}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/peers
bench=${CARGO_TARGET_DIR:-target}/release/weir-bench

folder=$(mktemp -d)
stop() { bash tests/kafka/kafka.sh stop --dir "$folder/kafka" >&2 || true; rm -rf "$folder"; }
trap stop EXIT

# The whole workspace's features, so that this and `make demo` agree on what is compiled.
cargo build --release --quiet --workspace --bin weir-bench
bash bench/peers/setup.sh "$cache"

set +e
brokers=$(bash tests/kafka/kafka.sh start --dir "$folder/kafka" | tail -n 1)
code=${PIPESTATUS[0]}
set -e
if [ "$code" -ne 0 ]; then echo "$brokers" >&2; exit "$code"; fi

# No compiled Python among the sources.
export PYTHONDONTWRITEBYTECODE=1
python3 bench/peers/contest.py --bench "$bench" --cache "$cache" --brokers "$brokers" --folder "$folder" \
    --events "$events" --partitions "$partitions" --rounds "${ROUNDS:-3}" \
    ${CONTESTANTS:+--contestants "$CONTESTANTS"}
