"""The cases of bad_requests.py: for each API, requests that are wrong in some
way, or just at the edge. A case is (name, values) or (name, values, versions);
texts may hold {v}, the version, so that each version makes things of its own.
They are asked in this order, of a single broker (node 1) that has what
bad_requests.py prepares: topics bad-a (3 partitions, 5 records in partition 0)
and bad-compact (1 partition), group bad-group (empty, offsets of bad-a), group
bad-live (one member, subscribed to bad-a)."""
import uuid

from suite_wire import batch

NO_ID = uuid.UUID(int=0)
OTHER_ID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
LONG = "x" * 250
HUGE = 2**31 - 1
ODD_NAMES = ["bad name", LONG, "", ".", "..", "bad/a", "bad-\u00e4"]


def topics_of(*parts, **fields):
    """[{name: bad-a, partitions: [...]}] for one list of partitions."""
    return [dict(fields, partitions=list(parts))]


def new_topic(name="bad-new-{v}", partitions=1, replicas=1, **more):
    return dict(more, name=name, num_partitions=partitions,
                replication_factor=replicas)


def create(*topics, **more):
    return dict({"topics": list(topics), "timeout_ms": 10000}, **more)


def with_config(name, value, **more):
    return new_topic("bad-config-{v}",
                     configs=[{"name": name, "value": value}], **more)


def assigned(*lists, **more):
    return dict({"name": "bad-assigned-{v}", "num_partitions": -1,
                 "replication_factor": -1,
                 "assignments": [{"partition_index": i, "broker_ids": b}
                                 for i, b in lists]}, **more)


CREATE_TOPICS = [
    ("no topics", create()),
    ("odd names", create(*[new_topic(n) for n in ODD_NAMES])),
    ("exists", create(new_topic("bad-a"))),
    ("differs from another in . and _ only", create(new_topic("bad_x.{v}"),
                                                    new_topic("bad.x_{v}"),
                                                    validate_only=True)),
    ("named twice", create(new_topic(), new_topic())),
    ("counts of zero", create(new_topic("bad-p", 0), new_topic("bad-r", 1, 0))),
    ("negative counts", create(new_topic("bad-p", -2),
                               new_topic("bad-r", 1, -2))),
    ("defaults", create(new_topic("bad-defaults-{v}", -1, -1),
                        validate_only=True)),
    ("too many replicas", create(new_topic("bad-r", 1, 2),
                                 new_topic("bad-s", 1, 32767))),
    ("unknown key", create(with_config("no.such.key", "1"))),
    ("null value", create(with_config("retention.ms", None))),
    ("empty value", create(with_config("retention.ms", ""))),
    ("wrong type", create(with_config("retention.ms", "soon"))),
    ("out of range", create(with_config("retention.ms", "-2"))),
    ("too large a number", create(with_config("segment.bytes", "2147483648"))),
    ("small segments", create(with_config("segment.bytes", "13"))),
    ("unknown policy", create(with_config("cleanup.policy", "shred"))),
    ("empty policy", create(with_config("cleanup.policy", ""))),
    ("unknown codec", create(with_config("compression.type", "rar"))),
    ("bad boolean", create(with_config("preallocate", "maybe"))),
    ("bad ratio", create(with_config("min.cleanable.dirty.ratio", "1.5"))),
    ("no replicas in sync", create(with_config("min.insync.replicas", "0"))),
    ("tiered storage", create(with_config("remote.storage.enable", "true"))),
    ("keys that are gone", create(with_config("message.format.version",
                                              "3.0"))),
    ("assigned to an unknown broker", create(assigned((0, [7])))),
    ("assigned twice", create(assigned((0, [1, 1])))),
    ("assigned to nobody", create(assigned((0, [])))),
    ("assigned from 1 on", create(assigned((1, [1])))),
    ("assigned with a gap", create(assigned((0, [1]), (2, [1])))),
    ("a partition assigned twice", create(assigned((0, [1]), (0, [1])))),
    ("assigned and counted", create(assigned((0, [1]), num_partitions=1))),
    ("assigned and replicated", create(assigned((0, [1]),
                                                replication_factor=1))),
    ("assigned well", create(assigned((1, [1]), (0, [1])),
                             validate_only=True)),
    ("validated only", create(new_topic("bad-valid-{v}"), validate_only=True)),
    ("validated twice", create(new_topic("bad-valid-{v}"),
                               validate_only=True)),
    ("validated, exists", create(new_topic("bad-a"), validate_only=True)),
    ("one bad, one good", create(new_topic("bad-mixed-{v}"),
                                 new_topic("bad name"))),
    ("no time", create(new_topic("bad-late-{v}"), timeout_ms=0)),
    ("less than no time", create(new_topic("bad-late-{v}"), timeout_ms=-1)),
    ("an internal name", create(new_topic("__consumer_offsets"))),
]

DELETE_TOPICS = [
    ("none", {"topics": [], "topic_names": [], "timeout_ms": 10000}),
    ("unknown and odd names",
     {"topics": [{"name": n} for n in ODD_NAMES + ["bad-none"]],
      "topic_names": ODD_NAMES + ["bad-none"], "timeout_ms": 10000}),
    ("twice", {"topics": [{"name": "bad-mixed-2"}] * 2,
               "topic_names": ["bad-mixed-2"] * 2, "timeout_ms": 10000}),
    ("an unknown id", {"topics": [{"name": None, "topic_id": OTHER_ID}],
                       "timeout_ms": 10000}, "6"),
    ("neither name nor id", {"topics": [{"name": None, "topic_id": NO_ID}],
                             "timeout_ms": 10000}, "6"),
    ("name and id", {"topics": [{"name": "bad-a", "topic_id": OTHER_ID}],
                     "timeout_ms": 10000}, "6"),
    ("the same id twice",
     {"topics": [{"name": None, "topic_id": OTHER_ID}] * 2,
      "timeout_ms": 10000}, "6"),
    ("no time", {"topics": [{"name": "bad-mixed-3"}],
                 "topic_names": ["bad-mixed-3"], "timeout_ms": 0}),
    ("one good, one bad",
     {"topics": [{"name": "bad-new-x"}, {"name": "bad-mixed-{v}"}],
      "topic_names": ["bad-new-x", "bad-mixed-{v}"], "timeout_ms": 10000}),
]


