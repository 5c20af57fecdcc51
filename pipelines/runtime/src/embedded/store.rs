//! The key-value store below the log, and its errors in the log's words.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch, PersistMode, Readable,
};
use tidewire_engine::log::LogError;

use super::Durability;
use super::block::Block;
use super::keys::{self, PartitionId};

/// Least bytes that are gathered in memory before they go to a file of their own.
const MIN_WRITE_BUFFER_BYTES: u64 = 1024 * 1024;
/// How often, and how many times, it is looked whether a buffer was written out.
const WRITE_OUT_POLL: Duration = Duration::from_millis(5);
const WRITE_OUT_POLLS: u32 = 2000;
/// Bytes of journals on disk before the oldest one has to go.
const JOURNAL_BYTES: u64 = 192 * 1024 * 1024;
/// Blocks are cached decoded, see `cache`; this is for the store's own index.
const STORE_CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Values above this are kept out of the store's tree, so that they are not rewritten as it grows.
const SEPARATE_BYTES: u32 = 2 * 1024;
/// A file of such values is written anew when this share of it is deleted.
const STALE_SHARE: f32 = 0.5;
/// Bytes of one file of such values.
const VALUE_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// An open store.
pub(super) struct Store {
    database: Database,
    keyspace: Keyspace,
    /// Written while blocks are replaced, read while a view is opened. See [`Batch::replace`].
    replacing: RwLock<()>,
}

/// A block's key and size, without the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockKey {
    pub(super) base: u64,
    pub(super) stored_bytes: u64,
}

impl Store {
    pub(super) fn open(path: &Path, write_buffer_bytes: u64) -> Result<Self, LogError> {
        let failed = |error: String| LogError::Store {
            at: format!("opening the store {}", path.display()),
            error: format!("{error}; if its files are damaged, restore the log's folder from a copy"),
        };
        super::manifest::check(path)?;
        // The store's own start trusts its files: damage must end in an error, not in a dead thread.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
            if !path.exists() {
                Self::make(path, write_buffer_bytes)?;
            }
            Self::open_unguarded(path, write_buffer_bytes)
        }));
        match opened {
            Ok(Ok(store)) => Ok(store),
            Ok(Err(error)) => Err(failed(describe(&error))),
            Err(_) => Err(failed("its files do not make sense".to_owned())),
        }
    }

    /// Makes an empty store beside its place and moves it there whole: a process that is killed while it makes one would
    /// leave a half that can not be opened.
    fn make(path: &Path, write_buffer_bytes: u64) -> fjall::Result<()> {
        let half = path.with_extension("new");
        if half.exists() {
            std::fs::remove_dir_all(&half)?;
        }
        drop(Self::open_unguarded(&half, write_buffer_bytes)?);
        Ok(std::fs::rename(&half, path)?)
    }

    fn open_unguarded(path: &Path, write_buffer_bytes: u64) -> fjall::Result<Self> {
        let database = Database::builder(path)
            .cache_size(STORE_CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .journal_compression(fjall::CompressionType::None)
            .worker_threads(2)
            .open()?;
        let keyspace = database.keyspace("log", || {
            let values = KvSeparationOptions::default()
                .compression(fjall::CompressionType::None)
                .separation_threshold(SEPARATE_BYTES)
                .staleness_threshold(STALE_SHARE)
                .age_cutoff(1.0)
                .file_target_size(VALUE_FILE_BYTES);
            KeyspaceCreateOptions::default()
                .max_memtable_size(write_buffer_bytes.max(MIN_WRITE_BUFFER_BYTES))
                .with_kv_separation(Some(values))
        })?;
        Ok(Self { database, keyspace, replacing: RwLock::default() })
    }

    /// A view that no later write changes.
    pub(super) fn snapshot(&self) -> View<'_> {
        let _whole = self.replacing.read().unwrap_or_else(PoisonError::into_inner);
        View { store: self, snapshot: self.database.snapshot() }
    }

    /// A set of writes that happens as a whole.
    pub(super) fn batch(&self, durability: Durability) -> Batch<'_> {
        let mode = match durability {
            Durability::Fsync => PersistMode::SyncData,
            Durability::Buffered => PersistMode::Buffer,
        };
        Batch { store: self, batch: self.database.batch().durability(Some(mode)) }
    }

    /// Gives the disk space of deleted blocks back. Rewrites the store's tree, so it is for now and then.
    pub(super) fn reclaim(&self) -> Result<(), LogError> {
        let doing = || "giving disk space back".to_owned();
        let failed = |e: fjall::Error| store_error(doing(), &e);
        self.write_out()?;
        // The first pass finds which files nobody refers to any more, the second lets go of them.
        self.keyspace.major_compact().map_err(failed)?;
        self.keyspace.major_compact().map_err(failed)?;
        // They are deleted when the next buffer is written out, so there has to be one.
        let mut batch = self.batch(Durability::Buffered);
        batch.put(&[keys::RECLAIM], Vec::new());
        batch.commit(doing)?;
        self.write_out()
    }

    /// Has the store write its buffer to a file, and waits for it as long as that is reasonable.
    fn write_out(&self) -> Result<(), LogError> {
        let failed = |e: fjall::Error| store_error("giving disk space back".to_owned(), &e);
        self.keyspace.rotate_memtable().map_err(failed)?;
        for _ in 0..WRITE_OUT_POLLS {
            let idle = self.keyspace.sealed_memtable_count() == 0 && self.database.active_compactions() == 0;
            if idle {
                break;
            }
            std::thread::sleep(WRITE_OUT_POLL);
        }
        Ok(())
    }

    /// Bytes on disk, journals included.
    pub(super) fn disk_bytes(&self) -> Result<u64, LogError> {
        self.database.disk_space().map_err(|e| store_error("measuring the store".to_owned(), &e))
    }
}

