//! Failures on demand, for tests and the seeded simulation. They happen when told, never by chance.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use smol_str::SmolStr;

/// What becomes of a member's next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// Nothing is written, and the member is told so.
    Abort,
    /// It is written, but the member is not told.
    UnknownWritten,
    /// It is not written, and the member is not told.
    UnknownNotWritten,
    /// The transaction stays open: the member gets an unknown outcome, readers stop before it.
    /// [`MemoryLog::settle`](super::MemoryLog::settle), or a join under the same name, ends it as `commit` says.
    HoldBack {
        /// Whether it ends committed.
        commit: bool,
    },
    /// The member's time is up just before its commit: it is a zombie, and is fenced.
    Expire,
}

/// The hand on a log's failures. Clones act on the same log.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    state: Arc<Mutex<FaultState>>,
}

#[derive(Debug, Default)]
struct FaultState {
    commits: BTreeMap<SmolStr, VecDeque<CommitFault>>,
    outage: bool,
}

impl Faults {
    /// The next commit of `member` meets `fault`; several calls queue up.
    pub fn next_commit(&self, member: &str, fault: CommitFault) {
        self.with(|state| state.commits.entry(SmolStr::new(member)).or_default().push_back(fault));
    }

    /// While true every call on the log fails, as when the broker is out of reach. Nothing is lost by it.
    pub fn set_outage(&self, outage: bool) {
        self.with(|state| state.outage = outage);
    }

    /// Forgets faults that did not come to pass, and ends an outage.
    pub fn clear(&self) {
        self.with(|state| *state = FaultState::default());
    }

    pub(super) fn take_commit(&self, member: &str) -> Option<CommitFault> {
        self.with(|state| state.commits.get_mut(member).and_then(VecDeque::pop_front))
    }

    pub(super) fn outage(&self) -> bool {
        self.with(|state| state.outage)
    }

    fn with<T>(&self, f: impl FnOnce(&mut FaultState) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
