//! One epoch as the graph sees it: positions, and how time stood at each.

use std::cmp::Ordering;
use std::rc::Rc;

use tidewire_contract::{Key, KeyId, Moment};
use tidewire_schemas::{EventTime, Record};

/// `tick` of what a record caused; ticks of timers are their times, which come after it.
pub const AT_RECORD: i64 = i64::MIN;

/// How time stands once everything at a position is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Time in the task's sense (the watermark, or stream time where there is none) after the position.
    pub passed: Option<EventTime>,
    /// Running maximum of record times, the position's own record included.
    pub stream_time: EventTime,
    /// The stamp at this position.
    pub stamp: EventTime,
}

/// The positions of an epoch.
#[derive(Debug, Default)]
pub struct Frame {
    /// Time before the first position.
    pub before: Moment,
    /// One step a position, times ascending.
    pub steps: Vec<Step>,
}

impl Frame {
    /// What an operator is told of time at `position`: before the record's own effect on the watermark,
    /// or at the timer that fires.
    pub fn moment(&self, position: u32, tick: i64) -> Moment {
        let index = position as usize;
        let step = self.steps[index];
        if tick == AT_RECORD {
            let watermark = if index == 0 { self.before.watermark } else { self.steps[index - 1].passed };
            Moment { watermark, stream_time: step.stream_time, stamp: step.stamp }
        } else {
            let tick = EventTime::from_micros(tick);
            Moment { watermark: Some(tick), stream_time: step.stream_time.max(tick), stamp: step.stamp }
        }
    }

    /// The first position at which `at` has passed, if that happens in this epoch.
    pub fn position_of(&self, at: EventTime) -> Option<u32> {
        let index = self.steps.partition_point(|step| step.passed.is_none_or(|passed| passed < at));
        (index < self.steps.len()).then(|| u32::try_from(index).unwrap_or(u32::MAX))
    }
}

/// A timer that caused a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerCause {
    /// The operator's id.
    pub node: Key,
    /// Whose timer.
    pub key: Key,
    /// The time it was set for.
    pub at: EventTime,
    /// Its mark.
    pub tag: u32,
}

/// A record on its way through the graph.
#[derive(Clone, Debug)]
pub struct Item {
    /// Place in the epoch of the log record that it is or follows from.
    pub position: u32,
    /// Time of the timer that caused it, in microseconds, or [`AT_RECORD`].
    pub tick: i64,
    /// Its place among what its maker gave out in this epoch.
    pub ordinal: u32,
    /// Its key within the task.
    pub key: KeyId,
    /// Whether it came by a broadcast or control input.
    pub broadcast: bool,
    /// The log's time for a record from a topic, the maker's stream time otherwise.
    pub time: EventTime,
    /// The record.
    pub record: Record,
    /// The timer at the head of its causes, if it was not a record.
    pub timer: Option<Rc<TimerCause>>,
}

impl Item {
    /// Where it stands in the one order that a node with several edges takes its records in.
    pub fn place(&self) -> (u32, i64) {
        (self.position, self.tick)
    }

    /// Order among items of several makers, given each one's rank.
    pub fn order(&self, rank: usize, other: &Item, other_rank: usize) -> Ordering {
        (self.place(), rank, self.ordinal).cmp(&(other.place(), other_rank, other.ordinal))
    }
}
