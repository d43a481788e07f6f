#!/usr/bin/env bash
# A real Apache Kafka for tests: one KRaft broker on 127.0.0.1, its jars from Maven Central.
#
#   kafka.sh fetch                     download the jars once, into the cache
#   kafka.sh start [--dir D] [--port P] [--secure]  format, start, wait until ready; last line: host:port
#                                      with --secure a second listener, SASL_SSL: see `secure` below
#   kafka.sh status [--dir D]          host:port and exit 0 while it runs, else exit 1
#   kafka.sh stop [--dir D]            end it; its data stays in D, and start goes on with it
#
# Several brokers run side by side, one per --dir. Without --port a free one is chosen and kept for that folder.
# Cache: ${WEIR_KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/weir/kafka}. Version: ${WEIR_KAFKA_VERSION:-4.1.1}.
# Where Java or Maven or the jars are missing it prints "skipped: no Kafka (why)" and exits 3.
set -euo pipefail

version=${WEIR_KAFKA_VERSION:-4.1.1}
cache=${WEIR_KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/weir/kafka}
libs=$cache/$version/libs
ready_within_s=${WEIR_KAFKA_READY_S:-60}

skip() { echo "skipped: no Kafka ($1)"; exit 3; }
fail() { echo "kafka.sh: $1" >&2; exit 1; }

# 17 of 'openjdk version "17.0.15"', 8 of '"1.8.0_392"', 0 of anything else.
java_major() {
    local found
    found=$(java -version 2>&1 | sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -1)
    echo "${found:-0}"
}

pom() {
    cat <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>weir</groupId><artifactId>kafka-for-tests</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
XML
}

fetch() {
    command -v java >/dev/null || skip "java is not installed"
    (($(java_major) >= 17)) || skip "java is version $(java_major), Kafka $version wants 17 or later"
    [[ -e $libs/.complete ]] && return
    command -v mvn >/dev/null || skip "mvn is not installed"
    mkdir -p "$cache/$version"
    # One download at a time; whoever waits finds it done.
    exec 9>"$cache/$version/lock"
    flock 9
    if [[ ! -e $libs/.complete ]]; then
        pom >"$cache/$version/pom.xml"
        echo "fetching Kafka $version into $cache" >&2
        mvn -q -B -f "$cache/$version/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$libs" >"$cache/$version/fetch.log" 2>&1 9>&- ||
            skip "the jars cannot be downloaded: see $cache/$version/fetch.log"
        touch "$libs/.complete"
    fi
    exec 9>&-
}

