"""A topic's life, over and over: created, written to at once, described and
deleted, each step through a broker chosen at random and without a second try.
What a broker has answered holds on every other one from then on."""
import random

import messages
from harness import expect
from suite_wire import batch

PARTITIONS = 3
TIMEOUT_MS = 30000


class Rounds:
    def __init__(self, report, cluster, replicas, count):
        self.report = report
        self.replicas = replicas
        self.count = count
        self.random = random.Random(20260501)
        self.apis = messages.load()
        self.brokers = [address.rsplit(":", 1)
                        for address in cluster.bootstrap.split(",")]
        self.open = {}

    def all(self):
        self.report.suite("topics, %d rounds" % self.count)
        self.report.check("create, produce, describe, delete", self.rounds)
        for connection in self.open.values():
            connection.close()

    def rounds(self):
        for i in range(self.count):
            self.round("round-%d" % i, i % 2 == 1)

    def at(self, host, port):
        key = host, int(port)
        if key not in self.open:
            self.open[key] = messages.Connection(*key, self.apis)
        return self.open[key]

    def anyone(self):
        return self.at(*self.random.choice(self.brokers))

    def round(self, name, by_id):
        made = self.anyone().ask("create_topics", 7, {
            "timeout_ms": TIMEOUT_MS, "topics": [
                {"name": name, "num_partitions": PARTITIONS,
                 "replication_factor": self.replicas}]})["topics"][0]
        expect(made["error_code"] == 0, "create: %r" % made)
        seen = self.anyone().ask("metadata", 12, {
            "topics": [{"name": name}], "allow_auto_topic_creation": False})
        topic = seen["topics"][0]
        expect(topic["error_code"] == 0 and
               topic["topic_id"] == made["topic_id"] and
               len(topic["partitions"]) == PARTITIONS, "metadata: %r" % topic)
        at = {b["node_id"]: (b["host"], b["port"]) for b in seen["brokers"]}
        for p in topic["partitions"]:
            expect(p["leader_id"] in at, "no leader: %r" % p)
            self.write(at[p["leader_id"]], name, made["topic_id"],
                       p["partition_index"], by_id)
        self.describe(name)
        self.delete(name, made["topic_id"], by_id)

    def write(self, leader, name, topic_id, index, by_id):
        records = {"index": index, "records": batch(b"first")}
        topic = {"topic_id": topic_id} if by_id else {"name": name}
        topic["partition_data"] = [records]
        got = self.at(*leader).ask("produce", 13 if by_id else 9, {
            "transactional_id": None, "acks": -1, "timeout_ms": TIMEOUT_MS,
            "topic_data": [topic]})
        p = got["responses"][0]["partition_responses"][0]
        expect(p["error_code"] == 0 and p["base_offset"] == 0,
               "produce to %s-%d: %r" % (name, index, p))

    def describe(self, name):
        got = self.anyone().ask("describe_topic_partitions", 0, {
            "topics": [{"name": name}]})["topics"][0]
        expect(got["error_code"] == 0 and
               len(got["partitions"]) == PARTITIONS and
               all(p["leader_id"] >= 0 and p["error_code"] == 0
                   for p in got["partitions"]), "describe: %r" % got)
        got = self.anyone().ask("describe_configs", 4, {"resources": [
            {"resource_type": 2, "resource_name": name,
             "configuration_keys": None}]})["results"][0]
        expect(got["error_code"] == 0 and got["configs"],
               "configs: %r" % got)

    def delete(self, name, topic_id, by_id):
        which = {"name": None, "topic_id": topic_id} if by_id else \
            {"name": name}
        got = self.anyone().ask("delete_topics", 6, {
            "timeout_ms": TIMEOUT_MS, "topics": [which]})["responses"][0]
        expect(got["error_code"] == 0 and got["name"] == name,
               "delete: %r" % got)
        seen = self.anyone().ask("metadata", 12, {
            "topics": [{"name": name}], "allow_auto_topic_creation": False})
        expect(seen["topics"][0]["error_code"] == 3,
               "deleted, yet there: %r" % seen["topics"][0])
