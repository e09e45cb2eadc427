#!/usr/bin/env python3
"""Builds the program with one defect at a time (mutants.txt) and sees which
check kills it: a unit test's program, crash points, seeds of the simulator,
chaos. Prints `killed NAME by CHECK in S s: how` or `survived NAME`, then
`K of M killed`; fails below 90 %, and when a defect cannot be planted any more.

As a rule the cheapest check goes first and the first kill ends it; with
--matrix each kind of check has its say within a fixed budget (BUDGET), and
--write FILE keeps the table. Seconds are those of the processor, so that load
does not change them.

Copies of the tree are in build-mutants/, so that the one that is worked on
stays as it is; what is built there is kept for the next run. What a matrix
found is kept there too (results.json), by defect, check and commit: one that
was ended goes on where it was, and --since COMMIT takes over what was found at
an earlier commit, which the table then tells."""
import argparse
import hashlib
import json
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
COPIES = os.path.join(ROOT, "build-mutants")
FOLDERS = ("base", "raft", "partition", "metadata", "coordinator", "net",
           "tools", "tests", "make", "jepsen")
PERCENT = 90
KINDS = ("unit", "crash", "sim", "chaos")
# What a kind of check does where the defect names none of it.
USUAL = {"crash": ["crash:1000"], "sim": ["raft:10", "whole:2"]}
# What each kind may do about a defect in a matrix; unit tests: those it names.
BUDGET = {"crash": ["crash:1000"], "sim": ["raft:20", "whole:4"]}
# Crash points are those of one broker's store: nothing of these runs there.
NOT_AT_CRASH_POINTS = ("raft/guard.c", "raft/peer_frame.c", "coordinator/",
                       "metadata/", "net/")
CHAOS_S = 150  # of real time; a run without a defect takes 40 s


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
        self.equivalent = fields.get("equivalent")
        self.verdicts = {}  # kind -> Verdict

    def checks_of(self, kind):
        """What a kind does in a matrix."""
        if kind == "crash" and self.file.startswith(NOT_AT_CRASH_POINTS):
            return []
        return BUDGET.get(kind) or \
            [c for c in self.checks if kind_of(c) == kind]

    def mark(self):
        """Changes when the defect does."""
        return hashlib.sha256((self.file + self.old + "====" + self.new)
                              .encode()).hexdigest()[:16]


class Verdict:
    def __init__(self, check, result, seconds, how=""):
        self.check, self.result = check, result
        self.seconds, self.how = seconds, how

    def killed(self):
        return self.result in ("fails", "hangs")


class Results:
    """What was found, kept in a file."""

    def __init__(self, path, commits):
        self.path, self.commits = path, commits
        self.lock = threading.Lock()
        self.all = {}
        if os.path.exists(path):
            with open(path) as f:
                self.all = json.load(f)

    def get(self, name, mark, kind, checks=None):
        """The verdict of a kind of these checks, or of any; None: not yet."""
        r = self.all.get(name, {}).get(kind)
        if r is None or r["commit"] not in self.commits or r["mark"] != mark \
                or (checks is not None and r["checks"] != sorted(checks)):
            return None
        return Verdict(r["check"], r["result"], r["seconds"], r["how"])

    def put(self, name, mark, kind, checks, verdict):
        with self.lock:
            self.all.setdefault(name, {})[kind] = {
                "commit": self.commits[0], "mark": mark,
                "checks": sorted(checks),
                "check": verdict.check, "result": verdict.result,
                "seconds": verdict.seconds, "how": verdict.how}
            with open(self.path + ".new", "w") as f:
                json.dump(self.all, f, indent=1, sort_keys=True)
            os.replace(self.path + ".new", self.path)


def git(*words):
    return subprocess.run(("git",) + words, cwd=ROOT, check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def commit_now():
    """With what says that the tree is another one."""
    dirty = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if dirty else "")


