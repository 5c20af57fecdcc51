//! What a worker needs of a log: the port through which the engine meets the outside.
//!
//! The engine itself does no I/O. It reads records, learns which tasks it holds, and hands over one
//! [`Transaction`] an epoch. Memory, the embedded log and Kafka implement these two traits, and one
//! conformance list holds for all of them.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Name of a topic and number of one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic.
    pub topic: SmolStr,
    /// The partition, counted from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<SmolStr>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A record header: a name and raw bytes, as Kafka has them.
pub type Header = (SmolStr, Bytes);

/// A record as it is appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Milliseconds since the epoch. On normalized topics this is event time.
    pub timestamp_ms: i64,
    /// Raw key bytes.
    pub key: Option<Bytes>,
    /// Raw value; `None` is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    /// Headers in the order they were set.
    pub headers: Vec<Header>,
}

impl NewRecord {
    /// Bytes of key, value and headers: what caps on a batch count.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers + 16
    }

    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }
}

/// A record as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Place in its partition. Offsets ascend; a partition may have gaps (compaction, control records).
    pub offset: u64,
    /// What was appended.
    pub record: NewRecord,
}

/// How a topic keeps its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSpec {
    /// The topic's name.
    pub name: SmolStr,
    /// Number of partitions, at least 1.
    pub partitions: u32,
    /// Whether only the last record of a key is kept, once older than `compaction_lag_ms`.
    pub compacted: bool,
    /// How long every record of a compacted topic is kept, in milliseconds of append time (`replay_retention`).
    pub compaction_lag_ms: u64,
    /// Delete whole blocks of records older than this by append time; `None` keeps them.
    pub retention_ms: Option<u64>,
    /// Delete the oldest blocks of a partition beyond this many bytes; `None` keeps them.
    pub retention_bytes: Option<u64>,
}

impl TopicSpec {
    /// A topic that keeps everything.
    pub fn new(name: impl Into<SmolStr>, partitions: u32) -> Self {
        Self {
            name: name.into(),
            partitions,
            compacted: false,
            compaction_lag_ms: 0,
            retention_ms: None,
            retention_bytes: None,
        }
    }

    /// The same topic, compacted after `lag_ms`.
    pub fn compacted(mut self, lag_ms: u64) -> Self {
        self.compacted = true;
        self.compaction_lag_ms = lag_ms;
        self
    }
}

/// What a read returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Committed records at and after the asked offset, in offset order.
    pub records: Vec<StoredRecord>,
    /// Where the next read goes on; past aborted and compacted records too.
    pub next_offset: u64,
    /// True when `next_offset` is the end of what is committed, as just confirmed by the log.
    /// An outage never sets it.
    pub at_end: bool,
}

/// The bounds of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// First offset still kept.
    pub start: u64,
    /// First offset that a committed reader can not yet read (the last stable offset).
    pub stable_end: u64,
    /// The next offset to be written, transactions under way included.
    pub high_watermark: u64,
}

/// A group's progress in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: u64,
    /// What the committer wrote beside it.
    pub metadata: String,
}

/// Which tasks (partition numbers of the driving topic) a member holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Rises with every change in the group; a commit of another generation is refused.
    pub generation: u32,
    /// Tasks held, ascending. A task that is to be given up is still among them.
    pub tasks: Vec<u32>,
    /// Those of `tasks` that the group asks back: flush, mark released, then call [`Member::release`].
    pub revoking: Vec<u32>,
}

/// One atomic step of a worker: all of it becomes visible, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The generation this worker believes in.
    pub generation: u32,
    /// Records by partition, in order. A partition may occur once.
    pub appends: Vec<(TopicPartition, Vec<NewRecord>)>,
    /// The group's new positions.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// Why a transaction did not commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The member was replaced (a zombie): nothing was written and nothing of it ever will be.
    #[error("fenced: {0}")]
    Fenced(String),
    /// Nothing was written. The same transaction may be sent again under the current generation.
    #[error("aborted: {0}")]
    Aborted(String),
    /// Whether it was written is not known: recover from the log.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The log can not take it, now or later.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why the log refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LogError {
    /// There is no such topic.
    #[error("topic {0} does not exist; create it with `tidewire topics create`")]
    UnknownTopic(SmolStr),
    /// There is no such partition.
    #[error("topic {topic} has {partitions} partitions, so no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: SmolStr,
        /// What was asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The asked records are gone.
    #[error("{at} begins at offset {start}: offset {asked} was deleted by retention")]
    Truncated {
        /// The partition.
        at: TopicPartition,
        /// What was asked for.
        asked: u64,
        /// What is left.
        start: u64,
    },
    /// The asked records were never written.
    #[error(
        "{at} ends at offset {end}: offset {asked} was never written; is this the log that was read before?"
    )]
    BeyondEnd {
        /// The partition.
        at: TopicPartition,
        /// What was asked for.
        asked: u64,
        /// The next offset to be written.
        end: u64,
    },
    /// A topic exists with another layout.
    #[error("topic {topic} exists with {found}, not {wanted}")]
    TopicDiffers {
        /// The topic.
        topic: SmolStr,
        /// What there is.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// A transaction that moves this position is still open: ask again, or the answer could be overtaken.
    #[error("the position of group {group} in {at} is not stable yet: a transaction is open; try again")]
    Unstable {
        /// The group.
        group: SmolStr,
        /// The partition.
        at: TopicPartition,
    },
    /// The member was replaced or its time ran out: drop its tasks and join again.
    #[error("fenced: {0}")]
    Fenced(String),
    /// The call itself is wrong; the words say what to change.
    #[error("{0}")]
    Invalid(String),
    /// The store below failed.
    #[error("{at}: {error}")]
    Store {
        /// What was being done, with the topic, partition and offset where they are known.
        at: String,
        /// The store's own words.
        error: String,
    },
    /// The log does not answer. It may again: try later, and take this for no end of anything.
    #[error("{at}: the log does not answer: {error}")]
    Unavailable {
        /// What was being done, with the topic and partition where they are known.
        at: String,
        /// The log's own words.
        error: String,
    },
    /// Too much at once.
    #[error("{what} is {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// What was too large.
        what: String,
        /// Its size.
        size: usize,
        /// The bound.
        limit: usize,
    },
}

