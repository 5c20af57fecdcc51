//! What the embedded log costs, beside ceilings of the same run: copying the same bytes in memory, and the store alone
//! writing the same values. Medians of several runs; the ratios count, not the figures of one machine.
//!
//! Run with `cargo bench -p tidewire-runtime --bench embedded_log`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench stops at the first error"
)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire_engine::log::{CommittedOffset, Log, Member, NewRecord, TopicPartition, TopicSpec, Transaction};
use tidewire_runtime::embedded::{Durability, EmbeddedLog, EmbeddedOptions};

const RUNS: usize = 7;
const PARTITIONS: u32 = 8;
/// Records of 150 bytes that make about 19 kB a partition.
const RECORDS: usize = 128;
const EPOCHS: usize = 200;
const SMALL_EPOCHS: usize = 2000;

fn main() {
    let transaction = epoch(RECORDS);
    let records = PARTITIONS as usize * RECORDS;
    let bytes: usize = transaction.appends.iter().flat_map(|(_, records)| records).map(NewRecord::size).sum();
    println!("an epoch of {records} records, {} bytes each, over {PARTITIONS} partitions\n", bytes / records);

    let copy = median(|| copy_once(bytes) / u32::try_from(EPOCHS).unwrap());
    report("copy the bytes in memory", records, copy, copy);
    for durability in [Durability::Buffered, Durability::Fsync] {
        let raw = median(|| raw_store(durability, bytes));
        report(&format!("the store alone, {durability:?}"), records, raw, copy);
        let commit = median(|| commit(durability, &transaction, EPOCHS));
        report(&format!("commit, {durability:?}"), records, commit, raw);
    }
    for durability in [Durability::Buffered, Durability::Fsync] {
        let small = median(|| commit(durability, &epoch(1), SMALL_EPOCHS));
        println!("commit of one record a partition and a position, {durability:?}: {:.1} us", micros(small));
    }
    println!();
    for (what, max_bytes, cache_bytes) in [
        ("fetch 1 MiB at a time, from the store", 1 << 20, 0),
        ("fetch 1 MiB at a time, from the cache", 1 << 20, 1 << 30),
        ("fetch 2 kB at a time, default cache", 2000, 32 << 20),
    ] {
        let one = median(|| fetch(&transaction, max_bytes, cache_bytes));
        report(what, records, one, copy);
    }
}

/// Time for an epoch's worth of records, records a second, and how many times the ceiling's time that is.
fn report(what: &str, records: usize, time: Duration, ceiling: Duration) {
    let rate = records as f64 / time.as_secs_f64() / 1e6;
    let ratio = time.as_secs_f64() / ceiling.as_secs_f64();
    println!("{what:<44} {:>9.1} us {rate:>8.2} M records/s {ratio:>8.1}x", micros(time));
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS).map(|_| run()).collect();
    times.sort();
    times[RUNS / 2]
}

/// Records that look like ticks: a key that repeats, numbers that move a little.
fn epoch(records: usize) -> Transaction {
    let record = |p: u32, n: usize| {
        let n = n as u64;
        let price = 6_000_000 + n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 5000;
        let mut value = Vec::with_capacity(80);
        value.extend_from_slice(&[0, 0, 0, 0, 7]);
        for part in [price, n * 31 % 977, 1_700_000_000_000 + n, n.wrapping_mul(0x2545_f491_4f6c_dd1d), n] {
            value.extend_from_slice(&part.to_le_bytes());
        }
        value.extend_from_slice(b"BINANCE_USDM trade buyer maker");
        NewRecord {
            timestamp_ms: 1_700_000_000_000 + n.cast_signed(),
            key: Some(Bytes::from(format!("SYM{p}USDT.BINANCE_USDM"))),
            value: Some(value.into()),
            headers: vec![("id".into(), Bytes::copy_from_slice(&[(n % 251) as u8; 20]))],
        }
    };
    let appends = (0..PARTITIONS).map(|p| (at(p), (0..records).map(|n| record(p, n)).collect())).collect();
    let position = CommittedOffset { offset: 1, metadata: "epoch 1".to_owned() };
    Transaction { generation: 1, appends, offsets: vec![(TopicPartition::new("in", 0), position)] }
}

