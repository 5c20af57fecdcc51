//! The Confluent wire format: a 0, the schema id as 4 bytes big-endian, then the Avro body.

use crate::error::DecodeError;

/// Length of the prefix.
pub const PREFIX_BYTES: usize = 5;
const MAGIC: u8 = 0;

/// Appends the prefix.
#[inline]
pub fn put_prefix(out: &mut Vec<u8>, schema_id: u32) {
    out.push(MAGIC);
    out.extend_from_slice(&schema_id.to_be_bytes());
}

/// Splits a record's value into schema id and body.
#[inline]
pub fn split_prefix(bytes: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    match bytes {
        [MAGIC, a, b, c, d, body @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        [found, ..] if *found != MAGIC => Err(DecodeError::WrongMagicByte { found: *found }),
        _ => Err(DecodeError::TooShort { length: bytes.len() }),
    }
}
