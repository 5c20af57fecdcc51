//! What needs a look below the surface: blocks in the store, damaged on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use tidewire_engine::log::{Log, LogError, NewRecord, TopicPartition, TopicSpec};

use super::{Durability, EmbeddedLog, EmbeddedOptions, OpenError, keys};

struct Fixture {
    dir: tempfile::TempDir,
    log: Arc<EmbeddedLog>,
}

fn options() -> EmbeddedOptions {
    // Without a cache every read goes to the store.
    EmbeddedOptions {
        durability: Durability::Buffered,
        cache_bytes: 0,
        clock: Arc::new(|| 5),
        ..Default::default()
    }
}

fn at() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// Ten blocks of ten records of a compacted topic.
fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), options()).unwrap();
    log.create_topic(&TopicSpec { retention_ms: Some(100), ..TopicSpec::new("t", 1).compacted(0) }).unwrap();
    for n in 0..10_u64 {
        let record = |m: u64| NewRecord {
            key: Some(format!("{m}").into()),
            value: Some("v".into()),
            ..Default::default()
        };
        log.append(&at(), (0..10).map(|m| record(n * 10 + m)).collect()).unwrap();
    }
    Fixture { dir, log }
}

impl Fixture {
    fn id(&self) -> keys::PartitionId {
        self.log.index().find(&at()).unwrap().id
    }

    fn change(&self, base: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let key = keys::block(self.id(), base);
        let mut value = self.log.store.snapshot().get(&key).unwrap().unwrap();
        change(&mut value);
        let mut batch = self.log.store.batch(Durability::Buffered);
        batch.put(&key, value);
        batch.commit(String::new).unwrap();
    }

    fn store_error(&self, from: u64) -> String {
        match self.log.fetch(&at(), from, 1 << 20).unwrap_err() {
            error @ LogError::Store { .. } => error.to_string(),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn a_damaged_block_is_named_and_the_others_stay_readable() {
    let fixture = fixture();
    fixture.change(30, |value| *value.last_mut().unwrap() ^= 1);
    assert_eq!(
        fixture.log.fetch(&at(), 0, 1 << 20).unwrap().next_offset,
        30,
        "what lies before it is readable"
    );
    for from in [30, 35, 39] {
        let error = fixture.store_error(from);
        assert!(error.contains("t-0 at offset 30"), "{error}");
        assert!(error.contains("begins at offset 30") && error.contains("checksum"), "{error}");
        assert!(error.contains("restore") && error.contains("read on from a later block"), "{error}");
    }
    assert_eq!(fixture.log.fetch(&at(), 40, 1 << 20).unwrap().records.len(), 60);
}

#[test]
fn lost_blocks_of_a_topic_that_is_not_compacted_are_missed() {
    let Fixture { log, .. } = &fixture();
    log.create_topic(&TopicSpec::new("u", 1)).unwrap();
    let at = TopicPartition::new("u", 0);
    for _ in 0..4 {
        log.append(&at, vec![NewRecord::default(); 10]).unwrap();
    }
    let id = log.index().find(&at).unwrap().id;
    for (lost, from, to) in [(10, 10, 20), (0, 0, 20), (30, 30, 40)] {
        let mut batch = log.store.batch(Durability::Buffered);
        batch.remove(&keys::block(id, lost));
        batch.commit(String::new).unwrap();
        for asked in [from, from + 9] {
            let error = log.fetch(&at, asked, 1 << 20).unwrap_err().to_string();
            assert!(
                error.contains(&format!("u-0 at offset {asked}: the records from there to offset {to}")),
                "{error}"
            );
        }
        let rest = log.fetch(&at, 20, 1 << 20).unwrap();
        assert_eq!((rest.next_offset, rest.at_end), if lost == 30 { (30, false) } else { (40, true) });
    }
}

#[test]
fn a_block_of_a_newer_format_says_so() {
    let fixture = fixture();
    fixture.change(30, |value| value[0] = 2);
    assert!(fixture.store_error(30).contains("format 2, this build knows format 1: use a newer build"));
}

#[test]
fn upkeep_stops_at_a_damaged_block_and_loses_nothing() {
    let fixture = fixture();
    fixture.change(30, |value| value.truncate(20));
    let log = &fixture.log;
    log.create_topic(&TopicSpec { retention_ms: Some(100), ..TopicSpec::new("u", 1) }).unwrap();
    log.append(&TopicPartition::new("u", 0), vec![NewRecord::default()]).unwrap();
    for error in [
        log.maintain(u64::MAX / 2, u64::MAX).unwrap_err(),
        log.apply_retention(1000).unwrap_err(),
        log.compact_topic("t", 1000).unwrap_err(),
    ] {
        assert!(matches!(error, LogError::Store { .. }));
        assert!(error.to_string().contains("t-0 at offset 30"), "{error}");
    }
    let start = log.bounds(&at()).unwrap().start;
    assert!(start <= 30);
    assert_eq!(log.bounds(&TopicPartition::new("u", 0)).unwrap().start, 1, "other partitions are seen to");
    assert_eq!(log.fetch(&at(), 40, 1 << 20).unwrap().records.len(), 60);
}

#[test]
fn a_log_with_a_damaged_end_does_not_open() {
    let fixture = fixture();
    fixture.change(90, |value| value.truncate(3));
    let Fixture { dir, log } = fixture;
    drop(log);
    let error = EmbeddedLog::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, OpenError::Log(LogError::Store { .. })));
    assert!(error.to_string().contains("t-0 at offset 90: the last block"), "{error}");
}

#[test]
fn damaged_rows_of_topics_and_groups_are_named() {
    for (key, value, expected) in [
        (keys::topic("t"), vec![9, 9], "layout of topic t: has format 9"),
        (keys::position(keys::PartitionId { topic: 0, partition: 0 }, "g"), vec![1], "group g: damaged"),
        (keys::state(keys::PartitionId { topic: 0, partition: 0 }).to_vec(), vec![], "state of t-0: damaged"),
        (vec![keys::POSITIONS, 1], vec![1], "damaged key"),
    ] {
        let Fixture { dir, log } = fixture();
        let mut batch = log.store.batch(Durability::Buffered);
        batch.put(&key, value);
        batch.commit(String::new).unwrap();
        drop(log);
        let error = EmbeddedLog::open(dir.path(), options()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_store_that_was_half_made_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let half = dir.path().join("store.new");
    std::fs::create_dir_all(half.join("keyspaces")).unwrap();
    std::fs::write(half.join("0.jnl"), b"half").unwrap();
    std::fs::write(dir.path().join("format"), "tidewire-log 1\n").unwrap();
    let log = EmbeddedLog::open(dir.path(), options()).unwrap();
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    assert!(!half.exists());
    drop(log);
    assert!(EmbeddedLog::open(dir.path(), options()).unwrap().topic("t").unwrap().is_some());
}
