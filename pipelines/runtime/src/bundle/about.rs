//! What a bundle says of itself.

use serde::{Deserialize, Serialize};

/// What was asked for and what is in it. It says nothing of when it was made or where, so that the same stretch of the same
/// log gives the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Version of the build that made it.
    pub version: String,
    /// Digest of that build, hexadecimal.
    pub made_by_build: String,
    /// Where it was asked to begin.
    pub from: Option<String>,
    /// Where it was asked to end.
    pub to: Option<String>,
    /// The keys that it is restricted to; all if empty.
    pub keys: Vec<String>,
    /// The order that it was made for.
    #[serde(default)]
    pub order: Option<String>,
    /// The tasks whose epochs are in it.
    pub tasks: Vec<BundleTask>,
    /// What is not in it, in sentences.
    pub left_out: Vec<String>,
}

impl About {
    /// Whether what belongs to other keys is not in it.
    pub fn is_restricted(&self) -> bool {
        !self.keys.is_empty()
    }

    /// What that means for a run over it, if it is restricted.
    pub fn of_keys_alone(&self) -> Option<String> {
        self.is_restricted().then(|| {
            format!(
                "records of {} alone, of others their time: what these lead to is not in the run, nor what depends on it, \
                 such as positions and exposures over other instruments",
                self.keys.join(", ")
            )
        })
    }
}

/// The epochs of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleTask {
    /// The pipeline.
    pub pipeline: String,
    /// The stage.
    pub stage: String,
    /// The task.
    pub task: u32,
    /// The epoch of the cut whose state is in it; 0 is the very beginning.
    pub after_epoch: u64,
    /// The first epoch that was asked for.
    pub first_epoch: u64,
    /// The last epoch.
    pub last_epoch: u64,
    /// Stream time of the first epoch asked for, in milliseconds.
    pub first_time_ms: Option<i64>,
    /// Stream time of the last epoch, in milliseconds.
    pub last_time_ms: Option<i64>,
    /// Digests of the builds that wrote these epochs, hexadecimal.
    pub builds: Vec<String>,
    /// What the epochs took.
    pub inputs: Vec<InputRange>,
}

/// Offsets of an input partition that epochs took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The first offset.
    pub first_offset: u64,
    /// The offset after the last.
    pub next_offset: u64,
}
