//! Windows, summed up apart from the engine: every trade is in its window, or late, or a dead letter, and never twice.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;
use tidewire_schemas::{Record, Trade, topics};

use super::follow::Made;
use super::operators::{Mischief, whole, window_start_ms};
use super::stages::{LONG_WINDOW_MS, SHORT_WINDOW_MS};
use super::trace::Broken;

/// An operator's window: operator, key, start in milliseconds.
type Window = (SmolStr, SmolStr, i64);

/// All trades and all windows that were closed.
#[derive(Default)]
pub struct WindowSums {
    /// Trades that can be processed: instrument, event time in milliseconds, quantity, by partition and offset.
    trades: BTreeMap<(u32, u64), (SmolStr, i64, i64)>,
    /// Windows whose timers fail.
    spoiled: BTreeSet<Window>,
    late: BTreeSet<(SmolStr, u32, u64)>,
    closed: BTreeMap<Window, i64>,
}

/// The operators with windows, their widths in milliseconds.
fn operators() -> [(SmolStr, i64); 2] {
    [(SmolStr::new_static("short"), SHORT_WINDOW_MS), (SmolStr::new_static("long"), LONG_WINDOW_MS)]
}

impl WindowSums {
    /// Takes note of a trade that the outside appended.
    pub fn appended(&mut self, partition: u32, offset: u64, trade: &Trade) {
        if !matches!(Mischief::of(trade), Mischief::Panic | Mischief::Refused | Mischief::RefusedLater) {
            let time_ms = trade.event_time.as_ms();
            let row = (trade.instrument.clone(), time_ms, whole(trade.quantity));
            self.trades.insert((partition, offset), row);
        }
        if matches!(Mischief::of(trade), Mischief::TimerPanics | Mischief::PoisonedWindow) {
            let start_ms = window_start_ms(trade.event_time.as_ms(), SHORT_WINDOW_MS);
            self.spoiled.insert(("short".into(), trade.instrument.clone(), start_ms));
        }
    }

    /// Takes an output that was made.
    pub fn take(&mut self, made: &Made) -> Result<(), Broken> {
        match &made.record {
            Record::LateRecord(late) if late.source_topic == topics::TICKS => {
                let place = (u32::try_from(late.source_partition), u64::try_from(late.source_offset));
                if let (Ok(partition), Ok(offset)) = place {
                    self.late.insert((late.operator.clone(), partition, offset));
                }
            }
            Record::FeatureValue(value) => {
                for (operator, width_ms) in operators() {
                    if value.name != format!("sum-{width_ms}") {
                        continue;
                    }
                    let start_ms = value.event_time.as_ms() - width_ms;
                    #[expect(clippy::cast_possible_truncation, reason = "a sum of small whole numbers")]
                    let sum = value.value as i64;
                    let window = (operator, value.instrument.clone(), start_ms);
                    if self.closed.insert(window.clone(), sum).is_some() {
                        return Err(Broken::new("windows", format!("{window:?} is closed twice")));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether every window has the sum of its trades.
    pub fn check_complete(&self) -> Result<(), Broken> {
        let mut expected: BTreeMap<Window, i64> = BTreeMap::new();
        for (operator, width_ms) in operators() {
            for ((partition, offset), (instrument, time_ms, quantity)) in &self.trades {
                if !self.late.contains(&(operator.clone(), *partition, *offset)) {
                    let start_ms = window_start_ms(*time_ms, width_ms);
                    *expected.entry((operator.clone(), instrument.clone(), start_ms)).or_insert(0) +=
                        quantity;
                }
            }
        }
        // A spoiled window may close all the same, if what was wrong with it came late.
        expected.retain(|window, _| !self.spoiled.contains(window));
        let closed = self.closed.iter().filter(|(window, _)| !self.spoiled.contains(window));
        let mut both = expected.iter().zip(closed);
        if let Some((expected, closed)) = both.find(|(expected, closed)| expected != closed) {
            return Err(Broken::new("windows", format!("{closed:?} is closed, {expected:?} expected")));
        }
        let (wanted, found) =
            (expected.len(), self.closed.keys().filter(|w| !self.spoiled.contains(*w)).count());
        match wanted == found {
            true => Ok(()),
            false => Err(Broken::new("windows", format!("{found} are closed, {wanted} expected"))),
        }
    }
}
