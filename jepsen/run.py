#!/usr/bin/env python3
"""Chaos on real processes: brokers under faults, clients that write down what
they did, a checker that judges it. jepsen/README.md tells the use.

    jepsen/run.py --time 60 --nemesis all --seed 1 --nodes 3 --build build
Ends with 0 when all is well, 1 with anomalies or brokers that misbehave, 2
where this machine cannot run it."""
import argparse
import collections
import glob
import heapq
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "jepsen"))

import causes  # noqa: E402
import nemesis  # noqa: E402
from cluster import Cluster  # noqa: E402
from world import Impossible, Network, command, copy_sparse  # noqa: E402

INSIDE = "JEPSEN_INSIDE"
PULSE_S = 0.1
STILL_S = 0.5       # the machine had no time for us
SETTLE_S = 5        # all is healed, clients go on
ASK_S = 90          # until every partition answers again
READ_S = 300        # until all is read, and a sixth of the run's time
PACES = {"normal": ((2.0, 8.0), (1.0, 4.0)), "fast": ((0.1, 0.8), (1.5, 3.0)),
         "calm": ((5.0, 15.0), (10.0, 15.0))}
SUSPECT = re.compile(
    r"assertion failed|Sanitizer|runtime error:|SUSPECT|impossible|"
    r"Segmentation|core dumped", re.I)
LOSSES = ("lost-write:", "unseen:", "inconsistent-offsets:")
PROCESS = re.compile(r":process (\d+), ")
CLIENT_BUG = re.compile(r"rdkafka_\w+\.c:\d+: .*Assertion|"
                        r"\*\*\* rdkafka_\w+\.c:\d+:\w+: assert: ")


def options():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--time", type=int, default=60, help="seconds of faults")
    p.add_argument("--nemesis", default="all",
                   help="kinds with commas between, all, none")
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--nodes", type=int, default=3, choices=(1, 3, 5, 7))
    p.add_argument("--rate", type=int, default=500,
                   help="records per second to the steady topic")
    p.add_argument("--partitions", type=int, default=4, help="of that topic")
    p.add_argument("--clients", type=int, default=3, help="of each kind")
    p.add_argument("--pace", default="normal", choices=sorted(PACES))
    p.add_argument("--disk", type=int, default=0, help="MiB of each broker")
    p.add_argument("--build", default="build")
    p.add_argument("--binary", default=None, help="another flotilla")
    p.add_argument("--out", default=None, help="where runs are kept")
    p.add_argument("--keep", action="store_true", help="a good run as well")
    p.add_argument("--control", action="store_true",
                   help="brokers whose syncs do nothing lose all power: the "
                   "checker must see it")
    o = p.parse_args()
    if o.seed is None:
        o.seed = random.SystemRandom().randrange(1, 1000000)
    return o


def enter(o):
    """The rest runs as the first process of namespaces of its own: whatever
    becomes of it, processes, mounts and networks go with it."""
    if os.environ.get(INSIDE):
        return
    if os.geteuid() != 0:
        print("jepsen: needs root (network namespaces, mounts)")
        sys.exit(2)
    flags = ["--mount", "--pid", "--fork", "--kill-child", "--net",
             "--mount-proc", "--propagation", "private"]
    try:
        probe = subprocess.run(["unshare"] + flags + ["true"],
                               stderr=subprocess.PIPE, text=True)
        why = probe.stderr if probe.returncode else ""
    except FileNotFoundError:
        why = "unshare is not there"
    if why:
        print("jepsen: this machine has no namespaces for it: " + why.strip())
        sys.exit(2)
    args = list(sys.argv)
    if "--seed" not in " ".join(args):
        args += ["--seed", str(o.seed)]
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare"] + flags + [sys.executable] + args)


class Client:
    """A worker process; one that librdkafka's own asserts end is followed by
    another."""

    def __init__(self, run, args, base):
        self.run, self.args, self.base = run, args, base
        self.starts = 0
        self.start()

    def start(self):
        number = self.base + 50 * self.starts % 1000
        self.starts += 1
        self.process = self.run.work(*self.args, process=number)
        self.log = os.path.join(self.run.dir, "worker-%d.log" % number)

    def judge_end(self, expected):
        status = self.process.returncode
        if status == expected:
            return
        with open(self.log, errors="replace") as f:
            bug = CLIENT_BUG.search(f.read())
        if status == -signal.SIGABRT and bug:
            self.run.cluster.remark("librdkafka ended a worker: " +
                                    bug.group(0)[:200])
        else:
            self.run.cluster.problem("worker %d ended with %d" %
                                     (self.base, status))


