#!/usr/bin/env python3
"""Bad requests of every API, sent as raw bytes: the same error codes as Apache
Kafka 4.3.1 gives, or a difference that bad_requests_differences.json explains.

  bad_requests.py [--build DIR]             against a broker of ours
  bad_requests.py --peer kafka [--write]    against Kafka: checks that it still
                                            answers what is kept, or keeps it
  bad_requests.py --show API                prints what we answer
The last line is "N passed, M failed"; the status is 0 when all passed."""
import argparse
import json
import os
import socket
import sys
import time
import uuid

import messages
from bad_requests_table import BASE, TABLE
from harness import Cluster, Failed, Report, expect
from kafka_peer import KafkaPeer
from suite_wire import batch

HERE = os.path.dirname(os.path.abspath(__file__))
EXPECTED = os.path.join(HERE, "bad_requests_expected.json")
DIFFERENCES = os.path.join(HERE, "bad_requests_differences.json")

# Fields that say what an error code is about.
LABELS = ("name", "topic", "topic_name", "group_id", "resource_name",
          "resource_type", "partition_index", "partition", "partition_id",
          "index", "key")


# ---- what an answer says ----------------------------------------------------
def has_code(value):
    if isinstance(value, dict):
        return "error_code" in value or any(map(has_code, value.values()))
    return isinstance(value, list) and any(map(has_code, value))


def told(value):
    """An answer's error codes with what they are about, as text; the same
    twice is told once, as Kafka keeps many answers in maps."""
    label = "/".join(str(value[k]) for k in LABELS
                     if value.get(k) not in (None, ""))[:40]
    text = label + "=" if label else ""
    text += str(value.get("error_code", ""))
    inner = []
    for part in value.values():
        if isinstance(part, list) and has_code(part):
            inner += [told(v) for v in part]
        elif isinstance(part, dict) and has_code(part):
            inner.append(told(part))
    return text + ("(%s)" % " ".join(sorted(set(inner))) if inner else "")


# ---- cases ------------------------------------------------------------------
def versions_of(text, first, last):
    if text is None:
        return range(first, last + 1)
    low, _, high = text.replace("+", "-%d" % last).partition("-")
    return range(max(first, int(low)), min(last, int(high or low)) + 1)


def filled(value, version):
    """The values of a case with {v} filled in."""
    if isinstance(value, dict):
        return {k: filled(v, version) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v, version) for v in value]
    if isinstance(value, str):
        return value.replace("{v}", str(version))
    return value


def null_fields(api, version):
    """Fields at the top whose null is not allowed."""
    for f in api.request.body.fields:
        whole = f.array or f.base in ("string", "bytes", "records")
        if whole and f.tag is None and \
                messages.inside(f.present, version) and \
                not messages.inside(f.nullable, version):
            yield f.name


class Table:
    """All cases against one broker; gives {api: {case: {version: text}}}."""

    def __init__(self, address, apis):
        self.address = address
        self.apis = apis
        self.answers = {}

    def connect(self):
        return messages.Connection(*self.address, self.apis)

    def ask(self, name, version, values):
        c = self.connect()
        try:
            return c.ask(name, version, values)
        finally:
            c.close()

    def judged(self, name, version, body):
        c = self.connect()
        try:
            return told(c.ask_raw(name, version, body))
        except messages.Closed:
            return "closed"
        except socket.timeout:
            return "no answer"
        except ValueError as e:
            return "malformed: %s" % e
        finally:
            c.close()

    def keep(self, api, case, version, text):
        self.answers.setdefault(api, {}).setdefault(case, {})[version] = text

    def run(self, only, offered):
        for name, cases in TABLE.items():
            api = self.apis[name]
            if only and name not in only or api.key not in offered:
                continue
            first, last = api.offer
            first = max(first, 3) if name == "produce" else first
            last = min(last, offered[api.key][1])
            for case in cases:
                self.one(api, case, first, last)
            self.mangled(api, first, last)

    def one(self, api, case, first, last):
        which = case[2] if len(case) > 2 else None
        for version in versions_of(which, first, last):
            body = messages.Encoder(api.request, version).encode(
                filled(case[1], version))
            self.keep(api.name, case[0], version,
                      self.judged(api.name, version, body))

    def mangled(self, api, first, last):
        """What is wrong with any request."""
        for version in range(first, last + 1):
            base = BASE.get(api.name, {})
            good = messages.Encoder(api.request, version).encode(base)
            self.keep(api.name, "all defaults", version,
                      self.judged(api.name, version, good))
            self.keep(api.name, "bytes behind it", version,
                      self.judged(api.name, version, good + b"\0\1\2"))
            if good:
                self.keep(api.name, "a byte missing", version,
                          self.judged(api.name, version, good[:-1]))
            for field in null_fields(api, version):
                body = messages.Encoder(api.request, version).encode(
                    dict(base, **{field: None}))
                self.keep(api.name, "null " + field, version,
                          self.judged(api.name, version, body))
        if api.name != "api_versions":
            body = messages.Encoder(api.request, last).encode(
                BASE.get(api.name, {}))
            self.keep(api.name, "a version of the future", 99,
                      self.judged(api.name, 99, body))


