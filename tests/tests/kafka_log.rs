//! Kafka as a log, on a real cluster: what the worker rests on, seen from both sides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire_engine::log::{
    Assignment, CommitError, CommittedOffset, Fetched, Log, LogError, Member, NewRecord, Scope, StoredRecord,
    TopicPartition, TopicSpec, Transaction,
};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_tests::clients::{self, Isolation, Step};
use tidewire_tests::cluster::Cluster;
use tidewire_tests::unique;

/// How long what must come may take: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn log() -> KafkaLog {
    KafkaLog::connect(KafkaOptions::new(Cluster::shared().bootstrap())).unwrap()
}

fn topic(log: &KafkaLog, partitions: u32) -> String {
    let name = unique("log");
    log.create_topic(&TopicSpec::new(name.as_str(), partitions)).unwrap();
    name
}

fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

fn record(value: &str) -> NewRecord {
    NewRecord {
        timestamp_ms: 1_723_161_255_000,
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![("tw-id".into(), Bytes::from_static(b"a/0/1"))],
    }
}

/// All committed records from `from` on.
fn read(log: &dyn Log, at: &TopicPartition, mut from: u64, max_bytes: usize) -> Vec<StoredRecord> {
    let mut all = Vec::new();
    loop {
        let Fetched { records, next_offset, at_end } = log.read(at, from, max_bytes).unwrap();
        all.extend(records);
        from = next_offset;
        if at_end {
            return all;
        }
    }
}

fn values(records: &[StoredRecord]) -> Vec<&str> {
    records
        .iter()
        .map(|stored| std::str::from_utf8(stored.record.value.as_deref().unwrap()).unwrap())
        .collect()
}

