//! What lies between a worker and the log: reads that return little, calls that do not get through, commits that go on beside
//! the worker or are held up until others have the tasks, and sessions that outlive their process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;

use super::random::Random;
use crate::log::{
    Assignment, Bounds, CommitError, CommittedOffset, Fetched, Log, LogError, Member, NewRecord,
    TopicPartition, TopicSpec, Transaction,
};
use crate::memory::MemoryLog;

/// How often at most a worker is told that its commit goes on.
const MOST_ANSWERS: u64 = 2;

/// What happens between a worker's poll and its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holdup {
    /// The worker stands still until its session is over and others have its tasks. Its commit arrives later.
    Pause,
    /// Another member joins and leaves.
    Rebalance,
}

/// The way to a log in memory. Clones are the same way.
#[derive(Clone)]
pub struct Network {
    log: MemoryLog,
    state: Arc<Mutex<NetworkState>>,
}

struct NetworkState {
    random: Random,
    /// Decides how commits go on beside their workers.
    commits: Random,
    short_reads: bool,
    /// Calls that still get through before the outage; none if there is no outage.
    calls_left: Option<u32>,
    holdups: BTreeMap<SmolStr, Holdup>,
    killed: BTreeSet<SmolStr>,
    ghosts: Vec<Ghost>,
    late_commits: Vec<LateCommit>,
}

/// A session whose process is gone.
struct Ghost {
    group: SmolStr,
    name: SmolStr,
    _member: Box<dyn Member>,
}

/// A commit that was held up.
struct LateCommit {
    name: SmolStr,
    member: Box<dyn Member>,
    transaction: Transaction,
}

impl Network {
    /// A way to `log` on which everything gets through.
    pub fn new(log: MemoryLog, seed: u64, short_reads: bool) -> Self {
        let state = NetworkState {
            random: Random::new(seed, 3),
            commits: Random::new(seed, 5),
            short_reads,
            calls_left: None,
            holdups: BTreeMap::new(),
            killed: BTreeSet::new(),
            ghosts: Vec::new(),
            late_commits: Vec::new(),
        };
        Self { log, state: Arc::new(Mutex::new(state)) }
    }

    /// From the `calls`-th call on nothing gets through.
    pub fn begin_outage(&self, calls: u32) {
        self.with(|state| state.calls_left = Some(calls));
    }

    /// Everything gets through again. True if there was an outage.
    pub fn end_outage(&self) -> bool {
        self.with(|state| state.calls_left.take() == Some(0))
    }

    /// Whether calls fail.
    pub fn is_out(&self) -> bool {
        self.with(|state| state.calls_left == Some(0))
    }

    /// The next commit of `member` meets `holdup`.
    pub fn hold_up(&self, member: &SmolStr, holdup: Holdup) {
        self.with(|state| state.holdups.insert(member.clone(), holdup));
    }

    /// No commit is held up any more, but for those that are.
    pub fn clear_holdups(&self) {
        self.with(|state| state.holdups.clear());
    }

    /// When `member` is dropped now, it does not leave: its session goes on until [`Network::end_session`].
    pub fn kill(&self, member: &SmolStr) {
        self.with(|state| state.killed.insert(member.clone()));
    }

    /// Sessions whose process is gone.
    pub fn ghosts(&self) -> Vec<SmolStr> {
        self.with(|state| state.ghosts.iter().map(|ghost| ghost.name.clone()).collect())
    }

    /// A session goes over to a new member of its name, which fences it.
    pub fn forget_ghost(&self, name: &str) {
        let forgotten = self.with(|state| {
            let place = state.ghosts.iter().position(|ghost| ghost.name == name)?;
            Some(state.ghosts.remove(place))
        });
        drop(forgotten);
    }

    /// The broker gives up on a session whose process is gone.
    pub fn end_session(&self, name: &str) {
        let ghost = self.with(|state| {
            let place = state.ghosts.iter().position(|ghost| ghost.name == name)?;
            Some(state.ghosts.remove(place))
        });
        if let Some(ghost) = ghost {
            self.log.expire(&ghost.group, &ghost.name);
        }
    }

    /// How many commits are held up.
    pub fn late_commits(&self) -> usize {
        self.with(|state| state.late_commits.len())
    }

    /// A commit that was held up arrives. Returns whose it was and how it ended.
    pub fn deliver(&self, place: usize) -> Option<(SmolStr, Result<(), CommitError>)> {
        let late =
            self.with(|state| (place < state.late_commits.len()).then(|| state.late_commits.remove(place)));
        let LateCommit { name, mut member, transaction } = late?;
        let outcome = member.commit(transaction);
        Some((name, outcome))
    }