def mutants_read(path):
    with open(path) as f:
        parts = re.split(r"^## ", f.read(), flags=re.M)[1:]
    return [Mutant(p) for p in parts]


# ---- copies of the tree

def copy_tree(to):
    """Brings a copy up to date; files that are the same keep their times, and
    a new copy gets what is built already."""
    fresh = not os.path.isdir(to)
    os.makedirs(to, exist_ok=True)
    for folder in FOLDERS:
        source = os.path.join(ROOT, folder)
        if os.path.isdir(source):
            copy_folder(source, os.path.join(to, folder))
    copy_file(os.path.join(ROOT, "Makefile"), os.path.join(to, "Makefile"))
    built = os.path.join(ROOT, "build")
    if fresh and os.path.isdir(built):
        for part in FOLDERS + ("gen",):
            if os.path.isdir(os.path.join(built, part)):
                shutil.copytree(os.path.join(built, part),
                                os.path.join(to, "build", part))


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
    shutil.copyfile(source, target)  # new, so that what is built of it is too
    shutil.copymode(source, target)


# ---- checks

def kind_of(check):
    name = check.split(":")[0]
    return {"raft": "sim", "whole": "sim", "crash": "crash",
            "chaos": "chaos"}.get(name, "unit")


def programs_of(check):
    kind = kind_of(check)
    if kind == "sim":
        return ["build/sim_main"]
    if kind == "chaos":
        return ["build/flotilla", "build/jepsen-worker", "build/jepsen-check",
                "build/jepsen-nosync.so"]
    return ["build/unit/" + ("test_crash_points" if kind == "crash"
                             else check)]


def command_of(check):
    name, _, n = check.partition(":")
    env = dict(os.environ, CK_FORK="yes", CK_TIMEOUT_MULTIPLIER="10")
    if name == "raft":
        return ["build/sim_main", "raft", "1", n], env
    if name == "whole":
        return ["build/sim_main", "1", n], env
    if name == "chaos":
        return [sys.executable, "jepsen/run.py", "--time", "30", "--seed", "1",
                "--pace", "fast", "--nemesis", n], env
    if name == "crash":
        env["N"] = n
    return [programs_of(check)[0]], env


