//! Raw captures of Binance's public market data: `<receive time> <json>`, one message a line.
//!
//! Streams `trade`, `depthUpdate` and `bookTicker` of spot, USD-M and coin-M futures, with or without the wrapper of
//! combined streams, and REST depth snapshots, which have no wrapper. Fields: Binance's API documentation,
//! "WebSocket Market Streams" of each market.

mod capture;
mod head;
mod message;
mod normalize;
mod offset;
mod venue;

pub(crate) use capture::Capture;
pub use venue::Venue;
