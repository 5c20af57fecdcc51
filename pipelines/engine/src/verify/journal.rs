//! The epoch records of one task: read in order, and the epochs that a range of numbers or times stands for.

use std::collections::VecDeque;

use smol_str::SmolStr;
use tidewire_schemas::{EpochRecord, EventTime, SchemaBook};

use super::seek::seek;
use crate::log::{Log, LogError, TopicPartition};
use crate::plan::StageSpec;
use crate::recovery::epoch_record;
use crate::rerun::unsigned;

/// Bytes asked of the log at once.
const FETCH_BYTES: usize = 1 << 20;
/// Offsets looked at first, from the end of the topic; four times as many until the task's last record is found.
const FIRST_WINDOW: u64 = 512;

/// The epoch records of one task, in order.
pub struct Journal<'a> {
    log: &'a dyn Log,
    book: &'a SchemaBook,
    at: TopicPartition,
    stage: SmolStr,
    task: u32,
    from: u64,
    until: u64,
    ready: VecDeque<EpochRecord>,
}

impl<'a> Journal<'a> {
    /// All records that are there now.
    pub fn new(
        log: &'a dyn Log,
        spec: &StageSpec,
        book: &'a SchemaBook,
        task: u32,
    ) -> Result<Self, LogError> {
        let at = TopicPartition::new(spec.epochs_topic(), task);
        let bounds = log.bounds(&at)?;
        let (from, until) = (bounds.start, bounds.stable_end);
        Ok(Self { log, book, at, stage: spec.name.clone(), task, from, until, ready: VecDeque::new() })
    }

    /// The schemas that it is read with.
    pub(super) fn book(&self) -> &'a SchemaBook {
        self.book
    }

    /// Where it lies.
    pub fn at(&self) -> &TopicPartition {
        &self.at
    }

    /// Passes over all before an offset that is known to lie before what is wanted.
    pub fn skip_to_offset(&mut self, offset: u64) {
        if self.ready.is_empty() {
            self.from = self.from.max(offset);
        }
    }

    /// Passes over the epochs up to and with `epoch`.
    pub fn skip_past(&mut self, epoch: u64) -> Result<(), LogError> {
        if self.ready.is_empty() {
            self.from = self.seek(|record| unsigned(record.epoch) <= epoch)?;
        }
        while self.peek()?.is_some_and(|record| unsigned(record.epoch) <= epoch) {
            self.ready.pop_front();
        }
        Ok(())
    }

    /// The same records once more, from here.
    pub fn fork(&self) -> Self {
        Self {
            log: self.log,
            book: self.book,
            at: self.at.clone(),
            stage: self.stage.clone(),
            task: self.task,
            from: self.from,
            until: self.until,
            ready: self.ready.clone(),
        }
    }

    /// Takes up what was written since.
    pub fn extend(&mut self) -> Result<(), LogError> {
        let bounds = self.log.bounds(&self.at)?;
        // Retention may have overtaken it.
        self.from = self.from.max(bounds.start);
        self.until = self.until.max(bounds.stable_end);
        Ok(())
    }

    /// The next record, which stays the next.
    pub fn peek(&mut self) -> Result<Option<&EpochRecord>, LogError> {
        self.fill()?;
        Ok(self.ready.front())
    }

    /// The next record.
    pub fn next_record(&mut self) -> Result<Option<EpochRecord>, LogError> {
        self.fill()?;
        Ok(self.ready.pop_front())
    }

    fn fill(&mut self) -> Result<(), LogError> {
        while self.ready.is_empty() && self.from < self.until {
            let fetched = self.log.read(&self.at, self.from, FETCH_BYTES)?;
            for stored in fetched.records.iter().filter(|stored| stored.offset < self.until) {
                if let Some(record) = epoch_record(stored, self.book)
                    && self.is_ours(&record)
                {
                    self.ready.push_back(record);
                }
            }
            // Not past the end that it knows: what lies there is read once that is moved.
            self.from = if fetched.at_end {
                self.until
            } else {
                fetched.next_offset.max(self.from + 1).min(self.until)
            };
        }
        Ok(())
    }

    fn is_ours(&self, record: &EpochRecord) -> bool {
        record.stage == self.stage && u32::try_from(record.task) == Ok(self.task)
    }

    fn seek(&self, before: impl Fn(&EpochRecord) -> bool) -> Result<u64, LogError> {
        seek(self.log, &self.at, self.from, self.until, |stored| {
            let record = epoch_record(stored, self.book)?;
            self.is_ours(&record).then(|| before(&record))
        })
    }

    /// The last of the records that were not read yet, found from the end.
    fn last(&self) -> Result<Option<EpochRecord>, LogError> {
        let mut window = FIRST_WINDOW;
        loop {
            let from = self.until.saturating_sub(window).max(self.from);
            let mut tail = Self { from, ready: VecDeque::new(), ..self.fork() };
            let mut last = None;
            while let Some(record) = tail.next_record()? {
                last = Some(record);
            }
            if last.is_some() || from == self.from {
                return Ok(last);
            }
            window = window.saturating_mul(4);
        }
    }
}

