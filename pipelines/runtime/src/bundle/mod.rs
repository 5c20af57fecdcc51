//! A bundle: a stretch of a log in one file, which opens as a log that can only be read.

mod about;
mod error;
mod format;
mod log;
mod notes;
#[cfg(test)]
mod tests;
mod write;

pub use about::{About, BundleTask, InputRange};
pub use error::BundleError;
pub use log::{BundleLog, PartitionView};
pub use notes::{BundleNotes, NOTES_TOPIC, note_record};
pub use write::{BundleWriter, Finished};
