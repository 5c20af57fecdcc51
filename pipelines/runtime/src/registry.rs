//! Schemas of a log that has no registry beside it: they lie in the log itself, in topic `_schemas`.
//!
//! Each record says which id stands for which schema, and under which subject and version it was registered. Ids
//! are given out in order and never change their meaning. Two processes may register at the same time: what lies
//! first in the log holds, and the other one reads it and tries again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidewire_engine::log::{Log, LogError, NewRecord, TopicPartition, TopicSpec};
use tidewire_schemas::{Kind, SchemaBook, topics};

/// The topic of the schemas.
pub const SCHEMAS_TOPIC: &str = "_schemas";
/// Most schemas of one log.
pub const MAX_SCHEMAS: usize = 100_000;

/// Bytes read in one piece.
const FETCH_BYTES: usize = 1 << 20;
/// Rounds of registering before it is given up: each lost round means that another process registered.
const MAX_ROUNDS: usize = 20;

/// A schema as it was registered: what a record of [`SCHEMAS_TOPIC`] holds, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The id that stands in front of every record written with it.
    pub id: u32,
    /// The subject: `<topic>-<record name>`, or the record's name alone where it may be on any topic.
    pub subject: String,
    /// Counts the schemas of the subject, from 1.
    pub version: u32,
    /// The schema's text.
    pub schema: String,
}

/// Why the schemas could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A record of the topic is no schema.
    #[error("{SCHEMAS_TOPIC}-0, offset {offset}: {problem}; the log was written to by something else")]
    Malformed {
        /// Its offset.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// There are no more ids.
    #[error("{SCHEMAS_TOPIC}-0 holds {MAX_SCHEMAS} schemas, as many as it can")]
    Full,
    /// Other processes registered schemas each time.
    #[error("{SCHEMAS_TOPIC}-0: other processes registered schemas {MAX_ROUNDS} times in between; try again")]
    Contended,
}

/// Reads all schemas of the log, registers those of this build that are missing, and returns the book to read and
/// write with.
pub fn open_book(log: &dyn Log) -> Result<SchemaBook, RegistryError> {
    log.create_topic(&TopicSpec::new(SCHEMAS_TOPIC, 1))?;
    for _ in 0..MAX_ROUNDS {
        let registry = Registry::read(log)?;
        let missing = registry.missing()?;
        if missing.is_empty() {
            return Ok(registry.book());
        }
        log.append(&place(), missing.iter().map(record_of).collect())?;
    }
    Err(RegistryError::Contended)
}

/// Reads all schemas of the log and registers nothing: for those who only look. The book is empty where nothing was
/// ever registered.
pub fn read_book(log: &dyn Log) -> Result<SchemaBook, RegistryError> {
    match log.topic(SCHEMAS_TOPIC)? {
        None => Ok(SchemaBook::new()),
        Some(_) => Ok(Registry::read(log)?.book()),
    }
}

/// Everything registered, in the order of the log.
pub fn registered(log: &dyn Log) -> Result<Vec<Registered>, RegistryError> {
    match log.topic(SCHEMAS_TOPIC)? {
        None => Ok(Vec::new()),
        Some(_) => Ok(Registry::read(log)?.entries),
    }
}

#[derive(Default)]
struct Registry {
    /// What holds, in the order of the log.
    entries: Vec<Registered>,
    by_id: BTreeMap<u32, String>,
    by_schema: BTreeMap<String, u32>,
    subjects: BTreeSet<(String, u32)>,
    versions: BTreeMap<String, u32>,
}

impl Registry {
    fn read(log: &dyn Log) -> Result<Self, RegistryError> {
        let mut registry = Self::default();
        let mut from = log.bounds(&place())?.start;
        loop {
            let fetched = log.read(&place(), from, FETCH_BYTES)?;
            for stored in &fetched.records {
                let value = stored.record.value.as_deref().unwrap_or_default();
                let entry: Registered = serde_json::from_slice(value).map_err(|error| {
                    RegistryError::Malformed { offset: stored.offset, problem: error.to_string() }
                })?;
                registry.take(entry);
            }
            if fetched.at_end || fetched.next_offset <= from {
                return Ok(registry);
            }
            from = fetched.next_offset;
        }
    }

