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


# These were written for one broker, number 0: one poll gets the records of all
# leaders, a replica goes to broker 0, the first broker has the replica.
ONE_BROKER = tuple("test_admin_integration::" + name for name in (
    "test_delete_records", "test_create_partitions",
    "test_alter_replica_log_dirs"))
# also meant for one broker, but with three it tells of something
BOTH = ("test_admin_integration::test_alter_partition_reassignments",)
DEFINES = ["group.initial.rebalance.delay.ms=0", "num.partitions=4",
           "group.min.session.timeout.ms=1000"]


def node_id(case):
    """What pytest calls a case of ours, MODULE::NAME."""
    return "test/integration/%s.py::%s" % tuple(case.split("::"))


class KafkaPython:
    def __init__(self, report, build, port):
        self.report, self.build, self.port = report, build, port
        self.kept = Kept("kafka-python")

    def all(self):
        self.suite = self.report.suite(
            "kafka-python %s (integration)" % VERSION)
        if not self.report.check("fetch", self.fetch):
            return
        begun = time.monotonic()
        self.on_cluster(3, self.three_brokers,
                        # so that a reassignment to all three is never one to
                        # the same
                        ["default.replication.factor=2"])
        self.on_cluster(1, self.one_broker, ["node.id=0"])
        self.suite.seconds = time.monotonic() - begun

    def on_cluster(self, n, tests, defines):
        cluster = Cluster(self.build, n, self.port, DEFINES + defines)
        failed = self.suite.failed
        try:
            if self.report.check("start of brokers: %d" % n, lambda: (
                    cluster.start(), None)[1]):
                self.report.check("all ran on brokers: %d" % n, tests,
                                  cluster)
        finally:
            cluster.stop()
            if self.suite.failed > failed:
                print(cluster.logs())
            cluster.remove()

    def fetch(self):
        self.folder = once("kafka-python-" + VERSION, fetch)

    def three_brokers(self, cluster):
        out = ["test/integration"]
        for case in ONE_BROKER:
            out += ["--deselect", node_id(case)]
        seen = self.run_tests(cluster, "", out)
        expect(len(seen) > 60, "%d cases only" % len(seen))

    def one_broker(self, cluster):
        seen = self.run_tests(cluster, "@one-broker", [
            node_id(case) for case in ONE_BROKER + BOTH])
        expect(seen == set(ONE_BROKER + BOTH), "other cases: %s" % sorted(seen))

    def run_tests(self, cluster, suffix, which):
        """Runs what pytest's arguments name and gives the cases that ran; the
        report has them with the suffix."""
        late = []
        seen = self.run_once(cluster, suffix, which, late)
        if late:
            self.run_once(cluster, suffix, [node_id(case) for case in late])
        return seen

    def run_once(self, cluster, suffix, which, late=None):
        """The cases that ran; `late` gets those to be run again."""
        seen = set()
        for name, outcome, note, seconds in self.pytest(cluster, which):
            seen.add(name)
            if late is not None and self.kept.again(name + suffix, outcome,
                                                    note):
                late.append(name)
                self.report.second_try(self.suite, name + suffix, note)
                continue
            self.report.outcome(self.suite, self.kept, name + suffix, outcome,
                                note, seconds)
        return seen

    def pytest(self, cluster, which):
        """[(case, outcome, note, seconds)]"""
        env = dict(os.environ, KAFKA_VERSION=KAFKA,
                   KAFKA_URI="kafka://" + cluster.bootstrap.split(",")[0])
        env.pop("CI", None)
        with tempfile.TemporaryDirectory(
                prefix="flotilla-kafka-python-") as folder:
            out = os.path.join(folder, "report.xml")
            try:
                done = subprocess.run(
                    [os.path.join(self.folder, "venv", "bin", "python"), "-m",
                     "pytest", "-q", "--timeout", "120", "--junitxml", out,
                     "-p", "no:cacheprovider",
                     # its project has every DEBUG line kept, which makes the
                     # client slow enough to lose races with itself
                     "-p", "no:logging"] + which,
                    cwd=os.path.join(self.folder, "src"), env=env, timeout=900,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            except subprocess.TimeoutExpired:
                raise Failed("no end after 900 s")
            expect(os.path.exists(out), tail(done.stdout))
            return outcomes(ElementTree.parse(out).getroot())


def outcomes(report):
    """The cases of pytest's report, each once: a failure of its clean-up comes
    as a second one."""
    found = {}
    for case in report.iter("testcase"):
        name = "%s::%s" % (case.get("classname").split(".")[-1],
                           case.get("name"))
        outcome, note = "pass", ""
        for kind, word in (("failure", "fail"), ("error", "fail"),
                           ("skipped", "skip")):
            what = case.find(kind)
            if what is not None:
                outcome = word
                note = "%s\n%s" % (what.get("message") or "",
                                   (what.text or "")[-1500:])
                break
        found.setdefault(name, (name, outcome, note,
                                float(case.get("time") or 0)))
    return list(found.values())
