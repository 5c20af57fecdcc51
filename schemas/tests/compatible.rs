//! Comparing any two schemas, as a registry does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests"
)]

mod common;

use serde_json::{Value, json};
use tidewire_schemas::Kind;
use tidewire_schemas::resolve::{Comparable, check_backward};

fn problems(writer: &Value, reader: &Value) -> Vec<String> {
    let parse = |schema: &Value| Comparable::parse(&schema.to_string()).unwrap();
    let found = parse(reader).problems_reading(&parse(writer));
    found.iter().map(ToString::to_string).collect()
}

fn record(fields: Value) -> Value {
    json!({"type": "record", "name": "R", "namespace": "n", "fields": fields})
}

fn of(ty: Value) -> Value {
    record(json!([{"name": "a", "type": ty}]))
}

/// What a plan can rewrite without a gap is compatible, and the other way round.
#[test]
fn the_rules_are_those_of_a_plan() {
    let evolutions = common::evolutions::all().into_iter().chain(common::evolutions::unknown_to_fastavro());
    let own = Kind::ALL
        .iter()
        .map(|kind| (kind.name(), kind.schema_json().to_owned(), kind.schema_json().to_owned()));
    let mut refused = 0;
    for (name, one, other) in evolutions.chain(own) {
        for (writer, reader) in [(&one, &other), (&other, &one)] {
            let (w, r) = (Comparable::parse(writer).unwrap(), Comparable::parse(reader).unwrap());
            let found = r.problems_reading(&w);
            match check_backward(writer, reader) {
                Ok(()) => assert_eq!(found, [], "{name}"),
                // The other way round a reader may be one that this build never is.
                Err(why) if why.why.contains("fixed") || why.why.contains("float") => {}
                Err(why) => {
                    refused += 1;
                    assert!(found.iter().any(|found| found.path == why.path), "{name}: {found:?}, not {why}");
                }
            }
        }
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn all_of_avro_may_be_read() {
    for ty in [
        json!("float"),
        json!({"type": "fixed", "name": "F", "size": 4}),
        json!({"type": "int", "logicalType": "date"}),
        json!({"type": "fixed", "name": "D", "size": 16, "logicalType": "decimal", "precision": 30, "scale": 2}),
        json!({"type": "string", "logicalType": "uuid"}),
    ] {
        assert_eq!(problems(&of(ty.clone()), &of(ty)), Vec::<String>::new());
    }
    assert_eq!(problems(&of(json!("long")), &of(json!("float"))), Vec::<String>::new());
}

#[test]
fn each_problem_has_its_place() {
    let writer = record(json!([
        {"name": "a", "type": "double"},
        {"name": "b", "type": {"type": "fixed", "name": "F", "size": 4}},
        {"name": "c", "type": {"type": "enum", "name": "E", "symbols": ["P", "Q"]}},
        {"name": "d", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "e", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ]));
    let reader = record(json!([
        {"name": "a", "type": "long"},
        {"name": "b", "type": {"type": "fixed", "name": "F", "size": 5}},
        {"name": "c", "type": {"type": "enum", "name": "E", "symbols": ["P"]}},
        {"name": "d", "type": {"type": "array", "items": "string"}},
        {"name": "e", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "f", "type": "string"},
    ]));
    assert_eq!(
        problems(&writer, &reader),
        [
            "R.a: double cannot be read as long",
            "R.b: the writer has 4 bytes, the reader 5",
            "R.c: the reader does not know the symbol Q, and has no default",
            "R.d[]: null cannot be read as string",
            "R.e: the writer's logical type is TimestampMillis, the reader's TimestampMicros: units or scale would be misread",
            "R.f: the writer has no such field, and the reader no default for it",
        ]
    );
}

#[test]
fn a_union_takes_what_one_of_its_branches_takes() {
    assert_eq!(problems(&of(json!("int")), &of(json!(["null", "string", "double"]))), Vec::<String>::new());
    let none = problems(&of(json!("boolean")), &of(json!(["null", "string"])));
    assert_eq!(none, ["R.a: boolean cannot be read as null"]);
    // The branch of the same type says what is wrong with it.
    let inner = |ty: &str| json!({"type": "record", "name": "I", "fields": [{"name": "x", "type": ty}]});
    let near = problems(&of(inner("string")), &of(json!(["null", inner("int")])));
    assert_eq!(near, ["R.a.x: string cannot be read as int"]);
}

#[test]
fn schemas_that_refer_to_themselves_are_compared_to_the_end() {
    let list = |value: &str| {
        json!({"type": "record", "name": "List", "fields": [
            {"name": "next", "type": ["null", "List"]}, {"name": "value", "type": value}]})
    };
    assert_eq!(problems(&list("int"), &list("long")), Vec::<String>::new());
    assert_eq!(problems(&list("long"), &list("int")), ["List.value: long cannot be read as int"]);
}

/// Each level holds the next one twice, in unions where no branch fits: without a bound this would not end.
#[test]
fn the_work_is_bounded() {
    let tower = |last: &str| {
        let mut schema = json!({"type": "record", "name": "L0", "fields": [{"name": "x", "type": last}]});
        for level in 1..25 {
            let below = format!("L{}", level - 1);
            schema = json!({"type": "record", "name": format!("L{level}"), "fields": [
                {"name": "a", "type": ["null", schema]}, {"name": "b", "type": ["null", below.clone()]},
                {"name": "c", "type": ["null", below]}]});
        }
        schema
    };
    let found = problems(&tower("string"), &tower("int"));
    assert!(!found.is_empty());
    assert_eq!(problems(&tower("int"), &tower("int")), Vec::<String>::new());
}
