//! Latency of two stages beside the broker's own: from a tick to its signal, from a tick to its order, and, at the same time
//! on the same broker, what a transaction with a single record takes without any engine.
//!
//! One tick in `TICKS_A_SIGNAL` turns its instrument's rule round, which gives a signal, an intent and an order that passes all
//! checks. Nothing fills the orders: there is no venue.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::Offset;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, Producer as _};
use tidewire_engine::log::{Log as _, NewRecord, TopicPartition, TopicSpec};
use tidewire_schemas::{AssetClass, Instrument, OrderStatus, Record};
use tidewire_tests::unique;

use crate::cluster::Cluster;
use crate::load::{self, INSTRUMENTS};
use crate::pipeline::{Bed, Running, signals_stage};
use crate::produce::{self, now_us};
use crate::readers::{Watched, consumer};

/// Ticks of an instrument between two that give a signal.
const TICKS_A_SIGNAL: u64 = 100;
/// A transaction of the broker's own is made so often.
const PROBE_EVERY: Duration = Duration::from_millis(100);
const ACCOUNTS: [&str; 4] = ["bench-a", "bench-b", "bench-c", "bench-d"];

/// Latencies in microseconds.
pub struct TwoStages {
    pub rate: u64,
    /// From the beginning of a transaction with one record to the return of its commit.
    pub commit_us: Histogram<u64>,
    pub signal_us: Histogram<u64>,
    pub order_us: Histogram<u64>,
    /// Orders that did not pass the checks.
    pub refused: u64,
}

