//! Records that can not be decoded, and records that operators panic at, among others at full rate on a real Apache
//! Kafka: each is dead-lettered with its origin, everything else comes out as if it had not been there.
//!
//! The rates are told, not judged: machines differ.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../../pipelines/engine/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire_engine::driver::create_topics;
use tidewire_engine::log::{Log, NewRecord, TopicPartition, TopicSpec};
use tidewire_engine::plan::StageSpec;
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_runtime::live::{self, LiveEvent, LiveOptions};
use tidewire_runtime::registry::open_book;
use tidewire_schemas::{DeadLetter, Record, SchemaBook, topics};
use tidewire_tests::clients::{self, Isolation};
use tidewire_tests::cluster::Cluster;
use tidewire_tests::instrument_in;

const PARTITIONS: u32 = 4;
/// Trades of each partition.
const TRADES: i64 = 20_000;
/// Every so many trades of a partition one record is no Avro.
const GARBAGE_EVERY: i64 = 100;
/// The first trade. A time of 0 would be taken for none by the client, and be set to that of the sending.
const START_MS: i64 = 1_723_161_600_000;
/// The trade that an operator panics at.
const DEVIL: i64 = 666;
const PATIENCE: Duration = Duration::from_secs(300);

/// One run over topics of its own.
struct Run {
    log: Arc<KafkaLog>,
    book: Arc<SchemaBook>,
    spec: Arc<StageSpec>,
}

/// What a run came to.
struct Done {
    /// Sums of windows by key and window, and how often each came.
    sums: BTreeMap<(String, String), usize>,
    letters: Vec<DeadLetter>,
    records_per_s: f64,
    /// For each task with a fault: how long it committed nothing.
    pauses: Vec<Duration>,
}

impl Run {
    fn new(cluster: &Cluster, name: &str) -> Self {
        let log = Arc::new(KafkaLog::connect(KafkaOptions::new(cluster.bootstrap())).unwrap());
        let book = Arc::new(open_book(&*log).unwrap());
        let spec = common::stage(PARTITIONS, |spec| {
            spec.pipeline = name.into();
            for input in &mut spec.inputs {
                input.topic = format!("{name}.{}", input.topic).into();
            }
            for output in &mut spec.outputs {
                output.topic = format!("{name}.{}", output.topic).into();
            }
        });
        for side in [topics::LATE, topics::DEAD_LETTERS] {
            if log.topic(side).unwrap().is_none() {
                log.create_topic(&TopicSpec::new(side, 1)).unwrap();
            }
        }
        create_topics(&*log, &spec, 86_400_000).unwrap();
        Self { log, book, spec: Arc::new(spec) }
    }

    /// Writes the whole backlog. Garbage lies between good records; the devil's trade is one of partition 0.
    fn write(&self, garbage: bool, devil: bool) -> Vec<(u32, u64)> {
        let mut bad = Vec::new();
        for partition in 0..PARTITIONS {
            let at = TopicPartition::new(self.spec.inputs[0].topic.clone(), partition);
            let key = key_of(partition);
            let mut records = Vec::new();
            for number in 0..TRADES {
                let time_ms = START_MS + number * 10;
                let id = if devil && partition == 0 && number == TRADES / 2 { DEVIL } else { 1_000 + number };
                if id == DEVIL || (garbage && number % GARBAGE_EVERY == 7) {
                    bad.push((partition, records.len() as u64));
                }
                if garbage && number % GARBAGE_EVERY == 7 {
                    records.push(record(&key, time_ms, Bytes::from_static(b"\x07no Avro")));
                }
                let trade = common::trade(&key, id, time_ms, "1");
                let mut value = Vec::new();
                self.book.encode(&Record::from(trade), &mut value).unwrap();
                records.push(record(&key, time_ms, value.into()));
            }
            for chunk in records.chunks(5_000) {
                self.log.append(&at, chunk.to_vec()).unwrap();
            }
        }
        bad
    }

