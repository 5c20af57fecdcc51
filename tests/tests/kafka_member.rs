//! Members of groups and topics on a real Apache Kafka: what befell one once, kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire_engine::log::{
    CommitError, CommittedOffset, Log, Member, NewRecord, TopicPartition, TopicSpec, Transaction,
};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_tests::clients::{self, Isolation};
use tidewire_tests::cluster::Cluster;
use tidewire_tests::unique;

/// Longer than a broker takes beside a position.
const TOO_LONG: usize = 5_000;

/// Longer than a record waits for its broker.
const OUTAGE: Duration = Duration::from_secs(13);
const OUTAGES: usize = 3;

fn join(log: &KafkaLog, topic: &str) -> Box<dyn Member> {
    log.create_topic(&TopicSpec::new(topic, 1)).unwrap();
    let mut member = log.join(topic, topic, topic).unwrap();
    let started = Instant::now();
    while member.poll().unwrap().tasks.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(30), "the group gives no task");
        log.wait(Duration::from_millis(10));
    }
    member
}

fn transaction(member: &mut dyn Member, topic: &str, records: usize, metadata: usize) -> Transaction {
    let at = TopicPartition::new(topic, 0);
    let record = NewRecord { value: Some(Bytes::from(vec![7; 100])), ..NewRecord::default() };
    let position = CommittedOffset { offset: 0, metadata: "x".repeat(metadata) };
    Transaction {
        generation: member.poll().map_or(0, |assignment| assignment.generation),
        appends: vec![(at.clone(), vec![record; records])],
        offsets: vec![(at, position)],
    }
}

/// The broker refuses the position while records are still on their way. They wait to be taken back by the one that
/// aborts; nobody else does.
#[test]
fn a_refused_transaction_is_aborted_and_the_member_goes_on() {
    let (bootstrap, topic) = (Cluster::shared().bootstrap(), unique("refused"));
    let log = KafkaLog::connect(KafkaOptions::new(bootstrap)).unwrap();
    let mut member = join(&log, &topic);
    let refused = transaction(&mut *member, &topic, 5_000, TOO_LONG);
    let error = member.commit(refused).unwrap_err();
    assert!(matches!(error, CommitError::Aborted(_) | CommitError::Log(_)), "{error:?}");
    let good = transaction(&mut *member, &topic, 2, 10);
    member.commit(good).unwrap();
    assert_eq!(clients::read(bootstrap, &[&topic], Isolation::Settled).len(), 2);
}

/// Brokers hear of a new topic one after another, and any of them may be asked.
#[test]
fn a_topic_that_was_just_made_is_there_on_every_broker() {
    let cluster = Cluster::of_nodes(3);
    let connect = || KafkaLog::connect(KafkaOptions::new(cluster.bootstrap())).unwrap();
    let logs = [connect(), connect(), connect()];
    let key = Some(Bytes::from_static(b"key"));
    let record = NewRecord { key: key.clone(), value: key, ..NewRecord::default() };
    for number in 0..30 {
        let spec = TopicSpec::new(format!("new-{number}"), 3).compacted(1_000);
        let at = TopicPartition::new(spec.name.clone(), 2);
        // All at once, as processes do that are started together.
        std::thread::scope(|scope| {
            for log in &logs {
                scope.spawn(|| {
                    log.create_topic(&spec).unwrap();
                    (0..3).for_each(|partition| {
                        log.bounds(&TopicPartition::new(spec.name.clone(), partition)).unwrap();
                    });
                });
            }
        });
        for log in &logs {
            log.create_topic(&spec).unwrap();
            log.append(&at, vec![record.clone()]).unwrap();
        }
        assert_eq!(logs[0].bounds(&at).unwrap().stable_end, 3);
    }
}

/// Records time out while their broker is away: the transaction is lost, the writer may be, what comes next is not.
#[test]
fn a_member_outlives_outages() {
    let cluster = Cluster::of_nodes(1);
    let topic = unique("outage");
    let log = KafkaLog::connect(KafkaOptions::new(cluster.bootstrap())).unwrap();
    let mut member = Some(join(&log, &topic));
    let (mut committed, mut unknown) = (0, 0);
    for outage in 0..OUTAGES {
        let mut commit = |member: &mut Option<Box<dyn Member>>, records: usize| {
            let member = member.as_mut().unwrap();
            let next = transaction(&mut **member, &topic, records, 10);
            match member.commit(next) {
                Ok(()) => committed += records,
                Err(CommitError::Unknown(_)) => unknown += records,
                Err(CommitError::Log(error)) => panic!("outage {outage}: {error}"),
                Err(CommitError::Fenced(_) | CommitError::Aborted(_)) => return false,
            }
            true
        };
        // A broker that is killed before it wrote the end of a transaction may forget it, though it acknowledged it.
        let at = TopicPartition::new(topic.clone(), 0);
        while log.bounds(&at).is_ok_and(|bounds| bounds.stable_end < bounds.high_watermark) {
            log.wait(Duration::from_millis(20));
        }
        cluster.kill(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(OUTAGE);
                cluster.start_node(1);
            });
            commit(&mut member, 500);
        });
        let started = Instant::now();
        while !commit(&mut member, 2) {
            assert!(started.elapsed() < Duration::from_secs(120), "outage {outage}: nothing is committed");
            if member.as_mut().unwrap().poll().is_err() {
                // The old one goes first: it holds the task.
                drop(member.take());
                member = Some(join(&log, &topic));
            }
            log.wait(Duration::from_millis(100));
        }
    }
    let seen = clients::read(cluster.bootstrap(), &[&topic], Isolation::Settled).len();
    assert!((committed..=committed + unknown).contains(&seen), "{committed} and {unknown}, not {seen}");
    assert!(committed >= 2 * OUTAGES, "{committed}");
}