free_port() {
    # Below the kernel's ephemeral range, so that no outgoing connection takes it before the broker binds it.
    local port
    for _ in $(seq 200); do
        port=$((10000 + RANDOM % 20000))
        (exec 8<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    fail "found no free port"
}

# What --secure adds: a listener with TLS and SASL beside the open one, its port in D/secure-port, the authority that
# signed its certificate in D/tls/ca.pem (and in D/tls/other-ca.pem one that signed nothing). User weir, password
# weir-secret, by PLAIN and by SCRAM-SHA-512; by OAUTHBEARER any unsigned token (alg "none") that has not expired.
secure() {
    local tls=$dir/tls port=$1
    mkdir -p "$tls"
    (
        cd "$tls"
        for authority in ca other-ca; do
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=weir test $authority" \
                -keyout $authority.key -out $authority.pem
        done
        openssl req -new -newkey rsa:2048 -nodes -subj /CN=localhost -keyout broker.key -out broker.csr
        openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out broker.pem \
            -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1")
        openssl pkcs12 -export -in broker.pem -inkey broker.key -name broker -passout pass:keystore -out broker.p12
    ) >"$tls/openssl.log" 2>&1 || fail "cannot make certificates: see $tls/openssl.log"
    echo "$port" >"$dir/secure-port"
    local prefix=listener.name.secure security=org.apache.kafka.common.security
    cat >>"$dir/server.properties" <<CONF
$prefix.ssl.keystore.type=PKCS12
$prefix.ssl.keystore.location=$tls/broker.p12
$prefix.ssl.keystore.password=keystore
$prefix.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
$prefix.plain.sasl.jaas.config=$security.plain.PlainLoginModule required user_weir="weir-secret";
$prefix.scram-sha-512.sasl.jaas.config=$security.scram.ScramLoginModule required;
$prefix.oauthbearer.sasl.jaas.config=$security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
CONF
}

configure() {
    local controller secure_port listeners='' protocols=''
    controller=$(free_port)
    while [[ $controller == "$port" ]]; do controller=$(free_port); done
    if [[ -n $secure ]]; then
        secure_port=$(free_port)
        while [[ $secure_port == "$port" || $secure_port == "$controller" ]]; do secure_port=$(free_port); done
        listeners=,SECURE://127.0.0.1:$secure_port
        protocols=,SECURE:SASL_SSL
    fi
    cat >"$dir/server.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller$listeners
advertised.listeners=PLAINTEXT://127.0.0.1:$port$listeners
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT$protocols
log.dirs=$dir/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# Tests that wait until the broker gives a member up must not wait for six seconds.
group.min.session.timeout.ms=500
# Of the new group protocol the broker sets the pace: five seconds a step would make long tests of short stories.
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
# A missing topic must stay missing.
auto.create.topics.enable=false
CONF
    [[ -z $secure ]] || secure "$secure_port"
}

kafka() {
    java -Xms256m -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$libs/*" "$@"
}

running() {
    [[ -s $dir/pid ]] || return 1
    # The number may have been given to another process meanwhile.
    tr '\0' ' ' 2>/dev/null <"/proc/$(<"$dir/pid")/cmdline" | grep -q -F "$dir/server.properties"
}

# The broker registers and opens its port when it can serve: a listening port is a ready broker.
answers() { (exec 8<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

start() {
    fetch
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if running; then
        echo "127.0.0.1:$(<"$dir/port")"
        return
    fi
    if [[ -s $dir/port && -z $port ]]; then port=$(<"$dir/port"); fi
    port=${port:-$(free_port)}
    if [[ ! -e $dir/data/meta.properties ]]; then
        configure
        echo "$port" >"$dir/port"
        kafka kafka.tools.StorageTool format -t "$(kafka kafka.tools.StorageTool random-uuid)" \
            -c "$dir/server.properties" --standalone ${secure:+--add-scram "SCRAM-SHA-512=[name=weir,password=weir-secret]"} \
            >"$dir/format.log" 2>&1 || fail "cannot format: see $dir/format.log"
    fi
    # The broker outlives this script and must hold none of its pipes.
    nohup java -Xms256m -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$libs/*" \
        kafka.Kafka "$dir/server.properties" >"$dir/server.log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    local deadline=$((SECONDS + ready_within_s))
    until answers; do
        # Not `running`: between fork and exec the process still carries this script's command line.
        kill -0 "$(<"$dir/pid")" 2>/dev/null || fail "the broker ended: see $dir/server.log"
        ((SECONDS < deadline)) || { stop; fail "the broker was not ready in $ready_within_s s: see $dir/server.log"; }
        sleep 0.2
    done
    echo "127.0.0.1:$port"
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
dir=${TMPDIR:-/tmp}/weir-kafka
port=
secure=
while (($#)); do
    case $1 in
        --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
        --port) port=${2:?--port needs a number}; shift 2 ;;
        --secure) secure=yes; shift ;;
        *) fail "unknown argument $1" ;;
    esac
done
[[ ! -d $dir ]] || dir=$(cd "$dir" && pwd)

case $command in
    fetch) fetch; echo "Kafka $version is in $libs" ;;
    start) start ;;
    status) running || { echo "not running"; exit 1; }; echo "127.0.0.1:$(<"$dir/port")" ;;
    stop) stop ;;
    *) fail "give one of: fetch, start, status, stop" ;;
esac
