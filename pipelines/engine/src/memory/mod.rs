//! A [`Log`] in memory: for tests, the simulation, and whatever need not outlive the process.
//!
//! It keeps the rules of a real one: a transaction is atomic, readers stop at the first open transaction, groups fence
//! zombies. Its clock moves only when told, and [`Faults`] make it fail on demand.

mod faults;
mod partition;
mod signal;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;

use crate::group::MemberId;
use crate::log::{
    Assignment, Bounds, CommitError, CommittedOffset, Fetched, Log, LogError, Member, NewRecord,
    StoredRecord, TopicPartition, TopicSpec, Transaction,
};
use state::State;

pub use faults::{CommitFault, Faults};
pub use signal::Signal;

/// A log in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    faults: Faults,
    signal: Signal,
}

impl MemoryLog {
    /// An empty log, its clock at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty log in which every transaction takes one more offset in each partition it writes to,
    /// as Kafka's markers do. So nobody can rely on offsets without gaps.
    pub fn with_control_records() -> Self {
        let log = Self::default();
        log.shared.state().control_records = true;
        log
    }

    /// The hand on this log's failures.
    pub fn faults(&self) -> Faults {
        self.shared.faults.clone()
    }

    /// Sets the clock that stamps appends, in milliseconds.
    pub fn set_now_ms(&self, now_ms: u64) {
        self.shared.state().now_ms = now_ms;
    }

    /// The clock that stamps appends, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.shared.state().now_ms
    }

    /// One compaction pass over all partitions of a topic, by the log's clock. Returns how many records went.
    ///
    /// Of the records older than the topic's lag the last one of each key stays, and all younger ones. A tombstone
    /// goes one pass later than what it deletes.
    pub fn compact(&self, topic: &str) -> Result<u64, LogError> {
        self.shared.state().compact(topic)
    }

    /// Deletes what the topics' retention by age and by bytes does not keep. Returns how many records went.
    pub fn apply_retention(&self) -> u64 {
        self.shared.state().apply_retention()
    }

    /// Deletes the records of a partition below `offset`.
    pub fn truncate_before(&self, at: &TopicPartition, offset: u64) -> Result<(), LogError> {
        self.shared.state().partition(at)?.truncate_before(offset);
        Ok(())
    }

    /// All committed records of a partition.
    pub fn records(&self, at: &TopicPartition) -> Result<Vec<StoredRecord>, LogError> {
        let mut state = self.shared.state();
        let partition = state.partition(at)?;
        Ok(partition.fetch(at, partition.bounds().start, usize::MAX)?.records)
    }

    /// Takes a member out of its group, as a broker does when heartbeats stop: it is a zombie from now on.
    /// False if it was not in.
    pub fn expire(&self, group: &str, member: &str) -> bool {
        let expired = self.shared.state().expire(group, member);
        self.shared.signal.notify();
        expired
    }

    /// Ends the transactions of a member that [`CommitFault::HoldBack`] holds open. Returns how many.
    pub fn settle(&self, member: &str) -> usize {
        let settled = self.shared.state().settle(|held| held.member == member);
        self.shared.signal.notify();
        settled
    }

    /// Ends all transactions that are held open. Returns how many.
    pub fn settle_all(&self) -> usize {
        let settled = self.shared.state().settle(|_| true);
        self.shared.signal.notify();
        settled
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless an outage is on.
    fn reach(&self, doing: impl FnOnce() -> String) -> Result<MutexGuard<'_, State>, LogError> {
        if self.faults.outage() {
            return Err(LogError::Store {
                at: doing(),
                error: "the log is out of reach; try again later".to_owned(),
            });
        }
        Ok(self.state())
    }
}

impl Log for MemoryLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.shared.reach(|| format!("creating topic {}", spec.name))?.create_topic(spec)
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        Ok(self.shared.reach(|| "listing topics".to_owned())?.specs().cloned().collect())
    }

    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        Ok(self.shared.reach(|| format!("looking up topic {name}"))?.spec(name).cloned())
    }

    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.shared
            .reach(|| format!("reading {at} at offset {from}"))?
            .partition(at)?
            .fetch(at, from, max_bytes)
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        Ok(self.shared.reach(|| format!("asking for the bounds of {at}"))?.partition(at)?.bounds())
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        self.shared.reach(|| format!("asking where group {group} stands in {at}"))?.committed(group, at)
    }

    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        let first = self.shared.reach(|| format!("appending to {at}"))?.append(at, records)?;
        self.shared.signal.notify();
        Ok(first)
    }

    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError> {
        let id = self
            .shared
            .reach(|| format!("joining group {group} as {member}"))?
            .join(group, member, driving)?;
        self.shared.signal.notify();
        Ok(Box::new(MemoryMember { shared: Arc::clone(&self.shared), group: SmolStr::new(group), id }))
    }

    fn wait(&self, timeout: Duration) {
        self.shared.signal.wait(timeout);
    }
}

/// A member of a group on a [`MemoryLog`].
#[derive(Debug)]
struct MemoryMember {
    shared: Arc<Shared>,
    group: SmolStr,
    id: MemberId,
}

impl Member for MemoryMember {
    fn poll(&mut self) -> Result<Assignment, LogError> {
        let state = self.shared.reach(|| format!("member {} asking for its tasks", self.id.name))?;
        state.group(&self.group)?.assignment(&self.id).map_err(LogError::Fenced)
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        let mut state = self.shared.reach(|| format!("committing as {}", self.id.name))?;
        let fault = self.shared.faults.take_commit(&self.id.name);
        let outcome = state.commit(&self.group, &self.id, transaction, fault);
        drop(state);
        self.shared.signal.notify();
        outcome
    }

    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError> {
        let mut state = self.shared.reach(|| format!("member {} releasing tasks", self.id.name))?;
        state.group_mut(&self.group)?.release(&self.id, tasks).map_err(LogError::Fenced)?;
        drop(state);
        self.shared.signal.notify();
        Ok(())
    }

    fn leave(self: Box<Self>) -> Result<(), LogError> {
        Ok(())
    }
}

impl Drop for MemoryMember {
    fn drop(&mut self) {
        if let Ok(group) = self.shared.state().group_mut(&self.group) {
            group.leave(&self.id);
        }
        self.shared.signal.notify();
    }
}
