#!/usr/bin/env python3
"""Foreign clients and their own suites against three brokers.
    tests/conformance/run.py [--set short|full|SUITE,...] [--chaos]
A set of named suites runs them whole. The last line is "N passed, M failed";
the status is 0 when nothing failed but what a kept list expects."""
import argparse
import os
import sys

import bad_requests
from harness import Cluster, External, Failed, Report, ROOT
from suite_clients import Java, confluent
from suite_connect import Frameworks
from suite_elections import Elections
from suite_flotilla import Dev, Starting, Verbs
from suite_kafka_python import KafkaPython
from suite_kcat import Kcat
from suite_librdkafka import Librdkafka
from suite_node_rdkafka import NodeRdkafka
from suite_programs import CLIENTS, Program
from suite_quotas import Quotas
from suite_rounds import Rounds
from suite_wire import Wire

# work on one cluster, that runs already
ON_ONE = ("verbs", "kcat", "confluent", "java", "wire", "rounds", "starts",
          "dev")
# bring brokers of their own, set up as each needs them
FOREIGN = ("bad-requests", "elections", "quotas", "librdkafka", "node-rdkafka",
           "kafka-python") + tuple(CLIENTS) + ("connect", "streams")
# the foreign ones that the short set has, some of them in part
FOREIGN_SHORT = ("bad-requests", "elections", "quotas", "librdkafka", "kafka-python",
                 "sarama")


def arguments():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--set", default="full")
    p.add_argument("--chaos", action="store_true",
                   help="kill a broker every 60 s under librdkafka's tests")
    p.add_argument("--tests", help="only these numbers of librdkafka's tests")
    p.add_argument("--build", default="build")
    p.add_argument("--port", type=int, default=29092)
    p.add_argument("--bootstrap-server",
                   help="a cluster that runs already, for comparison")
    p.add_argument("--brokers", type=int, default=3)
    args = p.parse_args()
    args.full = args.set != "short"
    args.only = ON_ONE + (FOREIGN if args.full else FOREIGN_SHORT)
    if args.set not in ("short", "full"):
        args.only = args.set.split(",")
        for name in args.only:
            if name not in ON_ONE + FOREIGN:
                p.error("no suite %s; there are %s" % (
                    name, " ".join(ON_ONE + FOREIGN)))
    return args


def on_one(args, report, cluster, flotilla, build):
    full, only = args.full, args.only
    replicas = min(3, args.brokers)
    ours = args.bootstrap_server is None
    if "verbs" in only:
        Verbs(report, cluster, flotilla, replicas).all()
    if "kcat" in only:
        sizes = (1000000, 200000) if full else (100000, 20000)
        Kcat(report, cluster, flotilla, build, sizes, replicas).all()
    if "confluent" in only:
        confluent(report, cluster, args.build, replicas,
                  50000 if full else 5000, ours)
    if "java" in only:
        Java(report, cluster, replicas,
             500000 if full else 50000).all()
    if "wire" in only:
        Wire(report, cluster, flotilla, replicas).all()
    if "rounds" in only:
        Rounds(report, cluster, replicas, 500 if full else 50).all()
    if "starts" in only and ours:
        Starting(report, cluster, flotilla).all()
    if "dev" in only and ours:
        Dev(report, flotilla).all()


def one_cluster(args, report, flotilla, build):
    ours = args.bootstrap_server is None
    if not ours:
        cluster = External(args.bootstrap_server, args.brokers)
    else:
        cluster = Cluster(args.build, args.brokers, args.port,
                          ["group.initial.rebalance.delay.ms=0"])
        report.suite("cluster")
    started = False
    try:
        started = not ours or report.check(
            "start of %d brokers" % args.brokers, lambda: cluster.start() and
            "ready after %.2f s" % cluster.start_seconds)
        if started:
            on_one(args, report, cluster, flotilla, build)
    finally:
        status = cluster.stop()
        if ours and started:
            report.result("stop", "SIGTERM ends dev with 0", status == 0,
                          "status %r" % status)
        if report.failed():
            print(cluster.logs())
        cluster.remove()


def foreign(args, report):
    if "bad-requests" in args.only:
        bad_requests.ours(report, args.build)
    if "elections" in args.only:
        Elections(report, args.build, args.port + 60).all()
    if "quotas" in args.only:
        Quotas(report, args.build, args.port + 80, args.full).all()
    if "librdkafka" in args.only:
        Librdkafka(report, args.build, args.port + 100, args.full, args.chaos,
                   args.tests.split(",") if args.tests else None).all()
    if "node-rdkafka" in args.only:
        NodeRdkafka(report, args.build, args.port + 200).all()
    if "kafka-python" in args.only:
        KafkaPython(report, args.build, args.port + 300).all()
    for name in CLIENTS:
        if name in args.only:
            Program(report, args.build, args.port + 400, name, args.full).all()
    for name in ("connect", "streams"):
        if name in args.only:
            Frameworks(report, args.build, args.port + 500, name).all()


def main():
    args = arguments()
    report = Report()
    build = os.path.join(ROOT, args.build)
    os.makedirs(build, exist_ok=True)
    flotilla = os.path.join(build, "flotilla")
    if any(name in args.only for name in ON_ONE):
        one_cluster(args, report, flotilla, build)
    if args.bootstrap_server is None:
        foreign(args, report)
    return report.finish()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as e:
        sys.exit("failed: %s" % e)
