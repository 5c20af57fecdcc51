//! Why a file cannot be imported at all. A line that cannot be taken is a [`crate::RejectReason`] instead.

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
        "{}, after line {line}: cannot be read on: {source}; the records before it are complete. If the file was cut, \
         get it again and import it afresh",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The last line that could be read.
        line: u64,
        /// What the system or the decompressor says.
        source: io::Error,
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
         `<receive time> {{`, a CSV file with the names of its columns; name the format, or see docs/import.md",
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
    #[error("{}, line {line}: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Line of the header.
        line: u64,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A table of instruments has a fault.
    #[error("{}, line {line}: {problem}", path.display())]
    Instruments {
        /// The file.
        path: PathBuf,
        /// Line of the fault.
        line: u64,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Options that cannot be met.
    #[error("{0}")]
    Options(String),
}
