//! Environment variables that change a pipeline file: `TIDEWIRE__SECTION__KEY=value`.
//!
//! The parts between double underscores are keys of the file, upper or lower case, every character that is no letter
//! or digit written as `_`. Of an array of tables a part names the element by its `name`, `id` or `topic`, or by its
//! number from 0: `TIDEWIRE__STAGE__SIGNALS__OPERATOR__EMA_FAST__PERIOD=20`.

use smol_str::SmolStr;
use tidewire_schemas::topics;

use super::problem::{Place, Problems};
use super::tree::{Entry, Node, Table, Value, parse_value};

/// What the names of these variables begin with.
pub const PREFIX: &str = "TIDEWIRE__";

/// Sections that may be made by a variable alone.
const MAKEABLE: [&str; 4] = ["engine", "topics", "http", "run"];
/// Keys by which an element of an array of tables is known.
const NAMES: [&str; 3] = ["name", "id", "topic"];

/// Applies all variables whose names begin with [`PREFIX`], in the order of their names.
pub fn apply(
    root: &mut Table,
    variables: impl IntoIterator<Item = (String, String)>,
    problems: &mut Problems,
) {
    let ours = variables.into_iter().filter(|(name, _)| name.to_ascii_uppercase().starts_with(PREFIX));
    let mut ours: Vec<_> = ours.collect();
    ours.sort();
    for (name, text) in ours {
        let place = Place::Environment(SmolStr::new(&name));
        let path: Vec<&str> = name[PREFIX.len()..].split("__").collect();
        if path.len() < 2 || path.iter().any(|part| part.is_empty()) {
            problems.add_with_help(
                &place,
                "does not name a key",
                format!("write {PREFIX}SECTION__KEY, such as {PREFIX}ENGINE__MAX_RECORDS"),
            );
            continue;
        }
        set_in_table(root, &path, &text, &place, problems);
    }
}

fn set_in_table(table: &mut Table, path: &[&str], text: &str, place: &Place, problems: &mut Problems) {
    let Some((part, rest)) = path.split_first() else { return };
    let found = table.entries.iter().position(|entry| same(&entry.name, part));
    if rest.is_empty() {
        let Some(found) = found else {
            let node = parse_value(text, place);
            let name = SmolStr::new(part.to_ascii_lowercase());
            table.entries.push(Entry { name, name_place: place.clone(), node });
            return;
        };
        let entry = &mut table.entries[found];
        entry.node = match entry.node.value {
            // Text stays text: a price in quotes need not be quoted again.
            Value::Text(_) => Node { place: place.clone(), value: Value::Text(text.to_owned()) },
            _ => parse_value(text, place),
        };
        return;
    }
    let found = found.or_else(|| make(table, part, place));
    let Some(found) = found else {
        let known: Vec<String> = table.entries.iter().map(|entry| variable_part(&entry.name)).collect();
        let upper = part.to_ascii_uppercase();
        problems.add_unknown(place, "section", &upper, known.iter().map(String::as_str));
        return;
    };
    match &mut table.entries[found].node.value {
        Value::Table(inner) => set_in_table(inner, rest, text, place, problems),
        Value::List(items) => set_in_list(items, rest, text, place, problems),
        other => problems.add(place, format!("`{part}` is {}, so nothing in it can be set", other.what())),
    }
}

fn set_in_list(items: &mut [Node], path: &[&str], text: &str, place: &Place, problems: &mut Problems) {
    let Some((part, rest)) = path.split_first() else { return };
    let names: Vec<Vec<String>> = items.iter().map(names_of).collect();
    let by_name = names.iter().position(|names| names.iter().any(|name| same(name, part)));
    let found = by_name.or_else(|| part.parse().ok().filter(|number| *number < items.len()));
    let Some(found) = found else {
        let known: Vec<String> = names.iter().flatten().map(|name| variable_part(name)).collect();
        let upper = part.to_ascii_uppercase();
        problems.add_unknown(place, "element", &upper, known.iter().map(String::as_str));
        return;
    };
    match &mut items[found].value {
        Value::Table(table) if !rest.is_empty() => set_in_table(table, rest, text, place, problems),
        _ => problems.add(place, format!("`{part}` names a whole element; add the key that is to be set")),
    }
}

/// Makes a section that the file does not have, if it may be made; returns its place in the table.
fn make(table: &mut Table, part: &str, place: &Place) -> Option<usize> {
    let known = topics::ALL.iter().map(|topic| topic.name);
    let name = MAKEABLE.into_iter().chain(known).find(|name| same(name, part))?;
    let inner = Table { place: place.clone(), entries: Vec::new() };
    let node = Node { place: place.clone(), value: Value::Table(inner) };
    table.entries.push(Entry { name: name.into(), name_place: place.clone(), node });
    Some(table.entries.len() - 1)
}

fn names_of(node: &Node) -> Vec<String> {
    let Value::Table(table) = &node.value else { return Vec::new() };
    let named = NAMES.iter().filter_map(|key| match &table.get(key)?.node.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    });
    named.collect()
}

fn same(name: &str, part: &str) -> bool {
    variable_part(name) == part.to_ascii_uppercase()
}

/// A key as it is written in a variable's name.
fn variable_part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}
