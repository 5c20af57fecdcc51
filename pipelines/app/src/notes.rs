//! What the binary itself keeps in a log, as JSON on topics whose names begin with `_`: which files were imported,
//! which pipelines ran, which dead letters were sent again.

use anyhow::Context as _;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidewire_engine::log::{Log, NewRecord, TopicPartition, TopicSpec};
use tidewire_engine::plan::MergeOrder;
use tidewire_engine::reader::PartitionReader;
use tidewire_runtime::clock::now_ms;

/// Files that were imported.
pub const IMPORTS: &str = "_imports";
/// Pipelines that ran.
pub const PIPELINES: &str = "_pipelines";
/// Dead letters that were sent again.
pub const REPLAYS: &str = "_replays";

/// A file on its way into the log, or in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImportNote {
    /// The file.
    pub file: String,
    /// BLAKE3 digest of its bytes, hexadecimal.
    pub digest: String,
    /// False while it is being imported, and for good if that was cut short.
    pub complete: bool,
    /// Records that were written.
    pub records: u64,
    /// Lines that were rejected.
    pub rejected: u64,
    /// What should be known of it, such as times that were moved.
    pub notes: Vec<String>,
    /// When, by the wall clock, in milliseconds since 1970.
    pub at_ms: i64,
}

/// A pipeline as it was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineNote {
    /// The pipeline.
    pub pipeline: String,
    /// Name of the file.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Environment variables that changed it.
    pub overrides: Vec<(String, String)>,
    /// Whether it ran synchronised.
    pub synchronised: bool,
    /// By which time its stages merged their inputs: `event` if nothing is said.
    #[serde(default, skip_serializing_if = "MergedBy::is_event")]
    pub merged_by: MergedBy,
}

/// By which time stages merge their inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MergedBy {
    /// By the records' timestamps.
    #[default]
    Event,
    /// By the time each was received.
    Availability,
}

impl MergedBy {
    fn is_event(&self) -> bool {
        *self == Self::Event
    }
}

impl From<MergeOrder> for MergedBy {
    fn from(order: MergeOrder) -> Self {
        match order {
            MergeOrder::Event => Self::Event,
            MergeOrder::Availability => Self::Availability,
        }
    }
}

impl From<MergedBy> for MergeOrder {
    fn from(merged: MergedBy) -> Self {
        match merged {
            MergedBy::Event => Self::Event,
            MergedBy::Availability => Self::Availability,
        }
    }
}

/// A dead letter that was sent again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayNote {
    /// Partition of the dead letter.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Where it went: topic, partition, offset.
    pub to: (String, u32, u64),
    /// When, by the wall clock, in milliseconds since 1970.
    pub at_ms: i64,
}

/// Adds a note.
pub fn add<T: Serialize>(log: &dyn Log, topic: &str, key: &str, note: &T) -> anyhow::Result<()> {
    let doing = || format!("writing to topic {topic}");
    if log.topic(topic).with_context(doing)?.is_none() {
        log.create_topic(&TopicSpec::new(topic, 1)).with_context(doing)?;
    }
    let record = NewRecord {
        timestamp_ms: now_ms(),
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(serde_json::to_vec(note).with_context(doing)?.into()),
        headers: Vec::new(),
    };
    log.append(&TopicPartition::new(topic, 0), vec![record]).with_context(doing)?;
    Ok(())
}

/// All notes of a topic, in order. One that this build can not read is passed over.
pub fn all<T: DeserializeOwned>(log: &dyn Log, topic: &str) -> anyhow::Result<Vec<T>> {
    if log.topic(topic)?.is_none() {
        return Ok(Vec::new());
    }
    let mut reader = PartitionReader::from_start(log, TopicPartition::new(topic, 0))?;
    let mut notes = Vec::new();
    while let Some(stored) = reader.next_record()? {
        let value = stored.record.value.as_deref().unwrap_or_default();
        match serde_json::from_slice(value) {
            Ok(note) => notes.push(note),
            Err(error) => tracing::warn!("{topic}-0, offset {}: {error}", stored.offset),
        }
    }
    Ok(notes)
}
