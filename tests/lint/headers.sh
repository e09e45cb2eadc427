#!/usr/bin/env bash
# usage: headers.sh ROOT COMPILER FLAGS...
# Every header compiles alone. No output when it does, else the compiler's.
set -u
cd "$1" || exit 2
shift
bad=0
while read -r header; do
    printf '#include "%s"\nextern int not_empty;\n' "$header" |
        "$@" -x c -fsyntax-only - || {
        echo "$header: does not compile alone"
        bad=1
    }
done < <(find base raft partition metadata coordinator net tools jepsen tests \
    -name '*.h' -type f 2>/dev/null | LC_ALL=C sort)
exit $bad