fn at(partition: u32) -> TopicPartition {
    TopicPartition::new("out", partition)
}

fn open(dir: &Path, durability: Durability, cache_bytes: usize) -> (Arc<EmbeddedLog>, Box<dyn Member>) {
    let options = EmbeddedOptions { durability, cache_bytes, ..EmbeddedOptions::default() };
    let log = EmbeddedLog::open(dir, options).unwrap();
    log.create_topic(&TopicSpec::new("in", 1)).unwrap();
    log.create_topic(&TopicSpec::new("out", PARTITIONS)).unwrap();
    let member = log.join("g", "m", "in").unwrap();
    (log, member)
}

fn copy_once(bytes: usize) -> Duration {
    let from = vec![1_u8; bytes];
    let start = Instant::now();
    for _ in 0..EPOCHS {
        black_box(black_box(&from).clone());
    }
    start.elapsed()
}

/// The same bytes as one value a partition, in one batch, with nothing above the store.
fn raw_store(durability: Durability, bytes: usize) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let database = fjall::Database::builder(dir.path())
        .journal_compression(fjall::CompressionType::None)
        .worker_threads(2)
        .open()
        .unwrap();
    let options = || {
        fjall::KeyspaceCreateOptions::default()
            .with_kv_separation(Some(fjall::KvSeparationOptions::default()))
    };
    let keyspace = database.keyspace("raw", options).unwrap();
    let mode = match durability {
        Durability::Fsync => fjall::PersistMode::SyncData,
        Durability::Buffered => fjall::PersistMode::Buffer,
    };
    let value = vec![1_u8; bytes / PARTITIONS as usize];
    time_each(EPOCHS, |n| {
        let mut batch = database.batch().durability(Some(mode));
        for p in 0..PARTITIONS {
            let key = [p.to_be_bytes().as_slice(), &n.to_be_bytes()].concat();
            batch.insert(&keyspace, key, value.clone());
        }
        batch.commit().unwrap();
    })
}

fn commit(durability: Durability, transaction: &Transaction, epochs: usize) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let (_log, mut member) = open(dir.path(), durability, 32 << 20);
    let mut epochs_ready: Vec<Transaction> = vec![transaction.clone(); epochs];
    time_each(epochs, |_| member.commit(epochs_ready.pop().unwrap()).unwrap())
}

/// The median of single times, so that a flush in the background does not decide.
fn time_each(times: usize, mut run: impl FnMut(usize)) -> Duration {
    let mut each: Vec<Duration> = (0..times)
        .map(|n| {
            let start = Instant::now();
            run(n);
            start.elapsed()
        })
        .collect();
    each.sort();
    each[times / 2]
}

/// Reads all partitions from end to end, twice; the time of the second reading for as many records as an epoch has.
fn fetch(transaction: &Transaction, max_bytes: usize, cache_bytes: usize) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut member) = open(dir.path(), Durability::Buffered, cache_bytes);
    for _ in 0..EPOCHS {
        member.commit(transaction.clone()).unwrap();
    }
    let read_all = || {
        let mut count = 0;
        for p in 0..PARTITIONS {
            let mut from = 0;
            loop {
                let fetched = log.fetch(&at(p), from, max_bytes).unwrap();
                count += black_box(&fetched.records).len();
                from = fetched.next_offset;
                if fetched.at_end {
                    break;
                }
            }
        }
        assert_eq!(count, EPOCHS * PARTITIONS as usize * RECORDS);
    };
    read_all();
    let start = Instant::now();
    read_all();
    start.elapsed() / u32::try_from(EPOCHS).unwrap()
}
