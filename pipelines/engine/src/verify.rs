//! Verification: recorded epochs are run again, and every byte that comes out is compared with what lies in the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_schemas::{EpochRecord, Record, SchemaBook, topics};

use crate::cut::{Changelog, CutError};
use crate::identity::{ID_HEADER, Identity};
use crate::log::{Log, LogError, StoredRecord, TopicPartition};
use crate::outputs::Output;
use crate::plan::StageSpec;
use crate::recovery::epoch_record;
use crate::rerun::{Inputs, RerunError, difference, unsigned};
use crate::task::{RestoreError, Task};

/// Bytes asked of the log at once.
const FETCH_BYTES: usize = 1 << 20;
/// Bytes of the schema prefix, which is not compared.
const PREFIX_BYTES: usize = 5;

/// Why a task could not be verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The task can not be made or restored.
    #[error("{stage}/{task}: {error}")]
    Restore {
        /// The stage.
        stage: SmolStr,
        /// The task.
        task: u32,
        /// Why.
        error: RestoreError,
    },
    /// An epoch can not be run again.
    #[error("{stage}/{task}: {error}")]
    Rerun {
        /// The stage.
        stage: SmolStr,
        /// The task.
        task: u32,
        /// Why.
        error: RerunError,
    },
    /// Neither the first epoch nor a usable cut is kept.
    #[error(
        "{stage}/{task}: the epochs kept begin with {first}, and no cut in the changelog reaches it: \
         what ran before is beyond replay_retention"
    )]
    NoStart {
        /// The stage.
        stage: SmolStr,
        /// The task.
        task: u32,
        /// The first epoch kept.
        first: i64,
    },
}

/// What verification found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifyReport {
    /// Epochs run again.
    pub epochs: u64,
    /// Input records taken by them.
    pub records: u64,
    /// Output records compared, byte by byte.
    pub compared: u64,
    /// Outputs that compaction has taken since: not compared.
    pub compacted: u64,
    /// The epoch of the cut that it began from; 0 is the very beginning.
    pub began_after: u64,
    /// The first difference.
    pub difference: Option<Difference>,
}

/// Where a re-run departs from what was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The epoch.
    pub epoch: i64,
    /// What differs: `value`, `key`, `missing`, `extra`, or words on the epoch as a whole.
    pub what: String,
    /// The operator that made the record, where one did.
    pub operator: Option<SmolStr>,
    /// Where the record lies or would lie.
    pub at: Option<TopicPartition>,
    /// Its offset in the log.
    pub offset: Option<u64>,
    /// Its identity.
    pub id: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// What the re-run gave.
    pub rerun: Option<Box<Record>>,
    /// What lies in the log.
    pub found: Option<Box<Record>>,
}

/// Verifies all epochs of a task that are kept. `on_progress` is told the number of epochs done after each.
pub fn verify_task(
    log: &dyn Log,
    spec: &Arc<StageSpec>,
    book: &Arc<SchemaBook>,
    number: u32,
    mut on_progress: impl FnMut(u64),
) -> Result<VerifyReport, VerifyError> {
    let mut report = VerifyReport::default();
    let mut journal = Journal::new(log, spec, book, number)?;
    let Some(first) = journal.peek()? else { return Ok(report) };
    let mut task = start(log, spec, book, number, first.epoch)?;
    report.began_after = task.epoch();
    let mut inputs = Inputs::of(&task);
    let mut outputs = Written::new(log, spec, number, task.sequence())?;
    while let Some(record) = journal.next()? {
        if unsigned(record.epoch) <= task.epoch() {
            continue;
        }
        let rerun = inputs.wait_for(log, &task, &record).and_then(|inputs| task.rerun(&record, inputs));
        let closed =
            rerun.map_err(|error| VerifyError::Rerun { stage: spec.name.clone(), task: number, error })?;
        report.epochs += 1;
        report.records += record.inputs.iter().map(|input| unsigned(input.records)).sum::<u64>();
        for output in &closed.outputs {
            match outputs.compare(output)? {
                Compared::Same => report.compared += 1,
                Compared::Compacted => report.compacted += 1,
                Compared::Differs { what, found } => {
                    report.difference = Some(describe(spec, book, &record, output, what, found));
                    return Ok(report);
                }
            }
        }
        if let Some(what) = difference(&record, &closed, true) {
            report.difference = Some(of_epoch(&record, what));
            return Ok(report);
        }
        on_progress(report.epochs);
    }
    report.difference = outputs.extra(book, task.sequence(), task.epoch())?;
    Ok(report)
}

