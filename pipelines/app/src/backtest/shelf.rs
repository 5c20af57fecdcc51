//! Inputs in memory, read by many runs at once. What they may take of memory has a bound.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use smol_str::SmolStr;
use tidewire_engine::log::{
    Bounds, CommittedOffset, Fetched, Log, LogError, Member, NewRecord, StoredRecord, TopicPartition,
    TopicSpec,
};

/// What a record takes of memory besides its key, value and headers, in bytes.
const RECORD_OVERHEAD_BYTES: u64 = 160;

/// A log that holds inputs and nothing else. Records that are put on it keep their offsets, so that what is derived
/// from a record's place is the same as where it came from.
#[derive(Default)]
pub struct Shelf {
    max_bytes: u64,
    held: RwLock<Held>,
}

#[derive(Default)]
struct Held {
    bytes: u64,
    topics: BTreeMap<SmolStr, (TopicSpec, Vec<Partition>)>,
}

#[derive(Default)]
struct Partition {
    start: u64,
    end: u64,
    records: Vec<StoredRecord>,
}

impl Shelf {
    /// An empty one that takes so many bytes.
    pub fn new(max_bytes: u64) -> Self {
        Self { max_bytes, held: RwLock::default() }
    }

    /// Bytes that its records take.
    pub fn bytes(&self) -> u64 {
        self.look(|held| held.bytes)
    }

    /// How many records it holds.
    pub fn records(&self) -> u64 {
        let count = |held: &Held| {
            let partitions = held.topics.values().flat_map(|(_, partitions)| partitions);
            partitions.map(|partition| partition.records.len() as u64).sum()
        };
        self.look(count)
    }

    /// Says from where to where a partition goes, whether or not there are records at both ends.
    pub fn set_bounds(&self, at: &TopicPartition, start: u64, end: u64) -> Result<(), LogError> {
        self.change(at, |partition| {
            (partition.start, partition.end) = (start, end.max(start));
            0
        })
    }

    /// Puts records behind those that are there, each with the offset that it has.
    pub fn put(&self, at: &TopicPartition, records: Vec<StoredRecord>) -> Result<(), LogError> {
        self.change(at, |partition| {
            let bytes = records.iter().map(|stored| taken(&stored.record)).sum();
            partition.end = partition.end.max(records.last().map_or(0, |last| last.offset + 1));
            partition.records.extend(records);
            bytes
        })
    }

    fn look<T>(&self, f: impl FnOnce(&Held) -> T) -> T {
        f(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn partition<T>(&self, at: &TopicPartition, f: impl FnOnce(&Partition) -> T) -> Result<T, LogError> {
        self.look(|held| {
            let found =
                held.topics.get(&at.topic).and_then(|(_, partitions)| partitions.get(at.partition as usize));
            found.map(f).ok_or_else(|| LogError::UnknownTopic(at.topic.clone()))
        })
    }

    fn change(&self, at: &TopicPartition, f: impl FnOnce(&mut Partition) -> u64) -> Result<(), LogError> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let found = held.topics.get_mut(&at.topic);
        let found = found.and_then(|(_, partitions)| partitions.get_mut(at.partition as usize));
        let partition = found.ok_or_else(|| LogError::UnknownTopic(at.topic.clone()))?;
        let bytes = f(partition);
        held.bytes += bytes;
        if held.bytes > self.max_bytes {
            return Err(LogError::Invalid(format!(
                "the inputs take more than {} MiB of memory, of which {at} is the last that was read: take a smaller \
                 range with `--from` and `--to`, or allow more with `--max-input-mib`",
                self.max_bytes >> 20
            )));
        }
        Ok(())
    }
}

fn taken(record: &NewRecord) -> u64 {
    record.size() as u64 + RECORD_OVERHEAD_BYTES
}

fn read_only(what: &str) -> LogError {
    LogError::Invalid(format!("inputs in memory are only read: {what}"))
}

impl Log for Shelf {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let partitions = || (0..spec.partitions).map(|_| Partition::default()).collect();
        held.topics.entry(spec.name.clone()).or_insert_with(|| (spec.clone(), partitions()));
        Ok(())
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        Ok(self.look(|held| held.topics.values().map(|(spec, _)| spec.clone()).collect()))
    }

    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        Ok(self.look(|held| held.topics.get(name).map(|(spec, _)| spec.clone())))
    }

    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.partition(at, |partition| {
            if from < partition.start {
                return Err(LogError::Truncated { at: at.clone(), asked: from, start: partition.start });
            }
            let first = partition.records.partition_point(|stored| stored.offset < from);
            let (mut records, mut bytes): (Vec<StoredRecord>, usize) = (Vec::new(), 0);
            let mut next_offset = partition.end.max(from);
            for stored in &partition.records[first..] {
                bytes += stored.record.size();
                if bytes > max_bytes && !records.is_empty() {
                    next_offset = stored.offset;
                    break;
                }
                records.push(stored.clone());
            }
            Ok(Fetched { records, next_offset, at_end: next_offset >= partition.end })
        })?
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        self.partition(at, |partition| Bounds {
            start: partition.start,
            stable_end: partition.end,
            high_watermark: partition.end,
        })
    }

    fn committed(&self, _: &str, _: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        Ok(None)
    }

    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        let mut first = 0;
        self.change(at, |partition| {
            first = partition.end;
            let mut bytes = 0;
            for record in records {
                bytes += taken(&record);
                partition.records.push(StoredRecord { offset: partition.end, record });
                partition.end += 1;
            }
            bytes
        })?;
        Ok(first)
    }

    fn join(&self, _: &str, _: &str, _: &str) -> Result<Box<dyn Member>, LogError> {
        Err(read_only("they have no groups"))
    }

    fn wait(&self, timeout: Duration) {
        std::thread::sleep(timeout);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use bytes::Bytes;

    fn record(value: &'static str) -> NewRecord {
        NewRecord {
            timestamp_ms: 0,
            key: None,
            value: Some(Bytes::from_static(value.as_bytes())),
            headers: Vec::new(),
        }
    }

    #[test]
    fn offsets_stay_and_every_piece_leads_to_the_next() {
        let shelf = Shelf::new(1 << 20);
        let at = TopicPartition::new("t", 0);
        shelf.create_topic(&TopicSpec::new("t", 1)).unwrap();
        let stored = |offset| StoredRecord { offset, record: record("abcdefgh") };
        shelf.put(&at, vec![stored(5), stored(7), stored(8)]).unwrap();
        shelf.set_bounds(&at, 4, 10).unwrap();
        let (mut from, mut seen) = (4, Vec::new());
        loop {
            let fetched = shelf.fetch(&at, from, 1).unwrap();
            seen.extend(fetched.records.iter().map(|stored| stored.offset));
            from = fetched.next_offset;
            if fetched.at_end {
                break;
            }
        }
        assert_eq!((seen, from), (vec![5, 7, 8], 10));
        assert!(matches!(shelf.fetch(&at, 3, 1), Err(LogError::Truncated { start: 4, .. })));
        assert_eq!(shelf.bounds(&at).unwrap().stable_end, 10);
    }

    #[test]
    fn more_than_the_bound_is_refused_with_the_way_out() {
        let shelf = Shelf::new(1_000);
        let at = TopicPartition::new("t", 0);
        shelf.create_topic(&TopicSpec::new("t", 1)).unwrap();
        let error = (0..20).find_map(|_| shelf.append(&at, vec![record("abcdefgh")]).err()).unwrap();
        assert!(error.to_string().contains("--max-input-mib"), "{error}");
        assert!(shelf.records() < 20);
    }
}
