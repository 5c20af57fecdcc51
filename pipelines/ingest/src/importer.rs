//! The importer: one file in, items out.

use crate::binance::Capture;
use crate::error::ImportError;
use crate::feed::Feed;
use crate::instruments::{InstrumentTable, split_id};
use crate::limits::{HEAD_BYTES, HEAD_LINES};
use crate::lines::{Expected, Line, Lines};
use crate::options::{Format, ImportOptions};
use crate::output::{Item, Output};
use crate::reject::excerpt;
use crate::summary::Summary;
use crate::{bars::Bars, columns::Columns, news::News, trades::Trades};
use std::path::Path;

/// Reads one recorded file. As an iterator it gives the items in the order of the file; an error ends it.
pub struct Importer {
    lines: Lines,
    feed: Box<dyn Feed + Send>,
    out: Output,
    ended: bool,
}

impl Importer {
    /// Opens a plain or gzip file and finds out what it is.
    pub fn open(path: impl AsRef<Path>, options: ImportOptions) -> Result<Importer, ImportError> {
        check(&options)?;
        let mut instruments = InstrumentTable::shipped()?;
        if let Some(file) = &options.instruments {
            instruments.read(file)?;
        }
        let expected = match options.format {
            None => Expected::Anything,
            Some(Format::BinanceCapture) => Expected::Capture,
            Some(Format::News | Format::Trades | Format::Bars) => Expected::Table,
        };
        let mut lines = Lines::open(path.as_ref(), expected)?;
        let format = match options.format {
            Some(format) => format,
            None => detect(&mut lines)?,
        };
        let mut out = Output::new(instruments, Summary::new(path.as_ref().to_owned(), format));
        let feed: Box<dyn Feed + Send> = match format {
            Format::BinanceCapture => Box::new(Capture::open(&mut lines, &options, &mut out)?),
            Format::News => Box::new(News::open(&mut lines, &options, &mut out)?),
            Format::Trades => Box::new(Trades::open(&mut lines, &options, &mut out)?),
            Format::Bars => Box::new(Bars::open(&mut lines, &options, &mut out)?),
        };
        Ok(Importer { lines, feed, out, ended: false })
    }

    /// Bytes of the file taken so far, as they lie on disk.
    pub fn bytes_read(&self) -> u64 {
        self.lines.bytes_read()
    }

    /// Size of the file on disk in bytes.
    pub fn bytes_total(&self) -> u64 {
        self.lines.bytes_total()
    }

    /// What came of the file so far; complete when the items are at their end.
    pub fn summary(&self) -> &Summary {
        &self.out.summary
    }
}

impl Iterator for Importer {
    type Item = Result<Item, ImportError>;

    fn next(&mut self) -> Option<Result<Item, ImportError>> {
        loop {
            if let Some(item) = self.out.items.pop_front() {
                return Some(Ok(item));
            }
            if self.ended {
                return None;
            }
            match self.feed.advance(&mut self.lines, &mut self.out) {
                Ok(more) => self.ended = !more,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

fn check(options: &ImportOptions) -> Result<(), ImportError> {
    if options.news_delay_ms < 0 {
        return Err(ImportError::Options("the delay of news must not be less than 0".to_owned()));
    }
    if options.bar_interval_ms.is_some_and(|ms| ms <= 0) {
        return Err(ImportError::Options("the length of bars must be more than 0".to_owned()));
    }
    if let Some((from, to)) = options.news_span
        && from > to
    {
        return Err(ImportError::Options(format!(
            "the span of news ends at {to}, before it begins at {from}"
        )));
    }
    if let Some(id) = &options.instrument
        && split_id(id).is_none()
    {
        return Err(ImportError::Options(format!(
            "instrument `{}` is not `<symbol>.<venue>`, such as BTCUSDT.BINANCE_SPOT",
            excerpt(id)
        )));
    }
    Ok(())
}

/// Tells the format by the first line that is no comment, and gives the lines back. A capture may begin with a line
/// that is cut: it is told by any line of the head.
fn detect(lines: &mut Lines) -> Result<Format, ImportError> {
    let (mut seen, mut bytes) = (Vec::new(), 0);
    let mut found: Option<Result<Format, ImportError>> = None;
    while seen.len() < HEAD_LINES && bytes < HEAD_BYTES {
        let mut line = Line::default();
        match lines.next(&mut line) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                lines.defer(error);
                break;
            }
        }
        let comment = line.bytes.starts_with(b"#");
        let format = format_of(lines, &line);
        bytes += line.bytes.len();
        seen.push(line);
        match (&found, format) {
            (_, Ok(Format::BinanceCapture)) => found = Some(Ok(Format::BinanceCapture)),
            (None, format) if !comment => found = Some(format),
            _ => continue,
        }
        if matches!(found, Some(Ok(_))) {
            break;
        }
    }
    lines.give_back(seen);
    found.unwrap_or_else(|| match lines.take_deferred() {
        Some(error) => Err(error),
        None => Err(ImportError::Empty { path: lines.path().to_owned() }),
    })
}

fn format_of(lines: &Lines, line: &Line) -> Result<Format, ImportError> {
    let text = String::from_utf8_lossy(&line.bytes);
    let text = text.trim_start_matches('\u{feff}').trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 && text[digits..].trim_start().starts_with('{') {
        return Ok(Format::BinanceCapture);
    }
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    format_by_names(&names)
        .ok_or_else(|| ImportError::UnknownFormat { path: lines.path().to_owned(), first: excerpt(text) })
}

/// The format of a table with columns of these names, in lower case.
pub(crate) fn format_by_names(names: &[String]) -> Option<Format> {
    let has = |name: &str| names.iter().any(|n| n == name);
    if has("published_at") && has("title") {
        Some(Format::News)
    } else if has("open") && has("high") && has("low") && has("close") {
        Some(Format::Bars)
    } else if has("price") && (has("quantity") || has("qty")) {
        Some(Format::Trades)
    } else {
        None
    }
}

/// The instrument of a CSV file: a column, or the one that was named.
pub(crate) fn instrument_column(
    columns: &mut Columns,
    options: &ImportOptions,
) -> Result<Option<usize>, ImportError> {
    match columns.find(&["instrument"]) {
        None if options.instrument.is_none() => {
            Err(columns.error("no column `instrument`: name the instrument of the file".to_owned()))
        }
        column => Ok(column),
    }
}
