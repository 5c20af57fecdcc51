//! What a run reads of its external inputs: offsets by partition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::log::TopicPartition;

/// Offsets of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The first.
    pub from: u64,
    /// The one after the last.
    pub until: u64,
}

/// What is read of each external input partition. Of one that is not named, all that is there when it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<TopicPartition, OffsetRange>);

impl Ranges {
    /// What is read of a partition.
    pub fn of(&self, at: &TopicPartition) -> OffsetRange {
        self.0.get(at).copied().unwrap_or(OffsetRange { from: 0, until: u64::MAX })
    }

    /// Reads this much of a partition.
    pub fn set(&mut self, at: TopicPartition, range: OffsetRange) {
        self.0.insert(at, range);
    }

    /// All partitions that are named.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, OffsetRange)> {
        self.0.iter().map(|(at, range)| (at, *range))
    }
}

impl FromIterator<(TopicPartition, OffsetRange)> for Ranges {
    fn from_iter<T: IntoIterator<Item = (TopicPartition, OffsetRange)>>(ranges: T) -> Self {
        Self(ranges.into_iter().collect())
    }
}
