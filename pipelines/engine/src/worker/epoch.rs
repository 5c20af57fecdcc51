//! What a worker does with its tasks: epochs, and what to do when one fails.

use tidewire_schemas::EpochKind;

use super::commit::Part;
use super::{Running, Slot, Step, Worker, WorkerError};
use crate::fault::{FaultAt, TaskError};
use crate::log::{Log, LogError, TopicPartition};
use crate::plan::OnError;
use crate::task::{Closing, Stamp};

/// One minute of stamps, over which faults are counted.
const MINUTE_MS: i64 = 60_000;

impl Worker {
    /// Takes what is at hand into a task's epoch.
    pub(super) fn take(&mut self, number: u32, now_ms: i64, step: &mut Step) -> Result<(), WorkerError> {
        let Some(Slot::Running(running)) = self.slots.get_mut(&number) else { return Ok(()) };
        match work(&*self.log, running, now_ms) {
            Ok(took) => step.took |= took,
            Err(error) => self.failed(number, now_ms, error, step)?,
        }
        Ok(())
    }

    /// Whether a task's epoch is to be closed now, and those of the worker's other tasks with it.
    pub(super) fn is_due(&mut self, number: u32, now_ms: i64, releases: bool) -> bool {
        let hold_ms = self.options.hold_ms;
        let Some(Slot::Running(running)) = self.slots.get_mut(&number) else { return false };
        let task = &running.task;
        let stamp_ms = task.stamp_at(now_ms);
        running.wants_cut |= task.quiet_cut_due(stamp_ms);
        if releases || running.wants_cut {
            return true;
        }
        // A clock that went back must not hold an epoch for long.
        let is_young = (stamp_ms..stamp_ms + hold_ms).contains(&now_ms);
        task.is_open() && !(is_young && task.may_stay_open() && !task.flush_due(stamp_ms))
    }

    /// Closes a task's epoch, if there is one.
    pub(super) fn close(
        &mut self,
        number: u32,
        now_ms: i64,
        releases: bool,
    ) -> Result<Option<Part>, WorkerError> {
        let Some(Slot::Running(running)) = self.slots.get_mut(&number) else { return Ok(None) };
        let task = &mut running.task;
        let stamp_ms = task.stamp_at(now_ms);
        let wants_cut = running.wants_cut || releases;
        if !task.is_open() && !wants_cut {
            return Ok(None);
        }
        let kind = match (releases, running.wants_cut) {
            (true, _) => EpochKind::Release,
            (false, true) => EpochKind::Cut,
            (false, false) if task.is_silent_epoch() => EpochKind::Time,
            (false, false) => EpochKind::Records,
        };
        let flush = wants_cut || task.flush_due(stamp_ms);
        if flush && self.log_answers {
            // Asking where the journal ends may take a while, and only a cut says it. Recovery reads on from there: an
            // earlier place does too, where the log does not answer now.
            match self.log.bounds(&TopicPartition::new(self.spec.epochs_topic(), number)) {
                Ok(bounds) => running.journal_end = bounds.stable_end,
                Err(LogError::Unavailable { .. }) => self.log_answers = false,
                Err(error) => return Err(error.into()),
            }
        }
        let closing =
            Closing { kind, flush, writer: self.options.member.clone(), epochs_from: running.journal_end };
        let driving = task.driving_position();
        let closed = task.close(closing)?;
        Ok(Some(Part { task: number, closed, driving, releases }))
    }

    /// Takes more records into open epochs, while the log commits those before.
    pub(super) fn work_ahead(&mut self, now_ms: i64, step: &mut Step) -> Result<(), WorkerError> {
        let held: Vec<u32> = self.slots.keys().copied().collect();
        for number in held {
            let Some(Slot::Running(running)) = self.slots.get_mut(&number) else { continue };
            match take_more(&*self.log, running, now_ms, self.spec.caps.ahead_records) {
                Ok(took) => step.took |= took,
                Err(EpochError::Log(LogError::Unavailable { .. })) => {}
                Err(error) => {
                    // How the commit ends comes first: it may be that this task has to go back further.
                    self.land(step)?;
                    self.failed(number, now_ms, error, step)?;
                    return Ok(());
                }
            }
        }
        step.worked |= step.took;
        Ok(())
    }

