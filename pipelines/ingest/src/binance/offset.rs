//! The venue's clock against the recorder's.
//!
//! A message with a time of its own gives a difference: when the venue sent it less when it was received. The
//! estimate is the median of the last [`OFFSET_WINDOW`] differences: robust against messages that were held up on
//! the way, and it follows a drift. It uses only what was received before, so that a live feed would give the same.

use crate::limits::OFFSET_WINDOW;
use crate::summary::VenueOffsetSummary;
use std::collections::VecDeque;

/// A running estimate of venue time less received time, in microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct VenueOffset {
    given_us: Option<i64>,
    /// Difference found at the head of the file, for messages that come before the first one with a time.
    primed_us: i64,
    last: VecDeque<i64>,
    sorted: Vec<i64>,
    summary: VenueOffsetSummary,
}

impl VenueOffset {
    /// Starts with an offset that is given, or with the first difference at the head of the file.
    pub fn new(given_us: Option<i64>, primed_us: Option<i64>) -> VenueOffset {
        VenueOffset { given_us, primed_us: primed_us.unwrap_or(0), ..VenueOffset::default() }
    }

    /// Notes one difference.
    pub fn observe(&mut self, difference_us: i64) {
        let summary = &mut self.summary;
        if summary.observations == 0 {
            (summary.least_us, summary.greatest_us) = (difference_us, difference_us);
        }
        summary.observations += 1;
        summary.least_us = summary.least_us.min(difference_us);
        summary.greatest_us = summary.greatest_us.max(difference_us);
        if self.last.len() == OFFSET_WINDOW
            && let Some(oldest) = self.last.pop_front()
            && let Ok(at) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(at);
        }
        self.last.push_back(difference_us);
        let at = self.sorted.partition_point(|&other| other < difference_us);
        self.sorted.insert(at, difference_us);
    }

    /// The estimate in force; of two middle values the lower.
    pub fn estimate_us(&self) -> i64 {
        match self.given_us {
            Some(given) => given,
            None if self.sorted.is_empty() => self.primed_us,
            None => self.sorted[(self.sorted.len() - 1) / 2],
        }
    }

    /// For the summary.
    pub fn summary(&self) -> VenueOffsetSummary {
        VenueOffsetSummary { estimate_us: self.estimate_us(), given: self.given_us.is_some(), ..self.summary }
    }
}

/// Venue time less received time, in microseconds.
pub(super) fn difference_us(sent_ms: i64, received_ns: i64) -> i64 {
    sent_ms.saturating_mul(1_000).saturating_sub(received_ns.div_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_median_of_the_last_differences() {
        let mut offset = VenueOffset::new(None, Some(7));
        assert_eq!(offset.estimate_us(), 7);
        let mut all = Vec::new();
        let mut seed = 1i64;
        for n in 0..1_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let difference = (seed >> 40) % 50 + n / 3;
            offset.observe(difference);
            all.push(difference);
            let mut window = all[all.len().saturating_sub(OFFSET_WINDOW)..].to_vec();
            window.sort_unstable();
            assert_eq!(offset.estimate_us(), window[(window.len() - 1) / 2]);
        }
        let summary = offset.summary();
        assert_eq!(summary.observations, 1_000);
        assert_eq!(
            (Some(&summary.least_us), Some(&summary.greatest_us)),
            (all.iter().min(), all.iter().max())
        );
    }

    #[test]
    fn messages_held_up_do_not_move_it() {
        let mut offset = VenueOffset::new(None, None);
        for n in 0..300 {
            offset.observe(if n % 3 == 0 { -5_000_000 } else { 1_270_000 });
        }
        assert_eq!(offset.estimate_us(), 1_270_000);
    }

    #[test]
    fn what_is_given_is_not_estimated() {
        let mut offset = VenueOffset::new(Some(3), Some(7));
        offset.observe(9);
        assert_eq!(offset.estimate_us(), 3);
        assert!(offset.summary().given);
    }

    #[test]
    fn the_difference_is_positive_when_the_venue_is_ahead() {
        assert_eq!(difference_us(1_723_161_256_299, 1_723_161_255_030_314_667), 1_268_686);
    }
}
