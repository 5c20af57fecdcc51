//! Reads of committed records.

use std::sync::Arc;

use tidewire_engine::log::{Bounds, Fetched, LogError, StoredRecord, TopicPartition};

use super::EmbeddedLog;
use super::block::Block;
use super::keys::PartitionId;
use super::store::decode_block;

/// Most bytes of one read, whatever the caller asks.
const MAX_FETCH_BYTES: usize = 64 * 1024 * 1024;

/// Gathers records until there are enough.
struct Gathering {
    records: Vec<StoredRecord>,
    bytes: usize,
    max_bytes: usize,
    /// Everything below is taken or is not there.
    next_offset: u64,
    end: u64,
    full: bool,
}

impl EmbeddedLog {
    pub(super) fn read(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        let (id, bounds) = self.readable(at, from)?;
        let mut gathering = Gathering {
            records: Vec::new(),
            bytes: 0,
            max_bytes: max_bytes.min(MAX_FETCH_BYTES),
            next_offset: from,
            end: bounds.stable_end,
            full: false,
        };
        while gathering.wants_more() {
            match self.cache.find(id, gathering.next_offset) {
                Some(block) => gathering.take(&block),
                None => {
                    self.read_store(at, id, &mut gathering)?;
                    // What retention deleted while we read must not look like a gap.
                    self.readable(at, from)?;
                    break;
                }
            }
        }
        let at_end = gathering.next_offset == bounds.stable_end;
        Ok(Fetched { records: gathering.records, next_offset: gathering.next_offset, at_end })
    }

    /// Refuses an offset outside of what is kept or written.
    fn readable(&self, at: &TopicPartition, from: u64) -> Result<(PartitionId, Bounds), LogError> {
        let found = self.index().find(at)?;
        let bounds = found.entry.bounds();
        match from {
            _ if from < bounds.start => {
                Err(LogError::Truncated { at: at.clone(), asked: from, start: bounds.start })
            }
            _ if from > bounds.high_watermark => {
                Err(LogError::BeyondEnd { at: at.clone(), asked: from, end: bounds.high_watermark })
            }
            _ => Ok((found.id, bounds)),
        }
    }

    /// Goes on in the store, block by block, to the end of what is wanted.
    fn read_store(
        &self,
        at: &TopicPartition,
        id: PartitionId,
        gathering: &mut Gathering,
    ) -> Result<(), LogError> {
        let reading = |offset: u64| format!("reading {at} at offset {offset}");
        let ticket = self.cache.ticket();
        let view = self.store.snapshot();
        let decode = |base: u64, value: &[u8]| -> Result<Arc<Block>, LogError> {
            let block = decode_block(base, value, reading)?;
            self.cache.put(id, Arc::clone(&block), ticket);
            Ok(block)
        };
        let from = gathering.next_offset;
        let mut reached = from;
        // The first offset mostly lies in the middle of a block that begins before it.
        if let Some((base, value)) = view.block_at_or_below(id, from, reading)? {
            gathering.take(&*decode(base, &value)?);
            reached = from.max(base + 1);
        }
        if !gathering.wants_more() {
            return Ok(());
        }
        for item in view.blocks(id, reached, gathering.end, reading) {
            let (base, value) = item?;
            gathering.take(&*decode(base, &value)?);
            if !gathering.wants_more() {
                return Ok(());
            }
        }
        gathering.next_offset = gathering.end;
        Ok(())
    }
}

impl Gathering {
    fn wants_more(&self) -> bool {
        !self.full && self.next_offset < self.end
    }

    fn take(&mut self, block: &Block) {
        for logged in block.records_from(self.next_offset) {
            let offset = logged.stored.offset;
            self.bytes += logged.stored.record.size();
            if offset >= self.end || (self.bytes > self.max_bytes && !self.records.is_empty()) {
                self.full = true;
                return;
            }
            self.next_offset = offset + 1;
            self.records.push(logged.stored);
        }
        self.next_offset = self.next_offset.max(block.end.min(self.end));
    }
}
