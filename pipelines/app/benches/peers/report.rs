//! The figures, for people and as a file.

use hdrhistogram::Histogram;
use tidewire_tests::results::{Better, Results, median};
use tidewire_tests::ticks::Market;

use crate::backlog::Through;
use crate::engines::Engine;

#[derive(Default)]
pub struct Report {
    pub ticks: u64,
    pub workers: u64,
    pub market: Option<Market>,
    /// Of each repeat.
    pub through: Vec<(Engine, Vec<Through>)>,
    /// Bars, signals and digest of all of them.
    pub outputs: Vec<(Engine, u64, u64, String)>,
    pub bare: Vec<Through>,
    pub latencies: Vec<(Engine, u64, Histogram<u64>)>,
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

impl Report {
    /// What was measured in each repeat, by name; bare librdkafka last.
    fn rows(&self) -> Vec<(String, &[Through])> {
        let engines = self.through.iter().map(|(engine, rows)| (engine.to_string(), rows.as_slice()));
        let bare = (!self.bare.is_empty()).then(|| ("bare".to_owned(), self.bare.as_slice()));
        engines.chain(bare).collect()
    }

    pub fn print(&self) {
        println!("{} ticks, {} workers", self.ticks, self.workers);
        for (engine, bars, signals, digest) in &self.outputs {
            println!("{engine:<18} {bars} bars, {signals} signals, digest {digest}");
        }
        println!("{:<18} {:>10} {:>12} {:>16} {:>8}", "", "ticks/s", "us CPU/tick", "ticks/CPU-s", "MB peak");
        let rows = self.rows();
        for (name, repeats) in &rows {
            let (per_s, cpu_us) = (middle(repeats, |row| row.per_s), middle(repeats, |row| row.cpu_us));
            let peak = middle(repeats, |row| row.peak_bytes as f64 / 1e6);
            println!("{name:<18} {per_s:>10.0} {cpu_us:>12.2} {:>16.0} {peak:>8.0}", 1e6 / cpu_us);
        }
        let is_ours = |name: &str| name == Engine::Tidewire.to_string();
        if let Some((_, ours)) = rows.iter().find(|(name, _)| is_ours(name)) {
            for (name, theirs) in rows.iter().filter(|(name, _)| !is_ours(name)) {
                let pairs = ours.iter().zip(*theirs);
                let rates = pairs.clone().map(|(ours, theirs)| ours.per_s / theirs.per_s).collect();
                let costs = pairs.map(|(ours, theirs)| theirs.cpu_us / ours.cpu_us).collect();
                println!(
                    "tidewire to {name}: {:.2} times its throughput, {:.2} times a CPU-second's, medians of {}",
                    median(rates),
                    median(costs),
                    ours.len()
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
        for (name, repeats) in self.rows() {
            let each = |of: fn(&Through) -> f64| repeats.iter().map(of).collect::<Vec<_>>();
            results.add(&format!("{name}/throughput"), "ticks/s", Better::More, each(|row| row.per_s));
            results.add(&format!("{name}/cpu"), "us/tick", Better::Less, each(|row| row.cpu_us));
            let peak_mb = each(|row| row.peak_bytes as f64 / 1e6);
            results.add(&format!("{name}/memory"), "MB", Better::Less, peak_mb);
        }
        for (engine, _) in self.through.iter().filter(|_| !self.bare.is_empty()) {
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

fn middle(repeats: &[Through], of: impl Fn(&Through) -> f64) -> f64 {
    median(repeats.iter().map(of).collect())
}
