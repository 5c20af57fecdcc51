//! What operators could not take: how it is named, and how it is left out.

use std::collections::BTreeMap;

use smol_str::SmolStr;
use tidewire_schemas::NotRegistered;

use crate::frame::TimerCause;

/// What is to be left out of the next epochs, because an operator failed at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skips {
    /// Records, by source and offset.
    pub records: BTreeMap<(usize, u64), Skip>,
    /// Timers, with a code and words.
    pub timers: BTreeMap<TimerCause, (SmolStr, SmolStr)>,
}

/// Why a record is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The operator that could not take it.
    pub operator: Option<SmolStr>,
    /// A short constant.
    pub reason: SmolStr,
    /// What a person needs to know.
    pub error: SmolStr,
}

/// Why an epoch could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// An operator could not take a record or a timer. The task must be recovered and the epoch done without it.
    #[error("operator {} failed at {}: {}", .0.node, .0.at, .0.text)]
    Fault(Box<FaultAt>),
    /// The log does not know a schema that this build writes.
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
}

/// A fault, with the place in the log of what caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultAt {
    /// The operator.
    pub node: SmolStr,
    /// `topic-partition@offset`, or the timer.
    pub at: String,
    /// The record at fault, by source and offset.
    pub record: Option<(usize, u64)>,
    /// The timer at fault.
    pub timer: Option<TimerCause>,
    /// A short constant.
    pub code: SmolStr,
    /// What a person needs to know.
    pub text: String,
}

impl Skips {
    /// Leaves out what failed.
    pub fn add(&mut self, fault: &FaultAt) {
        let error = SmolStr::new(&fault.text);
        if let Some(timer) = &fault.timer {
            self.timers.insert(timer.clone(), (fault.code.clone(), error));
        } else if let Some(at) = fault.record {
            let operator = Some(fault.node.clone());
            self.records.insert(at, Skip { operator, reason: fault.code.clone(), error });
        }
    }
}
