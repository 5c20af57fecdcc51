//! How far back each task can be replayed: by its epoch records, the cuts in its changelog, and what its inputs still hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use smol_str::SmolStr;
use tidewire_engine::log::{Bounds, TopicPartition};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::reader::PartitionReader;
use tidewire_engine::verify::{EpochName, Journal, Kept, cuts};
use tidewire_schemas::{EpochRecord, EventTime};

use super::{Finding, Patient};
use crate::span::shown;

const REPLAY: &str = "replay";
const EPOCHS: &str = "epochs";
const INPUTS: &str = "inputs";
const BUILD: &str = "build";
/// Most records of compacted inputs that are counted to see whether they are all there.
const MAX_COUNTED: usize = 4_000_000;

/// How far back a task can be replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct Reach {
    /// The stage.
    pub stage: Arc<str>,
    /// The task's number.
    pub task: u32,
    /// The epochs whose records are kept; none if nothing was recorded.
    pub kept: Option<Kept>,
    /// The epoch after which a replay can begin: that of a cut, or 0 for the very beginning. None if it can not.
    pub begins_after: Option<u64>,
    /// The first epoch that can be replayed.
    pub first: Option<EpochName>,
    /// The last cut with all of its state before the last epoch.
    pub last_cut: Option<u64>,
    /// Whether its last epoch was recorded by this build.
    pub is_same_build: bool,
    /// Whether its last epoch was recorded with what this file says of the stage.
    pub is_same_file: bool,
}

impl Reach {
    /// As JSON.
    pub fn value(&self) -> Value {
        let epoch = |name: Option<EpochName>| {
            json!(name.map(|name| {
                json!({ "epoch": name.epoch, "stream_time": name.stream_time.map(|time| time.to_string()) })
            }))
        };
        json!({
            "stage": &*self.stage,
            "task": self.task,
            "first_kept": epoch(self.kept.map(|kept| kept.first)),
            "last_kept": epoch(self.kept.map(|kept| kept.last)),
            "begins_after_epoch": self.begins_after,
            "replay_from": epoch(self.first),
        })
    }
}

/// Finds how far back each task can be replayed, and what stands in the way.
pub fn look(patient: &Patient<'_>, findings: &mut Vec<Finding>) -> anyhow::Result<Vec<Reach>> {
    let mut inputs = InputsThere::default();
    let mut all = Vec::new();
    let before = findings.len();
    for stage in &patient.pipeline.stages {
        for task in 0..stage.tasks() {
            let scan = Scan::new(patient, stage, task, &mut inputs)?;
            all.push(reach(patient, stage, task, scan, findings)?);
        }
        changed(stage, &all, findings);
    }
    if inputs.too_many {
        findings.push(Finding::warning(
            INPUTS,
            format!("compacted inputs hold more than {MAX_COUNTED} records: not all were counted"),
        ));
    }
    if findings.len() == before && all.iter().any(|reach| reach.kept.is_some()) {
        findings.push(Finding::ok(
            REPLAY,
            "every recorded epoch can be reached from a cut or the beginning, and its inputs are there",
        ));
    }
    Ok(all)
}

fn changed(stage: &StageSpec, reach: &[Reach], findings: &mut Vec<Finding>) {
    let of_stage = || reach.iter().filter(|reach| *reach.stage == *stage.name && reach.kept.is_some());
    let (build, file) =
        (of_stage().any(|reach| !reach.is_same_build), of_stage().any(|reach| !reach.is_same_file));
    let by = match (build, file) {
        (false, false) => return,
        (true, false) => "by another build",
        (false, true) => "with another pipeline file",
        (true, true) => "by another build and with another pipeline file",
    };
    findings
        .push(Finding::warning(BUILD, format!("its last epochs were recorded {by}")).of_stage(stage, None).so(
        "`verify` compares what this build and file give with what those gave: a difference may be meant",
        "replay with the recorded ones, or see that `tidewire verify` finds nothing before these take over",
    ));
}

/// Why a task can not be replayed across an epoch.
struct Obstacle {
    /// A replay can begin after this epoch only.
    epoch: u64,
    finding: Finding,
}

/// What the epoch records of one task say.
struct Scan {
    kept: Option<Kept>,
    last: Option<EpochRecord>,
    /// The last obstacle, and how many there are.
    obstacle: Option<Obstacle>,
    obstacles: u64,
    /// Stream times, by epoch, of epochs that end with a cut and of those after them.
    names: BTreeMap<u64, (EpochName, i64)>,
}

