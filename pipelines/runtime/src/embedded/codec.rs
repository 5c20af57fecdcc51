//! Bytes of records in a block and on the socket: variable-length integers and length-prefixed fields.
//!
//! Everything is relative to what precedes it, so a block says the same at any base offset:
//!
//! ```text
//! record  = gap append_delta time_delta key value headers
//! gap     = varint   offsets skipped since the record before (or since the base offset)
//! *_delta = zigzag   difference to the record before, milliseconds
//! key     = varint   0: none, n + 1: n bytes follow; value alike
//! headers = varint count, then per header: varint name bytes, name, varint value bytes, value
//! ```

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_engine::log::{Header, NewRecord, StoredRecord};
use tidewire_engine::log_limits::{MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_RECORD_BYTES};

/// A record with what only the log knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    /// The record at its offset.
    pub(crate) stored: StoredRecord,
    /// When it was appended, milliseconds since the epoch.
    pub(super) appended_ms: u64,
}

/// What a record is encoded against: the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// The offset after the record before.
    pub(super) next_offset: u64,
    /// Its append time.
    pub(super) appended_ms: u64,
    /// Its timestamp.
    pub(super) timestamp_ms: i64,
}

impl Before {
    /// Where a block with this base offset begins.
    pub(super) fn base(offset: u64) -> Self {
        Self { next_offset: offset, appended_ms: 0, timestamp_ms: 0 }
    }
}

/// Writes one record and moves `before` past it.
pub(super) fn put_record(
    out: &mut Vec<u8>,
    before: &mut Before,
    offset: u64,
    appended_ms: u64,
    record: &NewRecord,
) {
    put_varint(out, offset.wrapping_sub(before.next_offset));
    put_varint(out, zigzag(appended_ms.wrapping_sub(before.appended_ms).cast_signed()));
    put_varint(out, zigzag(record.timestamp_ms.wrapping_sub(before.timestamp_ms)));
    put_optional(out, record.key.as_deref());
    put_optional(out, record.value.as_deref());
    put_varint(out, record.headers.len() as u64);
    for (name, value) in &record.headers {
        put_varint(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
    *before = Before { next_offset: offset.wrapping_add(1), appended_ms, timestamp_ms: record.timestamp_ms };
}

/// Where a record begins in a block, and what it is encoded against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Byte position in the body.
    pub(super) position: usize,
    /// The record before.
    pub(super) before: Before,
}

/// Reads records off a body. Values share the body's memory.
#[derive(Debug)]
pub(super) struct RecordReader<'a> {
    body: &'a Bytes,
    position: usize,
    before: Before,
}

impl<'a> RecordReader<'a> {
    pub(super) fn new(body: &'a Bytes, at: Mark) -> Self {
        Self { body, position: at.position, before: at.before }
    }

    /// Where the next record begins.
    pub(super) fn mark(&self) -> Mark {
        Mark { position: self.position, before: self.before }
    }

    /// True when all of the body is read.
    pub(super) fn is_done(&self) -> bool {
        self.position >= self.body.len()
    }

    /// The next record; `None` if the bytes are not one.
    pub(super) fn next(&mut self) -> Option<Logged> {
        let mut input = Input { body: self.body, position: self.position };
        let before = input.skip_head(self.before)?;
        let offset = before.next_offset - 1;
        let key = input.optional()?;
        let value = input.optional()?;
        let headers = input.headers()?;
        let record = NewRecord { timestamp_ms: before.timestamp_ms, key, value, headers };
        (self.position, self.before) = (input.position, before);
        Some(Logged { stored: StoredRecord { offset, record }, appended_ms: before.appended_ms })
    }

    /// Steps over a record without building it; its offset, or `None` if the bytes are not one.
    pub(super) fn skip(&mut self) -> Option<u64> {
        let mut input = Input { body: self.body, position: self.position };
        let before = input.skip_head(self.before)?;
        input.optional_range()?;
        input.optional_range()?;
        for _ in 0..input.header_count()? {
            let name = input.range(MAX_HEADER_NAME_BYTES)?;
            std::str::from_utf8(input.body.get(name)?).ok()?;
            input.range(MAX_RECORD_BYTES)?;
        }
        (self.position, self.before) = (input.position, before);
        Some(before.next_offset - 1)
    }
}