def more(name, count, assignments=None, **fields):
    return dict({"topics": [{"name": name, "count": count,
                             "assignments": assignments}],
                 "timeout_ms": 10000}, **fields)


def to(*lists):
    return [{"broker_ids": b} for b in lists]


CREATE_PARTITIONS = [
    ("no topics", {"topics": [], "timeout_ms": 10000}),
    ("an unknown topic", more("bad-none", 3)),
    ("an odd name", more("bad name", 3)),
    ("as many as before", more("bad-a", 3)),
    ("fewer", more("bad-a", 2)),
    ("none", more("bad-a", 0)),
    ("negative", more("bad-a", -1)),
    ("named twice", {"topics": [{"name": "bad-a", "count": 4}] * 2,
                     "timeout_ms": 10000}),
    ("too few assignments", more("bad-a", 5, to([1]))),
    ("too many assignments", more("bad-a", 4, to([1], [1]))),
    ("an empty list of assignments", more("bad-a", 4, [])),
    ("an unknown broker", more("bad-a", 4, to([9]))),
    ("a broker twice", more("bad-a", 4, to([1, 1]))),
    ("a broker below zero", more("bad-a", 4, to([-1]))),
    ("nobody", more("bad-a", 4, to([]))),
    ("validated", more("bad-a", 4, validate_only=True)),
    ("validated, assigned", more("bad-a", 4, to([1]), validate_only=True)),
    ("no time", more("bad-a", 4, timeout_ms=0)),
]


def describe(*resources, **fields):
    return dict({"resources": [{"resource_type": t, "resource_name": n,
                                "configuration_keys": k}
                               for t, n, k in resources]}, **fields)


DESCRIBE_CONFIGS = [
    ("nothing", describe()),
    ("a topic", describe((2, "bad-a", None))),
    ("an unknown topic", describe((2, "bad-none", None))),
    ("odd names", describe(*[(2, n, None) for n in ODD_NAMES])),
    ("unknown keys", describe((2, "bad-a", ["no.such.key"]))),
    ("no keys", describe((2, "bad-a", []))),
    ("twice", describe((2, "bad-a", None), (2, "bad-a", None))),
    ("this broker", describe((4, "1", None))),
    ("all brokers", describe((4, "", None))),
    ("another broker", describe((4, "2", None))),
    ("a broker by no number", describe((4, "one", None))),
    ("a broker below zero", describe((4, "-1", None))),
    ("a broker beyond numbers", describe((4, "99999999999", None))),
    ("loggers of another broker", describe((8, "2", None))),
    ("loggers by no number", describe((8, "x", None))),
    ("loggers of nobody", describe((8, "", None))),
    ("unknown kinds", describe((0, "x", None), (1, "x", None), (3, "x", None),
                               (99, "x", None), (-1, "x", None))),
    ("a group", describe((32, "bad-group", None))),
    ("a group without name", describe((32, "", None))),
    ("client metrics", describe((16, "x", None))),
    ("client metrics without name", describe((16, "", None))),
]


def alter(kind, name, *configs, **fields):
    return dict({"resources": [{"resource_type": kind, "resource_name": name,
                                "configs": [{"name": n, "value": v}
                                            for n, v in configs]}]}, **fields)


ALTER_CONFIGS = [
    ("nothing", {"resources": []}),
    ("an unknown topic", alter(2, "bad-none", ("retention.ms", "1"))),
    ("an odd name", alter(2, "bad name", ("retention.ms", "1"))),
    ("an empty name", alter(2, "", ("retention.ms", "1"))),
    ("an unknown key", alter(2, "bad-a", ("no.such.key", "1"))),
    ("an empty key", alter(2, "bad-a", ("", "1"))),
    ("a null value", alter(2, "bad-a", ("retention.ms", None))),
    ("an empty value", alter(2, "bad-a", ("retention.ms", ""))),
    ("a wrong value", alter(2, "bad-a", ("retention.ms", "soon"))),
    ("a key twice", alter(2, "bad-a", ("retention.ms", "1"),
                          ("retention.ms", "2"))),
    ("a topic twice", {"resources": [
        {"resource_type": 2, "resource_name": "bad-a", "configs": []}] * 2}),
    ("one of two wrong", alter(2, "bad-a", ("retention.ms", "100000"),
                               ("cleanup.policy", "shred"))),
    ("validated", alter(2, "bad-a", ("retention.ms", "100000"),
                        validate_only=True)),
    ("validated, wrong", alter(2, "bad-a", ("retention.ms", "x"),
                               validate_only=True)),
    ("a static key of a broker", alter(4, "1", ("node.id", "7"))),
    ("an unknown key of a broker", alter(4, "1", ("no.such.key", "7"),
                                         validate_only=True)),
    ("a wrong value of a broker", alter(4, "1", ("message.max.bytes", "x"))),
    ("another broker", alter(4, "2", ("message.max.bytes", "1000000"))),
    ("a broker by no number", alter(4, "one",
                                    ("message.max.bytes", "1000000"))),
    ("a broker below zero", alter(4, "-1", ("message.max.bytes", "1000000"))),
    ("loggers", alter(8, "1", ("root", "INFO"))),
    ("unknown kinds", {"resources": [
        {"resource_type": k, "resource_name": "x", "configs": []}
        for k in (0, 1, 3, 99, -1)]}),
]


def step(kind, name, *configs, **fields):
    return dict({"resources": [{"resource_type": kind, "resource_name": name,
                                "configs": [
                                    {"name": n, "config_operation": op,
                                     "value": v} for n, op, v in configs]}]},
                **fields)


