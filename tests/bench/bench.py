#!/usr/bin/env python3
"""Throughput and latency of three brokers on this machine: our own load
generator (on librdkafka) and Kafka's ProducerPerformance, acks=all, replication
factor 3. With --peer kafka the same Java loads go to three brokers of Apache
Kafka 4.3.1 at their defaults (no sync before the acknowledgement), in the same
run and alternating. Figures are medians over --rounds; brokers' CPU is user
and system time of all brokers together for a GB produced, settling included.

  tests/bench/bench.py [--rounds 3] [--peer kafka] [--only NAME] [--scale 1.0]
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "conformance"))
import harness  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
SETTLED = 4  # seconds after a load until its CPU and bytes are read

# name, partitions, record size, records, Java properties, our properties
ROWS = [
    ("1 KiB, client defaults", 12, 1024, 500000, [], []),
    ("1 KiB, batch.size 256 KiB", 12, 1024, 800000,
     ["batch.size=262144"], ["batch.size=262144"]),
    ("100 KiB, batch.size 1 MiB", 12, 102400, 8000, ["batch.size=1048576"],
     ["batch.size=1048576"]),
]


class Kafka:
    """Three KRaft brokers in combined mode, as Kafka's own files set them."""

    def __init__(self, jars, port=39092):
        self.jars, self.port = jars, port
        self.dir = tempfile.mkdtemp(prefix="kafka-bench-")
        self.processes = []

    @property
    def bootstrap(self):
        return ",".join("127.0.0.1:%d" % (self.port + i) for i in range(3))

    def java(self, *args):
        return ["java", "-Xmx1g", "-Xms1g", "-XX:+UseG1GC",
                "-Dlog4j2.level=WARN", "-cp", self.jars + "/*"] + list(args)

    def start(self):
        voters = ",".join("%d@127.0.0.1:%d" % (i + 1, self.port + 10 + i)
                          for i in range(3))
        for i in range(3):
            path = os.path.join(self.dir, "%d.properties" % i)
            with open(path, "w") as f:
                f.write("""process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%s/data-%d
offsets.topic.replication.factor=3
default.replication.factor=3
""" % (i + 1, voters, self.port + i, self.port + 10 + i, self.dir, i))
            subprocess.run(self.java("kafka.tools.StorageTool", "format", "-t",
                                     "MkU3OEVBNTcwNTJENDM2Qg", "-c", path),
                           check=True, timeout=60, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            self.processes.append(subprocess.Popen(
                self.java("kafka.Kafka", path), stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=harness.die_with_parent))

    def pids(self):
        return [p.pid for p in self.processes]

    def stop(self):
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            try:
                p.wait(30)
            except subprocess.TimeoutExpired:
                p.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Flotilla(harness.Cluster):
    def pids(self):
        return [self.pid(i) for i in range(1, self.n + 1)]


def usage(pids):
    """CPU seconds, bytes written, resident bytes (the largest broker)."""
    cpu = written = resident = 0
    for pid in pids:
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        cpu += (int(fields[11]) + int(fields[12])) / TICKS
        with open("/proc/%d/io" % pid) as f:
            written += int(re.search(r"write_bytes: (\d+)", f.read()).group(1))
        with open("/proc/%d/status" % pid) as f:
            rss = int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) * 1024
        resident = max(resident, rss)
    return cpu, written, resident


