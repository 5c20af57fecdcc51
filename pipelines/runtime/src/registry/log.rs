//! The registry in the log itself: topic `_schemas`.
//!
//! Each record says which id stands for which schema, and under which subject and version it was registered. Ids
//! are given out in order and never change their meaning. Several processes may register at the same time: what lies
//! first in the log holds, and the others read it and try again. The topic keeps everything: it is not compacted,
//! because of two that took the same version compaction would keep the wrong one.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use tidewire_engine::log::{Log, LogError, NewRecord, StoredRecord, TopicPartition, TopicSpec};
use tidewire_schemas::MAX_SCHEMA_BYTES;
use tidewire_schemas::resolve::Comparable;

use super::catalog::{Catalog, Line, normal_form};
use super::{Level, Registered, RegistryError, SchemaRegistry};

/// The topic of the schemas.
pub const SCHEMAS_TOPIC: &str = "_schemas";
/// Most records of the topic.
pub const MAX_SCHEMAS: usize = 100_000;

/// Longest name of a subject, in bytes.
const MAX_SUBJECT_BYTES: usize = 512;
/// Bytes read in one piece.
const FETCH_BYTES: usize = 1 << 20;
/// Rounds of writing before it is given up: each lost round means that another process wrote.
const MAX_ROUNDS: usize = 20;
/// The greatest id: stock clients read it as a signed number of 32 bits.
const MAX_ID: u32 = i32::MAX.cast_unsigned();

/// Everything registered, in the order of subjects and versions.
pub fn registered(log: &dyn Log) -> Result<Vec<Registered>, RegistryError> {
    let registry = LogRegistry::new(log);
    let state = registry.read()?;
    let mut all = Vec::new();
    for (subject, versions) in state.catalog.subjects() {
        let live = versions.iter().filter(|version| !version.deleted);
        all.extend(live.map(|version| state.catalog.entry(subject, version)));
    }
    Ok(all)
}

/// The registry of a log that is held by `L`: a reference or an `Arc`. Makes its topic with the first record it writes.
pub struct LogRegistry<L> {
    log: L,
    state: Mutex<State>,
}

/// What was read so far.
#[derive(Default)]
pub(super) struct State {
    pub catalog: Catalog,
    /// The next offset to read; `None` before the first read.
    next: Option<u64>,
}

