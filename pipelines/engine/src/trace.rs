//! What operators did, noted call by call for those who ask: what each took, what it gave out, and its state before and after.

use std::collections::BTreeSet;

use tidewire_contract::{Entry, Key, Moment, Timer, TimerChange};
use tidewire_schemas::{EventTime, Record};

use crate::frame::AT_RECORD;
use crate::intake::Taken;
use crate::log::TopicPartition;

/// Most calls that are kept; what is beyond is counted.
pub const MAX_CALLS: usize = 400_000;
/// Most bytes of states that are kept; what is beyond is counted.
pub const MAX_STATE_BYTES: usize = 256 << 20;

/// What is noted.
#[derive(Clone, Debug, Default)]
pub struct TraceFilter {
    /// Only calls for these keys, and what came by broadcast; all without a list.
    pub keys: Option<BTreeSet<Key>>,
    /// Only calls of these operators, by their places; all without a list.
    pub nodes: Option<BTreeSet<usize>>,
    /// Whose state is kept.
    pub states: TraceStates,
}

/// Of which calls the state before and after is kept.
#[derive(Clone, Debug, Default)]
pub enum TraceStates {
    /// Of none.
    #[default]
    None,
    /// Of all that are noted.
    All,
    /// Of those with these numbers: a second run, over the same epochs with the same filter, counts alike.
    Of(BTreeSet<u64>),
}

/// What an operator took.
#[derive(Clone, Debug, PartialEq)]
pub enum Took {
    /// A record.
    Record {
        /// Which of its edges it came by.
        edge: usize,
        /// Its place among what its maker gave out in the same pass; for a record of the log its position.
        ordinal: u32,
        /// Its time.
        time: EventTime,
        /// The record.
        record: Record,
    },
    /// A timer that fired.
    Timer(Timer),
}

/// A record that an operator gave out.
#[derive(Clone, Debug, PartialEq)]
pub struct Gave {
    /// Its place among what the operator gave out in the same pass.
    pub ordinal: u32,
    /// The key under which it goes on.
    pub key: Key,
    /// The record.
    pub record: Record,
}

/// The entries of a state before and after a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateChange {
    /// As they were.
    pub before: Vec<Entry>,
    /// As they are after it.
    pub after: Vec<Entry>,
}

/// One call of an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Its number among the calls that the filter lets through.
    pub number: u64,
    /// The epoch.
    pub epoch: u64,
    /// The pass through the graph in its epoch: 0 for its records, then one for silent time.
    pub pass: u64,
    /// The operator, by its place.
    pub node: usize,
    /// The key; of a broadcast record, that record's.
    pub key: Key,
    /// Whether it was a broadcast or control record; its state is the task's then.
    pub broadcast: bool,
    /// Position in the pass.
    pub position: u32,
    /// Time of the timer at the head of its causes, or [`AT_RECORD`].
    pub tick: i64,
    /// Time as the operator saw it.
    pub moment: Moment,
    /// What it took.
    pub took: Took,
    /// The log record at its position, by source and offset: what it follows from, or what moved time up to a timer.
    pub origin: Option<(usize, u64)>,
    /// What it gave out.
    pub gave: Vec<Gave>,
    /// How many windows the record missed.
    pub late: usize,
    /// Timers set and taken back.
    pub timers: Vec<TimerChange>,
    /// The state, where that was asked for and there was room.
    pub state: Option<StateChange>,
}

impl Call {
    /// Where it stands among all calls: by position, then time of timers, then the operators' order.
    pub fn place(&self) -> (u64, u64, u32, i64, usize, u64) {
        (self.epoch, self.pass, self.position, self.tick, self.node, self.number)
    }

    /// Whether a timer, and no record, is at the head of its causes.
    pub fn is_of_timer(&self) -> bool {
        self.tick != AT_RECORD
    }
}

/// An output that a noted call gave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The epoch.
    pub epoch: u64,
    /// The pass in its epoch.
    pub pass: u64,
    /// The operator.
    pub node: usize,
    /// The record's place among what it gave out.
    pub ordinal: u32,
    /// The task's count of outputs: the last part of its identity.
    pub sequence: u64,
    /// Where it went.
    pub at: TopicPartition,
}

/// What was noted.
#[derive(Debug, Default)]
pub struct Trace {
    /// The calls, operator by operator within a pass.
    pub calls: Vec<Call>,
    /// What of theirs left the task.
    pub sent: Vec<Sent>,
    /// Calls that were left out, because there were too many.
    pub dropped: u64,
    /// Calls whose state was left out, because there was too much of it.
    pub dropped_states: u64,
}

/// A call about to be noted.
#[derive(Clone, Copy, Debug)]
pub struct Noting {
    number: u64,
    /// Whether its state is wanted.
    pub state: bool,
}

/// Notes calls while a task runs. It changes nothing of what comes out.
#[derive(Debug, Default)]
pub struct Tracer {
    filter: TraceFilter,
    epoch: u64,
    pass: u64,
    numbered: u64,
    state_bytes: usize,
    /// Calls of earlier passes.
    settled: usize,
    /// What the calls of this pass gave out: the operator, the first and the last record.
    given: Vec<(usize, u32, u32)>,
    trace: Trace,
}

impl Tracer {
    /// Notes what `filter` lets through.
    pub fn new(filter: TraceFilter) -> Self {
        Self { filter, ..Self::default() }
    }

    /// Hands over what was noted, and goes on.
    pub fn take(&mut self) -> Trace {
        (self.state_bytes, self.settled) = (0, 0);
        std::mem::take(&mut self.trace)
    }

    /// A pass through the graph begins.
    pub fn begin_pass(&mut self, epoch: u64) {
        self.pass = if self.epoch == epoch { self.pass + 1 } else { 0 };
        self.epoch = epoch;
        self.settled = self.trace.calls.len();
    }