    /// Takes an entry, unless one before it in the log gave its id to another schema, or its schema another id.
    fn take(&mut self, entry: Registered) {
        let id_is_free = self.by_id.get(&entry.id).is_none_or(|schema| *schema == entry.schema);
        let schema_is_free = self.by_schema.get(&entry.schema).is_none_or(|id| *id == entry.id);
        if !id_is_free || !schema_is_free || !self.subjects.insert((entry.subject.clone(), entry.id)) {
            return;
        }
        self.by_id.insert(entry.id, entry.schema.clone());
        self.by_schema.insert(entry.schema.clone(), entry.id);
        let version = self.versions.entry(entry.subject.clone()).or_default();
        *version = entry.version.max(*version);
        self.entries.push(entry);
    }

    /// What this build writes and the log does not have: by subject, with ids that go on after the greatest.
    fn missing(&self) -> Result<Vec<Registered>, RegistryError> {
        let mut next = self.by_id.last_key_value().map_or(0, |(id, _)| *id);
        let mut missing = Vec::new();
        for &kind in Kind::ALL {
            let schema = kind.schema_json();
            let known = self.by_schema.get(schema).copied();
            let id = match known {
                Some(id) => id,
                None => {
                    next = next.saturating_add(1);
                    next
                }
            };
            for subject in subjects(kind) {
                if !self.subjects.contains(&(subject.clone(), id)) {
                    let version = self.versions.get(&subject).copied().unwrap_or(0).saturating_add(1);
                    missing.push(Registered { id, subject, version, schema: schema.to_owned() });
                }
            }
        }
        if self.entries.len() + missing.len() > MAX_SCHEMAS || next == u32::MAX {
            return Err(RegistryError::Full);
        }
        Ok(missing)
    }

    fn book(&self) -> SchemaBook {
        let mut book = SchemaBook::new();
        for (id, schema) in &self.by_id {
            // One that can not be read is kept in the book with its reason, which reading such a record gives.
            let _ = book.add_writer(*id, schema);
        }
        for &kind in Kind::ALL {
            if let Some(id) = self.by_schema.get(kind.schema_json()) {
                book.set_id(kind, *id);
            }
        }
        book
    }
}

/// Subjects of a kind: one for each topic it may be on, or its own name where that depends on a pipeline.
fn subjects(kind: Kind) -> Vec<String> {
    let on = topics::ALL.iter().filter(|topic| topic.kinds.contains(&kind));
    let mut subjects: Vec<String> = on.map(|topic| topics::subject(topic.name, kind)).collect();
    if subjects.is_empty() {
        subjects.push(kind.full_name());
    }
    subjects
}

fn place() -> TopicPartition {
    TopicPartition::new(SCHEMAS_TOPIC, 0)
}

