//! Positions put into a transaction, within a time that holds.
//!
//! librdkafka's call for it comes back when it likes: where the group's coordinator left the cluster meanwhile, it waits for a
//! broker that is no longer there (confluentinc/librdkafka issues 5456 and 5511). So a thread of its own calls, and is left
//! behind with the writer if it does not come back. Whoever joins under the writer's name next fences it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::context::Quiet;

/// How long the library is told to try.
const CALL: Duration = Duration::from_secs(5);
/// How long it may take all the same.
const PATIENCE: Duration = Duration::from_secs(8);

/// Positions, and the member of the group they are of.
type Request = (Arc<TopicPartitionList>, Arc<ConsumerGroupMetadata>);

/// Puts positions into the transactions of one writer.
pub struct Positions {
    /// None once the thread did not come back.
    requests: Option<SyncSender<Request>>,
    answers: Receiver<Result<(), KafkaError>>,
    thread: Option<JoinHandle<()>>,
}

impl Positions {
    /// Starts the thread.
    pub fn of(producer: &Arc<BaseProducer<Quiet>>) -> std::io::Result<Self> {
        // One call at a time: neither side ever waits for room.
        let (requests, asked) = sync_channel::<Request>(1);
        let (answer, answers) = sync_channel(1);
        let producer = Arc::clone(producer);
        let thread = std::thread::Builder::new().name("kafka-positions".to_owned()).spawn(move || {
            while let Ok((list, metadata)) = asked.recv() {
                if answer.send(producer.send_offsets_to_transaction(&list, &metadata, CALL)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests: Some(requests), answers, thread: Some(thread) })
    }

    /// Puts positions into the open transaction.
    ///
    /// # Errors
    /// [`KafkaError::Canceled`] when the library did not come back; then the writer is lost. Else what the library says.
    pub fn send(
        &mut self,
        list: &Arc<TopicPartitionList>,
        metadata: &Arc<ConsumerGroupMetadata>,
    ) -> Result<(), KafkaError> {
        let requests = self.requests.as_ref().ok_or(KafkaError::Canceled)?;
        requests.send((Arc::clone(list), Arc::clone(metadata))).map_err(|_| KafkaError::Canceled)?;
        self.answers.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            // Whoever drops this must not wait for it either.
            (self.requests, self.thread) = (None, None);
            Err(KafkaError::Canceled)
        })
    }
}

impl Drop for Positions {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
