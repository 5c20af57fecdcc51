//! Any datum of any schema as JSON: for schemas that this build does not know.

mod number;

use crate::error::DecodeError;
use crate::hex;
use crate::resolve::Work;
use crate::shape::{Base, Logical, NodeId, Shape};
use crate::time::{EventTime, ReceivedTime};
use crate::wire::Cursor;
use serde_json::{Map, Value};

/// Most values in one datum: beyond, nobody reads the JSON.
const MAX_VALUES: usize = 1 << 20;

/// Reads data of one schema as JSON. Decimals and times become strings, bytes hexadecimal; of a union only the value.
#[derive(Debug)]
pub struct JsonReader {
    shape: Shape,
}

impl JsonReader {
    /// Parses the writer's schema; the error says what is wrong with it.
    pub fn new(schema_json: &str) -> Result<JsonReader, String> {
        Shape::parse(schema_json).map(|shape| JsonReader { shape })
    }

    /// Full name of the schema's record; `None` when it is no record.
    pub fn record_name(&self) -> Option<&str> {
        self.shape.record_name().map(|named| named.name.as_str())
    }

    /// Reads one datum, without the schema prefix. It must end where the bytes end.
    pub fn read(&self, bytes: &[u8]) -> Result<Value, DecodeError> {
        let mut reading = Reading { shape: &self.shape, work: Work::new(), values: 0 };
        let mut cursor = Cursor::new(bytes);
        let value = reading.value(self.shape.root(), &mut cursor)?;
        cursor.finish()?;
        Ok(value)
    }
}

struct Reading<'a> {
    shape: &'a Shape,
    work: Work,
    values: usize,
}

impl Reading<'_> {
    fn value(&mut self, id: NodeId, c: &mut Cursor<'_>) -> Result<Value, DecodeError> {
        self.work.enter(c)?;
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(DecodeError::malformed(c.position(), "too many values to show as JSON"));
        }
        let node = self.shape.node(id);
        let value = match &node.base {
            Base::Null => Value::Null,
            Base::Boolean => Value::Bool(c.boolean()?),
            Base::Int => whole(i64::from(c.int()?), node.logical),
            Base::Long => whole(c.long()?, node.logical),
            Base::Float => float(f64::from(c.float()?)),
            Base::Double => float(c.double()?),
            Base::Bytes => bytes(c.slice()?, node.logical),
            Base::Fixed(_, size) => bytes(c.take(*size)?, node.logical),
            Base::String => Value::from(c.str()?),
            Base::Enum(_, symbols, _) => Value::from(symbols[c.index(symbols.len())?].as_str()),
            Base::Array(items) => self.array(*items, c)?,
            Base::Map(values) => self.map(*values, c)?,
            Base::Union(branches) => {
                let index = c.index(branches.len())?;
                self.value(branches[index], c)?
            }
            Base::Record(_, fields) => {
                let mut map = Map::new();
                for field in fields {
                    let value = self.value(field.node, c).map_err(|e| e.within_place(&field.name))?;
                    map.insert(field.name.clone(), value);
                }
                Value::Object(map)
            }
        };
        self.work.leave();
        Ok(value)
    }

    fn array(&mut self, items: NodeId, c: &mut Cursor<'_>) -> Result<Value, DecodeError> {
        let mut values = Vec::new();
        loop {
            let count = self.work.block(c)?;
            if count == 0 {
                return Ok(Value::Array(values));
            }
            for _ in 0..count {
                let began = c.position();
                values.push(self.value(items, c)?);
                self.work.count_item(began, c)?;
            }
        }
    }

    fn map(&mut self, entries: NodeId, c: &mut Cursor<'_>) -> Result<Value, DecodeError> {
        let mut map = Map::new();
        loop {
            let count = self.work.block(c)?;
            if count == 0 {
                return Ok(Value::Object(map));
            }
            for _ in 0..count {
                let key = c.str()?.to_owned();
                let value = self.value(entries, c)?;
                map.insert(key, value);
            }
        }
    }
}

fn whole(value: i64, logical: Logical) -> Value {
    match logical {
        Logical::TimestampMicros => Value::from(EventTime::from_micros(value).to_string()),
        Logical::TimestampNanos => Value::from(ReceivedTime::from_nanos(value).to_string()),
        Logical::TimestampMillis => match value.checked_mul(1_000) {
            Some(micros) => Value::from(EventTime::from_micros(micros).to_string()),
            None => Value::from(value),
        },
        Logical::Date => {
            let midnight = EventTime::from_micros(value.saturating_mul(86_400_000_000)).to_string();
            Value::from(midnight.split('T').next().unwrap_or_default())
        }
        _ => Value::from(value),
    }
}

/// JSON has no NaN and no infinity: they become strings.
fn float(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None => Value::from(value.to_string()),
    }
}

fn bytes(bytes: &[u8], logical: Logical) -> Value {
    match logical {
        Logical::Decimal { scale } => match number::decimal_text(bytes, scale) {
            Some(text) => Value::from(text),
            None => Value::from(hex::text(bytes)),
        },
        _ => Value::from(hex::text(bytes)),
    }
}
