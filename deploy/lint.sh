#!/usr/bin/env bash
# Lints every file of this folder, and the repository's scripts, each with the tool of its kind:
#
#   Containerfile   hadolint
#   compose.yaml    the Compose specification's JSON Schema
#   kubernetes/     the Kubernetes API's schemas, strictly
#   prometheus/     promtool: configuration, rules, and the rules' own tests
#   grafana/        a JSON Schema made from Grafana's own types; every query through promtool; every metric
#                   named in a query must be one that the code emits. The SQL of grafana/sql is run by a test
#                   against weir serve (weir/tests/postgres.rs)
#   *.sh            shellcheck
#   *.yaml, *.yml   yamllint
#
# Tools are installed into the user's cache folder once; a run takes seconds after that.
# A tool that can't be had is named, and fails the run when CI is set.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit
exec </dev/null

cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/lint
mkdir -p "$cache"
bin=$cache/python/bin
failed=0
skipped=0

have() { command -v "$1" >/dev/null 2>&1; }

# check NAME COMMAND... : quiet when it passes.
check() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    echo "ok       $name"
  else
    failed=$((failed + 1))
    echo "FAILED   $name"
    printf '         %s\n' "${output//$'\n'/$'\n         '}"
  fi
}

missing() {
  skipped=$((skipped + 1))
  echo "skipped: no $1"
}

# Installs once for each content of a list of pinned versions.
python_tools() {
  local stamp=$cache/python/stamp
  cmp -s lint/requirements.txt "$stamp" && return 0
  echo "lint: installing $(tr '\n' ' ' <lint/requirements.txt)" >&2
  python3 -m venv "$cache/python" >/dev/null 2>&1 ||
    { [ "$(id -u)" = 0 ] && have apt-get && apt-get update -qq && apt-get install -y -qq python3-venv &&
      python3 -m venv "$cache/python"; } >/dev/null 2>&1 || return 1
  "$bin/pip" install -q --disable-pip-version-check -r lint/requirements.txt >&2 &&
    cp lint/requirements.txt "$stamp"
}

# Debian's package unpacked into the cache (its server is not installed), else from source with Go.
find_promtool() {
  have promtool && { command -v promtool; return 0; }
  local found=$cache/promtool/usr/bin/promtool
  [ -x "$found" ] && { echo "$found"; return 0; }
  if have apt-get && have dpkg-deb; then
    local folder
    folder=$(mktemp -d)
    chmod 755 "$folder"
    { [ "$(id -u)" != 0 ] || apt-get update -qq; } >/dev/null 2>&1
    (cd "$folder" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb "$cache/promtool") >/dev/null 2>&1
    rm -rf "$folder"
    rm -f "$cache/promtool/usr/bin/prometheus"
    [ -x "$found" ] && { echo "$found"; return 0; }
  fi
  if have go; then
    GOBIN=$cache/promtool/usr/bin go install github.com/prometheus/prometheus/cmd/promtool@v0.305.0 >/dev/null 2>&1
    [ -x "$found" ] && { echo "$found"; return 0; }
  fi
  return 1
}

# Grafana publishes its dashboard as TypeScript types; the schema is generated from them, once for each version.
grafana_schema() {
  local schema=$cache/grafana/dashboard.schema.json
  cmp -s lint/package.json "$cache/grafana/package.json" && [ -s "$schema" ] && { echo "$schema"; return 0; }
  have npm || { [ "$(id -u)" = 0 ] && have apt-get && apt-get update -qq && apt-get install -y -qq npm; } >/dev/null 2>&1 || return 1
  echo "lint: making the schema of Grafana's dashboards" >&2
  rm -rf "$cache/grafana"
  mkdir -p "$cache/grafana"
  cp lint/package.json "$cache/grafana/.package.json"
  (
    cd "$cache/grafana" && cp .package.json package.json &&
      npm install --silent --ignore-scripts --no-audit --no-fund &&
      node node_modules/ts-json-schema-generator/bin/ts-json-schema-generator.js --type Dashboard --no-type-check \
        --path node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen.d.ts -o "$schema"
  ) >/dev/null 2>&1 || { rm -rf "$cache/grafana"; return 1; }
  echo "$schema"
}

if python_tools; then
  check Containerfile "$bin/hadolint" Containerfile
  check compose.yaml "$bin/check-jsonschema" --builtin-schema vendor.compose-spec compose.yaml
  check kubernetes "$bin/kubernetes-validate" --strict --quiet kubernetes/*.yaml kubernetes/bridge/*.yaml
  check scripts "$bin/shellcheck" ./*.sh ../scripts/*.sh ../tests/kafka/*.sh ../tests/recipes/*.sh ../sql/tests/postgres/*.sh ../.ci/run
  check yaml "$bin/yamllint" --strict -c lint/yamllint.yaml .
  if schema=$(grafana_schema); then
    check grafana/dashboard "$bin/check-jsonschema" --schemafile "$schema" grafana/dashboard.json grafana/sql/dashboard.json
  else
    missing "Grafana schema (npm and node)"
  fi
else
  missing "Python linters (python3 with venv, and a package index)"
fi

if tool=$(find_promtool); then
  check prometheus/config "$tool" check config prometheus/prometheus.yml
  check prometheus/rules "$tool" check rules --lint=all --lint-fatal prometheus/rules.yml
  check prometheus/rules_test "$tool" test rules prometheus/rules_test.yml
  if have python3; then
    queries=$(mktemp)
    check grafana/queries lint/queries.py grafana/dashboard.json "$queries"
    check grafana/promql "$tool" check rules "$queries"
    rm -f "$queries"
  fi
else
  missing "promtool"
fi
if have python3; then
  check grafana/sql lint/queries.py grafana/sql/dashboard.json
  check metrics lint/metrics.py
else
  missing "python3 (it checks that the dashboard's metrics exist)"
fi

[ "$failed" = 0 ] && { [ "$skipped" = 0 ] || [ -z "${CI:-}" ]; }
