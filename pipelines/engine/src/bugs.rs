//! Bugs put in on purpose: they prove that the simulation finds what it is there to find.
//!
//! The engine asks [`on`] at one place for each bug. Without the feature `sim` the answer is a constant false, so
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
    /// The canary: the group's positions are not part of the transaction.
    PositionsLeftOut,
}

impl Bug {
    /// Every bug there is.
    pub const ALL: [Bug; 6] = [
        Bug::SkippedEntry,
        Bug::BatchTwice,
        Bug::StaleGeneration,
        Bug::LostTimer,
        Bug::WrongIdle,
        Bug::PositionsLeftOut,
    ];
}

#[cfg(feature = "sim")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether `bug` is on in this thread.
    pub(crate) fn on(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug)
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

#[cfg(feature = "sim")]
pub(crate) use switch::on;
#[cfg(feature = "sim")]
pub use switch::with;

/// No bug is in a build without the feature `sim`.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub(crate) const fn on(_: Bug) -> bool {
    false
}
