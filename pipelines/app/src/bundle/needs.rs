//! What a bundle needs of each partition, and which of its records that makes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_engine::identity::{LEFT_OUT_HEADER, RECEIVED_HEADER, sequence_of, sequence_prefix};
use tidewire_engine::log::{NewRecord, StoredRecord, TopicPartition};
use tidewire_engine::only::OnlyKeys;
use tidewire_schemas::topics;

use super::plan::TaskPlan;

/// What is needed of one partition.
#[derive(Default)]
pub struct Need {
    /// Ranges that epochs took: whether they are read whole, first offset, offset after the last.
    inputs: Vec<(bool, u64, u64)>,
    /// Whose outputs are needed.
    writers: Vec<Writer>,
}

struct Writer {
    prefix: String,
    after: u64,
    to: u64,
    /// The numbers wanted, ascending; `None`: all.
    wanted: Option<Vec<u64>>,
    is_past: bool,
}

/// What becomes of a record.
pub enum Keep {
    /// It is kept as it is.
    Whole,
    /// Its place and time are kept.
    Time(StoredRecord),
    /// It is not needed.
    Not,
}

/// The needs of all partitions of inputs and outputs. `partitions_of` tells how many a topic has.
pub fn needs(plans: &[TaskPlan], partitions_of: impl Fn(&str) -> u32) -> BTreeMap<TopicPartition, Need> {
    let mut needs: BTreeMap<TopicPartition, Need> = BTreeMap::new();
    for plan in plans {
        for (at, (whole, first, next)) in &plan.ranges {
            needs.entry(at.clone()).or_default().inputs.push((*whole, *first, *next));
        }
        let names: BTreeSet<&str> = plan.spec.outputs.iter().map(|output| output.topic.as_str()).collect();
        for name in names.into_iter().chain([topics::LATE, topics::DEAD_LETTERS]) {
            for partition in 0..partitions_of(name) {
                let wanted = plan.wanted.as_ref();
                let wanted =
                    wanted.map(|all| all.iter().flat_map(|(_, sequences)| sequences).copied().collect());
                needs.entry(TopicPartition::new(name, partition)).or_default().writers.push(Writer {
                    prefix: sequence_prefix(&plan.spec.name, plan.task),
                    after: plan.begin.sequence(),
                    to: plan.last_sequence,
                    wanted,
                    is_past: plan.last_sequence <= plan.begin.sequence(),
                });
            }
        }
    }
    needs
}

impl Need {
    /// The first offset of a range, where that is known.
    pub fn first(&self) -> Option<u64> {
        self.inputs.iter().map(|(_, first, _)| *first).min()
    }

    /// The offset after the last of all ranges.
    pub fn next(&self) -> u64 {
        self.inputs.iter().map(|(_, _, next)| *next).max().unwrap_or(0)
    }

    /// Whether outputs are looked for, which may lie anywhere.
    pub fn has_outputs(&self) -> bool {
        !self.writers.is_empty()
    }

    /// Where ranges begin that every task reads whole: of a topic of such, what held before is needed too.
    pub fn first_whole(&self) -> Option<u64> {
        self.inputs.iter().filter(|(whole, ..)| *whole).map(|(_, first, _)| *first).min()
    }

    /// Whether nothing behind `offset` can be needed.
    pub fn is_over(&self, offset: u64) -> bool {
        offset >= self.next() && self.writers.iter().all(|writer| writer.is_past)
    }

    /// What becomes of a record. Records are asked about in their order.
    pub fn keep(&mut self, stored: &StoredRecord, keys: &OnlyKeys) -> Keep {
        let offset = stored.offset;
        let mut is_output = false;
        for writer in &mut self.writers {
            let Some(sequence) = sequence_of(stored, &writer.prefix) else { continue };
            writer.is_past |= sequence >= writer.to;
            let wants = |wanted: &Vec<u64>| wanted.binary_search(&sequence).is_ok();
            is_output |=
                sequence > writer.after && sequence <= writer.to && writer.wanted.as_ref().is_none_or(wants);
        }
        let mut taken =
            self.inputs.iter().filter(|(_, first, next)| (*first..*next).contains(&offset)).peekable();
        let is_input = taken.peek().is_some();
        let is_whole = taken.any(|(whole, ..)| *whole)
            || (is_input && (keys.is_empty() || keys.wants_bytes(stored.record.key.as_deref())));
        match (is_output || is_whole, is_input) {
            (true, _) => Keep::Whole,
            (false, true) => Keep::Time(time_of(stored)),
            (false, false) => Keep::Not,
        }
    }
}

/// A record of which its place and its times alone are left.
fn time_of(stored: &StoredRecord) -> StoredRecord {
    let received = stored.record.headers.iter().filter(|(name, _)| name == RECEIVED_HEADER);
    let received = received.map(|(name, value)| (name.clone(), Bytes::copy_from_slice(value)));
    let left_out = (SmolStr::new_static(LEFT_OUT_HEADER), Bytes::from_static(b"key"));
    let record = NewRecord {
        timestamp_ms: stored.record.timestamp_ms,
        key: None,
        value: None,
        headers: received.chain([left_out]).collect(),
    };
    StoredRecord { offset: stored.offset, record }
}