    /// Halts a task, or leaves out what its operators failed at. Errors that are not the task's alone are passed on.
    fn failed(
        &mut self,
        number: u32,
        now_ms: i64,
        error: EpochError,
        step: &mut Step,
    ) -> Result<(), WorkerError> {
        match error {
            EpochError::Log(error @ LogError::Store { .. }) => return Err(error.into()),
            // What was taken before is closed all the same.
            EpochError::Log(LogError::Unavailable { .. }) => {}
            EpochError::Log(error) => {
                step.halted.push((number, error.to_string()));
                self.slots.insert(number, Slot::Halted);
            }
            EpochError::Task(TaskError::NotRegistered(error)) => return Err(error.into()),
            EpochError::Task(TaskError::Fault(fault)) => self.faulted(number, now_ms, &fault, step),
        }
        Ok(())
    }

    /// Leaves out what failed and brings the task back to where it was before the epoch.
    fn faulted(&mut self, number: u32, now_ms: i64, fault: &FaultAt, step: &mut Step) {
        step.worked = true;
        let Some(Slot::Running(running)) = self.slots.get_mut(&number) else { return };
        step.faults.push(fault.clone());
        let mut skips = std::mem::take(&mut running.skips);
        let mut faults = std::mem::take(&mut running.faults);
        faults.push_back(now_ms);
        while faults.front().is_some_and(|at| now_ms - at > MINUTE_MS) {
            faults.pop_front();
        }
        let too_many = faults.len() > self.spec.caps.max_faults_per_minute;
        if self.spec.on_error == OnError::Halt || too_many {
            let why = if too_many { "too many faults within a minute; the last: " } else { "" };
            let text = format!(
                "{why}operator {} failed at {}: {} ({})",
                fault.node, fault.at, fault.text, fault.code
            );
            step.halted.push((number, text));
            self.slots.insert(number, Slot::Halted);
            return;
        }
        skips.add(fault);
        step.recovering.push(number);
        let slot = self.recovering(number, skips, faults);
        self.slots.insert(number, slot);
    }
}

enum EpochError {
    Log(LogError),
    Task(TaskError),
}

/// Takes what is at hand, or lets time go on in silence. Returns whether there was anything.
fn work(log: &dyn Log, running: &mut Running, now_ms: i64) -> Result<bool, EpochError> {
    let took = take_more(log, running, now_ms, 1)?;
    if took || running.task.is_open() {
        return Ok(took);
    }
    let stamp_ms = running.task.stamp_at(now_ms);
    let Some(to) = running.task.silence(stamp_ms) else { return Ok(false) };
    running.task.advance(to, Stamp::At(stamp_ms), &running.skips).map_err(EpochError::Task)?;
    Ok(true)
}

/// Reads what is wanted, and takes a batch into the epoch as far as it has room and the order allows, unless fewer than
/// `least` records are at hand.
fn take_more(log: &dyn Log, running: &mut Running, now_ms: i64, least: usize) -> Result<bool, EpochError> {
    let task = &mut running.task;
    let room = task.room();
    for (source, from) in task.intake().wanted(room.prefetch_bytes) {
        let at = task.intake().sources()[source].at.clone();
        let fetched = log.fetch(&at, from, room.prefetch_bytes).map_err(EpochError::Log)?;
        task.intake_mut().offer(source, fetched);
    }
    if task.intake().at_hand() < least || (task.is_open() && !task.may_go_on()) {
        return Ok(false);
    }
    let batch = task.intake_mut().take(&room);
    if batch.taken.is_empty() {
        return Ok(false);
    }
    let stamp = Stamp::At(task.stamp_at(now_ms));
    task.process(batch, stamp, &running.skips).map_err(EpochError::Task)?;
    Ok(true)
}
