//! The timers of one operator.

use std::collections::{BTreeMap, BTreeSet};

use tidewire_contract::{Key, NodeSink, Persist, PersistError, Timer};

use crate::bugs::{self, Bug};

/// Timers by time, then key, then tag, and which of them the changelog does not know yet.
#[derive(Debug, Default)]
pub struct TimerQueue {
    /// The hash each has in the changelog; 0 if it is not there.
    due: BTreeMap<Timer, u64>,
    /// Set since the last flush.
    fresh: BTreeSet<Timer>,
    /// Gone since the last flush, with their hashes.
    gone: BTreeMap<Timer, u64>,
    /// How many timers each key waits for.
    waiting: BTreeMap<Key, u32>,
}

impl TimerQueue {
    /// Sets a timer; nothing happens if it is set.
    pub fn set(&mut self, timer: Timer) {
        if self.due.contains_key(&timer) {
            return;
        }
        let hash = self.gone.remove(&timer).unwrap_or(0);
        if hash == 0 {
            self.fresh.insert(timer.clone());
        }
        *self.waiting.entry(timer.key.clone()).or_insert(0) += 1;
        self.due.insert(timer, hash);
    }

    /// Whether a key waits for any timer.
    pub fn holds(&self, key: &Key) -> bool {
        self.waiting.contains_key(key)
    }

    /// The timers that a key waits for. Walks all.
    pub fn of(&self, key: &Key) -> Vec<Timer> {
        if !self.holds(key) {
            return Vec::new();
        }
        self.due.keys().filter(|timer| timer.key == *key).cloned().collect()
    }

    /// Takes a timer back.
    pub fn cancel(&mut self, timer: &Timer) {
        if let Some(hash) = self.due.remove(timer) {
            self.forget(timer.clone(), hash);
        }
    }

    /// The next timer.
    pub fn first(&self) -> Option<&Timer> {
        self.due.first_key_value().map(|(timer, _)| timer)
    }

    /// Takes the next timer out.
    pub fn pop(&mut self) -> Option<Timer> {
        let (timer, hash) = self.due.pop_first()?;
        self.forget(timer.clone(), hash);
        Some(timer)
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// How many are set.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Hands over what changed since the last flush.
    pub fn flush(&mut self, sink: &mut dyn NodeSink) {
        for (timer, hash) in std::mem::take(&mut self.gone) {
            sink.remove(Some(&timer.key), &place(&timer), hash);
        }
        for timer in std::mem::take(&mut self.fresh) {
            if bugs::on(Bug::LostTimer) && timer.at.as_ms() % 16 == 0 {
                continue;
            }
            let hash = sink.put(Some(&timer.key), &place(&timer), &[], 0);
            self.due.insert(timer, hash);
        }
    }

    /// Takes back an entry of the changelog.
    pub fn restore(&mut self, key: &Key, mut place: &[u8], hash: u64) -> Result<(), PersistError> {
        let (at, tag) = <(_, u32)>::load(&mut place)?;
        *self.waiting.entry(key.clone()).or_insert(0) += 1;
        self.due.insert(Timer { at, key: key.clone(), tag }, hash);
        Ok(())
    }

    fn forget(&mut self, timer: Timer, hash: u64) {
        if let Some(count) = self.waiting.get_mut(&timer.key) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&timer.key);
            }
        }
        if hash == 0 {
            self.fresh.remove(&timer);
        } else {
            self.gone.insert(timer, hash);
        }
    }
}

fn place(timer: &Timer) -> Vec<u8> {
    let mut place = Vec::with_capacity(12);
    (timer.at, timer.tag).save(&mut place);
    place
}
