//! Turns what workers tell into metrics and the board.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use smol_str::SmolStr;
use tidewire_engine::node::Work;
use tidewire_engine::task::{OperatorView, TaskView};
use tidewire_engine::worker::{Committed, Step};
use tidewire_runtime::clock::now_ms;
use tidewire_runtime::watch::{Outcome, Watch, Who};
use tidewire_schemas::{EpochKind, topics};

use super::board::{Board, Status, WorkerBoard};
use super::metrics::{
    ByCode, ByInput, ByKind, ByOperator, ByOutcome, ByReason, ByStage, ByStatus, ByTask, ByTopic, ByWorker,
    Metrics,
};

/// Longest code or reason that becomes a label; operators choose short constants.
const MAX_CODE_CHARS: usize = 64;

/// Looks on for `/metrics` and the probes.
pub struct Watching {
    /// What `/metrics` shows.
    pub registry: Registry,
    /// The metrics.
    pub metrics: Metrics,
    board: Mutex<Board>,
    /// What each operator had done when it was last looked at.
    seen: Mutex<BTreeMap<(SmolStr, u32, SmolStr), Work>>,
}

impl Watching {
    /// Nothing seen yet.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        Self { registry, metrics, board: Mutex::default(), seen: Mutex::default() }
    }

    /// What is known of workers and tasks.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        // A thread that panicked while it held this has left a board that is still true.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what changes though nothing happens: delays, and time since the last step.
    pub fn refresh(&self, now: Instant, now_ms: i64) {
        let board = self.board();
        for ((stage, task), held) in &board.tasks {
            let Some(watermark_ms) = held.watermark_ms else { continue };
            let by = by_task(stage, *task);
            self.metrics.watermark.get_or_create(&by).set(seconds(watermark_ms));
            let delay_ms = now_ms.saturating_sub(watermark_ms);
            self.metrics.watermark_delay.get_or_create(&by).set(seconds(delay_ms));
        }
        for (who, worker) in board.workers.iter().filter(|(_, worker)| worker.ended.is_none()) {
            let quiet = now.saturating_duration_since(worker.seen);
            self.metrics.worker_quiet.get_or_create(&by_worker(who)).set(quiet.as_secs_f64());
        }
    }

    fn set_status(&self, board: &mut Board, who: &Arc<Who>, task: u32, status: Status, why: Option<String>) {
        board.set_status(who, task, status, why);
        self.show_status(&who.stage, task, Some(status));
    }

    /// One series a task, that of its status; none once it is gone.
    fn show_status(&self, stage: &str, task: u32, status: Option<Status>) {
        for other in Status::ALL {
            let by = ByStatus { stage: stage.to_owned(), task, status: other.name() };
            if status == Some(other) {
                self.metrics.task_status.get_or_create(&by).set(1);
            } else {
                self.metrics.task_status.remove(&by);
            }
        }
    }

    fn task_gone(&self, board: &mut Board, who: &Arc<Who>, task: u32) {
        let inputs: Vec<_> = board
            .tasks
            .get(&(who.stage.clone(), task))
            .map(|held| held.positions.keys().cloned().collect())
            .unwrap_or_default();
        if !board.drop_task(who, task) {
            return;
        }
        let metrics = &self.metrics;
        self.show_status(&who.stage, task, None);
        let by = by_task(&who.stage, task);
        metrics.watermark.remove(&by);
        metrics.watermark_delay.remove(&by);
        metrics.last_epoch.remove(&by);
        for at in inputs {
            let by = by_input(&who.stage, task, &at.topic, at.partition);
            for level in [&metrics.input_lag, &metrics.input_idle, &metrics.input_holds] {
                level.remove(&by);
            }
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(stage, number, operator), _| {
            let gone = *stage == who.stage && *number == task;
            if gone {
                let by = by_operator(stage, task, operator);
                for level in
                    [&metrics.state_keys, &metrics.state_entries, &metrics.state_bytes, &metrics.state_timers]
                {
                    level.remove(&by);
                }
            }
            !gone
        });
    }

    fn committed(&self, board: &mut Board, who: &Arc<Who>, committed: &Committed) {
        let (stage, record, metrics) = (&who.stage, &committed.record, &self.metrics);
        let task = u32::try_from(record.task).unwrap_or(u32::MAX);
        let by = by_task(stage, task);
        let kind = kind_name(record.kind);
        metrics.epochs.get_or_create(&ByKind { stage: stage.to_string(), task, kind }).inc();
        metrics.last_epoch.get_or_create(&by).set(record.epoch);
        metrics.state_written.get_or_create(&by).inc_by(committed.state_bytes);
        for (topic, count) in &committed.outputs {
            let topic_label = topic.to_string();
            let by_topic = ByTopic { stage: stage.to_string(), task, topic: topic_label };
            metrics.output_records.get_or_create(&by_topic).inc_by(*count);
            if topic == topics::LATE {
                metrics.late_records.get_or_create(&by).inc_by(*count);
            }
        }
        let mut newest_ms = None;
        for input in &record.inputs {
            let partition = u32::try_from(input.partition).unwrap_or(u32::MAX);
            let by = by_input(stage, task, &input.topic, partition);
            metrics.input_records.get_or_create(&by).inc_by(unsigned(input.records));
            if input.records > 0 {
                newest_ms = newest_ms.max(input.greatest_event_time_ms);
            }
            for skipped in &input.skipped {
                self.dead_letter(stage, task, &skipped.reason);
            }
            if let Some(held) = board.tasks.get_mut(&(stage.clone(), task)) {
                let at = tidewire_engine::log::TopicPartition::new(input.topic.clone(), partition);
                held.positions.insert(at, unsigned(input.next_offset));
            }
        }
        for timer in &record.skipped_timers {
            // The timer, the code and the words stand on lines of their own.
            self.dead_letter(stage, task, timer.split('\n').nth(1).unwrap_or("timer"));
        }
        if let Some(newest_ms) = newest_ms {
            let latency_s = seconds(now_ms().saturating_sub(newest_ms)).max(0.0);
            metrics.event_latency.get_or_create(&ByStage { stage: stage.to_string() }).observe(latency_s);
        }
        if let (Some(held), Some(watermark_ms)) =
            (board.tasks.get_mut(&(stage.clone(), task)), record.watermark_ms)
            && held.watermark_ms.is_some()
        {
            held.watermark_ms = Some(watermark_ms);
        }
    }

    fn dead_letter(&self, stage: &str, task: u32, reason: &str) {
        let by = ByReason { stage: stage.to_owned(), task, reason: code(reason) };
        self.metrics.dead_letters.get_or_create(&by).inc();
    }

    fn operator(&self, stage: &SmolStr, task: u32, view: &OperatorView) {
        let (metrics, by) = (&self.metrics, by_operator(stage, task, &view.id));
        let key = (stage.clone(), task, view.id.clone());
        let before = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.insert(key, view.work).unwrap_or_default()
        };
        let (now, before) = (view.work, since(view.work, before));
        metrics.operator_input.get_or_create(&by).inc_by(now.taken - before.taken);
        metrics.operator_output.get_or_create(&by).inc_by(now.given - before.given);
        metrics.operator_timers.get_or_create(&by).inc_by(now.timers - before.timers);
        metrics.operator_late.get_or_create(&by).inc_by(now.late - before.late);
        let busy = Duration::from_nanos(now.busy_ns - before.busy_ns);
        metrics.operator_busy.get_or_create(&by).inc_by(busy.as_secs_f64());
        metrics.state_keys.get_or_create(&by).set(level(view.size.keys));
        metrics.state_entries.get_or_create(&by).set(level(view.size.entries));
        metrics.state_bytes.get_or_create(&by).set(level(view.size.bytes));
        metrics.state_timers.get_or_create(&by).set(level(view.timers));
    }
}

