//! The keys that a re-run is restricted to, and what a task does with the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_contract::Key;

use crate::fault::Skips;
use crate::identity::is_left_out;
use crate::intake::Taken;
use crate::plan::Role;
use crate::task::Task;

/// Keys that are asked for. A key of several parts (`account/instrument`) is one of them if it is named whole, or by its
/// first part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnlyKeys {
    keys: BTreeSet<SmolStr>,
}

impl OnlyKeys {
    /// These keys.
    pub fn new<K: Into<SmolStr>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self { keys: keys.into_iter().map(Into::into).collect() }
    }

    /// Whether a key is one of them.
    pub fn wants(&self, key: &str) -> bool {
        self.keys.contains(key) || key.split_once('/').is_some_and(|(first, _)| self.keys.contains(first))
    }

    /// The same for a record's key; what is no text is nobody's.
    pub fn wants_bytes(&self, key: Option<&[u8]>) -> bool {
        key.and_then(|key| std::str::from_utf8(key).ok()).is_some_and(|key| self.wants(key))
    }

    /// The keys as they were named, in order.
    pub fn iter(&self) -> impl Iterator<Item = &SmolStr> {
        self.keys.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// Which keys a task's operators see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyScope {
    /// All of them.
    #[default]
    All,
    /// All of them, and the outputs of some are noted.
    Noted(Arc<OnlyKeys>),
    /// Some alone. Records of the others give their time.
    Only {
        /// Which.
        keys: Arc<OnlyKeys>,
        /// Whether what belongs to others was taken out of the log, so that its digests can not be compared.
        is_partial: bool,
    },
}

impl KeyScope {
    /// Whether a key is asked for.
    pub fn wants(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Noted(keys) | Self::Only { keys, .. } => keys.wants(key),
        }
    }

    /// The same for a record's key.
    pub fn wants_bytes(&self, key: Option<&[u8]>) -> bool {
        match self {
            Self::All => true,
            Self::Noted(keys) | Self::Only { keys, .. } => keys.wants_bytes(key),
        }
    }

    /// Whether state of that owner is asked for; what belongs to the task as a whole always is.
    pub fn wants_owner(&self, owner: Option<&Key>) -> bool {
        owner.is_none_or(|key| self.wants(key))
    }

    /// Whether operators see nothing of other keys.
    pub fn drops_others(&self) -> bool {
        matches!(self, Self::Only { .. })
    }

    /// Whether outputs of the keys are noted.
    pub fn notes(&self) -> bool {
        matches!(self, Self::Noted(_))
    }

    /// Whether what belongs to other keys is not in the log.
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Only { is_partial: true, .. })
    }
}

impl Task {
    /// Whether a record passes the operators by, because it is of another key than they are to see, or nothing of it but
    /// its time is there. It gives its time all the same, unless it was skipped when it was taken first.
    pub(crate) fn passes_by(&mut self, taken: &Taken, skips: &Skips) -> bool {
        let (record, source) = (&taken.stored.record, &self.intake.sources()[taken.source]);
        let is_others = match &self.only {
            KeyScope::Only { keys, .. } => !source.is_whole() && !keys.wants_bytes(record.key.as_deref()),
            KeyScope::All | KeyScope::Noted(_) => false,
        };
        if !is_others && !is_left_out(record) {
            return false;
        }
        let was_skipped = skips.records.contains_key(&(taken.source, taken.stored.offset));
        let is_data = source.role != Role::Control;
        if is_data && !was_skipped && source.received_before_ms(record).is_none() {
            self.tide.observe(taken.source, taken.stored.record.timestamp_ms);
        }
        true
    }

    /// Whether records of keyed inputs may lack what belongs to other keys.
    pub(crate) fn sees_less(&self) -> bool {
        self.only.is_partial()
    }

    /// Sequence numbers of the outputs of the noted keys since the last call.
    pub(crate) fn take_noted(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.noted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_wanted_whole_or_by_its_first_part() {
        let keys = OnlyKeys::new(["paper-main", "a/b"]);
        for wanted in ["paper-main", "paper-main/BTCUSDT.X", "a/b"] {
            assert!(keys.wants(wanted), "{wanted}");
        }
        for other in ["paper", "paper-main2", "a", "a/c", "", "b/paper-main"] {
            assert!(!keys.wants(other), "{other}");
        }
        assert!(!keys.wants_bytes(None));
        assert!(!keys.wants_bytes(Some(&[0xff, 0xfe])));
    }
}
