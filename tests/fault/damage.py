#!/usr/bin/env python3
"""Two bytes flipped in every file of one of three brokers while it is down:
started again it repairs itself from its peers and serves, or it halts with a
sentence that says what it cannot prove. Nothing wrong is ever read, nothing that
was acknowledged is missing, and `flotilla log verify` finds no damage in the
end. Each round takes another broker and other bytes.

    tests/fault/damage.py --rounds N [--seed S]
The last line is "N passed, M failed"."""
import argparse
import glob
import os
import random
import re
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "conformance"))
from confluent import ck, ka, need_confluent  # noqa: E402
from harness import Cluster, Failed, Report, expect, run  # noqa: E402

TOPIC = "damage"
PARTITIONS = 4
BATCHES = 400
SKIP = ("lock", "pid", "broker.log", "server.properties")


def produce(cluster, first, n):
    """Values FIRST ..; all acknowledged."""
    failed = []
    p = ck.Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all",
                     "enable.idempotence": True, "batch.size": 8192,
                     "log_level": 0})
    for i in range(first, first + n):
        p.produce(TOPIC, b"%d:%s" % (i, b"x" * 700), partition=i % PARTITIONS,
                  on_delivery=lambda e, m: e and failed.append(str(e)))
        if i % 10 == 9:
            p.poll(0.005)
    left = p.flush(60)
    expect(not failed and left == 0, "not acknowledged: %d left, %s" % (
        left, failed[:3]))


def read_all(cluster, n, timeout=60):
    """Every value once, in order, in its partition."""
    c = ck.Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "d",
                     "enable.auto.commit": False, "log_level": 0,
                     "check.crcs": True})
    c.assign([ck.TopicPartition(TOPIC, k, 0) for k in range(PARTITIONS)])
    nexts = list(range(PARTITIONS))
    got, end = 0, time.monotonic() + timeout
    try:
        while got < n:
            expect(time.monotonic() < end, "read %d of %d" % (got, n))
            m = c.poll(0.5)
            if m is None or m.error():
                continue
            value = int(m.value().split(b":")[0])
            k = m.partition()
            expect(value == nexts[k], "partition %d: %d where %d belongs" % (
                k, value, nexts[k]))
            nexts[k] += PARTITIONS
            got += 1
    finally:
        c.close()


def flip(cluster, node, rng):
    """Two bytes in every file of the broker; gives how many files."""
    files = 0
    for root, _, names in os.walk(os.path.join(cluster.data,
                                               "broker-%d" % node)):
        for name in sorted(names):
            path = os.path.join(root, name)
            if name in SKIP or os.path.getsize(path) == 0:
                continue
            with open(path, "r+b") as f:
                for _ in range(2):
                    at = rng.randrange(os.path.getsize(path))
                    f.seek(at)
                    byte = f.read(1)[0]
                    f.seek(at)
                    f.write(bytes([byte ^ (1 << rng.randrange(8))]))
            files += 1
    return files


def halted(cluster, node, size):
    """The broker's last words, if it ended itself."""
    with open(cluster.path(node, "broker.log"), "rb") as f:
        f.seek(size)
        return f.read().decode(errors="replace")


def damaged_dirs(cluster, node):
    bad = []
    base = os.path.join(cluster.data, "broker-%d" % node)
    for path in sorted(glob.glob(base + "/**/*.log", recursive=True)):
        directory = os.path.dirname(path)
        if not os.path.basename(path)[:20].isdigit() or directory in bad:
            continue
        try:
            run([cluster.binary, "log", "verify", directory])
        except Failed:
            bad.append(directory)
    return bad


class Rounds:
    def __init__(self, cluster, seed):
        self.cluster, self.seed = cluster, seed
        self.values, self.repaired, self.halts, self.files = 0, 0, 0, 0

    def begin(self):
        admin = ka.AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        future = admin.create_topics([ka.NewTopic(
            TOPIC, PARTITIONS, 3, config={"segment.bytes": "60000"})])
        future[TOPIC].result(30)
        produce(self.cluster, 0, BATCHES)
        self.values = BATCHES

    def in_sync(self, timeout=60):
        """Until every replica of every partition is in sync."""
        end = time.monotonic() + timeout
        admin = ka.AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        while True:
            t = admin.list_topics(TOPIC, 10).topics[TOPIC]
            isrs = [len(p.isrs) for p in t.partitions.values()]
            if len(isrs) == PARTITIONS and all(n == 3 for n in isrs):
                return
            expect(time.monotonic() < end, "in sync: %r" % isrs)
            time.sleep(0.3)

    def round(self, number):
        c = self.cluster
        rng = random.Random(self.seed * 1000 + number)
        node = 1 + number % 3
        time.sleep(3)  # much is settled, some is only in the log
        pid = c.kill(node, signal.SIGKILL if number % 2 else signal.SIGTERM)
        c.wait_dead(node, pid)
        self.files += flip(c, node, rng)
        produce(c, self.values, BATCHES)
        self.values += BATCHES
        size = os.path.getsize(c.path(node, "broker.log"))
        c.restart(node)
        time.sleep(2)
        if c.pid(node) == 0:
            words = halted(c, node, size)
            expect(re.search("vote|term", words),
                   "broker %d ended without a good reason:\n%s" % (
                       node, words[-2000:]))
            self.halts += 1
            return "halted"
        read_all(c, self.values)
        self.in_sync()
        end = time.monotonic() + 60
        while damaged_dirs(c, node):
            expect(time.monotonic() < end, "still damaged: %s" %
                   damaged_dirs(c, node))
            time.sleep(1)
        # It counts: the others lose one, and what is written is committed.
        other = 1 + node % 3
        pid = c.kill(other)
        c.wait_dead(other, pid)
        produce(c, self.values, BATCHES)
        self.values += BATCHES
        read_all(c, self.values)
        c.restart(other)
        c.wait_all()
        self.in_sync()
        self.repaired += 1
        return "repaired"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=29692)
    args = parser.parse_args()
    need_confluent(args.build)
    report = Report()
    report.suite("two bytes flipped in every file of a broker")
    for number in range(args.rounds):
        # A broker that halts stays down: every round has its own cluster.
        cluster = Cluster(args.build, port=args.port, defines=[
            "log.scrub.max.bytes.per.second=268435456"])
        rounds = Rounds(cluster, args.seed)
        try:
            cluster.start()
            cluster.wait_all()
            rounds.begin()
            report.check("seed %d, round %d" % (args.seed, number),
                         rounds.round, number)
            if report.suites[-1].failed:
                print(cluster.logs(6000))
        finally:
            cluster.stop()
        print("%d files with two flipped bytes: %d repaired, %d halted" % (
            rounds.files, rounds.repaired, rounds.halts))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
