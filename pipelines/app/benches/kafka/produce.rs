//! Producing as the benches do it: records go on when the queue is full, and transactions of bare librdkafka.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// How long a start, a commit, or the next output may take.
pub const PATIENCE: Duration = Duration::from_secs(180);

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
                producer.poll(Duration::ZERO);
                std::thread::sleep(Duration::from_micros(200));
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
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
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::ZERO);
        // The wrapper's own wait turns the processor through the last millisecond, which broker and engines need.
        std::thread::sleep(Duration::from_micros(200));
    }
    producer.commit_transaction(PATIENCE).unwrap();
}
