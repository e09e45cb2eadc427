#!/usr/bin/env python3
"""Foreign clients against three brokers: produce, consume, use groups.
    tests/conformance/run.py [--set short|full] [--only SUITE,...]
The last line is "N passed, M failed"; the status is 0 when all passed."""
import argparse
import os
import sys

from harness import Cluster, External, Failed, Report, ROOT
from suite_clients import Java, confluent
from suite_flotilla import Dev, Starting, Verbs
from suite_kcat import Kcat
from suite_wire import Wire

SUITES = ("verbs", "kcat", "confluent", "java", "wire", "starts", "dev")


def arguments():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--set", choices=("short", "full"), default="full")
    p.add_argument("--build", default="build")
    p.add_argument("--port", type=int, default=29092)
    p.add_argument("--only", default=",".join(SUITES))
    p.add_argument("--bootstrap-server",
                   help="a cluster that runs already, for comparison")
    p.add_argument("--brokers", type=int, default=3)
    return p.parse_args()


def suites(args, report, cluster, flotilla, build):
    full = args.set == "full"
    only = args.only.split(",")
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
        Java(report, cluster, args.build, replicas,
             500000 if full else 50000).all()
    if "wire" in only:
        Wire(report, cluster, flotilla, replicas).all()
    if "starts" in only and ours:
        Starting(report, cluster, flotilla).all()
    if "dev" in only and ours:
        Dev(report, flotilla).all()


def main():
    args = arguments()
    report = Report()
    build = os.path.join(ROOT, args.build)
    os.makedirs(build, exist_ok=True)
    flotilla = os.path.join(build, "flotilla")
    if args.bootstrap_server:
        cluster = External(args.bootstrap_server, args.brokers)
    else:
        cluster = Cluster(args.build, args.brokers, args.port,
                          ["group.initial.rebalance.delay.ms=0"])
    if args.bootstrap_server is None:
        report.suite("cluster")
    try:
        started = args.bootstrap_server is not None or report.check(
            "start of %d brokers" % args.brokers, lambda: cluster.start() and
            "ready after %.2f s" % cluster.start_seconds)
        if started:
            suites(args, report, cluster, flotilla, build)
    finally:
        status = cluster.stop()
        if args.bootstrap_server is None and started:
            report.result("stop", "SIGTERM ends dev with 0", status == 0,
                          "status %r" % status)
        if any(s[2] for s in report.suites):
            print(cluster.logs())
        cluster.remove()
    return report.finish()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as e:
        sys.exit("failed: %s" % e)
