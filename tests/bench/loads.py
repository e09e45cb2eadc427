"""One load on one cluster: a dict of figures. Rates are records a second,
times milliseconds."""
import json
import os
import re
import subprocess
import time

import harness


class Driver:
    def __init__(self, options):
        self.options = options
        build = os.path.join(harness.ROOT, options.build)
        self.jars = os.path.join(build, "kafka", "jars")
        self.flotilla = os.path.join(build, "flotilla")
        self.nats = os.path.join(build, "nats", "load")
        self.topics = 0

    # ---- topics and streams ----------------------------------------------
    def make_topic(self, cluster, partitions):
        """Waits for a cluster that is still starting."""
        self.topics += 1
        name = "bench-%d" % self.topics
        if cluster.wire == "nats":
            harness.run([self.nats, "-url", cluster.url, "-stream", name,
                         "-streams", str(partitions), "-create"], timeout=120)
            return name
        for _ in range(240):
            done = subprocess.run(
                [self.flotilla, "topic", "create", name, "-p",
                 str(partitions), "-r", "3", "-b", cluster.bootstrap,
                 "--if-not-exists", "--wait", "60"],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if done.returncode == 0:
                return name
            time.sleep(0.25)
        raise harness.Failed("topic %s cannot be created: %s" % (
            name, harness.tail(done.stderr)))

    def delete_topic(self, cluster, name):
        """So that a run's data does not grow with the number of rows."""
        if cluster.wire == "kafka":
            subprocess.run([self.flotilla, "topic", "delete", name, "--yes",
                            "-b", cluster.bootstrap],
                           stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)

    # ---- producing ---------------------------------------------------------
    def java(self, main, *args, timeout=900):
        return harness.run(["java", "-Xmx512m", "-cp", self.jars + "/*",
                            "org.apache.kafka.tools." + main] + list(args),
                           timeout=timeout).decode()

    def produce_java(self, cluster, topic, row):
        out = self.java(
            "ProducerPerformance", "--topic", topic, "--num-records",
            str(row.warm + row.records), *(["--warmup-records", str(row.warm)]
                                           if row.warm else []),
            "--record-size", str(row.size), "--throughput",
            str(row.rate or -1), "--bootstrap-server", cluster.bootstrap,
            "--command-property", "acks=all",
            *sum((["--command-property", p] for p in row.java), []))
        last = out.strip().split("\n")[-1]  # of a warm client, if asked for
        m = re.search(r"([\d.]+) records/sec .*?(\d+) ms 50th, (\d+) ms 95th, "
                      r"(\d+) ms 99th, (\d+) ms 99.9th", last)
        return {"rate": float(m.group(1)), "p50": float(m.group(2)),
                "p99": float(m.group(4)), "p99.9": float(m.group(5))}

    def produce_rdkafka(self, cluster, topic, row):
        out = harness.run(
            [self.flotilla, "bench", "produce", topic, "-n", str(row.records),
             "-s", str(row.size), "-b", cluster.bootstrap, "-o", "json",
             "--wait", "300"] +
            (["-r", str(row.rate)] if row.rate else []) +
            sum((["-X", p] for p in row.rdkafka), []), timeout=900)
        r = json.loads(out)
        harness.expect(r["failed"] == 0, "%d records failed" % r["failed"])
        return {"rate": r["records_per_second"], "p50": r["p50_ms"],
                "p99": r["p99_ms"], "p99.9": r["p99_9_ms"],
                "gap": r["longest_partition_gap_ms"]}

    def produce_nats(self, cluster, topic, row):
        out = harness.run(
            [self.nats, "-url", cluster.url, "-stream", topic, "-streams",
             str(row.partitions), "-n", str(row.records), "-size",
             str(row.size), "-outstanding", str(row.outstanding)] +
            (["-rate", str(row.rate)] if row.rate else []), timeout=900)
        r = json.loads(out)
        return {"rate": r["records_per_second"], "p50": r["p50_ms"],
                "p99": r["p99_ms"], "p99.9": r["p99_9_ms"]}

    # ---- consuming ---------------------------------------------------------
    def consume_command(self, cluster, topic, row):
        return [self.flotilla, "bench", "consume", topic, "-n",
                str(row.records), "-b", cluster.bootstrap, "-o", "json"]

    def consume_rdkafka(self, cluster, topic, row):
        r = json.loads(harness.run(self.consume_command(cluster, topic, row),
                                   timeout=600))
        return {"rate": r["records_per_second"]}

    def tail_rdkafka(self, cluster, topic, row):
        """A consumer reads what a producer writes meanwhile: the consumer's
        rate, the producer's times."""
        reader = subprocess.Popen(
            self.consume_command(cluster, topic, row) + ["--wait", "300"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            figures = self.produce_rdkafka(cluster, topic, row)
            out, err = reader.communicate(timeout=600)
        finally:
            reader.kill()
        harness.expect(reader.returncode == 0, harness.tail(err))
        figures["rate"] = json.loads(out)["records_per_second"]
        return figures

    def consume_java(self, cluster, topic, row):
        out = self.java("ConsumerPerformance", "--topic", topic,
                        "--num-records", str(row.records),
                        "--bootstrap-server", cluster.bootstrap, "--timeout",
                        "60000", "--hide-header")
        fields = out.strip().split("\n")[-1].split(",")
        return {"rate": float(fields[5])}

    # ---- one broker killed ---------------------------------------------------
    def kill_one(self, cluster, topic, row):
        """The longest time without an acknowledgement on any one partition
        around the kill of a broker, under a steady load."""
        load = subprocess.Popen(
            [self.flotilla, "bench", "produce", topic, "-n", str(row.records),
             "-s", str(row.size), "-r", str(row.rate), "-b",
             cluster.bootstrap, "-o", "json", "--wait", "120"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(row.records / row.rate / 3)
        os.kill(cluster.pids()[1], 9)
        out, err = load.communicate(timeout=300)
        harness.expect(load.returncode == 0, harness.tail(err))
        return {"gap": json.loads(out)["longest_partition_gap_ms"]}
