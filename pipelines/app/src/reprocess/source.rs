//! Another log that the inputs of a run come from: a folder, or a bundle.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tidewire_engine::log::{Log, TopicSpec};
use tidewire_runtime::reprocess::externals;
use tidewire_schemas::{SchemaBook, topics};

use super::InputsNote;
use crate::cli::Context;
use crate::open::{self, OpenLog, Place};
use crate::pipeline::{Deployment, Pipeline};
use crate::records::hex;

/// An open log with inputs.
pub struct Source {
    open: OpenLog,
    note: InputsNote,
}

impl Source {
    /// Opens the folder or bundle, to be read.
    ///
    /// # Errors
    /// When it is no log, or the one at hand.
    pub fn open(path: &Path, context: &Context, pipeline: &Pipeline) -> anyhow::Result<Self> {
        let shown = path.display();
        let whole = path.canonicalize().with_context(|| format!("--inputs {shown}: there is no log"))?;
        let on_cluster = context.bootstrap.is_some()
            || context.deployment.kafka.is_some()
            || pipeline.deployment.kafka.is_some();
        if !on_cluster && context.data().canonicalize().is_ok_and(|data| data == whole) {
            bail!(
                "--inputs {shown} is the log at hand: leave it out, and its inputs are read where they lie"
            );
        }
        let theirs = Context {
            data: Some(whole.clone()),
            bootstrap: None,
            prefix: None,
            deployment: Deployment::default(),
            ..context.clone()
        };
        let open = open::to_read(&theirs).with_context(|| format!("--inputs {shown}"))?;
        let digest = open.bundle().map(|bundle| hex(bundle.digest()));
        Ok(Self { note: InputsNote { path: whole.display().to_string(), digest }, open })
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.open.log
    }

    /// Its schemas.
    pub fn book(&self) -> &Arc<SchemaBook> {
        &self.open.book
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.open.place
    }

    /// Whether it is a stretch of another log.
    pub fn is_stretch(&self) -> bool {
        self.open.bundle().is_some()
    }

    /// What it means that records of some keys alone are in it, if they are.
    pub fn of_keys_alone(&self) -> Option<String> {
        self.open.bundle()?.about().of_keys_alone()
    }

    /// Names it, so that it is known again.
    pub fn note(&self) -> InputsNote {
        self.note.clone()
    }

    /// Stages that read data from outside and have no epoch in a bundle: what they alone read is not in it.
    pub fn absent(&self, pipeline: &Pipeline) -> Vec<String> {
        let Some(bundle) = self.open.bundle() else { return Vec::new() };
        let reads = pipeline
            .stages
            .iter()
            .filter(|spec| externals(std::slice::from_ref(spec)).iter().any(|external| external.is_data));
        let absent = reads.filter(|spec| !bundle.about().tasks.iter().any(|task| task.stage == *spec.name));
        absent.map(|spec| spec.name.to_string()).collect()
    }

    /// Refuses inputs that lie in other numbers of partitions than the pipeline has: keys would go to other tasks.
    pub(super) fn check_layout(&self, pipeline: &Pipeline) -> anyhow::Result<()> {
        for external in externals(&pipeline.stages) {
            let Some(found) = self.log().topic(&external.topic)? else { continue };
            if found.partitions != external.partitions {
                bail!(
                    "topic {} has {} partitions in {}, and {} in the pipeline file: set `[topics.\"{}\"] partitions = {}`",
                    external.topic,
                    found.partitions,
                    self.place(),
                    external.partitions,
                    external.topic,
                    found.partitions
                );
            }
        }
        Ok(())
    }

    /// Makes the topics of the copies, without retention and compaction. Limits are not among them: others come behind.
    pub(super) fn make_topics(&self, to: &dyn Log, pipeline: &Pipeline) -> anyhow::Result<()> {
        for external in externals(&pipeline.stages) {
            if external.topic != topics::RISK_LIMITS && to.topic(&external.topic)?.is_none() {
                to.create_topic(&TopicSpec::new(external.topic, external.partitions))?;
            }
        }
        Ok(())
    }
}
