//! Synchronised running: all stages under one virtual time, which is also the stamp.
//!
//! Time goes on in rounds up to a horizon. Within a round the stages run in the order of their data flow; tasks of a
//! stage that is in no cycle know nothing of each other and may run in parallel, while the stages of a cycle run as
//! one serial part, where the least (time, stage, task) goes next. What comes out is put in the order (time, stage,
//! task, sequence) before it is written, so the result is a function of inputs and pipeline alone: not of the number
//! of threads, nor of where the horizons lie.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_schemas::{EpochKind, EventTime, NotRegistered, SchemaBook};

use crate::fault::{Skips, TaskError};
use crate::intake::{Batch, Source};
use crate::log::{Fetched, Log, LogError, StoredRecord, TopicPartition};
use crate::outputs::Output;
use crate::plan::{Caps, OnError, StageSpec};
use crate::recovery::{Recovery, RecoveryError, RecoveryOptions};
use crate::task::{Closed, Closing, Stamp, Task};

/// How long to wait for a log that has not given yet what recovery needs.
const RECOVERY_WAIT: std::time::Duration = std::time::Duration::from_millis(20);

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

/// Groups the stages: each group reads only what earlier groups and the outside write; a group of more than one
/// stage, or of one that feeds itself, is a cycle.
pub fn components(stages: &[Arc<StageSpec>]) -> Vec<Vec<usize>> {
    let feeds = |from: usize, to: usize| {
        stages[from].outputs.iter().any(|out| stages[to].inputs.iter().any(|input| input.topic == out.topic))
    };
    let count = stages.len();
    let mut reaches: Vec<Vec<bool>> =
        (0..count).map(|from| (0..count).map(|to| feeds(from, to)).collect()).collect();
    for via in 0..count {
        for from in 0..count {
            for to in 0..count {
                reaches[from][to] |= reaches[from][via] && reaches[via][to];
            }
        }
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut placed = vec![false; count];
    while let Some(next) = (0..count).find(|stage| {
        let ready = |other: usize| placed[other] || !reaches[other][*stage] || reaches[*stage][other];
        !placed[*stage] && (0..count).all(ready)
    }) {
        let group: Vec<usize> = (0..count)
            .filter(|other| *other == next || (reaches[next][*other] && reaches[*other][next]))
            .collect();
        group.iter().for_each(|stage| placed[*stage] = true);
        groups.push(group);
    }
    groups
}

/// Whether a group of stages is a cycle.
pub fn is_cycle(stages: &[Arc<StageSpec>], group: &[usize]) -> bool {
    group.len() > 1
        || group.iter().any(|stage| {
            let spec = &stages[*stage];
            spec.outputs.iter().any(|out| spec.inputs.iter().any(|input| input.topic == out.topic))
        })
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
    group: SmolStr,
    book: Arc<SchemaBook>,
    deeds: Vec<Deed>,
    skips: Skips,
}

impl SyncTask {
    /// A task of `stage`, the place of its specification in the pipeline, before anything came. `group` is the one
    /// that the run commits under.
    pub fn new(
        stage: usize,
        spec: &Arc<StageSpec>,
        number: u32,
        book: &Arc<SchemaBook>,
        group: &str,
    ) -> Result<Self, SyncError> {
        let mut task = Task::new(Arc::clone(spec), number, Arc::clone(book))
            .map_err(|error| SyncError::Settings { stage: spec.name.clone(), error })?;
        for source in 0..task.intake().sources().len() {
            if !task.intake().sources()[source].external {
                // What stages write is handed over within the round that makes it: there is never more to wait for.
                task.intake_mut().offer(source, Fetched { at_end: true, ..Fetched::default() });
            }
        }
        let caps = spec.caps;
        let part = RoundPart { stage, task: number, ..RoundPart::default() };
        let (group, book) = (group.into(), Arc::clone(book));
        let (deeds, skips) = (Vec::new(), Skips::default());
        Ok(Self { stage, task, part, handed_on: 0, caps, group, book, deeds, skips })
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
                let fetched = log.read(&at, from, self.caps.prefetch_bytes)?;
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
        let to = EventTime::from_ms(horizon_ms.saturating_sub(self.task.tide().patience_ms()));
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
        let timer = timer.map(|at| (at.max(self.task.tide().passed().unwrap_or(at)), true));
        [record, timer].into_iter().flatten().filter(|(at, _)| *at < horizon).min()
    }

    /// Does its next event; what comes out is handed on by the caller.
    fn do_event(&mut self, log: &dyn Log, at: EventTime, is_timer: bool) -> Result<Vec<Output>, SyncError> {
        if is_timer {
            if self.task.is_open() && !self.task.is_silent_epoch() {
                self.close(false)?;
            }
            self.attempt(log, Deed::Advance(at))?;
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

    /// Ends the round: closes the open epoch, with a flush if one is due by virtual time or asked for.
    pub fn end_round(&mut self, last: bool) -> Result<RoundPart, SyncError> {
        let now_ms = self.task.tide().stream_time().map_or(0, EventTime::as_ms);
        let flush = last || self.task.flush_due(now_ms);
        if self.task.is_open() || last {
            self.close(flush)?;
        }
        self.deeds.clear();
        self.skips = Skips::default();
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
            let mut task = self.recovered(log)?;
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

    /// The task as it stood at the last commit.
    fn recovered(&self, log: &dyn Log) -> Result<Task, SyncError> {
        let spec = Arc::clone(self.task.spec());
        let stage = spec.name.clone();
        let mut recovery =
            Recovery::new(spec, self.task.number(), Arc::clone(&self.book), RecoveryOptions::default())
                .of_group(&self.group);
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

/// Where the next record of each partition goes: a run that is the only writer knows the offsets beforehand.
#[derive(Debug, Default)]
pub struct Offsets {
    next: BTreeMap<TopicPartition, u64>,
}

impl Offsets {
    /// The offset of the next record of `at`, and one further for the one after it.
    pub fn assign(&mut self, log: &dyn Log, at: &TopicPartition) -> Result<u64, LogError> {
        if let Some(next) = self.next.get_mut(at) {
            *next += 1;
            return Ok(*next - 1);
        }
        let end = log.bounds(at)?.high_watermark;
        self.next.insert(at.clone(), end + 1);
        Ok(end)
    }

    /// Counts what a commit took in the partitions it wrote to, besides the records.
    pub fn committed<'a>(&mut self, log: &dyn Log, written: impl Iterator<Item = &'a TopicPartition>) {
        for at in written {
            if let Some(next) = self.next.get_mut(at) {
                *next += log.offsets_of_commit();
            }
        }
    }

    /// Partitions written, with the offset after the last record.
    pub fn ends(&self) -> impl Iterator<Item = (&TopicPartition, u64)> {
        self.next.iter().map(|(at, next)| (at, *next))
    }
}

/// An output with the place it takes in the log.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The partition.
    pub at: TopicPartition,
    /// The record with its offset.
    pub stored: StoredRecord,
}

/// The stages of a cycle, run as one.
pub struct Serial {
    tasks: Vec<SyncTask>,
}

impl Serial {
    /// All tasks of the stages `group`.
    ///
    /// `commits_as` is the consumer group that the run commits under.
    pub fn new(
        stages: &[Arc<StageSpec>],
        group: &[usize],
        book: &Arc<SchemaBook>,
        commits_as: &str,
    ) -> Result<Self, SyncError> {
        let mut tasks = Vec::new();
        for stage in group {
            for number in 0..stages[*stage].tasks() {
                tasks.push(SyncTask::new(*stage, &stages[*stage], number, book, commits_as)?);
            }
        }
        Ok(Self { tasks })
    }

    /// The tasks.
    pub fn tasks_mut(&mut self) -> &mut [SyncTask] {
        &mut self.tasks
    }

    /// Runs everything before the horizon, in the order (time, records before timers, stage, task). What a task
    /// gives out is at hand for the others at once; all of it is returned in the order it was made.
    pub fn run_to(
        &mut self,
        log: &dyn Log,
        offsets: &mut Offsets,
        horizon_ms: i64,
    ) -> Result<Vec<Placed>, SyncError> {
        let mut made = Vec::new();
        loop {
            let next = self.tasks.iter().enumerate().filter_map(|(place, task)| {
                let (at, is_timer) = task.next_event(horizon_ms)?;
                Some((at, is_timer, place))
            });
            let Some((at, is_timer, place)) = next.min() else { return Ok(made) };
            for output in self.tasks[place].do_event(log, at, is_timer)? {
                let placed = place_output(log, offsets, output)?;
                deliver(&mut self.tasks, &placed);
                made.push(placed);
            }
        }
    }
}

/// Gives an output its offset.
pub fn place_output(log: &dyn Log, offsets: &mut Offsets, output: Output) -> Result<Placed, LogError> {
    let offset = offsets.assign(log, &output.at)?;
    Ok(Placed { at: output.at, stored: StoredRecord { offset, record: output.record } })
}

/// Hands a record to every task that reads its partition.
pub fn deliver(tasks: &mut [SyncTask], placed: &Placed) {
    for task in tasks {
        if let Some(source) = task.sources().iter().position(|source| source.at == placed.at) {
            task.offer(source, vec![placed.stored.clone()]);
        }
    }
}