    fn with<T>(&self, f: impl FnOnce(&mut NetworkState) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fails while there is an outage; counts the call.
    fn reach(&self, doing: impl FnOnce() -> String) -> Result<(), LogError> {
        let out = self.with(|state| match &mut state.calls_left {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        });
        match out {
            true => Err(LogError::Store { at: doing(), error: "the log is out of reach".to_owned() }),
            false => Ok(()),
        }
    }
}

impl Log for Network {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.reach(|| format!("creating topic {}", spec.name))?;
        self.log.create_topic(spec)
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        self.reach(|| "listing topics".to_owned())?;
        self.log.topics()
    }

    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        self.reach(|| format!("looking up topic {name}"))?;
        self.log.topic(name)
    }

    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.reach(|| format!("reading {at} at offset {from}"))?;
        let short = self.with(|state| {
            let short = state.short_reads && state.random.chance(50);
            short.then(|| usize::try_from(state.random.below(600)).unwrap_or(0))
        });
        self.log.fetch(at, from, short.map_or(max_bytes, |bytes| bytes.min(max_bytes)))
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        self.reach(|| format!("asking for the bounds of {at}"))?;
        self.log.bounds(at)
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        self.reach(|| format!("asking where group {group} stands in {at}"))?;
        self.log.committed(group, at)
    }

    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        self.reach(|| format!("appending to {at}"))?;
        self.log.append(at, records)
    }

    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError> {
        self.reach(|| format!("joining group {group} as {member}"))?;
        let inner = self.log.join(group, member, driving)?;
        Ok(Box::new(Line {
            network: self.clone(),
            inner: Some(inner),
            group: group.into(),
            name: member.into(),
            driving: driving.into(),
            flight: None,
        }))
    }

    fn wait(&self, _: Duration) {}
}

/// A member's line to the log.
struct Line {
    network: Network,
    inner: Option<Box<dyn Member>>,
    group: SmolStr,
    name: SmolStr,
    driving: SmolStr,
    flight: Option<Flight>,
}

/// A commit that goes on beside the worker.
struct Flight {
    /// How often the worker may still be told that it goes on.
    patience: u64,
    stage: Stage,
}

enum Stage {
    /// It has not arrived yet.
    Sent(Transaction),
    /// It has ended, and the worker does not know yet.
    Ended(Result<(), CommitError>),
}

impl Line {
    fn inner(&mut self) -> Result<&mut Box<dyn Member>, LogError> {
        let gone = || LogError::Fenced(format!("member {} was held up for too long", self.name));
        self.inner.as_mut().ok_or_else(gone)
    }
}

impl Member for Line {
    fn poll(&mut self) -> Result<Assignment, LogError> {
        self.network.reach(|| format!("member {} asking for its tasks", self.name))?;
        self.inner()?.poll()
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        self.network.reach(|| format!("committing as {}", self.name))?;
        match self.network.with(|state| state.holdups.remove(&self.name)) {
            None => self.inner()?.commit(transaction),
            Some(Holdup::Rebalance) => {
                let other = self.network.log.join(&self.group, "passer-by", &self.driving)?;
                drop(other);
                self.inner()?.commit(transaction)
            }
            Some(Holdup::Pause) => {
                let why = || CommitError::Fenced(format!("member {} was held up for too long", self.name));
                let member = self.inner.take().ok_or_else(why)?;
                self.network.log.expire(&self.group, &self.name);
                let late = LateCommit { name: self.name.clone(), member, transaction };
                self.network.with(|state| state.late_commits.push(late));
                // The process that was held up does nothing more; what it sent is still on its way.
                Err(why())
            }
        }
    }

    fn begin_commit(&mut self, transaction: Transaction) -> Option<Result<(), CommitError>> {
        let drawn = self.network.with(|state| {
            let patience = state.commits.below(MOST_ANSWERS + 1);
            (state.commits.chance(60), state.commits.chance(50), patience)
        });
        let (beside, at_once, patience) = drawn;
        if !beside {
            return Some(self.commit(transaction));
        }
        let stage = match at_once {
            false => Stage::Sent(transaction),
            true => match self.commit(transaction) {
                // An outage is told while it lasts, or nothing would explain it.
                Err(error @ CommitError::Log(_)) => return Some(Err(error)),
                outcome => Stage::Ended(outcome),
            },
        };
        self.flight = Some(Flight { patience, stage });
        None
    }

    fn outcome(&mut self, wait: bool) -> Option<Result<(), CommitError>> {
        let flight = self.flight.as_mut()?;
        if !wait && flight.patience > 0 {
            flight.patience -= 1;
            return None;
        }
        match self.flight.take()?.stage {
            Stage::Sent(transaction) => Some(self.commit(transaction)),
            Stage::Ended(outcome) => Some(outcome),
        }
    }

    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError> {
        self.network.reach(|| format!("member {} releasing tasks", self.name))?;
        self.inner()?.release(tasks)
    }

    fn leave(mut self: Box<Self>) -> Result<(), LogError> {
        match self.inner.take() {
            Some(inner) => inner.leave(),
            None => Ok(()),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Whether what a process sent still arrives after its end, nobody can know.
        if let Some(Flight { stage: Stage::Sent(transaction), .. }) = self.flight.take()
            && self.network.with(|state| state.commits.chance(50))
            && let Some(member) = &mut self.inner
        {
            let _ = member.commit(transaction);
        }
        let Some(member) = self.inner.take() else { return };
        self.network.with(|state| {
            if state.killed.remove(&self.name) {
                let (group, name) = (self.group.clone(), self.name.clone());
                state.ghosts.push(Ghost { group, name, _member: member });
            }
        });
    }
}
