//! Members of groups on a real Apache Kafka: what befell one once, kept.
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
        generation: member.poll().unwrap().generation,
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
