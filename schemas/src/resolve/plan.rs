//! Making a plan from two schemas.

use super::Incompatible;
use super::default::encode_default;
use crate::shape::{Base, FieldShape, Named, NodeId, Shape};

/// Greatest depth of a reader's schema. This build's have at most 4.
const MAX_DEPTH: usize = 32;

/// One step of a rewrite.
#[derive(Debug)]
pub(super) enum Op {
    /// Bytes stay as they are.
    Copy(Copied),
    LongToDouble,
    FloatToDouble,
    /// The reader's index for each of the writer's symbols; `None` where there is none.
    Enum(Vec<Option<usize>>, Place),
    Array(Box<Op>),
    Map(Box<Op>),
    /// The writer has no union, the reader does: its branch, and the value.
    Branch(usize, Box<Op>),
    /// The writer has a union: what to do with each of its branches.
    Union(Vec<Result<Op, Incompatible>>, usize),
    Record(RecordPlan),
}

/// Where in the reader's schema, as `Record.field`.
pub(super) type Place = Box<str>;

/// Values whose bytes are copied; the variant says how to find their end and what to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    Null,
    Boolean,
    Int,
    Long,
    Double,
    Bytes,
    String,
    Decimal,
}

#[derive(Debug)]
pub(super) enum RecordPlan {
    /// The reader's fields come in the writer's order: one pass.
    InOrder { steps: Vec<Step>, copy: bool },
    /// They do not: the first pass finds where each of the writer's fields begins.
    Shuffled { writer_fields: Vec<NodeId>, takes: Vec<Take> },
}

#[derive(Debug)]
pub(super) enum Step {
    /// A field only the writer has.
    Skip(NodeId),
    Field(Op, Place),
    /// A field only the reader has: its default's bytes.
    Default(Vec<u8>),
}

#[derive(Debug)]
pub(super) enum Take {
    From(usize, Op, Place),
    Default(Vec<u8>),
}

/// Makes the plan for the two roots.
pub(super) fn build(writer: &Shape, reader: &Shape) -> Result<Op, Incompatible> {
    let path = reader.record_name().map_or("schema", Named::short).to_owned();
    Planner { writer, reader }.plan(writer.root(), reader.root(), &path, 0)
}

struct Planner<'a> {
    writer: &'a Shape,
    reader: &'a Shape,
}

