//! Kafka as the log: groups place the tasks, transactions make a commit one step.
//!
//! | file | what |
//! | --- | --- |
//! | `options.rs` | how a cluster is reached, and the settings of every client |
//! | `reader.rs` | partitions read ahead, from several places at once |
//! | `ends.rs` | where partitions end, as the brokers just said |
//! | `member.rs` | a worker's place in its group, and its transactions |
//! | `positions.rs` | positions put into a transaction, within a time that holds |
//! | `hanging.rs` | transactions that the cluster forgot to end |
//! | `append.rs` | appending outside any group |
//! | `admin.rs`, `layouts.rs` | topics |
//! | `groups.rs` | where groups stand |
//! | `client.rs` | how clients are made |
//! | `context.rs`, `token.rs` | what the library calls back, and tokens |
//! | `convert.rs` | records and errors |
//! | `foreign.rs` | what the library's wrapper lacks |

mod admin;
mod append;
mod client;
mod context;
mod convert;
mod ends;
mod foreign;
mod groups;
mod hanging;
mod layouts;
mod member;
mod options;
mod positions;
mod reader;
mod token;
mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use smol_str::SmolStr;
use tidewire_engine::log::{
    Bounds, CommittedOffset, Fetched, Log, LogError, Member, NewRecord, Scope, TopicPartition, TopicSpec,
};
use tidewire_engine::log_limits::{check_name, check_partition, check_records, check_topic};
use tidewire_engine::memory::Signal;

pub use convert::TIME_HEADER;
pub use options::{KafkaOptions, LEAST_SESSION_TIMEOUT_MS, Secret, Security};

use admin::Admin;
use append::Appender;
use context::Quiet;
use convert::{log_error, number};
use ends::Ends;
use groups::Groups;
use layouts::Layouts;
use member::KafkaMember;
use reader::Readers;

/// How long a question to a broker may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a partition may be without a leader that answers: after it was made, and after its broker was lost, which the
/// others take nine seconds to see.
const SETTLING: Duration = Duration::from_secs(12);
/// How long one of these questions may take meanwhile: the broker that is asked may be the one that is gone.
const SHORT: Duration = Duration::from_secs(3);
/// Between two questions meanwhile.
const NAP: Duration = Duration::from_millis(20);
/// How long a read waits for a record or the end.
const READING: Duration = Duration::from_secs(60);
/// A writer that was fenced is not fenced again for so long.
const FENCED_LATELY: Duration = Duration::from_secs(5);
/// A writer that nobody fenced for so long counts as one that never was.
const FORGOTTEN: Duration = Duration::from_secs(20);
/// Group name of clients that look and never join.
const LOOKER_GROUP: &str = "tidewire.looker";

/// A cluster.
pub struct KafkaLog {
    options: KafkaOptions,
    signal: Arc<Signal>,
    /// Sees what is committed.
    committed: Arc<BaseConsumer<Quiet>>,
    /// Sees what is written.
    written: Arc<BaseConsumer<Quiet>>,
    readers: Readers,
    layouts: Arc<Layouts>,
    appender: Appender,
    groups: Groups,
    fenced: Mutex<BTreeMap<SmolStr, Fenced>>,
}

/// A writer that was fenced.
struct Fenced {
    first: Instant,
    last: Instant,
}

impl KafkaLog {
    /// Connects to a cluster.
    ///
    /// # Errors
    /// When no broker answers, with the library's last word on why.
    pub fn connect(options: KafkaOptions) -> Result<Self, LogError> {
        let signal = Arc::new(Signal::default());
        let looker = |isolation: &str| -> Result<Arc<BaseConsumer<Quiet>>, LogError> {
            let config = options.reader(LOOKER_GROUP, isolation);
            let made: BaseConsumer<Quiet> = client::make(
                &config,
                Quiet::of(&options),
                &options,
                "the options for Kafka",
                Consumer::client,
            )?;
            Ok(Arc::new(made))
        };
        let (committed, written) = (looker("read_committed")?, looker("read_uncommitted")?);
        check_reachable(&options, &committed)?;
        let asker = looker("read_committed")?;
        let ends = Ends::start(asker, Arc::clone(&signal)).map_err(|error| LogError::Store {
            at: "starting a thread".to_owned(),
            error: error.to_string(),
        })?;
        let readers = Readers::new(options.clone(), Arc::clone(&signal), ends);
        let layouts = Arc::new(Layouts::new(Admin::new(&options)?, Arc::clone(&committed)));
        let (appender, groups) = (Appender::new(options.clone()), Groups::new(options.clone()));
        let fenced = Mutex::default();
        Ok(Self { options, signal, committed, written, readers, layouts, appender, groups, fenced })
    }

    /// How the cluster is reached.
    pub fn options(&self) -> &KafkaOptions {
        &self.options
    }

    fn check_there(&self, at: &TopicPartition) -> Result<(), LogError> {
        check_partition(at, Some(&self.layouts.get(&at.topic)?.spec)).map(|_| ())
    }

    /// Why a read from `asked` is not possible.
    fn out_of_range(&self, at: &TopicPartition, asked: u64) -> Result<Fetched, LogError> {
        let bounds = self.bounds(at)?;
        if asked < bounds.start {
            return Err(LogError::Truncated { at: at.clone(), asked, start: bounds.start });
        }
        if asked > bounds.high_watermark {
            return Err(LogError::BeyondEnd { at: at.clone(), asked, end: bounds.high_watermark });
        }
        // It was so a moment ago: the caller asks again.
        Ok(Fetched { next_offset: asked, ..Fetched::default() })
    }
}

