//! A transaction that Apache Kafka itself forgets to end: where a partition has no leader at that moment, it is taken for
//! deleted, and stays open for ever. Whoever comes after that writer ends it, and nothing of it is ever seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use tidewire_engine::log::{Log, LogError, Scope, TopicPartition, TopicSpec};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_tests::clients::{self, Isolation, Step};
use tidewire_tests::cluster::Cluster;
use tidewire_tests::eventually;

const TOPIC: &str = "once";
const WRITER: &str = "gone";
/// As many as make it sure that each of three brokers leads one.
const PARTITIONS: u32 = 6;
/// How long brokers take to see that one of them is gone, and some more.
const NOTICED: Duration = Duration::from_secs(15);
/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(90);

fn scope() -> Scope {
    let partitions = (0..PARTITIONS).map(|partition| TopicPartition::new(TOPIC, partition)).collect();
    Scope { group: "group".to_owned(), driving: TOPIC.into(), partitions }
}

/// The partitions with something open, once all of them answer.
fn open(log: &KafkaLog) -> Result<Vec<u32>, LogError> {
    let mut open = Vec::new();
    for at in scope().partitions {
        let bounds = log.bounds(&at)?;
        if bounds.stable_end < bounds.high_watermark {
            open.push(at.partition);
        }
    }
    Ok(open)
}

#[test]
fn what_the_cluster_forgets_to_end_is_ended_and_not_seen() {
    let cluster = Cluster::of_nodes(3);
    let options = KafkaOptions { replication_factor: Some(1), ..KafkaOptions::new(cluster.bootstrap()) };
    let log = KafkaLog::connect(options).unwrap();
    log.create_topic(&TopicSpec::new(TOPIC, PARTITIONS)).unwrap();
    let write = |partition| {
        Step::Write(clients::NewRecord {
            topic: TOPIC.to_owned(),
            partition: Some(partition),
            value: Some(b"never committed".to_vec()),
            ..clients::NewRecord::default()
        })
    };
    clients::transact(cluster.bootstrap(), WRITER, (0..PARTITIONS).map(write));
    assert_eq!(open(&log).unwrap().len(), PARTITIONS as usize);

    cluster.kill(2);
    std::thread::sleep(NOTICED);
    eventually("the writer is fenced while a broker is away", PATIENCE, || log.fence(WRITER, &scope()).ok());
    cluster.start_node(2);
    let hanging = eventually("all partitions answer again", PATIENCE, || open(&log).ok());
    assert!(
        !hanging.is_empty() && hanging.len() < PARTITIONS as usize,
        "the cluster forgot it, and on the partitions of the lost broker alone: {hanging:?}"
    );

    // As recovery does: it asks again as long as it finds something open.
    eventually("what hangs is ended", PATIENCE, || {
        log.fence(WRITER, &scope()).unwrap();
        open(&log).ok().filter(Vec::is_empty)
    });
    assert_eq!(clients::read(cluster.bootstrap(), &[TOPIC], Isolation::Settled), []);
    let all = clients::read(cluster.bootstrap(), &[TOPIC], Isolation::Uncommitted);
    let hung = all.iter().filter(|seen| seen.value.as_deref() == Some(b"never committed")).count();
    assert_eq!(hung, PARTITIONS as usize, "it is there, and hidden");
}