INCREMENTAL_ALTER_CONFIGS = [
    ("nothing", {"resources": []}),
    ("no keys", step(2, "bad-a")),
    ("an unknown topic", step(2, "bad-none", ("retention.ms", 0, "1"))),
    ("an odd name", step(2, "bad name", ("retention.ms", 0, "1"))),
    ("an empty name", step(2, "", ("retention.ms", 0, "1"))),
    ("an unknown key", step(2, "bad-a", ("no.such.key", 0, "1"))),
    ("an unknown key deleted", step(2, "bad-a", ("no.such.key", 1, None))),
    ("an empty key", step(2, "bad-a", ("", 0, "1"))),
    ("a null value", step(2, "bad-a", ("retention.ms", 0, None))),
    ("an empty value", step(2, "bad-a", ("retention.ms", 0, ""))),
    ("a wrong value", step(2, "bad-a", ("retention.ms", 0, "soon"))),
    ("unknown operations", step(2, "bad-a", ("retention.ms", 4, "1")), ),
    ("an operation below zero", step(2, "bad-a", ("retention.ms", -1, "1"))),
    ("appended to no list", step(2, "bad-a", ("retention.ms", 2, "1"))),
    ("subtracted from no list", step(2, "bad-a", ("retention.ms", 3, "1"))),
    ("null appended", step(2, "bad-a", ("cleanup.policy", 2, None))),
    ("nonsense appended", step(2, "bad-a", ("cleanup.policy", 2, "shred"))),
    ("everything subtracted", step(2, "bad-a", ("cleanup.policy", 3,
                                                "delete"),
                                   validate_only=True)),
    ("what is not there subtracted", step(2, "bad-a", ("cleanup.policy", 3,
                                                       "compact"))),
    ("what is there appended", step(2, "bad-a", ("cleanup.policy", 2,
                                                 "delete"))),
    ("deleted, not set", step(2, "bad-a", ("retention.ms", 1, None))),
    ("deleted with a value", step(2, "bad-a", ("retention.ms", 1, "5"))),
    ("a key twice", step(2, "bad-a", ("retention.ms", 0, "1"),
                         ("retention.ms", 0, "2"))),
    ("a topic twice", {"resources": [
        {"resource_type": 2, "resource_name": "bad-a", "configs": []}] * 2}),
    ("one of two wrong", step(2, "bad-a", ("retention.ms", 0, "100000"),
                              ("cleanup.policy", 0, "shred"))),
    ("validated", step(2, "bad-a", ("retention.ms", 0, "100000"),
                       validate_only=True)),
    ("a static key of a broker", step(4, "1", ("node.id", 0, "7"))),
    ("listeners of a broker", step(4, "1", ("num.partitions", 0, "7"))),
    ("a dynamic key of a broker", step(4, "1", ("message.max.bytes", 0,
                                                "1048588"),
                                       validate_only=True)),
    ("a dynamic key of all", step(4, "", ("message.max.bytes", 0, "1048588"),
                                  validate_only=True)),
    ("an unknown key of a broker", step(4, "1", ("no.such.key", 0, "7"),
                                        validate_only=True)),
    ("a wrong value of a broker", step(4, "1", ("message.max.bytes", 0,
                                                "x"))),
    ("another broker", step(4, "2", ("message.max.bytes", 0, "1000000"))),
    ("a broker by no number", step(4, "one", ("message.max.bytes", 0,
                                              "1000000"))),
    ("a broker below zero", step(4, "-1", ("message.max.bytes", 0,
                                           "1000000"))),
    ("a null of a broker", step(4, "1", ("message.max.bytes", 0, None))),
    ("unknown kinds", {"resources": [
        {"resource_type": k, "resource_name": "x", "configs": []}
        for k in (0, 1, 3, 99, -1)]}),
]


def part(index, **fields):
    return dict(fields, partition_index=index)


def named(*pairs, key="name"):
    return {"topics": [{key: n, "partitions": p} for n, p in pairs]}


DELETE_RECORDS = [
    ("nothing", {"topics": [], "timeout_ms": 5000}),
    ("an unknown topic", named(("bad-none", [part(0, offset=0)]))),
    ("an odd name", named(("bad name", [part(0, offset=0)]))),
    ("unknown partitions", named(("bad-a", [part(9, offset=0),
                                            part(-1, offset=0),
                                            part(HUGE, offset=0)]))),
    ("beyond the end", named(("bad-a", [part(0, offset=6)]))),
    ("far beyond the end", named(("bad-a", [part(0, offset=2**63 - 1)]))),
    ("below zero", named(("bad-a", [part(0, offset=-2)]))),
    ("of an empty partition", named(("bad-a", [part(2, offset=1)]))),
    ("compacted", named(("bad-compact", [part(0, offset=0)]))),
    ("internal", named(("__consumer_offsets", [part(0, offset=0)]))),
    ("nothing of it", named(("bad-a", [part(0, offset=0)]))),
    ("a partition twice", named(("bad-a", [part(1, offset=0),
                                           part(1, offset=0)]))),
]

LIST_OFFSETS = [
    ("nothing", {"replica_id": -1, "topics": []}),
    ("an unknown topic", dict(named(("bad-none", [part(0, timestamp=-1)])),
                              replica_id=-1)),
    ("an odd name", dict(named(("bad name", [part(0, timestamp=-1)])),
                         replica_id=-1)),
    ("unknown partitions", dict(named(("bad-a", [
        part(9, timestamp=-1), part(-1, timestamp=-1),
        part(HUGE, timestamp=-1)])), replica_id=-1)),
] + [("timestamp %d" % t, dict(named(("bad-a", [part(0, timestamp=t)])),
                               replica_id=-1))
     for t in (-1, -2, -3, -4, -5, -6, -7, -100, 0, 2**63 - 1, -2**63)
] + [
    ("empty, timestamp -3", dict(named(("bad-a", [part(2, timestamp=-3)])),
                                 replica_id=-1)),
    ("a newer epoch", dict(named(("bad-a", [
        part(0, timestamp=-1, current_leader_epoch=1000)])), replica_id=-1)),
    ("an epoch below -1", dict(named(("bad-a", [
        part(0, timestamp=-1, current_leader_epoch=-2)])), replica_id=-1)),
    ("isolation 1", dict(named(("bad-a", [part(0, timestamp=-1)])),
                         replica_id=-1, isolation_level=1)),
    ("isolation 9", dict(named(("bad-a", [part(0, timestamp=-1)])),
                         replica_id=-1, isolation_level=9)),
    ("a partition twice", dict(named(("bad-a", [part(0, timestamp=-1)] * 2)),
                               replica_id=-1)),
]

OFFSET_FOR_LEADER_EPOCH = [
    ("nothing", {"replica_id": -1, "topics": []}),
    ("an unknown topic", {"replica_id": -1, "topics": [
        {"topic": "bad-none", "partitions": [{"partition": 0,
                                              "leader_epoch": 0}]}]}),
    ("unknown partitions", {"replica_id": -1, "topics": [
        {"topic": "bad-a", "partitions": [
            {"partition": p, "leader_epoch": 0} for p in (9, -1)]}]}),
    ("epochs", {"replica_id": -1, "topics": [
        {"topic": "bad-a", "partitions": [
            {"partition": 0, "leader_epoch": e}]} for e in (-1, -2, HUGE)]}),
    ("a newer epoch of its own", {"replica_id": -1, "topics": [
        {"topic": "bad-a", "partitions": [
            {"partition": 0, "current_leader_epoch": 1000,
             "leader_epoch": 0}]}]}),
]

