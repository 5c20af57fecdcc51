//! Bytes: reading and writing Avro's binary encoding.

mod cursor;
pub(crate) mod put;

pub use cursor::Cursor;