impl Planner<'_> {
    fn plan(&self, w: NodeId, r: NodeId, path: &str, depth: usize) -> Result<Op, Incompatible> {
        let (writer, reader) = (self.writer.node(w), self.reader.node(r));
        if depth > MAX_DEPTH {
            return Err(incompatible(path, "the schemas are nested too deeply"));
        }
        if let Base::Union(branches) = &writer.base {
            return self.read_union(branches, r, path, depth);
        }
        if let Base::Union(branches) = &reader.base {
            return self.read_into_union(w, branches, path, depth);
        }
        if writer.logical != reader.logical {
            let why = format!(
                "the writer's logical type is {:?}, the reader's {:?}: units or scale would be misread",
                writer.logical, reader.logical
            );
            return Err(incompatible(path, why));
        }
        let decimal = matches!(reader.logical, crate::shape::Logical::Decimal { .. });
        Ok(match (&writer.base, &reader.base) {
            (Base::Null, Base::Null) => Op::Copy(Copied::Null),
            (Base::Boolean, Base::Boolean) => Op::Copy(Copied::Boolean),
            (Base::Int, Base::Int | Base::Long) => Op::Copy(Copied::Int),
            (Base::Long, Base::Long) => Op::Copy(Copied::Long),
            (Base::Double, Base::Double) => Op::Copy(Copied::Double),
            (Base::Int | Base::Long, Base::Double) => Op::LongToDouble,
            (Base::Float, Base::Double) => Op::FloatToDouble,
            (Base::Bytes, Base::Bytes) if decimal => Op::Copy(Copied::Decimal),
            (Base::Bytes | Base::String, Base::Bytes) => Op::Copy(Copied::Bytes),
            (Base::Bytes | Base::String, Base::String) => Op::Copy(Copied::String),
            (Base::Array(w), Base::Array(r)) => {
                Op::Array(Box::new(self.plan(*w, *r, &format!("{path}[]"), depth + 1)?))
            }
            (Base::Map(w), Base::Map(r)) => {
                Op::Map(Box::new(self.plan(*w, *r, &format!("{path}{{}}"), depth + 1)?))
            }
            (Base::Enum(w_name, w_symbols, _), Base::Enum(r_name, r_symbols, r_default)) => {
                check_names(w_name, r_name, path)?;
                plan_enum(w_symbols, r_symbols, r_default.as_deref(), path)?
            }
            (Base::Record(w_name, w_fields), Base::Record(r_name, r_fields)) => {
                check_names(w_name, r_name, path)?;
                Op::Record(self.record(w_fields, r_fields, path, depth)?)
            }
            (w, r) => {
                return Err(incompatible(path, format!("{} cannot be read as {}", word(w), word(r))));
            }
        })
    }

    fn read_union(
        &self,
        branches: &[NodeId],
        r: NodeId,
        path: &str,
        depth: usize,
    ) -> Result<Op, Incompatible> {
        let plans: Vec<_> = branches.iter().map(|b| self.plan(*b, r, path, depth + 1)).collect();
        match plans.iter().find_map(|p| p.as_ref().err()) {
            // A union without branches has no value at all.
            _ if plans.is_empty() => Err(incompatible(path, "the writer's union has no branches")),
            Some(why) if plans.iter().all(Result::is_err) => Err(why.clone()),
            _ => {
                let reader_branches = match &self.reader.node(r).base {
                    Base::Union(branches) => branches.len(),
                    _ => 0,
                };
                Ok(Op::Union(plans, reader_branches))
            }
        }
    }

    /// The branch of the same type, or else the first that can take the value.
    fn read_into_union(
        &self,
        w: NodeId,
        branches: &[NodeId],
        path: &str,
        depth: usize,
    ) -> Result<Op, Incompatible> {
        let same = |r: &NodeId| {
            std::mem::discriminant(&self.writer.node(w).base)
                == std::mem::discriminant(&self.reader.node(*r).base)
        };
        let first = branches.iter().enumerate().filter(|(_, r)| same(r));
        let then = branches.iter().enumerate().filter(|(_, r)| !same(r));
        let mut why = None;
        for (index, r) in first.chain(then) {
            match self.plan(w, *r, path, depth + 1) {
                Ok(op) => return Ok(Op::Branch(index, Box::new(op))),
                Err(e) => why = why.or(Some(e)),
            }
        }
        Err(why.unwrap_or_else(|| incompatible(path, "the reader's union has no branches")))
    }

    fn record(
        &self,
        w_fields: &[FieldShape],
        r_fields: &[FieldShape],
        path: &str,
        depth: usize,
    ) -> Result<RecordPlan, Incompatible> {
        let mut takes = Vec::with_capacity(r_fields.len());
        for field in r_fields {
            let place = format!("{path}.{}", field.name);
            match find_field(w_fields, field) {
                Some(index) => {
                    let op = self.plan(w_fields[index].node, field.node, &place, depth + 1)?;
                    takes.push(Take::From(index, op, place.into()));
                }
                None => match &field.default {
                    Some(value) => {
                        let mut bytes = Vec::new();
                        encode_default(self.reader, field.node, value, &mut bytes)
                            .map_err(|why| incompatible(&place, why))?;
                        takes.push(Take::Default(bytes));
                    }
                    None => {
                        let why = "the writer has no such field, and the reader no default for it";
                        return Err(incompatible(&place, why));
                    }
                },
            }
        }
        let from: Vec<usize> = takes
            .iter()
            .filter_map(|take| match take {
                Take::From(index, ..) => Some(*index),
                Take::Default(_) => None,
            })
            .collect();
        if from.is_sorted_by(|a, b| a < b) {
            Ok(in_order(w_fields, takes))
        } else {
            Ok(RecordPlan::Shuffled { writer_fields: w_fields.iter().map(|f| f.node).collect(), takes })
        }
    }
}

fn in_order(w_fields: &[FieldShape], takes: Vec<Take>) -> RecordPlan {
    let mut steps = Vec::new();
    let mut next = 0;
    for take in takes {
        match take {
            Take::From(index, op, place) => {
                steps.extend(w_fields[next..index].iter().map(|f| Step::Skip(f.node)));
                steps.push(Step::Field(op, place));
                next = index + 1;
            }
            Take::Default(bytes) => steps.push(Step::Default(bytes)),
        }
    }
    steps.extend(w_fields[next..].iter().map(|f| Step::Skip(f.node)));
    let copy = steps.iter().all(|step| matches!(step, Step::Field(op, _) if op.is_copy()));
    RecordPlan::InOrder { steps, copy }
}

