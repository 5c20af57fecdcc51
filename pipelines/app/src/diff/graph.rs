//! What feeds each topic of a pipeline: operators, inputs and other topics, directly and from further up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_engine::plan::{Role, StageSpec, Upstream};
use tidewire_engine::sync::components;
use tidewire_schemas::topics;

/// A stage and the id of one of its operators or inputs.
pub type Part = (SmolStr, SmolStr);

/// What feeds a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feeding {
    /// Where the topic stands in the flow of data: what is further down has a greater rank.
    pub rank: (usize, usize),
    /// Operators of the stages that write it, from which it follows; each with its distance.
    pub near: BTreeMap<Part, usize>,
    /// Inputs of these stages that lead to it.
    pub inputs: BTreeSet<Part>,
    /// Stages that write it.
    pub stages: BTreeSet<SmolStr>,
    /// All operators, also of other stages, from which it follows.
    pub operators: BTreeSet<Part>,
    /// All inputs, also of other stages, that lead to it.
    pub all_inputs: BTreeSet<Part>,
    /// Topics of the same pipeline that lead to it, and whether a record there can bear on any key.
    pub upstream: BTreeMap<SmolStr, bool>,
    /// Topics from outside that lead to it, likewise.
    pub external: BTreeMap<SmolStr, bool>,
}

/// What feeds each topic that the stages write.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    topics: BTreeMap<SmolStr, Feeding>,
}

impl Graph {
    /// The graph of the stages of both runs.
    pub fn new(a: &[Arc<StageSpec>], b: &[Arc<StageSpec>]) -> Self {
        let mut graph = Self::default();
        for stages in [a, b] {
            for (place, group) in components(stages).into_iter().enumerate() {
                for stage in group {
                    graph.add(&stages[stage], place, stage);
                }
            }
        }
        graph.close();
        graph.add_side_topics();
        graph
    }

    /// What feeds a topic.
    pub fn of(&self, topic: &str) -> Option<&Feeding> {
        self.topics.get(topic)
    }

    /// The topics that stages write, with the topics of late records and dead letters.
    pub fn written(&self) -> impl Iterator<Item = &SmolStr> {
        self.topics.keys()
    }

    /// The topics from outside that stages read.
    pub fn external(&self) -> BTreeSet<SmolStr> {
        self.topics.values().flat_map(|feeding| feeding.external.keys().cloned()).collect()
    }

    fn add(&mut self, stage: &StageSpec, component: usize, place: usize) {
        for output in &stage.outputs {
            let distances = distances(stage, &output.from);
            let first = output.from.iter().copied().min().unwrap_or(0);
            let feeding = self.topics.entry(output.topic.clone()).or_default();
            feeding.rank = feeding.rank.max((component, place * stage.nodes.len().max(1) + first));
            feeding.stages.insert(stage.name.clone());
            for (node, distance) in &distances {
                let part = (stage.name.clone(), stage.nodes[*node].id.clone());
                feeding.operators.insert(part.clone());
                let least = feeding.near.entry(part).or_insert(*distance);
                *least = (*least).min(*distance);
                for from in &stage.nodes[*node].from {
                    let Upstream::Input(input) = from else { continue };
                    let input = &stage.inputs[*input];
                    let part = (stage.name.clone(), input.id.clone());
                    feeding.inputs.insert(part.clone());
                    feeding.all_inputs.insert(part);
                    let any = matches!(input.role, Role::Broadcast | Role::Control);
                    let into = if input.external { &mut feeding.external } else { &mut feeding.upstream };
                    *into.entry(input.topic.clone()).or_default() |= any;
                }
            }
            // What an operator further up writes elsewhere shows first there.
            for other in stage.outputs.iter().filter(|other| other.topic != output.topic) {
                let further_up = |node: &usize| distances.get(node).is_some_and(|distance| *distance > 0);
                if other.from.iter().any(further_up) {
                    feeding.upstream.entry(other.topic.clone()).or_default();
                }
            }
        }
    }

