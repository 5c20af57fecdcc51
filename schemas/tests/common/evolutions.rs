//! Pairs of a writer's and a reader's schema that go together.

use serde_json::{Value, json};

/// Name, writer's schema, reader's schema.
pub fn all() -> Vec<(&'static str, String, String)> {
    let text = |(name, w, r): (&'static str, Value, Value)| (name, w.to_string(), r.to_string());
    simple().into_iter().chain(nested()).map(text).collect()
}

/// Pairs that fastavro gets wrong: it takes a default of bytes for text.
pub fn unknown_to_fastavro() -> Vec<(&'static str, String, String)> {
    let writer = record(json!([["a", "int"]]));
    let default = json!({"name": "d", "type": decimal(28), "default": "\u{0}\u{ff}"});
    vec![("a decimal added", writer.to_string(), record(json!([["a", "int"], default])).to_string())]
}

fn decimal(precision: u32) -> Value {
    json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 12})
}

fn micros() -> Value {
    json!({"type": "long", "logicalType": "timestamp-micros"})
}

/// A record of the fields given as `name: type`, or as whole fields.
fn record(fields: Value) -> Value {
    let fields: Vec<Value> = fields
        .as_array()
        .unwrap()
        .iter()
        .map(|field| match field {
            Value::Array(pair) => json!({"name": pair[0], "type": pair[1]}),
            whole => whole.clone(),
        })
        .collect();
    json!({"type": "record", "name": "R", "namespace": "tidewire", "fields": fields})
}

fn simple() -> Vec<(&'static str, Value, Value)> {
    let abc = || record(json!([["a", "string"], ["b", "long"], ["c", "boolean"]]));
    vec![
        ("the same", abc(), abc()),
        (
            "fields added",
            record(json!([["b", "long"]])),
            record(json!([
                {"name": "a", "type": "string", "default": "é"}, ["b", "long"],
                {"name": "c", "type": ["null", decimal(28)], "default": null},
                {"name": "e", "type": {"type": "array", "items": "int"}, "default": [1, -2]},
                {"name": "f", "type": {"type": "map", "values": "double"}, "default": {"x": 1.5}},
                {"name": "g", "type": "double", "default": -1},
                {"name": "h", "type": micros(), "default": 7},
            ])),
        ),
        (
            "fields removed",
            record(json!([
                ["x", "string"], ["a", "long"], ["y", decimal(14)], ["z", {"type": "array", "items": "string"}],
                ["b", "boolean"], ["u", ["null", "int", "string"]], ["v", {"type": "map", "values": "float"}],
                ["w", {"type": "fixed", "name": "F", "size": 3}],
                ["t", {"type": "enum", "name": "E", "symbols": ["P", "Q"]}],
            ])),
            record(json!([["a", "long"], ["b", "boolean"]])),
        ),
        (
            "fields in another order, some added and removed",
            record(json!([["c", "boolean"], ["x", "string"], ["a", "string"], ["b", "int"]])),
            record(
                json!([["a", "string"], ["b", "long"], {"name": "n", "type": "int", "default": 3}, ["c", "boolean"]]),
            ),
        ),
        (
            "numbers promoted",
            record(json!([["a", "int"], ["b", "int"], ["c", "long"], ["d", "float"], ["e", "int"]])),
            record(json!([["a", "long"], ["b", "double"], ["c", "double"], ["d", "double"], ["e", "int"]])),
        ),
        ("string to bytes", record(json!([["a", "string"]])), record(json!([["a", "bytes"]]))),
        (
            "a field renamed",
            record(json!([["old", "string"], ["b", "long"]])),
            record(json!([{"name": "new", "aliases": ["old"], "type": "string"}, ["b", "long"]])),
        ),
        (
            "the record renamed",
            json!({"type": "record", "name": "Old", "namespace": "tidewire", "fields": [{"name": "a", "type": "long"}]}),
            json!({"type": "record", "name": "R", "namespace": "tidewire", "aliases": ["Old"],
                "fields": [{"name": "a", "type": "long"}]}),
        ),
        ("made nullable", record(json!([["a", "long"]])), record(json!([["a", ["null", "long"]]]))),
        (
            "made nullable and promoted",
            record(json!([["a", "int"]])),
            record(json!([["a", ["null", "double"]]])),
        ),
        (
            "a union turned round",
            record(json!([["a", ["long", "null"]]])),
            record(json!([["a", ["null", "long"]]])),
        ),
        (
            "a union made longer",
            record(json!([["a", ["null", "int"]]])),
            record(json!([["a", ["null", "string", "long"]]])),
        ),
        (
            "decimals of another precision",
            record(json!([["a", decimal(18)], ["b", ["null", decimal(18)]]])),
            record(json!([["a", decimal(28)], ["b", ["null", decimal(28)]]])),
        ),
    ]
}

fn nested() -> Vec<(&'static str, Value, Value)> {
    let symbols = |symbols: Value, default: Value| {
        record(
            json!([["e", {"type": "enum", "name": "E", "symbols": symbols, "default": default}], ["after", "int"]]),
        )
    };
    let inner = |fields: Value| {
        let mut inner = record(fields);
        inner["name"] = "Inner".into();
        inner
    };
    let list =
        |inner: Value| record(json!([["list", {"type": "array", "items": inner}], ["after", "string"]]));
    let map = |inner: Value| record(json!([["map", {"type": "map", "values": inner}], ["after", "string"]]));
    let small = || inner(json!([["p", "int"], ["q", "string"]]));
    let large =
        || inner(json!([["q", "string"], {"name": "r", "type": "boolean", "default": true}, ["p", "long"]]));
    vec![
        (
            "symbols in another order",
            symbols(json!(["A", "B", "C"]), json!("A")),
            symbols(json!(["C", "A", "B"]), json!("A")),
        ),
        (
            "symbols unknown to the reader",
            symbols(json!(["A", "X", "B", "Y"]), json!("A")),
            symbols(json!(["UNKNOWN", "A", "B"]), json!("UNKNOWN")),
        ),
        (
            "symbols added",
            symbols(json!(["A", "B"]), json!("A")),
            symbols(json!(["A", "B", "C"]), json!("A")),
        ),
        ("records in a list", list(small()), list(large())),
        ("records in a map", map(small()), map(large())),
        (
            "numbers in a list and a map",
            record(
                json!([["a", {"type": "array", "items": "int"}], ["b", {"type": "map", "values": "float"}]]),
            ),
            record(
                json!([["a", {"type": "array", "items": "double"}], ["b", {"type": "map", "values": "double"}]]),
            ),
        ),
        (
            "a record by name, twice",
            record(json!([
                ["one", small()],
                ["two", "tidewire.Inner"],
                ["three", ["null", "tidewire.Inner"]]
            ])),
            record(json!([
                ["one", large()],
                ["two", "tidewire.Inner"],
                ["three", ["null", "tidewire.Inner"]]
            ])),
        ),
    ]
}
