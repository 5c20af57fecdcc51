//! The places that outputs take in the log, given out ahead of the commit.

use std::collections::BTreeMap;

use super::SyncTask;
use crate::log::{Log, LogError, StoredRecord, TopicPartition};
use crate::outputs::Output;

/// Where the next record of each partition goes: a run that is the only writer knows the offsets beforehand.
#[derive(Debug, Default)]
pub struct Offsets {
    next: BTreeMap<TopicPartition, u64>,
}

impl Offsets {
    /// The offset of the next record of `at`, and one further for the one after it.
    pub fn assign(&mut self, log: &dyn Log, at: &TopicPartition) -> Result<u64, LogError> {
        if let Some(next) = self.next.get_mut(at) {
            *next += 1;
            return Ok(*next - 1);
        }
        let end = log.bounds(at)?.high_watermark;
        self.next.insert(at.clone(), end + 1);
        Ok(end)
    }

    /// Counts what a commit took in the partitions it wrote to, besides the records.
    pub fn committed<'a>(&mut self, log: &dyn Log, written: impl Iterator<Item = &'a TopicPartition>) {
        for at in written {
            if let Some(next) = self.next.get_mut(at) {
                *next += log.offsets_of_commit();
            }
        }
    }

    /// Partitions written, with the offset after the last record.
    pub fn ends(&self) -> impl Iterator<Item = (&TopicPartition, u64)> {
        self.next.iter().map(|(at, next)| (at, *next))
    }
}

/// An output with the place it takes in the log.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The partition.
    pub at: TopicPartition,
    /// The record with its offset.
    pub stored: StoredRecord,
}

/// Gives an output its offset.
pub fn place_output(log: &dyn Log, offsets: &mut Offsets, output: Output) -> Result<Placed, LogError> {
    let offset = offsets.assign(log, &output.at)?;
    Ok(Placed { at: output.at, stored: StoredRecord { offset, record: output.record } })
}

/// Hands a record to every task that reads its partition.
pub fn deliver(tasks: &mut [SyncTask], placed: &Placed) {
    for task in tasks {
        if let Some(source) = task.sources().iter().position(|source| source.at == placed.at) {
            task.offer(source, vec![placed.stored.clone()]);
        }
    }
}
