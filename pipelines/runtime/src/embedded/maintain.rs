//! What keeps an embedded log small and quick: retention, compaction, and many small blocks made into few.
//!
//! One round at a time, beside writers and readers: blocks are only ever deleted from the front, or replaced in one
//! atomic write by blocks with the same offsets.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tidewire_engine::log::{LogError, TopicPartition};

use super::block::BlockHeader;
use super::index::Found;
use super::keys::PartitionId;
use super::rewrite::{Rewrite, damaged_header};
use super::{EmbeddedLog, lock};

/// Small blocks of a partition that make a merge worth while.
pub(super) const MERGE_AT: u64 = 256;
/// Blocks stored in fewer bytes are small.
pub(super) const SMALL_BLOCK_BYTES: u64 = 16 * 1024;
/// Disk space is given back when this much was replaced or deleted, and a third of what the store takes.
const RECLAIM_BYTES: u64 = 64 * 1024 * 1024;
/// Most blocks that one pass of retention deletes from a partition.
const MAX_DELETED_BLOCKS: u64 = 100_000;

/// What a round of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Records that compaction removed.
    pub compacted_records: u64,
    /// Blocks that retention deleted.
    pub deleted_blocks: u64,
    /// Small blocks that were merged into larger ones.
    pub merged_blocks: u64,
    /// Bytes of blocks that were read for it.
    pub read_bytes: u64,
    /// Whether the budget ran out before all partitions were seen. The next round goes on there.
    pub more: bool,
}

/// Where maintenance stands between rounds.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The partition to go on with.
    next: Option<TopicPartition>,
    /// When compaction last looked at a partition, milliseconds.
    pub(super) compaction_seen_ms: BTreeMap<PartitionId, u64>,
    /// Bytes replaced or deleted since disk space was last given back.
    replaced_bytes: u64,
}

