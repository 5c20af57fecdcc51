//! The figures, for people and as JSON.

use serde_json::{Value, json};

use crate::readers::Seen;
use crate::two_stages::TwoStages;

/// Above this share of the throughput at saturation a queue builds up, and latency is that of the queue.
const NEAR_SATURATION: f64 = 0.7;

#[derive(Default)]
pub struct Report {
    pub workers: u64,
    pub partitions: u32,
    pub backlog: u64,
    pub through_per_s: f64,
    pub bare_per_s: f64,
    /// Processor time a tick, in microseconds: hardly changed by what else the machine does.
    pub through_cpu_us: f64,
    pub bare_cpu_us: f64,
    pub signal_bytes: usize,
    pub rates: Vec<Rate>,
    pub two_stages: Option<TwoStages>,
}

pub struct Rate {
    ticks_per_s: u64,
    readers: Vec<Row>,
}

struct Row {
    isolation: &'static str,
    signals: u64,
    expected: u64,
    doubled: u64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

impl Rate {
    pub fn new(ticks_per_s: u64, seen: &[Seen]) -> Self {
        let row = |seen: &Seen| {
            let at = |quantile| seen.latencies_us.value_at_quantile(quantile);
            Row {
                isolation: seen.isolation,
                signals: seen.signals,
                expected: seen.expected,
                doubled: seen.doubled,
                p50_us: at(0.5),
                p99_us: at(0.99),
                p999_us: at(0.999),
                max_us: seen.latencies_us.max(),
            }
        };
        Self { ticks_per_s, readers: seen.iter().map(row).collect() }
    }
}

fn print_two_stages(two: &TwoStages) {
    println!(
        "{} ticks/s through two stages       p50 ms    p99 ms  p99.9 ms     count  p99 in commits",
        two.rate
    );
    let commit_p99 = two.commit_us.value_at_quantile(0.99) as f64;
    for (name, seen) in [
        ("the broker's own commit", &two.commit_us),
        ("tick to signal", &two.signal_us),
        ("tick to order", &two.order_us),
    ] {
        let ms = |quantile| seen.value_at_quantile(quantile) as f64 / 1_000.0;
        println!(
            "  {name:<32} {:>8.2}  {:>8.2}  {:>8.2}  {:>8}  {:>8.1}",
            ms(0.5),
            ms(0.99),
            ms(0.999),
            seen.len(),
            seen.value_at_quantile(0.99) as f64 / commit_p99,
        );
    }
    if two.refused > 0 {
        println!("  {} orders were refused", two.refused);
    }
}

impl Report {
    fn near_saturation(&self, rate: &Rate) -> bool {
        rate.ticks_per_s as f64 > NEAR_SATURATION * self.through_per_s
    }

    pub fn print(&self) {
        println!("{} partitions, {} workers", self.partitions, self.workers);
        if self.backlog > 0 {
            println!(
                "at saturation: {:.0} ticks/s; bare librdkafka {:.0} ticks/s; ratio {:.2} ({} bytes a signal, {} ticks)",
                self.through_per_s,
                self.bare_per_s,
                self.through_per_s / self.bare_per_s,
                self.signal_bytes,
                self.backlog
            );
            println!(
                "processor a tick: {:.1} us; bare librdkafka {:.1} us",
                self.through_cpu_us, self.bare_cpu_us
            );
        }
        if let Some(two) = &self.two_stages {
            print_two_stages(two);
        }
        if self.rates.is_empty() {
            return;
        }
        println!(
            "ticks/s   reader             p50 ms    p99 ms  p99.9 ms    max ms  signals of those expected"
        );
        for rate in &self.rates {
            let mark = if self.near_saturation(rate) { "*" } else { " " };
            for row in &rate.readers {
                let ms = |us: u64| us as f64 / 1_000.0;
                println!(
                    "{:>7}{mark}  {:<16} {:>8.2}  {:>8.2}  {:>8.2}  {:>8.2}  {} of {}{}",
                    rate.ticks_per_s,
                    row.isolation,
                    ms(row.p50_us),
                    ms(row.p99_us),
                    ms(row.p999_us),
                    ms(row.max_us),
                    row.signals,
                    row.expected,
                    if row.doubled > 0 { format!(", {} seen twice", row.doubled) } else { String::new() },
                );
            }
        }
        println!("* above {:.0} % of the throughput at saturation", NEAR_SATURATION * 100.0);
    }

    pub fn json(&self) -> String {
        let rates: Vec<Value> = self
            .rates
            .iter()
            .map(|rate| {
                let readers = rate.readers.iter().map(|row| {
                    json!({
                        "isolation": row.isolation,
                        "signals": row.signals,
                        "expected": row.expected,
                        "seen_twice": row.doubled,
                        "p50_us": row.p50_us,
                        "p99_us": row.p99_us,
                        "p999_us": row.p999_us,
                        "max_us": row.max_us,
                    })
                });
                json!({
                    "ticks_per_s": rate.ticks_per_s,
                    "near_saturation": self.near_saturation(rate),
                    "readers": readers.collect::<Vec<_>>(),
                })
            })
            .collect();
        let all = json!({
            "partitions": self.partitions,
            "workers": self.workers,
            "backlog_ticks": self.backlog,
            "signal_bytes": self.signal_bytes,
            "through_per_s": self.through_per_s.round(),
            "through_cpu_us": (self.through_cpu_us * 10.0).round() / 10.0,
            "bare_cpu_us": (self.bare_cpu_us * 10.0).round() / 10.0,
            "bare_per_s": self.bare_per_s.round(),
            "ratio": (self.through_per_s / self.bare_per_s * 1_000.0).round() / 1_000.0,
            "rates": rates,
        });
        serde_json::to_string_pretty(&all).unwrap_or_default()
    }
}
