//! Writes a bundle: partition after partition into a file beside, which takes its name when it is whole.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use tidewire_engine::log::{StoredRecord, TopicPartition, TopicSpec};
use tidewire_engine::log_limits::{MAX_HEADERS, MAX_RECORD_BYTES};

use super::about::About;
use super::error::BundleError;
use super::format::{BlockEntry, FORMAT, Footer, Index, MAGIC, PartitionEntry};
use crate::embedded::block::BlockBuilder;

/// A bundle under way. Dropped before [`BundleWriter::finish`], it leaves nothing behind.
pub struct BundleWriter {
    path: PathBuf,
    part: PathBuf,
    overwrite: bool,
    file: BufWriter<File>,
    /// Where the next byte goes.
    place: u64,
    topics: Vec<TopicSpec>,
    partitions: Vec<PartitionEntry>,
    block: Option<BlockBuilder>,
    /// The next offset that may be written to the open partition.
    next: u64,
    is_done: bool,
}

/// A bundle that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Bytes of the file.
    pub bytes: u64,
    /// Records in it.
    pub records: u64,
    /// The digest of all of it.
    pub digest: [u8; 32],
}

impl BundleWriter {
    /// Begins a bundle that will be `path`.
    ///
    /// # Errors
    /// When there is a file of that name, unless it may be written over, or when none can be made.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self, BundleError> {
        if path.exists() && !overwrite {
            return Err(BundleError::Exists { path: path.to_owned() });
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let part = path.with_file_name(name);
        let file = File::create(&part).map_err(BundleError::io(&part, "making it"))?;
        let mut writer = Self {
            path: path.to_owned(),
            part,
            overwrite,
            file: BufWriter::new(file),
            place: 0,
            topics: Vec::new(),
            partitions: Vec::new(),
            block: None,
            next: 0,
            is_done: false,
        };
        writer.put(MAGIC)?;
        writer.put(&FORMAT.to_le_bytes())?;
        Ok(writer)
    }

    /// Names a topic and its layout.
    pub fn topic(&mut self, spec: &TopicSpec) {
        if !self.topics.iter().any(|known| known.name == spec.name) {
            self.topics.push(spec.clone());
        }
    }

    /// Begins a partition, which answers for offsets from `start` on. Its topic must be named before the end.
    pub fn begin(&mut self, at: &TopicPartition, start: u64) -> Result<(), BundleError> {
        self.end_block()?;
        self.next = start;
        let at = at.clone();
        self.partitions.push(PartitionEntry {
            at,
            start,
            end: start,
            records: 0,
            bytes: 0,
            blocks: Vec::new(),
        });
        Ok(())
    }

    /// Adds a record to the partition that was begun last; offsets ascend.
    pub fn push(&mut self, stored: &StoredRecord) -> Result<(), BundleError> {
        let (size, offset) = (stored.record.size(), stored.offset);
        let Some(entry) = self.partitions.last() else { return Ok(()) };
        if offset < self.next {
            return Err(BundleError::Order { at: entry.at.clone(), offset });
        }
        if size > MAX_RECORD_BYTES || stored.record.headers.len() > MAX_HEADERS {
            let at = entry.at.clone();
            return Err(BundleError::TooLarge { at, offset, bytes: size, limit: MAX_RECORD_BYTES });
        }
        if self.block.as_ref().is_some_and(|block| !block.has_room(size, offset)) {
            self.end_block()?;
        }
        self.block.get_or_insert_with(|| BlockBuilder::new(offset)).push(offset, 0, &stored.record);
        self.next = offset + 1;
        if let Some(entry) = self.partitions.last_mut() {
            entry.end = entry.end.max(self.next);
            entry.records += 1;
            entry.bytes += size as u64;
        }
        Ok(())
    }

    /// Says that the partition at hand answers for offsets up to, and without, `end`.
    pub fn end(&mut self, end: u64) {
        if let Some(entry) = self.partitions.last_mut() {
            entry.end = entry.end.max(end);
        }
    }

    /// Ends the bundle, which has its name from here on.
    pub fn finish(mut self, about: &About) -> Result<Finished, BundleError> {
        self.end_block()?;
        let mut topics = std::mem::take(&mut self.topics);
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let mut partitions = std::mem::take(&mut self.partitions);
        partitions.sort_by(|a, b| a.at.cmp(&b.at));
        let records = partitions.iter().map(|entry| entry.records).sum();
        // Text, numbers and lists always become JSON.
        let about = serde_json::to_string_pretty(about).unwrap_or_default();
        let index = Index { about, topics, partitions };
        let encoded = postcard::to_stdvec(&index).map_err(|error| {
            BundleError::damaged(&self.path, format!("its index can not be written: {error}"))
        })?;
        let digest = *blake3::hash(&encoded).as_bytes();
        let index_bytes = u32::try_from(encoded.len())
            .map_err(|_| BundleError::damaged(&self.path, "its index is too large"))?;
        let footer = Footer { index_at: self.place, index_bytes, digest };
        self.put(&encoded)?;
        self.put(&footer.write())?;
        let failed = |doing| BundleError::io(&self.part, doing);
        self.file.flush().map_err(failed("writing it"))?;
        self.file.get_ref().sync_all().map_err(failed("writing it to the disk"))?;
        if self.path.exists() && !self.overwrite {
            return Err(BundleError::Exists { path: self.path.clone() });
        }
        std::fs::rename(&self.part, &self.path).map_err(BundleError::io(&self.path, "giving it its name"))?;
        self.is_done = true;
        Ok(Finished { bytes: self.place, records, digest })
    }

    fn end_block(&mut self) -> Result<(), BundleError> {
        let Some(block) = self.block.take() else { return Ok(()) };
        let built = block.build();
        let digest = *blake3::hash(&built.value).as_bytes();
        // A block is bounded far below 2^32 bytes.
        let bytes = u32::try_from(built.value.len()).unwrap_or(u32::MAX);
        let entry =
            BlockEntry { place: self.place, bytes, base: built.block.base, end: built.block.end, digest };
        self.put(&bytes.to_le_bytes())?;
        self.put(&digest)?;
        self.put(&built.value)?;
        if let Some(partition) = self.partitions.last_mut() {
            partition.blocks.push(entry);
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        self.file.write_all(bytes).map_err(BundleError::io(&self.part, "writing it"))?;
        self.place += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for BundleWriter {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}
