//! Producing as the benches do it: records go on when the queue is full, and transactions of bare librdkafka.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// How long a start, a commit, or the next output may take.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Ticks are sent in stretches of so much, or as long as the brokers take to confirm one.
const STRETCH_US: i64 = 5_000;
/// Between two looks for confirmations.
const NAP: Duration = Duration::from_micros(200);

/// Hands a record over; waits while there is no room.
pub fn send<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
    producer: &BaseProducer,
    mut record: BaseRecord<'_, K, P>,
) {
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                serve(producer);
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
}

/// A producer of ticks. It waits for no company of a record: while it waits the client turns the processor through the last
/// millisecond, which broker and engines need. Under load batches form by themselves.
pub fn of_ticks(bootstrap: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("acks", "all").set("enable.idempotence", "true");
    config.set("linger.ms", "0").set("compression.type", "lz4").set("socket.nagle.disable", "true");
    config.set("queue.buffering.max.messages", "2000000");
    config.create().unwrap()
}

/// A producer of transactions under that name, with what a worker's own has set.
pub fn transactional(bootstrap: &str, name: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("transactional.id", name);
    config.set("compression.type", "lz4").set("linger.ms", "0").set("socket.nagle.disable", "true");
    config.set("queue.buffering.max.messages", "1000000");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

/// Commits. The library's commit would wait for confirmations too, but in steps of a tenth of a second.
pub fn commit(producer: &BaseProducer) {
    settle(producer);
    producer.commit_transaction(PATIENCE).unwrap();
}

/// Waits until `due_us`, if it has not come by `now`, and to the end of a stretch: all that falls due in it is sent at once. To
/// wake for each tick would take the processors that others need, and so would a client with more requests on the way than it
/// may have: it turns its processor until one is answered. So the next stretch is sent when the one before was confirmed.
/// Times are in microseconds since 1970.
pub fn wait_for(producer: &BaseProducer, due_us: i64, now: &mut i64) {
    while *now < due_us {
        let until = now_us().max(due_us) + STRETCH_US;
        std::thread::sleep(Duration::from_micros(u64::try_from(until - now_us()).unwrap_or(0)));
        settle(producer);
        *now = now_us();
    }
}

/// Waits until everything that was sent is confirmed.
fn settle(producer: &BaseProducer) {
    while producer.in_flight_count() > 0 {
        serve(producer);
    }
}

/// Takes what was confirmed, and rests. The wrapper's own wait turns the processor through the last millisecond, which broker
/// and engines need.
fn serve(producer: &BaseProducer) {
    producer.poll(Duration::ZERO);
    std::thread::sleep(NAP);
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}
