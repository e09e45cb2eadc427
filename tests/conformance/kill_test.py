#!/usr/bin/env python3
"""kill -9 under load: what was acknowledged is there, once, where it was said.

Five idempotent producers write unique values with acks=all to 12 partitions
while three members of a group read them; brokers are killed and restarted,
round by round: the leader of a partition, all at once, each in turn. Then a
rolling restart by SIGTERM. At the end every acknowledged record is looked for.

    tests/conformance/kill_test.py --rounds N
The last line is "N passed, M failed"."""
import argparse
import glob
import json
import os
import signal
import sys
import threading
import time

from confluent import ck, ka, need_confluent
from harness import ROOT, Cluster, Failed, Report, expect, run, tail

PARTITIONS = 12
PRODUCERS = 5
MEMBERS = 3
TOPIC = "kill-test"
GROUP = "kill-test-readers"
VALUE_BYTES = 200
GAP_KILL_S = 1.5     # between two acks on one partition, around one kill -9
GAP_ROLLING_S = 0.5  # the same around a SIGTERM
UNREAD_S = 10.0
DEAD_S = 3.0
QUIET_S = 2.0
# librdkafka doubles its wait before it connects to a broker again, to 10 s,
# and begins anew only when its last attempt is 10 s old: brokers killed in
# quick succession would have the client's patience measured, not theirs.
CALM_S = 13.0


def now():
    return time.monotonic()


class Producer(threading.Thread):
    """Values "P:SEQUENCE:…"; keeps what was acknowledged, and when."""

    def __init__(self, number, bootstrap, rate):
        super().__init__(daemon=True)
        self.number, self.rate = number, rate
        self.client = ck.Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True,
            "acks": "all", "error_cb": lambda e: None, "log_level": 0})
        self.acks = []    # (time, partition, offset, sequence)
        self.errors = []
        self.sent = 0
        self.going = True

    def told(self, sequence):
        def on_delivery(err, message):
            if err is not None:
                self.errors.append("%d: %s" % (sequence, err))
            else:
                self.acks.append((now(), message.partition(),
                                  message.offset(), sequence))
        return on_delivery

    def run(self):
        begun = now()
        pad = "x" * VALUE_BYTES
        while self.going:
            while self.sent < (now() - begun) * self.rate and self.going:
                value = ("%d:%d:%s" % (self.number, self.sent,
                                       pad))[:VALUE_BYTES]
                try:
                    self.client.produce(
                        TOPIC, value, partition=self.sent % PARTITIONS,
                        on_delivery=self.told(self.sent))
                    self.sent += 1
                except BufferError:
                    self.client.poll(0.01)
            self.client.poll(0.002)

    def finish(self):
        self.going = False
        self.join()
        return self.client.flush(120)


class Member(threading.Thread):
    """Reads as one of the group and commits what it read: one commit at a
    time, as librdkafka sends one that failed again after newer ones."""

    def __init__(self, bootstrap):
        super().__init__(daemon=True)
        self.client = ck.Consumer({
            "bootstrap.servers": bootstrap, "group.id": GROUP,
            "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "on_commit": self.commit_done,
            "error_cb": lambda e: None, "log_level": 0})
        self.committing = False
        self.reads = []   # (time, partition, offset, value)
        self.errors = []
        self.going = True

    def commit_done(self, error, partitions):
        self.committing = False

    def run(self):
        self.client.subscribe([TOPIC])
        committed = now()
        while self.going:
            for m in self.client.consume(500, 0.05):
                if m.error() is None:
                    self.reads.append((now(), m.partition(), m.offset(),
                                       m.value()))
            if now() - committed > 0.5 and not self.committing:
                committed = now()
                try:
                    self.client.commit(asynchronous=True)
                    self.committing = True
                except ck.KafkaException:
                    pass  # nothing new, or a rebalance
        self.client.close()


