//! Compares the pipelines of two runs: stage by stage, operator by operator, setting by setting.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use smol_str::SmolStr;
use tidewire_engine::plan::StageSpec;
use tidewire_schemas::{Record, SchemaBook, topics};

use super::graph::Feeding;
use crate::pipeline::{Pipeline, describe, limits_key};
use crate::records::json_of;

/// Most changed settings that are told apart.
const MAX_CHANGES: usize = 1_000;

/// The part of a pipeline that a setting belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// An operator.
    Operator(SmolStr),
    /// An input.
    Input(SmolStr),
    /// An output topic.
    Output(SmolStr),
    /// The stage itself.
    Stage,
    /// A risk limit, by its key; it belongs to no stage.
    Limit(SmolStr),
}

/// A setting that differs between two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The stage; empty for a risk limit.
    pub stage: SmolStr,
    /// Whose setting it is.
    pub part: Part,
    /// The setting; empty where the whole part is in one run only.
    pub setting: String,
    /// The value of A.
    pub a: Value,
    /// The value of B.
    pub b: Value,
}

impl Change {
    /// The setting as one would name it.
    pub fn name(&self) -> String {
        let part = match &self.part {
            Part::Operator(id) => format!("stage {}, operator {id}", self.stage),
            Part::Input(id) => format!("stage {}, input {id}", self.stage),
            Part::Output(topic) => format!("stage {}, output {topic}", self.stage),
            Part::Stage => format!("stage {}", self.stage),
            Part::Limit(key) => format!("risk limit {key}"),
        };
        if self.setting.is_empty() { part } else { format!("{part}, {}", self.setting) }
    }

    /// How near to a topic the change is, if it bears on it from within the stage that writes it.
    pub fn distance(&self, feeding: &Feeding, topic: &str) -> Option<usize> {
        let of = |id: &SmolStr| (self.stage.clone(), id.clone());
        match &self.part {
            Part::Operator(id) => feeding.near.get(&of(id)).copied(),
            // An input's settings move the time of its whole stage.
            Part::Input(_) | Part::Stage => feeding.stages.contains(&self.stage).then_some(usize::MAX),
            Part::Output(output) => (output == topic && feeding.stages.contains(&self.stage)).then_some(0),
            Part::Limit(_) => None,
        }
    }

    /// Whether it bears on a topic at all, through other stages too.
    pub fn reaches(&self, feeding: &Feeding) -> bool {
        let of = |id: &SmolStr| (self.stage.clone(), id.clone());
        match &self.part {
            Part::Operator(id) => feeding.operators.contains(&of(id)),
            Part::Input(_) | Part::Stage => feeding.operators.iter().any(|(stage, _)| *stage == self.stage),
            Part::Output(output) => feeding.upstream.contains_key(output),
            Part::Limit(_) => feeding.external.contains_key(topics::RISK_LIMITS),
        }
    }
}

/// What differs between two pipelines in what decides their outputs, as far as it is said.
pub fn changes(a: &Pipeline, b: &Pipeline) -> Vec<Change> {
    let mut found = Vec::new();
    let (left, right) = (by_name(&a.stages), by_name(&b.stages));
    for name in names(&left, &right) {
        match (left.get(&name), right.get(&name)) {
            (Some(a), Some(b)) => compare_stage(&name, &describe::stage(a), &describe::stage(b), &mut found),
            (a, b) => found.push(Change {
                stage: name.clone(),
                part: Part::Stage,
                setting: String::new(),
                a: a.map_or(Value::Null, |_| "there".into()),
                b: b.map_or(Value::Null, |_| "there".into()),
            }),
        }
    }
    compare_limits(a, b, &mut found);
    found.truncate(MAX_CHANGES);
    found
}

fn by_name(stages: &[Arc<StageSpec>]) -> BTreeMap<SmolStr, &StageSpec> {
    stages.iter().map(|stage| (stage.name.clone(), &**stage)).collect()
}

