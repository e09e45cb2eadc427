#!/usr/bin/env bash
# Fetches librdkafka 2.15.1 with its tests and builds both.
#   tests/conformance/foreign/librdkafka.sh DIR
# DIR/package/deps/librdkafka/tests/test-runner is then there.
set -eu
cd "$1"
npm pack --silent @confluentinc/kafka-javascript@1.10.1 >/dev/null
tar xzf ./*.tgz
rm ./*.tgz
cd package/deps/librdkafka
log=$1/build.log
{
    ./configure --disable-gssapi
    make -j"$(nproc)" libs
    make -j"$(nproc)" -C tests build
} >"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 1; }
