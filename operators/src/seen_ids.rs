//! Which ids were seen, kept as ranges: a venue that numbers its trades one by one needs a single range.

use std::collections::BTreeMap;

use tidewire_contract::persist;

/// Most ranges kept; beyond it the lowest is forgotten.
pub const MAX_RANGES: usize = 1_000;

persist! {
    /// Ids seen, as ranges from their first to their last.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct SeenIds {
        ranges: BTreeMap<i64, i64>,
    }
}

impl SeenIds {
    /// Notes an id; false if it was seen before.
    pub fn insert(&mut self, id: i64) -> bool {
        // Nearly always the next one.
        if let Some(mut newest) = self.ranges.last_entry()
            && newest.get().checked_add(1) == Some(id)
        {
            *newest.get_mut() = id;
            return true;
        }
        let before = self.ranges.range(..=id).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| id <= last) {
            return false;
        }
        let joins_before = before.filter(|(_, last)| last.checked_add(1) == Some(id));
        let after = id.checked_add(1).and_then(|next| self.ranges.remove(&next));
        let first = joins_before.map_or(id, |(first, _)| first);
        self.ranges.insert(first, after.unwrap_or(id));
        if self.ranges.len() > MAX_RANGES {
            self.ranges.pop_first();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_find_what_was_seen() {
        let mut seen = SeenIds::default();
        for (id, new) in
            [(5, true), (7, true), (5, false), (6, true), (6, false), (4, true), (7, false), (8, true)]
        {
            assert_eq!(seen.insert(id), new, "{id}");
        }
        assert_eq!(seen.ranges, BTreeMap::from([(4, 8)]));
        assert!(seen.insert(i64::MAX) && seen.insert(i64::MIN) && !seen.insert(i64::MAX));
    }

    #[test]
    fn any_order_any_gaps() {
        let mut seen = SeenIds::default();
        let ids: Vec<i64> = (0..500).map(|n| n * 7_919 % 1_009).collect();
        let new = ids.iter().filter(|id| seen.insert(**id)).count();
        assert_eq!(new, 500);
        assert!(ids.iter().all(|id| !seen.insert(*id)));
    }

    #[test]
    fn bounded() {
        let mut seen = SeenIds::default();
        (0..5_000).for_each(|n| assert!(seen.insert(n * 2)));
        assert_eq!(seen.ranges.len(), MAX_RANGES);
        assert!(!seen.insert(9_998));
    }
}
