//! The recorded past of a task: its epoch records, its cuts, and its epochs run again from one of them.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tidewire_engine::cut::{Changelog, CutError, MARKER};
use tidewire_engine::log::{Log, StoredRecord, TopicPartition};
use tidewire_engine::only::{KeyScope, OnlyKeys};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::reader::PartitionReader;
use tidewire_engine::recovery::epoch_record;
use tidewire_engine::rerun::{Inputs, difference};
use tidewire_engine::task::{Closed, RestoreError, Task};
use tidewire_schemas::{CutMarker, EpochRecord, Record, SchemaBook};

use super::restricted::{Renumbered, Restricted};
use super::seek::first_at_least;

/// A changelog of more bytes than this is read again each time.
const MAX_KEPT_BYTES: usize = 128 << 20;

/// Where a task's past lies.
#[derive(Clone)]
pub struct Past<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Its schemas.
    pub book: &'a Arc<SchemaBook>,
    /// The stage.
    pub spec: Arc<StageSpec>,
    /// The task's number.
    pub task: u32,
    /// The keys that the log is restricted to.
    pub only: Option<Arc<OnlyKeys>>,
}

/// A cut in the changelog.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The epoch that it ends.
    pub epoch: i64,
    /// Its marker's offset.
    offset: u64,
    /// Where to look for the next epoch's record.
    epochs_from: u64,
}

/// The cuts of a task.
#[derive(Debug, Default)]
pub struct Cuts {
    /// Oldest first.
    pub list: Vec<Cut>,
    /// The whole changelog, if it is small enough to be kept: it is read again for each start.
    records: Option<Vec<StoredRecord>>,
}

/// A task as it stood after an epoch, ready to go on.
pub struct Start {
    /// The task.
    pub task: Task,
    /// The epoch that it stands after; 0 is the very beginning.
    pub after: i64,
    epochs_from: u64,
}

/// An epoch that was run again.
pub struct Rerun {
    /// As it was recorded.
    pub record: EpochRecord,
    /// As it came out now.
    pub closed: Closed,
    /// How the two differ, if they do.
    pub difference: Option<String>,
    renumbered: Option<Renumbered>,
}

impl Rerun {
    /// The sequence number under which an output of the re-run lies in the log.
    pub fn recorded_sequence(&self, sequence: u64) -> Option<u64> {
        self.renumbered.as_ref().map_or(Some(sequence), |numbers| numbers.get(&sequence).copied())
    }
}

impl<'a> Past<'a> {
    /// The partition of its epoch records.
    pub fn epochs_at(&self) -> TopicPartition {
        TopicPartition::new(self.spec.epochs_topic(), self.task)
    }

    /// The partition of its cuts.
    pub fn changelog_at(&self) -> TopicPartition {
        TopicPartition::new(self.spec.changelog_topic(), self.task)
    }

    /// The first epoch record of which `number`, which ascends with epochs, is at least `wanted`.
    pub fn first_epoch(
        &self,
        wanted: i64,
        number: impl Fn(&EpochRecord) -> i64,
    ) -> anyhow::Result<Option<EpochRecord>> {
        let found = first_at_least(self.log, &self.epochs_at(), wanted, |stored| {
            self.own(epoch_record(stored, self.book)?).map(|record| number(&record))
        })?;
        Ok(found.and_then(|stored| epoch_record(&stored, self.book)))
    }

    fn own(&self, record: EpochRecord) -> Option<EpochRecord> {
        let same = record.stage == self.spec.name && u32::try_from(record.task) == Ok(self.task);
        same.then_some(record)
    }

    /// The cuts that the changelog still names.
    pub fn cuts(&self) -> anyhow::Result<Cuts> {
        let at = self.changelog_at();
        let mut cuts = Cuts { list: Vec::new(), records: Some(Vec::new()) };
        if self.log.topic(&at.topic)?.is_none_or(|topic| at.partition >= topic.partitions) {
            return Ok(cuts);
        }
        let mut bytes = 0;
        let mut reader = PartitionReader::from_start(self.log, at.clone())?;
        while let Some(stored) = reader.next_record()? {
            if stored.record.key.as_deref() == Some(MARKER) {
                let value = stored.record.value.as_deref().unwrap_or_default();
                let record: Record = self.book.decode(value).with_context(|| {
                    format!("{at}: the marker at offset {} can not be read", stored.offset)
                })?;
                if let Ok(marker) = CutMarker::try_from(record) {
                    let epochs_from = u64::try_from(marker.epochs_from).unwrap_or(0);
                    cuts.list.push(Cut { epoch: marker.epoch, offset: stored.offset, epochs_from });
                }
            }
            bytes += stored.record.size();
            if bytes > MAX_KEPT_BYTES {
                cuts.records = None;
            }
            if let Some(records) = &mut cuts.records {
                records.push(stored);
            }
        }
        Ok(cuts)
    }

    /// The task as it stood before `epoch`: at the nearest usable cut, or, with `back`, so many cuts earlier as are there.
    pub fn start_before(&self, epoch: i64, cuts: &Cuts, back: usize) -> anyhow::Result<Start> {
        let before: Vec<&Cut> = cuts.list.iter().filter(|cut| cut.epoch < epoch).collect();
        let nearest = before.len().saturating_sub(back);
        for cut in before[..nearest].iter().rev() {
            if let Some(start) = self.start_at(cuts, cut)? {
                return Ok(start);
            }
        }
        let at = self.epochs_at();
        let first = self.first_epoch(i64::MIN, |record| record.epoch)?;
        if first.as_ref().is_some_and(|first| first.epoch == 1) {
            let task = self.restored(&Changelog::default())?;
            return Ok(Start { task, after: 0, epochs_from: self.log.bounds(&at)?.start });
        }
        // Earlier than the nearest there is none: a later one is better than nothing.
        for cut in before[nearest..].iter() {
            if let Some(start) = self.start_at(cuts, cut)? {
                return Ok(start);
            }
        }
        let kept = first.map_or_else(
            || "none is kept".to_owned(),
            |first| format!("those kept begin with {}", first.epoch),
        );
        bail!(
            "epoch {epoch} of {}/{} can not be run again: no whole cut in {} lies before it, and of its epochs in {at} {kept}; \
             what ran before is beyond replay_retention",
            self.spec.name,
            self.task,
            self.changelog_at(),
        )
    }

