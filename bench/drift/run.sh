#!/usr/bin/env bash
# Seeded changes of series, judged by Weir's monitor and by detectors of river on the same values; the last line is JSON.
#   bench/drift/run.sh [SEEDS]     default 100
# Where river cannot be installed, Weir's figures are printed alone, and the reason is named.
set -euo pipefail
cd "$(dirname "$0")/../.."
river=0.26.1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/peers/river
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The whole workspace's features, so that this and `make demo` agree on what is compiled.
cargo build --release --quiet --workspace --bin weir-bench
"${CARGO_TARGET_DIR:-target}/release/weir-bench" drift "${1:-100}" "$folder/series.jsonl" >"$folder/weir.json"
install() {
    [ -x "$cache/bin/pip" ] || python3 -m venv "$cache" || return 1
    "$cache/bin/pip" install -q --disable-pip-version-check "river==$river"
}
if ! install >&2 </dev/null; then
    echo "skipped: river $river could not be installed from PyPI" >&2
    exec cat "$folder/weir.json"
fi
PYTHONDONTWRITEBYTECODE=1 "$cache/bin/python" bench/drift/peers.py "$folder/series.jsonl" "$folder/weir.json"