fn record_of(entry: &Registered) -> NewRecord {
    // Text and numbers always become JSON.
    let value = serde_json::to_vec(entry).unwrap_or_default();
    NewRecord {
        timestamp_ms: 0,
        key: Some(Bytes::from(format!("{}/{}", entry.subject, entry.version))),
        value: Some(value.into()),
        headers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;
    use tidewire_engine::memory::MemoryLog;
    use tidewire_schemas::{FeatureValue, Record, Trade};

    fn entry(id: u32, subject: &str, version: u32, schema: &str) -> Registered {
        Registered { id, subject: subject.into(), version, schema: schema.into() }
    }

    fn log_with(entries: &[Registered]) -> MemoryLog {
        let log = MemoryLog::with_control_records();
        log.create_topic(&TopicSpec::new(SCHEMAS_TOPIC, 1)).unwrap();
        log.append(&place(), entries.iter().map(record_of).collect()).unwrap();
        log
    }

    #[test]
    fn every_kind_of_this_build_can_be_written_and_read_back() {
        let log = MemoryLog::with_control_records();
        let book = open_book(&log).unwrap();
        for &kind in Kind::ALL {
            let id = book.id_of(kind).unwrap_or_else(|| panic!("{kind} has no id"));
            assert_eq!(book.json_of(id), Some(kind.schema_json()));
        }
        let record = Record::from(Trade { instrument: "BTCUSDT.BINANCE_USDM".into(), ..Trade::default() });
        let mut bytes = Vec::new();
        book.encode(&record, &mut bytes).unwrap();
        assert_eq!(open_book(&log).unwrap().decode(&bytes), Ok(record));
    }

    #[test]
    fn a_second_opening_registers_nothing_and_gives_the_same_ids() {
        let log = MemoryLog::new();
        let first = open_book(&log).unwrap();
        let end = log.bounds(&place()).unwrap().stable_end;
        let second = open_book(&log).unwrap();
        assert_eq!(log.bounds(&place()).unwrap().stable_end, end);
        for &kind in Kind::ALL {
            assert_eq!(first.id_of(kind), second.id_of(kind));
        }
    }

    #[test]
    fn a_schema_on_two_topics_has_one_id_and_two_subjects() {
        let log = MemoryLog::new();
        open_book(&log).unwrap();
        let all = registered(&log).unwrap();
        let subjects: BTreeSet<_> = all.iter().map(|entry| entry.subject.as_str()).collect();
        assert_eq!(subjects.len(), all.len());
        assert!(subjects.contains("market.ticks.v1-tidewire.Trade"), "{subjects:?}");
        assert!(subjects.contains("tidewire.FeatureValue"), "{subjects:?}");
        let ids: BTreeSet<_> = all.iter().map(|entry| entry.id).collect();
        assert_eq!(ids.len(), Kind::ALL.len());
    }

    #[test]
    fn ids_of_older_builds_are_kept_and_new_ones_go_on_after_them() {
        let old = r#"{"type":"record","name":"FeatureValue","namespace":"tidewire","fields":[{"name":"value","type":"double"}]}"#;
        let log = log_with(&[entry(7, "tidewire.FeatureValue", 1, old)]);
        let book = open_book(&log).unwrap();
        assert_eq!(book.json_of(7), Some(old));
        let id = book.id_of(Kind::FeatureValue).unwrap();
        assert!(id > 7, "{id}");
        let newer = registered(&log).unwrap().into_iter().find(|entry| entry.id == id).unwrap();
        assert_eq!(newer.version, 2);
        let mut bytes = Vec::new();
        book.encode(&Record::from(FeatureValue::default()), &mut bytes).unwrap();
        assert!(book.decode(&bytes).is_ok());
    }

    #[test]
    fn of_two_that_took_the_same_id_the_first_in_the_log_holds() {
        let trade = Kind::Trade.schema_json();
        let quote = Kind::Quote.schema_json();
        let log = log_with(&[
            entry(1, "market.ticks.v1-tidewire.Trade", 1, trade),
            entry(1, "market.ticks.v1-tidewire.Quote", 1, quote),
        ]);
        let book = open_book(&log).unwrap();
        assert_eq!(book.id_of(Kind::Trade), Some(1));
        assert_ne!(book.id_of(Kind::Quote), Some(1));
        assert_eq!(book.json_of(1), Some(trade));
    }

    #[test]
    fn reading_alone_writes_nothing() {
        let log = MemoryLog::new();
        assert!(!read_book(&log).unwrap().knows(1));
        assert_eq!(log.topics().unwrap(), Vec::new());
    }

    #[test]
    fn a_foreign_record_is_named_by_its_offset() {
        let log = log_with(&[]);
        let record = NewRecord { value: Some(Bytes::from_static(b"no json")), ..NewRecord::default() };
        log.append(&place(), vec![record]).unwrap();
        let error = open_book(&log).unwrap_err().to_string();
        assert!(error.starts_with("_schemas-0, offset 0: "), "{error}");
    }
}
