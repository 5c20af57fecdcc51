//! What feeds each topic of a pipeline: operators, inputs and other topics, directly and from further up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_engine::plan::{Role, StageSpec, Upstream};
use tidewire_engine::sync::components;
use tidewire_schemas::{Kind, topics};

/// A stage and the id of one of its operators.
pub type Part = (SmolStr, SmolStr);

/// What feeds a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feeding {
    /// Where the topic stands in the flow of data: what is further down has a greater rank.
    pub rank: (usize, usize),
    /// Operators of the stages that write it, from which it follows; each with its distance.
    pub near: BTreeMap<Part, usize>,
    /// Stages that write it.
    pub stages: BTreeSet<SmolStr>,
    /// All operators, also of other stages, from which it follows.
    pub operators: BTreeSet<Part>,
    /// Topics of the same pipeline that lead to it, and whether a record there can bear on any key.
    pub upstream: BTreeMap<SmolStr, bool>,
    /// Topics of the same stage in which a change of it shows first.
    beside: BTreeSet<SmolStr>,
    /// Topics from outside that lead to it, likewise.
    pub external: BTreeMap<SmolStr, bool>,
}

/// What feeds each topic that the stages write.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// By topic and operator; without an operator what all of them write there.
    topics: BTreeMap<(SmolStr, SmolStr), Feeding>,
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
        self.topics.get(&(topic.into(), SmolStr::default()))
    }

    /// What feeds the records that an operator writes to a topic; that of the topic where the operator is not known.
    pub fn of_operator(&self, topic: &str, operator: Option<&SmolStr>) -> Option<&Feeding> {
        let found = operator.and_then(|operator| self.topics.get(&(topic.into(), operator.clone())));
        found.or_else(|| self.of(topic))
    }

    /// The topics that stages write, with the topics of late records and dead letters.
    pub fn written(&self) -> impl Iterator<Item = &SmolStr> {
        self.topics.keys().filter(|(_, operator)| operator.is_empty()).map(|(topic, _)| topic)
    }

    /// The topics from outside that stages read.
    pub fn external(&self) -> BTreeSet<SmolStr> {
        self.topics.values().flat_map(|feeding| feeding.external.keys().cloned()).collect()
    }

    fn add(&mut self, stage: &StageSpec, component: usize, place: usize) {
        for output in &stage.outputs {
            let first = output.from.iter().copied().min().unwrap_or(0);
            let rank = (component, place * stage.nodes.len().max(1) + first);
            self.feed(&output.topic, SmolStr::default(), stage, &output.from, rank);
            for node in &output.from {
                self.feed(&output.topic, stage.nodes[*node].id.clone(), stage, &[*node], rank);
            }
        }
        // Any operator may have a late record.
        for (node, spec) in stage.nodes.iter().enumerate() {
            self.feed(topics::LATE, spec.id.clone(), stage, &[node], LAST);
        }
    }

    fn feed(
        &mut self,
        topic: &str,
        operator: SmolStr,
        stage: &StageSpec,
        from: &[usize],
        rank: (usize, usize),
    ) {
        let distances = distances(stage, from);
        let feeding = self.topics.entry((topic.into(), operator)).or_default();
        feeding.rank = feeding.rank.max(rank);
        feeding.stages.insert(stage.name.clone());
        for (node, distance) in &distances {
            let part = (stage.name.clone(), stage.nodes[*node].id.clone());
            feeding.operators.insert(part.clone());
            let least = feeding.near.entry(part).or_insert(*distance);
            *least = (*least).min(*distance);
            for from in &stage.nodes[*node].from {
                let Upstream::Input(input) = from else { continue };
                let input = &stage.inputs[*input];
                let any = matches!(input.role, Role::Broadcast | Role::Control);
                let into = if input.external { &mut feeding.external } else { &mut feeding.upstream };
                *into.entry(input.topic.clone()).or_default() |= any;
            }
        }
        // What an operator further up writes elsewhere shows first there. Alerts lead to nothing.
        for other in stage.outputs.iter().filter(|other| other.topic != topic && other.kinds != [Kind::Alert])
        {
            let further_up = |node: &usize| distances.get(node).is_some_and(|distance| *distance > 0);
            if other.from.iter().any(further_up) {
                feeding.beside.insert(other.topic.clone());
            }
        }
    }

    /// Adds what leads to a topic from further up.
    fn close(&mut self) {
        loop {
            let before = self.topics.clone();
            for feeding in self.topics.values_mut() {
                for (topic, any) in feeding.upstream.clone() {
                    let Some(further) = before.get(&(topic, SmolStr::default())) else { continue };
                    feeding.operators.extend(further.operators.iter().cloned());
                    for (name, also) in &further.upstream {
                        *feeding.upstream.entry(name.clone()).or_default() |= any | also;
                    }
                    for (name, also) in &further.external {
                        *feeding.external.entry(name.clone()).or_default() |= any | also;
                    }
                    for name in &further.beside {
                        *feeding.upstream.entry(name.clone()).or_default() |= any;
                    }
                }
            }
            if self.topics == before {
                break;
            }
        }
        for ((topic, _), feeding) in &mut self.topics {
            for name in std::mem::take(&mut feeding.beside) {
                feeding.upstream.entry(name).or_default();
            }
            feeding.upstream.remove(topic);
        }
    }

    /// What can be of any operator: late records and dead letters.
    fn add_side_topics(&mut self) {
        let mut all = Feeding { rank: LAST, ..Feeding::default() };
        for ((topic, _), feeding) in self.topics.iter().filter(|((_, operator), _)| operator.is_empty()) {
            all.near.extend(feeding.near.keys().map(|part| (part.clone(), 0)));
            all.stages.extend(feeding.stages.iter().cloned());
            all.operators.extend(feeding.operators.iter().cloned());
            all.external.extend(feeding.external.keys().map(|topic| (topic.clone(), true)));
            all.upstream.insert(topic.clone(), false);
        }
        for topic in [topics::LATE, topics::DEAD_LETTERS] {
            self.topics.insert((topic.into(), SmolStr::default()), all.clone());
        }
    }
}

/// The rank of what leads to nothing.
const LAST: (usize, usize) = (usize::MAX, 0);

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
        assert!(signals.external[topics::SENTIMENT]);
        let cash = graph.of(topics::CASH).unwrap();
        assert!(cash.operators.contains(&part("signals", "ema_fast")));
        assert!(!cash.near.contains_key(&part("signals", "ema_fast")));
        assert!(cash.upstream.contains_key(topics::EXECUTIONS), "through the cycle");
        assert!(cash.external[topics::RISK_LIMITS]);
        let jump = graph.of_operator(topics::ALERTS, Some(&"jump".into())).unwrap();
        assert!(!jump.operators.contains(&part("signals", "ema_fast")));
        assert!(graph.of(topics::ALERTS).unwrap().operators.contains(&part("signals", "ema_fast")));
        assert!(bars.rank < signals.rank && signals.rank < graph.of(topics::INTENTS).unwrap().rank);
        assert!(graph.of(topics::INTENTS).unwrap().rank < cash.rank);
    }
}
