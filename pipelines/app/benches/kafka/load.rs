//! Ticks: a backlog as fast as it goes, or an open loop at a rate.
//!
//! In the open loop each tick has a time at which it is due, whether or not the one before is sent by then, and all
//! latency counts from there: a pipeline or a broker that stands still is measured, not waited for.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tidewire_schemas::{EventTime, Quote, ReceivedTime};

use crate::pipeline::Bed;
use crate::produce::{self, PATIENCE, now_us};
use crate::readers::{Reading, Seen, Watched};

/// Instruments, spread over the partitions evenly.
pub const INSTRUMENTS: u64 = 64;

/// What was sent at a rate, and who reads what comes of it.
pub struct Sent {
    signals: u64,
    readings: Vec<Reading>,
}

impl Sent {
    /// Waits for the last signals.
    pub fn finish(self) -> Vec<Seen> {
        let signals = self.signals;
        self.readings.into_iter().map(|reading| reading.finish(signals)).collect()
    }
}

/// An open loop.
#[derive(Clone, Copy)]
pub struct Load {
    /// Ticks a second.
    pub rate: u64,
    pub warm_up: Duration,
    /// What is due in it is measured.
    pub span: Duration,
    /// Ticks of an instrument until its rule turns round, and so gives a signal.
    pub turns_after: u64,
    /// When the first tick is due: readers are in place by then.
    pub start_us: i64,
}

impl Load {
    /// Sends all ticks while readers look for their signals.
    pub fn send(&self, bed: &Bed, watched: &[Watched]) -> Sent {
        let producer = produce::of_ticks(&bed.bootstrap);
        let measured_from = self.start_us + i64::try_from(self.warm_up.as_micros()).unwrap();
        let readings = watched
            .iter()
            .map(|watched| Reading::start(bed, *watched, self.start_us, measured_from))
            .collect();
        let total = self.rate * (self.warm_up + self.span).as_secs();
        let (mut value, mut now, mut signals) = (Vec::with_capacity(128), now_us(), 0);
        for number in 0..total {
            let due_us = self.start_us
                + i64::try_from(u128::from(number) * 1_000_000 / u128::from(self.rate)).unwrap();
            produce::wait_for(&producer, due_us, &mut now);
            send(bed, &producer, number, self.turns_after, due_us, &mut value);
            signals += u64::from(due_us >= measured_from && gives_a_signal(number, self.turns_after));
        }
        producer.flush(PATIENCE).unwrap();
        Sent { signals, readings }
    }
}

/// Writes `count` ticks before anything reads them.
pub fn backlog(bed: &Bed, count: u64) {
    let producer = produce::of_ticks(&bed.bootstrap);
    let mut value = Vec::with_capacity(128);
    let start_us = now_us();
    for number in 0..count {
        send(bed, &producer, number, 1, start_us + i64::try_from(number).unwrap(), &mut value);
    }
    producer.flush(PATIENCE).unwrap();
}

/// One tick to each partition, of instruments of their own.
pub fn one_each(bed: &Bed) {
    let producer = produce::of_ticks(&bed.bootstrap);
    let mut value = Vec::new();
    for partition in 0..u64::from(bed.partitions) {
        send(bed, &producer, partition, 1, now_us(), &mut value);
    }
    producer.flush(PATIENCE).unwrap();
}

/// Id of an instrument by its number.
pub fn instrument(number: u64) -> String {
    format!("I{number:02}.BENCH")
}

/// How often the instrument of a tick has turned round by then: not all instruments at once.
fn turn(number: u64, turns_after: u64) -> u64 {
    (number / INSTRUMENTS + number % INSTRUMENTS) / turns_after
}

fn gives_a_signal(number: u64, turns_after: u64) -> bool {
    number < INSTRUMENTS || turn(number, turns_after) != turn(number - INSTRUMENTS, turns_after)
}

fn send(bed: &Bed, producer: &BaseProducer, number: u64, turns_after: u64, due_us: i64, value: &mut Vec<u8>) {
    let instrument = number % INSTRUMENTS;
    let key = self::instrument(instrument);
    // In turn a larger bid and a larger offer: between them the rule turns round.
    let (bid, ask) = if turn(number, turns_after).is_multiple_of(2) { ("9", "1") } else { ("1", "9") };
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
