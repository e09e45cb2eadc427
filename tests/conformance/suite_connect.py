"""Kafka Connect standalone with the file source and the file sink, and Kafka
Streams' own smoke test, both of Kafka 4.3.1."""
import os
import shutil
import signal
import subprocess
import tempfile
import time

from harness import Cluster, Failed, expect, run, tail
from kafka_path import jars
from kept import Kept

LINES = 5000
CONNECT = """bootstrap.servers=%(b)s
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.storage.file.filename=%(dir)s/offsets
offset.flush.interval.ms=500
plugin.discovery=service_load
listeners=http://127.0.0.1:%(port)d
"""
SOURCE = """name=lines-in
connector.class=org.apache.kafka.connect.file.FileStreamSourceConnector
tasks.max=1
file=%(dir)s/in
topic=connect-lines
"""
SINK = """name=lines-out
connector.class=org.apache.kafka.connect.file.FileStreamSinkConnector
tasks.max=1
file=%(dir)s/out
topics=connect-lines
"""
TOPICS = ("data echo max min min-suppressed min-raw dif sum sws-raw "
          "sws-suppressed cnt avg tagg fk").split()
STREAMS = """bootstrap.servers=%s
state.dir=%s
processing.guarantee=at_least_once
num.stream.threads=3
session.timeout.ms=10000
acceptable.recovery.lag=9223372036854775807
"""


def java(folder, *args):
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-cp", os.path.join(folder, "*")] + list(args)


class Frameworks:
    """Connect and Streams, on one cluster; `name` is the one that is run."""

    def __init__(self, report, build, port, name):
        self.report, self.build, self.port = report, build, port
        self.name = name
        self.kept = Kept(name)
        self.folder = tempfile.mkdtemp(prefix="flotilla-%s-" % name)

    def all(self):
        title = {"connect": "Kafka Connect 4.3.1 (standalone)",
                 "streams": "Kafka Streams 4.3.1 (smoke test)"}[self.name]
        self.suite = self.report.suite(title)
        if not self.report.check("fetch", self.fetch):
            return
        cluster = Cluster(self.build, 3, self.port, [
            "group.initial.rebalance.delay.ms=100"])
        if not self.report.check("start of three brokers", lambda: (
                cluster.start(), None)[1]):
            return
        self.cluster = cluster
        failed = self.suite.failed
        try:
            if self.name == "connect":
                self.report.check("a file through source, topic and sink; a "
                                  "restart goes on", self.connect)
            else:
                self.streams()
        finally:
            cluster.stop()
            if self.suite.failed > failed:
                print(cluster.logs())
            else:
                shutil.rmtree(self.folder, ignore_errors=True)
            cluster.remove()

    def fetch(self):
        if self.name == "connect":
            self.jars = jars("connect-runtime", "connect-file", "connect-json")
        else:
            self.jars = jars("kafka-streams", "kafka-streams:test",
                             "kafka-clients:test", "kafka-server-common:test")

    def put(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    # ---- Connect -----------------------------------------------------------
    def connect(self):
        run([self.cluster.binary, "topic", "create", "connect-lines", "-p",
             "3", "-b", self.cluster.bootstrap])
        values = {"b": self.cluster.bootstrap, "dir": self.folder,
                  "port": self.port + 15}
        self.files = [self.put("connect.properties", CONNECT % values),
                      self.put("source.properties", SOURCE % values),
                      self.put("sink.properties", SINK % values)]
        lines = ["line %d" % i for i in range(LINES)]
        self.put("in", "".join(line + "\n" for line in lines[:LINES // 2]))
        self.worker(LINES // 2)
        with open(os.path.join(self.folder, "in"), "a") as f:
            f.write("".join(line + "\n" for line in lines[LINES // 2:]))
        self.worker(LINES)
        with open(os.path.join(self.folder, "out")) as f:
            got = f.read().split("\n")[:-1]
        expect(set(got) == set(lines), "%d lines, %d different" % (
            len(got), len(set(got))))
        expect(len(got) == LINES, "%d lines instead of %d" % (len(got), LINES))
        return "%d lines, each once" % LINES

    def worker(self, count):
        """A worker until the sink has `count` lines; ends it well."""
        out = os.path.join(self.folder, "out")
        with open(os.path.join(self.folder, "worker.log"), "ab") as log:
            child = subprocess.Popen(
                java(self.jars,
                     "org.apache.kafka.connect.cli.ConnectStandalone",
                     *self.files), stdout=log, stderr=log)
        try:
            end = time.monotonic() + 120
            while self.lines(out) < count:
                if time.monotonic() > end or child.poll() is not None:
                    with open(log.name, "rb") as f:
                        raise Failed("%d of %d lines; %s" % (
                            self.lines(out), count, tail(f.read(), 3000)))
                time.sleep(0.2)
            child.send_signal(signal.SIGTERM)
            child.wait(60)
        finally:
            child.kill()
            child.wait()

    @staticmethod
    def lines(path):
        try:
            with open(path, "rb") as f:
                return f.read().count(b"\n")
        except OSError:
            return 0

    # ---- Streams -----------------------------------------------------------
    def streams(self):
        for topic in TOPICS:
            run([self.cluster.binary, "topic", "create", topic, "-p", "5",
                 "-b", self.cluster.bootstrap])
        main = "org.apache.kafka.streams.tests.StreamsSmokeTest"
        workers = []
        for i in range(2):
            props = self.put("streams-%d.properties" % i, STREAMS % (
                self.cluster.bootstrap,
                os.path.join(self.folder, "state-%d" % i)))
            log = open(os.path.join(self.folder, "worker-%d.log" % i), "wb")
            workers.append(subprocess.Popen(java(self.jars, main, props,
                                                 "process"),
                                            stdout=log, stderr=log))
        begun = time.monotonic()
        try:
            done = subprocess.run(java(self.jars, main, props, "run"),
                                  stdout=subprocess.PIPE, timeout=400,
                                  stderr=subprocess.STDOUT)
            out = done.stdout.decode("utf-8", "replace")
        except subprocess.TimeoutExpired as e:
            out = "no end after 400 s: %s" % tail(e.stdout, 3000)
        finally:
            for w in workers:
                w.kill()
                w.wait()
        words = out.split()
        for case, word in (("all_records_delivered", "ALL-RECORDS-DELIVERED"),
                           ("results_verified", "SUCCESS")):
            self.report.outcome(self.suite, self.kept, case,
                                "pass" if word in words else "fail",
                                "" if word in words else out[-3000:],
                                time.monotonic() - begun)
            begun = time.monotonic()  # both took that long together
