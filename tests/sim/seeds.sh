#!/usr/bin/env bash
# seeds.sh PROGRAM FIRST COUNT: runs seeds of whole brokers, those that once
# failed (seeds.txt) first, in two processes, and prints the totals of all. Of
# the first seed that fails it prints the violation and how to run it again.
set -u
program=$1 first=$2 count=$3
list=$(dirname "$0")/seeds.txt
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

run() { # FILE SEED...
    local to=$1 seed
    shift
    for seed in "$@"; do
        if ! "$program" "$seed" >"$to.one" 2>"$to.err"; then
            cat "$to.one" >&2
            grep -h 'VIOLATION\|ssert' "$to.err" >&2 || tail -3 "$to.err" >&2
            echo "replay: make sim SEED=$seed" >&2
            touch "$out/failed"
            return 1
        fi
        grep ' events, ' "$to.one" >>"$to"
        [ -e "$out/failed" ] && return 1
    done
    return 0
}

mapfile -t seeds < <(sed 's/#.*//' "$list" | grep -o '^[0-9]*' || true)
mapfile -t -O "${#seeds[@]}" seeds < <(seq "$first" $((first + count - 1)))
half=$(((${#seeds[@]} + 1) / 2))
run "$out/a" "${seeds[@]:0:half}" &
other=$!
run "$out/b" "${seeds[@]:half}"
status=$?
wait $other || status=1
cat "$out"/a "$out"/b 2>/dev/null | awk '
    { for (i = 1; i < NF; i++) {
          name = $(i + 1); sub(/,$/, "", name)
          if (name == "simulated") sum["hours"] += $i
          else if ($i ~ /^[0-9]+$/ && name != "KiB") sum[name] += $i }
      n++ }
    END { printf "%d seeds of whole brokers, %.2f simulated days, " \
          "%d records acknowledged and checked, %d read, %d faults, " \
          "%d restarts, %d elections, %d requests\n", n, sum["hours"] / 24,
          sum["acknowledged"], sum["read"], sum["faults"], sum["restarts"],
          sum["elections"], sum["requests"] }'
exit $status
