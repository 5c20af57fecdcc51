//! Follows the log as it grows: numbers without gaps, each offset in one epoch, and every epoch run again on a task
//! that never crashed, byte by byte.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_schemas::{EpochKind, EpochRecord, Record, SchemaBook, topics};

use super::trace::Broken;
use crate::identity::Identity;
use crate::log::{Header, Log as _, NewRecord, StoredRecord, TopicPartition};
use crate::memory::MemoryLog;
use crate::plan::StageSpec;
use crate::recovery::epoch_record;
use crate::rerun::{Inputs, difference, unsigned};
use crate::task::Task;

/// Bytes of the schema prefix, which comparisons leave out.
const PREFIX_BYTES: usize = 5;

/// An output that was checked.
#[derive(Clone, Debug)]
pub struct Made {
    /// Place of the stage that made it.
    pub stage: usize,
    /// Its task.
    pub task: u32,
    /// Where it lies.
    pub at: TopicPartition,
    /// Its offset.
    pub offset: u64,
    /// The record.
    pub record: Record,
}

/// What two runs of a stage must have in common of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    at: TopicPartition,
    timestamp_ms: i64,
    key: Option<Bytes>,
    body: Bytes,
    headers: Vec<Header>,
}

impl Line {
    /// What is compared of a record.
    pub fn of(at: &TopicPartition, record: &NewRecord) -> Self {
        let value = record.value.clone().unwrap_or_default();
        Self {
            at: at.clone(),
            timestamp_ms: record.timestamp_ms,
            key: record.key.clone(),
            body: value.slice(PREFIX_BYTES.min(value.len())..),
            headers: record.headers.clone(),
        }
    }
}

/// One writer: a task of a stage, and the task that never crashed.
struct Writer {
    task: Task,
    /// Outputs seen whose epoch is not checked yet, by sequence.
    waiting: BTreeMap<u64, (TopicPartition, StoredRecord)>,
    epochs: VecDeque<EpochRecord>,
    /// Per source, the first offset that no epoch has taken.
    taken_to: Vec<u64>,
    /// The same at the last epoch with a flush: what recovery reads again begins here.
    cut: Vec<u64>,
    /// Stamp, watermark and stream time of the last epoch.
    times: (i64, Option<i64>, Option<i64>),
    /// Stamp of the last epoch with records.
    last_records_ms: Option<i64>,
    /// The log's time of the last output.
    output_ms: i64,
}

/// All writers, and how far the log was read.
pub struct Follow {
    log: MemoryLog,
    book: Arc<SchemaBook>,
    stages: Vec<Arc<StageSpec>>,
    output_topics: Vec<SmolStr>,
    read_to: BTreeMap<TopicPartition, u64>,
    writers: BTreeMap<(usize, u32), Writer>,
    /// Outputs of the first stage, where they are to be compared with an undisturbed run.
    lines: Option<BTreeMap<(u32, u64), Line>>,
    /// Epochs checked.
    pub epochs: u64,
    /// Outputs checked.
    pub outputs: u64,
}

impl Follow {
    /// Nothing read yet. `keep` keeps the outputs of the first stage.
    pub fn new(
        log: MemoryLog,
        book: Arc<SchemaBook>,
        stages: Vec<Arc<StageSpec>>,
        keep: bool,
    ) -> Result<Self, Broken> {
        let mut writers = BTreeMap::new();
        for (stage, spec) in stages.iter().enumerate() {
            for number in 0..spec.tasks() {
                let task = Task::new(Arc::clone(spec), number, Arc::clone(&book))
                    .map_err(|error| Broken::new("set-up", error))?;
                let sources = task.intake().sources().len();
                let writer = Writer {
                    task,
                    waiting: BTreeMap::new(),
                    epochs: VecDeque::new(),
                    taken_to: vec![0; sources],
                    cut: vec![0; sources],
                    times: (i64::MIN, None, None),
                    last_records_ms: None,
                    output_ms: i64::MIN,
                };
                writers.insert((stage, number), writer);
            }
        }
        let mut output_topics = vec![SmolStr::new(topics::LATE), SmolStr::new(topics::DEAD_LETTERS)];
        output_topics.extend(stages.iter().flat_map(|spec| &spec.outputs).map(|output| output.topic.clone()));
        output_topics.sort_unstable();
        output_topics.dedup();
        Ok(Self {
            log,
            book,
            stages,
            output_topics,
            read_to: BTreeMap::new(),
            writers,
            lines: keep.then(BTreeMap::new),
            epochs: 0,
            outputs: 0,
        })
    }

