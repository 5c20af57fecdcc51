//! Reading what another version of a schema wrote (Avro 1.12 specification, "Schema Resolution").
//!
//! A plan is made once for a writer's and a reader's schema. It rewrites the writer's bytes as the reader's, which
//! the compiled decoder then reads: so there is one decoder, and a plan only for what differs.
//!
//! Stricter than the specification in one point: logical types must agree. A `timestamp-millis` read as
//! `timestamp-micros`, or bytes read as a decimal, would be a wrong number and no error.

mod compatible;
mod default;
mod plan;
mod run;
mod skip;

use crate::error::DecodeError;
use crate::shape::Shape;
pub use compatible::Comparable;
pub(crate) use run::Work;

/// Why a writer's schema cannot be read by a reader's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct Incompatible {
    /// Where, in the reader's schema, as `Record.field`.
    pub path: String,
    /// Why.
    pub why: String,
}

/// How a writer's bytes become a reader's.
#[derive(Debug)]
pub struct Plan {
    writer: Shape,
    op: plan::Op,
}

impl Plan {
    /// Makes the plan for two schema texts, or says where and why there is none.
    ///
    /// The reader's schema may use what this crate's schemas use; `float`, `fixed` and the logical types of dates are
    /// left to writers.
    pub fn new(writer_json: &str, reader_json: &str) -> Result<Plan, Incompatible> {
        let parse = |whose: &str, json| {
            Shape::parse(json).map_err(|why| Incompatible { path: format!("{whose}'s schema"), why })
        };
        Plan::of(parse("writer", writer_json)?, &parse("reader", reader_json)?)
    }

    /// The same for schemas that are parsed.
    pub(crate) fn of(writer: Shape, reader: &Shape) -> Result<Plan, Incompatible> {
        let op = plan::build(&writer, reader)?;
        Ok(Plan { writer, op })
    }

    /// Whether the writer's bytes are the reader's as they are.
    pub fn is_copy(&self) -> bool {
        self.op.is_copy()
    }

    /// What could be written and not be read: branches and symbols without a counterpart.
    pub fn gaps(&self) -> Vec<Incompatible> {
        let mut gaps = Vec::new();
        self.op.gaps(&mut gaps);
        gaps
    }

    /// Appends the reader's bytes of one datum, which must end where the bytes end. After an error what was appended
    /// so far is of no use.
    pub fn rewrite(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        run::run(&self.op, &self.writer, bytes, out)
    }
}

/// Checks that everything written with one schema can be read with the other: what the registry calls BACKWARD.
/// Returns the first place where it cannot.
pub fn check_backward(writer_json: &str, reader_json: &str) -> Result<(), Incompatible> {
    match Plan::new(writer_json, reader_json)?.gaps().into_iter().next() {
        Some(gap) => Err(gap),
        None => Ok(()),
    }
}
