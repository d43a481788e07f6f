#!/usr/bin/env bash
# A benchmark that reads from a real Kafka, started for it and removed after; the last line is one JSON object.
#   bench/kafka.sh ingest [EVENTS [PARTITIONS]]         default 1,000,000 and 2
#   bench/kafka.sh features [EVENTS]                    default 1,000,000
#   bench/kafka.sh freshness [SECONDS [EVENTS_PER_S]]   default 30, and half of the highest rate of the same run
set -euo pipefail
cd "$(dirname "$0")/.."
benchmark=${1:?usage: bench/kafka.sh ingest|features|freshness [NUMBERS]}
shift
case $benchmark in
    freshness) (($#)) || set -- 30 ;;
    *) (($#)) || set -- 1000000 ;;
esac
folder=$(mktemp -d)
stop() { bash tests/kafka/kafka.sh stop --dir "$folder/kafka" >&2 || true; rm -rf "$folder"; }
trap stop EXIT
# The whole workspace's features, so that this and `make demo` agree on what is compiled.
cargo build --release --quiet --workspace --bin weir-bench
set +e
brokers=$(bash tests/kafka/kafka.sh start --dir "$folder/kafka" | tail -n 1)
code=${PIPESTATUS[0]}
set -e
if [ "$code" -ne 0 ]; then echo "$brokers" >&2; exit "$code"; fi
"${CARGO_TARGET_DIR:-target}/release/weir-bench" "$benchmark" "$brokers" "$@"
