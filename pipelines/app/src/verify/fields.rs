//! Which fields of two records differ, and the operator that a differing feature comes from.

use serde_json::Value;
use smol_str::SmolStr;
use tidewire_engine::plan::StageSpec;
use tidewire_engine::verify::Difference;
use tidewire_schemas::SchemaBook;

use crate::records::json_of;

/// Most fields that are named.
const MAX_FIELDS: usize = 16;

/// A field that is not as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldDifference {
    /// The field, with the names of what it lies in: `values.ema_fast`, `levels[2].price`.
    pub field: String,
    /// What lies in the log; null if it is not there.
    pub recorded: Value,
    /// What the re-run gave; null if it is not there.
    pub run_again: Value,
}

/// The fields in which the records of a difference differ. Empty if there are not two records, or if they differ in bytes
/// that no field shows.
pub fn fields(difference: &Difference, book: &SchemaBook) -> Vec<FieldDifference> {
    let (Some(found), Some(rerun)) = (&difference.found, &difference.rerun) else { return Vec::new() };
    let (found, rerun) = (json_of(book, found), json_of(book, rerun));
    if found["kind"] != rerun["kind"] {
        let (recorded, run_again) = (found["kind"].clone(), rerun["kind"].clone());
        return vec![FieldDifference { field: "kind".to_owned(), recorded, run_again }];
    }
    let mut differing = Vec::new();
    compare(String::new(), &found["value"], &rerun["value"], &mut differing);
    differing
}

/// Of the operators that no topic shows, the one that gives the first differing feature its value.
pub fn began_at(spec: &StageSpec, difference: &Difference, fields: &[FieldDifference]) -> Option<SmolStr> {
    let feature = fields.first()?.field.strip_prefix("values.")?;
    let gives = |name: &SmolStr| {
        let node = spec.nodes.iter().find(|node| node.id == *name)?;
        let interface = node.build().ok()?.interface();
        interface.features_out.iter().any(|given| given == feature).then(|| name.clone())
    };
    difference.upstream.iter().find_map(gives)
}

fn compare(field: String, recorded: &Value, run_again: &Value, differing: &mut Vec<FieldDifference>) {
    if recorded == run_again || differing.len() >= MAX_FIELDS {
        return;
    }
    match (recorded, run_again) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            for name in names {
                let inner = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                compare(inner, &of(a), &of(b), differing);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for place in 0..a.len().max(b.len()) {
                let of = |list: &[Value]| list.get(place).cloned().unwrap_or_default();
                compare(format!("{field}[{place}]"), &of(a), &of(b), differing);
            }
        }
        _ => differing.push(FieldDifference {
            field,
            recorded: recorded.clone(),
            run_again: run_again.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_with_what_they_lie_in() {
        let recorded =
            json!({ "a": 1, "values": { "x": 0.1, "y": 2.0 }, "levels": [{ "price": "1" }], "same": [1] });
        let run_again = json!({ "a": 1, "values": { "x": 0.30000000000000004, "z": 2.0 }, "levels": [{ "price": "2" }, 5], "same": [1] });
        let mut differing = Vec::new();
        compare(String::new(), &recorded, &run_again, &mut differing);
        let mut shown: Vec<String> = differing
            .iter()
            .map(|found| format!("{} {} {}", found.field, found.recorded, found.run_again))
            .collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "levels[0].price \"1\" \"2\"",
                "levels[1] null 5",
                "values.x 0.1 0.30000000000000004",
                "values.y 2.0 null",
                "values.z null 2.0"
            ]
        );
    }
}
