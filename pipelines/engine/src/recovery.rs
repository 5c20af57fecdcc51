//! Recovery: restore the last cut, run the recorded epochs after it again, compare, go on.
//!
//! It is done in small pieces, so that a worker goes on with its other tasks meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_schemas::{EpochRecord, Record, SchemaBook};

use crate::cut::{Changelog, CutError};
use crate::log::{CommittedOffset, Log, LogError, StoredRecord, TopicPartition};
use crate::mark::Mark;
use crate::plan::StageSpec;
use crate::rerun::{Inputs, RerunError, difference, unsigned};
use crate::task::{RestoreError, Task};

/// Bytes read from the changelog or the epoch records in one piece.
const FETCH_BYTES: usize = 1 << 20;

/// Why a task can not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The changelog holds no usable state.
    #[error("{stage}/{task}: {error}")]
    Restore {
        /// The stage.
        stage: String,
        /// The task.
        task: u32,
        /// Why.
        error: RestoreError,
    },
    /// A recorded epoch can not be run again.
    #[error("{stage}/{task}: {error}")]
    Rerun {
        /// The stage.
        stage: String,
        /// The task.
        task: u32,
        /// Why.
        error: RerunError,
    },
    /// The same build and pipeline file gave other bytes: this must not happen.
    #[error(
        "{stage}/{task}: epoch {epoch} run again gives {what}. Build and pipeline file are those recorded, so state or \
         inputs were altered, or an operator is not deterministic; `tidewire verify` names the first difference"
    )]
    Diverged {
        /// The stage.
        stage: String,
        /// The task.
        task: u32,
        /// The first epoch that differs.
        epoch: i64,
        /// How it differs.
        what: String,
    },
    /// Another build or pipeline file gives other bytes for epochs that were already committed.
    #[error(
        "{stage}/{task}: the build or pipeline file changed, and epoch {epoch} run again gives {what}. \
         Ways out: start the recorded build once with `tidewire run --recover-only`, then this one{}",
        if *.makes_orders { "" } else { "; or `tidewire run --accept-change`, which takes the new build's state" }
    )]
    Changed {
        /// The stage.
        stage: String,
        /// The task.
        task: u32,
        /// The first epoch that differs.
        epoch: i64,
        /// How it differs.
        what: String,
        /// Whether the stage makes orders, so that the change can not be waved through.
        makes_orders: bool,
    },
    /// The journal does not reach the committed epoch.
    #[error(
        "{stage}/{task}: epoch {committed} is committed, but the epoch records end with {found}: \
         the topic of epoch records was truncated; restore it, or reprocess into fresh topics"
    )]
    MissingEpochs {
        /// The stage.
        stage: String,
        /// The task.
        task: u32,
        /// The committed epoch.
        committed: u64,
        /// The last one found.
        found: u64,
    },
    /// The group's committed position does not name an epoch.
    #[error(
        "{stage}/{task}: the committed position's metadata is {metadata:?}, not an epoch: \
         the consumer group {group} is used by something else"
    )]
    ForeignCommit {
        /// The stage.
        stage: String,
        /// The task.
        task: u32,
        /// The group.
        group: String,
        /// What was found.
        metadata: String,
    },
}

/// How recovery deals with a changed build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryOptions {
    /// Go on though recorded outputs differ, for stages that make no orders.
    pub accept_change: bool,
}

/// What recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Changelog records read.
    pub changelog_records: u64,
    /// Epochs run again.
    pub epochs: u64,
    /// Whether the build or pipeline file is another, so that a new cut is to be taken at once.
    pub changed: bool,
}

/// How far recovery has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// Offsets of the changelog that were read.
    pub changelog_done: u64,
    /// Offsets of the changelog to be read; 0 until that is known.
    pub changelog_all: u64,
    /// Epochs run again.
    pub epochs_done: u64,
    /// Epochs to be run again; 0 until the state is restored.
    pub epochs_all: u64,
}

enum Phase {
    Changelog { changelog: Box<Changelog>, from: u64, until: u64 },
    Rerun { task: Box<Task>, from: u64, until: u64, records: VecDeque<EpochRecord>, inputs: Inputs },
}

