#!/usr/bin/env python3
"""Many partitions on three brokers, replication factor 3: creation, memory, CPU
when idle, a steady load over all of them, one broker killed with -9, its
restart, and a restart of all. Prints one table: aim and seen.

  tests/bench/scale.py [--partitions 10000] [--idle 30] [--load 20]
                       [--rate 5000] [--parts idle,wire,rdkafka,kill,restart]
"""
import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "conformance"))
import harness  # noqa: E402
import scale_wire as wire  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
TOPIC = "scale"
VICTIM = 2
CALM = 8  # seconds after an event before idle CPU is measured
# For partitions up to this many: (resident MB, % of a core idle) per broker.
AIMS = [(1000, (60, 1.5)), (10000, (500, 10))]
CREATED_AIM, WRITABLE_AIM = 60, 5


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid):
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1000
    return 0


def percent_of_core(pids, seconds):
    """Of each process, and the load of the whole machine meanwhile."""
    def busy():
        with open("/proc/stat") as f:
            v = [int(x) for x in f.readline().split()[1:]]
        return (sum(v) - v[3] - v[4]) / TICKS
    begun, before, all_before = time.monotonic(), [cpu_seconds(p)
                                                   for p in pids], busy()
    time.sleep(seconds)
    took = time.monotonic() - begun
    return ([100 * (cpu_seconds(p) - b) / took
             for p, b in zip(pids, before)],
            100 * (busy() - all_before) / took)


def several(values):
    return " ".join("%.2f" % v if v < 10 else "%.0f" % v for v in values)


class Table:
    def __init__(self):
        self.rows = []

    def add(self, what, seen, aim=None, met=None):
        self.rows.append((what, aim or "", seen,
                          "" if met is None else "met" if met else "MISSED"))
        print("%-44s %s" % (what, seen), flush=True)

    def print(self):
        print("\n| what | aim | seen | |\n|---|---|---|---|")
        for row in self.rows:
            print("| %s | %s | %s | %s |" % row)

    def missed(self):
        return sum(r[3] == "MISSED" for r in self.rows)


