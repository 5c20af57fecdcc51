//! A worker: the tasks of one stage that one member of its group holds, and their commits.
//!
//! A step never blocks and reads no clock: the caller passes the stamp, and waits when a step had nothing to do.
//! So the same code runs under threads, in tests and in the seeded simulation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use smol_str::{SmolStr, format_smolstr};
use tidewire_schemas::{EpochKind, EpochRecord, NotRegistered, Record, SchemaBook};

use crate::bugs::{self, Bug};
use crate::dataflow::MonotonicNs;
use crate::fault::{FaultAt, Skips, TaskError};
use crate::log::{
    CommitError, CommittedOffset, Log, LogError, Member, NewRecord, TopicPartition, Transaction,
};
use crate::mark::Mark;
use crate::outputs::Output;
use crate::plan::{OnError, StageSpec};
use crate::recovery::{Recovery, RecoveryError, RecoveryOptions, RecoveryProgress, RecoveryReport};
use crate::task::{Closed, Closing, Stamp, Task};

/// One minute of stamps, over which faults are counted.
const MINUTE_MS: i64 = 60_000;
/// How often a worker that stops sends a transaction again that was aborted.
const STOP_TRIES: u32 = 3;

/// How a worker runs.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// The writer's name: its transactional.id, unique among those that run.
    pub member: SmolStr,
    /// How recovery deals with a changed build.
    pub recovery: RecoveryOptions,
    /// Recover, flush and release every task, and take no new records.
    pub recover_only: bool,
    /// Measures the operators; no result depends on it.
    pub clock: Option<MonotonicNs>,
}

/// A committed epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Its journal entry.
    pub record: EpochRecord,
    /// Output records by topic.
    pub outputs: Vec<(SmolStr, u64)>,
    /// Bytes of state written.
    pub state_bytes: u64,
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Whether there was anything to do; if not, wait for the log before the next step.
    pub worked: bool,
    /// Input records in committed epochs.
    pub records: u64,
    /// Epochs committed, over all tasks.
    pub epochs: u64,
    /// Output records committed.
    pub outputs: u64,
    /// Bytes of state written.
    pub state_bytes: u64,
    /// The epochs committed.
    pub committed: Vec<Committed>,
    /// Tasks that the group gave.
    pub given: Vec<u32>,
    /// Tasks that are no longer held.
    pub gone: Vec<u32>,
    /// Tasks that must be recovered, because an operator failed or a commit's outcome is not known.
    pub recovering: Vec<u32>,
    /// Tasks that finished recovery in this step.
    pub recovered: Vec<(u32, RecoveryReport)>,
    /// Records and timers that operators failed at; they are dead-lettered.
    pub faults: Vec<FaultAt>,
    /// Tasks that stopped, and why.
    pub halted: Vec<(u32, String)>,
    /// True when every task was recovered and released, as `recover_only` asks.
    pub finished: bool,
}

/// Why a worker must be replaced by a new one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// Another writer took this one's place.
    #[error("{0}")]
    Fenced(String),
    /// The log failed.
    #[error(transparent)]
    Log(LogError),
    /// The log does not know a schema that this build writes.
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
}

impl From<LogError> for WorkerError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Fenced(why) => Self::Fenced(why),
            error => Self::Log(error),
        }
    }
}

enum Slot {
    Recovering { recovery: Box<Recovery>, skips: Skips, faults: VecDeque<i64> },
    Running(Box<Running>),
    Halted,
}

struct Running {
    task: Task,
    skips: Skips,
    faults: VecDeque<i64>,
    /// A new cut is to be taken at once.
    wants_cut: bool,
    /// Where the journal ended when that was last asked.
    journal_end: u64,
}

/// One task's share of a transaction.
struct Part {
    task: u32,
    closed: Closed,
    driving: (TopicPartition, u64),
    releases: bool,
}

/// The tasks of one stage held by one member.
pub struct Worker {
    log: Arc<dyn Log>,
    spec: Arc<StageSpec>,
    book: Arc<SchemaBook>,
    options: WorkerOptions,
    member: Box<dyn Member>,
    slots: BTreeMap<u32, Slot>,
    /// An epoch that was aborted cleanly and is to be sent again as it was.
    pending: Vec<Part>,
    /// False for the rest of a step in which the log left a question unanswered: no other task waits for it again.
    log_answers: bool,
}

