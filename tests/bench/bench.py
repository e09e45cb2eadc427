#!/usr/bin/env python3
"""Throughput, latency, CPU, memory and bytes written of three brokers on this
machine, beside Apache Kafka 4.3.1 and NATS JetStream in the same run. The
systems take turns: in every round, one after the other, each is started, does
all rows and is stopped. Figures are medians over the rounds; brokers' CPU is
user and system time of all three for a GB produced, settling included.

  tests/bench/bench.py [--rounds 3] [--systems flotilla,kafka,nats]
                       [--only TEXT] [--scale 1.0] [--out FOLDER]
"""
import argparse
import os
import re
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "conformance"))
import harness  # noqa: E402
import loads  # noqa: E402
import report  # noqa: E402
import rows as rows_of  # noqa: E402
import systems  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
WARM_UP = 500000  # records of 1 KiB
SETTLED = 4  # seconds after a load until its CPU and bytes are read


def usage(pids):
    """CPU seconds, bytes written, resident bytes (the largest broker)."""
    cpu = written = resident = 0
    for pid in pids:
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        cpu += (int(fields[11]) + int(fields[12])) / TICKS
        with open("/proc/%d/io" % pid) as f:
            written += int(re.search(r"write_bytes: (\d+)", f.read()).group(1))
        with open("/proc/%d/status" % pid) as f:
            rss = int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) * 1024
        resident = max(resident, rss)
    return cpu, written, resident


class Bench:
    def __init__(self, options):
        self.options = options
        self.driver = loads.Driver(options)
        self.results = {}  # (row, system, client) -> list of dicts

    def note(self, row, cluster, client, figures):
        self.results.setdefault((row.name, cluster.name, client),
                                []).append(figures)
        print("%-28s %-20s %s" % (
            row.name, cluster.name + ", " + client, "  ".join(
                "%s %.4g" % (title, figures[key])
                for key, title in report.FIGURES
                if figures.get(key) is not None)), flush=True)

    def produce(self, cluster, row, client):
        """Also of what is read meanwhile (kind "tail")."""
        topic = self.driver.make_topic(cluster, row.partitions)
        before = usage(cluster.pids())
        figures = getattr(self.driver, row.kind + "_" + client)(cluster, topic,
                                                                row)
        under_load = usage(cluster.pids())
        time.sleep(SETTLED)
        after = usage(cluster.pids())
        produced = (row.records +
                    (row.warm if client == "java" else 0)) * row.size
        if not row.rate:
            figures["mb"] = figures["rate"] * row.size / 1e6
        figures["cpu"] = (after[0] - before[0]) / (produced / 1e9)
        figures["written"] = (after[1] - before[1]) / produced
        figures["rss"] = max(under_load[2], after[2]) / 1e6
        self.note(row, cluster, client, figures)
        self.driver.delete_topic(cluster, topic)

    def consume(self, cluster, row):
        topic = self.driver.make_topic(cluster, row.partitions)
        self.driver.produce_rdkafka(cluster, topic, row)
        time.sleep(SETTLED)
        for client in row.clients:
            before = usage(cluster.pids())
            figures = getattr(self.driver, "consume_" + client)(cluster,
                                                                topic, row)
            after = usage(cluster.pids())
            figures["mb"] = figures["rate"] * row.size / 1e6
            figures["cpu"] = ((after[0] - before[0]) /
                              (row.records * row.size / 1e9))
            figures["rss"] = after[2] / 1e6
            self.note(row, cluster, client, figures)
        self.driver.delete_topic(cluster, topic)

    def row(self, cluster, row):
        if row.kind == "consume":
            self.consume(cluster, row)
        elif row.kind == "kill":
            topic = self.driver.make_topic(cluster, row.partitions)
            self.note(row, cluster, row.clients[0],
                      self.driver.kill_one(cluster, topic, row))
        else:
            clients = ("nats",) if cluster.wire == "nats" else row.clients
            for client in clients:
                self.produce(cluster, row, client)

    def start(self, cluster, row):
        """From the brokers' first process to the first record acknowledged."""
        begun = time.monotonic()
        cluster.start()
        begun = getattr(cluster, "formatted", begun)
        topic = self.driver.make_topic(cluster, 1)
        if row is not None:
            one = rows_of.Row("one", "produce", partitions=1, records=1)
            self.driver.produce_rdkafka(cluster, topic, one)
            self.note(row, cluster, row.clients[0],
                      {"first_ack": time.monotonic() - begun})

    def warm_up(self, cluster):
        """A load that is not measured, written and read: a JVM compiles what
        it runs often, and everybody's first files and memory are dear."""
        load = rows_of.Row("warm-up", "produce",
                           records=int(WARM_UP * self.options.scale))
        topic = self.driver.make_topic(cluster, load.partitions)
        client = "nats" if cluster.wire == "nats" else "java"
        getattr(self.driver, "produce_" + client)(cluster, topic, load)
        if client == "java":
            self.driver.consume_java(cluster, topic, load)
        self.driver.delete_topic(cluster, topic)

    def turn(self, system, rows):
        mine = [r for r in rows if system.name in r.systems]
        if not mine:
            return
        cluster = system(self.options)
        try:
            self.start(cluster, next((r for r in mine if r.kind == "start"),
                                     None))
            if any(r.kind != "start" for r in mine):
                self.warm_up(cluster)
            # the one that kills a broker comes last
            for row in sorted(mine, key=lambda r: r.kind == "kill"):
                if row.kind != "start":
                    self.row(cluster, row)
        finally:
            cluster.stop()

    def run(self, names, rows):
        for i in range(self.options.rounds):
            print("round %d of %d" % (i + 1, self.options.rounds), flush=True)
            for name in names if i % 2 == 0 else reversed(names):
                self.turn(systems.ALL[name], rows)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--port", type=int, default=29592)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", default="flotilla",
                        help="of %s, or all" % ", ".join(systems.ALL))
    parser.add_argument("--only", default="", help="rows with this in the name")
    parser.add_argument("--scale", type=float, default=1.0,
                        help="factor on the number of records")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    names = (list(systems.ALL) if options.systems == "all"
             else options.systems.split(","))
    unknown = [n for n in names if n not in systems.ALL]
    if unknown:
        parser.error("no such system: " + ", ".join(unknown))
    rows = [r for r in rows_of.ROWS if options.only in r.name]
    for row in rows:
        row.records = int(row.records * options.scale)
        row.warm = int(row.warm * options.scale)
    systems.install(names, options.build)
    bench = Bench(options)
    try:
        bench.run(names, rows)
    finally:
        if bench.results:
            folder = options.out or os.path.join(harness.ROOT, options.build,
                                                 "bench")
            report.write(folder, bench.results, rows, options.build)
            print("\n" + report.table(bench.results, rows) + "\n")
            lines, met, missed = report.aims(bench.results, rows)
            print("\n".join(lines))
            print("%d aims met, %d missed; %s has results.json, table.md and "
                  "plots.svg" % (met, missed, folder))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except harness.Failed as e:
        sys.exit("bench: %s" % e)
