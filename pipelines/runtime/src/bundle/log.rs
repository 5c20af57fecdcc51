//! A bundle as a log that can only be read. Blocks are read when they are asked for, and checked then.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidewire_engine::log::{
    Bounds, CommittedOffset, Fetched, Log, LogError, Member, NewRecord, TopicPartition, TopicSpec,
};

use super::about::About;
use super::error::BundleError;
use super::format::{
    BLOCK_HEAD_BYTES, BlockEntry, FOOTER_BYTES, FORMAT, Footer, HEAD_BYTES, Index, MAGIC, MAX_INDEX_BYTES,
    PartitionEntry,
};
use crate::embedded::block::Block;

/// Bytes of blocks that are kept to be read again.
const CACHE_BYTES: usize = 32 << 20;
/// Longest wait for what never comes.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// An open bundle.
pub struct BundleLog {
    path: PathBuf,
    about: About,
    topics: BTreeMap<String, TopicSpec>,
    partitions: BTreeMap<TopicPartition, PartitionEntry>,
    digest: [u8; 32],
    bytes: u64,
    file: Mutex<File>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// By place in the file; the one used last is the last.
    blocks: VecDeque<(u64, Arc<Block>)>,
    bytes: usize,
}

/// What a bundle holds of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// The partition.
    pub at: TopicPartition,
    /// The first offset that it answers for.
    pub start: u64,
    /// The offset after the last.
    pub end: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of their keys, values and headers.
    pub bytes: u64,
    /// Bytes that they take in the file.
    pub stored_bytes: u64,
}

impl BundleLog {
    /// Opens a bundle. Its index is read and checked, the blocks when they are asked for.
    ///
    /// # Errors
    /// When it is no bundle, or damaged.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let failed = |doing| BundleError::io(path, doing);
        let mut file = File::open(path).map_err(failed("opening it"))?;
        let bytes = file.metadata().map_err(failed("asking for its size"))?.len();
        let mut head = Vec::new();
        file.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(failed("reading it"))?;
        if !head.starts_with(MAGIC) {
            return Err(BundleError::NoBundle { path: path.to_owned() });
        }
        let cut_off = || BundleError::damaged(path, "it was cut off, or its end was changed");
        match head[MAGIC.len()..].try_into().map(u32::from_le_bytes) {
            Ok(FORMAT) => {}
            Ok(found) => {
                return Err(BundleError::OtherFormat { path: path.to_owned(), found, known: FORMAT });
            }
            Err(_) => return Err(cut_off()),
        }
        let footer_at = bytes.checked_sub(FOOTER_BYTES as u64).filter(|at| *at >= HEAD_BYTES);
        let footer_at = footer_at.ok_or_else(cut_off)?;
        let mut footer = [0; FOOTER_BYTES];
        file.seek(SeekFrom::Start(footer_at)).map_err(failed("reading it"))?;
        file.read_exact(&mut footer).map_err(failed("reading it"))?;
        let footer = Footer::read(&footer).ok_or_else(cut_off)?;
        let index_ends = footer.index_at.checked_add(u64::from(footer.index_bytes));
        if index_ends != Some(footer_at) || footer.index_bytes as usize > MAX_INDEX_BYTES {
            return Err(BundleError::damaged(path, "its footer does not say where its index is"));
        }
        let mut index = vec![0; footer.index_bytes as usize];
        file.seek(SeekFrom::Start(footer.index_at)).map_err(failed("reading its index"))?;
        file.read_exact(&mut index).map_err(failed("reading its index"))?;
        if *blake3::hash(&index).as_bytes() != footer.digest {
            return Err(BundleError::damaged(path, "the BLAKE3 digest of its index does not match"));
        }
        let unsound = |what: String| BundleError::damaged(path, what);
        let index: Index = postcard::from_bytes(&index)
            .map_err(|error| unsound(format!("its index can not be read: {error}")))?;
        if let Some(problem) = index.problem(footer.index_at) {
            return Err(unsound(problem));
        }
        let about = serde_json::from_str(&index.about)
            .map_err(|error| unsound(format!("what it says of itself can not be read: {error}")))?;
        Ok(Self {
            path: path.to_owned(),
            about,
            topics: index.topics.into_iter().map(|spec| (spec.name.to_string(), spec)).collect(),
            partitions: index.partitions.into_iter().map(|entry| (entry.at.clone(), entry)).collect(),
            digest: footer.digest,
            bytes,
            file: Mutex::new(file),
            cache: Mutex::default(),
        })
    }

    /// What the bundle says of itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all of it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What it holds, partition by partition.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionView> + '_ {
        self.partitions.values().map(|entry| PartitionView {
            at: entry.at.clone(),
            start: entry.start,
            end: entry.end,
            records: entry.records,
            bytes: entry.bytes,
            stored_bytes: entry.blocks.iter().map(|block| u64::from(block.bytes)).sum(),
        })
    }

    /// Reads every block and checks it against its digest. `on_progress` is told the bytes done after each.
    ///
    /// # Errors
    /// The first block that is damaged.
    pub fn check(&self, mut on_progress: impl FnMut(u64)) -> Result<(), BundleError> {
        let mut done = 0;
        for entry in self.partitions.values() {
            let mut records = 0;
            for number in 0..entry.blocks.len() {
                records += self.read_block(entry, number)?.records().count() as u64;
                done += u64::from(entry.blocks[number].bytes);
                on_progress(done);
            }
            if records != entry.records {
                let what = format!("{} has {records} records, not {}", entry.at, entry.records);
                return Err(BundleError::damaged(&self.path, what));
            }
        }
        Ok(())
    }

    fn block(&self, entry: &PartitionEntry, number: usize) -> Result<Arc<Block>, BundleError> {
        let place = entry.blocks[number].place;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cache.blocks.iter().position(|(at, _)| *at == place)
            && let Some(kept) = cache.blocks.remove(found)
        {
            let block = Arc::clone(&kept.1);
            cache.blocks.push_back(kept);
            return Ok(block);
        }
        drop(cache);
        let block = Arc::new(self.read_block(entry, number)?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.bytes += block.memory_bytes();
        cache.blocks.push_back((place, Arc::clone(&block)));
        while cache.bytes > CACHE_BYTES {
            let Some((_, oldest)) = cache.blocks.pop_front() else { break };
            cache.bytes = cache.bytes.saturating_sub(oldest.memory_bytes());
        }
        Ok(block)
    }

    fn read_block(&self, entry: &PartitionEntry, number: usize) -> Result<Block, BundleError> {
        let block: &BlockEntry = &entry.blocks[number];
        let damaged = |why: &str| {
            let what = format!(
                "block {number} of {} (offsets {}..{}, at byte {}): {why}",
                entry.at, block.base, block.end, block.place
            );
            BundleError::damaged(&self.path, what)
        };
        let mut bytes = vec![0; BLOCK_HEAD_BYTES + block.bytes as usize];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let found = file.seek(SeekFrom::Start(block.place)).and_then(|_| file.read_exact(&mut bytes));
            found.map_err(|error| damaged(&error.to_string()))?;
        }
        let (head, body) = bytes.split_at(BLOCK_HEAD_BYTES);
        if head[..4] != block.bytes.to_le_bytes() || head[4..] != block.digest {
            return Err(damaged("its head is not as in the index"));
        }
        if *blake3::hash(body).as_bytes() != block.digest {
            return Err(damaged("its BLAKE3 digest does not match"));
        }
        let read = Block::decode(block.base, body).map_err(|error| damaged(&error))?;
        if read.end != block.end {
            return Err(damaged("it ends at another offset"));
        }
        Ok(read)
    }

    fn entry(&self, at: &TopicPartition) -> Result<Option<&PartitionEntry>, LogError> {
        let Some(spec) = self.topics.get(at.topic.as_str()) else {
            return Err(LogError::UnknownTopic(at.topic.clone()));
        };
        if at.partition >= spec.partitions {
            let (topic, partition, partitions) = (at.topic.clone(), at.partition, spec.partitions);
            return Err(LogError::UnknownPartition { topic, partition, partitions });
        }
        Ok(self.partitions.get(at))
    }

    fn read_only(&self, what: &str) -> LogError {
        LogError::Invalid(format!(
            "{what}: the log is the bundle {}, which can only be read; name a folder with `--data DIR`, or a cluster \
             with `--bootstrap HOST:PORT`",
            self.path.display()
        ))
    }
}