struct Input<'a> {
    body: &'a Bytes,
    position: usize,
}

impl Input<'_> {
    fn skip_head(&mut self, before: Before) -> Option<Before> {
        let offset = before.next_offset.checked_add(self.varint()?)?;
        let appended_ms = before.appended_ms.wrapping_add(unzigzag(self.varint()?).cast_unsigned());
        let timestamp_ms = before.timestamp_ms.wrapping_add(unzigzag(self.varint()?));
        Some(Before { next_offset: offset.checked_add(1)?, appended_ms, timestamp_ms })
    }

    fn varint(&mut self) -> Option<u64> {
        let (value, len) = get_varint(self.body.get(self.position..)?)?;
        self.position += len;
        Some(value)
    }

    fn range(&mut self, limit: usize) -> Option<std::ops::Range<usize>> {
        let len = self.varint()?;
        self.take(len, limit)
    }

    fn optional_range(&mut self) -> Option<Option<std::ops::Range<usize>>> {
        match self.varint()? {
            0 => Some(None),
            len => self.take(len - 1, MAX_RECORD_BYTES).map(Some),
        }
    }

    fn take(&mut self, len: u64, limit: usize) -> Option<std::ops::Range<usize>> {
        let len = usize::try_from(len).ok().filter(|len| *len <= limit)?;
        let end = self.position.checked_add(len).filter(|end| *end <= self.body.len())?;
        let range = self.position..end;
        self.position = end;
        Some(range)
    }

    fn optional(&mut self) -> Option<Option<Bytes>> {
        Some(self.optional_range()?.map(|range| self.body.slice(range)))
    }

    fn header_count(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok().filter(|count| *count <= MAX_HEADERS)
    }

    fn headers(&mut self) -> Option<Vec<Header>> {
        let count = self.header_count()?;
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.range(MAX_HEADER_NAME_BYTES)?;
            let name = SmolStr::new(std::str::from_utf8(self.body.get(name)?).ok()?);
            let value = self.range(MAX_RECORD_BYTES)?;
            headers.push((name, self.body.slice(value)));
        }
        Some(headers)
    }
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.push(0),
        Some(bytes) => {
            put_varint(out, bytes.len() as u64 + 1);
            out.extend_from_slice(bytes);
        }
    }
}

/// Seven bits a byte, least significant first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// The value and how many bytes it took; `None` if they are not a number of 64 bits.
pub(super) fn get_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (n, &byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if n == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    None
}

/// Small differences of either sign become small numbers.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn numbers_survive() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(get_varint(&out), Some((value, out.len())));
            assert_eq!(get_varint(&out[..out.len() - 1]), None);
        }
        assert_eq!(get_varint(&[0xff; 10]), None);
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn records_survive_and_none_is_not_empty() {
        let records = [
            NewRecord::default(),
            NewRecord {
                timestamp_ms: i64::MAX,
                key: Some(Bytes::new()),
                value: Some(Bytes::new()),
                headers: vec![],
            },
            NewRecord {
                timestamp_ms: i64::MIN,
                key: None,
                value: Some(Bytes::from_static(b"v")),
                headers: vec![
                    (SmolStr::new("cause"), Bytes::from_static(b"x")),
                    (SmolStr::new(""), Bytes::new()),
                ],
            },
        ];
        let mut out = Vec::new();
        let mut before = Before::base(7);
        for (offset, record) in [7, 9, u64::MAX - 1].into_iter().zip(&records) {
            put_record(&mut out, &mut before, offset, 1_000_000 - offset % 10, record);
        }
        let body = Bytes::from(out);
        let start = Mark { position: 0, before: Before::base(7) };
        let (mut reader, mut skipper) = (RecordReader::new(&body, start), RecordReader::new(&body, start));
        for (offset, record) in [7, 9, u64::MAX - 1].into_iter().zip(&records) {
            assert_eq!(skipper.skip(), Some(offset));
            let stored = StoredRecord { offset, record: record.clone() };
            assert_eq!(reader.next(), Some(Logged { stored, appended_ms: 1_000_000 - offset % 10 }));
            assert_eq!(skipper.mark().position, reader.mark().position);
        }
        assert!(reader.is_done());
        assert_eq!(reader.next(), None);
    }
}
