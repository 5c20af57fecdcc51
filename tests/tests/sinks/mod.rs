//! The stores under test, behind one face, and small helpers to make records and to drive a sink.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

pub mod driven;
pub mod redis_server;
pub mod redis_store;
pub mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidewire_schemas::{EventTime, FeatureVector, Position, Record, topics};
use tidewire_sinks::{Sink, SinkRecord};

/// What lies in a store: fields by `<family>:<key>`.
pub type Contents = BTreeMap<String, BTreeMap<String, String>>;

/// A store under test. It keeps what it holds while it is stopped.
pub trait Store: Send + Sync {
    /// A new client with the right credentials.
    fn sink(&self) -> Box<dyn Sink> {
        self.sink_of_generation(1)
    }
    fn sink_of_generation(&self, generation: u32) -> Box<dyn Sink>;
    /// Makes clients as [`Store::sink`] does, for the loop that drives them.
    fn maker(&self) -> Arc<dyn Fn() -> Box<dyn Sink> + Send + Sync>;
    /// A client with wrong credentials, and those.
    fn sink_with_wrong_credentials(&self) -> (Box<dyn Sink>, String);
    /// What is there, read by another client than the sink's.
    fn contents(&self) -> Contents;
    /// It goes away, as by kill -9.
    fn stop(&self);
    /// It is there again, with what it held.
    fn start(&self);
    /// It has no room any more.
    fn fill(&self);
    fn make_room(&self);
    /// Makes it impossible to write features of this key.
    fn spoil(&self, key: &str);
}

/// A record of features at an offset of partition 0.
pub fn features(key: &str, offset: u64, values: &[(&str, f64)]) -> SinkRecord {
    let vector = FeatureVector {
        instrument: key.into(),
        event_time: EventTime::from_ms(1_700_000_000_000),
        values: values.iter().map(|(name, value)| ((*name).into(), *value)).collect(),
    };
    at(topics::FEATURES, 0, offset, key, Some(vector.into()))
}

/// One feature, `v`.
pub fn feature(key: &str, offset: u64, value: f64) -> SinkRecord {
    features(key, offset, &[("v", value)])
}

pub fn position(key: &str, offset: u64, quantity: &str) -> SinkRecord {
    let (account, instrument) = key.split_once('/').unwrap();
    let position = Position {
        account: account.into(),
        instrument: instrument.into(),
        quantity: quantity.parse().unwrap(),
        average_price: "61234.500000000001".parse().unwrap(),
        realised_pnl: "-0.000000000001".parse().unwrap(),
        currency: "USDT".into(),
        event_time: EventTime::from_ms(1_700_000_000_000),
        ..Position::default()
    };
    at(topics::POSITIONS, 0, offset, key, Some(position.into()))
}

pub fn tombstone(topic: &str, key: &str, offset: u64) -> SinkRecord {
    at(topic, 0, offset, key, None)
}

pub fn at(topic: &str, partition: u32, offset: u64, key: &str, record: Option<Record>) -> SinkRecord {
    let key = Some(Bytes::copy_from_slice(key.as_bytes()));
    SinkRecord { topic: topic.into(), partition, offset, timestamp_ms: 1_700_000_000_000, key, record }
}

/// What a store must hold of a record, made from the record alone: decimals as text, features by their bits.
pub fn expected(record: &SinkRecord) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = [
        ("@topic", record.topic.to_string()),
        ("@partition", record.partition.to_string()),
        ("@offset", record.offset.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let mut put = |name: &str, value: String| fields.insert(name.to_owned(), value);
    match record.record.as_ref().expect("a tombstone leaves nothing") {
        Record::FeatureVector(vector) => {
            put("@event_time", vector.event_time.to_string());
            for (name, value) in &vector.values {
                put(name, bits(*value));
            }
        }
        Record::Position(position) => {
            put("@event_time", position.event_time.to_string());
            put("account", position.account.to_string());
            put("instrument", position.instrument.to_string());
            // Whole units of the twelfth place, so that this is not the text that the sink makes.
            put("quantity", units(position.quantity.units()));
            put("average_price", units(position.average_price.units()));
            put("realised_pnl", units(position.realised_pnl.units()));
            put("unrealised_pnl", units(position.unrealised_pnl.units()));
            put("fees", units(position.fees.units()));
            put("currency", position.currency.to_string());
            if let Some(mark) = position.mark {
                put("mark", units(mark.units()));
            }
        }
        other => panic!("{} is in no store", other.kind()),
    }
    fields
}

/// Fields as a store holds them, in the form of [`expected`].
pub fn normal(family: &str, fields: BTreeMap<String, String>) -> BTreeMap<String, String> {
    const WORDS: [&str; 3] = ["account", "instrument", "currency"];
    let normal = fields.into_iter().map(|(name, text)| {
        let value = match family {
            _ if name.starts_with('@') || WORDS.contains(&name.as_str()) => text,
            "features" => bits(text.parse().unwrap_or_else(|_| panic!("{name} is {text}"))),
            _ => units(units_of(&text)),
        };
        (name, value)
    });
    normal.collect()
}

/// What must be in a store after these records, in the order of their partition.
pub fn fold<'a>(records: impl IntoIterator<Item = &'a SinkRecord>) -> Contents {
    let mut contents = Contents::new();
    for record in records {
        let name = name_of(record);
        match record.record {
            Some(_) => contents.insert(name, expected(record)),
            None => contents.remove(&name),
        };
    }
    contents
}

/// `<family>:<key>`.
pub fn name_of(record: &SinkRecord) -> String {
    let family = if record.topic == topics::FEATURES { "features" } else { "positions" };
    format!("{family}:{}", String::from_utf8_lossy(record.key.as_deref().unwrap()))
}

fn bits(value: f64) -> String {
    format!("{:016x}", value.to_bits())
}

fn units(units: i128) -> String {
    format!("{units} / 10^12")
}

/// Decimal text read digit by digit.
fn units_of(text: &str) -> i128 {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    assert!(part.len() <= 12 && !whole.is_empty(), "{text}");
    let all = format!("{whole}{part:0<12}");
    sign * all.parse::<i128>().unwrap_or_else(|_| panic!("{text} is no decimal"))
}
