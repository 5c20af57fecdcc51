//! Throughput from a whole backlog, as a committed reader sees it, and the processor time that it took.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::message::Message as _;
use tidewire_schemas::EventTime;
use tidewire_tests::process::{cpu_s, peak_bytes};

use crate::bed::Bed;
use crate::engines::{Engine, Run};
use crate::outputs::Outputs;
use crate::produce::PATIENCE;

/// After the last bar, signals that follow from it may still come for so long.
const LAST_SIGNALS: Duration = Duration::from_secs(3);
/// How long nothing comes before the ticks that close the last windows are written again.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Default)]
pub struct Through {
    /// Ticks a second between the first and the last tenth of bars.
    pub per_s: f64,
    /// Processor time of the process a tick in the same stretch, all its threads, in microseconds.
    pub cpu_us: f64,
    /// Greatest resident memory, in bytes.
    pub peak_bytes: u64,
}

/// A moment of the stretch that is measured.
struct Mark {
    bars: u64,
    at: Instant,
    cpu_s: f64,
}

/// Runs an engine over the backlog.
pub fn through(bed: &Bed, engine: Engine, workers: u64, ticks: u64) -> (Through, Outputs) {
    let expected = expected_bars(bed, ticks);
    let until = bed.market.last(ticks)[0].1.event_time.minus_ms(60_000);
    let run = Run::start(bed, engine, workers, &bed.ticks);
    let reader = bed.consumer(&[&run.bars, &run.signals]);
    let mut outputs = Outputs::default();
    let (mut from, mut to): (Option<Mark>, Option<Mark>) = (None, None);
    let (mut last, mut told) = (Instant::now(), Instant::now());
    let pid = run.process.pid();
    while outputs.bars() < expected || last.elapsed() < LAST_SIGNALS {
        assert!(
            last.elapsed() < PATIENCE,
            "{engine}: {} of {expected} bars: {}",
            outputs.bars(),
            run.process.said()
        );
        let Some(message) = reader.poll(Duration::from_millis(20)) else {
            // Some engines look at what time has closed only when a record comes, and not at each.
            if outputs.bars() < expected && last.elapsed() > AGAIN && told.elapsed() > AGAIN {
                bed.write_last(ticks);
                told = Instant::now();
            }
            continue;
        };
        let message = message.unwrap();
        if message.topic() == run.bars || message.topic() == run.signals {
            outputs.take(&bed.book, &message, until);
        }
        last = Instant::now();
        let mark = || Mark { bars: outputs.bars(), at: Instant::now(), cpu_s: cpu_s(pid) };
        if from.is_none() && outputs.bars() >= expected / 10 {
            from = Some(mark());
        }
        if to.is_none() && outputs.bars() >= expected / 10 * 9 {
            to = Some(mark());
        }
    }
    let peak_bytes = peak_bytes(pid);
    run.process.terminate();
    let (from, to) = (from.unwrap(), to.unwrap());
    assert!(to.bars > from.bars, "all bars came at once: more TICKS are needed");
    // Bars are spread evenly over the ticks.
    let done = (to.bars - from.bars) as f64 / expected as f64 * ticks as f64;
    let through = Through {
        per_s: done / to.at.duration_since(from.at).as_secs_f64(),
        cpu_us: (to.cpu_s - from.cpu_s) * 1e6 / done,
        peak_bytes,
    };
    (through, outputs)
}

/// How many bars the ticks come to: one for each window of an instrument that has a trade.
fn expected_bars(bed: &Bed, ticks: u64) -> u64 {
    let mut windows = BTreeSet::new();
    for (_, trade) in bed.market.trades().take(usize::try_from(ticks).unwrap()) {
        for interval_ms in [1_000, 60_000] {
            let start: EventTime = trade.event_time.floor_to(interval_ms * 1_000);
            windows.insert((trade.instrument.clone(), interval_ms, start));
        }
    }
    windows.len() as u64
}
