//! Verification: recorded epochs are run again, and every byte that comes out is compared with what lies in the log.

mod cuts;
mod first;
mod journal;
mod seek;
mod stretches;
mod written;

use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_schemas::{EpochRecord, Record, SchemaBook};

use crate::fault::TaskError;
use crate::log::{Log, LogError, TopicPartition};
use crate::plan::StageSpec;
use crate::rerun::{Inputs, RerunError, difference, unsigned};
use crate::task::{Closed, RestoreError, Task};

pub use cuts::{Begin, Cut, cuts};
pub(crate) use cuts::{CutReader, changelog_to};
pub use journal::{Edge, EpochName, Epochs, Journal, Kept, Range, RangeError, epochs_of};
pub use seek::seek;
pub use stretches::{Rerun, Sample, Stretch, Stretches, rerun_epochs};

use written::{Compared, Written};

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
        "{stage}/{task}: the epochs kept begin with {first}, and no cut in the changelog reaches what is asked for: what \
         ran before is beyond replay_retention; {}",
        way_out(*earliest)
    )]
    NoStart {
        /// The stage.
        stage: SmolStr,
        /// The task.
        task: u32,
        /// The first epoch kept.
        first: i64,
        /// The epoch of the earliest cut that can be used.
        earliest: Option<u64>,
    },
}

/// What verification found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifyReport {
    /// Epochs run again and compared.
    pub epochs: u64,
    /// Epochs run again on the way to the first one that is compared.
    pub not_compared: u64,
    /// Input records taken by the epochs that were compared.
    pub records: u64,
    /// Output records compared, byte by byte.
    pub compared: u64,
    /// Outputs that compaction has taken since: not compared.
    pub compacted: u64,
    /// Outputs that retention has deleted since: not compared.
    pub deleted: u64,
    /// The epoch of the cut that it began from; 0 is the very beginning.
    pub began_after: u64,
    /// The last epoch that was run again.
    pub last: Option<EpochName>,
    /// Stream time before the first and after the last epoch compared, in milliseconds: how much event time was verified.
    pub span_ms: Option<(i64, i64)>,
    /// Whether it was told to stop before the end.
    pub stopped: bool,
    /// The first difference.
    pub difference: Option<Difference>,
}

/// Where a re-run departs from what was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The epoch.
    pub epoch: i64,
    /// What differs: `value`, `key`, `cause`, `timestamp`, `place`, `missing`, `extra`, or words on the epoch as a whole.
    pub what: String,
    /// The operator that made the record, where one did; of several that differ for one cause, the one furthest up.
    pub operator: Option<SmolStr>,
    /// Operators that feed it and whose own records no topic shows: the difference may have begun there.
    pub upstream: Vec<SmolStr>,
    /// Where the record lies or would lie.
    pub at: Option<TopicPartition>,
    /// Its offset in the log.
    pub offset: Option<u64>,
    /// Its identity.
    pub id: Option<String>,
    /// Its cause: what the operator had taken.
    pub cause: Option<String>,
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
    verify_epochs(log, spec, book, number, None, None, &mut |report| {
        on_progress(report.epochs);
        true
    })
}

/// Verifies the epochs of a task from `from` to `to`, or as many as can be. Those between the cut that it begins from and
/// `from` are run again without being compared. `on_epoch` is told what was done after each epoch, and says whether to go on.
pub fn verify_epochs(
    log: &dyn Log,
    spec: &Arc<StageSpec>,
    book: &Arc<SchemaBook>,
    number: u32,
    from: Option<u64>,
    to: Option<u64>,
    on_epoch: &mut dyn FnMut(&VerifyReport) -> bool,
) -> Result<VerifyReport, VerifyError> {
    let mut journal = Journal::new(log, spec, book, number)?;
    let Some(first) = journal.peek()?.map(|record| unsigned(record.epoch)) else {
        return Ok(VerifyReport::default());
    };
    let begin = from.map_or(Begin::Earliest(first), Begin::Before);
    let (mut task, epochs_from) = cuts::start(log, spec, book, number, first, begin)?;
    journal.skip_to_offset(epochs_from);
    let mut run = Run {
        log,
        journal: &mut journal,
        written: None,
        from: from.unwrap_or(0),
        to: to.unwrap_or(u64::MAX),
    };
    run.run(&mut task, on_epoch)
}

/// Whether the log is only away, so that the same may go well later.
pub fn is_outage(error: &LogError) -> bool {
    matches!(error, LogError::Store { .. } | LogError::Unavailable { .. })
}

fn way_out(earliest: Option<u64>) -> String {
    match earliest {
        Some(cut) => {
            format!("the earliest usable cut is that of epoch {cut}: begin with epoch {} or later", cut + 1)
        }
        None => "the changelog holds no usable cut".to_owned(),
    }
}

pub(crate) fn restore_error(spec: &StageSpec, task: u32, error: RestoreError) -> VerifyError {
    VerifyError::Restore { stage: spec.name.clone(), task, error }
}

