//! Shows any record as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidewire_engine::log::{StoredRecord, TopicPartition};
use tidewire_schemas::{EventTime, JsonReader, Kind, Record, SchemaBook, wire};

/// Shows records as JSON, by the schemas they were written with.
pub struct Shower<'a> {
    book: &'a SchemaBook,
    readers: BTreeMap<u32, Result<JsonReader, String>>,
}

/// A record's value, as far as it can be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// A record of a schema: its short name and its fields.
    Record(String, Value),
    /// JSON that stands for itself.
    Json(Value),
    /// No value: what deletes a key of a compacted topic.
    Nothing,
    /// Bytes of no known kind, and why they can not be read.
    Bytes(Vec<u8>, String),
}

impl<'a> Shower<'a> {
    /// Shows records of the log that `book` belongs to.
    pub fn new(book: &'a SchemaBook) -> Self {
        Self { book, readers: BTreeMap::new() }
    }

    /// A value as JSON.
    pub fn show(&mut self, value: Option<&[u8]>) -> Shown {
        let Some(bytes) = value else { return Shown::Nothing };
        match self.decode(bytes) {
            Ok((kind, value)) => Shown::Record(kind, value),
            Err(why) => match serde_json::from_slice(bytes) {
                Ok(value @ (Value::Object(_) | Value::Array(_))) => Shown::Json(value),
                _ => Shown::Bytes(bytes.to_vec(), why),
            },
        }
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(String, Value), String> {
        let (id, body) = wire::split_prefix(bytes).map_err(|error| error.to_string())?;
        let Some(json) = self.book.schema_of(id) else { return Err(format!("schema id {id} is not known")) };
        let reader = self.readers.entry(id).or_insert_with(|| JsonReader::new(&json));
        let reader = reader.as_ref().map_err(Clone::clone)?;
        let name = reader.record_name().unwrap_or_default();
        let short = name.rsplit('.').next().unwrap_or_default().to_owned();
        Ok((short, reader.read(body).map_err(|error| error.to_string())?))
    }

    /// A record as one JSON object, with its place, key, headers and value.
    pub fn object(&mut self, at: &TopicPartition, stored: &StoredRecord) -> Value {
        let record = &stored.record;
        let headers = record.headers.iter().map(|(name, value)| (name.to_string(), Value::from(text(value))));
        let mut object = json!({
            "topic": at.topic,
            "partition": at.partition,
            "offset": stored.offset,
            "timestamp": EventTime::from_ms(record.timestamp_ms).to_string(),
            "timestamp_ms": record.timestamp_ms,
            "key": record.key.as_deref().map(text),
            "headers": headers.collect::<Map<String, Value>>(),
        });
        let (kind, value, problem) = match self.show(record.value.as_deref()) {
            Shown::Record(kind, value) => (Value::from(kind), value, None),
            Shown::Json(value) => (Value::Null, value, None),
            Shown::Nothing => (Value::Null, Value::Null, None),
            Shown::Bytes(bytes, why) => (Value::Null, Value::from(hex(&bytes)), Some(why)),
        };
        object["kind"] = kind;
        object["value"] = value;
        if let Some(problem) = problem {
            object["problem"] = problem.into();
        }
        object
    }

    /// A record as one line for people.
    pub fn line(&mut self, at: &TopicPartition, stored: &StoredRecord) -> String {
        let time = EventTime::from_ms(stored.record.timestamp_ms);
        let key = stored.record.key.as_deref().map(text).unwrap_or_default();
        let value = match self.show(stored.record.value.as_deref()) {
            Shown::Record(kind, value) => format!("{kind} {}", fields(&kind, &value)),
            Shown::Json(value) => value.to_string(),
            Shown::Nothing => "(deleted)".to_owned(),
            Shown::Bytes(bytes, why) => format!("{} bytes: {why}", bytes.len()),
        };
        format!("{time}  {}@{}  {key}  {value}", at.partition, stored.offset)
    }
}

/// The fields of a record as `name=value`, in the order of its schema, without those that are null.
fn fields(kind: &str, value: &Value) -> String {
    let Value::Object(map) = value else { return value.to_string() };
    let known = Kind::from_name(kind).map_or(&[][..], Kind::fields);
    let mut names: Vec<&String> = map.keys().collect();
    // Fields that this build does not know come last.
    names.sort_by_key(|name| known.iter().position(|known| known == name).unwrap_or(usize::MAX));
    let shown = names.into_iter().filter(|name| !map[*name].is_null()).map(|name| match &map[name] {
        Value::String(text) if !text.contains(' ') && !text.is_empty() => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// A record as JSON.
pub fn json_of(book: &SchemaBook, record: &Record) -> Value {
    let mut bytes = Vec::new();
    if book.encode(record, &mut bytes).is_err() {
        return Value::from(format!("{record:?}"));
    }
    match Shower::new(book).show(Some(&bytes)) {
        Shown::Record(kind, value) => json!({ "kind": kind, "value": value }),
        _ => Value::Null,
    }
}

/// Bytes as text, what is no text replaced.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
