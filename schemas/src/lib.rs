//! Records of Tidewire's topics, their Avro schemas and codecs.
//!
//! The schemas in `avro/` are the only source of truth: the types and codecs are made from them when the crate is
//! built. Money and sizes are exact decimals, times are whole microseconds or nanoseconds since 1970 (UTC).
//!
//! Nothing here reads a clock, draws a random number or does I/O. Decoding never panics, whatever the bytes.

mod book;
pub mod decimal;
mod error;
mod generated;
mod hex;
mod json;
mod record;
pub mod resolve;
mod shape;
pub mod time;
pub mod topics;
pub mod wire;

pub use book::{NotRegistered, SchemaBook};
pub use decimal::{Amount, DecimalError, Price, Quantity, Rounding};
pub use error::DecodeError;
pub use generated::*;
pub use json::JsonReader;
pub use record::{Body, FieldId, WrongKind};
pub use shape::MAX_SCHEMA_BYTES;
pub use time::{EventTime, ReceivedTime};