/// The task as it stood before `first`: fresh, or restored from the earliest usable cut.
fn start(
    log: &dyn Log,
    spec: &Arc<StageSpec>,
    book: &Arc<SchemaBook>,
    number: u32,
    first: i64,
) -> Result<Task, VerifyError> {
    let restore_error = |error| VerifyError::Restore { stage: spec.name.clone(), task: number, error };
    if first == 1 {
        let task = Task::new(Arc::clone(spec), number, Arc::clone(book));
        return task.map_err(|error| restore_error(RestoreError::Settings(error)));
    }
    let at = TopicPartition::new(spec.changelog_topic(), number);
    let bounds = log.bounds(&at)?;
    let (mut from, mut changelog) = (bounds.start, Changelog::default());
    while from < bounds.stable_end {
        let fetched = log.read(&at, from, FETCH_BYTES)?;
        for stored in fetched.records {
            let before = changelog.marker().map(|marker| marker.epoch);
            changelog.take(stored, book).map_err(|error| restore_error(error.into()))?;
            let now = changelog.marker().map(|marker| marker.epoch);
            if now == before || now.is_none_or(|epoch| epoch < first - 1) {
                continue;
            }
            match Task::restored(Arc::clone(spec), number, Arc::clone(book), &changelog) {
                Ok(task) => return Ok(task),
                // An early cut of which compaction has left only a part: a later one is whole.
                Err(RestoreError::Cut(CutError::WrongDigest { .. } | CutError::Malformed { .. })) => {}
                Err(error) => return Err(restore_error(error)),
            }
        }
        if fetched.at_end || fetched.next_offset <= from {
            break;
        }
        from = fetched.next_offset;
    }
    Err(VerifyError::NoStart { stage: spec.name.clone(), task: number, first })
}

/// The epoch records of one task, in order.
struct Journal<'a> {
    log: &'a dyn Log,
    book: &'a SchemaBook,
    at: TopicPartition,
    stage: SmolStr,
    task: u32,
    from: u64,
    until: u64,
    ready: VecDeque<EpochRecord>,
}

impl<'a> Journal<'a> {
    fn new(log: &'a dyn Log, spec: &StageSpec, book: &'a SchemaBook, task: u32) -> Result<Self, LogError> {
        let at = TopicPartition::new(spec.epochs_topic(), task);
        let bounds = log.bounds(&at)?;
        let (from, until) = (bounds.start, bounds.stable_end);
        Ok(Self { log, book, at, stage: spec.name.clone(), task, from, until, ready: VecDeque::new() })
    }

    fn fill(&mut self) -> Result<(), LogError> {
        while self.ready.is_empty() && self.from < self.until {
            let fetched = self.log.read(&self.at, self.from, FETCH_BYTES)?;
            for stored in fetched.records.iter().filter(|stored| stored.offset < self.until) {
                if let Some(record) = epoch_record(stored, self.book)
                    && record.stage == self.stage
                    && u32::try_from(record.task) == Ok(self.task)
                {
                    self.ready.push_back(record);
                }
            }
            self.from = if fetched.at_end { self.until } else { fetched.next_offset.max(self.from + 1) };
        }
        Ok(())
    }

    fn peek(&mut self) -> Result<Option<EpochRecord>, LogError> {
        self.fill()?;
        Ok(self.ready.front().cloned())
    }

    fn next(&mut self) -> Result<Option<EpochRecord>, LogError> {
        self.fill()?;
        Ok(self.ready.pop_front())
    }
}

enum Compared {
    Same,
    Compacted,
    Differs { what: String, found: Option<StoredRecord> },
}

/// What a task wrote, partition by partition, in its own order.
struct Written<'a> {
    log: &'a dyn Log,
    writer: String,
    /// Outputs up to here were made before the epochs that are verified.
    after: u64,
    partitions: BTreeMap<TopicPartition, Reader>,
    compacted: Vec<SmolStr>,
}

#[derive(Default)]
struct Reader {
    from: u64,
    until: u64,
    ready: VecDeque<(u64, StoredRecord)>,
}

impl<'a> Written<'a> {
    fn new(log: &'a dyn Log, spec: &StageSpec, task: u32, after: u64) -> Result<Self, LogError> {
        let (mut partitions, mut compacted) = (BTreeMap::new(), Vec::new());
        let topics = spec.outputs.iter().map(|output| output.topic.as_str());
        for name in topics.chain([topics::LATE, topics::DEAD_LETTERS]) {
            let Some(topic) = log.topic(name)? else { continue };
            for partition in 0..topic.partitions {
                let at = TopicPartition::new(name, partition);
                let bounds = log.bounds(&at)?;
                let reader = Reader { from: bounds.start, until: bounds.stable_end, ready: VecDeque::new() };
                partitions.insert(at, reader);
            }
            if topic.compacted {
                compacted.push(topic.name);
            }
        }
        Ok(Self { log, writer: format!("{}/{task}/", spec.name), after, partitions, compacted })
    }

