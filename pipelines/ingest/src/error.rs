//! Why a file cannot be imported at all. A line that cannot be taken is a [`crate::RejectReason`] instead.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a file cannot be imported, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file could not be opened.
    #[error("{}: cannot be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Reading failed part way: the items before it stand.
    #[error(
        "{}, after {after}: cannot be read on: {source}; the records before it are complete. If the file was cut, \
         get it again and import it afresh",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The last line or row that could be read.
        after: Place,
        /// What the system, the decompressor or the decoder says.
        source: io::Error,
    },
    /// It begins as a Parquet file and cannot be opened as one.
    #[error(
        "{}: is a Parquet file that cannot be read: {problem}. If it was cut, or is still being written, get it whole",
        path.display()
    )]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// There is no line in it.
    #[error("{}: has no line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The first line belongs to no known format.
    #[error(
        "{}: the format is not recognised by its first line `{first}`: a Binance capture begins with \
         `<receive time> {{`, a CSV or Parquet file with the names of its columns; name the format, or see docs/import.md",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Beginning of the first line.
        first: String,
    },
    /// The messages do not tell the venue.
    #[error(
        "{}: the first {lines} lines do not tell which Binance market it is: name it: spot, usdm or coinm",
        path.display()
    )]
    VenueUnknown {
        /// The file.
        path: PathBuf,
        /// Number of lines looked at.
        lines: usize,
    },
    /// The names of the columns cannot be used.
    #[error("{}, {place}: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Where the names are.
        place: Place,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A table of instruments has a fault.
    #[error("{}, {place}: {problem}", path.display())]
    Instruments {
        /// The file.
        path: PathBuf,
        /// Where the fault is.
        place: Place,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Options that cannot be met.
    #[error("{0}")]
    Options(String),
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of text, from 1.
    Line(u64),
    /// A row of a Parquet file, from 1; 0 is before the first.
    Row(u64),
    /// The names of a Parquet file's columns.
    ColumnNames,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "line {line}"),
            Place::Row(row) => write!(f, "row {row}"),
            Place::ColumnNames => f.write_str("names of its columns"),
        }
    }
}
