//! The logs under test, behind one face, and small helpers to write and read records.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tempfile::TempDir;
use tidewire_engine::log::{
    CommittedOffset, Fetched, Log, Member, NewRecord, StoredRecord, TopicPartition, TopicSpec, Transaction,
};
use tidewire_engine::memory::MemoryLog;
use tidewire_runtime::embedded::{Durability, EmbeddedLog, EmbeddedOptions, RemoteLog, Server};

/// A log under test. Its clock stands until it is set.
pub trait Subject {
    /// The log, to be used for a call or two.
    fn log(&self) -> Arc<dyn Log>;
    /// The log whose groups can be joined.
    fn groups(&self) -> Arc<dyn Log> {
        self.log()
    }
    /// A moment at which nobody holds the log: it may be closed and opened again.
    fn step(&mut self) {}
    fn set_now_ms(&self, now_ms: u64);
    fn compact(&self, topic: &str) -> u64;
    fn apply_retention(&self);
    fn expire(&self, group: &str, member: &str) -> bool;
}

pub struct Memory(pub MemoryLog);

impl Subject for Memory {
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.0.clone())
    }

    fn set_now_ms(&self, now_ms: u64) {
        self.0.set_now_ms(now_ms);
    }

    fn compact(&self, topic: &str) -> u64 {
        self.0.compact(topic).unwrap()
    }

    fn apply_retention(&self) {
        self.0.apply_retention();
    }

    fn expire(&self, group: &str, member: &str) -> bool {
        self.0.expire(group, member)
    }
}

pub struct Embedded {
    pub dir: TempDir,
    pub now_ms: Arc<AtomicU64>,
    pub options: EmbeddedOptions,
    pub reopens: bool,
    pub log: Option<Arc<EmbeddedLog>>,
}

impl Embedded {
    pub fn new() -> Self {
        Self::with_cache(1 << 20)
    }

    pub fn reopened() -> Self {
        Self { reopens: true, ..Self::new() }
    }

    /// A small cache makes reads go to the store.
    pub fn with_cache(cache_bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (now_ms, options) = options(cache_bytes);
        let log = Some(EmbeddedLog::open(dir.path(), options.clone()).unwrap());
        Self { dir, now_ms, options, reopens: false, log }
    }

    pub fn embedded(&self) -> &Arc<EmbeddedLog> {
        self.log.as_ref().unwrap()
    }

    pub fn reopen(&mut self) {
        let log = self.log.take().unwrap();
        assert_eq!(Arc::strong_count(&log), 1, "the test still holds the log");
        drop(log);
        self.log = Some(EmbeddedLog::open(self.dir.path(), self.options.clone()).unwrap());
    }
}

impl Subject for Embedded {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(self.embedded()) as Arc<dyn Log>
    }

    fn step(&mut self) {
        if self.reopens {
            self.reopen();
        }
    }

    fn set_now_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    fn compact(&self, topic: &str) -> u64 {
        self.embedded().compact_topic(topic, self.now_ms.load(Ordering::Relaxed)).unwrap()
    }

    fn apply_retention(&self) {
        self.embedded().apply_retention(self.now_ms.load(Ordering::Relaxed)).unwrap();
    }

    fn expire(&self, group: &str, member: &str) -> bool {
        self.embedded().expire(group, member)
    }
}

/// An embedded log, used through its socket.
pub struct Remote {
    pub remote: Arc<RemoteLog>,
    pub server: Server,
    pub below: Embedded,
}

impl Remote {
    pub fn new() -> Self {
        let below = Embedded::new();
        let server = Server::start(Arc::clone(below.embedded())).unwrap();
        let remote = Arc::new(RemoteLog::connect(below.dir.path()).unwrap());
        Self { remote, server, below }
    }
}

impl Subject for Remote {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.remote) as Arc<dyn Log>
    }

    fn set_now_ms(&self, now_ms: u64) {
        self.below.set_now_ms(now_ms);
    }

    fn compact(&self, topic: &str) -> u64 {
        self.below.compact(topic)
    }

    fn apply_retention(&self) {
        self.below.apply_retention();
    }

    fn expire(&self, group: &str, member: &str) -> bool {
        self.below.expire(group, member)
    }
}

/// Options with a clock that moves only when told.
pub fn options(cache_bytes: usize) -> (Arc<AtomicU64>, EmbeddedOptions) {
    let now_ms = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now_ms);
    let options = EmbeddedOptions {
        durability: Durability::Buffered,
        cache_bytes,
        write_buffer_bytes: 1 << 20,
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
    };
    (now_ms, options)
}

pub fn open(dir: &Path) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(dir, options(1 << 20).1).unwrap()
}

pub fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

pub fn record(key: &str, value: &str) -> NewRecord {
    NewRecord {
        timestamp_ms: 1_700_000_000_000,
        key: Some(bytes(key)),
        value: Some(bytes(value)),
        headers: vec![],
    }
}

pub fn tombstone(key: &str) -> NewRecord {
    NewRecord { value: None, ..record(key, "") }
}

/// Bytes that do not compress, a different run for each seed.
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// `count` records with distinct keys and values.
pub fn numbered(from: u64, count: u64) -> Vec<NewRecord> {
    (from..from + count).map(|n| record(&format!("k{n}"), &format!("v{n}"))).collect()
}

pub fn create(log: &dyn Log, name: &str, partitions: u32) {
    log.create_topic(&TopicSpec::new(name, partitions)).unwrap();
}

/// All committed records from `from` on, read in pages; checks what every read must keep to.
pub fn read_from(log: &dyn Log, at: &TopicPartition, from: u64, max_bytes: usize) -> Vec<StoredRecord> {
    let mut records: Vec<StoredRecord> = Vec::new();
    let mut next = from;
    loop {
        let Fetched { records: page, next_offset, at_end } = log.fetch(at, next, max_bytes).unwrap();
        let size: usize = page.iter().map(|stored| stored.record.size()).sum();
        assert!(page.len() <= 1 || size <= max_bytes, "{} records of {size} bytes in one page", page.len());
        let mut previous = next;
        for stored in &page {
            assert!(stored.offset >= previous && stored.offset < next_offset, "{at}: offsets do not ascend");
            previous = stored.offset + 1;
        }
        assert!(next_offset > next || at_end, "{at}: a read from {next} got nowhere");
        records.extend(page);
        next = next_offset;
        if at_end {
            assert!(next <= log.bounds(at).unwrap().stable_end);
            return records;
        }
    }
}

pub fn read(log: &dyn Log, at: &TopicPartition) -> Vec<StoredRecord> {
    read_from(log, at, log.bounds(at).unwrap().start, 1 << 20)
}

/// Keys and values as text, tombstones as `-`.
pub fn texts(records: &[StoredRecord]) -> Vec<String> {
    let text = |bytes: &Option<Bytes>| {
        bytes.as_ref().map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    records.iter().map(|s| format!("{}={}", text(&s.record.key), text(&s.record.value))).collect()
}

/// A transaction under the member's current generation.
pub fn transaction(member: &mut dyn Member) -> Transaction {
    Transaction { generation: member.poll().unwrap().generation, ..Transaction::default() }
}

/// Commits under the member's current generation.
pub fn commit(member: &mut dyn Member, transaction: Transaction) {
    let generation = member.poll().unwrap().generation;
    member.commit(Transaction { generation, ..transaction }).unwrap();
}

pub fn position(offset: u64, metadata: &str) -> CommittedOffset {
    CommittedOffset { offset, metadata: metadata.to_owned() }
}
