//! The real logs, and what else meets the machine.

pub mod bundle;
pub mod clock;
pub mod embedded;
pub mod kafka;
pub mod live;
pub mod prefixed;
pub mod registry;
pub mod reprocess;
pub mod sink;
pub mod synchronised;
pub mod watch;

mod narrate;
