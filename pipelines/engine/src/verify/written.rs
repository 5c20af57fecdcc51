//! What a task wrote to its output topics, partition by partition, to be compared with what a re-run gives.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_schemas::topics;

use super::seek::seek;
use crate::identity::{CAUSE_HEADER, Identity, sequence_of, sequence_prefix};
use crate::log::{Log, LogError, StoredRecord, TopicPartition};
use crate::outputs::Output;
use crate::plan::StageSpec;

/// Bytes asked of the log at once.
const FETCH_BYTES: usize = 1 << 20;
/// Bytes of the schema prefix, which is not compared: ids differ from log to log.
const PREFIX_BYTES: usize = 5;
/// How long to wait for a transaction that is being ended, before it is looked at again.
const WAIT: Duration = Duration::from_millis(20);
/// How often that is done: half a minute.
const MAX_WAITS: usize = 1_500;

/// How an output compares with what lies in the log.
pub(super) enum Compared {
    /// Every byte is there.
    Same,
    /// Compaction has taken it.
    Compacted,
    /// Retention has deleted it.
    Deleted,
    /// It is not as it was.
    Differs { what: &'static str, found: Option<(TopicPartition, StoredRecord)> },
}

/// What a task wrote, partition by partition, in its own order.
pub(super) struct Written<'a> {
    log: &'a dyn Log,
    writer: String,
    /// Outputs up to here were made before the epochs that are verified.
    after: u64,
    partitions: BTreeMap<TopicPartition, Reader>,
    compacted: Vec<SmolStr>,
}

#[derive(Default)]
struct Reader {
    from: u64,
    until: u64,
    /// Retention has deleted records of the partition, so that earlier ones of the task may be gone.
    truncated: bool,
    /// Whether a record of the task was found that is kept for certain: later ones can not be deleted.
    begun: bool,
    ready: VecDeque<(u64, StoredRecord)>,
}

impl<'a> Written<'a> {
    /// The outputs after the task's sequence `after`.
    pub fn new(log: &'a dyn Log, spec: &StageSpec, task: u32, after: u64) -> Result<Self, LogError> {
        let (mut partitions, mut compacted) = (BTreeMap::new(), Vec::new());
        let writer = sequence_prefix(&spec.name, task);
        let topics = spec.outputs.iter().map(|output| output.topic.as_str());
        for name in topics.chain([topics::LATE, topics::DEAD_LETTERS]) {
            let Some(topic) = log.topic(name)? else { continue };
            for partition in 0..topic.partitions {
                let at = TopicPartition::new(name, partition);
                let bounds = log.bounds(&at)?;
                let mut reader = Reader {
                    from: bounds.start,
                    until: bounds.stable_end,
                    truncated: bounds.start > 0 && !topic.compacted,
                    ..Reader::default()
                };
                if after > 0 {
                    reader.from = seek(log, &at, reader.from, reader.until, |stored| {
                        sequence_of(stored, &writer).map(|sequence| sequence <= after)
                    })?;
                    // It moved because an earlier record of the task is there.
                    reader.begun = reader.from > bounds.start;
                }
                partitions.insert(at, reader);
            }
            if topic.compacted {
                compacted.push(topic.name);
            }
        }
        Ok(Self { log, writer, after, partitions, compacted })
    }

    /// Goes on with what was written after the task's sequence `after`, with what has come since.
    pub fn pass(&mut self, after: u64) -> Result<(), LogError> {
        self.after = after;
        for (at, reader) in &mut self.partitions {
            let bounds = self.log.bounds(at)?;
            // Retention may have overtaken it.
            reader.truncated |= reader.from < bounds.start && !self.compacted.contains(&at.topic);
            reader.begun &= reader.from >= bounds.start;
            reader.from = reader.from.max(bounds.start);
            reader.until = reader.until.max(bounds.stable_end);
            while reader.ready.front().is_some_and(|(sequence, _)| *sequence <= after) {
                reader.ready.pop_front();
                reader.begun = true;
            }
        }
        Ok(())
    }

