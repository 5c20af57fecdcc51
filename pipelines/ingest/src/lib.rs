//! Recorded feeds into normalized records: raw Binance captures, news, and CSV or Parquet files of trades or bars.
//!
//! An [`Importer`] reads one file and gives [`Item`]s: a record with its topic, key and times, or a line that could
//! not be taken, with the reason. It knows no log: who calls it writes the records where they belong and the rejected
//! lines to `dead-letters.v1`. [`Merge`] makes one stream of several files. The same file and options always give the
//! same items: nothing here reads a clock or draws a random number.
//!
//! Input may be anything: no line can stop a process. Lines, records and look-ahead have bounds ([`limits`]).

mod bars;
mod binance;
mod columns;
mod csv_record;
mod error;
mod feed;
mod importer;
mod instruments;
pub mod limits;
mod lines;
mod merge;
mod news;
mod options;
mod output;
mod parquet;
mod reject;
mod summary;
mod times;
mod trades;

pub use binance::Venue;
pub use error::{ImportError, Place};
pub use importer::Importer;
pub use instruments::InstrumentTable;
pub use merge::{Merge, Merged};
pub use options::{Format, ImportOptions};
pub use output::Item;
pub use reject::RejectReason;
pub use summary::{NewsShift, Summary, VenueOffsetSummary};
