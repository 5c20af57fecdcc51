//! What a record costs in stage A on the embedded log, and where the time goes: one worker, in one run.
//!
//! `cargo bench -p tidewire --bench stage_a`. Figures are medians of several rounds over the shipped sample, read from a
//! durable log. Decode alone, and the stage without operators, are measured beside the whole stage, so that shares are
//! of one machine at one time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench talks and may stop"
)]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidewire::files::load_text;
use tidewire_engine::log::{
    Assignment, Bounds, CommitError, CommittedOffset, Fetched, Log, LogError, Member, NewRecord,
    TopicPartition, TopicSpec, Transaction,
};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::worker::{Worker, WorkerOptions};
use tidewire_runtime::embedded::{Durability, EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::registry::open_book;

/// Rounds of which medians are taken.
const ROUNDS: usize = 5;

/// Time spent in the log, in nanoseconds.
#[derive(Default)]
struct Spent {
    read: AtomicU64,
    commit: AtomicU64,
}

/// A log that counts the time its callers spend in it.
struct Timed {
    inner: Arc<dyn Log>,
    spent: Arc<Spent>,
}

struct TimedMember {
    inner: Box<dyn Member>,
    spent: Arc<Spent>,
}

fn timed<T>(counter: &AtomicU64, call: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = call();
    counter.fetch_add(u64::try_from(started.elapsed().as_nanos()).unwrap(), Ordering::Relaxed);
    result
}

impl Log for Timed {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.inner.create_topic(spec)
    }
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        self.inner.topics()
    }
    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        self.inner.topic(name)
    }
    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        timed(&self.spent.read, || self.inner.fetch(at, from, max_bytes))
    }
    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        timed(&self.spent.read, || self.inner.bounds(at))
    }
    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        self.inner.committed(group, at)
    }
    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        self.inner.append(at, records)
    }
    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError> {
        let inner = self.inner.join(group, member, driving)?;
        Ok(Box::new(TimedMember { inner, spent: Arc::clone(&self.spent) }))
    }
    fn wait(&self, timeout: Duration) {
        self.inner.wait(timeout);
    }
}

impl Member for TimedMember {
    fn poll(&mut self) -> Result<Assignment, LogError> {
        self.inner.poll()
    }
    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        timed(&self.spent.commit, || self.inner.commit(transaction))
    }
    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError> {
        self.inner.release(tasks)
    }
    fn leave(self: Box<Self>) -> Result<(), LogError> {
        self.inner.leave()
    }
}

/// Nanoseconds a record.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    total: f64,
    read: f64,
    commit: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs the stage over all that is in the log, under a group of its own.
fn run(log: &Arc<dyn Log>, spec: &StageSpec, round: usize) -> (u64, Round) {
    let mut spec = spec.clone();
    // A pipeline name of its own gives each round its own group, journal and changelog.
    spec.pipeline = format!("bench-{round}-{}", spec.nodes.len()).into();
    tidewire_engine::driver::create_topics(&**log, &spec, 3_600_000).unwrap();
    let book = Arc::new(open_book(&**log).unwrap());
    let spent = Arc::new(Spent::default());
    let timed: Arc<dyn Log> = Arc::new(Timed { inner: Arc::clone(log), spent: Arc::clone(&spent) });
    let options = WorkerOptions { member: "bench".into(), ..WorkerOptions::default() };
    let mut worker = Worker::new(timed, Arc::new(spec), book, options).unwrap();
    let (mut records, started) = (0, Instant::now());
    let mut idle = 0;
    // The clock stands still, so that silence adds nothing.
    while idle < 3 {
        let step = worker.step(1_000).unwrap();
        assert!(step.halted.is_empty() && step.faults.is_empty(), "{step:?}");
        records += step.records;
        idle = if step.worked { 0 } else { idle + 1 };
    }
    let each = |nanos: u64| nanos as f64 / records as f64;
    let total = each(u64::try_from(started.elapsed().as_nanos()).unwrap());
    let read = each(spent.read.load(Ordering::Relaxed));
    (records, Round { total, read, commit: each(spent.commit.load(Ordering::Relaxed)) })
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("log");
    let captures = ["usdm_btcusdt", "usdm_ethusdt", "spot_btcusdt", "cm_btcusd_perp"];
    let captures = captures.map(|name| root.join(format!("samples/binance/{name}_20240808.gz")));
    let imported = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .arg("--data")
        .arg(&data)
        .arg("import")
        .args(&captures)
        .output()
        .unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let text = std::fs::read_to_string(root.join("pipelines/market-intel.toml")).unwrap();
    let loaded = load_text("market-intel.toml".to_owned(), text, Vec::new()).unwrap();
    let stage = (*loaded.pipeline.stages[0]).clone();
    let mut bare = stage.clone();
    bare.nodes.clear();
    bare.outputs.clear();

    let options = EmbeddedOptions { durability: Durability::Buffered, ..EmbeddedOptions::default() };
    let log: Arc<dyn Log> = EmbeddedLog::open(&data, options).unwrap();
    let book = open_book(&*log).unwrap();
    let (mut whole, mut without, mut decode) = (Vec::new(), Vec::new(), Vec::new());
    let records = Mutex::new(0);
    for round in 0..ROUNDS {
        let (count, timing) = run(&log, &stage, round);
        *records.lock().unwrap() = count;
        whole.push(timing);
        without.push(run(&log, &bare, round).1);
        decode.push(decode_alone(&log, &book));
    }
    let of = |rounds: &[Round], part: fn(&Round) -> f64| median(rounds.iter().map(part).collect());
    let total = of(&whole, |round| round.total);
    let (read, commit) = (of(&whole, |round| round.read), of(&whole, |round| round.commit));
    let decode = median(decode);
    let bare_rest = of(&without, |round| round.total - round.read - round.commit);
    let engine = (bare_rest - decode).max(0.0);
    let operators = (total - read - commit - bare_rest).max(0.0);
    let records = *records.lock().unwrap();
    println!(
        "stage A of market-intel, {records} records, {} operators, one worker, median of {ROUNDS}",
        stage.nodes.len()
    );
    println!("  {:>10.0} records a second, {total:.0} ns a record", 1e9 / total);
    for (name, nanos) in [
        ("read from the log", read),
        ("decode", decode),
        ("engine (merge, time, digests)", engine),
        ("operators and their outputs", operators),
        ("commit", commit),
    ] {
        println!("  {name:<32} {nanos:>8.0} ns  {:>5.1} %", 100.0 * nanos / total);
    }
    let ticks = Duration::from_nanos((decode * records as f64) as u64);
    println!("  ratio to decode alone: {:.1} (decode of all records: {ticks:?})", total / decode);
}

/// Nanoseconds a record to decode every tick in memory.
fn decode_alone(log: &Arc<dyn Log>, book: &tidewire_schemas::SchemaBook) -> f64 {
    let mut values = Vec::new();
    let partitions = log.topic("market.ticks.v1").unwrap().unwrap().partitions;
    for partition in 0..partitions {
        let (at, mut from) = (TopicPartition::new("market.ticks.v1", partition), 0);
        loop {
            let fetched = log.fetch(&at, from, 4 << 20).unwrap();
            values.extend(fetched.records.into_iter().filter_map(|stored| stored.record.value));
            if fetched.at_end {
                break;
            }
            from = fetched.next_offset;
        }
    }
    let started = Instant::now();
    for value in &values {
        std::hint::black_box(book.decode(value).unwrap());
    }
    started.elapsed().as_nanos() as f64 / values.len() as f64
}
