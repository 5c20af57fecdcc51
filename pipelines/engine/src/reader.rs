//! Reads a partition record by record.

use std::collections::VecDeque;

use crate::log::{Log, LogError, StoredRecord, TopicPartition};

/// Bytes asked of the log at once.
const FETCH_BYTES: usize = 1 << 20;

/// The records of a partition, one after another, up to an end that can be moved on.
pub struct PartitionReader<'a> {
    log: &'a dyn Log,
    at: TopicPartition,
    from: u64,
    until: u64,
    ready: VecDeque<StoredRecord>,
}

impl<'a> PartitionReader<'a> {
    /// From one offset up to, and without, another.
    pub fn new(log: &'a dyn Log, at: TopicPartition, from: u64, until: u64) -> Self {
        Self { log, at, from, until, ready: VecDeque::new() }
    }

    /// All that is there now.
    pub fn from_start(log: &'a dyn Log, at: TopicPartition) -> Result<Self, LogError> {
        let bounds = log.bounds(&at)?;
        Ok(Self::new(log, at, bounds.start, bounds.stable_end))
    }

    /// The partition.
    pub fn at(&self) -> &TopicPartition {
        &self.at
    }

    /// The next record, which stays the next.
    pub fn peek_record(&mut self) -> Result<Option<&StoredRecord>, LogError> {
        while self.ready.is_empty() && self.from < self.until {
            let fetched = self.log.read(&self.at, self.from, FETCH_BYTES)?;
            // Not past the end that it knows: what lies there is read once that is moved.
            self.from = if fetched.at_end {
                self.until
            } else {
                fetched.next_offset.max(self.from + 1).min(self.until)
            };
            let until = self.until;
            self.ready.extend(fetched.records.into_iter().filter(|stored| stored.offset < until));
        }
        Ok(self.ready.front())
    }

    /// The next record.
    pub fn next_record(&mut self) -> Result<Option<StoredRecord>, LogError> {
        self.peek_record()?;
        Ok(self.ready.pop_front())
    }

    /// Takes up what was written since; true when there is more to read.
    pub fn extend(&mut self) -> Result<bool, LogError> {
        let bounds = self.log.bounds(&self.at)?;
        // Retention may have overtaken it.
        self.from = self.from.max(bounds.start);
        self.until = self.until.max(bounds.stable_end);
        Ok(!self.ready.is_empty() || self.from < self.until)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::log::{NewRecord, TopicSpec};
    use crate::memory::MemoryLog;

    #[test]
    fn what_comes_while_it_reads_is_read_once_it_goes_on() {
        let log = MemoryLog::new();
        log.create_topic(&TopicSpec::new("t", 1)).unwrap();
        let at = TopicPartition::new("t", 0);
        let write = |count: usize| log.append(&at, vec![NewRecord::default(); count]).unwrap();
        let offsets = |reader: &mut PartitionReader<'_>| {
            let mut offsets = Vec::new();
            while let Some(stored) = reader.next_record().unwrap() {
                offsets.push(stored.offset);
            }
            offsets
        };
        write(3);
        let mut reader = PartitionReader::from_start(&log, at.clone()).unwrap();
        // They come with the same read as the first three.
        write(2);
        assert_eq!(offsets(&mut reader), [0, 1, 2]);
        assert!(reader.extend().unwrap());
        assert_eq!(offsets(&mut reader), [3, 4]);
        assert!(!reader.extend().unwrap());
        write(1);
        assert!(reader.extend().unwrap());
        assert_eq!(reader.peek_record().unwrap().map(|stored| stored.offset), Some(5));
        assert_eq!(offsets(&mut reader), [5]);
    }
}
