//! Schemas that were registered after a process had started: learned when the first record with their id is read.
//!
//! A producer may go over to a newer schema at any time. The book that records are decoded with was filled at the
//! start, and what decodes does no I/O. So the log is wrapped: ids that the book does not know are asked for while
//! records are fetched, before anybody decodes them. A registry that does not answer is an outage, not an unknown
//! schema: the fetch fails and is tried again, and no record becomes a dead letter for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidewire_engine::log::{
    Bounds, CommittedOffset, Fetched, Log, LogError, Member, NewRecord, Scope, StoredRecord, TopicPartition,
    TopicSpec,
};
use tidewire_schemas::{SchemaBook, wire};

use super::{RegistryError, SchemaRegistry};

/// How long an id that the registry does not know is not asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// Most such ids that are remembered.
const MAX_UNKNOWN: usize = 10_000;

/// A log whose records' schemas are in the book when they are handed out.
pub struct LearningLog {
    log: Arc<dyn Log>,
    book: Arc<SchemaBook>,
    registry: Box<dyn SchemaRegistry>,
    /// Ids that the registry does not know, and when it said so.
    unknown: Mutex<BTreeMap<u32, Instant>>,
}

impl LearningLog {
    /// Wraps a log whose schemas are in `registry`.
    pub fn new(log: Arc<dyn Log>, book: Arc<SchemaBook>, registry: Box<dyn SchemaRegistry>) -> Self {
        Self { log, book, registry, unknown: Mutex::default() }
    }

    fn learn(&self, at: &TopicPartition, fetched: Fetched) -> Result<Fetched, LogError> {
        // Their values are no records of a schema, whatever byte they begin with.
        if at.topic.ends_with(".changelog") || at.topic.starts_with('_') {
            return Ok(fetched);
        }
        let mut last = None;
        for stored in &fetched.records {
            let id = schema_id(stored);
            if id != last
                && let Some(id) = id
                && !self.book.knows(id)
            {
                self.ask(at, stored.offset, id)?;
            }
            last = id;
        }
        Ok(fetched)
    }

    fn ask(&self, at: &TopicPartition, offset: u64, id: u32) -> Result<(), LogError> {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.get(&id).is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
            return Ok(());
        }
        match self.registry.schema(id) {
            Ok(Some(schema)) => {
                tracing::info!(id, %at, offset, "a schema was learned");
                self.book.learn(id, &schema);
                unknown.remove(&id);
                Ok(())
            }
            Ok(None) => {
                if unknown.len() >= MAX_UNKNOWN {
                    unknown.pop_first();
                }
                unknown.insert(id, Instant::now());
                Ok(())
            }
            // Whatever it is, it is no schema that could be read: the record says so.
            Err(RegistryError::Answer { .. }) => Ok(()),
            Err(RegistryError::Log(error)) => Err(error),
            Err(error) => Err(LogError::Unavailable {
                at: format!("schema id {id} of {at}, offset {offset}"),
                error: error.to_string(),
            }),
        }
    }
}

fn schema_id(stored: &StoredRecord) -> Option<u32> {
    let (id, _) = wire::split_prefix(stored.record.value.as_deref()?).ok()?;
    Some(id)
}

