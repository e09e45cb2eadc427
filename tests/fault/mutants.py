#!/usr/bin/env python3
"""Builds the program with one defect at a time (mutants.txt) and sees which
check kills it: a unit test's program, seeds of the simulator, crash points.
Prints `killed NAME by CHECK in S s` or `survived NAME`, then `K of M killed`;
fails below 90 %, and when a defect cannot be planted any more.

The tree is copied to build-mutants/, so that the one that is worked on stays as
it is; what is built there is kept for the next run."""
import argparse
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
COPY = os.path.join(ROOT, "build-mutants")
FOLDERS = ("base", "raft", "partition", "metadata", "coordinator", "net",
           "tools", "tests", "make", "jepsen")
PERCENT = 90


class Mutant:
    def __init__(self, text):
        head, rest = text.split("\n<<<<\n", 1)
        self.old, rest = rest.split("====\n", 1)
        self.new = rest.split(">>>>", 1)[0]
        lines = head.split("\n")
        self.name = lines[0].strip()
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        self.file = fields["file"]
        self.checks = fields["checks"].split()
        self.why = fields["why"]


def mutants_read(path):
    with open(path) as f:
        parts = re.split(r"^## ", f.read(), flags=re.M)[1:]
    return [Mutant(p) for p in parts]


def copy_tree():
    """Brings the copy up to date; files that are the same keep their times."""
    for folder in FOLDERS:
        source = os.path.join(ROOT, folder)
        if os.path.isdir(source):
            copy_folder(source, os.path.join(COPY, folder))
    copy_file(os.path.join(ROOT, "Makefile"), os.path.join(COPY, "Makefile"))


def copy_folder(source, target):
    os.makedirs(target, exist_ok=True)
    names = set(os.listdir(source))
    for name in set(os.listdir(target)) - names:
        path = os.path.join(target, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    for name in names:
        path = os.path.join(source, name)
        if name == "corpus":
            continue
        if os.path.isdir(path):
            copy_folder(path, os.path.join(target, name))
        else:
            copy_file(path, os.path.join(target, name))


def copy_file(source, target):
    with open(source, "rb") as f:
        data = f.read()
    if os.path.exists(target):
        with open(target, "rb") as f:
            if f.read() == data:
                return
    with open(target, "wb") as f:
        f.write(data)
    shutil.copymode(source, target)


def program_of(check):
    kind = check.split(":")[0]
    if kind in ("raft", "whole"):
        return "build/sim_main"
    return "build/unit/" + ("test_crash_points" if kind == "crash" else kind)


def command_of(check):
    kind, _, n = check.partition(":")
    env = dict(os.environ, CK_FORK="yes")
    if kind == "raft":
        return ["build/sim_main", "raft", "1", n], env
    if kind == "whole":
        return ["build/sim_main", "1", n], env
    if kind == "crash":
        env["N"] = n
    return [program_of(check)], env


def build(check, jobs):
    """False: it does not compile or link."""
    done = subprocess.run(["make", "-j%d" % jobs, "-s", program_of(check)],
                          cwd=COPY, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.returncode == 0, done.stdout.decode("utf-8", "replace")


def result_of(check, timeout):
    """passes, fails or hangs"""
    command, env = command_of(check)
    try:
        done = subprocess.run(command, cwd=COPY, env=env, timeout=timeout,
                              stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
        return "passes" if done.returncode == 0 else "fails"
    except subprocess.TimeoutExpired:
        return "hangs"


class Baseline:
    """How long a check takes without a defect, where it must pass; None: it
    does not. Asked when the tree is as it should be."""

    def __init__(self, jobs):
        self.jobs, self.seconds = jobs, {}

    def measure(self, check):
        if check in self.seconds:
            return
        ok, text = build(check, self.jobs)
        if not ok:
            sys.exit("%s does not build without a defect:\n%s" % (
                check, text[-2000:]))
        begun = time.monotonic()
        good = result_of(check, 600) == "passes"
        self.seconds[check] = time.monotonic() - begun if good else None
        if not good:
            print("error: %s fails without a defect; it is left out" % check,
                  flush=True)


def try_mutant(m, baseline, args):
    path = os.path.join(COPY, m.file)
    with open(path) as f:
        text = f.read()
    if text.count(m.old) != 1:
        return "error %s: its text is there %d times in %s" % (
            m.name, text.count(m.old), m.file)
    begun = time.monotonic()
    for check in m.checks:
        baseline.measure(check)
        seconds = baseline.seconds[check]
        if seconds is None:
            continue
        try:
            with open(path, "w") as f:
                f.write(text.replace(m.old, m.new))
            ok, out = build(check, args.jobs)
            if not ok:
                return "error %s: does not compile: %s" % (m.name, out[-600:])
            since = time.monotonic()
            result = result_of(check, 20 + 6 * seconds)
            if result != "passes":
                return "killed %s by %s in %.1f s%s" % (
                    m.name, check, time.monotonic() - since,
                    " (hangs)" if result == "hangs" else "")
        finally:
            with open(path, "w") as f:
                f.write(text)
    return "survived %s (%s) after %.0f s" % (m.name, m.why,
                                              time.monotonic() - begun)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="names that contain this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    chosen = [m for m in mutants_read(os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "mutants.txt"))
        if not args.only or args.only in m.name]
    copy_tree()
    baseline = Baseline(args.jobs)
    killed, errors = 0, 0
    for m in chosen:
        line = try_mutant(m, baseline, args)
        killed += line.startswith("killed")
        errors += line.startswith("error")
        print(line, flush=True)
    print("%d of %d killed" % (killed, len(chosen)), flush=True)
    failed = errors or killed * 100 < PERCENT * len(chosen)
    print("%d passed, %d failed" % (killed, len(chosen) - killed))
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
