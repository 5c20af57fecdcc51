//! Bugs put in on purpose: they prove that the simulation finds what it is there to find.
//!
//! The engine asks `bugs::on` at one place for each bug. Without the feature `sim` the answer is a constant false, so
//! nothing of it is in a build that runs.

/// A bug that can be switched on for the current thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A flush leaves out an entry of the state and does not tell.
    SkippedEntry,
    /// A batch that recovery ran again is taken a second time afterwards.
    BatchTwice,
    /// The group takes a commit of whoever sends it: of zombies, and under any generation.
    StaleGeneration,
    /// A flush leaves out timers.
    LostTimer,
    /// An input counts as idle when its end was reached, not when stream time has moved on.
    WrongIdle,
    /// Records join an open epoch though a run of it again would merge them otherwise.
    JoinedOutOfOrder,
    /// The canary: the group's positions are not part of the transaction.
    PositionsLeftOut,
}

#[cfg(feature = "sim")]
impl Bug {
    /// Every bug there is.
    pub const ALL: [Bug; 7] = [
        Bug::SkippedEntry,
        Bug::BatchTwice,
        Bug::StaleGeneration,
        Bug::LostTimer,
        Bug::WrongIdle,
        Bug::JoinedOutOfOrder,
        Bug::PositionsLeftOut,
    ];
}

/// Tells which sources of a batch were at their end, for [`Bug::WrongIdle`].
#[inline]
pub(crate) fn note_ends(ends: impl Iterator<Item = bool>) {
    if on(Bug::WrongIdle) {
        switch::set_ends(ends);
    }
}

/// What [`Bug::WrongIdle`] says of a source, if it is on.
#[inline]
pub(crate) fn wrong_idle(source: usize) -> Option<bool> {
    on(Bug::WrongIdle).then(|| switch::ended(source))
}

#[cfg(feature = "sim")]
mod switch {
    use std::cell::{Cell, RefCell};

    use super::Bug;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
        /// Which sources of the last batch were at their end.
        static ENDS: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
    }

    /// Whether `bug` is on in this thread.
    pub(crate) fn on(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug)
    }

    pub(super) fn set_ends(ends: impl Iterator<Item = bool>) {
        ENDS.set(ends.collect());
    }

    pub(super) fn ended(source: usize) -> bool {
        ENDS.with_borrow(|ends| ends.get(source).copied().unwrap_or(false))
    }

    /// Runs `f` with `bug` on in this thread, or with none.
    pub fn with<T>(bug: Option<Bug>, f: impl FnOnce() -> T) -> T {
        /// Switches back, also when `f` panics.
        struct Restore(Option<Bug>);
        impl Drop for Restore {
            fn drop(&mut self) {
                ACTIVE.set(self.0);
            }
        }
        let _restore = Restore(ACTIVE.replace(bug));
        f()
    }
}

/// In a build without the feature `sim` no bug is there.
#[cfg(not(feature = "sim"))]
mod switch {
    use super::Bug;

    #[inline(always)]
    pub(crate) const fn on(_: Bug) -> bool {
        false
    }

    pub(super) fn set_ends(_: impl Iterator<Item = bool>) {}

    pub(super) fn ended(_: usize) -> bool {
        false
    }
}

pub(crate) use switch::on;
#[cfg(feature = "sim")]
pub use switch::with;
