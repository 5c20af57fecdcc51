//! One partition of a [`MemoryLog`](super::MemoryLog): records in offset order, and transactions that are still open.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::log::{Bounds, Fetched, LogError, NewRecord, StoredRecord, TopicPartition, TopicSpec};

/// Number of a transaction that is held back.
pub(super) type HeldId = u64;

#[derive(Debug)]
struct Entry {
    stored: StoredRecord,
    appended_ms: u64,
    held: Option<HeldId>,
}

/// Records of one partition.
#[derive(Debug, Default)]
pub(super) struct Partition {
    entries: Vec<Entry>,
    start: u64,
    next: u64,
    /// Below this offset a compaction pass has been.
    compacted_to: u64,
    /// First offset of each transaction that is held back.
    held: BTreeMap<HeldId, u64>,
}

impl Partition {
    /// Appends, and returns the offset of the first record.
    pub(super) fn append(&mut self, records: Vec<NewRecord>, now_ms: u64, held: Option<HeldId>) -> u64 {
        let first = self.next;
        if let (Some(id), false) = (held, records.is_empty()) {
            self.held.insert(id, first);
        }
        for record in records {
            let stored = StoredRecord { offset: self.next, record };
            self.entries.push(Entry { stored, appended_ms: now_ms, held });
            self.next += 1;
        }
        first
    }

    /// Takes one offset for a transaction marker.
    pub(super) fn append_control(&mut self) {
        self.next += 1;
    }

    /// Ends a transaction that was held back; true if it had records here.
    pub(super) fn settle(&mut self, id: HeldId, commit: bool) -> bool {
        if self.held.remove(&id).is_none() {
            return false;
        }
        match commit {
            true => self.entries.iter_mut().filter(|e| e.held == Some(id)).for_each(|e| e.held = None),
            false => self.entries.retain(|e| e.held != Some(id)),
        }
        true
    }

    pub(super) fn bounds(&self) -> Bounds {
        let stable_end = self.held.values().min().copied().unwrap_or(self.next);
        Bounds { start: self.start, stable_end, high_watermark: self.next }
    }

    pub(super) fn fetch(
        &self,
        at: &TopicPartition,
        from: u64,
        max_bytes: usize,
    ) -> Result<Fetched, LogError> {
        let bounds = self.bounds();
        check_offset(at, from, &bounds)?;
        let first = self.place(from);
        let mut records: Vec<StoredRecord> = Vec::new();
        let mut bytes = 0;
        let mut next_offset = from.max(bounds.stable_end);
        for entry in &self.entries[first..] {
            if entry.stored.offset >= bounds.stable_end {
                break;
            }
            bytes += entry.stored.record.size();
            if bytes > max_bytes && !records.is_empty() {
                next_offset = records.last().map_or(from, |last| last.offset + 1);
                break;
            }
            records.push(entry.stored.clone());
        }
        Ok(Fetched { records, next_offset, at_end: next_offset == bounds.stable_end })
    }

    /// Keeps the last record of each key among those older than the lag, and all younger ones.
    /// A tombstone goes in the pass after the one that removed what it deletes, so that no reader misses it.
    pub(super) fn compact(&mut self, lag_ms: u64, now_ms: u64) -> u64 {
        let old = |e: &Entry| e.appended_ms.saturating_add(lag_ms) <= now_ms;
        let end = self.entries.iter().find(|e| !old(e)).map_or(self.next, |e| e.stored.offset);
        let end = end.min(self.bounds().stable_end);
        let mut last: BTreeMap<Bytes, u64> = BTreeMap::new();
        for entry in self.entries.iter().take_while(|e| e.stored.offset < end) {
            last.insert(entry.stored.record.key.clone().unwrap_or_default(), entry.stored.offset);
        }
        let (compacted_to, count) = (self.compacted_to, self.entries.len());
        self.entries.retain(|Entry { stored: StoredRecord { offset, record }, .. }| {
            *offset >= end
                || (last.get(record.key.as_deref().unwrap_or_default()) == Some(offset)
                    && (record.value.is_some() || *offset >= compacted_to))
        });
        self.compacted_to = self.compacted_to.max(end);
        (count - self.entries.len()) as u64
    }

    /// Deletes from the front what retention does not keep; returns how many records.
    pub(super) fn retain(&mut self, spec: &TopicSpec, now_ms: u64) -> u64 {
        let stable_end = self.bounds().stable_end;
        let mut bytes: u64 = self.entries.iter().map(|e| e.stored.record.size() as u64).sum();
        let mut start = self.start;
        for entry in &self.entries {
            let size = entry.stored.record.size() as u64;
            let too_old = spec.retention_ms.is_some_and(|ms| entry.appended_ms.saturating_add(ms) <= now_ms);
            let too_much = spec.retention_bytes.is_some_and(|bound| bytes - size >= bound);
            if entry.stored.offset >= stable_end || !(too_old || too_much) {
                break;
            }
            bytes -= size;
            start = entry.stored.offset + 1;
        }
        self.truncate_before(start)
    }

    /// Deletes what lies below `offset`; returns how many records.
    pub(super) fn truncate_before(&mut self, offset: u64) -> u64 {
        self.start = self.start.max(offset.min(self.bounds().stable_end));
        let gone = self.place(self.start);
        self.entries.drain(..gone);
        gone as u64
    }

    fn place(&self, offset: u64) -> usize {
        self.entries.partition_point(|e| e.stored.offset < offset)
    }
}

/// Refuses a read outside of what is kept or written.
pub(super) fn check_offset(at: &TopicPartition, asked: u64, bounds: &Bounds) -> Result<(), LogError> {
    let at = || at.clone();
    match asked {
        _ if asked < bounds.start => Err(LogError::Truncated { at: at(), asked, start: bounds.start }),
        _ if asked > bounds.high_watermark => {
            Err(LogError::BeyondEnd { at: at(), asked, end: bounds.high_watermark })
        }
        _ => Ok(()),
    }
}