/// A task on its way back.
pub struct Recovery {
    spec: Arc<StageSpec>,
    group: String,
    number: u32,
    book: Arc<SchemaBook>,
    options: RecoveryOptions,
    /// The name that the recovered task will write under.
    writer: SmolStr,
    committed: u64,
    /// Whether the caller said which epoch is the last one committed.
    told: bool,
    /// What the committed position says.
    mark: Option<Mark>,
    phase: Option<Phase>,
    report: RecoveryReport,
    progress: RecoveryProgress,
    went_on: bool,
}

impl Recovery {
    /// Begins: nothing is read yet.
    pub fn new(spec: Arc<StageSpec>, number: u32, book: Arc<SchemaBook>, options: RecoveryOptions) -> Self {
        let group = spec.group();
        Self {
            spec,
            group,
            number,
            book,
            options,
            writer: SmolStr::default(),
            committed: 0,
            told: false,
            mark: None,
            phase: None,
            report: RecoveryReport::default(),
            progress: RecoveryProgress::default(),
            went_on: false,
        }
    }

    /// Goes on as that writer: whoever else wrote last and did not let go is fenced.
    pub fn as_writer(mut self, writer: &str) -> Self {
        self.writer = writer.into();
        self
    }

    /// Begins anew, after the log was out of reach.
    pub fn restart(&mut self) {
        (self.phase, self.report, self.progress) =
            (None, RecoveryReport::default(), RecoveryProgress::default());
    }

    /// Whether the last piece came further; if not, wait for the log before the next.
    pub fn went_on(&self) -> bool {
        self.went_on
    }

    /// Goes by this as the last epoch committed, instead of by what the group has committed: for runs that keep account
    /// of it themselves.
    pub fn to_epoch(mut self, committed: u64) -> Self {
        (self.committed, self.told) = (committed, true);
        self
    }

    /// Whether the state is restored, and recorded epochs are being run again.
    pub fn reruns(&self) -> bool {
        matches!(self.phase, Some(Phase::Rerun { .. }))
    }

    /// What was done so far.
    pub fn report(&self) -> RecoveryReport {
        self.report
    }

    /// How far it has come.
    pub fn progress(&self) -> RecoveryProgress {
        RecoveryProgress { epochs_done: self.report.epochs, ..self.progress }
    }

    /// Goes on by one piece; returns the task when it stands where it was committed.
    ///
    /// # Errors
    /// Once it failed, recovery is over.
    pub fn advance(&mut self, log: &dyn Log) -> Result<Option<Task>, RecoveryError> {
        self.went_on = true;
        match self.phase.take() {
            None => {
                self.phase = self.begin(log)?;
                Ok(None)
            }
            Some(Phase::Changelog { changelog, from, until }) => {
                self.phase = Some(self.read_changelog(log, changelog, from, until)?);
                Ok(None)
            }
            Some(Phase::Rerun { task, from, until, records, inputs }) => {
                self.rerun(log, task, from, until, records, inputs)
            }
        }
    }

    fn begin(&mut self, log: &dyn Log) -> Result<Option<Phase>, RecoveryError> {
        let Some(driving) = self.spec.driving() else {
            return Err(
                self.restore_error(RestoreError::Settings("the stage has no driving input".to_owned()))
            );
        };
        let at = TopicPartition::new(driving.topic.clone(), self.number);
        if !self.told && !self.ask_group(log, &at)? {
            return Ok(None);
        }
        let bounds = log.bounds(&self.changelog_at())?;
        // A transaction still open there may be a zombie's: what it wrote must be settled first.
        if bounds.stable_end < bounds.high_watermark {
            self.went_on = false;
            return Ok(None);
        }
        self.progress.changelog_all = bounds.high_watermark - bounds.start;
        let changelog = Box::new(Changelog::default());
        Ok(Some(Phase::Changelog { changelog, from: bounds.start, until: bounds.high_watermark }))
    }

