//! Reads a partition record by record.

use std::collections::VecDeque;

use crate::log::{Log, LogError, StoredRecord, TopicPartition};

/// Bytes asked of the log at once.
const FETCH_BYTES: usize = 1 << 20;

/// The records of a partition, one after another, up to where it ended at first.
pub struct PartitionReader<'a> {
    log: &'a dyn Log,
    at: TopicPartition,
    from: u64,
    until: u64,
    ready: VecDeque<StoredRecord>,
}

impl<'a> PartitionReader<'a> {
    /// All that is there now.
    pub fn from_start(log: &'a dyn Log, at: TopicPartition) -> Result<Self, LogError> {
        let bounds = log.bounds(&at)?;
        Ok(Self { log, at, from: bounds.start, until: bounds.stable_end, ready: VecDeque::new() })
    }

    /// The next record.
    pub fn next_record(&mut self) -> Result<Option<StoredRecord>, LogError> {
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
        Ok(self.ready.pop_front())
    }

    /// Takes up what was written since.
    pub fn extend(&mut self) -> Result<(), LogError> {
        let bounds = self.log.bounds(&self.at)?;
        // Retention may have overtaken it.
        self.from = self.from.max(bounds.start);
        self.until = self.until.max(bounds.stable_end);
        Ok(())
    }
}
