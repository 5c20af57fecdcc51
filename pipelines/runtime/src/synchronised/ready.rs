//! What a round is to write.

use std::collections::BTreeMap;

use tidewire_engine::intake::available_ms;
use tidewire_engine::log::{CommittedOffset, Log, LogError, NewRecord, TopicPartition};
use tidewire_engine::mark::Mark;
use tidewire_engine::outputs::Output;
use tidewire_engine::plan::{MergeOrder, StageSpec};
use tidewire_engine::sync::{Offsets, Placed, RoundPart, SyncError, place_output};
use tidewire_engine::worker::journal_record;
use tidewire_schemas::SchemaBook;

use super::RunError;

/// What a round is to write.
#[derive(Default)]
pub struct Ready {
    /// Records by partition, in order.
    pub appends: BTreeMap<TopicPartition, Vec<NewRecord>>,
    /// Positions of the tasks that moved.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
    /// All records with their places, for the stages that read them.
    pub delivered: Vec<Placed>,
}

impl Ready {
    /// Puts the outputs of all tasks of a stage into one order by time, task and sequence.
    pub fn place_outputs(
        &mut self,
        log: &dyn Log,
        offsets: &mut Offsets,
        spec: &StageSpec,
        parts: &[RoundPart],
    ) -> Result<(), LogError> {
        let mut outputs: Vec<_> = parts
            .iter()
            .flat_map(|part| part.outputs.iter().map(move |output| (part.task, output)))
            .collect();
        // The sort is stable: a task's outputs keep their own order.
        outputs.sort_by_key(|(task, output)| match spec.order {
            MergeOrder::Event => (output.record.timestamp_ms, *task),
            MergeOrder::Availability => (available_ms(&output.record), *task),
        });
        for (_, output) in outputs {
            self.add(place_output(log, offsets, output.clone())?);
        }
        Ok(())
    }

    /// Adds epoch records, changelogs and positions.
    pub fn journal(
        &mut self,
        log: &dyn Log,
        offsets: &mut Offsets,
        (spec, book): (&StageSpec, &SchemaBook),
        part: &RoundPart,
    ) -> Result<(), RunError> {
        for closed in &part.closed {
            let at = TopicPartition::new(spec.epochs_topic(), part.task);
            let record = journal_record(spec, book, closed).map_err(SyncError::from)?;
            self.place(log, offsets, at, record)?;
            for record in closed.changelog.iter().flatten() {
                let at = TopicPartition::new(spec.changelog_topic(), part.task);
                self.place(log, offsets, at, record.clone())?;
            }
        }
        if let Some((at, offset, epoch)) = &part.position {
            // Nobody goes on writing under the name of such a run.
            let mark = Mark { epoch: *epoch, writer: None, released: true };
            // Stages with one driving topic share a position here; how far each came stands in the run's state.
            self.offsets.retain(|(other, _)| other != at);
            self.offsets.push((at.clone(), CommittedOffset { offset: *offset, metadata: mark.to_string() }));
        }
        Ok(())
    }

    /// Adds a record that no operator made.
    pub fn place(
        &mut self,
        log: &dyn Log,
        offsets: &mut Offsets,
        at: TopicPartition,
        record: NewRecord,
    ) -> Result<(), LogError> {
        self.add(place_output(log, offsets, Output { at, record, node: None })?);
        Ok(())
    }

    /// Adds a record that has its place.
    pub fn add(&mut self, placed: Placed) {
        self.appends.entry(placed.at.clone()).or_default().push(placed.stored.record.clone());
        self.delivered.push(placed);
    }
}
