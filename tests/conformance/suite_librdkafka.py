"""librdkafka's own tests, its runner started once for each number of
foreign/librdkafka.plan so that each has its own limit of time."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from fetch import cache, once, script
from harness import Cluster, Failed, expect, run
from kafka_path import kafka_path
from kept import Kept

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.join("package", "deps", "librdkafka", "tests")
# Kafka's delay is 3 s. With none, whether two consumers that start together
# meet in the first generation is chance, and 0089 expects it.
DEFINES = ["group.initial.rebalance.delay.ms=100", "num.partitions=4",
           "broker.rack=RACK{n}"]
STATES = {"PASSED": "pass", "SKIPPED": "skip"}  # any other is a failure
KILL_EVERY_S = 60
DOWN_S = 3


class Plan:
    """A line of the plan."""

    def __init__(self, words):
        self.number, self.how, self.seconds = words[0], words[1], int(words[2])
        rest = words[3:]
        self.short = "short" in rest
        self.only = next((w[5:] for w in rest if w.startswith("only=")), None)
        if self.only and not self.only.startswith("do_test"):
            self.only = self.only.replace("_", " ")

    def case(self, test):
        if self.only:
            return test + "/" + self.only.replace("do_test_", "").replace(
                " ", "_").strip(":")
        return test


def read_plan():
    with open(os.path.join(HERE, "foreign", "librdkafka.plan")) as f:
        lines = [line.split() for line in f]
    return [Plan(words) for words in lines
            if words and not words[0].startswith("#")]


def read_table(path):
    """{test: scenario} from the runner's table, without those that need no
    broker and those that are for hands only."""
    with open(path, encoding="utf-8") as f:
        text = f.read()
    text = text[text.index("struct test tests[] = {"):]
    text = text[:text.index("{NULL}};")]
    tests = {}
    for name, rest in re.findall(r"_TEST\((\d{4}_\w+),((?:[^_]|_(?!TEST\())*)",
                                 text):
        flags = rest.split(",")[0].split(")")[0]
        scenario = re.search(r'\.scenario = "([\w,]+)"', rest)
        if "TEST_F_LOCAL" not in flags and not name.startswith("8"):
            tests[name] = scenario.group(1) if scenario else "default"
    return tests


class Librdkafka:
    def __init__(self, report, build, port, full, chaos=False, only=None,
                 protocol="classic", jobs=2):
        self.report, self.build, self.port = report, build, port
        self.full, self.chaos, self.jobs = full, chaos, jobs
        self.only = only
        self.protocol = protocol
        self.kept = Kept("librdkafka",
                         *(["librdkafka-chaos"] if chaos else []))
        self.late = []  # lines of the plan to be run once more
        self.outputs = tempfile.mkdtemp(prefix="flotilla-librdkafka-")

    def all(self):
        begun = time.monotonic()
        try:
            self.run_all()
        finally:
            self.suite.seconds = time.monotonic() - begun
            if not self.suite.failed:  # else they are what to look at
                shutil.rmtree(self.outputs, ignore_errors=True)

    def run_all(self):
        name = "librdkafka 2.15.1 (own tests)"
        self.suite = self.report.suite(name + (", brokers killed"
                                               if self.chaos else ""))
        if not self.report.check("fetch and build", self.fetch):
            return
        plan = [p for p in read_plan()
                if (self.full or p.short) and
                (not self.only or p.number in self.only)]
        if self.full and not self.only:
            self.report.check("every test is in the plan", self.complete, plan)
        for create in ("true", "false"):
            part = [p for p in plan
                    if (p.how == "noautocreate") == (create == "false")]
            if any(self.wanted(p) for p in part):
                self.on_cluster(part, create)
            else:
                self.run_plan(part)
        if self.full and not self.only:
            self.report.check("every line of the kept list was met",
                              self.list_is_true)

    def fetch(self):
        folder = once("librdkafka", script("librdkafka.sh", 1200))
        self.tests = os.path.join(folder, TESTS)
        self.kafka_path = kafka_path()
        if not os.path.exists(os.path.join(self.tests, "java",
                                           "Murmur2Cli.class")):
            run(["make", "-C", os.path.join(self.tests, "java"),
                 "KAFKA_PATH=" + self.kafka_path], timeout=120)
        self.table = read_table(os.path.join(self.tests, "test.c"))

    def complete(self, plan):
        numbers = {p.number for p in plan}
        left = [t for t in self.table if t[:4] not in numbers]
        expect(not left, "not in the plan: %s" % " ".join(left))
        expect(len(self.table) > 100, "the runner's table was not understood")
        return "%d tests need a broker" % len(self.table)

    def list_is_true(self):
        expect(not self.kept.unmet(), "no such case: %s" % " ".join(
            self.kept.unmet()))

    def cases(self, p):
        scenario = "noautocreate" if p.how == "noautocreate" else "default"
        return [t for t in self.table
                if t[:4] == p.number and scenario in self.table[t].split(",")]

    def wanted(self, p):
        """Some test of it applies."""
        return any(self.kept.find(p.case(t))[0] != "skips"
                   for t in self.cases(p))

    def on_cluster(self, plan, create):
        cluster = Cluster(self.build, 3, self.port, DEFINES + [
            "auto.create.topics.enable=" + create])
        if not self.report.check("start of three brokers", lambda: (
                cluster.start(), None)[1]):
            return
        self.bootstrap = cluster.bootstrap
        self.conf = os.path.join(self.outputs, "test-%s.conf" % create)
        with open(self.conf, "w") as f:
            f.write("metadata.broker.list=%s\ntest.timeout.multiplier=%d\n"
                    % (cluster.bootstrap, 3 if self.chaos else 2))
        killer = Killer(cluster) if self.chaos else None
        failed = self.suite.failed
        try:
            self.run_plan(plan)
        finally:
            if killer:
                kills = killer.end()
                self.report.check("brokers came back", lambda: (
                    expect(killer.error is None, str(killer.error)),
                    cluster.wait_all())[1] or "%d kills" % kills)
            cluster.stop()
            if killer:
                killer.release()
            if self.suite.failed > failed:
                print(cluster.logs())
            cluster.remove()

    def run_plan(self, plan):
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(self.run_line, sorted(
                plan, key=lambda p: -p.seconds)))
        late, self.late = self.late, []
        for p in sorted(late, key=lambda p: (p.number, p.only or "")):
            self.run_line(p, True)

    def run_line(self, p, second=False):
        if not self.wanted(p):
            for t in self.cases(p):
                self.report.outcome(self.suite, self.kept, p.case(t), "skip",
                                    "not run")
            return
        seconds = p.seconds * (3 if self.chaos else 1)
        tag = "%s-%s-%s%s" % (p.number, p.how, (p.only or "").strip(":"),
                              "-again" if second else "")
        told = os.path.join(self.outputs, tag + ".json")
        out = os.path.join(self.outputs, tag + ".txt")
        args = ["./test-runner", "-p1", "-L"]
        args += ["-Q"] if p.how == "quick" else []
        args += ["-E"] if p.how != "sockem" else []
        args += ["-s", "noautocreate"] if p.how == "noautocreate" else []
        env = dict(os.environ, LD_LIBRARY_PATH="../src:../src-cpp",
                   TEST_KAFKA_VERSION="4.3.1", TESTS=p.number,
                   TEST_CONSUMER_GROUP_PROTOCOL=self.protocol,
                   RDKAFKA_TEST_CONF=self.conf, BROKERS=self.bootstrap,
                   KAFKA_PATH=self.kafka_path, TEST_REPORT=told)
        env.pop("CI", None)  # it makes the runner more patient
        if p.only:
            env["SUBTESTS"] = p.only
        begun = time.monotonic()
        note = self.run_child(args, env, out, seconds)
        took = time.monotonic() - begun
        self.tell(p, told, out, note, took, second)

    def run_child(self, args, env, out, seconds):
        """None, or how it ended without ending well."""
        with open(out, "wb") as f:
            child = subprocess.Popen(args, cwd=self.tests, env=env, stdout=f,
                                     stderr=f, stdin=subprocess.DEVNULL,
                                     start_new_session=True)
            try:
                status = child.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, 9)
                child.wait()
                return "no end after %d s" % seconds
        return "status %d" % status if status else None

    def tell(self, p, told, out, note, took, second):
        try:
            with open(told, encoding="utf-8", errors="replace") as f:
                states = json.load(f, strict=False)["tests"]
        except (OSError, ValueError):
            states = {}
        results = [(p.case(t),) + self.result(p, t, states, out, note)
                   for t in self.cases(p)]
        late = [] if second else [r for r in results if self.kept.again(*r)]
        for case, outcome, text in late:
            self.report.second_try(self.suite, case, text)
        if late:
            self.late.append(p)
            return
        for case, outcome, text in results:
            self.report.outcome(self.suite, self.kept, case, outcome, text,
                                took)

    def result(self, p, test, states, out, note):
        """(outcome, text) of a test."""
        state = states.get(test, {}).get("state", "no report")
        outcome = STATES.get(state, "fail")
        if note and len(self.cases(p)) == 1 and outcome == "pass":
            outcome = "fail"  # its threads did not end, for example
        if outcome == "fail":
            return outcome, "%s, %s; %s\n%s" % (state, note, out,
                                                failure(out))
        if outcome == "pass" and p.only and not subtest_ran(out, p.only):
            return "fail", "the sub-test was not run; " + out
        return outcome, ""


def subtest_ran(path, name):
    with open(path, "rb") as f:
        return re.search(rb"\[ [^\n]*" + re.escape(name.encode()), f.read())


def failure(path):
    """What the runner wrote where a test failed."""
    with open(path, "rb") as f:
        text = f.read().decode("utf-8", "replace")
    text = re.sub(r"\x1b\[\d+m", "", text)
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if "### Test" in line:
            return "\n".join(lines[i:i + 3])
    return "\n".join(lines[-5:])


class Killer:
    """Kills a broker every 60 s and starts it again, one after the other."""

    def __init__(self, cluster):
        self.cluster, self.kills, self.error = cluster, 0, None
        self.stop, self.idle = threading.Event(), threading.Event()
        self.released = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.stop.wait(KILL_EVERY_S - DOWN_S):
                node = 1 + self.kills % self.cluster.n
                pid = self.cluster.kill(node)
                self.cluster.wait_dead(node, pid)
                time.sleep(DOWN_S)
                self.cluster.restart(node)
                self.kills += 1
        except (Failed, OSError) as e:
            self.error = e
        self.idle.set()
        # brokers die with the thread that started them
        self.released.wait()

    def end(self):
        """No kill comes any more; the brokers run on until release()."""
        self.stop.set()
        self.idle.wait(60)
        return self.kills

    def release(self):
        self.released.set()
