//! One column: its kind, and its values as text.

use super::text;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType, FixedLenByteArray, Int96};
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescriptor;
use std::fmt::Write as _;

/// Pages without values, one after another, after which a column counts as ended.
const MAX_EMPTY_PAGES: usize = 4;

/// One column of a file.
pub(super) struct Column {
    index: usize,
    name: String,
    kind: Kind,
    /// Whether values may be missing.
    is_optional: bool,
    reader: Option<ColumnReader>,
    /// 1 for each row that has a value, 0 for each that has none; empty where every row has one.
    levels: Vec<i16>,
    values: Values,
    next_row: usize,
    next_value: usize,
}

/// What its values are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// As they are stored.
    Plain,
    Unsigned,
    Decimal {
        scale: i32,
    },
    Date,
    /// So many nanoseconds each.
    Time {
        nanos: i64,
    },
    Uuid,
}

enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Int96(Vec<Int96>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

impl Column {
    /// The column of that number; none where it is nested, or its type is none that is read.
    pub fn new(index: usize, description: &ColumnDescriptor) -> Option<Column> {
        let is_flat = description.max_rep_level() == 0 && description.path().parts().len() == 1;
        let kind = kind_of(description).filter(|_| is_flat)?;
        let values = match description.physical_type() {
            Type::BOOLEAN => Values::Bool(Vec::new()),
            Type::INT32 => Values::Int32(Vec::new()),
            Type::INT64 => Values::Int64(Vec::new()),
            Type::INT96 => Values::Int96(Vec::new()),
            Type::FLOAT => Values::Float(Vec::new()),
            Type::DOUBLE => Values::Double(Vec::new()),
            Type::BYTE_ARRAY => Values::Bytes(Vec::new()),
            Type::FIXED_LEN_BYTE_ARRAY => Values::Fixed(Vec::new()),
        };
        Some(Column {
            index,
            name: description.name().to_owned(),
            kind,
            is_optional: description.max_def_level() > 0,
            reader: None,
            levels: Vec::new(),
            values,
            next_row: 0,
            next_value: 0,
        })
    }

    /// Its place in the file.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its name, as the file has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Goes to another group of rows.
    pub fn begin(&mut self, reader: ColumnReader) {
        self.reader = Some(reader);
    }

    /// Decodes so many rows more in place of those before.
    pub fn decode(&mut self, rows: usize) -> Result<(), ParquetError> {
        (self.next_row, self.next_value) = (0, 0);
        self.levels.clear();
        let levels = self.is_optional.then_some(&mut self.levels);
        let found = match (&mut self.reader, &mut self.values) {
            (Some(ColumnReader::BoolColumnReader(reader)), Values::Bool(values)) => {
                read(reader, rows, levels, values)?
            }
            (Some(ColumnReader::Int32ColumnReader(reader)), Values::Int32(values)) => {
                read(reader, rows, levels, values)?
            }
            (Some(ColumnReader::Int64ColumnReader(reader)), Values::Int64(values)) => {
                read(reader, rows, levels, values)?
            }
            (Some(ColumnReader::Int96ColumnReader(reader)), Values::Int96(values)) => {
                read(reader, rows, levels, values)?
            }
            (Some(ColumnReader::FloatColumnReader(reader)), Values::Float(values)) => {
                read(reader, rows, levels, values)?
            }
            (Some(ColumnReader::DoubleColumnReader(reader)), Values::Double(values)) => {
                read(reader, rows, levels, values)?
            }
            (Some(ColumnReader::ByteArrayColumnReader(reader)), Values::Bytes(values)) => {
                read(reader, rows, levels, values)?
            }
            (Some(ColumnReader::FixedLenByteArrayColumnReader(reader)), Values::Fixed(values)) => {
                read(reader, rows, levels, values)?
            }
            _ => 0,
        };
        if found == rows {
            return Ok(());
        }
        Err(ParquetError::General(format!("column `{}` has fewer rows than the file says", self.name)))
    }

    /// Appends the next decoded row's value; nothing where it has none.
    pub fn take(&mut self, out: &mut Vec<u8>) {
        let row = self.next_row;
        self.next_row += 1;
        if self.is_optional && self.levels.get(row).is_none_or(|level| *level == 0) {
            return;
        }
        let value = self.next_value;
        self.next_value += 1;
        write_value(&self.values, value, self.kind, out);
    }
}

/// Reads rows; how many there were. A page without values ends a read before its time.
fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    levels: Option<&mut Vec<i16>>,
    values: &mut Vec<T::T>,
) -> Result<usize, ParquetError> {
    values.clear();
    let (mut levels, mut found, mut nothing) = (levels, 0, 0);
    while found < rows && nothing < MAX_EMPTY_PAGES {
        let (more, ..) = reader.read_records(rows - found, levels.as_deref_mut(), None, values)?;
        found += more;
        nothing = if more == 0 { nothing + 1 } else { 0 };
    }
    Ok(found)
}