/// What was counted before; a task that was recovered since counts from nothing.
fn since(now: Work, before: Work) -> Work {
    let goes_on = now.taken >= before.taken
        && now.given >= before.given
        && now.timers >= before.timers
        && now.late >= before.late
        && now.busy_ns >= before.busy_ns;
    if goes_on { before } else { Work::default() }
}

impl Watch for Watching {
    fn begun(&self, who: &Arc<Who>) {
        let mut board = self.board();
        let tasks: Vec<u32> =
            board.tasks.iter().filter(|(_, held)| held.holder == *who).map(|((_, task), _)| *task).collect();
        for task in tasks {
            self.task_gone(&mut board, who, task);
        }
        board.workers.insert(Arc::clone(who), WorkerBoard::new());
        let by = by_worker(who);
        drop(self.metrics.rebalances.get_or_create(&by));
        drop(self.metrics.rejoins.get_or_create(&by));
        for outcome in Outcome::ALL {
            let by = ByOutcome { stage: who.stage.to_string(), outcome: outcome.name() };
            drop(self.metrics.commits.get_or_create(&by));
        }
    }

    fn stepped(&self, who: &Arc<Who>, epoch_took: Option<Duration>, step: &Step) {
        let mut board = self.board();
        if let Some(worker) = board.workers.get_mut(who) {
            (worker.seen, worker.steps, worker.rejoins) = (Instant::now(), true, None);
        }
        if !step.given.is_empty() || !step.gone.is_empty() {
            self.metrics.rebalances.get_or_create(&by_worker(who)).inc();
        }
        for task in &step.given {
            self.set_status(&mut board, who, *task, Status::Recovering, None);
        }
        for fault in &step.faults {
            let (stage, operator) = (who.stage.to_string(), fault.node.to_string());
            self.metrics.faults.get_or_create(&ByCode { stage, operator, code: code(&fault.code) }).inc();
        }
        for (task, report) in &step.recovered {
            let by = by_task(&who.stage, *task);
            let since = board.tasks.get(&(who.stage.clone(), *task)).map(|held| held.since.elapsed());
            let by_stage = ByStage { stage: who.stage.to_string() };
            let durations = self.metrics.restore_duration.get_or_create_owned(&by_stage);
            durations.observe(since.unwrap_or_default().as_secs_f64());
            self.metrics.restores.get_or_create(&by).inc();
            self.metrics.restored_records.get_or_create(&by).inc_by(report.changelog_records);
            self.metrics.restored_epochs.get_or_create(&by).inc_by(report.epochs);
            self.set_status(&mut board, who, *task, Status::Running, None);
        }
        for (task, why) in &step.halted {
            self.set_status(&mut board, who, *task, Status::Halted, Some(why.clone()));
        }
        for committed in &step.committed {
            self.committed(&mut board, who, committed);
        }
        for task in &step.recovering {
            self.set_status(&mut board, who, *task, Status::Recovering, None);
        }
        for task in &step.gone {
            self.task_gone(&mut board, who, *task);
        }
        if let Some(took) = epoch_took {
            self.metrics.epoch_duration.get_or_create(&by_worker(who)).observe(took.as_secs_f64());
        }
    }

