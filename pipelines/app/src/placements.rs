//! What a pipeline's topics need of a schema registry.

use tidewire_runtime::registry::Placement;
use tidewire_schemas::Kind;

use crate::pipeline::Pipeline;

/// The records of a pipeline on topics of its own: those that stages write, its journal and its changelogs.
pub fn placements(pipeline: &Pipeline) -> Vec<Placement> {
    let mut all = Vec::new();
    for topic in &pipeline.topics {
        let kinds = topic.kinds.iter().flatten();
        all.extend(kinds.map(|kind| Placement::on(topic.name.clone(), *kind)));
    }
    for stage in &pipeline.stages {
        all.push(Placement::on(stage.epochs_topic(), Kind::EpochRecord));
        all.push(Placement::on(stage.changelog_topic(), Kind::CutMarker));
    }
    let mut once: Vec<Placement> = Vec::new();
    for placement in all {
        if !once.contains(&placement) {
            once.push(placement);
        }
    }
    once
}
