//! Fixed data of any schema: the same in every build, without a random number.

use super::{minimal, varint, with_length};
use serde_json::Value;
use std::collections::BTreeMap;

/// What the samples of a schema hold.
#[derive(Clone, Copy, PartialEq)]
pub enum Fill {
    /// Every option has a value, every list two items, no two numbers are alike.
    Full,
    /// Nulls, empty lists and zeros.
    Least,
}

/// The Avro bytes of the sample.
pub fn sample(schema_json: &str, fill: Fill) -> Vec<u8> {
    let schema: Value = serde_json::from_str(schema_json).unwrap();
    let mut writer = Writer { fill, next: 0, names: BTreeMap::new(), out: Vec::new() };
    writer.write(&schema, "");
    writer.out
}

struct Writer {
    fill: Fill,
    next: i64,
    names: BTreeMap<String, Value>,
    out: Vec<u8>,
}

impl Writer {
    fn number(&mut self) -> i64 {
        self.next += 1;
        match self.fill {
            Fill::Full => self.next,
            Fill::Least => 0,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn write(&mut self, schema: &Value, field: &str) {
        let full = self.fill == Fill::Full;
        let n = self.number();
        match schema {
            Value::String(name) => match name.as_str() {
                "null" => {}
                "boolean" => self.put(&[u8::from(full)]),
                "int" => self.put(&varint(-n * 1_000)),
                "long" => self.put(&varint(n * 1_000_000_007)),
                "double" => self.put(&(n as f64 / 8.0).to_le_bytes()),
                "string" if full => self.put(&with_length(format!("{field}-{n} é").as_bytes())),
                "bytes" if full => self.put(&with_length(&[0, 255, n as u8])),
                "string" | "bytes" => self.put(&[0]),
                name => {
                    let named = self.names[name].clone();
                    self.write(&named, field);
                }
            },
            // All unions are of null and one type.
            Value::Array(branches) if full => {
                self.put(&varint(1));
                self.write(&branches[1], field);
            }
            Value::Array(_) => self.put(&[0]),
            _ => self.complex(schema, field, n),
        }
    }

    fn complex(&mut self, schema: &Value, field: &str, n: i64) {
        let full = self.fill == Fill::Full;
        if let Some(name) = schema["name"].as_str() {
            self.names.insert(format!("tidewire.{name}"), schema.clone());
        }
        match (schema["type"].as_str().unwrap(), schema["logicalType"].as_str()) {
            ("record", _) => {
                for field in schema["fields"].as_array().unwrap() {
                    self.write(&field["type"], field["name"].as_str().unwrap());
                }
            }
            ("enum", _) => {
                let count = schema["symbols"].as_array().unwrap().len() as i64;
                self.put(&varint(if full { 1 + n % (count - 1) } else { 0 }));
            }
            ("array", _) if full => {
                self.put(&varint(2));
                self.write(&schema["items"], field);
                self.write(&schema["items"], field);
                self.put(&[0]);
            }
            ("map", _) if full => {
                self.put(&varint(2));
                for key in ["first", "second"] {
                    self.put(&with_length(key.as_bytes()));
                    self.write(&schema["values"], field);
                }
                self.put(&[0]);
            }
            ("array" | "map", _) => self.put(&[0]),
            ("bytes", Some("decimal")) => {
                let units = i128::from(n) * 1_234_567_890_123_456_789;
                self.put(&with_length(&minimal(if n % 3 == 0 { -units } else { units })));
            }
            ("long", Some("timestamp-micros")) => self.put(&varint(n * 1_000_003 + 1_715_000_000_000_000)),
            ("long", Some("timestamp-nanos")) => self.put(&varint(n * 1_000_003 + 1_715_000_000_000_000_000)),
            (primitive, _) => self.write(&Value::from(primitive), field),
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}
