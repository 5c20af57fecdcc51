//! The engine: epochs, merge, watermarks, keyed state, timers and recovery, without any I/O.

#[cfg(feature = "sim")]
pub mod bugs;
#[cfg(not(feature = "sim"))]
mod bugs;
pub mod cut;
pub mod dataflow;
pub mod digest;
pub mod driver;
pub mod expiry;
pub mod fault;
pub mod frame;
pub mod group;
pub mod identity;
pub mod intake;
pub mod log;
pub mod log_limits;
pub mod mark;
pub mod memory;
pub mod node;
pub mod only;
pub mod outputs;
pub mod partition;
pub mod plan;
pub mod reader;
pub mod recovery;
pub mod rerun;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sync;
pub mod task;
pub mod tide;
pub mod timers;
pub mod trace;
pub mod verify;
pub mod worker;
