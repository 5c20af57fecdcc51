//! Compaction, and what it may not touch: all that a re-run reads is kept for `replay_retention`.
//!
//! The promise has two sides. The log keeps every record of a compacted topic for that long, and the stages lag less
//! than that: what a task has read since its last cut, or holds ready, is younger. The simulation keeps the second
//! side by passing over a compaction that would break it.

use std::collections::BTreeMap;

use smol_str::SmolStr;
use tidewire_schemas::topics;

use super::cluster::Cluster;
use super::trace::Broken;
use crate::intake::Source;
use crate::log::{Log as _, TopicPartition};
use crate::memory::MemoryLog;

/// Compacted topics that stages read.
const INPUTS: [&str; 3] = [topics::MARKS, topics::INSTRUMENTS, topics::RISK_LIMITS];

/// How far compacted inputs were written, by time; and which changelogs were compacted during a recovery.
#[derive(Default)]
pub struct Ages {
    ends: BTreeMap<TopicPartition, Vec<(i64, u64)>>,
    during_recovery: BTreeMap<SmolStr, bool>,
    inputs_compacted: bool,
}

impl Ages {
    /// Takes note of the ends as they are at `now_ms`.
    pub fn note(&mut self, log: &MemoryLog, now_ms: i64) {
        for topic in INPUTS {
            let partitions = log.topic(topic).ok().flatten().map_or(0, |topic| topic.partitions);
            for partition in 0..partitions {
                let at = TopicPartition::new(topic, partition);
                let Ok(bounds) = log.bounds(&at) else { continue };
                let ends = self.ends.entry(at).or_default();
                if ends.last().is_none_or(|(_, end)| *end < bounds.high_watermark) {
                    ends.push((now_ms, bounds.high_watermark));
                }
            }
        }
    }

    /// Whether records of an input are gone.
    pub fn inputs_compacted(&self) -> bool {
        self.inputs_compacted
    }

    /// The offset below which everything was written at or before `then_ms`.
    fn end_at(&self, at: &TopicPartition, then_ms: i64) -> u64 {
        let Some(ends) = self.ends.get(at) else { return 0 };
        let older = ends.partition_point(|(time_ms, _)| *time_ms <= then_ms);
        older.checked_sub(1).map_or(0, |last| ends[last].1)
    }
}

impl Cluster {
    /// Compacts a topic, if that takes nothing that the promise says is kept.
    pub fn compact_some(&mut self) -> Result<(), Broken> {
        // What is compacted away can not be compared any more.
        if !self.check()? {
            return Ok(());
        }
        let mut compacted: Vec<SmolStr> = INPUTS.iter().map(|topic| SmolStr::new_static(topic)).collect();
        compacted.push(topics::POSITIONS.into());
        // Half of the draws are for changelogs.
        let stage = self.random.place(self.builds.len());
        let topic = match self.random.chance(50) {
            true => self.builds[stage].changelog_topic(),
            false => compacted[self.random.place(compacted.len())].clone(),
        };
        if topic == self.builds[stage].changelog_topic() {
            // A reader that is slower than a tombstone's life would miss it: one pass at most while one reads.
            let recovering = self.seats.iter().any(|seat| seat.stage == stage && seat.worker.is_recovering());
            if recovering && self.ages.during_recovery.get(&topic) == Some(&true) {
                return Ok(());
            }
            self.ages.during_recovery.insert(topic.clone(), recovering);
        } else if INPUTS.contains(&topic.as_str()) && !self.may_compact(&topic) {
            return Ok(());
        }
        self.compact(&topic)
    }

    /// One compaction pass over a topic.
    pub fn compact(&mut self, topic: &str) -> Result<(), Broken> {
        let gone =
            self.log.compact(topic).map_err(|error| Broken::new("the log answers", error.to_string()))?;
        self.report.compacted += gone;
        self.ages.inputs_compacted |= gone > 0 && INPUTS.contains(&topic);
        self.trace.note(format!("{topic} is compacted: {gone} records go"));
        Ok(())
    }

    fn may_compact(&self, topic: &str) -> bool {
        // An undisturbed run must find the same inputs.
        if self.scenario.complete && topic == topics::INSTRUMENTS {
            return false;
        }
        let retention_ms = i64::try_from(self.scenario.replay_retention_ms).unwrap_or(i64::MAX);
        let then_ms = self.now_ms - retention_ms;
        self.builds.iter().enumerate().all(|(stage, spec)| {
            (0..spec.tasks()).all(|task| {
                let sources = Source::of_task(spec, task);
                sources.iter().enumerate().filter(|(_, source)| source.at.topic == topic).all(
                    |(place, source)| {
                        let again = self.follow().read_again(stage, task, place);
                        let read_to = self.read_to(stage, task, place).max(again.end);
                        read_to.min(self.ages.end_at(&source.at, then_ms)) <= again.start
                    },
                )
            })
        })
    }

    /// How far any worker has read a source of a task.
    fn read_to(&self, stage: usize, task: u32, place: usize) -> u64 {
        let seats = self.seats.iter().filter(|seat| seat.stage == stage);
        let tasks = seats.flat_map(|seat| seat.worker.tasks()).filter(|held| held.number() == task);
        let wanted = tasks.flat_map(|task| task.intake().wanted(usize::MAX));
        wanted.filter(|(source, _)| *source == place).map(|(_, from)| from).max().unwrap_or(0)
    }
}
