//! The pipelines that ran on a log, as they were noted there.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tidewire_engine::log::Log;
use tidewire_engine::plan::{MergeOrder, StageSpec};

use crate::files::{Loaded, load_text};
use crate::notes::{self, PIPELINES, PipelineNote};

/// A pipeline that ran, as it was started last.
pub struct Recorded {
    /// What was noted.
    pub note: PipelineNote,
    /// The pipeline, read anew by this build.
    pub loaded: Loaded,
}

impl Recorded {
    /// Its stages.
    pub fn stages(&self) -> &[Arc<StageSpec>] {
        &self.loaded.pipeline.stages
    }
}

/// All pipelines that ran on the log, each as it was started last.
pub fn pipelines(log: &dyn Log) -> anyhow::Result<Vec<Recorded>> {
    let mut last: Vec<PipelineNote> = Vec::new();
    for note in notes::all::<PipelineNote>(log, PIPELINES)? {
        last.retain(|other| other.pipeline != note.pipeline);
        last.push(note);
    }
    if last.is_empty() {
        bail!("no pipeline has run on this log: start one with `tidewire run FILE`");
    }
    let read = last.into_iter().map(|note| {
        let mut loaded = load_text(note.file.clone(), note.text.clone(), note.overrides.clone())
            .with_context(|| {
                format!("pipeline {} ran with a file that this build does not take", note.pipeline)
            })?;
        loaded.pipeline.stages = merged_by(&note, &loaded.pipeline.stages);
        Ok(Recorded { note, loaded })
    });
    read.collect()
}

/// The stages of a pipeline file, set to the order in which the pipeline of that name ran on the log.
pub fn as_recorded(log: &dyn Log, loaded: &Loaded) -> anyhow::Result<Vec<Arc<StageSpec>>> {
    let ran: Vec<PipelineNote> = notes::all(log, PIPELINES)?;
    let stages = &loaded.pipeline.stages;
    let last = ran.iter().rev().find(|note| note.pipeline == loaded.pipeline.name);
    Ok(last.map_or_else(|| stages.clone(), |note| merged_by(note, stages)))
}

fn merged_by(note: &PipelineNote, stages: &[Arc<StageSpec>]) -> Vec<Arc<StageSpec>> {
    let order = MergeOrder::from(note.merged_by);
    stages.iter().map(|spec| Arc::new(StageSpec { order, ..StageSpec::clone(spec) })).collect()
}
