//! Which stages feed which: the order of data flow, and its cycles.

use std::sync::Arc;

use crate::plan::StageSpec;

/// Groups the stages: each group reads only what earlier groups and the outside write; a group of more than one
/// stage, or of one that feeds itself, is a cycle.
pub fn components(stages: &[Arc<StageSpec>]) -> Vec<Vec<usize>> {
    let feeds = |from: usize, to: usize| {
        stages[from].outputs.iter().any(|out| stages[to].inputs.iter().any(|input| input.topic == out.topic))
    };
    let count = stages.len();
    let mut reaches: Vec<Vec<bool>> =
        (0..count).map(|from| (0..count).map(|to| feeds(from, to)).collect()).collect();
    for via in 0..count {
        for from in 0..count {
            for to in 0..count {
                reaches[from][to] |= reaches[from][via] && reaches[via][to];
            }
        }
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut placed = vec![false; count];
    while let Some(next) = (0..count).find(|stage| {
        let ready = |other: usize| placed[other] || !reaches[other][*stage] || reaches[*stage][other];
        !placed[*stage] && (0..count).all(ready)
    }) {
        let group: Vec<usize> = (0..count)
            .filter(|other| *other == next || (reaches[next][*other] && reaches[*other][next]))
            .collect();
        group.iter().for_each(|stage| placed[*stage] = true);
        groups.push(group);
    }
    groups
}

/// Whether a group of stages is a cycle.
pub fn is_cycle(stages: &[Arc<StageSpec>], group: &[usize]) -> bool {
    group.len() > 1
        || group.iter().any(|stage| {
            let spec = &stages[*stage];
            spec.outputs.iter().any(|out| spec.inputs.iter().any(|input| input.topic == out.topic))
        })
}
