//! One value of the store: a run of records, compressed when that helps, with a checksum.
//!
//! ```text
//! version u8 = 1, checksum u32 (crc32 of all that follows), flags u8 (1: lz4),
//! span u32 (offsets from the base to the block's end), records u32, body_bytes u32 (before compression),
//! oldest_append_ms u64, newest_append_ms u64, greatest_timestamp_ms i64, body
//! ```
//!
//! Integers are little-endian. The base offset is in the key. Offsets in a block may have gaps: compaction leaves them.

use bytes::Bytes;
use tidewire_engine::log::NewRecord;

use super::codec::{Before, Logged, Mark, RecordReader, put_record};

/// Records are gathered into blocks of about this many bytes before compression.
pub(super) const BLOCK_BYTES: usize = 128 * 1024;
/// Most offsets in one block, gaps included.
pub(super) const MAX_BLOCK_SPAN: u64 = 1 << 24;
/// Bodies below this are not worth compressing.
const MIN_COMPRESS_BYTES: usize = 256;
/// Most bytes of a body: a full block and one record of the largest size, with room for lengths.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
const VERSION: u8 = 1;
const LZ4: u8 = 1;
const HEADER_BYTES: usize = 42;
const CHECKED_FROM: usize = 5;

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    /// Offsets from the base to the block's end.
    pub(super) span: u32,
    /// Records in it.
    pub(super) records: u32,
    /// Bytes of its body before compression.
    pub(super) body_bytes: u32,
    /// Append time of its oldest record, milliseconds since the epoch.
    pub(super) oldest_append_ms: u64,
    /// Append time of its newest record.
    pub(super) newest_append_ms: u64,
    /// Greatest timestamp of its records.
    pub(super) greatest_timestamp_ms: i64,
    lz4: bool,
    checksum: u32,
}

/// A block under construction.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    base: u64,
    before: Before,
    records: u32,
    oldest_append_ms: u64,
    newest_append_ms: u64,
    greatest_timestamp_ms: i64,
    body: Vec<u8>,
    marks: Vec<Mark>,
}

/// A block as it goes into the store.
#[derive(Debug)]
pub(crate) struct Built {
    /// The store's value.
    pub(crate) value: Vec<u8>,
    /// The same, ready to be read.
    pub(crate) block: Block,
}

