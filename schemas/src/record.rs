//! What all records have in common.

use crate::error::DecodeError;
use crate::generated::{Kind, Record};
use crate::wire::Cursor;

/// A top-level record, for code that is generic over them.
pub trait Body: Sized + Clone + Into<Record> + TryFrom<Record, Error = WrongKind> {
    /// Which record it is.
    const KIND: Kind;

    /// The record inside a [`Record`], if it is this one.
    fn of(record: &Record) -> Option<&Self>;

    /// Appends the Avro encoding, without the schema prefix.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the Avro encoding. Any bytes are either a record or an error.
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError>;
}

/// A numeric field of one kind of record, looked up once by name and then read without a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId {
    kind: Kind,
    index: u16,
}

impl FieldId {
    /// The kind of record that has the field.
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// Position of the field in [`Kind::fields`].
    pub const fn index(self) -> u16 {
        self.index
    }

    /// Name of the field.
    pub fn name(self) -> &'static str {
        self.kind.fields()[usize::from(self.index)]
    }
}

impl Kind {
    /// Name of the record with its namespace, as a registry knows it.
    pub fn full_name(self) -> String {
        format!("tidewire.{}", self.name())
    }

    /// The numeric field of that name: an int, long, double or decimal, nullable or not. Times are none.
    pub fn numeric_field(self, name: &str) -> Option<FieldId> {
        self.numbers().find(|field| field.name() == name)
    }

    /// All numeric fields, in the order of the schema.
    pub fn numbers(self) -> impl Iterator<Item = FieldId> {
        self.numeric_fields().iter().map(move |&index| FieldId { kind: self, index })
    }
}

/// A record was not the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a {expected} record, found {found}")]
pub struct WrongKind {
    /// What was asked for.
    pub expected: Kind,
    /// What it is.
    pub found: Kind,
}

/// Text conversions for types that are known by a symbol.
macro_rules! symbol_traits {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                $name::from_name(text).ok_or_else(|| {
                    $crate::record::unknown_symbol(
                        stringify!($name),
                        text,
                        $name::ALL.iter().map(|x| x.name()),
                    )
                })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = SmolStr::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use symbol_traits;

pub(crate) fn unknown_symbol<'a>(of: &str, text: &str, all: impl Iterator<Item = &'a str>) -> String {
    let all = all.collect::<Vec<_>>().join(", ");
    format!("`{text}` is no {of}; use one of {all}")
}
