//! Compaction: of the records older than the topic's lag, only the last one of each key stays.
//!
//! A pass reads the part that no pass has seen (the dirty part), as far as its records are old enough, and notes the last
//! offset of each key; then it rewrites all blocks below that have records which are superseded. Younger records
//! supersede nothing, so that every state inside the lag can still be restored. A tombstone goes in the pass after the
//! one that removed what it deletes: a reader that saw the one also sees the other.

use std::collections::HashMap;

use tidewire_engine::log::{LogError, NewRecord, TopicPartition};
use tidewire_engine::log_limits;

use super::block::{Block, BlockBuilder, BlockHeader};
use super::index::Found;
use super::maintain::{Maintained, Rounds};
use super::rewrite::{Rewrite, damaged_header};
use super::store::{View, decode_block};
use super::{EmbeddedLog, lock};

/// Most bytes of the keys that one pass notes. What is beyond waits for the next pass.
const MAX_NOTED_BYTES: usize = 128 * 1024 * 1024;
/// Bytes that a noted key takes beside its own.
const NOTE_BYTES: usize = 64;
/// How often a round looks at a partition.
const LOOK_EVERY_MS: u64 = 60_000;
/// A pass is worth while when this much is dirty, and as much as is clean.
const WORTH_BYTES: u64 = 1024 * 1024;

/// What the first reading of a pass found.
struct Noted {
    last: HashMap<Box<[u8]>, u64>,
    /// Records from here on are left alone.
    end: u64,
}

impl EmbeddedLog {
    /// One compaction pass over all partitions of a topic, by the log's own time `now_ms`. Returns how many records went.
    pub fn compact_topic(&self, topic: &str, now_ms: u64) -> Result<u64, LogError> {
        let spec = self.index().spec(topic).cloned().ok_or_else(|| LogError::UnknownTopic(topic.into()))?;
        log_limits::check_compacted(&spec)?;
        let _rounds = lock(&self.rounds);
        let mut done = Maintained::default();
        let partitions = self.index().partitions(Some(topic));
        for at in partitions {
            let found = self.index().find(&at)?;
            self.compact_partition(&at, &found, now_ms, &mut done)?;
        }
        Ok(done.compacted_records)
    }

    pub(super) fn compact_if_worth_while(
        &self,
        at: &TopicPartition,
        found: &Found,
        now_ms: u64,
        rounds: &mut Rounds,
        done: &mut Maintained,
    ) -> Result<u64, LogError> {
        if !found.spec.compacted || found.entry.compacted_to >= found.entry.next {
            return Ok(0);
        }
        let seen_ms = rounds.compaction_seen_ms.get(&found.id);
        if seen_ms.is_some_and(|seen_ms| now_ms < seen_ms.saturating_add(LOOK_EVERY_MS)) {
            return Ok(0);
        }
        rounds.compaction_seen_ms.insert(found.id, now_ms);
        match self.is_worth_while(at, found, now_ms, done)? {
            true => self.compact_partition(at, found, now_ms, done),
            false => Ok(0),
        }
    }

