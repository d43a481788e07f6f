#!/usr/bin/env bash
# Runs every test, then says in a few lines what ran, what was skipped and why.
#
# WEIR_REQUIRE=kafka,shared makes a test fail where it would skip for want of that part.
# Arguments go to cargo test: scripts/test.sh -p weir-store
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

log=$(mktemp)
trap 'rm -f "$log"' EXIT
[ $# -gt 0 ] || set -- --workspace

# --show-output, because a test that skips passes, and its reason would not be seen.
# Clones that share a cache share binaries too: snapshots are looked for in this clone, not where one was compiled.
export INSTA_WORKSPACE_ROOT=$PWD
cargo test --no-fail-fast "$@" -- --show-output 2>&1 | tee "$log"
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
