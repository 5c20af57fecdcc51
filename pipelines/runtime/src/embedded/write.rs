//! Appends and transactions: records become blocks outside of any lock, then get their offsets and go to the store in
//! one write, and only then can be seen.

use smol_str::SmolStr;
use tidewire_engine::group::MemberId;
use tidewire_engine::log::{CommitError, CommittedOffset, LogError, NewRecord, TopicPartition, Transaction};
use tidewire_engine::log_limits;

use super::block::{BlockBuilder, Built};
use super::index::MAX_POSITIONS;
use super::keys::{self, PartitionId};
use super::maintain::SMALL_BLOCK_BYTES;
use super::{EmbeddedLog, lock};

/// Blocks for one partition. Their offsets count from 0 until they are written.
struct Pending {
    id: PartitionId,
    blocks: Vec<Built>,
}

impl EmbeddedLog {
    pub(super) fn write_append(&self, at: &TopicPartition, records: &[NewRecord]) -> Result<u64, LogError> {
        let found = self.index().find(at)?;
        log_limits::check_records(at, found.spec.compacted, records)?;
        let pending = self.build(found.id, records);
        let firsts = {
            let _writer = lock(&self.writer);
            self.write(vec![pending], &SmolStr::default(), &[], || format!("appending to {at}"))?
        };
        self.signal.notify();
        Ok(firsts.first().copied().unwrap_or_default())
    }

    pub(super) fn write_transaction(
        &self,
        group: &SmolStr,
        member: &MemberId,
        transaction: &Transaction,
    ) -> Result<(), CommitError> {
        // Once early, to spare a zombie the work, and once when nobody else can change the group.
        self.check_member(group, member, transaction)?;
        let pending = self.prepare(transaction)?;
        {
            let _writer = lock(&self.writer);
            self.check_member(group, member, transaction)?;
            let positions = self.positions(transaction)?;
            let doing = || format!("committing a transaction of {} in group {group}", member.name);
            // The store may have written it before it failed: only the log can tell.
            self.write(pending, group, &positions, doing).map_err(|e| CommitError::Unknown(e.to_string()))?;
        }
        self.signal.notify();
        Ok(())
    }

    fn prepare(&self, transaction: &Transaction) -> Result<Vec<Pending>, LogError> {
        let found = {
            let index = self.index();
            log_limits::check_transaction(transaction, |name| index.spec(name).map(|spec| &**spec))?;
            let appends = transaction.appends.iter();
            appends.map(|(at, _)| index.find(at)).collect::<Result<Vec<_>, _>>()?
        };
        let appends = transaction.appends.iter().zip(found);
        Ok(appends.map(|((_, records), found)| self.build(found.id, records)).collect())
    }

    fn build(&self, id: PartitionId, records: &[NewRecord]) -> Pending {
        let now_ms = self.now_ms();
        let mut blocks = Vec::new();
        let mut builder = BlockBuilder::new(0);
        for (offset, record) in (0..).zip(records) {
            if !builder.has_room(record.size(), offset) {
                blocks.push(std::mem::replace(&mut builder, BlockBuilder::new(offset)).build());
            }
            builder.push(offset, now_ms, record);
        }
        if !builder.is_empty() {
            blocks.push(builder.build());
        }
        Pending { id, blocks }
    }

    fn positions(&self, transaction: &Transaction) -> Result<Vec<(PartitionId, CommittedOffset)>, LogError> {
        let index = self.index();
        if index.position_count() + transaction.offsets.len() > MAX_POSITIONS {
            return Err(LogError::Invalid(format!(
                "the log holds {MAX_POSITIONS} positions of groups at most"
            )));
        }
        transaction.offsets.iter().map(|(at, position)| Ok((index.find(at)?.id, position.clone()))).collect()
    }

    /// Writes and publishes; the first offset of each append. The caller holds the writer lock.
    fn write(
        &self,
        pending: Vec<Pending>,
        group: &SmolStr,
        positions: &[(PartitionId, CommittedOffset)],
        doing: impl Fn() -> String,
    ) -> Result<Vec<u64>, LogError> {
        let mut batch = self.store.batch(self.options.durability);
        let mut firsts = Vec::with_capacity(pending.len());
        let mut written = Vec::with_capacity(pending.len());
        for Pending { id, blocks } in pending {
            let first = self.index().entry(id).map_or(0, |entry| entry.next);
            firsts.push(first);
            for built in blocks {
                let block = built.block.moved_by(first);
                let stored_bytes = built.value.len() as u64;
                batch.put(&keys::block(id, block.base), built.value);
                written.push((id, block, stored_bytes));
            }
        }
        for (id, position) in positions {
            let value = keys::encode(position).map_err(|error| LogError::Store { at: doing(), error })?;
            batch.put(&keys::position(*id, group), value);
        }
        if batch.len() == 0 {
            return Ok(firsts);
        }
        batch.commit(&doing)?;
        let ticket = self.cache.ticket();
        {
            let mut index = self.index();
            for (id, block, stored_bytes) in &written {
                if let Some(entry) = index.entry(*id) {
                    entry.next = block.end;
                    entry.upkeep.small_blocks += u64::from(*stored_bytes < SMALL_BLOCK_BYTES);
                    entry.upkeep.stored_bytes = entry.upkeep.stored_bytes.map(|bytes| bytes + stored_bytes);
                }
            }
            for (id, position) in positions {
                index.set_position(group, *id, position.clone());
            }
        }
        for (id, block, _) in written {
            self.cache.put(id, block.into(), ticket);
        }
        Ok(firsts)
    }
}
