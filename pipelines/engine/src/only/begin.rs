//! Where a re-run begins: the latest cut before an epoch of which all state is there.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_schemas::{CutMarker, EpochRecord, SchemaBook};

use super::OnlyError;
use crate::cut::{Changelog, is_marker_key};
use crate::log::{Log, LogError, StoredRecord, TopicPartition};
use crate::plan::StageSpec;
use crate::recovery::epoch_record;
use crate::rerun::unsigned;
use crate::task::RestoreError;

/// Bytes asked of the log at once.
const FETCH_BYTES: usize = 1 << 20;

/// A place to begin from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Begin {
    /// The epoch of the cut; 0 is the very beginning.
    pub after: u64,
    /// The offset of the cut's marker in the changelog; none for the very beginning.
    pub marker_offset: Option<u64>,
    /// The marker.
    pub marker: Option<CutMarker>,
}

impl Begin {
    /// The sequence number of the last output before.
    pub fn sequence(&self) -> u64 {
        self.marker.as_ref().map_or(0, |marker| unsigned(marker.closing_sequence))
    }

    /// The changelog up to the cut.
    pub fn changelog(
        &self,
        log: &dyn Log,
        spec: &StageSpec,
        book: &SchemaBook,
        task: u32,
    ) -> Result<Changelog, OnlyError> {
        let mut changelog = Changelog::default();
        let Some(marker_offset) = self.marker_offset else { return Ok(changelog) };
        let at = TopicPartition::new(spec.changelog_topic(), task);
        let mut reader = Partition::from_start(log, at)?;
        while let Some(stored) = reader.next_record()?.filter(|stored| stored.offset <= marker_offset) {
            let taken = changelog.take(stored, book);
            taken.map_err(|error| OnlyError::restore(spec, task, RestoreError::Cut(error)))?;
        }
        Ok(changelog)
    }
}

/// Where to begin so that epoch `from` is run: the latest cut before it that is whole, or the very beginning; if there is
/// neither, the first whole cut after it from which the epochs kept go on. `is_partial`: the state of other keys was
/// taken out, so that no sum tells whether a cut is whole.
///
/// # Errors
/// When there is no place to begin.
pub fn begin_before(
    log: &dyn Log,
    spec: &StageSpec,
    book: &SchemaBook,
    task: u32,
    from: u64,
    is_partial: bool,
) -> Result<Begin, OnlyError> {
    let Some(first) = Journal::new(log, spec, book, task)?.next_epoch()?.map(|record| unsigned(record.epoch))
    else {
        return Ok(Begin::default());
    };
    let at = TopicPartition::new(spec.changelog_topic(), task);
    let mut reader = Partition::from_start(log, at)?;
    let (mut hashes, mut sum): (BTreeMap<Bytes, u64>, u64) = (BTreeMap::new(), 0);
    let mut best = (first == 1).then(Begin::default);
    while let Some(stored) = reader.next_record()? {
        let Some(key) = stored.record.key.clone() else { continue };
        if !is_marker_key(&key) {
            let hash = stored.record.value.as_deref().map(said_hash);
            let before = match hash {
                Some(hash) => hashes.insert(key, hash),
                None => hashes.remove(&key),
            };
            sum = sum.wrapping_add(hash.unwrap_or(0)).wrapping_sub(before.unwrap_or(0));
            continue;
        }
        let value = stored.record.value.as_deref().unwrap_or_default();
        let Some(marker) = book.decode(value).ok().and_then(|record| CutMarker::try_from(record).ok()) else {
            continue;
        };
        let after = unsigned(marker.epoch);
        let is_whole = is_partial || sum.to_le_bytes() == *marker.state_digest;
        let is_later = after >= from.max(1);
        if is_later && best.is_some() {
            break;
        }
        if is_whole && after + 1 >= first {
            best = Some(Begin { after, marker_offset: Some(stored.offset), marker: Some(marker) });
        }
    }
    best.ok_or_else(|| OnlyError::NoStart { stage: spec.name.clone(), task, first })
}

/// The hash that an entry's value begins with.
fn said_hash(value: &[u8]) -> u64 {
    value.split_first_chunk::<8>().map_or(0, |(hash, _)| u64::from_le_bytes(*hash))
}

/// The records of a partition, one after another, up to where it ended at first.
pub struct Partition<'a> {
    log: &'a dyn Log,
    at: TopicPartition,
    from: u64,
    until: u64,
    ready: VecDeque<StoredRecord>,
}

impl<'a> Partition<'a> {
    /// All that is there now.
    pub fn from_start(log: &'a dyn Log, at: TopicPartition) -> Result<Self, LogError> {
        let bounds = log.bounds(&at)?;
        Ok(Self { log, at, from: bounds.start, until: bounds.stable_end, ready: VecDeque::new() })
    }

    /// The next record.
    pub fn next_record(&mut self) -> Result<Option<StoredRecord>, LogError> {
        while self.ready.is_empty() && self.from < self.until {
            let fetched = self.log.read(&self.at, self.from, FETCH_BYTES)?;
            self.from = if fetched.at_end { self.until } else { fetched.next_offset.max(self.from + 1) };
            let until = self.until;
            self.ready.extend(fetched.records.into_iter().filter(|stored| stored.offset < until));
        }
        Ok(self.ready.pop_front())
    }
}

/// The epoch records of one task, in order, with their offsets.
pub struct Journal<'a> {
    reader: Partition<'a>,
    book: &'a SchemaBook,
    stage: SmolStr,
    task: u32,
}

impl<'a> Journal<'a> {
    /// From the first epoch kept.
    pub fn new(
        log: &'a dyn Log,
        spec: &StageSpec,
        book: &'a SchemaBook,
        task: u32,
    ) -> Result<Self, LogError> {
        let reader = Partition::from_start(log, TopicPartition::new(spec.epochs_topic(), task))?;
        Ok(Self { reader, book, stage: spec.name.clone(), task })
    }

    /// The next epoch record.
    pub fn next_epoch(&mut self) -> Result<Option<EpochRecord>, LogError> {
        while let Some(stored) = self.reader.next_record()? {
            if let Some(record) = epoch_record(&stored, self.book)
                && record.stage == self.stage
                && u32::try_from(record.task) == Ok(self.task)
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}
