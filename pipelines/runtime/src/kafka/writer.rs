//! A writer's transactions, made on a thread of its own, so that its worker goes on meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use smol_str::SmolStr;
use tidewire_engine::log::{CommitError, LogError, Transaction};
use tidewire_engine::memory::Signal;

use super::append::{send, serve, settle};
use super::client;
use super::context::{Delivered, Places, Quiet};
use super::convert::{number, words};
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

/// A transaction of fewer records is small.
const SMALL_RECORDS: usize = 256;
/// The longest rest after one.
const MAX_REST: Duration = Duration::from_millis(10);
/// How much rest a writer may put off, for a few transactions that come at once after a pause.
const MAX_OWED: Duration = Duration::from_millis(40);

/// Under which name a member is known in its group, and the generation.
pub type Membership = Option<(String, u32)>;

/// How a transaction ended.
type Outcome = Result<(), CommitError>;

/// The thread of a writer. One transaction at a time.
pub struct WriterThread {
    /// None once it is to end.
    jobs: Option<SyncSender<(Transaction, Membership)>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl WriterThread {
    /// Starts it; each end of a transaction is told by `signal` too.
    pub fn start(mut writer: Writer, signal: &Arc<Signal>) -> std::io::Result<Self> {
        // One transaction at a time: neither side ever waits for room.
        let (jobs, asked) = sync_channel::<(Transaction, Membership)>(1);
        let (answer, outcomes) = sync_channel(1);
        let signal = Arc::clone(signal);
        let thread = std::thread::Builder::new().name("kafka-writer".to_owned()).spawn(move || {
            let (mut rests, mut ended) = (Rests::default(), Instant::now());
            while let Ok((transaction, known)) = asked.recv() {
                let begun = Instant::now();
                let outcome = writer.commit(&transaction, &known);
                if outcome.is_ok() {
                    let idle = begun.saturating_duration_since(ended);
                    std::thread::sleep(rests.after(&transaction, idle, begun.elapsed()));
                }
                ended = Instant::now();
                if answer.send(outcome).is_err() {
                    return;
                }
                signal.notify();
            }
        })?;
        Ok(Self { jobs: Some(jobs), outcomes, thread: Some(thread) })
    }

    /// Begins a transaction of a member that is known as `known`.
    pub fn begin(&self, transaction: Transaction, known: Membership) -> Result<(), CommitError> {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send((transaction, known)));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(gone()) }
    }

    /// How it ended; nothing while it goes on, unless `wait`.
    pub fn outcome(&self, wait: bool) -> Option<Outcome> {
        if wait {
            return Some(self.outcomes.recv().unwrap_or_else(|_| Err(gone())));
        }
        match self.outcomes.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(gone())),
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How long outcomes are kept back.
///
/// A small transaction costs the brokers as much as a large one. One after the other without a rest they take the
/// processors that reading and writing need, and what was measured is that latency grows by more than the rest. What arrives
/// meanwhile goes with the next. A few after a pause cost little: their rest is put off.
#[derive(Default)]
struct Rests {
    owed: Duration,
}

impl Rests {
    /// The rest after a transaction that took so long, and began so long after the one before had ended.
    fn after(&mut self, transaction: &Transaction, idle: Duration, took: Duration) -> Duration {
        self.owed = self.owed.saturating_sub(idle);
        let records: usize = transaction.appends.iter().map(|(_, records)| records.len()).sum();
        if records >= SMALL_RECORDS {
            return Duration::ZERO;
        }
        self.owed += took.min(MAX_REST);
        let rest = self.owed.saturating_sub(MAX_OWED).min(MAX_REST);
        self.owed -= rest;
        rest
    }
}

fn gone() -> CommitError {
    CommitError::Fenced("the thread of the writer ended".to_owned())
}

/// One transactional producer of a member of a group.
pub struct Writer {
    /// The group.
    pub group: SmolStr,
    /// The transactional.id.
    pub name: SmolStr,
    /// The member of the group.
    pub consumer: Arc<BaseConsumer<Places>>,
    /// Before the producer: its thread is waited for, and must not be the last to hold it.
    pub positions: Positions,
    /// The producer.
    pub producer: Arc<BaseProducer<Quiet>>,
    /// The topics it writes.
    pub layouts: Arc<Layouts>,
}

impl Writer {
    fn commit(&mut self, transaction: &Transaction, known: &Membership) -> Outcome {
        let failed = match self.write(transaction, known) {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        match failed {
            Failed::Writer(why) => Err(self.give_up(why)),
            Failed::Abort(why) => match aborted(&self.producer) {
                Ok(()) => {
                    tracing::info!(group = %self.group, writer = %self.name, %why, "a transaction was aborted");
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

    /// The writer can not go on: whether its last transaction was written, the log knows.
    fn give_up(&self, why: String) -> CommitError {
        tracing::warn!(group = %self.group, writer = %self.name, %why, "the writer is given up");
        CommitError::Fenced(why)
    }

    /// Adds the positions, produces, commits.
    ///
    /// Positions go first. The coordinator still ends the transaction before, and refuses the first request of the next
    /// one until then: that of positions is tried again after a moment, that of records after 20 ms, whatever is set.
    fn write(&mut self, transaction: &Transaction, known: &Membership) -> Result<(), Failed> {
        let deadline = Instant::now() + PATIENCE;
        self.producer.begin_transaction().map_err(Failed::of)?;
        if !transaction.offsets.is_empty() {
            self.send_offsets(transaction, known, deadline)?;
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

    fn send_offsets(
        &mut self,
        transaction: &Transaction,
        known: &Membership,
        deadline: Instant,
    ) -> Result<(), Failed> {
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
        if membership(&self.consumer) != *known {
            return Err(Failed::Abort("the group changed".to_owned()));
        }
        let (list, metadata) = (Arc::new(list), Arc::new(metadata));
        until(deadline, || self.positions.send(&list, &metadata))
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

#[cfg(test)]
mod tests {
    use tidewire_engine::log::{NewRecord, TopicPartition};

    use super::*;

    fn transaction(records: usize) -> Transaction {
        let record = NewRecord { timestamp_ms: 0, key: None, value: None, headers: Vec::new() };
        let halves = [records / 2, records - records / 2];
        let appends = (0..).zip(halves).map(|(partition, count)| {
            (TopicPartition::new("signals.v1", partition), vec![record.clone(); count])
        });
        Transaction { generation: 1, appends: appends.collect(), offsets: Vec::new() }
    }

    #[test]
    fn a_writer_rests_after_small_transactions_in_a_row_alone_and_never_long() {
        let (none, took) = (Duration::ZERO, Duration::from_millis(4));
        let small = transaction(SMALL_RECORDS - 1);
        let mut rests = Rests::default();
        let first: Vec<Duration> = (0..12).map(|_| rests.after(&small, none, took)).collect();
        assert_eq!(first[..10], [none; 10], "ten of 4 ms are put off");
        assert_eq!(first[10..], [took; 2]);
        assert_eq!(rests.after(&transaction(SMALL_RECORDS), none, took), none);
        assert_eq!(rests.after(&small, none, Duration::from_secs(2)), MAX_REST);
        // A pause pays what is owed.
        assert_eq!(rests.after(&small, MAX_OWED, took), none);
    }
}