# ---- what is there before ---------------------------------------------------
def prepare(table):
    wait(lambda: table.ask("find_coordinator", 3, {
        "key": "bad-group", "key_type": 0})["error_code"] == 0)
    done = table.ask("create_topics", 5, {"timeout_ms": 20000, "topics": [
        {"name": "bad-a", "num_partitions": 3, "replication_factor": 1},
        {"name": "bad-compact", "num_partitions": 1, "replication_factor": 1,
         "configs": [{"name": "cleanup.policy", "value": "compact"}]}]})
    expect(all(t["error_code"] == 0 for t in done["topics"]), repr(done))
    for _ in range(5):
        wait(lambda: produce(table, 0) == 0)
    wait(lambda: told(table.ask("list_offsets", 5, {"topics": [
        {"name": n, "partitions": [{"partition_index": i, "timestamp": -1}
                                   for i in range(k)]}
        for n, k in (("bad-a", 3), ("bad-compact", 1))], "replica_id": -1}))
        .count("=0") == 4)
    wait(lambda: table.ask("init_producer_id", 2, {
        "transactional_id": None})["error_code"] == 0)
    wait(lambda: table.ask("offset_commit", 5, {
        "group_id": "bad-group", "generation_id_or_member_epoch": -1,
        "topics": [{"name": "bad-a", "partitions": [
            {"partition_index": i, "committed_offset": 1}
            for i in range(2)]}]})["topics"][0]["partitions"][0]
        ["error_code"] == 0)
    live_member(table)


def produce(table, index):
    return first_code(table.ask("produce", 7, {
        "acks": -1, "timeout_ms": 5000, "topic_data": [
            {"name": "bad-a", "partition_data": [
                {"index": index, "records": batch(b"x")}]}]}))


def first_code(value):
    """The first error code of an answer, at any depth."""
    if isinstance(value, dict):
        if "error_code" in value:
            return value["error_code"]
        value = value.values()
    for part in value if not isinstance(value, (str, bytes)) else ():
        if isinstance(part, (dict, list)):
            code = first_code(part)
            if code is not None:
                return code
    return None


def live_member(table):
    """Group bad-live gets one member, which never heartbeats."""
    topics = b"\0\0\0\1" + b"\0\5bad-a"
    join = {"group_id": "bad-live", "session_timeout_ms": 1800000,
            "rebalance_timeout_ms": 60000, "member_id": "",
            "protocol_type": "consumer", "protocols": [
                {"name": "range", "metadata": b"\0\0" + topics +
                 b"\xff\xff\xff\xff"}]}
    joined = table.ask("join_group", 3, join)
    expect(joined["error_code"] == 0, repr(joined))
    synced = table.ask("sync_group", 3, {
        "group_id": "bad-live", "generation_id": joined["generation_id"],
        "member_id": joined["member_id"], "assignments": [
            {"member_id": joined["member_id"], "assignment": b""}]})
    expect(synced["error_code"] == 0, repr(synced))


def wait(condition, timeout=60):
    end = time.monotonic() + timeout
    while True:
        try:
            if condition():
                return
        except (messages.Closed, OSError):
            pass
        expect(time.monotonic() < end, "what the table needs is not there")
        time.sleep(0.2)