    /// Whether the call that comes is to be noted.
    pub fn begin(&mut self, node: usize, key: &Key, broadcast: bool) -> Option<Noting> {
        let filter = &self.filter;
        if filter.nodes.as_ref().is_some_and(|nodes| !nodes.contains(&node))
            || (!broadcast && filter.keys.as_ref().is_some_and(|keys| !keys.contains(key)))
        {
            return None;
        }
        self.numbered += 1;
        if self.trace.calls.len() >= MAX_CALLS {
            self.trace.dropped += 1;
            return None;
        }
        let number = self.numbered;
        let wanted = match &filter.states {
            TraceStates::None => false,
            TraceStates::All => true,
            TraceStates::Of(numbers) => numbers.contains(&number),
        };
        let state = wanted && self.state_bytes < MAX_STATE_BYTES;
        self.trace.dropped_states += u64::from(wanted && !state);
        Some(Noting { number, state })
    }

    /// Notes a call.
    pub fn note(&mut self, noting: Noting, mut call: Call) {
        call.number = noting.number;
        call.epoch = self.epoch;
        call.pass = self.pass;
        if let Some(state) = &call.state {
            let entries = state.before.iter().chain(&state.after);
            self.state_bytes += entries.map(|(sub, value)| sub.len() + value.len()).sum::<usize>();
        }
        self.trace.calls.push(call);
    }

    /// The pass is over: its calls learn the log records at their positions.
    pub fn end_pass(&mut self, taken: &[Taken]) {
        self.given.clear();
        for call in &mut self.trace.calls[self.settled..] {
            call.origin = taken.get(call.position as usize).map(|taken| (taken.source, taken.stored.offset));
            if let (Some(first), Some(last)) = (call.gave.first(), call.gave.last()) {
                self.given.push((call.node, first.ordinal, last.ordinal));
            }
        }
        self.given.sort_unstable();
    }

    /// An output of the pass is sent.
    pub fn sent(&mut self, node: usize, ordinal: u32, sequence: u64, at: &TopicPartition) {
        let place = self.given.partition_point(|(maker, first, _)| (*maker, *first) <= (node, ordinal));
        let before = place.checked_sub(1).map(|place| self.given[place]);
        let noted = before.is_some_and(|(maker, _, last)| maker == node && last >= ordinal);
        if noted {
            self.trace.sent.push(Sent {
                epoch: self.epoch,
                pass: self.pass,
                node,
                ordinal,
                sequence,
                at: at.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(node: usize, given: std::ops::Range<u32>) -> Call {
        let timer = Timer { at: EventTime::default(), key: Key::new("a"), tag: 0 };
        let record = Record::from(tidewire_schemas::Trade::default());
        Call {
            number: 0,
            epoch: 0,
            pass: 0,
            node,
            key: Key::new("a"),
            broadcast: false,
            position: 0,
            tick: AT_RECORD,
            moment: Moment::default(),
            took: Took::Timer(timer),
            origin: None,
            gave: given.map(|ordinal| Gave { ordinal, key: Key::new("a"), record: record.clone() }).collect(),
            late: 0,
            timers: Vec::new(),
            state: None,
        }
    }

    #[test]
    fn only_what_the_filter_lets_through_is_noted_and_its_outputs_are_found() {
        let keys = Some(BTreeSet::from([Key::new("a")]));
        let states = TraceStates::Of(BTreeSet::from([2]));
        let mut tracer = Tracer::new(TraceFilter { keys, nodes: Some(BTreeSet::from([0, 2])), states });
        tracer.begin_pass(7);
        assert!(tracer.begin(1, &Key::new("a"), false).is_none(), "another operator");
        assert!(tracer.begin(0, &Key::new("b"), false).is_none(), "another key");
        assert!(tracer.begin(0, &Key::new("b"), true).is_some(), "broadcast concerns all keys");
        for (node, given) in [(0, 3..5), (0, 5..5), (2, 0..1)] {
            if let Some(noting) = tracer.begin(node, &Key::new("a"), false) {
                assert_eq!(noting.state, noting.number == 2);
                tracer.note(noting, call(node, given));
            }
        }
        tracer.end_pass(&[]);
        let at = TopicPartition::new("t", 0);
        for (sequence, (node, ordinal)) in (1..).zip([(0, 2), (0, 3), (0, 4), (0, 5), (1, 3), (2, 0), (2, 1)])
        {
            tracer.sent(node, ordinal, sequence, &at);
        }
        tracer.begin_pass(7);
        if let Some(noting) = tracer.begin(2, &Key::new("a"), false) {
            tracer.note(noting, call(2, 0..0));
        }
        let trace = tracer.take();
        let calls: Vec<_> = trace.calls.iter().map(|call| (call.number, call.epoch, call.pass)).collect();
        assert_eq!(calls, [(2, 7, 0), (3, 7, 0), (4, 7, 0), (5, 7, 1)]);
        let sent: Vec<u64> = trace.sent.iter().map(|sent| sent.sequence).collect();
        assert_eq!(sent, [2, 3, 6]);
        assert_eq!(tracer.take().calls, [], "it was handed over");
    }

    #[test]
    fn what_is_kept_has_a_bound_and_the_rest_is_counted() {
        let mut tracer = Tracer::new(TraceFilter::default());
        tracer.begin_pass(1);
        for _ in 0..MAX_CALLS + 3 {
            if let Some(noting) = tracer.begin(0, &Key::new("a"), false) {
                tracer.note(noting, call(0, 0..0));
            }
        }
        let trace = tracer.take();
        assert_eq!((trace.calls.len(), trace.dropped), (MAX_CALLS, 3));
    }
}
