//! Parquet files as the lines of a CSV file: the names of the columns, then a line for each row.
//!
//! So every format takes Parquet by the names of columns that it takes CSV by, and a rejected row can be read.

mod column;
mod pages;
mod text;

use crate::error::{ImportError, Place};
use crate::importer::format_by_names;
use crate::limits::{MAX_PARQUET_BATCH_BYTES, MAX_PARQUET_BATCH_ROWS, MAX_PARQUET_COLUMNS};
use crate::lines::{Expected, Line};
use crate::reject::excerpt;
use crate::times;
use column::Column;
use pages::CheckedPages;
use parquet::basic::CompressionCodec;
use parquet::column::reader::get_column_reader;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use text::push_field;

/// What a Parquet file begins with.
pub(crate) const MAGIC: &[u8] = b"PAR1";
/// Columns of a capture.
const RECEIVED_TIME: &str = "received_time";
const MESSAGE: &str = "message";

/// The rows of one file.
pub(crate) struct ParquetRows {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    columns: Vec<Column>,
    /// Columns whose values are read; the others' fields are empty.
    wanted: Vec<bool>,
    unread: Vec<String>,
    layout: Layout,
    header_is_due: bool,
    next_group: usize,
    /// Rows of the group that were not decoded yet.
    left_in_group: usize,
    /// Rows that are decoded at a time.
    batch_rows: usize,
    /// Rows decoded that were not given out yet.
    decoded: usize,
    rows_given: u64,
    rows_total: u64,
    field: Vec<u8>,
}

/// What a row becomes.
#[derive(Clone, Copy)]
enum Layout {
    /// A CSV record.
    Table,
    /// `<receive time> <message>`; these are the two columns.
    Capture { received: usize, message: usize },
}

impl ParquetRows {
    /// Reads what the file says of itself.
    pub fn open(path: &Path, file: File, expected: Expected) -> Result<ParquetRows, ImportError> {
        let fault = |problem| ImportError::Parquet { path: path.to_owned(), problem };
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(fault)?;
        let file = reader.metadata().file_metadata();
        let (mut columns, mut unread) = (Vec::new(), Vec::new());
        for (index, description) in file.schema_descr().columns().iter().enumerate() {
            match Column::new(index, description) {
                Some(column) => columns.push(column),
                None => unread.push(description.path().string()),
            }
        }
        if columns.is_empty() {
            return Err(fault(format!("none of its columns can be read: {}", unread.join(", "))));
        }
        if columns.len() > MAX_PARQUET_COLUMNS {
            let problem = format!("it has {} columns, more than {MAX_PARQUET_COLUMNS}", columns.len());
            return Err(fault(problem));
        }
        for group in reader.metadata().row_groups() {
            for column in &columns {
                let chunk = group.columns().get(column.index());
                let codec = chunk.map_or(CompressionCodec::UNCOMPRESSED, |chunk| chunk.compression_codec());
                if matches!(codec, CompressionCodec::BROTLI | CompressionCodec::LZO) {
                    return Err(fault(format!(
                        "column `{}` is compressed with {codec}, which is not read: write the file with ZSTD, \
                         SNAPPY, GZIP or LZ4",
                        column.name()
                    )));
                }
            }
        }
        let layout = layout(&columns, expected).map_err(fault)?;
        let mut wanted = vec![true; columns.len()];
        if let Layout::Capture { received, message } = layout {
            for (place, column) in columns.iter().enumerate() {
                wanted[place] = [received, message].contains(&place);
                if !wanted[place] {
                    unread.push(column.name().to_owned());
                }
            }
        }
        let rows_total = u64::try_from(file.num_rows()).unwrap_or(0);
        Ok(ParquetRows {
            path: path.to_owned(),
            columns,
            wanted,
            unread,
            layout,
            header_is_due: matches!(layout, Layout::Table),
            next_group: 0,
            left_in_group: 0,
            batch_rows: MAX_PARQUET_BATCH_ROWS,
            decoded: 0,
            rows_given: 0,
            rows_total,
            field: Vec::new(),
            reader,
        })
    }

    /// Columns that cannot be read: of nested values, or of types that no format has a use for.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Leaves the values of some columns out: their fields are empty from here on.
    pub fn read_only(&mut self, wanted: &[bool]) {
        for (own, wanted) in self.wanted.iter_mut().zip(wanted) {
            *own &= wanted;
        }
    }

    /// Rows given so far, and all there are.
    pub fn progress(&self) -> (u64, u64) {
        (self.rows_given, self.rows_total)
    }

