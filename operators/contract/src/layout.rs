//! State without the operator's code: the text of a layout says how to read the entries as plain values.

use serde_json::{Map, Value};
use tidewire_schemas::{Amount, EventTime, JsonReader, Price, Quantity, ReceivedTime};

use crate::persist::{Persist, PersistError};

mod parse;

/// Most values in one entry: beyond, nobody reads them.
const MAX_VALUES: usize = 1 << 20;

/// A text that is no layout, from here on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the layout of the state can not be read at `{0}`")]
pub struct LayoutError(pub String);

/// One entry of a state: its place within the state, and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Layouts of an operator's state: what it keeps for a key, and for the task.
#[derive(Debug)]
pub struct NodeLayout {
    /// Of a key.
    pub key: StateLayout,
    /// Of the task.
    pub task: StateLayout,
}

/// The layout of a state.
#[derive(Debug)]
pub enum StateLayout {
    /// Nothing is kept.
    None,
    /// One value.
    Whole(Layout),
    /// Entries by key.
    Entries(Layout, Layout),
    /// Entries in their order.
    Queue(Layout),
    /// Several by name.
    Parts(Vec<(String, StateLayout)>),
}

/// The layout of a value.
#[derive(Debug)]
pub enum Layout {
    /// A number, a time, a decimal, a flag, text or nothing, by its name.
    Plain(Plain),
    /// A value that may be absent.
    Optional(Box<Layout>),
    /// Values in order.
    List(Box<Layout>),
    /// Values by key.
    Map(Box<Layout>, Box<Layout>),
    /// Several values.
    Tuple(Vec<Layout>),
    /// Named values.
    Struct(Vec<(String, Layout)>),
    /// One of these names.
    Choice(Vec<String>),
    /// A record of a schema.
    Record(Box<JsonReader>),
}

/// What has no parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say all")]
pub enum Plain {
    U8,
    U16,
    U32,
    U64,
    U128,
    I8,
    I16,
    I32,
    I64,
    I128,
    F32,
    F64,
    Bool,
    Unit,
    Text,
    EventTime,
    ReceivedTime,
    Price,
    Quantity,
    Amount,
}

impl NodeLayout {
    /// Reads the text that [`crate::AnyOperator::state_layout`] gives.
    pub fn parse(text: &str) -> Result<Self, LayoutError> {
        parse::node(text)
    }
}

impl StateLayout {
    /// The state that these entries make, as plain values: JSON with decimals and times as text.
    pub fn show(&self, entries: &[Entry]) -> Result<Value, PersistError> {
        match self {
            Self::None => Ok(Value::Null),
            Self::Whole(layout) => match entries.first() {
                None => Ok(Value::Null),
                Some((_, value)) => layout.show(value),
            },
            Self::Entries(key, value) => {
                let mut map = Map::new();
                for (sub, bytes) in entries {
                    map.insert(key_text(&key.show(sub)?), value.show(bytes)?);
                }
                Ok(Value::Object(map))
            }
            Self::Queue(layout) => entries.iter().map(|(_, bytes)| layout.show(bytes)).collect(),
            Self::Parts(parts) => {
                let mut map = Map::new();
                for (place, (name, layout)) in (0_u8..).zip(parts) {
                    let own = entries.iter().filter(|(sub, _)| sub.first() == Some(&place));
                    let own: Vec<Entry> =
                        own.map(|(sub, value)| (sub[1..].to_vec(), value.clone())).collect();
                    map.insert(name.clone(), layout.show(&own)?);
                }
                Ok(Value::Object(map))
            }
        }
    }
}

impl Layout {
    /// A value from all of its bytes.
    pub fn show(&self, mut bytes: &[u8]) -> Result<Value, PersistError> {
        let mut left = MAX_VALUES;
        let value = self.take(&mut bytes, &mut left)?;
        if bytes.is_empty() { Ok(value) } else { Err(PersistError("bytes left over")) }
    }

