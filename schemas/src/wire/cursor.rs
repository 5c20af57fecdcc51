//! Reading Avro's binary encoding (Avro 1.12 specification, "Binary encoding").

use crate::decimal::MAX_UNITS;
use crate::error::{DecodeError, Malformed};
use bytes::Bytes;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Room set aside before items are seen, so that a false count cannot ask for much memory.
const MAX_ITEMS_AHEAD: usize = 256;
/// Bytes of the longest 64-bit number.
const MAX_VARINT_BYTES: usize = 10;

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
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::new(self.at - 1, "a boolean is neither 0 nor 1")),
        }
    }

    /// A 32-bit number.
    #[inline]
    pub fn int(&mut self) -> Result<i32, Malformed> {
        let at = self.at;
        i32::try_from(self.long()?).map_err(|_| Malformed::new(at, "an int does not fit 32 bits"))
    }

    /// A 64-bit number.
    #[inline(always)]
    pub fn long(&mut self) -> Result<i64, Malformed> {
        // One-byte numbers are the most common: lengths, counts, branches, enums.
        if let Some(&byte) = self.bytes.get(self.at)
            && byte < 0x80
        {
            self.at += 1;
            return Ok(unzigzag(u64::from(byte)));
        }
        match self.many_bytes() {
            Some(value) => Ok(unzigzag(value)),
            None => Err(self.bad_long()),
        }
    }

    /// A number of two or more bytes: the first eight are taken as one word.
    #[inline(never)]
    fn many_bytes(&mut self) -> Option<u64> {
        let rest = &self.bytes[self.at..];
        let (Some(word), Some(&[.., ninth, tenth])) =
            (rest.first_chunk::<8>(), rest.first_chunk::<MAX_VARINT_BYTES>())
        else {
            let (value, length) = byte_by_byte(rest)?;
            self.at += length;
            return Some(value);
        };
        let word = u64::from_le_bytes(*word);
        // The last byte of a number is the first without its high bit.
        let ends = !word & 0x8080_8080_8080_8080;
        if ends != 0 {
            self.at += ends.trailing_zeros() as usize / 8 + 1;
            return Some(squeezed(word & (ends ^ (ends - 1))));
        }
        let value = squeezed(word) | u64::from(ninth & 0x7f) << 56;
        if ninth < 0x80 {
            self.at += 9;
            return Some(value);
        }
        // The tenth byte has one bit left.
        if tenth > 1 {
            return None;
        }
        self.at += 10;
        Some(value | u64::from(tenth) << 63)
    }

    #[cold]
    fn bad_long(&self) -> Malformed {
        let ended = self.remaining() < MAX_VARINT_BYTES && self.bytes[self.at..].iter().all(|b| *b >= 0x80);
        let problem = if ended { "the bytes end inside a number" } else { "a long does not fit 64 bits" };
        Malformed::new(self.at, problem)
    }

    /// A 32-bit float.
    #[inline]
    pub(crate) fn float(&mut self) -> Result<f32, Malformed> {
        match self.bytes[self.at..].first_chunk::<4>() {
            Some(chunk) => {
                self.at += 4;
                Ok(f32::from_le_bytes(*chunk))
            }
            None => Err(Malformed::new(self.at, "the bytes end inside a float")),
        }
    }

    /// A 64-bit float.
    #[inline]
    pub fn double(&mut self) -> Result<f64, Malformed> {
        match self.bytes[self.at..].first_chunk::<8>() {
            Some(chunk) => {
                self.at += 8;
                Ok(f64::from_le_bytes(*chunk))
            }
            None => Err(Malformed::new(self.at, "the bytes end inside a double")),
        }
    }

    /// A string.
    #[inline]
    pub fn string(&mut self) -> Result<SmolStr, Malformed> {
        self.str().map(SmolStr::new)
    }

    /// A string, where it lies.
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        let at = self.at;
        let bytes = self.slice()?;
        std::str::from_utf8(bytes).map_err(|_| Malformed::new(at, "a string is not UTF-8"))
    }

    /// Bytes, copied.
    #[inline]
    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        self.slice().map(Bytes::copy_from_slice)
    }

    /// Bytes, where they lie.
    #[inline]
    pub fn slice(&mut self) -> Result<&'a [u8], Malformed> {
        let at = self.at;
        let length = self.long()?;
        let Ok(length) = usize::try_from(length) else {
            return Err(Malformed::new(at, "a length is negative"));
        };
        let Some(slice) = self.bytes[self.at..].get(..length) else {
            return Err(Malformed::new(at, "a length goes beyond the end"));
        };
        self.at += length;
        Ok(slice)
    }

    /// A decimal (28, 12): its count of 10^-12 units.
    #[inline]
    pub fn decimal(&mut self) -> Result<i128, Malformed> {
        let at = self.at;
        let length = self.slice()?.len();
        let from = self.at - length;
        let units = match length {
            // The bytes behind the number fill it up, and are shifted out again: no copy of unknown length.
            1..=8 => match self.bytes[from..].first_chunk::<8>() {
                Some(chunk) => i128::from(i64::from_be_bytes(*chunk) >> (64 - 8 * length)),
                None => sign_extended(&self.bytes[from..self.at]),
            },
            9..=16 => match self.bytes[from..].first_chunk::<16>() {
                Some(chunk) => i128::from_be_bytes(*chunk) >> (128 - 8 * length),
                None => sign_extended(&self.bytes[from..self.at]),
            },
            _ => return Err(Malformed::new(at, "a decimal has 0 or more than 16 bytes")),
        };
        // Eight bytes cannot hold more than 19 digits.
        if length > 8 && units.unsigned_abs() > MAX_UNITS.unsigned_abs() {
            return Err(Malformed::new(at, "a decimal has more than 28 digits"));
        }
        Ok(units)
    }

    /// An array, in any number of blocks.
    #[inline]
    pub fn array<T, E: From<Malformed>>(
        &mut self,
        mut item: impl FnMut(&mut Cursor<'a>) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
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
    pub fn map<T, E: From<Malformed>>(
        &mut self,
        mut item: impl FnMut(&mut Cursor<'a>) -> Result<T, E>,
    ) -> Result<BTreeMap<SmolStr, T>, E> {
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
                    return Err(Malformed::new(at, "a map has a key twice").into());
                }
            }
        }
    }

    /// A union of null and one type, null first.
    #[inline]
    pub fn optional<T, E: From<Malformed>>(
        &mut self,
        item: impl FnOnce(&mut Cursor<'a>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let at = self.at;
        match self.long()? {
            0 => Ok(None),
            1 => item(self).map(Some),
            _ => Err(Malformed::new(at, "a union has no such branch").into()),
        }
    }

    /// Number of items in the next block of an array or a map; 0 is the end. No item takes less than one byte.
    #[inline]
    pub(crate) fn block(&mut self) -> Result<usize, Malformed> {
        // At least one byte an item; the count itself takes one more.
        self.block_within(self.remaining())
    }

    /// The same with another bound on the count.
    #[inline]
    pub(crate) fn block_within(&mut self, most: usize) -> Result<usize, Malformed> {
        let at = self.at;
        let mut count = self.long()?;
        if count < 0 {
            // A negative count is followed by the block's size in bytes.
            let size = self.long()?;
            if usize::try_from(size).map_or(true, |size| size > self.remaining()) {
                return Err(Malformed::new(at, "a block's size goes beyond the end"));
            }
            count = count.checked_neg().unwrap_or(i64::MAX);
        }
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(Malformed::new(at, "a block has more items than bytes are left")),
        }
    }

    /// That many bytes, where they lie.
    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        match self.bytes[self.at..].get(..length) {
            Some(slice) => {
                self.at += length;
                Ok(slice)
            }
            None => Err(Malformed::new(self.at, "the bytes end too early")),
        }
    }

    /// Index of a symbol or a branch, less than `count`.
    #[inline]
    pub(crate) fn index(&mut self, count: usize) -> Result<usize, Malformed> {
        let at = self.at;
        match usize::try_from(self.long()?) {
            Ok(index) if index < count => Ok(index),
            _ => Err(Malformed::new(at, "there is no symbol or branch of that index")),
        }
    }

    /// The bytes from here to where `later`, a copy of this cursor, has come.
    #[inline]
    pub(crate) fn since(&self, later: &Cursor<'_>) -> &'a [u8] {
        &self.bytes[self.at..later.at]
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Malformed> {
        match self.bytes.get(self.at) {
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            None => Err(Malformed::new(self.at, "the bytes end too early")),
        }
    }
}

#[inline]
const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Value and number of bytes of a number in fewer than ten bytes, which make 63 bits at most; `None` when it does not
/// end in them.
fn byte_by_byte(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(MAX_VARINT_BYTES - 1).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Eight bytes of seven bits, least first, as one number of 56 bits: neighbours are joined, then pairs, then fours.
#[inline]
const fn squeezed(word: u64) -> u64 {
    let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
    word & 0x0000_0000_0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4
}

/// Big-endian two's complement, byte by byte.
fn sign_extended(bytes: &[u8]) -> i128 {
    let negative = bytes.first().is_some_and(|b| *b >= 0x80);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, byte| value << 8 | i128::from(*byte))
}