/// One end of a range of epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The number of an epoch of the task.
    Epoch(u64),
    /// A time: an epoch stands where its stream time does, the greatest event time that it or one before it took.
    Time(EventTime),
}

/// The epochs of a task that are asked for, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first one; without it as early as can be.
    pub from: Option<Edge>,
    /// The last one; without it the last that is recorded.
    pub to: Option<Edge>,
}

/// An epoch, as it is named to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochName {
    /// Its number.
    pub epoch: u64,
    /// Its stream time.
    pub stream_time: Option<EventTime>,
}

impl EpochName {
    /// The name of a recorded epoch.
    pub fn of(record: &EpochRecord) -> Self {
        Self { epoch: unsigned(record.epoch), stream_time: record.stream_time_ms.map(EventTime::from_ms) }
    }
}

impl std::fmt::Display for EpochName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.stream_time {
            Some(time) => write!(f, "epoch {} ({time})", self.epoch),
            None => write!(f, "epoch {}", self.epoch),
        }
    }
}

/// What of a task's journal is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The first epoch.
    pub first: EpochName,
    /// The last epoch.
    pub last: EpochName,
}

/// The epochs that a range stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epochs {
    /// What is kept.
    pub kept: Kept,
    /// The first epoch of the range, if one was asked for.
    pub from: Option<u64>,
    /// The last epoch of the range.
    pub to: u64,
}

/// Why a range holds nothing that could be verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It begins before what is kept.
    #[error(
        "{stage}/{task}: {asked} is not kept: the epoch records in {at} begin with {first}. A longer retention of that \
         topic keeps more from now on"
    )]
    NotKept {
        /// The stage.
        stage: SmolStr,
        /// The task.
        task: u32,
        /// What was asked for.
        asked: String,
        /// Where the epoch records lie.
        at: TopicPartition,
        /// The first epoch kept.
        first: EpochName,
    },
    /// It begins, or by its number ends, after the last epoch.
    #[error("{stage}/{task}: {asked} is not there yet: the epoch records in {at} end with {last}")]
    AfterLast {
        /// The stage.
        stage: SmolStr,
        /// The task.
        task: u32,
        /// What was asked for.
        asked: String,
        /// Where the epoch records lie.
        at: TopicPartition,
        /// The last epoch.
        last: EpochName,
    },
    /// No epoch lies in it.
    #[error("{stage}/{task}: no epoch lies from {from} to {to}; there are {first} to {last}{between}")]
    Empty {
        /// The stage.
        stage: SmolStr,
        /// The task.
        task: u32,
        /// Its begin, as it was asked for.
        from: String,
        /// Its end, as it was asked for.
        to: String,
        /// The first epoch kept.
        first: EpochName,
        /// The last epoch.
        last: EpochName,
        /// What lies around it.
        between: String,
    },
}

/// The epochs of a task that `range` stands for; `None` if the task has none at all.
pub fn epochs_of(
    log: &dyn Log,
    spec: &StageSpec,
    book: &SchemaBook,
    task: u32,
    range: &Range,
) -> Result<Option<Epochs>, RangeError> {
    let mut journal = Journal::new(log, spec, book, task)?;
    let Some(last) = journal.last()?.map(|record| EpochName::of(&record)) else { return Ok(None) };
    let Some(first) = journal.peek()?.map(EpochName::of) else { return Ok(None) };
    let kept = Kept { first, last };
    let finder = Finder { spec, task, kept, at: journal.at.clone() };
    let from = range.from.map(|edge| finder.from(log, book, edge)).transpose()?;
    let to = range.to.map(|edge| finder.to(log, book, edge)).transpose()?.unwrap_or(last.epoch);
    if to < from.unwrap_or(first.epoch) {
        return Err(finder.empty(log, book, range, to)?);
    }
    Ok(Some(Epochs { kept, from, to }))
}

