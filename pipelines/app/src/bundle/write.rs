//! Writes what the tasks need into the file, partition by partition.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tidewire_engine::frame::TimerCause;
use tidewire_engine::log::{Log, StoredRecord, TopicPartition, TopicSpec};
use tidewire_engine::only::OnlyKeys;
use tidewire_engine::reader::PartitionReader;
use tidewire_engine::recovery::epoch_record;
use tidewire_runtime::bundle::{About, BundleWriter, Finished, NOTES_TOPIC, note_record};
use tidewire_runtime::registry::SCHEMAS_TOPIC;
use tidewire_schemas::{EpochRecord, Record, SchemaBook, topics};

use super::Progress;
use super::changelog::{cut_records, last_of_each_key};
use super::needs::{Keep, Need, needs};
use super::note::stripped;
use super::plan::{TaskPlan, number};
use super::schemas::Used;
use crate::notes::PIPELINES;
use crate::recorded::Recorded;

/// Everything that is at hand while the file is written.
struct Writing<'a> {
    log: &'a dyn Log,
    book: &'a SchemaBook,
    plans: &'a [TaskPlan],
    keys: &'a OnlyKeys,
    topics: BTreeMap<String, TopicSpec>,
    file: BundleWriter,
    used: Used,
}

/// Writes the bundle.
///
/// # Errors
/// When the log can not be read, or no longer holds what the epochs took.
#[allow(clippy::too_many_arguments, reason = "all of them are needed once")]
pub fn write(
    log: &dyn Log,
    book: &Arc<SchemaBook>,
    recorded: &[Recorded],
    plans: &[TaskPlan],
    keys: &OnlyKeys,
    about: &About,
    path: &Path,
    overwrite: bool,
    on_progress: &mut impl FnMut(Progress),
) -> anyhow::Result<Finished> {
    let topics = log.topics()?.into_iter().map(|spec| (spec.name.to_string(), spec)).collect();
    let file = BundleWriter::create(path, overwrite)?;
    let mut writing = Writing { log, book, plans, keys, topics, file, used: Used::default() };
    let of_these =
        |recorded: &&Recorded| plans.iter().any(|plan| plan.spec.pipeline == recorded.loaded.pipeline.name);
    let recorded: Vec<&Recorded> = recorded.iter().filter(of_these).collect();
    writing.layouts(&recorded);
    let partitions_of = |topic: &str| writing.topics.get(topic).map_or(0, |spec| spec.partitions);
    let needs = needs(plans, partitions_of);
    let mut last = None;
    for (at, need) in needs {
        if last.as_ref() != Some(&at.topic) {
            last = Some(at.topic.clone());
            on_progress(Progress::Topic(at.topic.to_string()));
        }
        writing.partition(&at, need)?;
    }
    on_progress(Progress::Topic("changelogs and epoch records".to_owned()));
    writing.changelogs()?;
    writing.epochs()?;
    writing.notes(&recorded)?;
    writing.schemas()?;
    Ok(writing.file.finish(about)?)
}

