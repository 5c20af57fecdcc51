//! Columns of a CSV file, found by the names in its header, and typed values with errors that name them.

use crate::error::{ImportError, Place};
use crate::lines::{Line, Lines};
use crate::reject::{RejectReason, excerpt};
use crate::{csv_record, times};
use csv_record::NextRecord;
use std::borrow::Cow;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use tidewire_schemas::EventTime;

/// The header of a CSV file.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    path: PathBuf,
    place: Place,
    names: Vec<String>,
    used: Vec<bool>,
}

impl Columns {
    /// Reads the header: the first line that is neither blank nor begins with `#`.
    pub fn read(lines: &mut Lines) -> Result<Columns, ImportError> {
        let mut line = Line::default();
        loop {
            match csv_record::next_record(lines, &mut line)? {
                NextRecord::End => return Err(ImportError::Empty { path: lines.path().to_owned() }),
                _ if line.bytes.starts_with(b"#") => {}
                NextRecord::Record => break,
                NextRecord::Rejected(reason) => {
                    let problem = reason.to_string();
                    return Err(ImportError::Header {
                        path: lines.path().to_owned(),
                        place: lines.place(line.number),
                        problem,
                    });
                }
            }
        }
        let place = lines.place(line.number);
        Columns::parse(lines.path().to_owned(), place, &line)
    }

    fn parse(path: PathBuf, place: Place, line: &Line) -> Result<Columns, ImportError> {
        let error = |problem| ImportError::Header { path: path.clone(), place, problem };
        let text = std::str::from_utf8(&line.bytes).map_err(|e| error(e.to_string()))?;
        let fields = csv_record::split(text).map_err(|e| error(e.to_string()))?;
        let names: Vec<_> = fields.iter().map(|field| field.trim().to_ascii_lowercase()).collect();
        for (index, name) in names.iter().enumerate() {
            if !name.is_empty() && names[..index].contains(name) {
                return Err(error(format!("column `{}` is there twice", excerpt(name))));
            }
        }
        Ok(Columns { path, place, used: vec![false; names.len()], names })
    }

    /// The column of one of these names.
    pub fn find(&mut self, names: &[&str]) -> Option<usize> {
        let index = self.names.iter().position(|name| names.contains(&name.as_str()))?;
        self.used[index] = true;
        Some(index)
    }

    /// The column of one of these names, or an error that lists them.
    pub fn need(&mut self, names: &[&str]) -> Result<usize, ImportError> {
        self.find(names).ok_or_else(|| {
            self.error(format!(
                "no column `{}`; the columns are: {}",
                names.join("` or `"),
                excerpt(&self.names.join(", "))
            ))
        })
    }

    /// An error of the header.
    pub fn error(&self, problem: String) -> ImportError {
        ImportError::Header { path: self.path.clone(), place: self.place, problem }
    }

    /// Which columns somebody asked for.
    pub fn used(&self) -> &[bool] {
        &self.used
    }

    /// Columns that nobody asked for.
    pub fn unused(&self) -> Vec<String> {
        let pairs = self.names.iter().zip(&self.used);
        pairs.filter(|(name, used)| !**used && !name.is_empty()).map(|(name, _)| name.clone()).collect()
    }

    /// The values of a record.
    pub fn row<'a>(&'a self, line: &'a Line) -> Result<Row<'a>, RejectReason> {
        let text = std::str::from_utf8(&line.bytes)
            .map_err(|e| RejectReason::NotText { at: e.valid_up_to() + 1 })?;
        let fields = csv_record::split(text)?;
        if fields.len() != self.names.len() {
            return Err(RejectReason::FieldCount { expected: self.names.len(), found: fields.len() });
        }
        Ok(Row { columns: self, fields })
    }
}

/// One record of a CSV file.
pub(crate) struct Row<'a> {
    columns: &'a Columns,
    fields: Vec<Cow<'a, str>>,
}

impl Row<'_> {
    /// The value, without blanks around it.
    pub fn text(&self, column: usize) -> &str {
        self.fields.get(column).map_or("", |field| field.trim())
    }

    /// The value of a column that may be missing or empty.
    pub fn text_of(&self, column: Option<usize>) -> Option<&str> {
        column.map(|column| self.text(column)).filter(|text| !text.is_empty())
    }

    /// The value, parsed.
    pub fn parse<T>(&self, column: usize) -> Result<T, RejectReason>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.text(column).parse().map_err(|e: T::Err| self.bad(column, e.to_string()))
    }

    /// The value of a column that may be missing or empty, parsed.
    pub fn parse_of<T>(&self, column: Option<usize>) -> Result<Option<T>, RejectReason>
    where
        T: FromStr,
        T::Err: Display,
    {
        match column {
            Some(column) if !self.text(column).is_empty() => self.parse(column).map(Some),
            _ => Ok(None),
        }
    }

    /// The value of a column that may be missing or empty, as a time: a count since 1970, or RFC 3339, which reaches
    /// further.
    pub fn time_of(&self, column: Option<usize>) -> Result<Option<EventTime>, RejectReason> {
        match column {
            Some(column) if self.text(column).bytes().all(|byte| byte.is_ascii_digit()) => {
                let nanos = self.nanos_of(Some(column))?;
                Ok(nanos.map(|nanos| EventTime::from_micros(nanos.div_euclid(1_000))))
            }
            column => self.parse_of::<EventTime>(column),
        }
    }

    /// The value as nanoseconds since 1970.
    pub fn nanos(&self, column: usize) -> Result<i64, RejectReason> {
        times::parse_nanos(self.text(column)).map_err(|problem| self.bad(column, problem))
    }

    /// The value of a column that may be missing or empty, as nanoseconds since 1970.
    pub fn nanos_of(&self, column: Option<usize>) -> Result<Option<i64>, RejectReason> {
        match column {
            Some(column) if !self.text(column).is_empty() => self.nanos(column).map(Some),
            _ => Ok(None),
        }
    }

    /// The value cannot be used.
    pub fn bad(&self, column: usize, problem: impl Into<String>) -> RejectReason {
        RejectReason::BadValue {
            column: column + 1,
            name: self.columns.names.get(column).cloned().unwrap_or_default(),
            value: excerpt(self.text(column)),
            problem: problem.into(),
        }
    }
}
