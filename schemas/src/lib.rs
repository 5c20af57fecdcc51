//! Records of Tidewire's topics, their Avro schemas and codecs.
//!
//! The schemas in `avro/` are the only source of truth: the types and codecs are made from them when the crate is
//! built. Money and sizes are exact decimals, times are whole microseconds or nanoseconds since 1970 (UTC).
//!
//! ```
//! use tidewire_schemas::{Price, Quantity, SchemaBook, Trade};
//!
//! let trade = Trade {
//!     instrument: "BTCUSDT.BINANCE_USDM".into(),
//!     price: "61234.50".parse::<Price>()?,
//!     quantity: "0.002".parse::<Quantity>()?,
//!     ..Trade::default()
//! };
//! assert_eq!(trade.price.checked_mul(trade.quantity)?.to_string(), "122.469");
//!
//! let book = SchemaBook::of_this_build();
//! let mut bytes = Vec::new();
//! book.encode_body(&trade, &mut bytes)?;
//! assert_eq!(book.decode(&bytes)?.as_trade(), Some(&trade));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
