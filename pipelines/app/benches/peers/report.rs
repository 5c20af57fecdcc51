//! The figures, for people and as JSON.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tidewire_tests::ticks::Market;

use crate::backlog::Through;
use crate::engines::Engine;

#[derive(Default)]
pub struct Report {
    pub ticks: u64,
    pub workers: u64,
    pub market: Option<Market>,
    pub through: Vec<(Engine, Through)>,
    /// Bars, signals and digest of all of them.
    pub outputs: Vec<(Engine, u64, u64, String)>,
    pub bare: Option<Through>,
    pub latencies: Vec<(Engine, u64, Histogram<u64>)>,
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

impl Report {
    fn ours(&self) -> Option<Through> {
        self.through.iter().find(|(engine, _)| *engine == Engine::Tidewire).map(|(_, through)| *through)
    }

    pub fn print(&self) {
        println!("{} ticks, {} workers", self.ticks, self.workers);
        for (engine, bars, signals, digest) in &self.outputs {
            println!("{engine:<18} {bars} bars, {signals} signals, digest {digest}");
        }
        println!("{:<18} {:>10} {:>12} {:>16} {:>8}", "", "ticks/s", "us CPU/tick", "ticks/CPU-s", "MB peak");
        let bare = self.bare.iter().map(|through| ("bare librdkafka".to_owned(), *through));
        for (name, row) in self.through.iter().map(|(engine, row)| (engine.to_string(), *row)).chain(bare) {
            let peak = row.peak_bytes / 1_000_000;
            println!(
                "{name:<18} {:>10.0} {:>12.2} {:>16.0} {peak:>8}",
                row.per_s,
                row.cpu_us,
                1e6 / row.cpu_us
            );
        }
        if let Some(ours) = self.ours() {
            if let Some(bare) = self.bare {
                println!("tidewire to bare librdkafka: {:.2} of its throughput", ours.per_s / bare.per_s);
            }
            for (engine, row) in self.through.iter().filter(|(engine, _)| *engine != Engine::Tidewire) {
                println!(
                    "tidewire to {engine}: {:.1} times its throughput, {:.1} times a CPU-second's",
                    ours.per_s / row.per_s,
                    row.cpu_us / ours.cpu_us
                );
            }
        }
        for (engine, rate, latencies) in &self.latencies {
            if latencies.is_empty() {
                println!("{engine:<18} {rate} ticks/s: no bar came while it was measured");
                continue;
            }
            let cells: Vec<String> = QUANTILES
                .iter()
                .map(|(name, at)| format!("{name} {:.1} ms", latencies.value_at_quantile(*at) as f64 / 1e3))
                .collect();
            println!("{engine:<18} {rate} ticks/s: {} ({} bars)", cells.join(", "), latencies.len());
        }
    }

    pub fn json(&self) -> String {
        let row = |name: String, through: &Through| {
            json!({
                "engine": name,
                "ticks_per_s": through.per_s.round(),
                "cpu_us_a_tick": (through.cpu_us * 100.0).round() / 100.0,
                "peak_bytes": through.peak_bytes,
            })
        };
        let mut through: Vec<Value> =
            self.through.iter().map(|(engine, through)| row(engine.to_string(), through)).collect();
        through.extend(self.bare.iter().map(|bare| row("bare".to_owned(), bare)));
        let outputs = self.outputs.iter().map(|(engine, bars, signals, digest)| {
            json!({ "engine": engine.to_string(), "bars": bars, "signals": signals, "digest": digest })
        });
        let latencies = self.latencies.iter().map(|(engine, rate, seen)| {
            let mut row = json!({ "engine": engine.to_string(), "ticks_per_s": rate, "bars": seen.len() });
            for (name, at) in QUANTILES.iter().filter(|_| !seen.is_empty()) {
                row[format!("{name}_us")] = seen.value_at_quantile(*at).into();
            }
            row
        });
        let market = self.market.map(|market| {
            json!({ "seed": market.seed, "symbols": market.symbols, "skew": market.skew, "partitions": market.partitions })
        });
        let all = json!({
            "bench": "peers",
            "workload": "bars",
            "ticks": self.ticks,
            "workers": self.workers,
            "market": market,
            "outputs": outputs.collect::<Vec<_>>(),
            "throughput": through,
            "latency": latencies.collect::<Vec<_>>(),
        });
        serde_json::to_string_pretty(&all).unwrap_or_default() + "\n"
    }
}
