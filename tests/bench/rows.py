"""What is measured, and which ratio to which system is aimed at."""
from dataclasses import dataclass, field


@dataclass
class Row:
    name: str
    kind: str  # produce, consume, tail, kill, start
    partitions: int = 12
    size: int = 1024
    records: int = 0
    # records before those, of a client that is a JVM: what it does while it
    # compiles itself says nothing of the brokers
    warm: int = 0
    rate: int = 0  # records a second; 0: as fast as possible
    java: list = field(default_factory=list)
    rdkafka: list = field(default_factory=list)
    clients: tuple = ("java",)  # of Kafka's wire
    systems: tuple = ("flotilla", "kafka", "kafka-sync")
    outstanding: int = 1000  # of NATS: messages under way
    # figure, system, factor: ours is to be at least (rate) or at most
    # (everything else) that many times theirs
    aims: tuple = ()


CPU = ("cpu", "kafka", 1 / 4)
MEMORY = ("rss", "kafka", 1 / 8)
BOTH = ("flotilla", "kafka")

ROWS = [
    Row("start", "start", systems=BOTH, clients=("rdkafka",),
        aims=(("first_ack", "kafka", 1 / 7),)),
    Row("1 KiB, client defaults", "produce", records=500000, warm=300000,
        clients=("java", "rdkafka"),
        aims=(("rate", "kafka", 2), ("rate", "kafka-sync", 6), CPU, MEMORY)),
    Row("100 B, client defaults", "produce", size=100, records=3000000,
        aims=(("rate", "kafka", 1.5), CPU)),
    Row("100 KiB, batch.size 1 MiB", "produce", size=102400, records=8000,
        java=["batch.size=1048576"], rdkafka=["batch.size=1048576"],
        aims=(("rate", "kafka", 1.5), CPU, MEMORY)),
    Row("1 KiB, batch.size 256 KiB", "produce", records=800000,
        java=["batch.size=262144"], rdkafka=["batch.size=262144"],
        aims=(("rate", "kafka", 1.5), CPU, MEMORY)),
    Row("1 KiB, 1 partition", "produce", partitions=1, records=200000,
        warm=200000, aims=(("rate", "kafka", 3), CPU)),
    Row("1 KiB, 1,000 partitions", "produce", partitions=1000,
        records=400000, warm=300000, systems=BOTH,
        aims=(("rate", "kafka", 3), CPU)),
    Row("1 KiB at 5,000/s, linger 0", "produce", records=75000, rate=5000,
        warm=75000, java=["linger.ms=0"], rdkafka=["linger.ms=0"],
        aims=(("p50", "kafka", 1), ("p99", "kafka", 1 / 4),
              ("p99.9", "kafka", 1 / 4))),
    Row("consume from the start", "consume", records=1500000,
        clients=("rdkafka", "java"), systems=BOTH,
        aims=(("rate", "kafka", 1.2),)),
    Row("consume the tail", "tail", records=600000, clients=("rdkafka",),
        systems=BOTH, aims=(("rate", "kafka", 1.2),)),
    Row("kill -9 of one broker", "kill", records=60000, rate=3000,
        clients=("rdkafka",), systems=BOTH, aims=(("gap", "kafka", 1 / 6),)),
    Row("2 partitions or streams", "produce", partitions=2, records=400000,
        clients=("rdkafka",), systems=("flotilla", "nats", "nats-sync"),
        aims=(("rate", "nats", 2), ("rate", "nats-sync", 4))),
    Row("100 partitions or streams", "produce", partitions=100,
        records=200000, clients=("rdkafka",),
        systems=("flotilla", "nats", "nats-sync"),
        aims=(("rate", "nats", 5), ("rate", "nats-sync", 15))),
]
