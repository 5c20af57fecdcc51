//! Transactions that the cluster forgot to end.
//!
//! Where a partition has no leader at the moment at which a transaction is ended, Apache Kafka takes it for deleted and never
//! says there that the transaction is over ("these partitions are likely deleted already", in the broker's log; seen with
//! 4.3.1, a single broker killed and started again). The coordinator knows of nothing open any more, so neither time-out nor
//! fencing helps, and nobody reads past it. But its producer's id is still that of the transactional.id: a new transaction
//! over the same partitions, aborted, ends there what the old one left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};
use tidewire_engine::log::{LogError, NewRecord, Scope};

use super::append::{self, send};
use super::client;
use super::context::{Delivered, Quiet};
use super::convert::{log_error, words};
use super::layouts::Layouts;
use super::options::KafkaOptions;
use super::positions::Positions;
use super::writer::{aborted, transactional};

/// How long the records that are aborted may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fences a writer, and ends what it left open wherever it may have written.
pub fn settle(
    options: &KafkaOptions,
    writer: &str,
    scope: &Scope,
    layouts: &Layouts,
) -> Result<(), LogError> {
    tracing::warn!(
        writer,
        partitions = scope.partitions.len(),
        "a transaction of an earlier writer is still open though it was fenced: the cluster forgot to end it; it is aborted \
         wherever that writer may have written"
    );
    let doing = || format!("ending what {writer} left open");
    let unavailable = |error: String| LogError::Unavailable { at: doing(), error };
    let producer = Arc::new(transactional(options, writer)?);
    let mut positions = Positions::of(&producer).map_err(|error| unavailable(error.to_string()))?;
    let deadline = Instant::now() + PATIENCE;
    producer.begin_transaction().map_err(|error| log_error(doing(), &error))?;
    let delivered = Arc::new(Delivered::default());
    // Compacted topics take no record without a key. None of these is ever seen.
    let record =
        NewRecord { key: Some(Bytes::from_static(b"-")), value: Some(Bytes::new()), ..NewRecord::default() };
    for at in &scope.partitions {
        let append_time = layouts.append_time(&at.topic)?;
        send(&producer, at, &record, append_time, &delivered, deadline)
            .map_err(|error| log_error(doing(), &error))?;
    }
    let settled = append::settle(&producer, deadline);
    let (_, _, refused) = delivered.get();
    // The group takes no position from one that is not its member. The transaction reaches its partition all the same.
    let config = options.reader(&scope.group, "read_committed");
    let consumer: BaseConsumer<Quiet> =
        client::make(&config, Quiet::of(options), options, &doing(), BaseConsumer::client)?;
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&scope.driving, 0, Offset::Offset(0))
        .map_err(|error| log_error(doing(), &error))?;
    if let Some(metadata) = consumer.group_metadata()
        && let Err(error) = positions.send(&Arc::new(list), &Arc::new(metadata))
    {
        tracing::debug!(writer, error = %words(&error), "as it should be, the group takes no position");
    }
    aborted(&producer).map_err(unavailable)?;
    match refused {
        Some(error) => Err(log_error(doing(), &error)),
        None if !settled => Err(unavailable("records were not confirmed in time".to_owned())),
        None => Ok(()),
    }
}
