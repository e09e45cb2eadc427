#!/usr/bin/env bash
# usage: symbols.sh ALLOW_LIST OBJECT_DIR OBJECT...
# Every symbol that an object takes from outside of the project must be named
# in the allow-list: the doors to clock, randomness, files, sockets and threads
# are base/env_uv*, and memory comes from base/mem. A line of the list is
# "PATTERN OBJECT_PATTERN" (shell patterns; the object without its folder
# OBJECT_DIR). No output when all is well.
set -u
list=$1 dir=$2
shift 2
defined=$(mktemp) wanted=$(mktemp)
trap 'rm -f "$defined" "$wanted"' EXIT

LC_ALL=C nm --defined-only -A "$@" 2>/dev/null |
    awk '{ print $NF }' | LC_ALL=C sort -u >"$defined"
LC_ALL=C nm -u -A "$@" 2>/dev/null |
    awk -v dir="$dir/" '{ sub(/:.*/, "", $1); sub(dir, "", $1)
                          sub(/@.*/, "", $NF); print $NF, $1 }' |
    LC_ALL=C sort -u | LC_ALL=C join -v 1 - "$defined" >"$wanted"

patterns=() objects=()
while read -r pattern object _; do
    case $pattern in '' | '#'*) continue ;; esac
    patterns+=("$pattern") objects+=("$object")
done <"$list"

bad=0
while read -r symbol object; do
    ok=0
    for i in "${!patterns[@]}"; do
        # shellcheck disable=SC2053 # both are patterns
        if [[ $symbol == ${patterns[i]} && $object == ${objects[i]} ]]; then
            ok=1
            break
        fi
    done
    if [ $ok = 0 ]; then
        echo "$object: takes $symbol from outside"
        bad=1
    fi
done <"$wanted"
exit $bad
