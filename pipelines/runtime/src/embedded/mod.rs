//! The embedded log: a durable [`Log`] in one folder, with nothing to install or to run beside it.
//!
//! Records lie in blocks, many to a value of a key-value store, and a transaction is one atomic write to it. One process
//! has the log open; others go through it ([`open_any`]).

pub(crate) mod block;
mod cache;
pub(crate) mod codec;
mod compact;
mod folder;
mod index;
mod keys;
mod maintain;
mod manifest;
mod member;
mod merge;
mod open;
mod read;
mod remote;
mod remote_member;
mod rewrite;
mod server;
mod store;
#[cfg(test)]
mod tests;
mod wire;
mod write;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidewire_engine::log::{
    Bounds, CommittedOffset, Fetched, Log, LogError, Member, NewRecord, TopicPartition, TopicSpec,
};
use tidewire_engine::log_limits;
use tidewire_engine::memory::Signal;

use cache::BlockCache;
use folder::Folder;
use index::Index;
use keys::{PartitionRow, TopicRow};
use maintain::Rounds;
use member::Groups;
use store::Store;

pub use folder::OpenError;
pub use index::MAX_POSITIONS;
pub use maintain::{Housekeeping, Maintained};
pub use open::{Opened, open_any};
pub use remote::RemoteLog;
pub use server::{MAX_CONNECTIONS, Server};
pub use wire::MAX_FRAME_BYTES;

/// What a successful commit survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Loss of power: every commit waits for the disk.
    #[default]
    Fsync,
    /// The end of the process, by kill -9 too; the last commits may be lost with the machine's power.
    Buffered,
}

/// How an embedded log is opened.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// What a successful commit survives.
    pub durability: Durability,
    /// Most bytes of decoded blocks kept in memory.
    pub cache_bytes: usize,
    /// Bytes gathered in memory before the store writes them to a file of their own: journals keep them safe until
    /// then. Counts when the log is made, at least 1 MiB.
    pub write_buffer_bytes: u64,
    /// Stamps appends: milliseconds since the epoch. Retention and compaction count by it.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            cache_bytes: 32 * 1024 * 1024,
            write_buffer_bytes: 32 * 1024 * 1024,
            clock: Arc::new(wall_clock_ms),
        }
    }
}

/// A log in a folder. The folder is locked until the log is dropped.
pub struct EmbeddedLog {
    /// For members, which keep the log open.
    me: Weak<Self>,
    store: Store,
    /// All topics and positions; what is in here is visible.
    index: Mutex<Index>,
    /// Held by whoever writes records, positions, topics or changes a group: one at a time.
    writer: Mutex<()>,
    groups: Mutex<Groups>,
    /// Held by maintenance: one round at a time.
    rounds: Mutex<Rounds>,
    cache: BlockCache,
    signal: Signal,
    options: EmbeddedOptions,
    folder: Folder,
}

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog").field("dir", &self.dir()).finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    /// Opens the log in `dir`, made if it is not there.
    ///
    /// Fails with [`OpenError::InUse`] while another process has it open.
    pub fn open(dir: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Arc<Self>, OpenError> {
        let folder = Folder::open(dir.as_ref())?;
        let store = Store::open(&folder.store(), options.write_buffer_bytes)?;
        let index = load_index(&store)?;
        Ok(Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            store,
            index: Mutex::new(index),
            writer: Mutex::default(),
            groups: Mutex::default(),
            rounds: Mutex::default(),
            cache: BlockCache::new(options.cache_bytes),
            signal: Signal::default(),
            options,
            folder,
        }))
    }

    /// The folder it lies in.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Bytes on disk, journals included.
    pub fn disk_bytes(&self) -> Result<u64, LogError> {
        self.store.disk_bytes()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    fn now_ms(&self) -> u64 {
        (self.options.clock)()
    }
}

impl Log for EmbeddedLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        let _writer = lock(&self.writer);
        let (id, topics) = {
            let index = self.index();
            if let Some(found) = index.spec(&spec.name) {
                return log_limits::check_same(found, spec);
            }
            (index.next_topic_id(), index.topic_count())
        };
        log_limits::check_topic(spec)?;
        log_limits::check_topic_count(topics)?;
        let row = TopicRow { id, spec: spec.clone() };
        let doing = || format!("creating topic {}", spec.name);
        let value = keys::encode(&row).map_err(|error| LogError::Store { at: doing(), error })?;
        let mut batch = self.store.batch(self.options.durability);
        batch.put(&keys::topic(&spec.name), value);
        batch.commit(doing)?;
        self.index().add_topic(row);
        Ok(())
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        Ok(self.index().specs().map(|spec| TopicSpec::clone(spec)).collect())
    }

    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        Ok(self.index().spec(name).map(|spec| TopicSpec::clone(spec)))
    }

    /// Keys, values and headers share the memory of the block they lie in: who keeps one for long should copy it.
    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.read(at, from, max_bytes)
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        Ok(self.index().find(at)?.entry.bounds())
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        let index = self.index();
        let found = index.find(at)?;
        Ok(index.position(group, found.id).cloned())
    }

    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        self.write_append(at, &records)
    }

    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError> {
        self.join_group(group, member, driving)
    }

    fn wait(&self, timeout: Duration) {
        self.signal.wait(timeout);
    }
}

fn load_index(store: &Store) -> Result<Index, LogError> {
    let mut index = Index::default();
    let view = store.snapshot();
    for item in view.all(keys::TOPICS) {
        let (key, value) = item?;
        let at = || {
            format!(
                "reading the layout of topic {}",
                String::from_utf8_lossy(key.get(1..).unwrap_or_default())
            )
        };
        let row: TopicRow = keys::decode(&value).map_err(|error| LogError::Store { at: at(), error })?;
        log_limits::check_topic(&row.spec)?;
        index.add_topic(row);
    }
    for at in index.partitions(None) {
        let id = index.find(&at)?.id;
        let reading = |base: u64| format!("reading {at} at offset {base}");
        let row = match view.get(&keys::state(id))? {
            Some(value) => keys::decode(&value)
                .map_err(|error| LogError::Store { at: format!("reading the state of {at}"), error })?,
            None => PartitionRow::default(),
        };
        let end = match view.block_at_or_below(id, u64::MAX, reading)? {
            Some((base, value)) => block_end(base, &value).map_err(|error| LogError::Store {
                at: reading(base),
                error: format!("the last block: {error}"),
            })?,
            None => 0,
        };
        index.restore(id, row, end);
    }
    for item in view.all(keys::POSITIONS) {
        let (key, value) = item?;
        let damaged =
            |error: String| LogError::Store { at: "reading the positions of groups".to_owned(), error };
        let (id, group) =
            keys::read_position(&key).ok_or_else(|| damaged(format!("damaged key {key:02x?}")))?;
        let position: CommittedOffset =
            keys::decode(&value).map_err(|error| damaged(format!("group {group}: {error}")))?;
        index.set_position(&group.into(), id, position);
    }
    Ok(index)
}

fn block_end(base: u64, value: &[u8]) -> Result<u64, String> {
    let span = block::BlockHeader::read(value)?.span;
    base.checked_add(u64::from(span)).ok_or_else(|| "its offsets overflow".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since the epoch by the machine's clock; 0 before it.
pub fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