impl Writing<'_> {
    /// The layouts of all topics of the pipelines, also of those of which nothing is needed.
    fn layouts(&mut self, recorded: &[&Recorded]) {
        let mut names: BTreeSet<String> =
            [PIPELINES, topics::LATE, topics::DEAD_LETTERS].map(str::to_owned).into();
        for spec in recorded.iter().flat_map(|recorded| recorded.stages()) {
            names.extend(spec.inputs.iter().map(|input| input.topic.to_string()));
            names.extend(spec.outputs.iter().map(|output| output.topic.to_string()));
            names.extend([spec.changelog_topic().to_string(), spec.epochs_topic().to_string()]);
        }
        for spec in names.iter().filter_map(|name| self.topics.get(name)) {
            self.file.topic(spec);
        }
    }

    /// A partition of an input or an output.
    fn partition(&mut self, at: &TopicPartition, mut need: Need) -> anyhow::Result<()> {
        let Some(spec) = self.topics.get(at.topic.as_str()).filter(|spec| at.partition < spec.partitions)
        else {
            return Ok(());
        };
        let bounds = self.log.bounds(at)?;
        if let Some(first) = need.first().filter(|first| *first < bounds.start && need.next() > *first) {
            bail!(
                "{at} begins at offset {}, but the epochs took records from offset {first} on: retention has deleted \
                 them; ask for later epochs",
                bounds.start
            );
        }
        let held = match need.first_whole().filter(|_| spec.compacted) {
            Some(until) => last_of_each_key(self.log, at, until)?,
            None => BTreeSet::new(),
        };
        let from = match need.has_outputs() || !held.is_empty() {
            true => bounds.start,
            false => need.first().unwrap_or(bounds.start).max(bounds.start),
        };
        let mut reader = PartitionReader::new(self.log, at.clone(), from, bounds.stable_end);
        let mut is_begun = false;
        while let Some(stored) = reader.next_record()? {
            if need.is_over(stored.offset) {
                break;
            }
            let kept = match need.keep(&stored, self.keys) {
                _ if held.contains(&stored.offset) => stored,
                Keep::Whole => stored,
                Keep::Time(time) => time,
                Keep::Not => continue,
            };
            if !is_begun {
                is_begun = true;
                self.file.begin(at, need.first().unwrap_or(kept.offset).min(kept.offset))?;
            }
            self.used.note(kept.record.value.as_deref());
            self.file.push(&kept)?;
        }
        if let Some(first) = need.first() {
            if !is_begun {
                self.file.begin(at, first)?;
            }
            self.file.end(need.next());
        }
        Ok(())
    }

    /// The cuts.
    fn changelogs(&mut self) -> anyhow::Result<()> {
        for plan in self.plans {
            let Some(marker) = plan.begin.marker_offset else { continue };
            let at = TopicPartition::new(plan.spec.changelog_topic(), plan.task);
            let (file, used, mut is_begun) = (&mut self.file, &mut self.used, false);
            cut_records(self.log, &at, marker, self.keys, |stored| {
                if !is_begun {
                    is_begun = true;
                    file.begin(&at, stored.offset)?;
                }
                if stored.offset == marker {
                    used.note(stored.record.value.as_deref());
                }
                Ok(file.push(&stored)?)
            })?;
        }
        Ok(())
    }

    /// The epoch records.
    fn epochs(&mut self) -> anyhow::Result<()> {
        let all: BTreeSet<TopicPartition> =
            self.plans.iter().map(|plan| TopicPartition::new(plan.spec.epochs_topic(), plan.task)).collect();
        for at in all {
            let mut reader = PartitionReader::from_start(self.log, at.clone())?;
            let mut is_begun = false;
            while let Some(mut stored) = reader.next_record()? {
                let Some(record) = epoch_record(&stored, self.book) else { continue };
                let is_wanted = |plan: &&TaskPlan| {
                    plan.spec.epochs_topic() == at.topic
                        && plan.task == at.partition
                        && plan.spec.name == record.stage
                        && (plan.begin.after + 1..=plan.to).contains(&number(record.epoch))
                };
                if !self.plans.iter().any(|plan| is_wanted(&plan)) {
                    continue;
                }
                if let Some(value) = self.without_others(record)? {
                    stored.record.value = Some(value.into());
                }
                if !is_begun {
                    is_begun = true;
                    self.file.begin(&at, stored.offset)?;
                }
                self.used.note(stored.record.value.as_deref());
                self.file.push(&stored)?;
            }
        }
        Ok(())
    }

    /// An epoch record without words on records and timers of other keys, if it has any.
    fn without_others(&self, mut record: EpochRecord) -> anyhow::Result<Option<Vec<u8>>> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let mut is_changed = false;
        for input in &mut record.inputs {
            let at =
                TopicPartition::new(input.topic.clone(), u32::try_from(input.partition).unwrap_or(u32::MAX));
            for skipped in &mut input.skipped {
                let found = self.log.read(&at, number(skipped.offset), 1)?.records.into_iter().next();
                let found = found.filter(|found| found.offset == number(skipped.offset));
                if !found.is_some_and(|found| self.keys.wants_bytes(found.record.key.as_deref())) {
                    is_changed |= !skipped.error.is_empty();
                    skipped.error = smol_str::SmolStr::default();
                }
            }
        }
        let timers = record.skipped_timers.len();
        record.skipped_timers.retain(|text| {
            let timer = text.lines().next().and_then(|line| line.parse::<TimerCause>().ok());
            timer.is_some_and(|timer| self.keys.wants(&timer.key))
        });
        if !is_changed && record.skipped_timers.len() == timers {
            return Ok(None);
        }
        let mut value = Vec::new();
        self.book.encode(&Record::from(record), &mut value)?;
        Ok(Some(value))
    }

    /// The pipelines, and whose the outputs are where the bundle is restricted.
    fn notes(&mut self, recorded: &[&Recorded]) -> anyhow::Result<()> {
        let pipelines: Result<Vec<StoredRecord>, _> =
            recorded.iter().map(|recorded| stripped(self.log, recorded)).collect();
        let mut pipelines = pipelines.context("the note of the pipeline")?;
        pipelines.sort_by_key(|stored| stored.offset);
        if let Some(first) = pipelines.first() {
            self.file.begin(&TopicPartition::new(PIPELINES, 0), first.offset)?;
        }
        pipelines.iter().try_for_each(|stored| self.file.push(stored))?;
        if self.keys.is_empty() {
            return Ok(());
        }
        let tasks: BTreeSet<u32> = self.plans.iter().map(|plan| plan.task).collect();
        self.file.topic(&TopicSpec::new(NOTES_TOPIC, tasks.last().map_or(1, |last| last + 1)));
        for task in tasks {
            self.file.begin(&TopicPartition::new(NOTES_TOPIC, task), 0)?;
            let mut offset = 0;
            for plan in self.plans.iter().filter(|plan| plan.task == task) {
                for (epoch, sequences) in plan.wanted.iter().flatten() {
                    let record = note_record(&plan.spec.group(), *epoch, sequences);
                    self.file.push(&StoredRecord { offset, record })?;
                    offset += 1;
                }
            }
        }
        Ok(())
    }

    fn schemas(&mut self) -> anyhow::Result<()> {
        self.file.topic(&TopicSpec::new(SCHEMAS_TOPIC, 1));
        self.file.begin(&TopicPartition::new(SCHEMAS_TOPIC, 0), 0)?;
        let records = std::mem::take(&mut self.used).records(self.book);
        Ok(records.iter().try_for_each(|stored| self.file.push(stored))?)
    }
}
