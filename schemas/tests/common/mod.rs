//! Random data of any schema of this build, written by an encoder of its own.
//!
//! It walks the schema's JSON and shares no code with the crate, so that both would have to err alike.

#![allow(dead_code, reason = "each test uses a part")]

pub mod evolutions;
pub mod sample;

use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;

/// 2000-01-01 to 2199-12-31 in microseconds: what every tool can show.
pub const MICROS: std::ops::Range<i64> = 946_684_800_000_000..7_258_118_400_000_000;
/// Greatest count of units of a decimal (28, 12).
pub const MAX_UNITS: i128 = 9_999_999_999_999_999_999_999_999_999;

/// The Avro bytes of random data of a schema.
pub fn datum(schema_json: &str) -> BoxedStrategy<Vec<u8>> {
    let schema: Value = serde_json::from_str(schema_json).unwrap();
    let mut names = BTreeMap::new();
    strategy(&schema, &mut names)
}

type Names = BTreeMap<String, BoxedStrategy<Vec<u8>>>;

fn strategy(schema: &Value, names: &mut Names) -> BoxedStrategy<Vec<u8>> {
    match schema {
        Value::String(name) => match name.as_str() {
            "null" => Just(Vec::new()).boxed(),
            "boolean" => any::<bool>().prop_map(|b| vec![u8::from(b)]).boxed(),
            "int" => any::<i32>().prop_map(|i| varint(i64::from(i))).boxed(),
            "long" => prop_oneof![any::<i64>(), -200..200i64].prop_map(varint).boxed(),
            "float" => any::<f32>().prop_map(|f| f.to_le_bytes().to_vec()).boxed(),
            "double" => any::<f64>().prop_map(|f| f.to_le_bytes().to_vec()).boxed(),
            "string" => text().prop_map(|t| with_length(t.as_bytes())).boxed(),
            "bytes" => prop::collection::vec(any::<u8>(), 0..40).prop_map(|b| with_length(&b)).boxed(),
            name => names.get(name).unwrap_or_else(|| panic!("no type is named {name}")).clone(),
        },
        Value::Array(branches) => {
            let branches: Vec<_> = branches.iter().map(|b| strategy(b, names)).collect();
            let indexed = branches
                .into_iter()
                .enumerate()
                .map(|(i, branch)| branch.prop_map(move |bytes| [varint(i as i64), bytes].concat()).boxed());
            prop::strategy::Union::new(indexed.collect::<Vec<_>>()).boxed()
        }
        Value::Object(_) => complex(schema, names),
        _ => panic!("{schema} is no schema"),
    }
}

fn complex(schema: &Value, names: &mut Names) -> BoxedStrategy<Vec<u8>> {
    match (schema["type"].as_str().unwrap(), schema["logicalType"].as_str()) {
        ("record", _) => {
            let fields = schema["fields"].as_array().unwrap();
            let fields: Vec<_> = fields.iter().map(|f| strategy(&f["type"], names)).collect();
            named(schema, names, fields.prop_map(|parts| parts.concat()).boxed())
        }
        ("enum", _) => {
            let count = schema["symbols"].as_array().unwrap().len() as i64;
            named(schema, names, (0..count).prop_map(varint).boxed())
        }
        ("fixed", _) => {
            let size = schema["size"].as_u64().unwrap() as usize;
            named(schema, names, prop::collection::vec(any::<u8>(), size).boxed())
        }
        ("array", _) => {
            let items = prop::collection::vec(strategy(&schema["items"], names), 0..4);
            items.prop_map(|items| blocks(items.len(), items.concat())).boxed()
        }
        ("map", _) => {
            let entries = prop::collection::btree_map(text(), strategy(&schema["values"], names), 0..4);
            let entry = |(k, v): (String, Vec<u8>)| [with_length(k.as_bytes()), v].concat();
            entries.prop_map(move |m| blocks(m.len(), m.into_iter().flat_map(entry).collect())).boxed()
        }
        ("bytes", Some("decimal")) => {
            let limit = 10i128.pow(schema["precision"].as_u64().unwrap() as u32);
            decimal().prop_map(move |units| with_length(&minimal(units % limit))).boxed()
        }
        ("long", Some("timestamp-micros")) => MICROS.prop_map(varint).boxed(),
        ("long", Some("timestamp-nanos")) => MICROS.prop_map(|t| varint(t * 1_000 + t % 1_000)).boxed(),
        (primitive, _) => strategy(&Value::from(primitive), names),
    }
}

fn named(schema: &Value, names: &mut Names, made: BoxedStrategy<Vec<u8>>) -> BoxedStrategy<Vec<u8>> {
    names.insert(format!("tidewire.{}", schema["name"].as_str().unwrap()), made.clone());
    made
}

fn text() -> BoxedStrategy<String> {
    prop_oneof!["[A-Z]{3,8}\\.[A-Z_]{3,12}", "\\PC{0,30}", "[a-z ]{20,60}"].boxed()
}

/// Small, ordinary, large and extreme counts of units.
pub fn decimal() -> BoxedStrategy<i128> {
    prop_oneof![
        -300..300i128,
        (-1_000_000..1_000_000i128).prop_map(|x| x * 10_000_000_000),
        any::<i64>().prop_map(i128::from),
        -MAX_UNITS..=MAX_UNITS,
        Just(MAX_UNITS),
        Just(-MAX_UNITS),
        (0..92u32).prop_map(|bit| 1i128 << bit),
        (0..92u32).prop_map(|bit| -(1i128 << bit)),
    ]
    .boxed()
}

pub fn varint(value: i64) -> Vec<u8> {
    let mut rest = if value < 0 { !((value as u64) << 1) } else { (value as u64) << 1 };
    let mut bytes = Vec::new();
    loop {
        let low = (rest % 128) as u8;
        rest /= 128;
        if rest == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low + 128);
    }
}

pub fn with_length(bytes: &[u8]) -> Vec<u8> {
    [varint(bytes.len() as i64), bytes.to_vec()].concat()
}

fn blocks(count: usize, items: Vec<u8>) -> Vec<u8> {
    if count == 0 { vec![0] } else { [varint(count as i64), items, vec![0]].concat() }
}

/// The fewest bytes that keep value and sign.
pub fn minimal(units: i128) -> Vec<u8> {
    let all = units.to_be_bytes();
    let fits = |bytes: &[u8]| {
        let fill = if bytes[0] >= 0x80 { 0xff } else { 0 };
        let missing = vec![fill; 16 - bytes.len()];
        [missing, bytes.to_vec()].concat() == all
    };
    (0..16).rev().map(|from| all[from..].to_vec()).find(|bytes| fits(bytes)).unwrap()
}

/// Draws one value without a test runner, the same for the same seed.
pub fn draw<T>(strategy: &BoxedStrategy<T>, seed: u64) -> T
where
    T: std::fmt::Debug,
{
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    strategy.new_tree(&mut TestRunner::new_with_rng(Config::default(), rng)).unwrap().current()
}
