"""The brokers of a run, and what is known of their health: who is down or cut
off, so that the time without an acknowledgement is counted only while every
partition has a majority."""
import os
import signal
import subprocess
import threading
import time

from world import Disk, Impossible, address, in_namespace

FAKETIME = "/usr/lib/%s/faketime/libfaketimeMT.so.1"
PORT = 9092
PEER_PORT = 9093
EXIT_DISK = 70  # a broker whose disk fails ends with this
# The one damage after which a broker may refuse to start for good.
HALT = b"a term or a vote may be lost"
START_S = 60
STOP_S = 30


def faketime_library():
    machine = os.uname().machine + "-linux-gnu"
    path = FAKETIME % machine
    if not os.path.exists(path):
        raise Impossible("package faketime: %s is not there" % path)
    return path


class Broker:
    """One `flotilla server` process on its own disk, in its own network."""

    def __init__(self, cluster, number, disk):
        self.cluster, self.number, self.disk = cluster, number, disk
        self.process = None
        self.ready = threading.Event()
        self.excuse = None     # its end may come of this
        self.halted = False    # for good: it cannot prove its vote
        self.lock = threading.Lock()
        self.home = os.path.join(cluster.run_dir, "broker-%d" % number)
        os.makedirs(self.home)
        self.clock = os.path.join(self.home, "clock")
        self.set_clock(0)
        self.config = os.path.join(self.home, "server.properties")
        self.starts = 0
        with open(self.config, "w") as f:
            f.write(self.properties())

    def properties(self):
        c = self.cluster
        values = {
            "node.id": self.number,
            "listeners": "PLAINTEXT://%s:%d" % (address(self.number), PORT),
            "peer.listener": "%s:%d" % (address(self.number), PEER_PORT),
            "seeds": ",".join("%s:%d" % (address(i), PEER_PORT)
                              for i in range(1, c.n + 1)),
            "log.dirs": os.path.join(self.disk.path, "data"),
            "num.partitions": 2,
            "default.replication.factor": c.replicas,
            "offsets.topic.replication.factor": c.replicas,
            "offsets.topic.num.partitions": 4,
            "auto.create.topics.enable": "true",
            "log.segment.bytes": MIB,
            "wal.bytes.max": 32 * MIB,
            "wal.file.bytes": 4 * MIB,
            "log.buffer.bytes": 32 * MIB,
            "shards": c.shards,
        }
        return "".join("%s=%s\n" % item for item in values.items())

    # ---- the process

    def start(self, wait=True):
        with self.lock:
            if self.halted or (self.process is not None and
                               self.process.poll() is None):
                return
            env = dict(os.environ)
            if self.cluster.faketime:
                env.update(LD_PRELOAD=self.cluster.faketime,
                           FAKETIME_TIMESTAMP_FILE=self.clock,
                           FAKETIME_CACHE_DURATION="1",
                           FAKETIME_DONT_FAKE_MONOTONIC="1",
                           DONT_FAKE_MONOTONIC="1", NO_FAKE_STAT="1",
                           FAKETIME_DONT_RESET="1")
            if self.cluster.preload:
                env["LD_PRELOAD"] = self.cluster.preload
            self.ready.clear()
            self.starts += 1
            self.process = subprocess.Popen(
                in_namespace(self.number, [self.cluster.binary, "server",
                                           "--config", self.config]),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, env=env, cwd=self.home)
        threading.Thread(target=self.watch, args=(self.process,),
                         daemon=True).start()
        if wait:
            self.wait_ready()

    def watch(self, process):
        """Its log with times; and what its end means."""
        with open(os.path.join(self.home, "log"), "ab") as log:
            stamp = lambda: b"%9.3f " % self.cluster.elapsed()
            log.write(stamp() + b"---- process %d starts\n" % process.pid)
            for line in process.stdout:
                log.write(stamp() + line)
                log.flush()
                self.halted = self.halted or HALT in line
                if line.startswith(b"ready: "):
                    self.ready.set()
                    self.cluster.mark(self.number, "down", False)
            status = process.wait()
            log.write(stamp() + b"---- ended with %d\n" % status)
        if process is self.process:
            self.cluster.mark(self.number, "down", True)
            if not getattr(process, "meant_to_end", False):
                self.cluster.unexpected_end(self, status)

    def wait_ready(self, seconds=START_S):
        until = time.monotonic() + seconds
        while not self.ready.wait(0.1):
            if self.process.poll() is not None:
                return False
            if time.monotonic() > until:
                return False
        return True

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def expect_end(self):
        """Its end is somebody's doing: this process's, as the next one may
        start before the watcher looks."""
        if self.process is not None:
            self.process.meant_to_end = True

    def end(self, number):
        """A signal that is meant to end it; waits for that."""
        if self.process is None:
            return
        self.expect_end()
        self.cluster.mark(self.number, "down", True)
        try:
            self.process.send_signal(number)
            if number == signal.SIGKILL:
                self.process.send_signal(signal.SIGCONT)
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.cluster.problem("broker %d still runs %d s after signal %d"
                                 % (self.number, STOP_S, number))
            self.process.kill()
            self.process.wait()
        status = self.process.returncode
        if number == signal.SIGTERM and status not in (0, -number):
            self.cluster.problem("broker %d ended with %d after SIGTERM" %
                                 (self.number, status))

    def kill(self):
        self.end(signal.SIGKILL)

    def set_clock(self, seconds):
        temporary = self.clock + ".new"
        with open(temporary, "w") as f:
            f.write("%+d\n" % seconds)
        os.rename(temporary, self.clock)


