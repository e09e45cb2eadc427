#!/usr/bin/env bash
# Runs the parts of `make test` one after the other. Each part ends with a line
# "N passed, M failed"; so does the whole.
set -u
cd "$(dirname "$0")/.."
passed=0 failed=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# part NAME COMMAND...
part() {
    local name=$1
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$out"
    local status=${PIPESTATUS[0]}
    local line p=0 f=0
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$out" | tail -n 1)
    if [ -n "$line" ]; then
        p=${line%% passed*}
        f=${line##*, }
        f=${f%% failed*}
    elif [ "$status" = 0 ]; then
        # the simulator counts seeds, a gate is one check
        p=$(sed -n 's/^\([0-9][0-9]*\) seeds, .*/\1/p' "$out" | tail -n 1)
        p=${p:-1}
    fi
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then
        f=1
    fi
    passed=$((passed + p)) failed=$((failed + f))
}

part "layers, headers, symbols, clang" make --no-print-directory -s \
    lint-layers lint-headers lint-symbols lint-clang
part "checks of the tests" python3 tests/conformance/selftest.py
part "unit tests" make --no-print-directory -s unit
if [ -e make/sim.mk ]; then
    part "simulator, groups alone" make --no-print-directory -s sim-seeds
    part "simulator, whole brokers" make --no-print-directory -s sim-ci
    part "simulator, other compilers" make --no-print-directory -s sim-hashes
fi
part "fuzzing's corpus" make --no-print-directory -s fuzz-corpus
part "fuzzing" make --no-print-directory -s fuzz TIME="${FUZZ_TIME:-10}" \
    TARGET="batch broker codec config partition peer state wal"
part "crash points" make --no-print-directory -s crash-points
if [ -e net/broker.c ] && [ -e tests/conformance/kill_test.py ]; then
    part "kill test, short" make --no-print-directory -s kill-test ROUNDS=2 \
        PATIENCE=3
fi
part "damage of real brokers" make --no-print-directory -s damage-test ROUNDS=2
if [ "${CONFORMANCE:-}" != "" ]; then
    part "conformance, $CONFORMANCE" \
        make --no-print-directory -s conformance SET="$CONFORMANCE"
fi
if [ "${JEPSEN_TIME:-}" != "" ]; then
    part "chaos: disks that do not sync" make --no-print-directory -s \
        jepsen-control
    part "chaos, $JEPSEN_TIME s" make --no-print-directory -s jepsen TIME="$JEPSEN_TIME"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
