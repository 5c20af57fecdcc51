//! Reads the text of a layout.

use serde_json::Value;
use tidewire_schemas::JsonReader;

use super::{Layout, LayoutError, NodeLayout, Plain, StateLayout};

/// Deepest layout that is read.
const MAX_DEPTH: usize = 64;

const PLAIN: [(&str, Plain); 20] = [
    ("u8", Plain::U8),
    ("u16", Plain::U16),
    ("u32", Plain::U32),
    ("u64", Plain::U64),
    ("u128", Plain::U128),
    ("i8", Plain::I8),
    ("i16", Plain::I16),
    ("i32", Plain::I32),
    ("i64", Plain::I64),
    ("i128", Plain::I128),
    ("f32", Plain::F32),
    ("f64", Plain::F64),
    ("bool", Plain::Bool),
    ("()", Plain::Unit),
    ("string", Plain::Text),
    ("EventTime", Plain::EventTime),
    ("ReceivedTime", Plain::ReceivedTime),
    ("Price", Plain::Price),
    ("Quantity", Plain::Quantity),
    ("Amount", Plain::Amount),
];

/// The layouts of an operator's state: of a key, and of the task.
pub(super) fn node(text: &str) -> Result<NodeLayout, LayoutError> {
    let mut parser = Parser { rest: text, depth: 0 };
    let key = parser.state()?;
    parser.expect("/")?;
    let task = parser.state()?;
    if parser.rest.is_empty() { Ok(NodeLayout { key, task }) } else { Err(parser.error()) }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self) -> LayoutError {
        LayoutError(self.rest.chars().take(40).collect())
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, text: &str) -> Result<(), LayoutError> {
        if self.eat(text) { Ok(()) } else { Err(self.error()) }
    }

    fn name(&mut self) -> String {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    fn state(&mut self) -> Result<StateLayout, LayoutError> {
        self.deeper(|parser| {
            if parser.eat("entries<") {
                let key = parser.value()?;
                parser.expect(",")?;
                let value = parser.value()?;
                parser.expect(">")?;
                return Ok(StateLayout::Entries(key, value));
            }
            if parser.eat("queue<") {
                let value = parser.value()?;
                parser.expect(">")?;
                return Ok(StateLayout::Queue(value));
            }
            // A composite begins as a schema does, but the names of its parts have no quotes.
            if parser.rest.starts_with('{') && !parser.rest.starts_with("{\"") {
                parser.expect("{")?;
                let mut parts = Vec::new();
                while !parser.eat("}") {
                    let name = parser.name();
                    parser.expect(":")?;
                    parts.push((name, parser.state()?));
                    parser.expect(",")?;
                }
                return Ok(StateLayout::Parts(parts));
            }
            Ok(match parser.value()? {
                Layout::Plain(Plain::Unit) => StateLayout::None,
                layout => StateLayout::Whole(layout),
            })
        })
    }

    fn value(&mut self) -> Result<Layout, LayoutError> {
        self.deeper(|parser| {
            if parser.rest.starts_with("{\"") {
                return parser.record();
            }
            if parser.eat("()") {
                return Ok(Layout::Plain(Plain::Unit));
            }
            if parser.eat("(") {
                let mut parts = Vec::new();
                while !parser.eat(")") {
                    parts.push(parser.value()?);
                    parser.expect(",")?;
                }
                return Ok(Layout::Tuple(parts));
            }
            let name = parser.name();
            if name.is_empty() {
                return Err(parser.error());
            }
            parser.named(&name)
        })
    }

    fn named(&mut self, name: &str) -> Result<Layout, LayoutError> {
        if self.eat("<") {
            let first = Box::new(self.value()?);
            let layout = match name {
                "option" => Layout::Optional(first),
                "list" | "set" => Layout::List(first),
                "map" => {
                    self.expect(",")?;
                    Layout::Map(first, Box::new(self.value()?))
                }
                _ => return Err(self.error()),
            };
            self.expect(">")?;
            return Ok(layout);
        }
        if self.eat("{") {
            let mut fields = Vec::new();
            while !self.eat("}") {
                let field = self.name();
                self.expect(":")?;
                fields.push((field, self.value()?));
                self.expect(",")?;
            }
            return Ok(Layout::Struct(fields));
        }
        if self.eat("[") {
            let mut names = Vec::new();
            while !self.eat("]") {
                names.push(self.name());
                self.expect(",")?;
            }
            return Ok(Layout::Choice(names));
        }
        let plain = PLAIN.iter().find(|(plain, _)| *plain == name);
        plain.map(|(_, plain)| Layout::Plain(*plain)).ok_or_else(|| LayoutError(name.to_owned()))
    }

    /// A schema in the midst of the text.
    fn record(&mut self) -> Result<Layout, LayoutError> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<Value>();
        let found = values.next();
        let end = values.byte_offset();
        let (Some(Ok(_)), Some((json, rest))) = (found, self.rest.split_at_checked(end)) else {
            return Err(self.error());
        };
        let reader = JsonReader::new(json).map_err(|_| self.error())?;
        self.rest = rest;
        Ok(Layout::Record(Box::new(reader)))
    }

    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, LayoutError>,
    ) -> Result<T, LayoutError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error());
        }
        let value = read(self);
        self.depth -= 1;
        value
    }
}
