//! Synchronised running: all stages under one virtual time, which is also the stamp.
//!
//! Time goes on in rounds up to a horizon. Within a round the stages run in the order of their data flow; tasks of a
//! stage that is in no cycle know nothing of each other and may run in parallel, while the stages of a cycle run as
//! one serial part, where the least (time, stage, task) goes next. What comes out is put in the order (time, stage,
//! task, sequence) before it is written, so the result is a function of inputs and pipeline alone: not of the number
//! of threads, nor of where the horizons lie.

mod graph;
mod placing;
mod ranges;
mod serial;

use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tidewire_schemas::{EpochKind, EventTime, NotRegistered, SchemaBook};

use crate::fault::{Skips, TaskError};
use crate::intake::{Batch, Source};
use crate::log::{Fetched, Log, LogError, StoredRecord, TopicPartition};
use crate::outputs::Output;
use crate::plan::{Caps, OnError, StageSpec};
use crate::recovery::{Recovery, RecoveryError, RecoveryOptions};
use crate::task::{Closed, Closing, Stamp, Task};

pub use graph::{components, is_cycle};
pub use placing::{Offsets, Placed, deliver, place_output};
pub use ranges::{OffsetRange, Ranges};
pub use serial::Serial;

/// How long to wait for a log that has not given yet what recovery needs.
const RECOVERY_WAIT: Duration = Duration::from_millis(20);
/// How often it waits so for what a run before left open to be settled: a minute.
const MOST_WAITS: u32 = 3_000;

/// Why a synchronised run stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// A task could not be made.
    #[error("stage {stage}: {error}")]
    Settings {
        /// The stage.
        stage: SmolStr,
        /// What is wrong.
        error: String,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An operator failed.
    #[error("stage {stage}: {error}")]
    Task {
        /// The stage.
        stage: SmolStr,
        /// What failed.
        error: TaskError,
    },
    /// A task could not be brought back to its last commit after an operator failed.
    #[error("stage {stage}: {error}")]
    Recovery {
        /// The stage.
        stage: SmolStr,
        /// Why.
        error: Box<RecoveryError>,
    },
    /// A schema is missing.
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
}

/// What a task's round gave: outputs that go on, and the epochs that describe it.
#[derive(Debug, Default)]
pub struct RoundPart {
    /// Place of the stage in the pipeline.
    pub stage: usize,
    /// The task.
    pub task: u32,
    /// Outputs in the order they were made.
    pub outputs: Vec<Output>,
    /// Closed epochs, without their outputs.
    pub closed: Vec<Closed>,
    /// Input records taken.
    pub records: u64,
    /// Records and timers that operators failed at; they are dead-lettered.
    pub faults: u64,
    /// Where the task stands in its driving input, and the last epoch; none if no epoch was closed.
    pub position: Option<(TopicPartition, u64, u64)>,
}

/// What was done since the last commit, so that it can be done again without a record that an operator failed at.
enum Deed {
    Batch(Batch),
    Advance(EventTime),
    Close { flush: bool },
}

/// A task under virtual time.
pub struct SyncTask {
    stage: usize,
    task: Task,
    part: RoundPart,
    /// Outputs of the open epoch that were handed on.
    handed_on: usize,
    caps: Caps,
    /// The last epoch that is committed.
    committed: u64,
    book: Arc<SchemaBook>,
    deeds: Vec<Deed>,
    skips: Skips,
    /// Per source, the offset at which reading ends.
    untils: Vec<u64>,
}

impl SyncTask {
    /// A task of `stage`, the place of its specification in the pipeline, before anything came. Of external
    /// inputs it reads `ranges`.
    pub fn new(
        stage: usize,
        spec: &Arc<StageSpec>,
        number: u32,
        book: &Arc<SchemaBook>,
        ranges: &Ranges,
    ) -> Result<Self, SyncError> {
        let task = Task::new(Arc::clone(spec), number, Arc::clone(book))
            .map_err(|error| SyncError::Settings { stage: spec.name.clone(), error })?;
        Ok(Self::around(stage, task, book, ranges))
    }

