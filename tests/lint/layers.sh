#!/usr/bin/env bash
# usage: layers.sh [ROOT]
# Checks every #include of the project against the arrows of the house: what a
# folder may include is named here, and nothing includes upward. No output and
# 0 when all is well; else a line for each wrong include, and 1.
set -u
cd "${1:-.}" || exit 2

# "schema" is what net/schema generates: formats without behaviour.
allowed() {
    case $1 in
    base) echo base ;;
    raft) echo base raft ;;
    partition) echo base raft partition ;;
    metadata) echo base raft metadata ;;
    coordinator) echo base raft partition metadata coordinator schema ;;
    net) echo base raft partition metadata coordinator net schema ;;
    tools) echo base raft partition metadata coordinator net schema tools ;;
    jepsen) echo base net schema jepsen ;;
    tests) echo base raft partition metadata coordinator net schema tools \
        jepsen tests ;;
    *) echo ;;
    esac
}

bad=0
complain() {
    echo "$1"
    bad=1
}

# Lines "file:line:what" for every include of the files of a folder.
includes() {
    find "$1" -name '*.[ch]' -type f 2>/dev/null | LC_ALL=C sort |
        xargs -r grep -nHE '^[[:space:]]*#[[:space:]]*include' |
        sed -E 's/^([^:]*:[0-9]+):[^"<]*(["<][^">]*).*/\1 \2/'
}

for folder in base raft partition metadata coordinator net tools jepsen tests; do
    may=" $(allowed "$folder") "
    while read -r place what; do
        file=${place%%:*}
        case $what in
        '<raft.h' | '<raft/'*)
            case $file in
            raft/*.c | raft/*_impl.h | tests/*) ;;
            *) complain "$place: only raft/*.c may include $what>" ;;
            esac
            ;;
        '<uv.h')
            case $file in
            base/env_uv*) ;;
            *) complain "$place: only base/env_uv* may include <uv.h>" ;;
            esac
            ;;
        '"base/env_impl.h')
            case $file in
            base/env* | tests/sim/*) ;;
            *) complain "$place: base/env_impl.h is for environments" ;;
            esac
            ;;
        '"'*/*)
            target=${what#\"}
            target=${target%%/*}
            case $may in
            *" $target "*) ;;
            *) complain "$place: $folder may not include $target/" ;;
            esac
            ;;
        '"'*) complain "$place: includes are named from the root: $what\"" ;;
        esac
    done < <(includes "$folder")
done
exit $bad
