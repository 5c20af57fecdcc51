//! Why one line of a file is not taken.

use crate::binance::Venue;
use crate::limits::MAX_LINE_BYTES;

/// Why one line is not taken. Its text names the fault; [`RejectReason::code`] is for counting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// Longer than [`MAX_LINE_BYTES`].
    #[error("the line has {bytes} bytes, more than the {MAX_LINE_BYTES} that are read")]
    TooLong {
        /// Length of the line.
        bytes: u64,
    },
    /// The bytes are no text.
    #[error("byte {at} is not UTF-8")]
    NotText {
        /// Position of the byte, from 1.
        at: usize,
    },
    /// A capture's line has no time of receipt in front.
    #[error("no time of receipt: a line is `<receive time in ns or us> <json>`, but {problem}")]
    NoReceiveTime {
        /// What was found.
        problem: &'static str,
    },
    /// The rest of a capture's line is no JSON, or not of the venue's shape.
    #[error("column {column}: {problem}")]
    Malformed {
        /// Position in the line, from 1.
        column: usize,
        /// What the parser says.
        problem: String,
    },
    /// An event that is known but not taken, or not known.
    #[error("`{event}` is not imported: trade, depthUpdate, bookTicker and depth snapshots are")]
    OtherEvent {
        /// Name of the event.
        event: String,
    },
    /// A field that must be there is not.
    #[error("{event} without field `{field}`")]
    MissingField {
        /// The message.
        event: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field has a value that cannot be.
    #[error("{event}: `{field}` is `{value}`: {problem}")]
    BadField {
        /// The message.
        event: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        problem: String,
    },
    /// A message of another market than the file's.
    #[error("{event} has the shape of {found}, but the file is of {expected}")]
    OtherVenue {
        /// The message.
        event: &'static str,
        /// The file's venue.
        expected: Venue,
        /// What the message looks like.
        found: String,
    },
    /// The stream's name and the message's symbol differ.
    #[error("the stream is `{stream}`, but the message is of `{symbol}`")]
    OtherSymbol {
        /// Name of the stream.
        stream: String,
        /// The symbol in the message.
        symbol: String,
    },
    /// A depth snapshot names no symbol and the file does not tell it.
    #[error(
        "the snapshot names no symbol, and the file has {symbols} symbols: import it with the instrument named"
    )]
    SnapshotWithoutSymbol {
        /// Number of symbols in the file's head.
        symbols: usize,
    },
    /// The instrument is in no table.
    #[error(
        "instrument `{instrument}` is not known: describe it in a file of instruments (see docs/import.md)"
    )]
    UnknownInstrument {
        /// The instrument.
        instrument: String,
    },
    /// A CSV record is no CSV.
    #[error("column {column}: {problem}")]
    BadRecord {
        /// Position of the field in its record, from 1.
        column: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A CSV record has too few or too many fields.
    #[error("{found} fields where the header has {expected}")]
    FieldCount {
        /// As the header says.
        expected: usize,
        /// As the record has.
        found: usize,
    },
    /// A CSV value cannot be used.
    #[error("column {column} ({name}): `{value}`: {problem}")]
    BadValue {
        /// Position of the field, from 1.
        column: usize,
        /// Name of the column.
        name: String,
        /// The value.
        value: String,
        /// What is wrong.
        problem: String,
    },
    /// Values of a record contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

impl RejectReason {
    /// A short code, for counting and for the reason code of a dead letter.
    pub const fn code(&self) -> &'static str {
        match self {
            RejectReason::TooLong { .. } => "line-too-long",
            RejectReason::NotText { .. } => "not-text",
            RejectReason::NoReceiveTime { .. } => "no-receive-time",
            RejectReason::Malformed { .. } => "malformed",
            RejectReason::OtherEvent { .. } => "other-event",
            RejectReason::MissingField { .. } => "missing-field",
            RejectReason::BadField { .. } | RejectReason::BadValue { .. } => "bad-value",
            RejectReason::OtherVenue { .. } => "other-venue",
            RejectReason::OtherSymbol { .. } => "other-symbol",
            RejectReason::SnapshotWithoutSymbol { .. } => "snapshot-without-symbol",
            RejectReason::UnknownInstrument { .. } => "unknown-instrument",
            RejectReason::BadRecord { .. } => "bad-record",
            RejectReason::FieldCount { .. } => "field-count",
            RejectReason::Contradiction(_) => "contradiction",
        }
    }
}

/// The beginning of a text from outside, for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    const LIMIT: usize = 60;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
