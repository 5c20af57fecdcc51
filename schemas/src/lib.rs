//! Records of Tidewire's topics, their Avro schemas and codecs.
//!
//! The schemas in `avro/` are the only source of truth: the types and codecs are made from them when the crate is
//! built. Money and sizes are exact decimals, times are whole microseconds or nanoseconds since 1970 (UTC).
//!
//! Nothing here reads a clock, draws a random number or does I/O. Decoding never panics, whatever the bytes.

pub mod decimal;
mod error;
mod generated;
mod hex;
mod record;
pub mod time;
pub mod topics;
pub mod wire;

pub use decimal::{Amount, DecimalError, Price, Quantity, Rounding};
pub use error::DecodeError;
pub use generated::*;
pub use record::{Body, FieldId, WrongKind};
pub use time::{EventTime, ReceivedTime};
