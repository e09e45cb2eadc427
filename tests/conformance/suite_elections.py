"""A broker is lost, forgotten and comes back: what ElectLeaders and
UnregisterBroker answer on the way. Brokers of its own."""
import messages
from harness import Cluster, expect, until

TOPIC = "elections"


class Elections:
    def __init__(self, report, build, port):
        self.report = report
        self.cluster = Cluster(build, 3, port)
        self.apis = messages.load()

    def all(self):
        self.report.suite("elections")
        check = self.report.check
        try:
            if check("start", self.start):
                check("a broker is lost", self.lost)
                check("no election without the preferred replica",
                      self.not_available)
                check("the broker is forgotten", self.forgotten)
                check("it comes back, and leads again", self.back)
        finally:
            self.cluster.stop()
            if self.report.failed():
                print(self.cluster.logs())
            self.cluster.remove()

    def at(self, node, name, version, values):
        c = messages.Connection("127.0.0.1", self.cluster.port + node - 1,
                                self.apis)
        try:
            return c.ask(name, version, values)
        finally:
            c.close()

    def leaders(self):
        topic = self.at(1, "describe_topic_partitions", 0,
                        {"topics": [{"name": TOPIC}]})["topics"][0]
        return [(p["leader_id"], p["replica_nodes"][0])
                for p in topic["partitions"]]

    def elect(self, timeout_ms):
        got = self.at(2, "elect_leaders", 2, {"topic_partitions": None,
                                              "timeout_ms": timeout_ms})
        expect(got["error_code"] == 0, repr(got))
        return {p["partition_id"]: p["error_code"]
                for t in got["replica_election_results"]
                for p in t["partition_result"] if t["topic"] == TOPIC}

    def brokers(self):
        got = self.at(1, "describe_cluster", 2,
                      {"include_fenced_brokers": True})
        return [b["broker_id"] for b in got["brokers"]]

    def start(self):
        self.cluster.start()
        made = self.at(1, "create_topics", 5, {
            "timeout_ms": 10000, "topics": [
                {"name": TOPIC, "num_partitions": 6,
                 "replication_factor": 3}]})["topics"][0]
        expect(made["error_code"] == 0, repr(made))
        self.preferred_lead()
        expect(self.elect(10000) == {}, "elected, though none was needed")

    def preferred_lead(self):
        until(lambda: all(a == b for a, b in self.leaders()),
              lambda: repr(self.leaders()))

    def lost(self):
        running = self.at(1, "unregister_broker", 0, {"broker_id": 3})
        expect(running["error_code"] == 42, "of a running one: %r" % running)
        pid = self.cluster.kill(3)
        self.cluster.wait_dead(3, pid)
        until(lambda: not any(leader in (3, -1)
                              for leader, _ in self.leaders()),
              lambda: repr(self.leaders()))

    def not_available(self):
        until(lambda: set(self.elect(1000).values()) == {80},
              lambda: repr(self.elect(1000)))
        expect(self.brokers() == [1, 2, 3], repr(self.brokers()))

    def forgotten(self):
        got = self.at(2, "unregister_broker", 0, {"broker_id": 3})
        expect(got["error_code"] == 0, repr(got))
        expect(self.brokers() == [1, 2], repr(self.brokers()))
        got = self.at(1, "unregister_broker", 0, {"broker_id": 3})
        expect(got["error_code"] == 102, "once more: %r" % got)

    def back(self):
        self.cluster.restart(3)
        until(lambda: self.brokers() == [1, 2, 3],
              lambda: repr(self.brokers()))
        elected = self.elect(30000)
        expect(set(elected.values()) <= {0}, repr(elected))
        self.preferred_lead()
        return "%d elected" % len(elected)
