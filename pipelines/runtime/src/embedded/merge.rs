//! Makes many small blocks into few: a log at low load writes a block for every epoch, often of one record.

use tidewire_engine::log::{LogError, TopicPartition};

use super::EmbeddedLog;
use super::block::{BLOCK_BYTES, BlockBuilder, BlockHeader, Built};
use super::index::Found;
use super::maintain::{MERGE_AT, Maintained, SMALL_BLOCK_BYTES};
use super::rewrite::{Rewrite, damaged_header};
use super::store::decode_block;

/// Neighbouring small blocks that are becoming one.
#[derive(Default)]
struct Run {
    /// Bases and stored bytes.
    old: Vec<(u64, u64)>,
    builder: Option<BlockBuilder>,
}

impl EmbeddedLog {
    /// Merges the small blocks of a partition, if there are enough; returns the bytes that were replaced.
    pub(super) fn merge_partition(
        &self,
        at: &TopicPartition,
        found: &Found,
        done: &mut Maintained,
    ) -> Result<u64, LogError> {
        let Some((mut merged_to, small_blocks, next)) = self.merge_state(found) else { return Ok(0) };
        let reading = |offset: u64| format!("merging blocks of {at} at offset {offset}");
        let view = self.store.snapshot();
        let mut rewrite = Rewrite::new(self, at, found.id);
        let mut run = Run::default();
        for key in view.block_keys(found.id, merged_to, next, reading) {
            let key = key?;
            if key.stored_bytes >= SMALL_BLOCK_BYTES {
                run.end(&mut rewrite, done)?;
                continue;
            }
            let Some((base, value)) = view.block_at_or_below(found.id, key.base, reading)? else { continue };
            done.read_bytes += key.stored_bytes;
            let header = BlockHeader::read(&value).map_err(|e| damaged_header(reading(base), &e))?;
            if header.body_bytes as usize >= BLOCK_BYTES / 2 {
                run.end(&mut rewrite, done)?;
                continue;
            }
            let block = decode_block(base, &value, reading)?;
            let last = base + u64::from(header.span);
            let has_room = run.builder.as_ref().is_none_or(|b| b.has_room(header.body_bytes as usize, last));
            if !has_room {
                run.end(&mut rewrite, done)?;
            }
            if run.old.is_empty() {
                // What lies behind this is as it is to stay, unless the run goes on in a later round.
                merged_to = base;
            }
            run.old.push((base, key.stored_bytes));
            let builder = run.builder.get_or_insert_with(|| BlockBuilder::new(base));
            block.records().for_each(|logged| {
                builder.push(logged.stored.offset, logged.appended_ms, &logged.stored.record)
            });
        }
        if run.old.is_empty() {
            merged_to = next;
        }
        run.end(&mut rewrite, done)?;
        rewrite.finish(|entry| {
            entry.upkeep.merged_to = entry.upkeep.merged_to.max(merged_to);
            // Writers count up meanwhile.
            entry.upkeep.small_blocks = entry.upkeep.small_blocks.saturating_sub(small_blocks);
        })
    }

    /// Where to begin, how many small blocks are said to be there, and where to end; `None` when they are few.
    fn merge_state(&self, found: &Found) -> Option<(u64, u64, u64)> {
        let mut index = self.index();
        let entry = index.entry(found.id)?;
        let upkeep = entry.upkeep;
        (upkeep.small_blocks >= MERGE_AT).then_some((
            upkeep.merged_to.max(entry.start),
            upkeep.small_blocks,
            entry.next,
        ))
    }
}

impl Run {
    /// Replaces the run's blocks by one; a run of one block stays as it is.
    fn end(&mut self, rewrite: &mut Rewrite<'_>, done: &mut Maintained) -> Result<(), LogError> {
        let Run { old, builder } = std::mem::take(self);
        let merged: Vec<Built> = match builder {
            Some(builder) if old.len() > 1 && !builder.is_empty() => vec![builder.build()],
            _ => return Ok(()),
        };
        done.merged_blocks += old.len() as u64;
        rewrite.replace(&old, merged)
    }
}
