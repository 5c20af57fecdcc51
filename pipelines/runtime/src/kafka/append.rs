//! Appending outside any group.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use tidewire_engine::log::{LogError, NewRecord, TopicPartition};

use super::client;
use super::context::{Delivered, Quiet};
use super::convert::{log_error, to_send};
use super::options::KafkaOptions;

/// How long a broker may take to write what was appended.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long to sleep while nothing came back yet.
const NAP: Duration = Duration::from_micros(400);

/// An idempotent producer, made when it is first needed.
pub struct Appender {
    options: KafkaOptions,
    producer: Mutex<Option<Arc<BaseProducer<Quiet>>>>,
}

impl Appender {
    /// No producer yet.
    pub fn new(options: KafkaOptions) -> Self {
        Self { options, producer: Mutex::new(None) }
    }

    /// Writes records in order and waits until all replicas that must have them do; returns the least offset. Each
    /// record is written once, but if the cluster goes away meanwhile, only the first of them may be there.
    pub fn append(
        &self,
        at: &TopicPartition,
        records: &[NewRecord],
        append_time: bool,
    ) -> Result<u64, LogError> {
        let producer = self.producer()?;
        let delivered = Arc::new(Delivered::default());
        let doing = || format!("appending {} records to {at}", records.len());
        let begun = Instant::now();
        for record in records {
            send(&producer, at, record, append_time, &delivered, begun + PATIENCE)
                .map_err(|error| log_error(doing(), &error))?;
        }
        loop {
            let (count, least, error) = delivered.get();
            if let Some(error) = error {
                return Err(log_error(doing(), &error));
            }
            if count == records.len() {
                return Ok(least.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0));
            }
            if begun.elapsed() > PATIENCE {
                let error = format!("{count} of them were confirmed");
                return Err(LogError::Unavailable { at: doing(), error });
            }
            if !serve(&producer) {
                std::thread::sleep(NAP);
            }
        }
    }

    fn producer(&self) -> Result<Arc<BaseProducer<Quiet>>, LogError> {
        let mut kept = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        // One that can not go on is replaced.
        if let Some(producer) = kept.as_ref().filter(|producer| producer.client().fatal_error().is_none()) {
            return Ok(Arc::clone(producer));
        }
        let options = &self.options;
        let made: BaseProducer<Quiet> = client::make(
            &options.producer(),
            Quiet::of(options),
            options,
            "making a producer",
            Producer::client,
        )?;
        let made = Arc::new(made);
        *kept = Some(Arc::clone(&made));
        Ok(made)
    }
}

/// Hands a record to the library. Waits while its queue is full, until `deadline`.
pub fn send(
    producer: &BaseProducer<Quiet>,
    at: &TopicPartition,
    record: &NewRecord,
    append_time: bool,
    delivered: &Arc<Delivered>,
    deadline: Instant,
) -> Result<(), KafkaError> {
    let mut to_go = to_send(at, record, append_time, Arc::clone(delivered));
    loop {
        match producer.send(to_go) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                if Instant::now() < deadline =>
            {
                to_go = back;
                if !serve(producer) {
                    std::thread::sleep(NAP);
                }
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Takes confirmations that have come. Returns whether there were any.
pub fn serve(producer: &BaseProducer<Quiet>) -> bool {
    let before = producer.in_flight_count();
    producer.poll(Duration::ZERO);
    producer.in_flight_count() < before
}

/// Waits until everything that was sent is confirmed or refused.
pub fn settle(producer: &BaseProducer<Quiet>, deadline: Instant) -> bool {
    while producer.in_flight_count() > 0 {
        if Instant::now() >= deadline {
            return false;
        }
        if !serve(producer) {
            std::thread::sleep(NAP);
        }
    }
    true
}
