//! A worker: the tasks of one stage that one member of its group holds, and their commits.
//!
//! A step reads no clock: the caller passes the stamp, and waits when a step had nothing to do. So the same code runs under
//! threads, in tests and in the seeded simulation.
//!
//! While the log commits an epoch, the next one is under way: its records are taken as they come, and it is closed once the
//! commit has come back. Whatever else there is to do, a change of the group above all, waits for that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_schemas::SchemaBook;

use crate::dataflow::MonotonicNs;
use crate::fault::Skips;
use crate::log::{Assignment, Log, LogError, Member};
use crate::plan::StageSpec;
use crate::recovery::{Recovery, RecoveryError, RecoveryOptions, RecoveryProgress};
use crate::task::Task;
use commit::Part;

mod commit;
mod epoch;
mod told;

pub use commit::journal_record;
pub use told::{Committed, Step, WorkerError};

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
    /// How long an epoch that gave nothing out may stay open, in milliseconds of stamps. Nobody waits for it, and once
    /// something does come out, no commit of nothing is in its way. 0 closes every epoch at once.
    pub hold_ms: i64,
    /// Measures the operators; no result depends on it.
    pub clock: Option<MonotonicNs>,
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

/// The tasks of one stage held by one member.
pub struct Worker {
    log: Arc<dyn Log>,
    spec: Arc<StageSpec>,
    book: Arc<SchemaBook>,
    options: WorkerOptions,
    member: Box<dyn Member>,
    slots: BTreeMap<u32, Slot>,
    /// What the log commits just now.
    flight: Vec<Part>,
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
            flight: Vec::new(),
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

    /// Does what there is to do: serves the group, recovers a little, runs one epoch of each task, begins to commit; or, while
    /// the log commits, takes more records.
    pub fn step(&mut self, now_ms: i64) -> Result<Step, WorkerError> {
        let mut step = Step::default();
        self.log_answers = true;
        let assignment = self.member.poll()?;
        if !self.flight.is_empty() {
            match self.member.outcome(!self.may_work_ahead(&assignment)) {
                Some(outcome) => self.landed(outcome, &mut step)?,
                None => {
                    self.work_ahead(now_ms, &mut step)?;
                    return Ok(step);
                }
            }
        }
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
        let held: Vec<u32> = self.slots.keys().copied().collect();
        let releases = |task: &u32| self.options.recover_only || assignment.revoking.contains(task);
        let held: Vec<(u32, bool)> = held.into_iter().map(|task| (task, releases(&task))).collect();
        let mut is_due = false;
        for (task, releases) in &held {
            if !releases {
                self.take(*task, now_ms, &mut step)?;
            }
            is_due |= self.is_due(*task, now_ms, *releases);
        }
        step.worked |= step.took;
        let mut parts = Vec::new();
        for (task, releases) in held.into_iter().filter(|_| is_due) {
            parts.extend(self.close(task, now_ms, releases)?);
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
        self.land(&mut step)?;
        self.send_pending(&mut step)?;
        // An epoch that could not be sent is left to recovery: none after it may be committed without it.
        for part in std::mem::take(&mut self.pending) {
            self.slots.remove(&part.task);
        }
        let assignment = self.member.poll()?;
        let mut parts = Vec::new();
        for task in assignment.tasks {
            parts.extend(self.close(task, now_ms, true)?);
        }
        self.commit(assignment.generation, parts, &mut step)?;
        self.land(&mut step)?;
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
            self.land(step)?;
        }
        Ok(())
    }

    /// Whether there is nothing to do but to take more records into the tasks that run.
    fn may_work_ahead(&self, assignment: &Assignment) -> bool {
        let steady = |slot: &Slot| matches!(slot, Slot::Running(_) | Slot::Halted);
        !self.options.recover_only
            && assignment.revoking.is_empty()
            && self.slots.keys().eq(&assignment.tasks)
            && self.slots.values().all(steady)
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
}
