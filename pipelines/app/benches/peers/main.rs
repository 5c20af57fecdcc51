//! The bars workload (tests/peers) on one Kafka: Tidewire, Kafka Streams by its defaults and tuned, and bare librdkafka, in one
//! run over the same ticks.
//!
//! `cargo bench -p tidewire --bench peers`. Needs a JDK of 17 or newer and Maven. With KAFKA_BOOTSTRAP that cluster is used,
//! otherwise `scripts/kafka` starts one. docs/benchmarks.md says how it is measured and what came out.
//!
//! TICKS (1000000), REPEATS (3, of the throughput), SYMBOLS (100), SKEW (1.0), RATES (ticks a second for latency, 10000), SECONDS (20 each), WORKERS (1),
//! ENGINES (tidewire,streams-defaults,streams-tuned) and JSON (a file for the figures) change what is done.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench talks and may stop"
)]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod backlog;
mod bare;
mod bed;
#[path = "../kafka/cluster.rs"]
mod cluster;
#[path = "../kafka/consume_batch.rs"]
mod consume_batch;
mod engines;
mod latency;
mod outputs;
#[path = "../kafka/produce.rs"]
mod produce;
mod report;

use std::time::Duration;

use bed::Bed;
use cluster::Cluster;
use engines::Engine;
use report::Report;
use tidewire_tests::results::Results;
use tidewire_tests::ticks::Market;

/// The engines that are measured where nothing else is asked for.
const ALL: &str = "tidewire,streams-defaults,streams-tuned";

fn main() {
    let mut results = Results::new("peers");
    let number = |name: &str, or: u64| std::env::var(name).map_or(or, |text| text.parse().expect(name));
    let list = |name: &str, or: &str| -> Vec<String> {
        let text = std::env::var(name).unwrap_or_else(|_| or.to_owned());
        text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    };
    let market = Market {
        symbols: usize::try_from(number("SYMBOLS", 100)).unwrap(),
        skew: std::env::var("SKEW").map_or(1.0, |text| text.parse().expect("SKEW")),
        ..Market::default()
    };
    let ticks = number("TICKS", 1_000_000);
    let workers = number("WORKERS", 1);
    let engines: Vec<Engine> = list("ENGINES", ALL).iter().map(|name| Engine::named(name)).collect();
    let java = engines.iter().any(|engine| *engine != Engine::Tidewire).then(engines::build_streams);

    let cluster = Cluster::find_or_start();
    let bed = Bed::new(&cluster, market, java);
    eprintln!("a backlog of {ticks} ticks");
    bed.write_backlog(ticks);
    let mut report = Report { ticks, workers, market: Some(market), ..Report::default() };
    let repeats = number("REPEATS", 3).max(1);
    report.through = engines.iter().map(|engine| (*engine, Vec::new())).collect();
    let mut first = None;
    for repeat in 1..=repeats {
        // All engines in turn, and then again: what the machine does meanwhile falls on all of them.
        for (engine, seen) in &mut report.through {
            eprintln!("{engine}: from a whole backlog, {repeat} of {repeats}");
            let (through, outputs) = backlog::through(&bed, *engine, workers, ticks);
            eprintln!("{engine}: {:.0} ticks/s, {:.2} us of processor a tick", through.per_s, through.cpu_us);
            seen.push(through);
            if repeat == 1 {
                let (bars, signals, digest) = (outputs.bars(), outputs.signals(), outputs.digest());
                report.outputs.push((*engine, bars, signals, digest));
            }
            match &first {
                None => first = Some(outputs),
                Some(first) => outputs.check_equal(first),
            }
        }
        if let Some(outputs) = &first {
            let bare = bare::through(&bed, ticks, outputs.records(), outputs.bytes());
            eprintln!(
                "bare librdkafka: {:.0} ticks/s, {:.2} us of processor a tick",
                bare.per_s, bare.cpu_us
            );
            report.bare.push(bare);
        }
    }
    results.set("repeats", repeats);
    let (rates, seconds) = (list("RATES", "10000"), number("SECONDS", 20));
    results.set("engines", list("ENGINES", ALL).join(","));
    results.set("rates", rates.join(","));
    results.set("seconds", seconds);
    for rate in rates {
        let rate: u64 = rate.parse().expect("RATES");
        for engine in &engines {
            eprintln!("{engine}: {rate} ticks/s");
            let span = Duration::from_secs(seconds);
            report.latencies.push((*engine, rate, latency::at(&bed, *engine, workers, rate, span)));
        }
    }
    report.print();
    if let Ok(file) = std::env::var("JSON") {
        report.add_to(&mut results);
        results.write(file).unwrap();
    }
}