METADATA = [
    ("none", {"topics": []}, "1+"),
    ("all", {"topics": None}, "1+"),
    ("unknown", {"topics": [{"name": "bad-none"}],
                 "allow_auto_topic_creation": False}, "4+"),
    ("odd names", {"topics": [{"name": n} for n in ODD_NAMES],
                   "allow_auto_topic_creation": False}, "4+"),
    ("twice", {"topics": [{"name": "bad-a"}] * 2,
               "allow_auto_topic_creation": False}),
    ("an unknown id", {"topics": [{"name": None, "topic_id": OTHER_ID}]},
     "10+"),
    ("an unknown id and a name", {"topics": [
        {"name": "bad-a", "topic_id": OTHER_ID}]}, "10+"),
    ("neither name nor id", {"topics": [{"name": None, "topic_id": NO_ID}]},
     "10+"),
]


def produce(topic, records, index=0, acks=-1, **more):
    return dict({"transactional_id": None, "acks": acks, "timeout_ms": 5000,
                 "topic_data": [{"name": topic, "partition_data": [
                     {"index": index, "records": records}]}]}, **more)


PRODUCE = [
    ("nothing", {"acks": -1, "timeout_ms": 5000, "topic_data": []}, "3-12"),
    ("an unknown topic", produce("bad-none", batch(b"x")), "3-12"),
    ("an odd name", produce("bad name", batch(b"x")), "3-12"),
    ("an unknown partition", produce("bad-a", batch(b"x"), 9), "3-12"),
    ("a partition below zero", produce("bad-a", batch(b"x"), -1), "3-12"),
    ("acks of 2", produce("bad-a", batch(b"x"), acks=2), "3-12"),
    ("acks of -2", produce("bad-a", batch(b"x"), acks=-2), "3-12"),
    ("no records", produce("bad-a", b""), "3-12"),
    ("null records", produce("bad-a", None), "3-12"),
    ("a wrong CRC", produce("bad-a", batch(b"x", crc=1), 1), "3-12"),
    ("cut short", produce("bad-a", batch(b"xyz")[:-2], 1), "3-12"),
    ("twelve bytes", produce("bad-a", batch(b"x")[:12], 1), "3-12"),
    ("an old format", produce("bad-a", batch(b"x")[:16] + b"\1" +
                              batch(b"x")[17:], 1), "3-12"),
    ("a future format", produce("bad-a", batch(b"x")[:16] + b"\3" +
                                batch(b"x")[17:], 1), "3-12"),
    ("two batches", produce("bad-a", batch(b"x") + batch(b"y"), 1), "3-12"),
    ("a count of two", produce("bad-a", batch(b"x", count=2), 1), "3-12"),
    ("a count of none", produce("bad-a", batch(b"x", count=0), 1), "3-12"),
    ("a codec that is none", produce("bad-a", batch(b"x", attributes=5), 1),
     "3-12"),
    ("a control batch", produce("bad-a", batch(b"x", attributes=0x20), 1),
     "3-12"),
    ("a producer without sequence", produce(
        "bad-a", batch(b"x", producer=(77, 0, -1)), 1), "3-12"),
    ("without a key, compacted", produce("bad-compact", batch(b"x")), "3-12"),
    ("too large", produce("bad-a", batch(b"x" * 1100000), 1), "3-12"),
    ("an internal topic", produce("__consumer_offsets", batch(b"x")), "3-12"),
    ("an unknown id", {"acks": -1, "timeout_ms": 5000, "topic_data": [
        {"topic_id": OTHER_ID, "partition_data": [
            {"index": 0, "records": batch(b"x")}]}]}, "13"),
    ("no id", {"acks": -1, "timeout_ms": 5000, "topic_data": [
        {"topic_id": NO_ID, "partition_data": [
            {"index": 0, "records": batch(b"x")}]}]}, "13"),
]


def fetch(topic, index=0, offset=0, **more):
    partition = {"partition": index, "fetch_offset": offset,
                 "partition_max_bytes": 100000}
    partition.update(more)
    return {"replica_id": -1, "max_wait_ms": 100, "min_bytes": 0,
            "max_bytes": 1000000, "isolation_level": 0, "session_id": 0,
            "session_epoch": -1,
            "topics": [{"topic": topic, "partitions": [partition]}]}


FETCH = [
    ("nothing", dict(fetch("bad-a"), topics=[])),
    ("an unknown topic", fetch("bad-none"), "4-12"),
    ("an odd name", fetch("bad name"), "4-12"),
    ("an unknown partition", fetch("bad-a", 9), "4-12"),
    ("a partition below zero", fetch("bad-a", -1), "4-12"),
    ("an offset below zero", fetch("bad-a", 0, -1), "4-12"),
    ("beyond the end", fetch("bad-a", 0, 6), "4-12"),
    ("at the end", fetch("bad-a", 0, 5), "4-12"),
    ("far beyond the end", fetch("bad-a", 0, 2**63 - 1), "4-12"),
    ("a newer epoch", fetch("bad-a", current_leader_epoch=1000), "9-12"),
    ("an unknown session", dict(fetch("bad-a"), session_id=12345,
                                session_epoch=3), "7-12"),
    ("a session of no number", dict(fetch("bad-a"), session_id=0,
                                    session_epoch=3), "7-12"),
    ("no bytes", dict(fetch("bad-a", partition_max_bytes=0), max_bytes=0),
     "4-12"),
    ("bytes below zero", dict(fetch("bad-a", partition_max_bytes=-1),
                              max_bytes=-1), "4-12"),
    ("isolation 9", dict(fetch("bad-a"), isolation_level=9), "4-12"),
    ("an unknown id", dict(fetch(""), topics=[
        {"topic_id": OTHER_ID, "partitions": [
            {"partition": 0, "partition_max_bytes": 1000}]}]), "13+"),
    ("no id", dict(fetch(""), topics=[
        {"topic_id": NO_ID, "partitions": [
            {"partition": 0, "partition_max_bytes": 1000}]}]), "13+"),
]