class Run:
    def __init__(self, o):
        self.o = o
        build = os.path.join(ROOT, o.build)
        self.worker = os.path.join(build, "jepsen-worker")
        self.check = os.path.join(build, "jepsen-check")
        self.flotilla = os.path.abspath(o.binary) if o.binary else \
            os.path.join(build, "flotilla")
        self.nosync = os.path.join(build, "jepsen-nosync.so")
        out = os.path.abspath(o.out) if o.out else \
            os.path.join(build, "jepsen-runs")
        self.dir = os.path.join(out, "%s-seed-%d" % (
            time.strftime("%Y%m%d-%H%M%S", time.gmtime()), o.seed))
        self.parts = os.path.join(self.dir, "parts")
        os.makedirs(self.parts)
        self.rng = random.Random(o.seed)
        self.not_run = []
        self.cluster = self.network = self.schedule = None
        self.started = []
        self.stopping = threading.Event()
        self.nemesis_log = open(os.path.join(self.parts, "nemesis.part"), "w")

    # ---- the world

    def build_world(self):
        o = self.o
        size = o.disk or 256 + 2 * o.rate * o.time // 1000
        disks = os.path.join(self.dir, "disks")
        os.makedirs(disks)
        need = o.nodes * (size * 5 // 4 + 96)
        if need * 2 < memory_available_mib():
            command("mount", "-t", "tmpfs", "-o", "size=%dm" % need, "tmpfs",
                    disks)
        self.network = Network(o.nodes)
        self.cluster = Cluster(self.dir, disks, self.flotilla, o.nodes,
                               self.rng.choice([1, 2]), size)

    def choose_nemeses(self):
        if self.o.control:
            self.nemeses = nemesis.nemeses_of("power-all", self.cluster,
                                              self.network, self.o.seed)
            self.cluster.preload = self.nosync
        else:
            self.nemeses = nemesis.nemeses_of(self.o.nemesis, self.cluster,
                                              self.network, self.o.seed)
        can = []
        for n in self.nemeses:
            try:
                n.probe()
                can.append(n)
            except Impossible as e:
                self.not_run.append("%s: %s" % (n.name, e))
                print("NOT POSSIBLE HERE: %s: %s" % (n.name, e), flush=True)
        self.nemeses = can
        if any(n.name == "clock" for n in can):
            self.cluster.faketime = nemesis.faketime_library()

    def told(self, name, what, text):
        """A line of the history, and one for people."""
        text = text.replace('"', "'")
        self.nemesis_log.write(
            "{:time %d, :type :info, :process :nemesis, :f :%s-%s, :value "
            "\"%s\"}\n" % (time.monotonic_ns(), what, name, text))
        self.nemesis_log.flush()
        if text and text != "done":
            print("%7.1f s  %s %s" % (self.cluster.elapsed(), name, text),
                  flush=True)

    # ---- the load

    def work(self, *args, process=0, seconds=None):
        """A worker; with `seconds`, until its end: (status, output)."""
        o = self.o
        log = open(os.path.join(self.dir, "worker-%d.log" % process), "ab")
        p = subprocess.Popen(
            [self.worker, "--bootstrap", self.cluster.bootstrap(), "--dir",
             self.parts, "--start", str(self.cluster.begun_ns), "--seed",
             str(o.seed), "--process", str(process)] + [str(a) for a in args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if seconds else log, stderr=log)
        if seconds is None:
            self.started.append(p)
            return p
        try:
            out = p.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            p.terminate()
            try:
                out = p.communicate(timeout=30)[0]
            except subprocess.TimeoutExpired:
                p.kill()
                out = p.communicate()[0]
        return p.returncode, out.decode()

    def make_steady(self):
        until = time.monotonic() + 30
        while True:
            done = subprocess.run(
                [self.flotilla, "topic", "create", "steady", "-b",
                 self.cluster.bootstrap(), "-p", str(self.o.partitions), "-r",
                 str(self.cluster.replicas)], stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True)
            if done.returncode == 0:
                return
            if time.monotonic() > until:
                raise Impossible("topic create: " + done.stdout)
            time.sleep(0.5)

    def load(self):
        o = self.o
        self.make_steady()
        self.cluster.begun_ns_load = time.monotonic_ns()
        self.clients = [Client(self, ["--wire", o.clients, "--steady-keys",
                                      o.partitions], 0),
                        Client(self, ["--steady", o.partitions, "--rate",
                                      o.rate], 1000),
                        Client(self, ["--probe", o.partitions],
                               causes.PROBE)]
        self.clients += [Client(self, ["--rdkafka", 1 + i % 2], 2000 + 1000 * i)
                         for i in range(o.clients)]
        watches = [threading.Thread(target=f, daemon=True)
                   for f in (self.watch_clients, self.watch_machine)]
        for w in watches:
            w.start()
        if o.control:
            self.control()
        else:
            self.faults()
        print("%7.1f s  healed; the last operations" % self.cluster.elapsed(),
              flush=True)
        healed = time.monotonic()
        for number in self.cluster.revive():
            self.cluster.problem("broker %d does not start again" % number)
        time.sleep(SETTLE_S)
        self.stopping.set()
        for w in watches:
            w.join()
        for c in self.clients:
            c.process.terminate()
        for c in self.clients:
            try:
                c.process.wait(60)
            except subprocess.TimeoutExpired:
                self.cluster.problem("a worker does not end")
                c.process.kill()
                c.process.wait()
            c.judge_end(0)
        self.until_ns = time.monotonic_ns()
        self.read_all(healed)

    def watch_clients(self):
        while not self.stopping.wait(0.3):
            for c in self.clients:
                if c.process.poll() is not None:
                    c.judge_end(None)
                    c.start()

    def watch_machine(self):
        """When this process could not run for long, brokers and clients could
        not either: the history tells it like a fault."""
        with open(os.path.join(self.parts, "machine.part"), "w") as out:
            while not self.stopping.is_set():
                begun = time.monotonic_ns()
                time.sleep(PULSE_S)
                now = time.monotonic_ns()
                if now - begun > STILL_S * 1e9:
                    for t, what in ((begun, "start"), (now, "stop")):
                        out.write("{:time %d, :type :info, :process :nemesis, "
                                  ":f :%s-machine, :value \"done\"}\n" %
                                  (t, what))
                    out.flush()

    def faults(self):
        hold, calm = PACES[self.o.pace]
        until = time.monotonic_ns() + self.o.time * 1000000000
        self.schedule = nemesis.Schedule(
            self.nemeses, random.Random("%d schedule" % self.o.seed), until,
            self.told, hold, calm)
        if self.nemeses:
            self.schedule.start()
            self.schedule.join()
        while time.monotonic_ns() < until:
            time.sleep(0.1)
        if self.schedule.error:
            self.cluster.problem("the schedule broke off:\n" +
                                 self.schedule.error)

    def control(self):
        """Syncs do nothing; all is safe at first, then the power goes."""
        power = self.nemeses[0]
        time.sleep(6)
        for b in self.cluster.brokers:
            b.disk.sync()
        time.sleep(6)
        self.told(power.name, "start", power.begin())
        power.end()
        self.told(power.name, "stop", "done")

    def read_all(self, healed):
        keys = set()
        for path in glob.glob(os.path.join(self.parts, "*.part")):
            with open(path) as f:
                for line in f:
                    if ":f :send" in line and ":type :invoke" in line:
                        keys.update(re.findall(r"\[:send (\d+) ", line))
        asked = os.path.join(self.dir, "keys")
        with open(asked, "w") as f:
            for k in sorted(map(int, keys)):
                f.write("%d 0\n" % k)
        status, ends = self.work("--ask", asked, process=90000, seconds=ASK_S)
        self.answered_s = time.monotonic() - healed
        if status != 0:
            self.cluster.problem(
                "partitions did not answer within %d s" % ASK_S)
        path = os.path.join(self.dir, "ends")
        with open(path, "w") as f:
            f.write(ends)
        status, out = self.work("--ends", path, process=91000,
                                seconds=READ_S + self.o.time // 6)
        if status != 0:
            self.cluster.problem("not all was read: status %d\n%s" %
                                 (status, out[-2000:]))

    # ---- what became of it

    def history_write(self):
        """All parts by their times, numbered."""
        self.nemesis_log.close()
        path = os.path.join(self.dir, "history.edn")
        begun = self.cluster.begun_ns

        def lines(part):
            """Times and rests; what a client left open is :info."""
            opened, t = {}, 0
            with open(part) as f:
                for line in f:
                    if not line.endswith("}\n"):
                        continue
                    at = line.index(",")
                    t, rest = int(line[7:at]), line[at:]
                    process = PROCESS.search(rest)
                    if process and rest.startswith(", :type :invoke"):
                        opened[process.group(1)] = rest
                    elif process:
                        opened.pop(process.group(1), None)
                    yield t, rest
            for rest in opened.values():
                yield t, rest.replace(":type :invoke", ":type :info", 1)
        parts = glob.glob(os.path.join(self.parts, "*.part"))
        with open(path, "w") as out:
            for i, (t, rest) in enumerate(heapq.merge(*map(lines, parts))):
                out.write("{:index %d, :time %d%s" % (i, t - begun, rest))
        shutil.rmtree(self.parts)
        return path

    def scan_logs(self):
        for path in sorted(glob.glob(os.path.join(self.dir, "broker-*/log")) +
                           glob.glob(os.path.join(self.dir, "worker-*.log"))):
            seen = collections.Counter()
            with open(path, errors="replace") as f:
                for line in f:
                    if SUSPECT.search(line) and not CLIENT_BUG.search(line):
                        seen[line.strip()[:300]] += 1
            for line, n in list(seen.items())[:5]:
                self.cluster.problem("%s: %s" % (
                    os.path.relpath(path, self.dir), line))

    def judge(self):
        """True when the run was good."""
        c = self.cluster
        windows = os.path.join(self.dir, "windows")
        c.windows_write(windows, self.until_ns - c.begun_ns)
        clip_windows(windows, c.begun_ns_load - c.begun_ns)
        history = self.history_write()
        done = subprocess.run([self.check, history], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True)
        self.scan_logs()
        counts = self.schedule.counts if self.schedule else {}
        total = sum(counts.values())
        text = "seed %d, %d brokers, %d shard(s), %d s\n" % (
            self.o.seed, c.n, c.shards, self.o.time)
        text += "faults        %d: %s\n" % (total, ", ".join(
            "%s %d" % item for item in sorted(counts.items())) or "none")
        for line in self.not_run:
            text += "not possible  %s\n" % line
        missing = [k for k, n in counts.items() if n == 0]
        if missing:
            text += "no turn       %s (a longer TIME has them all)\n" % \
                ", ".join(missing)
        text += done.stdout
        if not self.o.control:
            text += causes.told(history, windows)
        text += "after the last fault every partition answered within %.1f s\n" \
            % self.answered_s
        for line in c.remarks:
            text += "remark        %s\n" % line
        for line in c.problems:
            text += "PROBLEM       %s\n" % line
        with open(os.path.join(self.dir, "report"), "w") as f:
            f.write(text)
        if self.o.control:  # cases of a loss that is meant are of no interest
            text = "".join(line + "\n" for line in text.splitlines()
                           if not line.startswith(("    ", "PROBLEM")))
        print(text, flush=True)
        self.loss = any(name in done.stdout for name in LOSSES)
        return done.returncode == 0 and not c.problems

    def keep_disks(self):
        for b in self.cluster.brokers:
            data = os.path.join(b.disk.path, "data")
            if os.path.isdir(data):
                copy_sparse(data, os.path.join(b.home, "data"))

    def end(self):
        for p in self.started:
            if p.poll() is None:
                p.kill()
                p.wait()
        if self.cluster is not None:
            self.cluster.stop()


def clip_windows(path, from_ns):
    """The load begins later than the brokers."""
    with open(path) as f:
        rows = [tuple(map(int, line.split())) for line in f]
    with open(path, "w") as f:
        for a, b in rows:
            if b > from_ns:
                f.write("%d %d\n" % (max(a, from_ns), b))


def memory_available_mib():
    with open("/proc/meminfo") as f:
        for line in f:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) // 1024
    return 0


def interrupted(number, frame):
    raise KeyboardInterrupt


def main():
    o = options()
    enter(o)
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)
    run = Run(o)
    good = False
    status = 1
    print("jepsen: seed %d, in %s" % (o.seed, os.path.relpath(run.dir)),
          flush=True)
    try:
        run.build_world()
        run.choose_nemeses()
        run.cluster.start()
        run.load()
        good = run.judge()
        if not good or o.keep:
            run.end()
            run.keep_disks()
        status = 0 if good else 1
        if o.control:
            status = 0 if run.loss else 1
            print("control: the loss was %sseen" % ("" if run.loss else "NOT "))
    except ValueError as e:
        print("jepsen: %s" % e)
        status = 2
    except Impossible as e:
        print("jepsen: %s" % e)
        status = 2
    except KeyboardInterrupt:
        print("jepsen: interrupted")
        status = 130
    finally:
        run.end()
    disks = os.path.join(run.dir, "disks")
    for mounted in glob.glob(os.path.join(disks, "disk-*")) + \
            glob.glob(os.path.join(disks, "outer-*")) + [disks]:
        subprocess.run(["umount", "-l", mounted], stderr=subprocess.DEVNULL)
    shutil.rmtree(disks, ignore_errors=True)
    if status == 0 and not o.keep:
        shutil.rmtree(run.dir, ignore_errors=True)
    else:
        print("jepsen: history, logs and disks are in %s" %
              os.path.relpath(run.dir))
    print("%d passed, %d failed" % (status == 0, status != 0))
    sys.exit(status)


if __name__ == "__main__":
    main()
