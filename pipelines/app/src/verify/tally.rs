//! What verification found of a task, and of all tasks together.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::plan::StageSpec;
use tidewire_engine::verify::{Difference, EpochName, Stretch, VerifyReport};

/// Most differences of a task that are kept with their records; beyond that they are counted.
const MAX_DIFFERENCES: usize = 16;
/// Most stretches of event time that are kept apart; beyond that neighbours become one.
const MAX_SPANS: usize = 10_000;

/// What was found of one task.
#[derive(Clone)]
pub struct Tally {
    /// The stage.
    pub stage: Arc<StageSpec>,
    /// The task's number.
    pub task: u32,
    /// All reports together; its difference is the first one.
    pub report: VerifyReport,
    /// Stretches that there were, of a sample.
    pub stretches: u64,
    /// Stretches that were verified.
    pub drawn: u64,
    /// Differences, one a stretch.
    pub differences: Vec<Difference>,
    /// How many there were.
    pub differing: u64,
    /// Why something could not be verified.
    pub errors: Vec<String>,
    /// How many times that was so.
    pub failures: u64,
    /// Why there was nothing to verify.
    pub note: Option<String>,
    /// Whether it was told to stop before the end.
    pub stopped: bool,
    spans_ms: Vec<(i64, i64)>,
}

impl Tally {
    /// Nothing found yet.
    pub fn new(stage: Arc<StageSpec>, task: u32) -> Self {
        Self {
            stage,
            task,
            report: VerifyReport::default(),
            stretches: 0,
            drawn: 0,
            differences: Vec::new(),
            differing: 0,
            errors: Vec::new(),
            failures: 0,
            note: None,
            stopped: false,
            spans_ms: Vec::new(),
        }
    }

    /// Takes up a report.
    pub fn take(&mut self, report: &VerifyReport) {
        let all = &mut self.report;
        if all.last.is_none() {
            all.began_after = report.began_after;
        }
        all.epochs += report.epochs;
        all.not_compared += report.not_compared;
        all.records += report.records;
        all.compared += report.compared;
        all.compacted += report.compacted;
        all.deleted += report.deleted;
        all.last = report.last.or(all.last);
        self.stopped |= report.stopped;
        if let Some(difference) = &report.difference {
            self.differing += 1;
            if self.differences.len() < MAX_DIFFERENCES {
                self.differences.push(difference.clone());
            }
            all.difference.get_or_insert_with(|| difference.clone());
        }
        if let Some((from, to)) = report.span_ms {
            let full = self.spans_ms.len() >= MAX_SPANS;
            match self.spans_ms.last_mut() {
                Some(last) if full || from <= last.1 => last.1 = last.1.max(to),
                _ => self.spans_ms.push((from, to)),
            }
        }
    }

    /// Takes up a stretch of a sample.
    pub fn take_stretch(&mut self, stretch: &Stretch) {
        self.stretches += 1;
        if let Some(report) = &stretch.report {
            self.drawn += 1;
            self.take(report);
        }
    }

    /// Takes up why something could not be verified.
    pub fn failed(&mut self, error: String) {
        self.failures += 1;
        if self.errors.len() < MAX_DIFFERENCES {
            self.errors.push(error);
        }
    }

    /// The last epoch that was run again.
    pub fn last(&self) -> Option<EpochName> {
        self.report.last
    }
}

/// All tasks together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Tasks of which something was verified.
    pub tasks: u64,
    /// Epochs compared.
    pub epochs: u64,
    /// Input records taken by them.
    pub records: u64,
    /// Output records compared.
    pub compared: u64,
    /// Stretches that there were, of a sample.
    pub stretches: u64,
    /// Stretches that were verified.
    pub drawn: u64,
    /// Tasks or stretches with a difference.
    pub differing: u64,
    /// Tasks or stretches that could not be verified.
    pub failures: u64,
    /// Event time that was verified, in milliseconds: what several tasks share counts once.
    pub span_ms: i64,
    /// How long it took.
    pub wall: Duration,
}

impl Summary {
    /// Adds up.
    pub fn of(tallies: &[Tally], wall: Duration) -> Self {
        let mut sum = Self { wall, ..Self::default() };
        for tally in tallies {
            sum.tasks += u64::from(tally.report.epochs > 0);
            sum.epochs += tally.report.epochs;
            sum.records += tally.report.records;
            sum.compared += tally.report.compared;
            sum.stretches += tally.stretches;
            sum.drawn += tally.drawn;
            sum.differing += tally.differing;
            sum.failures += tally.failures;
        }
        sum.span_ms = covered(tallies.iter().flat_map(|tally| tally.spans_ms.iter().copied()).collect());
        sum
    }

    /// Records a second.
    pub fn records_per_s(&self) -> f64 {
        self.records as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    /// How many times faster than the events themselves it went.
    pub fn times_real_time(&self) -> f64 {
        self.span_ms as f64 / 1_000.0 / self.wall.as_secs_f64().max(1e-9)
    }
}

/// How much time spans cover together.
fn covered(mut spans_ms: Vec<(i64, i64)>) -> i64 {
    spans_ms.sort_unstable();
    let (mut sum, mut until) = (0, i64::MIN);
    for (from, to) in spans_ms {
        if to > until {
            sum += to - from.max(until);
            until = to;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_tasks_share_counts_once() {
        assert_eq!(covered(Vec::new()), 0);
        assert_eq!(covered(vec![(10, 20), (0, 5), (15, 30), (16, 17), (30, 31)]), 5 + 21);
    }
}