    /// A task as it stood at the last commit of a run before, after epoch `committed`, with what other stages had handed to it by then.
    pub fn resumed(
        stage: usize,
        spec: &Arc<StageSpec>,
        number: u32,
        book: &Arc<SchemaBook>,
        ranges: &Ranges,
        (log, committed): (&dyn Log, u64),
    ) -> Result<Self, SyncError> {
        let task = recovered(log, spec, number, book, committed)?;
        let mut task = Self::around(stage, task, book, ranges);
        let positions = task.task.intake().positions();
        for (source, from) in positions.into_iter().enumerate() {
            if !task.sources()[source].external {
                let at = task.sources()[source].at.clone();
                task.offer_from(log, source, &at, from)?;
            }
        }
        Ok(task)
    }

    fn around(stage: usize, mut task: Task, book: &Arc<SchemaBook>, ranges: &Ranges) -> Self {
        let mut untils = Vec::new();
        for source in 0..task.intake().sources().len() {
            let read = &task.intake().sources()[source];
            if read.external {
                let range = ranges.of(&read.at);
                task.intake_mut().skip_to(source, range.from);
                untils.push(range.until);
            } else {
                // What stages write is handed over within the round that makes it: there is never more to wait for.
                task.intake_mut().offer(source, Fetched { at_end: true, ..Fetched::default() });
                untils.push(u64::MAX);
            }
        }
        let part = RoundPart { stage, task: task.number(), ..RoundPart::default() };
        Self {
            stage,
            caps: task.spec().caps,
            committed: task.epoch(),
            task,
            part,
            handed_on: 0,
            book: Arc::clone(book),
            deeds: Vec::new(),
            skips: Skips::default(),
            untils,
        }
    }

    /// Hands over all that stages wrote to a partition from `from` on.
    fn offer_from(
        &mut self,
        log: &dyn Log,
        source: usize,
        at: &TopicPartition,
        mut from: u64,
    ) -> Result<(), LogError> {
        let mut waits = 0;
        let end = loop {
            let bounds = log.bounds(at)?;
            if bounds.stable_end == bounds.high_watermark {
                break bounds.stable_end;
            }
            waits += 1;
            if waits > MOST_WAITS {
                let error = "a transaction is open there; is another run of it under way?".to_owned();
                return Err(LogError::Unavailable { at: format!("reading {at} at offset {from}"), error });
            }
            log.wait(RECOVERY_WAIT);
        };
        while from < end {
            let fetched = log.read(at, from, self.caps.prefetch_bytes)?;
            let stuck = fetched.next_offset <= from;
            from = fetched.next_offset;
            self.offer(source, fetched.records);
            if stuck {
                break;
            }
        }
        Ok(())
    }

    /// The partitions it reads.
    pub fn sources(&self) -> &[Source] {
        self.task.intake().sources()
    }

    /// Place of its stage in the pipeline.
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// The task below.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Adds records of a partition that another stage wrote.
    pub fn offer(&mut self, source: usize, records: Vec<StoredRecord>) {
        let Some(last) = records.last() else { return };
        let next_offset = last.offset + 1;
        self.task.intake_mut().offer(source, Fetched { records, next_offset, at_end: true });
    }

