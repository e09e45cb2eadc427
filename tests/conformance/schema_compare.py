#!/usr/bin/env python3
"""Compares net/schema with the definitions inside Kafka's released artifacts.

usage: schema_compare.py JAR_DIR

JAR_DIR holds kafka-clients and the group, share and transaction coordinators'
jars (`make schema-check` fetches them). For every message and version that we
have: the same fields in the same order, with the same types, nullability, tags
and defaults; and the same versions. Ends with "N passed, N failed".
"""
import glob
import json
import os
import re
import sys
import zipfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "net", "schema"))
import generate  # noqa: E402

TYPES = {"int8": "i8", "int16": "i16", "uint16": "u16", "int32": "i32",
         "int64": "i64", "float64": "f64", "bool": "bool", "string": "string",
         "bytes": "bytes", "records": "records", "uuid": "uuid"}
# Messages of Kafka's own that no client of a broker sends or sees.
NOT_OURS = re.compile(
    r"(leader_and_isr|stop_replica|update_metadata|controlled_shutdown|vote|"
    r"begin_quorum_epoch|end_quorum_epoch|alter_partition|envelope|"
    r"fetch_snapshot|broker_registration|broker_heartbeat|"
    r"allocate_producer_ids|controller_registration|"
    r"assign_replicas_to_dirs|update_raft_voter)_(request|response)")


def snake(name):
    name = name.replace("KRaft", "Kraft")
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def load_json(text):
    """JSON with comments to the end of the line."""
    out = []
    for line in text.split("\n"):
        quoted = False
        for i, c in enumerate(line):
            if c == '"' and line[i - 1:i] != "\\":
                quoted = not quoted
            elif c == "/" and not quoted and line[i:i + 2] == "//":
                line = line[:i]
                break
        out.append(line)
    return json.loads("\n".join(out))


def contains(r, version):
    return r is not None and r[0] <= version <= r[1]


# ---- Kafka's side: a message in one version as a list of lines ---------------
def kafka_default(field, kind, array):
    d = field.get("default")  # JSON's null says as little as no default
    if d is None:
        return ""
    d = str(d).lower() if isinstance(d, bool) else str(d)
    if d == "null":
        return d
    if array or kind in ("string", "bytes", "uuid"):
        return d
    if kind == "bool":
        return "" if d == "false" else d
    if kind == "f64":
        return "" if float(d) == 0 else d
    n = int(d, 0)
    return "" if n == 0 else str(n)


def kafka_lines(message, fields, structs, version, flexible, depth, out):
    plain, tagged = [], []
    for f in fields:
        text = f.get("versions") or f["taggedVersions"]
        if not contains(generate.parse_range(text), version):
            continue
        tags = f.get("taggedVersions")
        is_tagged = flexible and tags and contains(
            generate.parse_range(tags), version)
        (tagged if is_tagged else plain).append(f)
    for f in plain + sorted(tagged, key=lambda f: f["tag"]):
        kind = f["type"]
        array = kind.startswith("[]")
        kind = kind[2:] if array else kind
        struct = kind not in TYPES
        null = f.get("nullableVersions", "none")
        line = "  " * depth + snake(f["name"]) + " "
        line += ("[%s]" if array else "%s") % \
            ("struct" if struct else TYPES[kind])
        line += "?" if contains(generate.parse_range(null), version) else ""
        line += f" tag {f['tag']}" if f in tagged else ""
        if f.get("flexibleVersions") == "none":
            line += " plain"
        default = "" if struct and not array and "default" not in f else \
            kafka_default(f, TYPES.get(kind, "struct"), array)
        line += f" = {default}" if default else ""
        out.append(line)
        if struct:
            inner = f.get("fields") or structs[kind]
            kafka_lines(message, inner, structs, version, flexible, depth + 1,
                        out)
    return out


# ---- our side ------------------------------------------------------------------
def our_lines(message, struct, version, depth, out):
    for f in struct.ordered():
        if not contains(f.present, version):
            continue
        is_struct = f.base in message.structs
        line = "  " * depth + f.name + " "
        line += ("[%s]" if f.array else "%s") % \
            ("struct" if is_struct else f.base)
        line += "?" if contains(f.nullable, version) else ""
        line += f" tag {f.tag}" if f.tag is not None else ""
        line += " plain" if f.plain else ""
        line += f" = {f.default}" if f.default else ""
        out.append(line)
        if is_struct:
            our_lines(message, message.structs[f.base], version, depth + 1,
                      out)
    return out


def load_jars(directory):
    """Definitions by our name of the message."""
    out = {}
    for jar in sorted(glob.glob(os.path.join(directory, "*.jar"))):
        with zipfile.ZipFile(jar) as z:
            for name in sorted(z.namelist()):
                if not re.fullmatch(r"common/message/\w+\.json", name):
                    continue
                m = load_json(z.read(name).decode())
                out.setdefault(snake(m["name"]), m)
    return out


def compare(message, theirs):
    """Yields (what, problem or None) for versions and each of them."""
    versions = generate.parse_range(theirs["validVersions"])
    flexible = generate.parse_range(theirs["flexibleVersions"])
    first_flexible = flexible[0] if flexible else generate.LATER
    yield "versions", None if versions == message.versions else \
        f"{theirs['validVersions']} there, {message.versions} here"
    structs = {s["name"]: s["fields"] for s in theirs.get("commonStructs", [])}

    def collect(fields):
        for f in fields:
            if "fields" in f:
                structs.setdefault(f["type"].removeprefix("[]"), f["fields"])
                collect(f["fields"])
    collect(theirs["fields"])
    for v in range(message.versions[0], message.versions[1] + 1):
        here = our_lines(message, message.body, v, 0, [])
        there = kafka_lines(theirs, theirs["fields"], structs, v,
                            v >= first_flexible, 0, [])
        problem = None
        if (v >= first_flexible) != (v >= message.flexible):
            problem = "flexible or not"
        for a, b in zip(here + ["(end)"], there + ["(end)"]):
            if a != b:
                problem = f"here {a.strip()!r}, there {b.strip()!r}"
                break
        yield f"v{v}", problem


def main():
    theirs = load_jars(sys.argv[1])
    units = [generate.parse_file(p) for p in
             sorted(glob.glob(os.path.join(ROOT, "net/schema/*.schema")))]
    passed = failed = 0
    ours = set()
    for u in units:
        for m in u.messages:
            ours.add(m.name)
            if m.name not in theirs:
                print(f"FAIL {m.name}: not in the artifacts")
                failed += 1
                continue
            for what, problem in compare(m, theirs[m.name]):
                passed += problem is None
                failed += problem is not None
                if problem:
                    print(f"FAIL {m.name} {what}: {problem}")
        if u.api and theirs.get(f"{u.api[1]}_request", {}).get("apiKey") \
                != u.api[0]:
            print(f"FAIL {u.api[1]}: api key")
            failed += 1
    for name, m in sorted(theirs.items()):
        if m["type"] in ("request", "response") and name not in ours \
                and not NOT_OURS.fullmatch(name):
            print(f"FAIL {name}: not in net/schema")
            failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
