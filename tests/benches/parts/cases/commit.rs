//! A transaction on the embedded log: an epoch's records, its journal entry and its position.

use bytes::Bytes;
use tidewire_engine::log::{CommittedOffset, Log, NewRecord, TopicPartition, TopicSpec, Transaction};
use tidewire_runtime::embedded::{Durability, EmbeddedLog, EmbeddedOptions};

use super::Case;
use super::market;
use super::stage::{self, Feed};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, durability) in [("buffered", Durability::Buffered), ("fsync", Durability::Fsync)] {
        cases.extend([1, 1_000].map(|records| case(name, durability, records)));
    }
    cases
}

fn case(name: &str, durability: Durability, records: usize) -> Case {
    Case::new(format!("commit/{name} {records}"), "record", records, move || {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions { durability, ..EmbeddedOptions::default() };
        let log = EmbeddedLog::open(folder.path(), options).unwrap();
        for topic in ["in", "out", "epochs"] {
            log.create_topic(&TopicSpec::new(topic, 1)).unwrap();
        }
        let mut member = log.join("parts", "parts-1", "in").unwrap();
        let generation = member.poll().unwrap().generation;
        let transaction = epoch(generation, records);
        let run = move |transaction: Transaction| {
            member.commit(transaction).unwrap();
            // Held as long as the log is in use.
            let _ = (&log, &folder);
        };
        (move || transaction.clone(), run)
    })
}

fn epoch(generation: u32, records: usize) -> Transaction {
    let mut feed = Feed::new(&stage::stage(1).build(), market::trades(market::SYMBOLS, 2_000));
    let fetched = feed.fetch(records).remove(0);
    let header = ("tw-id".into(), Bytes::from_static(&[7; 24]));
    let out: Vec<NewRecord> = fetched
        .records
        .into_iter()
        .map(|stored| NewRecord { headers: vec![header.clone()], ..stored.record })
        .collect();
    // About as long as the record of an epoch is.
    let entry = NewRecord { value: Some(vec![1; 250].into()), ..out[0].clone() };
    let position = CommittedOffset { offset: 1, metadata: "epoch 1".to_owned() };
    Transaction {
        generation,
        appends: vec![(TopicPartition::new("out", 0), out), (TopicPartition::new("epochs", 0), vec![entry])],
        offsets: vec![(TopicPartition::new("in", 0), position)],
    }
}