/// Writes that happen as a whole.
pub(super) struct Batch<'a> {
    store: &'a Store,
    batch: OwnedWriteBatch,
}

impl Batch<'_> {
    pub(super) fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.batch.insert(&self.store.keyspace, key, value);
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.batch.remove(&self.store.keyspace, key);
    }

    pub(super) fn len(&self) -> usize {
        self.batch.len()
    }

    /// Writes it, when it replaces or deletes what readers may be at.
    ///
    /// The store's background work moves on what new snapshots see, also while a batch is only half in memory: such a
    /// snapshot has half of the batch for good. New records do not mind, since nobody reads beyond what is published.
    /// But a block must never be seen gone before the one in its place is there, so no view is opened meanwhile.
    pub(super) fn replace(self, doing: impl FnOnce() -> String) -> Result<(), LogError> {
        let _whole = self.store.replacing.write().unwrap_or_else(PoisonError::into_inner);
        self.commit(doing)
    }

    /// Writes it; `doing` names what for.
    pub(super) fn commit(self, doing: impl FnOnce() -> String) -> Result<(), LogError> {
        self.batch.commit().map_err(|e| store_error(doing(), &e))
    }
}

/// The store as it was at one moment.
pub(super) struct View<'a> {
    store: &'a Store,
    snapshot: fjall::Snapshot,
}

