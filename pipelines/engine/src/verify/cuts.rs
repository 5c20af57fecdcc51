//! The cuts in a changelog: which of them still hold all of their state, and a task restored from one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_contract::Key;
use tidewire_schemas::{CutMarker, SchemaBook};

use super::{VerifyError, restore_error};
use crate::cut::{Changelog, CutError, is_marker, owner_of_entry};
use crate::log::{Log, LogError, NewRecord, StoredRecord, TopicPartition};
use crate::plan::StageSpec;
use crate::reader::PartitionReader;
use crate::rerun::unsigned;
use crate::task::{RestoreError, Task};

/// A cut whose marker is still in the changelog.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// The offset of its marker.
    pub offset: u64,
    /// Its marker.
    pub marker: CutMarker,
    /// Whether all of its state is there. Compaction takes what a later cut wrote again, so of an early cut only a part
    /// may be left.
    pub is_whole: bool,
}

impl Cut {
    /// The epoch that it ends.
    pub fn epoch(&self) -> u64 {
        unsigned(self.marker.epoch)
    }
}

/// All cuts of a task, in order.
pub fn cuts(log: &dyn Log, spec: &StageSpec, book: &SchemaBook, task: u32) -> Result<Vec<Cut>, VerifyError> {
    let mut found = Vec::new();
    let mut reader = CutReader::new(log, spec, task)?;
    while let Some(offset) = reader.next(spec, book, task)? {
        if let Some(marker) = reader.changelog.marker() {
            found.push(Cut { offset, marker: marker.clone(), is_whole: reader.changelog.is_whole() });
        }
    }
    Ok(found)
}

/// Reads a changelog cut by cut.
pub(crate) struct CutReader<'a> {
    records: PartitionReader<'a>,
    /// What was read, up to the last cut that was returned.
    pub changelog: Changelog,
}

impl<'a> CutReader<'a> {
    pub fn new(log: &'a dyn Log, spec: &StageSpec, task: u32) -> Result<Self, LogError> {
        let records = PartitionReader::from_start(log, TopicPartition::new(spec.changelog_topic(), task))?;
        Ok(Self { records, changelog: Changelog::default() })
    }

    /// Takes up what was written since.
    pub fn extend(&mut self) -> Result<(), LogError> {
        self.records.extend().map(|_| ())
    }

    /// The next record, which is not yet part of the changelog.
    pub fn record(&mut self) -> Result<Option<StoredRecord>, LogError> {
        self.records.next_record()
    }

    /// Reads up to and with the next marker; returns its offset.
    pub fn next(
        &mut self,
        spec: &StageSpec,
        book: &SchemaBook,
        task: u32,
    ) -> Result<Option<u64>, VerifyError> {
        while let Some(stored) = self.record()? {
            let (offset, ends) = (stored.offset, is_marker(&stored));
            self.changelog.take(stored, book).map_err(|error| restore_error(spec, task, error.into()))?;
            if ends {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }
}

/// Where a task begins to be run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Before this epoch or as near before it as can be.
    Before(u64),
    /// As early as can be, of the epochs from this one on.
    Earliest(u64),
}

/// The task where its epochs can be run again from, and the offset in the topic of epoch records to read on from.
pub(super) fn start(
    log: &dyn Log,
    spec: &Arc<StageSpec>,
    book: &Arc<SchemaBook>,
    number: u32,
    first: u64,
    begin: Begin,
) -> Result<(Task, u64), VerifyError> {
    let at_once = matches!(begin, Begin::Earliest(1) | Begin::Before(1)) && first == 1;
    if !at_once {
        let cuts = cuts(log, spec, book, number)?;
        let whole = cuts.iter().filter(|cut| cut.is_whole && cut.epoch() + 1 >= first);
        let mut wanted: Vec<&Cut> = match begin {
            Begin::Earliest(from) => whole.filter(|cut| cut.epoch() + 1 >= from).collect(),
            Begin::Before(epoch) => whole.filter(|cut| cut.epoch() < epoch).rev().collect(),
        };
        // Of equal epochs, which a repeated flush could leave, one is enough.
        wanted.dedup_by_key(|cut| cut.epoch());
        for cut in wanted {
            match restore(log, spec, book, number, cut.offset) {
                Ok(task) => return Ok((task, unsigned(cut.marker.epochs_from))),
                Err(VerifyError::Restore {
                    error: RestoreError::Cut(CutError::WrongDigest { .. } | CutError::Malformed { .. }),
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        if first != 1 {
            let earliest = cuts.iter().find(|cut| cut.is_whole && cut.epoch() + 1 >= first);
            return Err(VerifyError::NoStart {
                stage: spec.name.clone(),
                task: number,
                first: i64::try_from(first).unwrap_or(i64::MAX),
                earliest: earliest.map(Cut::epoch),
            });
        }
    }
    let task = Task::new(Arc::clone(spec), number, Arc::clone(book));
    let task = task.map_err(|error| restore_error(spec, number, RestoreError::Settings(error)))?;
    Ok((task, 0))
}

/// The task as it stood at the cut whose marker lies at `offset`.
pub(super) fn restore(
    log: &dyn Log,
    spec: &Arc<StageSpec>,
    book: &Arc<SchemaBook>,
    number: u32,
    offset: u64,
) -> Result<Task, VerifyError> {
    let changelog = changelog_to(log, spec, book, number, offset)?;
    let task = Task::restored(Arc::clone(spec), number, Arc::clone(book), &changelog);
    task.map_err(|error| restore_error(spec, number, error))
}

/// The changelog up to the marker at `offset`.
pub(crate) fn changelog_to(
    log: &dyn Log,
    spec: &StageSpec,
    book: &SchemaBook,
    task: u32,
    offset: u64,
) -> Result<Changelog, VerifyError> {
    let mut reader = CutReader::new(log, spec, task)?;
    while reader.next(spec, book, task)?.is_some_and(|found| found < offset) {}
    Ok(reader.changelog)
}

/// The operator and key of the first entry of a cut that was written with other bytes than the re-run gives, where the
/// changelog still holds it.
pub(super) fn first_other_entry(
    log: &dyn Log,
    spec: &StageSpec,
    book: &SchemaBook,
    number: u32,
    epoch: i64,
    rerun: &[NewRecord],
) -> Result<Option<(SmolStr, Option<Key>)>, VerifyError> {
    let mut reader = CutReader::new(log, spec, number)?;
    let mut since: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
    while let Some(stored) = reader.record()? {
        if is_marker(&stored) {
            let ends = book.decode(stored.record.value.as_deref().unwrap_or_default()).ok();
            let marker = ends.and_then(|record| CutMarker::try_from(record).ok());
            if marker.is_some_and(|marker| marker.epoch == epoch) {
                let other = rerun.iter().find(|record| {
                    let found = record.key.as_ref().and_then(|key| since.get(key));
                    found.is_some_and(|found| *found != record.value)
                });
                let only_there =
                    || since.keys().find(|key| !rerun.iter().any(|record| record.key.as_ref() == Some(*key)));
                let key = other.and_then(|record| record.key.as_ref()).or_else(only_there);
                return Ok(key.and_then(|key| owner_of_entry(key)));
            }
            since.clear();
        } else if let Some(key) = stored.record.key {
            since.insert(key, stored.record.value);
        }
    }
    Ok(None)
}
