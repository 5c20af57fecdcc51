//! Latency and throughput on a real Kafka: from a tick's intended time to its signal, at several rates, and from a whole
//! backlog beside bare librdkafka on the same topic.
//!
//! `cargo bench -p tidewire --bench kafka`. With KAFKA_BOOTSTRAP that cluster is used, otherwise `scripts/kafka` starts
//! one of one node. `docs/measurements.md` says how it is measured and what came out.
//!
//! RATES (1000,10000,50000 ticks a second), SECONDS (20 each), BACKLOG (400000 ticks, 0 for none), ORDERS_RATE (10000 ticks a
//! second through two stages, 0 for none), ORDERS_SECONDS (60), PARTITIONS (4), WORKERS (1) and JSON (a file to write the figures
//! to) change what is done.
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
mod cluster;
mod consume_batch;
mod load;
mod pipeline;
mod produce;
mod readers;
mod report;
mod two_stages;

use std::time::Duration;

use cluster::Cluster;
use pipeline::{Bed, Running};
use readers::Watched;
use report::{Rate, Report};
use tidewire_tests::results::Results;

/// Ticks before the measured ones of each rate, in seconds: connections and caches warm up.
const WARM_UP: Duration = Duration::from_secs(3);
/// The same where rare delays count: the compiler of the broker's virtual machine comes to rest.
const LONG_WARM_UP: Duration = Duration::from_secs(30);

fn main() {
    let mut results = Results::new("kafka");
    let number = |name: &str, or: u64| std::env::var(name).map_or(or, |text| text.parse().expect(name));
    let rates = std::env::var("RATES").unwrap_or_else(|_| "1000,10000,50000".to_owned());
    let rates = rates.split(',').map(str::trim).filter(|rate| !rate.is_empty());
    let rates: Vec<u64> = rates.map(|rate| rate.parse().expect("RATES")).collect();
    let span = Duration::from_secs(number("SECONDS", 20));
    let workers = number("WORKERS", 1);
    let partitions = u32::try_from(number("PARTITIONS", 4)).unwrap();

    let cluster = Cluster::find_or_start();
    let mut report = Report { workers, partitions, ..Report::default() };

    let backlog = number("BACKLOG", 400_000);
    if backlog > 0 {
        let bed = Bed::new(&cluster, "backlog", partitions);
        eprintln!("a backlog of {backlog} ticks");
        report.backlog = backlog;
        load::backlog(&bed, backlog);
        let (through, cpu_us, bytes) = backlog::through(&bed, backlog, workers);
        (report.through_per_s, report.through_cpu_us) = (through, cpu_us);
        eprintln!("through the pipeline: {through:.0} ticks/s; bare librdkafka on the same topic");
        report.signal_bytes = bytes.total();
        (report.bare_per_s, report.bare_cpu_us) = bare::through(&bed, backlog, &bytes);
    }

    for rate in rates {
        eprintln!("{rate} ticks/s for {span:?}");
        // A fresh pipeline each: what one rate left behind does not weigh on the next.
        let bed = Bed::new(&cluster, &format!("rate-{rate}"), partitions);
        let running = Running::start(&bed, workers);
        bed.wait_until_it_runs();
        let start_us = produce::now_us() + 1_000_000;
        let load = load::Load { rate, warm_up: WARM_UP, span, turns_after: 1, start_us };
        let seen = load.send(&bed, &Watched::ALL).finish();
        report.rates.push(Rate::new(rate, &seen));
        running.stop();
    }
    // Its topics bear the names that pipelines have: on a cluster of others it is not run unasked.
    let own = std::env::var("KAFKA_BOOTSTRAP").is_ok_and(|bootstrap| !bootstrap.is_empty());
    let rate = number("ORDERS_RATE", if own { 0 } else { 10_000 });
    if rate > 0 {
        eprintln!("two stages at {rate} ticks/s, beside transactions of the broker's own");
        let seconds = number("ORDERS_SECONDS", 60);
        results.set("orders_rate", rate);
        results.set("orders_seconds", seconds);
        let span = Duration::from_secs(seconds);
        report.two_stages = Some(two_stages::at(&cluster, rate, [LONG_WARM_UP, span], partitions, workers));
    }
    report.print();
    if let Ok(file) = std::env::var("JSON") {
        report.add_to(&mut results);
        results.write(file).unwrap();
    }
}
