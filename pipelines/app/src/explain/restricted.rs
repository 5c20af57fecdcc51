//! A past of which only some keys are in the log: that of a bundle restricted to them.
//!
//! Its epochs are run again with these keys alone. What comes out has other sequence numbers, as outputs of other keys are
//! missing; here it gets those under which it lies in the log.

use std::collections::BTreeMap;

use tidewire_engine::identity::Identity;
use tidewire_engine::log::LogError;
use tidewire_engine::only::{Comparer, Notes as _, OnlyDifference};
use tidewire_engine::task::Closed;
use tidewire_runtime::bundle::BundleNotes;
use tidewire_schemas::EpochRecord;

use super::past::Past;

/// Numbers in the log, by numbers of the re-run.
pub type Renumbered = BTreeMap<u64, u64>;

/// Whose outputs are whose, and whether they are the same again.
pub struct Restricted<'a> {
    notes: BundleNotes<'a>,
    comparer: Comparer<'a>,
}

impl<'a> Restricted<'a> {
    /// For the epochs of a task, from anywhere on.
    pub fn new(past: &Past<'a>) -> Result<Self, LogError> {
        Ok(Self {
            notes: BundleNotes::new(past.log, &past.spec.group(), past.task)?,
            comparer: Comparer::new(past.log, &past.spec, past.book, past.task, 0)?,
        })
    }

    /// What an epoch gave for the keys, as it is numbered in the log, and how it differs from what lies there.
    pub fn take(
        &mut self,
        record: &EpochRecord,
        closed: &Closed,
    ) -> Result<(Renumbered, Option<String>), LogError> {
        let wanted = self.notes.outputs_of(u64::try_from(record.epoch).unwrap_or(0))?;
        let difference = self.comparer.compare(record, &closed.outputs, &wanted)?;
        let now = closed.outputs.iter().map(|output| Identity::of(&output.record).map(|id| id.sequence));
        let renumbered = now.zip(wanted).filter_map(|(now, recorded)| Some((now?, recorded)));
        Ok((renumbered.collect(), difference.as_ref().map(in_words)))
    }
}

fn in_words(difference: &OnlyDifference) -> String {
    let whose = difference.operator.as_ref().map_or_else(String::new, |operator| format!(" of {operator}"));
    let place = difference.at.as_ref().map_or_else(String::new, |at| format!(" for {at}"));
    format!("an output{whose}{place}: {}", difference.what)
}
