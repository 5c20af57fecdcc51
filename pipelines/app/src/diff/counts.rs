//! How many records are the same, changed, missing or extra.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use smol_str::SmolStr;

use super::Side;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// In both runs, with other fields.
    Changed,
    /// In A only.
    Missing,
    /// In B only.
    Extra,
}

impl Class {
    /// The class in a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Extra => "extra",
        }
    }
}

/// Records by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In both runs, the same.
    pub same: u64,
    /// In both runs, with other fields.
    pub changed: u64,
    /// In A only.
    pub missing: u64,
    /// In B only.
    pub extra: u64,
}

impl Counts {
    /// Counts one difference.
    pub fn add(&mut self, class: Class) {
        match class {
            Class::Changed => self.changed += 1,
            Class::Missing => self.missing += 1,
            Class::Extra => self.extra += 1,
        }
    }

    /// Those that are not the same.
    pub fn differences(&self) -> u64 {
        self.changed + self.missing + self.extra
    }

    /// All that were compared.
    pub fn all(&self) -> u64 {
        self.same + self.differences()
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "same": self.same, "changed": self.changed, "missing": self.missing, "extra": self.extra,
        })
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.same += other.same;
        self.changed += other.changed;
        self.missing += other.missing;
        self.extra += other.extra;
    }
}

/// Most things, such as orders, that are counted one by one.
const MAX_THINGS: usize = 2_000_000;

/// Things of which there are several records, such as the states of an order: a thing counts once.
#[derive(Clone, Debug, Default)]
pub struct Things {
    seen: BTreeMap<SmolStr, [bool; 3]>,
    /// Whether there were more things than are counted.
    pub is_cut: bool,
}

impl Things {
    /// Notes a record that is the same in both runs.
    pub fn same(&mut self, id: SmolStr) {
        self.note(id, [true, true, false]);
    }

    /// Notes a record that differs.
    pub fn differs(&mut self, id: SmolStr, side: Option<Side>) {
        self.note(id, [side != Some(Side::B), side != Some(Side::A), true]);
    }

    fn note(&mut self, id: SmolStr, flags: [bool; 3]) {
        if self.seen.len() >= MAX_THINGS && !self.seen.contains_key(&id) {
            self.is_cut = true;
            return;
        }
        let seen = self.seen.entry(id).or_default();
        for (flag, set) in seen.iter_mut().zip(flags) {
            *flag |= set;
        }
    }

    /// How many things of each class.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for flags in self.seen.values() {
            match flags {
                [true, true, false] => counts.same += 1,
                [true, true, true] => counts.changed += 1,
                [true, false, _] => counts.missing += 1,
                _ => counts.extra += 1,
            }
        }
        counts
    }

    /// The first things that differ, by id.
    pub fn differing(&self, limit: usize) -> Vec<(SmolStr, Class)> {
        let differing = self.seen.iter().filter_map(|(id, flags)| match flags {
            [true, true, false] => None,
            [true, true, true] => Some((id.clone(), Class::Changed)),
            [true, false, _] => Some((id.clone(), Class::Missing)),
            _ => Some((id.clone(), Class::Extra)),
        });
        differing.take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_counts_once() {
        let mut things = Things::default();
        things.same("a".into());
        things.differs("a".into(), Some(Side::A));
        things.differs("b".into(), Some(Side::A));
        things.differs("b".into(), Some(Side::A));
        things.differs("c".into(), Some(Side::B));
        things.same("d".into());
        assert_eq!(things.counts(), Counts { same: 1, changed: 1, missing: 1, extra: 1 });
        assert_eq!(things.differing(2), [("a".into(), Class::Changed), ("b".into(), Class::Missing)]);
    }
}