impl Log for BundleLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        Err(self.read_only(&format!("topic {} can not be made", spec.name)))
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        Ok(self.topics.values().cloned().collect())
    }

    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        Ok(self.topics.get(name).cloned())
    }

    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        let Some(entry) = self.entry(at)? else {
            return match from {
                0 => Ok(Fetched { at_end: true, ..Fetched::default() }),
                asked => Err(LogError::BeyondEnd { at: at.clone(), asked, end: 0 }),
            };
        };
        if from < entry.start {
            return Err(LogError::Truncated { at: at.clone(), asked: from, start: entry.start });
        }
        if from > entry.end {
            return Err(LogError::BeyondEnd { at: at.clone(), asked: from, end: entry.end });
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        let first = entry.blocks.partition_point(|block| block.end <= from);
        for number in first..entry.blocks.len() {
            let block = self.block(entry, number)?;
            for logged in block.records_from(from) {
                bytes += logged.stored.record.size();
                let next_offset = logged.stored.offset + 1;
                records.push(logged.stored);
                if bytes >= max_bytes && next_offset < entry.end {
                    return Ok(Fetched { records, next_offset, at_end: false });
                }
            }
        }
        Ok(Fetched { records, next_offset: entry.end, at_end: true })
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        let (start, end) = self.entry(at)?.map_or((0, 0), |entry| (entry.start, entry.end));
        Ok(Bounds { start, stable_end: end, high_watermark: end })
    }

    fn committed(&self, _: &str, _: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        Ok(None)
    }

    fn append(&self, at: &TopicPartition, _: Vec<NewRecord>) -> Result<u64, LogError> {
        Err(self.read_only(&format!("nothing can be written to {at}")))
    }

    fn join(&self, group: &str, _: &str, _: &str) -> Result<Box<dyn Member>, LogError> {
        Err(self.read_only(&format!("group {group} can not be joined")))
    }

    fn wait(&self, timeout: Duration) {
        // Nothing ever comes.
        std::thread::sleep(timeout.min(MAX_WAIT));
    }
}
