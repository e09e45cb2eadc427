"""A client that goes as fast as it can, by confluent-kafka; prints how fast that
was and how often it was told to wait, as JSON.
    quota_client.py BOOTSTRAP TOPIC produce|consume SECONDS FROM
The rate is that of the seconds FROM on, in bytes of values."""
import json
import os
import sys
import time

import confluent_kafka as ck

BOOTSTRAP, TOPIC, ROLE = sys.argv[1:4]
SECONDS, FROM = float(sys.argv[4]), float(sys.argv[5])
VALUE = os.urandom(10000)
seen = []  # (when, bytes)
throttled = []


def config(**more):
    return dict({"bootstrap.servers": BOOTSTRAP, "client.id": "quota-" + ROLE,
                 "throttle_cb": lambda e: throttled.append(e.throttle_time)},
                **more)


def delivered(error, message):
    if error is not None:
        raise ck.KafkaException(error)
    seen.append((time.monotonic(), len(message)))


def produce(end):
    p = ck.Producer(config(**{"queue.buffering.max.messages": 400,
                              "linger.ms": 5, "batch.size": 100000,
                              "message.timeout.ms": 300000}))
    while time.monotonic() < end:
        try:
            p.produce(TOPIC, VALUE, partition=0, on_delivery=delivered)
            p.poll(0)
        except BufferError:
            p.poll(0.01)


def consume(end):
    c = ck.Consumer(config(**{"group.id": "quota", "queued.min.messages": 1000,
                              "fetch.message.max.bytes": 200000}))
    c.assign([ck.TopicPartition(TOPIC, 0, 0)])
    while time.monotonic() < end:
        message = c.poll(0.1)
        if message is not None and message.error() is None:
            seen.append((time.monotonic(), len(message)))


begun = time.monotonic()
(produce if ROLE == "produce" else consume)(begun + SECONDS)
counted = [(t, n) for t, n in seen if FROM <= t - begun < SECONDS]
print(json.dumps({"rate": sum(n for t, n in counted) / (SECONDS - FROM),
                  "first": sum(n for t, n in seen if t - begun < FROM),
                  "throttled": len(throttled), "longest": max(throttled + [0])}))
os._exit(0)  # what is not delivered yet does not matter
