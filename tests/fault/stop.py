#!/usr/bin/env python3
"""Brokers of several shards are stopped by SIGTERM, one after the other, while
topics are made, grown and deleted, records are written, and a group reads: each
must end by itself, soon, with status 0, tell of no error, and serve again. Every third
round is a SIGKILL, so that logs are recovered and replicas catch up. Meant for
builds with sanitizers, whose findings are told (`make stop-test B=build/tsan`
after `make tsan`); the last SIGTERM goes to all at once.

    tests/fault/stop.py --rounds N [--build build/asan]
The last line is "N passed, M failed"."""
import argparse
import os
import re
import signal
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "conformance"))
from confluent import ck, ka, need_confluent  # noqa: E402
from harness import ROOT, Cluster, Report, expect  # noqa: E402

TOPIC = "steady"
KEPT = 6  # topics that are there at once
FINDING = re.compile(
    r"^.*(?:ERROR: AddressSanitizer|WARNING: ThreadSanitizer|runtime error:|"
    r"assertion failed|terminated by signal).*$", re.M)
ERROR = re.compile(r"^.* level=error .*$", re.M)


class Churn(threading.Thread):
    """Makes topics, writes to them, grows some, deletes the oldest."""

    def __init__(self, bootstrap, number):
        super().__init__(daemon=True)
        self.number, self.ended = number, threading.Event()
        self.made, self.deleted = 0, 0
        self.admin = ka.AdminClient({"bootstrap.servers": bootstrap,
                                     "log_level": 0})
        self.producer = ck.Producer({"bootstrap.servers": bootstrap,
                                     "acks": "all", "log_level": 0,
                                     "message.timeout.ms": 5000})

    def tried(self, futures):
        done = 0
        for future in futures.values():
            try:
                future.result(10)
                done += 1
            except (ck.KafkaException, TimeoutError):
                pass
        return done

    def run(self):
        topics = []
        while not self.ended.is_set():
            name = "churn-%d-%d" % (self.number, self.made + len(topics))
            self.made += self.tried(self.admin.create_topics(
                [ka.NewTopic(name, 6, 3)], operation_timeout=5))
            topics.append(name)
            for i in range(200):
                try:
                    self.producer.produce(name, b"x" * 500, partition=i % 6)
                except (BufferError, ck.KafkaException):
                    self.producer.poll(0.1)  # full, or the topic is gone
            self.producer.poll(0.05)
            if self.made % 2 == 0:
                self.tried(self.admin.create_partitions(
                    [ka.NewPartitions(name, 9)], operation_timeout=5))
            if len(topics) > KEPT:
                self.deleted += self.tried(self.admin.delete_topics(
                    [topics.pop(0)], operation_timeout=5))


class Steady(threading.Thread):
    """Writes to one topic, and reads it as a group's member."""

    def __init__(self, bootstrap):
        super().__init__(daemon=True)
        self.ended, self.acked, self.read = threading.Event(), 0, 0
        self.producer = ck.Producer({"bootstrap.servers": bootstrap,
                                     "acks": "all", "log_level": 0,
                                     "enable.idempotence": True})
        self.member = ck.Consumer({"bootstrap.servers": bootstrap,
                                   "group.id": "steady", "log_level": 0,
                                   "auto.offset.reset": "earliest",
                                   "auto.commit.interval.ms": 200})

    def told(self, error, _):
        self.acked += error is None

    def run(self):
        self.member.subscribe([TOPIC])
        while not self.ended.is_set():
            for _ in range(20):
                try:
                    self.producer.produce(TOPIC, b"y" * 1000,
                                          on_delivery=self.told)
                except BufferError:
                    break
            self.producer.poll(0.02)
            self.read += sum(m.error() is None
                             for m in self.member.consume(100, 0.02))
        self.producer.flush(10)
        self.member.close()