def build(tree, *checks):
    """What is wrong; None: it compiles and links."""
    env = dict(os.environ, CCACHE_NOHASHDIR="1")
    programs = sorted({p for c in checks for p in programs_of(c)})
    done = subprocess.run(["make", "-s"] + programs, cwd=tree,
                          env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return None if done.returncode == 0 else \
        done.stdout.decode("utf-8", "replace")


def how_of(text):
    """What a check that fails says first."""
    for pattern in (r"^\S+:[FE]:[^:]*:(\w+):", r"VIOLATION (.*)",
                    r"(assertion failed.*)", r"^PROBLEM +(.*)",
                    r"^  ([\w-]+: \d+) - "):
        found = re.search(pattern, text, re.M)
        if found:
            return found.group(1)[:100]
    return ""


def run(tree, check, cpu_max):
    """A check against what is built in the tree: a Verdict. Too much of the
    processor's time, or of real time with nothing done, is a hang."""
    command, env = command_of(check)
    wall_max = CHAOS_S if kind_of(check) == "chaos" else 120 + 20 * cpu_max

    def limit():
        if kind_of(check) != "chaos":
            seconds = int(cpu_max) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    with tempfile.TemporaryFile() as out:
        p = subprocess.Popen(command, cwd=tree, env=env, stdout=out,
                             stderr=subprocess.STDOUT, preexec_fn=limit,
                             start_new_session=True)
        clock = threading.Timer(wall_max, os.killpg, (p.pid, signal.SIGKILL))
        clock.start()
        _, status, usage = os.wait4(p.pid, 0)
        late = not clock.is_alive()
        clock.cancel()
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    seconds = usage.ru_utime + usage.ru_stime
    if late or p.returncode == -signal.SIGXCPU or "Killed by signal 24" in \
            text or "signal 24 " in text:
        return Verdict(check, "hangs", seconds)
    if p.returncode == 2 and kind_of(check) == "chaos":
        return Verdict(check, "impossible", seconds)
    if p.returncode == 0:
        return Verdict(check, "passes", seconds)
    return Verdict(check, "fails", seconds, how_of(text))


class Baseline:
    """What a check takes without a defect, where it must pass; one that does
    not is left out."""

    NAME = "without a defect"

    def __init__(self, results):
        self.seconds, self.results = {}, results
        self.wrong = None

    def measure(self, tree, checks):
        for check in checks:
            known = self.results.get(self.NAME, "", check)
            wrong = build(tree, check) if known is None else None
            if wrong is not None:
                self.wrong = "%s does not build without a defect:\n%s" % (
                    check, wrong[-2000:])
                return
            if kind_of(check) == "chaos":
                self.seconds[check] = 60
                continue
            verdict = known or run(tree, check, 600)
            if known is None:
                self.results.put(self.NAME, "", check, [check], verdict)
            if verdict.result == "passes":
                self.seconds[check] = verdict.seconds
            else:
                print("error: %s %s without a defect: %s; it is left out" % (
                    check, verdict.result, verdict.how), flush=True)

    def order(self, checks):
        return sorted((c for c in checks if c in self.seconds),
                      key=lambda c: self.seconds[c])


# ---- the defects

def try_checks(tree, checks, baseline):
    """The first that kills, with the time that all took; else the last that
    did not; a text: it does not compile."""
    verdict, before = None, 0
    for check in checks:
        wrong = build(tree, check)
        if wrong is not None:
            return wrong[-600:]
        verdict = run(tree, check, 10 + 4 * baseline.seconds[check])
        verdict.seconds += before
        if verdict.killed():
            break
        before = verdict.seconds
    return verdict


def try_kinds(m, tree, baseline, args):
    """Each kind has its say; what is known already is taken over. None, or
    what the compiler says."""
    todo = []
    for kind in args.kinds:
        checks = baseline.order(m.checks_of(kind))
        known = args.results.get(m.name, m.mark(), kind,
                                 None if args.any_budget else checks)
        if known is not None:
            m.verdicts[kind] = known
        elif checks:
            todo.append((kind, checks))
    wrong = build(tree, *(c for _, checks in todo for c in checks)) if todo \
        else None
    if wrong is not None:
        return wrong[-600:]
    for kind, checks in todo:
        verdict = try_checks(tree, checks, baseline)
        if isinstance(verdict, str):
            return verdict
        args.results.put(m.name, m.mark(), kind, checks, verdict)
        m.verdicts[kind] = verdict
    return None


def try_first(m, tree, baseline):
    """Until one kills. None, or what the compiler says."""
    verdict = try_checks(tree, baseline.order(m.checks), baseline)
    if isinstance(verdict, str):
        return verdict
    if verdict is not None:
        m.verdicts[kind_of(verdict.check)] = verdict
    return None


def try_mutant(m, tree, baseline, args):
    """The line to print."""
    path = os.path.join(tree, m.file)
    with open(path) as f:
        text = f.read()
    if text.count(m.old) != 1:
        return "error %s: its text is there %d times in %s" % (
            m.name, text.count(m.old), m.file)
    try:
        with open(path, "w") as f:
            f.write(text.replace(m.old, m.new))
        wrong = try_kinds(m, tree, baseline, args) if args.matrix else \
            try_first(m, tree, baseline)
        if wrong is not None:
            return "error %s: does not compile: %s" % (m.name, wrong)
    finally:
        with open(path, "w") as f:
            f.write(text)
    kills = [v for v in m.verdicts.values() if v.killed()]
    if not kills:
        return "survived %s (%s)%s" % (
            m.name, m.why, " - explained: " + m.equivalent if m.equivalent
            else "")
    return "killed %s by %s" % (m.name, ", ".join(
        "%s in %.1f s%s" % (v.check, v.seconds, ": " + v.how if v.how else
                            " (hangs)" if v.result == "hangs" else "")
        for v in kills))


def table(mutants):
    text = "| defect | %s |\n|%s\n" % (" | ".join(KINDS),
                                       " --- |" * (1 + len(KINDS)))
    for m in mutants:
        cells = []
        for kind in KINDS:
            v = m.verdicts.get(kind)
            cells.append("" if v is None else "- (%.0f s)" % v.seconds
                         if not v.killed() else "%s %.1f s%s" % (
                             v.check, v.seconds,
                             ", hangs" if v.result == "hangs" else ""))
        text += "| %s | %s |\n" % (m.name, " | ".join(cells))
    tried = [[m.verdicts[k] for m in mutants if k in m.verdicts]
             for k in KINDS]
    return text + "| **killed** | %s |\n" % " | ".join(
        "%d of %d" % (sum(v.killed() for v in vs), len(vs)) for vs in tried)


def work(jobs, tree, baseline, args, lines):
    while True:
        try:
            m = jobs.get_nowait()
        except queue.Empty:
            return
        begun = time.monotonic()
        line = try_mutant(m, tree, baseline, args)
        lines.append((m, line))
        print("%s [%.0f s]" % (line, time.monotonic() - begun), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="names that contain this; with commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--matrix", action="store_true")
    parser.add_argument("--kinds", default=",".join(KINDS),
                        help="of checks, with commas")
    parser.add_argument("--write", help="the table goes to this file")
    parser.add_argument("--any-budget", action="store_true",
                        help="what was found with another budget counts too")
    parser.add_argument("--since", action="append", default=[],
                        help="a commit whose results count too")
    args = parser.parse_args()
    args.kinds = args.kinds.split(",")
    chosen = [m for m in mutants_read(os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "mutants.txt"))
        if not args.only or any(o in m.name for o in args.only.split(","))]
    for m in chosen:
        m.checks = [c for c in m.checks if kind_of(c) in args.kinds]
    trees = [os.path.join(COPIES, str(i)) for i in range(args.jobs)]
    for tree in trees:
        copy_tree(tree)
    args.results = Results(os.path.join(COPIES, "results.json"),
                           [commit_now()] + args.since)
    baseline = Baseline(args.results)
    checks = sorted({c for m in chosen for k in args.kinds
                     for c in (m.checks_of(k) if args.matrix else m.checks)})
    parts = [threading.Thread(target=baseline.measure,
                              args=(t, checks[i::args.jobs]))
             for i, t in enumerate(trees)]
    for t in parts:
        t.start()
    for t in parts:
        t.join()
    if baseline.wrong is not None:
        sys.exit(baseline.wrong)
    jobs, lines = queue.Queue(), []
    for m in chosen:
        jobs.put(m)
    workers = [threading.Thread(target=work, args=(jobs, t, baseline, args,
                                                   lines)) for t in trees]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    return judge(chosen, lines, args)


def judge(chosen, lines, args):
    killed = sum(line.startswith("killed") for _, line in lines)
    errors = sum(line.startswith("error") for _, line in lines)
    lost = sum(line.startswith("survived") and m.equivalent is None
               for m, line in lines)
    if args.write:
        for m in chosen:  # kinds that had their say in an earlier run
            for kind in KINDS:
                v = args.results.get(m.name, m.mark(), kind)
                if v is not None:
                    m.verdicts.setdefault(kind, v)
        with open(args.write, "w") as f:
            f.write(table(chosen))
    print("%d of %d killed" % (killed, len(chosen)), flush=True)
    failed = errors or len(lines) < len(chosen) or \
        killed * 100 < PERCENT * len(chosen)
    print("%d passed, %d failed" % (len(chosen) - lost - errors,
                                    lost + errors))
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
