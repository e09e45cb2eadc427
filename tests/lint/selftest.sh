#!/usr/bin/env bash
# usage: selftest.sh COMPILER
# Each gate must catch a fault planted for it, and pass the clean copy. A gate
# that cannot fail is no gate.
set -u
here=$(cd "$(dirname "$0")" && pwd)
cc=${1:-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# expect STATUS NAME COMMAND...: STATUS is "pass" or "catch".
expect() {
    local want=$1 name=$2 got=catch
    shift 2
    if "$@" >"$work/out" 2>&1; then
        got=pass
    fi
    if [ $got = "$want" ]; then
        passed=$((passed + 1))
    else
        echo "FAIL $name: expected $want, got $got"
        cat "$work/out"
        failed=$((failed + 1))
    fi
}

# tree: a small clean project in $work/tree.
tree() {
    rm -rf "$work/tree"
    mkdir -p "$work/tree/base" "$work/tree/raft" "$work/tree/net"
    printf '#include <stdint.h>\nuint32_t good(void);\n' \
        >"$work/tree/base/good.h"
    printf '#include "base/good.h"\n#include <raft.h>\n' \
        >"$work/tree/raft/io.c"
    printf '#include "raft/group.h"\n' >"$work/tree/net/x.c"
}

layers() {
    tree
    [ $# = 0 ] || printf '%s\n' "$2" >>"$work/tree/$1"
    "$here/layers.sh" "$work/tree"
}
expect pass "layers: clean" layers
expect catch "layers: upward" layers raft/io.c '#include "net/frame.h"'
expect catch "layers: upward from a header" \
    layers base/good.h '# include "raft/group.h"'
expect catch "layers: raft.h elsewhere" layers net/x.c '#include <raft.h>'
expect catch "layers: raft.h in a header" layers raft/a.h '#include <raft.h>'
expect catch "layers: uv.h elsewhere" layers net/x.c '#include <uv.h>'
expect catch "layers: not from the root" layers net/x.c '#include "frame.h"'
expect catch "layers: inside of env" layers net/x.c \
    '#include "base/env_impl.h"'

headers() {
    tree
    [ $# = 0 ] || printf '%s\n' "$2" >"$work/tree/$1"
    "$here/headers.sh" "$work/tree" "$cc" -std=c11 -Wall -Werror -iquote .
}
expect pass "headers: clean" headers
expect catch "headers: leans on another" headers base/bad.h \
    'uint32_t bad(void);'

# symbols CODE [OBJECT]: compiles CODE as OBJECT beside a clean one.
symbols() {
    local object=${2:-net/x}
    tree
    mkdir -p "$work/tree/partition"
    printf 'int other(void);\nint other(void) { return 1; }\n' \
        >"$work/tree/base/other.c"
    printf '%s\n' "$1" >"$work/tree/$object.c"
    for o in base/other "$object"; do
        "$cc" -w -c -o "$work/tree/$o.o" "$work/tree/$o.c" || exit 2
    done
    "$here/symbols.sh" "$here/symbols.allow" "$work/tree" \
        "$work/tree/base/other.o" "$work/tree/$object.o"
}
expect pass "symbols: clean" symbols \
    'int other(void); int f(char *a) { return other() + strlen(a); }'
for call in 'clock_gettime(0, 0)' 'gettimeofday(0, 0)' 'time(0)' 'rand()' \
    'random()' 'getrandom(0, 0, 0)' 'open("x", 0)' 'fopen("x", "r")' \
    'read(0, 0, 0)' 'write(0, 0, 0)' 'pwrite(0, 0, 0, 0)' 'socket(0, 0, 0)' \
    'pthread_create(0, 0, 0, 0)' 'uv_now(0)' 'malloc(1)' 'free((void *)f)' \
    'getenv("x")' 'memfd_create("x", 0)' 'sleep(1)' 'printf("x")' 'raft_start(0)' 'crc32_iscsi(0)'; do
    expect catch "symbols: $call" symbols "void f(void) { $call; }"
done
expect pass "symbols: raft_* in raft/" symbols 'void f(void) { raft_start(0); }' \
    raft/x
expect pass "symbols: malloc in base/mem" symbols 'void *f(void) { return
    malloc(1); }' base/mem
expect pass "symbols: the door itself" symbols 'void f(void) { open("x", 0); }' \
    base/env_uv_file

# The foreign tools, with the project's own settings.
tool() {
    printf '%s\n' "$1" >"$work/x.c"
    shift
    (cd "$here/../.." && "$@" "$work/x.c")
}
if command -v cppcheck >/dev/null; then
    check=(cppcheck --quiet --error-exitcode=1 --enable=warning
        --library=tests/lint/cppcheck.cfg)
    expect pass "cppcheck: clean" tool 'int f(int a) { return a; }' \
        "${check[@]}"
    expect catch "cppcheck: out of bounds" tool \
        'int f(void) { int a[2] = {0, 1}; return a[2]; }' "${check[@]}"
fi
if command -v clang-format >/dev/null; then
    style=(clang-format --dry-run -Werror --style=file:.clang-format)
    expect pass "format: clean" tool 'int f(char *a);' "${style[@]}"
    expect catch "format: pointer" tool 'int f(char* a);' "${style[@]}"
fi
if command -v clang-tidy >/dev/null; then
    tidy=(clang-tidy --quiet --config-file=.clang-tidy)
    expect pass "tidy: clean" tool 'int f(int a) { return a; }' "${tidy[@]}"
    expect catch "tidy: redundant expression" tool \
        'int f(int a) { return a > 1 && a > 1; }' "${tidy[@]}"
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