impl Worker {
    /// Joins the stage's group.
    pub fn new(
        log: Arc<dyn Log>,
        spec: Arc<StageSpec>,
        book: Arc<SchemaBook>,
        options: WorkerOptions,
    ) -> Result<Self, WorkerError> {
        Self::watched(log, spec, book, options, |member| member)
    }

    /// As [`Worker::new`], with something put around the member: to measure its commits.
    pub fn watched(
        log: Arc<dyn Log>,
        spec: Arc<StageSpec>,
        book: Arc<SchemaBook>,
        options: WorkerOptions,
        around: impl FnOnce(Box<dyn Member>) -> Box<dyn Member>,
    ) -> Result<Self, WorkerError> {
        let driving = spec.driving().map(|input| input.topic.clone()).unwrap_or_default();
        let member = around(log.join(&spec.group(), &options.member, &driving)?);
        Ok(Self {
            log,
            spec,
            book,
            options,
            member,
            slots: BTreeMap::new(),
            pending: Vec::new(),
            log_answers: true,
        })
    }

    /// The tasks that run, for those who look on.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Running(running) => Some(&running.task),
            _ => None,
        })
    }

    /// Whether a task is still on its way back.
    pub fn is_recovering(&self) -> bool {
        self.slots.values().any(|slot| matches!(slot, Slot::Recovering { .. }))
    }

    /// The tasks that are still on their way back, and how far they have come.
    pub fn recoveries(&self) -> impl Iterator<Item = (u32, RecoveryProgress)> {
        self.slots.iter().filter_map(|(task, slot)| match slot {
            Slot::Recovering { recovery, .. } => Some((*task, recovery.progress())),
            _ => None,
        })
    }

    /// Whether a task has its state back and runs recorded epochs again.
    pub fn reruns(&self) -> bool {
        self.slots.values().any(|slot| match slot {
            Slot::Recovering { recovery, .. } => recovery.reruns(),
            _ => false,
        })
    }

    /// Does what there is to do: serves the group, recovers a little, runs one epoch of each task, commits.
    pub fn step(&mut self, now_ms: i64) -> Result<Step, WorkerError> {
        let mut step = Step::default();
        self.log_answers = true;
        let assignment = self.member.poll()?;
        if !self.pending.is_empty() {
            // What was aborted is sent again before anything else happens to its tasks.
            self.pending.retain(|part| assignment.tasks.contains(&part.task));
            self.keep(&assignment.tasks, &mut step);
            let parts = std::mem::take(&mut self.pending);
            self.commit(assignment.generation, parts, &mut step)?;
            return Ok(step);
        }
        self.keep(&assignment.tasks, &mut step);
        for task in &assignment.tasks {
            if !self.slots.contains_key(task) && !assignment.revoking.contains(task) {
                step.given.push(*task);
                let slot = self.recovering(*task, Skips::default(), VecDeque::new());
                self.slots.insert(*task, slot);
            }
        }
        self.recover(&mut step)?;
        let mut parts = Vec::new();
        let held: Vec<u32> = self.slots.keys().copied().collect();
        for task in held {
            let releases = assignment.revoking.contains(&task);
            if let Some(part) = self.epoch(task, now_ms, releases || self.options.recover_only, &mut step)? {
                parts.push(part);
            }
        }
        // A task without a running epoch has nothing to flush: it is given back as it is.
        let idle: Vec<u32> = assignment
            .revoking
            .iter()
            .copied()
            .filter(|task| !parts.iter().any(|part| part.task == *task))
            .collect();
        if !idle.is_empty() {
            step.worked = true;
            self.give_back(&idle, &mut step)?;
        }
        self.commit(assignment.generation, parts, &mut step)?;
        step.finished = self.options.recover_only
            && !self.slots.is_empty()
            && self.slots.values().all(|slot| matches!(slot, Slot::Halted));
        Ok(step)
    }

    /// Flushes and releases every task in a last transaction, then leaves the group.
    pub fn stop(mut self, now_ms: i64) -> Result<Step, WorkerError> {
        let mut step = Step::default();
        self.send_pending(&mut step)?;
        // An epoch that could not be sent is left to recovery: none after it may be committed without it.
        for part in std::mem::take(&mut self.pending) {
            self.slots.remove(&part.task);
        }
        let assignment = self.member.poll()?;
        let mut parts = Vec::new();
        for task in assignment.tasks {
            if let Some(part) = self.epoch(task, now_ms, true, &mut step)? {
                parts.push(part);
            }
        }
        self.commit(assignment.generation, parts, &mut step)?;
        self.send_pending(&mut step)?;
        self.member.leave()?;
        Ok(step)
    }

    /// Sends what was aborted cleanly again, a few times at most.
    fn send_pending(&mut self, step: &mut Step) -> Result<(), WorkerError> {
        for _ in 0..STOP_TRIES {
            if self.pending.is_empty() {
                break;
            }
            let assignment = self.member.poll()?;
            let mut parts = std::mem::take(&mut self.pending);
            parts.retain(|part| assignment.tasks.contains(&part.task));
            self.commit(assignment.generation, parts, step)?;
        }
        Ok(())
    }

    /// Drops the tasks that are no longer held.
    fn keep(&mut self, held: &[u32], step: &mut Step) {
        step.gone.extend(self.slots.keys().filter(|task| !held.contains(task)));
        self.slots.retain(|task, _| held.contains(task));
    }

    fn recovering(&self, task: u32, skips: Skips, faults: VecDeque<i64>) -> Slot {
        let (spec, book) = (Arc::clone(&self.spec), Arc::clone(&self.book));
        let recovery = Recovery::new(spec, task, book, self.options.recovery);
        let recovery = Box::new(recovery.as_writer(&self.options.member));
        Slot::Recovering { recovery, skips, faults }
    }

    /// Brings each recovering task on by one piece.
    fn recover(&mut self, step: &mut Step) -> Result<(), WorkerError> {
        for (task, slot) in &mut self.slots {
            let Slot::Recovering { recovery, skips, faults } = slot else { continue };
            let advanced = recovery.advance(&*self.log);
            step.worked |= recovery.went_on();
            match advanced {
                Ok(None) => {}
                // The log answers again some time: then from the start.
                Err(RecoveryError::Log(LogError::Unavailable { .. })) => recovery.restart(),
                Ok(Some(recovered)) => {
                    let report = recovery.report();
                    step.recovered.push((*task, report));
                    recovered.begin_count(self.options.clock);
                    *slot = Slot::Running(Box::new(Running {
                        task: recovered,
                        skips: std::mem::take(skips),
                        faults: std::mem::take(faults),
                        wants_cut: report.changed,
                        journal_end: 0,
                    }));
                }
                Err(RecoveryError::Log(error @ LogError::Store { .. })) => return Err(error.into()),
                Err(error) => {
                    step.halted.push((*task, error.to_string()));
                    *slot = Slot::Halted;
                }
            }
        }
        Ok(())
    }

    /// One epoch of one task, if there is anything for it to do.
    fn epoch(
        &mut self,
        number: u32,
        now_ms: i64,
        releases: bool,
        step: &mut Step,
    ) -> Result<Option<Part>, WorkerError> {
        let Some(Slot::Running(running)) = self.slots.get_mut(&number) else { return Ok(None) };
        let fault = if releases { Ok(()) } else { work(&*self.log, running, now_ms) };
        match fault {
            Ok(()) => {}
            Err(EpochError::Log(error @ LogError::Store { .. })) => return Err(error.into()),
            Err(EpochError::Log(LogError::Unavailable { .. })) => return Ok(None),
            Err(EpochError::Log(error)) => {
                step.halted.push((number, error.to_string()));
                self.slots.insert(number, Slot::Halted);
                return Ok(None);
            }
            Err(EpochError::Task(TaskError::NotRegistered(error))) => return Err(error.into()),
            Err(EpochError::Task(TaskError::Fault(fault))) => {
                self.faulted(number, now_ms, &fault, step);
                return Ok(None);
            }
        }
        let Some(Slot::Running(running)) = self.slots.get_mut(&number) else { return Ok(None) };
        let task = &mut running.task;
        let stamp_ms = task.stamp_at(now_ms);
        running.wants_cut |= task.quiet_cut_due(stamp_ms);
        let wants_cut = running.wants_cut || releases;
        if !task.is_open() && !wants_cut {
            return Ok(None);
        }
        let kind = match (releases, running.wants_cut) {
            (true, _) => EpochKind::Release,
            (false, true) => EpochKind::Cut,
            (false, false) if task.is_silent_epoch() => EpochKind::Time,
            (false, false) => EpochKind::Records,
        };
        let flush = wants_cut || task.flush_due(stamp_ms);
        if flush && self.log_answers {
            // Asking where the journal ends may take a while, and only a cut says it. Recovery reads on from there: an
            // earlier place does too, where the log does not answer now.
            match self.log.bounds(&TopicPartition::new(self.spec.epochs_topic(), number)) {
                Ok(bounds) => running.journal_end = bounds.stable_end,
                Err(LogError::Unavailable { .. }) => self.log_answers = false,
                Err(error) => return Err(error.into()),
            }
        }
        let closing =
            Closing { kind, flush, writer: self.options.member.clone(), epochs_from: running.journal_end };
        let driving = task.driving_position();
        let closed = task.close(closing)?;
        Ok(Some(Part { task: number, closed, driving, releases }))
    }

    /// Leaves out what failed and brings the task back to where it was before the epoch.
    fn faulted(&mut self, number: u32, now_ms: i64, fault: &FaultAt, step: &mut Step) {
        step.worked = true;
        step.faults.push(fault.clone());
        let Some(Slot::Running(mut running)) = self.slots.remove(&number) else { return };
        running.faults.push_back(now_ms);
        while running.faults.front().is_some_and(|at| now_ms - at > MINUTE_MS) {
            running.faults.pop_front();
        }
        let too_many = running.faults.len() > self.spec.caps.max_faults_per_minute;
        if self.spec.on_error == OnError::Halt || too_many {
            let why = if too_many { "too many faults within a minute; the last: " } else { "" };
            let text = format!(
                "{why}operator {} failed at {}: {} ({})",
                fault.node, fault.at, fault.text, fault.code
            );
            step.halted.push((number, text));
            self.slots.insert(number, Slot::Halted);
            return;
        }
        running.skips.add(fault);
        step.recovering.push(number);
        let slot = self.recovering(number, running.skips, running.faults);
        self.slots.insert(number, slot);
    }

    fn commit(&mut self, generation: u32, parts: Vec<Part>, step: &mut Step) -> Result<(), WorkerError> {
        if parts.is_empty() {
            return Ok(());
        }
        step.worked = true;
        let transaction = self.transaction(generation, &parts)?;
        match self.member.commit(transaction) {
            Ok(()) => self.committed(parts, step),
            Err(CommitError::Aborted(_)) => {
                self.pending = parts;
                Ok(())
            }
            Err(CommitError::Unknown(_)) => {
                for part in parts {
                    step.recovering.push(part.task);
                    let slot = self.recovering(part.task, Skips::default(), VecDeque::new());
                    self.slots.insert(part.task, slot);
                }
                Ok(())
            }
            Err(CommitError::Fenced(why)) => Err(WorkerError::Fenced(why)),
            Err(CommitError::Log(error)) => Err(error.into()),
        }
    }

    fn committed(&mut self, parts: Vec<Part>, step: &mut Step) -> Result<(), WorkerError> {
        let mut released = Vec::new();
        for part in parts {
            step.epochs += 1;
            step.records += part
                .closed
                .record
                .inputs
                .iter()
                .map(|input| crate::rerun::unsigned(input.records))
                .sum::<u64>();
            step.outputs += part.closed.outputs.len() as u64;
            let state = part.closed.changelog.iter().flatten();
            let state_bytes = state.map(|record| record.size() as u64).sum::<u64>();
            step.state_bytes += state_bytes;
            let outputs = by_topic(&part.closed.outputs);
            step.committed.push(Committed { record: part.closed.record, outputs, state_bytes });
            if part.releases {
                released.push(part.task);
            } else if let Some(Slot::Running(running)) = self.slots.get_mut(&part.task) {
                running.skips = Skips::default();
                running.wants_cut = false;
            }
        }
        if self.options.recover_only {
            for task in &released {
                self.slots.insert(*task, Slot::Halted);
            }
            return Ok(());
        }
        self.give_back(&released, step)
    }

    fn give_back(&mut self, tasks: &[u32], step: &mut Step) -> Result<(), WorkerError> {
        for task in tasks {
            self.slots.remove(task);
        }
        step.gone.extend(tasks);
        if !tasks.is_empty() {
            self.member.release(tasks)?;
        }
        Ok(())
    }

    /// Everything of all tasks' epochs, as one atomic step.
    fn transaction(&self, generation: u32, parts: &[Part]) -> Result<Transaction, WorkerError> {
        let mut appends: BTreeMap<TopicPartition, Vec<NewRecord>> = BTreeMap::new();
        let mut offsets = Vec::new();
        for part in parts {
            for output in &part.closed.outputs {
                appends.entry(output.at.clone()).or_default().push(output.record.clone());
            }
            if let Some(changelog) = &part.closed.changelog {
                let at = TopicPartition::new(self.spec.changelog_topic(), part.task);
                appends.entry(at).or_default().extend(changelog.iter().cloned());
            }
            let at = TopicPartition::new(self.spec.epochs_topic(), part.task);
            appends.entry(at).or_default().push(journal_record(&self.spec, &self.book, &part.closed)?);
            let (at, offset) = part.driving.clone();
            let mark = Mark {
                epoch: crate::rerun::unsigned(part.closed.record.epoch),
                writer: Some(self.options.member.clone()),
                released: part.releases,
            };
            let metadata = mark.to_string();
            if !bugs::on(Bug::PositionsLeftOut) {
                offsets.push((at, CommittedOffset { offset, metadata }));
            }
        }
        Ok(Transaction { generation, appends: appends.into_iter().collect(), offsets })
    }
}

