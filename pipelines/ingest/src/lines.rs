//! Lines of a plain or gzip file or rows of a Parquet file, with bounds and with the bytes read so far for a progress
//! bar.

use crate::error::{ImportError, Place};
use crate::limits::MAX_LINE_BYTES;
use crate::parquet::{self, ParquetRows};
use flate2::bufread::MultiGzDecoder;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One line, without its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// Number, from 1; of a Parquet file the number of the row, and 0 for the names of its columns.
    pub number: u64,
    /// At most [`MAX_LINE_BYTES`] of it.
    pub bytes: Vec<u8>,
    /// Its whole length.
    pub length: u64,
}

impl Line {
    /// Whether there is more of it than was read.
    pub fn is_cut(&self) -> bool {
        self.length > self.bytes.len() as u64
    }
}

/// The lines of a file, in order.
pub(crate) struct Lines {
    path: PathBuf,
    source: Source,
    bytes_read: Arc<AtomicU64>,
    bytes_total: u64,
    /// Lines that were looked at and given back.
    pending: VecDeque<Line>,
    last_number: u64,
    failed: bool,
    /// An error met while looking ahead: it comes after the lines that were given back.
    deferred: Option<ImportError>,
}

/// What a file is expected to hold, where that is not told by its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Its columns tell.
    Anything,
    /// A table.
    Table,
    /// A capture.
    Capture,
}

enum Source {
    Text(Box<dyn BufRead + Send>),
    Parquet(Box<ParquetRows>),
}

impl Lines {
    /// Opens a file; gzip and Parquet are told by its first bytes, not by its name.
    pub fn open(path: &Path, expected: Expected) -> Result<Lines, ImportError> {
        let open_error = |source| ImportError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(open_error)?;
        let meta = file.metadata().map_err(open_error)?;
        if meta.is_dir() {
            return Err(open_error(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let bytes_total = meta.len();
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: file, count: Arc::clone(&bytes_read) };
        let mut raw = BufReader::with_capacity(1 << 16, counted);
        let first = raw.fill_buf().map_err(open_error)?;
        let source = if first.starts_with(&[0x1f, 0x8b]) {
            Source::Text(Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(raw))))
        } else if first.starts_with(parquet::MAGIC) {
            Source::Parquet(Box::new(ParquetRows::open(path, raw.into_inner().inner, expected)?))
        } else {
            Source::Text(Box::new(raw))
        };
        Ok(Lines {
            path: path.to_owned(),
            source,
            bytes_read,
            bytes_total,
            pending: VecDeque::new(),
            last_number: 0,
            failed: false,
            deferred: None,
        })
    }

