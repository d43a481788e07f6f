#!/usr/bin/env bash
# A real S3 server for tests: Versity's S3 gateway over a folder, on 127.0.0.1, built from the Go module proxy. It honours
# `If-None-Match: *` under a lock, which commits rely on.
#
#   s3.sh fetch                          build the server once, into the cache
#   s3.sh start [--dir D] [--port P]     start, make the bucket, wait until ready; prints the environment, one NAME=value
#                                        a line, and as its last line the endpoint, http://127.0.0.1:PORT
#   s3.sh status [--dir D]               the endpoint and exit 0 while it runs, else exit 1
#   s3.sh stop [--dir D]                 end it; its objects stay in D, and start goes on with them
#
# To use it:  set -a; . <(tests/s3/s3.sh start --dir D | grep =); weir check --data s3://weir/data
# Several run side by side, one per --dir. Without --port a free one is chosen and kept for that folder.
# Cache: ${WEIR_S3_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/weir/s3}. Version: ${WEIR_S3_VERSION:-v1.8.0}.
# Where Go or the module is missing it prints "skipped: no S3 server (why)" and exits 3.
set -euo pipefail

version=${WEIR_S3_VERSION:-v1.8.0}
cache=${WEIR_S3_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/weir/s3}
server=$cache/$version/versitygw
ready_within_s=${WEIR_S3_READY_S:-30}
bucket=weir
# For tests on loopback only; real stores have real ones.
access_key=weir-test
secret_key=weir-test-secret

skip() { echo "skipped: no S3 server ($1)"; exit 3; }
fail() { echo "s3.sh: $1" >&2; exit 1; }

fetch() {
    [[ -x $server ]] && return
    command -v go >/dev/null || skip "Go is not installed"
    mkdir -p "$cache/$version"
    # One build at a time; whoever waits finds it done.
    exec 9>"$cache/$version/lock"
    flock 9
    if [[ ! -x $server ]]; then
        echo "building the S3 server $version into $cache" >&2
        GOBIN="$cache/$version/bin" GOFLAGS=-mod=mod nice -n 5 \
            go install "github.com/versity/versitygw/cmd/versitygw@$version" >"$cache/$version/build.log" 2>&1 9>&- ||
            skip "it cannot be built: see $cache/$version/build.log"
        mv "$cache/$version/bin/versitygw" "$server"
        rmdir "$cache/$version/bin"
    fi
    exec 9>&-
}

free_port() {
    # Below the kernel's ephemeral range, so that no outgoing connection takes it before the server binds it.
    local port
    for _ in $(seq 200); do
        port=$((10000 + RANDOM % 20000))
        (exec 8<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    fail "found no free port"
}

running() {
    [[ -s $dir/pid ]] || return 1
    # The number may have been given to another process meanwhile.
    tr '\0' ' ' 2>/dev/null <"/proc/$(<"$dir/pid")/cmdline" | grep -q -F "$dir/objects"
}

answers() { (exec 8<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

environment() {
    cat <<ENV
AWS_ENDPOINT_URL=http://127.0.0.1:$port
AWS_ALLOW_HTTP=true
AWS_REGION=us-east-1
AWS_ACCESS_KEY_ID=$access_key
AWS_SECRET_ACCESS_KEY=$secret_key
http://127.0.0.1:$port
ENV
}

start() {
    fetch
    # A folder below the server's root is a bucket of the root user's.
    mkdir -p "$dir/objects/$bucket" "$dir/metadata"
    dir=$(cd "$dir" && pwd)
    if running; then
        port=$(<"$dir/port")
        environment
        return
    fi
    if [[ -s $dir/port && -z $port ]]; then port=$(<"$dir/port"); fi
    port=${port:-$(free_port)}
    echo "$port" >"$dir/port"
    # The server outlives this script and must hold none of its pipes. Its metadata lies in a folder of its own, since not
    # every file system has extended attributes.
    ROOT_ACCESS_KEY=$access_key ROOT_SECRET_KEY=$secret_key nohup "$server" --port "127.0.0.1:$port" --quiet --keep-alive \
        posix --sidecar "$dir/metadata" "$dir/objects" >"$dir/server.log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    local deadline=$((SECONDS + ready_within_s))
    until answers; do
        # Not `running`: between fork and exec the process still carries this script's command line.
        kill -0 "$(<"$dir/pid")" 2>/dev/null || fail "the server ended: see $dir/server.log"
        ((SECONDS < deadline)) || { stop; fail "the server was not ready in $ready_within_s s: see $dir/server.log"; }
        sleep 0.1
    done
    environment
}

stop() {
    if running; then
        local pid
        pid=$(<"$dir/pid")
        kill "$pid"
        for _ in $(seq 100); do running || break; sleep 0.1; done
        ! running || kill -9 "$pid"
    fi
    rm -f "$dir/pid"
}

command=${1:-}
shift || true
dir=${TMPDIR:-/tmp}/weir-s3
port=
while (($#)); do
    case $1 in
        --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
        --port) port=${2:?--port needs a number}; shift 2 ;;
        *) fail "unknown argument $1" ;;
    esac
done
[[ ! -d $dir ]] || dir=$(cd "$dir" && pwd)

case $command in
    fetch) fetch; echo "the S3 server $version is $server" ;;
    start) start ;;
    status) running || { echo "not running"; exit 1; }; echo "http://127.0.0.1:$(<"$dir/port")" ;;
    stop) stop ;;
    *) fail "give one of: fetch, start, status, stop" ;;
esac
