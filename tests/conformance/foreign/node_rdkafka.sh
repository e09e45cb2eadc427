#!/usr/bin/env bash
# Fetches node-rdkafka with its end-to-end tests and builds it.
#   tests/conformance/foreign/node_rdkafka.sh DIR
# DIR/package/e2e and DIR/package/node_modules/.bin/mocha are then there.
set -eu
cd "$1"
npm pack --silent node-rdkafka@3.6.1 >/dev/null 2>&1
tar xzf ./*.tgz
rm ./*.tgz
cd package
# the headers of the node that is installed, where a distribution puts them;
# its build races with itself, now and then, and succeeds the second time
headers=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
[ ! -e "$headers/include/node/node.h" ] || export npm_config_nodedir=$headers
for try in 1 2; do
    [ $try = 1 ] || echo "again" >>"$1/build.log"
    ! JOBS=$(nproc) npm install --no-audit --no-fund >>"$1/build.log" 2>&1 || exit 0
done
tail -n 30 "$1/build.log" >&2
exit 1
