//! How far a run has come: a record written with each round, so that another process can go on.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use tidewire_engine::log::{Log, LogError, NewRecord, TopicPartition};

use super::hands::Epochs;

/// Key of these records.
const KEY: &[u8] = b"round";
/// How many offsets before the end the last one is looked for: behind it there is at most what ends a transaction.
const TAIL_OFFSETS: u64 = 64;
/// Bytes read for it.
const TAIL_BYTES: usize = 1 << 20;

/// A run after a round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    /// Virtual time at which the inputs began, in milliseconds.
    pub began_ms: i64,
    /// Virtual time reached, in milliseconds.
    pub horizon_ms: i64,
    /// Virtual time at which the run ends, once the inputs have ended.
    pub ends_ms: Option<i64>,
    /// Rounds committed.
    pub rounds: u64,
    /// Input records taken, over all stages.
    pub records: u64,
    /// Output records written, by topic.
    pub outputs: BTreeMap<SmolStr, u64>,
    /// Records and timers that operators failed at.
    pub faults: u64,
    /// The last epoch of each task.
    pub epochs: Vec<(usize, u32, u64)>,
    /// Whether it is through.
    pub complete: bool,
}

impl RunState {
    /// The last one on a topic.
    pub fn last(log: &dyn Log, topic: &str) -> Result<Option<Self>, LogError> {
        if log.topic(topic)?.is_none() {
            return Ok(None);
        }
        let at = TopicPartition::new(topic, 0);
        let bounds = log.bounds(&at)?;
        let mut from = bounds.stable_end.saturating_sub(TAIL_OFFSETS).max(bounds.start);
        let mut last = None;
        while from < bounds.stable_end {
            let fetched = log.read(&at, from, TAIL_BYTES)?;
            for stored in fetched.records.iter().filter(|stored| stored.record.key.as_deref() == Some(KEY)) {
                let value = stored.record.value.as_deref().unwrap_or_default();
                let state = serde_json::from_slice(value).map_err(|error| LogError::Store {
                    at: format!("reading how far a run came from {at} at offset {}", stored.offset),
                    error: error.to_string(),
                })?;
                last = Some(state);
            }
            if fetched.next_offset <= from {
                break;
            }
            from = fetched.next_offset;
        }
        Ok(last)
    }

    /// As it is written.
    pub fn record(&self) -> Result<NewRecord, LogError> {
        let value = serde_json::to_vec(self).map_err(|error| LogError::Invalid(error.to_string()))?;
        Ok(NewRecord {
            timestamp_ms: self.horizon_ms,
            key: Some(Bytes::from_static(KEY)),
            value: Some(value.into()),
            headers: Vec::new(),
        })
    }

    /// The last epoch of each task, as tasks are looked up.
    pub fn epochs(&self) -> Epochs {
        self.epochs.iter().map(|(stage, task, epoch)| ((*stage, *task), *epoch)).collect()
    }
}
