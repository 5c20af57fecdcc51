//! What happens to a worker, as events of the process's log, with fields by which they can be searched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_engine::recovery::RecoveryProgress;
use tidewire_engine::worker::{Committed, Step};
use tracing::{debug, error, info, warn};

use crate::watch::Who;

/// Records that could not be processed are told one by one this often; those between are counted with the next.
const LETTERS_EVERY: Duration = Duration::from_secs(1);
/// How often it is told how far recoveries have come.
const RECOVERIES_EVERY: Duration = Duration::from_secs(10);

/// Tells of one worker.
pub(crate) struct Narrator {
    who: Arc<Who>,
    letters_told: Option<Instant>,
    letters_untold: u64,
    recoveries_told: Option<Instant>,
}

impl Narrator {
    pub(crate) fn new(who: Arc<Who>) -> Self {
        Self { who, letters_told: None, letters_untold: 0, recoveries_told: None }
    }

    pub(crate) fn joined(&self) {
        info!(stage = %self.who.stage, member = %self.who.member, "worker joined its group");
    }

    pub(crate) fn rejoins(&self, why: &str) {
        warn!(stage = %self.who.stage, member = %self.who.member, reason = why, "worker lost its place and joins again");
    }

    pub(crate) fn recovers(&mut self, tasks: &[(u32, RecoveryProgress)]) {
        // Those that are over soon are told when they are.
        let told = *self.recoveries_told.get_or_insert_with(Instant::now);
        if tasks.is_empty() {
            self.recoveries_told = None;
        } else if told.elapsed() >= RECOVERIES_EVERY {
            self.recoveries_told = Some(Instant::now());
            for (task, progress) in tasks {
                info!(
                    stage = %self.who.stage, task, member = %self.who.member,
                    changelog_done = progress.changelog_done, changelog_all = progress.changelog_all,
                    epochs_done = progress.epochs_done, epochs_all = progress.epochs_all,
                    "task recovering"
                );
            }
        }
    }

    pub(crate) fn ended(&self, error: Option<&str>) {
        let (stage, member) = (&self.who.stage, &self.who.member);
        match error {
            None => info!(%stage, %member, "worker stopped"),
            Some(error) => error!(%stage, %member, error, "worker failed"),
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        if !step.worked && step.given.is_empty() && step.gone.is_empty() {
            return;
        }
        let (stage, member) = (Arc::clone(&self.who), &Arc::clone(&self.who).member);
        let stage = &stage.stage;
        for task in &step.given {
            info!(%stage, task, %member, "task assigned");
        }
        for (task, report) in &step.recovered {
            info!(
                %stage, task, %member,
                changelog_records = report.changelog_records,
                epochs = report.epochs,
                changed = report.changed,
                "task recovered"
            );
        }
        for fault in &step.faults {
            warn!(
                %stage, operator = %fault.node, at = %fault.at, code = %fault.code, error = %fault.text,
                "operator failed; the task is recovered and goes on without this"
            );
        }
        for (task, why) in &step.halted {
            error!(%stage, task, %member, reason = %why, "task halted");
        }
        for committed in &step.committed {
            self.epoch(committed);
        }
        for task in &step.gone {
            info!(%stage, task, %member, "task given back");
        }
    }

    fn epoch(&mut self, committed: &Committed) {
        let record = &committed.record;
        debug!(
            stage = %record.stage, task = record.task, epoch = record.epoch, kind = ?record.kind,
            records = record.inputs.iter().map(|input| input.records).sum::<i64>(),
            outputs = record.output_count, flush = record.flush,
            "epoch committed"
        );
        for input in &record.inputs {
            for skipped in &input.skipped {
                self.letters_untold += 1;
                if self.letters_told.is_some_and(|told| told.elapsed() < LETTERS_EVERY) {
                    continue;
                }
                warn!(
                    stage = %record.stage, task = record.task, epoch = record.epoch,
                    topic = %input.topic, partition = input.partition, offset = skipped.offset,
                    operator = skipped.operator.as_deref(), reason = %skipped.reason, error = %skipped.error,
                    count = self.letters_untold,
                    "dead letter"
                );
                (self.letters_told, self.letters_untold) = (Some(Instant::now()), 0);
            }
        }
    }
}
