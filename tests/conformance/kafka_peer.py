"""Apache Kafka 4.3.1 itself, to compare with (tests/bench measures it as well):
brokers in combined mode at Kafka's defaults, from the jars that kafka_jars.sh
fetches."""
import os
import shutil
import socket
import subprocess
import tempfile
import time

from harness import Failed, ROOT, die_with_parent, free_ports, run, tail

HERE = os.path.dirname(os.path.abspath(__file__))


class KafkaPeer:
    """Broker N listens on port + N - 1; node ids from 1 on, as ours."""
    # of the virtual machine: small, and quick to start
    machine = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

    def __init__(self, build, n=1, port=39192, defines=(),
                 prefix="kafka-peer-"):
        self.folder = os.path.join(ROOT, build, "kafka")
        self.n = n
        self.defines = list(defines)
        self.port = free_ports(port, 2 * n)
        self.dir = tempfile.mkdtemp(prefix=prefix)
        self.processes = []
        self.formatted = None  # when the directories were; not starting yet

    @property
    def bootstrap(self):
        return ",".join("127.0.0.1:%d" % (self.port + i)
                        for i in range(self.n))

    def java(self, *args):
        return ["java"] + list(self.machine) + [
            "-Dlog4j2.level=WARN", "-cp",
            os.path.join(self.folder, "jars", "*")] + list(args)

    def start(self, timeout=90):
        run([os.path.join(HERE, "kafka_jars.sh"), self.folder], timeout=600)
        self.begin()
        self.wait(timeout)

    def begin(self):
        """Without waiting for them."""
        for i in range(self.n):
            with open(self.path(i), "w") as f:
                f.write(self.properties(i))
            run(self.java("kafka.tools.StorageTool", "format", "-t",
                          "MkU3OEVBNTcwNTJENDM2Qg", "-c", self.path(i)))
        self.formatted = time.monotonic()
        for i in range(self.n):
            with open(self.path(i) + ".log", "wb") as log:
                self.processes.append(subprocess.Popen(
                    self.java("kafka.Kafka", self.path(i)), stdout=log,
                    stderr=log, stdin=subprocess.DEVNULL,
                    preexec_fn=die_with_parent))

    def path(self, i):
        return os.path.join(self.dir, "%d.properties" % (i + 1))

    def pids(self):
        return [p.pid for p in self.processes]

    def properties(self, i):
        voters = ",".join("%d@127.0.0.1:%d" % (k + 1, self.port + self.n + k)
                          for k in range(self.n))
        replicas = min(3, self.n)
        return """process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%s/data-%d
offsets.topic.replication.factor=%d
default.replication.factor=%d
transaction.state.log.replication.factor=%d
%s
""" % (i + 1, voters, self.port + i, self.port + self.n + i, self.dir, i + 1,
            replicas, replicas, replicas, "\n".join(self.defines))

    def wait(self, timeout):
        end = time.monotonic() + timeout
        for i in range(self.n):
            while True:
                try:
                    socket.create_connection(("127.0.0.1", self.port + i),
                                             2).close()
                    break
                except OSError:
                    if time.monotonic() > end or \
                            self.processes[i].poll() is not None:
                        text = self.log(i)
                        self.stop()
                        raise Failed("Kafka did not start: " + text)
                    time.sleep(0.3)

    def log(self, i):
        with open(self.path(i) + ".log", "rb") as f:
            return tail(f.read(), 2000)

    def stop(self):
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            try:
                p.wait(30)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
