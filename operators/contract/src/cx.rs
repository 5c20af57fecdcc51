//! What an operator sees of time, and where it puts what follows from a record.

use tidewire_schemas::{EventTime, Record};

use crate::key::Key;
use crate::operator::Input;

/// Time as a task knows it. No clock is read: all of it follows from the records and the epoch's stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// No record older than this is expected; what comes later than it is late. `None` before the first.
    pub watermark: Option<EventTime>,
    /// Running maximum of record times, carried on by stamps and timers. It never goes back.
    pub stream_time: EventTime,
    /// Processing time of the epoch; in a synchronised run, virtual time.
    pub stamp: EventTime,
}

/// A record that an operator gave out.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    /// The key under which operators further down see it.
    pub key: Key,
    /// The record.
    pub record: Record,
}

/// A record that missed its window; it goes to the topic of late records.
#[derive(Clone, Debug, PartialEq)]
pub struct LateNote {
    /// Start of the window it belonged to.
    pub window_start: EventTime,
    /// End of that window, exclusive.
    pub window_end: EventTime,
}

/// A change to an operator's timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerChange {
    /// Fire once when time reaches `at`. Setting a timer that is set changes nothing.
    Set {
        /// Whose state the timer is for.
        key: Key,
        /// When.
        at: EventTime,
        /// The operator's own mark.
        tag: u32,
    },
    /// Do not fire.
    Cancel {
        /// Whose timer.
        key: Key,
        /// The time it was set for.
        at: EventTime,
        /// The mark it was set with.
        tag: u32,
    },
}

/// All that a call had for effect, besides state.
#[derive(Debug, Default)]
pub struct Effects {
    /// Records given out, in order.
    pub emitted: Vec<Emission>,
    /// Timers set and cancelled, in order.
    pub timers: Vec<TimerChange>,
    /// Windows that the record at hand missed.
    pub late: Vec<LateNote>,
}

/// Passed to each call of an operator.
pub struct Cx<'a> {
    moment: Moment,
    node: &'a str,
    key: Option<&'a Key>,
    effects: &'a mut Effects,
}

impl<'a> Cx<'a> {
    /// Made by the engine. `node` is the operator's id in its stage; `key` is absent for broadcast records.
    pub fn new(moment: Moment, node: &'a str, key: Option<&'a Key>, effects: &'a mut Effects) -> Self {
        Self { moment, node, key, effects }
    }

    /// Time as of this call.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// True when nothing before `time` is expected any more.
    pub fn has_passed(&self, time: EventTime) -> bool {
        self.moment.watermark.is_some_and(|watermark| watermark >= time)
    }

    /// The operator's id in the pipeline file.
    pub fn node(&self) -> &str {
        self.node
    }

    /// Gives out a record under the key at hand. Without one (broadcast) nothing is given out: use
    /// [`Cx::emit_for`] there.
    pub fn emit(&mut self, record: impl Into<Record>) {
        if let Some(key) = self.key {
            self.effects.emitted.push(Emission { key: key.clone(), record: record.into() });
        }
    }

    /// Gives out a record under another key of this task.
    pub fn emit_for(&mut self, key: &Key, record: impl Into<Record>) {
        self.effects.emitted.push(Emission { key: key.clone(), record: record.into() });
    }

    /// Fires [`crate::Operator::on_timer`] for the key at hand, once, when time reaches `at`.
    /// A time already passed fires at the next chance. `tag` tells timers of one key apart.
    pub fn set_timer(&mut self, at: EventTime, tag: u32) {
        if let Some(key) = self.key {
            self.effects.timers.push(TimerChange::Set { key: key.clone(), at, tag });
        }
    }

    /// Takes a timer of the key at hand back.
    pub fn cancel_timer(&mut self, at: EventTime, tag: u32) {
        if let Some(key) = self.key {
            self.effects.timers.push(TimerChange::Cancel { key: key.clone(), at, tag });
        }
    }

    /// Sets a timer for another key of this task.
    pub fn set_timer_for(&mut self, key: &Key, at: EventTime, tag: u32) {
        self.effects.timers.push(TimerChange::Set { key: key.clone(), at, tag });
    }

    /// Says that `input` missed the window [`window_start`, `window_end`): it goes, with that window,
    /// to the topic of late records.
    pub fn late(&mut self, _input: &Input<'_>, window_start: EventTime, window_end: EventTime) {
        self.effects.late.push(LateNote { window_start, window_end });
    }

    /// An id for the `count`-th thing of one kind that this operator made for the key at hand. It depends on
    /// nothing but these, so a re-run makes the same; the count is the operator's to keep in its state.
    pub fn id(&self, count: u64) -> String {
        let key = self.key.map_or("*", |key| key.as_str());
        format!("{}:{key}:{count}", self.node)
    }
}
