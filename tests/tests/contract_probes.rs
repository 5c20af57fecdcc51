//! Operators unlike those that ship, to see whether the contract carries them: over the cross-section of
//! instruments, over venues, over an account, over any field, over large windows, by batch, by a calendar. Each runs
//! on the production step of a task. They are tests only; none is registered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod probes;
