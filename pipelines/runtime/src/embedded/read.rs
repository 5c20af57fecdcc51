//! Reads of committed records.

use tidewire_engine::log::{Fetched, LogError, StoredRecord, TopicPartition};

use super::EmbeddedLog;
use super::block::Block;
use super::index::Found;
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
        let found = self.readable(at, from)?;
        let mut gathering = Gathering {
            records: Vec::new(),
            bytes: 0,
            max_bytes: max_bytes.min(MAX_FETCH_BYTES),
            next_offset: from,
            end: found.entry.next,
            full: false,
        };
        loop {
            while gathering.wants_more() {
                match self.cache.find(found.id, gathering.next_offset) {
                    Some(block) => gathering.take(&block),
                    None => {
                        let read = self.read_store(at, &found, &mut gathering);
                        // What retention deleted while we read must not look like a gap, nor like a loss.
                        self.readable(at, from)?;
                        read?;
                    }
                }
            }
            // The end is the end only if it still is: a compaction meanwhile may have removed a record that we did not
            // see, for the sake of one that was appended since.
            let end = self.readable(at, from)?.entry.next;
            if gathering.full || end == gathering.end {
                break;
            }
            gathering.end = end;
        }
        let at_end = gathering.next_offset == gathering.end;
        Ok(Fetched { records: gathering.records, next_offset: gathering.next_offset, at_end })
    }

    /// Refuses an offset outside of what is kept or written.
    fn readable(&self, at: &TopicPartition, from: u64) -> Result<Found, LogError> {
        let found = self.index().find(at)?;
        let bounds = found.entry.bounds();
        match from {
            _ if from < bounds.start => {
                Err(LogError::Truncated { at: at.clone(), asked: from, start: bounds.start })
            }
            _ if from > bounds.high_watermark => {
                Err(LogError::BeyondEnd { at: at.clone(), asked: from, end: bounds.high_watermark })
            }
            _ => Ok(found),
        }
    }

    /// Goes on in the store, block by block, to the end of what is wanted.
    fn read_store(
        &self,
        at: &TopicPartition,
        found: &Found,
        gathering: &mut Gathering,
    ) -> Result<(), LogError> {
        let reading = |offset: u64| format!("reading {at} at offset {offset}");
        let ticket = self.cache.ticket();
        let view = self.store.snapshot();
        let from = gathering.next_offset;
        // The first offset mostly lies in the middle of a block that begins before it.
        let first = view.block_at_or_below(found.id, from, reading).transpose();
        let reached = match &first {
            Some(Ok((base, _))) => from.max(base + 1),
            _ => from,
        };
        let end = gathering.end;
        let others = std::iter::once_with(|| view.blocks(found.id, reached, end, reading)).flatten();
        for item in first.into_iter().chain(others) {
            let block = item.and_then(|(base, value)| {
                gathering.refuse_gap(base, found, at)?;
                decode_block(base, &value, reading)
            });
            match block {
                Ok(block) => {
                    gathering.take(&block);
                    self.cache.put(found.id, block, ticket);
                }
                Err(error) => return gathering.stop(error),
            }
            if !gathering.wants_more() {
                return Ok(());
            }
        }
        if let Err(error) = gathering.refuse_gap(end, found, at) {
            return gathering.stop(error);
        }
        gathering.next_offset = end;
        Ok(())
    }
}

impl Gathering {
    fn wants_more(&self) -> bool {
        !self.full && self.next_offset < self.end
    }

    /// Offsets without records are right in a compacted topic only: elsewhere the store has lost something.
    fn refuse_gap(&self, next_base: u64, found: &Found, at: &TopicPartition) -> Result<(), LogError> {
        let reached = self.next_offset;
        if found.spec.compacted || next_base <= reached {
            return Ok(());
        }
        Err(LogError::Store {
            at: format!("reading {at} at offset {reached}"),
            error: format!(
                "the records from there to offset {next_base} are missing; restore the log's folder from a copy, or \
                 read on from offset {next_base}"
            ),
        })
    }

    /// Ends with what was read before an error, if anything was: the next read begins at the error.
    fn stop(&mut self, error: LogError) -> Result<(), LogError> {
        self.full = true;
        match self.records.is_empty() {
            true => Err(error),
            false => Ok(()),
        }
    }

    fn take(&mut self, block: &Block) {
        for logged in block.records_from(self.next_offset) {
            let offset = logged.stored.offset;
            self.bytes += logged.stored.record.size();
            if offset >= self.end {
                break;
            }
            if self.bytes > self.max_bytes && !self.records.is_empty() {
                self.full = true;
                return;
            }
            self.next_offset = offset + 1;
            self.records.push(logged.stored);
        }
        self.next_offset = self.next_offset.max(block.end.min(self.end));
    }
}