impl TwoStages {
    /// What was measured, by name.
    pub fn rows(&self) -> [(&'static str, &Histogram<u64>); 3] {
        [
            ("the broker's own commit", &self.commit_us),
            ("tick to signal", &self.signal_us),
            ("tick to order", &self.order_us),
        ]
    }
}

/// Runs both stages at `rate` ticks a second, for `warm_up` and then for `span`.
pub fn at(
    cluster: &Cluster,
    rate: u64,
    [warm_up, span]: [Duration; 2],
    partitions: u32,
    workers: u64,
) -> TwoStages {
    let bed =
        Bed::of(cluster, "orders", partitions, |names| format!("{}{}", signals_stage(names), orders_stage()));
    write_instruments(&bed);
    let running = Running::start(&bed, workers);
    bed.wait_until_it_runs();
    let done = AtomicBool::new(false);
    let reader = consumer(&bed, "read_committed", &["intents.v1", "orders.v1"], Offset::End);
    let start_us = now_us() + 1_000_000;
    let measured_from = start_us + i64::try_from(warm_up.as_micros()).unwrap();
    std::thread::scope(|scope| {
        let probe = scope.spawn(|| probe(&bed, measured_from, &done));
        let orders = scope.spawn(|| orders(&bed, &reader, measured_from, &done));
        let signals = load::Load { rate, warm_up, span, turns_after: TICKS_A_SIGNAL, start_us };
        let sent = signals.send(&bed, &[Watched::Committed]);
        let seen = sent.finish();
        // An order is one more commit away than its signal.
        std::thread::sleep(Duration::from_secs(2));
        done.store(true, Ordering::SeqCst);
        let (order_us, refused) = orders.join().unwrap();
        let commit_us = probe.join().unwrap();
        running.stop();
        TwoStages { rate, commit_us, signal_us: seen[0].latencies_us.clone(), order_us, refused }
    })
}

/// Transactions of one record, one after the other with a rest between.
fn probe(bed: &Bed, measured_from: i64, done: &AtomicBool) -> Histogram<u64> {
    let topic = unique("probe");
    bed.log.create_topic(&TopicSpec::new(topic.as_str(), 1)).unwrap();
    let producer = produce::transactional(&bed.bootstrap, &topic);
    let mut took = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
    while !done.load(Ordering::SeqCst) {
        let begun = Instant::now();
        producer.begin_transaction().unwrap();
        produce::send(&producer, BaseRecord::to(&topic).partition(0).key("key").payload("value"));
        produce::commit(&producer);
        if now_us() > measured_from {
            took.saturating_record(u64::try_from(begun.elapsed().as_micros()).unwrap().max(1));
        }
        std::thread::sleep(PROBE_EVERY.saturating_sub(begun.elapsed()));
    }
    took
}

/// From the time at which a tick was due, which its intent bears, to its order in the hands of a committed reader.
fn orders(
    bed: &Bed,
    reader: &rdkafka::consumer::BaseConsumer,
    measured_from: i64,
    done: &AtomicBool,
) -> (Histogram<u64>, u64) {
    let mut latencies = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
    let (mut due, mut early, mut refused) = (BTreeMap::new(), BTreeMap::new(), 0);
    let mut note = |due_us: i64, read_us: i64| {
        if due_us >= measured_from {
            latencies.saturating_record(u64::try_from(read_us - due_us).unwrap_or(0).max(1));
        }
    };
    while !done.load(Ordering::SeqCst) {
        // An error is a connection that is made anew.
        let Some(Ok(message)) = reader.poll(Duration::from_millis(5)) else { continue };
        let read_us = now_us();
        // Two partitions are two streams: an order may be read before its intent.
        match bed.book.decode(message.payload().unwrap_or_default()).unwrap() {
            Record::OrderIntent(intent) => {
                let due_us = intent.event_time.as_micros();
                match early.remove(&intent.id) {
                    Some(read_us) => note(due_us, read_us),
                    None => drop(due.insert(intent.id, due_us)),
                }
            }
            Record::Order(order) if order.status == OrderStatus::PendingNew => {
                match due.remove(&order.intent_id) {
                    Some(due_us) => note(due_us, read_us),
                    None => drop(early.insert(order.intent_id, read_us)),
                }
            }
            Record::Order(_) => refused += 1,
            _ => {}
        }
    }
    (latencies, refused)
}

fn write_instruments(bed: &Bed) {
    bed.create_topics();
    let at = TopicPartition::new(tidewire_schemas::topics::INSTRUMENTS, 0);
    let records = (0..INSTRUMENTS).map(|number| {
        let id = load::instrument(number);
        let described = Instrument {
            instrument: id.as_str().into(),
            symbol: id.trim_end_matches(".BENCH").into(),
            venue: "BENCH".into(),
            asset_class: AssetClass::Perpetual,
            base: "BASE".into(),
            quote: "USD".into(),
            settle: "USD".into(),
            contract_multiplier: "1".parse().unwrap(),
            lot_size: "1".parse().unwrap(),
            ..Instrument::default()
        };
        let mut value = Vec::new();
        bed.book.encode(&Record::from(described), &mut value).unwrap();
        NewRecord {
            timestamp_ms: now_us() / 1_000,
            key: Some(id.into()),
            value: Some(value.into()),
            ..NewRecord::default()
        }
    });
    bed.log.append(&at, records.collect()).unwrap();
}

/// Intents of the first stage, and the second.
fn orders_stage() -> String {
    // Accounts share the instruments, so that orders lie in several partitions.
    let accounts = ACCOUNTS.map(|account| format!("\"{account}\"")).join(", ");
    let limits = ACCOUNTS.map(|account| {
        format!("[[risk.limit]]\naccount = \"{account}\"\nmax_order_value = 1_000_000_000\nmax_intent_age_ms = 600_000\n")
    });
    format!(
        r#"
        [[stage.input]]
        id = "instruments"
        topic = "reference.instruments.v1"
        role = "broadcast"

        [[stage.operator]]
        id = "wants"
        type = "intents"
        from = ["rule", "ticks", "instruments"]
        accounts = [{accounts}]
        quantity = "1"

        [[stage.operator]]
        id = "mark"
        type = "marks"
        from = ["ticks"]
        min_interval_ms = 1_000

        [[stage.output]]
        topic = "intents.v1"
        from = ["wants"]

        [[stage.output]]
        topic = "marks.v1"
        from = ["mark"]

        [[stage.output]]
        topic = "alerts.v1"
        from = ["wants"]

        [[stage]]
        name = "risk"

        [[stage.input]]
        id = "intents"
        topic = "intents.v1"
        role = "driving"

        [[stage.input]]
        id = "executions"
        topic = "executions.v1"
        role = "keyed"

        [[stage.input]]
        id = "marks"
        topic = "marks.v1"
        role = "broadcast"

        [[stage.input]]
        id = "instruments"
        topic = "reference.instruments.v1"
        role = "broadcast"

        [[stage.input]]
        id = "limits"
        topic = "risk.limits.v1"
        role = "control"

        [[stage.input]]
        id = "commands"
        topic = "control.v1"
        role = "control"

        [[stage.operator]]
        id = "orders"
        type = "risk_orders"
        from = ["intents", "executions", "marks", "instruments", "limits", "commands"]

        [[stage.output]]
        topic = "risk.decisions.v1"
        from = ["orders"]

        [[stage.output]]
        topic = "orders.v1"
        from = ["orders"]

        [[stage.output]]
        topic = "venue.commands.v1"
        from = ["orders"]

        [[stage.output]]
        topic = "positions.v1"
        from = ["orders"]

        [[stage.output]]
        topic = "cash.v1"
        from = ["orders"]

        [[stage.output]]
        topic = "alerts.v1"
        from = ["orders"]

        {}
        "#,
        limits.join("\n")
    )
}
