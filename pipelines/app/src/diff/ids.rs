//! What identifies a record within its topic, whichever run made it, and what it is about.

use smol_str::{SmolStr, format_smolstr};
use tidewire_engine::log::NewRecord;
use tidewire_schemas::{EventTime, Kind, Record};

use super::matcher::IdDigest;
use crate::records::{hex, text};

/// What identifies a record within its topic: the ids that operators derive, or what the record describes. Records
/// of kinds without any are told apart by their event time, and several of one time by their order.
pub fn derived_id(record: &Record) -> String {
    match record {
        Record::Signal(x) => x.id.to_string(),
        Record::Alert(x) => x.id.to_string(),
        Record::OrderIntent(x) => x.id.to_string(),
        // Decisions and orders share one count by account, so one order more or less would move all ids behind it.
        Record::RiskDecision(x) => x.intent_id.to_string(),
        Record::Order(x) if x.intent_id.is_empty() => x.order_id.to_string(),
        Record::Order(x) => x.intent_id.to_string(),
        Record::NewOrder(x) => x.order_id.to_string(),
        Record::CancelOrder(x) => x.order_id.to_string(),
        Record::ReplaceOrder(x) => x.order_id.to_string(),
        Record::OrderCancelReject(x) => x.order_id.to_string(),
        Record::ExecutionReport(x) => x.execution_id.to_string(),
        Record::Bar(x) => {
            let window = format!("{}..{}", x.window_start, x.window_end);
            format!("{} {} {} ms {window} revision {}", x.instrument, x.bar_kind, x.interval_ms, x.revision)
        }
        Record::FeatureValue(x) => format!("{} {} {}", x.instrument, x.name, x.event_time),
        Record::FeatureVector(x) => format!("{} {}", x.instrument, x.event_time),
        Record::LateRecord(x) => {
            // The record itself and not its place: another log may hold it elsewhere.
            let body = hex(&blake3::hash(&x.body).as_bytes()[..8]);
            format!("{} {}..{} {} {body}", x.operator, x.window_start, x.window_end, x.kind)
        }
        Record::DeadLetter(x) => {
            let operator = x.operator.as_deref().unwrap_or_default();
            let line = x.line.map_or_else(String::new, |line| format!(" line {line}"));
            let source = format!("{}-{}@{}", x.source_topic, x.source_partition, x.source_offset);
            format!("{} {operator} {} {source}{line} {}", x.stage, x.reason, x.source_timestamp_ms)
        }
        Record::Trade(x) => format!("{} {} {}", x.instrument, x.trade_id, x.event_time),
        Record::Quote(x) => format!("{} {} {}", x.instrument, x.update_id, x.event_time),
        Record::BookSnapshot(x) => format!("{} {} {}", x.instrument, x.update_id, x.event_time),
        Record::BookDelta(x) => format!("{} {} {}", x.instrument, x.first_update_id, x.event_time),
        Record::NewsItem(x) => format!("{} {} {}", x.source, x.id, x.subject),
        Record::SentimentScore(x) => {
            format!("{} {} {} {}", x.asset, x.model, x.news_id.as_deref().unwrap_or_default(), x.event_time)
        }
        Record::ControlCommand(x) => format!("{} {} {}", x.scope, x.command, x.event_time),
        Record::EpochRecord(x) => format!("{}/{} epoch {}", x.stage, x.task, x.epoch),
        other => other.event_time().map_or_else(String::new, |time| time.to_string()),
    }
}

/// A record as far as matching and attribution need it.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Digest of key, kind and derived id.
    pub digest: IdDigest,
    /// The derived id.
    pub id: SmolStr,
    /// Which record it is, if it can be read.
    pub kind: Option<Kind>,
    /// Its event time; the timestamp where it has none.
    pub event_time: EventTime,
    /// The decoded record, if it can be read.
    pub record: Option<Record>,
}

/// Identifies a record. One that can not be read is known by its key and timestamp.
pub fn identify(record: &NewRecord, decoded: Option<Record>) -> Identified {
    let stamp = EventTime::from_ms(record.timestamp_ms);
    let (id, kind, event_time) = match &decoded {
        Some(read) => (derived_id(read), Some(read.kind()), read.event_time().unwrap_or(stamp)),
        None => (stamp.to_string(), None, stamp),
    };
    let mut hasher = blake3::Hasher::new();
    for part in
        [record.key.as_deref().unwrap_or_default(), kind.map_or("", Kind::name).as_bytes(), id.as_bytes()]
    {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Identified { digest: IdDigest::from_le_bytes(digest), id: id.into(), kind, event_time, record: decoded }
}

/// The order that a record is about, if it is a state of one.
pub fn order_of(record: &Record) -> Option<SmolStr> {
    match record {
        Record::Order(order) if order.intent_id.is_empty() => Some(order.order_id.clone()),
        Record::Order(order) => Some(order.intent_id.clone()),
        _ => None,
    }
}

/// What a record is about: the parts of its key, its instrument and its account. What one record changes shows in
/// others about the same.
pub fn subjects(key: Option<&[u8]>, record: Option<&Record>) -> Vec<SmolStr> {
    let key = key.map(text).unwrap_or_default();
    let mut found: Vec<SmolStr> = key.split('/').filter(|part| !part.is_empty()).map(SmolStr::new).collect();
    if let Some(record) = record {
        found.extend(["instrument", "account"].iter().filter_map(|name| record.text(name)).map(SmolStr::new));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The operator that made a record, where its id tells.
pub fn operator_of(record: &Record) -> Option<SmolStr> {
    let id = match record {
        Record::Alert(x) => &x.id,
        Record::Signal(x) => &x.id,
        Record::OrderIntent(x) => &x.id,
        Record::RiskDecision(x) => &x.id,
        Record::LateRecord(x) => return Some(x.operator.clone()),
        _ => return None,
    };
    id.split_once(':').map(|(operator, _)| operator.into())
}

/// A window's bounds, for records that sum up one.
pub fn window(record: &Record) -> Option<(EventTime, EventTime)> {
    match record {
        Record::Bar(bar) => Some((bar.window_start, bar.window_end)),
        _ => None,
    }
}

/// The input record that a late record or a dead letter is about: topic, partition, offset.
pub fn source_of(record: &Record) -> Option<SmolStr> {
    let (topic, partition, offset) = match record {
        Record::LateRecord(x) => (&x.source_topic, x.source_partition, x.source_offset),
        Record::DeadLetter(x) => (&x.source_topic, x.source_partition, x.source_offset),
        _ => return None,
    };
    (offset >= 0).then(|| format_smolstr!("{topic}/{partition}@{offset}"))
}
