//! From what a person names to a record in the log.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde_json::Value;
use smol_str::SmolStr;
use tidewire_engine::identity::Identity;
use tidewire_engine::log::{StoredRecord, TopicPartition};
use tidewire_engine::reader::PartitionReader;
use tidewire_schemas::{EventTime, Kind, OrderStatus, Record, SchemaBook, topics};

use super::grow::{brief, place_text};
use super::seek::first_at_least;
use super::session::Session;
use super::tree::Brief;
use crate::records::text;

/// Records looked at first when a topic is searched backwards; the next look is at four times as many.
const FIRST_WINDOW: u64 = 4_096;
/// How far before a time a vector that still held then may lie.
const VECTOR_LOOK_BACK_MS: i64 = 60_000;
/// Most records that are looked through for what came of a record, by partition.
const MAX_AFTER_RECORDS: u64 = 20_000;
/// Most records that came of it.
const MAX_AFTER: usize = 50;

/// What a person asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A record by its place.
    Place(TopicPartition, u64),
    /// A record by who wrote it.
    Identity(Identity),
    /// A feature's value.
    Feature { instrument: SmolStr, name: SmolStr, time: EventTime },
    /// An order, intent, decision, signal, alert or execution.
    Id(String),
}

/// A record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The partition.
    pub at: TopicPartition,
    /// The offset.
    pub offset: u64,
}

/// `topic/partition@offset`, or `topic-partition@offset`.
pub fn parse_place(text: &str) -> Option<(TopicPartition, u64)> {
    let (at, offset) = text.rsplit_once('@')?;
    let offset = offset.parse().ok()?;
    let (topic, partition) = at.rsplit_once(['/', '-'])?;
    Some((TopicPartition::new(topic, partition.parse().ok()?), offset))
}

impl Target {
    /// Reads what a person wrote.
    pub fn parse(text: &str) -> Self {
        if let Some((at, offset)) = parse_place(text) {
            return Self::Place(at, offset);
        }
        if let Some((name, time)) = text.rsplit_once('@')
            && let (Some((instrument, name)), Ok(time)) = (name.rsplit_once('/'), time.parse())
        {
            return Self::Feature { instrument: instrument.into(), name: name.into(), time };
        }
        text.parse().map_or_else(|_| Self::Id(text.to_owned()), Self::Identity)
    }

    /// Finds its record. `progress` is told how many records were looked at.
    pub fn find(&self, session: &Session<'_>, progress: &mut dyn FnMut(u64)) -> anyhow::Result<Place> {
        match self {
            Self::Place(at, offset) => match session.record(at, *offset)? {
                Ok(_) => Ok(Place { at: at.clone(), offset: *offset }),
                Err(why) => bail!("{why}"),
            },
            Self::Identity(id) => identity(session, id),
            Self::Feature { instrument, name, time } => feature(session, instrument, name, *time),
            Self::Id(id) => by_id(session, id, progress),
        }
    }
}

fn identity(session: &Session<'_>, id: &Identity) -> anyhow::Result<Place> {
    if session.task_of(id).is_none() {
        let names: Vec<String> =
            session.stages.iter().map(|stage| format!("{} ({} tasks)", stage.name, stage.tasks())).collect();
        bail!("{id} names no task of a pipeline that ran on this log; there are {}", names.join(", "));
    }
    if let Some((at, offset)) = session.place_of(id)? {
        return Ok(Place { at, offset });
    }
    bail!(
        "{id} is in no topic that stage {} writes: its sequence was never reached, or retention or compaction took it",
        id.stage
    )
}