impl View<'_> {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        let value = self.snapshot.get(&self.store.keyspace, key);
        Ok(value.map_err(|e| store_error(format!("reading key {key:02x?}"), &e))?.map(|value| value.to_vec()))
    }

    /// All keys of a kind with their values.
    pub(super) fn all(&self, kind: u8) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), LogError>> + '_ {
        self.snapshot.prefix(&self.store.keyspace, [kind]).map(|item| {
            let (key, value) =
                item.into_inner().map_err(|e| store_error("reading topics and positions".to_owned(), &e))?;
            Ok((key.to_vec(), value.to_vec()))
        })
    }

    /// The value of the last block that begins at or below `offset`, with its base.
    pub(super) fn block_at_or_below(
        &self,
        id: PartitionId,
        offset: u64,
        at: impl Fn(u64) -> String,
    ) -> Result<Option<(u64, fjall::Slice)>, LogError> {
        let mut range =
            self.snapshot.range(&self.store.keyspace, keys::block(id, 0)..=keys::block(id, offset));
        range.next_back().map(|item| read_item(item, offset, &at)).transpose()
    }

    /// Values of the blocks that begin in `from..end`, with their bases, in order.
    pub(super) fn blocks<'v>(
        &'v self,
        id: PartitionId,
        from: u64,
        end: u64,
        at: impl Fn(u64) -> String + 'v,
    ) -> impl Iterator<Item = Result<(u64, fjall::Slice), LogError>> + 'v {
        let range = self.snapshot.range(&self.store.keyspace, keys::block(id, from)..keys::block(id, end));
        let mut reached = from;
        range.map(move |item| {
            let item = read_item(item, reached, &at)?;
            reached = item.0 + 1;
            Ok(item)
        })
    }

    /// The base of the block in which `offset` may lie: the last one at or below it, or `offset` itself.
    pub(super) fn base_at_or_below(
        &self,
        id: PartitionId,
        offset: u64,
        at: impl Fn(u64) -> String,
    ) -> Result<u64, LogError> {
        let mut range =
            self.snapshot.range(&self.store.keyspace, keys::block(id, 0)..=keys::block(id, offset));
        let Some(item) = range.next_back() else { return Ok(offset) };
        let key = item.key().map_err(|e| store_error(at(offset), &e))?;
        base_of(&key).ok_or_else(|| damaged_key(at(offset), &key))
    }

    /// Bases and sizes of the blocks that begin in `from..end`, in order.
    pub(super) fn block_keys<'v>(
        &'v self,
        id: PartitionId,
        from: u64,
        end: u64,
        at: impl Fn(u64) -> String + 'v,
    ) -> impl Iterator<Item = Result<BlockKey, LogError>> + 'v {
        let range = self.snapshot.range(&self.store.keyspace, keys::block(id, from)..keys::block(id, end));
        let sizes = self.snapshot.range(&self.store.keyspace, keys::block(id, from)..keys::block(id, end));
        range.zip(sizes).map(move |(key, size)| {
            let key = key.key().map_err(|e| store_error(at(from), &e))?;
            let base = base_of(&key).ok_or_else(|| damaged_key(at(from), &key))?;
            let stored_bytes = u64::from(size.size().map_err(|e| store_error(at(base), &e))?);
            Ok(BlockKey { base, stored_bytes })
        })
    }
}

/// Decodes a block, or says which one is damaged and what can be done.
pub(super) fn decode_block(
    base: u64,
    value: &[u8],
    at: impl Fn(u64) -> String,
) -> Result<Arc<Block>, LogError> {
    Block::decode(base, value).map(Arc::new).map_err(|error| LogError::Store {
        at: at(base),
        error: format!(
            "the block that begins at offset {base} can not be read: {error}; restore the log's folder from a copy, \
             or read on from a later block"
        ),
    })
}

fn read_item(
    item: fjall::Guard,
    reached: u64,
    at: &impl Fn(u64) -> String,
) -> Result<(u64, fjall::Slice), LogError> {
    let (key, value) = item.into_inner().map_err(|e| store_error(at(reached), &e))?;
    let base = base_of(&key).ok_or_else(|| damaged_key(at(reached), &key))?;
    Ok((base, value))
}

fn base_of(key: &[u8]) -> Option<u64> {
    keys::read_block(key)
}

fn damaged_key(at: String, key: &[u8]) -> LogError {
    LogError::Store {
        at,
        error: format!("the store has a damaged key {key:02x?}; restore the log's folder from a copy"),
    }
}

/// An error of the store, in words that say what to do.
pub(super) fn store_error(at: String, error: &fjall::Error) -> LogError {
    LogError::Store { at, error: describe(error) }
}

fn describe(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Poisoned => {
            "an earlier write failed, so nothing more is written; see the first error, then restart"
                .to_owned()
        }
        fjall::Error::Io(error) => error.to_string(),
        fjall::Error::Locked => "another process has it open".to_owned(),
        fjall::Error::InvalidVersion(_) => "it was written by another version of the store".to_owned(),
        other => format!("{other:?}"),
    }
}
