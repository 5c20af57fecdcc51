//! A log that counts the time its callers spend in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidewire_engine::log::{
    Assignment, Bounds, CommitError, CommittedOffset, Fetched, Log, LogError, Member, NewRecord,
    TopicPartition, TopicSpec, Transaction,
};

/// Time spent in the log, in nanoseconds.
#[derive(Default)]
pub struct Spent {
    pub read: AtomicU64,
    pub commit: AtomicU64,
    received: Mutex<Received>,
}

/// What was read and is not committed yet, and how long what was took until its commit began.
struct Received {
    waiting: Vec<(u64, Instant)>,
    latencies_us: Histogram<u64>,
}

impl Default for Received {
    fn default() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
        Self { waiting: Vec::new(), latencies_us }
    }
}

impl Spent {
    fn received(&self, records: usize) {
        if records > 0 {
            self.received.lock().unwrap().waiting.push((records as u64, Instant::now()));
        }
    }

    fn ready(&self) {
        let mut received = self.received.lock().unwrap();
        let Received { waiting, latencies_us } = &mut *received;
        for (records, at) in waiting.drain(..) {
            let waited_us = u64::try_from(at.elapsed().as_micros()).unwrap();
            latencies_us.saturating_record_n(waited_us.max(1), records);
        }
    }

    /// Forgets the latencies so far.
    pub fn forget_latencies(&self) {
        self.received.lock().unwrap().latencies_us.reset();
    }

    /// From the read of each record to the beginning of its commit.
    pub fn latencies_us(&self) -> Histogram<u64> {
        self.received.lock().unwrap().latencies_us.clone()
    }
}

/// A log that counts the time its callers spend in it.
pub struct Timed {
    pub inner: Arc<dyn Log>,
    pub spent: Arc<Spent>,
}

struct TimedMember {
    inner: Box<dyn Member>,
    spent: Arc<Spent>,
}

fn timed<T>(counter: &AtomicU64, call: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = call();
    counter.fetch_add(u64::try_from(started.elapsed().as_nanos()).unwrap(), Ordering::Relaxed);
    result
}

impl Log for Timed {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.inner.create_topic(spec)
    }
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        self.inner.topics()
    }
    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        self.inner.topic(name)
    }
    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        let fetched = timed(&self.spent.read, || self.inner.fetch(at, from, max_bytes))?;
        self.spent.received(fetched.records.len());
        Ok(fetched)
    }
    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        timed(&self.spent.read, || self.inner.bounds(at))
    }
    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        self.inner.committed(group, at)
    }
    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        self.inner.append(at, records)
    }
    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError> {
        let inner = self.inner.join(group, member, driving)?;
        Ok(Box::new(TimedMember { inner, spent: Arc::clone(&self.spent) }))
    }
    fn wait(&self, timeout: Duration) {
        self.inner.wait(timeout);
    }
}

impl Member for TimedMember {
    fn poll(&mut self) -> Result<Assignment, LogError> {
        self.inner.poll()
    }
    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        self.spent.ready();
        timed(&self.spent.commit, || self.inner.commit(transaction))
    }
    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError> {
        self.inner.release(tasks)
    }
    fn leave(self: Box<Self>) -> Result<(), LogError> {
        self.inner.leave()
    }
}
