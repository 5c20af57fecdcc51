"""The other side of `fastavro.rs`: reads and writes the same data with fastavro.

    make  EXCHANGE   write random data of every schema into the file
    check EXCHANGE   read all data of the file, compare what they hold, write them again and compare the bytes
"""

import io
import json
import math
import random
import sys
from datetime import datetime, timedelta, timezone
from decimal import Context, Decimal

import fastavro

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROS = (946_684_800_000_000, 7_258_118_400_000_000)
CONTEXT = Context(prec=60)


def decimal_bytes(value, schema, *rest, original=fastavro.write.LOGICAL_WRITERS["bytes-decimal"]):
    """fastavro's own, but for -2^(8k-1): there it takes one byte more than Java's BigInteger, and than we."""
    written = original(value, schema, *rest)
    return written[1:] if written[:2] == b"\xff\x80" and not any(written[2:]) else written


fastavro.write.LOGICAL_WRITERS["bytes-decimal"] = decimal_bytes


def make(exchange):
    draw = random.Random(20261120)
    for kind in exchange["kinds"]:
        schema = json.loads(kind["schema"])
        parsed = fastavro.parse_schema(schema)
        names = {}
        for _ in range(40):
            out = io.BytesIO()
            fastavro.schemaless_writer(out, parsed, value_of(schema, draw, names))
            kind["bodies"].append(out.getvalue().hex())


def check(exchange):
    problems = []
    for kind in exchange["kinds"]:
        schema = json.loads(kind["schema"])
        parsed = fastavro.parse_schema(schema)
        for body, shown in zip(kind["bodies"], kind["shown"], strict=True):
            value = read(body, parsed)
            names = {}
            if show(schema, value, names) != shown:
                problems.append(f"{kind['name']}: {body}\n  fastavro: {show(schema, value, names)}\n  ours: {shown}")
            if write(value, parsed) != body:
                problems.append(f"{kind['name']}: fastavro writes {write(value, parsed)}\n  ours: {body}")
    for case in exchange["resolutions"]:
        writer = fastavro.parse_schema(json.loads(case["writer"]))
        reader = fastavro.parse_schema(json.loads(case["reader"]))
        for body, ours in zip(case["bodies"], case["rewritten"], strict=True):
            theirs = write(read(body, writer, reader), reader)
            if theirs != ours:
                problems.append(f"{case['name']}: {body}\n  fastavro: {theirs}\n  ours: {ours}")
    return problems


def read(body, writer, reader=None):
    data = io.BytesIO(bytes.fromhex(body))
    value = fastavro.schemaless_reader(data, writer, reader)
    assert data.read() == b"", "bytes are left"
    return value


def write(value, schema):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue().hex()


def resolved(schema, names):
    """The schema itself for a name; named types are remembered."""
    if isinstance(schema, str):
        return names.get(schema, {"type": schema})
    if isinstance(schema, dict) and "name" in schema:
        names["tidewire." + schema["name"]] = schema
    return schema


def value_of(schema, draw, names):
    """A random value, as fastavro takes it."""
    schema = resolved(schema, names)
    if isinstance(schema, list):
        # Both branches are walked, so that a type named in one is known.
        values = [value_of(branch, draw, names) for branch in schema]
        return draw.choice(values)
    kind, logical = schema["type"], schema.get("logicalType")
    if kind == "record":
        return {field["name"]: value_of(field["type"], draw, names) for field in schema["fields"]}
    if kind == "enum":
        return draw.choice(schema["symbols"])
    if kind == "array":
        # One is made in any case, so that a type named in it is known.
        items = [value_of(schema["items"], draw, names) for _ in range(4)]
        return items[: draw.randrange(4)]
    if kind == "map":
        values = {text_of(draw): value_of(schema["values"], draw, names) for _ in range(draw.randrange(4))}
        return dict(sorted(values.items()))
    if logical == "decimal":
        units = draw.choice([draw.randrange(-300, 300), draw.randrange(-(10**28) + 1, 10**28), draw.randrange(2**62)])
        return Decimal(units).scaleb(-schema["scale"], CONTEXT)
    if logical == "timestamp-micros":
        return EPOCH + timedelta(microseconds=draw.randrange(*MICROS))
    if logical == "timestamp-nanos":
        return draw.randrange(*MICROS) * 1000 + draw.randrange(1000)
    return {
        "null": lambda: None,
        "boolean": lambda: draw.random() < 0.5,
        "int": lambda: draw.randrange(-(2**31), 2**31),
        "long": lambda: draw.choice([draw.randrange(-(2**63), 2**63), draw.randrange(-100, 100)]),
        "double": lambda: draw.choice([draw.gauss(0, 1), draw.gauss(0, 1e300), 0.0, -0.0, 1e-320]),
        "string": lambda: text_of(draw),
        "bytes": lambda: draw.randbytes(draw.randrange(40)),
    }[kind]()


def text_of(draw):
    return "".join(chr(draw.choice([draw.randrange(32, 127), draw.randrange(0xA0, 0xD800)])) for _ in range(draw.randrange(30)))


def show(schema, value, names):
    """The value as our JSON shows it."""
    schema = resolved(schema, names)
    if isinstance(schema, list):
        shown = None
        for branch in schema:
            branch = resolved(branch, names)
            if value is not None and branch != {"type": "null"}:
                shown = show(branch, value, names)
        return shown
    kind, logical = schema["type"], schema.get("logicalType")
    if kind == "record":
        return {field["name"]: show(field["type"], value[field["name"]], names) for field in schema["fields"]}
    if kind == "array":
        resolved(schema["items"], names)
        return [show(schema["items"], item, names) for item in value]
    if kind == "map":
        return {key: show(schema["values"], item, names) for key, item in value.items()}
    if logical == "decimal":
        text = format(value, "f")
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text in ("-0", "") else text
    if logical == "timestamp-micros":
        micros = (value - EPOCH) // timedelta(microseconds=1)
        return time_text(micros // 10**6, micros % 10**6, 6)
    if logical == "timestamp-nanos":
        return time_text(value // 10**9, value % 10**9, 9)
    if kind == "bytes":
        return value.hex()
    if kind == "double" and not math.isfinite(value):
        return None
    return value


def time_text(seconds, fraction, places):
    text = (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:0{places}d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def main():
    mode, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        exchange = json.load(file)
    if mode == "make":
        make(exchange)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(exchange, file)
        return
    problems = check(exchange)
    for problem in problems[:20]:
        print(problem)
    if problems:
        sys.exit(f"{len(problems)} differences")


main()
