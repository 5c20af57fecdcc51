//! Self-contained schema text: every named type is written out where it is first used.

use crate::model::Model;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Keys in the order in which people write them; others follow, sorted.
const ORDER: [&str; 11] = [
    "type",
    "name",
    "namespace",
    "doc",
    "items",
    "values",
    "logicalType",
    "precision",
    "scale",
    "fields",
    "symbols",
];

/// Schema text of a record, as one line of JSON.
pub fn self_contained(model: &Model, name: &str) -> Result<String, String> {
    let mut seen = BTreeSet::new();
    let value = named(model, name, &mut seen)?;
    let mut text = String::new();
    write_ordered(&value, &mut text);
    Ok(text)
}

fn named(model: &Model, name: &str, seen: &mut BTreeSet<String>) -> Result<Value, String> {
    if !seen.insert(name.to_owned()) {
        return Ok(Value::String(format!("tidewire.{name}")));
    }
    let mut json = model.sources.get(name).ok_or_else(|| format!("no schema is named `{name}`"))?.clone();
    if let Some(fields) = json.get_mut("fields").and_then(Value::as_array_mut) {
        for field in fields {
            if let Some(ty) = field.get_mut("type") {
                inline(model, ty, seen)?;
            }
        }
    }
    Ok(json)
}

fn inline(model: &Model, ty: &mut Value, seen: &mut BTreeSet<String>) -> Result<(), String> {
    match ty {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("tidewire.") {
                *ty = named(model, name, seen)?;
            }
        }
        Value::Array(branches) => {
            for branch in branches {
                inline(model, branch, seen)?;
            }
        }
        Value::Object(map) => {
            for key in ["items", "values"] {
                if let Some(inner) = map.get_mut(key) {
                    inline(model, inner, seen)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn write_ordered(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => write_object(map, text),
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write_ordered(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn write_object(map: &Map<String, Value>, text: &mut String) {
    let rest = map.keys().map(String::as_str).filter(|k| !ORDER.contains(k));
    let keys = ORDER.iter().copied().filter(|k| map.contains_key(*k)).chain(rest);
    text.push('{');
    for (i, key) in keys.enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&Value::String(key.to_owned()).to_string());
        text.push(':');
        write_ordered(&map[key], text);
    }
    text.push('}');
}
