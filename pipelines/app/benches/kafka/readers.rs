//! Readers of signals: a client that is not ours, reading committed or uncommitted records as they come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tidewire_schemas::Record;

use crate::pipeline::Bed;
use crate::produce::{PATIENCE, now_us};

/// Which signals a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    Committed,
    Uncommitted,
}

impl Watched {
    pub const ALL: [Self; 2] = [Self::Committed, Self::Uncommitted];

    /// As clients call it.
    pub fn isolation(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

/// What a reader saw.
pub struct Seen {
    /// `read_committed` or `read_uncommitted`.
    pub isolation: &'static str,
    /// From the time a tick was due to the time its signal was read, in microseconds.
    pub latencies_us: Histogram<u64>,
    /// Signals of measured ticks.
    pub signals: u64,
    /// Signals that there should be.
    pub expected: u64,
    /// Signals that were seen more than once.
    pub doubled: u64,
}

/// A reader at work.
pub struct Reading {
    thread: JoinHandle<Seen>,
    sent: std::sync::mpsc::Sender<u64>,
}

impl Reading {
    /// Begins at the end of the topic. Ticks due from `measured_from` on are measured.
    pub fn start(bed: &Bed, watched: Watched, start_us: i64, measured_from: i64) -> Self {
        let isolation = watched.isolation();
        let consumer = consumer(bed, isolation, &[&bed.signals], Offset::End);
        let book = Arc::clone(&bed.book);
        let (sent, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let latencies_us = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
            let mut seen = Seen { isolation, latencies_us, signals: 0, expected: u64::MAX, doubled: 0 };
            let mut ids = BTreeSet::new();
            let mut last = Instant::now();
            while seen.signals < seen.expected {
                if let Ok(expected) = told.try_recv() {
                    seen.expected = expected;
                    last = Instant::now();
                }
                if seen.expected != u64::MAX && last.elapsed() > PATIENCE {
                    break;
                }
                // An error is a connection that is made anew.
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) else { continue };
                let read_us = now_us();
                let Ok(Record::Signal(signal)) = book.decode(message.payload().unwrap_or_default()) else {
                    panic!("no signal at {}-{}", message.partition(), message.offset());
                };
                let due_us = signal.event_time.as_micros();
                // Before the load: ticks by which it was seen that the pipeline runs.
                if due_us < start_us || due_us < measured_from {
                    continue;
                }
                last = Instant::now();
                if !ids.insert(signal.id.clone()) {
                    seen.doubled += 1;
                    continue;
                }
                seen.signals += 1;
                let latency = u64::try_from(read_us - due_us).unwrap_or(0);
                seen.latencies_us.saturating_record(latency.max(1));
            }
            seen
        });
        Self { thread, sent }
    }

    /// Waits until so many signals were seen.
    pub fn finish(self, signals: u64) -> Seen {
        let _ = self.sent.send(signals);
        self.thread.join().unwrap()
    }
}

/// A consumer of all partitions of topics, in no group.
pub fn consumer(bed: &Bed, isolation: &str, topics: &[&str], from: Offset) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &bed.bootstrap)
        .set("group.id", "bench")
        .set("isolation.level", isolation);
    config.set("enable.auto.commit", "false").set("fetch.wait.max.ms", "20");
    config.set("fetch.queue.backoff.ms", "5").set("socket.nagle.disable", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..bed.partitions {
            let partition = i32::try_from(partition).unwrap();
            // The end now, not when the first fetch arrives.
            let at = match from {
                Offset::End => {
                    Offset::Offset(consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap().1)
                }
                other => other,
            };
            list.add_partition_offset(topic, partition, at).unwrap();
        }
    }
    consumer.assign(&list).unwrap();
    consumer
}
