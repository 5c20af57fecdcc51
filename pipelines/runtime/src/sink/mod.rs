//! Drives sinks: reads topics, hands batches to a store, and commits how far it came.
//!
//! Each topic of a sink is read by a thread with a connection of its own, as a consumer group of its own, so that a
//! group spreads the partitions of one topic and several processes share the work. A position is committed when the
//! store has taken everything before it: at least once, and the store's guards make of that "each record counts once".
//! A store that is down stops this reading alone: nothing is read ahead beyond the batch at hand, and no stage waits.

mod counters;
mod letters;
mod reader;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use smol_str::{SmolStr, format_smolstr};
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_schemas::SchemaBook;
use tidewire_sinks::Sink;

pub use counters::{SinkCounters, SinkStats};
use reader::Reader;

/// Events on their way to the caller. A sink waits when they are not taken.
const MAX_EVENTS: usize = 1024;

/// Most records of a batch that can be asked for.
pub const MAX_BATCH_RECORDS: usize = 10_000;

/// Makes a store's client: one for each topic that is read.
pub type MakeSink = Arc<dyn Fn() -> Box<dyn Sink> + Send + Sync>;

/// Gives the schemas as they are now. Asked again when a record bears an id that is not known: its writer may be newer
/// than this process.
pub type Schemas = Arc<dyn Fn() -> Result<SchemaBook, String> + Send + Sync>;

/// What a sink does when records it has not read were deleted by retention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTruncated {
    /// It stops and says what is missing.
    #[default]
    Stop,
    /// It says what is missing and goes on with the first record kept.
    Skip,
}

/// A sink as it is to run.
#[derive(Clone)]
pub struct SinkSpec {
    /// The pipeline it belongs to.
    pub pipeline: SmolStr,
    /// Its name.
    pub name: SmolStr,
    /// What it reads.
    pub topics: Vec<SmolStr>,
    /// A higher one reads everything anew, as a group of another name.
    pub generation: u32,
    /// Most records handed to the store at once.
    pub batch_max_records: usize,
    /// Bytes read ahead of each partition.
    pub prefetch_bytes: usize,
    /// Wait after the first attempt that failed; each further one waits twice as long.
    pub retry_first: Duration,
    /// Longest wait between attempts.
    pub retry_most: Duration,
    /// What is done about records that are gone.
    pub on_truncated: OnTruncated,
    /// Makes the store's client.
    pub make: MakeSink,
}

impl SinkSpec {
    /// The standard bounds.
    pub fn new(pipeline: &str, name: &str, topics: &[&str], make: MakeSink) -> Self {
        Self {
            pipeline: pipeline.into(),
            name: name.into(),
            topics: topics.iter().map(SmolStr::new).collect(),
            generation: 1,
            batch_max_records: 1_000,
            prefetch_bytes: 256 << 10,
            retry_first: Duration::from_millis(100),
            retry_most: Duration::from_secs(10),
            on_truncated: OnTruncated::Stop,
            make,
        }
    }

    /// The consumer group that reads a topic: `<pipeline>.sink.<name>.<topic>`, and from the second generation on
    /// `<pipeline>.sink.<name>.g<generation>.<topic>`.
    pub fn group(&self, topic: &str) -> SmolStr {
        group_of_sink(&self.pipeline, &self.name, self.generation, topic)
    }
}

/// As [`SinkSpec::group`].
pub fn group_of_sink(pipeline: &str, name: &str, generation: u32, topic: &str) -> SmolStr {
    match generation {
        0 | 1 => format_smolstr!("{pipeline}.sink.{name}.{topic}"),
        generation => format_smolstr!("{pipeline}.sink.{name}.g{generation}.{topic}"),
    }
}

/// What happens while sinks run. Each is of one sink and topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkEvent {
    /// The sink.
    pub sink: SmolStr,
    /// The topic.
    pub topic: SmolStr,
    /// What.
    pub what: SinkNews,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkNews {
    /// An attempt failed; it is made again, and told now and then.
    Retrying {
        /// Attempts so far.
        attempts: u64,
        /// Wait before the next one.
        wait: Duration,
        /// Why.
        error: String,
    },
    /// What had failed works again.
    Recovered {
        /// Attempts that it took.
        attempts: u64,
    },
    /// A record that can not be written goes to the dead letters.
    DeadLetter {
        /// Its place.
        place: String,
        /// A code.
        reason: SmolStr,
        /// Why.
        error: String,
    },
    /// Records that were not read yet are gone.
    Skipped {
        /// Their partition.
        at: TopicPartition,
        /// The first that is gone.
        from: u64,
        /// The first that is there.
        to: u64,
    },
    /// It lost its place in the group, or the log, and joins again.
    Rejoining {
        /// Why.
        why: String,
    },
    /// It can not go on before somebody changes something.
    Stopped {
        /// Why, and what to change.
        why: String,
    },
}

/// Why sinks ended before they were told to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinksError {
    /// One can not go on; the others finished their batches.
    #[error("sink {sink}, topic {topic}: {why}")]
    Stopped {
        /// The sink.
        sink: SmolStr,
        /// The topic.
        topic: SmolStr,
        /// Why, and what to change.
        why: String,
    },
    /// A thread could not be started, or ended by a panic of our own.
    #[error("sink {sink}: a thread ended: {why}")]
    Thread {
        /// The sink.
        sink: SmolStr,
        /// Why.
        why: String,
    },
}

/// Runs sinks until `stop` is set, or until one of them can not go on: then the others finish their batch and leave as
/// well, so that whoever keeps the process alive sees it. `member_prefix` begins the writers' names, so that two
/// processes do not fence each other. `on_event` is called on this thread.
pub fn run(
    log: &Arc<dyn Log>,
    schemas: &Schemas,
    sinks: &[SinkSpec],
    counters: &SinkCounters,
    member_prefix: &str,
    stop: &Arc<AtomicBool>,
    mut on_event: impl FnMut(SinkEvent),
) -> Result<(), SinksError> {
    let (events, received) = sync_channel(MAX_EVENTS);
    let mut threads = Vec::new();
    for spec in sinks {
        for topic in &spec.topics {
            let name = format!("sink-{}-{topic}", spec.name);
            let reader = Reader::new(
                Arc::clone(log),
                Arc::clone(schemas),
                spec.clone(),
                topic.clone(),
                counters.of(&spec.name, topic),
                format_smolstr!("{member_prefix}-{name}"),
                Arc::clone(stop),
                events.clone(),
            );
            match std::thread::Builder::new().name(name).spawn(move || reader.run()) {
                Ok(handle) => threads.push((spec.name.clone(), topic.clone(), handle)),
                Err(error) => {
                    stop.store(true, Ordering::SeqCst);
                    return Err(SinksError::Thread { sink: spec.name.clone(), why: error.to_string() });
                }
            }
        }
    }
    drop(events);
    while let Ok(event) = received.recv() {
        on_event(event);
    }
    let mut ended = Ok(());
    for (sink, topic, handle) in threads {
        let error = match handle.join() {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => SinksError::Stopped { sink, topic, why },
            Err(_) => SinksError::Thread { sink, why: "it panicked".to_owned() },
        };
        ended = ended.and(Err(error));
    }
    ended
}
