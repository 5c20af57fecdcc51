//! What a bundle takes of one task: from which cut, which epochs, and what these took and gave.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use tidewire_engine::intake::Source;
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_engine::only::{Asked, Begin, OnlyKeys, begin_before, compare};
use tidewire_engine::partition::partition_of_compound;
use tidewire_engine::plan::StageSpec;
use tidewire_engine::verify::Journal;
use tidewire_runtime::bundle::{BundleTask, InputRange};
use tidewire_schemas::{EpochRecord, EventTime, SchemaBook};

use super::{Edge, Request};
use crate::records::hex;

/// What is taken of a task.
pub struct TaskPlan {
    /// The stage.
    pub spec: Arc<StageSpec>,
    /// The task.
    pub task: u32,
    /// The cut.
    pub begin: Begin,
    /// The last epoch.
    pub to: u64,
    /// Outputs up to this number were made by these epochs, those up to that of the cut before.
    pub last_sequence: u64,
    /// What the epochs took, by partition: whether it is read whole, first offset, offset after the last.
    pub ranges: BTreeMap<TopicPartition, (bool, u64, u64)>,
    /// Outputs of the keys asked for, by number, for each epoch that has any; `None`: all outputs are wanted.
    pub wanted: Option<Vec<(u64, Vec<u64>)>>,
    /// What is said of it.
    pub about: BundleTask,
}

/// Whether keys may lie in a task: by where the partitioner puts them.
pub fn may_hold(spec: &StageSpec, task: u32, keys: &[String]) -> bool {
    keys.is_empty() || keys.iter().any(|key| partition_of_compound(key, spec.tasks()) == task)
}

impl TaskPlan {
    /// Finds the epochs of a task that are asked for; `None` if it has none.
    pub fn find(
        log: &dyn Log,
        spec: &Arc<StageSpec>,
        book: &SchemaBook,
        task: u32,
        request: &Request,
    ) -> anyhow::Result<Option<Self>> {
        let Some((from, to)) = epochs(log, spec, book, task, request)? else { return Ok(None) };
        let begin = begin_before(log, spec, book, task, from, false)?;
        if begin.after >= to {
            bail!(
                "{}/{task}: no cut that is whole reaches epoch {to}; the first one is that of epoch {}: ask for later epochs",
                spec.name,
                begin.after
            );
        }
        let mut plan = Self {
            spec: Arc::clone(spec),
            task,
            last_sequence: begin.sequence(),
            ranges: BTreeMap::new(),
            wanted: None,
            about: BundleTask {
                pipeline: spec.pipeline.to_string(),
                stage: spec.name.to_string(),
                task,
                after_epoch: begin.after,
                first_epoch: from.max(begin.after + 1),
                last_epoch: to,
                ..BundleTask::default()
            },
            begin,
            to,
        };
        plan.take_positions();
        let mut journal = Journal::new(log, spec, book, task)?;
        while let Some(record) = journal.next_record()? {
            if number(record.epoch) > to {
                break;
            }
            if number(record.epoch) > plan.begin.after {
                plan.take(&record);
            }
        }
        plan.about.inputs = plan.inputs();
        Ok(Some(plan))
    }

    /// Whether it is of that task.
    pub fn is_of(&self, spec: &StageSpec, task: u32) -> bool {
        self.task == task && self.spec.name == spec.name && self.spec.pipeline == spec.pipeline
    }

    /// Runs the epochs again, with all keys and with those asked for alone, and notes which outputs are theirs.
    pub fn note_outputs(
        &mut self,
        log: &dyn Log,
        book: &Arc<SchemaBook>,
        keys: &Arc<OnlyKeys>,
    ) -> anyhow::Result<()> {
        let asked =
            Asked { keys: Arc::clone(keys), from: self.begin.after + 1, to: self.to, is_partial: false };
        let mut wanted = Vec::new();
        let report = compare(log, &self.spec, book, self.task, &asked, None, |record, sequences| {
            if !sequences.is_empty() {
                wanted.push((number(record.epoch), sequences.to_vec()));
            }
        })?;
        if let Some(difference) = report.difference {
            let why = match &difference.operator {
                Some(operator) => {
                    format!("a result of operator {operator} depends on other keys, which it must not")
                }
                None => "a bundle of some keys needs the build and file that ran".to_owned(),
            };
            bail!(
                "{}/{}: epoch {} run again for these keys differs from what was recorded: {}: {why}; leave `--key` out to \
                 bundle all of them",
                self.spec.name,
                self.task,
                difference.epoch,
                difference.what
            );
        }
        self.wanted = Some(wanted);
        Ok(())
    }

