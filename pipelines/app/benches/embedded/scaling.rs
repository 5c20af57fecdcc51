//! One worker and two on one log: how far two cores go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use tidewire_engine::log::Log;
use tidewire_engine::plan::StageSpec;
use tidewire_engine::worker::{Worker, WorkerOptions};
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::registry::open_book;
use tidewire_tests::results::{Better, Results, median};
use tidewire_tests::ticks::Market;

use crate::{bars, load, set_trades};

pub fn print(results: &mut Results, market: Market, ticks: u64, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path().join("log"), EmbeddedOptions::default()).unwrap();
    load::trades(&log, "peer.ticks", market, ticks);
    let total = ticks + market.last(ticks).len() as u64;
    let log: Arc<dyn Log> = log;
    let stage = bars(|text| text);
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for (place, workers) in [1, 2].into_iter().enumerate() {
            rates[place].push(run(&log, &stage, round, workers, total));
        }
    }
    set_trades(results, market, ticks);
    results.set("workload", "bars");
    results.set("rounds", rounds);
    let times = rates[0].iter().zip(&rates[1]).map(|(one, two)| two / one).collect();
    results.add("1 worker/throughput", "records/s", Better::More, rates[0].clone());
    results.add("2 workers/throughput", "records/s", Better::More, rates[1].clone());
    let [one, two] = rates.map(median);
    results.add_part("2 workers to 1", "times", Better::More, two / one, times);
    println!("1 worker {one:.0} records/s, 2 workers {two:.0} records/s: {:.2} times", two / one);
}

/// Records a second from the moment that all tasks are placed.
fn run(log: &Arc<dyn Log>, stage: &StageSpec, round: usize, workers: usize, total: u64) -> f64 {
    let mut spec = stage.clone();
    spec.pipeline = format!("scaling-{round}-{workers}").into();
    tidewire_engine::driver::create_topics(&**log, &spec, 3_600_000).unwrap();
    let spec = Arc::new(spec);
    let book = Arc::new(open_book(&**log).unwrap());
    // The group has its members before anybody begins.
    let (done, joined) = (AtomicU64::new(0), Barrier::new(workers + 1));
    let mut started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..workers {
            let (spec, book, done, joined) = (Arc::clone(&spec), Arc::clone(&book), &done, &joined);
            scope.spawn(move || {
                let member = format!("bench-{number}").into();
                let options = WorkerOptions { member, ..WorkerOptions::default() };
                let mut worker = Worker::new(Arc::clone(log), spec, book, options).unwrap();
                joined.wait();
                while done.load(Ordering::Relaxed) < total {
                    let step = worker.step(1_000).unwrap();
                    assert!(step.halted.is_empty() && step.faults.is_empty(), "{step:?}");
                    done.fetch_add(step.records, Ordering::Relaxed);
                    if !step.worked {
                        std::thread::yield_now();
                    }
                }
            });
        }
        joined.wait();
        started = Instant::now();
    });
    total as f64 / started.elapsed().as_secs_f64()
}
