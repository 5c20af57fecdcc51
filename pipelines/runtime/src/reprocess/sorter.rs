//! Puts records in the order of event time, as far as their disorder is bounded.

use std::collections::BTreeMap;

/// Most bytes of records that wait for earlier ones.
pub const MAX_HELD_BYTES: usize = 256 << 20;

/// A record that came after later ones had been passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLate {
    /// Its time, in milliseconds.
    pub time_ms: i64,
    /// Time up to which records were passed on, in milliseconds.
    pub passed_ms: i64,
    /// Whether it was for want of memory, and not by the bound on disorder.
    pub memory: bool,
}

/// Holds records until no earlier one may come: until event time has passed them by the greatest disorder allowed, or
/// until more bytes are held than there is room for. Records of one time keep their order.
pub struct Sorter<T> {
    held: BTreeMap<(i64, u64), (usize, T)>,
    bytes: usize,
    count: u64,
    greatest_ms: i64,
    passed_ms: i64,
    overflowed: bool,
    max_disorder_ms: i64,
    max_bytes: usize,
}

impl<T> Sorter<T> {
    /// Holds nothing yet.
    pub fn new(max_disorder_ms: i64, max_bytes: usize) -> Self {
        Self {
            held: BTreeMap::new(),
            bytes: 0,
            count: 0,
            greatest_ms: i64::MIN,
            passed_ms: i64::MIN,
            overflowed: false,
            max_disorder_ms,
            max_bytes,
        }
    }

    /// Takes a record of `bytes` bytes.
    ///
    /// # Errors
    /// When later ones were passed on already.
    pub fn push(&mut self, time_ms: i64, bytes: usize, item: T) -> Result<(), TooLate> {
        if time_ms < self.passed_ms {
            return Err(TooLate { time_ms, passed_ms: self.passed_ms, memory: self.overflowed });
        }
        self.greatest_ms = self.greatest_ms.max(time_ms);
        self.held.insert((time_ms, self.count), (bytes, item));
        self.count += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// The next record that nothing may come before.
    pub fn pop_ready(&mut self) -> Option<T> {
        let (time_ms, _) = *self.held.first_key_value()?.0;
        let waited = time_ms <= self.greatest_ms.saturating_sub(self.max_disorder_ms);
        let full = self.bytes > self.max_bytes;
        self.overflowed |= full && !waited;
        if waited || full { self.pop() } else { None }
    }

    /// The next record, once no more will come.
    pub fn pop(&mut self) -> Option<T> {
        let ((time_ms, _), (bytes, item)) = self.held.pop_first()?;
        self.bytes -= bytes;
        self.passed_ms = time_ms;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn sorted(times: &[i64], max_disorder_ms: i64, max_bytes: usize) -> Result<Vec<(i64, usize)>, TooLate> {
        let mut sorter = Sorter::new(max_disorder_ms, max_bytes);
        let mut out = Vec::new();
        for (place, time_ms) in times.iter().enumerate() {
            sorter.push(*time_ms, 1, (*time_ms, place))?;
            out.extend(std::iter::from_fn(|| sorter.pop_ready()));
        }
        out.extend(std::iter::from_fn(|| sorter.pop()));
        Ok(out)
    }

    #[test]
    fn records_come_in_the_order_of_time_and_those_of_one_time_as_they_came() {
        let times = [5, 3, 9, 5, 4, 14, 9, 12];
        let wanted = [(3, 1), (4, 4), (5, 0), (5, 3), (9, 2), (9, 6), (12, 7), (14, 5)];
        assert_eq!(sorted(&times, 5, 100).unwrap(), wanted);
    }

    #[test]
    fn a_record_later_than_allowed_is_refused() {
        assert!(sorted(&[10, 20, 10], 10, 100).is_ok());
        let late = sorted(&[9, 10, 20, 9], 10, 100).unwrap_err();
        assert_eq!(late, TooLate { time_ms: 9, passed_ms: 10, memory: false });
    }

    #[test]
    fn what_is_held_is_bounded() {
        assert!(sorted(&[1, 2, 3, 4, 2], 1_000, 10).is_ok());
        let late = sorted(&[1, 2, 3, 4, 1], 1_000, 2).unwrap_err();
        assert_eq!(late, TooLate { time_ms: 1, passed_ms: 2, memory: true });
    }
}
