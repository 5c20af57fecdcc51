//! What a worker tells of a step.

use smol_str::SmolStr;
use tidewire_schemas::{EpochRecord, NotRegistered};

use crate::fault::FaultAt;
use crate::log::LogError;
use crate::recovery::RecoveryReport;

/// A committed epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Its journal entry.
    pub record: EpochRecord,
    /// Output records by topic.
    pub outputs: Vec<(SmolStr, u64)>,
    /// Bytes of state written.
    pub state_bytes: u64,
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Whether there was anything to do; if not, wait for the log before the next step.
    pub worked: bool,
    /// Whether records were taken, or time.
    pub took: bool,
    /// Whether a commit was begun.
    pub sent: bool,
    /// Input records in committed epochs.
    pub records: u64,
    /// Epochs committed, over all tasks.
    pub epochs: u64,
    /// Output records committed.
    pub outputs: u64,
    /// Bytes of state written.
    pub state_bytes: u64,
    /// The epochs committed.
    pub committed: Vec<Committed>,
    /// Tasks that the group gave.
    pub given: Vec<u32>,
    /// Tasks that are no longer held.
    pub gone: Vec<u32>,
    /// Tasks that must be recovered, because an operator failed or a commit's outcome is not known.
    pub recovering: Vec<u32>,
    /// Tasks that finished recovery in this step.
    pub recovered: Vec<(u32, RecoveryReport)>,
    /// Records and timers that operators failed at; they are dead-lettered.
    pub faults: Vec<FaultAt>,
    /// Tasks that stopped, and why.
    pub halted: Vec<(u32, String)>,
    /// True when every task was recovered and released, as `recover_only` asks.
    pub finished: bool,
}

/// Why a worker must be replaced by a new one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// Another writer took this one's place.
    #[error("{0}")]
    Fenced(String),
    /// The log failed.
    #[error(transparent)]
    Log(LogError),
    /// The log does not know a schema that this build writes.
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
}

impl From<LogError> for WorkerError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Fenced(why) => Self::Fenced(why),
            error => Self::Log(error),
        }
    }
}
