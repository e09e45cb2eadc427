#!/usr/bin/env bash
# hashes.sh "SEED..." PROGRAM...: runs each seed, cut down to two minutes, with
# every build of the simulator; all must come to the same event hash. A
# difference is a value that depends on the compiler, or undefined behaviour.
set -u
seeds=$1
shift
status=0 n=0
for seed in $seeds; do
    first=
    for program in "$@"; do
        out=$("$program" "$seed" chaos=120 2>&1)
        hash=$(sed -n 's/^hash //p' <<<"$out")
        if [ -z "$hash" ]; then
            echo "seed $seed, $program: $(tail -n 3 <<<"$out")"
            status=1
        elif [ "$hash" != "${first:=$hash}" ]; then
            echo "seed $seed: $first by $1, $hash by $program"
            status=1
        fi
    done
    n=$((n + 1))
done
[ $status = 0 ] && echo "$n seeds, the same event hash in $# builds"
exit $status
