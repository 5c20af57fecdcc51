//! What is known of all topics and positions, in memory. The store is the truth; this is read from it at the opening
//! and moves with every commit, so that a transaction becomes visible in one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_engine::log::{Bounds, CommittedOffset, LogError, TopicPartition, TopicSpec};
use tidewire_engine::log_limits::check_partition;

use super::keys::{PartitionId, PartitionRow, TopicRow};
use super::maintain::MERGE_AT;

/// Most positions of groups in one log, all groups and partitions together.
pub const MAX_POSITIONS: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct TopicEntry {
    id: u32,
    pub(super) spec: Arc<TopicSpec>,
    partitions: Vec<PartitionEntry>,
}

/// One partition as readers and writers see it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PartitionEntry {
    /// First offset kept.
    pub(super) start: u64,
    /// The next offset to be written; all below it is committed.
    pub(super) next: u64,
    /// Compaction has been below this offset.
    pub(super) compacted_to: u64,
    /// What maintenance remembers until the next start.
    pub(super) upkeep: Upkeep,
}

/// What maintenance knows of a partition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Upkeep {
    /// Below this offset small blocks were merged.
    pub(super) merged_to: u64,
    /// Small blocks written since then.
    pub(super) small_blocks: u64,
    /// Bytes of all blocks in the store, once they were counted. Lost at a restart.
    pub(super) stored_bytes: Option<u64>,
}

/// A partition that was looked up.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: PartitionId,
    pub(super) spec: Arc<TopicSpec>,
    pub(super) entry: PartitionEntry,
}

impl PartitionEntry {
    /// As it is stored.
    pub(super) fn row(&self) -> PartitionRow {
        PartitionRow {
            start: self.start,
            next: self.next,
            compacted_to: self.compacted_to,
            merged_to: self.upkeep.merged_to,
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { start: self.start, stable_end: self.next, high_watermark: self.next }
    }
}

/// All topics and positions.
#[derive(Debug, Default)]
pub(super) struct Index {
    topics: BTreeMap<SmolStr, TopicEntry>,
    names: BTreeMap<u32, SmolStr>,
    positions: BTreeMap<(SmolStr, PartitionId), CommittedOffset>,
}

impl Index {
    pub(super) fn add_topic(&mut self, row: TopicRow) {
        let partitions = vec![PartitionEntry::default(); row.spec.partitions as usize];
        let name = row.spec.name.clone();
        self.names.insert(row.id, name.clone());
        self.topics.insert(name, TopicEntry { id: row.id, spec: Arc::new(row.spec), partitions });
    }

    pub(super) fn next_topic_id(&self) -> u32 {
        self.names.last_key_value().map_or(0, |(id, _)| id + 1)
    }

    pub(super) fn topic_count(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn specs(&self) -> impl Iterator<Item = &Arc<TopicSpec>> {
        self.topics.values().map(|topic| &topic.spec)
    }

    pub(super) fn spec(&self, name: &str) -> Option<&Arc<TopicSpec>> {
        self.topics.get(name).map(|topic| &topic.spec)
    }

    /// Looks a partition up; refuses one that is not there.
    pub(super) fn find(&self, at: &TopicPartition) -> Result<Found, LogError> {
        let topic = self.topics.get(&at.topic);
        let spec = check_partition(at, topic.map(|topic| &*topic.spec))?;
        let topic = topic.ok_or_else(|| LogError::UnknownTopic(spec.name.clone()))?;
        Ok(Found {
            id: PartitionId { topic: topic.id, partition: at.partition },
            spec: Arc::clone(&topic.spec),
            entry: topic.partitions.get(at.partition as usize).copied().unwrap_or_default(),
        })
    }

    /// All partitions of one topic, or of all.
    pub(super) fn partitions(&self, of: Option<&str>) -> Vec<TopicPartition> {
        let topics = self.topics.iter().filter(|(name, _)| of.is_none_or(|of| *name == of));
        topics
            .flat_map(|(name, topic)| {
                (0..topic.spec.partitions).map(|p| TopicPartition::new(name.clone(), p))
            })
            .collect()
    }

    /// The entry of a partition, to be changed.
    pub(super) fn entry(&mut self, id: PartitionId) -> Option<&mut PartitionEntry> {
        let name = self.names.get(&id.topic)?;
        self.topics.get_mut(name)?.partitions.get_mut(id.partition as usize)
    }

    /// Takes over what the store says of a partition.
    pub(super) fn restore(&mut self, id: PartitionId, row: PartitionRow, end: u64) {
        if let Some(entry) = self.entry(id) {
            entry.start = row.start;
            entry.next = row.next.max(end);
            entry.compacted_to = row.compacted_to;
            // How many small blocks there are is not known: the next round is to look.
            entry.upkeep = Upkeep { merged_to: row.merged_to, small_blocks: MERGE_AT, stored_bytes: None };
        }
    }

    pub(super) fn position(&self, group: &str, id: PartitionId) -> Option<&CommittedOffset> {
        self.positions.get(&(SmolStr::new(group), id))
    }

    pub(super) fn set_position(&mut self, group: &SmolStr, id: PartitionId, position: CommittedOffset) {
        self.positions.insert((group.clone(), id), position);
    }

    pub(super) fn position_count(&self) -> usize {
        self.positions.len()
    }
}