FIND_COORDINATOR = [
    ("a group", {"key": "bad-group", "coordinator_keys": ["bad-group"]}),
    ("an empty name", {"key": "", "coordinator_keys": [""]}),
    ("unknown kinds", {"key": "x", "key_type": 9, "coordinator_keys": ["x"]},
     "1+"),
    ("a kind below zero", {"key": "x", "key_type": -1,
                           "coordinator_keys": ["x"]}, "1+"),
    ("no keys", {"coordinator_keys": []}, "4+"),
    ("a key twice", {"coordinator_keys": ["bad-group"] * 2}, "4+"),
]


def join(**fields):
    return dict({"group_id": "bad-join", "session_timeout_ms": 10000,
                 "rebalance_timeout_ms": 10000, "member_id": "",
                 "group_instance_id": None, "protocol_type": "consumer",
                 "protocols": [{"name": "range", "metadata": b"x"}],
                 "reason": None}, **fields)


JOIN_GROUP = [
    ("an empty group", join(group_id="")),
    ("too short a session", join(session_timeout_ms=5999)),
    ("no session", join(session_timeout_ms=0)),
    ("too long a session", join(session_timeout_ms=1800001)),
    ("an unknown member", join(member_id="nobody")),
    ("no protocols", join(protocols=[])),
    ("an empty type", join(protocol_type="")),
    ("without an id", join(), "4+"),
    ("another type than the group", join(group_id="bad-live",
                                         protocol_type="connect")),
    ("another protocol than the group", join(
        group_id="bad-live", protocols=[{"name": "odd", "metadata": b""}])),
    ("an unknown instance with an id", join(
        member_id="nobody", group_instance_id="some"), "5+"),
]

HEARTBEAT = [
    ("an empty group", {"group_id": "", "generation_id": 1,
                        "member_id": "x"}),
    ("an unknown group", {"group_id": "bad-none", "generation_id": 1,
                          "member_id": "x"}),
    ("an empty member", {"group_id": "bad-live", "generation_id": 1,
                         "member_id": ""}),
    ("an unknown member", {"group_id": "bad-live", "generation_id": 1,
                           "member_id": "x"}),
    ("an empty group of offsets", {"group_id": "bad-group",
                                   "generation_id": -1, "member_id": ""}),
    ("an unknown instance", {"group_id": "bad-live", "generation_id": 1,
                             "member_id": "x", "group_instance_id": "y"},
     "3+"),
]

LEAVE_GROUP = [
    ("an empty group", {"group_id": "", "member_id": "x",
                        "members": [{"member_id": "x"}]}),
    ("an unknown group", {"group_id": "bad-none", "member_id": "x",
                          "members": [{"member_id": "x"}]}),
    ("an unknown member", {"group_id": "bad-live", "member_id": "x",
                           "members": [{"member_id": "x"}]}),
    ("an empty member", {"group_id": "bad-live", "member_id": "",
                         "members": [{"member_id": ""}]}),
    ("no members", {"group_id": "bad-live", "members": []}, "3+"),
    ("a member twice", {"group_id": "bad-live", "members": [
        {"member_id": "x"}] * 2}, "3+"),
    ("an unknown instance", {"group_id": "bad-live", "members": [
        {"member_id": "", "group_instance_id": "y"}]}, "3+"),
]

SYNC_GROUP = [
    ("an empty group", {"group_id": "", "generation_id": 1, "member_id": "x",
                        "protocol_type": "consumer",
                        "protocol_name": "range"}),
    ("an unknown group", {"group_id": "bad-none", "generation_id": 1,
                          "member_id": "x", "protocol_type": "consumer",
                          "protocol_name": "range"}),
    ("an unknown member", {"group_id": "bad-live", "generation_id": 1,
                           "member_id": "x", "protocol_type": "consumer",
                           "protocol_name": "range"}),
    ("neither type nor protocol", {
        "group_id": "bad-live", "generation_id": 1, "member_id": "x"}),
    ("an empty member", {"group_id": "bad-live", "generation_id": 1,
                         "member_id": "", "protocol_type": "consumer",
                         "protocol_name": "range"}),
]


def commit(group, index=0, offset=1, topic="bad-a", generation=-1, member="",
           **more):
    return {"group_id": group, "member_id": member,
            "generation_id_or_member_epoch": generation, "topics": [
                {"name": topic, "partitions": [
                    dict({"partition_index": index,
                          "committed_offset": offset,
                          "committed_metadata": ""}, **more)]}]}


OFFSET_COMMIT = [
    ("nothing", dict(commit("bad-group"), topics=[]), "2-9"),
    ("an empty group", commit(""), "2-9"),
    ("an unknown topic", commit("bad-group", topic="bad-none"), "2-9"),
    ("an odd name", commit("bad-group", topic="bad name"), "2-9"),
    ("an unknown partition", commit("bad-group", 9), "2-9"),
    ("a partition below zero", commit("bad-group", -1), "2-9"),
    ("an offset below zero", commit("bad-group", 1, -5), "2-9"),
    ("too much metadata", commit("bad-group", 1,
                                 committed_metadata="x" * 5000), "2-9"),
    ("null metadata", commit("bad-group", 1, committed_metadata=None), "2-9"),
    ("an unknown member", commit("bad-group", member="x", generation=1),
     "2-9"),
    ("a generation without member", commit("bad-group", generation=5), "2-9"),
    ("a member without generation", commit("bad-group", member="x"), "2-9"),
    ("a new group with a generation", commit("bad-none", generation=3,
                                             member="x"), "2-9"),
    ("a live group", commit("bad-live"), "2-9"),
    ("an unknown member of a live group", commit(
        "bad-live", generation=1, member="x"), "2-9"),
    ("an unknown id", {"group_id": "bad-group",
                       "generation_id_or_member_epoch": -1, "topics": [
                           {"topic_id": OTHER_ID, "partitions": [
                               {"partition_index": 0,
                                "committed_offset": 1}]}]}, "10"),
]


def fetch_offsets(group, topics):
    named_topics = topics and [{"name": t, "partition_indexes": p}
                               for t, p in topics]
    return {"group_id": group, "topics": named_topics, "groups": [
        {"group_id": group, "topics": named_topics}]}


