//! The real logs, and what else meets the machine.

pub mod embedded;
pub mod registry;
pub mod clock;
pub mod live;
pub mod synchronised;