    /// The names of the columns first, as line 0, unless it is a capture; then each row, numbered from 1. False at
    /// the end.
    pub fn next(&mut self, line: &mut Line, max_bytes: usize) -> Result<bool, ImportError> {
        line.bytes.clear();
        if self.header_is_due {
            self.header_is_due = false;
            for (place, column) in self.columns.iter().enumerate() {
                if place > 0 {
                    line.bytes.push(b',');
                }
                push_field(&mut line.bytes, column.name().as_bytes());
            }
            line.number = 0;
            line.length = line.bytes.len() as u64;
            return Ok(true);
        }
        while self.decoded == 0 {
            if !self.decode()? {
                return Ok(false);
            }
        }
        match self.layout {
            Layout::Table => self.write_record(&mut line.bytes),
            Layout::Capture { received, message } => self.write_message(received, message, &mut line.bytes),
        }
        self.decoded -= 1;
        self.rows_given += 1;
        line.number = self.rows_given;
        line.length = line.bytes.len() as u64;
        line.bytes.truncate(max_bytes);
        Ok(true)
    }

    fn write_record(&mut self, line: &mut Vec<u8>) {
        for (place, column) in self.columns.iter_mut().enumerate() {
            if place > 0 {
                line.push(b',');
            }
            if self.wanted[place] {
                self.field.clear();
                column.take(&mut self.field);
                push_field(line, &self.field);
            }
        }
    }

    fn write_message(&mut self, received: usize, message: usize, line: &mut Vec<u8>) {
        self.columns[received].take(line);
        // Text of a time becomes the count that a capture's line begins with.
        let text = std::str::from_utf8(line).unwrap_or_default();
        if !text.bytes().all(|byte| byte.is_ascii_digit())
            && let Ok(nanos) = times::parse_nanos(text)
        {
            *line = nanos.to_string().into_bytes();
        }
        line.push(b' ');
        self.columns[message].take(line);
    }

    /// Decodes some rows more; false at the end of the file.
    fn decode(&mut self) -> Result<bool, ImportError> {
        let wanted = &self.wanted;
        let result = guarded(|| {
            while self.left_in_group == 0 {
                if self.next_group == self.reader.num_row_groups() {
                    return Ok(false);
                }
                let group = self.reader.get_row_group(self.next_group)?;
                for (column, _) in self.columns.iter_mut().zip(wanted).filter(|(_, wanted)| **wanted) {
                    let pages = CheckedPages(group.get_column_page_reader(column.index())?);
                    let description = group.metadata().column(column.index()).column_descr_ptr();
                    column.begin(get_column_reader(description, Box::new(pages)));
                }
                self.left_in_group = usize::try_from(group.metadata().num_rows())
                    .map_err(|_| ParquetError::General("a group of less than 0 rows".to_owned()))?;
                self.batch_rows = batch_rows(self.left_in_group, group.metadata().total_byte_size());
                self.next_group += 1;
            }
            let rows = self.left_in_group.min(self.batch_rows);
            for (column, _) in self.columns.iter_mut().zip(wanted).filter(|(_, wanted)| **wanted) {
                column.decode(rows)?;
            }
            self.left_in_group -= rows;
            self.decoded = rows;
            Ok(true)
        });
        result.map_err(|problem| ImportError::Read {
            path: self.path.clone(),
            after: Place::Row(self.rows_given),
            source: std::io::Error::other(problem),
        })
    }
}

/// A capture, if that is expected, or if it can be one and no table.
fn layout(columns: &[Column], expected: Expected) -> Result<Layout, String> {
    let names: Vec<String> = columns.iter().map(|column| column.name().trim().to_ascii_lowercase()).collect();
    let place_of = |name: &str| names.iter().position(|own| own == name);
    let is_table = match expected {
        Expected::Table => true,
        Expected::Capture => false,
        Expected::Anything => format_by_names(&names).is_some(),
    };
    match (place_of(RECEIVED_TIME), place_of(MESSAGE)) {
        _ if is_table => Ok(Layout::Table),
        (Some(received), Some(message)) => {
            let twice =
                names.iter().filter(|name| [RECEIVED_TIME, MESSAGE].contains(&name.as_str())).count() > 2;
            if twice {
                return Err(format!("column `{RECEIVED_TIME}` or `{MESSAGE}` is there twice"));
            }
            Ok(Layout::Capture { received, message })
        }
        _ if expected == Expected::Capture => Err(format!(
            "a capture has columns `{RECEIVED_TIME}` and `{MESSAGE}`; the columns are: {}",
            excerpt(&names.join(", "))
        )),
        _ => Ok(Layout::Table),
    }
}

/// As many rows as take about so many bytes: values of a batch hold on to the pages that they lie in.
fn batch_rows(rows: usize, bytes: i64) -> usize {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let bytes_a_row = (bytes / rows.max(1)).max(1);
    (MAX_PARQUET_BATCH_BYTES / bytes_a_row).clamp(1, MAX_PARQUET_BATCH_ROWS)
}

/// What the library says of a damaged file. It reads lengths and kinds out of the file itself: where it panics over
/// one, the file is at fault, and not the process.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its content is damaged".to_owned()),
    }
}