class Watcher(threading.Thread):
    """Asks for the committed offsets, again and again: they never go back."""

    def __init__(self, bootstrap):
        super().__init__(daemon=True)
        # a consumer that never joins; admin calls that time out can abort in
        # librdkafka 2.16
        self.client = ck.Consumer({
            "bootstrap.servers": bootstrap, "group.id": GROUP,
            "error_cb": lambda e: None, "log_level": 0})
        self.asked = [ck.TopicPartition(TOPIC, p) for p in range(PARTITIONS)]
        self.highest = {}
        self.backward = []
        self.answers = 0
        self.going = True

    def run(self):
        while self.going:
            time.sleep(0.3)
            try:
                told = self.client.committed(self.asked, 5)
            except Exception:
                continue  # the coordinator moves
            self.answers += 1
            for p in told:
                if p.error is not None:
                    continue
                before = self.highest.get(p.partition, -1)
                offset = max(p.offset, -1)  # -1001: nothing committed
                if offset < before:
                    self.backward.append("partition %d: %d after %d" % (
                        p.partition, offset, before))
                self.highest[p.partition] = max(before, offset)


class KillTest:
    def __init__(self, args):
        self.args = args
        self.report = Report()
        self.cluster = Cluster(args.build, 3, args.port, [
            "group.initial.rebalance.delay.ms=0"], args.data)
        self.windows = []  # (from, to, what)
        self.made_while_down = False
        self.disturbed = -CALM_S

    # ---- load -----------------------------------------------------------

    def begin(self):
        self.cluster.start()
        self.admin = ka.AdminClient({
            "bootstrap.servers": self.cluster.bootstrap,
            "error_cb": lambda e: None, "log_level": 0})
        self.admin.create_topics([ka.NewTopic(TOPIC, PARTITIONS, 3)])[
            TOPIC].result(60)
        b = self.cluster.bootstrap
        self.producers = [Producer(i, b, self.args.rate / PRODUCERS)
                          for i in range(PRODUCERS)]
        self.members = [Member(b) for _ in range(MEMBERS)]
        self.watcher = Watcher(b)
        for t in self.producers + self.members + [self.watcher]:
            t.start()
        end = now() + 30
        while sum(len(m.reads) for m in self.members) < 1000:
            expect(now() < end, "no records flow: %r" % [
                (len(p.acks), p.errors[:2]) for p in self.producers])
            time.sleep(0.1)

    def acked(self):
        return sum(len(p.acks) for p in self.producers)

    def wait_in_sync(self, timeout=60):
        """Until all partitions have a leader and three replicas in sync."""
        end = now() + timeout
        seen = None
        while now() < end:
            try:
                topic = self.admin.list_topics(TOPIC, timeout=3).topics[TOPIC]
                seen = sorted((p.id, p.leader, sorted(p.isrs))
                              for p in topic.partitions.values())
                if len(seen) == PARTITIONS and all(
                        leader >= 0 and len(isr) == 3
                        for _, leader, isr in seen):
                    return
            except ck.KafkaException:
                pass
            time.sleep(0.1)
        raise Failed("not in sync after %d s: %r\n%s" % (
            timeout, seen, self.cluster.logs()))

    def calm(self):
        """Waits until clients have forgotten the last kill."""
        time.sleep(max(QUIET_S, self.disturbed + CALM_S - now()))

    def leader_of(self, partition):
        topic = self.admin.list_topics(TOPIC, timeout=10).topics[TOPIC]
        return topic.partitions[partition].leader

    def gap(self, begin, end):
        """The longest time between two acks on one partition within; an open
        end counts."""
        longest, where = 0.0, None
        times = {p: [] for p in range(PARTITIONS)}
        for producer in self.producers:
            for t, partition, _, _ in producer.acks:
                if begin - 1 <= t <= end:
                    times[partition].append(t)
        for partition, list_of in times.items():
            list_of.sort()
            points = [t for t in list_of if t <= begin][-1:] or [begin]
            points += [t for t in list_of if t > begin] + [end]
            for a, b in zip(points, points[1:]):
                if b - a > longest:
                    longest = b - a
                    where = "partition %d, from %.2f s on" % (partition,
                                                              a - begin)
        return longest, where

    # ---- rounds ---------------------------------------------------------

    def one(self, node, why):
        self.calm()
        if node is None:
            node = self.leader_of(0)
        before = self.acked()
        killed = now()
        pid = self.cluster.kill(node)
        self.cluster.wait_dead(node, pid)
        time.sleep(DEAD_S)
        if not self.made_while_down:
            self.made_while_down = True
            self.report.check("a topic is made while a broker is down",
                              self.make_topic)
        gap, where = self.gap(killed, now())
        expect(self.acked() > before, "nothing acknowledged by two brokers")
        self.cluster.restart(node)
        self.cluster.wait_all()
        self.wait_in_sync()
        self.disturbed = now()
        self.windows.append((killed, gap, why))
        expect(gap < GAP_KILL_S * self.args.patience,
               "no ack for %.2f s (%s)" % (gap, where))
        return "longest gap %.2f s (%s), in sync after %.1f s" % (
            gap, where, now() - killed)

    def kill_leader(self):
        return self.one(None, "leader")

    def all_at_once(self):
        time.sleep(QUIET_S)
        begun = now()
        before = self.acked()
        pids = {n: self.cluster.kill(n) for n in (1, 2, 3)}
        for node, pid in pids.items():
            self.cluster.wait_dead(node, pid)
        for node in (1, 2, 3):
            self.cluster.restart(node)
        self.cluster.wait_all()
        self.wait_in_sync()
        self.disturbed = now()
        back = now() - begun
        end = now() + 20
        while self.acked() <= before and now() < end:
            time.sleep(0.05)
        expect(self.acked() > before, "nothing is acknowledged any more")
        return "in sync again after %.1f s" % back

    def make_topic(self):
        name = "made-while-down"
        run([self.cluster.binary, "topic", "create", name, "-p", "3", "-r",
             "3", "-b", self.cluster.bootstrap])
        run([self.cluster.binary, "produce", name, "-b",
             self.cluster.bootstrap], stdin=b"a\nb\nc\n")
        out = run([self.cluster.binary, "consume", name, "-e", "-b",
                   self.cluster.bootstrap])
        expect(sorted(out.split()) == [b"a", b"b", b"c"], tail(out))

    def rolling(self):
        errors = sum(len(p.errors) for p in self.producers)
        longest, notes = 0.0, []
        self.calm()
        for node in (1, 2, 3):
            begun = now()
            pid = self.cluster.kill(node, signal.SIGTERM)
            self.cluster.wait_dead(node, pid)
            stopped = now()
            time.sleep(0.5)
            started = now()
            self.cluster.restart(node)
            self.cluster.wait_all()
            self.wait_in_sync()
            time.sleep(QUIET_S)
            gap, where = self.gap(begun, now())
            longest = max(longest, gap)
            notes.append("broker %d stopped at %.2f s, started at %.2f s: "
                         "%.2f s (%s)" % (node, stopped - begun,
                                          started - begun, gap, where))
        failed = sum(len(p.errors) for p in self.producers) - errors
        expect(failed == 0, "%d producer errors" % failed)
        text = "longest gap %.2f s; %s" % (longest, "; ".join(notes))
        expect(longest < GAP_ROLLING_S * self.args.patience, text)
        return text

    # ---- what must hold -------------------------------------------------

    def end_load(self):
        left = sum(p.finish() for p in self.producers)
        errors = [e for p in self.producers for e in p.errors]
        expect(left == 0 and not errors,
               "%d without an answer, %d errors: %s" % (
                   left, len(errors), errors[:3]))
        return "%d records acknowledged" % self.acked()

    def read_everything(self):
        c = ck.Consumer({"bootstrap.servers": self.cluster.bootstrap,
                         "group.id": "kill-test-verify",
                         "enable.auto.commit": False})
        ends = {p: c.get_watermark_offsets(ck.TopicPartition(TOPIC, p), 30)
                for p in range(PARTITIONS)}
        c.assign([ck.TopicPartition(TOPIC, p, 0) for p in range(PARTITIONS)])
        self.log = {p: {} for p in range(PARTITIONS)}
        wanted = sum(high for _, high in ends.values())
        got, limit = 0, now() + 120
        while got < wanted and now() < limit:
            for m in c.consume(1000, 0.5):
                if m.error() is None:
                    at = self.log[m.partition()]
                    expect(m.offset() == len(at), "partition %d: offset %d "
                           "where %d comes" % (m.partition(), m.offset(),
                                               len(at)))
                    at[m.offset()] = m.value().split(b":x")[0]
                    got += 1
        c.close()
        expect(all(low == 0 for low, _ in ends.values()), repr(ends))
        expect(got == wanted, "%d of %d records could be read" % (got, wanted))
        return "%d records" % got

    def acked_is_there(self):
        missing = []
        for p in self.producers:
            for _, partition, offset, sequence in p.acks:
                found = self.log[partition].get(offset)
                if found != b"%d:%d" % (p.number, sequence):
                    missing.append("%d:%d was acknowledged at %d/%d, there is "
                                   "%r" % (p.number, sequence, partition,
                                           offset, found))
        expect(not missing, "%d of %d: %s" % (
            len(missing), self.acked(), "; ".join(missing[:5])))

    def once_and_in_order(self):
        seen = {}
        for partition, log in self.log.items():
            last = {}
            for offset in range(len(log)):
                number, sequence = map(int, log[offset].split(b":")[:2])
                expect((number, sequence) not in seen, "%d:%d at %r and %r" % (
                    number, sequence, seen.get((number, sequence)),
                    (partition, offset)))
                seen[number, sequence] = (partition, offset)
                expect(sequence > last.get(number, -1),
                       "%d:%d after %d at %d/%d" % (
                           number, sequence, last.get(number, -1), partition,
                           offset))
                last[number] = sequence

    def read_by_group(self):
        end = now() + 30
        highs = {p: len(log) for p, log in self.log.items()}
        while now() < end:
            if all(self.watcher.highest.get(p, 0) >= high
                   for p, high in highs.items()):
                break
            time.sleep(0.2)
        self.watcher.going = False
        for m in self.members:
            m.going = False
        for t in self.members + [self.watcher]:
            t.join(60)
        expect(not self.watcher.backward, "; ".join(self.watcher.backward[:5]))
        behind = {p: (self.watcher.highest.get(p), high)
                  for p, high in highs.items()
                  if self.watcher.highest.get(p, 0) < high}
        expect(not behind, "not committed to the end: %r" % behind)
        return "%d answers" % self.watcher.answers

    def read_in_time(self):
        times = {p: [] for p in range(PARTITIONS)}
        wrong = []
        for m in self.members:
            for t, partition, offset, value in m.reads:
                times[partition].append(t)
                if self.log[partition].get(offset) != value.split(b":x")[0]:
                    wrong.append("%d/%d" % (partition, offset))
        expect(not wrong, "%d records were read that are not there: %s" % (
            len(wrong), wrong[:5]))
        longest = 0.0
        for partition, list_of in times.items():
            list_of.sort()
            expect(list_of, "partition %d was never read" % partition)
            longest = max([longest] + [b - a for a, b in zip(list_of,
                                                             list_of[1:])])
        expect(longest < UNREAD_S, "%.1f s" % longest)
        return "longest %.1f s" % longest

    def same_bytes(self):
        """Every replica's segments, batch by batch, by offset."""
        self.wait_settled()
        self.cluster.stop()
        compared = 0
        for partition in range(PARTITIONS):
            first = self.dump(1, partition)
            end = int(first[-1].split()[1]) + 1
            expect(end == len(self.log[partition]), "partition %d: %d of %d" %
                   (partition, end, len(self.log[partition])))
            for node in (2, 3):
                other = self.dump(node, partition)
                for a, b in zip(first, other):
                    expect(a == b, "partition %d: %r on broker 1, %r on %d" % (
                        partition, a, b, node))
                expect(len(first) == len(other),
                       "partition %d: %d batches on broker 1, %d on %d" % (
                           partition, len(first), len(other), node))
            compared += 3 * len(first)
        return "%d batches compared" % compared

    def wait_settled(self, timeout=30):
        """Until all records have moved from the write-ahead log to segments,
        the only thing that can be compared offline."""
        end = now() + timeout
        left = [(p, n) for p in range(PARTITIONS) for n in (1, 2, 3)]
        while left:
            partition, node = left[-1]
            told = json.loads(run([
                self.cluster.binary, "log", "verify", "-o", "json",
                self.directory(node, partition)], status=None) or b"{}")
            if told.get("end") == len(self.log[partition]):
                left.pop()
                continue
            expect(now() < end, "partition %d of broker %d: %r settled of %d" %
                   (partition, node, told, len(self.log[partition])))
            time.sleep(0.2)

    def directory(self, node, partition):
        pattern = os.path.join(self.cluster.path(node, "data"), "**",
                               "%s-%d.*" % (TOPIC, partition))
        paths = glob.glob(pattern, recursive=True)
        expect(len(paths) == 1, "%s: %r" % (pattern, paths))
        return paths[0]

    def dump(self, node, partition):
        """Lines of offsets, index, epoch, sizes and a digest of the bytes."""
        lines = run([self.cluster.binary, "log", "dump",
                     self.directory(node, partition)]).splitlines()[1:]
        bad = [line for line in lines if not line.endswith(b" ok")]
        expect(lines and not bad, "broker %d, partition %d: %r" % (
            node, partition, bad[:3]))
        return lines

    # ---- the whole ------------------------------------------------------

    def rounds(self):
        kinds = [("kill -9 of a partition's leader", self.kill_leader),
                 ("kill -9 of all at once", self.all_at_once)]
        kinds += [("kill -9 of broker %d" % n,
                   lambda n=n: self.one(n, "broker %d" % n))
                  for n in (1, 2, 3)]
        for i in range(self.args.rounds):
            name, function = kinds[i % len(kinds)]
            if not self.report.check("round %d: %s" % (i + 1, name), function):
                try:
                    self.heal()
                except Failed as e:
                    print("     cannot go on: %s" % e)
                    return

    def heal(self):
        for node in (1, 2, 3):
            if not self.cluster.pid(node):
                self.cluster.restart(node)
        self.cluster.wait_all()
        self.wait_in_sync()

    def all(self):
        check = self.report.check
        self.report.suite("kill test")
        try:
            if not check("load on three brokers", self.begin):
                return self.report.finish()
            self.rounds()
            if not self.args.no_rolling:
                check("rolling restart by SIGTERM", self.rolling)
            check("every record got an answer, none an error", self.end_load)
            if check("everything can be read", self.read_everything):
                check("what was acknowledged is at its offset",
                      self.acked_is_there)
                check("each value once, in order", self.once_and_in_order)
                check("committed offsets never went back", self.read_by_group)
                check("no partition unread for %d s" % UNREAD_S,
                      self.read_in_time)
                check("the same bytes on every replica", self.same_bytes)
        finally:
            if self.report.failed():
                print(self.cluster.logs())
            self.cluster.stop()
            if self.report.failed():
                print("what the brokers left is in %s" % self.cluster.data)
            else:
                self.cluster.remove()
        if self.windows:
            worst = max(self.windows, key=lambda w: w[1])
            print("longest time between two acks on one partition around a "
                  "kill -9: %.2f s (%s)" % (worst[1], worst[2]))
        return self.report.finish()


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--build", default="build")
    p.add_argument("--port", type=int, default=29192)
    p.add_argument("--rate", type=float, default=2000.0,
                   help="records per second, all producers together")
    p.add_argument("--data", help="keep the brokers' files there")
    p.add_argument("--patience", type=float, default=1.0,
                   help="factor on the limits of time, for a busy machine")
    p.add_argument("--no-rolling", action="store_true")
    args = p.parse_args()
    need_confluent(args.build)
    return KillTest(args).all()


if __name__ == "__main__":
    sys.exit(main())