impl<L> LogRegistry<L>
where
    L: Deref + Send + Sync,
    L::Target: Log,
{
    /// The registry of that log. Nothing is read yet.
    pub fn new(log: L) -> Self {
        Self { log, state: Mutex::default() }
    }

    /// All that holds now.
    pub(super) fn read(&self) -> Result<MutexGuard<'_, State>, RegistryError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        read_on(&*self.log, &mut state)?;
        Ok(state)
    }

    /// Writes what `lines` finds missing, until it finds nothing: others may write in between.
    pub(super) fn write<T>(
        &self,
        lines: impl Fn(&Catalog) -> Result<(Vec<Line>, T), RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut state = self.read()?;
        for _ in 0..MAX_ROUNDS {
            let (missing, done) = lines(&state.catalog)?;
            if missing.is_empty() {
                return Ok(done);
            }
            if state.catalog.lines() + missing.len() > MAX_SCHEMAS {
                return Err(RegistryError::Full);
            }
            make_topic(&*self.log)?;
            self.log.append(&place(), missing.iter().map(record_of).collect())?;
            read_on(&*self.log, &mut state)?;
        }
        Err(RegistryError::Contended { rounds: MAX_ROUNDS })
    }

    /// Registers several, with ids that go on after the greatest.
    fn register_each(&self, wanted: &[(String, &str)]) -> Result<Vec<u32>, RegistryError> {
        for (subject, schema) in wanted {
            check_subject(subject)?;
            parse(subject, schema)?;
        }
        self.write(|catalog| {
            let mut ids: Vec<u32> = Vec::with_capacity(wanted.len());
            let mut missing: Vec<Registered> = Vec::new();
            let mut new: Vec<(String, u32)> = Vec::new();
            let mut last = catalog.last_id();
            for (subject, schema) in wanted {
                let form = normal_form(schema);
                let known = catalog.id_of(schema);
                let id =
                    match known.or_else(|| new.iter().find(|(other, _)| *other == form).map(|(_, id)| *id)) {
                        Some(id) => id,
                        None => {
                            last += 1;
                            new.push((form, last));
                            last
                        }
                    };
                if id > MAX_ID {
                    return Err(RegistryError::Full);
                }
                ids.push(id);
                // A second schema of a subject waits for the next round, to be compared with the first.
                let waits = missing.iter().any(|entry| entry.subject == *subject);
                if waits || catalog.find(subject, schema, false).is_some() {
                    continue;
                }
                let problems = catalog.problems(subject, &parse(subject, schema)?);
                if !problems.is_empty() {
                    let (subject, why) = (subject.clone(), problems.join("; "));
                    return Err(RegistryError::Incompatible { subject, why });
                }
                let version = catalog.next_version(subject);
                let schema = (*schema).to_owned();
                missing.push(Registered { id, subject: subject.clone(), version, schema });
            }
            Ok((missing.iter().map(Line::from).collect(), ids))
        })
    }

    /// The version of a subject that a schema is, if it is one.
    pub(super) fn find(
        &self,
        subject: &str,
        schema: &str,
        with_deleted: bool,
    ) -> Result<Option<Registered>, RegistryError> {
        Ok(self.read()?.catalog.find(subject, schema, with_deleted))
    }

    /// Sets the rule of a subject, or of all that have none of their own; `None` takes a subject's own rule away.
    pub(super) fn set_level(&self, subject: Option<&str>, level: Option<Level>) -> Result<(), RegistryError> {
        subject.map_or(Ok(()), check_subject)?;
        self.write(|catalog| {
            let holds = match subject {
                Some(subject) => {
                    let (now, own) = catalog.level(subject);
                    level.map_or(!own, |level| own && now == level)
                }
                None => catalog.common_level() == level.unwrap_or_default(),
            };
            let line = Line {
                subject: subject.map(str::to_owned),
                compatibility: Some(level.map_or_else(String::new, |level| level.to_string())),
                ..Line::default()
            };
            Ok((if holds { Vec::new() } else { vec![line] }, ()))
        })
    }

    /// Takes versions of a subject out of its list. Their ids stay.
    pub(super) fn delete(&self, subject: &str, versions: &[u32]) -> Result<(), RegistryError> {
        self.write(|catalog| {
            let live = catalog.versions(subject).iter().filter(|version| !version.deleted);
            let lines = live.filter(|version| versions.contains(&version.version)).map(|version| Line {
                subject: Some(subject.to_owned()),
                version: Some(version.version),
                deleted: Some(true),
                ..Line::default()
            });
            Ok((lines.collect(), ()))
        })
    }
}

impl<L> SchemaRegistry for LogRegistry<L>
where
    L: Deref + Send + Sync,
    L::Target: Log,
{
    fn place(&self) -> &str {
        "topic _schemas of the log"
    }

    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let ids = self.register_each(&[(subject.to_owned(), schema)])?;
        ids.first().copied().ok_or(RegistryError::Full)
    }

    fn register_all(&self, wanted: &[(String, &str)]) -> Result<Vec<u32>, RegistryError> {
        self.register_each(wanted)
    }

    fn lookup(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        Ok(self.find(subject, schema, false)?.map(|entry| entry.id))
    }

    fn schema(&self, id: u32) -> Result<Option<Arc<str>>, RegistryError> {
        Ok(self.read()?.catalog.schema(id).cloned())
    }

    fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        let state = self.read()?;
        let live = state.catalog.subjects().filter(|(_, all)| all.iter().any(|version| !version.deleted));
        Ok(live.map(|(subject, _)| subject.to_owned()).collect())
    }

    fn versions(&self, subject: &str) -> Result<Vec<Registered>, RegistryError> {
        let state = self.read()?;
        let live = state.catalog.versions(subject).iter().filter(|version| !version.deleted);
        Ok(live.map(|version| state.catalog.entry(subject, version)).collect())
    }

    fn check(&self, subject: &str, schema: &str) -> Result<Vec<String>, RegistryError> {
        let new = parse(subject, schema)?;
        Ok(self.read()?.catalog.problems(subject, &new))
    }

    fn known(&self, _: &dyn Fn(&str) -> bool) -> Result<Vec<(u32, Arc<str>)>, RegistryError> {
        let state = self.read()?;
        Ok(state.catalog.schemas().map(|(id, schema)| (id, Arc::clone(schema))).collect())
    }
}

