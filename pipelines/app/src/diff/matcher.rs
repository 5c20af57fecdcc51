//! Pairs the records of two streams by id, in one pass over both and with few records held.

use std::collections::{BTreeMap, VecDeque};

use super::Side;

/// Most records of one partition that may wait for their counterpart. Records of like runs wait for no more than what
/// differs; a wait beyond this means that the two sides have little in common.
pub const MAX_WAITING: usize = 2_000_000;

/// Digest of what identifies a record within its topic.
pub type IdDigest = u128;

/// Too many records wait for their counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {MAX_WAITING} records have no counterpart so far: the runs have little in common; compare less with \
     `--from`, `--to`, `--key` or `--topic`"
)]
pub struct TooFarApart;

/// Records that wait for their counterpart, of both sides.
///
/// Of several records with one id the first of one side is paired with the first of the other, the second with the
/// second, and so on.
#[derive(Debug)]
pub struct Matcher<T> {
    waiting: [BTreeMap<IdDigest, VecDeque<T>>; 2],
    count: usize,
}

impl<T> Default for Matcher<T> {
    fn default() -> Self {
        Self { waiting: [BTreeMap::new(), BTreeMap::new()], count: 0 }
    }
}

impl<T> Matcher<T> {
    /// Takes the next record of a side; gives it back with its counterpart, that of A first, if that one waits.
    pub fn offer(&mut self, side: Side, id: IdDigest, item: T) -> Result<Option<(T, T)>, TooFarApart> {
        let (own, other) = match side {
            Side::A => (0, 1),
            Side::B => (1, 0),
        };
        if let Some(found) = self.waiting[other].get_mut(&id) {
            let counterpart = found.pop_front();
            if found.is_empty() {
                self.waiting[other].remove(&id);
            }
            if let Some(counterpart) = counterpart {
                self.count -= 1;
                return Ok(Some(match side {
                    Side::A => (item, counterpart),
                    Side::B => (counterpart, item),
                }));
            }
        }
        if self.count >= MAX_WAITING {
            return Err(TooFarApart);
        }
        self.count += 1;
        self.waiting[own].entry(id).or_default().push_back(item);
        Ok(None)
    }

    /// Whether no record waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What found no counterpart, by side.
    pub fn rest(self) -> (Vec<T>, Vec<T>) {
        let [a, b] = self.waiting.map(|waiting| waiting.into_values().flatten().collect());
        (a, b)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    type Item = (u8, u8);

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Counts {
        same: usize,
        changed: usize,
        missing: usize,
        extra: usize,
    }

    /// Pairs two lists, read in the turns that `turns` gives.
    fn counts(a: &[Item], b: &[Item], turns: &[bool]) -> Counts {
        let mut matcher = Matcher::default();
        let (mut next, mut counts) = ([0, 0], Counts::default());
        let mut turns = turns.iter().copied().cycle();
        while next[0] < a.len() || next[1] < b.len() {
            let take_a = next[1] >= b.len() || (next[0] < a.len() && turns.next().unwrap_or(true));
            let (side, item) = if take_a { (Side::A, a[next[0]]) } else { (Side::B, b[next[1]]) };
            next[usize::from(!take_a)] += 1;
            if let Some((of_a, of_b)) = matcher.offer(side, item.0.into(), item).unwrap() {
                assert_eq!(of_a.0, of_b.0);
                if of_a == of_b {
                    counts.same += 1;
                } else {
                    counts.changed += 1;
                }
            }
        }
        let (missing, extra) = matcher.rest();
        (counts.missing, counts.extra) = (missing.len(), extra.len());
        counts
    }

    fn items() -> impl Strategy<Value = Vec<Item>> {
        prop::collection::vec((0_u8..20, 0_u8..3), 0..60)
    }

    proptest! {
        #[test]
        fn every_record_is_counted_once(
            a in items(),
            b in items(),
            turns in prop::collection::vec(any::<bool>(), 1..20),
        ) {
            let found = counts(&a, &b, &turns);
            prop_assert_eq!(found.same + found.changed + found.missing, a.len());
            prop_assert_eq!(found.same + found.changed + found.extra, b.len());
        }

        #[test]
        fn sides_can_be_swapped_and_turns_do_not_matter(
            a in items(),
            b in items(),
            turns in prop::collection::vec(any::<bool>(), 1..20),
        ) {
            let one = counts(&a, &b, &turns);
            let other = counts(&b, &a, &[true, false]);
            prop_assert_eq!(
                (one.same, one.changed, one.missing, one.extra),
                (other.same, other.changed, other.extra, other.missing)
            );
        }

        #[test]
        fn a_list_is_as_itself(a in items(), turns in prop::collection::vec(any::<bool>(), 1..20)) {
            let found = counts(&a, &a, &turns);
            prop_assert_eq!(found, Counts { same: a.len(), ..Counts::default() });
        }
    }
}