    /// Reads what is new and checks it; gives the new outputs, by stage and epoch. Nothing is done, and nothing is
    /// given, while a transaction is open: what lies behind it can not be read.
    pub fn check(&mut self) -> Result<Option<Vec<Made>>, Broken> {
        if !self.is_stable()? {
            return Ok(None);
        }
        for topic in self.output_topics.clone() {
            for (at, stored) in self.read(&topic)? {
                self.take_output(at, stored)?;
            }
        }
        for (_, stored) in self.read(&self.stages[0].epochs_topic())? {
            let record = epoch_record(&stored, &self.book)
                .ok_or_else(|| Broken::new("epoch records", format!("offset {} is none", stored.offset)))?;
            let stage = self.stages.iter().position(|spec| spec.name == record.stage);
            let writer = stage.zip(u32::try_from(record.task).ok());
            let writer = writer.and_then(|writer| self.writers.get_mut(&writer));
            let unknown = || Broken::new("epoch records", format!("of {}/{}", record.stage, record.task));
            writer.ok_or_else(unknown)?.epochs.push_back(record);
        }
        let mut made = Vec::new();
        for writer in self.writers.keys().copied().collect::<Vec<_>>() {
            self.check_writer(writer, &mut made)?;
        }
        Ok(Some(made))
    }

