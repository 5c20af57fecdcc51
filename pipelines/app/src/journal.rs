//! Where the tasks of a pipeline stand, by the epoch records in the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_engine::intake::Source;
use tidewire_engine::log::{Log, LogError, TopicPartition};
use tidewire_engine::plan::{Role, StageSpec};
use tidewire_engine::reader::PartitionReader;
use tidewire_engine::recovery::epoch_record;
use tidewire_schemas::{EpochRecord, InputProgress, SchemaBook};

/// Epoch records looked at first, from the end of a partition; doubled until every task is found.
const FIRST_WINDOW: u64 = 512;

/// A task by its last epoch records.
#[derive(Clone, Debug)]
pub struct TaskStand {
    /// The task's number.
    pub task: u32,
    /// Its last epoch; `None` if it never had one.
    pub last: Option<EpochRecord>,
    /// Its last epoch that wrote a cut.
    pub last_flush: Option<i64>,
    /// Its input partitions, as in its last epoch that took records.
    pub inputs: Vec<InputStand>,
    /// The input partition that holds the watermark back.
    pub holder: Option<usize>,
}

/// One input partition of a task.
#[derive(Clone, Debug)]
pub struct InputStand {
    /// The name in the pipeline file.
    pub id: SmolStr,
    /// The partition.
    pub at: TopicPartition,
    /// How it is read.
    pub role: Role,
    /// Whether the watermark counts it.
    pub counts: bool,
    /// The next offset to be taken.
    pub next_offset: u64,
    /// Where the partition ends.
    pub end: u64,
    /// Greatest event time taken, in milliseconds.
    pub greatest_ms: Option<i64>,
    /// By how much stream time is past that, in milliseconds.
    pub behind_ms: Option<i64>,
    /// Whether it no longer holds the watermark back: it has been silent for longer than this, in milliseconds.
    pub idle_after_ms: i64,
    /// Whether it is idle.
    pub idle: bool,
    /// What it allows: its greatest event time less its out-of-orderness, in milliseconds.
    pub allows_ms: Option<i64>,
}

impl InputStand {
    /// Offsets not yet taken.
    pub fn lag(&self) -> u64 {
        self.end.saturating_sub(self.next_offset)
    }
}

/// Where each task of each stage stands.
pub fn stands(
    log: &dyn Log,
    book: &SchemaBook,
    stages: &[Arc<StageSpec>],
) -> Result<Vec<Vec<TaskStand>>, LogError> {
    let most = stages.iter().map(|stage| stage.tasks()).max().unwrap_or(0);
    let mut found: BTreeMap<(SmolStr, u32), Seen> = BTreeMap::new();
    if let Some(first) = stages.first() {
        for task in 0..most {
            let wanted: Vec<&StageSpec> =
                stages.iter().map(|stage| &**stage).filter(|stage| task < stage.tasks()).collect();
            look(log, book, &TopicPartition::new(first.epochs_topic(), task), &wanted, &mut found)?;
        }
    }
    let mut all = Vec::with_capacity(stages.len());
    for stage in stages {
        let tasks = (0..stage.tasks()).map(|task| {
            let seen = found.remove(&(stage.name.clone(), task)).unwrap_or_default();
            stand(log, stage, task, seen)
        });
        all.push(tasks.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(all)
}

#[derive(Default)]
struct Seen {
    last: Option<EpochRecord>,
    last_flush: Option<i64>,
    inputs: BTreeMap<(SmolStr, i32), InputProgress>,
}

/// A longer tail than this is not looked into.
const MOST_CONTROL: u64 = 64;

/// Reads epoch records backwards in windows until all stages of this task number were found, or there are no more.
fn look(
    log: &dyn Log,
    book: &SchemaBook,
    at: &TopicPartition,
    stages: &[&StageSpec],
    found: &mut BTreeMap<(SmolStr, u32), Seen>,
) -> Result<(), LogError> {
    if log.topic(&at.topic)?.is_none_or(|topic| at.partition >= topic.partitions) {
        return Ok(());
    }
    let bounds = log.bounds(at)?;
    let mut window = FIRST_WINDOW;
    loop {
        let from = bounds.stable_end.saturating_sub(window).max(bounds.start);
        let mut seen: BTreeMap<SmolStr, Seen> = BTreeMap::new();
        let mut reader = PartitionReader::new(log, at.clone(), from, bounds.stable_end);
        while let Some(stored) = reader.next_record()? {
            let Some(record) = epoch_record(&stored, book) else { continue };
            let seen = seen.entry(record.stage.clone()).or_default();
            for input in &record.inputs {
                seen.inputs.insert((input.topic.clone(), input.partition), input.clone());
            }
            if record.flush {
                seen.last_flush = Some(record.epoch);
            }
            seen.last = Some(record);
        }
        let all =
            stages.iter().all(|stage| seen.get(&stage.name).is_some_and(|seen| !seen.inputs.is_empty()));
        if all || from == bounds.start {
            found.extend(seen.into_iter().map(|(stage, seen)| ((stage, at.partition), seen)));
            return Ok(());
        }
        window = window.saturating_mul(4);
    }
}

/// The end as far as records go: at the tail there may be nothing but the control records that end transactions.
fn end_of_records(log: &dyn Log, at: &TopicPartition, next: u64, end: u64) -> Result<u64, LogError> {
    let may_be_control = log.offsets_of_commit() > 0 && next < end && end - next <= MOST_CONTROL;
    if may_be_control && log.read(at, next, 1)?.records.is_empty() { Ok(next) } else { Ok(end) }
}

fn stand(log: &dyn Log, stage: &StageSpec, task: u32, seen: Seen) -> Result<TaskStand, LogError> {
    let stream_ms = seen.last.as_ref().and_then(|record| record.stream_time_ms);
    let mut inputs = Vec::new();
    for source in Source::of_task(stage, task) {
        let spec = &stage.inputs[source.input];
        let key = (source.at.topic.clone(), i32::try_from(source.at.partition).unwrap_or(i32::MAX));
        let progress = seen.inputs.get(&key);
        let bounds = match log.topic(&source.at.topic)? {
            Some(topic) if source.at.partition < topic.partitions => Some(log.bounds(&source.at)?),
            _ => None,
        };
        let start = bounds.map_or(0, |bounds| bounds.start);
        let next_offset = progress.map_or(start, |done| u64::try_from(done.next_offset).unwrap_or(0));
        let greatest_ms = progress.and_then(|progress| progress.greatest_event_time_ms);
        let behind_ms = stream_ms.zip(greatest_ms).map(|(stream, greatest)| stream.saturating_sub(greatest));
        let counts = source.is_external_data() && stage.has_watermark();
        inputs.push(InputStand {
            id: spec.id.clone(),
            role: source.role,
            counts,
            next_offset,
            end: end_of_records(log, &source.at, next_offset, bounds.map_or(0, |bounds| bounds.stable_end))?,
            greatest_ms,
            behind_ms,
            idle_after_ms: spec.idle_after_ms,
            idle: counts && behind_ms.is_none_or(|behind| behind > spec.idle_after_ms),
            allows_ms: greatest_ms.map(|greatest| greatest.saturating_sub(spec.out_of_orderness_ms)),
            at: source.at,
        });
    }
    let active = inputs.iter().enumerate().filter(|(_, input)| input.counts && !input.idle);
    let holder =
        active.filter_map(|(place, input)| Some((input.allows_ms?, place))).min().map(|(_, place)| place);
    Ok(TaskStand { task, last: seen.last, last_flush: seen.last_flush, inputs, holder })
}
