#!/usr/bin/env bash
# Looks for inputs that break a law: for FUZZ_SECONDS each (20), every fuzz target is given bytes that reach code which no
# earlier input reached. What breaks a law is kept in fuzz/regressions/TARGET, and the tests replay it from then on.
#
#   scripts/fuzz.sh              every target of fuzz/fuzz_targets
#   scripts/fuzz.sh json avro    these
#
# libFuzzer, with the coverage that LLVM counts on any toolchain: neither a nightly one nor cargo-fuzz is needed. There is no
# address sanitizer: our own crates have no unsafe code. What was found of interest stays in the user's cache folder, where
# the next run goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${FUZZ_SECONDS:-20}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir
found=$cache/fuzz
export CARGO_TARGET_DIR=$cache/fuzz-target
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

if [ $# -eq 0 ]; then
  for file in fuzz/fuzz_targets/*.rs; do
    set -- "$@" "$(basename "$file" .rs)"
  done
fi

# With a target named, the flags are not for build scripts and macros, which have no fuzzer to report to.
host=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
RUSTFLAGS=$flags cargo build --release --quiet --locked --manifest-path fuzz/Cargo.toml --target "$host"

# value NAME LOG: one of the numbers that libFuzzer ends with.
value() { sed -n "s/^stat::$1: *//p" "$2"; }

failed=()
for target in "$@"; do
  broken=$found/broken/$target
  log=$found/$target.log
  rm -rf "$broken"
  mkdir -p "$found/corpus/$target" "$broken" "fuzz/regressions/$target"
  status=0
  "$CARGO_TARGET_DIR/$host/release/$target" "$found/corpus/$target" "fuzz/corpus/$target" "fuzz/regressions/$target" \
    -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 -reload=0 -print_final_stats=1 \
    -artifact_prefix="$broken/" >"$log" 2>&1 || status=$?
  if [ "$status" = 0 ]; then
    printf '%-16s %9d inputs, %6d a second, %5d of interest, %4d MiB\n' "$target" "$(value number_of_executed_units "$log")" \
      "$(value average_exec_per_sec "$log")" "$(value new_units_added "$log")" "$(value peak_rss_mb "$log")"
    continue
  fi
  failed+=("$target")
  grep -aE -A12 'panicked at|ERROR: libFuzzer|stack overflow' "$log" || tail -20 "$log"
  for input in "$broken"/{crash,oom,timeout}-*; do
    [ -f "$input" ] || continue
    cp "$input" "fuzz/regressions/$target/"
    echo "$target: its law is broken by fuzz/regressions/$target/$(basename "$input")"
  done
done
# Git keeps no empty folders, and the tests need none.
find fuzz/regressions -type d -empty -delete
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