OFFSET_FETCH = [
    ("all of a group", fetch_offsets("bad-group", None), "2-9"),
    ("none of a group", fetch_offsets("bad-group", []), "1-9"),
    ("an unknown group", fetch_offsets("bad-none", [("bad-a", [0])]), "1-9"),
    ("all of an unknown group", fetch_offsets("bad-none", None), "2-9"),
    ("an empty group", fetch_offsets("", [("bad-a", [0])]), "1-9"),
    ("an unknown topic", fetch_offsets("bad-group", [("bad-none", [0])]),
     "1-9"),
    ("an odd name", fetch_offsets("bad-group", [("bad name", [0])]), "1-9"),
    ("unknown partitions", fetch_offsets("bad-group", [("bad-a", [9, -1])]),
     "1-9"),
    ("no partitions", fetch_offsets("bad-group", [("bad-a", [])]), "1-9"),
    ("a member nobody knows", {"groups": [
        {"group_id": "bad-live", "member_id": "x", "member_epoch": 1,
         "topics": [{"name": "bad-a", "partition_indexes": [0]}]}]}, "9"),
    ("no groups", {"groups": []}, "8-9"),
    ("a group twice", {"groups": [{"group_id": "bad-group",
                                   "topics": None}] * 2}, "8-9"),
    ("an unknown id", {"groups": [{"group_id": "bad-group", "topics": [
        {"topic_id": OTHER_ID, "partition_indexes": [0]}]}]}, "10"),
]

OFFSET_DELETE = [
    ("an empty group", dict(named(("bad-a", [part(0)])), group_id="")),
    ("an unknown group", dict(named(("bad-a", [part(0)])),
                              group_id="bad-none")),
    ("nothing", {"group_id": "bad-group", "topics": []}),
    ("nothing of an unknown group", {"group_id": "bad-none", "topics": []}),
    ("an unknown topic", dict(named(("bad-none", [part(0)])),
                              group_id="bad-group")),
    ("an unknown topic of an unknown group", dict(
        named(("bad-none", [part(0)])), group_id="bad-none")),
    ("unknown partitions", dict(named(("bad-a", [part(9), part(-1)])),
                                group_id="bad-group")),
    ("a subscribed topic", dict(named(("bad-a", [part(0)]),
                                      ("bad-compact", [part(0)])),
                                group_id="bad-live")),
    ("never committed", dict(named(("bad-a", [part(2)])),
                             group_id="bad-group")),
    ("twice", dict(named(("bad-a", [part(2), part(2)])),
                   group_id="bad-group")),
]

DESCRIBE_GROUPS = [
    ("none", {"groups": []}),
    ("an empty name", {"groups": [""]}),
    ("unknown", {"groups": ["bad-none"]}),
    ("empty", {"groups": ["bad-group"]}),
    ("live", {"groups": ["bad-live"]}),
    ("twice", {"groups": ["bad-group", "bad-group"]}),
]

LIST_GROUPS = [
    ("all", {}),
    ("an unknown state", {"states_filter": ["Asleep"]}),
    ("an empty state", {"states_filter": [""]}),
    ("states in capitals", {"states_filter": ["EMPTY", "stable"]}),
    ("an unknown type", {"types_filter": ["rock"]}),
    ("types", {"types_filter": ["Classic", "consumer"]}),
]

DELETE_GROUPS = [
    ("none", {"groups_names": []}),
    ("an empty name", {"groups_names": [""]}),
    ("unknown", {"groups_names": ["bad-none"]}),
    ("live", {"groups_names": ["bad-live"]}),
    ("unknown twice", {"groups_names": ["bad-none", "bad-none"]}),
]

DESCRIBE_LOG_DIRS = [
    ("all", {"topics": None}),
    ("none", {"topics": []}),
    ("unknown", {"topics": [{"topic": "bad-none", "partitions": [0]}]}),
    ("unknown partitions", {"topics": [{"topic": "bad-a",
                                        "partitions": [9, -1]}]}),
    ("no partitions", {"topics": [{"topic": "bad-a", "partitions": []}]}),
]

ALTER_REPLICA_LOG_DIRS = [
    ("nothing", {"dirs": []}),
    ("an unknown directory", {"dirs": [{"path": "/nowhere", "topics": [
        {"name": "bad-a", "partitions": [0, 9]},
        {"name": "bad-none", "partitions": [0]}]}]}),
    ("a relative one", {"dirs": [{"path": "x", "topics": [
        {"name": "bad-a", "partitions": [0]}]}]}),
    ("an empty one", {"dirs": [{"path": "", "topics": [
        {"name": "bad-a", "partitions": [0]}]}]}),
]

ELECT_LEADERS = [
    ("all", {"topic_partitions": None}),
    ("none", {"topic_partitions": []}),
    ("unknown topics", {"topic_partitions": [
        {"topic": n, "partitions": [0]} for n in ("bad-none", "bad name",
                                                  "")]}),
    ("unknown partitions", {"topic_partitions": [
        {"topic": "bad-a", "partitions": [9, -1, HUGE]}]}),
    ("not needed", {"topic_partitions": [{"topic": "bad-a",
                                          "partitions": [0, 1]}]}),
    ("twice", {"topic_partitions": [{"topic": "bad-a",
                                     "partitions": [0, 0]}]}),
    ("unclean, not needed", {"election_type": 1, "topic_partitions": [
        {"topic": "bad-a", "partitions": [0]}]}, "1+"),
    ("an unknown kind", {"election_type": 2, "topic_partitions": [
        {"topic": "bad-a", "partitions": [0]}]}, "1+"),
    ("an unknown kind of all", {"election_type": -1,
                                "topic_partitions": None}, "1+"),
    ("no time", {"timeout_ms": 0, "topic_partitions": [
        {"topic": "bad-a", "partitions": [0]}]}),
]


def move(*lists, topic="bad-a"):
    return {"topics": [{"name": topic, "partitions": [
        {"partition_index": i, "replicas": r} for i, r in lists]}]}


ALTER_PARTITION_REASSIGNMENTS = [
    ("nothing", {"topics": []}),
    ("unknown topics", move((0, [1]), topic="bad-none")),
    ("an odd name", move((0, [1]), topic="bad name")),
    ("unknown partitions", move((9, [1]), (-1, [1]))),
    ("where it is", move((0, [1]))),
    ("an unknown broker", move((0, [7]))),
    ("a broker below zero", move((0, [-1]))),
    ("a broker twice", move((0, [1, 1]))),
    ("nowhere", move((0, []))),
    ("cancelled", move((0, None))),
    ("a partition twice", move((0, [1]), (0, [7]))),
]

