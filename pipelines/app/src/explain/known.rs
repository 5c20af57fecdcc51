//! What an operator knew by broadcast when it acted: the last record of each key that has to do with it.

use std::collections::BTreeSet;

use serde_json::Value;
use tidewire_engine::intake::Source;
use tidewire_engine::log::TopicPartition;
use tidewire_engine::plan::Upstream;
use tidewire_engine::trace::{Call, Took};

use super::grow::{Grower, Within};
use super::session::Stop;
use super::stretch::{broadcast_inputs, upstream};
use super::tree::TreeNode;

/// How often what was found may lead to more: an instrument names its base asset, of which news speak.
const ROUNDS: usize = 2;
/// Most records shown as known.
const MAX_KNOWN: usize = 16;

impl Grower<'_, '_> {
    /// The records, newest first.
    pub fn known(&mut self, within: Within, call: &Call, level: usize) -> Result<Vec<TreeNode>, Stop> {
        let past = self.session.past(within.task);
        let inputs = broadcast_inputs(&past, call.node);
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.candidates(within, call, &inputs)?;
        let mut texts = spoken_of(call);
        let mut nodes = Vec::new();
        let mut done: BTreeSet<usize> = BTreeSet::new();
        for _ in 0..ROUNDS {
            for (place, (input, key, at, offset)) in found.iter().enumerate() {
                if done.contains(&place) || nodes.len() >= MAX_KNOWN || !concerns(key, &texts) {
                    continue;
                }
                done.insert(place);
                let role = format!("known from {}", past.spec.inputs[*input].id);
                nodes.push(self.record(at, *offset, &role, level + 1)?);
            }
            for node in &nodes {
                add_texts(&node.value, &mut texts);
            }
        }
        Ok(nodes)
    }

    /// The last record of each key before the call, by input: those taken since the cut, then what lay before it.
    fn candidates(
        &self,
        within: Within,
        call: &Call,
        inputs: &[usize],
    ) -> Result<Vec<(usize, String, TopicPartition, u64)>, Stop> {
        let past = self.session.past(within.task);
        let stretch = &self.session.stretches[within.stretch].1;
        let mut seen: BTreeSet<(usize, String)> = BTreeSet::new();
        let mut found = Vec::new();
        for earlier in stretch.earlier_broadcasts(call) {
            let Some(Upstream::Input(input)) = upstream(&past, earlier) else { continue };
            let Some((at, offset)) = self.origin(within, earlier) else { continue };
            if seen.insert((input, earlier.key.to_string())) {
                found.push((input, earlier.key.to_string(), at, offset));
            }
        }
        for (place, source) in Source::of_task(&past.spec, past.task).into_iter().enumerate() {
            if !inputs.contains(&source.input) || self.session.log.topic(&source.at.topic)?.is_none() {
                continue;
            }
            let until = stretch.positions.get(place).copied().unwrap_or(0);
            for (key, offset) in self.session.last_by_key(&source.at, until)?.iter() {
                if seen.insert((source.input, key.clone())) {
                    found.push((source.input, key.clone(), source.at.clone(), *offset));
                }
            }
        }
        Ok(found)
    }
}

/// Whether a key, of which `*` stands for all, has to do with what is spoken of.
fn concerns(key: &str, texts: &BTreeSet<String>) -> bool {
    texts.contains(key) || key.split('/').all(|part| part == "*" || texts.contains(part))
}

fn spoken_of(call: &Call) -> BTreeSet<String> {
    let mut texts = BTreeSet::from([call.key.to_string()]);
    if let Took::Record { record, .. } = &call.took {
        add_texts(&serde_json::to_value(record).unwrap_or_default(), &mut texts);
    }
    for gave in &call.gave {
        texts.insert(gave.key.to_string());
    }
    texts
}

fn add_texts(value: &Value, texts: &mut BTreeSet<String>) {
    let Value::Object(fields) = value else { return };
    texts.extend(fields.values().filter_map(Value::as_str).map(str::to_owned));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_concerns_what_is_spoken_of_part_by_part() {
        let texts: BTreeSet<String> = ["paper-main", "trend", "BTC"].map(str::to_owned).into();
        for (key, wanted) in [
            ("BTC", true),
            ("*", true),
            ("ETH", false),
            ("paper-main/*/*", true),
            ("paper-main/trend/BTC", true),
            ("paper-main/*/ETH", false),
            ("paper-tight/*/*", false),
        ] {
            assert_eq!(concerns(key, &texts), wanted, "{key}");
        }
    }
}
