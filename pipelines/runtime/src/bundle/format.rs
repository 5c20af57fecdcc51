//! The bytes of a bundle.
//!
//! ```text
//! file   = magic "TWBUNDLE", format u32, block*, index, footer
//! block  = bytes u32, digest [32] (BLAKE3 of what follows), a block of the embedded log: records, compressed with lz4
//! index  = what the bundle says of itself, topics, and by partition its bounds and blocks with their digests
//! footer = place of the index u64, its bytes u32, its digest [32] (BLAKE3), magic "ELDNUBWT"
//! ```
//!
//! Integers are little-endian. The digest of the index is the digest of the bundle, as it stands for every block's.

use serde::{Deserialize, Serialize};
use tidewire_engine::log::{TopicPartition, TopicSpec};

/// What a bundle begins with.
pub(super) const MAGIC: &[u8; 8] = b"TWBUNDLE";
/// What it ends with.
pub(super) const END: &[u8; 8] = b"ELDNUBWT";
/// The format of this build.
pub(super) const FORMAT: u32 = 1;
/// Bytes before the first block.
pub(super) const HEAD_BYTES: u64 = 12;
/// Bytes before a block's body.
pub(super) const BLOCK_HEAD_BYTES: usize = 36;
/// Bytes of the footer.
pub(super) const FOOTER_BYTES: usize = 52;
/// Most bytes of an index: some millions of blocks.
pub(super) const MAX_INDEX_BYTES: usize = 512 << 20;
/// Most bytes of a block in the file.
pub(super) const MAX_BLOCK_BYTES: usize = 4 << 20;

/// Where everything is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    /// What the bundle says of itself, as JSON.
    pub about: String,
    /// Layouts, by name.
    pub topics: Vec<TopicSpec>,
    /// Partitions that have bounds.
    pub partitions: Vec<PartitionEntry>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartitionEntry {
    pub at: TopicPartition,
    /// First offset that the bundle answers for.
    pub start: u64,
    /// The offset after the last.
    pub end: u64,
    pub records: u64,
    /// Bytes of keys, values and headers.
    pub bytes: u64,
    pub blocks: Vec<BlockEntry>,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlockEntry {
    /// Where in the file its head begins.
    pub place: u64,
    /// Bytes of its body in the file.
    pub bytes: u32,
    /// Offset of its first record.
    pub base: u64,
    /// The offset after its last record.
    pub end: u64,
    pub digest: [u8; 32],
}

/// The last bytes of a bundle.
pub(super) struct Footer {
    pub index_at: u64,
    pub index_bytes: u32,
    pub digest: [u8; 32],
}

impl Footer {
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&self.index_at.to_le_bytes());
        bytes.extend_from_slice(&self.index_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(END);
        bytes
    }

    pub fn read(bytes: &[u8; FOOTER_BYTES]) -> Option<Self> {
        let (index_at, rest) = bytes.split_first_chunk::<8>()?;
        let (index_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (digest, end) = rest.split_first_chunk::<32>()?;
        (end == END).then(|| Self {
            index_at: u64::from_le_bytes(*index_at),
            index_bytes: u32::from_le_bytes(*index_bytes),
            digest: *digest,
        })
    }
}

impl Index {
    /// What is wrong with an index whose digest is right, if anything is: blocks must lie one behind the other up to
    /// `ends`, and be those of partitions that exist.
    pub fn problem(&self, ends: u64) -> Option<String> {
        let mut place = HEAD_BYTES;
        let mut last: Option<&TopicPartition> = None;
        let mut blocks: Vec<(&PartitionEntry, &BlockEntry)> = Vec::new();
        for entry in &self.partitions {
            let at = &entry.at;
            let spec = self.topics.iter().find(|topic| topic.name == at.topic);
            if spec.is_none_or(|spec| at.partition >= spec.partitions) || last.is_some_and(|last| last >= at)
            {
                return Some(format!("the index names {at} where it can not be"));
            }
            last = Some(at);
            let mut next = entry.start;
            for block in &entry.blocks {
                if block.base < next || block.end <= block.base || block.bytes as usize > MAX_BLOCK_BYTES {
                    return Some(format!("the index has no sound blocks of {at}"));
                }
                next = block.end;
                blocks.push((entry, block));
            }
            if entry.end < next {
                return Some(format!("the index has no sound bounds of {at}"));
            }
        }
        blocks.sort_by_key(|(_, block)| block.place);
        for (entry, block) in blocks {
            if block.place != place {
                return Some(format!("a block of {} is not where it should be", entry.at));
            }
            place += BLOCK_HEAD_BYTES as u64 + u64::from(block.bytes);
        }
        (place != ends).then(|| "there are bytes that belong to no block".to_owned())
    }
}
