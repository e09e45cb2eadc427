#!/usr/bin/env python3
"""seeds.py PROGRAM FIRST COUNT [AIM=NUMBER ...]: runs seeds of whole brokers,
those that once failed (seeds.txt) first, two at a time, and prints the totals.
Every twentieth runs a second time and must have the same event hash. A seed
that fails is shrunk (fewer kinds of faults, one client of a kind, no longer
than until it fails) and printed with the violation and the command that runs it
again; after five it gives up. Fails too when the totals miss an aim: seeds, days (simulated),
acknowledged, faults."""
import concurrent.futures
import os
import re
import subprocess
import sys
import threading
import time

LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seeds.txt")
SEED_SECONDS = 600
AGAIN = 20
FAILURES_MAX = 5
SHRINK_SECONDS = 180

NAMES = ("events", "hours", "acknowledged", "read", "faults", "restarts",
         "elections", "requests", "commits", "rebalances", "admin",
         "rotten", "compacted", "passes")


def listed():
    """The seeds that once failed, in their order."""
    with open(LIST) as f:
        found = [re.match(r"\d+", line) for line in f]
    return list(dict.fromkeys(int(m.group(0)) for m in found if m))


def complaint(text):
    found = [line for line in text.splitlines()
             if re.search(r"VIOLATION|ASSERT|ERROR: |runtime error|^failed:",
                          line)]
    return "\n".join(found[:4]) or "\n".join(text.splitlines()[-3:])


def numbers(text):
    """What one seed did, by name, and its hash."""
    done = {}
    for value, name in re.findall(r"([\d.]+) (?:simulated )?(\w+)", text):
        if name in NAMES:
            done.setdefault(name, float(value))
    found = re.search(r"^hash (\w+)", text, re.M)
    return done, found.group(1) if found else None


def faults_of(plan):
    """The kinds that a plan's line names and that can be left out."""
    found = re.search(r"every \d+ ms:(.*)", plan)
    return [f for f in (found.group(1) if found else "").split()
            if f != "heal"]


def shrink(program, seed):
    """What the seed can be cut down to and still fails, as arguments."""
    until = time.monotonic() + SHRINK_SECONDS

    def fails(cut):
        left = until - time.monotonic()
        if left <= 0:
            return None
        try:
            run = subprocess.run([program, str(seed)] + cut, text=True,
                                 capture_output=True, errors="replace",
                                 timeout=left)
        except subprocess.TimeoutExpired:
            return None
        return run if run.returncode != 0 else None

    def arguments():
        return actors + (["clients=1"] if alone else []) + \
            (["without=" + ",".join(without)] if without else []) + ends

    actors, alone, without, ends = [], False, [], []
    newest = fails([])
    if newest is None:
        return []
    for cut in ("groups=0", "admins=0", "keys=0"):
        actors.append(cut)
        run = fails(arguments())
        newest = run or newest
        if run is None:
            actors.pop()
    for fault in faults_of(newest.stdout):
        without.append(fault)
        run = fails(arguments())
        newest = run or newest
        if run is None:
            without.pop()
    alone = True
    run = fails(arguments())
    newest, alone = run or newest, run is not None
    when = re.findall(r"^(\d+)\.\d{6} \S+ (?:VIOLATION|ASSERT)",
                      newest.stderr, re.M)
    if when:
        ends = [f"chaos={int(when[-1]) + 1}"]
        ends = ends if fails(arguments()) else []
    return arguments()


class Runs:
    def __init__(self, program):
        self.program = program
        self.lock = threading.Lock()
        self.sums = dict.fromkeys(NAMES, 0.0)
        self.seeds = self.violations = 0

    def once(self, seed):
        try:
            run = subprocess.run([self.program, str(seed)], text=True,
                                 capture_output=True, errors="replace",
                                 timeout=SEED_SECONDS)
        except subprocess.TimeoutExpired:
            return None, f"no end after {SEED_SECONDS} s"
        if run.returncode != 0:
            return None, complaint(run.stderr)
        # the first line is the plan
        return numbers(run.stdout.split("\n", 1)[1]), None

    def fails(self, seed, why):
        cut = " ".join(shrink(self.program, seed))
        with self.lock:
            self.violations += 1
            print(f"seed {seed}: {why}\nreplay: make sim SEED={seed}"
                  + (f"\nsmaller: make sim SEED={seed} CUT=\"{cut}\""
                     if cut else ""), flush=True)

    def run(self, seed):
        if self.violations >= FAILURES_MAX:
            return
        result, why = self.once(seed)
        if why is not None:
            self.fails(seed, why)
            return
        done, hash_ = result
        if seed % AGAIN == 0:
            again, why = self.once(seed)
            if why is not None or again[1] != hash_:
                self.fails(seed, why or f"hash {hash_}, then {again[1]}")
                return
        with self.lock:
            self.seeds += 1
            for name, value in done.items():
                self.sums[name] += value


def main():
    program, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    aims = dict(a.split("=") for a in sys.argv[4:])
    seeds = listed()
    seeds += [s for s in range(first, first + count) if s not in seeds]
    runs = Runs(program)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(runs.run, seeds))
    sums = runs.sums
    reached = {"seeds": runs.seeds, "days": sums["hours"] / 24,
               "acknowledged": sums["acknowledged"], "faults": sums["faults"]}
    missed = [f"{name} {reached[name]:.2f} of {aim}"
              for name, aim in aims.items() if reached[name] < float(aim)]
    for line in missed:
        print(f"missed: {line}")
    print(f"{runs.seeds} seeds, {reached['days']:.2f} simulated days, "
          f"{sums['acknowledged']:.0f} records acknowledged and checked, "
          f"{sums['read']:.0f} read, {sums['faults']:.0f} faults, "
          f"{sums['restarts']:.0f} restarts, {sums['elections']:.0f} "
          f"elections, {sums['requests']:.0f} requests, "
          f"{sums['commits']:.0f} commits, {sums['rebalances']:.0f} "
          f"rebalances, {sums['admin']:.0f} admin changes, "
          f"{sums['rotten']:.0f} rotten bytes, "
          f"{sums['compacted']:.0f} records compacted in "
          f"{sums['passes']:.0f} passes, "
          f"{runs.violations} violations")
    return 1 if runs.violations or missed else 0


if __name__ == "__main__":
    sys.exit(main())
