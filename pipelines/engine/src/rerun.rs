//! Recorded epochs, run again: what recovery and verification have in common.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr as _;

use smol_str::SmolStr;
use tidewire_schemas::{EpochRecord, EventTime, NotRegistered};

use crate::bugs::{self, Bug};
use crate::digest::Digest;
use crate::fault::{Skip, Skips, TaskError};
use crate::frame::TimerCause;
use crate::intake::{Batch, Span, replay_order};
use crate::log::{Log, LogError, StoredRecord, TopicPartition};
use crate::outputs::add_input_to_digest;
use crate::task::{Closed, Closing, Stamp, Task, signed};

/// Bytes asked of the log at once when the inputs of an epoch are read again.
const FETCH_BYTES: usize = 4 << 20;
/// How long to wait for a log that has not given everything yet, before it is asked again.
const WAIT: std::time::Duration = std::time::Duration::from_millis(20);

/// Why an epoch could not be run again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RerunError {
    /// Its inputs are not what they were.
    #[error(
        "{at}: offsets {first}..{next} hold {found}, but epoch {epoch} took {taken}: \
         the topic was compacted or altered within replay_retention"
    )]
    InputChanged {
        /// The input partition.
        at: TopicPartition,
        /// First offset of the range.
        first: i64,
        /// The offset after its last.
        next: i64,
        /// The epoch.
        epoch: i64,
        /// What is there now.
        found: String,
        /// What was there.
        taken: String,
    },
    /// An input can not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The operators failed, though they did not when the epoch was recorded.
    #[error("epoch {epoch} ran then, but now {error}")]
    Failed {
        /// The epoch.
        epoch: i64,
        /// What failed.
        error: TaskError,
    },
    /// The epoch after this one is missing.
    #[error(
        "the epoch record after epoch {after} is {found}: epochs are missing from the topic of epoch records"
    )]
    Gap {
        /// The last epoch that was run.
        after: u64,
        /// What came instead.
        found: i64,
    },
    /// The record reads a partition that the stage does not.
    #[error("epoch {epoch} took records of {at}, which the stage does not read")]
    ForeignInput {
        /// The epoch.
        epoch: i64,
        /// The partition.
        at: TopicPartition,
    },
    /// A schema is missing.
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
}

/// The inputs of recorded epochs, read ahead from each of the task's sources.
#[derive(Debug, Default)]
pub struct Inputs {
    ahead: Vec<Ahead>,
}

/// What is at hand of one source.
#[derive(Clone, Debug, Default)]
struct Ahead {
    records: VecDeque<StoredRecord>,
    /// Where the next read goes on.
    next: u64,
}

impl Inputs {
    /// Nothing at hand yet.
    pub fn of(task: &Task) -> Self {
        Self { ahead: vec![Ahead::default(); task.intake().sources().len()] }
    }

    /// The inputs of an epoch, one list for each of the task's sources; `None` while the log has not given them all.
    /// Epochs are asked for in their order.
    pub fn gather(
        &mut self,
        log: &dyn Log,
        task: &Task,
        record: &EpochRecord,
    ) -> Result<Option<Vec<VecDeque<StoredRecord>>>, RerunError> {
        let sources = task.intake().sources();
        let mut ranges = Vec::with_capacity(record.inputs.len());
        for progress in &record.inputs {
            let at = TopicPartition::new(
                progress.topic.clone(),
                u32::try_from(progress.partition).unwrap_or(u32::MAX),
            );
            let Some(source) = sources.iter().position(|source| source.at == at) else {
                return Err(RerunError::ForeignInput { epoch: record.epoch, at });
            };
            if progress.records > 0 {
                ranges.push((source, unsigned(progress.first_offset), unsigned(progress.next_offset)));
            }
        }
        for &(source, first, next) in &ranges {
            if !self.ahead[source].reach(log, &sources[source].at, first, next)? {
                return Ok(None);
            }
        }
        let mut inputs = vec![VecDeque::new(); sources.len()];
        for (source, _, next) in ranges {
            let records = &mut self.ahead[source].records;
            let count = records.partition_point(|stored| stored.offset < next);
            inputs[source] = records.drain(..count).collect();
        }
        Ok(Some(inputs))
    }

    /// As [`Inputs::gather`], waiting until all is there.
    pub fn wait_for(
        &mut self,
        log: &dyn Log,
        task: &Task,
        record: &EpochRecord,
    ) -> Result<Vec<VecDeque<StoredRecord>>, RerunError> {
        loop {
            if let Some(inputs) = self.gather(log, task, record)? {
                return Ok(inputs);
            }
            log.wait(WAIT);
        }
    }
}

impl Ahead {
    /// Reads on until everything in `first..next` is at hand, as far as it is there at all.
    fn reach(&mut self, log: &dyn Log, at: &TopicPartition, first: u64, next: u64) -> Result<bool, LogError> {
        let passed = self.records.partition_point(|stored| stored.offset < first);
        self.records.drain(..passed);
        if self.records.is_empty() {
            self.next = self.next.max(first);
        }
        while self.next < next {
            let fetched = log.fetch(at, self.next, FETCH_BYTES)?;
            let went_on = fetched.next_offset > self.next;
            self.next = fetched.next_offset.max(self.next);
            self.records.extend(fetched.records);
            if !went_on {
                // At its end, what is missing is missing: the digest will tell.
                return Ok(fetched.at_end);
            }
        }
        Ok(true)
    }
}