MIB = 1 << 20


class Cluster:
    def __init__(self, run_dir, disks_dir, binary, n, shards, size_mib):
        self.run_dir, self.binary, self.n = run_dir, binary, n
        self.replicas = min(3, n)
        self.shards = shards
        self.faketime = self.preload = None
        self.begun_ns = time.monotonic_ns()
        self.lock = threading.Lock()
        self.problems = []   # each one fails the run
        self.remarks = []    # each one is told
        self.bad = {i: {"down"} for i in range(1, n + 1)}
        self.windows = []    # [from, to] in ns since the beginning
        self.open_since = None
        self.brokers = [Broker(self, i, Disk(disks_dir, i, size_mib))
                        for i in range(1, n + 1)]

    def elapsed(self):
        return (time.monotonic_ns() - self.begun_ns) / 1e9

    def bootstrap(self):
        return ",".join("%s:%d" % (address(i), PORT)
                        for i in range(1, self.n + 1))

    def problem(self, text):
        with self.lock:
            self.problems.append("%.1f s: %s" % (self.elapsed(), text))

    def remark(self, text):
        with self.lock:
            self.remarks.append("%.1f s: %s" % (self.elapsed(), text))

    def unexpected_end(self, broker, status):
        if broker.halted:
            self.remark("broker %d has halted: its vote cannot be proven" %
                        broker.number)
            return
        if broker.excuse is not None and status > 0:
            self.remark("broker %d ended with %d: %s" %
                        (broker.number, status, broker.excuse))
            return
        self.problem("broker %d ended by itself with %d" %
                     (broker.number, status))

    def mark(self, number, what, bad):
        """A broker is (not) down, paused, cut off, ...; `number` 0 is for
        harm that all have."""
        with self.lock:
            reasons = self.bad.setdefault(number, set())
            (reasons.add if bad else reasons.discard)(what)
            lost = sum(1 for i, r in self.bad.items() if r and i > 0)
            well = lost <= (self.replicas - 1) // 2 and not self.bad.get(0)
            now = time.monotonic_ns() - self.begun_ns
            if well and self.open_since is None:
                self.open_since = now
            elif not well and self.open_since is not None:
                self.windows.append((self.open_since, now))
                self.open_since = None

    def windows_write(self, path, until_ns):
        with self.lock:
            if self.open_since is not None:
                self.windows.append((self.open_since, until_ns))
                self.open_since = None
            with open(path, "w") as f:
                for a, b in self.windows:
                    f.write("%d %d\n" % (a, min(b, until_ns)))

    def start(self):
        for b in self.brokers:
            b.start(wait=False)
        for b in self.brokers:
            if not b.wait_ready():
                raise Impossible("broker %d is not ready after %d s" %
                                 (b.number, START_S))

    def revive(self):
        """All brokers run and are ready; gives those that are not."""
        for b in self.brokers:
            if not b.alive():
                b.start(wait=False)
        away = [b for b in self.brokers if not b.wait_ready()]
        if away:
            time.sleep(0.5)  # until their last words are read
        return [b.number for b in away if not b.halted]

    def stop(self):
        for b in self.brokers:
            if b.alive():
                b.kill()
