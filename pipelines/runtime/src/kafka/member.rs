//! A worker's place in its group, and its transactions.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use smol_str::SmolStr;
use tidewire_engine::log::{Assignment, CommitError, LogError, Member, Transaction};
use tidewire_engine::log_limits::{MAX_HEADERS, check_records};
use tidewire_engine::memory::Signal;

use super::append::{send, serve, settle};
use super::client;
use super::context::{Delivered, Placement, Places, Quiet};
use super::convert::{log_error, number, words};
use super::foreign::membership;
use super::layouts::Layouts;
use super::options::KafkaOptions;
use super::positions::Positions;

/// How long the library is given for one call; then it is asked again.
const CALL: Duration = Duration::from_secs(5);
/// How long the library is given for one call of an abort.
const ABORT_CALL: Duration = Duration::from_millis(100);
/// How long one step of a transaction is tried before the writer is given up.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long joining may take: an older writer of the same name may have left a transaction open.
const JOINING: Duration = Duration::from_secs(30);

/// One member of a group with its writer.
pub struct KafkaMember {
    group: SmolStr,
    writer: SmolStr,
    driving: SmolStr,
    consumer: Arc<BaseConsumer<Places>>,
    /// Before the producer: its thread is waited for, and must not be the last to hold it.
    positions: Positions,
    producer: Arc<BaseProducer<Quiet>>,
    layouts: Arc<Layouts>,
    /// Under which name and generation the tasks are held, as of the last look.
    known: Option<(String, u32)>,
    /// What `known` was looked up after.
    seen_changes: Option<u64>,
    /// Tasks given back so far out of those asked back; they are given up together.
    given_back: Vec<i32>,
    is_fenced: Option<String>,
}

impl KafkaMember {
    /// Fences older writers of that name, then joins.
    pub fn join(
        options: &KafkaOptions,
        group: &str,
        writer: &str,
        driving: &str,
        layouts: &Arc<Layouts>,
        signal: &Arc<Signal>,
    ) -> Result<Self, LogError> {
        let producer = Arc::new(transactional(options, writer)?);
        let doing = || format!("joining group {group} as {writer}");
        let positions = Positions::of(&producer)
            .map_err(|error| LogError::Store { at: doing(), error: format!("starting a thread: {error}") })?;
        let (config, places) = (options.member(group), Places::new(options, signal));
        let consumer: BaseConsumer<Places> =
            client::make(&config, places, options, &doing(), Consumer::client)?;
        consumer.subscribe(&[driving]).map_err(|error| log_error(doing(), &error))?;
        Ok(Self {
            group: group.into(),
            writer: writer.into(),
            driving: driving.into(),
            consumer: Arc::new(consumer),
            positions,
            producer,
            layouts: Arc::clone(layouts),
            known: None,
            seen_changes: None,
            given_back: Vec::new(),
            is_fenced: None,
        })
    }

    fn placement(&self) -> MutexGuard<'_, Placement> {
        self.consumer.context().placement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the positions, produces, commits.
    ///
    /// Positions go first. The coordinator still ends the transaction before, and refuses the first request of the next
    /// one until then: that of positions is tried again after a moment, that of records after 20 ms, whatever is set.
    fn write(&mut self, transaction: &Transaction) -> Result<(), Failed> {
        let deadline = Instant::now() + PATIENCE;
        self.producer.begin_transaction().map_err(Failed::of)?;
        if !transaction.offsets.is_empty() {
            self.send_offsets(transaction, deadline)?;
        }
        let delivered = Arc::new(Delivered::default());
        for (at, records) in &transaction.appends {
            let append_time = self.layouts.append_time(&at.topic).map_err(Failed::Log)?;
            for record in records {
                send(&self.producer, at, record, append_time, &delivered, deadline).map_err(Failed::of)?;
            }
        }
        if !settle(&self.producer, deadline) {
            return Err(Failed::Writer("records were not confirmed in time".to_owned()));
        }
        // The abort that a refused record asks for would come at the commit too, but then without its reason.
        if let (_, _, Some(error)) = delivered.get() {
            return Err(Failed::of_record(&error));
        }
        until(deadline, || self.producer.commit_transaction(CALL))
    }

    fn send_offsets(&mut self, transaction: &Transaction, deadline: Instant) -> Result<(), Failed> {
        let mut list = TopicPartitionList::with_capacity(transaction.offsets.len());
        for (at, committed) in &transaction.offsets {
            let offset = Offset::Offset(i64::try_from(committed.offset).unwrap_or(i64::MAX));
            list.add_partition_offset(&at.topic, number(at), offset).map_err(Failed::of)?;
            if let Some(mut element) = list.find_partition(&at.topic, number(at)) {
                element.set_metadata(&committed.metadata);
            }
        }
        let Some(metadata) = self.consumer.group_metadata() else {
            return Err(Failed::Abort("the member is in no group".to_owned()));
        };
        // What is sent must be of the generation that was looked at: the group may have changed since.
        if membership(&self.consumer) != self.known {
            return Err(Failed::Abort("the group changed".to_owned()));
        }
        let (list, metadata) = (Arc::new(list), Arc::new(metadata));
        until(deadline, || self.positions.send(&list, &metadata))
    }