impl BlockBuilder {
    pub(crate) fn new(base: u64) -> Self {
        Self {
            base,
            before: Before::base(base),
            records: 0,
            oldest_append_ms: u64::MAX,
            newest_append_ms: 0,
            greatest_timestamp_ms: i64::MIN,
            body: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Adds a record; offsets ascend.
    pub(crate) fn push(&mut self, offset: u64, appended_ms: u64, record: &NewRecord) {
        if (self.records as usize).is_multiple_of(MARK_EVERY) {
            self.marks.push(Mark { position: self.body.len(), before: self.before });
        }
        put_record(&mut self.body, &mut self.before, offset, appended_ms, record);
        self.records += 1;
        self.oldest_append_ms = self.oldest_append_ms.min(appended_ms);
        self.newest_append_ms = self.newest_append_ms.max(appended_ms);
        self.greatest_timestamp_ms = self.greatest_timestamp_ms.max(record.timestamp_ms);
    }

    /// Whether a record of that size at that offset still fits.
    pub(crate) fn has_room(&self, size: usize, offset: u64) -> bool {
        self.records == 0 || (self.body.len() + size <= BLOCK_BYTES && offset - self.base < MAX_BLOCK_SPAN)
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The finished block.
    pub(crate) fn build(self) -> Built {
        let compressed = match self.body.len() >= MIN_COMPRESS_BYTES {
            true => Some(lz4_flex::block::compress(&self.body)).filter(|c| c.len() < self.body.len() / 8 * 7),
            false => None,
        };
        let stored = compressed.as_deref().unwrap_or(&self.body);
        let mut value = Vec::with_capacity(HEADER_BYTES + stored.len());
        let end = self.before.next_offset;
        value.extend_from_slice(&[VERSION, 0, 0, 0, 0, if compressed.is_some() { LZ4 } else { 0 }]);
        value.extend_from_slice(&to_u32(end - self.base).to_le_bytes());
        value.extend_from_slice(&self.records.to_le_bytes());
        value.extend_from_slice(&to_u32(self.body.len() as u64).to_le_bytes());
        value.extend_from_slice(&self.oldest_append_ms.to_le_bytes());
        value.extend_from_slice(&self.newest_append_ms.to_le_bytes());
        value.extend_from_slice(&self.greatest_timestamp_ms.to_le_bytes());
        value.extend_from_slice(stored);
        let checksum = crc32fast::hash(&value[CHECKED_FROM..]);
        value[1..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
        let block = Block { base: self.base, end, body: Bytes::from(self.body), marks: self.marks };
        Built { value, block }
    }
}

/// A block that was read and checked.
#[derive(Debug)]
pub(crate) struct Block {
    /// Base offset.
    pub(crate) base: u64,
    /// The offset after the block.
    pub(crate) end: u64,
    body: Bytes,
    /// Where records begin, one in [`MARK_EVERY`].
    marks: Vec<Mark>,
}

/// Records between two marks: how many a read in the middle of a block has to step over.
const MARK_EVERY: usize = 32;

impl Block {
    /// Reads a value of the store. The error says what is wrong with the bytes.
    pub(crate) fn decode(base: u64, value: &[u8]) -> Result<Self, String> {
        let header = BlockHeader::read(value)?;
        if crc32fast::hash(&value[CHECKED_FROM..]) != header.checksum {
            return Err("its checksum does not match".to_owned());
        }
        let stored = &value[HEADER_BYTES..];
        let bytes = header.body_bytes as usize;
        if bytes > MAX_BODY_BYTES {
            return Err(format!("it claims a body of {bytes} bytes"));
        }
        let body = match header.lz4 {
            true => lz4_flex::block::decompress(stored, bytes)
                .map_err(|e| format!("it does not decompress: {e}"))?,
            false => stored.to_vec(),
        };
        if body.len() != bytes {
            return Err(format!("its body is {} bytes, not {bytes}", body.len()));
        }
        let end = base.checked_add(u64::from(header.span)).ok_or("its offsets overflow")?;
        let (block, records) =
            Self::of_body(base, end, Bytes::from(body)).ok_or("its records do not decode")?;
        if records != header.records as usize {
            return Err("its count of records does not match".to_owned());
        }
        Ok(block)
    }

    /// A block over a body, and how many records it has; `None` if the body is not sound.
    fn of_body(base: u64, end: u64, body: Bytes) -> Option<(Self, usize)> {
        let mut reader = RecordReader::new(&body, Mark { position: 0, before: Before::base(base) });
        let mut marks = Vec::new();
        let mut count = 0_usize;
        while !reader.is_done() {
            if count.is_multiple_of(MARK_EVERY) {
                marks.push(reader.mark());
            }
            if reader.skip()? >= end {
                return None;
            }
            count += 1;
        }
        Some((Self { base, end, body, marks }, count))
    }

    /// The same block with all offsets moved up: a block is built before its place is known.
    pub(super) fn moved_by(mut self, offsets: u64) -> Self {
        self.base += offsets;
        self.end += offsets;
        self.marks.iter_mut().for_each(|mark| mark.before.next_offset += offsets);
        self
    }

    /// Records from `from` on.
    pub(crate) fn records_from(&self, from: u64) -> impl Iterator<Item = Logged> + '_ {
        let place = self.marks.partition_point(|mark| mark.before.next_offset <= from);
        let start = self.marks.get(place.saturating_sub(1)).copied();
        let start = start.unwrap_or(Mark { position: self.body.len(), before: Before::base(self.base) });
        let mut reader = RecordReader::new(&self.body, start);
        // The body was walked when the block was made: what ends this is the end of the body.
        std::iter::from_fn(move || if reader.is_done() { None } else { reader.next() })
            .skip_while(move |logged| logged.stored.offset < from)
    }

    /// All records.
    pub(crate) fn records(&self) -> impl Iterator<Item = Logged> + '_ {
        self.records_from(self.base)
    }

    /// Bytes it takes in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.body.len() + self.marks.len() * size_of::<Mark>() + size_of::<Self>()
    }
}

impl BlockHeader {
    /// Reads the header of a value; nothing behind it is checked.
    pub(super) fn read(value: &[u8]) -> Result<Self, String> {
        match value.first() {
            Some(&VERSION) => {}
            Some(version) => {
                return Err(format!(
                    "it has format {version}, this build knows format {VERSION}: use a newer build"
                ));
            }
            None => return Err("it is empty".to_owned()),
        }
        let fields: &[u8; HEADER_BYTES] =
            value.first_chunk().ok_or_else(|| format!("it is only {} bytes", value.len()))?;
        let u32_at =
            |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let flags = fields[CHECKED_FROM];
        if flags & !LZ4 != 0 {
            return Err(format!("it has unknown flags {flags:#x}"));
        }
        Ok(Self {
            lz4: flags & LZ4 != 0,
            checksum: u32_at(1),
            span: u32_at(6),
            records: u32_at(10),
            body_bytes: u32_at(14),
            oldest_append_ms: u64_at(18),
            newest_append_ms: u64_at(26),
            greatest_timestamp_ms: u64_at(34).cast_signed(),
        })
    }
}

/// Block sizes and spans are bounded far below 2^32.
fn to_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    fn record(n: u64) -> NewRecord {
        NewRecord {
            timestamp_ms: (1_000 + n * 7 % 50).cast_signed(),
            key: Some(Bytes::from(format!("key {}", n % 10))),
            value: (!n.is_multiple_of(5))
                .then(|| Bytes::from(format!("value {n} of a record that compresses well"))),
            headers: vec![],
        }
    }

