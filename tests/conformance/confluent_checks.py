"""The newest librdkafka, by confluent-kafka. Run by suite_clients.py in an
environment of its own; prints a JSON line for every check.
    confluent_checks.py BOOTSTRAP REPLICAS RECORDS"""
import json
import sys
import threading
import time
import traceback

import confluent_kafka as ck
from confluent_kafka import admin as ka

BOOTSTRAP, REPLICAS, RECORDS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
TAG = "%x" % int(time.time())
ADMIN = ka.AdminClient({"bootstrap.servers": BOOTSTRAP})


def topic(name, partitions=12, config=None):
    name = "ck-%s-%s" % (name, TAG)
    made = ADMIN.create_topics([ka.NewTopic(
        name, partitions, REPLICAS, config=config or {})])
    made[name].result(60)
    return name


def error_code(future):
    try:
        future.result(60)
    except ck.KafkaException as e:
        return e.args[0].name()
    return "NONE"


def need(condition, text):
    if not condition:
        raise AssertionError(text)


def until(condition, text, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        need(time.monotonic() < end, text())
        time.sleep(0.2)


def produce_all(name, records, **config):
    """Produces `records` (key, value); gives [(value, partition, offset)]."""
    acked, errors = [], []
    p = ck.Producer(dict({"bootstrap.servers": BOOTSTRAP}, **config))

    def told(err, m):
        if err is not None:
            errors.append(str(err))
        else:
            acked.append((m.value(), m.partition(), m.offset()))
    for key, value in records:
        while True:
            try:
                p.produce(name, value, key, on_delivery=told)
                break
            except BufferError:
                p.poll(0.1)
        p.poll(0)
    left = p.flush(120)
    need(not errors and left == 0, "%d errors, %d left: %s" % (
        len(errors), left, errors[:2]))
    return acked


def consumer(group, **config):
    return ck.Consumer(dict({
        "bootstrap.servers": BOOTSTRAP, "group.id": group,
        "auto.offset.reset": "earliest", "enable.partition.eof": False},
        **config))


def read(c, count, seconds=60):
    got = []
    end = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < end:
        for m in c.consume(500, 0.5):
            need(m.error() is None, str(m.error()))
            got.append(m)
    return got


# ---- checks -----------------------------------------------------------------

def idempotent_produce_and_read():
    name = topic("idempotent")
    records = [(b"k%d" % (i % 100), b"%d" % i) for i in range(RECORDS)]
    acked = produce_all(name, records, **{"enable.idempotence": True})
    need(len(acked) == RECORDS, "%d acked" % len(acked))
    c = consumer("ck-read-" + TAG)
    c.subscribe([name])
    got = read(c, RECORDS)
    c.close()
    need(len(got) == RECORDS, "%d read" % len(got))
    at = {(m.partition(), m.offset()): m.value() for m in got}
    need(len(at) == RECORDS, "an offset twice")
    for value, partition, offset in acked:
        need(at.get((partition, offset)) == value,
             "acked %r at %d/%d, found %r" % (
                 value, partition, offset, at.get((partition, offset))))
    last = {}
    for m in sorted(got, key=lambda m: (m.partition(), m.offset())):
        need(int(m.value()) > last.get(m.key(), -1), "order of a key")
        last[m.key()] = int(m.value())


def codecs():
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        name = topic(codec, 3)
        produce_all(name, [(None, b"v" * 100 + b"%d" % i)
                           for i in range(2000)],
                    **{"compression.type": codec, "linger.ms": 20})
        c = consumer("ck-%s-%s" % (codec, TAG))
        c.subscribe([name])
        need(len(read(c, 2000)) == 2000, codec)
        c.close()


def three_members_share():
    name, group = topic("members", 12), "ck-members-" + TAG
    produce_all(name, [(None, b"%d" % i) for i in range(3000)])
    values, lock, errors = [], threading.Lock(), []
    stop = threading.Event()

    def member():
        try:
            c = consumer(group, **{"enable.auto.commit": False})
            c.subscribe([name])
            while not stop.is_set():
                messages = c.consume(100, 0.2)
                if messages:
                    with lock:
                        values.extend(int(m.value()) for m in messages
                                      if m.error() is None)
                    try:
                        c.commit(asynchronous=False)
                    except ck.KafkaException as e:
                        if not e.args[0].retriable() and e.args[0].name() not \
                                in ("REBALANCE_IN_PROGRESS",
                                    "ILLEGAL_GENERATION", "_NO_OFFSET"):
                            raise
            c.close()
        except Exception:
            errors.append(traceback.format_exc())
    members = [threading.Thread(target=member) for _ in range(3)]
    for m in members:
        m.start()
    told = {}

    def shared():
        told["group"] = g = ADMIN.describe_consumer_groups(
            [group])[group].result(60)
        return errors or g.state.name == "STABLE" and sorted(
            len(m.assignment.topic_partitions) for m in g.members) == [4, 4, 4]

    def committed():
        told["offsets"] = ADMIN.list_consumer_group_offsets(
            [ck.ConsumerGroupTopicPartitions(group)])[group].result(60)
        return errors or sum(
            p.offset for p in told["offsets"].topic_partitions) == 3000

    def read_all():
        with lock:
            return errors or len(set(values)) == 3000
    try:
        until(read_all, lambda: "%d values" % len(set(values)), 120)
        until(shared, lambda: "shares: %s %r" % (
            told["group"].state, [m.assignment.topic_partitions
                                  for m in told["group"].members]))
        # a commit that met a rebalance is made again by who reads it again
        until(committed, lambda: "committed: %r" % [
            p.offset for p in told["offsets"].topic_partitions])
    finally:
        stop.set()
        for m in members:
            m.join(60)
    need(not errors, errors[:1])


def commit_and_resume():
    name, group = topic("resume", 1), "ck-resume-" + TAG
    produce_all(name, [(None, b"%d" % i) for i in range(10)])
    c = consumer(group, **{"enable.auto.commit": False})
    c.subscribe([name])
    got = read(c, 4)
    c.commit(offsets=[ck.TopicPartition(name, 0, 4, metadata="note")],
             asynchronous=False)
    c.close()
    c = consumer(group)
    told = c.committed([ck.TopicPartition(name, 0)], 30)[0]
    need(told.offset == 4 and told.metadata == "note", repr(told))
    c.subscribe([name])
    got = read(c, 6)
    need([int(m.value()) for m in got] == list(range(4, 10)), repr(got))
    c.close()


def watermarks_and_times():
    name = topic("times", 1)
    p = ck.Producer({"bootstrap.servers": BOOTSTRAP})
    base = int(time.time() * 1000) - 100000
    for i in range(5):
        p.produce(name, b"%d" % i, partition=0, timestamp=base + i * 1000)
        p.flush(30)
    c = consumer("ck-times-" + TAG)
    need(c.get_watermark_offsets(ck.TopicPartition(name, 0), 30) == (0, 5),
         "watermarks")
    for at, offset in ((base, 0), (base + 1, 1), (base + 4000, 4),
                       (base + 4001, -1)):
        got = c.offsets_for_times([ck.TopicPartition(name, 0, at)], 30)[0]
        need(got.offset == offset, "%d gave %d" % (at - base, got.offset))
    c.close()


def admin_topics():
    name = topic("admin", 2, {"retention.ms": "123456"})
    listed = ADMIN.list_topics(timeout=30)
    need(len(listed.topics[name].partitions) == 2, "partitions")
    resource = ka.ConfigResource(ka.ConfigResource.Type.TOPIC, name)
    configs = ADMIN.describe_configs([resource])[resource].result(30)
    need(configs["retention.ms"].value == "123456", "retention.ms")
    need(configs["cleanup.policy"].value == "delete" and
         configs["cleanup.policy"].is_default, "cleanup.policy")
    ADMIN.create_partitions([ka.NewPartitions(name, 5)])[name].result(60)
    until(lambda: len(ADMIN.list_topics(timeout=30).topics[name].partitions)
          == 5, lambda: "5 partitions are not listed")
    produce_all(name, [(b"%d" % i, b"x") for i in range(100)])
    ADMIN.delete_topics([name])[name].result(60)
    need(name not in ADMIN.list_topics(timeout=30).topics, "still listed")


def admin_errors():
    name = topic("errors", 1)

    def create(n, partitions=1, replicas=REPLICAS, **more):
        new = ka.NewTopic(n, partitions, replicas, **more)
        return error_code(ADMIN.create_topics([new])[n])
    got = {
        "exists": create(name),
        "bad name": create("bad/name"),
        "long name": create("x" * 250),
        "too many replicas": create("ck-rf-" + TAG, 1, 9),
        "unknown key": create("ck-key-" + TAG, config={"no.such": "1"}),
        "bad value": create("ck-val-" + TAG, config={"retention.ms": "x"}),
        "fewer partitions": error_code(ADMIN.create_partitions(
            [ka.NewPartitions(name, 1)])[name]),
        "delete unknown": error_code(ADMIN.delete_topics(
            ["ck-none-" + TAG])["ck-none-" + TAG]),
    }
    wanted = {
        "exists": "TOPIC_ALREADY_EXISTS",
        "bad name": "TOPIC_EXCEPTION",
        "long name": "TOPIC_EXCEPTION",
        "too many replicas": "INVALID_REPLICATION_FACTOR",
        "unknown key": "INVALID_CONFIG",
        "bad value": "INVALID_CONFIG",
        "fewer partitions": "INVALID_PARTITIONS",
        "delete unknown": "UNKNOWN_TOPIC_OR_PART",
    }
    need(got == wanted, "%r" % {k: v for k, v in got.items()
                                if v != wanted[k]})


def cluster():
    told = ADMIN.describe_cluster().result(30)
    need(told.cluster_id and told.controller is not None and
         len(told.nodes) >= 1, repr(told))


def too_large():
    name = topic("large", 1)
    errors = []
    p = ck.Producer({"bootstrap.servers": BOOTSTRAP,
                     "message.max.bytes": 10000000})
    p.produce(name, b"x" * 3000000,
              on_delivery=lambda e, m: errors.append(e))
    p.flush(60)
    need(errors and errors[0] is not None and
         errors[0].name() == "MSG_SIZE_TOO_LARGE", repr(errors))
    acked = produce_all(name, [(None, b"y" * 900000)])
    need(acked[0][2] == 0, "offset %d" % acked[0][2])


def topic_is_usable_at_once():
    """Every broker knows a topic when its creation returns."""
    nodes = ADMIN.list_topics(timeout=30).brokers.values()
    producers = [ck.Producer({
        "bootstrap.servers": "%s:%d" % (b.host, b.port),
        "retries": 0, "enable.idempotence": False,
        "topic.metadata.propagation.max.ms": 0}) for b in nodes]
    for i in range(10):
        name = topic("at-once-%d" % i, 3)
        for p in producers:
            errors = []
            p.produce(name, b"x", on_delivery=lambda e, m: errors.append(e))
            need(p.flush(30) == 0, "no answer")
            need(errors == [None], repr(errors))


def transactions_refused():
    p = ck.Producer({"bootstrap.servers": BOOTSTRAP,
                     "transactional.id": "ck-tx-" + TAG})
    try:
        p.init_transactions(20)
    except ck.KafkaException as e:
        need(not e.args[0].retriable(), "retriable: %s" % e)
        return
    raise AssertionError("init_transactions went through")


CHECKS = [cluster, idempotent_produce_and_read, codecs, three_members_share,
          commit_and_resume, watermarks_and_times, admin_topics, admin_errors,
          too_large, topic_is_usable_at_once]
if "--transactions-refused" in sys.argv:
    CHECKS.append(transactions_refused)

for check in CHECKS:
    begun = time.monotonic()
    error = ""
    try:
        check()
    except Exception:
        error = traceback.format_exc()
    print(json.dumps({
        "name": check.__name__.replace("_", " "), "ok": not error,
        "note": error, "seconds": time.monotonic() - begun,
        "version": ck.libversion()[0]}), flush=True)
