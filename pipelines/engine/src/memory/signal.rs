//! Wakes threads that wait for something new in a log.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Most logs a thread keeps its place in; beyond that the oldest place is forgotten and one wait returns early.
const MAX_PLACES: usize = 64;

static NEXT_SIGNAL: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// What this thread saw last, by signal.
    static PLACES: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
}

/// A counter of changes. Every waiting thread keeps its own place in it, so none takes another's wake-up.
#[derive(Debug)]
pub struct Signal {
    id: u64,
    changes: Mutex<u64>,
    changed: Condvar,
}

impl Default for Signal {
    fn default() -> Self {
        Self {
            id: NEXT_SIGNAL.fetch_add(1, Ordering::Relaxed),
            changes: Mutex::new(0),
            changed: Condvar::new(),
        }
    }
}

impl Signal {
    /// Tells all threads that something changed.
    pub fn notify(&self) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits until something changed since this thread's last call returned, or `timeout` has passed.
    pub fn wait(&self, timeout: Duration) {
        let seen =
            PLACES.with_borrow(|places| places.iter().find(|place| place.0 == self.id).map_or(0, |p| p.1));
        let changes = self.wait_past(seen, timeout);
        PLACES.with_borrow_mut(|places| {
            places.retain(|place| place.0 != self.id);
            if places.len() >= MAX_PLACES {
                places.remove(0);
            }
            places.push((self.id, changes));
        });
    }

    /// Waits until there were other than `seen` changes, or `timeout` has passed; returns how many there were.
    pub fn wait_past(&self, seen: u64, timeout: Duration) -> u64 {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match self.changed.wait_timeout_while(changes, timeout, |changes| *changes == seen) {
            Ok((changes, _)) => *changes,
            Err(poisoned) => *poisoned.into_inner().0,
        }
    }
}