fn names<T>(a: &BTreeMap<SmolStr, T>, b: &BTreeMap<SmolStr, T>) -> Vec<SmolStr> {
    let mut names: Vec<SmolStr> = a.keys().chain(b.keys()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names
}

type Make = fn(SmolStr) -> Part;

/// Lists in the description of a stage: their name, what names an item, what it is.
const LISTS: [(&str, &str, Make); 3] =
    [("operators", "id", Part::Operator), ("inputs", "id", Part::Input), ("outputs", "topic", Part::Output)];
/// What decides how a stage runs, and nothing of what it gives out.
const BOUNDS: [&str; 5] =
    ["flush_interval_ms", "max_records", "max_bytes", "prefetch_bytes", "max_faults_per_minute"];

fn compare_stage(stage: &SmolStr, a: &Value, b: &Value, found: &mut Vec<Change>) {
    for (list, id, make) in LISTS {
        let (left, right) = (items(a, list, id), items(b, list, id));
        for name in names(&left, &right) {
            let part = make(name.clone());
            match (left.get(&name), right.get(&name)) {
                (Some(a), Some(b)) => compare_values(stage, &part, "", a, b, found),
                (a, b) => found.push(Change {
                    stage: stage.clone(),
                    part,
                    setting: String::new(),
                    a: a.map_or(Value::Null, |item| (*item).clone()),
                    b: b.map_or(Value::Null, |item| (*item).clone()),
                }),
            }
        }
    }
    if let (Value::Object(left), Value::Object(right)) = (a, b) {
        let listed = |name: &str| LISTS.iter().any(|(list, ..)| *list == name) || BOUNDS.contains(&name);
        for (name, value) in left.iter().filter(|(name, _)| !listed(name)) {
            let other = right.get(name).unwrap_or(&Value::Null);
            compare_values(stage, &Part::Stage, name, value, other, found);
        }
    }
}

fn items<'a>(stage: &'a Value, list: &str, id: &str) -> BTreeMap<SmolStr, &'a Value> {
    let items = stage[list].as_array().into_iter().flatten();
    items.filter_map(|item| Some((SmolStr::new(item[id].as_str()?), item))).collect()
}

fn compare_values(stage: &SmolStr, part: &Part, path: &str, a: &Value, b: &Value, found: &mut Vec<Change>) {
    if a == b {
        return;
    }
    if let (Value::Object(left), Value::Object(right)) = (a, b) {
        let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            // The settings of an operator stand beside its id in the file.
            let path = match path {
                "" | "settings" => name.clone(),
                _ => format!("{path}.{name}"),
            };
            let (a, b) = (left.get(name).unwrap_or(&Value::Null), right.get(name).unwrap_or(&Value::Null));
            compare_values(stage, part, &path, a, b, found);
        }
        return;
    }
    found.push(Change {
        stage: stage.clone(),
        part: part.clone(),
        setting: path.to_owned(),
        a: a.clone(),
        b: b.clone(),
    });
}

fn compare_limits(a: &Pipeline, b: &Pipeline, found: &mut Vec<Change>) {
    let book = SchemaBook::of_this_build();
    let by_key = |pipeline: &Pipeline| -> BTreeMap<SmolStr, Value> {
        let described = pipeline.limits.iter().map(|limit| {
            let value = json_of(&book, &Record::from(limit.clone()));
            (limits_key(limit), value["value"].clone())
        });
        described.collect()
    };
    let (left, right) = (by_key(a), by_key(b));
    for key in names(&left, &right) {
        let part = Part::Limit(key.clone());
        match (left.get(&key), right.get(&key)) {
            (Some(a), Some(b)) => compare_values(&SmolStr::default(), &part, "", a, b, found),
            (a, b) => found.push(Change {
                stage: SmolStr::default(),
                part,
                setting: String::new(),
                a: a.cloned().unwrap_or_default(),
                b: b.cloned().unwrap_or_default(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::files::{SHIPPED, load_text};

    fn load(change: (&str, &str)) -> Pipeline {
        let text = SHIPPED[0].1.replacen(change.0, change.1, 1);
        load_text("f".into(), text, Vec::new()).unwrap().pipeline
    }

    fn told(change: (&str, &str)) -> Vec<String> {
        let found = changes(&load(("", "")), &load(change));
        found.iter().map(|change| format!("{}: {} -> {}", change.name(), change.a, change.b)).collect()
    }

    #[test]
    fn changed_settings_are_named_with_both_values() {
        assert!(told(("# The first", "# A first")).is_empty(), "comments are no settings");
        assert!(told(("flush_interval_ms = 10_000", "flush_interval_ms = 9_000")).is_empty());
        assert_eq!(told(("period = 5", "period = 6")), ["stage signals, operator ema_fast, period: 5 -> 6"]);
        assert_eq!(
            told(("out_of_orderness_ms = 250", "out_of_orderness_ms = 300")),
            ["stage signals, input ticks, out_of_orderness_ms: 250 -> 300"]
        );
        assert_eq!(
            told(("optional = [\"spread_bps\", ", "optional = [")),
            [concat!(
                "stage signals, operator vector, optional: ",
                r#"["spread_bps","microprice","sentiment"] -> ["microprice","sentiment"]"#
            )]
        );
        let limit = told(("max_order_value = 60_000", "max_order_value = 61_000"));
        assert_eq!(limit.len(), 1);
        assert_eq!(limit[0], r#"risk limit paper-main/*/*, max_order_value: "60000" -> "61000""#);
    }
}
