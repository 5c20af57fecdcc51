//! A worker's transactions.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use smol_str::{SmolStr, format_smolstr};
use tidewire_schemas::{NotRegistered, Record, SchemaBook};

use super::{Committed, Slot, Step, Worker, WorkerError};
use crate::bugs::{self, Bug};
use crate::fault::Skips;
use crate::log::{CommitError, CommittedOffset, NewRecord, TopicPartition, Transaction};
use crate::mark::Mark;
use crate::outputs::Output;
use crate::plan::StageSpec;
use crate::task::Closed;

/// One task's share of a transaction.
pub(super) struct Part {
    pub(super) task: u32,
    pub(super) closed: Closed,
    pub(super) driving: (TopicPartition, u64),
    pub(super) releases: bool,
}

impl Worker {
    /// Begins to commit; where the log does that at once, the end of it too.
    pub(super) fn commit(
        &mut self,
        generation: u32,
        parts: Vec<Part>,
        step: &mut Step,
    ) -> Result<(), WorkerError> {
        if parts.is_empty() {
            return Ok(());
        }
        step.worked = true;
        step.sent = true;
        let transaction = self.transaction(generation, &parts)?;
        self.flight = parts;
        match self.member.begin_commit(transaction) {
            Some(outcome) => self.landed(outcome, step),
            None => Ok(()),
        }
    }

    /// Waits until nothing is being committed any more.
    pub(super) fn land(&mut self, step: &mut Step) -> Result<(), WorkerError> {
        while !self.flight.is_empty() {
            if let Some(outcome) = self.member.outcome(true) {
                self.landed(outcome, step)?;
            }
        }
        Ok(())
    }

    /// Does what the end of a commit asks for.
    pub(super) fn landed(
        &mut self,
        outcome: Result<(), CommitError>,
        step: &mut Step,
    ) -> Result<(), WorkerError> {
        step.worked = true;
        let parts = std::mem::take(&mut self.flight);
        match outcome {
            Ok(()) => self.committed(parts, step),
            Err(CommitError::Aborted(_)) => {
                self.pending = parts;
                Ok(())
            }
            Err(CommitError::Unknown(_)) => {
                for part in parts {
                    step.recovering.push(part.task);
                    let slot = self.recovering(part.task, Skips::default(), VecDeque::new());
                    self.slots.insert(part.task, slot);
                }
                Ok(())
            }
            Err(CommitError::Fenced(why)) => Err(WorkerError::Fenced(why)),
            Err(CommitError::Log(error)) => Err(error.into()),
        }
    }

    fn committed(&mut self, parts: Vec<Part>, step: &mut Step) -> Result<(), WorkerError> {
        let mut released = Vec::new();
        for part in parts {
            step.epochs += 1;
            step.records += part
                .closed
                .record
                .inputs
                .iter()
                .map(|input| crate::rerun::unsigned(input.records))
                .sum::<u64>();
            step.outputs += part.closed.outputs.len() as u64;
            let state = part.closed.changelog.iter().flatten();
            let state_bytes = state.map(|record| record.size() as u64).sum::<u64>();
            step.state_bytes += state_bytes;
            let outputs = by_topic(&part.closed.outputs);
            step.committed.push(Committed { record: part.closed.record, outputs, state_bytes });
            if part.releases {
                released.push(part.task);
            } else if let Some(Slot::Running(running)) = self.slots.get_mut(&part.task) {
                running.skips = Skips::default();
                running.wants_cut = false;
            }
        }
        if self.options.recover_only {
            for task in &released {
                self.slots.insert(*task, Slot::Halted);
            }
            return Ok(());
        }
        self.give_back(&released, step)
    }

    pub(super) fn give_back(&mut self, tasks: &[u32], step: &mut Step) -> Result<(), WorkerError> {
        for task in tasks {
            self.slots.remove(task);
        }
        step.gone.extend(tasks);
        if !tasks.is_empty() {
            self.member.release(tasks)?;
        }
        Ok(())
    }

    /// Everything of all tasks' epochs, as one atomic step.
    fn transaction(&self, generation: u32, parts: &[Part]) -> Result<Transaction, WorkerError> {
        let mut appends: BTreeMap<TopicPartition, Vec<NewRecord>> = BTreeMap::new();
        let mut offsets = Vec::new();
        for part in parts {
            for output in &part.closed.outputs {
                appends.entry(output.at.clone()).or_default().push(output.record.clone());
            }
            if let Some(changelog) = &part.closed.changelog {
                let at = TopicPartition::new(self.spec.changelog_topic(), part.task);
                appends.entry(at).or_default().extend(changelog.iter().cloned());
            }
            let at = TopicPartition::new(self.spec.epochs_topic(), part.task);
            appends.entry(at).or_default().push(journal_record(&self.spec, &self.book, &part.closed)?);
            let (at, offset) = part.driving.clone();
            let mark = Mark {
                epoch: crate::rerun::unsigned(part.closed.record.epoch),
                writer: Some(self.options.member.clone()),
                released: part.releases,
            };
            let metadata = mark.to_string();
            if !bugs::on(Bug::PositionsLeftOut) {
                offsets.push((at, CommittedOffset { offset, metadata }));
            }
        }
        Ok(Transaction { generation, appends: appends.into_iter().collect(), offsets })
    }
}

/// How many records go to each topic.
fn by_topic(outputs: &[Output]) -> Vec<(SmolStr, u64)> {
    let mut counts: Vec<(SmolStr, u64)> = Vec::new();
    for output in outputs {
        match counts.iter_mut().find(|(topic, _)| *topic == output.at.topic) {
            Some((_, count)) => *count += 1,
            None => counts.push((output.at.topic.clone(), 1)),
        }
    }
    counts
}

/// The record of an epoch as it lies in the journal.
pub fn journal_record(
    spec: &StageSpec,
    book: &SchemaBook,
    closed: &Closed,
) -> Result<NewRecord, NotRegistered> {
    let mut value = Vec::new();
    book.encode(&Record::from(closed.record.clone()), &mut value)?;
    let key = format_smolstr!("{}/{}", spec.name, closed.record.task);
    Ok(NewRecord {
        timestamp_ms: closed.record.stamp_ms,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(value.into()),
        headers: Vec::new(),
    })
}
