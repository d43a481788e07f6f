#!/usr/bin/env bash
# The real tools that the recipes' tests run, from public registries.
#
#   tool.sh NAME      prints where the tool is; NAME is litellm, otelcol, otel-sdk, prometheus, prometheus-debian
#                     or debezium
#
# A tool that is not in the cache is fetched and built when WEIR_RECIPES=1, which takes minutes for the two that are
# compiled (otelcol and prometheus); otherwise "skipped: ..." and exit 3.
# Cache: ${WEIR_RECIPES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/weir/recipes}.
set -euo pipefail

cache=${WEIR_RECIPES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/weir/recipes}
litellm_version=1.90.3
confluent_kafka_version=2.16.1
otelcol_version=0.156.0
otel_sdk_version=1.45.2
prometheus_version=v0.316.0
debezium_version=3.4.1.Final
connect_version=4.1.1

skip() { echo "skipped: $1"; exit 3; }

# build NAME VERSION NEEDS...: runs build_NAME in a folder of its own, once; others wait. The folder's name has the
# version and a checksum of the steps, so that a tool made of other parts is not taken for this one; it gets its name when
# it is whole.
build() {
    local name=$1 version=$2 need steps
    shift 2
    steps=$(declare -f "build_${name//-/_}" | cksum)
    local folder=$cache/$name-$version-${steps%% *}
    if [[ ! -d $folder ]]; then
        [[ ${WEIR_RECIPES:-} == 1 ]] || skip "$name $version is not in the cache; WEIR_RECIPES=1 fetches it"
        for need in "$@"; do command -v "$need" >/dev/null || skip "$name needs $need"; done
        mkdir -p "$cache"
        exec 9>"$cache/$name.lock"
        flock 9
        if [[ ! -d $folder ]]; then
            echo "fetching $name $version into $cache" >&2
            rm -rf "$folder.part"
            mkdir "$folder.part"
            (cd "$folder.part" && "build_${name//-/_}") >"$cache/$name.log" 2>&1 9>&- ||
                skip "$name $version cannot be had: see $cache/$name.log"
            mv "$folder.part" "$folder"
        fi
        exec 9>&-
    fi
    echo "$folder"
}

# A virtual environment knows its own path only in its scripts, which are not used: the tests run its python.
build_litellm() {
    python3 -m venv .
    bin/python -m pip install -q --disable-pip-version-check "litellm[proxy]==$litellm_version" \
        "confluent-kafka==$confluent_kafka_version"
}

# The distribution has the parts that the recipes use and no others. The tag leaves the cloud providers' service discovery
# out of the Prometheus receiver.
build_otelcol() {
    local core=go.opentelemetry.io/collector contrib=github.com/open-telemetry/opentelemetry-collector-contrib
    cat >builder.yaml <<YAML
dist: {name: otelcol, output_path: ./src, version: $otelcol_version, build_tags: remove_all_sd}
receivers:
  - gomod: $core/receiver/otlpreceiver v$otelcol_version
  - gomod: $contrib/receiver/filelogreceiver v$otelcol_version
  - gomod: $contrib/receiver/prometheusreceiver v$otelcol_version
processors:
  - gomod: $contrib/processor/transformprocessor v$otelcol_version
exporters:
  - gomod: $core/exporter/otlpexporter v$otelcol_version
  - gomod: $core/exporter/otlphttpexporter v$otelcol_version
  - gomod: $contrib/exporter/kafkaexporter v$otelcol_version
extensions:
  - gomod: $contrib/extension/storage/filestorage v$otelcol_version
YAML
    GOBIN=$PWD GOFLAGS=-mod=mod go install "$core/cmd/builder@v$otelcol_version"
    GOFLAGS=-mod=mod ./builder --config builder.yaml
    mv src/otelcol otelcol
    rm -rf src builder
}

# OpenTelemetry's SDK for Python with its instrumentation of OpenAI's client. The two are released apart, so the parts of
# both are named. This one still has the older conventions beside the latest.
build_otel_sdk() {
    python3 -m venv .
    bin/python -m pip install -q --disable-pip-version-check "opentelemetry-sdk==$otel_sdk_version" \
        "opentelemetry-exporter-otlp==$otel_sdk_version" opentelemetry-instrumentation-openai-v2==2.4b0 \
        opentelemetry-util-genai==0.4b0 openai==2.54.0
}

# Static targets only: without the cloud providers' service discovery it is half the size and built in half the time.
build_prometheus() {
    go mod init weir/recipes
    cat >tools.go <<'GO'
//go:build tools

package tools

import _ "github.com/prometheus/prometheus/cmd/prometheus"
GO
    go get "github.com/prometheus/prometheus/cmd/prometheus@$prometheus_version"
    CGO_ENABLED=0 go build -mod=mod -tags remove_all_sd,netgo -o prometheus \
        github.com/prometheus/prometheus/cmd/prometheus
}

# The distribution's own, which may be years older. The package is unpacked, so that no server is installed.
build_prometheus_debian() {
    local archive
    apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }
    archive=$(echo prometheus_*.deb)
    dpkg-deb -x "$archive" .
    mv usr/bin/prometheus prometheus
    rm -rf usr etc lib var "$archive"
}

# Kafka Connect and Debezium's connector for PostgreSQL, as jars.
build_debezium() {
    local connect=org.apache.kafka artifact
    {
        echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        echo '<groupId>weir</groupId><artifactId>recipes</artifactId><version>1</version><packaging>pom</packaging>'
        echo '<dependencies>'
        for artifact in "$connect:connect-runtime:$connect_version" "$connect:connect-json:$connect_version" \
            "$connect:connect-transforms:$connect_version" "io.debezium:debezium-connector-postgres:$debezium_version" \
            org.slf4j:slf4j-simple:1.7.36; do
            IFS=: read -r group name version <<<"$artifact"
            echo "<dependency><groupId>$group</groupId><artifactId>$name</artifactId><version>$version</version></dependency>"
        done
        echo '</dependencies></project>'
    } >pom.xml
    mvn -q -B -f pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/libs"
}

case ${1:-} in
    litellm) build litellm "$litellm_version" python3 ;;
    otelcol) build otelcol "$otelcol_version" go ;;
    prometheus) build prometheus "$prometheus_version" go ;;
    otel-sdk) build otel-sdk "$otel_sdk_version" python3 ;;
    prometheus-debian) build prometheus-debian packaged apt-get dpkg-deb ;;
    debezium) build debezium "$debezium_version" java mvn ;;
    *) echo "tool.sh: give one of: litellm, otelcol, otel-sdk, prometheus, prometheus-debian, debezium" >&2; exit 1 ;;
esac
