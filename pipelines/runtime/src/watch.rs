//! Looking on: what workers tell those who measure them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smol_str::SmolStr;
use tidewire_engine::log::{Assignment, CommitError, LogError, Member, Transaction};
use tidewire_engine::recovery::RecoveryProgress;
use tidewire_engine::task::TaskView;
use tidewire_engine::worker::{Step, Worker};

use crate::narrate::Narrator;

/// How often the tasks of a worker are looked at, at most.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// A worker in full work is looked at this much less often: looking walks all keys.
const BUSY_FACTOR: u32 = 2;
/// Time between two looks, in times of what the last one took: it never costs more than a hundredth.
const LOOK_SHARE: u32 = 100;

/// Who looks on. All of it is called on the worker's thread: it must be quick and must not wait.
pub trait Watch: Send + Sync {
    /// A worker is about to join its group.
    fn begun(&self, who: &Arc<Who>);
    /// A worker made a step, with or without something to do: it turns.
    fn stepped(&self, who: &Arc<Who>, took: Duration, step: &Step);
    /// A commit came back.
    fn commit(&self, who: &Arc<Who>, took: Duration, outcome: Outcome);
    /// The worker's running tasks, every few seconds.
    fn sampled(&self, who: &Arc<Who>, tasks: &[TaskView]);
    /// The worker lost its place, drops its tasks and joins again.
    fn rejoins(&self, who: &Arc<Who>, why: &str);
    /// The worker ended: as it was told, or with an error.
    fn ended(&self, who: &Arc<Who>, error: Option<&str>);
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// Its stage.
    pub stage: SmolStr,
    /// Its number among the workers of the stage in this process.
    pub worker: usize,
    /// The writer's name.
    pub member: SmolStr,
}

/// How a commit came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It is durable.
    Done,
    /// Nothing was written; it is sent again.
    Aborted,
    /// Not known; the tasks are recovered.
    Unknown,
    /// Another writer took this one's place.
    Fenced,
    /// The log failed.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Done, Self::Aborted, Self::Unknown, Self::Fenced, Self::Failed];

    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
            Self::Fenced => "fenced",
            Self::Failed => "failed",
        }
    }
}

/// One worker that is looked at, and that tells the process's log what happens to it.
pub(crate) struct Watched {
    who: Arc<Who>,
    watch: Option<Arc<dyn Watch>>,
    narrator: Narrator,
    last_look: Instant,
    look_again_after: Duration,
}

impl Watched {
    pub(crate) fn new(who: &Arc<Who>, watch: Option<Arc<dyn Watch>>) -> Self {
        Self {
            who: Arc::clone(who),
            watch,
            narrator: Narrator::new(Arc::clone(who)),
            last_look: Instant::now(),
            look_again_after: Duration::ZERO,
        }
    }

    /// Says that the worker begins; returns its member so that commits are measured.
    pub(crate) fn around(&self, member: Box<dyn Member>) -> Box<dyn Member> {
        self.narrator.joined();
        match &self.watch {
            None => member,
            Some(watch) => {
                watch.begun(&self.who);
                Box::new(TimedMember { inner: member, who: Arc::clone(&self.who), watch: Arc::clone(watch) })
            }
        }
    }

    pub(crate) fn stepped(&mut self, took: Duration, step: &Step) {
        self.narrator.step(step);
        if let Some(watch) = &self.watch {
            watch.stepped(&self.who, took, step);
        }
    }

    /// Looks at the tasks, if that was not done lately.
    pub(crate) fn sample(&mut self, worker: &Worker, step: &Step) {
        let Some(watch) = &self.watch else { return };
        let busy = if step.worked { BUSY_FACTOR } else { 1 };
        let due = self.last_look.elapsed() >= self.look_again_after.saturating_mul(busy);
        if !due && step.recovered.is_empty() {
            return;
        }
        let begun = Instant::now();
        let tasks: Vec<TaskView> = worker.tasks().map(|task| task.view()).collect();
        watch.sampled(&self.who, &tasks);
        self.last_look = Instant::now();
        self.look_again_after = SAMPLE_EVERY.max(begun.elapsed().saturating_mul(LOOK_SHARE));
    }

    /// Tells how far recoveries have come.
    pub(crate) fn recovers(&mut self, tasks: &[(u32, RecoveryProgress)]) {
        self.narrator.recovers(tasks);
    }

    pub(crate) fn rejoins(&self, why: &str) {
        self.narrator.rejoins(why);
        if let Some(watch) = &self.watch {
            watch.rejoins(&self.who, why);
        }
    }

    pub(crate) fn ended(&self, error: Option<&str>) {
        self.narrator.ended(error);
        if let Some(watch) = &self.watch {
            watch.ended(&self.who, error);
        }
    }
}

/// A member whose commits are measured.
struct TimedMember {
    inner: Box<dyn Member>,
    who: Arc<Who>,
    watch: Arc<dyn Watch>,
}

impl Member for TimedMember {
    fn poll(&mut self) -> Result<Assignment, LogError> {
        self.inner.poll()
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        let begun = Instant::now();
        let done = self.inner.commit(transaction);
        let outcome = match &done {
            Ok(()) => Outcome::Done,
            Err(CommitError::Aborted(_)) => Outcome::Aborted,
            Err(CommitError::Unknown(_)) => Outcome::Unknown,
            Err(CommitError::Fenced(_)) => Outcome::Fenced,
            Err(CommitError::Log(_)) => Outcome::Failed,
        };
        self.watch.commit(&self.who, begun.elapsed(), outcome);
        done
    }

    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError> {
        self.inner.release(tasks)
    }

    fn leave(self: Box<Self>) -> Result<(), LogError> {
        self.inner.leave()
    }
}
