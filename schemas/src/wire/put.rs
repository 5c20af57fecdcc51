//! Writing Avro's binary encoding (Avro 1.12 specification, "Binary encoding").

use smol_str::SmolStr;
use std::collections::BTreeMap;

#[inline]
pub(crate) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Zig-zag and variable length, for int and long alike.
#[inline]
pub(crate) fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let mut buffer = [0u8; 10];
    let mut length = 0;
    while rest >= 0x80 {
        buffer[length] = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
        length += 1;
    }
    buffer[length] = rest as u8;
    out.extend_from_slice(&buffer[..=length]);
}

#[inline]
pub(crate) fn double(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[inline]
pub(crate) fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    length(out, value.len());
    out.extend_from_slice(value);
}

/// Minimal big-endian two's complement, as Java's `BigInteger.toByteArray`: at least one byte.
#[inline]
pub(crate) fn decimal(out: &mut Vec<u8>, units: i128) {
    let sign_bits = if units < 0 { units.leading_ones() } else { units.leading_zeros() };
    // 128 bits less the repeated sign, plus one sign bit, rounded up to bytes.
    let length = ((128 - sign_bits) / 8 + 1) as usize;
    out.push((length << 1) as u8);
    out.extend_from_slice(&units.to_be_bytes()[16 - length..]);
}

/// One block, then the end mark.
#[inline]
pub(crate) fn array<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    if !items.is_empty() {
        length(out, items.len());
        for x in items {
            item(out, x);
        }
    }
    out.push(0);
}

/// One block, in key order, then the end mark.
#[inline]
pub(crate) fn map<T>(
    out: &mut Vec<u8>,
    entries: &BTreeMap<SmolStr, T>,
    mut item: impl FnMut(&mut Vec<u8>, &T),
) {
    if !entries.is_empty() {
        length(out, entries.len());
        for (key, value) in entries {
            bytes(out, key.as_bytes());
            item(out, value);
        }
    }
    out.push(0);
}

/// A union of null and one type, null first.
#[inline]
pub(crate) fn optional<T>(out: &mut Vec<u8>, value: Option<&T>, item: impl FnOnce(&mut Vec<u8>, &T)) {
    match value {
        None => out.push(0),
        Some(x) => {
            out.push(2);
            item(out, x);
        }
    }
}

/// A length, a count or an index.
#[inline]
#[expect(clippy::cast_possible_wrap, reason = "nothing in memory has more than isize::MAX items")]
pub(crate) fn length(out: &mut Vec<u8>, length: usize) {
    long(out, length as i64);
}
