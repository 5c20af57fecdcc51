//! What runs on the embedded log cost: one worker on one core, from a durable log.
//!
//! `cargo bench -p tidewire --bench embedded`. WORKLOAD is `bars` (tests/peers/bars.toml over made trades, the default) or
//! `market-intel` (its first stage over the captures that ship). MODE is one of
//!
//! * `cost` (the default): by part, beside ceilings of the same run;
//! * `scaling`: one worker and two, on instruments that trade alike;
//! * `growth`: with 10 to 100,000 symbols, 1 and 100 copies of the rule, 10 ms and 10 s of disorder;
//! * `latency`: from received to ready for commit, at RATE (100000) ticks a second for SECONDS (10);
//! * `memory`: at rest, by key and feature with KEYS (100000) instruments, and over RECORDS (100000000) records.
//!
//! TICKS (1000000), SYMBOLS (100), SKEW (1.0), DISORDER_MS (0) and ROUNDS (5) change what is done, and JSON names a file for
//! the results; docs/benchmarks.md describes them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench talks and may stop"
)]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod cost;
mod growth;
mod latency;
mod load;
mod memory;
mod scaling;
mod timed;

use std::sync::Arc;

use tidewire::files::load_text;
use tidewire_engine::log::Log;
use tidewire_engine::plan::StageSpec;
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_tests::results::Results;
use tidewire_tests::root;
use tidewire_tests::ticks::Market;

/// That of the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let rounds = usize::try_from(number("ROUNDS", 5)).unwrap();
    let ticks = number("TICKS", 1_000_000);
    let mode = text("MODE", "cost");
    // Modes measure different things, so their results are those of different benches.
    let bench = if mode == "cost" { "embedded".to_owned() } else { format!("embedded-{mode}") };
    let mut results = Results::new(&bench);
    results.set("mode", &mode);
    match mode.as_str() {
        "cost" => cost(&mut results, rounds, ticks),
        "scaling" => scaling::print(&mut results, Market { skew: 0.0, ..market() }, ticks, rounds),
        "growth" => growth::print(&mut results, market(), ticks, rounds),
        "latency" => {
            latency::print(&mut results, market(), number("RATE", 100_000), number("SECONDS", 10));
        }
        "memory" => {
            memory::print(&mut results, market(), number("KEYS", 100_000), number("RECORDS", 100_000_000))
        }
        // A process of its own that `memory` starts.
        "keys" => memory::print_of_keys(number("KEYS", 100_000), number("FEATURES", 1)),
        other => panic!("MODE is {other}: use cost, scaling, growth, latency or memory"),
    }
    if let Ok(file) = std::env::var("JSON") {
        results.write(file).unwrap();
    }
}

fn cost(results: &mut Results, rounds: usize, ticks: u64) {
    let workload = text("WORKLOAD", "bars");
    let folder = tempfile::tempdir().unwrap();
    let (topic, stage) = match workload.as_str() {
        "bars" => ("peer.ticks", bars(|text| text)),
        "market-intel" => {
            load::captures(&folder.path().join("log"));
            ("market.ticks.v1", stage("pipelines/market-intel.toml", |text| text))
        }
        other => panic!("WORKLOAD is {other}: use bars or market-intel"),
    };
    let log = EmbeddedLog::open(folder.path().join("log"), EmbeddedOptions::default()).unwrap();
    results.set("workload", &workload);
    results.set("rounds", rounds);
    if workload == "bars" {
        load::trades(&log, topic, market(), ticks);
        set_trades(results, market(), ticks);
    }
    let log: Arc<dyn Log> = log;
    let figures = cost::measure(&log, topic, &stage, rounds);
    figures.print(&workload, &stage);
    figures.add_to(results);
}

/// Says which trades are made.
fn set_trades(results: &mut Results, market: Market, ticks: u64) {
    results.set_market(&market);
    results.set("disorder_ms", market.disorder_ms);
    results.set("ticks", ticks);
}

/// A market as the variables say.
fn market() -> Market {
    Market {
        symbols: usize::try_from(number("SYMBOLS", 100)).unwrap(),
        skew: text("SKEW", "1.0").parse().expect("SKEW"),
        disorder_ms: number("DISORDER_MS", 0),
        ..Market::default()
    }
}

/// The bars workload's stage, its file changed.
fn bars(change: impl FnOnce(String) -> String) -> StageSpec {
    stage("tests/peers/bars.toml", change)
}

/// The first stage of a pipeline file.
fn stage(file: &str, change: impl FnOnce(String) -> String) -> StageSpec {
    let text = change(std::fs::read_to_string(root().join(file)).unwrap());
    let loaded = load_text(file.to_owned(), text, Vec::new()).unwrap();
    (*loaded.pipeline.stages[0]).clone()
}

fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).map_or(or, |text| text.parse().expect(name))
}

fn text(name: &str, or: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| or.to_owned())
}
