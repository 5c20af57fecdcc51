//! The embedded log under kill -9: what was acknowledged is there, whole, and nothing is there by half.
//!
//! A child process commits numbered transactions and says each one that succeeded, while another of its threads
//! compacts, merges and deletes. It is killed at any moment; then the log is opened and compared with what the numbers
//! say it must hold. The same folder goes through all kills.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod logs;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use logs::{at, noise, position, read_from, record};
use tidewire_engine::log::{Log, NewRecord, TopicPartition, TopicSpec, Transaction};
use tidewire_runtime::embedded::{Durability, EmbeddedLog, EmbeddedOptions};

const FOLDER: &str = "TIDEWIRE_TEST_CRASH_FOLDER";
const FSYNC: &str = "TIDEWIRE_TEST_CRASH_FSYNC";
const KILLS: u64 = 30;
const OUTPUTS: u32 = 3;
const KEYS: u64 = 16;

/// What transaction `n` writes: from none to a few records to each output, now and then many or large ones; one key of
/// a compacted table; one record of a topic that keeps little.
fn appends(n: u64) -> Vec<(TopicPartition, Vec<NewRecord>)> {
    let mut appends: Vec<_> = (0..OUTPUTS).map(|p| (at("out", p), output(n, p))).collect();
    let value = if n.is_multiple_of(7) { None } else { Some(format!("{n}").into()) };
    let row = NewRecord { value, timestamp_ms: n.cast_signed(), ..record(&format!("{}", n % KEYS), "") };
    appends.push((at("table", 0), vec![row]));
    appends.push((at("short", 0), vec![record("k", &format!("{n}"))]));
    appends
}

fn output(n: u64, partition: u32) -> Vec<NewRecord> {
    let (count, size) = match n % 50 {
        0 => (300, 100),
        25 => (2, 300_000),
        _ => ((n * 3 + u64::from(partition)) % 4, 30),
    };
    let value = |m: u64| Some(noise(n * 1000 + m, size));
    (0..count).map(|m| NewRecord { value: value(m), ..record(&format!("{n}.{m}"), "") }).collect()
}

fn open(dir: &Path, durability: Durability) -> Arc<EmbeddedLog> {
    // A small buffer, so that files are written, merged and dropped all the time.
    let options = EmbeddedOptions { durability, write_buffer_bytes: 1 << 20, ..EmbeddedOptions::default() };
    EmbeddedLog::open(dir, options).unwrap()
}

/// Runs only as the child of the test below.
#[test]
fn child() {
    let Ok(dir) = std::env::var(FOLDER) else { return };
    let durability = if std::env::var(FSYNC).is_ok() { Durability::Fsync } else { Durability::Buffered };
    let log = open(Path::new(&dir), durability);
    log.create_topic(&TopicSpec::new("in", 1)).unwrap();
    log.create_topic(&TopicSpec::new("out", OUTPUTS)).unwrap();
    log.create_topic(&TopicSpec::new("table", 1).compacted(0)).unwrap();
    log.create_topic(&TopicSpec { retention_bytes: Some(2000), ..TopicSpec::new("short", 1) }).unwrap();
    let upkeep = Arc::clone(&log);
    std::thread::spawn(move || {
        loop {
            upkeep.compact_topic("table", u64::MAX).unwrap();
            upkeep.maintain(u64::MAX / 2, u64::MAX).unwrap();
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    let mut member = log.join("g", "m", "in").unwrap();
    let mut n = log.committed("g", &at("in", 0)).unwrap().map_or(0, |position| position.offset);
    loop {
        n += 1;
        let offsets = vec![(at("in", 0), position(n, &format!("epoch {n}")))];
        let generation = member.poll().unwrap().generation;
        member.commit(Transaction { generation, appends: appends(n), offsets }).unwrap();
        println!("acknowledged {n}");
    }
}

#[test]
fn what_was_acknowledged_survives_any_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    let mut checked = Checked::default();
    let mut random = 0x9e37_79b9_97f4_a7c1_u64;
    for kill in 0..KILLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Some are killed while they start.
        let (started, after_ms) =
            if kill % 6 == 5 { (false, random >> 60) } else { (true, (random >> 33) % 200) };
        acknowledged = run_and_kill(dir.path(), kill % 2 == 1, started, after_ms).unwrap_or(acknowledged);
        let log = open(dir.path(), Durability::Fsync);
        let committed = log.committed("g", &at("in", 0)).ok().flatten();
        let n = committed.as_ref().map_or(0, |position| position.offset);
        assert!(n >= acknowledged, "kill {kill}: {acknowledged} was acknowledged, the log ends at {n}");
        assert!(
            !started || n <= acknowledged + 1,
            "kill {kill}: {n} is there, {acknowledged} was the last one"
        );
        assert!(n == 0 || committed == Some(position(n, &format!("epoch {n}"))));
        acknowledged = n;
        checked.check(&*log, n);
        if kill % 10 == 9 {
            checked = Checked::default();
            checked.check(&*log, n);
        }
    }
    assert!(acknowledged > 500, "only {acknowledged} transactions were tried");
    println!("{acknowledged} transactions through {KILLS} kills");
}

/// Starts a child, kills it some time after its first word, or after its start; the last number it acknowledged.
fn run_and_kill(dir: &Path, fsync: bool, started: bool, after_ms: u64) -> Option<u64> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]).env(FOLDER, dir);
    if fsync {
        command.env(FSYNC, "1");
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let words = listen(&mut child);
    let mut last = None;
    if started {
        last = words.recv_timeout(Duration::from_secs(60)).ok();
        assert!(last.is_some(), "the child said nothing: {}", failure(&mut child));
    }
    std::thread::sleep(Duration::from_millis(after_ms));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "the child ended by itself: {}", failure(&mut child));
    words.into_iter().last().or(last)
}

