//! Which outputs of an epoch belong to the keys of a restricted bundle.
//!
//! Records of a broadcast topic are in the bundle whole, so the outputs of other keys may lie among those of the keys asked
//! for. What is whose was found out when all keys were run again, and is noted in a topic of the bundle's own.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidewire_engine::log::{Log, LogError, NewRecord, StoredRecord, TopicPartition};
use tidewire_engine::only::Notes;
use tidewire_engine::reader::PartitionReader;

/// The topic of these notes.
pub const NOTES_TOPIC: &str = "_bundle";

#[derive(Serialize, Deserialize)]
struct Note {
    stage: String,
    epoch: u64,
    sequences: Vec<u64>,
}

/// A note on an epoch; it lies in the partition of the task's number.
pub fn note_record(stage: &str, epoch: u64, sequences: &[u64]) -> NewRecord {
    let note = Note { stage: stage.to_owned(), epoch, sequences: sequences.to_vec() };
    NewRecord {
        timestamp_ms: 0,
        key: Some(Bytes::copy_from_slice(stage.as_bytes())),
        // Text and numbers always become JSON.
        value: Some(serde_json::to_vec(&note).unwrap_or_default().into()),
        headers: Vec::new(),
    }
}

/// The notes of one task, in the order of its epochs.
pub struct BundleNotes<'a> {
    reader: PartitionReader<'a>,
    stage: String,
    ahead: Option<Note>,
}

impl<'a> BundleNotes<'a> {
    /// The notes of a task.
    pub fn new(log: &'a dyn Log, stage: &str, task: u32) -> Result<Self, LogError> {
        let reader = PartitionReader::from_start(log, TopicPartition::new(NOTES_TOPIC, task))?;
        Ok(Self { reader, stage: stage.to_owned(), ahead: None })
    }

    fn next(&mut self) -> Result<Option<Note>, LogError> {
        while let Some(stored) = self.reader.next_record()? {
            let note = read(&stored)?;
            if note.stage == self.stage {
                return Ok(Some(note));
            }
        }
        Ok(None)
    }
}

impl Notes for BundleNotes<'_> {
    fn outputs_of(&mut self, epoch: u64) -> Result<Vec<u64>, LogError> {
        loop {
            let Some(note) = self.ahead.take().map_or_else(|| self.next(), |note| Ok(Some(note)))? else {
                return Ok(Vec::new());
            };
            if note.epoch == epoch {
                return Ok(note.sequences);
            }
            if note.epoch > epoch {
                self.ahead = Some(note);
                return Ok(Vec::new());
            }
        }
    }
}

fn read(stored: &StoredRecord) -> Result<Note, LogError> {
    let value = stored.record.value.as_deref().unwrap_or_default();
    serde_json::from_slice(value).map_err(|error| LogError::Store {
        at: format!("{NOTES_TOPIC}, offset {}", stored.offset),
        error: error.to_string(),
    })
}