struct Finder<'a> {
    spec: &'a StageSpec,
    task: u32,
    kept: Kept,
    at: TopicPartition,
}

impl Finder<'_> {
    fn from(&self, log: &dyn Log, book: &SchemaBook, edge: Edge) -> Result<u64, RangeError> {
        let first = self.kept.first;
        match edge {
            Edge::Epoch(epoch) if epoch < first.epoch => Err(self.not_kept(edge)),
            Edge::Epoch(epoch) if epoch > self.kept.last.epoch => Err(self.after_last(edge)),
            Edge::Epoch(epoch) => Ok(epoch),
            Edge::Time(time) if first.epoch > 1 && first.stream_time.is_none_or(|first| time < first) => {
                Err(self.not_kept(edge))
            }
            Edge::Time(time) => match self.first_at(log, book, |stream| stream >= time)? {
                Some(found) => Ok(found.epoch),
                None => Err(self.after_last(edge)),
            },
        }
    }

    fn to(&self, log: &dyn Log, book: &SchemaBook, edge: Edge) -> Result<u64, RangeError> {
        let first = self.kept.first;
        match edge {
            Edge::Epoch(epoch) if epoch < first.epoch => Err(self.not_kept(edge)),
            Edge::Epoch(epoch) if epoch > self.kept.last.epoch => Err(self.after_last(edge)),
            Edge::Epoch(epoch) => Ok(epoch),
            Edge::Time(time) if first.epoch > 1 && first.stream_time.is_none_or(|first| time < first) => {
                Err(self.not_kept(edge))
            }
            Edge::Time(time) => {
                let after = self.first_at(log, book, |stream| stream > time)?;
                Ok(after.map_or(self.kept.last.epoch, |after| after.epoch.saturating_sub(1)))
            }
        }
    }

    /// The first epoch at whose stream time `reached` is true. Stream time never goes back.
    fn first_at(
        &self,
        log: &dyn Log,
        book: &SchemaBook,
        reached: impl Fn(EventTime) -> bool,
    ) -> Result<Option<EpochName>, LogError> {
        let mut journal = Journal::new(log, self.spec, book, self.task)?;
        let is_there =
            |record: &EpochRecord| record.stream_time_ms.is_some_and(|ms| reached(EventTime::from_ms(ms)));
        journal.from = journal.seek(|record| !is_there(record))?;
        while let Some(record) = journal.next_record()? {
            if is_there(&record) {
                return Ok(Some(EpochName::of(&record)));
            }
        }
        Ok(None)
    }

    fn not_kept(&self, edge: Edge) -> RangeError {
        RangeError::NotKept {
            stage: self.spec.name.clone(),
            task: self.task,
            asked: name_of(edge),
            at: self.at.clone(),
            first: self.kept.first,
        }
    }

    fn after_last(&self, edge: Edge) -> RangeError {
        RangeError::AfterLast {
            stage: self.spec.name.clone(),
            task: self.task,
            asked: name_of(edge),
            at: self.at.clone(),
            last: self.kept.last,
        }
    }

    fn empty(
        &self,
        log: &dyn Log,
        book: &SchemaBook,
        range: &Range,
        before: u64,
    ) -> Result<RangeError, LogError> {
        let mut journal = Journal::new(log, self.spec, book, self.task)?;
        journal.skip_past(before.saturating_sub(1))?;
        let around: Vec<String> = [journal.next_record()?, journal.next_record()?]
            .iter()
            .flatten()
            .map(|record| EpochName::of(record).to_string())
            .collect();
        let between = if around.is_empty() {
            String::new()
        } else {
            format!(", and {} around it", around.join(" and "))
        };
        let name = |edge: Option<Edge>, other: EpochName| edge.map_or_else(|| other.to_string(), name_of);
        Ok(RangeError::Empty {
            stage: self.spec.name.clone(),
            task: self.task,
            from: name(range.from, self.kept.first),
            to: name(range.to, self.kept.last),
            first: self.kept.first,
            last: self.kept.last,
            between,
        })
    }
}

fn name_of(edge: Edge) -> String {
    match edge {
        Edge::Epoch(epoch) => format!("epoch {epoch}"),
        Edge::Time(time) => format!("stream time {time}"),
    }
}