    /// The writer can not go on: whether its last transaction was written, the log knows.
    fn give_up(&mut self, why: String) -> CommitError {
        tracing::warn!(group = %self.group, writer = %self.writer, %why, "the writer is given up");
        self.is_fenced = Some(why.clone());
        CommitError::Fenced(why)
    }

    fn check(&self, transaction: &Transaction) -> Result<(), LogError> {
        for (at, records) in &transaction.appends {
            check_records(at, self.layouts.is_compacted(&at.topic)?, records)?;
            // The time of a record on a compacted topic takes a header of its own.
            if let Some(record) = records.iter().find(|record| record.headers.len() >= MAX_HEADERS) {
                let count = record.headers.len();
                return Err(LogError::Invalid(format!("a record for {at} has {count} headers")));
            }
        }
        Ok(())
    }
}

impl Member for KafkaMember {
    fn poll(&mut self) -> Result<Assignment, LogError> {
        if let Some(why) = &self.is_fenced {
            return Err(LogError::Fenced(why.clone()));
        }
        while let Some(polled) = self.consumer.poll(Duration::ZERO) {
            let Err(error) = polled else { continue };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                    return Err(LogError::UnknownTopic(self.driving.clone()));
                }
                Some(
                    RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed,
                ) => return Err(log_error(format!("group {}", self.group), &error)),
                Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId) => {
                    return Err(LogError::Fenced(words(&error)));
                }
                // Time-outs and brokers that are away: the library goes on by itself.
                _ => tracing::debug!(group = %self.group, error = %words(&error), "group"),
            }
        }
        if let Some((code, words)) = self.producer.client().fatal_error() {
            return Err(LogError::Fenced(format!("{code}: {words}")));
        }
        let changes = self.placement().changes;
        if self.known.is_none() || self.seen_changes != Some(changes) {
            self.known = membership(&self.consumer);
            self.seen_changes = Some(changes);
        }
        // Who is out of the group has nothing to flush any more. What was asked back before must be given up all the same:
        // the library waits for it before it joins again.
        if self.known.is_none() || self.consumer.assignment_lost() {
            self.give_up_asked_back()?;
        }
        let Some((_, generation)) = &self.known else { return Ok(Assignment::default()) };
        let placement = self.placement();
        let not_given = |partition: &&i32| !self.given_back.contains(partition);
        let tasks = |partitions: &[i32]| -> Vec<u32> {
            let mut tasks: Vec<u32> = partitions
                .iter()
                .filter(not_given)
                .filter_map(|partition| u32::try_from(*partition).ok())
                .collect();
            tasks.sort_unstable();
            tasks
        };
        Ok(Assignment {
            generation: *generation,
            tasks: tasks(&placement.held),
            revoking: tasks(&placement.asked_back),
        })
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        if let Some(why) = &self.is_fenced {
            return Err(CommitError::Fenced(why.clone()));
        }
        self.check(&transaction)?;
        let now = membership(&self.consumer);
        let same = now.as_ref().is_some_and(|(_, generation)| *generation == transaction.generation);
        if now != self.known || !same {
            self.known = None;
            return Err(CommitError::Aborted("the group has another generation".to_owned()));
        }
        let failed = match self.write(&transaction) {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        // The next look at the group is a fresh one.
        self.known = None;
        match failed {
            Failed::Writer(why) => Err(self.give_up(why)),
            Failed::Abort(why) => match aborted(&self.producer) {
                Ok(()) => {
                    tracing::info!(group = %self.group, writer = %self.writer, %why, "a transaction was aborted");
                    Err(CommitError::Aborted(why))
                }
                Err(error) => Err(self.give_up(format!("{why}; the abort failed: {error}"))),
            },
            Failed::Log(error) => match aborted(&self.producer) {
                Ok(()) => Err(CommitError::Log(error)),
                Err(words) => Err(self.give_up(format!("{error}; the abort failed: {words}"))),
            },
        }
    }

    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError> {
        let given: Vec<i32> = {
            let placement = self.placement();
            let given = tasks.iter().filter_map(|task| i32::try_from(*task).ok());
            given.filter(|partition| placement.asked_back.contains(partition)).collect()
        };
        self.given_back.extend(given);
        let all = self.placement().asked_back.iter().all(|partition| self.given_back.contains(partition));
        if all { self.give_up_asked_back() } else { Ok(()) }
    }

    fn leave(self: Box<Self>) -> Result<(), LogError> {
        Ok(())
    }
}

