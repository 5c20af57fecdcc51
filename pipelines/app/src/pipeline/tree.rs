//! TOML with the place of every key and value, so that each problem can be shown where it stands.

use smol_str::SmolStr;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problems};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where.
    pub place: Place,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a point.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// A date or time, as written.
    Time(toml::value::Datetime),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

impl Value {
    /// What it is, for messages.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a point",
            Self::Boolean(_) => "true or false",
            Self::Time(_) => "a time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A table, its entries in the order of the file.
#[derive(Clone, Debug)]
pub struct Table {
    /// Where it begins.
    pub place: Place,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub name: SmolStr,
    /// Where the key stands.
    pub name_place: Place,
    /// The value.
    pub node: Node,
}

impl Table {
    /// The entry of that key.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// Reads TOML. What is no TOML is noted; the rest is read all the same.
pub fn parse(text: &str, problems: &mut Problems) -> Table {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        problems.add(&Place::File(span), error.message());
    }
    let place = Place::File(0..0);
    read_table(table.get_ref(), place, problems)
}

/// Reads one TOML value, as an environment variable has it; text that is none is taken as it is.
pub fn parse_value(text: &str, place: &Place) -> Node {
    let mut problems = Problems::default();
    let mut node = match DeValue::parse(text) {
        Ok(value) => read_value(value.get_ref(), place.clone(), &mut problems),
        Err(_) => Node { place: place.clone(), value: Value::Text(text.to_owned()) },
    };
    if !problems.is_empty() {
        node.value = Value::Text(text.to_owned());
    }
    set_place(&mut node, place);
    node
}

/// Settings as operators take them.
pub fn to_toml(node: &Node) -> toml::Value {
    match &node.value {
        Value::Text(text) => toml::Value::String(text.clone()),
        Value::Integer(number) => toml::Value::Integer(*number),
        Value::Float(number) => toml::Value::Float(*number),
        Value::Boolean(yes) => toml::Value::Boolean(*yes),
        Value::Time(time) => toml::Value::Datetime(*time),
        Value::List(nodes) => toml::Value::Array(nodes.iter().map(to_toml).collect()),
        Value::Table(table) => {
            let entries = table.entries.iter();
            toml::Value::Table(entries.map(|entry| (entry.name.to_string(), to_toml(&entry.node))).collect())
        }
    }
}

fn read_table(table: &DeTable<'_>, place: Place, problems: &mut Problems) -> Table {
    let mut entries: Vec<(usize, Entry)> = Vec::with_capacity(table.len());
    for (name, value) in table {
        let name_place = Place::File(name.span());
        let value_place = Place::File(value.span());
        let entry = Entry {
            name: SmolStr::new(name.get_ref()),
            name_place,
            node: read_value(value.get_ref(), value_place, problems),
        };
        entries.push((name.span().start, entry));
    }
    entries.sort_by_key(|(start, _)| *start);
    Table { place, entries: entries.into_iter().map(|(_, entry)| entry).collect() }
}

fn read_value(value: &DeValue<'_>, place: Place, problems: &mut Problems) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                problems.add(&place, format!("`{number}` is beyond what a whole number may be"));
                Value::Integer(0)
            }
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => {
                problems.add(&place, format!("`{number}` is no number"));
                Value::Float(0.0)
            }
        },
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(time) => Value::Time(*time),
        DeValue::Array(items) => Value::List(
            items.iter().map(|item| read_value(item.get_ref(), Place::File(item.span()), problems)).collect(),
        ),
        DeValue::Table(table) => Value::Table(read_table(table, place.clone(), problems)),
    };
    Node { place, value }
}

fn set_place(node: &mut Node, place: &Place) {
    node.place = place.clone();
    match &mut node.value {
        Value::List(nodes) => nodes.iter_mut().for_each(|node| set_place(node, place)),
        Value::Table(table) => {
            table.place = place.clone();
            for entry in &mut table.entries {
                entry.name_place = place.clone();
                set_place(&mut entry.node, place);
            }
        }
        _ => {}
    }
}
