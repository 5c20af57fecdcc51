//! `scripts/kafka` gives a cluster that can be broken and mended: what tests of outages rest on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use tidewire_tests::clients::{self, Isolation, NewRecord};
use tidewire_tests::cluster::Cluster;

const TOPIC: &str = "kept";

fn record(value: &str) -> NewRecord {
    NewRecord { topic: TOPIC.to_owned(), value: Some(value.as_bytes().to_vec()), ..NewRecord::default() }
}

fn read(cluster: &Cluster) -> Vec<String> {
    let seen = clients::read(cluster.bootstrap(), &[TOPIC], Isolation::Settled);
    seen.into_iter().map(|seen| String::from_utf8(seen.value.unwrap()).unwrap()).collect()
}

#[test]
fn a_node_that_was_killed_comes_back_with_its_records() {
    let cluster = Cluster::of_nodes(1);
    clients::create_topics(cluster.bootstrap(), &[(TOPIC, 1)]);
    clients::write(cluster.bootstrap(), [record("before")]);
    cluster.kill(1);
    cluster.start_node(1);
    clients::write(cluster.bootstrap(), [record("between")]);
    cluster.stop_node(1);
    cluster.start_node(1);
    assert_eq!(read(&cluster), ["before", "between"]);
}

#[test]
fn three_nodes_lose_one_and_go_on() {
    let cluster = Cluster::of_nodes(3);
    clients::create_topics(cluster.bootstrap(), &[(TOPIC, 1)]);
    clients::write(cluster.bootstrap(), [record("by three")]);
    for lost in 1..=3 {
        cluster.kill(lost);
        clients::write(cluster.bootstrap(), [record(&format!("without {lost}"))]);
        cluster.start_node(lost);
    }
    assert_eq!(read(&cluster), ["by three", "without 1", "without 2", "without 3"]);
}

#[test]
fn a_secure_cluster_asks_who_comes() {
    let cluster = Cluster::secure();
    for name in ["KAFKA_SSL", "KAFKA_MTLS", "KAFKA_SASL_PLAINTEXT", "KAFKA_SASL_SSL"] {
        let error = clients::try_read(cluster.variable(name), &[TOPIC], Isolation::Committed).unwrap_err();
        assert!(!error.contains("there is no topic"), "{name} lets everybody in: {error}");
    }
    let error = clients::try_read(cluster.bootstrap(), &[TOPIC], Isolation::Committed).unwrap_err();
    assert!(error.contains("there is no topic"), "{error}");
}