    fn commit(&self, who: &Arc<Who>, took: Duration, outcome: Outcome) {
        self.metrics.commit_duration.get_or_create(&by_worker(who)).observe(took.as_secs_f64());
        let by = ByOutcome { stage: who.stage.to_string(), outcome: outcome.name() };
        self.metrics.commits.get_or_create(&by).inc();
    }

    fn sampled(&self, who: &Arc<Who>, tasks: &[TaskView]) {
        for view in tasks {
            for operator in &view.operators {
                self.operator(&who.stage, view.task, operator);
            }
            for source in &view.sources {
                let by = by_input(&who.stage, view.task, &source.at.topic, source.at.partition);
                self.metrics.input_idle.get_or_create(&by).set(source.idle.into());
                self.metrics.input_holds.get_or_create(&by).set(source.holds_back.into());
            }
            if let Some(held) = self.board().tasks.get_mut(&(who.stage.clone(), view.task)) {
                for source in &view.sources {
                    // What was committed since is further on.
                    let next = held.positions.entry(source.at.clone()).or_default();
                    *next = source.next_offset.max(*next);
                }
                held.watermark_ms = view.watermark_ms;
            }
        }
    }

    fn rejoins(&self, who: &Arc<Who>, why: &str) {
        self.metrics.rejoins.get_or_create(&by_worker(who)).inc();
        if let Some(worker) = self.board().workers.get_mut(who) {
            (worker.seen, worker.rejoins, worker.steps) = (Instant::now(), Some(why.to_owned()), false);
        }
    }

    fn ended(&self, who: &Arc<Who>, error: Option<&str>) {
        if let Some(worker) = self.board().workers.get_mut(who) {
            worker.ended = Some(error.map(ToOwned::to_owned));
        }
        self.metrics.worker_quiet.remove(&by_worker(who));
    }
}

fn by_worker(who: &Who) -> ByWorker {
    ByWorker { stage: who.stage.to_string(), worker: who.worker as u64 }
}

fn by_task(stage: &str, task: u32) -> ByTask {
    ByTask { stage: stage.to_owned(), task }
}

/// Labels of one input partition of a task.
pub fn by_input(stage: &str, task: u32, topic: &str, partition: u32) -> ByInput {
    ByInput { stage: stage.to_owned(), task, topic: topic.to_owned(), partition }
}

fn by_operator(stage: &str, task: u32, operator: &str) -> ByOperator {
    ByOperator { stage: stage.to_owned(), task, operator: operator.to_owned() }
}

fn kind_name(kind: EpochKind) -> &'static str {
    match kind {
        EpochKind::Records => "records",
        EpochKind::Time => "time",
        EpochKind::Cut => "cut",
        EpochKind::Release => "release",
    }
}

/// A code as a label: what is too long for one is cut.
fn code(code: &str) -> String {
    code.chars().take(MAX_CODE_CHARS).collect()
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn level(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}