    /// Whether nothing lies behind an open transaction.
    fn is_stable(&self) -> Result<bool, Broken> {
        for topic in self.log.topics().map_err(log_failed)? {
            for partition in 0..topic.partitions {
                let at = TopicPartition::new(topic.name.clone(), partition);
                let bounds = self.log.bounds(&at).map_err(log_failed)?;
                if bounds.stable_end < bounds.high_watermark {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn read(&mut self, topic: &str) -> Result<Vec<(TopicPartition, StoredRecord)>, Broken> {
        let mut all = Vec::new();
        let partitions = self.log.topic(topic).map_err(log_failed)?.map_or(0, |topic| topic.partitions);
        for partition in 0..partitions {
            let at = TopicPartition::new(topic, partition);
            let from = self.read_to.get(&at).copied().unwrap_or(0);
            let fetched = self.log.fetch(&at, from, usize::MAX).map_err(log_failed)?;
            self.read_to.insert(at.clone(), fetched.next_offset);
            all.extend(fetched.records.into_iter().map(|stored| (at.clone(), stored)));
        }
        Ok(all)
    }

    fn take_output(&mut self, at: TopicPartition, stored: StoredRecord) -> Result<(), Broken> {
        let place = || format!("{at} offset {}", stored.offset);
        let id = Identity::of(&stored.record)
            .ok_or_else(|| Broken::new("identities", format!("{} has none", place())))?;
        let stage = self.stages.iter().position(|spec| spec.name == id.stage);
        let writer = stage.and_then(|stage| self.writers.get_mut(&(stage, id.task)));
        let writer =
            writer.ok_or_else(|| Broken::new("identities", format!("{} is of nobody: {id}", place())))?;
        let known = id.sequence <= writer.task.sequence() || writer.waiting.contains_key(&id.sequence);
        if known {
            return Err(Broken::new("no identity twice", format!("{id} is there again, at {}", place())));
        }
        writer.waiting.insert(id.sequence, (at, stored));
        Ok(())
    }

    fn check_writer(&mut self, (stage, number): (usize, u32), made: &mut Vec<Made>) -> Result<(), Broken> {
        let name = format!("{}/{number}", self.stages[stage].name);
        let Some(writer) = self.writers.get_mut(&(stage, number)) else { return Ok(()) };
        while let Some(record) = writer.epochs.pop_front() {
            self.epochs += 1;
            writer.check_epoch(&self.log, &name, &record)?;
            let inputs = Inputs::of(&writer.task).wait_for(&self.log, &writer.task, &record);
            let closed = inputs.and_then(|inputs| writer.task.rerun(&record, inputs));
            let closed =
                closed.map_err(|error| Broken::new("epochs run again", format!("{name}: {error}")))?;
            if let Some(what) = difference(&record, &closed, true) {
                let detail = format!("{name}: epoch {} run again gives {what}", record.epoch);
                return Err(Broken::new("epochs run again", detail));
            }
            for output in closed.outputs {
                let id = Identity::of(&output.record);
                let sequence = id.map_or(0, |id| id.sequence);
                let Some((at, stored)) = writer.waiting.remove(&sequence) else {
                    let detail = format!("{name}/{sequence} of epoch {} is not in the log", record.epoch);
                    return Err(Broken::new("no identity lost", detail));
                };
                if at != output.at || stored.record != output.record {
                    let detail = format!("{name}/{sequence}, at {at} offset {}", stored.offset);
                    return Err(Broken::new("outputs as run again", detail));
                }
                if stored.record.timestamp_ms < writer.output_ms {
                    let detail = format!("{name}/{sequence} is written into the past, at {at}");
                    return Err(Broken::new("time goes on", detail));
                }
                writer.output_ms = stored.record.timestamp_ms;
                if let (Some(lines), 0) = (&mut self.lines, stage) {
                    lines.insert((number, sequence), Line::of(&at, &stored.record));
                }
                let value = stored.record.value.as_deref().unwrap_or_default();
                let decoded = self.book.decode(value);
                let decoded =
                    decoded.map_err(|error| Broken::new("outputs decode", format!("{name}: {error}")))?;
                made.push(Made { stage, task: number, at, offset: stored.offset, record: decoded });
                self.outputs += 1;
            }
        }
        match writer.waiting.first_key_value() {
            None => Ok(()),
            Some((sequence, (at, stored))) => {
                let detail = format!("{name}/{sequence} at {at} offset {} is of no epoch", stored.offset);
                Err(Broken::new("outputs with their epoch", detail))
            }
        }
    }

    /// Outputs of the first stage, by task and sequence, if they were kept.
    pub fn lines(&self) -> Option<&BTreeMap<(u32, u64), Line>> {
        self.lines.as_ref()
    }

    /// What recovery of a task reads again of a source: from its last cut to its last epoch.
    pub fn read_again(&self, stage: usize, task: u32, source: usize) -> Range<u64> {
        let Some(writer) = self.writers.get(&(stage, task)) else { return 0..0 };
        writer.cut[source]..writer.taken_to[source]
    }

    /// Whether every record of every input is in an epoch.
    pub fn check_all_taken(&self) -> Result<(), Broken> {
        for ((stage, number), writer) in &self.writers {
            for (source, taken_to) in writer.task.intake().sources().iter().zip(&writer.taken_to) {
                let left = self.log.fetch(&source.at, *taken_to, usize::MAX).map_err(log_failed)?.records;
                if let Some(first) = left.first() {
                    let detail = format!(
                        "{}/{number} has not taken {} records of {} from offset {} on",
                        self.stages[*stage].name,
                        left.len(),
                        source.at,
                        first.offset
                    );
                    return Err(Broken::new("nothing stalls", detail));
                }
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Silent time goes on no further than the stamps since the last record, less the inputs' patience.
    fn check_silence(&mut self, name: &str, record: &EpochRecord) -> Result<(), Broken> {
        if record.inputs.iter().any(|input| input.records > 0) {
            self.last_records_ms = Some(record.stamp_ms);
        }
        let (Some(to_ms), Some(since_ms)) = (record.time_advance_ms, self.last_records_ms) else {
            return Ok(());
        };
        let greatest_ms = self.task.tide().partitions().iter().filter_map(|seen| seen.greatest_ms).max();
        let most_ms =
            greatest_ms.unwrap_or(0) + (record.stamp_ms - since_ms - self.task.tide().patience_ms()).max(0);
        match to_ms <= most_ms {
            true => Ok(()),
            false => {
                let detail =
                    format!("{name}: epoch {} is silent up to {to_ms} ms, not {most_ms}", record.epoch);
                Err(Broken::new("silence is waited for", detail))
            }
        }
    }

    /// Numbers and ranges of an epoch.
    fn check_epoch(&mut self, log: &MemoryLog, name: &str, record: &EpochRecord) -> Result<(), Broken> {
        let epoch = unsigned(record.epoch);
        if epoch != self.task.epoch() + 1 {
            let detail = format!("{name}: epoch {epoch} after epoch {}", self.task.epoch());
            return Err(Broken::new("epoch numbers", detail));
        }
        let times = (record.stamp_ms, record.watermark_ms, record.stream_time_ms);
        let before = self.times;
        if times.0 < before.0 || times.1 < before.1 || times.2 < before.2 {
            let detail = format!("{name}: epoch {epoch} is at {times:?}, the one before at {before:?}");
            return Err(Broken::new("time goes on", detail));
        }
        self.times = times;
        if record.kind != EpochKind::Records && record.kind != EpochKind::Time && !record.flush {
            return Err(Broken::new("a release is a cut", format!("{name}: epoch {epoch} has no flush")));
        }
        self.check_silence(name, record)?;
        for progress in &record.inputs {
            let sources = self.task.intake().sources().iter();
            let place = sources.zip(0..).find_map(|(source, place)| {
                let same = source.at.topic == progress.topic
                    && u32::try_from(progress.partition) == Ok(source.at.partition);
                same.then_some(place)
            });
            let at = format!("{}-{}", progress.topic, progress.partition);
            let Some(place): Option<usize> = place else {
                return Err(Broken::new("input ranges", format!("{name} does not read {at}")));
            };
            let (first, next) = (unsigned(progress.first_offset), unsigned(progress.next_offset));
            let taken_to = self.taken_to[place];
            if first < taken_to || next < first {
                let detail =
                    format!("{name}: epoch {epoch} takes {at} {first}..{next}, but {taken_to} comes next");
                return Err(Broken::new("each offset in one epoch", detail));
            }
            // Nothing but markers and what was compacted or aborted may lie in a gap.
            let between = log.fetch(&self.task.intake().sources()[place].at, taken_to, 1);
            let between = between.map_err(log_failed)?.records;
            if let Some(passed_over) = between.first().filter(|stored| stored.offset < first) {
                let detail = format!("{name}: epoch {epoch} passes over {at} offset {}", passed_over.offset);
                return Err(Broken::new("each offset in one epoch", detail));
            }
            self.taken_to[place] = next;
        }
        if record.flush {
            self.cut.clone_from(&self.taken_to);
        }
        Ok(())
    }
}

fn log_failed(error: crate::log::LogError) -> Broken {
    Broken::new("the log answers", error.to_string())
}