impl Scan {
    fn new(
        patient: &Patient<'_>,
        stage: &StageSpec,
        task: u32,
        inputs: &mut InputsThere,
    ) -> anyhow::Result<Self> {
        let mut journal = Journal::new(patient.log, stage, patient.book, task)?;
        let mut scan = Self { kept: None, last: None, obstacle: None, obstacles: 0, names: BTreeMap::new() };
        let mut after_cut = true;
        while let Some(record) = journal.next_record()? {
            let name = EpochName::of(&record);
            let expected = scan.kept.map(|kept| kept.last.epoch + 1);
            if let Some(expected) = expected.filter(|expected| *expected != name.epoch) {
                let what = format!("epoch {expected} is missing: what comes next is epoch {}", name.epoch);
                let finding = Finding::error(EPOCHS, what).of_stage(stage, Some(task)).at(journal.at(), None).so(
                    "nothing can be replayed across the gap",
                    "restore the topic of epoch records from a copy; a replay can begin from a cut after the gap",
                );
                scan.stop(name.epoch.saturating_sub(1), finding);
            }
            if let Some(finding) = inputs.missing(patient, &record)? {
                scan.stop(name.epoch, finding.of_stage(stage, Some(task)));
            }
            if after_cut {
                scan.names.insert(name.epoch, (name, record.stamp_ms));
            }
            after_cut = record.flush;
            let first = scan.kept.map_or(name, |kept| kept.first);
            scan.kept = Some(Kept { first, last: name });
            scan.last = Some(record);
        }
        Ok(scan)
    }

    fn stop(&mut self, epoch: u64, finding: Finding) {
        self.obstacles += 1;
        self.obstacle = Some(Obstacle { epoch, finding });
    }
}

fn reach(
    patient: &Patient<'_>,
    stage: &Arc<StageSpec>,
    task: u32,
    scan: Scan,
    findings: &mut Vec<Finding>,
) -> anyhow::Result<Reach> {
    let mut reach = Reach {
        stage: stage.name.as_str().into(),
        task,
        kept: scan.kept,
        begins_after: None,
        first: None,
        last_cut: None,
        is_same_build: scan.last.as_ref().is_none_or(|last| *last.build_digest == stage.build_digest),
        is_same_file: scan.last.as_ref().is_none_or(|last| *last.pipeline_digest == stage.pipeline_digest),
    };
    let Some(kept) = scan.kept else { return Ok(reach) };
    let cuts = cuts(patient.log, stage, patient.book, task)?;
    let whole: Vec<u64> = cuts.iter().filter(|cut| cut.is_whole).map(|cut| cut.epoch()).collect();
    reach.last_cut =
        whole.iter().rev().copied().find(|cut| *cut < kept.last.epoch && *cut + 1 >= kept.first.epoch);
    let least = scan.obstacle.as_ref().map_or(0, |obstacle| obstacle.epoch).max(kept.first.epoch - 1);
    reach.begins_after = match least {
        0 => Some(0),
        _ => whole.iter().copied().find(|cut| *cut >= least),
    };
    let begin = reach.begins_after.and_then(|after| scan.names.get(&(after + 1)));
    reach.first = begin.map(|(name, _)| *name);
    if let Some(obstacle) = scan.obstacle {
        let mut finding = obstacle.finding;
        if scan.obstacles > 1 {
            finding.what += &format!(", and so for {} more epochs before it", scan.obstacles - 1);
        }
        findings.push(finding);
    }
    if reach.begins_after.is_none() {
        let what = format!(
            "no cut of the {} in its changelog holds all of its state after epoch {least}, and the epochs kept begin with {}",
            cuts.len(),
            kept.first
        );
        findings.push(
            Finding::error(REPLAY, what)
                .of_stage(stage, Some(task))
                .of_topic(&stage.changelog_topic())
                .so(
                    "nothing of this task can be replayed, and a recovery would fail as well",
                    "was the changelog truncated? Restore it; where that is not possible, reprocess into fresh topics",
                ),
        );
    } else if let Some((name, stamp_ms)) = begin.filter(|_| least > 0 && is_live(scan.last.as_ref())) {
        let wanted_ms = patient.now_ms.saturating_sub(i64::try_from(patient.keep_ms).unwrap_or(i64::MAX));
        if *stamp_ms > wanted_ms {
            let since = EventTime::from_ms(*stamp_ms);
            let what = format!(
                "can be replayed from {name} on, which ran at {since}: less than the last {}",
                shown(patient.keep_ms)
            );
            findings.push(Finding::error(REPLAY, what).of_stage(stage, Some(task)).so(
                "what ran before is beyond `verify` and `explain`",
                "let the topics of epoch records, inputs and changelogs keep more; this grows from now on",
            ));
        }
    }
    Ok(reach)
}

