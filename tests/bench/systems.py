"""The clusters that are measured: three brokers each, on loopback."""
import os
import shutil
import subprocess
import tempfile

import harness
import kafka_peer

NATS_VERSION = "2.15.2"
NATS_ROUTES = 3


class Flotilla(harness.Cluster):
    name, wire = "flotilla", "kafka"

    def __init__(self, options):
        super().__init__(options.build, port=options.port)

    def start(self):
        super().start()

    def pids(self):
        return [self.pid(i) for i in range(1, self.n + 1)]

    def stop(self):
        super().stop()
        self.remove()


class Processes:
    """Three processes of one directory; what they print goes to its files."""

    def __init__(self, prefix):
        self.dir = tempfile.mkdtemp(prefix="flotilla-bench-" + prefix + "-")
        self.processes = []

    def spawn(self, args):
        with open(os.path.join(self.dir, "%d.log" % len(self.processes)),
                  "wb") as log:
            self.processes.append(subprocess.Popen(
                args, stdout=log, stderr=log,
                preexec_fn=harness.die_with_parent))

    def pids(self):
        return [p.pid for p in self.processes]

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


class Kafka(kafka_peer.KafkaPeer):
    """Three KRaft brokers in combined mode, as Kafka's own files set them:
    no sync before the acknowledgement."""
    name, wire = "kafka", "kafka"
    machine = ("-Xmx1g", "-Xms1g", "-XX:+UseG1GC")
    more = ()

    def __init__(self, options):
        super().__init__(options.build, 3, 27092, self.more,
                         "flotilla-bench-%s-" % self.name)

    def start(self):
        self.begin()


class KafkaSync(Kafka):
    """The same with a sync of every append."""
    name = "kafka-sync"
    more = ("log.flush.interval.messages=1",)


class Nats(Processes):
    """NATS JetStream with file storage, at its defaults: a sync every two
    minutes."""
    name, wire, more = "nats", "nats", ""

    def __init__(self, options):
        super().__init__(self.name)
        self.tools = os.path.join(harness.ROOT, options.build, "nats")
        self.port = harness.free_ports(24222, 16)
        self.url = ",".join("nats://127.0.0.1:%d" % (self.port + i)
                            for i in range(3))

    def start(self):
        routes = ", ".join("nats://127.0.0.1:%d" % (self.port + 10 + i)
                           for i in range(NATS_ROUTES))
        for i in range(3):
            path = os.path.join(self.dir, "%d.conf" % i)
            with open(path, "w") as f:
                f.write("""server_name: n%d
listen: 127.0.0.1:%d
cluster { name: bench, listen: "127.0.0.1:%d", routes: [%s] }
jetstream { store_dir: "%s/data-%d"%s }
""" % (i, self.port + i, self.port + 10 + i, routes, self.dir, i, self.more))
            self.spawn([os.path.join(self.tools, "nats-server"), "-c", path])


class NatsSync(Nats):
    """The same with a sync of every message."""
    name = "nats-sync"
    more = ", sync_interval: always"


ALL = {s.name: s for s in (Flotilla, Kafka, KafkaSync, Nats, NatsSync)}


def install(names, build):
    """Fetches and builds what the named systems need, below the build's
    folder."""
    root = os.path.join(harness.ROOT, build)
    harness.run([os.path.join(harness.ROOT, "tests", "conformance",
                              "kafka_jars.sh"), os.path.join(root, "kafka")],
                timeout=900)
    if not any(ALL[n].wire == "nats" for n in names):
        return
    if shutil.which("go") is None:
        raise harness.Failed("NATS is built by Go, which is not there; install "
                             "Go 1.25 or newer, or leave out nats")
    tools = os.path.join(root, "nats")
    os.makedirs(tools, exist_ok=True)
    if not os.path.exists(os.path.join(tools, "nats-server")):
        harness.run(["go", "install", "github.com/nats-io/nats-server/v2@v" +
                     NATS_VERSION], timeout=900,
                    env=dict(os.environ, GOBIN=tools))
    subprocess.run(["go", "build", "-o", os.path.join(tools, "load"), "."],
                   cwd=os.path.join(harness.ROOT, "tests", "bench", "nats"),
                   check=True, timeout=600)