    fn built(records: u64) -> Built {
        let mut builder = BlockBuilder::new(100);
        (0..records).for_each(|n| builder.push(100 + n * 2, 5_000 + n, &record(n)));
        builder.build()
    }

    #[test]
    fn a_block_reads_back_from_any_offset() {
        for count in [1, 31, 32, 33, 500] {
            let built = built(count);
            let block = Block::decode(100, &built.value).unwrap();
            assert_eq!((block.base, block.end), (100, 100 + (count - 1) * 2 + 1));
            assert_eq!(block.marks.len(), built.block.marks.len());
            for from in 99..=block.end {
                let read: Vec<Logged> = block.records_from(from).collect();
                assert_eq!(read, built.block.records_from(from).collect::<Vec<_>>());
                let first = (from.max(100) - 100).div_ceil(2);
                assert_eq!(read.len() as u64, count - first, "from {from}");
                for (logged, n) in read.iter().zip(first..) {
                    assert_eq!((logged.stored.offset, logged.appended_ms), (100 + n * 2, 5_000 + n));
                    assert_eq!(logged.stored.record, record(n));
                }
            }
            let header = BlockHeader::read(&built.value).unwrap();
            assert_eq!((header.oldest_append_ms, header.newest_append_ms), (5_000, 5_000 + count - 1));
            assert_eq!(
                header.greatest_timestamp_ms,
                (0..count).map(|n| record(n).timestamp_ms).max().unwrap()
            );
        }
        assert!(built(500).value.len() < built(500).block.body.len() / 3);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        for count in [1, 40] {
            let value = built(count).value;
            for at in 0..value.len() {
                for bit in 0..8 {
                    let mut damaged = value.clone();
                    damaged[at] ^= 1 << bit;
                    Block::decode(100, &damaged).unwrap_err();
                }
                Block::decode(100, &value[..at]).unwrap_err();
            }
        }
    }

    #[test]
    fn bodies_that_lie_are_errors_even_with_a_right_checksum() {
        let mut value = built(40).value;
        for at in CHECKED_FROM..value.len() {
            for to in [0, 1, 0x7f, 0x80, 0xff] {
                let was = std::mem::replace(&mut value[at], to);
                let checksum = crc32fast::hash(&value[CHECKED_FROM..]);
                value[1..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
                if let Ok(block) = Block::decode(100, &value) {
                    block.records().for_each(drop);
                }
                value[at] = was;
            }
        }
    }
}
