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
    /// A worker made a step, with or without something to do: it turns. `epoch_took` is the time from the first read to the
    /// durable commit of what it committed.
    fn stepped(&self, who: &Arc<Who>, epoch_took: Option<Duration>, step: &Step);
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
    epochs: EpochTimes,
    last_look: Instant,
    look_again_after: Duration,
}

impl Watched {
    pub(crate) fn new(who: &Arc<Who>, watch: Option<Arc<dyn Watch>>) -> Self {
        Self {
            who: Arc::clone(who),
            watch,
            narrator: Narrator::new(Arc::clone(who)),
            epochs: EpochTimes::default(),
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
                let (who, watch) = (Arc::clone(&self.who), Arc::clone(watch));
                Box::new(TimedMember { inner: member, who, watch, begun: None })
            }
        }
    }

    /// Tells of a step that began at `started`; returns the time from the first read to the durable commit of what it
    /// committed.
    pub(crate) fn stepped(&mut self, started: Instant, step: &Step) -> Option<Duration> {
        self.narrator.step(step);
        let epoch_took = self.epochs.stepped(started, step);
        if let Some(watch) = &self.watch {
            watch.stepped(&self.who, epoch_took, step);
        }
        epoch_took
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

/// When the epochs under way began: one that is open, and one that the log commits.
#[derive(Default)]
struct EpochTimes {
    open: Option<Instant>,
    sent: Option<Instant>,
}

impl EpochTimes {
    /// Wall time from the first read of an epoch to its commit, where a step that began at `started` ended one.
    fn stepped(&mut self, started: Instant, step: &Step) -> Option<Duration> {
        // What was sent before this step is what ended in it, unless the log commits at once.
        let before = self.sent.take_if(|_| step.epochs > 0);
        if step.took {
            self.open.get_or_insert(started);
        }
        if step.sent && self.sent.is_none() {
            self.sent = Some(self.open.take().unwrap_or(started));
        }
        if !step.recovering.is_empty() {
            *self = Self::default();
        }
        let ended = before.or_else(|| self.sent.take_if(|_| step.epochs > 0))?;
        Some(ended.elapsed())
    }
}

/// A member whose commits are measured.
struct TimedMember {
    inner: Box<dyn Member>,
    who: Arc<Who>,
    watch: Arc<dyn Watch>,
    /// When the commit began that goes on.
    begun: Option<Instant>,
}

impl TimedMember {
    fn ended(&mut self, done: &Result<(), CommitError>) {
        let Some(begun) = self.begun.take() else { return };
        let outcome = match done {
            Ok(()) => Outcome::Done,
            Err(CommitError::Aborted(_)) => Outcome::Aborted,
            Err(CommitError::Unknown(_)) => Outcome::Unknown,
            Err(CommitError::Fenced(_)) => Outcome::Fenced,
            Err(CommitError::Log(_)) => Outcome::Failed,
        };
        self.watch.commit(&self.who, begun.elapsed(), outcome);
    }
}

impl Member for TimedMember {
    fn poll(&mut self) -> Result<Assignment, LogError> {
        self.inner.poll()
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        self.begun = Some(Instant::now());
        let done = self.inner.commit(transaction);
        self.ended(&done);
        done
    }

    fn begin_commit(&mut self, transaction: Transaction) -> Option<Result<(), CommitError>> {
        self.begun = Some(Instant::now());
        let done = self.inner.begin_commit(transaction)?;
        self.ended(&done);
        Some(done)
    }

    fn outcome(&mut self, wait: bool) -> Option<Result<(), CommitError>> {
        let done = self.inner.outcome(wait)?;
        self.ended(&done);
        Some(done)
    }

    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError> {
        self.inner.release(tasks)
    }

    fn leave(self: Box<Self>) -> Result<(), LogError> {
        self.inner.leave()
    }
}
