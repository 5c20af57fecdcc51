//! Reads one side of a comparison: one partition, or several of a topic merged by time.

use anyhow::Context as _;
use tidewire_engine::log::{Log, StoredRecord, TopicPartition};
use tidewire_engine::reader::PartitionReader;

/// Records of some partitions, in the order of their timestamps as far as each partition keeps it.
pub struct Stream<'a> {
    readers: Vec<PartitionReader<'a>>,
    /// Greatest timestamp given out.
    reached_ms: i64,
}

impl<'a> Stream<'a> {
    /// Reads these partitions; a topic that is not there is empty.
    pub fn new(log: &'a dyn Log, parts: &[TopicPartition]) -> anyhow::Result<Self> {
        let mut readers = Vec::with_capacity(parts.len());
        for at in parts {
            if log.topic(&at.topic)?.is_some_and(|spec| at.partition < spec.partitions) {
                readers.push(PartitionReader::from_start(log, at.clone())?);
            }
        }
        Ok(Self { readers, reached_ms: i64::MIN })
    }

    /// Reads with these readers.
    pub fn of(readers: Vec<PartitionReader<'a>>) -> Self {
        Self { readers, reached_ms: i64::MIN }
    }

    /// The next record, which stays the next.
    pub fn peek(&mut self) -> anyhow::Result<Option<&StoredRecord>> {
        match self.least()? {
            Some(place) => Ok(self.readers[place].peek_record()?),
            None => Ok(None),
        }
    }

    /// The next record and where it lies.
    pub fn next(&mut self) -> anyhow::Result<Option<(TopicPartition, StoredRecord)>> {
        let Some(place) = self.least()? else { return Ok(None) };
        let at = self.readers[place].at().clone();
        let next = self.readers[place].next_record().with_context(|| format!("reading {at}"))?;
        Ok(next.map(|stored| {
            self.reached_ms = self.reached_ms.max(stored.record.timestamp_ms);
            (at, stored)
        }))
    }

    /// How far in time the next record is, counted so that it never goes back; `None` at the end.
    pub fn head_ms(&mut self) -> anyhow::Result<Option<i64>> {
        let reached_ms = self.reached_ms;
        Ok(self.peek()?.map(|stored| stored.record.timestamp_ms.max(reached_ms)))
    }

    fn least(&mut self) -> anyhow::Result<Option<usize>> {
        if let [only] = self.readers.as_mut_slice() {
            return Ok(only.peek_record()?.map(|_| 0));
        }
        let mut least: Option<(i64, usize)> = None;
        for (place, reader) in self.readers.iter_mut().enumerate() {
            if let Some(stored) = reader.peek_record()? {
                let head = (stored.record.timestamp_ms, place);
                least = Some(least.map_or(head, |least| least.min(head)));
            }
        }
        Ok(least.map(|(_, place)| place))
    }
}

/// One record by its place.
pub fn read_one(log: &dyn Log, at: &TopicPartition, offset: u64) -> anyhow::Result<StoredRecord> {
    let mut reader = PartitionReader::new(log, at.clone(), offset, offset.saturating_add(1));
    let found = reader.next_record().with_context(|| format!("reading {at}, offset {offset}"))?;
    found.with_context(|| format!("{at}, offset {offset}: the record is gone"))
}