    /// Adds what leads to a topic from further up.
    fn close(&mut self) {
        loop {
            let before = self.topics.clone();
            for feeding in self.topics.values_mut() {
                for (topic, any) in feeding.upstream.clone() {
                    let Some(further) = before.get(&topic) else { continue };
                    feeding.operators.extend(further.operators.iter().cloned());
                    feeding.all_inputs.extend(further.all_inputs.iter().cloned());
                    for (name, also) in &further.upstream {
                        *feeding.upstream.entry(name.clone()).or_default() |= any | also;
                    }
                    for (name, also) in &further.external {
                        *feeding.external.entry(name.clone()).or_default() |= any | also;
                    }
                }
            }
            if self.topics == before {
                break;
            }
        }
        for (name, feeding) in &mut self.topics {
            feeding.upstream.remove(name);
        }
    }

    /// Any operator may have a late record or a dead letter.
    fn add_side_topics(&mut self) {
        let mut all = Feeding { rank: (usize::MAX, 0), ..Feeding::default() };
        for (topic, feeding) in &self.topics {
            all.near.extend(feeding.near.iter().map(|(part, _)| (part.clone(), 0)));
            all.inputs.extend(feeding.inputs.iter().cloned());
            all.stages.extend(feeding.stages.iter().cloned());
            all.operators.extend(feeding.operators.iter().cloned());
            all.all_inputs.extend(feeding.all_inputs.iter().cloned());
            all.external.extend(feeding.external.keys().map(|topic| (topic.clone(), true)));
            all.upstream.insert(topic.clone(), false);
        }
        for topic in [topics::LATE, topics::DEAD_LETTERS] {
            self.topics.insert(topic.into(), all.clone());
        }
    }
}

/// The nodes from which the given ones follow, and these themselves, each with the least number of steps.
fn distances(stage: &StageSpec, from: &[usize]) -> BTreeMap<usize, usize> {
    let mut found: BTreeMap<usize, usize> = from.iter().map(|node| (*node, 0)).collect();
    let mut open: Vec<usize> = from.to_vec();
    while !open.is_empty() {
        let mut next = Vec::new();
        for node in open {
            let distance = found.get(&node).copied().unwrap_or(0) + 1;
            for upstream in &stage.nodes[node].from {
                let Upstream::Node(upstream) = upstream else { continue };
                if found.get(upstream).is_none_or(|known| *known > distance) {
                    found.insert(*upstream, distance);
                    next.push(*upstream);
                }
            }
        }
        open = next;
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::files::{SHIPPED, load_text};

    #[test]
    fn the_shipped_pipeline_is_known_from_ticks_to_cash() {
        let loaded = load_text("f".into(), SHIPPED[0].1.into(), Vec::new()).unwrap();
        let stages = loaded.pipeline.stages;
        let graph = Graph::new(&stages, &stages);
        let part = |stage: &str, id: &str| (SmolStr::from(stage), SmolStr::from(id));

        let bars = graph.of(topics::BARS).unwrap();
        assert!(bars.upstream.is_empty() && !bars.operators.contains(&part("signals", "ema_fast")));
        assert_eq!(bars.external.keys().collect::<Vec<_>>(), [topics::TICKS]);
        let signals = graph.of(topics::SIGNALS).unwrap();
        assert!(
            signals.upstream.contains_key(topics::BARS) && signals.upstream.contains_key(topics::FEATURES)
        );
        assert!(!signals.upstream.contains_key(topics::MARKS));
        assert_eq!(signals.near[&part("signals", "ema_fast")], 2);
        assert_eq!(signals.external[topics::SENTIMENT], true);
        let cash = graph.of(topics::CASH).unwrap();
        assert!(cash.operators.contains(&part("signals", "ema_fast")));
        assert!(!cash.near.contains_key(&part("signals", "ema_fast")));
        assert!(cash.upstream.contains_key(topics::EXECUTIONS), "through the cycle");
        assert!(cash.external[topics::RISK_LIMITS]);
        assert!(bars.rank < signals.rank && signals.rank < graph.of(topics::INTENTS).unwrap().rank);
        assert!(graph.of(topics::INTENTS).unwrap().rank < cash.rank);
    }
}
