//! What a run under a prefix was asked for, kept under the prefix: the same job goes on with it, another one is refused.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use tidewire_engine::log::{Log, NewRecord, TopicPartition, TopicSpec};
use tidewire_engine::sync::{OffsetRange, Ranges};
use tidewire_runtime::clock::now_ms;
use tidewire_runtime::prefixed::PrefixedLog;
use tidewire_runtime::reprocess::InputOrder;

use super::{Job, REPROCESS, Source};
use crate::build;
use crate::commands::import::name_of;
use crate::feed::file_digest;
use crate::records::hex;

/// Key of what was asked for.
const RUN: &str = "run";
/// Key of what is read where it lies, or is to be put in order.
const RANGES: &str = "ranges";
/// Key of what is read, once all of it is in place.
const READY: &str = "ready";

/// What was asked for: all that the result depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunNote {
    /// The pipeline file's text.
    pub pipeline_file: String,
    /// Environment variables that changed it.
    pub overrides: Vec<(String, String)>,
    /// Digest of the build.
    pub build: String,
    /// Order of the inputs.
    pub order: String,
    /// Time that the range begins with.
    pub from_ms: Option<i64>,
    /// Time that the range ends before.
    pub to_ms: Option<i64>,
    /// Offsets that partitions begin with, `topic/partition@offset`.
    pub from_offsets: Vec<String>,
    /// Offsets that partitions end before.
    pub to_offsets: Vec<String>,
    /// How far out of order records may come where they are sorted, in milliseconds.
    pub max_disorder_ms: i64,
    /// How long time goes on after the last record, in milliseconds.
    pub drain_ms: i64,
    /// Whose limits hold.
    pub limits: String,
    /// Files that are the inputs, with the digests of their bytes.
    pub files: Vec<(String, String)>,
    /// How they are read.
    pub reading: String,
    /// The other log that the inputs come from.
    #[serde(default)]
    pub inputs: Option<InputsNote>,
}

/// Another log that inputs come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputsNote {
    /// Its folder or file.
    pub path: String,
    /// Digest of a bundle, hexadecimal.
    pub digest: Option<String>,
}

impl InputsNote {
    /// Whether these are the same inputs. A bundle may be moved: its digest says what is in it.
    fn is_same(&self, other: &Self) -> bool {
        match (&self.digest, &other.digest) {
            (Some(one), Some(other)) => one == other,
            (None, None) => self.path == other.path,
            _ => false,
        }
    }
}

impl RunNote {
    /// What a job asks for.
    pub fn of(job: &Job<'_>) -> anyhow::Result<Self> {
        let options = &job.options;
        let build = build::digest().context("the running executable can not be read for its digest")?;
        let offsets = |offsets: &std::collections::BTreeMap<TopicPartition, u64>| {
            let all = offsets.iter();
            all.map(|(at, offset)| format!("{}/{}@{offset}", at.topic, at.partition)).collect()
        };
        let files: anyhow::Result<_> =
            job.files.iter().map(|file| Ok((name_of(file), file_digest(file)?))).collect();
        Ok(Self {
            pipeline_file: job.loaded.text.clone(),
            overrides: job.loaded.overrides.clone(),
            build: hex(&build),
            order: order_name(options.order).to_owned(),
            from_ms: options.asked.from_ms,
            to_ms: options.asked.to_ms,
            from_offsets: offsets(&options.asked.from_offsets),
            to_offsets: offsets(&options.asked.to_offsets),
            max_disorder_ms: options.max_disorder_ms,
            drain_ms: options.drain_ms,
            limits: format!("{:?}", job.limits).to_lowercase(),
            files: files?,
            reading: if job.files.is_empty() { String::new() } else { format!("{:?}", job.reading) },
            inputs: job.inputs.map(Source::note),
        })
    }

    /// What is not the same in another.
    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let same_inputs = match (&self.inputs, &other.inputs) {
            (Some(one), Some(other)) => one.is_same(other),
            (one, other) => one == other,
        };
        let fields = [
            ("the pipeline file", self.pipeline_file == other.pipeline_file),
            ("its overrides in the environment", self.overrides == other.overrides),
            ("the build of tidewire", self.build == other.build),
            ("`--order`", self.order == other.order),
            ("`--from`", self.from_ms == other.from_ms && self.from_offsets == other.from_offsets),
            ("`--to`", self.to_ms == other.to_ms && self.to_offsets == other.to_offsets),
            ("`--max-disorder`", self.max_disorder_ms == other.max_disorder_ms),
            ("`--drain`", self.drain_ms == other.drain_ms),
            ("`--limits`", self.limits == other.limits),
            ("`--files`", self.files == other.files),
            ("`--inputs`", same_inputs),
            ("how files are read", self.reading == other.reading),
        ];
        fields.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}

