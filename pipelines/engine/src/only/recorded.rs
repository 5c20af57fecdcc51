//! What a task wrote to its output topics, found by sequence number.

use std::collections::{BTreeMap, VecDeque};

use smol_str::SmolStr;
use tidewire_schemas::topics;

use crate::identity::{sequence_of, sequence_prefix};
use crate::log::{Log, LogError, StoredRecord, TopicPartition};
use crate::plan::StageSpec;

/// Bytes asked of the log at once.
const FETCH_BYTES: usize = 1 << 20;

/// The outputs of a task, partition by partition. They are asked for in ascending order.
pub(super) struct Recorded<'a> {
    log: &'a dyn Log,
    writer: String,
    after: u64,
    partitions: BTreeMap<TopicPartition, Reader>,
    compacted: Vec<SmolStr>,
}

struct Reader {
    from: u64,
    until: u64,
    ready: VecDeque<(u64, StoredRecord)>,
}

impl<'a> Recorded<'a> {
    /// The outputs after sequence number `after`.
    pub fn new(log: &'a dyn Log, spec: &StageSpec, task: u32, after: u64) -> Result<Self, LogError> {
        let (mut partitions, mut compacted) = (BTreeMap::new(), Vec::new());
        let names = spec.outputs.iter().map(|output| output.topic.as_str());
        for name in names.chain([topics::LATE, topics::DEAD_LETTERS]) {
            let Some(topic) = log.topic(name)? else { continue };
            for partition in 0..topic.partitions {
                let at = TopicPartition::new(name, partition);
                let bounds = log.bounds(&at)?;
                let reader = Reader { from: bounds.start, until: bounds.stable_end, ready: VecDeque::new() };
                partitions.insert(at, reader);
            }
            if topic.compacted {
                compacted.push(topic.name);
            }
        }
        Ok(Self { log, writer: sequence_prefix(&spec.name, task), after, partitions, compacted })
    }

    /// Whether compaction may have taken records of that topic.
    pub fn is_compacted(&self, topic: &str) -> bool {
        self.compacted.iter().any(|name| name == topic)
    }

    /// The output of that number in that partition.
    pub fn take(&mut self, at: &TopicPartition, sequence: u64) -> Result<Option<StoredRecord>, LogError> {
        let Some(reader) = self.partitions.get_mut(at) else { return Ok(None) };
        loop {
            while let Some((found, _)) = reader.ready.front() {
                if *found > sequence {
                    return Ok(None);
                }
                let is_it = *found == sequence;
                let taken = reader.ready.pop_front();
                if is_it {
                    return Ok(taken.map(|(_, stored)| stored));
                }
            }
            if reader.from >= reader.until {
                return Ok(None);
            }
            let fetched = self.log.read(at, reader.from, FETCH_BYTES)?;
            reader.from =
                if fetched.at_end { reader.until } else { fetched.next_offset.max(reader.from + 1) };
            for stored in fetched.records {
                if let Some(sequence) = sequence_of(&stored, &self.writer)
                    && sequence > self.after
                {
                    reader.ready.push_back((sequence, stored));
                }
            }
        }
    }

    /// The output of that number, wherever it lies.
    pub fn find(&mut self, sequence: u64) -> Result<Option<(TopicPartition, StoredRecord)>, LogError> {
        for at in self.partitions.keys().cloned().collect::<Vec<_>>() {
            if let Some(stored) = self.take(&at, sequence)? {
                return Ok(Some((at, stored)));
            }
        }
        Ok(None)
    }
}