    /// Where the cut stands in each input, so that partitions of which nothing was taken have their place too.
    fn take_positions(&mut self) {
        for source in Source::of_task(&self.spec, self.task) {
            let positions = self.begin.marker.iter().flat_map(|marker| &marker.positions);
            let found = positions.into_iter().find(|position| {
                position.topic == source.at.topic
                    && number(position.partition.into()) == u64::from(source.at.partition)
            });
            let next = found.map_or(0, |position| number(position.next_offset));
            self.ranges.insert(source.at.clone(), (source.is_whole(), next, next));
        }
    }

    fn take(&mut self, record: &EpochRecord) {
        for input in &record.inputs {
            let at =
                TopicPartition::new(input.topic.clone(), u32::try_from(input.partition).unwrap_or(u32::MAX));
            let Some((_, first, next)) = self.ranges.get_mut(&at) else { continue };
            if *first == *next {
                // Nothing was taken yet: what lies between the cut and here was not there to be read.
                (*first, *next) =
                    (number(input.first_offset).max(*first), number(input.first_offset).max(*next));
            }
            *next = number(input.next_offset).max(*next);
        }
        self.last_sequence = number(record.closing_sequence);
        let about = &mut self.about;
        if number(record.epoch) == about.first_epoch {
            about.first_time_ms = record.stream_time_ms;
        }
        about.last_time_ms = record.stream_time_ms;
        let build = hex(&record.build_digest);
        if !about.builds.contains(&build) {
            about.builds.push(build);
        }
    }

    fn inputs(&self) -> Vec<InputRange> {
        let ranges = self.ranges.iter().map(|(at, (_, first, next))| InputRange {
            topic: at.topic.to_string(),
            partition: at.partition,
            first_offset: *first,
            next_offset: *next,
        });
        ranges.collect()
    }
}

/// The first and last epoch of a task that are asked for.
fn epochs(
    log: &dyn Log,
    spec: &StageSpec,
    book: &SchemaBook,
    task: u32,
    request: &Request,
) -> anyhow::Result<Option<(u64, u64)>> {
    let stands = |record: &EpochRecord| record.stream_time_ms.map(EventTime::from_ms);
    let begins = |record: &EpochRecord| match request.from {
        None => true,
        Some(Edge::Epoch(epoch)) => number(record.epoch) >= epoch,
        Some(Edge::Time(time)) => stands(record).is_some_and(|at| at >= time),
    };
    // Up to and with the first epoch past the end: until it, records of before the end may have come.
    let ends = |record: &EpochRecord| match request.to {
        None => false,
        Some(Edge::Epoch(epoch)) => number(record.epoch) >= epoch,
        Some(Edge::Time(time)) => stands(record).is_some_and(|at| at > time),
    };
    let mut journal = Journal::new(log, spec, book, task)?;
    let mut found: Option<(u64, u64)> = None;
    while let Some(record) = journal.next_record()? {
        let epoch = number(record.epoch);
        match &mut found {
            None if begins(&record) => {
                let is_before = match request.to {
                    Some(Edge::Epoch(to)) => epoch > to,
                    _ => false,
                };
                if is_before {
                    return Ok(None);
                }
                found = Some((epoch, epoch));
            }
            None => continue,
            Some((_, to)) => *to = epoch,
        }
        if ends(&record) {
            break;
        }
    }
    Ok(found)
}

/// Numbers in records of Avro are signed; these are never negative.
pub fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