/// A log of topics.
pub trait Log: Send + Sync {
    /// Makes a topic; nothing happens when it is there with the same layout.
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError>;

    /// All topics, by name.
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError>;

    /// One topic's layout.
    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError>;

    /// Committed records of a partition from `from` on: what is at hand, at most about `max_bytes`. Does not wait, so
    /// on a log that reads ahead from afar it may return nothing before the end: then ask again, and [`Log::wait`]
    /// between. Nothing at or past the last stable offset is returned.
    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError>;

    /// As [`Log::fetch`], but waits until there is progress: returns records, a later `next_offset`, or `at_end`.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the log does not answer for long.
    fn read(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.fetch(at, from, max_bytes)
    }

    /// First and last offsets of a partition.
    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError>;

    /// Where a group stands in a partition; [`LogError::Unstable`] while an open transaction may still move it.
    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError>;

    /// Appends outside any group, atomically and durably; returns the offset of the first record.
    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError>;

    /// Joins the group that spreads the partitions of `driving` over its members.
    /// `member` names the writer (its transactional.id): a second member of that name fences the first.
    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError>;

    /// The log's own settings of a topic by their names there; none where it has no such thing.
    fn topic_settings(&self, name: &str) -> Result<Vec<(String, String)>, LogError> {
        let _ = name;
        Ok(Vec::new())
    }

    /// Makes sure that nothing more comes of a writer that is gone, and settles what it left open. Whoever still finds
    /// something open calls it again. On logs whose commits are one step there is nothing to do.
    fn fence(&self, writer: &str, scope: &Scope) -> Result<(), LogError> {
        let _ = (writer, scope);
        Ok(())
    }

    /// Where a group stands, transactions still open left out of account: never [`LogError::Unstable`]. For those who
    /// look for the writer of an open transaction, or show a position. `None` too where a log does not know.
    fn committed_unstable(
        &self,
        group: &str,
        at: &TopicPartition,
    ) -> Result<Option<CommittedOffset>, LogError> {
        match self.committed(group, at) {
            Err(LogError::Unstable { .. }) => Ok(None),
            other => other,
        }
    }

    /// How many members a group has now. `None` where the log does not tell: there a group with members can not be joined
    /// for another topic.
    fn group_members(&self, group: &str) -> Result<Option<usize>, LogError> {
        let _ = group;
        Ok(None)
    }

    /// Offsets that a commit takes in each partition it wrote to, besides its records: 1 where a transaction ends with
    /// a control record.
    fn offsets_of_commit(&self) -> u64 {
        0
    }

    /// Waits until something was appended or a group changed since this thread's last call returned,
    /// or `timeout` has passed. May return early.
    fn wait(&self, timeout: Duration);
}

/// Where a writer's transactions reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The group whose positions it moves.
    pub group: String,
    /// The topic that these positions are of.
    pub driving: SmolStr,
    /// The partitions that it may write to.
    pub partitions: Vec<TopicPartition>,
}

/// A worker's place in its group, and its writer.
pub trait Member: Send {
    /// What this member holds now. Cheap: called before every epoch. [`LogError::Fenced`] once it is out of the group.
    fn poll(&mut self) -> Result<Assignment, LogError>;

    /// Commits one atomic step. Fails as [`CommitError`] tells; a success is durable.
    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError>;

    /// Begins to commit one atomic step. Logs that can do so beside other work return at once with nothing; then
    /// [`Member::outcome`] tells how it ended, and until it has, nothing but [`Member::poll`] may be called.
    fn begin_commit(&mut self, transaction: Transaction) -> Option<Result<(), CommitError>> {
        Some(self.commit(transaction))
    }

    /// How the commit that was begun ended, once; nothing while it goes on, unless `wait` says to stay until it has ended.
    fn outcome(&mut self, wait: bool) -> Option<Result<(), CommitError>> {
        let _ = wait;
        None
    }

    /// Gives back tasks that were asked for; their last transaction is committed.
    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError>;

    /// Leaves the group: its tasks go to others at once. Dropping a member without this leaves too.
    fn leave(self: Box<Self>) -> Result<(), LogError>;
}
