//! Bytes as lower-case hexadecimal, for JSON that people read.

use bytes::Bytes;
use serde::Serializer;
use serde::ser::SerializeMap;
use smol_str::SmolStr;
use std::collections::BTreeMap;

pub(crate) fn bytes<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(bytes))
}

pub(crate) fn optional<S: Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => serializer.serialize_some(&text(bytes)),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn map<S: Serializer>(map: &BTreeMap<SmolStr, Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut out = serializer.serialize_map(Some(map.len()))?;
    for (key, value) in map {
        out.serialize_entry(key, &text(value))?;
    }
    out.end()
}

/// Two digits a byte.
pub(crate) fn text(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
