//! Bounds of the importer. What is beyond one is rejected with a reason, never cut without a word.

/// Longest line in bytes. A REST snapshot of 5,000 levels a side has about 350,000.
pub const MAX_LINE_BYTES: usize = 4 << 20;
/// Bytes of a rejected line that are kept, so that it fits one record of a log.
pub const MAX_REJECTED_BYTES: usize = 256 << 10;
/// Bytes of one CSV record that spans lines.
pub const MAX_CSV_RECORD_BYTES: usize = 64 << 10;
/// Lines of one CSV record: a quoted field may span some.
pub const MAX_CSV_RECORD_LINES: usize = 64;
/// Columns of a CSV file.
pub const MAX_CSV_COLUMNS: usize = 256;
/// Columns of a Parquet file that can be read; a file of captures or of a table has few.
pub const MAX_PARQUET_COLUMNS: usize = MAX_CSV_COLUMNS;
/// Rows of a Parquet file that are decoded at a time.
pub const MAX_PARQUET_BATCH_ROWS: usize = 1_024;
/// Bytes that these take about, by what the file says of its groups of rows.
pub const MAX_PARQUET_BATCH_BYTES: usize = 8 << 20;
/// Lines at the head of a capture that are looked at to tell its venue, its symbol and the venue's clock.
pub const HEAD_LINES: usize = 1_000;
/// Bytes of those lines.
pub const HEAD_BYTES: usize = 8 << 20;
/// Levels in one side of a book message.
pub const MAX_LEVELS: usize = 20_000;
/// Instruments in a table.
pub const MAX_INSTRUMENTS: usize = 10_000;
/// Last clock differences of which the venue's offset is the median.
pub const OFFSET_WINDOW: usize = 101;