class Stops:
    def __init__(self, cluster, limit, soon):
        self.cluster, self.limit, self.soon = cluster, limit, soon
        self.seen = {}  # how much of a log was looked at

    def begin(self):
        admin = ka.AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        admin.create_topics([ka.NewTopic(TOPIC, 6, 3)])[TOPIC].result(60)
        self.load = [Churn(self.cluster.bootstrap, k) for k in range(2)]
        self.load.append(Steady(self.cluster.bootstrap))
        for thread in self.load:
            thread.start()

    def no_errors(self, node):
        """Nothing that a sanitizer or the broker itself calls an error."""
        path = self.cluster.path(node, "broker.log")
        with open(path, errors="replace") as f:
            f.seek(self.seen.get(node, 0))
            new = f.read()
            self.seen[node] = f.tell()
        found = FINDING.search(new)
        expect(found is None, "broker %d: %s" % (
            node, new[found.start():found.start() + 6000] if found else ""))
        errors = ERROR.findall(new)
        expect(not errors, "broker %d says: %s" % (node, errors[:5]))

    def no_errors_anywhere(self):
        for node in range(1, self.cluster.n + 1):
            self.no_errors(node)

    def ended(self, node, pid):
        self.cluster.wait_dead(node, pid, self.limit)
        by_hand = self.cluster.started_by_hand.get(node)
        if by_hand is not None and by_hand.pid == pid:
            expect(by_hand.returncode == 0, "broker %d ended with %d" % (
                node, by_hand.returncode))

    def one(self, number):
        node = 1 + number % self.cluster.n
        time.sleep(0.5 + number * 0.37 % 3)
        begun = time.monotonic()
        killed = number % 3 == 2
        pid = self.cluster.kill(node, signal.SIGKILL if killed else
                                signal.SIGTERM)
        try:
            if killed:
                self.cluster.wait_dead(node, pid, self.limit)
            else:
                self.ended(node, pid)
        finally:
            self.no_errors(node)
        took = time.monotonic() - begun
        expect(killed or took <= self.soon,
               "broker %d ended after %.2f s" % (node, took))
        time.sleep(5 if killed else 0)  # the others go on without it
        self.cluster.restart(node)
        self.cluster.wait_all(self.limit)
        return "killed" if killed else "ended after %.2f s" % took

    def all_at_once(self):
        nodes = range(1, self.cluster.n + 1)
        pids = {n: self.cluster.kill(n, signal.SIGTERM) for n in nodes}
        for node, pid in pids.items():
            try:
                self.ended(node, pid)
            finally:
                self.no_errors(node)
        for node in nodes:
            self.cluster.restart(node)
        self.cluster.wait_all(self.limit)

    def served(self):
        for thread in self.load:
            thread.ended.set()
        for thread in self.load:
            thread.join(60)
            if thread.is_alive():
                frames = sys._current_frames()[thread.ident]
                expect(False, "a client does not end: %s" % "".join(
                    traceback.format_stack(frames)))
        steady = self.load[-1]
        made = sum(t.made for t in self.load[:-1])
        deleted = sum(t.deleted for t in self.load[:-1])
        expect(steady.acked > 0 and steady.read > 0 and made > KEPT and
               deleted > 0, "%d written, %d read, %d made, %d deleted" % (
                   steady.acked, steady.read, made, deleted))
        return "%d written, %d read; topics: %d made, %d deleted" % (
            steady.acked, steady.read, made, deleted)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--limit", type=int, default=60,
                        help="seconds that an end or a start may take")
    parser.add_argument("--soon", type=float, default=3,
                        help="seconds that the end of one broker may take")
    parser.add_argument("--port", type=int, default=29792)
    parser.add_argument("--data", help="a folder that is kept")
    parser.add_argument("--tool", help="a flotilla that asks the brokers, as "
                        "ThreadSanitizer does not bear librdkafka's threads")
    args = parser.parse_args()
    need_confluent(args.build)
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")
    os.environ.setdefault("TSAN_OPTIONS", "suppressions=" +
                          os.path.join(ROOT, "make", "tsan.supp"))
    report = Report()
    report.suite("SIGTERM under load")
    cluster = Cluster(args.build, port=args.port, data=args.data,
                      defines=["shards=%d" % args.shards])
    cluster.tool = args.tool or cluster.binary
    stops = Stops(cluster, args.limit, args.soon)
    try:
        cluster.start(args.limit)
        cluster.wait_all(args.limit)
        stops.begin()
        for number in range(args.rounds):
            report.check("round %d" % number, stops.one, number)
        report.check("all at once", stops.all_at_once)
        report.check("served meanwhile", stops.served)
        report.check("all at once again", stops.all_at_once)
        if report.suites[-1].failed:
            print(cluster.logs(6000))
        cluster.stop()
        report.check("the end", stops.no_errors_anywhere)
    finally:
        cluster.stop()
        cluster.remove()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
