#!/usr/bin/env bash
# Contextual bandits on the same logs: ours, Vowpal Wabbit's and MABWiser's; the last line is JSON.
#   bench/bandits/run.sh [SEED]     default 1
# Where theirs cannot be installed, ours are printed alone, and the reason is named.
set -euo pipefail
cd "$(dirname "$0")/../.."
packages=(vowpalwabbit==9.11.9 mabwiser==2.7.4)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/peers/bandits
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The whole workspace's features, so that this and `make demo` agree on what is compiled.
cargo build --release --quiet --workspace --bin weir-bench
ours=$("${CARGO_TARGET_DIR:-target}/release/weir-bench" bandits "$folder" "${1:-1}")
install() {
    [ -x "$cache/bin/pip" ] || python3 -m venv "$cache" || return 1
    "$cache/bin/pip" install -q --disable-pip-version-check "${packages[@]}"
}
if [ ! -e "$folder/logs.csv" ]; then
    echo "$ours"
elif ! install >&2 </dev/null; then
    echo "skipped: ${packages[*]} could not be installed from PyPI" >&2
    echo "$ours"
else
    PYTHONDONTWRITEBYTECODE=1 "$cache/bin/python" bench/bandits/others.py "$folder"
fi
