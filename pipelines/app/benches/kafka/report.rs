//! The figures, for people and as JSON.

use tidewire_tests::results::{Better, Results};

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
    for (name, seen) in two.rows() {
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

    pub fn add_to(&self, results: &mut Results) {
        results.set("partitions", self.partitions);
        results.set("workers", self.workers);
        results.set("backlog_ticks", self.backlog);
        if self.backlog > 0 {
            results.set("signal_bytes", self.signal_bytes);
            for (name, per_s, cpu_us) in [
                ("tidewire", self.through_per_s, self.through_cpu_us),
                ("bare", self.bare_per_s, self.bare_cpu_us),
            ] {
                results.add(&format!("{name}/throughput"), "ticks/s", Better::More, vec![per_s]);
                results.add(&format!("{name}/cpu"), "us/tick", Better::Less, vec![cpu_us]);
            }
            results.set_ceiling("tidewire/throughput", "bare/throughput");
            results.set_ceiling("tidewire/cpu", "bare/cpu");
        }
        for rate in &self.rates {
            for row in &rate.readers {
                let name = format!("{}/latency/{}", row.isolation, rate.ticks_per_s);
                if self.near_saturation(rate) {
                    results.note(&name, "near saturation: a queue's latency");
                }
                let at = [("p50", row.p50_us), ("p99", row.p99_us), ("p99.9", row.p999_us)];
                for (quantile, us) in at {
                    results.add(&format!("{name}/{quantile}"), "ms", Better::Less, vec![us as f64 / 1e3]);
                }
                let counts =
                    [("signals", row.signals), ("expected", row.expected), ("seen twice", row.doubled)];
                for (what, count) in counts {
                    results.add(&format!("{name}/{what}"), "signals", Better::Neither, vec![count as f64]);
                }
            }
        }
        if let Some(two) = &self.two_stages {
            for (what, seen) in two.rows() {
                let name = format!("two stages/{what}/{}", two.rate);
                for (quantile, at) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
                    let ms = seen.value_at_quantile(at) as f64 / 1e3;
                    results.add(&format!("{name}/{quantile}"), "ms", Better::Less, vec![ms]);
                }
                results.add(&format!("{name}/count"), "seen", Better::Neither, vec![seen.len() as f64]);
            }
        }
    }
}