/// Parses the schema for a subject.
pub(super) fn parse(subject: &str, schema: &str) -> Result<Comparable, RegistryError> {
    let invalid = |why| RegistryError::Invalid { subject: subject.to_owned(), why };
    if schema.len() > MAX_SCHEMA_BYTES {
        return Err(invalid(format!("it has {} bytes, more than {MAX_SCHEMA_BYTES}", schema.len())));
    }
    Comparable::parse(schema).map_err(invalid)
}

fn check_subject(subject: &str) -> Result<(), RegistryError> {
    let why = if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES {
        format!("its name has {} bytes; 1 to {MAX_SUBJECT_BYTES} are allowed", subject.len())
    } else if subject.chars().any(char::is_control) {
        "its name has control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(RegistryError::Invalid { subject: subject.to_owned(), why })
}

/// Made only where it is not: the topic may be another registry's, and then has another layout.
fn make_topic<T: Log + ?Sized>(log: &T) -> Result<(), RegistryError> {
    if log.topic(SCHEMAS_TOPIC)?.is_some() {
        return Ok(());
    }
    match log.create_topic(&TopicSpec::new(SCHEMAS_TOPIC, 1)) {
        // Another process was faster.
        Err(LogError::TopicDiffers { .. }) if log.topic(SCHEMAS_TOPIC)?.is_some() => Ok(()),
        done => Ok(done?),
    }
}

/// Reads what was written since the last time.
fn read_on<T: Log + ?Sized>(log: &T, state: &mut State) -> Result<(), RegistryError> {
    let mut from = match state.next {
        Some(next) => next,
        None => match log.topic(SCHEMAS_TOPIC)? {
            None => return Ok(()),
            Some(spec) if spec.partitions != 1 => {
                let found = format!("it has {} partitions, ours has one", spec.partitions);
                return Err(RegistryError::Foreign { found });
            }
            Some(_) => log.bounds(&place())?.start,
        },
    };
    loop {
        let fetched = log.read(&place(), from, FETCH_BYTES)?;
        for stored in &fetched.records {
            let line = line_of(stored)?;
            state
                .catalog
                .take(line)
                .map_err(|problem| RegistryError::Malformed { offset: stored.offset, problem })?;
            // What was taken is not taken again, should a later one fail.
            state.next = Some(stored.offset + 1);
        }
        let progress = fetched.next_offset > from;
        from = fetched.next_offset.max(from);
        state.next = Some(from);
        if fetched.at_end || !progress {
            return Ok(());
        }
    }
}

fn line_of(stored: &StoredRecord) -> Result<Line, RegistryError> {
    let offset = stored.offset;
    // Keys of the Confluent registry, Karapace and Redpanda are objects with a type; Apicurio's have one of another name.
    let key = stored.record.key.as_deref().unwrap_or_default();
    if let Ok(Value::Object(key)) = serde_json::from_slice::<Value>(key) {
        let names: Vec<&str> = key.keys().take(3).map(String::as_str).collect();
        let found = format!("offset {offset} has a key with {}", names.join(", "));
        return Err(RegistryError::Foreign { found });
    }
    let value = stored.record.value.as_deref().unwrap_or_default();
    serde_json::from_slice(value)
        .map_err(|error| RegistryError::Malformed { offset, problem: error.to_string() })
}

pub(super) fn place() -> TopicPartition {
    TopicPartition::new(SCHEMAS_TOPIC, 0)
}

fn record_of(line: &Line) -> NewRecord {
    // Text and numbers always become JSON.
    let value = serde_json::to_vec(line).unwrap_or_default();
    let subject = line.subject.as_deref().unwrap_or_default();
    let key = match line.version {
        Some(version) => format!("{subject}/{version}"),
        None => format!("{subject}/compatibility"),
    };
    NewRecord { timestamp_ms: 0, key: Some(Bytes::from(key)), value: Some(value.into()), headers: Vec::new() }
}