    /// The task at a cut; nothing where compaction has left only a part of it.
    fn start_at(&self, cuts: &Cuts, cut: &Cut) -> anyhow::Result<Option<Start>> {
        let mut changelog = Changelog::default();
        if let Some(records) = &cuts.records {
            for stored in records.iter().take_while(|stored| stored.offset <= cut.offset) {
                changelog.take(stored.clone(), self.book)?;
            }
        } else {
            let at = self.changelog_at();
            let begin = self.log.bounds(&at)?.start;
            let mut reader = PartitionReader::new(self.log, at, begin, cut.offset + 1);
            while let Some(stored) = reader.next_record()? {
                changelog.take(stored, self.book)?;
            }
        }
        match self.restored(&changelog) {
            Ok(task) => {
                let epochs_from = cut.epochs_from.max(self.log.bounds(&self.epochs_at())?.start);
                Ok(Some(Start { task, after: cut.epoch, epochs_from }))
            }
            Err(RestoreError::Cut(CutError::WrongDigest { .. } | CutError::Malformed { .. })) => Ok(None),
            Err(error) => Err(anyhow::Error::from(error)
                .context(format!("{}/{} at the cut of epoch {}", self.spec.name, self.task, cut.epoch))),
        }
    }

    fn restored(&self, changelog: &Changelog) -> Result<Task, RestoreError> {
        let scope = match &self.only {
            Some(keys) => KeyScope::Only { keys: Arc::clone(keys), is_partial: true },
            None => KeyScope::All,
        };
        Task::restored_in(Arc::clone(&self.spec), self.task, Arc::clone(self.book), changelog, scope)
    }

    /// Runs recorded epochs again, up to and with `until`. Before each, `before` sees the task; after it, `after` too.
    pub fn run(
        &self,
        start: Start,
        until: i64,
        mut before: impl FnMut(&mut Task, &EpochRecord),
        mut after: impl FnMut(&mut Task, Rerun) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let Start { mut task, epochs_from, .. } = start;
        let at = self.epochs_at();
        let mut inputs = Inputs::of(&task);
        let mut restricted = self.only.as_ref().map(|_| Restricted::new(self)).transpose()?;
        let mut reader =
            PartitionReader::new(self.log, at.clone(), epochs_from, self.log.bounds(&at)?.stable_end);
        while let Some(stored) = reader.next_record()? {
            let Some(record) = epoch_record(&stored, self.book).and_then(|record| self.own(record)) else {
                continue;
            };
            if record.epoch > until {
                break;
            }
            if u64::try_from(record.epoch).unwrap_or(0) <= task.epoch() {
                continue;
            }
            before(&mut task, &record);
            let closed =
                inputs.wait_for(self.log, &task, &record).and_then(|inputs| task.rerun(&record, inputs));
            let closed = closed.with_context(|| {
                format!("{}/{}: epoch {} can not be run again", self.spec.name, self.task, record.epoch)
            })?;
            let (renumbered, difference) = match &mut restricted {
                Some(restricted) => {
                    let (renumbered, difference) = restricted.take(&record, &closed)?;
                    (Some(renumbered), difference)
                }
                // State is compared too, whoever made it: what passes between operators shows only there.
                None => (None, difference(&record, &closed, true)),
            };
            if after(&mut task, Rerun { record, closed, difference, renumbered })?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use bytes::Bytes;
    use tidewire_engine::log::{NewRecord, TopicSpec};
    use tidewire_engine::memory::MemoryLog;

    use super::*;

    #[test]
    fn a_past_whose_early_epochs_are_gone_says_so() {
        let pipeline = crate::files::load_pipeline(std::path::Path::new("market-intel")).unwrap().pipeline;
        let spec = Arc::clone(&pipeline.stages[0]);
        let (log, book) = (MemoryLog::new(), Arc::new(SchemaBook::of_this_build()));
        for topic in [spec.epochs_topic(), spec.changelog_topic()] {
            log.create_topic(&TopicSpec::new(topic, spec.tasks())).unwrap();
        }
        let past = Past { log: &log, book: &book, spec: Arc::clone(&spec), task: 1, only: None };
        for epoch in 5..9 {
            let record = EpochRecord { stage: spec.name.clone(), task: 1, epoch, ..EpochRecord::default() };
            let mut value = Vec::new();
            book.encode(&Record::from(record), &mut value).unwrap();
            let record = NewRecord { value: Some(Bytes::from(value)), ..NewRecord::default() };
            log.append(&past.epochs_at(), vec![record]).unwrap();
        }
        let found = past.first_epoch(7, |record| record.epoch).unwrap().unwrap();
        assert_eq!(found.epoch, 7);
        assert!(past.first_epoch(9, |record| record.epoch).unwrap().is_none());
        let Err(error) = past.start_before(7, &past.cuts().unwrap(), 0) else { panic!("there is no start") };
        let words = error.to_string();
        for wanted in
            ["epoch 7 of signals/1", "market-intel.signals.changelog-1", "begin with 5", "replay_retention"]
        {
            assert!(words.contains(wanted), "{words}");
        }
    }
}
