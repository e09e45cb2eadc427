"""Client quotas: set by Kafka's tool, kept by real clients."""
import json
import os
import time

from harness import Cluster, expect, run, venv_python
from messages import Connection, load
from suite_clients import Java

HERE = os.path.dirname(os.path.abspath(__file__))
RATE = 1000000
# How long a client goes, and from when on it is measured. By Kafka's windows ten
# seconds' worth may pass at once, every eleven seconds: two such rounds are
# measured.
TIMES = {"produce": (38, 16), "consume": (38, 16)}
THROTTLING_QUOTA_EXCEEDED = 89


class Quotas:
    def __init__(self, report, build, port, full=True):
        self.report, self.build, self.full = report, build, full
        self.cluster = Cluster(build, 3, port, [
            "group.initial.rebalance.delay.ms=0",
            "controller.quota.window.num=2"])
        self.java = Java(report, self.cluster, 3, 0)
        self.python = None

    def all(self):
        suite = self.report.suite("quotas")
        check = self.report.check
        if not check("start of three brokers", lambda: (
                self.cluster.start(), None)[1]):
            return
        try:
            check("fetch", self.java.fetch)
            check("install", self.install)
            check("ConfigCommand: clients", self.tool_clients)
            check("before: no client waits", self.unlimited)
            check("producer_byte_rate", self.produce)
            if self.full:
                check("ConfigCommand: users, refusals", self.tool_users)
                check("consumer_byte_rate", self.consume)
            check("request_percentage", self.requests)
            check("controller_mutation_rate", self.mutations)
        finally:
            self.cluster.stop()
            if suite.failed:
                print(self.cluster.logs())
            self.cluster.remove()

    def install(self):
        self.python = venv_python(self.build, ["confluent-kafka"])
        run([self.cluster.binary, "topic", "create", "quota", "-p", "1", "-b",
             self.cluster.bootstrap])

    # ---- the tool ----------------------------------------------------------
    def config(self, *args, **more):
        return self.java.main("kafka.admin.ConfigCommand",
                              "--bootstrap-server", self.cluster.bootstrap,
                              *args, **more).decode()

    def set(self, what, *clients):
        self.config("--alter", "--add-config", what, *(
            clients or ("--entity-type", "clients", "--entity-default")))

    def tool_clients(self):
        clients = "--entity-type", "clients"
        one = clients + ("--entity-name", "c 1")
        self.set("producer_byte_rate=1000000,request_percentage=12.5", *one)
        self.set("consumer_byte_rate=2000000")
        out = self.config("--describe", *clients)
        expect("Quota configs for the default client-id are "
               "consumer_byte_rate=2000000.0" in out and
               "client-id 'c 1' are" in out and
               "request_percentage=12.5" in out and
               "producer_byte_rate=1000000.0" in out, out)
        self.config("--alter", "--delete-config", "producer_byte_rate", *one)
        out = self.config("--describe", *one)
        expect(out.strip().endswith("are request_percentage=12.5"), out)
        self.config("--alter", "--delete-config", "request_percentage", *one)
        self.config("--alter", "--delete-config", "consumer_byte_rate",
                    *clients, "--entity-default")
        out = self.config("--describe", *clients)
        expect(out.strip() == "", out)

    def tool_users(self):
        both = ("--entity-type", "users", "--entity-name", "u,=1",
                "--entity-type", "clients", "--entity-name", "c")
        self.set("controller_mutation_rate=2.5", *both)
        out = self.config("--describe", "--entity-type", "users",
                          "--entity-type", "clients")
        expect("user-principal 'u,=1', client-id 'c' are "
               "controller_mutation_rate=2.5" in out, out)
        out = self.config("--describe", "--entity-type", "users")
        expect("u,=1" not in out, out)
        self.config("--alter", "--delete-config", "controller_mutation_rate",
                    *both)
        for wrong in ("producer_byte_rate=0", "producer_byte_rate=1.5"):
            self.config("--alter", "--add-config", wrong, "--entity-type",
                        "clients", "--entity-name", "c", status=1)

    # ---- clients -----------------------------------------------------------
    def client(self, role, seconds, first):
        out = run([self.python, os.path.join(HERE, "programs",
                                             "quota_client.py"),
                   self.cluster.bootstrap, "quota", role, str(seconds),
                   str(first)], timeout=seconds + 60)
        return json.loads(out)

    def unlimited(self):
        told = self.client("produce", 6, 1)
        expect(told["rate"] > 3 * RATE and told["throttled"] == 0, repr(told))
        return "%.1f MB/s" % (told["rate"] / 1e6)

    def limited(self, role, key):
        what = "--entity-type", "clients", "--entity-name", "quota-" + role
        self.set("%s=%d" % (key, RATE), *what)
        told = self.client(role, *TIMES[role])
        self.config("--alter", "--delete-config", key, *what)
        expect(0.85 * RATE <= told["rate"] <= 1.15 * RATE, repr(told))
        expect(told["throttled"] > 0, repr(told))
        return "%.3f MB/s of %.3f, told to wait %d times" % (
            told["rate"] / 1e6, RATE / 1e6, told["throttled"])

    def produce(self):
        return self.limited("produce", "producer_byte_rate")

    def consume(self):
        # there must be enough to read
        while self.ends() < 35 * RATE / 10000:
            self.client("produce", 3, 0)
        return self.limited("consume", "consumer_byte_rate")

    def ends(self):
        out = self.java.tool("GetOffsetShell", "--bootstrap-server",
                             self.cluster.bootstrap, "--topic", "quota")
        return int(out.decode().strip().split(":")[2])

    def wire(self, client_id):
        host, port = self.cluster.bootstrap.split(",")[0].split(":")
        return Connection(host, int(port), load(), client_id)

    def requests(self):
        """A thousandth of a percent: anything is too much, and the connection
        is not read for as long as it was told."""
        self.set("request_percentage=0.00001")
        c = self.wire("busy")
        told = []
        begun = time.monotonic()
        for _ in range(4):
            told.append(c.ask("metadata", 12, {"topics": None})[
                "throttle_time_ms"])
        took = time.monotonic() - begun
        c.close()
        self.config("--alter", "--delete-config", "request_percentage",
                    "--entity-type", "clients", "--entity-default")
        expect(max(told) == 1000, repr(told))
        expect(took >= sum(told[:3]) / 1000 * 0.95, "%r, but %.2f s" % (
            told, took))
        c = self.wire("busy")
        expect(c.ask("metadata", 12, {"topics": None})["throttle_time_ms"]
               == 0, "throttled after the quota went")
        c.close()

    def create(self, c, version, name, n):
        told = c.ask("create_topics", version, {"topics": [{
            "name": name, "num_partitions": n, "replication_factor": 1,
            "assignments": [], "configs": []}], "timeout_ms": 20000})
        return told["topics"][0]["error_code"], told["throttle_time_ms"]

    def mutations(self):
        self.set("controller_mutation_rate=1")
        c = self.wire("maker")
        first = self.create(c, 7, "quota-1", 8)  # two are saved up
        second = self.create(c, 7, "quota-2", 1)
        expect(first == (0, 0), repr(first))
        expect(second[0] == THROTTLING_QUOTA_EXCEEDED and
               1000 <= second[1] <= 6000, repr(second))
        old = self.create(c, 5, "quota-3", 1)  # after having waited
        expect(old[0] == 0, repr(old))
        c.close()
        self.config("--alter", "--delete-config", "controller_mutation_rate",
                    "--entity-type", "clients", "--entity-default")