fn feature(
    session: &Session<'_>,
    instrument: &SmolStr,
    name: &SmolStr,
    time: EventTime,
) -> anyhow::Result<Place> {
    let mut best: Option<(EventTime, Place)> = None;
    let mut near: BTreeSet<String> = BTreeSet::new();
    for topic in topics_with(session, &[Kind::FeatureVector])? {
        let partitions = session.log.topic(&topic)?.map_or(0, |topic| topic.partitions);
        for partition in 0..partitions {
            let at = TopicPartition::new(topic.clone(), partition);
            let from_ms = time.as_ms().saturating_sub(VECTOR_LOOK_BACK_MS);
            let Some(first) =
                first_at_least(session.log, &at, from_ms, |stored| Some(stored.record.timestamp_ms))?
            else {
                continue;
            };
            let mut reader = PartitionReader::new(
                session.log,
                at.clone(),
                first.offset,
                session.log.bounds(&at)?.stable_end,
            );
            while let Some(stored) = reader.next_record()? {
                if stored.record.timestamp_ms > time.as_ms().saturating_add(VECTOR_LOOK_BACK_MS) {
                    break;
                }
                let Some(Record::FeatureVector(vector)) = decode(session.book, &stored) else { continue };
                if vector.instrument != *instrument {
                    continue;
                }
                near.extend(vector.values.keys().map(ToString::to_string));
                let is_later = best.as_ref().is_none_or(|(found, _)| vector.event_time > *found);
                if vector.event_time <= time && vector.values.contains_key(name) && is_later {
                    best = Some((vector.event_time, Place { at: at.clone(), offset: stored.offset }));
                }
            }
        }
    }
    match best {
        Some((_, place)) => Ok(place),
        None if near.is_empty() => bail!(
            "no feature vector of {instrument} lies within {} s before {time}: see `tidewire tail {} --key {instrument}`",
            VECTOR_LOOK_BACK_MS / 1_000,
            topics::FEATURES
        ),
        None => bail!(
            "no vector of {instrument} near {time} has a feature `{name}`; there are {}",
            near.into_iter().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The field that holds a record's own id.
fn id_field(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Order | Kind::NewOrder | Kind::CancelOrder | Kind::ReplaceOrder => Some("order_id"),
        Kind::OrderIntent | Kind::RiskDecision | Kind::Signal | Kind::Alert => Some("id"),
        Kind::ExecutionReport => Some("execution_id"),
        _ => None,
    }
}

/// Kinds that carry ids, the one that an id means first in front.
const ID_KINDS: [Kind; 9] = [
    Kind::Order,
    Kind::RiskDecision,
    Kind::OrderIntent,
    Kind::Signal,
    Kind::Alert,
    Kind::ExecutionReport,
    Kind::NewOrder,
    Kind::CancelOrder,
    Kind::ReplaceOrder,
];

/// Topics of the log that may carry these kinds: those known for it, and those of other names that stages write to.
fn topics_with(session: &Session<'_>, kinds: &[Kind]) -> anyhow::Result<Vec<SmolStr>> {
    let known = topics::ALL.iter().filter(|topic| topic.kinds.iter().any(|kind| kinds.contains(kind)));
    let mut names: Vec<SmolStr> = known.map(|topic| topic.name.into()).collect();
    for output in session.stages.iter().flat_map(|stage| &stage.outputs) {
        if topics::find(&output.topic).is_none() && !names.contains(&output.topic) {
            names.push(output.topic.clone());
        }
    }
    let mut there = Vec::with_capacity(names.len());
    for name in names {
        if session.log.topic(&name)?.is_some() {
            there.push(name);
        }
    }
    Ok(there)
}

fn by_id(session: &Session<'_>, id: &str, progress: &mut dyn FnMut(u64)) -> anyhow::Result<Place> {
    let mut looked = 0;
    for kind in ID_KINDS {
        let Some(field) = id_field(kind) else { continue };
        for topic in topics_with(session, &[kind])? {
            let partitions = session.log.topic(&topic)?.map_or(0, |topic| topic.partitions);
            for partition in 0..partitions {
                let at = TopicPartition::new(topic.clone(), partition);
                let found = newest_first(session, &at, &mut |stored| {
                    looked += 1;
                    if looked % FIRST_WINDOW == 0 {
                        progress(looked);
                    }
                    // Decoding is dear where most are of other ids: their bytes tell.
                    let value = stored.record.value.as_deref().unwrap_or_default();
                    if !contains(value, id.as_bytes()) {
                        return Match::No;
                    }
                    match decode(session.book, stored) {
                        Some(record) if record.kind() == kind && record.text(field) == Some(id) => {
                            is_first(&record)
                        }
                        _ => Match::No,
                    }
                })?;
                if let Some(offset) = found {
                    return Ok(Place { at, offset });
                }
            }
        }
    }
    bail!(
        "nothing has the id {id}: {looked} records of orders, decisions, intents, signals, alerts, executions and commands \
         were looked through. What retention has taken is not found; ids are shown by `tidewire tail orders.v1`, and a \
         record can be named by its place, topic/partition@offset"
    )
}

enum Match {
    No,
    /// It is one, but there may be an earlier one.
    Later,
    /// It is the first one.
    First,
}

/// Of an order there is a record for each of its states; the first one is what made it.
fn is_first(record: &Record) -> Match {
    match record {
        Record::Order(order) if order.status != OrderStatus::PendingNew => Match::Later,
        _ => Match::First,
    }
}

/// Looks through a partition from its end; returns the earliest match, or the first one that is known to be it.
fn newest_first(
    session: &Session<'_>,
    at: &TopicPartition,
    matches: &mut dyn FnMut(&StoredRecord) -> Match,
) -> anyhow::Result<Option<u64>> {
    let bounds = session.log.bounds(at)?;
    let (mut until, mut window, mut found) = (bounds.stable_end, FIRST_WINDOW, None);
    while until > bounds.start {
        let from = until.saturating_sub(window).max(bounds.start);
        let mut reader = PartitionReader::new(session.log, at.clone(), from, until);
        let mut earliest = None;
        while let Some(stored) = reader.next_record()? {
            match matches(&stored) {
                Match::No => {}
                Match::Later => earliest = earliest.or(Some(stored.offset)),
                Match::First => return Ok(Some(stored.offset)),
            }
        }
        found = earliest.or(found);
        until = from;
        window = window.saturating_mul(4);
    }
    Ok(found)
}

/// The places of all orders' first records, in one pass.
pub fn all_orders(session: &Session<'_>) -> anyhow::Result<Vec<(String, Place)>> {
    let mut orders = Vec::new();
    let mut seen = BTreeSet::new();
    for topic in topics_with(session, &[Kind::Order])? {
        let partitions = session.log.topic(&topic)?.map_or(0, |topic| topic.partitions);
        for partition in 0..partitions {
            let at = TopicPartition::new(topic.clone(), partition);
            let mut reader = PartitionReader::from_start(session.log, at.clone())?;
            while let Some(stored) = reader.next_record()? {
                if let Some(Record::Order(order)) = decode(session.book, &stored)
                    && seen.insert(order.order_id.clone())
                {
                    orders
                        .push((order.order_id.to_string(), Place { at: at.clone(), offset: stored.offset }));
                }
            }
        }
    }
    Ok(orders)
}

/// What came of a record later: records that name its id.
pub fn after(session: &Session<'_>, place: &Place) -> anyhow::Result<Vec<Brief>> {
    let Ok(stored) = session.record(&place.at, place.offset)? else { return Ok(Vec::new()) };
    let Some(record) = decode(session.book, &stored) else { return Ok(Vec::new()) };
    let Some(id) = id_field(record.kind()).and_then(|field| record.text(field)) else {
        return Ok(Vec::new());
    };
    let kinds: &[Kind] = match record.kind() {
        Kind::Order => &[Kind::Order, Kind::ExecutionReport, Kind::CancelOrder],
        Kind::OrderIntent => &[Kind::RiskDecision, Kind::Order],
        Kind::Signal => &[Kind::OrderIntent],
        _ => return Ok(Vec::new()),
    };
    let mut found: Vec<(i64, Brief)> = Vec::new();
    for topic in topics_with(session, kinds)? {
        let partitions = session.log.topic(&topic)?.map_or(0, |topic| topic.partitions);
        for partition in 0..partitions {
            let at = TopicPartition::new(topic.clone(), partition);
            let since = |stored: &StoredRecord| Some(stored.record.timestamp_ms);
            let Some(first) = first_at_least(session.log, &at, stored.record.timestamp_ms, since)
                .with_context(|| format!("looking in {at}"))?
            else {
                continue;
            };
            let until = session.log.bounds(&at)?.stable_end.min(first.offset + MAX_AFTER_RECORDS);
            let mut reader = PartitionReader::new(session.log, at.clone(), first.offset, until);
            while let Some(later) = reader.next_record()? {
                let value = later.record.value.as_deref().unwrap_or_default();
                if found.len() >= MAX_AFTER || !contains(value, id.as_bytes()) {
                    continue;
                }
                let Some(record) = decode(session.book, &later) else { continue };
                let names_it = ["order_id", "original_order_id", "intent_id", "signal_id"]
                    .iter()
                    .any(|field| record.text(field) == Some(id));
                let itself = at == place.at && later.offset == place.offset;
                if !names_it || itself || !kinds.contains(&record.kind()) {
                    continue;
                }
                let key = later.record.key.as_deref().map(text).unwrap_or_default();
                let short =
                    Brief { place: Some(place_text(&at, later.offset)), ..brief(&record, &key.into()) };
                found.push((later.record.timestamp_ms, short));
            }
        }
    }
    found.sort_by_key(|(time_ms, short)| (*time_ms, status_rank(short)));
    Ok(found.into_iter().map(|(_, short)| short).collect())
}

/// At one time an execution comes before the state of the order that follows from it.
fn status_rank(short: &Brief) -> usize {
    let filled = short.value.get("cumulative_quantity").and_then(Value::as_str) != Some("0");
    usize::from(filled) * 2 + usize::from(short.kind == "Order")
}

fn decode(book: &SchemaBook, stored: &StoredRecord) -> Option<Record> {
    book.decode(stored.record.value.as_deref()?).ok()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_known_by_its_form() {
        let place =
            |topic: &str, partition, offset| Target::Place(TopicPartition::new(topic, partition), offset);
        assert_eq!(Target::parse("market.ticks.v1/2@1234"), place("market.ticks.v1", 2, 1234));
        assert_eq!(Target::parse("dead-letters.v1-0@7"), place("dead-letters.v1", 0, 7));
        assert_eq!(Target::parse("orders:paper-main:5"), Target::Id("orders:paper-main:5".to_owned()));
        assert_eq!(
            Target::parse("risk/2/17"),
            Target::Identity(Identity { stage: "risk".into(), task: 2, sequence: 17 })
        );
        assert_eq!(
            Target::parse("BTCUSDT.BINANCE_USDM/rsi@2024-08-08T23:54:30Z"),
            Target::Feature {
                instrument: "BTCUSDT.BINANCE_USDM".into(),
                name: "rsi".into(),
                time: "2024-08-08T23:54:30Z".parse().unwrap_or_default(),
            }
        );
    }
}