    fn is_worth_while(
        &self,
        at: &TopicPartition,
        found: &Found,
        now_ms: u64,
        done: &mut Maintained,
    ) -> Result<bool, LogError> {
        let reading = |offset: u64| format!("looking for what to compact in {at} at offset {offset}");
        let (start, dirty_from) = (found.entry.start, found.entry.compacted_to.max(found.entry.start));
        let view = self.store.snapshot();
        let mut clean = 0;
        for key in view.block_keys(found.id, start, dirty_from, reading) {
            clean += key?.stored_bytes;
        }
        let mut dirty = 0;
        for item in view.blocks(found.id, dirty_from, found.entry.next, reading) {
            let (base, value) = item?;
            let header = BlockHeader::read(&value).map_err(|e| damaged_header(reading(base), &e))?;
            if header.newest_append_ms.saturating_add(found.spec.compaction_lag_ms) > now_ms {
                break;
            }
            dirty += value.len() as u64;
            done.read_bytes += value.len() as u64;
            if dirty >= WORTH_BYTES && dirty >= clean {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn compact_partition(
        &self,
        at: &TopicPartition,
        found: &Found,
        now_ms: u64,
        done: &mut Maintained,
    ) -> Result<u64, LogError> {
        let dirty_from = found.entry.compacted_to.max(found.entry.start);
        let view = self.store.snapshot();
        let old_enough_ms =
            |appended_ms: u64| appended_ms.saturating_add(found.spec.compaction_lag_ms) <= now_ms;
        let noted = note_last(&view, at, found, dirty_from, old_enough_ms, done)?;
        let reading = |offset: u64| format!("compacting {at} at offset {offset}");
        let mut rewrite = Rewrite::new(self, at, found.id);
        let mut first_change = None;
        for item in view.blocks(found.id, found.entry.start, noted.end, reading) {
            let (base, value) = item?;
            done.read_bytes += value.len() as u64;
            let block = decode_block(base, &value, reading)?;
            let stays = |offset: u64, record: &NewRecord| noted.stays(offset, record, dirty_from);
            if let Some((removed, kept)) = without_superseded(&block, stays) {
                done.compacted_records += removed;
                first_change = first_change.or(Some(base));
                let new = if kept.is_empty() { Vec::new() } else { vec![kept.build()] };
                rewrite.replace(&[(base, value.len() as u64)], new)?;
            }
        }
        rewrite.finish(|entry| {
            entry.compacted_to = entry.compacted_to.max(noted.end);
            if let Some(first) = first_change {
                // What is left of the blocks may be small: let the next merge look from there.
                entry.upkeep.merged_to = entry.upkeep.merged_to.min(first);
                entry.upkeep.small_blocks += super::maintain::MERGE_AT;
            }
        })
    }
}

/// Notes the last offset of each key in the dirty part, as far as it is old enough and there is room for its keys.
fn note_last(
    view: &View<'_>,
    at: &TopicPartition,
    found: &Found,
    dirty_from: u64,
    old_enough_ms: impl Fn(u64) -> bool,
    done: &mut Maintained,
) -> Result<Noted, LogError> {
    let reading = |offset: u64| format!("compacting {at} at offset {offset}");
    let mut noted = Noted { last: HashMap::new(), end: found.entry.next };
    let mut noted_bytes = 0;
    // A merge may have put the first dirty records into a block with clean ones.
    let first = view.base_at_or_below(found.id, dirty_from, reading)?;
    for item in view.blocks(found.id, first, found.entry.next, reading) {
        let (base, value) = item?;
        done.read_bytes += value.len() as u64;
        if noted_bytes > MAX_NOTED_BYTES {
            noted.end = base;
            break;
        }
        for logged in decode_block(base, &value, reading)?.records_from(dirty_from) {
            let offset = logged.stored.offset;
            if !old_enough_ms(logged.appended_ms) {
                noted.end = offset;
                return Ok(noted);
            }
            let key = key_of(&logged.stored.record);
            match noted.last.get_mut(key) {
                Some(last) => *last = offset,
                None => {
                    noted_bytes += key.len() + NOTE_BYTES;
                    noted.last.insert(key.into(), offset);
                }
            }
        }
    }
    Ok(noted)
}

impl Noted {
    fn stays(&self, offset: u64, record: &NewRecord, dirty_from: u64) -> bool {
        if offset >= self.end {
            return true;
        }
        match self.last.get(key_of(record)) {
            Some(last) if *last != offset => false,
            _ => offset >= dirty_from || record.value.is_some(),
        }
    }
}

/// How many records go, and the block without them; `None` when all stay.
fn without_superseded(block: &Block, stays: impl Fn(u64, &NewRecord) -> bool) -> Option<(u64, BlockBuilder)> {
    let removed =
        block.records().filter(|logged| !stays(logged.stored.offset, &logged.stored.record)).count() as u64;
    if removed == 0 {
        return None;
    }
    let mut kept = BlockBuilder::new(block.base);
    for logged in block.records().filter(|logged| stays(logged.stored.offset, &logged.stored.record)) {
        kept.push(logged.stored.offset, logged.appended_ms, &logged.stored.record);
    }
    Some((removed, kept))
}

fn key_of(record: &NewRecord) -> &[u8] {
    record.key.as_deref().unwrap_or_default()
}
