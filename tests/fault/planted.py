#!/usr/bin/env python3
"""Plants one defect at a time (planted.txt) in a copy of the tree and runs
seeds of the simulator until one fails. Prints for each defect which seed found
it, after how long, and the violation; fails when one survives or cannot be
planted any more. The copy is build-mutants/planted, kept for the next run."""
import os
import re
import subprocess
import sys
import time

from mutants import copy_file, copy_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
COPY = os.path.join(ROOT, "build-mutants", "planted")
FOLDERS = ("base", "raft", "partition", "metadata", "coordinator", "net",
           "tests", "make", "jepsen", "tools", "Makefile")
SEED_SECONDS = 120


def defects_read(path):
    with open(path) as f:
        for part in re.split(r"^## ", f.read(), flags=re.M)[1:]:
            head, rest = part.split("\n<<<<\n", 1)
            old, rest = rest.split("====\n", 1)
            lines = head.split("\n")
            fields = dict(line.split(": ", 1) for line in lines[1:])
            yield lines[0], fields, old, rest.split(">>>>", 1)[0]


def copy_tree():
    for name in FOLDERS:
        source, target = os.path.join(ROOT, name), os.path.join(COPY, name)
        if os.path.isdir(source):
            copy_folder(source, target)
        else:
            copy_file(source, target)


def build():
    subprocess.run(["make", "-s", "-C", COPY, "build/sim_main", "-j2"],
                   check=True, stdout=subprocess.DEVNULL)


def violation(text):
    found = re.search(r"VIOLATION (.*)|ASSERT.*|assert.*|seed \d+: .*", text)
    return found.group(0)[:100] if found else "ended by a signal"


def seed_run(mode, seed, count=1):
    """The violation; None: there is none."""
    command = [os.path.join(COPY, "build", "sim_main")]
    command += [mode] if mode != "whole" else []
    command += [str(seed)] + ([str(count)] if count > 1 else [])
    try:
        run = subprocess.run(command, capture_output=True,
                             timeout=SEED_SECONDS * (5 if count > 1 else 1),
                             errors="replace")
    except subprocess.TimeoutExpired:
        return None
    return None if run.returncode == 0 else violation(run.stderr or run.stdout)


def seeds_of(text):
    """Of "1-3,7": 1, 2, 3, 7."""
    ends = [part.split("-") for part in text.split(",")]
    return [s for e in ends for s in range(int(e[0]), int(e[-1]) + 1)]


def hunt(checks):
    for check in checks.split():
        mode, text = check.split(":")
        seeds = seeds_of(text)
        if mode == "lab":  # thousands in a few seconds, in one process
            found = seed_run(mode, seeds[0], len(seeds))
            if found is not None:
                return f"{mode} {found}"
            continue
        for seed in seeds:
            found = seed_run(mode, seed)
            if found is not None:
                return f"{mode} seed {seed}: {found}"
    return None


def defect_try(name, fields, old, new):
    path = os.path.join(COPY, fields["file"])
    with open(path) as f:
        text = f.read()
    if text.count(old) != 1:
        print(f"cannot plant {name}: its text is in {fields['file']} "
              f"{text.count(old)} times")
        return False
    with open(path, "w") as f:
        f.write(text.replace(old, new))
    try:
        build()
        begun = time.monotonic()
        found = hunt(fields["checks"])
        took = time.monotonic() - begun
    finally:
        with open(path, "w") as f:
            f.write(text)
    print(f"killed {name} in {took:.0f} s by {found}" if found
          else f"SURVIVED {name}: {fields['why']}", flush=True)
    return found is not None


def main():
    os.makedirs(COPY, exist_ok=True)
    copy_tree()
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    defects = [d for d in defects_read(os.path.join(
        ROOT, "tests", "fault", "planted.txt")) if only in d[0]]
    killed = sum(defect_try(*d) for d in defects)
    print(f"{killed} of {len(defects)} killed")
    return killed != len(defects)


if __name__ == "__main__":
    sys.exit(main())
