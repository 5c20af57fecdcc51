//! Latency and throughput on a real Kafka: from a tick's intended time to its signal, at several rates, and from a whole
//! backlog beside bare librdkafka on the same topic.
//!
//! `cargo bench -p tidewire --bench kafka`. With KAFKA_BOOTSTRAP that cluster is used, otherwise `scripts/kafka` starts
//! one of one node. `docs/measurements.md` says how it is measured and what came out.
//!
//! RATES (1000,10000,50000 ticks a second), SECONDS (20 each), BACKLOG (400000 ticks), PARTITIONS (4), WORKERS (1) and
//! JSON (a file to write the figures to) change what is done.
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

use std::time::Duration;

use cluster::Cluster;
use pipeline::{Bed, Running};
use report::{Rate, Report};

/// Ticks before the measured ones of each rate, in seconds: connections and caches warm up.
const WARM_UP: Duration = Duration::from_secs(3);

fn main() {
    let number = |name: &str, or: u64| std::env::var(name).map_or(or, |text| text.parse().expect(name));
    let rates = std::env::var("RATES").unwrap_or_else(|_| "1000,10000,50000".to_owned());
    let rates: Vec<u64> = rates.split(',').map(|rate| rate.trim().parse().expect("RATES")).collect();
    let span = Duration::from_secs(number("SECONDS", 20));
    let workers = number("WORKERS", 1);
    let partitions = u32::try_from(number("PARTITIONS", 4)).unwrap();

    let cluster = Cluster::find_or_start();
    let mut report = Report { workers, partitions, ..Report::default() };

    let bed = Bed::new(&cluster, "backlog", partitions);
    let backlog = number("BACKLOG", 400_000);
    eprintln!("a backlog of {backlog} ticks");
    report.backlog = backlog;
    load::backlog(&bed, backlog);
    let (through, cpu_us, bytes) = backlog::through(&bed, backlog, workers);
    (report.through_per_s, report.through_cpu_us) = (through, cpu_us);
    eprintln!("through the pipeline: {through:.0} ticks/s; bare librdkafka on the same topic");
    report.signal_bytes = bytes.total();
    (report.bare_per_s, report.bare_cpu_us) = bare::through(&bed, backlog, &bytes);

    for rate in rates {
        eprintln!("{rate} ticks/s for {span:?}");
        // A fresh pipeline each: what one rate left behind does not weigh on the next.
        let bed = Bed::new(&cluster, &format!("rate-{rate}"), partitions);
        let running = Running::start(&bed, workers);
        bed.wait_until_it_runs();
        let sent = load::open_loop(&bed, rate, WARM_UP, span);
        let seen = sent.finish();
        report.rates.push(Rate::new(rate, &seen));
        running.stop();
    }
    report.print();
    if let Ok(file) = std::env::var("JSON") {
        std::fs::write(file, report.json()).unwrap();
    }
}
