//! Replaces blocks in the store, in steps that are each atomic, while others read and append.

use tidewire_engine::log::{LogError, TopicPartition};

use super::block::Built;
use super::index::PartitionEntry;
use super::keys::{self, PartitionId};
use super::store::Batch;
use super::{Durability, EmbeddedLog};

/// Most bytes of one step, roughly.
const STEP_BYTES: usize = 4 * 1024 * 1024;
/// Most changes of one step, roughly.
const STEP_CHANGES: usize = 4096;

/// Changes to one partition's blocks. Nothing is lost when it ends early.
pub(super) struct Rewrite<'a> {
    log: &'a EmbeddedLog,
    at: &'a TopicPartition,
    id: PartitionId,
    batch: Batch<'a>,
    batch_bytes: usize,
    /// All changes lie below this offset.
    end: u64,
    removed_bytes: u64,
    added_bytes: u64,
    all_removed_bytes: u64,
    new_start: Option<u64>,
}

impl<'a> Rewrite<'a> {
    pub(super) fn new(log: &'a EmbeddedLog, at: &'a TopicPartition, id: PartitionId) -> Self {
        Self {
            log,
            at,
            id,
            // The next commit that waits for the disk takes this along: it changes nothing that was promised.
            batch: log.store.batch(Durability::Buffered),
            batch_bytes: 0,
            end: 0,
            removed_bytes: 0,
            added_bytes: 0,
            all_removed_bytes: 0,
            new_start: None,
        }
    }

    /// Takes a block out of `old` and puts those of `new` in its place, in one step with what came before.
    /// `old` is bases and stored bytes; the new blocks hold offsets of the old ones only.
    pub(super) fn replace(&mut self, old: &[(u64, u64)], new: Vec<Built>) -> Result<(), LogError> {
        let kept = |base: u64| new.iter().any(|built| built.block.base == base);
        for &(base, stored_bytes) in old {
            if !kept(base) {
                self.batch.remove(&keys::block(self.id, base));
            }
            self.removed_bytes += stored_bytes;
            self.end = self.end.max(base + 1);
        }
        for built in new {
            self.batch_bytes += built.value.len();
            self.added_bytes += built.value.len() as u64;
            self.batch.put(&keys::block(self.id, built.block.base), built.value);
        }
        self.step_if_large()
    }

    /// Deletes the first block, so that the partition begins at `end`.
    pub(super) fn delete_front(&mut self, base: u64, end: u64, stored_bytes: u64) -> Result<(), LogError> {
        self.batch.remove(&keys::block(self.id, base));
        self.removed_bytes += stored_bytes;
        self.end = self.end.max(end);
        self.new_start = Some(end);
        self.step_if_large()
    }

    /// Writes what is left, with the partition's row as `change` leaves it. Returns the bytes that were replaced.
    pub(super) fn finish(mut self, change: impl FnOnce(&mut PartitionEntry)) -> Result<u64, LogError> {
        self.step(change)?;
        Ok(self.all_removed_bytes)
    }

    fn step_if_large(&mut self) -> Result<(), LogError> {
        match self.batch_bytes >= STEP_BYTES || self.batch.len() >= STEP_CHANGES {
            true => self.step(|_| ()),
            false => Ok(()),
        }
    }

    fn step(&mut self, change: impl FnOnce(&mut PartitionEntry)) -> Result<(), LogError> {
        let doing = || format!("rewriting blocks of {} below offset {}", self.at, self.end);
        let (before, row) = {
            let mut index = self.log.index();
            let entry = index.entry(self.id).ok_or_else(|| LogError::UnknownTopic(self.at.topic.clone()))?;
            let before = entry.row();
            // Readers see the new start before they can miss a block.
            if let Some(start) = self.new_start {
                entry.start = entry.start.max(start);
                entry.upkeep.merged_to = entry.upkeep.merged_to.max(start);
            }
            change(entry);
            let (removed, added) = (self.removed_bytes, self.added_bytes);
            let moved = |bytes: u64| (bytes + added).saturating_sub(removed);
            entry.upkeep.stored_bytes = entry.upkeep.stored_bytes.map(moved);
            (before, entry.row())
        };
        if self.batch.len() == 0 && before == row {
            return Ok(());
        }
        let mut batch = std::mem::replace(&mut self.batch, self.log.store.batch(Durability::Buffered));
        batch.put(
            &keys::state(self.id),
            keys::encode(&row).map_err(|error| LogError::Store { at: doing(), error })?,
        );
        batch.replace(doing)?;
        self.log.cache.rewritten(self.id, self.end);
        self.all_removed_bytes += self.removed_bytes;
        (self.batch_bytes, self.removed_bytes, self.added_bytes) = (0, 0, 0);
        Ok(())
    }
}

/// A block whose header makes no sense.
pub(super) fn damaged_header(at: String, error: &str) -> LogError {
    LogError::Store {
        at,
        error: format!("the block there can not be read: {error}; restore the log's folder from a copy"),
    }
}
