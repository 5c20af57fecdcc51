//! The measurement of latency and throughput on Kafka in short: every tick gives one signal, seen once by a committed
//! reader and by an uncommitted one. No time is asserted; `cargo bench -p tidewire --bench kafka` measures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stdout, clippy::cast_precision_loss, dead_code, reason = "shared with a bench")]

#[path = "../benches/kafka/backlog.rs"]
mod backlog;
#[path = "../benches/kafka/bare.rs"]
mod bare;
#[path = "../benches/kafka/cluster.rs"]
mod cluster;
#[path = "../benches/kafka/consume_batch.rs"]
mod consume_batch;
#[path = "../benches/kafka/load.rs"]
mod load;
#[path = "../benches/kafka/pipeline.rs"]
mod pipeline;
#[path = "../benches/kafka/produce.rs"]
mod produce;
#[path = "../benches/kafka/readers.rs"]
mod readers;
#[path = "../benches/kafka/report.rs"]
mod report;
#[path = "../benches/kafka/two_stages.rs"]
mod two_stages;

use std::time::Duration;

use cluster::Cluster;
use pipeline::{Bed, Running};
use readers::Watched;
use report::{Rate, Report};
use tidewire_tests::results::Results;

#[test]
fn every_signal_and_order_is_seen_once_by_every_reader() {
    let cluster = Cluster::find_or_start();
    let mut report = Report { workers: 1, partitions: 2, backlog: 5_000, ..Report::default() };

    let bed = Bed::new(&cluster, "short-backlog", 2);
    load::backlog(&bed, report.backlog);
    let (through, cpu_us, bytes) = backlog::through(&bed, report.backlog, report.workers);
    assert!(bytes.value > 100 && bytes.key == "I00.BENCH".len(), "{bytes:?}");
    (report.through_per_s, report.through_cpu_us) = (through, cpu_us);
    report.signal_bytes = bytes.total();
    (report.bare_per_s, report.bare_cpu_us) = bare::through(&bed, report.backlog, &bytes);

    let bed = Bed::new(&cluster, "short-rate", 2);
    let running = Running::start(&bed, report.workers);
    bed.wait_until_it_runs();
    let (warm_up, span) = (Duration::from_secs(1), Duration::from_secs(3));
    let start_us = produce::now_us() + 1_000_000;
    let load = load::Load { rate: 200, warm_up, span, turns_after: 1, start_us };
    let seen = load.send(&bed, &Watched::ALL).finish();
    running.stop();
    assert_eq!(
        seen.iter().map(|seen| seen.isolation).collect::<Vec<_>>(),
        ["read_committed", "read_uncommitted"]
    );
    for seen in &seen {
        assert_eq!(
            (seen.signals, seen.doubled, seen.latencies_us.len()),
            (600, 0, 600),
            "{}",
            seen.isolation
        );
    }
    report.rates.push(Rate::new(200, &seen));
    let two = two_stages::at(&cluster, 2_000, [Duration::from_secs(1), Duration::from_secs(4)], 2, 1);
    assert_eq!((two.order_us.len(), two.refused), (two.signal_us.len(), 0));
    assert!(two.order_us.len() > 40 && two.commit_us.len() > 10, "{}", two.order_us.len());
    report.two_stages = Some(two);
    report.print();
    let mut results = Results::new("kafka");
    report.add_to(&mut results);
    let of = |name: &str| results.figures.iter().find(|figure| figure.name == name).unwrap();
    assert_eq!(of("read_uncommitted/latency/200/signals").repeats, [600.0]);
    assert!(of("tidewire/throughput").ratio.unwrap() > 0.0);
    assert!(of("two stages/tick to order/2000/p99").value > 0.0);
}
