//! What a record costs by part, beside ceilings of the same run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tidewire_engine::log::{Log, StoredRecord, TopicPartition};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::worker::{Worker, WorkerOptions};
use tidewire_runtime::registry::open_book;
use tidewire_schemas::SchemaBook;
use tidewire_tests::results::{Better, Results, median};

use crate::timed::{Spent, Timed};

/// Bytes asked of the log at once, as a worker does.
const READ_BYTES: usize = 1 << 20;

/// Runs a stage, and its ceilings, so often.
pub fn measure(log: &Arc<dyn Log>, topic: &str, stage: &StageSpec, rounds: usize) -> Figures {
    let mut bare = stage.clone();
    bare.nodes.clear();
    bare.outputs.clear();
    let book = open_book(&**log).unwrap();
    let mut figures = Figures::default();
    for round in 0..rounds {
        figures.whole.push(run(log, stage, round));
        figures.bare.push(run(log, &bare, round));
        let values = figures.ceilings(&**log, topic);
        figures.decode.push(decode(&values, &book));
    }
    figures
}

/// Nanoseconds a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    pub records: u64,
    outputs: u64,
    pub total: f64,
    read: f64,
    commit: f64,
}

impl Round {
    pub fn outputs_a_record(&self) -> f64 {
        self.outputs as f64 / self.records as f64
    }
}

/// Runs the stage over all that is in the log, under a group of its own.
pub fn run(log: &Arc<dyn Log>, spec: &StageSpec, round: usize) -> Round {
    let mut spec = spec.clone();
    // A pipeline name of its own gives each round its own group, journal and changelog.
    spec.pipeline = format!("bench-{round}-{}", spec.nodes.len()).into();
    tidewire_engine::driver::create_topics(&**log, &spec, 3_600_000).unwrap();
    let book = Arc::new(open_book(&**log).unwrap());
    let spent = Arc::new(Spent::default());
    let timed: Arc<dyn Log> = Arc::new(Timed { inner: Arc::clone(log), spent: Arc::clone(&spent) });
    let options = WorkerOptions { member: "bench".into(), ..WorkerOptions::default() };
    let mut worker = Worker::new(timed, Arc::new(spec), book, options).unwrap();
    let (mut records, mut outputs, started) = (0, 0, Instant::now());
    let mut idle = 0;
    // The clock stands still, so that silence adds nothing.
    while idle < 3 {
        let step = worker.step(1_000).unwrap();
        assert!(step.halted.is_empty() && step.faults.is_empty(), "{step:?}");
        records += step.records;
        outputs += step.outputs;
        idle = if step.worked { 0 } else { idle + 1 };
    }
    let each = |nanos: u64| nanos as f64 / records as f64;
    let total = each(u64::try_from(started.elapsed().as_nanos()).unwrap());
    let read = each(spent.read.load(Ordering::Relaxed));
    Round { records, outputs, total, read, commit: each(spent.commit.load(Ordering::Relaxed)) }
}

#[derive(Default)]
pub struct Figures {
    whole: Vec<Round>,
    bare: Vec<Round>,
    read: Vec<f64>,
    decode: Vec<f64>,
    copy: Vec<f64>,
}

impl Figures {
    /// Reads the ticks alone, and copies their bytes; returns their values.
    fn ceilings(&mut self, log: &dyn Log, topic: &str) -> Vec<bytes::Bytes> {
        let started = Instant::now();
        let mut records: Vec<StoredRecord> = Vec::new();
        for partition in 0..log.topic(topic).unwrap().unwrap().partitions {
            let (at, mut from) = (TopicPartition::new(topic, partition), 0);
            loop {
                let fetched = log.fetch(&at, from, READ_BYTES).unwrap();
                records.extend(fetched.records);
                if fetched.at_end {
                    break;
                }
                from = fetched.next_offset;
            }
        }
        self.read.push(started.elapsed().as_nanos() as f64 / records.len() as f64);
        let values: Vec<_> = records.into_iter().filter_map(|stored| stored.record.value).collect();
        let started = Instant::now();
        let mut copied: Vec<u8> = Vec::with_capacity(READ_BYTES);
        for value in &values {
            if copied.len() + value.len() > READ_BYTES {
                copied.clear();
            }
            copied.extend_from_slice(value);
        }
        std::hint::black_box(&copied);
        self.copy.push(started.elapsed().as_nanos() as f64 / values.len() as f64);
        values
    }

