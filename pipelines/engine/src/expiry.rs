//! Time to live: which keys of an operator were not touched for long, so that state has a bound.

use std::collections::BTreeSet;

use tidewire_contract::{FlushSink, Key, MapState, NodeSink, Persist as _, PersistError, State as _};
use tidewire_schemas::EventTime;

/// A key's last touch is kept to a fraction of its time to live, so that busy keys are not written at every flush.
const STEPS: i64 = 8;

/// When each key was touched last, roughly, and which is next to be dropped.
pub struct Expiry {
    step_ms: i64,
    keep_ms: i64,
    touched: MapState<Key, i64>,
    due: BTreeSet<(i64, Key)>,
}

impl Expiry {
    /// Keys live `time_to_live_ms` after their last touch, and at most an eighth longer.
    pub fn new(time_to_live_ms: u64) -> Self {
        let keep_ms = i64::try_from(time_to_live_ms).unwrap_or(i64::MAX / 4).clamp(1, i64::MAX / 4);
        Self {
            step_ms: (keep_ms / STEPS).max(1),
            keep_ms,
            touched: MapState::default(),
            due: BTreeSet::new(),
        }
    }

    /// A record or timer of `key` was taken at `time`.
    pub fn touch(&mut self, key: &Key, time: EventTime) {
        let step = time.as_ms().div_euclid(self.step_ms);
        match self.touched.get(key) {
            Some(before) if *before >= step => return,
            Some(before) => {
                let before = *before;
                self.due.remove(&(before, key.clone()));
            }
            None => {}
        }
        self.touched.insert(key.clone(), step);
        self.due.insert((step, key.clone()));
    }

    /// When the next key is to be dropped.
    pub fn next(&self) -> Option<EventTime> {
        let (step, _) = self.due.first()?;
        Some(EventTime::from_ms((step + 1).saturating_mul(self.step_ms).saturating_add(self.keep_ms)))
    }

    /// Takes out the key that is next.
    pub fn pop(&mut self) -> Option<Key> {
        let (_, key) = self.due.pop_first()?;
        self.touched.remove(&key);
        Some(key)
    }

    /// Hands over what changed since the last flush.
    pub fn flush(&mut self, sink: &mut dyn NodeSink) {
        self.touched.flush(&mut TaskSink(sink));
    }

    /// Takes back an entry of the changelog.
    pub fn restore(&mut self, sub: &[u8], value: &[u8], hash: u64) -> Result<(), PersistError> {
        let (key, step) = (Key::load(&mut &*sub)?, i64::load(&mut &*value)?);
        self.touched.restore(sub, value, hash)?;
        self.due.insert((step, key));
        Ok(())
    }
}

/// Entries of the task itself: they have no key.
struct TaskSink<'a>(&'a mut dyn NodeSink);

impl FlushSink for TaskSink<'_> {
    fn put(&mut self, sub: &[u8], value: &[u8], old_hash: u64) -> u64 {
        self.0.put(None, sub, value, old_hash)
    }
    fn remove(&mut self, sub: &[u8], old_hash: u64) {
        self.0.remove(None, sub, old_hash);
    }
}
