//! Recovery of a task with a million keys, and what state costs to write.
//!
//! Prints the time from start to the first new epoch, split into restored state and epochs run again, and the bytes
//! written for state per second beside what a changelog written at every commit would have taken, in one run over the
//! same records. Run with `cargo bench -p tidewire-tests --bench recovery [-- KEYS]`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench talks and may stop"
)]

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator, OperatorType, Whole, persist};
use tidewire_engine::driver::{StageBuilder, create_topics};
use tidewire_engine::log::{Log, NewRecord, TopicPartition};
use tidewire_engine::plan::{Role, StageSpec};
use tidewire_engine::worker::{Worker, WorkerOptions};
use tidewire_runtime::embedded::{Durability, EmbeddedLog, EmbeddedOptions};
use tidewire_schemas::{EventTime, FeatureValue, Kind, SchemaBook, Trade};

/// Records a simulated second, once all keys are there.
const RATE: i64 = 20_000;
/// Simulated seconds of load after the keys are there.
const SECONDS: i64 = 65;
/// Simulated milliseconds between two epochs.
const EPOCH_MS: i64 = 10;

persist! {
    /// About what a pair of indicators keeps a key.
    #[derive(Default)]
    struct Average {
        count: u64,
        fast: f64,
        slow: f64,
        last_ms: i64,
    }
}

/// Two moving averages a key.
struct Averages;

#[derive(Deserialize)]
struct NoSettings {}

