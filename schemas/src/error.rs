//! Why bytes are no record.

use smol_str::SmolStr;
use std::sync::Arc;

/// Why bytes could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first byte is not the 0 of the Confluent wire format.
    #[error(
        "first byte is {found:#04x}, not the 0x00 of the Confluent wire format: the producer wrote another format"
    )]
    WrongMagicByte {
        /// The byte found.
        found: u8,
    },
    /// Fewer than the 5 bytes of the prefix.
    #[error("{length} bytes are too few: the schema prefix alone has 5")]
    TooShort {
        /// Number of bytes.
        length: usize,
    },
    /// No schema is known by this id.
    #[error(
        "schema id {id} is not known here: register its schema, or check that registry and topic belong together"
    )]
    UnknownSchema {
        /// The id in the prefix.
        id: u32,
    },
    /// The bytes are not what the schema says.
    #[error("malformed at byte {at}{}: {problem}", in_field(.field))]
    Malformed {
        /// Position after the schema prefix.
        at: usize,
        /// Innermost field, as `Record.field`; empty when outside of any.
        field: SmolStr,
        /// What is wrong.
        problem: &'static str,
    },
    /// The record ended before the bytes did.
    #[error(
        "{length} bytes are left after the end of the record at byte {at}: the schema id is not the writer's"
    )]
    TrailingBytes {
        /// Where the record ended, after the schema prefix.
        at: usize,
        /// Number of bytes left.
        length: usize,
    },
    /// The writer's schema cannot be read as any record of this build.
    #[error("schema id {id} cannot be read by this build: {why}")]
    IncompatibleSchema {
        /// The writer's schema id.
        id: u32,
        /// Where and why.
        why: Arc<str>,
    },
}

/// A value's bytes are not what the schema says. Plain data: the decoder's fast path carries it at no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed at byte {at}: {problem}")]
pub struct Malformed {
    /// Position of the value.
    pub at: usize,
    /// What is wrong.
    pub problem: &'static str,
}

impl Malformed {
    #[cold]
    pub(crate) const fn new(at: usize, problem: &'static str) -> Malformed {
        Malformed { at, problem }
    }

    /// Names the field.
    #[cold]
    pub(crate) fn within(self, name: &'static str) -> DecodeError {
        DecodeError::from(self).within(name)
    }
}

impl From<Malformed> for DecodeError {
    #[cold]
    fn from(error: Malformed) -> DecodeError {
        DecodeError::Malformed { at: error.at, field: SmolStr::new_static(""), problem: error.problem }
    }
}

impl DecodeError {
    /// Bytes at `at` are not what the schema says.
    #[cold]
    pub(crate) fn malformed(at: usize, problem: &'static str) -> DecodeError {
        Malformed::new(at, problem).into()
    }

    /// Names the field, unless an inner one is named.
    #[cold]
    pub(crate) fn within(self, name: &'static str) -> DecodeError {
        self.in_field(|| SmolStr::new_static(name))
    }

    /// The same for a name that a plan holds.
    #[cold]
    pub(crate) fn within_place(self, name: &str) -> DecodeError {
        self.in_field(|| SmolStr::new(name))
    }

    fn in_field(self, name: impl FnOnce() -> SmolStr) -> DecodeError {
        match self {
            DecodeError::Malformed { at, field, problem } if field.is_empty() => {
                DecodeError::Malformed { at, field: name(), problem }
            }
            other => other,
        }
    }
}

fn in_field(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!(" in {field}") }
}
