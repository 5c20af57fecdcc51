//! The state at a cut: the records of the changelog that make it up, and its marker; and what held in a compacted topic.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidewire_engine::cut::{is_marker_key, owner_of};
use tidewire_engine::log::{Log, LogError, StoredRecord, TopicPartition};
use tidewire_engine::only::OnlyKeys;
use tidewire_engine::reader::PartitionReader;

/// Hands over the records of `at` that make up the cut whose marker is at `marker`, in their order; with `keys`, those of
/// other keys are left out.
pub fn cut_records(
    log: &dyn Log,
    at: &TopicPartition,
    marker: u64,
    keys: &OnlyKeys,
    mut take: impl FnMut(StoredRecord) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let wanted = last_of_each_key(log, at, marker)?;
    let mut reader = PartitionReader::from_start(log, at.clone())?;
    while let Some(stored) = reader.next_record()?.filter(|stored| stored.offset <= marker) {
        let Some(key) = &stored.record.key else { continue };
        let is_marker = is_marker_key(key);
        // What belongs to the task as a whole comes from broadcast and control records, which are whole as well.
        let is_wanted = |owner: Option<tidewire_contract::Key>| {
            keys.is_empty() || owner.is_none_or(|key| keys.wants(&key))
        };
        let keep = match is_marker {
            true => stored.offset == marker,
            false => wanted.contains(&stored.offset) && owner_of(key).is_some_and(is_wanted),
        };
        if keep {
            take(stored)?;
        }
    }
    Ok(())
}

/// Offsets of the last record of each key before `until`, without those that deleted their key: what held then.
pub fn last_of_each_key(log: &dyn Log, at: &TopicPartition, until: u64) -> Result<BTreeSet<u64>, LogError> {
    let mut last: BTreeMap<Bytes, u64> = BTreeMap::new();
    let mut reader = PartitionReader::from_start(log, at.clone())?;
    while let Some(stored) = reader.next_record()?.filter(|stored| stored.offset < until) {
        let Some(key) = stored.record.key else { continue };
        match stored.record.value {
            Some(_) => last.insert(key, stored.offset),
            None => last.remove(&key),
        };
    }
    Ok(last.into_values().collect())
}
