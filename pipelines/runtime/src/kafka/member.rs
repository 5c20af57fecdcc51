//! A worker's place in its group, and its transactions.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer};
use smol_str::SmolStr;
use tidewire_engine::log::{Assignment, CommitError, LogError, Member, Transaction};
use tidewire_engine::log_limits::{MAX_HEADERS, check_records};
use tidewire_engine::memory::Signal;

use super::client;
use super::context::{Placement, Places, Quiet};
use super::convert::{log_error, words};
use super::foreign::membership;
use super::layouts::Layouts;
use super::options::KafkaOptions;
use super::positions::Positions;
use super::writer::{Membership, Writer, WriterThread, transactional};

/// One member of a group with its writer.
pub struct KafkaMember {
    group: SmolStr,
    driving: SmolStr,
    /// Before the clients: its thread is waited for, and must not be the last to hold them.
    writer: WriterThread,
    consumer: Arc<BaseConsumer<Places>>,
    producer: Arc<BaseProducer<Quiet>>,
    layouts: Arc<Layouts>,
    /// Under which name and generation the tasks are held, as of the last look.
    known: Membership,
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
        let no_thread = |error| LogError::Store { at: doing(), error: format!("starting a thread: {error}") };
        let positions = Positions::of(&producer).map_err(no_thread)?;
        let (config, places) = (options.member(group), Places::new(options, signal));
        let consumer: BaseConsumer<Places> =
            client::make(&config, places, options, &doing(), Consumer::client)?;
        consumer.subscribe(&[driving]).map_err(|error| log_error(doing(), &error))?;
        let consumer = Arc::new(consumer);
        let writer = Writer {
            group: group.into(),
            name: writer.into(),
            consumer: Arc::clone(&consumer),
            positions,
            producer: Arc::clone(&producer),
            layouts: Arc::clone(layouts),
        };
        Ok(Self {
            group: group.into(),
            driving: driving.into(),
            writer: WriterThread::start(writer, signal).map_err(no_thread)?,
            consumer,
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

    fn begin(&mut self, transaction: Transaction) -> Result<(), CommitError> {
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
        self.writer.begin(transaction, now)
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
        match self.begin_commit(transaction) {
            Some(outcome) => outcome,
            None => {
                self.outcome(true).unwrap_or_else(|| Err(CommitError::Unknown("it did not end".to_owned())))
            }
        }
    }

    fn begin_commit(&mut self, transaction: Transaction) -> Option<Result<(), CommitError>> {
        self.begin(transaction).err().map(Err)
    }

    fn outcome(&mut self, wait: bool) -> Option<Result<(), CommitError>> {
        let outcome = self.writer.outcome(wait)?;
        if let Err(error) = &outcome {
            // The next look at the group is a fresh one.
            self.known = None;
            if let CommitError::Fenced(why) = error {
                self.is_fenced = Some(why.clone());
            }
        }
        Some(outcome)
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
