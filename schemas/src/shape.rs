//! A schema as a flat list of nodes: what a plan, a skip and a reading as JSON walk over.
//!
//! apache-avro parses and validates the text. The list holds what matters on the wire, with names resolved, so that
//! walking it needs no look-ups and recursive schemas are plain indices.

use apache_avro::Schema;
use apache_avro::schema::{Aliases, InnerDecimalSchema, Name, RecordSchema, UuidSchema};
use serde_json::Value;
use std::collections::BTreeMap;

/// Greatest length of a schema text, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 1 << 20;
/// Greatest number of nodes in a schema.
const MAX_NODES: usize = 20_000;

/// Index of a node.
pub(crate) type NodeId = usize;

/// A parsed schema.
#[derive(Debug)]
pub(crate) struct Shape {
    nodes: Vec<Node>,
    root: NodeId,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub base: Base,
    pub logical: Logical,
}

/// How a value lies on the wire.
#[derive(Debug)]
pub(crate) enum Base {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(Named, usize),
    Enum(Named, Vec<String>, Option<String>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Named, Vec<FieldShape>),
}

/// What a value means beyond its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logical {
    None,
    Decimal { scale: usize },
    BigDecimal,
    Uuid,
    Date,
    TimeMillis,
    TimeMicros,
    TimestampMillis,
    TimestampMicros,
    TimestampNanos,
    LocalTimestampMillis,
    LocalTimestampMicros,
    LocalTimestampNanos,
    Duration,
}

/// Full name and full aliases.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub name: String,
    pub aliases: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct FieldShape {
    pub name: String,
    pub aliases: Vec<String>,
    pub default: Option<Value>,
    pub node: NodeId,
}

impl Shape {
    /// Parses a schema text. The error says what is wrong with it.
    pub fn parse(json: &str) -> Result<Shape, String> {
        if json.len() > MAX_SCHEMA_BYTES {
            return Err(format!("the schema text has {} bytes, more than {MAX_SCHEMA_BYTES}", json.len()));
        }
        let schema = Schema::parse_str(json).map_err(|e| format!("not a valid Avro schema: {e}"))?;
        let mut builder = Builder { nodes: Vec::new(), names: BTreeMap::new() };
        let root = builder.add(&schema)?;
        Ok(Shape { nodes: builder.nodes, root })
    }

    pub fn root(&self) -> NodeId {
        self.root
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// Name of the root, when it is a record.
    pub fn record_name(&self) -> Option<&Named> {
        match &self.node(self.root).base {
            Base::Record(named, _) => Some(named),
            _ => None,
        }
    }
}

impl Named {
    /// Name without namespace.
    pub fn short(&self) -> &str {
        short(&self.name)
    }