class Bench:
    def __init__(self, options):
        self.options = options
        self.jars = os.path.join(harness.ROOT, options.build, "kafka", "jars")
        self.flotilla = os.path.join(harness.ROOT, options.build, "flotilla")
        self.results = {}  # (row, side) -> list of dicts
        self.topics = 0

    def java_tool(self, main, *args, timeout=600):
        return harness.run(["java", "-Xmx512m", "-cp", self.jars + "/*",
                            "org.apache.kafka.tools." + main] + list(args),
                           timeout=timeout).decode()

    def make_topic(self, cluster, partitions):
        self.topics += 1
        name = "bench-%d" % self.topics
        for attempt in range(60):
            done = subprocess.run(
                [self.flotilla, "topic", "create", name, "-p",
                 str(partitions), "-r", "3", "-b", cluster.bootstrap],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if done.returncode == 0:
                return name
            time.sleep(0.5)  # Kafka is still starting
        raise harness.Failed("topic %s cannot be created" % name)

    def load_java(self, cluster, topic, row):
        _, _, size, records, java, _ = row
        records = int(records * self.options.scale)
        out = self.java_tool(
            "ProducerPerformance", "--topic", topic, "--num-records",
            str(records), "--record-size", str(size), "--throughput", "-1",
            "--bootstrap-server", cluster.bootstrap, "--command-property",
            "acks=all", *sum((["--command-property", p] for p in java), []))
        last = out.strip().split("\n")[-1]
        m = re.search(r"([\d.]+) records/sec .*?(\d+) ms 50th, (\d+) ms 95th, "
                      r"(\d+) ms 99th, (\d+) ms 99.9th", last)
        return float(m.group(1)), float(m.group(2)), float(m.group(4)), records

    def load_own(self, cluster, topic, row):
        _, _, size, records, _, own = row
        records = int(records * self.options.scale)
        out = harness.run(
            [self.flotilla, "bench", "produce", topic, "-n", str(records),
             "-s", str(size), "-b", cluster.bootstrap, "-o", "json", "--wait",
             "300", *sum((["-X", p] for p in own), [])], timeout=600)
        r = json.loads(out)
        harness.expect(r["failed"] == 0, "%d records failed" % r["failed"])
        return r["records_per_second"], r["p50_ms"], r["p99_ms"], records

    def measure(self, cluster, side, row, load):
        topic = self.make_topic(cluster, row[1])
        before = usage(cluster.pids())
        rate, p50, p99, records = load(cluster, topic, row)
        time.sleep(SETTLED)
        after = usage(cluster.pids())
        produced = records * row[2]
        result = {
            "records/s": rate, "MB/s": rate * row[2] / 1e6, "p50 ms": p50,
            "p99 ms": p99,
            "CPU s/GB": (after[0] - before[0]) / (produced / 1e9),
            "written/byte": (after[1] - before[1]) / produced,
            "RSS MB": after[2] / 1e6,
        }
        self.results.setdefault((row[0], side), []).append(result)
        print("%-28s %-16s %s" % (row[0], side, "  ".join(
            "%s %.4g" % kv for kv in result.items())), flush=True)

    def round(self, rows):
        ours = Flotilla(self.options.build, port=self.options.port)
        ours.start()
        try:
            for row in rows:
                self.measure(ours, "own client", row, self.load_own)
                self.measure(ours, "Java client", row, self.load_java)
        finally:
            ours.stop()
            ours.remove()
        if self.options.peer == "kafka":
            peer = Kafka(self.jars)
            peer.start()
            try:
                for row in rows:
                    self.measure(peer, "Kafka, Java", row, self.load_java)
            finally:
                peer.stop()

    def table(self):
        columns = ["records/s", "MB/s", "p50 ms", "p99 ms", "CPU s/GB",
                   "written/byte", "RSS MB"]
        print("\n%-28s %-14s" % ("MEDIANS", "CLIENT") +
              "".join("%13s" % c for c in columns))
        for (row, side), results in self.results.items():
            print("%-28s %-14s" % (row, side) + "".join(
                "%13.4g" % statistics.median(r[c] for r in results)
                for c in columns))
        for row in ROWS:
            ours = self.results.get((row[0], "Java client"))
            theirs = self.results.get((row[0], "Kafka, Java"))
            if ours and theirs:
                ratio = (statistics.median(r["MB/s"] for r in ours) /
                         statistics.median(r["MB/s"] for r in theirs))
                cpu = (statistics.median(r["CPU s/GB"] for r in ours) /
                       statistics.median(r["CPU s/GB"] for r in theirs))
                print("%s: %.2f times Kafka's rate, %.2f of its brokers' CPU"
                      % (row[0], ratio, cpu))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--port", type=int, default=29592)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", choices=["none", "kafka"], default="none")
    parser.add_argument("--only", default="", help="rows with this in the name")
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    bench = Bench(options)
    harness.run([os.path.join(HERE, "..", "conformance", "kafka_jars.sh"),
                 os.path.dirname(bench.jars)], timeout=900)
    rows = [r for r in ROWS if options.only in r[0]]
    for _ in range(options.rounds):
        bench.round(rows)
    bench.table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