    fn take(&self, bytes: &mut &[u8], left: &mut usize) -> Result<Value, PersistError> {
        *left = left.checked_sub(1).ok_or(PersistError("too many values to show"))?;
        Ok(match self {
            Self::Plain(plain) => plain.take(bytes)?,
            Self::Optional(layout) => match bool::load(bytes)? {
                true => layout.take(bytes, left)?,
                false => Value::Null,
            },
            Self::List(layout) => {
                let len = u32::load(bytes)?;
                (0..len).map(|_| layout.take(bytes, left)).collect::<Result<Value, _>>()?
            }
            Self::Map(key, value) => {
                let len = u32::load(bytes)?;
                let mut map = Map::new();
                for _ in 0..len {
                    let key = key_text(&key.take(bytes, left)?);
                    map.insert(key, value.take(bytes, left)?);
                }
                Value::Object(map)
            }
            Self::Tuple(parts) => {
                parts.iter().map(|part| part.take(bytes, left)).collect::<Result<Value, _>>()?
            }
            Self::Struct(fields) => {
                let mut map = Map::new();
                for (name, layout) in fields {
                    map.insert(name.clone(), layout.take(bytes, left)?);
                }
                Value::Object(map)
            }
            Self::Choice(names) => {
                let place = usize::from(u8::load(bytes)?);
                Value::from(names.get(place).ok_or(PersistError("an unknown variant"))?.as_str())
            }
            Self::Record(reader) => {
                let len = u32::load(bytes)? as usize;
                if len > bytes.len() {
                    return Err(PersistError("a record cut short"));
                }
                let (head, tail) = bytes.split_at(len);
                *bytes = tail;
                reader.read(head).map_err(|_| PersistError("a record that does not decode"))?
            }
        })
    }
}

impl Plain {
    fn take(self, bytes: &mut &[u8]) -> Result<Value, PersistError> {
        Ok(match self {
            Self::U8 => u8::load(bytes)?.into(),
            Self::U16 => u16::load(bytes)?.into(),
            Self::U32 => u32::load(bytes)?.into(),
            Self::U64 => u64::load(bytes)?.into(),
            Self::I8 => i8::load(bytes)?.into(),
            Self::I16 => i16::load(bytes)?.into(),
            Self::I32 => i32::load(bytes)?.into(),
            Self::I64 => i64::load(bytes)?.into(),
            // JSON's readers take numbers of 64 bits at most.
            Self::U128 => u128::load(bytes)?.to_string().into(),
            Self::I128 => i128::load(bytes)?.to_string().into(),
            Self::F32 => float(f64::from(f32::load(bytes)?)),
            Self::F64 => float(f64::load(bytes)?),
            Self::Bool => bool::load(bytes)?.into(),
            Self::Unit => Value::Null,
            Self::Text => smol_str::SmolStr::load(bytes)?.as_str().into(),
            Self::EventTime => EventTime::load(bytes)?.to_string().into(),
            Self::ReceivedTime => ReceivedTime::load(bytes)?.to_string().into(),
            Self::Price => Price::load(bytes)?.to_string().into(),
            Self::Quantity => Quantity::load(bytes)?.to_string().into(),
            Self::Amount => Amount::load(bytes)?.to_string().into(),
        })
    }
}

