//! Recorded epochs, run again with some keys alone: what comes out for these must be what was recorded for them.
//!
//! A result must not depend on which other keys a task holds. So the state of other keys is left out, their records give
//! their time and nothing else, and broadcast and control records are taken whole. Outputs have other sequence numbers,
//! as those of other keys do not exist; everything else in them is the same, byte for byte.

mod begin;
mod comparer;
mod keys;
mod recorded;

use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_schemas::{EpochRecord, Record, SchemaBook};

use crate::log::{Log, LogError, TopicPartition};
use crate::outputs::Output;
use crate::plan::StageSpec;
use crate::rerun::{Inputs, difference, unsigned};
use crate::task::Task;
use crate::verify::{Journal, VerifyError, restore_error};

pub use begin::{Begin, begin_before};
pub use comparer::Comparer;
pub use keys::{KeyScope, OnlyKeys};

/// What is to be run again.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The keys.
    pub keys: Arc<OnlyKeys>,
    /// The first epoch that must be run; those between the cut before it and it are run too.
    pub from: u64,
    /// The last one.
    pub to: u64,
    /// Whether what belongs to other keys was taken out of the log.
    pub is_partial: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnlyReport {
    /// Epochs run again.
    pub epochs: u64,
    /// Input records taken by them, those of other keys too.
    pub records: u64,
    /// Outputs of the keys.
    pub outputs: u64,
    /// Outputs found the same in the log.
    pub compared: u64,
    /// Outputs that compaction has taken since.
    pub compacted: u64,
    /// The epoch of the cut that it began from; 0 is the very beginning.
    pub began_after: u64,
    /// The first difference.
    pub difference: Option<OnlyDifference>,
}

/// Where a re-run with some keys alone departs from what was recorded for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnlyDifference {
    /// The epoch.
    pub epoch: i64,
    /// What differs: `value`, `key`, `cause`, `timestamp`, `missing`, `extra`, or words on the epoch as a whole.
    pub what: String,
    /// The operator that made the record, where one did.
    pub operator: Option<SmolStr>,
    /// Where the record lies or would lie.
    pub at: Option<TopicPartition>,
    /// Its offset in the log.
    pub offset: Option<u64>,
    /// Its identity in the log.
    pub id: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// What the re-run gave.
    pub rerun: Option<Box<Record>>,
    /// What lies in the log.
    pub found: Option<Box<Record>>,
}

/// Tells which outputs of an epoch are of the keys, by sequence number: what was noted when the others were taken out.
pub trait Notes {
    /// Those of epoch `epoch`, in order. Epochs are asked for in their order.
    fn outputs_of(&mut self, epoch: u64) -> Result<Vec<u64>, LogError>;
}

/// Runs the epochs that are asked for again with the keys alone. `each` is given every epoch with its outputs.
///
/// # Errors
/// When there is no place to begin, or an epoch can not be run again.
pub fn run_again(
    log: &dyn Log,
    spec: &Arc<StageSpec>,
    book: &Arc<SchemaBook>,
    number: u32,
    asked: &Asked,
    mut each: impl FnMut(&EpochRecord, &[Output]),
) -> Result<OnlyReport, VerifyError> {
    let mut run = Run::new(log, spec, book, number, asked)?;
    while let Some((record, outputs, _)) = run.next(None)? {
        each(&record, &outputs);
    }
    Ok(run.report)
}

