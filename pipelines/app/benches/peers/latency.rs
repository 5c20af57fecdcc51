//! Latency at a rate: from the time the tick that closes a window was due to the time a committed reader has the bar.
//!
//! The load is an open loop: ticks are due at a fixed rate, whether or not anything keeps up, and bear the time they are due
//! as event time. A window closes with the first tick of its partition at or after its end, so the end of a window is, within
//! a tick's distance, the time at which that tick was due.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::message::Message as _;
use rdkafka::producer::Producer as _;
use tidewire_schemas::{EventTime, Record};
use tidewire_tests::ticks::Market;
use tidewire_tests::unique;

use crate::bed::Bed;
use crate::engines::{Engine, Run};
use crate::produce::{self, PATIENCE, now_us};

/// Ticks before the measured ones: the engine starts, and its code is compiled where it is a virtual machine's.
const WARM_UP: Duration = Duration::from_secs(30);

/// Latencies in microseconds.
pub fn at(bed: &Bed, engine: Engine, workers: u64, rate: u64, span: Duration) -> Histogram<u64> {
    let ticks = unique("ticks");
    bed.create(&ticks);
    let run = Run::start(bed, engine, workers, &ticks);
    let start_us = now_us() + 500_000;
    let total = rate * (WARM_UP + span).as_secs();
    let measured_from = EventTime::from_micros(start_us + i64::try_from(WARM_UP.as_micros()).unwrap());
    let measured_to = EventTime::from_micros(start_us + us_of(total, rate) - 1_000_000);
    let market = Market { from_us: start_us, per_s: rate, ..bed.market };
    let latencies = std::thread::scope(|scope| {
        scope.spawn(|| load(bed, &ticks, market, total));
        let reader = bed.consumer(&[&run.bars]);
        let mut latencies = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
        let mut seen = BTreeSet::new();
        let mut last = Instant::now();
        let deadline = Instant::now() + WARM_UP + span + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{engine}: the bars do not end: {}", run.process.said());
            // Once the load is over the last bars come: those whose windows the ticks closed.
            let over = now_us() > start_us + us_of(total, rate);
            if over && last.elapsed() > Duration::from_secs(3) {
                return latencies;
            }
            let Some(message) = reader.poll(Duration::from_millis(5)) else { continue };
            let read_us = now_us();
            let message = message.unwrap();
            let Ok(Record::Bar(bar)) = bed.book.decode(message.payload().unwrap()) else { panic!("no bar") };
            if bar.window_end < measured_from || bar.window_end > measured_to {
                continue;
            }
            last = Instant::now();
            let key = (bar.instrument.clone(), bar.interval_ms, bar.window_end);
            assert!(seen.insert(key), "{engine}: a bar came twice");
            let latency_us = u64::try_from(read_us - bar.window_end.as_micros()).unwrap_or(0);
            latencies.saturating_record(latency_us.max(1));
        }
    });
    run.process.terminate();
    latencies
}

fn load(bed: &Bed, topic: &str, market: Market, total: u64) {
    let producer = produce::of_ticks(&bed.bootstrap);
    let mut value = Vec::with_capacity(128);
    let mut now = now_us();
    for (partition, trade) in market.trades().take(usize::try_from(total).unwrap()) {
        let due_us = trade.event_time.as_micros();
        produce::wait_for(&producer, due_us, &mut now);
        bed.send(&producer, topic, partition, &trade, &mut value);
    }
    producer.flush(PATIENCE).unwrap();
}

fn us_of(ticks: u64, rate: u64) -> i64 {
    i64::try_from(ticks * 1_000_000 / rate).unwrap()
}
