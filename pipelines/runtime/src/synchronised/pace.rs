//! Virtual time at a multiple of wall time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a paced run looks whether it is to stop.
const PACE_WAIT: Duration = Duration::from_millis(20);

/// Holds virtual time to a multiple of wall time.
pub struct Pace {
    speed: Option<f64>,
    began_ms: i64,
    started: Instant,
}

impl Pace {
    /// Begins now, at virtual time `began_ms`; without a speed it never waits.
    pub fn new(speed: Option<f64>, began_ms: i64) -> Self {
        Self { speed, began_ms, started: Instant::now() }
    }

    /// Waits until `virtual_ms` may be reached; returns true when told to stop meanwhile.
    pub fn wait_until(&self, virtual_ms: i64, stop: &AtomicBool) -> bool {
        let Some(speed) = self.speed else { return false };
        let passed_ms = u32::try_from(virtual_ms.saturating_sub(self.began_ms)).unwrap_or(u32::MAX);
        let due = Duration::from_secs_f64(f64::from(passed_ms) / 1_000.0 / speed.max(1e-6));
        while self.started.elapsed() < due {
            if stop.load(Ordering::SeqCst) {
                return true;
            }
            std::thread::sleep(PACE_WAIT.min(due.saturating_sub(self.started.elapsed())));
        }
        false
    }
}
