//! The engine: epochs, merge, watermarks, keyed state, timers and recovery, without any I/O.

pub mod group;
pub mod log;
pub mod log_limits;
pub mod memory;
