//! Throughput at saturation: a whole backlog is there before the start.

use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::message::{Headers as _, Message as _};
use tidewire_tests::process::cpu_s;

use crate::pipeline::{Bed, Running};
use crate::produce::PATIENCE;
use crate::readers::consumer;

/// What one signal takes in its topic, on average.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes {
    pub key: usize,
    pub value: usize,
    pub headers: usize,
}

impl Bytes {
    pub fn total(&self) -> usize {
        self.key + self.value + self.headers
    }
}

/// The rate between the first and the last tenth, as a committed reader sees it, in records a second.
pub struct Pace {
    begun: Instant,
    total: u64,
    seen: u64,
    from: Option<(u64, Instant)>,
    to: Option<(u64, Instant)>,
}

impl Pace {
    pub fn new(total: u64) -> Self {
        Self { begun: Instant::now(), total, seen: 0, from: None, to: None }
    }

    /// Counts `more`; true once all are there.
    pub fn add(&mut self, more: u64) -> bool {
        self.seen += more;
        if self.from.is_none() && self.seen >= self.total / 10 {
            self.from = Some((self.seen, Instant::now()));
        }
        if self.to.is_none() && self.seen >= self.total / 10 * 9 {
            self.to = Some((self.seen, Instant::now()));
        }
        self.seen >= self.total
    }

    pub fn per_s(&self) -> f64 {
        let ((first, from), (last, to)) = (self.from.unwrap(), self.to.unwrap());
        if first == last {
            // So few that they came at once: all of it, start included.
            return self.seen as f64 / self.begun.elapsed().as_secs_f64();
        }
        (last - first) as f64 / to.duration_since(from).as_secs_f64()
    }
}

/// Runs the pipeline over the backlog; ticks a second, its processor time a tick in microseconds, and the size of a
/// signal.
pub fn through(bed: &Bed, ticks: u64, workers: u64) -> (f64, f64, Bytes) {
    let reader = consumer(bed, "read_committed", &[&bed.signals], Offset::Beginning);
    let running = Running::start(bed, workers);
    let (mut pace, mut bytes, mut last) = (Pace::new(ticks), Bytes::default(), Instant::now());
    loop {
        assert!(last.elapsed() < PATIENCE, "{} of {ticks} signals came", pace.seen);
        let Some(message) = reader.poll(Duration::from_millis(20)) else { continue };
        let message = message.unwrap();
        last = Instant::now();
        bytes.key += message.key_len();
        bytes.value += message.payload_len();
        bytes.headers += message.headers().map_or(0, |headers| {
            headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum()
        });
        if pace.add(1) {
            break;
        }
    }
    let cpu_us = cpu_s(running.pid()) * 1e6 / ticks as f64;
    running.stop();
    let count = usize::try_from(ticks).unwrap();
    let mean = Bytes { key: bytes.key / count, value: bytes.value / count, headers: bytes.headers / count };
    (pace.per_s(), cpu_us, mean)
}
