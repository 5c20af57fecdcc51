"""Decodes records with a stock Confluent AvroDeserializer, which asks a schema registry for their schemas.

Takes the registry's address, and a file with one line of JSON for each record: topic, and value (hexadecimal). Prints
one line of JSON for each: record (its full name), and value. Decimals and doubles are text, as exact as they were read;
times are whole microseconds or nanoseconds since 1970, as they were written.
"""

import datetime
import decimal
import json
import sys

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def main(url, file):
    registry = SchemaRegistryClient({"url": url})
    deserialize = AvroDeserializer(registry, return_record_name=True)
    names = {}
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            said = json.loads(line)
            data = bytes.fromhex(said["value"])
            value = deserialize(data, SerializationContext(said["topic"], MessageField.VALUE))
            schema_id = int.from_bytes(data[1:5], "big")
            if schema_id not in names:
                schema = json.loads(registry.get_schema(schema_id).schema_str)
                names[schema_id] = ".".join(part for part in (schema.get("namespace"), schema["name"]) if part)
            print(json.dumps({"record": names[schema_id], "value": plain(value)}))


def plain(value):
    if isinstance(value, decimal.Decimal):
        # Every digit, never an exponent.
        return {"decimal": format(value, "f")}
    if isinstance(value, float):
        # As text: readers of JSON differ in the last digit.
        return {"double": repr(value)}
    if isinstance(value, datetime.datetime):
        return {"micros": (value - EPOCH) // datetime.timedelta(microseconds=1)}
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    # A union of records gives the branch's name beside the value.
    if isinstance(value, tuple):
        return plain(value[1])
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value


if __name__ == "__main__":
    main(*sys.argv[1:])
