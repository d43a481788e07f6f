#!/usr/bin/env bash
# Runs every test, then says in a few lines what ran, what was skipped and why.
#
# Most tests wait more than they compute, and cargo runs one program of tests after the other: here several run beside
# each other (TEST_JOBS of them), and each program's output is printed in one piece when it has ended.
#
# WEIR_REQUIRE=kafka,shared makes a test fail where it would skip for want of that part.
# Arguments go to cargo test, which then runs as it always does: scripts/test.sh --workspace --test mock_cluster
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log
cores=$(nproc)
jobs=${TEST_JOBS:-$((cores < 4 ? cores : 4))}

# Clones that share a cache share programs too: snapshots are looked for in this clone, not where one was compiled, and what was told
# another clone's place when it was compiled is compiled again.
export INSTA_WORKSPACE_ROOT=$PWD
place=${CARGO_TARGET_DIR:-target}/compiled-in
if [ "$(cat "$place" 2>/dev/null)" != "$PWD" ]; then
  grep -rlZ --include='*.rs' --exclude-dir=target 'env!("CARGO_MANIFEST_DIR")' . | xargs -0 -r touch
  mkdir -p "$(dirname "$place")" && printf '%s\n' "$PWD" >"$place"
fi

# "FOLDER PROGRAM NAME" of each program of tests.
programs() {
  python3 -I -c '
import json, os, sys
for line in sys.stdin:
    built = json.loads(line)
    if built.get("executable") and built["profile"]["test"]:
        folder = os.path.dirname(built["manifest_path"])
        print(folder, built["executable"], os.path.basename(folder) + "/" + built["target"]["name"], sep="\t")
'
}

# run_one FOLDER PROGRAM NAME: as cargo would, in its package's folder. --show-output, because a test that skips passes, and
# its reason would not be seen.
# shellcheck disable=SC2329  # called by xargs
run_one() {
  local began=$SECONDS status out
  out=$work/$(basename "$2")
  (cd "$1" && CARGO_MANIFEST_DIR=$1 "$2" --show-output) >"$out" 2>&1
  status=$?
  {
    flock 9
    printf '     Running %s (%s s)\n' "$3" $((SECONDS - began))
    cat "$out"
    [ "$status" = 0 ] || { echo "error: $3 ended with status $status"; echo "$3" >>"$work/failed"; }
  } 9>"$work/lock"
  rm -f "$out"
}
export -f run_one
export work

run_all() {
  cargo test --no-run --message-format json-render-diagnostics --workspace | programs >"$work/programs" || return 1
  tr '\t' '\n' <"$work/programs" | xargs -d '\n' -n 3 -P "$jobs" bash -c 'run_one "$@"' run_one
  cargo test --no-fail-fast --workspace --doc -- --show-output || echo doc >>"$work/failed"
  [ ! -e "$work/failed" ]
}

# Without what it takes to run them beside each other, they run one after the other.
for tool in python3 xargs flock; do
  [ $# -gt 0 ] || command -v "$tool" >/dev/null || set -- --workspace
done
if [ $# -gt 0 ]; then
  cargo test --no-fail-fast "$@" -- --show-output 2>&1 | tee "$log"
else
  run_all 2>&1 | tee "$log"
fi
status=${PIPESTATUS[0]}

echo
grep -aoE 'skipped: .*' "$log" | sort | uniq -c | sed 's/^ *\([0-9]*\) skipped: /skipped in \1 tests: /'
grep -aE '^test .* FAILED$' "$log" | sort -u
awk '/^test result:/ { for (i = 1; i < NF; i++) {
       if ($(i+1) ~ /^passed/) passed += $i
       if ($(i+1) ~ /^failed/) failed += $i
       if ($(i+1) ~ /^ignored/) ignored += $i } }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
exit "$status"