impl Log for LearningLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.log.create_topic(spec)
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        self.log.topics()
    }

    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        self.log.topic(name)
    }

    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.learn(at, self.log.fetch(at, from, max_bytes)?)
    }

    fn read(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.learn(at, self.log.read(at, from, max_bytes)?)
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        self.log.bounds(at)
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        self.log.committed(group, at)
    }

    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        self.log.append(at, records)
    }

    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError> {
        self.log.join(group, member, driving)
    }

    fn topic_settings(&self, name: &str) -> Result<Vec<(String, String)>, LogError> {
        self.log.topic_settings(name)
    }

    fn fence(&self, writer: &str, scope: &Scope) -> Result<(), LogError> {
        self.log.fence(writer, scope)
    }

    fn committed_unstable(
        &self,
        group: &str,
        at: &TopicPartition,
    ) -> Result<Option<CommittedOffset>, LogError> {
        self.log.committed_unstable(group, at)
    }

    fn group_members(&self, group: &str) -> Result<Option<usize>, LogError> {
        self.log.group_members(group)
    }

    fn offsets_of_commit(&self) -> u64 {
        self.log.offsets_of_commit()
    }

    fn wait(&self, timeout: Duration) {
        self.log.wait(timeout);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use tidewire_engine::memory::MemoryLog;
    use tidewire_schemas::{DecodeError, Kind, Trade};

    use super::*;
    use crate::registry::{LogRegistry, Registered};

    fn newer_trade() -> String {
        let mut newer: serde_json::Value = serde_json::from_str(Kind::Trade.schema_json()).unwrap();
        newer["doc"] = "newer".into();
        newer.to_string()
    }

    fn value(id: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::put_prefix(&mut bytes, id);
        let mut whole = Vec::new();
        SchemaBook::of_this_build().encode_body(&Trade::default(), &mut whole).unwrap();
        bytes.extend_from_slice(&whole[wire::PREFIX_BYTES..]);
        bytes
    }

    fn written(topic: &str, id: u32) -> (Arc<MemoryLog>, TopicPartition) {
        let log = Arc::new(MemoryLog::new());
        log.create_topic(&TopicSpec::new(topic, 1)).unwrap();
        let at = TopicPartition::new(topic, 0);
        let record = NewRecord { value: Some(value(id).into()), ..NewRecord::default() };
        log.append(&at, vec![record]).unwrap();
        (log, at)
    }

    #[test]
    fn a_schema_that_was_registered_later_is_learned_by_all_who_share_the_book() {
        let (log, at) = written("t", 1);
        let book = Arc::new(SchemaBook::new());
        let shared: Arc<dyn Log> = log;
        let learning = LearningLog::new(
            Arc::clone(&shared),
            Arc::clone(&book),
            Box::new(LogRegistry::new(Arc::clone(&shared))),
        );
        let clone = (*book).clone();
        let other = LogRegistry::new(shared);
        assert_eq!(other.register("t-tidewire.Trade", &newer_trade()).unwrap(), 1);
        assert_eq!(book.decode(&value(1)), Err(DecodeError::UnknownSchema { id: 1 }));
        learning.fetch(&at, 0, 1 << 20).unwrap();
        for book in [&*book, &clone] {
            assert_eq!(book.decode(&value(1)).unwrap().as_trade(), Some(&Trade::default()));
            assert_eq!(book.schema_of(1).as_deref(), Some(newer_trade().as_str()));
            assert_eq!(book.kind_of(&value(1)), Ok(Kind::Trade));
        }
    }

    /// A registry that gives the same answer every time, and counts.
    struct Counting(Result<Option<Arc<str>>, RegistryError>, Arc<AtomicUsize>);

    impl SchemaRegistry for Counting {
        fn place(&self) -> &str {
            "here"
        }

        fn register(&self, _: &str, _: &str) -> Result<u32, RegistryError> {
            Err(RegistryError::Full)
        }

        fn lookup(&self, _: &str, _: &str) -> Result<Option<u32>, RegistryError> {
            Ok(None)
        }

        fn schema(&self, _: u32) -> Result<Option<Arc<str>>, RegistryError> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.clone()
        }

        fn subjects(&self) -> Result<Vec<String>, RegistryError> {
            Ok(Vec::new())
        }

        fn versions(&self, _: &str) -> Result<Vec<Registered>, RegistryError> {
            Ok(Vec::new())
        }

        fn check(&self, _: &str, _: &str) -> Result<Vec<String>, RegistryError> {
            Ok(Vec::new())
        }
    }

    fn counting(
        topic: &str,
        answer: Result<Option<Arc<str>>, RegistryError>,
    ) -> (LearningLog, TopicPartition, Arc<AtomicUsize>) {
        let (log, at) = written(topic, 77);
        let count = Arc::new(AtomicUsize::new(0));
        let registry = Counting(answer, Arc::clone(&count));
        (LearningLog::new(log, Arc::new(SchemaBook::new()), Box::new(registry)), at, count)
    }

    #[test]
    fn an_outage_is_no_unknown_schema() {
        let gone = RegistryError::Unreachable { tries: 3, error: "connection refused".into() };
        let (log, at, _) = counting("t", Err(gone));
        let error = log.fetch(&at, 0, 1 << 20).unwrap_err();
        assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("schema id 77 of t-0, offset 0"), "{error}");
    }

    #[test]
    fn an_id_that_nobody_knows_is_not_asked_for_with_each_record() {
        let (log, at, count) = counting("t", Ok(None));
        for _ in 0..5 {
            assert_eq!(log.read(&at, 0, 1 << 20).unwrap().records.len(), 1);
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn topics_without_schemas_are_left_alone() {
        for topic in ["p.s.changelog", "_imports"] {
            let (log, at, count) = counting(topic, Ok(None));
            log.fetch(&at, 0, 1 << 20).unwrap();
            assert_eq!(count.load(Ordering::SeqCst), 0);
        }
    }

    /// A method with a default would else be answered by the default, not by the log.
    #[test]
    fn every_method_of_a_log_is_passed_on() {
        let port = include_str!("../../../engine/src/log.rs");
        let methods = port.split("pub trait Log:").nth(1).unwrap().split("\n}\n").next().unwrap();
        let here = include_str!("learning.rs");
        let names: Vec<&str> =
            methods.lines().filter_map(|line| line.strip_prefix("    fn ")?.split('(').next()).collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert!(here.contains(&format!("self.log.{name}(")), "{name}");
        }
    }
}