/// How many records go to each topic.
fn by_topic(outputs: &[Output]) -> Vec<(SmolStr, u64)> {
    let mut counts: Vec<(SmolStr, u64)> = Vec::new();
    for output in outputs {
        match counts.iter_mut().find(|(topic, _)| *topic == output.at.topic) {
            Some((_, count)) => *count += 1,
            None => counts.push((output.at.topic.clone(), 1)),
        }
    }
    counts
}

/// The record of an epoch as it lies in the journal.
pub fn journal_record(
    spec: &StageSpec,
    book: &SchemaBook,
    closed: &Closed,
) -> Result<NewRecord, NotRegistered> {
    let mut value = Vec::new();
    book.encode(&Record::from(closed.record.clone()), &mut value)?;
    let key = format_smolstr!("{}/{}", spec.name, closed.record.task);
    Ok(NewRecord {
        timestamp_ms: closed.record.stamp_ms,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(value.into()),
        headers: Vec::new(),
    })
}

enum EpochError {
    Log(LogError),
    Task(TaskError),
}

/// Reads what is wanted, then takes a batch, or lets time go on in silence.
fn work(log: &dyn Log, running: &mut Running, now_ms: i64) -> Result<(), EpochError> {
    let task = &mut running.task;
    let caps = task.spec().caps;
    for (source, from) in task.intake().wanted(caps.prefetch_bytes) {
        let at = task.intake().sources()[source].at.clone();
        let fetched = log.fetch(&at, from, caps.prefetch_bytes).map_err(EpochError::Log)?;
        task.intake_mut().offer(source, fetched);
    }
    let stamp_ms = task.stamp_at(now_ms);
    let batch = task.intake_mut().take(&caps);
    if !batch.taken.is_empty() {
        return task.process(batch, Stamp::At(stamp_ms), &running.skips).map_err(EpochError::Task);
    }
    if let Some(to) = task.silence(stamp_ms) {
        return task.advance(to, Stamp::At(stamp_ms), &running.skips).map_err(EpochError::Task);
    }
    Ok(())
}
