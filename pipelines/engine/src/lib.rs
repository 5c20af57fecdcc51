//! The engine: epochs, merge, watermarks, keyed state, timers and recovery, without any I/O.

pub mod group;
pub mod log;
pub mod log_limits;
pub mod memory;
pub mod plan;
pub mod frame;
pub mod timers;
pub mod node;
pub mod dataflow;
pub mod tide;
pub mod intake;
pub mod partition;
pub mod identity;
pub mod outputs;
pub mod cut;
pub mod task;
pub mod rerun;
pub mod recovery;
pub mod worker;
pub mod driver;