impl KafkaMember {
    /// Gives up all that was asked back, as the library wants it: in one call.
    fn give_up_asked_back(&mut self) -> Result<(), LogError> {
        let mut placement = self.placement();
        if placement.asked_back.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(placement.asked_back.len());
        for partition in &placement.asked_back {
            list.add_partition(&self.driving, *partition);
        }
        let gone = std::mem::take(&mut placement.asked_back);
        placement.held.retain(|partition| !gone.contains(partition));
        placement.changes += 1;
        drop(placement);
        self.given_back.clear();
        let doing = || format!("giving tasks of group {} back", self.group);
        self.consumer.incremental_unassign(&list).map_err(|error| log_error(doing(), &error))
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        // The consumer leaves the group when it is dropped; nothing is held back any more.
        self.consumer.context().leaves.store(true, Ordering::SeqCst);
        if let Err(error) = self.give_up_asked_back() {
            tracing::debug!(group = %self.group, %error, "leaving");
        }
    }
}

/// A producer of that name, every earlier one fenced and what it left open aborted.
pub fn transactional(options: &KafkaOptions, writer: &str) -> Result<BaseProducer<Quiet>, LogError> {
    let doing = || format!("starting transactions of {writer}");
    let (config, quiet) = (options.transactional(writer), Quiet::of(options));
    let producer: BaseProducer<Quiet> = client::make(&config, quiet, options, &doing(), Producer::client)?;
    until(Instant::now() + JOINING, || producer.init_transactions(CALL)).map_err(|failed| match failed {
        Failed::Log(error) => error,
        Failed::Writer(why) | Failed::Abort(why) => {
            let trouble = producer.context().trouble().map(|words| format!(": {words}")).unwrap_or_default();
            LogError::Unavailable { at: doing(), error: format!("{why}{trouble}") }
        }
    })?;
    Ok(producer)
}

/// Aborts the open transaction; how that failed, if it did.
pub fn aborted(producer: &BaseProducer<Quiet>) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    // The library waits until everything it took is confirmed or refused, but that is taken from it by this thread
    // alone: so it is asked for short times, and served between.
    let aborted = until(deadline, || {
        while serve(producer) {}
        producer.abort_transaction(ABORT_CALL)
    });
    aborted.map_err(Failed::words)?;
    settle(producer, deadline);
    Ok(())
}

/// How a step of a transaction failed.
enum Failed {
    /// The transaction is to be aborted; then the writer goes on.
    Abort(String),
    /// The writer can not go on.
    Writer(String),
    /// The call itself was wrong; the transaction is to be aborted.
    Log(LogError),
}

impl Failed {
    fn of(error: KafkaError) -> Self {
        match &error {
            KafkaError::Transaction(inner) => Self::of_transaction(inner),
            KafkaError::MessageProduction(RDKafkaErrorCode::Fatal) => Self::Writer(words(&error)),
            KafkaError::Canceled => Self::Writer("the library did not put the positions in".to_owned()),
            KafkaError::MessageProduction(
                RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition,
            ) => Self::Log(LogError::Invalid(words(&error))),
            _ => Self::Abort(words(&error)),
        }
    }

    /// Of a record that the broker did not take.
    fn of_record(error: &KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            // Sent again these would be refused again, without end.
            Some(
                Code::InvalidMessage
                | Code::InvalidMessageSize
                | Code::MessageSizeTooLarge
                | Code::InvalidTimestamp
                | Code::InvalidRecord
                | Code::PolicyViolation
                | Code::TopicAuthorizationFailed
                | Code::UnsupportedForMessageFormat,
            ) => Self::Log(LogError::Store {
                at: "a record of a transaction was refused".to_owned(),
                error: words(error),
            }),
            _ => Self::Abort(words(error)),
        }
    }

    fn of_transaction(error: &RDKafkaError) -> Self {
        if error.is_fatal() { Self::Writer(error.string()) } else { Self::Abort(error.string()) }
    }

    fn words(self) -> String {
        match self {
            Self::Abort(why) | Self::Writer(why) => why,
            Self::Log(error) => error.to_string(),
        }
    }
}

/// Calls again what may be called again, until `deadline`.
fn until(deadline: Instant, mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), Failed> {
    loop {
        let error = match call() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let again = match &error {
            KafkaError::Transaction(inner) => {
                inner.is_retriable() && !inner.is_fatal() && !inner.txn_requires_abort()
            }
            KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => true,
            _ => false,
        };
        if !again {
            return Err(Failed::of(error));
        }
        if Instant::now() >= deadline {
            return Err(Failed::Writer(words(&error)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
