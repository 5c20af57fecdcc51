//! Copies of input partitions under the run's own topics, in the order asked for.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_engine::log::{Log, LogError, NewRecord, StoredRecord, TopicPartition};
use tidewire_engine::sync::OffsetRange;
use tidewire_schemas::SchemaBook;
use tidewire_schemas::wire::split_prefix;

use super::sorter::{Sorter, TooLate};

/// Header of a copied record: where it was copied from, as `topic/partition@offset`.
pub const ORIGIN_HEADER: &str = "tw-origin";
/// Bytes read in one piece.
const READ_BYTES: usize = 4 << 20;
/// Bytes of records gathered before they are written.
const BATCH_BYTES: usize = 4 << 20;
/// Records gathered before they are written.
const BATCH_RECORDS: usize = 20_000;

/// Why a partition could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A record came too late to be put in its place.
    #[error(
        "{at}, offset {offset}: a record of {time_ms} ms since 1970 came after records up to {passed_ms} ms were in \
         place: {way_out}"
    )]
    TooLate {
        /// The partition.
        at: TopicPartition,
        /// The record's offset.
        offset: u64,
        /// Its time, in milliseconds.
        time_ms: i64,
        /// Time up to which records were in place, in milliseconds.
        passed_ms: i64,
        /// What can be done.
        way_out: &'static str,
    },
    /// What is there is more than what would be copied.
    #[error(
        "{at} holds {found} records already, and only {made} are to be copied there: somebody else wrote to it; \
         choose another prefix"
    )]
    NotAlone {
        /// The partition.
        at: TopicPartition,
        /// Records that are there.
        found: u64,
        /// Records that there should be.
        made: u64,
    },
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// What can be done about a record that came too late to be sorted.
pub fn way_out(late: &TooLate) -> &'static str {
    if late.memory {
        "more came in between than the memory for sorting holds; reprocess a shorter range, or with `--order availability`"
    } else {
        "it is further out of order than `--max-disorder` allows; allow more, or use `--order availability`"
    }
}

/// How many records a partition holds.
pub fn count_records(log: &dyn Log, at: &TopicPartition) -> Result<u64, LogError> {
    let bounds = log.bounds(at)?;
    let (mut from, mut count) = (bounds.start, 0);
    while from < bounds.stable_end {
        let fetched = log.read(at, from, READ_BYTES)?;
        count += fetched.records.iter().filter(|stored| stored.offset < bounds.stable_end).count() as u64;
        if fetched.next_offset <= from {
            break;
        }
        from = fetched.next_offset;
    }
    Ok(count)
}

/// Values of one log's schema ids, written with those of another.
#[derive(Clone, Copy)]
pub struct Recode<'a> {
    /// Schemas of the log that values are read from.
    pub from: &'a SchemaBook,
    /// Schemas of the log that they are written to.
    pub to: &'a SchemaBook,
}

impl Recode<'_> {
    /// The value for the other log. One that can not be read stays as it is: whoever takes it finds that out as well.
    pub fn value(&self, value: Bytes) -> Bytes {
        // Where the id stands for the same schema, not a byte need change.
        if let Ok((id, _)) = split_prefix(&value)
            && let (Some(here), Some(there)) = (self.from.schema_of(id), self.to.schema_of(id))
            && here == there
        {
            return value;
        }
        let Ok(record) = self.from.decode(&value) else { return value };
        let mut recoded = Vec::with_capacity(value.len());
        match self.to.encode(&record, &mut recoded) {
            Ok(()) => recoded.into(),
            Err(_) => value,
        }
    }
}

/// What of a partition is copied, and how.
pub struct Copied<'a> {
    /// Offsets.
    pub range: OffsetRange,
    /// Times, in milliseconds: from the first, and before the second.
    pub window_ms: (Option<i64>, Option<i64>),
    /// Puts the records in the order of event time; without it they keep their own.
    pub sorter: Option<Sorter<NewRecord>>,
    /// Whether each copy says where it is from.
    pub with_origin: bool,
    /// Schemas, where the other log has its own.
    pub recode: Option<Recode<'a>>,
}

/// Writes records to the partition of the same name in `to`. As many as are there already, from an attempt before, are left out: each attempt gives the same.
/// `on_records` is told how many were read in one piece.
pub fn copy_partition(
    from: &dyn Log,
    to: &dyn Log,
    at: &TopicPartition,
    Copied { range, window_ms, mut sorter, with_origin, recode }: Copied<'_>,
    stop: &AtomicBool,
    on_records: &mut impl FnMut(u64),
) -> Result<u64, CopyError> {
    let found = count_records(to, at)?;
    let mut batch = Batch { to, at, skip: found, made: 0, ready: Vec::new(), bytes: 0 };
    let mut next = range.from;
    let until = range.until.min(from.bounds(at)?.stable_end);
    while next < until {
        if stop.load(Ordering::SeqCst) {
            return Err(CopyError::Stopped);
        }
        let fetched = from.read(at, next, READ_BYTES)?;
        let stuck = fetched.next_offset <= next;
        next = fetched.next_offset;
        let records = fetched.records.into_iter().filter(|stored| stored.offset < until);
        let mut count = 0;
        for stored in records {
            count += 1;
            let (offset, time_ms) = (stored.offset, stored.record.timestamp_ms);
            if window_ms.0.is_some_and(|from_ms| time_ms < from_ms)
                || window_ms.1.is_some_and(|to_ms| time_ms >= to_ms)
            {
                continue;
            }
            let mut record = if with_origin { originated(at, stored) } else { stored.record };
            if let Some(recode) = recode {
                record.value = record.value.map(|value| recode.value(value));
            }
            let Some(sorter) = &mut sorter else {
                batch.add(record)?;
                continue;
            };
            sorter.push(time_ms, record.size(), record).map_err(|late| CopyError::TooLate {
                at: at.clone(),
                offset,
                time_ms,
                passed_ms: late.passed_ms,
                way_out: way_out(&late),
            })?;
            while let Some(record) = sorter.pop_ready() {
                batch.add(record)?;
            }
        }
        on_records(count);
        if stuck {
            break;
        }
    }
    while let Some(record) = sorter.as_mut().and_then(Sorter::pop) {
        batch.add(record)?;
    }
    batch.flush()?;
    if batch.made < found {
        return Err(CopyError::NotAlone { at: at.clone(), found, made: batch.made });
    }
    Ok(batch.made)
}

fn originated(at: &TopicPartition, stored: StoredRecord) -> NewRecord {
    let mut record = stored.record;
    let origin = format!("{}/{}@{}", at.topic, at.partition, stored.offset);
    record.headers.push((SmolStr::new_static(ORIGIN_HEADER), Bytes::from(origin)));
    record
}

struct Batch<'a> {
    to: &'a dyn Log,
    at: &'a TopicPartition,
    skip: u64,
    made: u64,
    ready: Vec<NewRecord>,
    bytes: usize,
}

impl Batch<'_> {
    fn add(&mut self, record: NewRecord) -> Result<(), LogError> {
        self.made += 1;
        if self.made <= self.skip {
            return Ok(());
        }
        self.bytes += record.size();
        self.ready.push(record);
        if self.bytes >= BATCH_BYTES || self.ready.len() >= BATCH_RECORDS {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        if !self.ready.is_empty() {
            self.to.append(self.at, std::mem::take(&mut self.ready))?;
            self.bytes = 0;
        }
        Ok(())
    }
}
