"""Writes records to topics of Kafka, with a client that is not ours.

Takes lines of JSON as read_topics.py prints them: topic, and as wished partition, timestamp, key, value, headers. Topics
are there beforehand, or made with --create TOPIC:PARTITIONS. Without --transactions records are simply written, in order.
With it, each line with {"end": "commit"} or {"end": "abort"} ends a transaction so; one that is open at the end of the
lines is left as it is, as by a writer that died.
"""

import argparse
import base64
import json
import os
import sys

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

TIME_OUT_S = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstrap", required=True, help="HOST:PORT of a broker, or several, by comma")
    parser.add_argument("--create", action="append", default=[], metavar="TOPIC:PARTITIONS")
    parser.add_argument("--transactions", metavar="ID", help="write in transactions, under this transactional id")
    options = parser.parse_args()
    create(options)
    write(options)


def create(options):
    admin = AdminClient({"bootstrap.servers": options.bootstrap})
    # Times of records are what they are: nothing is deleted because it happened long ago.
    settings = {"retention.ms": "-1"}
    topics = [topic.rsplit(":", 1) for topic in options.create]
    new = [NewTopic(name, num_partitions=int(partitions), config=settings) for name, partitions in topics]
    for made in admin.create_topics(new).values() if new else []:
        made.result(TIME_OUT_S)


def write(options):
    settings = {
        "bootstrap.servers": options.bootstrap,
        "enable.idempotence": True,
        "linger.ms": 20,
        # As Java clients choose partitions.
        "partitioner": "murmur2_random",
        "batch.size": 1_000_000,
        "queue.buffering.max.messages": 1_000_000,
    }
    if options.transactions:
        settings["transactional.id"] = options.transactions
    producer = Producer(settings)
    if options.transactions:
        producer.init_transactions(TIME_OUT_S)
    open_transaction = False
    for line in sys.stdin:
        record = json.loads(line)
        if "end" in record:
            producer.flush(TIME_OUT_S)
            if record["end"] == "commit":
                producer.commit_transaction(TIME_OUT_S)
            else:
                producer.abort_transaction(TIME_OUT_S)
            open_transaction = False
            continue
        if options.transactions and not open_transaction:
            producer.begin_transaction()
            open_transaction = True
        send(producer, record)
    if producer.flush(TIME_OUT_S) > 0:
        sys.exit("write_topics.py: not all records were taken in time")
    if open_transaction:
        # Not by sys.exit: the producer would abort on its way out.
        os._exit(0)


def send(producer, record):
    place = {name: record[name] for name in ("partition", "timestamp") if record.get(name) is not None}
    headers = [(name, data(value)) for name, value in record.get("headers", [])]
    while True:
        try:
            producer.produce(
                record["topic"],
                key=data(record.get("key")),
                value=data(record.get("value")),
                headers=headers,
                on_delivery=check,
                **place,
            )
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.1)


def check(error, message):
    # A transaction that is aborted takes its records with it: that is no failure here.
    if error is not None and not error.name().startswith("_PURGE"):
        print(f"write_topics.py: {message.topic()}/{message.partition()}: {error}", file=sys.stderr)
        os._exit(1)


def data(text):
    return None if text is None else base64.b64decode(text)


if __name__ == "__main__":
    main()