fn failure(child: &mut Child) -> String {
    let _ = child.kill();
    let stderr = child.stderr.take().unwrap();
    BufReader::new(stderr).lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
}

/// The numbers that a child acknowledges, as it says them.
fn listen(child: &mut Child) -> Receiver<u64> {
    let stdout = child.stdout.take().unwrap();
    let (say, words) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            // A line that was cut has no end, and may show a part of the number: the text says so by its end.
            let Some((_, number)) = line.split_once("acknowledged ") else { continue };
            let _ = say.send(number.parse().unwrap());
        }
    });
    words
}

/// What is known to be right, so that not everything is read after every kill.
#[derive(Default)]
struct Checked {
    transactions: u64,
    next: [u64; OUTPUTS as usize],
}

impl Checked {
    /// Compares the log with what `n` transactions leave.
    fn check(&mut self, log: &dyn Log, n: u64) {
        if n == 0 {
            return;
        }
        for p in 0..OUTPUTS {
            let next = &mut self.next[p as usize];
            let stored = read_from(log, &at("out", p), *next, 1 << 20);
            let expected: Vec<NewRecord> = (self.transactions + 1..=n).flat_map(|n| output(n, p)).collect();
            assert_eq!(stored.len(), expected.len(), "records of out-{p} up to transaction {n}");
            for (stored, expected) in stored.iter().zip(&expected) {
                assert_eq!((stored.offset, &stored.record), (*next, expected));
                *next += 1;
            }
            assert_eq!(log.bounds(&at("out", p)).unwrap().stable_end, *next);
        }
        self.transactions = n;
        check_table(log, n);
        check_short(log, n);
    }
}

/// Whatever compaction did: the last word on each key is the right one, and offsets are transactions.
fn check_table(log: &dyn Log, n: u64) {
    let mut last = BTreeMap::new();
    for stored in read_from(log, &at("table", 0), 0, 1 << 20) {
        assert_eq!(stored.offset + 1, stored.record.timestamp_ms.cast_unsigned());
        last.insert(stored.record.key.unwrap(), stored.record.value);
    }
    last.retain(|_, value| value.is_some());
    let mut expected = BTreeMap::new();
    for n in n.saturating_sub(KEYS) + 1..=n {
        let (_, rows) = appends(n).swap_remove(OUTPUTS as usize);
        expected.insert(rows[0].key.clone().unwrap(), rows[0].value.clone());
    }
    expected.retain(|_, value| value.is_some());
    assert_eq!(last, expected, "the table after transaction {n}");
    assert_eq!(log.bounds(&at("table", 0)).unwrap().stable_end, n);
}

/// Whatever retention deleted: what is left is the end, without a gap.
fn check_short(log: &dyn Log, n: u64) {
    let bounds = log.bounds(&at("short", 0)).unwrap();
    assert_eq!(bounds.stable_end, n);
    let stored = read_from(log, &at("short", 0), bounds.start, 1 << 20);
    assert_eq!(stored.len() as u64, n - bounds.start);
    for (stored, offset) in stored.iter().zip(bounds.start..) {
        assert_eq!((stored.offset, &stored.record), (offset, &record("k", &format!("{}", offset + 1))));
    }
}
