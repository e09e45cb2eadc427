"""Bytes no client should send: each gets Kafka's error or a closed connection,
and the broker serves on."""
import socket
import struct
import time

from harness import expect, run


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def batch(value, crc=None, attributes=0, count=1, producer=(-1, -1, -1)):
    """A record batch of one record (magic 2)."""
    body = b"\0\0\0\1" + varint(len(value)) + value + b"\0"
    record = varint(len(body)) + body
    now = int(time.time() * 1000)
    after_crc = struct.pack(">hiqqqhii", attributes, count - 1, now, now,
                            *producer, count) + record
    crc = crc32c(after_crc) if crc is None else crc
    rest = struct.pack(">ibI", 0, 2, crc) + after_crc
    return struct.pack(">qi", 0, len(rest)) + rest


def varint(n):
    n = n << 1 ^ n >> 63
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def text(s):
    return struct.pack(">h", len(s)) + s.encode()


class Wire:
    def __init__(self, report, cluster, flotilla, replicas):
        self.report = report
        self.flotilla = flotilla
        self.cluster = cluster
        self.replicas = replicas
        host, port = cluster.bootstrap.split(",")[0].split(":")
        self.address = host, int(port)
        self.topic = "wire-%x" % int(time.time())

    def all(self):
        self.report.suite("bad bytes")
        check = self.report.check
        check("a frame larger than allowed", self.closed,
              struct.pack(">i", 2**31 - 1) + b"x" * 100)
        check("a negative length", self.closed, struct.pack(">i", -5))
        check("an empty frame", self.closed, struct.pack(">i", 0))
        check("an unknown API", self.closed, self.frame(999, 0, b""))
        check("an unknown version", self.closed, self.frame(3, 99, b""))
        check("a body cut short", self.closed,
              self.frame(3, 4, struct.pack(">i", 7)))
        check("a count larger than the frame", self.closed,
              self.frame(3, 4, struct.pack(">i", 2**30) + b"\0" * 8))
        check("a connection lost within a frame", self.lost)
        check("ApiVersions of the future", self.api_versions)
        check("a produced batch with a wrong CRC", self.produce_bad,
              batch(b"x", crc=1), (2,))
        check("a batch cut short", self.produce_bad, batch(b"xyz")[:-2],
              (2, 87))
        check("a batch of an old format", self.produce_bad,
              batch(b"x")[:16] + b"\1" + batch(b"x")[17:], (2, 43, 87))
        check("a transactional batch", self.produce_bad,
              batch(b"x", attributes=0x10, producer=(5, 0, 0)), None)
        check("a control batch", self.produce_bad,
              batch(b"x", attributes=0x20), None)
        check("nothing of these was stored", self.nothing_stored)
        check("a proper batch after them", self.proper)

    def connect(self):
        s = socket.create_connection(self.address, 60)
        s.settimeout(60)
        return s

    def frame(self, api, version, body):
        head = struct.pack(">hhi", api, version, 7) + text("wire")
        return struct.pack(">i", len(head + body)) + head + body

    def answer(self, frame):
        with self.connect() as s:
            s.sendall(frame)
            return read_frame(s)

    def closed(self, frame):
        with self.connect() as s:
            s.sendall(frame)
            try:
                got = s.recv(100)
            except ConnectionResetError:
                got = b""
            expect(got == b"", "an answer: %r" % got)
        self.alive()

    def alive(self):
        got = self.answer(self.frame(18, 0, b""))
        expect(got[:6] == struct.pack(">ih", 7, 0), repr(got[:20]))

    def lost(self):
        with self.connect() as s:
            s.sendall(self.frame(3, 4, b"\0" * 50)[:30])
        self.alive()

    def api_versions(self):
        got = self.answer(self.frame(18, 99, b""))
        expect(got[:6] == struct.pack(">ih", 7, 35), repr(got[:20]))
        expect(struct.unpack(">ih", got[6:12]) == (1, 18), repr(got))

    def leader(self):
        """The address of the leader of partition 0, by Metadata v1."""
        got = self.answer(self.frame(3, 1, struct.pack(">i", 1) +
                                     text(self.topic)))
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
        at += 4 + 4 + 2 + 2 + len(self.topic) + 1 + 4
        _, _, leader = struct.unpack_from(">hii", got, at)
        return hosts[leader]

    def produce(self, records):
        body = struct.pack(">hhii", -1, -1, 10000, 1) + text(self.topic) + \
            struct.pack(">iii", 1, 0, len(records)) + records
        got = self.answer(self.frame(0, 3, body))
        at = 4 + 4 + 2 + len(self.topic) + 4
        _, error, offset = struct.unpack_from(">ihq", got, at)
        return error, offset

    def produce_bad(self, records, errors):
        if self.address is not None and not hasattr(self, "made"):
            run([self.flotilla, "topic", "create", self.topic, "-p", "1", "-r",
                 str(self.replicas), "-b", self.cluster.bootstrap])
            self.made = True
            self.address = self.leader()
        error, _ = self.produce(records)
        expect(error != 0, "it was taken")
        expect(errors is None or error in errors, "error %d" % error)
        return "error %d" % error

    def nothing_stored(self):
        out = run([self.flotilla, "consume", self.topic, "-e", "-b",
                   self.cluster.bootstrap])
        expect(out == b"", repr(out))

    def proper(self):
        error, offset = self.produce(batch(b"hello"))
        expect((error, offset) == (0, 0), repr((error, offset)))


def read_frame(s):
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">i", data[:4])[0]:
        more = s.recv(65536)
        expect(more, "closed after %r" % data)
        data += more
    return data[4:]