/// As [`run_again`], and compares what comes out with what lies in the log. Which recorded outputs are of the keys is
/// told by `notes`; without them all keys are run again beside, which must give what the epoch records say. `each` is
/// given every epoch with the sequence numbers of the outputs of the keys.
pub fn compare(
    log: &dyn Log,
    spec: &Arc<StageSpec>,
    book: &Arc<SchemaBook>,
    number: u32,
    asked: &Asked,
    mut notes: Option<&mut dyn Notes>,
    mut each: impl FnMut(&EpochRecord, &[u64]),
) -> Result<OnlyReport, VerifyError> {
    let mut run = Run::new(log, spec, book, number, asked)?;
    let mut comparer = Comparer::new(log, spec, book, number, run.begin.sequence())?;
    let mut whole = match &notes {
        Some(_) => None,
        None => Some(run.task(KeyScope::Noted(Arc::clone(&asked.keys)))?),
    };
    while let Some((record, outputs, noted)) = run.next(whole.as_mut())? {
        let wanted = match (&mut notes, noted) {
            (Some(notes), _) => notes.outputs_of(unsigned(record.epoch))?,
            (None, Noted::Same(noted)) => noted,
            (None, Noted::Differs(what)) => {
                run.report.difference = Some(OnlyDifference { epoch: record.epoch, what, ..<_>::default() });
                return Ok(run.report);
            }
        };
        each(&record, &wanted);
        let difference = comparer.compare(&record, &outputs, &wanted)?;
        (run.report.compared, run.report.compacted) = (comparer.compared(), comparer.compacted());
        if difference.is_some() {
            run.report.difference = difference;
            return Ok(run.report);
        }
    }
    Ok(run.report)
}

/// How all keys, run again beside, compare with the epoch's record.
enum Noted {
    /// The same; these outputs are of the keys.
    Same(Vec<u64>),
    Differs(String),
}

struct Run<'a> {
    log: &'a dyn Log,
    spec: &'a Arc<StageSpec>,
    book: &'a Arc<SchemaBook>,
    number: u32,
    begin: Begin,
    until: u64,
    journal: Journal<'a>,
    task: Task,
    inputs: Inputs,
    report: OnlyReport,
}

impl<'a> Run<'a> {
    fn new(
        log: &'a dyn Log,
        spec: &'a Arc<StageSpec>,
        book: &'a Arc<SchemaBook>,
        number: u32,
        asked: &Asked,
    ) -> Result<Self, VerifyError> {
        let begin = begin_before(log, spec, book, number, asked.from, asked.is_partial)?;
        let scope = KeyScope::Only { keys: Arc::clone(&asked.keys), is_partial: asked.is_partial };
        let task = restored(log, spec, book, number, &begin, scope)?;
        Ok(Self {
            log,
            spec,
            book,
            number,
            until: asked.to,
            journal: Journal::new(log, spec, book, number)?,
            inputs: Inputs::of(&task),
            report: OnlyReport { began_after: begin.after, ..OnlyReport::default() },
            task,
            begin,
        })
    }

    fn task(&self, scope: KeyScope) -> Result<Task, VerifyError> {
        restored(self.log, self.spec, self.book, self.number, &self.begin, scope)
    }

    /// Runs the next epoch again, and in `whole` with all keys.
    fn next(
        &mut self,
        whole: Option<&mut Task>,
    ) -> Result<Option<(EpochRecord, Vec<Output>, Noted)>, VerifyError> {
        let record = loop {
            match self.journal.next_record()? {
                Some(record) if unsigned(record.epoch) <= self.task.epoch() => {}
                Some(record) if unsigned(record.epoch) <= self.until => break record,
                _ => return Ok(None),
            }
        };
        let failed = |error| VerifyError::Rerun { stage: self.spec.name.clone(), task: self.number, error };
        let inputs = self.inputs.wait_for(self.log, &self.task, &record).map_err(failed)?;
        let mut noted = Noted::Same(Vec::new());
        if let Some(whole) = whole {
            let closed = whole.rerun(&record, inputs.clone()).map_err(failed)?;
            noted = match difference(&record, &closed, true) {
                Some(what) => Noted::Differs(format!("all keys give {what}")),
                None => Noted::Same(whole.take_noted()),
            };
        }
        let closed = self.task.rerun(&record, inputs).map_err(failed)?;
        self.report.epochs += 1;
        self.report.records += record.inputs.iter().map(|input| unsigned(input.records)).sum::<u64>();
        self.report.outputs += closed.outputs.len() as u64;
        Ok(Some((record, closed.outputs, noted)))
    }
}

fn restored(
    log: &dyn Log,
    spec: &Arc<StageSpec>,
    book: &Arc<SchemaBook>,
    number: u32,
    begin: &Begin,
    scope: KeyScope,
) -> Result<Task, VerifyError> {
    let changelog = begin.changelog(log, spec, book, number)?;
    let task = Task::restored_in(Arc::clone(spec), number, Arc::clone(book), &changelog, scope);
    task.map_err(|error| restore_error(spec, number, error))
}