/// By name, or else by an alias of the reader's field.
pub(super) fn find_field(w_fields: &[FieldShape], field: &FieldShape) -> Option<usize> {
    let by_name = |name: &str| w_fields.iter().position(|f| f.name == name);
    by_name(&field.name).or_else(|| field.aliases.iter().find_map(|alias| by_name(alias)))
}

fn plan_enum(
    w_symbols: &[String],
    r_symbols: &[String],
    default: Option<&str>,
    path: &str,
) -> Result<Op, Incompatible> {
    let find = |symbol: &str| r_symbols.iter().position(|s| s == symbol);
    let default = default.and_then(find);
    let map: Vec<_> = w_symbols.iter().map(|symbol| find(symbol).or(default)).collect();
    if map.iter().all(Option::is_none) {
        return Err(incompatible(
            path,
            "no symbol of the writer is one of the reader, and there is no default",
        ));
    }
    Ok(Op::Enum(map, path.into()))
}

fn check_names(writer: &Named, reader: &Named, path: &str) -> Result<(), Incompatible> {
    if reader.takes(writer) {
        return Ok(());
    }
    Err(incompatible(path, other_name(writer, reader)))
}

pub(super) fn other_name(writer: &Named, reader: &Named) -> String {
    format!("the writer's `{}` is neither the reader's `{}` nor an alias", writer.name, reader.name)
}

fn incompatible(path: &str, why: impl Into<String>) -> Incompatible {
    Incompatible { path: path.to_owned(), why: why.into() }
}

pub(super) fn word(base: &Base) -> String {
    match base {
        Base::Null => "null".into(),
        Base::Boolean => "boolean".into(),
        Base::Int => "int".into(),
        Base::Long => "long".into(),
        Base::Float => "float".into(),
        Base::Double => "double".into(),
        Base::Bytes => "bytes".into(),
        Base::String => "string".into(),
        Base::Fixed(name, size) => format!("fixed `{}` of {size} bytes", name.name),
        Base::Enum(name, ..) => format!("enum `{}`", name.name),
        Base::Array(_) => "array".into(),
        Base::Map(_) => "map".into(),
        Base::Union(_) => "union".into(),
        Base::Record(name, _) => format!("record `{}`", name.name),
    }
}

impl Op {
    /// Whether the writer's bytes are the reader's as they are.
    pub(super) fn is_copy(&self) -> bool {
        match self {
            Op::Copy(_) => true,
            Op::Enum(map, _) => map.iter().enumerate().all(|(i, to)| *to == Some(i)),
            Op::Array(op) | Op::Map(op) => op.is_copy(),
            Op::Union(branches, reader_branches) => {
                branches.len() == *reader_branches
                    && branches.iter().enumerate().all(
                        |(i, branch)| matches!(branch, Ok(Op::Branch(to, op)) if *to == i && op.is_copy()),
                    )
            }
            Op::Record(RecordPlan::InOrder { copy, .. }) => *copy,
            Op::LongToDouble | Op::FloatToDouble | Op::Branch(..) | Op::Record(_) => false,
        }
    }

    pub(super) fn gaps(&self, gaps: &mut Vec<Incompatible>) {
        match self {
            Op::Enum(map, place) if map.contains(&None) => {
                gaps.push(incompatible(place, "a symbol of the writer is unknown, and there is no default"));
            }
            Op::Array(op) | Op::Map(op) | Op::Branch(_, op) => op.gaps(gaps),
            Op::Union(branches, _) => {
                for branch in branches {
                    match branch {
                        Ok(op) => op.gaps(gaps),
                        Err(why) => gaps.push(why.clone()),
                    }
                }
            }
            Op::Record(RecordPlan::InOrder { steps, .. }) => {
                for step in steps {
                    if let Step::Field(op, _) = step {
                        op.gaps(gaps);
                    }
                }
            }
            Op::Record(RecordPlan::Shuffled { takes, .. }) => {
                for take in takes {
                    if let Take::From(_, op, _) = take {
                        op.gaps(gaps);
                    }
                }
            }
            Op::Copy(_) | Op::LongToDouble | Op::FloatToDouble | Op::Enum(..) => {}
        }
    }
}
