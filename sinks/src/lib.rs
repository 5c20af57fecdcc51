//! Stores that take what the topics hold: what all of them must do, and one client each.
//!
//! A sink reads nothing and knows no topic's end: it is handed batches of decoded records with their places, and says
//! of each whether it was written, was there already or newer, or can not be written. What drives it (groups, retries,
//! dead letters) is `tidewire_runtime::sink`; what every sink promises is the list in `tests/tests/sink_conformance.rs`.

pub mod redis;
mod sink;

pub use sink::{Refused, Sink, SinkError, SinkRecord, Written};
