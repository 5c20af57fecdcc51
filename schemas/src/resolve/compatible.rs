//! Whether everything that one schema writes another one can read, for any two Avro schemas: what a registry checks.
//!
//! The same rules as those of a plan (Avro 1.12 specification, "Schema Resolution", and logical types must agree), but
//! the reader may use all of Avro, schemas may refer to themselves, and all that is wrong is told, not the first.

use std::collections::BTreeSet;

use super::Incompatible;
use crate::shape::{Base, FieldShape, Named, NodeId, Shape};

/// Most problems that are told of one pair of schemas.
const MAX_PROBLEMS: usize = 20;
/// Most comparisons of two types: schemas that refer to each other crosswise could need very many.
const MAX_STEPS: usize = 200_000;
/// Greatest depth of a pair of types.
const MAX_DEPTH: usize = 128;

/// A schema that was parsed, so that it can be compared with several others.
#[derive(Debug)]
pub struct Comparable(Shape);

impl Comparable {
    /// Parses a schema text; the error says what is wrong with it.
    pub fn parse(json: &str) -> Result<Comparable, String> {
        Shape::parse(json).map(Comparable)
    }

    /// Full name of the schema, if it is a record.
    pub fn record_name(&self) -> Option<&str> {
        self.0.record_name().map(|named| named.name.as_str())
    }

    /// What `writer` may write and this schema can not read; nothing if all can be read.
    pub fn problems_reading(&self, writer: &Comparable) -> Vec<Incompatible> {
        let reader = &self.0;
        let path = reader.record_name().map_or("schema", Named::short).to_owned();
        let mut found = Vec::new();
        let mut comparison =
            Comparison { writer: &writer.0, reader, seen: BTreeSet::new(), trail: Vec::new(), steps: 0 };
        comparison.pair(writer.0.root(), reader.root(), &path, 0, &mut found);
        found
    }
}

struct Comparison<'a> {
    writer: &'a Shape,
    reader: &'a Shape,
    /// Pairs that were compared or are being compared: what is wrong with them is told once.
    seen: BTreeSet<(NodeId, NodeId)>,
    /// The same in the order in which they came.
    trail: Vec<(NodeId, NodeId)>,
    steps: usize,
}

impl Comparison<'_> {
    fn pair(&mut self, w: NodeId, r: NodeId, path: &str, depth: usize, found: &mut Vec<Incompatible>) {
        if found.len() >= MAX_PROBLEMS || !self.seen.insert((w, r)) {
            return;
        }
        self.trail.push((w, r));
        self.steps += 1;
        if depth > MAX_DEPTH || self.steps > MAX_STEPS {
            return tell(found, path, "the schemas are too large or too deep to compare");
        }
        let (writer, reader) = (self.writer, self.reader);
        let (w_node, r_node) = (writer.node(w), reader.node(r));
        if let Base::Union(branches) = &w_node.base {
            if branches.is_empty() {
                tell(found, path, "the writer's union has no branches");
            }
            for branch in branches {
                self.pair(*branch, r, path, depth + 1, found);
            }
            return;
        }
        if let Base::Union(branches) = &r_node.base {
            return self.one_of_union(w, branches, path, depth, found);
        }
        if w_node.logical != r_node.logical {
            let why = format!(
                "the writer's logical type is {:?}, the reader's {:?}: units or scale would be misread",
                w_node.logical, r_node.logical
            );
            return tell(found, path, why);
        }
        match (&w_node.base, &r_node.base) {
            (w, r) if primitive(w, r) => {}
            (Base::Fixed(w_name, w_size), Base::Fixed(r_name, r_size)) => {
                names(w_name, r_name, path, found);
                if w_size != r_size {
                    tell(found, path, format!("the writer has {w_size} bytes, the reader {r_size}"));
                }
            }
            (Base::Enum(w_name, w_symbols, _), Base::Enum(r_name, r_symbols, default)) => {
                names(w_name, r_name, path, found);
                let unknown = w_symbols.iter().find(|symbol| !r_symbols.contains(symbol));
                if let (Some(symbol), None) = (unknown, default) {
                    let why = format!("the reader does not know the symbol {symbol}, and has no default");
                    tell(found, path, why);
                }
            }
            (Base::Array(w), Base::Array(r)) => self.pair(*w, *r, &format!("{path}[]"), depth + 1, found),
            (Base::Map(w), Base::Map(r)) => self.pair(*w, *r, &format!("{path}{{}}"), depth + 1, found),
            (Base::Record(w_name, w_fields), Base::Record(r_name, r_fields)) => {
                names(w_name, r_name, path, found);
                self.fields(w_fields, r_fields, path, depth, found);
            }
            (w, r) => {
                tell(
                    found,
                    path,
                    format!("{} cannot be read as {}", super::plan::word(w), super::plan::word(r)),
                );
            }
        }
    }

    /// Some branch of the reader has to take all of the writer's values.
    fn one_of_union(
        &mut self,
        w: NodeId,
        branches: &[NodeId],
        path: &str,
        depth: usize,
        found: &mut Vec<Incompatible>,
    ) {
        let mut nearest: Option<Vec<Incompatible>> = None;
        for branch in branches {
            // What one branch can not take another one may: what was compared on the way is forgotten again.
            let before = self.trail.len();
            let mut why = Vec::new();
            self.pair(w, *branch, path, depth + 1, &mut why);
            if why.is_empty() {
                return;
            }
            for pair in self.trail.drain(before..) {
                self.seen.remove(&pair);
            }
            let same = same_type(&self.writer.node(w).base, &self.reader.node(*branch).base);
            if nearest.is_none() || same {
                nearest = Some(why);
            }
        }
        match nearest {
            Some(why) => found.extend(why),
            None => tell(found, path, "the reader's union has no branches"),
        }
    }

    fn fields(
        &mut self,
        w_fields: &[FieldShape],
        r_fields: &[FieldShape],
        path: &str,
        depth: usize,
        found: &mut Vec<Incompatible>,
    ) {
        for field in r_fields {
            let place = format!("{path}.{}", field.name);
            match super::plan::find_field(w_fields, field) {
                Some(index) => self.pair(w_fields[index].node, field.node, &place, depth + 1, found),
                None if field.default.is_some() => {}
                None => {
                    let why = "the writer has no such field, and the reader no default for it";
                    tell(found, &place, why);
                }
            }
        }
    }
}

/// Types without parts, with the promotions of the specification.
fn primitive(writer: &Base, reader: &Base) -> bool {
    matches!(
        (writer, reader),
        (Base::Null, Base::Null)
            | (Base::Boolean, Base::Boolean)
            | (Base::Int, Base::Int | Base::Long | Base::Float | Base::Double)
            | (Base::Long, Base::Long | Base::Float | Base::Double)
            | (Base::Float, Base::Float | Base::Double)
            | (Base::Double, Base::Double)
            | (Base::Bytes | Base::String, Base::Bytes | Base::String)
    )
}

fn same_type(writer: &Base, reader: &Base) -> bool {
    std::mem::discriminant(writer) == std::mem::discriminant(reader)
}

fn names(writer: &Named, reader: &Named, path: &str, found: &mut Vec<Incompatible>) {
    if !reader.takes(writer) {
        tell(found, path, super::plan::other_name(writer, reader));
    }
}

fn tell(found: &mut Vec<Incompatible>, path: &str, why: impl Into<String>) {
    if found.len() < MAX_PROBLEMS {
        found.push(Incompatible { path: path.to_owned(), why: why.into() });
    }
}
