//! Dead letters of sinks, and decoding what may become one.

use bytes::Bytes;
use smol_str::{SmolStr, format_smolstr};
use tidewire_engine::identity::{CAUSE_HEADER, cause_of_record};
use tidewire_engine::log::{NewRecord, StoredRecord, TopicPartition};
use tidewire_engine::log_limits::MAX_RECORD_BYTES;
use tidewire_engine::partition::partition_of;
use tidewire_schemas::{DeadLetter, DecodeError, EventTime, Record, SchemaBook, topics};
use tidewire_sinks::SinkRecord;

use crate::clock::now_ms;

/// What a dead letter takes besides the record's own bytes, with room to spare.
const LETTER_BYTES: usize = 8 << 10;

/// A record as the store takes it.
pub(super) fn decode(
    book: &SchemaBook,
    at: &TopicPartition,
    stored: &StoredRecord,
) -> Result<SinkRecord, DecodeError> {
    let record = stored.record.value.as_deref().map(|value| book.decode(value)).transpose()?;
    Ok(SinkRecord {
        topic: at.topic.clone(),
        partition: at.partition,
        offset: stored.offset,
        timestamp_ms: stored.record.timestamp_ms,
        key: stored.record.key.clone(),
        record,
    })
}

/// The dead letter of a record, and its partition among `partitions`.
pub(super) fn letter(
    book: &SchemaBook,
    sink: &str,
    (at, stored): (&TopicPartition, &StoredRecord),
    (reason, error): (&str, &str),
    partitions: u32,
) -> Result<(TopicPartition, NewRecord), String> {
    let record = &stored.record;
    let fits = record.size() + LETTER_BYTES <= MAX_RECORD_BYTES;
    let error = match fits {
        true => SmolStr::new(error),
        false => format_smolstr!("{error} (too large to be kept here: read it where it lies)"),
    };
    let now = now_ms();
    let letter = DeadLetter {
        source_topic: at.topic.clone(),
        source_partition: i32::try_from(at.partition).unwrap_or(i32::MAX),
        source_offset: i64::try_from(stored.offset).unwrap_or(i64::MAX),
        line: None,
        stage: stage_of(sink),
        operator: None,
        reason: reason.into(),
        error,
        key: record.key.clone().filter(|_| fits),
        value: record.value.clone().filter(|_| fits),
        headers: if fits { record.headers.iter().cloned().collect() } else { Default::default() },
        source_timestamp_ms: record.timestamp_ms,
        event_time: EventTime::from_ms(now),
    };
    let mut value = Vec::new();
    book.encode(&Record::from(letter), &mut value).map_err(|error| error.to_string())?;
    let key = record.key.clone().filter(|_| fits).unwrap_or_default();
    let to = TopicPartition::new(topics::DEAD_LETTERS, partition_of(&key, partitions));
    let headers = vec![(SmolStr::new_static(CAUSE_HEADER), cause_of_record(at, stored))];
    Ok((to, NewRecord { timestamp_ms: now, key: Some(key), value: Some(Bytes::from(value)), headers }))
}

/// What stands as the stage in a dead letter of a sink.
fn stage_of(sink: &str) -> SmolStr {
    format_smolstr!("sink.{sink}")
}