impl Configured for Averages {
    const NAME: &'static str = "averages";
    const ABOUT: &'static str = "Averages.";
    type Settings = NoSettings;
    fn new(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Operator for Averages {
    type State = Whole<Average>;
    type Shared = ();
    fn interface(&self) -> Interface {
        Interface { accepts: vec![Kind::Trade], emits: vec![Kind::FeatureValue], ..Interface::default() }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Whole<Average>,
        (): &(),
    ) -> Result<(), Fault> {
        let Some(trade) = input.record.as_trade() else { return Ok(()) };
        let price = trade.price.to_f64();
        state.count += 1;
        state.fast += (price - state.fast) * 0.1;
        state.slow += (price - state.slow) * 0.01;
        state.last_ms = trade.event_time.as_ms();
        if state.count.is_multiple_of(64) {
            let value = state.fast - state.slow;
            let (instrument, event_time) = (trade.instrument.clone(), trade.event_time);
            cx.emit(FeatureValue { instrument, event_time, name: "spread".into(), value });
        }
        Ok(())
    }
}

fn stage(flush_interval_ms: i64) -> StageSpec {
    StageBuilder::new("averages")
        .input("market.ticks.v1", Role::Driving, 1)
        .node("averages", OperatorType::of::<Averages>(), "", &["market.ticks.v1"])
        .output("features.values.v1", 1, &["averages"], &["instrument"])
        .with(|spec| {
            spec.flush_interval_ms = flush_interval_ms;
            spec.caps.max_records = 100_000;
            spec.caps.max_bytes = 64 << 20;
            spec.caps.prefetch_bytes = 32 << 20;
        })
        .build()
}

struct Load {
    book: Arc<SchemaBook>,
    seed: u64,
    count: i64,
}

impl Load {
    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn trades(&mut self, count: i64, keys: impl Fn(&mut Self, i64) -> u64, time_ms: i64) -> Vec<NewRecord> {
        (0..count)
            .map(|i| {
                let key = format!("S{:07}.X", keys(self, i));
                self.count += 1;
                let trade = Trade {
                    instrument: key.as_str().into(),
                    event_time: EventTime::from_ms(time_ms),
                    trade_id: self.count,
                    price: "61800.3".parse().unwrap(),
                    quantity: "0.01".parse().unwrap(),
                    market: true,
                    ..Trade::default()
                };
                let mut value = Vec::with_capacity(96);
                self.book.encode(&trade.into(), &mut value).unwrap();
                let key = Some(key.into_bytes().into());
                NewRecord { timestamp_ms: time_ms, key, value: Some(value.into()), headers: Vec::new() }
            })
            .collect()
    }
}

struct Outcome {
    state_bytes: u64,
    log: Arc<dyn Log>,
    spec: Arc<StageSpec>,
    now_ms: i64,
    _folder: tempfile::TempDir,
}

/// Fills a task with `keys` keys, then loads it for some simulated time; the worker is then dropped as if killed.
fn run(keys: u64, flush_interval_ms: i64, book: &Arc<SchemaBook>) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { durability: Durability::Buffered, ..EmbeddedOptions::default() };
    let log: Arc<dyn Log> = EmbeddedLog::open(folder.path(), options).unwrap();
    let spec = Arc::new(stage(flush_interval_ms));
    create_topics(&*log, &spec, 3_600_000).unwrap();
    let at = TopicPartition::new("market.ticks.v1", 0);
    let mut load = Load { book: Arc::clone(book), seed: 11, count: 0 };
    let options = WorkerOptions { member: "bench-1".into(), ..WorkerOptions::default() };
    let mut worker = Worker::new(Arc::clone(&log), Arc::clone(&spec), Arc::clone(book), options).unwrap();
    let mut now_ms = 1_000_000_i64;
    let drain = |worker: &mut Worker, now_ms: i64| {
        let mut bytes = 0;
        loop {
            let step = worker.step(now_ms).unwrap();
            bytes += step.state_bytes;
            assert!(step.halted.is_empty(), "{:?}", step.halted);
            if !step.worked {
                return bytes;
            }
        }
    };
    let mut made = 0_u64;
    while made < keys {
        let chunk = 50_000.min(keys - made);
        let records = load.trades(chunk.cast_signed(), |_, i| made + i.cast_unsigned(), now_ms);
        log.append(&at, records).unwrap();
        made += chunk;
        now_ms += 1_000;
        drain(&mut worker, now_ms);
    }
    // Everything is in the changelog before the measured stretch.
    now_ms += flush_interval_ms.max(1_000);
    log.append(&at, load.trades(1, |_, _| 0, now_ms)).unwrap();
    drain(&mut worker, now_ms);
    let mut state_bytes = 0;
    for _ in 0..SECONDS * 1_000 / EPOCH_MS {
        now_ms += EPOCH_MS;
        // A tenth of the keys make nine tenths of the records.
        let hot = |load: &mut Load, _: i64| {
            let all = keys.max(10);
            if load.random(10) == 0 { load.random(all) } else { load.random(all / 10) / 100 }
        };
        log.append(&at, load.trades(RATE * EPOCH_MS / 1_000, hot, now_ms)).unwrap();
        state_bytes += drain(&mut worker, now_ms);
    }
    drop(worker);
    Outcome { state_bytes, log, spec, now_ms, _folder: folder }
}

fn main() {
    // `cargo bench` passes flags of its own.
    let keys = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000_u64);
    let book = Arc::new(SchemaBook::of_this_build());
    let outcome = run(keys, 10_000, &book);
    let started = Instant::now();
    let options = WorkerOptions { member: "bench-2".into(), ..WorkerOptions::default() };
    let mut worker =
        Worker::new(Arc::clone(&outcome.log), Arc::clone(&outcome.spec), Arc::clone(&book), options).unwrap();
    let mut restored_ms = None;
    let report = loop {
        let step = worker.step(outcome.now_ms + 1).unwrap();
        assert!(step.halted.is_empty(), "{:?}", step.halted);
        if let Some((_, report)) = step.recovered.first() {
            break *report;
        }
        if restored_ms.is_none() && worker.reruns() {
            restored_ms = Some(started.elapsed().as_millis());
        }
    };
    let total_ms = started.elapsed().as_millis();
    let held: usize =
        worker.tasks().flat_map(|task| task.view().operators).map(|operator| operator.size.keys).sum();
    println!("keys held                     {held}");
    println!("changelog records read        {}", report.changelog_records);
    println!("state restored after          {} ms", restored_ms.unwrap_or(total_ms));
    println!("epochs run again              {} (killed up to 10 s after the last flush)", report.epochs);
    println!("caught up after               {total_ms} ms");
    let per_flush = outcome.state_bytes / SECONDS.unsigned_abs();
    drop(worker);
    drop(outcome);
    let every = run(keys.min(100_000), 0, &book).state_bytes / SECONDS.unsigned_abs();
    let same = run(keys.min(100_000), 10_000, &book).state_bytes / SECONDS.unsigned_abs();
    println!("state written, flush each 10 s {per_flush} bytes per second at {RATE} records/s, {keys} keys");
    println!("at {} keys: each 10 s {same} bytes per second, at every commit {every}", keys.min(100_000));
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = every as f64 / same.max(1) as f64;
    println!("a changelog at every commit writes {ratio:.1} times as much");
}
