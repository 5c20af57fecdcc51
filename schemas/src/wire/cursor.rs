//! Reading Avro's binary encoding (Avro 1.12 specification, "Binary encoding").

use crate::decimal::MAX_UNITS;
use crate::error::DecodeError;
use bytes::Bytes;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Room set aside before items are seen, so that a false count cannot ask for much memory.
const MAX_ITEMS_AHEAD: usize = 256;

/// Reads values one after another. Any bytes give a value or an error; lengths are checked before use.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// Number of bytes read.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Number of bytes left.
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Fails when bytes are left.
    #[inline]
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            length => Err(DecodeError::TrailingBytes { at: self.at, length }),
        }
    }

    /// A boolean: 0 or 1.
    #[inline]
    pub fn boolean(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::malformed(self.at - 1, "a boolean is neither 0 nor 1")),
        }
    }

    /// A 32-bit number.
    #[inline]
    pub fn int(&mut self) -> Result<i32, DecodeError> {
        let at = self.at;
        i32::try_from(self.long()?).map_err(|_| DecodeError::malformed(at, "an int does not fit 32 bits"))
    }

    /// A 64-bit number.
    #[inline]
    pub fn long(&mut self) -> Result<i64, DecodeError> {
        // One-byte numbers are the most common: lengths, counts, branches, enums.
        if let Some(&byte) = self.bytes.get(self.at)
            && byte < 0x80
        {
            self.at += 1;
            return Ok(unzigzag(u64::from(byte)));
        }
        self.long_of_many_bytes()
    }

    fn long_of_many_bytes(&mut self) -> Result<i64, DecodeError> {
        let rest = &self.bytes[self.at..];
        let mut value = 0u64;
        for (i, &byte) in rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                if i == 9 && byte > 1 {
                    return Err(DecodeError::malformed(self.at, "a long does not fit 64 bits"));
                }
                self.at += i + 1;
                return Ok(unzigzag(value));
            }
        }
        let problem =
            if rest.len() < 10 { "the bytes end inside a number" } else { "a long does not fit 64 bits" };
        Err(DecodeError::malformed(self.at, problem))
    }

    /// A 32-bit float.
    #[inline]
    pub(crate) fn float(&mut self) -> Result<f32, DecodeError> {
        match self.bytes[self.at..].first_chunk::<4>() {
            Some(chunk) => {
                self.at += 4;
                Ok(f32::from_le_bytes(*chunk))
            }
            None => Err(DecodeError::malformed(self.at, "the bytes end inside a float")),
        }
    }

    /// A 64-bit float.
    #[inline]
    pub fn double(&mut self) -> Result<f64, DecodeError> {
        match self.bytes[self.at..].first_chunk::<8>() {
            Some(chunk) => {
                self.at += 8;
                Ok(f64::from_le_bytes(*chunk))
            }
            None => Err(DecodeError::malformed(self.at, "the bytes end inside a double")),
        }
    }

    /// A string.
    #[inline]
    pub fn string(&mut self) -> Result<SmolStr, DecodeError> {
        self.str().map(SmolStr::new)
    }

    /// A string, where it lies.
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        let at = self.at;
        let bytes = self.slice()?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::malformed(at, "a string is not UTF-8"))
    }

    /// Bytes, copied.
    #[inline]
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        self.slice().map(Bytes::copy_from_slice)
    }

    /// Bytes, where they lie.
    #[inline]
    pub fn slice(&mut self) -> Result<&'a [u8], DecodeError> {
        let at = self.at;
        let length = self.long()?;
        let Ok(length) = usize::try_from(length) else {
            return Err(DecodeError::malformed(at, "a length is negative"));
        };
        let Some(slice) = self.bytes[self.at..].get(..length) else {
            return Err(DecodeError::malformed(at, "a length goes beyond the end"));
        };
        self.at += length;
        Ok(slice)
    }

    /// A decimal (28, 12): its count of 10^-12 units.
    #[inline]
    pub fn decimal(&mut self) -> Result<i128, DecodeError> {
        let at = self.at;
        let slice = self.slice()?;
        let units = match be_i128(slice) {
            Some(units) => units,
            None => return Err(DecodeError::malformed(at, "a decimal has 0 or more than 16 bytes")),
        };
        if units.unsigned_abs() > MAX_UNITS.unsigned_abs() {
            return Err(DecodeError::malformed(at, "a decimal has more than 28 digits"));
        }
        Ok(units)
    }

    /// An array, in any number of blocks.
    #[inline]
    pub fn array<T>(
        &mut self,
        mut item: impl FnMut(&mut Cursor<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut items = Vec::new();
        loop {
            let count = self.block()?;
            if count == 0 {
                return Ok(items);
            }
            items.reserve(count.min(MAX_ITEMS_AHEAD));
            for _ in 0..count {
                items.push(item(self)?);
            }
        }
    }

    /// A map, in any number of blocks. A key that comes twice is an error: one of the values would be lost.
    #[inline]
    pub fn map<T>(
        &mut self,
        mut item: impl FnMut(&mut Cursor<'a>) -> Result<T, DecodeError>,
    ) -> Result<BTreeMap<SmolStr, T>, DecodeError> {
        let mut entries = BTreeMap::new();
        loop {
            let count = self.block()?;
            if count == 0 {
                return Ok(entries);
            }
            for _ in 0..count {
                let at = self.at;
                let key = self.string()?;
                let value = item(self)?;
                if entries.insert(key, value).is_some() {
                    return Err(DecodeError::malformed(at, "a map has a key twice"));
                }
            }
        }
    }

    /// A union of null and one type, null first.
    #[inline]
    pub fn optional<T>(
        &mut self,
        item: impl FnOnce(&mut Cursor<'a>) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        let at = self.at;
        match self.long()? {
            0 => Ok(None),
            1 => item(self).map(Some),
            _ => Err(DecodeError::malformed(at, "a union has no such branch")),
        }
    }

    /// Number of items in the next block of an array or a map; 0 is the end. No item takes less than one byte.
    #[inline]
    pub(crate) fn block(&mut self) -> Result<usize, DecodeError> {
        // At least one byte an item; the count itself takes one more.
        self.block_within(self.remaining())
    }

    /// The same with another bound on the count.
    #[inline]
    pub(crate) fn block_within(&mut self, most: usize) -> Result<usize, DecodeError> {
        let at = self.at;
        let mut count = self.long()?;
        if count < 0 {
            // A negative count is followed by the block's size in bytes.
            let size = self.long()?;
            if usize::try_from(size).map_or(true, |size| size > self.remaining()) {
                return Err(DecodeError::malformed(at, "a block's size goes beyond the end"));
            }
            count = count.checked_neg().unwrap_or(i64::MAX);
        }
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(DecodeError::malformed(at, "a block has more items than bytes are left")),
        }
    }

    /// That many bytes, where they lie.
    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        match self.bytes[self.at..].get(..length) {
            Some(slice) => {
                self.at += length;
                Ok(slice)
            }
            None => Err(DecodeError::malformed(self.at, "the bytes end too early")),
        }
    }

    /// Index of a symbol or a branch, less than `count`.
    #[inline]
    pub(crate) fn index(&mut self, count: usize) -> Result<usize, DecodeError> {
        let at = self.at;
        match usize::try_from(self.long()?) {
            Ok(index) if index < count => Ok(index),
            _ => Err(DecodeError::malformed(at, "there is no symbol or branch of that index")),
        }
    }

    /// The bytes from here to where `later`, a copy of this cursor, has come.
    #[inline]
    pub(crate) fn since(&self, later: &Cursor<'_>) -> &'a [u8] {
        &self.bytes[self.at..later.at]
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, DecodeError> {
        match self.bytes.get(self.at) {
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            None => Err(DecodeError::malformed(self.at, "the bytes end too early")),
        }
    }
}

#[inline]
const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Big-endian two's complement of 1 to 16 bytes.
#[inline]
fn be_i128(slice: &[u8]) -> Option<i128> {
    let length = slice.len();
    if length == 0 || length > 16 {
        return None;
    }
    if length <= 8 {
        let mut raw = [0u8; 8];
        raw[..length].copy_from_slice(slice);
        return Some(i128::from(i64::from_be_bytes(raw) >> (64 - 8 * length)));
    }
    let mut raw = [0u8; 16];
    raw[..length].copy_from_slice(slice);
    Some(i128::from_be_bytes(raw) >> (128 - 8 * length))
}
