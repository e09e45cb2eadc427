"""kcat, on Debian's librdkafka 2.0.2: round trips of real text."""
import json
import os
import subprocess
import time

from harness import expect, run, text_lines, tail, Failed


class Kcat:
    def __init__(self, report, cluster, flotilla, build, sizes, replicas):
        self.report = report
        self.b = cluster.bootstrap
        self.flotilla = flotilla
        self.replicas = replicas
        self.brokers = cluster.n
        self.sizes = sizes
        self.build = build
        self.tag = "%x" % int(time.time())

    def all(self):
        self.report.suite("kcat (librdkafka 2.0.2)")
        check = self.report.check
        check("-L names every broker", self.list_brokers)
        check("acks=all, idempotent: %d lines, -C" % self.sizes[0],
              self.round_trip, "plain", self.sizes[0], "none")
        check("the same lines by -G", self.by_group, "plain", self.sizes[0])
        for codec in ("gzip", "snappy", "lz4", "zstd"):
            check("%s: %d lines" % (codec, self.sizes[1]), self.round_trip,
                  codec, self.sizes[1], codec)
        check("acks=1", self.round_trip, "acks1", 1000, "none", "1")
        check("acks=0", self.acks_none)
        check("keys, null values, headers, timestamps", self.record_parts)
        check("an offset by time", self.offset_by_time)
        check("an auto-created topic", self.auto_create)

    def topic(self, name):
        return "kcat-%s-%s" % (name, self.tag)

    def create(self, name, partitions=12):
        topic = self.topic(name)
        run([self.flotilla, "topic", "create", topic, "-b", self.b, "-p",
             str(partitions), "-r", str(self.replicas)])
        return topic

    def file(self, count):
        path = os.path.join(self.build, "text-%d.txt" % count)
        text_lines(path, count)
        return path

    def list_brokers(self):
        seen = json.loads(run(["kcat", "-b", self.b, "-L", "-J"]))
        expect(len(seen["brokers"]) == self.brokers, "%r" % seen["brokers"])

    def round_trip(self, name, count, codec, acks="all"):
        topic = self.create(name)
        path = self.file(count)
        begun = time.monotonic()
        args = ["kcat", "-b", self.b, "-P", "-t", topic, "-z", codec, "-X",
                "acks=" + acks, "-l", path]
        if acks == "all":
            args += ["-X", "enable.idempotence=true"]
        run(args, timeout=300)
        produced = time.monotonic() - begun
        out = run(["kcat", "-b", self.b, "-C", "-t", topic, "-o", "beginning",
                   "-e", "-q", "-f", "%p %o %s\n"], timeout=300)
        read = time.monotonic() - begun - produced
        verify(out, path, count)
        size = os.path.getsize(path)
        return "%.1f MB, written at %.1f MB/s, read at %.1f MB/s" % (
            size / 1e6, size / 1e6 / produced, size / 1e6 / read)

    def by_group(self, name, count):
        topic, group = self.topic(name), "group-" + self.tag
        out = run(["kcat", "-b", self.b, "-G", group, "-X",
                   "auto.offset.reset=earliest", "-c", str(count), "-q", "-f",
                   "%p %o %s\n", topic], timeout=300)
        verify(out, self.file(count), count)
        told = json.loads(run([self.flotilla, "group", "describe", group, "-b",
                               self.b, "-o", "json"]))
        expect(told["offsets"] and told["lag"] == 0,
               "lag of %d after reading all" % told["lag"])

    def acks_none(self):
        topic = self.create("acks0", 1)
        run(["kcat", "-b", self.b, "-P", "-t", topic, "-X", "acks=0", "-l",
             self.file(1000)])
        end = time.monotonic() + 60
        out = b""
        while out.count(b"\n") < 1000 and time.monotonic() < end:
            out = run(["kcat", "-b", self.b, "-C", "-t", topic, "-e", "-q",
                       "-o", "beginning", "-f", "%p %o %s\n"])
        verify(out, self.file(1000), 1000)

    def record_parts(self):
        topic = self.create("parts", 1)
        before = int(time.time() * 1000)
        run(["kcat", "-b", self.b, "-P", "-t", topic, "-K", ":", "-Z", "-H",
             "color=red", "-H", "empty="], stdin=b"k1:v1\nk2:\n:v3\n")
        out = run(["kcat", "-b", self.b, "-C", "-t", topic, "-e", "-q", "-J",
                   "-o", "beginning"])
        rows = [json.loads(line) for line in out.splitlines()]
        expect([(r["key"], r["payload"]) for r in rows] == [
            ("k1", "v1"), ("k2", None), (None, "v3")], repr(rows))
        for i, r in enumerate(rows):
            expect(r["headers"] == ["color", "red", "empty", ""], repr(r))
            expect(r["tstype"] == "create" and
                   before - 1000 <= r["ts"] <= before + 60000, repr(r))
            expect(r["offset"] == i, repr(r))

    def offset_by_time(self):
        topic = self.create("time", 1)
        for value in (b"one", b"two"):
            run(["kcat", "-b", self.b, "-P", "-t", topic], stdin=value)
            time.sleep(0.05)
        rows = [json.loads(line) for line in run(
            ["kcat", "-b", self.b, "-C", "-t", topic, "-e", "-q", "-J", "-o",
             "beginning"]).splitlines()]
        at = rows[1]["ts"]
        out = run(["kcat", "-b", self.b, "-Q", "-t", "%s:0:%d" % (topic, at)])
        expect(b"offset 1" in out, tail(out))
        out = run(["kcat", "-b", self.b, "-C", "-t", topic, "-e", "-q", "-o",
                   "s@%d" % at, "-f", "%s\n"])
        expect(out == b"two\n", tail(out))

    def auto_create(self):
        topic = self.topic("auto")
        run(["kcat", "-b", self.b, "-P", "-t", topic], stdin=b"hello\n")
        out = run(["kcat", "-b", self.b, "-C", "-t", topic, "-e", "-q", "-o",
                   "beginning", "-f", "%s\n"])
        expect(out == b"hello\n", tail(out))


def verify(out, path, count):
    """Lines `partition offset line`: each of the file once, offsets without a
    gap, the file's order kept in every partition."""
    with open(path, "rb") as f:
        wanted = f.read().split(b"\n")[:count]
    next_offset, last_number = {}, {}
    seen = 0
    for row in out.split(b"\n"):
        if not row:
            continue
        partition, offset, line = row.split(b" ", 2)
        offset, number = int(offset), int(line[:7])
        expect(offset == next_offset.get(partition, 0),
               "partition %s: offset %d where %d comes" % (
                   partition.decode(), offset, next_offset.get(partition, 0)))
        next_offset[partition] = offset + 1
        expect(number > last_number.get(partition, -1),
               "partition %s, offset %d: line %d after line %d" % (
                   partition.decode(), offset, number,
                   last_number.get(partition, -1)))
        last_number[partition] = number
        expect(line == wanted[number], "line %d differs: %r" % (number, line))
        seen += 1
    # unique numbers follow: each partition is increasing, and equal lines in
    # two partitions would make the count wrong only if one were missing
    numbers = set()
    for row in out.split(b"\n"):
        if row:
            numbers.add(row.split(b" ", 2)[2][:7])
    expect(seen == count and len(numbers) == count,
           "%d lines, %d of them different, where %d were written" % (
               seen, len(numbers), count))