    /// Learns from the group which epoch is committed, and by whom; false while that is not certain.
    fn ask_group(&mut self, log: &dyn Log, at: &TopicPartition) -> Result<bool, RecoveryError> {
        let committed = match log.committed(&self.group, at) {
            Ok(committed) => committed,
            // A zombie's transaction is still open. It is settled once the zombie is fenced, or by its time-out.
            Err(LogError::Unstable { .. }) => {
                let open = log.committed_unstable(&self.group, at)?;
                self.fence(log, self.mark(open)?.as_ref())?;
                self.went_on = false;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let mark = self.mark(committed)?;
        self.fence(log, mark.as_ref())?;
        self.committed = mark.as_ref().map_or(0, |mark| mark.epoch);
        self.mark = mark;
        Ok(true)
    }

    fn mark(&self, committed: Option<CommittedOffset>) -> Result<Option<Mark>, RecoveryError> {
        let Some(committed) = committed else { return Ok(None) };
        let mark = committed.metadata.parse().map_err(|()| RecoveryError::ForeignCommit {
            stage: self.spec.name.to_string(),
            task: self.number,
            group: self.group.clone(),
            metadata: committed.metadata.clone(),
        })?;
        Ok(Some(mark))
    }

    /// Fences the last writer, unless it let go of the task: it may have a transaction open that holds up all readers.
    fn fence(&self, log: &dyn Log, mark: Option<&Mark>) -> Result<(), LogError> {
        match mark.and_then(|mark| mark.writer_to_fence(&self.writer)) {
            Some(writer) if !self.writer.is_empty() => log.fence(writer, &self.spec.scope()),
            _ => Ok(()),
        }
    }

    fn read_changelog(
        &mut self,
        log: &dyn Log,
        mut changelog: Box<Changelog>,
        from: u64,
        until: u64,
    ) -> Result<Phase, RecoveryError> {
        if from < until {
            let fetched = log.fetch(&self.changelog_at(), from, FETCH_BYTES)?;
            for stored in fetched.records {
                changelog.take(stored, &self.book).map_err(|error| self.cut_error(error))?;
            }
            self.report.changelog_records = changelog.records();
            let on = read_on(log, &self.changelog_at(), fetched.at_end, fetched.next_offset, until)?;
            self.went_on = on > from;
            self.progress.changelog_done += on - from;
            return Ok(Phase::Changelog { changelog, from: on, until });
        }
        let task = Task::restored(Arc::clone(&self.spec), self.number, Arc::clone(&self.book), &changelog);
        let task = Box::new(task.map_err(|error| self.restore_error(error))?);
        if let Some(marker) = changelog.marker() {
            self.report.changed |= self.is_changed(&marker.build_digest, &marker.pipeline_digest);
        }
        let bounds = log.bounds(&self.epochs_at())?;
        let from =
            changelog.marker().map_or(bounds.start, |marker| unsigned(marker.epochs_from).max(bounds.start));
        self.progress.epochs_all = self.committed.saturating_sub(task.epoch());
        let inputs = Inputs::of(&task);
        let records = VecDeque::new();
        Ok(Phase::Rerun { task, from, until: bounds.high_watermark, records, inputs })
    }

    fn rerun(
        &mut self,
        log: &dyn Log,
        mut task: Box<Task>,
        from: u64,
        until: u64,
        mut records: VecDeque<EpochRecord>,
        mut inputs: Inputs,
    ) -> Result<Option<Task>, RecoveryError> {
        if task.epoch() >= self.committed {
            return Ok(Some(*task));
        }
        if let Some(record) = records.front() {
            self.went_on = self.rerun_one(log, &mut task, record, &mut inputs)?;
            if self.went_on {
                records.pop_front();
            }
            self.phase = Some(Phase::Rerun { task, from, until, records, inputs });
            return Ok(None);
        }
        if from >= until {
            return Err(RecoveryError::MissingEpochs {
                stage: self.spec.name.to_string(),
                task: self.number,
                committed: self.committed,
                found: task.epoch(),
            });
        }
        let fetched = log.fetch(&self.epochs_at(), from, FETCH_BYTES)?;
        for stored in &fetched.records {
            if let Some(record) = epoch_record(stored, &self.book)
                && record.stage == self.spec.name
                && u32::try_from(record.task) == Ok(self.number)
                && unsigned(record.epoch) > task.epoch()
            {
                records.push_back(record);
            }
        }
        let on = read_on(log, &self.epochs_at(), fetched.at_end, fetched.next_offset, until)?;
        self.went_on = on > from;
        if !self.went_on && fetched.at_end {
            // What is committed must come, but something is open before it: by that writer, most likely.
            self.fence(log, self.mark.as_ref())?;
        }
        self.phase = Some(Phase::Rerun { task, from: on, until, records, inputs });
        Ok(None)
    }

    /// Runs one epoch again; false while its inputs are not at hand yet.
    fn rerun_one(
        &mut self,
        log: &dyn Log,
        task: &mut Task,
        record: &EpochRecord,
        inputs: &mut Inputs,
    ) -> Result<bool, RecoveryError> {
        let gathered = match inputs.gather(log, task, record) {
            Ok(None) => return Ok(false),
            Ok(Some(gathered)) => Ok(gathered),
            Err(error) => Err(error),
        };
        let changed = self.is_changed(&record.build_digest, &record.pipeline_digest);
        self.report.changed |= changed;
        self.report.epochs += 1;
        let accept = self.options.accept_change && changed && !self.spec.makes_orders;
        let rerun = gathered.and_then(|inputs| task.rerun(record, inputs));
        let what = match rerun {
            Ok(closed) => difference(record, &closed, !self.report.changed),
            Err(RerunError::Failed { error, .. }) if changed && !accept => Some(error.to_string()),
            // An outage says nothing of the epoch: it passes.
            Err(RerunError::Log(error @ (LogError::Store { .. } | LogError::Unavailable { .. }))) => {
                return Err(error.into());
            }
            Err(error) => {
                return Err(RecoveryError::Rerun {
                    stage: self.spec.name.to_string(),
                    task: self.number,
                    error,
                });
            }
        };
        let Some(what) = what else { return Ok(true) };
        if accept {
            task.continue_after(unsigned(record.closing_sequence));
            return Ok(true);
        }
        let (stage, epoch) = (self.spec.name.to_string(), record.epoch);
        Err(if self.report.changed {
            let makes_orders = self.spec.makes_orders;
            RecoveryError::Changed { stage, task: self.number, epoch, what, makes_orders }
        } else {
            RecoveryError::Diverged { stage, task: self.number, epoch, what }
        })
    }

    fn is_changed(&self, build: &[u8], pipeline: &[u8]) -> bool {
        build != self.spec.build_digest || pipeline != self.spec.pipeline_digest
    }

    fn changelog_at(&self) -> TopicPartition {
        TopicPartition::new(self.spec.changelog_topic(), self.number)
    }

    fn epochs_at(&self) -> TopicPartition {
        TopicPartition::new(self.spec.epochs_topic(), self.number)
    }

    fn cut_error(&self, error: CutError) -> RecoveryError {
        self.restore_error(RestoreError::Cut(error))
    }

    fn restore_error(&self, error: RestoreError) -> RecoveryError {
        RecoveryError::Restore { stage: self.spec.name.to_string(), task: self.number, error }
    }
}

/// Where reading up to `until` goes on after a read. The tail may be a control record, which is no record: the end is
/// reached, not a certain offset. But there may be more behind a transaction that is still open, of another stage in
/// the topic of epoch records: then the same place is read again until it is settled.
fn read_on(
    log: &dyn Log,
    at: &TopicPartition,
    at_end: bool,
    next_offset: u64,
    until: u64,
) -> Result<u64, LogError> {
    if at_end && log.bounds(at)?.stable_end >= until { Ok(until) } else { Ok(next_offset) }
}

/// The epoch record in a record of the journal.
pub fn epoch_record(stored: &StoredRecord, book: &SchemaBook) -> Option<EpochRecord> {
    match book.decode(stored.record.value.as_deref()?).ok()? {
        Record::EpochRecord(record) => Some(*record),
        _ => None,
    }
}