class Scale:
    def __init__(self, options):
        self.options = options
        self.n = options.partitions
        self.aims = next((a for most, a in AIMS if self.n <= most), None)
        self.table = Table()
        self.cluster = harness.Cluster(options.build, port=options.port,
                                       defines=options.define)

    def address(self, node):
        return "127.0.0.1:%d" % (self.cluster.port + node - 1)

    def pids(self):
        return [self.cluster.pid(i) for i in (1, 2, 3)]

    def leaders(self, node=1):
        c = wire.Connection(self.address(node))
        try:
            return wire.leaders(c, TOPIC)
        finally:
            c.close()

    def keep_logs(self, folder):
        os.makedirs(folder, exist_ok=True)
        for i in (1, 2, 3):
            shutil.copy(self.cluster.path(i, "broker.log"),
                        os.path.join(folder, "broker-%d.log" % i))

    # ---- the parts --------------------------------------------------------

    def create(self):
        begun = time.monotonic()
        harness.run([self.cluster.binary, "topic", "create", TOPIC, "-p",
                     str(self.n), "-r", "3", "-b", self.cluster.bootstrap,
                     "--wait", "120"], timeout=150)
        took = time.monotonic() - begun
        led = self.leaders()
        without = [p for p in range(self.n) if led.get(p, (-1,))[0] < 0]
        while without and time.monotonic() - begun < 2 * CREATED_AIM:
            time.sleep(0.2)
            led = self.leaders()
            without = [p for p in without if led.get(p, (-1,))[0] < 0]
        seen = "%.1f" % took
        if time.monotonic() - begun - took > 2:
            took = time.monotonic() - begun
            seen += ", every partition led after %.1f" % took
        self.table.add("created, s", seen, "< %d" % CREATED_AIM,
                       took < CREATED_AIM and not without)

    def idle(self, when):
        time.sleep(CALM)
        cpu, machine = percent_of_core(self.pids(), self.options.idle)
        aim = self.aims and self.aims[1]
        self.table.add("idle%s, %% of a core (machine %.0f %%)" %
                       (when, machine), several(cpu), aim and "< %g" % aim,
                       aim and max(cpu) < aim)
        self.memory("resident%s, MB" % when, self.aims and self.aims[0])

    def memory(self, what, aim=None):
        rss = [resident_mb(p) for p in self.pids()]
        self.table.add(what, several(rss), aim and "< %d" % aim,
                       aim and max(rss) < aim)

    def load_wire(self):
        """One record to every partition in turn, at a fixed rate; what is not
        acknowledged, or only after a second, is counted."""
        led = self.leaders()
        chunks = []
        for node in (1, 2, 3):
            mine = [p for p, v in led.items() if v[0] == node]
            chunks += [(i, node, mine[i:i + wire.CHUNK])
                       for i in range(0, len(mine), wire.CHUNK)]
        chunks.sort()
        writers = {n: wire.Writer(self.address(n), TOPIC) for n in (1, 2, 3)}
        sent = failed = late = 0
        worst, codes = 0.0, {}
        before, begun = [cpu_seconds(p) for p in self.pids()], time.monotonic()
        end = begun + self.options.load
        while time.monotonic() < end or any(w.under_way
                                            for w in writers.values()):
            if time.monotonic() > end + 30:
                break
            while (time.monotonic() < end and sent <
                   (time.monotonic() - begun) * self.options.rate):
                _, node, chunk = chunks[0]
                chunks.append(chunks.pop(0))
                writers[node].send(chunk, 30000)
                sent += len(chunk)
            for w in writers.values():
                answer = w.answers(0.002)
                while answer is not None:
                    worst = max(worst, answer[0])
                    late += len(answer[1]) * (answer[0] > 1)
                    for code in answer[1].values():
                        if code != 0:
                            failed += 1
                            codes[code] = codes.get(code, 0) + 1
                    answer = w.answers(0.0001)
        took = time.monotonic() - begun
        failed += sum(len(w.drop()) for w in writers.values())
        cpu = [100 * (cpu_seconds(p) - b) / took
               for p, b in zip(self.pids(), before)]
        self.table.add(
            "load, %d/s over all, own client: failed, late" %
            self.options.rate, "%d, %d of %d, worst %.2f s %s" % (
                failed, late, sent, worst, codes or ""), "0", failed == 0)
        self.table.add("  brokers, % of a core", several(cpu))
        self.memory("  resident, MB")

    def load_rdkafka(self):
        """The same by librdkafka's partitioner, one record at a time."""
        n = self.options.rate * self.options.load
        client = resource.getrusage(resource.RUSAGE_CHILDREN)
        before, begun = [cpu_seconds(p) for p in self.pids()], time.monotonic()
        done = subprocess.run(
            [self.cluster.binary, "bench", "produce", TOPIC, "-b",
             self.cluster.bootstrap, "-n", str(n), "-s", "100", "-r",
             str(self.options.rate), "-o", "json", "--wait", "60",
             "-X", "sticky.partitioning.linger.ms=0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
        took = time.monotonic() - begun
        cpu = [100 * (cpu_seconds(p) - b) / took
               for p, b in zip(self.pids(), before)]
        try:
            r = json.loads(done.stdout)
            seen = "%d of %d, %.0f/s, p50 %s p99 %s ms" % (
                r["failed"], n, r["records_per_second"], r.get("p50_ms"),
                r.get("p99_ms"))
            ok = r["failed"] == 0 and r["records"] == n
        except (ValueError, KeyError):
            seen, ok = "no figures: " + harness.tail(done.stderr), False
        self.table.add("load, %d/s, librdkafka: failed" % self.options.rate,
                       seen, "0", ok)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.table.add("  brokers; client, % of a core", "%s; %.0f" % (
            several(cpu), 100 * (end.ru_utime + end.ru_stime - client.ru_utime -
                                 client.ru_stime) / took))
        self.memory("  resident, MB")

    def kill(self):
        """Every partition that the killed broker led: until a record written
        to it is acknowledged by whom a survivor names as its leader."""
        pending = {p for p, v in self.leaders().items() if v[0] == VICTIM}
        led = len(pending)
        writers = {n: wire.Writer(self.address(n), TOPIC)
                   for n in (1, 2, 3) if n != VICTIM}
        asked = {n: wire.Connection(self.address(n)) for n in writers}
        for w in writers.values():
            w.send([], 0)
        pid = self.cluster.kill(VICTIM)
        begun = time.monotonic()
        times, named = {}, None
        while pending and time.monotonic() - begun < 60:
            for node, w in writers.items():
                known = wire.leaders(asked[node], TOPIC)
                mine = [p for p in pending if known[p][0] == node]
                if named is None and not any(known[p][0] == VICTIM
                                             for p in pending):
                    named = time.monotonic() - begun
                w.send(mine)
            for w in writers.values():
                while w.under_way:
                    answer = w.answers(5)
                    harness.expect(answer is not None, "Produce: no answer")
                    for p, code in answer[1].items():
                        if code == 0:
                            times[p] = time.monotonic() - begun
                            pending.discard(p)
            time.sleep(0.02)
        for c in list(asked.values()) + [w.connection
                                         for w in writers.values()]:
            c.close()
        self.cluster.wait_dead(VICTIM, pid)
        took = sorted(times.values()) or [0.0]
        self.table.add(
            "kill -9 of a broker leading %d: s to writable" % led,
            "median %.2f, p99 %.2f, last %.2f%s" % (
                took[len(took) // 2], took[len(took) * 99 // 100], took[-1],
                ", never %d" % len(pending) if pending else ""),
            "< %d" % WRITABLE_AIM, not pending and took[-1] < WRITABLE_AIM)
        if named is not None:
            self.table.add("  until nobody names it as a leader, s",
                           "%.2f" % named)

    def settle_in(self, begun, timeout=120):
        """Seconds until every broker answers, all partitions are led, all
        replicas are in sync, the first replica leads everywhere."""
        steps = dict.fromkeys(("answers", "led", "in sync", "at home"))
        checks = {
            "answers": lambda v: True,
            "led": lambda v: v[0] > 0,
            "in sync": lambda v: v[0] > 0 and v[2] == 3,
            "at home": lambda v: v[2] == 3 and v[0] == v[1][0],
        }
        while None in steps.values():
            if time.monotonic() - begun > timeout:
                break
            try:
                seen = [self.leaders(i) for i in (1, 2, 3)]
            except wire.Lost:
                time.sleep(0.1)
                continue
            now = time.monotonic() - begun
            for step, check in checks.items():
                if steps[step] is None and all(
                        len(s) == self.n and all(map(check, s.values()))
                        for s in seen):
                    steps[step] = now
            time.sleep(0.1)
        return steps

    def told(self, what, steps):
        self.table.add(what, ", ".join(
            "%s %s" % (k, "%.1f" % v if v is not None else "NEVER")
            for k, v in steps.items()), "all",
            None not in steps.values())

    def restart_one(self):
        begun = time.monotonic()
        self.cluster.restart(VICTIM)
        self.told("restart of that broker, s", self.settle_in(begun))

    def restart_all(self):
        pids = [(i, self.cluster.pid(i)) for i in (1, 2, 3)]
        begun = time.monotonic()
        for i, pid in pids:
            os.kill(pid, 15)
        for i, pid in pids:
            self.cluster.wait_dead(i, pid)
        stopped = time.monotonic()
        self.table.add("SIGTERM of all: s to their ends",
                       "%.1f" % (stopped - begun))
        for i in (1, 2, 3):
            self.cluster.restart(i)
        self.told("restart of all, s", self.settle_in(stopped))

    def run(self):
        parts = self.options.parts.split(",")
        self.cluster.start()
        self.memory("resident before, MB")
        self.create()
        for part in parts:
            if part == "idle":
                self.idle("")
            elif part == "wire":
                self.load_wire()
            elif part == "rdkafka":
                self.load_rdkafka()
            elif part == "kill":
                self.kill()
                self.restart_one()
            elif part == "restart":
                self.restart_all()
            elif part == "again":
                self.idle(" again")
            elif part == "wait":
                print("pids %s, port %d" % (self.pids(), self.cluster.port))
                time.sleep(self.options.idle)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--port", type=int, default=25092)
    parser.add_argument("--partitions", type=int, default=10000)
    parser.add_argument("--idle", type=int, default=30, metavar="SECONDS")
    parser.add_argument("--load", type=int, default=20, metavar="SECONDS")
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--parts",
                        default="idle,wire,rdkafka,kill,restart,again")
    parser.add_argument("--logs", default="", metavar="FOLDER",
                        help="keeps the brokers' logs there")
    parser.add_argument("--define", "-D", action="append", default=[],
                        help="key=value for the brokers")
    options = parser.parse_args()
    scale = Scale(options)
    try:
        scale.run()
    finally:
        scale.table.print()
        scale.cluster.stop()
        if options.logs:
            scale.keep_logs(options.logs)
        scale.cluster.remove()
    return 1 if scale.table.missed() else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (harness.Failed, wire.Lost) as e:
        sys.exit("scale: %s" % e)
