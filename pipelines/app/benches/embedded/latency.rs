//! From received to ready for commit, at a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidewire_engine::log::{Log, TopicPartition, TopicSpec};
use tidewire_engine::memory::MemoryLog;
use tidewire_engine::worker::{Worker, WorkerOptions};
use tidewire_runtime::embedded::{Durability, EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::registry::open_book;
use tidewire_tests::results::{Better, Results};
use tidewire_tests::ticks::{Market, record};

use crate::timed::{Spent, Timed};
use crate::{bars, set_trades};

/// Between two looks at what is due.
const STEP: Duration = Duration::from_micros(200);

/// On a log in memory, which shows the engine alone, and on the embedded log, whose own threads write to the disk meanwhile.
pub fn print(results: &mut Results, market: Market, rate: u64, seconds: u64) {
    set_trades(results, market, rate * seconds);
    results.set("workload", "bars");
    results.set("rate", rate);
    results.set("seconds", seconds);
    print_on(results, "memory", Arc::new(MemoryLog::new()), market, rate, seconds);
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { durability: Durability::Buffered, ..EmbeddedOptions::default() };
    let log = EmbeddedLog::open(folder.path().join("log"), options).unwrap();
    print_on(results, "embedded", log, market, rate, seconds);
}

/// The load is an open loop in a thread of its own; it writes what has fallen due.
fn print_on(results: &mut Results, on: &str, log: Arc<dyn Log>, market: Market, rate: u64, seconds: u64) {
    log.create_topic(&TopicSpec::new("peer.ticks", market.partitions)).unwrap();
    let stage = bars(|text| text);
    tidewire_engine::driver::create_topics(&*log, &stage, 3_600_000).unwrap();
    let book = Arc::new(open_book(&*log).unwrap());
    let spent = Arc::new(Spent::default());
    let timed: Arc<dyn Log> = Arc::new(Timed { inner: Arc::clone(&log), spent: Arc::clone(&spent) });
    let options = WorkerOptions { member: "bench".into(), ..WorkerOptions::default() };
    let mut worker = Worker::new(timed, Arc::new(stage), Arc::clone(&book), options).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let market = Market { per_s: rate, from_us: i64::try_from(now().as_micros()).unwrap(), ..market };
            feed(&*log, &book, market, rate * seconds);
            over.store(true, Ordering::SeqCst);
        });
        let begun = Instant::now();
        while !over.load(Ordering::SeqCst) {
            let step = worker.step(i64::try_from(now().as_millis()).unwrap()).unwrap();
            assert!(step.halted.is_empty() && step.faults.is_empty(), "{step:?}");
            if begun.elapsed() < Duration::from_secs(1) {
                // The first second warms up.
                spent.forget_latencies();
            }
            if !step.worked {
                log.wait(Duration::from_millis(1));
            }
        }
    });
    let seen = spent.latencies_us();
    let at = |quantile| seen.value_at_quantile(quantile);
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)] {
        results.add(&format!("{on}/latency/{rate}/{name}"), "us", Better::Less, vec![at(quantile) as f64]);
    }
    results.add(&format!("{on}/latency/{rate}/greatest"), "us", Better::Less, vec![seen.max() as f64]);
    results.add(&format!("{on}/latency/{rate}/ticks"), "ticks", Better::Neither, vec![seen.len() as f64]);
    println!(
        "{on}: {rate} ticks/s, received to ready for commit: p50 {} us, p99 {} us, p99.9 {} us, p99.99 {} us, greatest {} us ({} ticks)",
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999),
        seen.max(),
        seen.len()
    );
}

fn feed(log: &dyn Log, book: &tidewire_schemas::SchemaBook, market: Market, count: u64) {
    let mut trades = market.trades().take(usize::try_from(count).unwrap()).peekable();
    while trades.peek().is_some() {
        let now_us = i64::try_from(now().as_micros()).unwrap();
        let mut due: Vec<Vec<_>> = vec![Vec::new(); market.partitions as usize];
        while let Some((partition, trade)) =
            trades.next_if(|(_, trade)| trade.event_time.as_micros() <= now_us)
        {
            due[partition as usize].push(record(book, trade));
        }
        for (partition, records) in (0..).zip(due) {
            if !records.is_empty() {
                log.append(&TopicPartition::new("peer.ticks", partition), records).unwrap();
            }
        }
        std::thread::sleep(STEP);
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
