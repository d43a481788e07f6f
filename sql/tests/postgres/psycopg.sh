#!/usr/bin/env bash
# Prints the Python that has psycopg, PostgreSQL's driver for Python, in a virtual environment in the cache folder.
# Where it cannot be had: "skipped: ..." and exit 3.
set -euo pipefail

version=3.3.9
folder=${XDG_CACHE_HOME:-$HOME/.cache}/weir/psycopg-$version

skip() { echo "skipped: no psycopg: $1"; exit 3; }

if [[ ! -x $folder/bin/python ]]; then
    command -v python3 >/dev/null || skip "python3 is missing"
    mkdir -p "${folder%/*}"
    # Tests run side by side; one makes it, under another name until it is whole.
    exec 9>"$folder.lock"
    flock 9
    if [[ ! -x $folder/bin/python ]]; then
        rm -rf "$folder.part"
        python3 -m venv "$folder.part" >&2 || skip "python3 has no venv"
        timeout 120 "$folder.part/bin/python" -m pip install -q --disable-pip-version-check "psycopg[binary]==$version" >&2 ||
            skip "the package index does not give psycopg $version"
        mv "$folder.part" "$folder"
    fi
fi
echo "$folder/bin/python"
