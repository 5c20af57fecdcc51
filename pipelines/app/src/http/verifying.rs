//! What a check beside production shows of itself: that it turns, how far it has come, and what it found.

use std::sync::Arc;

use tidewire_engine::verify::Stretch;
use tidewire_engine::worker::Step;
use tidewire_runtime::watch::{Watch as _, Who};

use super::metrics::ByTask;
use super::watching::Watching;

/// Shows a check that goes on. It turns like a worker: one that hangs makes `/healthz` fail.
#[derive(Clone)]
pub struct Verifying {
    watching: Arc<Watching>,
    who: Arc<Who>,
}

impl Verifying {
    pub(super) fn new(watching: Arc<Watching>) -> Self {
        let who = Arc::new(Who { stage: "verify".into(), worker: 0, member: "verify".into() });
        watching.begun(&who);
        Self { watching, who }
    }

    /// A task that will be verified: its series are there from the start, so that rates can be taken.
    pub fn begins(&self, stage: &str, task: u32) {
        let (metrics, by) = (&self.watching.metrics, by_task(stage, task));
        for count in [
            &metrics.verify_epochs,
            &metrics.verify_records,
            &metrics.verify_differences,
            &metrics.verify_failures,
        ] {
            drop(count.get_or_create(&by));
        }
    }

    /// It turns.
    pub fn turned(&self) {
        self.watching.stepped(&self.who, None, &Step::default());
    }

    /// A stretch was verified, or was not drawn.
    pub fn done(&self, stage: &str, task: u32, stretch: &Stretch) {
        let (metrics, by) = (&self.watching.metrics, by_task(stage, task));
        if let Some(report) = &stretch.report {
            metrics.verify_epochs.get_or_create(&by).inc_by(report.epochs);
            metrics.verify_records.get_or_create(&by).inc_by(report.records);
            metrics.verify_differences.get_or_create(&by).inc_by(report.difference.is_some().into());
            let last = report.last.and_then(|last| i64::try_from(last.epoch).ok());
            metrics.verify_position.get_or_create(&by).set(last.unwrap_or_default());
        }
        self.turned();
    }

    /// A stretch could not be verified.
    pub fn failed(&self, stage: &str, task: u32) {
        self.watching.metrics.verify_failures.get_or_create(&by_task(stage, task)).inc();
        self.turned();
    }
}

fn by_task(stage: &str, task: u32) -> ByTask {
    ByTask { stage: stage.to_owned(), task }
}