    /// Reads ahead from the log until each external source has a record at or after the horizon, or ends.
    pub fn read_to(&mut self, log: &dyn Log, horizon_ms: i64) -> Result<(), LogError> {
        for source in 0..self.sources().len() {
            if !self.sources()[source].external {
                continue;
            }
            let at = self.sources()[source].at.clone();
            // One read at least: a source never read is not known to be at its end.
            while let Some(from) = self.task.intake().short_of(source, horizon_ms) {
                let fetched = if from < self.untils[source] {
                    clipped(log.read(&at, from, self.caps.prefetch_bytes)?, self.untils[source])
                } else {
                    Fetched { next_offset: from, at_end: true, ..Fetched::default() }
                };
                let at_end = fetched.at_end;
                self.task.intake_mut().offer(source, fetched);
                if at_end {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The least time at hand; control records, which have no time of their own, are left out.
    pub fn first_time_ms(&self) -> Option<i64> {
        self.task.intake().first_time_ms()
    }

    /// The least time at hand of what is data from outside, not state that is read from its start.
    pub fn first_data_time_ms(&self) -> Option<i64> {
        self.task
            .intake()
            .heads()
            .filter(|head| self.sources()[head.source].is_data())
            .filter_map(|head| head.time_ms)
            .min()
    }

    /// Takes everything before the horizon: for a stage that is in no cycle.
    pub fn run_to(&mut self, log: &dyn Log, horizon_ms: i64) -> Result<(), SyncError> {
        loop {
            let batch = self.task.intake_mut().take_before(&self.caps, horizon_ms);
            if batch.taken.is_empty() {
                break;
            }
            self.part.records += batch.taken.len() as u64;
            self.attempt(log, Deed::Batch(batch))?;
        }
        Ok(())
    }

    /// Lets time go on where nothing comes any more: timers up to the horizon, less the inputs' patience, fire.
    pub fn wait_to(&mut self, log: &dyn Log, horizon_ms: i64) -> Result<(), SyncError> {
        if !self.task.intake().is_silent() {
            return Ok(());
        }
        let patience_ms = self.task.tide().patience_ms().saturating_add(self.task.lag_ms());
        let to = EventTime::from_ms(horizon_ms.saturating_sub(patience_ms));
        if self.task.next_timer().is_some_and(|due| due <= to) {
            self.attempt(log, Deed::Advance(to))?;
            self.close(false)?;
        }
        Ok(())
    }

    /// Time of what it would do next before the horizon, and whether that is a timer. A record goes before a
    /// timer of its time, as in every epoch.
    fn next_event(&self, horizon_ms: i64) -> Option<(EventTime, bool)> {
        let horizon = EventTime::from_ms(horizon_ms);
        let first = EventTime::from_micros(i64::MIN);
        let head = self.task.intake().head();
        let record = head.map(|head| (head.time_ms.map_or(first, EventTime::from_ms), false));
        let timer = if self.task.spec().has_watermark() { None } else { self.task.next_timer() };
        let timer = timer.map(|at| at.max(self.task.tide().passed().unwrap_or(at)));
        let timer = timer.map(|at| (at.plus_ms(self.task.lag_ms()), true));
        [record, timer].into_iter().flatten().filter(|(at, _)| *at < horizon).min()
    }

    /// Does its next event; what comes out is handed on by the caller.
    fn do_event(&mut self, log: &dyn Log, at: EventTime, is_timer: bool) -> Result<Vec<Output>, SyncError> {
        if is_timer {
            if self.task.is_open() && !self.task.is_silent_epoch() {
                self.close(false)?;
            }
            self.attempt(log, Deed::Advance(at.plus_ms(-self.task.lag_ms())))?;
        } else {
            let Some(head) = self.task.intake().head() else { return Ok(Vec::new()) };
            if self.task.is_open() && !self.task.may_join(head) {
                self.close(false)?;
            }
            let one = Caps { max_records: 1, ..self.caps };
            let batch = self.task.intake_mut().take(&one);
            self.part.records += batch.taken.len() as u64;
            self.attempt(log, Deed::Batch(batch))?;
        }
        let fresh = self.task.outputs()[self.handed_on..].to_vec();
        self.handed_on = self.task.outputs().len();
        Ok(fresh)
    }

    /// The last closed epoch.
    pub fn epoch(&self) -> u64 {
        self.task.epoch()
    }

    /// Ends the round, after which all of it is committed: closes the open epoch, with a flush if one is due by virtual time or asked for.
    pub fn end_round(&mut self, last: bool) -> Result<RoundPart, SyncError> {
        let flush = last || self.task.flush_due(self.task.virtual_now_ms());
        if self.task.is_open() || last {
            self.close(flush)?;
        }
        self.deeds.clear();
        self.skips = Skips::default();
        if !self.part.closed.is_empty() {
            let (at, offset) = self.task.driving_position();
            self.part.position = Some((at, offset, self.task.epoch()));
            self.committed = self.task.epoch();
        }
        let fresh = RoundPart { stage: self.stage, task: self.task.number(), ..RoundPart::default() };
        Ok(std::mem::replace(&mut self.part, fresh))
    }

    fn close(&mut self, flush: bool) -> Result<(), SyncError> {
        let mut closed = close(&mut self.task, flush)?;
        self.deeds.push(Deed::Close { flush });
        self.handed_on = 0;
        self.part.outputs.append(&mut closed.outputs);
        self.part.closed.push(closed);
        Ok(())
    }

    /// Does something; if an operator fails at it, goes back to the last commit, does again what was done since, and
    /// then this without the record or timer at fault.
    fn attempt(&mut self, log: &dyn Log, deed: Deed) -> Result<(), SyncError> {
        loop {
            let Err(error) = apply(&mut self.task, &deed, &self.skips) else {
                self.deeds.push(deed);
                return Ok(());
            };
            let spec = Arc::clone(self.task.spec());
            self.part.faults += 1;
            let too_many = self.part.faults > self.caps.max_faults_per_minute as u64;
            match &error {
                TaskError::Fault(fault) if spec.on_error == OnError::DeadLetter && !too_many => {
                    self.skips.add(fault);
                }
                _ => return Err(SyncError::Task { stage: spec.name.clone(), error }),
            }
            let mut task = recovered(log, &spec, self.task.number(), &self.book, self.committed)?;
            task.take_intake_of(&mut self.task);
            for done in &self.deeds {
                match done {
                    Deed::Close { flush } => drop(close(&mut task, *flush)?),
                    done => apply(&mut task, done, &self.skips)
                        .map_err(|error| SyncError::Task { stage: spec.name.clone(), error })?,
                }
            }
            self.task = task;
        }
    }
}

/// The task as it stood at the last commit.
fn recovered(
    log: &dyn Log,
    spec: &Arc<StageSpec>,
    number: u32,
    book: &Arc<SchemaBook>,
    committed: u64,
) -> Result<Task, SyncError> {
    let stage = spec.name.clone();
    let mut recovery = Recovery::new(Arc::clone(spec), number, Arc::clone(book), RecoveryOptions::default())
        .to_epoch(committed);
    loop {
        let done = recovery.advance(log);
        let done =
            done.map_err(|error| SyncError::Recovery { stage: stage.clone(), error: Box::new(error) })?;
        match done {
            Some(task) => return Ok(task),
            None if !recovery.went_on() => log.wait(RECOVERY_WAIT),
            None => {}
        }
    }
}

/// What of a read lies before `until`.
fn clipped(mut fetched: Fetched, until: u64) -> Fetched {
    if fetched.next_offset >= until {
        fetched.records.retain(|stored| stored.offset < until);
        fetched.next_offset = until;
        fetched.at_end = true;
    }
    fetched
}

fn apply(task: &mut Task, deed: &Deed, skips: &Skips) -> Result<(), TaskError> {
    match deed {
        Deed::Batch(batch) => task.process(batch.clone(), Stamp::Virtual, skips),
        Deed::Advance(to) => task.advance(*to, Stamp::Virtual, skips),
        Deed::Close { .. } => Ok(()),
    }
}

fn close(task: &mut Task, flush: bool) -> Result<Closed, NotRegistered> {
    let kind = match (task.is_silent_epoch(), task.is_open()) {
        (true, _) => EpochKind::Time,
        (false, true) => EpochKind::Records,
        (false, false) => EpochKind::Release,
    };
    task.close(Closing { kind, flush, writer: "synchronised".into(), epochs_from: 0 })
}
