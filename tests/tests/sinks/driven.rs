//! A log with topics for sinks, and the loop that drives them, on a thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidewire_engine::log::{Log, NewRecord, TopicPartition, TopicSpec};
use tidewire_engine::memory::MemoryLog;
use tidewire_engine::partition::partition_of_compound;
use tidewire_runtime::registry::{open_book, read_book};
use tidewire_runtime::sink::{
    self, Schemas, SinkCounters, SinkEvent, SinkNews, SinkSpec, SinkStats, SinksError,
};
use tidewire_schemas::{DeadLetter, SchemaBook, topics};
use tidewire_sinks::SinkRecord;

use super::{Store, at};

/// How long anything may take. Nothing is measured: a slow machine only takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
pub const PARTITIONS: u32 = 3;

/// A log with features, positions and dead letters.
pub struct Bed {
    pub log: MemoryLog,
    pub book: SchemaBook,
    /// What was appended, by partition and in order: what a store must hold in the end.
    pub appended: Mutex<Vec<SinkRecord>>,
}

impl Bed {
    pub fn new() -> Self {
        let log = MemoryLog::with_control_records();
        for topic in [topics::FEATURES, topics::POSITIONS] {
            log.create_topic(&TopicSpec::new(topic, PARTITIONS)).unwrap();
        }
        log.create_topic(&TopicSpec::new(topics::DEAD_LETTERS, 1)).unwrap();
        let book = open_book(&log).unwrap();
        Self { log, book, appended: Mutex::default() }
    }

    pub fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    /// Appends a record where its key belongs; its offset is what the log says.
    pub fn append(&self, record: SinkRecord) {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap()).into_owned();
        let place = TopicPartition::new(record.topic.clone(), partition_of_compound(&key, PARTITIONS));
        let value = record.record.as_ref().map(|record| {
            let mut value = Vec::new();
            self.book.encode(record, &mut value).unwrap();
            value
        });
        let offset = self.append_raw(&place, &key, value);
        let placed = at(&record.topic, place.partition, offset, &key, record.record);
        self.appended.lock().unwrap().push(placed);
    }

    pub fn append_raw(&self, place: &TopicPartition, key: &str, value: Option<Vec<u8>>) -> u64 {
        let record = NewRecord {
            timestamp_ms: 1_700_000_000_000,
            key: Some(key.to_owned().into()),
            value: value.map(Into::into),
            headers: vec![("h".into(), "v".into())],
        };
        self.log.append(place, vec![record]).unwrap()
    }

    pub fn fold(&self) -> super::Contents {
        super::fold(self.appended.lock().unwrap().iter())
    }

    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let records = self.log.records(&TopicPartition::new(topics::DEAD_LETTERS, 0)).unwrap();
        let decode = |value: &[u8]| DeadLetter::try_from(self.book.decode(value).unwrap()).unwrap();
        records.iter().map(|stored| decode(stored.record.value.as_deref().unwrap())).collect()
    }

    /// The sum of a sink's positions in a topic.
    pub fn committed(&self, spec: &SinkSpec, topic: &str) -> u64 {
        let of = |p| self.log.committed(&spec.group(topic), &TopicPartition::new(topic, p)).unwrap();
        (0..PARTITIONS).filter_map(of).map(|committed| committed.offset).sum()
    }

    pub fn ends(&self, topic: &str) -> u64 {
        let end = |p| self.log.bounds(&TopicPartition::new(topic, p)).unwrap().stable_end;
        (0..PARTITIONS).map(end).sum()
    }

    pub fn all_committed(&self, spec: &SinkSpec) -> bool {
        spec.topics.iter().all(|topic| self.committed(spec, topic) == self.ends(topic))
    }

    pub fn schemas(&self) -> Schemas {
        let log = self.log.clone();
        Arc::new(move || read_book(&log).map_err(|error| error.to_string()))
    }
}

/// A sink on features and positions in small batches, which tries again quickly.
pub fn spec(s: &dyn Store) -> SinkSpec {
    let mut spec = SinkSpec::new("p", "cache", &[topics::FEATURES, topics::POSITIONS], s.maker());
    spec.batch_max_records = 16;
    spec.retry_first = Duration::from_millis(5);
    spec.retry_most = Duration::from_millis(50);
    spec
}

/// Sinks that run until they are stopped.
pub struct Driven {
    pub counters: SinkCounters,
    pub events: Arc<Mutex<Vec<SinkEvent>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), SinksError>>>,
}

impl Driven {
    pub fn start(bed: &Bed, spec: &SinkSpec, member: &str) -> Self {
        Self::start_with(bed.log(), bed.schemas(), spec, member)
    }

    pub fn start_with(log: Arc<dyn Log>, schemas: Schemas, spec: &SinkSpec, member: &str) -> Self {
        let (counters, events) = (SinkCounters::default(), Arc::new(Mutex::new(Vec::new())));
        let stop = Arc::new(AtomicBool::new(false));
        let (specs, member) = (vec![spec.clone()], member.to_owned());
        let (counting, telling, stopping) = (counters.clone(), Arc::clone(&events), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let tell = |event| telling.lock().unwrap().push(event);
            sink::run(&log, &schemas, &specs, &counting, &member, &stopping, tell)
        });
        Self { counters, events, stop, thread: Some(thread) }
    }

    pub fn stop(mut self) -> Result<(), SinksError> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> Result<(), SinksError> {
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn stats(&self, topic: &str) -> SinkStats {
        self.counters.snapshot().get(&("cache".into(), topic.into())).copied().unwrap_or_default()
    }

    pub fn told(&self, wanted: impl Fn(&SinkNews) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| wanted(&event.what)).count()
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