    fn run(&self, cluster: &Cluster) -> Done {
        let stop = Arc::new(AtomicBool::new(false));
        let log: Arc<dyn Log> = Arc::clone(&self.log) as Arc<dyn Log>;
        let watcher = std::thread::spawn({
            let (log, spec, stop) = (Arc::clone(&log), Arc::clone(&self.spec), Arc::clone(&stop));
            move || {
                let begun = Instant::now();
                while begun.elapsed() < PATIENCE && !is_done(&*log, &spec) {
                    std::thread::sleep(Duration::from_millis(100));
                }
                stop.store(true, Ordering::SeqCst);
            }
        });
        let (mut first, mut last, mut faulted) = (None, Instant::now(), BTreeMap::new());
        let mut pauses = Vec::new();
        let options = LiveOptions::default();
        let summary =
            live::run(&log, &self.book, &[Arc::clone(&self.spec)], &options, &stop, |event| match event {
                LiveEvent::Worked { step, .. } if step.records > 0 => {
                    first.get_or_insert_with(Instant::now);
                    last = Instant::now();
                }
                LiveEvent::Fault { .. } => {
                    faulted.insert(0_u32, Instant::now());
                }
                LiveEvent::Recovered { task, .. } => {
                    pauses.extend(faulted.remove(&task).map(|at| at.elapsed()));
                }
                _ => {}
            })
            .unwrap();
        watcher.join().unwrap();
        assert!(is_done(&*log, &self.spec), "not done in {PATIENCE:?}");
        assert_eq!(summary.halted, []);
        let took = last.duration_since(first.unwrap()).as_secs_f64();
        let outputs = self.spec.outputs[0].topic.to_string();
        let mut sums = BTreeMap::new();
        for seen in clients::read(cluster.bootstrap(), &[&outputs], Isolation::Settled) {
            let Record::FeatureValue(value) = self.book.decode(&seen.value.unwrap()).unwrap() else {
                continue;
            };
            // The last windows close when all is silent, which no run here waits for.
            if value.name == "sum" && value.event_time.as_ms() < START_MS + TRADES * 10 - 10_000 {
                let what = format!("{} {} of partition {}", value.event_time, value.value, seen.partition);
                *sums.entry((value.instrument.to_string(), what)).or_default() += 1;
            }
        }
        let letters = clients::read(cluster.bootstrap(), &[topics::DEAD_LETTERS], Isolation::Settled)
            .into_iter()
            .filter_map(|seen| match self.book.decode(&seen.value.unwrap()).unwrap() {
                Record::DeadLetter(letter) if letter.source_topic == self.spec.inputs[0].topic => {
                    Some(*letter)
                }
                _ => None,
            })
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let records_per_s = summary.records as f64 / took;
        Done { sums, letters, records_per_s, pauses }
    }
}

fn record(key: &str, timestamp_ms: i64, value: Bytes) -> NewRecord {
    NewRecord {
        timestamp_ms,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(value),
        headers: Vec::new(),
    }
}

/// A key that lies in that partition.
fn key_of(partition: u32) -> String {
    instrument_in(partition, PARTITIONS)
}

fn is_done(log: &dyn Log, spec: &StageSpec) -> bool {
    (0..PARTITIONS).all(|partition| {
        let at = TopicPartition::new(spec.inputs[0].topic.clone(), partition);
        let end = log.bounds(&at).unwrap().stable_end;
        log.committed_unstable(&spec.group(), &at).unwrap().is_some_and(|committed| committed.offset >= end)
    })
}

#[test]
fn bad_records_at_full_rate_cost_only_themselves() {
    let cluster = Cluster::of_nodes(1);
    let clean = Run::new(&cluster, "clean");
    clean.write(false, false);
    let clean = clean.run(&cluster);
    assert!(
        clean.sums.len() > 100 && clean.letters.is_empty(),
        "{} sums, {:?}",
        clean.sums.len(),
        clean.letters.first()
    );

    let garbage = Run::new(&cluster, "garbage");
    let bad = garbage.write(true, false);
    let garbage = garbage.run(&cluster);
    let mut found: Vec<(u32, u64)> = garbage.letters.iter().map(origin).collect();
    found.sort_unstable();
    assert_eq!(found, bad, "each in the dead letters once, with its origin");
    assert!(
        garbage.letters.iter().all(|letter| letter.reason == "undecodable"
            && letter.value.as_deref() == Some(b"\x07no Avro".as_slice()))
    );
    assert_eq!(garbage.sums, clean.sums);

    let devil = Run::new(&cluster, "devil");
    let bad = devil.write(false, true);
    let devil = devil.run(&cluster);
    assert_eq!(devil.letters.iter().map(origin).collect::<Vec<_>>(), bad);
    assert_eq!(devil.letters[0].reason, "panic");
    let of_task_0 = key_of(0);
    let others = |sums: &BTreeMap<(String, String), usize>| {
        let mut sums = sums.clone();
        sums.retain(|(key, _), _| *key != of_task_0);
        sums
    };
    assert_eq!(others(&devil.sums), others(&clean.sums), "the other tasks do not notice");
    println!(
        "{:.0} records/s clean, {:.0} with 1 % undecodable (ratio {:.2}), {:.0} with a panic; its task stood still for {:?}",
        clean.records_per_s,
        garbage.records_per_s,
        garbage.records_per_s / clean.records_per_s,
        devil.records_per_s,
        devil.pauses,
    );
    assert_eq!(devil.pauses.len(), 1);
}

fn origin(letter: &DeadLetter) -> (u32, u64) {
    (u32::try_from(letter.source_partition).unwrap(), u64::try_from(letter.source_offset).unwrap())
}
