#!/usr/bin/env python3
"""Resident memory of real brokers under loads that ask for much: a slow
consumer, a follower that is dead, idle connections, many partitions, requests
that are too large, halves of frames, answers that nobody takes. In each case
the resident memory must stay below the bound that the broker itself tells at
its start, and a fast client must be served meanwhile. Prints a table; ends with
"N passed, M failed"."""
import argparse
import os
import re
import resource
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "conformance"))
from harness import Cluster, Failed, Report, expect, run  # noqa: E402
from suite_wire import batch, read_frame, text  # noqa: E402

MIB = 1 << 20


def frame(api, version, body, correlation=7):
    head = struct.pack(">hhi", api, version, correlation) + text("memory")
    return struct.pack(">i", len(head + body)) + head + body


def rss(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) << 10


class Sampler(threading.Thread):
    """The most that each broker had."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.most, self.ended = pids, 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.1):
            for pid in self.pids:
                try:
                    self.most = max(self.most, rss(pid))
                except OSError:
                    pass

    def stop(self):
        self.ended.set()
        self.join()
        return self.most


class Fast(threading.Thread):
    """A client that produces 1 KiB with acks=all, and measures how long."""

    def __init__(self, address, topic):
        super().__init__(daemon=True)
        self.address, self.topic = address, topic
        self.ended = threading.Event()
        self.longest, self.n, self.error = 0.0, 0, None

    def run(self):
        records = batch(b"x" * 1000)
        body = struct.pack(">hhii", -1, -1, 30000, 1) + text(self.topic) + \
            struct.pack(">iii", 1, 0, len(records)) + records
        try:
            with socket.create_connection(self.address, 10) as s:
                s.settimeout(60)
                while not self.ended.is_set():
                    begun = time.monotonic()
                    s.sendall(frame(0, 3, body))
                    got = read_frame(s)
                    error = struct.unpack_from(">h", got, 4 + 4 + 2 +
                                               len(self.topic) + 8)[0]
                    expect(error == 0, "error %d" % error)
                    self.longest = max(self.longest, time.monotonic() - begun)
                    self.n += 1
                    time.sleep(0.005)
        except (OSError, Failed, struct.error) as e:
            self.error = repr(e)

    def stop(self):
        self.ended.set()
        self.join(70)
        expect(self.error is None, "the fast client: %s" % self.error)
        expect(self.n > 0, "the fast client was not served")
        return self.longest, self.n


class Memory:
    def __init__(self, args, report):
        self.args, self.report, self.rows = args, report, []
        self.filling = None
        self.binary = os.path.join(args.build, "flotilla")

    # ---- clusters ---------------------------------------------------------
    def start(self, n, defines=()):
        self.cluster = Cluster(self.args.build, n, self.args.port,
                               defines=["num.partitions=1"] + list(defines))
        self.cluster.start()
        self.address = ("127.0.0.1", self.cluster.port)
        self.pids = [self.cluster.pid(i + 1) for i in range(n)]
        with open(self.cluster.path(1, "broker.log")) as f:
            m = re.search(r"bytes_max=(\d+) bytes_for_each_connection=(\d+) "
                          r"bytes_for_each_partition=(\d+)", f.read())
        self.bound, self.each_connection, self.each_partition = \
            (int(g) for g in m.groups())

    def stop(self):
        self.cluster.stop()
        self.cluster.remove()

    def tool(self, *args, timeout=120):
        return run([self.binary] + list(args) +
                   ["-b", self.cluster.bootstrap], timeout=timeout)

    def topic(self, name, partitions=1, replicas=1):
        self.tool("topic", "create", name, "-p", str(partitions), "-r",
                  str(replicas), timeout=300)

    # ---- a case -----------------------------------------------------------
    def case(self, name, function, connections=0, partitions=0, fast=True,
             patience=5.0):
        if self.args.case not in name:
            return

        def measured():
            before = max(rss(p) for p in self.pids)
            bound = self.bound + connections * self.each_connection + \
                partitions * self.each_partition
            sampler = Sampler(self.pids)
            sampler.start()
            client = Fast(self.leader("fast"), "fast") if fast else None
            if client:
                client.start()
            begun = time.monotonic()
            try:
                function()
            finally:
                seconds = time.monotonic() - begun
                longest = n = 0
                try:
                    if client:
                        longest, n = client.stop()
                finally:
                    most = sampler.stop()
            self.rows.append((name, before / MIB, most / MIB, bound / MIB,
                              n, longest * 1e3, seconds))
            expect(most <= bound, "%d MiB resident, the bound is %d" % (
                most / MIB, bound / MIB))
            expect(longest <= patience,
                   "the fast client waited %.1f s" % longest)
            return "%.0f MiB of %.0f" % (most / MIB, bound / MIB)
        self.report.check(name, measured)

    def leader(self, topic):
        """Address of the leader of partition 0."""
        with socket.create_connection(self.address, 10) as s:
            s.settimeout(10)
            s.sendall(frame(3, 1, struct.pack(">i", 1) + text(topic)))
            got = read_frame(s)
        at, hosts = 4, {}
        (n,) = struct.unpack_from(">i", got, at)
        at += 4
        for _ in range(n):
            node, length = struct.unpack_from(">ih", got, at)
            at += 6
            host = got[at:at + length].decode()
            at += length
            port, rack = struct.unpack_from(">ih", got, at)
            at += 6 + max(rack, 0)
            hosts[node] = (host, port)
        at += 4 + 4 + 2 + 2 + len(topic) + 1 + 4
        return hosts[struct.unpack_from(">hii", got, at)[2]]

    # ---- what is done to a broker -----------------------------------------
    def fill(self, topic, mib):
        """Produces so much, in batches of 500 KB."""
        if self.filling is None:
            self.filling = batch(os.urandom(1000) * 500)
        records = self.filling
        body = struct.pack(">hhii", -1, -1, 30000, 1) + text(topic) + \
            struct.pack(">iii", 1, 0, len(records)) + records
        with socket.create_connection(self.leader(topic), 10) as s:
            s.settimeout(60)
            for _ in range(mib * MIB // len(records)):
                s.sendall(frame(0, 3, body))
                read_frame(s)

    def fetch(self, topic, offset, most=50 * MIB):
        return frame(1, 4, struct.pack(">iiiibi", -1, 500, 1, most, 0, 1) +
                     text(topic) + struct.pack(">iiqi", 1, 0, offset, most))

    def trickle(self, sockets, seconds):
        """Each reads a byte a second."""
        for _ in range(seconds):
            for s in sockets:
                try:
                    s.recv(1)
                except OSError:
                    pass
            time.sleep(1)

    def slow_consumers(self, n, topic, seconds, spread):
        """n consumers ask for 50 MB at different offsets, and read 1 byte/s;
        the log moves on under them."""
        address = self.leader(topic)
        sockets = []
        for i in range(n):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(address)
            s.setblocking(False)
            s.sendall(self.fetch(topic, i * spread // n if spread else 0))
            sockets.append(s)
            if i % 20 == 0 and not spread:
                self.fill(topic, 4)
        self.trickle(sockets, seconds)
        for s in sockets:
            s.close()

    def tail_consumers(self, n, topic, seconds):
        """The same at the log's end: each holds another part of it."""
        address = self.leader(topic)
        sockets = []
        for i in range(n):
            (end,) = self.end(topic)
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(address)
            s.setblocking(False)
            s.sendall(self.fetch(topic, end))
            sockets.append(s)
            self.fill(topic, 2)
        self.trickle(sockets, seconds)
        for s in sockets:
            s.close()

    def end(self, topic):
        with socket.create_connection(self.leader(topic), 10) as s:
            s.settimeout(10)
            s.sendall(frame(2, 1, struct.pack(">ii", -1, 1) + text(topic) +
                            struct.pack(">iiq", 1, 0, -1)))
            got = read_frame(s)
        return struct.unpack(">q", got[-8:])

    def idle(self, n):
        sockets = [socket.create_connection(self.address, 30)
                   for _ in range(n)]
        # each of them was served once
        for s in sockets[::50]:
            s.sendall(frame(18, 0, b""))
            s.settimeout(30)
            read_frame(s)
        time.sleep(3)
        for s in sockets:
            s.close()

    def large(self):
        """Requests of 100 MB: the largest that is taken, and one beyond."""
        too_large = struct.pack(">i", 100 * MIB + 1) + b"\0" * 1000
        with socket.create_connection(self.address, 10) as s:
            s.settimeout(10)
            s.sendall(too_large)
            expect(s.recv(10) == b"", "a request beyond the bound is read")
        senders = []

        def send():
            head = frame(0, 3, b"\xff" * 4)[4:]  # acks -1
            piece = b"\0" * MIB
            try:
                with socket.create_connection(self.address, 10) as s:
                    s.settimeout(60)
                    s.sendall(struct.pack(">i", 100 * MIB) + head)
                    for _ in range(99):
                        s.sendall(piece)
                    s.sendall(b"\0" * (MIB - len(head)))
                    s.recv(100)
            except OSError:
                pass

        for _ in range(8):
            t = threading.Thread(target=send, daemon=True)
            t.start()
            senders.append(t)
        for t in senders:
            t.join(120)

    def halves(self, n, seconds, first):
        """n connections announce 90 MB, send `first` bytes and then a byte a
        second."""
        sockets = []
        for _ in range(n):
            s = socket.create_connection(self.address, 30)
            s.setblocking(False)
            sockets.append(s)
            try:
                s.send(struct.pack(">i", 90 * MIB) + b"\0" * first)
            except OSError:
                pass
        for _ in range(seconds):
            for s in sockets:
                try:
                    s.send(b"\0")
                except OSError:
                    pass
            time.sleep(1)
        for s in sockets:
            s.close()

    def answers(self, n, seconds):
        """n connections ask for all topics 100 times and never read."""
        sockets = []
        for _ in range(n):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(self.address)
            s.setblocking(False)
            sockets.append(s)
            try:
                s.send(frame(3, 1, struct.pack(">i", -1)) * 100)
            except OSError:
                pass
        time.sleep(seconds)
        for s in sockets:
            s.close()

    def dead_follower(self, seconds):
        pid = self.cluster.kill(2)
        self.cluster.wait_dead(2, pid)
        self.load(seconds)

    def paused_follower(self, seconds):
        pid = self.pids[1]
        os.kill(pid, signal.SIGSTOP)
        try:
            self.load(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def load(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            run([self.binary, "bench", "produce", "load", "-n", "100000",
                 "-b", self.cluster.bootstrap, "--wait", "100"], timeout=120)

    # ---- all --------------------------------------------------------------
    def one_broker(self):
        self.start(1, ["shards=1", "log.retention.bytes=200000000",
                       "wal.bytes.max=536870912"])
        try:
            for name in ("fast", "slow", "tail"):
                self.topic(name)
            self.report.suite("one broker")
            self.case("5,000 idle connections", lambda: self.idle(5000),
                      connections=5000)
            self.case("8 requests of 100 MB at once", self.large)
            self.case("2,000 halves of 90 MB, 1 byte/s",
                      lambda: self.halves(2000, 15, 100), connections=2000)
            self.case("2,000 halves of 90 MB, 200 KB and 1 byte/s",
                      lambda: self.halves(2000, 15, 200000), connections=2000)
            self.fill("slow", 100)
            self.case("1 consumer, 1 byte/s", lambda: self.slow_consumers(
                1, "slow", 10, 200), connections=1)
            self.case("1,500 consumers of old data, 1 byte/s",
                      lambda: self.slow_consumers(1500, "slow", 20, 200),
                      connections=1500, patience=15.0)
            self.case("400 consumers at the tail, 1 byte/s",
                      lambda: self.tail_consumers(400, "tail", 15),
                      connections=400, patience=15.0)
            self.topic("wide", 5000)
            self.topic("wider", 5000)
            self.case("10,000 partitions", lambda: time.sleep(10),
                      partitions=10000)
            self.case("1,000 do not take 100 answers of 400 KB",
                      lambda: self.answers(1000, 15), connections=1000,
                      partitions=10000)
        finally:
            self.stop()

    def three_brokers(self):
        self.start(3, ["log.retention.bytes=200000000", "shards=1",
                       "wal.bytes.max=536870912"])
        try:
            self.topic("fast", 1, 3)
            self.topic("load", 6, 3)
            self.report.suite("three brokers")
            t = self.args.time
            self.case("a follower stopped, full load for %d s" % t,
                      lambda: self.paused_follower(t), patience=15.0)
            self.case("a dead follower, full load for %d s" % t,
                      lambda: self.dead_follower(t), fast=False)
        finally:
            self.stop()

    def print_table(self):
        print("\n%-46s %7s %7s %7s %7s %9s" % (
            "CASE", "BEFORE", "MOST", "BOUND", "SERVED", "LONGEST"))
        for name, before, most, bound, n, longest, _ in self.rows:
            print("%-46s %4.0fMiB %4.0fMiB %4.0fMiB %7d %6.0f ms" % (
                name, before, most, bound, n, longest))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--port", type=int, default=39092)
    parser.add_argument("--time", type=int, default=60,
                        help="seconds of the loads")
    parser.add_argument("--only", choices=("one", "three"))
    parser.add_argument("--case", default="", help="names that contain this")
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report = Report()
    memory = Memory(args, report)
    try:
        if args.only != "three":
            memory.one_broker()
        if args.only != "one":
            memory.three_brokers()
    except Failed as e:
        report.result("cluster", "runs", False, str(e))
    memory.print_table()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
