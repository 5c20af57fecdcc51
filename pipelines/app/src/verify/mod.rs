//! Verification of many tasks at once: which epochs of which tasks, on how many threads, and what came of it.

mod fields;
mod follow;
mod tally;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use tidewire_engine::log::Log;
use tidewire_engine::plan::StageSpec;
use tidewire_engine::verify::{
    Range, RangeError, Sample, Stretches, VerifyError, VerifyReport, epochs_of, is_outage, verify_epochs,
};
use tidewire_schemas::SchemaBook;

pub use fields::{FieldDifference, began_at, fields};
pub use follow::{Event, follow};
pub use tally::{Summary, Tally};

/// What is verified, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which epochs of each task.
    pub range: Range,
    /// Which stretches of them; without it all epochs in one go.
    pub sample: Option<Sample>,
    /// Threads.
    pub workers: NonZeroUsize,
}

/// A task to be verified.
#[derive(Clone)]
pub struct Job {
    /// The stage.
    pub stage: Arc<StageSpec>,
    /// The task's number.
    pub task: u32,
    /// The epochs of it.
    pub epochs: JobEpochs,
}

/// The epochs of a task that are to be verified.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEpochs {
    /// From the first to the last; without a first one, as early as can be.
    Some(Option<u64>, u64),
    /// Nothing was recorded.
    None,
    /// None lies in the range.
    OutOfRange(RangeError),
    /// The range begins before what is kept.
    NotKept(RangeError),
}

impl Job {
    /// How many epochs there are to run, but for those on the way to the first.
    pub fn count(&self) -> u64 {
        match self.epochs {
            JobEpochs::Some(from, to) => to.saturating_sub(from.unwrap_or(1).saturating_sub(1)),
            _ => 0,
        }
    }
}

/// What is told while tasks are verified, from their threads.
pub trait Progress: Sync {
    /// An epoch was run: what its task's report says now, and how many records the epoch took.
    fn epoch(&self, report: &VerifyReport, records: u64);
}

/// Finds the epochs of each task.
///
/// # Errors
/// When the log fails, or no task has an epoch in the range.
pub fn jobs(
    log: &dyn Log,
    book: &SchemaBook,
    tasks: &[(Arc<StageSpec>, u32)],
    range: &Range,
) -> anyhow::Result<Vec<Job>> {
    let mut jobs = Vec::with_capacity(tasks.len());
    for (stage, task) in tasks {
        let epochs = match epochs_of(log, stage, book, *task, range) {
            Ok(Some(found)) => JobEpochs::Some(found.from, found.to),
            Ok(None) => JobEpochs::None,
            Err(RangeError::Log(error)) => return Err(error.into()),
            Err(error @ RangeError::NotKept { .. }) => JobEpochs::NotKept(error),
            Err(error) => JobEpochs::OutOfRange(error),
        };
        jobs.push(Job { stage: Arc::clone(stage), task: *task, epochs });
    }
    let any = jobs.iter().any(|job| matches!(job.epochs, JobEpochs::Some(..) | JobEpochs::None));
    if !any {
        let errors = jobs.iter().filter_map(|job| match &job.epochs {
            JobEpochs::OutOfRange(error) | JobEpochs::NotKept(error) => Some(error.to_string()),
            _ => None,
        });
        bail!("no task has an epoch in the range:\n  {}", errors.collect::<Vec<_>>().join("\n  "));
    }
    Ok(jobs)
}

/// Verifies all jobs on `options.workers` threads. The result has their order, and does not depend on the threads.
pub fn verify(
    log: &dyn Log,
    book: &Arc<SchemaBook>,
    jobs: &[Job],
    options: &Options,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Vec<Tally> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Tally>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..options.workers.get().min(jobs.len()) {
            scope.spawn(|| {
                while let Some((job, done)) = {
                    let place = next.fetch_add(1, Ordering::SeqCst);
                    jobs.get(place).zip(done.get(place))
                } {
                    let tally = one(log, book, job, options, progress, stop);
                    *done.lock().unwrap_or_else(PoisonError::into_inner) = Some(tally);
                }
            });
        }
    });
    let tallies = done.into_iter().zip(jobs);
    tallies
        .map(|(done, job)| {
            let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
            done.unwrap_or_else(|| Tally::new(Arc::clone(&job.stage), job.task))
        })
        .collect()
}

fn one(
    log: &dyn Log,
    book: &Arc<SchemaBook>,
    job: &Job,
    options: &Options,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Tally {
    let mut tally = Tally::new(Arc::clone(&job.stage), job.task);
    let (from, to) = match &job.epochs {
        JobEpochs::Some(from, to) => (*from, *to),
        JobEpochs::None => return tally,
        JobEpochs::OutOfRange(error) => {
            tally.note = Some(error.to_string());
            return tally;
        }
        JobEpochs::NotKept(error) => {
            tally.failed(error.to_string());
            return tally;
        }
    };
    let mut records = 0;
    let mut on_epoch = |report: &VerifyReport| {
        progress.epoch(report, report.records.saturating_sub(records));
        records = report.records;
        !stop.load(Ordering::SeqCst)
    };
    let Some(sample) = options.sample else {
        match verify_epochs(log, &job.stage, book, job.task, from, Some(to), &mut on_epoch) {
            Ok(report) => tally.take(&report),
            Err(error) => tally.failed(error.to_string()),
        }
        return tally;
    };
    let epochs = from.unwrap_or(0)..=to;
    let stretches = Stretches::new(log, &job.stage, book, job.task, sample, epochs, false);
    let mut stretches = match stretches {
        Ok(stretches) => stretches,
        Err(error) => {
            tally.failed(error.to_string());
            return tally;
        }
    };
    while !stop.load(Ordering::SeqCst) {
        let mut records = 0;
        let mut on_epoch = |report: &VerifyReport| {
            progress.epoch(report, report.records.saturating_sub(records));
            records = report.records;
            !stop.load(Ordering::SeqCst)
        };
        match stretches.next(&mut on_epoch) {
            Ok(Some(stretch)) => tally.take_stretch(&stretch),
            Ok(None) => return tally,
            Err(VerifyError::Log(error)) if is_outage(&error) => {
                tally.failed(error.to_string());
                return tally;
            }
            Err(error) => tally.failed(error.to_string()),
        }
    }
    tally.stopped = true;
    tally
}
