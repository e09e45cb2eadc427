"""A folder that looks like a Kafka release to whoever calls its scripts:
bin/NAME.sh start the main classes of the jars from Maven Central."""
import os

from fetch import cache, once
from harness import run

HERE = os.path.dirname(os.path.abspath(__file__))
JAVA = "java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp"
SCRIPTS = {
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs": "org.apache.kafka.tools.ConfigCommand",
    "kafka-acls": "org.apache.kafka.tools.AclCommand",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer":
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-consumer-groups":
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
}


def jars(*more):
    """The folder of the jars of Kafka's broker and tools; with names of
    artifacts, the folder of those and what they need."""
    def make(folder):
        run([os.path.join(HERE, "kafka_jars.sh"), folder] + list(more),
            timeout=900)
    # a colon would part a class path
    name = "-".join(("kafka",) + more).replace(":", "-")
    return os.path.join(once(name, make), "jars")


def kafka_path():
    """Made anew each time: it is nothing but text."""
    libs = jars()
    folder = cache("kafka-path")
    os.makedirs(os.path.join(folder, "bin"), exist_ok=True)
    link = os.path.join(folder, "libs")
    if not os.path.islink(link):
        os.symlink(libs, link)
    put(folder, "kafka-run-class",
        '%s "${CLASSPATH:+$CLASSPATH:}%s/*" "$@"' % (JAVA, libs))
    for name, main in SCRIPTS.items():
        put(folder, name, '%s "%s/*" %s "$@"' % (JAVA, libs, main))
    return folder


def put(folder, name, command):
    path = os.path.join(folder, "bin", name + ".sh")
    with open(path + ".new", "w") as f:
        f.write("#!/bin/sh\nexec %s\n" % command)
    os.chmod(path + ".new", 0o755)
    os.rename(path + ".new", path)
