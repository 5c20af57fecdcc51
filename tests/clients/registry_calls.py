"""Calls every endpoint of a schema registry that a stock Confluent client has a method for.

Fails at the first answer that is not the one expected. Takes the registry's address.
"""

import json
import sys

from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

A = {"name": "a", "type": "int"}
B = {"name": "b", "type": "int"}


def schema(*fields):
    return Schema(json.dumps({"type": "record", "name": "R", "fields": list(fields)}), "AVRO")


def refused(code, call, *arguments, says=""):
    try:
        call(*arguments)
    except SchemaRegistryError as error:
        assert error.error_code == code, error
        assert says in error.error_message, error
        return error
    raise AssertionError(f"not refused: {call.__name__}{arguments}")


def main(url):
    # Nothing that is remembered here may hide what the registry answers.
    def fresh():
        return SchemaRegistryClient({"url": url})

    # A subject with characters that a path can not hold as they are.
    subject = "calls/of a client-n.R"
    client = fresh()
    assert subject not in client.get_subjects()
    refused(40401, client.get_latest_version, subject)
    refused(40401, client.get_versions, subject)
    refused(40401, client.lookup_schema, subject, schema(A))
    refused(40403, client.get_schema, 2_000_000_000)

    first = client.register_schema(subject, schema(A))
    assert fresh().register_schema(subject, schema(A)) == first
    assert json.loads(fresh().get_schema(first).schema_str) == json.loads(schema(A).schema_str)
    assert fresh().get_schema(first).schema_type == "AVRO"
    refused(40403, fresh().lookup_schema, subject, schema(B))

    # The same schema under another subject has the same id.
    assert fresh().register_schema("other-n.R", schema(A)) == first
    places = [(place.subject, place.version) for place in fresh().get_schema_versions(first)]
    assert sorted(places) == [(subject, 1), ("other-n.R", 1)], places
    assert sorted(fresh().get_subjects_by_schema_id(first)) == [subject, "other-n.R"]

    # By default every version must be readable by the next one.
    assert client.get_compatibility() == "BACKWARD_TRANSITIVE"
    assert fresh().test_compatibility(subject, schema(B)) is False
    assert fresh().test_compatibility(subject, schema(A, {**B, "default": 0}), 1) is True
    assert fresh().test_compatibility_all_versions(subject, schema(B)) is False
    refused(409, fresh().register_schema, subject, schema(B), says="R.b: the writer has no such field")
    second = fresh().register_schema(subject, schema(A, {**B, "default": 0}))
    assert second > first
    assert fresh().get_versions(subject) == [1, 2]
    latest = fresh().get_latest_version(subject)
    assert (latest.subject, latest.version, latest.schema_id) == (subject, 2, second)
    assert fresh().get_version(subject, 1).schema_id == first
    found = fresh().lookup_schema(subject, schema(A))
    assert (found.version, found.schema_id) == (1, first)
    refused(40402, fresh().get_version, subject, 9)
    refused(42202, fresh().get_version, subject, 0)
    assert fresh().get_referenced_by(subject, 1) == []

    # Rules, for all subjects and for one.
    refused(40408, fresh().get_compatibility, subject)
    fresh().set_compatibility(subject, "NONE")
    assert fresh().get_compatibility(subject) == "NONE"
    third = fresh().register_schema(subject, schema({"name": "a", "type": "string"}))
    refused(42203, fresh().set_compatibility, subject, "SIDEWAYS", says="SIDEWAYS")
    fresh().set_compatibility(subject, "FULL")
    refused(409, fresh().register_schema, subject, schema(A, B))
    fresh().delete_config(subject)
    refused(40408, fresh().get_compatibility, subject)
    fresh().set_compatibility(level="FORWARD")
    assert fresh().get_compatibility() == "FORWARD"
    fresh().set_compatibility(level="BACKWARD_TRANSITIVE")
    assert fresh().get_global_mode() == "READWRITE" and fresh().get_mode(subject) == "READWRITE"
    refused(42205, fresh().update_global_mode, "READONLY")

    # What is no schema, and what this registry does not have.
    refused(42201, fresh().register_schema, "x", Schema("{", "AVRO"), says="not a valid Avro schema")
    refused(42201, fresh().register_schema, "x", Schema("{}", "JSON"), says="Avro")
    refused(42201, fresh().register_schema, "x", Schema('syntax = "proto3";', "PROTOBUF"), says="Avro")
    reference = Schema(schema(A).schema_str, "AVRO", [SchemaReference("n", "s", 1)])
    refused(42201, fresh().register_schema, "x", reference, says="references")
    assert "x" not in fresh().get_subjects()
    assert fresh().get_schema_types() == ["AVRO"]

    # Deleted versions are listed no more; their ids stay.
    assert fresh().delete_version(subject, 3) == 3
    assert fresh().get_versions(subject) == [1, 2]
    refused(422, fresh().delete_subject, subject, True)
    assert fresh().delete_subject(subject) == [1, 2]
    assert subject not in fresh().get_subjects()
    refused(40401, fresh().get_versions, subject)
    assert fresh().get_schema(third).schema_str
    # And a version is never given out twice.
    assert fresh().register_schema(subject, schema(B)) > third
    assert fresh().get_versions(subject) == [4]
    print("every call was answered as expected")


if __name__ == "__main__":
    main(*sys.argv[1:])
