"""A small client on the wire for measurements over thousands of partitions: it
tries nothing twice by itself, and one request carries many partitions."""
import os
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "conformance"))
import suite_wire  # noqa: E402

PRODUCE, METADATA = 0, 3
CHUNK = 100  # partitions in one Produce request


class Lost(Exception):
    """The connection is gone, or the answer did not come in time."""


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values if len(values) > 1 else values[0]

    def text(self):
        n = self.take(">h")
        if n < 0:
            return None
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def numbers(self):
        n = self.take(">i")
        return struct.unpack_from(">%di" % n, self.data, self._skip(4 * n))

    def _skip(self, n):
        self.at += n
        return self.at - n


class Connection:
    """One connection; answers come in the order of the requests."""

    def __init__(self, address, timeout=10):
        host, port = address.rsplit(":", 1)
        self.correlation, self.buffer = 0, b""
        try:
            self.socket = socket.create_connection((host, int(port)), timeout)
        except OSError as e:
            raise Lost(str(e))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        self.socket.close()

    def send(self, api, version, body):
        self.correlation += 1
        head = struct.pack(">hhi", api, version, self.correlation)
        head += suite_wire.text("scale")
        try:
            self.socket.sendall(struct.pack(">i", len(head) + len(body)) +
                                head + body)
        except OSError as e:
            raise Lost(str(e))
        return self.correlation

    def receive(self, timeout):
        """The next answer's body, or None when none is there in time."""
        end = time.monotonic() + timeout
        while True:
            if len(self.buffer) >= 4:
                size = 4 + struct.unpack_from(">i", self.buffer)[0]
                if len(self.buffer) >= size:
                    frame, self.buffer = (self.buffer[8:size],
                                          self.buffer[size:])
                    return frame
            left = end - time.monotonic()
            self.socket.settimeout(max(left, 0.0001))
            try:
                data = self.socket.recv(1 << 20)
            except (socket.timeout, BlockingIOError):
                return None
            except OSError as e:
                raise Lost(str(e))
            if not data:
                raise Lost("closed by the broker")
            self.buffer += data

    def call(self, api, version, body, timeout=30):
        self.send(api, version, body)
        answer = self.receive(timeout)
        if answer is None:
            raise Lost("no answer to API %d in %d s" % (api, timeout))
        return answer


def leaders(connection, topic, timeout=30):
    """What a broker tells of a topic: partition -> (leader, replicas, number
    of replicas in sync); leader is -1 where there is none."""
    r = Reader(connection.call(
        METADATA, 1, struct.pack(">i", 1) + suite_wire.text(topic), timeout))
    for _ in range(r.take(">i")):
        r.take(">i"), r.text(), r.take(">i"), r.text()
    r.take(">i")
    found = {}
    for _ in range(r.take(">i")):
        r.take(">h"), r.text(), r.take(">?")
        for _ in range(r.take(">i")):
            error, partition, leader = r.take(">hii")
            replicas = r.numbers()
            found[partition] = (leader if error == 0 else -1, replicas,
                                len(r.numbers()))
    return found


def produce_request(topic, partitions, batch, timeout_ms):
    """Produce 7, acks=all: the same batch to each of the partitions."""
    body = [struct.pack(">hhii", -1, -1, timeout_ms, 1),
            suite_wire.text(topic), struct.pack(">i", len(partitions))]
    for p in partitions:
        body += [struct.pack(">ii", p, len(batch)), batch]
    return b"".join(body)


def produce_codes(answer):
    """Partition -> error code."""
    r = Reader(answer)
    codes = {}
    for _ in range(r.take(">i")):
        r.text()
        for _ in range(r.take(">i")):
            partition, error = r.take(">ih")
            r.take(">qqq")
            codes[partition] = error
    return codes


class Writer:
    """Writes one record to each of many partitions of one broker."""

    def __init__(self, address, topic, value=b"x" * 100):
        self.address, self.topic = address, topic
        self.batch = suite_wire.batch(value)
        self.connection = None
        self.under_way = []  # (sent at, partitions), oldest first

    def send(self, partitions, timeout_ms=1000):
        """Sends; the connection is made when there is none."""
        if self.connection is None:
            self.connection = Connection(self.address, 1)
        for at in range(0, len(partitions), CHUNK):
            chunk = partitions[at:at + CHUNK]
            self.connection.send(PRODUCE, 7, produce_request(
                self.topic, chunk, self.batch, timeout_ms))
            self.under_way.append((time.monotonic(), chunk))

    def answers(self, timeout):
        """Of one request: (seconds, its partitions' codes); None: not yet."""
        if not self.under_way:
            return None
        answer = self.connection.receive(timeout)
        if answer is None:
            return None
        sent, _ = self.under_way.pop(0)
        return time.monotonic() - sent, produce_codes(answer)

    def drop(self):
        """Forgets the connection and all that was under way; gives that."""
        lost = [p for _, chunk in self.under_way for p in chunk]
        self.under_way = []
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        return lost
