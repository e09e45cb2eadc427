"""kafka-python's own integration tests, from its source archive."""
import os
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree

from fetch import once
from harness import Cluster, Failed, expect, run, tail
from kept import Kept

VERSION = "3.0.12"
KAFKA = "4.3.1"
PACKAGES = ["pytest", "pytest-timeout", "pytest-mock", "lz4", "zstandard",
            "python-snappy", "crc32c"]


def fetch(folder):
    """DIR/src is the source, DIR/venv/bin/python runs its tests. The archive
    lacks two files: test/__init__.py, and what starts brokers, which must only
    be there to be imported."""
    python = os.path.join(folder, "venv", "bin", "python")
    run(["python3", "-m", "venv", os.path.join(folder, "venv")], timeout=120)
    pip = [python, "-m", "pip", "-q", "--disable-pip-version-check"]
    run(pip + ["install", "--no-input"] + PACKAGES, timeout=300)
    run(pip + ["download", "--no-deps", "--no-binary", ":all:", "-d", folder,
               "kafka-python==" + VERSION], timeout=300)
    source = os.path.join(folder, "src")
    os.makedirs(source)
    run(["tar", "xzf", os.path.join(folder, "kafka_python-%s.tar.gz" % VERSION),
         "-C", source, "--strip-components=1"])
    open(os.path.join(source, "test", "__init__.py"), "w").close()
    with open(os.path.join(source, "test", "service.py"), "w") as f:
        f.write("class ExternalService:\n"
                "    def __init__(self, host, port):\n"
                "        self.host, self.port = host, port\n\n"
                "    def open(self):\n        pass\n\n"
                "    def close(self):\n        pass\n\n\n"
                "class SpawnedService:\n    pass\n")
    os.makedirs(os.path.join(source, "servers", KAFKA, "kafka-bin"))


class KafkaPython:
    def __init__(self, report, build, port):
        self.report, self.build, self.port = report, build, port
        self.kept = Kept("kafka-python")

    def all(self):
        suite = self.report.suite("kafka-python %s (integration)" % VERSION)
        if not self.report.check("fetch", self.fetch):
            return
        cluster = Cluster(self.build, 3, self.port, [
            "group.initial.rebalance.delay.ms=0", "num.partitions=4",
            "group.min.session.timeout.ms=1000",
            # so that a reassignment to all three is never one to the same
            "default.replication.factor=2"])
        if not self.report.check("start of three brokers", lambda: (
                cluster.start(), None)[1]):
            return
        begun = time.monotonic()
        failed = suite.failed
        try:
            self.report.check("all ran", self.run_tests, suite, cluster)
        finally:
            cluster.stop()
            suite.seconds = time.monotonic() - begun
            if suite.failed > failed:
                print(cluster.logs())
            cluster.remove()

    def fetch(self):
        self.folder = once("kafka-python-" + VERSION, fetch)

    def run_tests(self, suite, cluster):
        out = os.path.join(tempfile.mkdtemp(prefix="flotilla-kafka-python-"),
                           "report.xml")
        env = dict(os.environ, KAFKA_VERSION=KAFKA,
                   KAFKA_URI="kafka://" + cluster.bootstrap.split(",")[0])
        env.pop("CI", None)
        try:
            done = subprocess.run(
                [os.path.join(self.folder, "venv", "bin", "python"), "-m",
                 "pytest", "-q", "test/integration", "--timeout", "120",
                 "--junitxml", out, "-p", "no:cacheprovider"],
                cwd=os.path.join(self.folder, "src"), env=env, timeout=900,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except subprocess.TimeoutExpired:
            raise Failed("no end after 900 s")
        expect(os.path.exists(out), tail(done.stdout))
        seen = set()
        for case in ElementTree.parse(out).getroot().iter("testcase"):
            name = "%s::%s" % (case.get("classname").split(".")[-1],
                               case.get("name"))
            if name in seen:
                continue  # a failure of its clean-up comes as a second one
            seen.add(name)
            outcome, note = "pass", ""
            for kind, word in (("failure", "fail"), ("error", "fail"),
                               ("skipped", "skip")):
                what = case.find(kind)
                if what is not None:
                    outcome = word
                    note = "%s\n%s" % (what.get("message") or "",
                                       (what.text or "")[-1500:])
                    break
            self.report.outcome(suite, self.kept, name, outcome, note,
                                float(case.get("time") or 0))
        expect(len(seen) > 60, "%d cases only" % len(seen))
