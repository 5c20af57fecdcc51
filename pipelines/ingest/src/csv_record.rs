//! CSV records by RFC 4180: comma, double quotes, a quote inside quotes doubled, line feeds inside quotes.

use crate::error::ImportError;
use crate::limits::{MAX_CSV_COLUMNS, MAX_CSV_RECORD_BYTES, MAX_CSV_RECORD_LINES};
use crate::lines::{Line, Lines};
use crate::reject::RejectReason;
use std::borrow::Cow;

/// What was read.
#[derive(Debug, PartialEq)]
pub(crate) enum NextRecord {
    /// The file has ended.
    End,
    /// A whole record is in the line.
    Record,
    /// The line is no record; it is in the line, and the one after it comes next.
    Rejected(RejectReason),
}

/// Reads the next record into `line`, over as many lines as its quotes are open. Where they are never closed only
/// the first line is given up.
pub(crate) fn next_record(lines: &mut Lines, line: &mut Line) -> Result<NextRecord, ImportError> {
    if !lines.next(line)? {
        return Ok(NextRecord::End);
    }
    if line.is_cut() {
        return Ok(NextRecord::Rejected(RejectReason::TooLong { bytes: line.length }));
    }
    if line.number == 1 && line.bytes.starts_with(b"\xef\xbb\xbf") {
        line.bytes.drain(..3);
        line.length -= 3;
    }
    let mut more = Vec::new();
    let mut joined = Vec::new();
    let mut open = has_open_quote(&line.bytes);
    if open {
        joined.clone_from(&line.bytes);
    }
    while open {
        let mut next = Line::default();
        let room = more.len() + 1 < MAX_CSV_RECORD_LINES;
        if !room || !lines.next_or_blank(&mut next)? {
            break;
        }
        let fits = joined.len() + next.bytes.len() < MAX_CSV_RECORD_BYTES;
        if fits {
            joined.push(b'\n');
            joined.extend_from_slice(&next.bytes);
            open = has_open_quote(&joined);
        }
        more.push(next);
        if !fits {
            break;
        }
    }
    let whole = if more.is_empty() { &line.bytes } else { &joined };
    let fault = match (open, std::str::from_utf8(whole)) {
        (true, _) => {
            Some(RejectReason::BadRecord { column: 1, problem: "a quote is opened and never closed" })
        }
        (_, Err(e)) => Some(RejectReason::NotText { at: e.valid_up_to() + 1 }),
        (_, Ok(text)) if !more.is_empty() => split(text).err(),
        _ => None,
    };
    if let Some(reason) = fault {
        lines.give_back(more);
        return Ok(NextRecord::Rejected(reason));
    }
    if !more.is_empty() {
        line.length = joined.len() as u64;
        line.bytes = joined;
    }
    Ok(NextRecord::Record)
}

/// The fields of a record.
pub(crate) fn split(text: &str) -> Result<Vec<Cow<'_, str>>, RejectReason> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let column = fields.len() + 1;
        let bad = |problem| RejectReason::BadRecord { column, problem };
        if column > MAX_CSV_COLUMNS {
            return Err(bad("more columns than the 256 that are read"));
        }
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted).ok_or_else(|| bad("a quote is opened and never closed"))?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(bad("a quote inside a field: put the field in quotes and double the quote"));
                }
                (Cow::Borrowed(&rest[..end]), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(bad("text after the closing quote")),
        }
    }
}

/// The field after its opening quote, and what follows its closing one.
fn quoted_field(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut from = 0;
    let mut field = Cow::Borrowed("");
    loop {
        let quote = from + text[from..].find('"')?;
        if text[quote + 1..].starts_with('"') {
            field.to_mut().push_str(&text[from..=quote]);
            from = quote + 2;
            continue;
        }
        let part = &text[from..quote];
        if from == 0 {
            field = Cow::Borrowed(part);
        } else {
            field.to_mut().push_str(part);
        }
        return Some((field, &text[quote + 1..]));
    }
}

/// Whether the number of quotes is odd, so that the record goes on in the next line.
fn has_open_quote(bytes: &[u8]) -> bool {
    bytes.iter().filter(|&&byte| byte == b'"').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::Write;

    fn records(text: &str) -> Vec<(u64, Result<Vec<String>, &'static str>)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut lines = Lines::open(file.path(), crate::lines::Expected::Table).unwrap();
        let (mut line, mut all) = (Line::default(), Vec::new());
        loop {
            let result = match next_record(&mut lines, &mut line).unwrap() {
                NextRecord::End => return all,
                NextRecord::Rejected(reason) => Err(reason.code()),
                NextRecord::Record => {
                    let text = std::str::from_utf8(&line.bytes).unwrap();
                    split(text)
                        .map(|fields| fields.into_iter().map(Cow::into_owned).collect())
                        .map_err(|reason| reason.code())
                }
            };
            all.push((line.number, result));
        }
    }

    fn row(fields: &[&str]) -> Result<Vec<String>, &'static str> {
        Ok(fields.iter().map(|&field| field.to_owned()).collect())
    }

    #[test]
    fn quotes_commas_and_line_feeds() {
        let found = records("\u{feff}a,b\r\n\"x, \"\"y\"\"\",\"two\n\nlines\"\n,\n\"\"\"\",z\n");
        assert_eq!(
            found,
            [
                (1, row(&["a", "b"])),
                (2, row(&["x, \"y\"", "two\n\nlines"])),
                (5, row(&["", ""])),
                (6, row(&["\"", "z"])),
            ]
        );
    }

    #[test]
    fn an_unclosed_quote_costs_only_its_line() {
        let mut text = String::from("a,\"b\n");
        for i in 0..200 {
            text.push_str(&format!("{i},x\n"));
        }
        let found = records(&text);
        assert_eq!(found[0], (1, Err("bad-record")));
        assert_eq!(found.len(), 201);
        assert!(found[1..].iter().all(|(_, result)| result.is_ok()));
    }

    #[test]
    fn an_unclosed_quote_before_a_quoted_field_costs_only_its_line() {
        let found = records("a,\"b\n1,\"x\"\n2,\"y\"\n");
        assert_eq!(found[0], (1, Err("bad-record")));
        assert_eq!(found[1..], [(2, row(&["1", "x"])), (3, row(&["2", "y"]))]);
    }

    #[test]
    fn faults_name_the_column() {
        assert_eq!(
            split("a,b\"c"),
            Err(RejectReason::BadRecord {
                column: 2,
                problem: "a quote inside a field: put the field in quotes and double the quote",
            })
        );
        assert_eq!(
            split("a,b,\"c\"d"),
            Err(RejectReason::BadRecord { column: 3, problem: "text after the closing quote" })
        );
        assert!(split(&",".repeat(MAX_CSV_COLUMNS)).is_err());
    }
}
