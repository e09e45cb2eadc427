"""Programs of our own on others' clients: each prints a JSON line for every
check, and may ask that a broker be killed."""
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

from fetch import once
from harness import Cluster, Failed, expect, run, tail
from kept import Kept

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.path.join(HERE, "programs")
DOWN_S = 3


def node_modules():
    def make(folder):
        shutil.copy(os.path.join(PROGRAMS, "node", "package.json"), folder)
        run(["npm", "install", "--prefix", folder, "--no-audit", "--no-fund",
             "--no-package-lock"], timeout=300)
    with open(os.path.join(PROGRAMS, "node", "package.json"), "rb") as f:
        print_ = "%08x" % (hash_of(f.read()))
    return once("node-programs-" + print_, make)


def hash_of(data):
    import zlib
    return zlib.crc32(data)


def node(name):
    """The command of a Node program, beside the packages that it imports."""
    def command():
        folder = node_modules()
        for file in ("checks.mjs", name):
            shutil.copy(os.path.join(PROGRAMS, "node", file), folder)
        return ["node", os.path.join(folder, name)]
    return command


def sarama():
    source = os.path.join(PROGRAMS, "sarama")
    data = b""
    for name in sorted(os.listdir(source)):
        with open(os.path.join(source, name), "rb") as f:
            data += f.read()

    def make(folder):
        run(["go", "build", "-C", source, "-o", os.path.join(folder, "checks")],
            timeout=600)
    return [os.path.join(once("sarama-%08x" % hash_of(data), make), "checks")]


CLIENTS = {  # suite: (title, command)
    "kafkajs": ("kafkajs 2.2.4 (our program)", node("kafkajs.mjs")),
    "platformatic": ("@platformatic/kafka 1.35.0 (our program)",
                     node("platformatic.mjs")),
    "sarama": ("sarama 1.61.1 (our program)", sarama),
}


class Program:
    def __init__(self, report, build, port, name, full):
        self.report, self.build, self.port = report, build, port
        self.title, self.command = CLIENTS[name]
        self.kept = Kept(name)
        self.records = 20000 if full else 5000
        self.killed = 0
        self.back, self.ended = threading.Event(), threading.Event()
        self.kill_error = None

    def all(self):
        suite = self.report.suite(self.title)
        if not self.report.check("fetch", self.fetch):
            return
        self.cluster = Cluster(self.build, 3, self.port, [
            "group.initial.rebalance.delay.ms=100"])
        if not self.report.check("start of three brokers", lambda: (
                self.cluster.start(), None)[1]):
            return
        begun = time.monotonic()
        failed = suite.failed
        try:
            self.report.check("all checks ran", self.run_program, suite)
        finally:
            self.cluster.stop()
            self.ended.set()
            suite.seconds = time.monotonic() - begun
            if suite.failed > failed:
                print(self.cluster.logs())
            self.cluster.remove()

    def fetch(self):
        self.args = self.command()

    def run_program(self, suite):
        path = os.path.join(tempfile.gettempdir(), "flotilla-%s.err" % (
            self.title.split()[0].replace("/", "-")))
        with open(path, "w+b") as errors:
            child = subprocess.Popen(
                self.args + [self.cluster.bootstrap, "3", str(self.records)],
                stdout=subprocess.PIPE, stderr=errors)
            timer = threading.Timer(600, child.kill)
            timer.start()
            count = 0
            for line in child.stdout:
                try:
                    told = json.loads(line)
                except ValueError:
                    continue  # a client's own words
                if told.get("kill"):
                    threading.Thread(target=self.kill_one, daemon=True).start()
                    continue
                if "name" not in told:
                    continue
                count += 1
                self.report.outcome(
                    suite, self.kept, told["name"].replace(" ", "_"),
                    "pass" if told["ok"] else "fail", told["note"],
                    told["seconds"])
            child.stdout.close()
            status = child.wait()
            timer.cancel()
            errors.seek(0)
            expect(status == 0, "status %d, %s: %s" % (
                status, path, tail(errors.read(), 2000)))
        expect(count >= 7, "%d checks only" % count)
        self.back.wait(60)
        expect(self.killed == 1 and self.kill_error is None,
               "kills: %d %s" % (self.killed, self.kill_error))

    def kill_one(self):
        try:
            pid = self.cluster.kill(2)
            self.cluster.wait_dead(2, pid)
            time.sleep(DOWN_S)
            self.cluster.restart(2)
            self.killed += 1
            self.back.set()
            # a broker dies with the thread that started it
            self.ended.wait()
        except (Failed, OSError) as e:
            self.kill_error = e
            self.back.set()
