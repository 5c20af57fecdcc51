//! The cluster of the tests is a real one, and the client that reads it back tells what was committed from what was not:
//! everything that is said of Kafka elsewhere rests on this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

use tidewire_tests::clients::{self, Isolation, NewRecord, Seen, Step};
use tidewire_tests::cluster::Cluster;
use tidewire_tests::unique;

fn record(topic: &str, partition: u32, value: &str) -> NewRecord {
    NewRecord {
        topic: topic.to_owned(),
        partition: Some(partition),
        timestamp_ms: Some(1_723_161_600_000),
        key: Some(b"k\xff".to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: vec![("tw-id".to_owned(), b"a/0/1".to_vec()), ("empty".to_owned(), Vec::new())],
    }
}

fn values(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| std::str::from_utf8(seen.value.as_deref().unwrap()).unwrap()).collect()
}

#[test]
fn a_reader_of_committed_records_sees_no_others() {
    let (bootstrap, topic) = (Cluster::shared().bootstrap(), unique("canary"));
    clients::create_topics(bootstrap, &[(&topic, 1)]);
    let write = |value| Step::Write(record(&topic, 0, value));
    let steps = [write("aborted"), Step::Abort, write("committed"), Step::Commit, write("left open")];
    clients::transact(bootstrap, &topic, steps);

    let read = |isolation| clients::try_read(bootstrap, &[&topic], isolation);
    assert_eq!(values(&read(Isolation::Committed).unwrap()), ["committed"]);
    // All three are in the log: it is the isolation that hides two of them.
    assert_eq!(values(&read(Isolation::Uncommitted).unwrap()), ["aborted", "committed", "left open"]);
    let error = read(Isolation::Settled).unwrap_err();
    assert!(error.contains(&topic) && error.contains("a transaction is open"), "{error}");

    // A writer of the same name takes the place of the one that left the transaction open.
    clients::transact(bootstrap, &topic, [write("next"), Step::Commit]);
    assert_eq!(values(&read(Isolation::Settled).unwrap()), ["committed", "next"]);
}

#[test]
fn records_come_back_as_they_were_written() {
    let (bootstrap, topic) = (Cluster::shared().bootstrap(), unique("round-trip"));
    clients::create_topics(bootstrap, &[(&topic, 2)]);
    let tombstone = NewRecord { value: None, ..record(&topic, 1, "") };
    clients::write(bootstrap, [record(&topic, 1, "first"), record(&topic, 0, "other"), tombstone.clone()]);

    let seen = clients::read(bootstrap, &[&topic], Isolation::Settled);
    let of_one: Vec<&Seen> = seen.iter().filter(|seen| seen.partition == 1).collect();
    assert_eq!((seen.len(), of_one.len()), (3, 2));
    let written = [record(&topic, 1, "first"), tombstone];
    for ((offset, seen), written) in (0..).zip(of_one).zip(written) {
        assert_eq!((seen.offset, seen.is_append_time), (offset, false));
        assert_eq!(seen.header("tw-id").as_deref(), Some("a/0/1"));
        let back = NewRecord {
            topic: seen.topic.clone(),
            partition: Some(seen.partition),
            timestamp_ms: Some(seen.timestamp_ms),
            key: seen.key.clone(),
            value: seen.value.clone(),
            headers: seen.headers.clone(),
        };
        assert_eq!(back, written);
    }
    let error = clients::try_read(bootstrap, &["not-there"], Isolation::Committed).unwrap_err();
    assert!(error.contains("there is no topic not-there"), "{error}");
}

#[test]
fn kcat_sees_the_same() {
    let (bootstrap, topic) = (Cluster::shared().bootstrap(), unique("kcat"));
    clients::create_topics(bootstrap, &[(&topic, 1)]);
    let write = |value| Step::Write(record(&topic, 0, value));
    clients::transact(bootstrap, &topic, [write("aborted"), Step::Abort, write("committed"), Step::Commit]);
    let kcat = |isolation: &str| {
        let isolation = format!("isolation.level={isolation}");
        let output = Command::new("kcat")
            .args(["-b", bootstrap, "-C", "-q", "-e", "-t", &topic, "-f", "%s\n", "-X", &isolation])
            .output()
            .expect("this test needs kcat (Debian: apt-get install kcat)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(kcat("read_committed"), "committed\n");
    assert_eq!(kcat("read_uncommitted"), "aborted\ncommitted\n");
}