/// A synchronised run has virtual stamps: they say nothing of when it ran.
fn is_live(last: Option<&EpochRecord>) -> bool {
    last.is_some_and(|last| !last.synchronised)
}

/// What the inputs still hold.
#[derive(Default)]
struct InputsThere {
    bounds: BTreeMap<TopicPartition, Option<Bounds>>,
    compacted: BTreeMap<SmolStr, bool>,
    /// The offsets that a compacted partition still holds.
    offsets: BTreeMap<TopicPartition, Option<Vec<u64>>>,
    counted: usize,
    too_many: bool,
}

impl InputsThere {
    /// What an epoch took and is not there any more.
    fn missing(&mut self, patient: &Patient<'_>, record: &EpochRecord) -> anyhow::Result<Option<Finding>> {
        for input in record.inputs.iter().filter(|input| input.records > 0) {
            let at =
                TopicPartition::new(input.topic.clone(), u32::try_from(input.partition).unwrap_or(u32::MAX));
            let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
            let (first, next) = (unsigned(input.first_offset), unsigned(input.next_offset));
            let Some(bounds) = self.bounds_of(patient, &at)? else {
                let what = format!("epoch {} took records of it, and it is not there", record.epoch);
                return Ok(Some(Finding::error(INPUTS, what).at(&at, Some(first)).so(
                    "that epoch and those before it can not be run again",
                    "put the topic back as it was, or begin from a later cut",
                )));
            };
            if first < bounds.start {
                let what = format!(
                    "begins at offset {}, and epoch {} took offsets {first} to {}",
                    bounds.start,
                    record.epoch,
                    next.saturating_sub(1)
                );
                return Ok(Some(Finding::error(INPUTS, what).at(&at, Some(bounds.start)).so(
                    "that epoch and those before it can not be run again; `reprocess` begins later too",
                    "a longer retention keeps more from now on; what is gone can be imported again into fresh topics",
                )));
            }
            if self.is_compacted(patient, &at.topic)? {
                let there = self.offsets_of(patient, &at)?;
                let count = there.map(|all| {
                    all.partition_point(|offset| *offset < next)
                        - all.partition_point(|offset| *offset < first)
                });
                if let Some(count) = count.filter(|count| (*count as u64) < unsigned(input.records)) {
                    let what = format!(
                        "was compacted: offsets {first} to {} hold {count} records, and epoch {} took {}",
                        next.saturating_sub(1),
                        record.epoch,
                        input.records
                    );
                    return Ok(Some(Finding::error(INPUTS, what).at(&at, Some(first)).so(
                        "that epoch and those before it can not be run again",
                        "a longer compaction lag (`replay_retention_ms`) keeps more from now on",
                    )));
                }
            }
        }
        Ok(None)
    }

    fn bounds_of(&mut self, patient: &Patient<'_>, at: &TopicPartition) -> anyhow::Result<Option<Bounds>> {
        if let Some(known) = self.bounds.get(at) {
            return Ok(*known);
        }
        let there = patient.log.topic(&at.topic)?.is_some_and(|topic| at.partition < topic.partitions);
        let bounds = if there { Some(patient.log.bounds(at)?) } else { None };
        self.bounds.insert(at.clone(), bounds);
        Ok(bounds)
    }

    fn is_compacted(&mut self, patient: &Patient<'_>, topic: &SmolStr) -> anyhow::Result<bool> {
        if let Some(known) = self.compacted.get(topic) {
            return Ok(*known);
        }
        let found = patient.log.topic(topic)?.is_some_and(|topic| topic.compacted);
        self.compacted.insert(topic.clone(), found);
        Ok(found)
    }

    fn offsets_of(
        &mut self,
        patient: &Patient<'_>,
        at: &TopicPartition,
    ) -> anyhow::Result<Option<&Vec<u64>>> {
        if !self.offsets.contains_key(at) {
            let mut reader = PartitionReader::from_start(patient.log, at.clone())?;
            let mut found = Some(Vec::new());
            while let (Some(offsets), Some(stored)) = (&mut found, reader.next_record()?) {
                offsets.push(stored.offset);
                self.counted += 1;
                if self.counted > MAX_COUNTED {
                    (found, self.too_many) = (None, true);
                }
            }
            self.offsets.insert(at.clone(), found);
        }
        Ok(self.offsets.get(at).and_then(Option::as_ref))
    }
}
