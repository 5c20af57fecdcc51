//! Carrying a plan out. Bytes of any kind give the reader's bytes or an error, within bounds of depth, work and size.

use super::plan::{Copied, Op, RecordPlan, Step, Take};
use super::skip::skip;
use crate::error::{DecodeError, Malformed};
use crate::shape::Shape;
use crate::wire::{Cursor, put};

/// Greatest depth of a value; recursive schemas have no other bound.
const MAX_DEPTH: usize = 64;
/// Most items that take no bytes at all, such as nulls in an array.
const MAX_EMPTY_ITEMS: usize = 65_536;
/// Greatest size of what is written, in bytes: defaults can make a small datum large.
const MAX_REWRITTEN_BYTES: usize = 64 << 20;

/// What a value of hostile bytes may still cost.
pub(crate) struct Work {
    depth: usize,
    empty_items: usize,
}

impl Work {
    pub(crate) const fn new() -> Work {
        Work { depth: 0, empty_items: 0 }
    }

    #[inline]
    pub(crate) fn enter(&mut self, c: &Cursor<'_>) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(DecodeError::malformed(c.position(), "the value is nested too deeply"));
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Number of items in the next block. Items may take no bytes, so that the count is not bounded by what is left.
    #[inline]
    pub(crate) fn block(&mut self, c: &mut Cursor<'_>) -> Result<usize, Malformed> {
        c.block_within(c.remaining().saturating_add(MAX_EMPTY_ITEMS))
    }

    /// To be called after each item of an array, with where it began: items without bytes are counted.
    #[inline]
    pub(crate) fn count_item(&mut self, began: usize, c: &Cursor<'_>) -> Result<(), DecodeError> {
        if c.position() == began {
            self.empty_items += 1;
            if self.empty_items > MAX_EMPTY_ITEMS {
                return Err(DecodeError::malformed(began, "too many items without bytes"));
            }
        }
        Ok(())
    }
}

pub(super) fn run(op: &Op, writer: &Shape, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut runner = Runner { writer, work: Work::new(), limit: out.len() + MAX_REWRITTEN_BYTES };
    let mut cursor = Cursor::new(bytes);
    runner.run(op, &mut cursor, out)?;
    cursor.finish()
}

struct Runner<'a> {
    writer: &'a Shape,
    work: Work,
    limit: usize,
}

impl Runner<'_> {
    fn run(&mut self, op: &Op, c: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match op {
            Op::Copy(copied) => copy(*copied, c, out)?,
            Op::LongToDouble => {
                let long = c.long()?;
                put::double(out, long as f64);
            }
            Op::FloatToDouble => {
                let float = c.float()?;
                put::double(out, f64::from(float));
            }
            Op::Enum(map, _) => {
                let at = c.position();
                match map[c.index(map.len())?] {
                    Some(index) => put::length(out, index),
                    None => {
                        return Err(DecodeError::malformed(at, "this build does not know the enum symbol"));
                    }
                }
            }
            Op::Array(op) => loop {
                let count = self.work.block(c)?;
                put::length(out, count);
                if count == 0 {
                    break;
                }
                for _ in 0..count {
                    let before = c.position();
                    self.run(op, c, out)?;
                    self.work.count_item(before, c)?;
                    self.check_size(c, out)?;
                }
            },
            Op::Map(op) => loop {
                let count = self.work.block(c)?;
                put::length(out, count);
                if count == 0 {
                    break;
                }
                for _ in 0..count {
                    copy(Copied::String, c, out)?;
                    self.run(op, c, out)?;
                    self.check_size(c, out)?;
                }
            },
            Op::Branch(index, op) => {
                put::length(out, *index);
                self.run(op, c, out)?;
            }
            Op::Union(branches, _) => {
                let at = c.position();
                match &branches[c.index(branches.len())?] {
                    Ok(op) => self.run(op, c, out)?,
                    Err(_) => {
                        let problem = "this build has no place for the union's branch, such as null";
                        return Err(DecodeError::malformed(at, problem));
                    }
                }
            }
            Op::Record(plan) => self.record(plan, c, out)?,
        }
        Ok(())
    }

    fn record(
        &mut self,
        plan: &RecordPlan,
        c: &mut Cursor<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        match plan {
            RecordPlan::InOrder { steps, .. } => {
                for step in steps {
                    match step {
                        Step::Skip(node) => skip(self.writer, *node, c, &mut self.work)?,
                        Step::Field(op, place) => self.run(op, c, out).map_err(|e| e.within_place(place))?,
                        Step::Default(bytes) => out.extend_from_slice(bytes),
                    }
                }
            }
            RecordPlan::Shuffled { writer_fields, takes } => {
                let mut starts = Vec::with_capacity(writer_fields.len());
                for node in writer_fields {
                    starts.push(c.clone());
                    skip(self.writer, *node, c, &mut self.work)?;
                }
                for take in takes {
                    match take {
                        Take::From(index, op, place) => {
                            let mut start = starts[*index].clone();
                            self.run(op, &mut start, out).map_err(|e| e.within_place(place))?;
                        }
                        Take::Default(bytes) => out.extend_from_slice(bytes),
                    }
                }
            }
        }
        Ok(())
    }

    fn check_size(&self, c: &Cursor<'_>, out: &[u8]) -> Result<(), DecodeError> {
        if out.len() > self.limit {
            return Err(DecodeError::malformed(
                c.position(),
                "with this build's defaults the record is too large",
            ));
        }
        Ok(())
    }
}

fn copy(copied: Copied, c: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let before = c.clone();
    match copied {
        Copied::Null => return Ok(()),
        Copied::Boolean => _ = c.boolean()?,
        Copied::Int => _ = c.int()?,
        Copied::Long => _ = c.long()?,
        Copied::Double => _ = c.double()?,
        Copied::Bytes => _ = c.slice()?,
        Copied::String => _ = c.str()?,
        Copied::Decimal => _ = c.decimal()?,
    }
    out.extend_from_slice(before.since(c));
    Ok(())
}
