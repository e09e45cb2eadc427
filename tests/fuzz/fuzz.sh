#!/usr/bin/env bash
# usage: fuzz.sh run|corpus|seeds BUILD SECONDS TARGET...
# run: fuzzes each target for so long, from its corpus and from what earlier
# runs found. corpus: runs through the corpus. seeds: writes samples, and keeps
# of corpus, samples and what was found what adds coverage; files of the corpus
# whose names begin with "crash-" stay. Ends with "N passed, M failed".
set -u
cd "$(dirname "$0")/../.."
mode=$1 build=$2 seconds=$3
shift 3
passed=0 failed=0
# One allocation is never larger than what the program allows itself: its
# largest single bound is 64 MiB.
limits=(-timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=160 -max_len=32768)

for name in "$@"; do
    program=$build/fuzz_$name
    corpus=tests/fuzz/corpus/$name
    found=$build/found/$name
    crash=$build/crash/$name
    mkdir -p "$corpus" "$found" "$crash"
    case $mode in
    run)
        log=$build/$name.log
        "$program" "${limits[@]}" -max_total_time="$seconds" \
            -print_final_stats=1 -artifact_prefix="$crash/" "$found" \
            "$corpus" >"$log" 2>&1
        status=$?
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
        ;;
    corpus)
        log=$build/$name.corpus.log
        "$program" "${limits[@]}" -runs=0 -artifact_prefix="$crash/" \
            "$corpus" >"$log" 2>&1
        status=$?
        runs=$(find "$corpus" -type f | wc -l)
        edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
        ;;
    seeds)
        log=$build/$name.seeds.log
        samples=$(mktemp -d) smaller=$(mktemp -d)
        FUZZ_SEEDS=$samples "$program" >"$log" 2>&1
        status=$?
        find "$corpus" -type f -name 'crash-*' -exec cp {} "$smaller" \;
        "$program" "${limits[@]}" -max_len=24000 -merge=1 \
            "$smaller" "$samples" "$corpus" "$found" >>"$log" 2>&1 || status=1
        if [ "$status" = 0 ]; then
            rm -f "$corpus"/*
            cp "$smaller"/* "$corpus"
        fi
        rm -rf "$samples" "$smaller"
        runs=$(find "$corpus" -type f | wc -l) edges=
        ;;
    esac
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
        echo "$name: ${runs:-0} inputs, ${edges:-0} edges"
    else
        failed=$((failed + 1))
        echo "$name: FAILED, see $log"
        grep -E 'ERROR|does not hold|ASSERT|assert|SUMMARY|Test unit' "$log" |
            head -n 8
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
