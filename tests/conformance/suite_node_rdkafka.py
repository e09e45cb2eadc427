"""node-rdkafka's end-to-end tests, from its npm package."""
import json
import os
import re
import subprocess
import tempfile
import time

from fetch import once, script
from harness import Cluster, expect, run, tail
from kept import Kept, judge

# these must be there before, with one partition each
TOPICS = ["test"] + ["test%d" % i for i in range(2, 7)]
# Its consuming loop hands each message to JavaScript by a queue that is dropped
# when the consumer disconnects, and what lies there is never freed; librdkafka's
# destroy then waits for it for ever. The disconnect waits for the loop's last
# poll (1000 ms); the broker's answer to the last fetch (after 1000 ms in these
# tests) tells the end of the partition at that very moment: first or last. On
# Kafka 4.3.1 it hangs the same way, now and then; where the fetch may take longer
# than the poll it never does, so that is what these tests are given.
LOOPS = ("both.spec.js",)
WAIT = "'fetch.wait.max.ms': %d,"


class NodeRdkafka:
    def __init__(self, report, build, port):
        self.report, self.build, self.port = report, build, port
        self.kept = Kept("node-rdkafka")

    def all(self):
        suite = self.report.suite("node-rdkafka 3.6.1 (e2e)")
        if not self.report.check("fetch and build", self.fetch):
            return
        cluster = Cluster(self.build, 3, self.port, [
            "group.initial.rebalance.delay.ms=0", "num.partitions=1"])
        if not self.report.check("start of three brokers", lambda: (
                cluster.start(), None)[1]):
            return
        begun = time.monotonic()
        failed = suite.failed
        try:
            for topic in TOPICS:
                run([cluster.binary, "topic", "create", topic, "-p", "1", "-b",
                     cluster.bootstrap])
            self.report.check("all ran", self.run_tests, suite, cluster)
        finally:
            cluster.stop()
            suite.seconds = time.monotonic() - begun
            if suite.failed > failed:
                print(cluster.logs())
            cluster.remove()

    def fetch(self):
        self.folder = once("node-rdkafka-3.6.1",
                           script("node_rdkafka.sh", 1200))

    def run_tests(self, suite, cluster):
        seen = set()
        folder = os.path.join(self.folder, "package")
        specs = sorted(n for n in os.listdir(os.path.join(folder, "e2e"))
                       if n.endswith(".spec.js"))
        for spec in specs:
            self.report.check("%s ended" % spec, self.run_spec, suite, cluster,
                              folder, spec, seen)
        expect(len(seen) > 50, "%d cases only" % len(seen))

    def run_spec(self, suite, cluster, folder, spec, seen):
        """Cases that leave a client which does not end would take those behind
        them along: where that can be, each has a process of its own."""
        if spec not in LOOPS:
            self.run_cases(suite, cluster, folder, spec, seen)
            return
        spec = patient(folder, spec)
        for title in self.titles(folder, spec):
            self.run_cases(suite, cluster, folder, spec, seen, title)

    def mocha(self, cluster, folder, out, *args):
        env = dict(os.environ, KAFKA_HOST=cluster.bootstrap)
        env.pop("CI", None)
        return subprocess.Popen(
            [os.path.join("node_modules", ".bin", "mocha"), "--exit",
             "--timeout", "30000", "--reporter", "json-stream"] + list(args),
            cwd=folder, env=env, stdout=out, stderr=out)

    def titles(self, folder, spec):
        out = run([os.path.join(folder, "node_modules", ".bin", "mocha"),
                   "--dry-run", "--reporter", "json-stream",
                   os.path.join(folder, "e2e", spec)], timeout=60)
        return [what["fullTitle"] for word, what in told(out)
                if word == "pass"]

    def run_cases(self, suite, cluster, folder, spec, seen, title=None):
        only = ["--grep", "^%s$" % re.escape(title)] if title else []
        with tempfile.TemporaryFile() as out:
            child = self.mocha(cluster, folder, out,
                               os.path.join("e2e", spec), *only)
            hung = self.wait(child, out)
            out.seek(0)
            text = out.read()
        ended, excused = False, False
        for word, what in told(text):
            ended |= word == "end"
            if word not in ("pass", "fail"):
                continue
            name = what["fullTitle"].replace(" ", "_")
            if name in seen:
                name += "_again"
            seen.add(name)
            note = "%s\n%s" % (what.get("err", ""), what.get("stack", "")) \
                if word == "fail" else ""
            self.report.outcome(suite, self.kept, name, word, note,
                                (what.get("duration") or 0) / 1000)
            excused |= judge(self.kept, name, word, note)[0] == "expected"
        expect(ended, "%s did not end well: %s" % (spec, tail(text)))
        expect(not hung or (title and excused), "%s: %s" % (spec, hung))

    @staticmethod
    def wait(child, out):
        """Until it ends, or told its end and hangs in its exit: what of it
        hung, or None."""
        limit = time.monotonic() + 300
        while time.monotonic() < limit:
            if child.poll() is not None:
                return None
            time.sleep(0.2)
            if b'["end"' in os.pread(out.fileno(), 1 << 24, 0):
                limit = min(limit, time.monotonic() + 10)
        child.kill()
        child.wait()
        return "killed, as it did not end"


def patient(folder, spec):
    """A copy of a spec whose consumers' fetches may take 1500 ms."""
    copy = "patient-" + spec.replace(".spec", "")
    with open(os.path.join(folder, "e2e", spec)) as f:
        text = f.read()
    expect(WAIT % 1000 in text, "%s is another one" % spec)
    with open(os.path.join(folder, "e2e", copy), "w") as f:
        f.write(text.replace(WAIT % 1000, WAIT % 1500))
    return copy


def told(text):
    """What mocha tells, line by line: (word, details)."""
    for line in text.decode("utf-8", "replace").split("\n"):
        try:
            word, what = json.loads(line)
        except (ValueError, TypeError):
            continue
        yield word, what
