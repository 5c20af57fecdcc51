//! What came out of a run, and what must be true of it however often the run was disturbed.

use std::collections::{BTreeMap, BTreeSet};

use tidewire_engine::identity::{CAUSE_HEADER, ID_HEADER, Identity};
use tidewire_engine::log::{Log, StoredRecord, TopicPartition};
use tidewire_schemas::{Record, SchemaBook, topics};

use crate::clients::Seen;

/// Bytes in front of the body: a zero and the schema's id.
const PREFIX: usize = 5;

/// A record that a task wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where it lies.
    pub at: TopicPartition,
    /// Its key.
    pub key: String,
    /// The whole value.
    pub value: Vec<u8>,
    /// Who made it.
    pub id: Identity,
    /// What caused it.
    pub cause: String,
}

impl Output {
    /// What must be the same in every run: key, bytes after the schema's id, identity, cause.
    pub fn content(&self) -> (&str, &[u8], &Identity, &str) {
        (&self.key, &self.value[PREFIX..], &self.id, &self.cause)
    }
}

/// All that came out of a run, each partition in its order.
#[derive(Debug, Clone, Default)]
pub struct Outputs(Vec<Output>);

impl Outputs {
    /// Those among what a client saw that have an identity.
    pub fn seen(records: &[Seen]) -> Self {
        let output = |seen: &Seen| {
            Some(Output {
                at: TopicPartition::new(&seen.topic, seen.partition),
                key: text(seen.key.as_deref().unwrap_or_default()),
                value: seen.value.clone().unwrap_or_default(),
                id: seen.header(ID_HEADER)?.parse().unwrap(),
                cause: seen.header(CAUSE_HEADER).unwrap(),
            })
        };
        Self(records.iter().filter_map(output).collect())
    }

    /// Those of a log.
    pub fn of_log(log: &dyn Log) -> Self {
        let mut all = Vec::new();
        for topic in log.topics().unwrap() {
            for at in partitions(log, &topic.name) {
                for StoredRecord { record, .. } in read(log, &at) {
                    let Some(id) = Identity::of(&record) else { continue };
                    all.push(Output {
                        at: at.clone(),
                        key: text(record.key.as_deref().unwrap_or_default()),
                        value: record.value.as_deref().unwrap_or_default().to_vec(),
                        id,
                        cause: text(record.header(CAUSE_HEADER).unwrap()),
                    });
                }
            }
        }
        Self(all)
    }

    /// All of them.
    pub fn all(&self) -> &[Output] {
        &self.0
    }

    /// Each task counts what it writes: nothing may be missing or there twice. Returns how many there are.
    /// Compaction waits for `replay_retention`, so it has taken nothing either.
    pub fn check_identities(&self) -> usize {
        let mut by_task: BTreeMap<(&str, u32), Vec<u64>> = BTreeMap::new();
        for output in &self.0 {
            by_task.entry((&output.id.stage, output.id.task)).or_default().push(output.id.sequence);
        }
        for (task, sequences) in &mut by_task {
            sequences.sort_unstable();
            for (expected, found) in (1..).zip(sequences.iter()) {
                assert_eq!(*found, expected, "{task:?}: an identity is lost or doubled");
            }
        }
        self.0.len()
    }

    /// No order and no execution is there twice, and positions are the sums of the fills. Returns how many orders and
    /// fills there are.
    pub fn check_books(&self, book: &SchemaBook) -> (usize, usize) {
        let (mut orders, mut executions) = (BTreeSet::new(), BTreeSet::new());
        let mut held: BTreeMap<(String, String), i128> = BTreeMap::new();
        let mut positions = BTreeMap::new();
        let mut fills = 0;
        for output in &self.0 {
            match book.decode(&output.value).unwrap() {
                Record::NewOrder(order) if output.at.topic == topics::VENUE_COMMANDS => {
                    assert!(orders.insert(order.order_id.clone()), "order {} is there twice", order.order_id);
                }
                Record::ExecutionReport(report) => {
                    let id = report.execution_id.clone();
                    assert!(executions.insert(id), "execution {} is there twice", report.execution_id);
                    if report.exec_type.to_string() == "TRADE" {
                        fills += 1;
                        let signed = if report.side.to_string() == "BUY" { 1 } else { -1 };
                        let key = (report.account.to_string(), report.instrument.to_string());
                        *held.entry(key).or_default() += signed * report.last_quantity.units();
                    }
                }
                Record::Position(position) => {
                    let key = (position.account.to_string(), position.instrument.to_string());
                    positions.insert(key, position.quantity.units());
                }
                _ => {}
            }
        }
        assert_eq!(positions, held, "positions are the sums of the executions");
        (orders.len(), fills)
    }

    /// A stage's outputs in two runs are equal record by record, compared by writer and partition; one run may have
    /// gone on longer in silence. Returns how many were compared.
    pub fn check_equal(&self, expected: &Self, stage: &str) -> usize {
        let (found, expected) = (self.by_writer(stage), expected.by_writer(stage));
        let keys: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
        let mut compared = 0;
        for key in keys {
            let (none, nothing) = (Vec::new(), Vec::new());
            let (found, expected) = (found.get(key).unwrap_or(&none), expected.get(key).unwrap_or(&nothing));
            for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert_eq!(found.content(), expected.content(), "{key:?}: output {place}");
                compared += 1;
            }
            let shorter = found.len().min(expected.len());
            for Output { id, cause, .. } in found[shorter..].iter().chain(&expected[shorter..]) {
                assert!(cause.starts_with("timer:"), "{key:?}: {id}, caused by {cause}, is in one run only");
            }
        }
        compared
    }

    fn by_writer(&self, stage: &str) -> BTreeMap<(u32, &TopicPartition), Vec<&Output>> {
        let mut all: BTreeMap<_, Vec<&Output>> = BTreeMap::new();
        for output in self.0.iter().filter(|output| output.id.stage == stage) {
            all.entry((output.id.task, &output.at)).or_default().push(output);
        }
        all
    }
}

/// The partitions of a topic.
pub fn partitions(log: &dyn Log, topic: &str) -> Vec<TopicPartition> {
    let count = log.topic(topic).unwrap().map_or(0, |topic| topic.partitions);
    (0..count).map(|partition| TopicPartition::new(topic, partition)).collect()
}

/// All records of a partition.
pub fn read(log: &dyn Log, at: &TopicPartition) -> Vec<StoredRecord> {
    let (mut from, mut all) = (log.bounds(at).unwrap().start, Vec::new());
    loop {
        let fetched = log.read(at, from, 1 << 20).unwrap();
        all.extend(fetched.records);
        if fetched.at_end {
            return all;
        }
        from = fetched.next_offset;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