# ---- the kept file ----------------------------------------------------------
def squeezed(by_version):
    """{version: text} with equal neighbours as one: {"0-3": text}."""
    out, run = {}, []
    for version in sorted(by_version):
        if run and (by_version[run[0]] != by_version[version] or
                    version != run[-1] + 1):
            out["-".join(sorted({str(run[0]), str(run[-1])}, key=int))] = \
                by_version[run[0]]
            run = []
        run.append(version)
    if run:
        out["-".join(sorted({str(run[0]), str(run[-1])}, key=int))] = \
            by_version[run[0]]
    return out


def stretched(by_range):
    out = {}
    for text, value in by_range.items():
        first, _, last = text.partition("-")
        for version in range(int(first), int(last or first) + 1):
            out[version] = value
    return out


def load(path):
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def write(answers, only):
    kept = load(EXPECTED)
    for api, cases in answers.items():
        kept[api] = {case: squeezed(v) for case, v in cases.items()}
    with open(EXPECTED, "w", encoding="utf-8") as f:
        json.dump({k: kept[k] for k in TABLE if k in kept}, f, indent=1,
                  ensure_ascii=True)
        f.write("\n")


def compare(report, answers, differences):
    """Each API is a check; its note lists what is not as kept."""
    expected = load(EXPECTED)
    for api, cases in answers.items():
        report.check(api, lambda: compare_api(
            cases, expected.get(api, {}), differences.get(api, {})))


def compare_api(cases, expected, differences):
    wrong, n = [], 0
    for case, by_version in cases.items():
        kafka = stretched(expected.get(case, {}))
        other = differences.get(case)
        ours = stretched(other["ours"]) if other else {}
        for version, text in by_version.items():
            want = ours.get(version, kafka.get(version))
            if want is None and kafka:
                continue  # a version that this Kafka does not have
            n += 1
            if version in ours and text == kafka.get(version):
                wrong.append("%s v%d: differs no more, take it out" % (
                    case, version))
            elif text != want:
                wrong.append("%s v%d: %s, expected %s" % (case, version, text,
                                                          want))
    expect(not wrong, "\n".join(wrong))
    return "%d answers" % n


def arguments(given=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--build", default="build")
    p.add_argument("--peer", choices=("ours", "kafka"), default="ours")
    p.add_argument("--write", action="store_true")
    p.add_argument("--only", help="APIs, with commas")
    p.add_argument("--show", help="an API: prints what is answered")
    p.add_argument("--address", help="HOST:PORT of a broker that runs already")
    return p.parse_args(given)


def offered(table):
    got = table.ask("api_versions", 0, {})
    return {k["api_key"]: (k["min_version"], k["max_version"])
            for k in got["api_keys"]}


def run(report, address, options, check=True):
    """The whole table against one broker; its address as (host, port)."""
    table = Table(address, messages.load())
    only = options.only.split(",") if options.only else None
    if report.check("what the table needs", prepare, table):
        table.run(only or (options.show and [options.show]), offered(table))
    if options.show:
        print(json.dumps(table.answers, indent=1, default=str))
    elif options.write:
        write(table.answers, only)
    else:
        compare(report, table.answers,
                {} if options.peer == "kafka" else load(DIFFERENCES))


SETTINGS = ["group.initial.rebalance.delay.ms=0"]


def ours(report, build, port=28092):
    """The table against a broker of ours, as one suite of a larger run."""
    report.suite("bad requests")
    cluster = Cluster(build, 1, port, SETTINGS)
    try:
        if report.check("start", cluster.start):
            run(report, ("127.0.0.1", cluster.port), arguments([]))
    finally:
        cluster.stop()
        cluster.remove()


def main():
    options = arguments()
    report = Report()
    report.suite("bad requests")
    if options.address:
        host, port = options.address.split(":")
        run(report, (host, int(port)), options)
        return report.finish()
    if options.peer == "kafka":
        cluster = KafkaPeer(options.build, defines=SETTINGS)
    else:
        cluster = Cluster(options.build, 1, 28092, SETTINGS)
    try:
        cluster.start()
        run(report, ("127.0.0.1", cluster.port), options)
    finally:
        cluster.stop()
        if options.peer == "ours":
            cluster.remove()
    return report.finish()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as e:
        sys.exit("failed: %s" % e)