LIST_PARTITION_REASSIGNMENTS = [
    ("all", {"topics": None}),
    ("none", {"topics": []}),
    ("unknown", {"topics": [{"name": "bad-none", "partition_indexes": [0]}]}),
    ("unknown partitions", {"topics": [{"name": "bad-a",
                                        "partition_indexes": [9, -1]}]}),
]


def quota_filter(*components, strict=False):
    return {"components": [{"entity_type": e, "match_type": m, "match": t}
                           for e, m, t in components], "strict": strict}


DESCRIBE_CLIENT_QUOTAS = [
    ("all", quota_filter()),
    ("strict", quota_filter(strict=True)),
    ("a user", quota_filter(("user", 0, "nobody"))),
    ("the default user", quota_filter(("user", 1, None))),
    ("any user", quota_filter(("user", 2, None))),
    ("an unknown kind", quota_filter(("planet", 0, "earth"))),
    ("an empty kind", quota_filter(("", 0, "x"))),
    ("an unknown match", quota_filter(("user", 3, "x"))),
    ("a match below zero", quota_filter(("user", -1, "x"))),
    ("exactly nobody", quota_filter(("user", 0, None))),
    ("the default of a name", quota_filter(("user", 1, "x"))),
    ("any of a name", quota_filter(("user", 2, "x"))),
    ("a kind twice", quota_filter(("user", 0, "x"), ("user", 0, "y"))),
    ("an address and a user", quota_filter(("ip", 0, "127.0.0.1"),
                                           ("user", 0, "y"))),
    ("an address that is none", quota_filter(("ip", 0, "a b"))),
]


def quota(entity, *ops, **more):
    return dict({"entries": [{"entity": [
        {"entity_type": t, "entity_name": n} for t, n in entity],
        "ops": [{"key": k, "value": v, "remove": r} for k, v, r in ops]}]},
        **more)


DESCRIBE_USER_SCRAM_CREDENTIALS = [
    ("all", {"users": None}),
    ("nobody", {"users": []}),
    ("one", {"users": [{"name": "nobody"}]}),
    ("no name", {"users": [{"name": ""}]}),
    ("one twice", {"users": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}),
]

ALTER_CLIENT_QUOTAS = [
    ("nothing", {"entries": []}),
    ("nobody", quota([])),
    ("an unknown kind", quota([("planet", "earth")])),
    ("an empty name", quota([("user", "")])),
    ("nothing of a user", quota([("user", "nobody")])),
    ("an unknown key", quota([("user", "u")], ("sleep", 1.0, False))),
    ("an unknown key removed", quota([("user", "u")], ("sleep", 1.0, True))),
    ("below zero", quota([("user", "u")],
                         ("producer_byte_rate", -1.0, False))),
    ("zero", quota([("user", "u")], ("producer_byte_rate", 0.0, False))),
    ("removed, not set", quota([("user", "u")],
                               ("producer_byte_rate", 0.0, True))),
    ("a user's key of an address", quota(
        [("ip", "127.0.0.1")], ("producer_byte_rate", 1.0, False))),
    ("an address's key of a user", quota(
        [("user", "u")], ("connection_creation_rate", 1.0, False))),
    ("an address and a user", quota(
        [("ip", "127.0.0.1"), ("user", "u")],
        ("connection_creation_rate", 1.0, False))),
    ("half a byte", quota([("user", "u")],
                          ("producer_byte_rate", 0.5, False),
                          validate_only=True)),
    ("validated", quota([("user", "u")], ("producer_byte_rate", 1000.0,
                                          False), validate_only=True)),
]

ACL_FILTER = {"resource_type_filter": 1, "pattern_type_filter": 1,
              "operation": 1, "permission_type": 1}
DESCRIBE_ACLS = [
    ("all", ACL_FILTER),
    ("unknown kinds", dict(ACL_FILTER, resource_type_filter=99)),
    ("an unknown operation", dict(ACL_FILTER, operation=99)),
    ("an unknown permission", dict(ACL_FILTER, permission_type=99)),
    ("an unknown pattern", dict(ACL_FILTER, pattern_type_filter=99)),
    ("nothing", {}),
]
ACL = {"resource_type": 2, "resource_name": "bad-a", "principal": "User:x",
       "host": "*", "operation": 3, "permission_type": 3}
CREATE_ACLS = [
    ("none", {"creations": []}),
    ("two", {"creations": [ACL, ACL]}),
    ("an unknown kind", {"creations": [dict(ACL, resource_type=99)]}),
    ("any kind", {"creations": [dict(ACL, resource_type=1)]}),
    ("any pattern", {"creations": [dict(ACL, resource_pattern_type=1)]}),
    ("a principal of no kind", {"creations": [dict(ACL, principal="x")]}),
]
DELETE_ACLS = [
    ("none", {"filters": []}),
    ("all", {"filters": [ACL_FILTER]}),
    ("an unknown kind", {"filters": [dict(ACL_FILTER,
                                          resource_type_filter=99)]}),
]

DESCRIBE_CLUSTER = [
    ("brokers", {"endpoint_type": 1}),
    ("controllers", {"endpoint_type": 2}, "1+"),
    ("unknown kinds", {"endpoint_type": 3}, "1+"),
    ("a kind below zero", {"endpoint_type": -1}, "1+"),
    ("fenced ones too", {"include_fenced_brokers": True}, "2"),
]

DESCRIBE_PRODUCERS = [
    ("nothing", {"topics": []}),
    ("unknown", {"topics": [{"name": n, "partition_indexes": [0]}
                            for n in ("bad-none", "bad name", "")]}),
    ("unknown partitions", {"topics": [
        {"name": "bad-a", "partition_indexes": [9, -1]}]}),
    ("no partitions", {"topics": [
        {"name": "bad-a", "partition_indexes": []}]}),
    ("a partition", {"topics": [{"name": "bad-a",
                                 "partition_indexes": [0, 0]}]}),
]