    /// The lines of a text that is part of the program; `name` stands in errors.
    pub fn of_text(name: &str, text: &'static str) -> Lines {
        Lines {
            path: PathBuf::from(name),
            source: Source::Text(Box::new(text.as_bytes())),
            bytes_read: Arc::default(),
            bytes_total: text.len() as u64,
            pending: VecDeque::new(),
            last_number: 0,
            failed: false,
            deferred: None,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes taken from the file so far, as they lie on disk; of a Parquet file in proportion to the rows.
    pub fn bytes_read(&self) -> u64 {
        let Source::Parquet(rows) = &self.source else {
            return self.bytes_read.load(Ordering::Relaxed);
        };
        let (given, total) = rows.progress();
        let read = u128::from(self.bytes_total) * u128::from(given) / u128::from(total.max(1));
        if given >= total { self.bytes_total } else { u64::try_from(read).unwrap_or(self.bytes_total) }
    }

    /// Where a line is, for errors.
    pub fn place(&self, line: u64) -> Place {
        match self.source {
            Source::Text(_) => Place::Line(line),
            Source::Parquet(_) if line == 0 => Place::ColumnNames,
            Source::Parquet(_) => Place::Row(line),
        }
    }

    /// Leaves the values of some columns out, where that spares work.
    pub fn read_only(&mut self, wanted: &[bool]) {
        if let Source::Parquet(rows) = &mut self.source {
            rows.read_only(wanted);
        }
    }

    /// Columns that are there and cannot be read.
    pub fn unread_columns(&self) -> &[String] {
        match &self.source {
            Source::Text(_) => &[],
            Source::Parquet(rows) => rows.unread(),
        }
    }

    /// Size of the file on disk.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// The next line that is not blank, or the next row, into `line`; false at the end. After an error there is no next line.
    pub fn next(&mut self, line: &mut Line) -> Result<bool, ImportError> {
        while self.next_or_blank(line)? {
            let is_row = matches!(self.source, Source::Parquet(_));
            if is_row || line.is_cut() || !line.bytes.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The next line, blank or not.
    pub fn next_or_blank(&mut self, line: &mut Line) -> Result<bool, ImportError> {
        if let Some(given_back) = self.pending.pop_front() {
            *line = given_back;
            return Ok(true);
        }
        if let Some(error) = self.deferred.take() {
            return Err(error);
        }
        if self.failed {
            return Ok(false);
        }
        line.bytes.clear();
        let text = match &mut self.source {
            Source::Text(text) => text,
            Source::Parquet(rows) => {
                let more = rows.next(line, MAX_LINE_BYTES);
                self.failed = more.is_err();
                return more;
            }
        };
        match read_line(text.as_mut(), &mut line.bytes) {
            Ok(None) => return Ok(false),
            Ok(Some(length)) => line.length = length,
            Err(source) => {
                self.failed = true;
                let after = Place::Line(self.last_number);
                return Err(ImportError::Read { path: self.path.clone(), after, source });
            }
        }
        self.last_number += 1;
        line.number = self.last_number;
        Ok(true)
    }

    /// Gives lines back: they come next, in this order.
    pub fn give_back(&mut self, lines: Vec<Line>) {
        for line in lines.into_iter().rev() {
            self.pending.push_front(line);
        }
    }

    /// Puts off an error that was met while looking ahead.
    pub fn defer(&mut self, error: ImportError) {
        self.deferred = Some(error);
    }

    /// The error that was put off.
    pub fn take_deferred(&mut self) -> Option<ImportError> {
        self.deferred.take()
    }
}

/// Reads to the next line feed, keeping at most the limit. The length without the line's end, or none at the end.
fn read_line(reader: &mut dyn BufRead, out: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let mut length = 0u64;
    let mut any = false;
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if chunk.is_empty() {
            break;
        }
        any = true;
        let end = memchr::memchr(b'\n', chunk);
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = MAX_LINE_BYTES - out.len();
        out.extend_from_slice(&part[..part.len().min(room)]);
        length += part.len() as u64;
        let consumed = part.len() + usize::from(end.is_some());
        reader.consume(consumed);
        if end.is_some() {
            break;
        }
    }
    if length == out.len() as u64 && out.last() == Some(&b'\r') {
        out.pop();
        length -= 1;
    }
    Ok(any.then_some(length))
}

struct Counted {
    inner: File,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;
    use std::io::Write;

    fn lines_of(bytes: &[u8]) -> Vec<(u64, Vec<u8>, u64)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut lines = Lines::open(file.path(), Expected::Anything).unwrap();
        let (mut line, mut all) = (Line::default(), Vec::new());
        while lines.next(&mut line).unwrap() {
            all.push((line.number, line.bytes.clone(), line.length));
        }
        assert_eq!(lines.bytes_read(), bytes.len() as u64);
        all
    }

    #[test]
    fn numbers_lines_and_leaves_out_blank_ones() {
        let found = lines_of(b"a\r\n\n  \nb\nc");
        assert_eq!(found, [(1, b"a".to_vec(), 1), (4, b"b".to_vec(), 1), (5, b"c".to_vec(), 1)]);
    }

    #[test]
    fn a_line_beyond_the_limit_is_cut_and_the_next_one_is_whole() {
        let mut bytes = vec![b'x'; MAX_LINE_BYTES + 5];
        bytes.extend_from_slice(b"\nnext\n");
        let found = lines_of(&bytes);
        assert_eq!(found[0].1.len(), MAX_LINE_BYTES);
        assert_eq!(found[0].2, MAX_LINE_BYTES as u64 + 5);
        assert_eq!(found[1], (2, b"next".to_vec(), 4));
    }

    #[test]
    fn lines_given_back_come_again_in_order() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a\nb\nc\n").unwrap();
        let mut lines = Lines::open(file.path(), Expected::Anything).unwrap();
        let (mut a, mut b) = (Line::default(), Line::default());
        assert!(lines.next(&mut a).unwrap() && lines.next(&mut b).unwrap());
        lines.give_back(vec![a, b]);
        let mut all = Vec::new();
        let mut line = Line::default();
        while lines.next(&mut line).unwrap() {
            all.push(line.bytes.clone());
        }
        assert_eq!(all, [b"a", b"b", b"c"]);
    }

    #[test]
    fn a_cut_gzip_file_is_an_error_after_the_lines_it_has() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        for i in 0..20_000 {
            writeln!(encoder, "line {i}").unwrap();
        }
        let mut bytes = encoder.finish().unwrap();
        bytes.truncate(bytes.len() / 2);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let mut lines = Lines::open(file.path(), Expected::Anything).unwrap();
        let (mut line, mut count) = (Line::default(), 0u64);
        let error = loop {
            match lines.next(&mut line) {
                Ok(true) => count += 1,
                Ok(false) => panic!("the cut was not noticed"),
                Err(e) => break e,
            }
        };
        assert!(count > 1_000, "{count}");
        assert!(
            matches!(error, ImportError::Read { after: Place::Line(line), .. } if line == count),
            "{error}"
        );
        assert!(!lines.next(&mut line).unwrap());
    }
}
