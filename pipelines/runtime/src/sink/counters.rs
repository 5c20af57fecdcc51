//! What sinks count, for metrics and for tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smol_str::SmolStr;

/// A sink and a topic.
type Of = (SmolStr, SmolStr);

/// Counters of all sinks of a process, by sink and topic. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct SinkCounters {
    all: Arc<Mutex<BTreeMap<Of, Arc<Counters>>>>,
}

impl SinkCounters {
    /// What was counted so far, by sink and topic.
    pub fn snapshot(&self) -> BTreeMap<Of, SinkStats> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(of, counters)| (of.clone(), counters.stats())).collect()
    }

    pub(super) fn of(&self, sink: &SmolStr, topic: &SmolStr) -> Arc<Counters> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry((sink.clone(), topic.clone())).or_default())
    }
}

/// What one sink did with one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkStats {
    /// Records read from the log.
    pub read: u64,
    /// Records that changed the store.
    pub applied: u64,
    /// Records that the store had already, or newer ones.
    pub stale: u64,
    /// Records that went to the dead letters.
    pub dead_letters: u64,
    /// Batches whose position was committed.
    pub batches: u64,
    /// Attempts that failed and were made again.
    pub retries: u64,
    /// Offsets that were gone before they were read.
    pub skipped: u64,
    /// 1 while the store, or the log, does not take what it is given; otherwise 0.
    pub waiting: u64,
    /// Offsets in its partitions that are not committed yet, when it last looked.
    pub lag: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub read: AtomicU64,
    pub applied: AtomicU64,
    pub stale: AtomicU64,
    pub dead_letters: AtomicU64,
    pub batches: AtomicU64,
    pub retries: AtomicU64,
    pub skipped: AtomicU64,
    pub waiting: AtomicU64,
    pub lag: AtomicU64,
}

impl Counters {
    fn stats(&self) -> SinkStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SinkStats {
            read: get(&self.read),
            applied: get(&self.applied),
            stale: get(&self.stale),
            dead_letters: get(&self.dead_letters),
            batches: get(&self.batches),
            retries: get(&self.retries),
            skipped: get(&self.skipped),
            waiting: get(&self.waiting),
            lag: get(&self.lag),
        }
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Sets a gauge.
pub(super) fn set(gauge: &AtomicU64, value: u64) {
    gauge.store(value, Ordering::Relaxed);
}