impl Log for KafkaLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        check_topic(spec)?;
        self.layouts.create(spec)
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        Ok(self.layouts.all()?.into_iter().map(|found| found.spec).collect())
    }

    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        Ok(self.layouts.look_up(&SmolStr::new(name))?.map(|found| found.spec))
    }

    fn topic_settings(&self, name: &str) -> Result<Vec<(String, String)>, LogError> {
        self.layouts.settings(name)
    }

    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        match self.readers.fetch(at, from, max_bytes) {
            Ok(fetched) => Ok(fetched),
            Err(Some(error)) => Err(error),
            Err(None) => self.out_of_range(at, from),
        }
    }

    fn read(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.check_there(at)?;
        let begun = Instant::now();
        loop {
            let fetched = self.fetch(at, from, max_bytes)?;
            if fetched.at_end || fetched.next_offset > from || !fetched.records.is_empty() {
                return Ok(fetched);
            }
            if begun.elapsed() > READING {
                let error = "neither records nor the end came".to_owned();
                return Err(LogError::Unavailable { at: format!("reading {at} from offset {from}"), error });
            }
            self.signal.wait(Duration::from_millis(20));
        }
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        self.check_there(at)?;
        let begun = Instant::now();
        let ask = |consumer: &BaseConsumer<Quiet>| loop {
            // Nothing else asks it for events, of which one may be that its token runs out.
            while consumer.poll(Duration::ZERO).is_some() {}
            match consumer.fetch_watermarks(&at.topic, number(at), SHORT) {
                Ok(bounds) => return Ok(bounds),
                Err(error) if begun.elapsed() < SETTLING && is_settling(&error) => {
                    look_again(consumer, &at.topic);
                    std::thread::sleep(NAP);
                }
                Err(error) => {
                    return Err(log_error(format!("asking where {at} begins and ends"), &error));
                }
            }
        };
        let (low, stable) = ask(&self.committed)?;
        let (_, high) = ask(&self.written)?;
        let unsigned = |offset: i64| u64::try_from(offset).unwrap_or(0);
        self.readers.learn_end(at, unsigned(stable));
        Ok(Bounds {
            start: unsigned(low),
            stable_end: unsigned(stable),
            high_watermark: unsigned(high.max(stable)),
        })
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        self.groups.committed(group, at)
    }

    fn committed_unstable(
        &self,
        group: &str,
        at: &TopicPartition,
    ) -> Result<Option<CommittedOffset>, LogError> {
        self.groups.committed_unstable(group, at)
    }

    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        let found = self.layouts.get(&at.topic)?;
        check_partition(at, Some(&found.spec))?;
        check_records(at, found.spec.compacted, &records)?;
        if records.is_empty() {
            return Ok(self.bounds(at)?.high_watermark);
        }
        self.appender.append(at, &records, found.append_time)
    }

    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError> {
        check_name("group", group)?;
        check_name("member", member)?;
        self.layouts.get(&driving.into())?;
        let joined = KafkaMember::join(&self.options, group, member, driving, &self.layouts, &self.signal)?;
        Ok(Box::new(joined))
    }

    fn fence(&self, writer: &str, scope: &Scope) -> Result<(), LogError> {
        // Others wait meanwhile: most often they would fence the same one.
        let mut fenced = self.fenced.lock().unwrap_or_else(PoisonError::into_inner);
        fenced.retain(|_, fenced| fenced.last.elapsed() < FORGOTTEN);
        let first = match fenced.get(writer) {
            Some(fenced) if fenced.last.elapsed() < FENCED_LATELY => return Ok(()),
            Some(fenced) => fenced.first,
            None => Instant::now(),
        };
        // By then the cluster has ended whatever it knows to be open.
        let hanging = Duration::from_millis(self.options.transaction_timeout_ms) + FENCED_LATELY;
        if first.elapsed() < hanging {
            tracing::info!(writer, "an earlier writer is fenced");
            drop(writer::transactional(&self.options, writer)?);
        } else {
            hanging::settle(&self.options, writer, scope, &self.layouts)?;
        }
        fenced.insert(writer.into(), Fenced { first, last: Instant::now() });
        Ok(())
    }

    fn group_members(&self, group: &str) -> Result<Option<usize>, LogError> {
        self.groups.members(group).map(Some)
    }

    fn offsets_of_commit(&self) -> u64 {
        1
    }

    fn wait(&self, timeout: Duration) {
        self.signal.wait(timeout);
    }
}

/// Most events looked through for the reason why a cluster can not be reached.
const MAX_EVENTS: usize = 256;

fn check_reachable(options: &KafkaOptions, consumer: &BaseConsumer<Quiet>) -> Result<(), LogError> {
    let Err(error) = consumer.fetch_metadata(Some("tidewire.none"), PATIENCE) else { return Ok(()) };
    // Why it failed lies among the events, which nobody has taken yet.
    for _ in 0..MAX_EVENTS {
        let _ = consumer.poll(Duration::from_millis(1));
    }
    let why = consumer.context().trouble().unwrap_or_else(|| convert::words(&error));
    Err(LogError::Unavailable { at: format!("connecting to {}", options.bootstrap), error: why })
}

/// Whether the partition's leader is just not found, as it is when a topic was just made or a broker was lost.
fn is_settling(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::BrokerDestroy
                | RDKafkaErrorCode::DestroyBroker
        )
    )
}

/// The library asks the broker that led the partition when it last looked, and a client that only asks does not look again
/// by itself: it is told to. Returns whether somebody answered.
fn look_again(consumer: &BaseConsumer<Quiet>, topic: &str) -> bool {
    let found = consumer.fetch_metadata(Some(topic), SHORT);
    if let Err(error) = &found {
        tracing::debug!(topic, error = %convert::words(error), "the leaders of a topic are not known");
    }
    found.is_ok()
}