fn write_value(values: &Values, at: usize, kind: Kind, out: &mut Vec<u8>) {
    let mut text = String::new();
    // A `String` takes everything that is written to it.
    let _ = match values {
        Values::Bool(values) => values.get(at).map_or(Ok(()), |value| write!(text, "{value}")),
        Values::Int32(values) => values.get(at).map_or(Ok(()), |&value| match kind {
            Kind::Unsigned => write!(text, "{}", value.cast_unsigned()),
            Kind::Date => text::write_time(&mut text, i128::from(value) * text::DAY_NS),
            _ => write_int(&mut text, value.into(), kind),
        }),
        Values::Int64(values) => values.get(at).map_or(Ok(()), |&value| match kind {
            Kind::Unsigned => write!(text, "{}", value.cast_unsigned()),
            _ => write_int(&mut text, value.into(), kind),
        }),
        Values::Int96(values) => values.get(at).map_or(Ok(()), |value| {
            let (days, nanos) = text::days_and_nanos(value.data());
            text::write_time(&mut text, days * text::DAY_NS + nanos)
        }),
        // The shortest digits that give the same number again: what a price was before it was stored so.
        Values::Float(values) => values.get(at).map_or(Ok(()), |value| write!(text, "{value}")),
        Values::Double(values) => values.get(at).map_or(Ok(()), |value| write!(text, "{value}")),
        Values::Bytes(values) => return write_bytes(values.get(at).map_or(&[], ByteArray::data), kind, out),
        Values::Fixed(values) => {
            return write_bytes(values.get(at).map_or(&[], |value| value.data()), kind, out);
        }
    };
    out.extend_from_slice(text.as_bytes());
}

fn write_int(text: &mut String, value: i128, kind: Kind) -> std::fmt::Result {
    match kind {
        Kind::Decimal { scale } => text::write_decimal(text, value, scale),
        Kind::Time { nanos } => text::write_time(text, value * i128::from(nanos)),
        _ => write!(text, "{value}"),
    }
}

fn write_bytes(bytes: &[u8], kind: Kind, out: &mut Vec<u8>) {
    let mut text = String::new();
    let _ = match kind {
        Kind::Decimal { scale } => match text::big_endian(bytes) {
            Some(value) => text::write_decimal(&mut text, value, scale),
            None => write!(text, "a decimal of {} bytes", bytes.len()),
        },
        Kind::Uuid => text::write_uuid(&mut text, bytes),
        _ => {
            out.extend_from_slice(bytes);
            return;
        }
    };
    out.extend_from_slice(text.as_bytes());
}

/// By the logical type; files of older writers have the converted type only.
fn kind_of(description: &ColumnDescriptor) -> Option<Kind> {
    let physical = description.physical_type();
    let is_int = matches!(physical, Type::INT32 | Type::INT64);
    let is_text = physical == Type::BYTE_ARRAY;
    if let Some(logical) = description.logical_type_ref() {
        return match logical {
            LogicalType::String | LogicalType::Enum | LogicalType::Json if is_text => Some(Kind::Plain),
            LogicalType::Decimal(decimal) => Some(Kind::Decimal { scale: decimal.scale }),
            LogicalType::Date => Some(Kind::Date),
            LogicalType::Timestamp(timestamp) => Some(Kind::Time { nanos: nanos_of(&timestamp.unit) }),
            LogicalType::Integer(int) if is_int => {
                Some(if int.is_signed { Kind::Plain } else { Kind::Unsigned })
            }
            LogicalType::Uuid => Some(Kind::Uuid),
            // A column that is null in all rows.
            LogicalType::Unknown => Some(Kind::Plain),
            _ => None,
        };
    }
    match description.converted_type() {
        ConvertedType::NONE if physical == Type::INT96 => Some(Kind::Plain),
        ConvertedType::NONE if physical == Type::FIXED_LEN_BYTE_ARRAY => None,
        // Some writers store text without saying so.
        ConvertedType::NONE => Some(Kind::Plain),
        ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON if is_text => Some(Kind::Plain),
        ConvertedType::DECIMAL => Some(Kind::Decimal { scale: description.type_scale() }),
        ConvertedType::DATE => Some(Kind::Date),
        ConvertedType::TIMESTAMP_MILLIS => Some(Kind::Time { nanos: 1_000_000 }),
        ConvertedType::TIMESTAMP_MICROS => Some(Kind::Time { nanos: 1_000 }),
        ConvertedType::INT_8 | ConvertedType::INT_16 | ConvertedType::INT_32 | ConvertedType::INT_64 => {
            Some(Kind::Plain)
        }
        ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => {
            Some(Kind::Unsigned)
        }
        _ => None,
    }
}

fn nanos_of(unit: &TimeUnit) -> i64 {
    match unit {
        TimeUnit::MILLIS => 1_000_000,
        TimeUnit::MICROS => 1_000,
        TimeUnit::NANOS => 1,
    }
}