DESCRIBE_TOPIC_PARTITIONS = [
    ("unknown", {"topics": [{"name": "bad-none"}]}),
    ("odd names", {"topics": [{"name": n} for n in ODD_NAMES]}),
    ("twice", {"topics": [{"name": "bad-a"}] * 2}),
    ("no room", {"topics": [{"name": "bad-a"}],
                 "response_partition_limit": 0}),
    ("room below zero", {"topics": [{"name": "bad-a"}],
                         "response_partition_limit": -7}),
    ("two at a time", {"topics": [{"name": "bad-a"}, {"name": "bad-compact"}],
                       "response_partition_limit": 2}),
    ("from a partition on", {"topics": [{"name": "bad-a"}], "cursor": {
        "topic_name": "bad-a", "partition_index": 1}}),
    ("from a partition that is not", {"topics": [{"name": "bad-a"}],
                                      "cursor": {"topic_name": "bad-a",
                                                 "partition_index": 9}}),
    ("from below zero", {"topics": [{"name": "bad-a"}], "cursor": {
        "topic_name": "bad-a", "partition_index": -1}}),
    ("from another topic", {"topics": [{"name": "bad-a"}], "cursor": {
        "topic_name": "bad-0", "partition_index": 0}}),
    ("from behind all", {"topics": [{"name": "bad-a"}], "cursor": {
        "topic_name": "bad-z", "partition_index": 0}}),
]

LIST_CONFIG_RESOURCES = [
    ("all", {}),
    ("topics", {"resource_types": [2]}),
    ("unknown kinds", {"resource_types": [99]}),
    ("no kind", {"resource_types": [0]}),
    ("a kind below zero", {"resource_types": [2, -1]}),
    ("twice", {"resource_types": [2, 2]}),
]

DESCRIBE_QUORUM = [
    ("nothing", {"topics": []}),
    ("another topic", {"topics": [{"topic_name": "bad-a", "partitions": [
        {"partition_index": 0}]}]}),
    ("another partition", {"topics": [
        {"topic_name": "__cluster_metadata", "partitions": [
            {"partition_index": 1}]}]}),
    ("two partitions", {"topics": [
        {"topic_name": "__cluster_metadata", "partitions": [
            {"partition_index": 0}, {"partition_index": 1}]}]}),
    ("no partitions", {"topics": [
        {"topic_name": "__cluster_metadata", "partitions": []}]}),
    ("the quorum", {"topics": [
        {"topic_name": "__cluster_metadata", "partitions": [
            {"partition_index": 0}]}]}),
]

UNREGISTER_BROKER = [
    ("unknown", {"broker_id": 77}),
    ("below zero", {"broker_id": -1}),
]

INIT_PRODUCER_ID = [
    ("idempotent", {"transactional_id": None,
                    "transaction_timeout_ms": 60000}),
    ("idempotent, no time", {"transactional_id": None,
                             "transaction_timeout_ms": 0}),
    ("an empty id", {"transactional_id": "",
                     "transaction_timeout_ms": 60000}),
    ("an epoch without id", {"transactional_id": None,
                             "transaction_timeout_ms": 60000,
                             "producer_id": -1, "producer_epoch": 3}, "3+"),
    ("an id without epoch", {"transactional_id": None,
                             "transaction_timeout_ms": 60000,
                             "producer_id": 3, "producer_epoch": -1}, "3+"),
]

API_VERSIONS = [
    ("a name", {"client_software_name": "a-b.c1",
                "client_software_version": "1"}, "0-4"),
    ("no name", {"client_software_name": "",
                 "client_software_version": "1"}, "3-4"),
    ("no version", {"client_software_name": "a",
                    "client_software_version": ""}, "3-4"),
    ("odd names", {"client_software_name": "a b",
                   "client_software_version": "1"}, "3-4"),
    ("a name that ends in a dash", {"client_software_name": "a-",
                                    "client_software_version": "1"}, "3-4"),
]

TABLE = {
    "produce": PRODUCE,
    "fetch": FETCH,
    "list_offsets": LIST_OFFSETS,
    "metadata": METADATA,
    "offset_commit": OFFSET_COMMIT,
    "offset_fetch": OFFSET_FETCH,
    "find_coordinator": FIND_COORDINATOR,
    "join_group": JOIN_GROUP,
    "heartbeat": HEARTBEAT,
    "leave_group": LEAVE_GROUP,
    "sync_group": SYNC_GROUP,
    "describe_groups": DESCRIBE_GROUPS,
    "list_groups": LIST_GROUPS,
    "api_versions": API_VERSIONS,
    "create_topics": CREATE_TOPICS,
    "delete_topics": DELETE_TOPICS,
    "delete_records": DELETE_RECORDS,
    "init_producer_id": INIT_PRODUCER_ID,
    "offset_for_leader_epoch": OFFSET_FOR_LEADER_EPOCH,
    "describe_acls": DESCRIBE_ACLS,
    "create_acls": CREATE_ACLS,
    "delete_acls": DELETE_ACLS,
    "describe_configs": DESCRIBE_CONFIGS,
    "alter_configs": ALTER_CONFIGS,
    "alter_replica_log_dirs": ALTER_REPLICA_LOG_DIRS,
    "describe_log_dirs": DESCRIBE_LOG_DIRS,
    "create_partitions": CREATE_PARTITIONS,
    "delete_groups": DELETE_GROUPS,
    "elect_leaders": ELECT_LEADERS,
    "incremental_alter_configs": INCREMENTAL_ALTER_CONFIGS,
    "alter_partition_reassignments": ALTER_PARTITION_REASSIGNMENTS,
    "list_partition_reassignments": LIST_PARTITION_REASSIGNMENTS,
    "offset_delete": OFFSET_DELETE,
    "describe_client_quotas": DESCRIBE_CLIENT_QUOTAS,
    "alter_client_quotas": ALTER_CLIENT_QUOTAS,
    "describe_user_scram_credentials": DESCRIBE_USER_SCRAM_CREDENTIALS,
    "describe_quorum": DESCRIBE_QUORUM,
    "describe_cluster": DESCRIBE_CLUSTER,
    "describe_producers": DESCRIBE_PRODUCERS,
    "unregister_broker": UNREGISTER_BROKER,
    "list_config_resources": LIST_CONFIG_RESOURCES,
    "describe_topic_partitions": DESCRIBE_TOPIC_PARTITIONS,
}

# Values that make a request of defaults one that is answered.
BASE = {"produce": {"acks": -1}, "fetch": {"session_epoch": -1},
        "api_versions": {"client_software_name": "a",
                         "client_software_version": "1"}}
