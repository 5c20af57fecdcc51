//! What a store must do to be a sink.

use std::fmt;

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_schemas::Record;

/// A store that keeps the last record of each key.
///
/// Records come at least once: after a crash, or when partitions move, some come again, and a process that was
/// stopped and wakes may bring old ones. So a sink keeps, with each key, the place of the record it was written
/// from, and compares and writes in one atomic step: a record at the same place or before it changes nothing.
///
/// Places are comparable within one partition of one topic. A sink refuses ([`SinkError::Fatal`]) a record whose key
/// was written from another partition or topic, as after a change of the partition count, until it is given a higher
/// generation, before which everything else is old.
pub trait Sink: Send {
    /// Connects, and makes sure that the store can be written to. May be called again after an error.
    fn open(&mut self) -> Result<(), SinkError>;

    /// Writes a batch, in order. An error says nothing about the batch's records: some may be written. Then the same
    /// batch is given again.
    fn write(&mut self, batch: &[SinkRecord]) -> Result<Written, SinkError>;

    /// Makes what was written as safe as the store makes it. Positions are committed only after this.
    fn flush(&mut self) -> Result<(), SinkError>;

    /// Asks the store whether it could be written to now.
    fn health(&mut self) -> Result<(), SinkError>;

    /// Lets go of the store. A closed sink may be opened again.
    fn close(&mut self) -> Result<(), SinkError>;
}

/// A record on its way to a store.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkRecord {
    /// The topic it lies in.
    pub topic: SmolStr,
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key, as it lies in the log.
    pub key: Option<Bytes>,
    /// What it says; `None` deletes its key.
    pub record: Option<Record>,
}

impl SinkRecord {
    /// Its place, as messages show it.
    pub fn place(&self) -> impl fmt::Display {
        format!("{}-{}, offset {}", self.topic, self.partition, self.offset)
    }
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Records that changed the store.
    pub applied: u64,
    /// Records that were there already, or behind what is there.
    pub stale: u64,
    /// Records that can never be written; they go to the dead letters.
    pub refused: Vec<Refused>,
}

/// A record that can never be written, whatever is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its place in the batch.
    pub index: usize,
    /// A code, such as `no_key`.
    pub reason: SmolStr,
    /// What is wrong, in words.
    pub error: String,
}

/// Why a store could not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It may work later: the store is down, full, or busy.
    #[error("{doing}: {error}")]
    Retriable {
        /// What was being done, and where.
        doing: String,
        /// The store's own words.
        error: String,
    },
    /// Trying again is of no use before somebody changes something; the words say what.
    #[error("{doing}: {error}")]
    Fatal {
        /// What was being done, and where.
        doing: String,
        /// The store's own words, and what to do.
        error: String,
    },
}

impl SinkError {
    /// Whether trying again may help.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Retriable { .. })
    }
}