    /// Compares an output with the next record that the task wrote to its partition.
    pub fn compare(&mut self, output: &Output) -> Result<Compared, LogError> {
        let sequence = Identity::of(&output.record).map_or(0, |id| id.sequence);
        let found = match self.front_of_committed(&output.at)? {
            Some((found, _)) if found > sequence => None,
            None => None,
            found => found,
        };
        let Some((found_sequence, found)) = found else { return self.not_there(output, sequence) };
        if let Some(reader) = self.partitions.get_mut(&output.at) {
            reader.ready.pop_front();
            reader.begun = true;
        }
        let header = |record: &crate::log::NewRecord| record.header(CAUSE_HEADER).cloned();
        let what = if found_sequence < sequence {
            "extra"
        } else if found.record.key != output.record.key {
            "key"
        } else if body(&found.record.value) != body(&output.record.value) {
            "value"
        } else if header(&found.record) != header(&output.record) {
            "cause"
        } else if found.record.timestamp_ms != output.record.timestamp_ms {
            "timestamp"
        } else {
            return Ok(Compared::Same);
        };
        Ok(Compared::Differs { what, found: Some((output.at.clone(), found)) })
    }

    fn not_there(&mut self, output: &Output, sequence: u64) -> Result<Compared, LogError> {
        if self.compacted.contains(&output.at.topic) {
            return Ok(Compared::Compacted);
        }
        if self.partitions.get(&output.at).is_some_and(|reader| reader.truncated && !reader.begun) {
            return Ok(Compared::Deleted);
        }
        for at in self.partitions.keys().cloned().collect::<Vec<_>>() {
            if let Some((found, stored)) = self.front(&at)?
                && found == sequence
            {
                return Ok(Compared::Differs { what: "place", found: Some((at, stored)) });
            }
        }
        Ok(Compared::Differs { what: "missing", found: None })
    }

    /// A record that the task wrote up to `sequence`, and that no output was compared with.
    pub fn extra(&mut self, sequence: u64) -> Result<Option<(TopicPartition, StoredRecord)>, LogError> {
        let mut least: Option<(u64, TopicPartition, StoredRecord)> = None;
        for at in self.partitions.keys().cloned().collect::<Vec<_>>() {
            if let Some((found, stored)) = self.front(&at)?
                && found <= sequence
                && least.as_ref().is_none_or(|(least, _, _)| found < *least)
            {
                least = Some((found, at, stored));
            }
        }
        Ok(least.map(|(_, at, stored)| (at, stored)))
    }

    /// The next record of the task in a partition, among those that are known to be there.
    fn front(&mut self, at: &TopicPartition) -> Result<Option<(u64, StoredRecord)>, LogError> {
        let Some(reader) = self.partitions.get_mut(at) else { return Ok(None) };
        while reader.ready.is_empty() && reader.from < reader.until {
            reader.read_on(self.log, at, &self.writer, self.after)?;
        }
        Ok(reader.ready.front().cloned())
    }

    /// As `front`, for a record that must be there. Its epoch is committed, but on some logs the transaction is ended in
    /// one partition after the other.
    fn front_of_committed(&mut self, at: &TopicPartition) -> Result<Option<(u64, StoredRecord)>, LogError> {
        let front = self.front(at)?;
        if front.is_some() || !self.partitions.contains_key(at) {
            return Ok(front);
        }
        let end = self.log.bounds(at)?.high_watermark;
        for _ in 0..MAX_WAITS {
            let stable_end = self.log.bounds(at)?.stable_end;
            if let Some(reader) = self.partitions.get_mut(at) {
                reader.until = reader.until.max(stable_end);
            }
            let front = self.front(at)?;
            if front.is_some() || stable_end >= end {
                return Ok(front);
            }
            self.log.wait(WAIT);
        }
        Ok(None)
    }
}

impl Reader {
    fn read_on(
        &mut self,
        log: &dyn Log,
        at: &TopicPartition,
        writer: &str,
        after: u64,
    ) -> Result<(), LogError> {
        let fetched = log.read(at, self.from, FETCH_BYTES)?;
        self.from = if fetched.at_end {
            self.until.max(fetched.next_offset)
        } else {
            fetched.next_offset.max(self.from + 1)
        };
        for stored in fetched.records {
            match sequence_of(&stored, writer) {
                Some(sequence) if sequence > after => self.ready.push_back((sequence, stored)),
                Some(_) => self.begun = true,
                None => {}
            }
        }
        Ok(())
    }
}

fn body(value: &Option<Bytes>) -> &[u8] {
    value.as_deref().unwrap_or_default().get(PREFIX_BYTES..).unwrap_or_default()
}
