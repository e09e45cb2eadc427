"""Requests and responses as dictionaries, to and from bytes, by net/schema:
for requests that no client library would send."""
import glob
import os
import socket
import struct
import sys
import uuid

from harness import ROOT

sys.path.insert(0, os.path.join(ROOT, "net", "schema"))
import generate  # noqa: E402


class Api:
    """One API: its messages, key and the versions that are served."""

    def __init__(self, unit):
        self.key, self.name = unit.api
        self.offer = unit.offer
        by_name = {m.name: m for m in unit.messages}
        self.request = by_name[self.name + "_request"]
        self.response = by_name[self.name + "_response"]


def load():
    """Every API of net/schema by name."""
    apis = {}
    for path in sorted(glob.glob(os.path.join(ROOT, "net/schema/*.schema"))):
        unit = generate.parse_file(path)
        if unit.api:
            api = Api(unit)
            apis[api.name] = api
    return apis


NUMBERS = {"i8": "b", "i16": "h", "u16": "H", "i32": "i", "i64": "q",
           "f64": "d"}


def inside(r, version):
    return r is not None and r[0] <= version <= r[1]


def default_of(message, f, version):
    if f.default == "null":
        return None
    if f.array:
        return []
    if f.base in message.structs:
        return None if generate.is_pointer(message, f) else {}
    if f.base == "bool":
        return f.default == "true"
    if f.base in NUMBERS:
        return float(f.default or 0) if f.base == "f64" else \
            int(f.default or "0", 0)
    if f.base == "uuid":
        return uuid.UUID(int=0)
    if f.base == "string":
        return (f.default or "").strip('"')
    return b""


def uvarint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


class Encoder:
    def __init__(self, message, version):
        self.message = message
        self.version = version
        self.flexible = version >= message.flexible

    def encode(self, values):
        return self.fields(self.message.body, values)

    def fields(self, of, values):
        unknown = set(values) - {f.name for f in of.fields}
        if unknown:
            raise KeyError("%s has no %s" % (self.message.name, unknown))
        out, tags = b"", []
        for f in of.ordered():
            if not inside(f.present, self.version):
                continue
            value = values.get(f.name, default_of(self.message, f,
                                                  self.version))
            if f.tag is None:
                out += self.value(f, value)
            elif f.name in values:
                tags.append((f.tag, self.value(f, value)))
        if self.flexible:
            out += uvarint(len(tags))
            for tag, data in tags:
                out += uvarint(tag) + uvarint(len(data)) + data
        return out

    def count(self, n, compact, wide):
        if compact:
            return uvarint(n + 1)
        return struct.pack(">i" if wide else ">h", n)

    def value(self, f, value):
        compact = self.flexible and not f.plain
        if f.array:
            if value is None:
                return self.count(-1, compact, True)
            return self.count(len(value), compact, True) + b"".join(
                self.one(f, v, compact) for v in value)
        return self.one(f, value, compact)

    def one(self, f, value, compact):
        if f.base in self.message.structs:
            if generate.is_pointer(self.message, f) and not f.array:
                if value is None:
                    return b"\xff"
                return b"\1" + self.fields(self.message.structs[f.base],
                                           value)
            return self.fields(self.message.structs[f.base], value)
        if f.base == "bool":
            return bytes([value])
        if f.base in NUMBERS:
            return struct.pack(">" + NUMBERS[f.base], value)
        if f.base == "uuid":
            return value.bytes
        wide = f.base != "string"
        if value is None:
            return self.count(-1, compact, wide)
        data = value.encode() if isinstance(value, str) else value
        return self.count(len(data), compact, wide) + data


class Decoder:
    def __init__(self, message, version, data):
        self.message = message
        self.version = version
        self.flexible = version >= message.flexible
        self.data = data
        self.at = 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise ValueError("%s v%d: %d bytes missing at %d" % (
                self.message.name, self.version, n, self.at))
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, code):
        return struct.unpack(">" + code, self.take(struct.calcsize(code)))[0]

    def uvarint(self):
        n = shift = 0
        while True:
            byte = self.take(1)[0]
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n

    def decode(self):
        out = self.fields(self.message.body)
        if self.at != len(self.data):
            raise ValueError("%s v%d: %d bytes too many" % (
                self.message.name, self.version, len(self.data) - self.at))
        return out

    def fields(self, of):
        out = {}
        tagged = {}
        for f in of.ordered():
            if not inside(f.present, self.version):
                continue
            if f.tag is None:
                out[f.name] = self.value(f)
            else:
                tagged[f.tag] = f
                out[f.name] = default_of(self.message, f, self.version)
        if self.flexible:
            for _ in range(self.uvarint()):
                tag, size = self.uvarint(), self.uvarint()
                if tag in tagged:
                    out[tagged[tag].name] = self.value(tagged[tag])
                else:
                    self.take(size)
        return out

    def count(self, compact, wide):
        if compact:
            return self.uvarint() - 1
        return self.number("i" if wide else "h")

    def value(self, f):
        compact = self.flexible and not f.plain
        if f.array:
            n = self.count(compact, True)
            return None if n < 0 else [self.one(f, compact)
                                       for _ in range(n)]
        return self.one(f, compact)

    def one(self, f, compact):
        if f.base in self.message.structs:
            if generate.is_pointer(self.message, f) and not f.array and \
                    self.number("b") < 0:
                return None
            return self.fields(self.message.structs[f.base])
        if f.base == "bool":
            return self.take(1) != b"\0"
        if f.base in NUMBERS:
            return self.number(NUMBERS[f.base])
        if f.base == "uuid":
            return uuid.UUID(bytes=self.take(16))
        n = self.count(compact, f.base != "string")
        if n < 0:
            return None
        data = self.take(n)
        return data.decode("utf-8", "replace") if f.base == "string" else data


class Closed(Exception):
    """The broker closed the connection instead of answering."""


class Connection:
    """One connection; requests one after the other."""

    def __init__(self, host, port, apis, client_id="conformance"):
        self.apis = apis
        self.client_id = client_id
        self.correlation = 0
        self.socket = socket.create_connection((host, port), 30)
        self.socket.settimeout(60)

    def close(self):
        self.socket.close()

    def header(self, key, version, flexible):
        self.correlation += 1
        name = self.client_id.encode()
        return struct.pack(">hhih", key, version, self.correlation,
                           len(name)) + name + (b"\0" if flexible else b"")

    def exchange(self, frame):
        """The bytes of the answer behind the correlation id."""
        try:
            self.socket.sendall(struct.pack(">i", len(frame)) + frame)
            size = struct.unpack(">i", self.read(4))[0]
            answer = self.read(size)
        except (ConnectionResetError, BrokenPipeError):
            raise Closed()
        if struct.unpack(">i", answer[:4])[0] != self.correlation:
            raise ValueError("another correlation id")
        return answer[4:]

    def read(self, n):
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise Closed()
            data += more
        return data

    def ask_raw(self, name, version, body):
        api = self.apis[name]
        flexible = version >= api.request.flexible
        answer = self.exchange(self.header(api.key, version, flexible) + body)
        if version >= api.response.flexible and api.key != 18:
            if answer[:1] != b"\0":
                raise ValueError("tags in a response's header")
            answer = answer[1:]
        return Decoder(api.response, version, answer).decode()

    def ask(self, name, version, values):
        body = Encoder(self.apis[name].request, version).encode(values)
        return self.ask_raw(name, version, body)