/// An order's name on the command line.
pub fn order_name(order: InputOrder) -> &'static str {
    match order {
        InputOrder::Availability => "availability",
        InputOrder::Event => "event",
        InputOrder::Recorded => "recorded",
    }
}

/// What is there of a run.
pub enum Found {
    /// The prefix is free.
    Nothing,
    /// The same run, whose inputs are not all in place.
    Begun(Ranges),
    /// The same run, with its inputs in place.
    Ready(Ranges),
}

/// Looks for the run that is wanted under the prefix.
pub fn find(view: &PrefixedLog, prefix: &str, wanted: &RunNote) -> anyhow::Result<Found> {
    let own = PrefixedLog::topics_under(&**view.below(), prefix)?;
    if own.is_empty() {
        return Ok(Found::Nothing);
    }
    let way_out = format!(
        "choose another prefix, or delete the topics that begin with `{prefix}.`: on Kafka with kafka-topics; a folder's \
         topics go with their folder"
    );
    if !own.contains(REPROCESS) {
        bail!("there are topics that begin with `{prefix}.`, and no run of tidewire made them: {way_out}");
    }
    let at = TopicPartition::new(REPROCESS, 0);
    let bounds = view.bounds(&at)?;
    let (mut run, mut ranges, mut ready) = (None::<RunNote>, None::<Vec<Kept>>, None::<Vec<Kept>>);
    let mut from = bounds.start;
    // These notes come first, before the first round.
    'read: while from < bounds.stable_end {
        let fetched = view.read(&at, from, 1 << 20)?;
        for stored in &fetched.records {
            let value = stored.record.value.as_deref().unwrap_or_default();
            let doing = || format!("reading {prefix}.{REPROCESS}-0 at offset {}", stored.offset);
            match stored.record.key.as_deref().map(|key| String::from_utf8_lossy(key)).as_deref() {
                Some(RUN) => run = Some(serde_json::from_slice(value).with_context(doing)?),
                Some(RANGES) => ranges = Some(serde_json::from_slice(value).with_context(doing)?),
                Some(READY) => ready = Some(serde_json::from_slice(value).with_context(doing)?),
                _ => break 'read,
            }
        }
        if fetched.next_offset <= from {
            break;
        }
        from = fetched.next_offset;
    }
    let Some(run) = run else {
        // The process ended between making the topic and writing to it.
        return Ok(if own.len() == 1 {
            Found::Nothing
        } else {
            bail!("the run of prefix {prefix} is broken: {way_out}")
        });
    };
    let differs = wanted.differences(&run);
    if !differs.is_empty() {
        bail!("prefix {prefix} holds another run: it differs in {}. {way_out}", differs.join(", "));
    }
    Ok(match (ready, ranges) {
        (Some(ready), _) => Found::Ready(kept(ready)),
        (None, ranges) => Found::Begun(kept(ranges.unwrap_or_default())),
    })
}

/// Offsets of a partition, as they are kept.
type Kept = (SmolStr, u32, OffsetRange);

fn kept(ranges: Vec<Kept>) -> Ranges {
    ranges
        .into_iter()
        .map(|(topic, partition, range)| (TopicPartition::new(topic, partition), range))
        .collect()
}

fn to_keep(ranges: &Ranges) -> Vec<Kept> {
    ranges.iter().map(|(at, range)| (at.topic.clone(), at.partition, range)).collect()
}

/// Takes the prefix for a run.
pub fn begin(view: &dyn Log, note: &RunNote, ranges: &Ranges) -> anyhow::Result<()> {
    if view.topic(REPROCESS)?.is_none() {
        view.create_topic(&TopicSpec::new(REPROCESS, 1))?;
    }
    let records = vec![record(RUN, note)?, record(RANGES, &to_keep(ranges))?];
    view.append(&TopicPartition::new(REPROCESS, 0), records)?;
    Ok(())
}

/// Notes that all inputs are in place.
pub fn ready(view: &dyn Log, ranges: &Ranges) -> anyhow::Result<()> {
    view.append(&TopicPartition::new(REPROCESS, 0), vec![record(READY, &to_keep(ranges))?])?;
    Ok(())
}

fn record(key: &'static str, note: &impl Serialize) -> anyhow::Result<NewRecord> {
    Ok(NewRecord {
        timestamp_ms: now_ms(),
        key: Some(Bytes::from_static(key.as_bytes())),
        value: Some(serde_json::to_vec(note)?.into()),
        headers: Vec::new(),
    })
}