impl EmbeddedLog {
    /// One round: retention, compaction where it is worth while, merging of small blocks. `now_ms` is the time by the
    /// log's own clock; the round ends when about `budget_bytes` of blocks were read. Writers and readers go on
    /// meanwhile. An error is the first one met; the other partitions were seen to all the same.
    pub fn maintain(&self, now_ms: u64, budget_bytes: u64) -> Result<Maintained, LogError> {
        let mut rounds = lock(&self.rounds);
        let mut done = Maintained::default();
        let mut first_error = None;
        let partitions = self.index().partitions(None);
        let start = rounds.next.take().map_or(0, |next| partitions.partition_point(|at| *at < next));
        for at in partitions.into_iter().skip(start) {
            if done.read_bytes >= budget_bytes {
                (rounds.next, done.more) = (Some(at), true);
                break;
            }
            // A damaged partition does not keep the others waiting.
            match self.maintain_partition(&at, now_ms, &mut rounds, &mut done) {
                Ok(replaced_bytes) => rounds.replaced_bytes += replaced_bytes,
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if rounds.replaced_bytes >= RECLAIM_BYTES && rounds.replaced_bytes >= self.disk_bytes()? / 3 {
            self.store.reclaim()?;
            rounds.replaced_bytes = 0;
        }
        first_error.map_or(Ok(done), Err)
    }

    fn maintain_partition(
        &self,
        at: &TopicPartition,
        now_ms: u64,
        rounds: &mut Rounds,
        done: &mut Maintained,
    ) -> Result<u64, LogError> {
        let found = self.index().find(at)?;
        Ok(self.retain_partition(at, &found, now_ms, done)?
            + self.compact_if_worth_while(at, &found, now_ms, rounds, done)?
            + self.merge_partition(at, &found, done)?)
    }

    /// Deletes what the topics' retention by age and by bytes does not keep. Returns how many blocks went.
    pub fn apply_retention(&self, now_ms: u64) -> Result<u64, LogError> {
        let mut rounds = lock(&self.rounds);
        let mut done = Maintained::default();
        let partitions = self.index().partitions(None);
        for at in partitions {
            let found = self.index().find(&at)?;
            rounds.replaced_bytes += self.retain_partition(&at, &found, now_ms, &mut done)?;
        }
        Ok(done.deleted_blocks)
    }

    /// Starts a thread that does a round every so often, until the handle is dropped or the log is closed.
    pub fn keep_house(
        self: &Arc<Self>,
        every: Duration,
        budget_bytes: u64,
    ) -> Result<Housekeeping, LogError> {
        Housekeeping::start(Arc::downgrade(self), every, budget_bytes)
    }

    /// Deletes blocks from the front; returns their bytes.
    fn retain_partition(
        &self,
        at: &TopicPartition,
        found: &Found,
        now_ms: u64,
        done: &mut Maintained,
    ) -> Result<u64, LogError> {
        let (retention_ms, retention_bytes) = (found.spec.retention_ms, found.spec.retention_bytes);
        if retention_ms.is_none() && retention_bytes.is_none() {
            return Ok(0);
        }
        let mut stored_bytes = match retention_bytes {
            Some(_) => self.stored_bytes(at, found)?,
            None => 0,
        };
        let reading = |offset: u64| format!("applying retention to {at} at offset {offset}");
        let view = self.store.snapshot();
        let mut rewrite = Rewrite::new(self, at, found.id);
        let mut deleted_blocks = 0;
        for item in view.blocks(found.id, found.entry.start, found.entry.next, reading) {
            let (base, value) = item?;
            let header = BlockHeader::read(&value).map_err(|e| damaged_header(reading(base), &e))?;
            let size = value.len() as u64;
            let too_old = retention_ms.is_some_and(|ms| header.newest_append_ms.saturating_add(ms) <= now_ms);
            let too_much = retention_bytes.is_some_and(|bound| stored_bytes.saturating_sub(size) >= bound);
            if !(too_old || too_much) || deleted_blocks >= MAX_DELETED_BLOCKS {
                break;
            }
            stored_bytes = stored_bytes.saturating_sub(size);
            done.read_bytes += size;
            deleted_blocks += 1;
            rewrite.delete_front(base, base.saturating_add(u64::from(header.span)), size)?;
        }
        done.deleted_blocks += deleted_blocks;
        rewrite.finish(|_| ())
    }

    /// Bytes of a partition's blocks in the store. Counted once, then kept up to date.
    fn stored_bytes(&self, at: &TopicPartition, found: &Found) -> Result<u64, LogError> {
        if let Some(bytes) = found.entry.upkeep.stored_bytes {
            return Ok(bytes);
        }
        let count = |from: u64, end: u64| -> Result<u64, LogError> {
            let view = self.store.snapshot();
            let reading = |offset: u64| format!("counting the bytes of {at} at offset {offset}");
            view.block_keys(found.id, from, end, reading).map(|key| Ok(key?.stored_bytes)).sum()
        };
        let most = count(found.entry.start, found.entry.next)?;
        // What was written meanwhile is counted while nobody writes.
        let _writer = lock(&self.writer);
        let next = self.index().find(at)?.entry.next;
        let bytes = most + count(found.entry.next, next)?;
        if let Some(entry) = self.index().entry(found.id) {
            entry.upkeep.stored_bytes = Some(bytes);
        }
        Ok(bytes)
    }
}

/// A thread that maintains a log. It ends when this is dropped.
#[derive(Debug)]
pub struct Housekeeping {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeping {
    fn start(log: Weak<EmbeddedLog>, every: Duration, budget_bytes: u64) -> Result<Self, LogError> {
        let (stop, stopped) = mpsc::channel();
        let run = move || {
            let mut pause = every;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let Some(log) = log.upgrade() else { return };
                pause = match log.maintain(log.now_ms(), budget_bytes) {
                    Ok(done) if done.more => every / 10,
                    Ok(_) => every,
                    Err(error) => {
                        tracing::error!(%error, dir = %log.dir().display(), "maintenance of the log failed");
                        every.saturating_mul(10)
                    }
                };
            }
        };
        let thread = std::thread::Builder::new().name("log-upkeep".to_owned()).spawn(run);
        let thread = thread.map_err(|e| LogError::Store {
            at: "starting the maintenance of the log".to_owned(),
            error: e.to_string(),
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.stop = None;
        let Some(thread) = self.thread.take() else { return };
        // The thread itself may hold the log's last handle, and with it this one's owner.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}
