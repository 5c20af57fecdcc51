//! The figures, for people and as a file.

use hdrhistogram::Histogram;
use tidewire_tests::results::{Better, Results};
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

    pub fn add_to(&self, results: &mut Results) {
        results.set("workload", "bars");
        results.set("ticks", self.ticks);
        results.set("workers", self.workers);
        if let Some(market) = &self.market {
            results.set_market(market);
        }
        let engines = self.through.iter().map(|(engine, through)| (engine.to_string(), through));
        let bare = self.bare.iter().map(|through| ("bare".to_owned(), through));
        for (name, through) in engines.chain(bare) {
            let peak_mb = through.peak_bytes as f64 / 1e6;
            results.add(&format!("{name}/throughput"), "ticks/s", Better::More, vec![through.per_s]);
            results.add(&format!("{name}/cpu"), "us/tick", Better::Less, vec![through.cpu_us]);
            results.add(&format!("{name}/memory"), "MB", Better::Less, vec![peak_mb]);
        }
        for (engine, _) in self.through.iter().filter(|_| self.bare.is_some()) {
            for what in ["throughput", "cpu"] {
                results.set_ceiling(&format!("{engine}/{what}"), &format!("bare/{what}"));
            }
        }
        for (engine, bars, signals, digest) in &self.outputs {
            results.add(&format!("{engine}/bars"), "outputs", Better::Neither, vec![*bars as f64]);
            results.add(&format!("{engine}/signals"), "outputs", Better::Neither, vec![*signals as f64]);
            results.note(&format!("{engine}/digest"), digest);
        }
        for (engine, rate, seen) in &self.latencies {
            let name = format!("{engine}/latency/{rate}");
            for (quantile, at) in QUANTILES.iter().filter(|_| !seen.is_empty()) {
                let ms = seen.value_at_quantile(*at) as f64 / 1e3;
                results.add(&format!("{name}/{quantile}"), "ms", Better::Less, vec![ms]);
            }
            results.add(&format!("{name}/bars"), "outputs", Better::Neither, vec![seen.len() as f64]);
        }
    }
}
