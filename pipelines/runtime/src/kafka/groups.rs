//! Where groups stand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use smol_str::SmolStr;
use tidewire_engine::log::{CommittedOffset, LogError, TopicPartition};

use super::client;
use super::context::Quiet;
use super::convert::{log_error, number};
use super::options::KafkaOptions;

/// How long an answer may take while transactions are open.
const STABLE: Duration = Duration::from_millis(1_500);
/// How long an answer may take else.
const PATIENCE: Duration = Duration::from_secs(10);
/// A client that nobody used for so long is closed.
const IDLE: Duration = Duration::from_secs(20);

/// Clients by group and isolation: the library asks for positions of its own group alone.
pub struct Groups {
    options: KafkaOptions,
    clients: Mutex<BTreeMap<(SmolStr, &'static str), Client>>,
}

struct Client {
    consumer: Arc<BaseConsumer<Quiet>>,
    used: Instant,
}

impl Groups {
    /// No client yet.
    pub fn new(options: KafkaOptions) -> Self {
        Self { options, clients: Mutex::default() }
    }

    /// The position of a group. [`LogError::Unstable`] while a transaction that moves it is open.
    pub fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        let asked = self.ask(group, at, "read_committed", STABLE)?;
        let unstable = || LogError::Unstable { group: group.into(), at: at.clone() };
        match asked {
            Ok(found) => Ok(found),
            Err(error) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::UnstableOffsetCommit) => Err(unstable()),
                // The library asks again by itself while a transaction is open. If the cluster answers otherwise, it
                // is that.
                Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => {
                    self.committed_unstable(group, at)?;
                    Err(unstable())
                }
                _ => Err(self.failed(group, at, &error)),
            },
        }
    }

    /// The position of a group, transactions still open left out of account.
    pub fn committed_unstable(
        &self,
        group: &str,
        at: &TopicPartition,
    ) -> Result<Option<CommittedOffset>, LogError> {
        let asked = self.ask(group, at, "read_uncommitted", PATIENCE)?;
        asked.map_err(|error| self.failed(group, at, &error))
    }

    /// How many members a group has now.
    pub fn members(&self, group: &str) -> Result<usize, LogError> {
        let consumer = self.client(group, "read_uncommitted")?;
        let list = consumer.fetch_group_list(Some(group), PATIENCE);
        let list =
            list.map_err(|error| log_error(format!("asking for the members of group {group}"), &error))?;
        Ok(list
            .groups()
            .iter()
            .filter(|found| found.name() == group)
            .map(|found| found.members().len())
            .sum())
    }

    fn failed(&self, group: &str, at: &TopicPartition, error: &KafkaError) -> LogError {
        log_error(format!("asking for the position of group {group} in {at}"), error)
    }

    fn ask(
        &self,
        group: &str,
        at: &TopicPartition,
        isolation: &'static str,
        patience: Duration,
    ) -> Result<Result<Option<CommittedOffset>, KafkaError>, LogError> {
        let consumer = self.client(group, isolation)?;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&at.topic, number(at));
        let answer = match consumer.committed_offsets(list, patience) {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        let found = match answer.elements().first() {
            None => Ok(None),
            Some(element) => element.error().map(|()| match element.offset() {
                Offset::Offset(offset) => Some(CommittedOffset {
                    offset: u64::try_from(offset).unwrap_or(0),
                    metadata: element.metadata().to_owned(),
                }),
                _ => None,
            }),
        };
        Ok(found)
    }

    fn client(&self, group: &str, isolation: &'static str) -> Result<Arc<BaseConsumer<Quiet>>, LogError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|_, client| client.used.elapsed() < IDLE);
        let key = (SmolStr::new(group), isolation);
        if let Some(client) = clients.get_mut(&key) {
            client.used = Instant::now();
            return Ok(Arc::clone(&client.consumer));
        }
        let (config, doing) =
            (self.options.reader(group, isolation), format!("making a client for group {group}"));
        let quiet = Quiet::of(&self.options);
        let consumer: BaseConsumer<Quiet> =
            client::make(&config, quiet, &self.options, &doing, Consumer::client)?;
        let consumer = Arc::new(consumer);
        let client = Client { consumer: Arc::clone(&consumer), used: Instant::now() };
        clients.insert(key, client);
        Ok(consumer)
    }
}
