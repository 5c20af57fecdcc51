//! A run as `diff` sees it: a log, the pipelines that ran on it, and what their epoch records say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::reader::PartitionReader;
use tidewire_engine::recovery::epoch_record;
use tidewire_schemas::{EpochRecord, EventTime, SchemaBook};

use crate::recorded::{Recorded, pipelines};
use crate::records::hex;

/// Where a reprocessed run notes how it was made.
const REPROCESS: &str = "_reprocess";
/// The key under which it does.
const MADE_KEY: &[u8] = b"run";

/// In which order a run took its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By the records' timestamps, which is event time, under one virtual time.
    Event,
    /// By the time at which records were received, under one virtual time.
    Availability,
    /// As they came while the pipeline ran.
    Live,
}

impl Order {
    /// The order in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Availability => "availability",
            Self::Live => "live",
        }
    }
}

/// A run: a log with what ran on it.
pub struct Run {
    /// How it was named.
    pub name: String,
    /// Where its log is, and under which prefix.
    pub place: String,
    /// The log, whose names are those of the pipeline.
    pub log: Arc<dyn Log>,
    /// The log below it, and the prefix that some of its topics have there.
    pub below: Option<(Arc<dyn Log>, Option<SmolStr>)>,
    /// Its schemas.
    pub book: Arc<SchemaBook>,
    /// The pipelines that ran.
    pub pipelines: Vec<Recorded>,
    /// In which order it took its inputs.
    pub order: Order,
    /// The range of event time that it was made over, if it was made over one.
    pub from: Option<EventTime>,
    /// The end of that range, exclusive.
    pub to: Option<EventTime>,
    /// What its epoch records say.
    pub epochs: Epochs,
}

/// What a reprocessed run notes of how it was made.
#[derive(Deserialize)]
struct MadeNote {
    order: String,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
}

impl Run {
    /// The run on a log, whose names are those of its pipelines.
    pub fn of(name: &str, place: &str, log: Arc<dyn Log>, book: Arc<SchemaBook>) -> anyhow::Result<Self> {
        let pipelines = pipelines(&*log)?;
        let epochs = Epochs::read(&*log, &book, &pipelines)?;
        let made = made(&*log)?;
        let order = match made.as_ref().map(|note| note.order.as_str()) {
            Some("availability") => Order::Availability,
            Some(_) => Order::Event,
            None if pipelines.iter().all(|recorded| recorded.note.synchronised) => Order::Event,
            None => Order::Live,
        };
        let time = |ms: fn(&MadeNote) -> Option<i64>| made.as_ref().and_then(ms).map(EventTime::from_ms);
        Ok(Self {
            name: name.to_owned(),
            place: place.to_owned(),
            below: None,
            order,
            from: time(|note| note.from_ms),
            to: time(|note| note.to_ms),
            epochs,
            pipelines,
            log,
            book,
        })
    }

    /// Whether a topic is the same one as in another run: in the same log, under the same name.
    pub fn shares(&self, other: &Self, topic: &str) -> anyhow::Result<bool> {
        let (Some((left, of_left)), Some((right, of_right))) = (&self.below, &other.below) else {
            return Ok(false);
        };
        let name = |log: &Arc<dyn Log>, prefix: &Option<SmolStr>| -> anyhow::Result<String> {
            let Some(prefix) = prefix else { return Ok(topic.to_owned()) };
            let own = format!("{prefix}.{topic}");
            Ok(if log.topic(&own)?.is_some() { own } else { topic.to_owned() })
        };
        let same_log = Arc::as_ptr(left).cast::<()>() == Arc::as_ptr(right).cast::<()>();
        Ok(same_log && name(left, of_left)? == name(right, of_right)?)
    }

    /// All stages.
    pub fn stages(&self) -> Vec<Arc<StageSpec>> {
        self.pipelines.iter().flat_map(|recorded| recorded.stages().to_vec()).collect()
    }
}

/// What was noted of how a run was made, if it was reprocessed.
fn made(log: &dyn Log) -> anyhow::Result<Option<MadeNote>> {
    if log.topic(REPROCESS)?.is_none() {
        return Ok(None);
    }
    let mut reader = PartitionReader::from_start(log, TopicPartition::new(REPROCESS, 0))?;
    let mut last = None;
    while let Some(stored) = reader.next_record()? {
        if stored.record.key.as_deref() == Some(MADE_KEY) {
            let value = stored.record.value.as_deref().unwrap_or_default();
            last = Some(serde_json::from_slice(value).with_context(|| {
                format!("{REPROCESS}-0, offset {}: how the run was made can not be read", stored.offset)
            })?);
        }
    }
    Ok(last)
}

/// What the epoch records of a run say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// Epochs.
    pub count: u64,
    /// Offsets taken of each input partition: the first, and the one behind the last.
    pub taken: BTreeMap<TopicPartition, (u64, u64)>,
    /// Digests of the builds that made them.
    pub builds: BTreeSet<String>,
    /// Digests of the schemas that they were made with.
    pub schemas: BTreeSet<String>,
    /// Digests of the pipeline files, by stage.
    pub pipelines: BTreeSet<(String, String)>,
    /// Whether any of them was made live.
    pub live: bool,
}

impl Epochs {
    /// Reads the epoch records of these pipelines.
    pub fn read(log: &dyn Log, book: &SchemaBook, pipelines: &[Recorded]) -> anyhow::Result<Self> {
        let mut found = Self::default();
        let topics: BTreeSet<_> = pipelines
            .iter()
            .flat_map(|recorded| recorded.stages().iter().map(|s| s.epochs_topic()))
            .collect();
        for topic in topics {
            let Some(spec) = log.topic(&topic)? else { continue };
            for partition in 0..spec.partitions {
                let at = TopicPartition::new(topic.clone(), partition);
                let mut reader = PartitionReader::from_start(log, at)?;
                while let Some(stored) = reader.next_record().with_context(|| format!("reading {topic}"))? {
                    if let Some(record) = epoch_record(&stored, book) {
                        found.add(&record);
                    }
                }
            }
        }
        Ok(found)
    }

    fn add(&mut self, record: &EpochRecord) {
        self.count += 1;
        self.builds.insert(hex(&record.build_digest));
        self.schemas.insert(hex(&record.schema_digest));
        self.pipelines.insert((record.stage.to_string(), hex(&record.pipeline_digest)));
        self.live |= !record.synchronised;
        for input in record.inputs.iter().filter(|input| input.next_offset > input.first_offset) {
            let offset = |offset: i64| u64::try_from(offset).unwrap_or(0);
            let at = TopicPartition::new(input.topic.clone(), u32::try_from(input.partition).unwrap_or(0));
            let (first, next) = (offset(input.first_offset), offset(input.next_offset));
            let taken = self.taken.entry(at).or_insert((first, next));
            *taken = (taken.0.min(first), taken.1.max(next));
        }
    }
}