impl Task {
    /// Runs a recorded epoch again, with the records it took. What comes out is for the caller to compare.
    pub fn rerun(
        &mut self,
        record: &EpochRecord,
        inputs: Vec<VecDeque<StoredRecord>>,
    ) -> Result<Closed, RerunError> {
        if record.epoch != signed(self.epoch() + 1) {
            return Err(RerunError::Gap { after: self.epoch(), found: record.epoch });
        }
        let mut spans: Vec<Span> = self
            .intake()
            .positions()
            .iter()
            .map(|next| Span { first: *next, next: *next, ..Span::default() })
            .collect();
        for progress in &record.inputs {
            let at = TopicPartition::new(
                progress.topic.clone(),
                u32::try_from(progress.partition).unwrap_or(u32::MAX),
            );
            let Some(source) = self.intake().sources().iter().position(|source| source.at == at) else {
                return Err(RerunError::ForeignInput { epoch: record.epoch, at });
            };
            let next = unsigned(progress.next_offset);
            let first = unsigned(progress.first_offset);
            spans[source] = Span { first, next, at_end: progress.at_end, ..Span::default() };
            if !bugs::on(Bug::BatchTwice) {
                self.intake_mut().skip_to(source, next);
            }
        }
        let taken = replay_order(self.intake().sources(), inputs);
        self.check_inputs(record, &taken)?;
        let skips = self.skips_of(record);
        let stamp = if record.synchronised { Stamp::Virtual } else { Stamp::At(record.stamp_ms) };
        let failed = |error| RerunError::Failed { epoch: record.epoch, error };
        self.process(Batch { taken, spans, bytes: 0 }, stamp, &skips).map_err(failed)?;
        if let Some(to_ms) = record.time_advance_ms {
            self.advance(EventTime::from_ms(to_ms), stamp, &skips).map_err(failed)?;
        }
        let closing = Closing {
            kind: record.kind,
            flush: record.flush,
            writer: record.writer.clone(),
            // The marker of a cut that is run again is not written.
            epochs_from: 0,
        };
        Ok(self.close(closing)?)
    }

    fn check_inputs(&self, record: &EpochRecord, taken: &[crate::intake::Taken]) -> Result<(), RerunError> {
        let sources = self.intake().sources();
        let mut digests = vec![(Digest::default(), 0_i64); sources.len()];
        for record in taken {
            let (digest, count) = &mut digests[record.source];
            add_input_to_digest(digest, record);
            *count += 1;
        }
        for progress in &record.inputs {
            let place = sources.iter().position(|source| {
                source.at.topic == progress.topic
                    && u32::try_from(progress.partition) == Ok(source.at.partition)
            });
            let Some(place) = place else { continue };
            let (digest, count) = &digests[place];
            let has_all = sources[place].is_whole() || !self.sees_less();
            if *count != progress.records || (has_all && digest.short() != progress.digest) {
                return Err(RerunError::InputChanged {
                    at: sources[place].at.clone(),
                    first: progress.first_offset,
                    next: progress.next_offset,
                    epoch: record.epoch,
                    found: format!("{count} records of another digest"),
                    taken: format!("{} records", progress.records),
                });
            }
        }
        Ok(())
    }

    /// What a recorded epoch left out.
    fn skips_of(&self, record: &EpochRecord) -> Skips {
        let mut skips = Skips::default();
        for progress in &record.inputs {
            let source = self.intake().sources().iter().position(|source| {
                source.at.topic == progress.topic
                    && u32::try_from(progress.partition) == Ok(source.at.partition)
            });
            let Some(source) = source else { continue };
            for skipped in &progress.skipped {
                let skip = Skip {
                    operator: skipped.operator.clone(),
                    reason: skipped.reason.clone(),
                    error: skipped.error.clone(),
                };
                skips.records.insert((source, unsigned(skipped.offset)), skip);
            }
        }
        skips.timers =
            record.skipped_timers.iter().filter_map(|text| skipped_timer(text)).collect::<BTreeMap<_, _>>();
        skips
    }
}

/// How a rerun differs from its record, if it does.
pub fn difference(record: &EpochRecord, rerun: &Closed, with_state: bool) -> Option<String> {
    let now = &rerun.record;
    if now.output_count != record.output_count {
        return Some(format!("{} outputs, recorded {}", now.output_count, record.output_count));
    }
    if now.output_digest != record.output_digest {
        return Some("outputs of another digest".to_owned());
    }
    if now.closing_sequence != record.closing_sequence {
        return Some(format!("sequence {}, recorded {}", now.closing_sequence, record.closing_sequence));
    }
    if now.watermark_ms != record.watermark_ms {
        return Some(format!("watermark {:?}, recorded {:?}", now.watermark_ms, record.watermark_ms));
    }
    (with_state && now.state_digest != record.state_digest).then(|| "state of another digest".to_owned())
}

fn skipped_timer(text: &str) -> Option<(TimerCause, (SmolStr, SmolStr))> {
    let mut lines = text.splitn(3, '\n');
    let timer = TimerCause::from_str(lines.next()?).ok()?;
    Some((timer, (lines.next()?.into(), lines.next()?.into())))
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
