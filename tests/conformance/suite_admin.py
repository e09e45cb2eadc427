"""Kafka's own tools for people who run clusters, each by its main class: what
they print of ours."""
import json
import tempfile
import time

from harness import expect, tail, until


class Admin:
    def __init__(self, java):
        self.java = java
        self.b = java.b
        self.n = len(self.b.split(","))
        self.replicas = java.replicas
        self.topic = "admin-%x" % int(time.time())

    def all(self):
        check = self.java.report.check
        check("TopicCommand: partitions, reasons of refusals", self.topics)
        check("ConfigCommand", self.configs)
        check("ConfigCommand: groups", self.group_configs)
        check("LogDirsCommand", self.log_dirs)
        check("MetadataQuorumCommand", self.quorum)
        check("DeleteRecordsCommand", self.delete_records)
        check("LeaderElectionCommand", self.elections)
        check("ReassignPartitionsCommand", self.reassignments)
        check("TransactionsCommand: producers", self.producers)
        check("ConsumerGroupCommand: reset and delete offsets", self.offsets)
        check("ClusterTool", self.cluster_tool)
        check("FeatureCommand", self.features)

    def tool(self, name, *args, **more):
        return self.java.tool(name, "--bootstrap-server", self.b, *args,
                              **more).decode()

    def topics(self):
        tool = self.tool
        tool("TopicCommand", "--create", "--topic", self.topic,
             "--partitions", "3", "--replication-factor", str(self.replicas),
             "--config", "retention.ms=100000000")
        out = tool("TopicCommand", "--create", "--topic", self.topic,
                   status=1)
        expect("already exists" in out, tail(out.encode()))
        tool("TopicCommand", "--create", "--topic", self.topic,
             "--if-not-exists")
        tool("TopicCommand", "--alter", "--topic", self.topic,
             "--partitions", "4")
        out = tool("TopicCommand", "--describe", "--topic", self.topic)
        expect("PartitionCount: 4" in out and
               "ReplicationFactor: %d" % self.replicas in out and
               "retention.ms=100000000" in out and
               "Leader: none" not in out, out)
        seen = []
        until(lambda: seen.append(tool(
            "TopicCommand", "--describe",
            "--under-replicated-partitions")) or seen[-1] == "",
            lambda: seen[-1])

    def configs(self):
        what = "--entity-type", "topics", "--entity-name", self.topic
        self.config("--alter", "--add-config",
                    "max.message.bytes=2000000,cleanup.policy=[compact,"
                    "delete]", *what)
        out = self.config("--describe", *what)
        expect("max.message.bytes=2000000" in out and
               "DYNAMIC_TOPIC_CONFIG" in out, out)
        self.config("--alter", "--delete-config",
                    "max.message.bytes,cleanup.policy", *what)
        out = self.config("--describe", "--all", *what)
        expect("max.message.bytes=1048588" in out and
               "cleanup.policy=delete" in out, out)
        node = "--entity-type", "brokers", "--entity-name", "1"
        self.config("--alter", "--add-config", "message.max.bytes=1500000",
                    *node)
        out = self.config("--describe", *node)
        expect("message.max.bytes=1500000" in out and
               "DYNAMIC_BROKER_CONFIG" in out, out)
        self.config("--alter", "--delete-config", "message.max.bytes", *node)

    def config(self, *args, **more):
        return self.java.main("kafka.admin.ConfigCommand",
                              "--bootstrap-server", self.b, *args,
                              **more).decode()

    def group_configs(self):
        name = "group-" + self.topic
        what = "--entity-type", "groups", "--entity-name", name
        key = "consumer.session.timeout.ms"
        self.config("--alter", "--add-config", key + "=50000,"
                    "streams.num.standby.replicas=1", *what)
        out = self.config("--describe", *what)
        expect("DYNAMIC_GROUP_CONFIG:%s=50000, DEFAULT_CONFIG:group.%s=45000"
               % (key, key) in out and
               "streams.num.standby.replicas=1" in out, out)
        out = self.config("--describe", "--entity-type", "groups")
        expect(name in out, out)
        out = self.config("--describe", "--all", *what)
        expect(out.count("sensitive=false") == 17 and
               "share.auto.offset.reset=latest" in out, out)
        for wrong in (key + "=10", "nothing.known=1"):
            self.config("--alter", "--add-config", wrong, *what, status=1)
        self.config("--alter", "--delete-config", key + ","
                    "streams.num.standby.replicas", *what)
        out = self.config("--describe", *what)
        expect(key not in out, out)

    def log_dirs(self):
        out = self.tool("LogDirsCommand", "--describe", "--topic-list",
                        self.topic)
        told = json.loads([line for line in out.split("\n")
                           if line.startswith("{")][0])
        replicas = [p["partition"] for b in told["brokers"]
                    for d in b["logDirs"] for p in d["partitions"]]
        expect(len(told["brokers"]) == self.n and
               len(replicas) == 4 * self.replicas, out)

    def quorum(self):
        out = self.tool("MetadataQuorumCommand", "describe", "--status")
        expect("LeaderId:" in out and "CurrentVoters:" in out, out)
        out = self.tool("MetadataQuorumCommand", "describe", "--replication")
        rows = [line.split() for line in out.split("\n")[1:] if line]
        expect(len(rows) == self.n and
               sum(r[-1] == "Leader" for r in rows) == 1, out)

    def delete_records(self):
        self.java.tool("ConsoleProducer", "--bootstrap-server", self.b,
                       "--topic", self.topic, stdin=b"a\nb\nc\nd\n")
        ends = self.ends(self.topic)
        with tempfile.NamedTemporaryFile("w") as f:
            json.dump({"version": 1, "partitions": [
                {"topic": self.topic, "partition": p, "offset": -1}
                for p in range(4)]}, f)
            f.flush()
            out = self.tool("DeleteRecordsCommand", "--offset-json-file",
                            f.name)
        for p in range(4):
            expect("%s-%d\tlow_watermark: %d" % (self.topic, p, ends[p])
                   in out, out)
        expect(self.ends(self.topic, "-2") == ends, "the start did not move")

    def ends(self, topic, when="-1"):
        out = self.tool("GetOffsetShell", "--topic", topic, "--time", when)
        return [int(line.split(":")[2]) for line in sorted(out.split())]

    def elections(self):
        self.tool("LeaderElectionCommand", "--election-type", "preferred",
                  "--all-topic-partitions")
        out = self.tool("LeaderElectionCommand", "--election-type",
                        "preferred", "--topic", self.topic, "--partition",
                        "1")
        expect("Valid replica already elected" in out, out)

    def reassignments(self):
        out = self.tool("reassign.ReassignPartitionsCommand", "--list")
        expect("No partition reassignments found." in out, out)

    def producers(self):
        out = self.tool("TransactionsCommand", "describe-producers",
                        "--topic", self.topic, "--partition", "0")
        expect(out.startswith("ProducerId\t"), out)

    def offsets(self):
        group = "group-" + self.topic[len("admin-"):]
        args = "--group", group, "--topic", self.topic
        self.tool("consumer.group.ConsumerGroupCommand", "--reset-offsets",
                  "--to-earliest", "--execute", *args)
        out = self.tool("consumer.group.ConsumerGroupCommand", "--describe",
                        "--group", group)
        expect(out.count(self.topic) == 4, out)
        out = self.tool("consumer.group.ConsumerGroupCommand",
                        "--delete-offsets", *args)
        expect("Successful" in out, out)
        out = self.tool("consumer.group.ConsumerGroupCommand", "--describe",
                        "--offsets", "--group", group)
        expect(self.topic not in out, out)

    def cluster_tool(self):
        out = self.java.tool("ClusterTool", "cluster-id",
                             "--bootstrap-server", self.b).decode()
        expect("Cluster ID: " in out, out)
        out = self.java.tool("ClusterTool", "list-endpoints",
                             "--bootstrap-server", self.b).decode()
        expect(out.count("broker") >= self.n, out)

    def features(self):
        out = self.tool("FeatureCommand", "describe")
        expect("Feature: metadata.version" in out, out)
