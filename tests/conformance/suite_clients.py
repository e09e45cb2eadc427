"""Foreign clients besides kcat: the newest librdkafka and Kafka's own tools."""
import json
import os
import re
import subprocess
import time

from harness import expect, run, tail, venv_python
from kafka_path import jars
from suite_admin import Admin

HERE = os.path.dirname(os.path.abspath(__file__))


def confluent(report, cluster, build, replicas, records, flotilla_only):
    """Runs confluent_checks.py and counts what it tells."""
    report.suite("confluent-kafka (newest)")
    python = [None]

    def install():
        python[0] = venv_python(build, ["confluent-kafka"])
    if not report.check("install", install):
        return
    args = [python[0], os.path.join(HERE, "confluent_checks.py"),
            cluster.bootstrap, str(replicas), str(records)]
    if flotilla_only:
        args.append("--transactions-refused")
    child = subprocess.Popen(args, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    timer = __import__("threading").Timer(600, child.kill)
    timer.start()
    for line in child.stdout:
        told = json.loads(line)

        def judge():
            expect(told["ok"], told["note"])
            return "librdkafka %s, took %.1f s" % (told["version"],
                                                   told["seconds"])
        report.check(told["name"], judge)
    status = child.wait()
    timer.cancel()

    def ended():
        expect(status == 0, "status %d: %s" % (status,
                                               tail(child.stderr.read())))
    report.check("all checks ran", ended)


class Java:
    """Kafka 4.3.1's tools, each by its main class."""

    def __init__(self, report, cluster, replicas, records):
        self.report = report
        self.b = cluster.bootstrap
        self.jars = None
        self.replicas = replicas
        self.records = records
        self.tag = "%x" % int(time.time())
        self.topic = "java-" + self.tag

    def tool(self, name, *args, **more):
        return self.main("org.apache.kafka.tools." + name, *args, **more)

    def main(self, name, *args, stdin=None, timeout=300, status=0):
        return run(["java", "-Xmx256m", "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1", "-cp",
                    os.path.join(self.jars, "*"),
                    name] + list(args),
                   stdin=stdin, timeout=timeout, status=status)

    def all(self):
        self.report.suite("Kafka's tools (Java 4.3.1)")
        check = self.report.check
        if not check("fetch", self.fetch):
            return
        check("TopicCommand", self.topics)
        check("ProducerPerformance", self.producer_performance)
        check("ConsumerPerformance", self.consumer_performance)
        check("EndToEndLatency", self.end_to_end_latency)
        check("VerifiableProducer", self.verifiable_producer)
        check("VerifiableConsumer", self.verifiable_consumer)
        check("ConsoleProducer, ConsoleConsumer", self.console)
        check("ConsumerGroupCommand", self.groups)
        Admin(self).all()

    def fetch(self):
        self.jars = jars()

    def topics(self):
        self.tool("TopicCommand", "--bootstrap-server", self.b, "--create",
                  "--topic", self.topic, "--partitions", "12",
                  "--replication-factor", str(self.replicas))
        out = self.tool("TopicCommand", "--bootstrap-server", self.b, "--list")
        expect(self.topic.encode() in out.split(), tail(out))
        out = self.tool("TopicCommand", "--bootstrap-server", self.b,
                        "--describe", "--topic", self.topic)
        expect(b"PartitionCount: 12" in out and out.count(b"Leader: ") == 12
               and b"Leader: none" not in out, tail(out))

    def producer_performance(self):
        out = self.tool("ProducerPerformance", "--topic", self.topic,
                        "--num-records", str(self.records), "--record-size",
                        "200", "--throughput", "-1", "--bootstrap-server",
                        self.b, "--command-property", "acks=all", timeout=300)
        last = out.decode().strip().split("\n")[-1]
        expect(last.startswith("%d records sent" % self.records), last)
        return last

    def consumer_performance(self):
        out = self.tool("ConsumerPerformance", "--bootstrap-server", self.b,
                        "--topic", self.topic, "--num-records",
                        str(self.records), "--timeout", "30000", timeout=300)
        rows = [line.split(", ") for line in out.decode().split("\n")
                if re.match(r"\d{4}-", line)]
        expect(rows and int(rows[-1][4]) >= self.records, tail(out))
        return "%s MB/s" % rows[-1][3]

    def end_to_end_latency(self):
        out = self.tool("EndToEndLatency", "--bootstrap-server", self.b,
                        "--topic", self.topic + "-e", "--num-records", "2000",
                        "--producer-acks", "all", "--record-size", "200",
                        timeout=300).decode()
        average = re.search(r"Avg latency: ([\d.]+) ms", out)
        percentiles = re.search(r"Percentiles: 50th = (\d+), 99th = (\d+), "
                                r"99.9th = (\d+)", out)
        expect(average and percentiles, out)
        return "average %s ms, %s" % (average.group(1), percentiles.group(0))

    def verifiable_producer(self):
        topic = self.topic + "-v"
        self.tool("TopicCommand", "--bootstrap-server", self.b, "--create",
                  "--topic", topic, "--partitions", "3",
                  "--replication-factor", str(self.replicas))
        out = self.tool("VerifiableProducer", "--bootstrap-server", self.b,
                        "--topic", topic, "--max-messages", "5000", "--acks",
                        "-1")
        rows = [json.loads(line) for line in out.splitlines()
                if line.startswith(b"{")]
        sent = [r for r in rows if r["name"] == "producer_send_success"]
        expect(len(sent) == 5000, "%d acked" % len(sent))
        expect(not [r for r in rows if r["name"] == "producer_send_error"],
               "send errors")
        at = {(r["partition"], r["offset"]) for r in sent}
        expect(len(at) == 5000, "an offset twice")

    def verifiable_consumer(self):
        topic = self.topic + "-v"
        out = self.tool("VerifiableConsumer", "--bootstrap-server", self.b,
                        "--topic", topic, "--group-id", "jv-" + self.tag,
                        "--group-protocol", "classic", "--reset-policy",
                        "earliest", "--max-messages", "5000", "--verbose")
        rows = [json.loads(line) for line in out.splitlines()
                if line.startswith(b"{")]
        read = [r for r in rows if r["name"] == "record_data"]
        expect({int(r["value"]) for r in read} == set(range(5000)),
               "%d records" % len(read))
        commits = [r for r in rows if r["name"] == "offsets_committed"]
        expect(commits and all(r["success"] for r in commits), repr(commits))

    def console(self):
        topic = self.topic + "-c"
        self.tool("TopicCommand", "--bootstrap-server", self.b, "--create",
                  "--topic", topic, "--partitions", "1",
                  "--replication-factor", str(self.replicas))
        self.tool("ConsoleProducer", "--bootstrap-server", self.b, "--topic",
                  topic, stdin=b"one\ntwo\nthree\n")
        out = self.tool("consumer.ConsoleConsumer", "--bootstrap-server",
                        self.b, "--topic", topic, "--from-beginning",
                        "--max-messages", "3", "--group", "jc-" + self.tag,
                        "--timeout-ms", "60000")
        expect(out == b"one\ntwo\nthree\n", tail(out))

    def groups(self):
        name = "jv-" + self.tag
        out = self.tool("consumer.group.ConsumerGroupCommand",
                        "--bootstrap-server", self.b, "--list")
        expect(name.encode() in out.split(), tail(out))
        out = self.tool("consumer.group.ConsumerGroupCommand",
                        "--bootstrap-server", self.b, "--describe", "--group",
                        name)
        rows = [line.split() for line in out.decode().split("\n")
                if line.startswith(name)]
        expect(rows and sum(int(r[3]) for r in rows) == 5000 and
               all(r[5] == "0" for r in rows), tail(out))