    fn parts(&self) -> [(&'static str, f64); 5] {
        let of = |part: fn(&Round) -> f64| median(self.whole.iter().map(part).collect());
        let (total, read, commit) = (of(|r| r.total), of(|r| r.read), of(|r| r.commit));
        let decode = median(self.decode.clone());
        let rest = median(self.bare.iter().map(|r| r.total - r.read - r.commit).collect());
        [
            ("read from the log", read),
            ("decode", decode),
            ("engine (merge, time, digests)", (rest - decode).max(0.0)),
            ("operators and their outputs", (total - read - commit - rest).max(0.0)),
            ("commit", commit),
        ]
    }

    fn ceiling(&self) -> [(&'static str, f64); 3] {
        let read = median(self.read.clone());
        let decode = median(self.decode.clone());
        [
            ("log read alone", read),
            ("log read and decode", read + decode),
            ("memory copy of the values", median(self.copy.clone())),
        ]
    }

    fn total(&self) -> f64 {
        median(self.whole.iter().map(|round| round.total).collect())
    }

    pub fn print(&self, workload: &str, stage: &StageSpec) {
        let Some(Round { records, outputs, .. }) = self.whole.first() else { return };
        let (total, rounds, operators) = (self.total(), self.whole.len(), stage.nodes.len());
        println!(
            "{workload}: {records} records, {outputs} outputs, {operators} operators, one worker, median of {rounds}"
        );
        println!("  {:>10.0} records a second, {total:.0} ns a record", 1e9 / total);
        for (name, nanos) in self.parts() {
            println!("  {name:<32} {nanos:>8.0} ns  {:>5.1} %", 100.0 * nanos / total);
        }
        for (name, nanos) in self.ceiling() {
            println!("  {name:<32} {nanos:>8.0} ns  ratio {:.2}", nanos / total);
        }
    }

    pub fn add_to(&self, results: &mut Results) {
        let Some(Round { records, outputs, .. }) = self.whole.first() else { return };
        let totals: Vec<f64> = self.whole.iter().map(|round| round.total).collect();
        let per_s = totals.iter().map(|nanos| 1e9 / nanos).collect();
        results.add("throughput", "records/s", Better::More, per_s);
        results.add("cost", "ns/record", Better::Less, totals);
        for (place, (name, nanos)) in self.parts().into_iter().enumerate() {
            let rounds = (0..self.whole.len()).map(|round| self.round_parts(round)[place]).collect();
            results.add_part(name, "ns/record", Better::Less, nanos, rounds);
        }
        let both = self.read.iter().zip(&self.decode).map(|(read, decode)| read + decode).collect();
        let rounds = [self.read.clone(), both, self.copy.clone()];
        for ((name, nanos), rounds) in self.ceiling().into_iter().zip(rounds) {
            results.add_part(name, "ns/record", Better::Less, nanos, rounds);
        }
        results.set_ceiling("cost", "log read and decode");
        results.add("records", "records", Better::Neither, vec![*records as f64]);
        results.add("outputs", "outputs", Better::Neither, vec![*outputs as f64]);
    }

    /// The parts of one round, as [`Self::parts`].
    fn round_parts(&self, round: usize) -> [f64; 5] {
        let (whole, bare, decode) = (self.whole[round], self.bare[round], self.decode[round]);
        let rest = bare.total - bare.read - bare.commit;
        let operators = whole.total - whole.read - whole.commit - rest;
        [whole.read, decode, (rest - decode).max(0.0), operators.max(0.0), whole.commit]
    }
}

/// Nanoseconds a record to decode in memory.
fn decode(values: &[bytes::Bytes], book: &SchemaBook) -> f64 {
    let started = Instant::now();
    for value in values {
        std::hint::black_box(book.decode(value).unwrap());
    }
    started.elapsed().as_nanos() as f64 / values.len() as f64
}