/// JSON has no NaN and no infinity: they become text.
fn float(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

/// What stands for a key where only text may: parts of a tuple are joined.
fn key_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(key_text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use serde_json::json;

    use super::*;
    use crate::state::{FlushSink, ListState, MapState, State, Whole};

    crate::persist! {
        /// All that values are made of.
        #[derive(Default)]
        struct Many {
            time: EventTime,
            price: Price,
            some: Option<u64>,
            none: Option<u64>,
            pair: (u8, f64),
            names: Vec<smol_str::SmolStr>,
            by_name: std::collections::BTreeMap<smol_str::SmolStr, i128>,
            side: tidewire_schemas::Side,
            bar: tidewire_schemas::Bar,
        }
    }

    crate::composite_state! {
        /// All that states are made of.
        struct All {
            whole: Whole<Many>,
            map: MapState<(smol_str::SmolStr, EventTime), bool>,
            queue: ListState<i8>,
        }
    }

    struct Nowhere(Vec<Entry>);

    impl FlushSink for Nowhere {
        fn put(&mut self, sub: &[u8], value: &[u8], _: u64) -> u64 {
            self.0.push((sub.to_vec(), value.to_vec()));
            1
        }
        fn remove(&mut self, _: &[u8], _: u64) {}
    }

    fn listed(state: &All) -> Vec<Entry> {
        let mut entries = Vec::new();
        state.list(&mut |sub, value| entries.push((sub.to_vec(), value.to_vec())));
        entries
    }

    #[test]
    fn a_state_is_shown_by_its_layout_alone() {
        let mut state = All::default();
        state.whole.price = "61800.3".parse().unwrap();
        state.whole.some = Some(7);
        state.whole.pair = (1, f64::INFINITY);
        state.whole.names = vec!["a".into(), "b".into()];
        state.whole.by_name.insert("x".into(), i128::MAX);
        state.whole.side = tidewire_schemas::Side::Sell;
        state.whole.bar.instrument = "A.X".into();
        state.map.insert(("rsi".into(), EventTime::from_ms(1_000)), true);
        state.queue.push_back(-1);
        state.queue.push_back(2);

        let mut text = String::new();
        All::shape(&mut text);
        text.push_str("/()");
        let layout = NodeLayout::parse(&text).unwrap();
        let shown = layout.key.show(&listed(&state)).unwrap();
        assert_eq!(shown["map"], json!({ "rsi, 1970-01-01T00:00:01Z": true }));
        assert_eq!(shown["queue"], json!([-1, 2]));
        let whole = &shown["whole"];
        assert_eq!(whole["price"], "61800.3");
        assert_eq!(whole["some"], 7);
        assert_eq!(whole["none"], Value::Null);
        assert_eq!(whole["pair"], json!([1, "inf"]));
        assert_eq!(whole["names"], json!(["a", "b"]));
        assert_eq!(whole["by_name"], json!({ "x": i128::MAX.to_string() }));
        assert_eq!(whole["side"], "Sell");
        assert_eq!(whole["bar"]["instrument"], "A.X");
        assert!(matches!(layout.task, StateLayout::None));
    }

    #[test]
    fn listing_shows_what_a_flush_would_write_and_changes_nothing() {
        let mut state = All::default();
        assert_eq!(listed(&state), []);
        state.map.insert(("b".into(), EventTime::from_ms(2)), true);
        state.map.insert(("a".into(), EventTime::from_ms(1)), true);
        state.queue.push_back(1);
        let before = listed(&state);
        assert_eq!(before, listed(&state));
        let mut sink = Nowhere(Vec::new());
        state.flush(&mut sink);
        assert_eq!(before, sink.0);
        assert_eq!(before, listed(&state), "a flush changes nothing that is shown");
    }

    #[test]
    fn any_bytes_and_any_text_are_an_error_at_most() {
        let layout = NodeLayout::parse("list<()>/()").unwrap();
        let (sub, value) = (Vec::new(), u32::MAX.to_le_bytes().to_vec());
        assert!(layout.key.show(&[(sub, value)]).is_err(), "a false length is not believed");
        for text in ["", "u8", "u9/()", "list<u8/()", "{a:u8}/()", "{\"type\":/()", "option<u8>>/()"] {
            assert!(NodeLayout::parse(text).is_err(), "{text}");
        }
        let deep = format!("{}u8{}/()", "option<".repeat(100_000), ">".repeat(100_000));
        assert!(NodeLayout::parse(&deep).is_err());
    }
}
