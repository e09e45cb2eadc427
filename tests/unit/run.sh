#!/usr/bin/env bash
# Runs the unit test programs given and ends with one line of totals.
set -u
passed=0 failed=0
for t in "$@"; do
    out=$("$t" 2>&1)
    code=$?
    line=$(printf '%s\n' "$out" | grep -E '^[0-9]+%: Checks: ' | tail -n 1)
    checks=$(printf '%s' "$line" | sed -n 's/.*Checks: \([0-9]*\),.*/\1/p')
    bad=$(printf '%s' "$line" | sed -n 's/.*Failures: \([0-9]*\), Errors: \([0-9]*\).*/\1 \2/p')
    n_bad=0
    for k in $bad; do n_bad=$((n_bad + k)); done
    if [ -z "$checks" ] || { [ "$code" != 0 ] && [ "$n_bad" = 0 ]; }; then
        checks=1 n_bad=1
    fi
    passed=$((passed + checks - n_bad)) failed=$((failed + n_bad))
    if [ "$n_bad" != 0 ]; then
        printf 'FAIL %s\n%s\n' "$t" "$out"
    else
        printf 'ok   %s (%s)\n' "$t" "$checks"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