/// Waits until a member holds so many tasks.
fn placed(member: &mut dyn Member, tasks: usize) -> Assignment {
    let begun = Instant::now();
    loop {
        let assignment = member.poll().unwrap();
        if assignment.tasks.len() == tasks && assignment.generation > 0 {
            return assignment;
        }
        assert!(begun.elapsed() < PATIENCE, "{assignment:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn transaction(generation: u32, topic: &str, value: &str, offset: u64) -> Transaction {
    let position = CommittedOffset { offset, metadata: format!("{offset} me") };
    Transaction {
        generation,
        appends: vec![(at(topic, 0), vec![record(value)])],
        offsets: vec![(at(topic, 0), position)],
    }
}

#[test]
fn records_come_back_as_they_were_written() {
    let log = log();
    let name = topic(&log, 2);
    let records = vec![
        record("a"),
        NewRecord { key: None, headers: vec![], ..record("b") },
        NewRecord { value: Some(Bytes::new()), ..record("") },
        NewRecord {
            headers: vec![("x".into(), Bytes::new()), ("x".into(), Bytes::from_static(&[0, 255]))],
            ..record("c")
        },
    ];
    assert_eq!(log.append(&at(&name, 1), records.clone()).unwrap(), 0);
    assert_eq!(log.append(&at(&name, 1), records.clone()).unwrap(), 4);
    let stored = read(&log, &at(&name, 1), 0, 1 << 20);
    assert_eq!(stored.iter().map(|stored| stored.offset).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert_eq!(
        stored.into_iter().map(|stored| stored.record).collect::<Vec<_>>(),
        [records.clone(), records].concat()
    );
    assert_eq!(read(&log, &at(&name, 0), 0, 1 << 20), []);
}

#[test]
fn records_of_a_past_year_keep_their_time_on_compacted_topics() {
    let log = log();
    let name = unique("compacted");
    log.create_topic(&TopicSpec::new(name.as_str(), 1).compacted(86_400_000)).unwrap();
    let records = vec![record("a"), NewRecord { value: None, ..record("") }];
    log.append(&at(&name, 0), records.clone()).unwrap();
    let stored: Vec<NewRecord> =
        read(&log, &at(&name, 0), 0, 1 << 20).into_iter().map(|s| s.record).collect();
    assert_eq!(stored, records);
    // The broker counts the lag of compaction by its own time.
    let seen = clients::read(Cluster::shared().bootstrap(), &[&name], Isolation::Committed);
    assert!(seen.iter().all(|seen| seen.is_append_time), "{seen:?}");
    assert_eq!(seen[0].header("time-ms").as_deref(), Some("1723161255000"));
}

#[test]
fn topics_are_made_once_and_compared() {
    let log = log();
    let spec =
        TopicSpec { retention_bytes: Some(1 << 30), ..TopicSpec::new(unique("made"), 3).compacted(7_000) };
    log.create_topic(&spec).unwrap();
    log.create_topic(&spec).unwrap();
    assert_eq!(log.topic(&spec.name).unwrap(), Some(spec.clone()));
    let other = TopicSpec { partitions: 2, ..spec.clone() };
    assert!(matches!(log.create_topic(&other).unwrap_err(), LogError::TopicDiffers { .. }));
    assert!(log.topics().unwrap().contains(&spec));
    assert_eq!(log.topic("tidewire.not-there").unwrap(), None);
}

#[test]
fn what_is_not_there_is_named() {
    let log = log();
    let name = topic(&log, 1);
    log.append(&at(&name, 0), vec![record("a")]).unwrap();
    let unknown = LogError::UnknownTopic("tidewire.not-there".into());
    assert_eq!(log.read(&at("tidewire.not-there", 0), 0, 1).unwrap_err(), unknown);
    assert_eq!(log.join("g", "m", "tidewire.not-there").err().unwrap(), unknown);
    let partition = LogError::UnknownPartition { topic: name.as_str().into(), partition: 1, partitions: 1 };
    assert_eq!(log.read(&at(&name, 1), 0, 1).unwrap_err(), partition);
    let beyond = LogError::BeyondEnd { at: at(&name, 0), asked: 9, end: 1 };
    assert_eq!(log.read(&at(&name, 0), 9, 1).unwrap_err(), beyond);
}

#[test]
fn readers_of_one_partition_stand_where_they_like() {
    let log = log();
    let name = topic(&log, 1);
    let big = "x".repeat(10_000);
    let records: Vec<NewRecord> = (0..1_000).map(|n| record(&format!("{n} {big}"))).collect();
    for chunk in records.chunks(100) {
        log.append(&at(&name, 0), chunk.to_vec()).unwrap();
    }
    // Ten megabytes are more than what is kept for a reader that comes behind.
    std::thread::scope(|scope| {
        for from in [0_u64, 1, 500, 999, 1_000] {
            let (log, at) = (&log, at(&name, 0));
            scope.spawn(move || {
                let read = read(log, &at, from, 300_000);
                assert_eq!(read.len() as u64, 1_000 - from);
                assert!(read.iter().map(|stored| stored.offset).eq(from..1_000));
            });
        }
    });
}

#[test]
fn a_transaction_is_one_step_and_what_was_aborted_is_passed_over() {
    let log = log();
    let (name, group) = (topic(&log, 1), unique("group"));
    let cluster = Cluster::shared().bootstrap();
    let write = |value: &str| {
        Step::Write(clients::NewRecord {
            topic: name.clone(),
            value: Some(value.as_bytes().to_vec()),
            ..clients::NewRecord::default()
        })
    };
    clients::transact(
        cluster,
        &unique("other"),
        [write("aborted"), Step::Abort, write("committed"), Step::Commit],
    );
    let mut member = log.join(&group, &unique("member"), &name).unwrap();
    let generation = placed(&mut *member, 1).generation;
    assert_eq!(log.committed(&group, &at(&name, 0)).unwrap(), None);
    member.commit(transaction(generation, &name, "ours", 2)).unwrap();
    assert_eq!(values(&read(&log, &at(&name, 0), 0, 1 << 20)), ["committed", "ours"]);
    let seen = clients::read(cluster, &[&name], Isolation::Committed);
    assert_eq!(
        seen.iter().map(|seen| seen.value.clone().unwrap()).collect::<Vec<_>>(),
        [b"committed".to_vec(), b"ours".to_vec()]
    );
    let position = CommittedOffset { offset: 2, metadata: "2 me".to_owned() };
    assert_eq!(log.committed(&group, &at(&name, 0)).unwrap(), Some(position));
    member.leave().unwrap();
}

#[test]
fn a_writer_that_died_is_fenced_and_holds_nobody_up() {
    let log = log();
    let (name, writer) = (topic(&log, 1), unique("dead"));
    let write = Step::Write(clients::NewRecord {
        topic: name.clone(),
        value: Some(b"open".to_vec()),
        ..clients::NewRecord::default()
    });
    // It stays open, as when the writer was killed.
    clients::transact(Cluster::shared().bootstrap(), &writer, [write]);
    let bounds = log.bounds(&at(&name, 0)).unwrap();
    assert_eq!((bounds.stable_end, bounds.high_watermark), (0, 1));
    let fetched = log.read(&at(&name, 0), 0, 1 << 20).unwrap();
    assert!(fetched.records.is_empty() && fetched.at_end, "{fetched:?}");
    log.fence(&writer, &Scope::default()).unwrap();
    let begun = Instant::now();
    while log.bounds(&at(&name, 0)).unwrap().stable_end < 2 {
        assert!(begun.elapsed() < Duration::from_secs(8), "only its time-out ended it");
    }
    assert!(read(&log, &at(&name, 0), 0, 1 << 20).is_empty());
}

#[test]
fn a_second_writer_of_a_name_fences_the_first() {
    let log = log();
    let (name, group, writer) = (topic(&log, 1), unique("group"), unique("writer"));
    let mut first = log.join(&group, &writer, &name).unwrap();
    let generation = placed(&mut *first, 1).generation;
    first.commit(transaction(generation, &name, "first", 1)).unwrap();
    let second = log.join(&group, &writer, &name).unwrap();
    let begun = Instant::now();
    // A rebalance may come before the fence shows: then it is aborted, and sent again.
    let error = loop {
        let generation = match first.poll() {
            Ok(assignment) => assignment.generation,
            Err(error) => break CommitError::Log(error),
        };
        match first.commit(transaction(generation, &name, "zombie", 2)) {
            Ok(()) => panic!("a fenced writer committed"),
            Err(CommitError::Aborted(_)) if begun.elapsed() < PATIENCE => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CommitError::Fenced(_) | CommitError::Log(LogError::Fenced(_))), "{error}");
    assert_eq!(values(&read(&log, &at(&name, 0), 0, 1 << 20)), ["first"]);
    drop(second);
}

#[test]
fn what_another_generation_aborted_is_sent_again() {
    let log = log();
    let (name, group) = (topic(&log, 2), unique("group"));
    let mut first = log.join(&group, &unique("first"), &name).unwrap();
    let stale = placed(&mut *first, 2);
    let mut second = log.join(&group, &unique("second"), &name).unwrap();
    let begun = Instant::now();
    let asked = loop {
        let _ = second.poll().unwrap();
        let assignment = first.poll().unwrap();
        if !assignment.revoking.is_empty() {
            break assignment;
        }
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((asked.tasks.len(), asked.revoking.len()), (2, 1), "it is held until it is given back");
    assert!(asked.generation > stale.generation);
    let error = first.commit(transaction(stale.generation, &name, "stale", 1)).unwrap_err();
    assert!(matches!(error, CommitError::Aborted(_)), "{error}");
    let now = first.poll().unwrap().generation;
    first.commit(transaction(now, &name, "again", 1)).unwrap();
    first.release(&asked.revoking).unwrap();
    // Both look at the group all the time, as workers do: each change of it has to be answered.
    let begun = Instant::now();
    while second.poll().unwrap().tasks.len() != 1 {
        assert_eq!(first.poll().unwrap().tasks.len(), 1);
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(values(&read(&log, &at(&name, 0), 0, 1 << 20)), ["again"]);
}

#[test]
fn an_outage_is_not_the_end() {
    let cluster = Cluster::of_nodes(1);
    let log = KafkaLog::connect(KafkaOptions::new(cluster.bootstrap())).unwrap();
    let name = topic(&log, 1);
    log.append(&at(&name, 0), vec![record("a")]).unwrap();
    assert_eq!(read(&log, &at(&name, 0), 0, 1 << 20).len(), 1);
    assert!(log.read(&at(&name, 0), 1, 1).unwrap().at_end);
    cluster.pause(1);
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..20 {
        assert!(!log.fetch(&at(&name, 0), 1, 1).unwrap().at_end, "nobody said so");
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.resume(1);
    assert!(log.read(&at(&name, 0), 1, 1).unwrap().at_end);
}

#[test]
fn a_cluster_that_is_not_there_is_an_error_with_a_reason() {
    let begun = Instant::now();
    let error = KafkaLog::connect(KafkaOptions::new("127.0.0.1:1")).err().unwrap();
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert!(begun.elapsed() < PATIENCE);
}
