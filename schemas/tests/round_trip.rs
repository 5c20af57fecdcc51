//! Whatever fits a schema is read and written without a change, and shown alike by two readers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests"
)]

mod common;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tidewire_schemas::{JsonReader, Kind, Record, SchemaBook};

/// For each kind: bytes -> record -> the same bytes; the typed and the generic reader show the same JSON.
#[test]
fn every_record_survives() {
    for &kind in Kind::ALL {
        let generic = JsonReader::new(kind.schema_json()).unwrap();
        let mut runner =
            TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&common::datum(kind.schema_json()), |bytes| {
            let record = Record::decode(kind, &bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(record.kind(), kind);
            let mut again = Vec::new();
            record.encode(&mut again);
            prop_assert_eq!(&again, &bytes);
            let typed = serde_json::to_value(&record).unwrap();
            let shown = nan_to_null(generic.read(&bytes).unwrap());
            prop_assert_eq!(typed, shown);
            Ok(())
        });
        outcome.unwrap_or_else(|e| panic!("{kind}: {e}"));
    }
}

/// The generic reader names NaN and the infinities; serde_json writes null for them.
fn nan_to_null(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(text) if ["NaN", "inf", "-inf"].contains(&text.as_str()) => Value::Null,
        Value::Array(items) => items.into_iter().map(nan_to_null).collect(),
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, nan_to_null(v))).collect(),
        other => other,
    }
}

/// The same through the wire format of a book.
#[test]
fn every_record_survives_the_book() {
    let book = SchemaBook::of_this_build();
    for &kind in Kind::ALL {
        let body = common::draw(&common::datum(kind.schema_json()), 7);
        let record = Record::decode(kind, &body).unwrap();
        let mut bytes = Vec::new();
        book.encode(&record, &mut bytes).unwrap();
        assert_eq!(bytes[0], 0);
        assert_eq!(bytes[1..5], book.id_of(kind).unwrap().to_be_bytes());
        assert_eq!(bytes[5..], body);
        assert_eq!(book.decode(&bytes).unwrap(), record);
        assert_eq!(book.kind_of(&bytes).unwrap(), kind);
    }
}

/// Every prefix of a record is an error, and so is a byte too many.
#[test]
fn a_record_ends_where_it_ends() {
    for &kind in Kind::ALL {
        for seed in 0..4 {
            let mut bytes = common::draw(&common::datum(kind.schema_json()), seed);
            for length in 0..bytes.len() {
                assert!(Record::decode(kind, &bytes[..length]).is_err(), "{kind} of {length} bytes");
            }
            bytes.push(0);
            let error = Record::decode(kind, &bytes).unwrap_err().to_string();
            assert!(error.starts_with("1 bytes are left"), "{kind}: {error}");
        }
    }
}
