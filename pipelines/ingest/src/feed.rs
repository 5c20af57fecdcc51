//! One format's reader.

use crate::columns::{Columns, Row};
use crate::csv_record::{NextRecord, next_record};
use crate::error::ImportError;
use crate::lines::{Line, Lines};
use crate::output::Output;
use crate::reject::RejectReason;

/// Turns the lines of one file into items.
pub(crate) trait Feed {
    /// Takes one more line, or the lines of one CSV record, and adds what it gives to `out`; false at the end.
    fn advance(&mut self, lines: &mut Lines, out: &mut Output) -> Result<bool, ImportError>;
}

/// What a CSV format makes of one record.
pub(crate) trait TakeRow {
    /// Adds what the record gives to `out`, or says why it gives nothing.
    fn take(&self, line: u64, row: &Row<'_>, out: &mut Output) -> Result<(), RejectReason>;
}

/// Reader of a CSV file.
pub(crate) struct CsvFeed<T> {
    columns: Columns,
    format: T,
    line: Line,
}

impl<T: TakeRow> CsvFeed<T> {
    /// Goes on after the header.
    pub fn new(lines: &mut Lines, columns: Columns, format: T, out: &mut Output) -> CsvFeed<T> {
        out.summary.ignored_columns = columns.unused();
        out.summary.ignored_columns.extend_from_slice(lines.unread_columns());
        lines.read_only(columns.used());
        CsvFeed { columns, format, line: Line::default() }
    }
}

impl<T: TakeRow> Feed for CsvFeed<T> {
    fn advance(&mut self, lines: &mut Lines, out: &mut Output) -> Result<bool, ImportError> {
        let mut line = std::mem::take(&mut self.line);
        let taken = match next_record(lines, &mut line)? {
            NextRecord::End => return Ok(false),
            NextRecord::Rejected(reason) => Err(reason),
            NextRecord::Record => {
                self.columns.row(&line).and_then(|row| self.format.take(line.number, &row, out))
            }
        };
        if let Err(reason) = taken {
            out.reject(&line, reason);
        }
        self.line = line;
        Ok(true)
    }
}
