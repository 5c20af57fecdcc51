//! Ticks: a backlog as fast as it goes, or an open loop at a rate.
//!
//! In the open loop each tick has a time at which it is due, whether or not the one before is sent by then, and all
//! latency counts from there: a pipeline or a broker that stands still is measured, not waited for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tidewire_schemas::{EventTime, Quote, ReceivedTime};

use crate::pipeline::Bed;
use crate::produce::{self, PATIENCE};
use crate::readers::{Reading, Seen};

/// Instruments, spread over the partitions evenly.
const INSTRUMENTS: u64 = 64;

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

/// What was sent at a rate, and who reads what comes of it.
pub struct Sent {
    ticks: u64,
    readings: Vec<Reading>,
}

impl Sent {
    /// Waits for the last signals.
    pub fn finish(self) -> Vec<Seen> {
        let ticks = self.ticks;
        self.readings.into_iter().map(|reading| reading.finish(ticks)).collect()
    }
}

/// Sends `rate` ticks a second for `warm_up` and then for `span`; what is due in `span` is measured.
pub fn open_loop(bed: &Bed, rate: u64, warm_up: Duration, span: Duration) -> Sent {
    let producer = producer(bed);
    // Time for the readers to be in place before the first tick is due.
    let start_us = now_us() + 1_000_000;
    let measured_from = start_us + i64::try_from(warm_up.as_micros()).unwrap();
    let readings: Vec<Reading> = ["read_committed", "read_uncommitted"]
        .map(|isolation| Reading::start(bed, isolation, start_us, measured_from))
        .into();
    let total = rate * (warm_up + span).as_secs();
    let measured = rate * span.as_secs();
    let mut value = Vec::with_capacity(128);
    for number in 0..total {
        let due_us = start_us + i64::try_from(u128::from(number) * 1_000_000 / u128::from(rate)).unwrap();
        loop {
            let left = due_us - now_us();
            if left <= 0 {
                break;
            }
            producer.poll(Duration::ZERO);
            // Sleeps are late by some tens of microseconds: the rest is waited for actively.
            if left > 300 {
                std::thread::sleep(Duration::from_micros(u64::try_from(left - 200).unwrap()));
            } else {
                std::hint::spin_loop();
            }
        }
        send(bed, &producer, number, due_us, &mut value);
    }
    producer.flush(PATIENCE).unwrap();
    Sent { ticks: measured, readings }
}

/// Writes `count` ticks before anything reads them.
pub fn backlog(bed: &Bed, count: u64) {
    let producer = producer(bed);
    let mut value = Vec::with_capacity(128);
    let start_us = now_us();
    for number in 0..count {
        send(bed, &producer, number, start_us + i64::try_from(number).unwrap(), &mut value);
    }
    producer.flush(PATIENCE).unwrap();
}

/// One tick to each partition, of instruments of their own.
pub fn one_each(bed: &Bed) {
    let producer = producer(bed);
    let mut value = Vec::new();
    for partition in 0..u64::from(bed.partitions) {
        send(bed, &producer, partition, now_us(), &mut value);
    }
    producer.flush(PATIENCE).unwrap();
}

fn producer(bed: &Bed) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &bed.bootstrap).set("acks", "all").set("enable.idempotence", "true");
    config.set("linger.ms", "0").set("compression.type", "lz4").set("socket.nagle.disable", "true");
    config.set("queue.buffering.max.messages", "2000000");
    config.create().unwrap()
}

fn send(bed: &Bed, producer: &BaseProducer, number: u64, due_us: i64, value: &mut Vec<u8>) {
    let instrument = number % INSTRUMENTS;
    let key = format!("I{instrument:02}.BENCH");
    // In turn a larger bid and a larger offer: the rule turns round at each quote.
    let (bid, ask) = if (number / INSTRUMENTS).is_multiple_of(2) { ("9", "1") } else { ("1", "9") };
    let quote = Quote {
        instrument: key.as_str().into(),
        event_time: EventTime::from_micros(due_us),
        received_time: ReceivedTime::from_nanos(due_us * 1_000),
        update_id: i64::try_from(number).unwrap(),
        bid_price: "61234.5".parse().unwrap(),
        bid_quantity: bid.parse().unwrap(),
        ask_price: "61300.5".parse().unwrap(),
        ask_quantity: ask.parse().unwrap(),
        event_time_estimated: false,
    };
    value.clear();
    bed.book.encode_body(&quote, value).unwrap();
    let partition = i32::try_from(instrument % u64::from(bed.partitions)).unwrap();
    let record = BaseRecord::to(&bed.ticks)
        .partition(partition)
        .key(&key)
        .payload(value.as_slice())
        .timestamp(due_us / 1_000);
    produce::send(producer, record);
    if number.is_multiple_of(64) {
        producer.poll(Duration::ZERO);
    }
}
