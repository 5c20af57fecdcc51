//! Cycles between stages: a record may lead to records that come back to the same stage only after a positive time,
//! so that a synchronised run always knows what comes next.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;
use tidewire_engine::plan::{OutputSpec, Upstream};

use super::draft::StageDraft;
use super::edges::{carried, wanted};
use super::problem::Problems;
use super::topic_plan::TopicBook;

/// A way through a stage, from a topic that it reads to one that it writes, with no delay on it.
struct Hop<'a> {
    stage: usize,
    from: &'a str,
    to: &'a str,
}

/// Notes a cycle of topics and stages on which nothing delays.
pub fn check(
    stages: &[StageDraft<'_>],
    outputs: &[Vec<OutputSpec>],
    topics: &TopicBook,
    problems: &mut Problems,
) {
    let hops: Vec<Hop<'_>> = stages
        .iter()
        .zip(outputs)
        .enumerate()
        .flat_map(|(place, (stage, outputs))| hops_of(place, stage, outputs, topics))
        .collect();
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    let starts: BTreeSet<&str> = hops.iter().map(|hop| hop.from).collect();
    for start in starts {
        if let Some(cycle) = walk(start, &hops, &mut Vec::new(), &mut settled) {
            note(&cycle, stages, problems);
            return;
        }
    }
}

fn note(cycle: &[&Hop<'_>], stages: &[StageDraft<'_>], problems: &mut Problems) {
    let Some(first) = cycle.iter().min_by_key(|hop| hop.stage) else { return };
    let name = |hop: &Hop<'_>| stages[hop.stage].declared.name.clone();
    let way: Vec<String> = cycle.iter().map(|hop| format!("{} -> {}", hop.from, name(hop).name)).collect();
    let back = cycle.last().map_or("", |hop| hop.to);
    problems.add_with_help(
        &name(first).place,
        format!("stages form a cycle without delay: {} -> {back}", way.join(" -> ")),
        "one operator on the way must give its records after a positive time, as `paper_venue` does",
    );
}

/// Follows hops from a topic until one comes back to the way taken; returns that cycle.
fn walk<'a, 'b>(
    topic: &'a str,
    hops: &'b [Hop<'a>],
    way: &mut Vec<&'b Hop<'a>>,
    settled: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'b Hop<'a>>> {
    if let Some(start) = way.iter().position(|hop| hop.from == topic) {
        return Some(way[start..].to_vec());
    }
    if settled.contains(topic) {
        return None;
    }
    for hop in hops.iter().filter(|hop| hop.from == topic) {
        way.push(hop);
        if let Some(cycle) = walk(hop.to, hops, way, settled) {
            return Some(cycle);
        }
        way.pop();
    }
    settled.insert(topic);
    None
}

/// From which inputs to which outputs a stage passes records on at once.
fn hops_of<'a>(
    stage: usize,
    draft: &'a StageDraft<'_>,
    outputs: &'a [OutputSpec],
    topics: &TopicBook,
) -> Vec<Hop<'a>> {
    let mut reached: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (place, node) in draft.nodes.iter().enumerate() {
        let Some(interface) = &node.interface else { continue };
        if interface.delays {
            continue;
        }
        let mut from_inputs: BTreeSet<usize> = BTreeSet::new();
        for (from, _) in &node.from {
            let takes = wanted(draft, interface, *from);
            let carries = carried(draft, *from, topics);
            if carries.is_some_and(|carried| !carried.iter().any(|kind| takes.contains(kind))) {
                continue;
            }
            match from {
                Upstream::Input(input) => {
                    from_inputs.insert(*input);
                }
                Upstream::Node(other) => from_inputs.extend(reached.get(other).into_iter().flatten()),
            }
        }
        reached.insert(place, from_inputs);
    }
    let mut hops: BTreeMap<(&str, &str), Hop<'a>> = BTreeMap::new();
    for output in outputs {
        for input in output.from.iter().filter_map(|node| reached.get(node)).flatten() {
            let (from, to): (&SmolStr, &SmolStr) = (&draft.declared.inputs[*input].topic.name, &output.topic);
            hops.insert((from, to), Hop { stage, from, to });
        }
    }
    hops.into_values().collect()
}
