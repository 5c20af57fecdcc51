//! Reads the keys of a table one by one, and in the end says which ones nobody asked for.

use std::ops::RangeInclusive;

use smol_str::SmolStr;

use super::problem::{Place, Problems};
use super::tree::{Entry, Node, Table, Value};

/// A text and where it stands.
#[derive(Clone, Debug)]
pub struct Named {
    /// The text.
    pub name: SmolStr,
    /// Where.
    pub place: Place,
}

/// A table whose keys are being read.
pub struct Fields<'a> {
    table: &'a Table,
    /// The table as messages name it, such as `[pipeline]`.
    section: &'a str,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Begins to read a table.
    pub fn new(table: &'a Table, section: &'a str) -> Self {
        Self { table, section, known: Vec::new() }
    }

    /// Where the table begins.
    pub fn place(&self) -> &'a Place {
        &self.table.place
    }

    fn get(&mut self, name: &'static str) -> Option<&'a Node> {
        self.known.push(name);
        self.table.get(name).map(|entry| &entry.node)
    }

    /// A text that may be missing.
    pub fn text(&mut self, name: &'static str, problems: &mut Problems) -> Option<Named> {
        let node = self.get(name)?;
        text_of(name, node, problems)
    }

    /// A text that must be there.
    pub fn required_text(&mut self, name: &'static str, problems: &mut Problems) -> Option<Named> {
        let there = self.table.get(name).is_some();
        let text = self.text(name, problems);
        if !there {
            problems.add(&self.table.place, format!("{} needs `{name}`", self.section));
        }
        text
    }

    /// A whole number within bounds.
    pub fn integer(
        &mut self,
        name: &'static str,
        bounds: RangeInclusive<i64>,
        problems: &mut Problems,
    ) -> Option<i64> {
        let node = self.get(name)?;
        match node.value {
            Value::Integer(number) if bounds.contains(&number) => return Some(number),
            Value::Integer(number) => {
                let (least, greatest) = (bounds.start(), bounds.end());
                problems
                    .add(&node.place, format!("`{name}` is {number}; it must be from {least} to {greatest}"));
            }
            ref other => {
                problems.add(&node.place, format!("`{name}` must be a whole number, not {}", other.what()));
            }
        }
        None
    }

    /// True or false.
    pub fn boolean(&mut self, name: &'static str, problems: &mut Problems) -> Option<(bool, Place)> {
        let node = self.get(name)?;
        match node.value {
            Value::Boolean(yes) => Some((yes, node.place.clone())),
            ref other => {
                problems.add(&node.place, format!("`{name}` must be true or false, not {}", other.what()));
                None
            }
        }
    }

    /// A list of texts; empty if it is missing.
    pub fn texts(&mut self, name: &'static str, problems: &mut Problems) -> Option<Vec<Named>> {
        let node = self.get(name)?;
        match &node.value {
            Value::List(items) => {
                Some(items.iter().filter_map(|item| text_of(name, item, problems)).collect())
            }
            Value::Text(_) => text_of(name, node, problems).map(|text| vec![text]),
            other => {
                problems.add(&node.place, format!("`{name}` must be a list of texts, not {}", other.what()));
                None
            }
        }
    }

    /// A table inside.
    pub fn table(&mut self, name: &'static str, problems: &mut Problems) -> Option<&'a Table> {
        let node = self.get(name)?;
        match &node.value {
            Value::Table(table) => Some(table),
            other => {
                problems.add(&node.place, format!("`{name}` must be a table, not {}", other.what()));
                None
            }
        }
    }

    /// An array of tables, `[[name]]`; empty if it is missing.
    pub fn tables(&mut self, name: &'static str, problems: &mut Problems) -> Vec<&'a Table> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            let what = node.value.what();
            problems.add(&node.place, format!("`{name}` is {what}; write it as `[[...{name}]]`"));
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Value::Table(table) => tables.push(table),
                other => problems.add(&item.place, format!("`{name}` must be tables, not {}", other.what())),
            }
        }
        tables
    }

    /// A value of any kind.
    pub fn node(&mut self, name: &'static str) -> Option<&'a Node> {
        self.get(name)
    }

    /// The keys that nobody asked for: an operator's settings.
    pub fn rest(self) -> Vec<&'a Entry> {
        self.table.entries.iter().filter(|entry| !self.known.contains(&entry.name.as_str())).collect()
    }

    /// Notes the keys that nobody asked for: misspelt ones.
    pub fn finish(self, problems: &mut Problems) {
        let known = self.known.clone();
        let what = format!("key in {}:", self.section);
        for entry in self.rest() {
            problems.add_unknown(&entry.name_place, &what, &entry.name, known.iter().copied());
        }
    }
}

fn text_of(name: &str, node: &Node, problems: &mut Problems) -> Option<Named> {
    match &node.value {
        Value::Text(text) if text.is_empty() => {
            problems.add(&node.place, format!("`{name}` is empty"));
            None
        }
        Value::Text(text) => Some(Named { name: SmolStr::new(text), place: node.place.clone() }),
        other => {
            problems.add(&node.place, format!("`{name}` must be text in quotes, not {}", other.what()));
            None
        }
    }
}
