//! The way of one order: from the record that led to it to its last event, and the keys that it went under.

use anyhow::bail;
use tidewire_engine::frame::TimerCause;
use tidewire_engine::identity::{CAUSE_HEADER, Identity};
use tidewire_engine::identity::{sequence_of, sequence_prefix};
use tidewire_engine::log::{Log, StoredRecord, TopicPartition};
use tidewire_engine::reader::PartitionReader;
use tidewire_schemas::{EventTime, Record, SchemaBook, topics};

use super::{Edge, Request};
use crate::recorded::Recorded;

/// Most causes that are followed back.
const MAX_CAUSES: usize = 16;

/// Narrows a request down to an order: its account and its instrument, from its first known cause to its last event.
///
/// # Errors
/// When there is no such order in the log.
pub fn narrow(
    log: &dyn Log,
    book: &SchemaBook,
    recorded: &[Recorded],
    order: &str,
    request: &mut Request,
) -> anyhow::Result<()> {
    let Some(spec) = log.topic(topics::ORDERS)? else {
        bail!("there is no topic {}, so no order {order}", topics::ORDERS);
    };
    let mut found: Option<(StoredRecord, i64, i64)> = None;
    let mut keys: Vec<String> = Vec::new();
    for partition in 0..spec.partitions {
        let mut reader = PartitionReader::from_start(log, TopicPartition::new(topics::ORDERS, partition))?;
        while let Some(stored) = reader.next_record()? {
            let decoded = stored.record.value.as_deref().and_then(|value| book.decode(value).ok());
            let Some(Record::Order(state)) = decoded.filter(|record| record.text("order_id") == Some(order))
            else {
                continue;
            };
            let time_ms = stored.record.timestamp_ms;
            keys = vec![state.account.to_string(), state.instrument.to_string()];
            match &mut found {
                Some((_, first, last)) => (*first, *last) = ((*first).min(time_ms), (*last).max(time_ms)),
                None => found = Some((stored, time_ms, time_ms)),
            }
        }
    }
    let Some((record, first_ms, last_ms)) = found else {
        bail!(
            "{} holds no order {order}: `tidewire tail {}` shows those that are there",
            topics::ORDERS,
            topics::ORDERS
        );
    };
    let first_ms = first_cause_ms(log, recorded, record)?.min(first_ms);
    request.from.get_or_insert(Edge::Time(EventTime::from_ms(first_ms)));
    request.to.get_or_insert(Edge::Time(EventTime::from_ms(last_ms)));
    for key in keys {
        if !request.keys.contains(&key) {
            request.keys.push(key);
        }
    }
    Ok(())
}

/// The least time among a record's causes, as far back as they can be followed.
fn first_cause_ms(log: &dyn Log, recorded: &[Recorded], mut record: StoredRecord) -> anyhow::Result<i64> {
    let mut first_ms = record.record.timestamp_ms;
    for _ in 0..MAX_CAUSES {
        let Some(cause) = record.record.header(CAUSE_HEADER) else { break };
        let cause = String::from_utf8_lossy(cause).into_owned();
        if let Ok(timer) = cause.parse::<TimerCause>() {
            first_ms = first_ms.min(timer.at.as_ms());
            break;
        }
        let before = match cause.parse::<Identity>() {
            Ok(identity) => made(log, recorded, &identity)?,
            Err(_) => at_place(log, &cause)?,
        };
        let Some(before) = before else { break };
        first_ms = first_ms.min(before.record.timestamp_ms);
        record = before;
    }
    Ok(first_ms)
}

/// The record of that identity.
fn made(log: &dyn Log, recorded: &[Recorded], identity: &Identity) -> anyhow::Result<Option<StoredRecord>> {
    let prefix = sequence_prefix(&identity.stage, identity.task);
    let stages = recorded.iter().flat_map(Recorded::stages).filter(|stage| stage.name == identity.stage);
    for output in stages.flat_map(|stage| &stage.outputs) {
        let Some(spec) = log.topic(&output.topic)? else { continue };
        for partition in 0..spec.partitions {
            let mut reader =
                PartitionReader::from_start(log, TopicPartition::new(output.topic.clone(), partition))?;
            while let Some(stored) = reader.next_record()? {
                match sequence_of(&stored, &prefix) {
                    Some(found) if found == identity.sequence => return Ok(Some(stored)),
                    Some(found) if found > identity.sequence => break,
                    _ => {}
                }
            }
        }
    }
    Ok(None)
}

/// The record at `topic/partition@offset`.
fn at_place(log: &dyn Log, place: &str) -> anyhow::Result<Option<StoredRecord>> {
    let parsed = place.rsplit_once('@').and_then(|(at, offset)| {
        let (topic, partition) = at.rsplit_once('/')?;
        Some((TopicPartition::new(topic, partition.parse().ok()?), offset.parse::<u64>().ok()?))
    });
    let Some((at, offset)) = parsed else { return Ok(None) };
    let there = log.topic(&at.topic)?.is_some_and(|spec| at.partition < spec.partitions);
    if !there || log.bounds(&at)?.start > offset {
        return Ok(None);
    }
    let found = log.read(&at, offset, 1)?.records.into_iter().next();
    Ok(found.filter(|found| found.offset == offset))
}