    /// Whether a reader of this name takes a writer's: by the name without namespace, or by an alias of the reader.
    pub fn takes(&self, writer: &Named) -> bool {
        self.short() == writer.short()
            || self.aliases.iter().any(|alias| *alias == writer.name || alias == writer.short())
    }
}

/// Name without namespace.
pub(crate) fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

struct Builder {
    nodes: Vec<Node>,
    names: BTreeMap<String, NodeId>,
}

impl Builder {
    fn push(&mut self, base: Base, logical: Logical) -> Result<NodeId, String> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("the schema has more than {MAX_NODES} types"));
        }
        self.nodes.push(Node { base, logical });
        Ok(self.nodes.len() - 1)
    }

    /// Registers a name for the node that is pushed next.
    fn name(&mut self, name: &Name, aliases: &Aliases) -> Named {
        let id = self.nodes.len();
        let full = name.fullname(None);
        let aliases: Vec<String> =
            aliases.iter().flatten().map(|alias| alias.fullname(name.namespace())).collect();
        for alias in &aliases {
            self.names.entry(alias.clone()).or_insert(id);
        }
        self.names.insert(full.clone(), id);
        Named { name: full, aliases }
    }

    fn add(&mut self, schema: &Schema) -> Result<NodeId, String> {
        use Logical as L;
        match schema {
            Schema::Null => self.push(Base::Null, L::None),
            Schema::Boolean => self.push(Base::Boolean, L::None),
            Schema::Int => self.push(Base::Int, L::None),
            Schema::Long => self.push(Base::Long, L::None),
            Schema::Float => self.push(Base::Float, L::None),
            Schema::Double => self.push(Base::Double, L::None),
            Schema::Bytes => self.push(Base::Bytes, L::None),
            Schema::String => self.push(Base::String, L::None),
            Schema::Date => self.push(Base::Int, L::Date),
            Schema::TimeMillis => self.push(Base::Int, L::TimeMillis),
            Schema::TimeMicros => self.push(Base::Long, L::TimeMicros),
            Schema::TimestampMillis => self.push(Base::Long, L::TimestampMillis),
            Schema::TimestampMicros => self.push(Base::Long, L::TimestampMicros),
            Schema::TimestampNanos => self.push(Base::Long, L::TimestampNanos),
            Schema::LocalTimestampMillis => self.push(Base::Long, L::LocalTimestampMillis),
            Schema::LocalTimestampMicros => self.push(Base::Long, L::LocalTimestampMicros),
            Schema::LocalTimestampNanos => self.push(Base::Long, L::LocalTimestampNanos),
            Schema::BigDecimal => self.push(Base::Bytes, L::BigDecimal),
            Schema::Decimal(decimal) => {
                let logical = L::Decimal { scale: decimal.scale };
                match &decimal.inner {
                    InnerDecimalSchema::Bytes => self.push(Base::Bytes, logical),
                    InnerDecimalSchema::Fixed(fixed) => self.fixed(fixed, logical),
                }
            }
            Schema::Uuid(UuidSchema::String) => self.push(Base::String, L::Uuid),
            Schema::Uuid(UuidSchema::Bytes) => self.push(Base::Bytes, L::Uuid),
            Schema::Uuid(UuidSchema::Fixed(fixed)) => self.fixed(fixed, L::Uuid),
            Schema::Duration(fixed) => self.fixed(fixed, L::Duration),
            Schema::Fixed(fixed) => self.fixed(fixed, L::None),
            Schema::Enum(made) => {
                let named = self.name(&made.name, &made.aliases);
                self.push(Base::Enum(named, made.symbols.clone(), made.default.clone()), L::None)
            }
            Schema::Array(array) => {
                let items = self.add(&array.items)?;
                self.push(Base::Array(items), L::None)
            }
            Schema::Map(map) => {
                let values = self.add(&map.types)?;
                self.push(Base::Map(values), L::None)
            }
            Schema::Union(union) => {
                let branches =
                    union.variants().iter().map(|branch| self.add(branch)).collect::<Result<_, _>>()?;
                self.push(Base::Union(branches), L::None)
            }
            Schema::Record(record) => self.record(record),
            Schema::Ref { name } => {
                let full = name.fullname(None);
                self.names.get(&full).copied().ok_or_else(|| format!("no type is named `{full}`"))
            }
        }
    }

    fn fixed(
        &mut self,
        fixed: &apache_avro::schema::FixedSchema,
        logical: Logical,
    ) -> Result<NodeId, String> {
        let named = self.name(&fixed.name, &fixed.aliases);
        self.push(Base::Fixed(named, fixed.size), logical)
    }

    fn record(&mut self, record: &RecordSchema) -> Result<NodeId, String> {
        let named = self.name(&record.name, &record.aliases);
        // The place is taken before the fields are looked at: they may refer to it.
        let id = self.push(Base::Record(named.clone(), Vec::new()), Logical::None)?;
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            fields.push(FieldShape {
                name: field.name.clone(),
                aliases: field.aliases.clone(),
                default: field.default.clone(),
                node: self.add(&field.schema)?,
            });
        }
        self.nodes[id].base = Base::Record(named, fields);
        Ok(id)
    }
}