    /// Compares an output with the next record that the task wrote to its partition.
    fn compare(&mut self, output: &Output) -> Result<Compared, LogError> {
        let sequence = Identity::of(&output.record).map_or(0, |id| id.sequence);
        let is_compacted = self.compacted.contains(&output.at.topic);
        let Some((found_sequence, found)) = self.front(&output.at)? else {
            let missing = Compared::Differs { what: "missing".to_owned(), found: None };
            return Ok(if is_compacted { Compared::Compacted } else { missing });
        };
        if found_sequence > sequence {
            let missing = Compared::Differs { what: "missing".to_owned(), found: None };
            return Ok(if is_compacted { Compared::Compacted } else { missing });
        }
        if let Some(reader) = self.partitions.get_mut(&output.at) {
            reader.ready.pop_front();
        }
        let what = if found_sequence < sequence {
            "extra"
        } else if found.record.key != output.record.key {
            "key"
        } else if body(&found.record.value) != body(&output.record.value) {
            "value"
        } else {
            return Ok(Compared::Same);
        };
        Ok(Compared::Differs { what: what.to_owned(), found: Some(found) })
    }

    fn front(&mut self, at: &TopicPartition) -> Result<Option<(u64, StoredRecord)>, LogError> {
        let Some(reader) = self.partitions.get_mut(at) else { return Ok(None) };
        while reader.ready.is_empty() && reader.from < reader.until {
            let fetched = self.log.read(at, reader.from, FETCH_BYTES)?;
            reader.from =
                if fetched.at_end { reader.until } else { fetched.next_offset.max(reader.from + 1) };
            for stored in fetched.records {
                let id = stored.record.header(ID_HEADER).map(|id| &**id).unwrap_or_default();
                let ours = std::str::from_utf8(id).ok().and_then(|id| id.strip_prefix(self.writer.as_str()));
                if let Some(sequence) = ours.and_then(|sequence| sequence.parse::<u64>().ok())
                    && sequence > self.after
                {
                    reader.ready.push_back((sequence, stored));
                }
            }
        }
        Ok(reader.ready.front().cloned())
    }

    /// What the task wrote beyond what the re-run gave.
    fn extra(
        &mut self,
        book: &SchemaBook,
        sequence: u64,
        epoch: u64,
    ) -> Result<Option<Difference>, LogError> {
        let partitions: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        for at in partitions {
            if let Some((found_sequence, stored)) = self.front(&at)?
                && found_sequence <= sequence
            {
                return Ok(Some(Difference {
                    epoch: i64::try_from(epoch).unwrap_or(i64::MAX),
                    what: "extra".to_owned(),
                    operator: None,
                    at: Some(at),
                    offset: Some(stored.offset),
                    id: text(stored.record.header(ID_HEADER)),
                    key: text(stored.record.key.as_ref()),
                    rerun: None,
                    found: decode(book, &stored.record.value),
                }));
            }
        }
        Ok(None)
    }
}

fn describe(
    spec: &StageSpec,
    book: &SchemaBook,
    record: &EpochRecord,
    output: &Output,
    what: String,
    found: Option<StoredRecord>,
) -> Difference {
    Difference {
        epoch: record.epoch,
        what,
        operator: output.node.and_then(|node| spec.nodes.get(node)).map(|node| node.id.clone()),
        at: Some(output.at.clone()),
        offset: found.as_ref().map(|stored| stored.offset),
        id: text(output.record.header(ID_HEADER)),
        key: text(output.record.key.as_ref()),
        rerun: decode(book, &output.record.value),
        found: found.and_then(|stored| decode(book, &stored.record.value)),
    }
}

fn of_epoch(record: &EpochRecord, what: String) -> Difference {
    let epoch = record.epoch;
    Difference {
        epoch,
        what,
        operator: None,
        at: None,
        offset: None,
        id: None,
        key: None,
        rerun: None,
        found: None,
    }
}

fn body(value: &Option<Bytes>) -> &[u8] {
    value.as_deref().unwrap_or_default().get(PREFIX_BYTES..).unwrap_or_default()
}

fn decode(book: &SchemaBook, value: &Option<Bytes>) -> Option<Box<Record>> {
    book.decode(value.as_deref()?).ok().map(Box::new)
}

fn text(bytes: Option<&Bytes>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}
