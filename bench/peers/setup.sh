#!/usr/bin/env bash
# Installs what bench/peers runs, below the folder given: Python environments, and Spark's jars from Maven Central.
# What cannot be had leaves a line in FOLDER/NAME.missing and is skipped by the run.
set -euo pipefail
exec >&2 </dev/null
cache=${1:?usage: bench/peers/setup.sh FOLDER}

# Delta's newest jars that Maven Central holds for a Spark that PyPI holds.
spark=4.2.0
delta=4.4.0
bytewax=0.21.1
deltalake=1.6.6
pyarrow=26.0.1
orjson=3.13.0

mkdir -p "$cache"
missing() { echo "$2" >"$cache/$1.missing"; }

# NAME PACKAGE... : a virtual environment with these packages.
environment() {
    local name=$1 stamp
    shift
    stamp=$cache/$name/.has
    [ "$(cat "$stamp" 2>/dev/null)" = "$*" ] && return
    echo "setup: installing $* into $cache/$name"
    [ -x "$cache/$name/bin/pip" ] || python3 -m venv "$cache/$name" || return 1
    "$cache/$name/bin/pip" install -q --disable-pip-version-check "$@" || return 1
    echo "$*" >"$stamp"
}

jars() {
    local folder=$cache/spark-jars-$spark-$delta
    [ -e "$folder/.complete" ] && return
    command -v mvn >/dev/null || return 1
    mkdir -p "$folder"
    # Spark itself comes with pyspark.
    cat >"$folder/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>weir</groupId><artifactId>spark-for-benchmarks</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>io.delta</groupId><artifactId>delta-spark_${spark%.*}_2.13</artifactId><version>$delta</version>
      <exclusions><exclusion><groupId>org.apache.spark</groupId><artifactId>*</artifactId></exclusion></exclusions>
    </dependency>
    <dependency>
      <groupId>org.apache.spark</groupId><artifactId>spark-sql-kafka-0-10_2.13</artifactId><version>$spark</version>
      <exclusions><exclusion><groupId>org.apache.hadoop</groupId><artifactId>*</artifactId></exclusion></exclusions>
    </dependency>
  </dependencies>
</project>
XML
    echo "setup: fetching the jars of Delta $delta and Spark's Kafka source into $folder"
    mvn -q -B -f "$folder/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$folder" \
        >"$folder/fetch.log" 2>&1 || return 1
    touch "$folder/.complete"
}

rm -f "$cache"/*.missing
environment reader "deltalake==$deltalake" "pyarrow==$pyarrow" ||
    { echo "setup: no Python environment for reading the tables: install python3-venv, and let pip reach PyPI"; exit 1; }
if ! environment spark "pyspark==$spark"; then
    missing spark "pip could not install pyspark $spark"
elif ! command -v java >/dev/null; then
    missing spark "java is not installed"
elif ! jars; then
    missing spark "its jars cannot be fetched: Maven is not installed, or see $cache/spark-jars-$spark-$delta/fetch.log"
else
    ln -sfn "spark-jars-$spark-$delta" "$cache/spark-jars"
fi
environment bytewax "bytewax[kafka]==$bytewax" "deltalake==$deltalake" "pyarrow==$pyarrow" "orjson==$orjson" ||
    missing bytewax "pip could not install bytewax $bytewax for this Python"
