//! States as plain values, and what a call changed of them.

use serde_json::{Map, Value};
use tidewire_contract::{Entry, NodeLayout};
use tidewire_engine::trace::Call;

use super::tree::Change;

/// Most changes that are told apart; beyond, nobody reads them.
pub const MAX_CHANGES: usize = 1_000;

/// Stands for the fields of a map that [`short`] left out.
pub const MORE: &str = "...";

/// A state before or after a call.
pub fn shown(layout: &NodeLayout, call: &Call, entries: &[Entry]) -> Value {
    show_entries(layout, call.broadcast, entries)
}

/// The state of a key, or of the task.
pub fn show_entries(layout: &NodeLayout, of_task: bool, entries: &[Entry]) -> Value {
    let layout = if of_task { &layout.task } else { &layout.key };
    layout.show(entries).unwrap_or_else(|error| Value::from(error.to_string()))
}

/// What differs between two values, leaf by leaf.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare(String::new(), before, after, &mut found);
    found
}

fn compare(path: String, before: &Value, after: &Value, found: &mut Vec<Change>) {
    if before == after || found.len() >= MAX_CHANGES {
        return;
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let (old, new) = (old.get(name), new.get(name));
                compare(below(name), old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null), found);
            }
        }
        // A key never seen has no state: what comes is shown part by part too.
        (Value::Null, Value::Object(new)) if path.is_empty() => {
            for (name, new) in new {
                compare(below(name), &Value::Null, new, found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (place, (old, new)) in old.iter().zip(new).enumerate() {
                compare(format!("{path}[{place}]"), old, new, found);
            }
        }
        _ => found.push(Change { path, before: before.clone(), after: after.clone() }),
    }
}

/// A value cut down to what a person takes in: long lists and maps lose their middle.
pub fn short(value: &Value, most: usize) -> Value {
    match value {
        Value::Array(items) if items.len() > most => {
            let mut kept: Vec<Value> = items[..most / 2].iter().map(|item| short(item, most)).collect();
            kept.push(Value::from(format!("... {} more ...", items.len() - most)));
            kept.extend(items[items.len() - (most - most / 2)..].iter().map(|item| short(item, most)));
            Value::Array(kept)
        }
        Value::Array(items) => items.iter().map(|item| short(item, most)).collect(),
        Value::Object(map) => {
            let mut kept: Map<String, Value> =
                map.iter().take(most).map(|(name, item)| (name.clone(), short(item, most))).collect();
            if map.len() > most {
                kept.insert(MORE.to_owned(), Value::from(format!("{} more", map.len() - most)));
            }
            Value::Object(kept)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_changed_is_named() {
        let before = json!({ "a": 1, "b": { "c": [1, 2], "d": "x" }, "gone": true });
        let after = json!({ "a": 1, "b": { "c": [1, 3], "d": "x" }, "new": [] });
        let change = |path: &str, before, after| Change { path: path.to_owned(), before, after };
        assert_eq!(
            changes(&before, &after),
            [
                change("b.c[1]", json!(2), json!(3)),
                change("gone", json!(true), Value::Null),
                change("new", Value::Null, json!([])),
            ]
        );
        assert_eq!(changes(&before, &before), []);
        assert_eq!(changes(&Value::Null, &json!({ "a": 1 })), [change("a", Value::Null, json!(1))]);
    }

    #[test]
    fn long_lists_lose_their_middle() {
        assert_eq!(short(&json!([1, 2, 3, 4, 5, 6]), 4), json!([1, 2, "... 2 more ...", 5, 6]));
        assert_eq!(short(&json!([1, 2, 3, 4]), 4), json!([1, 2, 3, 4]));
    }
}