/// One pass over epochs of a task.
struct Run<'r, 'a> {
    log: &'a dyn Log,
    journal: &'r mut Journal<'a>,
    /// What the task wrote after `from`; opened when it is reached.
    written: Option<Written<'a>>,
    from: u64,
    to: u64,
}

impl Run<'_, '_> {
    fn run(
        &mut self,
        task: &mut Task,
        on_epoch: &mut dyn FnMut(&VerifyReport) -> bool,
    ) -> Result<VerifyReport, VerifyError> {
        let mut report = VerifyReport { began_after: task.epoch(), ..VerifyReport::default() };
        let mut inputs = Inputs::of(task);
        let mut stream_ms = task.tide().stream_time().map(tidewire_schemas::EventTime::as_ms);
        while let Some(record) = self.next(task.epoch())? {
            let closed = match rerun(self.log, task, &mut inputs, &record) {
                Ok(closed) => closed,
                Err(VerifyError::Rerun {
                    error: RerunError::Failed { epoch, error: TaskError::Fault(fault) },
                    ..
                }) if unsigned(epoch) >= self.from => {
                    report.difference = Some(first::failed(task.spec(), epoch, *fault));
                    return Ok(report);
                }
                Err(error) => return Err(error),
            };
            report.last = Some(EpochName::of(&record));
            let before_ms = std::mem::replace(&mut stream_ms, record.stream_time_ms);
            if unsigned(record.epoch) < self.from {
                report.not_compared += 1;
                // Numbered as they were recorded: a difference before the range must not look like one within.
                task.continue_after(unsigned(record.closing_sequence));
            } else {
                report.epochs += 1;
                report.records += record.inputs.iter().map(|input| unsigned(input.records)).sum::<u64>();
                if let Some(now_ms) = record.stream_time_ms {
                    let begun_ms =
                        report.span_ms.map_or(before_ms.unwrap_or(now_ms), |(begun_ms, _)| begun_ms);
                    report.span_ms = Some((begun_ms, now_ms));
                }
                report.difference = self.compare(task, &record, &closed, &mut report)?;
                if report.difference.is_some() {
                    return Ok(report);
                }
            }
            if !on_epoch(&report) {
                report.stopped = true;
                return Ok(report);
            }
        }
        if let Some(written) = &mut self.written
            && let Some(found) = written.extra(task.sequence())?
        {
            let epoch = i64::try_from(task.epoch()).unwrap_or(i64::MAX);
            report.difference = Some(first::extra(self.journal.book(), epoch, found));
        }
        Ok(report)
    }

    /// The next record after `epoch`, up to the end of the range.
    fn next(&mut self, epoch: u64) -> Result<Option<EpochRecord>, LogError> {
        while let Some(record) = self.journal.peek()? {
            let found = unsigned(record.epoch);
            if found > self.to {
                return Ok(None);
            }
            let record = self.journal.next_record()?;
            if found > epoch {
                return Ok(record);
            }
        }
        Ok(None)
    }

    fn compare(
        &mut self,
        task: &Task,
        record: &EpochRecord,
        closed: &Closed,
        report: &mut VerifyReport,
    ) -> Result<Option<Difference>, VerifyError> {
        let (spec, number, book) = (task.spec(), task.number(), self.journal.book());
        let written = match &mut self.written {
            Some(written) => written,
            None => {
                let before = task.sequence() - closed.outputs.len() as u64;
                self.written.insert(Written::new(self.log, spec, number, before)?)
            }
        };
        let mut differing = first::Differing::default();
        for output in &closed.outputs {
            match written.compare(output)? {
                Compared::Same => report.compared += 1,
                Compared::Compacted => report.compacted += 1,
                Compared::Deleted => report.deleted += 1,
                Compared::Differs { what, found } => differing.add(output, what, found),
            }
        }
        if let Some(difference) = differing.first(spec, book, record) {
            return Ok(Some(difference));
        }
        let Some(what) = difference(record, closed, true) else { return Ok(None) };
        // More was written than came out: the record itself says more than a count.
        if let Some(found) = written.extra(unsigned(record.closing_sequence))? {
            return Ok(Some(first::extra(book, record.epoch, found)));
        }
        let entries = closed.changelog.as_deref().unwrap_or_default();
        let owner = cuts::first_other_entry(self.log, spec, book, number, record.epoch, entries)?;
        Ok(Some(first::of_epoch(spec, record, what, owner)))
    }
}

/// Runs a recorded epoch again.
fn rerun(
    log: &dyn Log,
    task: &mut Task,
    inputs: &mut Inputs,
    record: &EpochRecord,
) -> Result<Closed, VerifyError> {
    let done = inputs.wait_for(log, task, record).and_then(|inputs| task.rerun(record, inputs));
    done.map_err(|error| match error {
        RerunError::Log(error) if is_outage(&error) => VerifyError::Log(error),
        error => VerifyError::Rerun { stage: task.spec().name.clone(), task: task.number(), error },
    })
}
