//! Bytes: the Confluent wire format, and reading and writing Avro's binary encoding.

mod cursor;
mod prefix;
pub(crate) mod put;

pub use crate::error::Malformed;
pub use cursor::Cursor;
pub use prefix::{PREFIX_BYTES, put_prefix, split_prefix};
