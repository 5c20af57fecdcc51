"""Reads topics of Kafka from their beginnings to their ends, with a client that is not ours.

Prints one line of JSON for each record: topic, partition, offset, timestamp (milliseconds), timestamp_type (create or
append), key and value (base64, or null), headers (pairs of a name and base64, or null). Records of a partition come in
its order. The end of a topic is the end at the start of the reading; of what is in a transaction, only what was
committed is shown, unless --uncommitted is given.
"""

import argparse
import base64
import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_LOG_APPEND_TIME, Consumer, IsolationLevel, KafkaError
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

TIME_OUT_S = 30
STANDSTILL_S = 120


def main():
    options = arguments()
    admin = AdminClient({"bootstrap.servers": options.bootstrap})
    places = partitions(admin, options.topics)
    if options.settled:
        check_settled(admin, places)
    read(options, places)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstrap", required=True, help="HOST:PORT of a broker, or several, by comma")
    parser.add_argument("--uncommitted", action="store_true", help="also what is not committed, or was aborted")
    parser.add_argument("--settled", action="store_true", help="fail if a transaction is still open")
    parser.add_argument("topics", nargs="+", metavar="TOPIC")
    return parser.parse_args()


def partitions(admin, topics):
    known = admin.list_topics(timeout=TIME_OUT_S).topics
    places = []
    for topic in topics:
        if topic not in known:
            sys.exit(f"read_topics.py: there is no topic {topic}")
        places += [TopicPartition(topic, partition) for partition in sorted(known[topic].partitions)]
    return places


def ends(admin, places, isolation):
    asked = admin.list_offsets({place: OffsetSpec.latest() for place in places}, isolation_level=isolation)
    return {(place.topic, place.partition): future.result(TIME_OUT_S).offset for place, future in asked.items()}


def check_settled(admin, places):
    stable = ends(admin, places, IsolationLevel.READ_COMMITTED)
    for (topic, partition), end in ends(admin, places, IsolationLevel.READ_UNCOMMITTED).items():
        if stable[topic, partition] < end:
            sys.exit(f"read_topics.py: {topic}/{partition}: a transaction is open at {stable[topic, partition]}")


def read(options, places):
    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap,
            "group.id": "read-topics",
            "isolation.level": "read_uncommitted" if options.uncommitted else "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": 10,
        }
    )
    consumer.assign([TopicPartition(place.topic, place.partition, OFFSET_BEGINNING) for place in places])
    waiting = {(place.topic, place.partition) for place in places}
    moved = time.monotonic()
    while waiting:
        messages = consumer.consume(10_000, timeout=1)
        if messages:
            moved = time.monotonic()
        elif time.monotonic() - moved > STANDSTILL_S:
            sys.exit(f"read_topics.py: nothing came for {STANDSTILL_S} s, and no end of {sorted(waiting)[:5]}")
        for message in messages:
            place = (message.topic(), message.partition())
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                if place in waiting:
                    waiting.remove(place)
                    consumer.pause([TopicPartition(*place)])
            elif error is not None:
                sys.exit(f"read_topics.py: {place[0]}/{place[1]}: {error}")
            elif place in waiting:
                print(line(message))
    consumer.close()


def line(message):
    kind, timestamp = message.timestamp()
    return json.dumps(
        {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": timestamp,
            "timestamp_type": "append" if kind == TIMESTAMP_LOG_APPEND_TIME else "create",
            "key": text(message.key()),
            "value": text(message.value()),
            "headers": [[name, text(value)] for name, value in message.headers() or []],
        }
    )


def text(data):
    return None if data is None else base64.b64encode(data).decode()


if __name__ == "__main__":
    main()
