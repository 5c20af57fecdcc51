//! One operator of a task, run over one epoch.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use smol_str::SmolStr;
use tidewire_contract::{
    AnyOperator, Cx, Effects, Fault, Input, Interface, Interner, Key, LateNote, NodeSink, PersistError,
    Timer, TimerChange,
};
use tidewire_schemas::EventTime;

use crate::expiry::Expiry;
use crate::frame::{AT_RECORD, Frame, Item, TimerCause};
use crate::task::OperatorView;
use crate::timers::TimerQueue;
use crate::trace::{Took, Tracer};

mod noting;

use noting::At;

/// What an operator could not take, and so what must be left out when the epoch runs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFault {
    /// The operator's id.
    pub node: SmolStr,
    /// Place in the epoch of the record at fault, unless it was a timer.
    pub position: u32,
    /// The timer at fault.
    pub timer: Option<TimerCause>,
    /// A short constant to count by.
    pub code: SmolStr,
    /// What a person needs to know.
    pub text: String,
}

/// What a node gave out in an epoch.
#[derive(Debug, Default)]
pub struct NodeOutput {
    /// Records, in order; shared with the operators further down.
    pub items: Rc<Vec<Item>>,
    /// Records that missed windows, in order.
    pub late: Vec<(Item, LateNote)>,
    /// Timers that were passed over, with position and tick.
    pub skipped: Vec<(u32, i64, TimerCause)>,
}

/// A [`NodeOutput`] in the making.
#[derive(Default)]
struct Gathered {
    items: Vec<Item>,
    late: Vec<(Item, LateNote)>,
    skipped: Vec<(u32, i64, TimerCause)>,
}

impl Gathered {
    fn done(self) -> NodeOutput {
        NodeOutput { items: Rc::new(self.items), late: self.late, skipped: self.skipped }
    }
}

/// Facts of the epoch that all nodes share.
pub struct EpochCx<'a> {
    /// Positions and times.
    pub frame: &'a Frame,
    /// The task's keys.
    pub names: &'a RefCell<Interner>,
    /// Timers that are left out, because they made an operator fail: with code and text.
    pub skipped_timers: &'a BTreeMap<TimerCause, (SmolStr, SmolStr)>,
    /// The operator's place in the stage.
    pub place: usize,
    /// What notes calls, if they are noted.
    pub tracer: Option<&'a RefCell<Tracer>>,
}

/// What an operator did since its task began to run, for those who look on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Records taken.
    pub taken: u64,
    /// Timers fired.
    pub timers: u64,
    /// Records given.
    pub given: u64,
    /// Records that missed their windows.
    pub late: u64,
    /// Time spent, by the clock that the graph was given; 0 without one.
    pub busy_ns: u64,
}

/// An operator, its state and its timers.
pub struct Node {
    id: SmolStr,
    operator: Box<dyn AnyOperator>,
    interface: Interface,
    timers: TimerQueue,
    expiry: Option<Expiry>,
    effects: Effects,
    work: Work,
}

impl Node {
    /// A node without any state yet.
    pub fn new(id: SmolStr, operator: Box<dyn AnyOperator>) -> Self {
        let interface = operator.interface();
        let expiry = interface.time_to_live_ms.map(Expiry::new);
        Self {
            id,
            operator,
            interface,
            timers: TimerQueue::default(),
            expiry,
            effects: Effects::default(),
            work: Work::default(),
        }
    }

    /// Counts from here.
    pub fn begin_count(&mut self) {
        self.work = Work::default();
    }

    /// Adds to the time it spent.
    pub fn add_busy_ns(&mut self, ns: u64) {
        self.work.busy_ns = self.work.busy_ns.saturating_add(ns);
    }

    /// The operator's id in its stage.
    pub fn id(&self) -> &SmolStr {
        &self.id
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<EventTime> {
        self.timers.first().map(|timer| timer.at)
    }

    /// Version and layout of the state.
    pub fn state_layout(&self) -> (u32, String) {
        self.operator.state_layout()
    }

    /// What it holds and did. Walks all keys.
    pub fn view(&self) -> OperatorView {
        OperatorView {
            id: self.id.clone(),
            size: self.operator.size(),
            timers: self.timers.len(),
            work: self.work,
        }
    }

    /// Hands over what changed: timers, state, and when keys were touched where they have a time to live.
    pub fn flush(&mut self, names: &Interner, sinks: [&mut dyn NodeSink; 3]) {
        let [timers, state, touches] = sinks;
        self.timers.flush(timers);
        self.operator.flush(names, state);
        if let Some(expiry) = &mut self.expiry {
            expiry.flush(touches);
        }
    }

    /// Takes back an entry of the state.
    pub fn restore(
        &mut self,
        names: &RefCell<Interner>,
        key: Option<&Key>,
        sub: &[u8],
        value: &[u8],
        hash: u64,
    ) -> Result<(), PersistError> {
        let key = key.map(|key| names.borrow_mut().intern(key));
        self.operator.restore(key, sub, value, hash)
    }

    /// Takes back a timer.
    pub fn restore_timer(&mut self, key: &Key, sub: &[u8], hash: u64) -> Result<(), PersistError> {
        self.timers.restore(key, sub, hash)
    }

    /// Takes back when a key was touched. Without a time to live any more, it is forgotten.
    pub fn restore_touch(&mut self, sub: &[u8], value: &[u8], hash: u64) -> Result<(), PersistError> {
        self.expiry.as_mut().map_or(Ok(()), |expiry| expiry.restore(sub, value, hash))
    }

    /// Takes all records of the epoch, edge by edge as given, and fires the timers that fall due among them.
    ///
    /// The order is (position, tick, edge, ordinal): at a position, records that the log record caused, then
    /// what timers caused by their times, each timer of this node after the records of its own time. So it does
    /// not matter how positions are spread over epochs, nor by what steps silent time goes on.
    pub fn run(&mut self, epoch: &EpochCx<'_>, edges: &[Rc<Vec<Item>>]) -> Result<NodeOutput, NodeFault> {
        let prepared = self.prepare(edges);
        let mut out = Gathered::default();
        let mut next = vec![0_usize; edges.len()];
        // Where the node stands: a timer set for a time already passed fires here, not earlier.
        let mut here = (0_u32, AT_RECORD);
        // The time looked for last, and where it passes: most records change no timer.
        let mut passes: (Option<EventTime>, Option<u32>) = (None, None);
        loop {
            let head = next_head(edges, &next);
            let (next_at, expires) = self.next_due();
            if passes.0 != next_at {
                passes = (next_at, next_at.and_then(|at| epoch.frame.position_of(at)));
            }
            let timer = next_at.and_then(|at| {
                let due = (passes.1?, at.as_micros());
                Some(due.max((here.0, if due.0 <= here.0 { due.1.max(here.1) } else { due.1 })))
            });
            match (head, timer) {
                (None, None) => return Ok(self.done(out)),
                (Some((edge, item)), due) if due.is_none_or(|due| item.place() <= due) => {
                    here = item.place();
                    let row =
                        prepared.get(edge).and_then(|rows| rows.get(next[edge])).and_then(Option::as_deref);
                    next[edge] += 1;
                    self.take(epoch, edge, item, row, &mut out)?;
                }
                (_, Some(due)) if expires => {
                    here = due;
                    self.expire(epoch);
                }
                (_, Some(due)) => {
                    here = due;
                    if let Some(timer) = self.timers.pop() {
                        self.fire(epoch, due, &timer, &mut out)?;
                    }
                }
                (Some(_), None) => return Ok(self.done(out)),
            }
        }
    }

    fn done(&mut self, out: Gathered) -> NodeOutput {
        self.work.given += out.items.len() as u64;
        self.work.late += out.late.len() as u64;
        out.done()
    }

    /// The time of the next timer, or of the next key to be dropped if that is earlier.
    fn next_due(&self) -> (Option<EventTime>, bool) {
        let timer = self.next_timer();
        let expiry = self.expiry.as_ref().and_then(Expiry::next);
        let expires = expiry.is_some_and(|expiry| timer.is_none_or(|timer| expiry < timer));
        (if expires { expiry } else { timer }, expires)
    }

    /// Drops the state of the key that was not touched for longest. A key that waits for a timer is kept.
    fn expire(&mut self, epoch: &EpochCx<'_>) {
        let Some(expiry) = &mut self.expiry else { return };
        let Some(at) = expiry.next() else { return };
        let Some(key) = expiry.pop() else { return };
        if self.timers.holds(&key) {
            expiry.touch(&key, at);
        } else if let Some(id) = epoch.names.borrow().get(&key) {
            self.operator.drop_key(id);
        }
    }

    fn take(
        &mut self,
        epoch: &EpochCx<'_>,
        edge: usize,
        item: &Item,
        prepared: Option<&[f64]>,
        out: &mut Gathered,
    ) -> Result<(), NodeFault> {
        let kind = item.record.kind();
        let wanted = if item.broadcast { &self.interface.broadcasts } else { &self.interface.accepts };
        if !wanted.contains(&kind) {
            return Ok(());
        }
        self.work.taken += 1;
        let moment = epoch.frame.moment(item.position, item.tick);
        let key = epoch.names.borrow().name(item.key).clone();
        if let (false, Some(expiry)) = (item.broadcast, &mut self.expiry) {
            expiry.touch(&key, moment.stream_time);
        }
        let noting = self.begin_noting(epoch, &key, Some(item.key).filter(|_| !item.broadcast));
        let input = Input { record: &item.record, key: &key, time: item.time, edge, prepared };
        let (operator, effects) = (&mut self.operator, &mut self.effects);
        let done = guarded(|| {
            if item.broadcast {
                let mut cx = Cx::new(moment, &self.id, None, effects);
                operator.broadcast(&mut cx, &mut epoch.names.borrow_mut(), &input)
            } else {
                operator.record(&mut Cx::new(moment, &self.id, Some(&key), effects), item.key, &input)
            }
        });
        if let Err(fault) = done {
            return Err(self.fault(item.position, item.timer.as_deref().cloned(), fault));
        }
        let at = At { moment, place: item.place(), key: &key, late: self.effects.late.len() };
        for note in self.effects.late.drain(..) {
            out.late.push((item.clone(), note));
        }
        let Some(noting) = noting else {
            self.collect(epoch, item.place(), item.timer.as_ref(), out);
            return Ok(());
        };
        let (timers, given) = (self.effects.timers.clone(), out.items.len());
        self.collect(epoch, item.place(), item.timer.as_ref(), out);
        let took = Took::Record { edge, ordinal: item.ordinal, time: item.time, record: item.record.clone() };
        self.end_noting(epoch, noting, at, took, timers, &out.items[given..]);
        Ok(())
    }

    fn fire(
        &mut self,
        epoch: &EpochCx<'_>,
        (position, tick): (u32, i64),
        timer: &Timer,
        out: &mut Gathered,
    ) -> Result<(), NodeFault> {
        let cause =
            TimerCause { node: self.id.clone(), key: timer.key.clone(), at: timer.at, tag: timer.tag };
        if epoch.skipped_timers.contains_key(&cause) {
            out.skipped.push((position, tick, cause));
            return Ok(());
        }
        self.work.timers += 1;
        let moment = epoch.frame.moment(position, tick);
        let key = epoch.names.borrow_mut().intern(&timer.key);
        let noting = self.begin_noting(epoch, &timer.key, Some(key));
        let (operator, effects) = (&mut self.operator, &mut self.effects);
        let done =
            guarded(|| operator.timer(&mut Cx::new(moment, &self.id, Some(&timer.key), effects), key, timer));
        if let Err(fault) = done {
            return Err(self.fault(position, Some(cause), fault));
        }
        self.effects.late.clear();
        let Some(noting) = noting else {
            self.collect(epoch, (position, tick), Some(&Rc::new(cause)), out);
            return Ok(());
        };
        let (timers, given) = (self.effects.timers.clone(), out.items.len());
        self.collect(epoch, (position, tick), Some(&Rc::new(cause)), out);
        let at = At { moment, place: (position, tick), key: &timer.key, late: 0 };
        self.end_noting(epoch, noting, at, Took::Timer(timer.clone()), timers, &out.items[given..]);
        Ok(())
    }

    /// Moves what a call gave out to where it belongs.
    fn collect(
        &mut self,
        epoch: &EpochCx<'_>,
        (position, tick): (u32, i64),
        timer: Option<&Rc<TimerCause>>,
        out: &mut Gathered,
    ) {
        for change in self.effects.timers.drain(..) {
            match change {
                TimerChange::Set { key, at, tag } => self.timers.set(Timer { at, key, tag }),
                TimerChange::Cancel { key, at, tag } => self.timers.cancel(&Timer { at, key, tag }),
            }
        }
        if self.effects.emitted.is_empty() {
            return;
        }
        let time = epoch.frame.moment(position, tick).stream_time;
        let mut names = epoch.names.borrow_mut();
        for emission in self.effects.emitted.drain(..) {
            out.items.push(Item {
                position,
                tick,
                ordinal: u32::try_from(out.items.len()).unwrap_or(u32::MAX),
                key: names.intern(&emission.key),
                broadcast: false,
                time,
                record: emission.record,
                timer: timer.cloned(),
            });
        }
    }

    /// Rows computed ahead for the records of each edge, where the operator wants that.
    fn prepare(&self, edges: &[Rc<Vec<Item>>]) -> Vec<Vec<Option<Vec<f64>>>> {
        if !self.interface.prepares {
            return Vec::new();
        }
        let wants = |item: &Item| self.interface.accepts.contains(&item.record.kind()) && !item.broadcast;
        edges
            .iter()
            .map(|edge| {
                let wanted: Vec<_> =
                    edge.iter().filter(|item| wants(item)).map(|item| &item.record).collect();
                // A panic here shows again, and is caught, when the record is taken without its row.
                let rows =
                    catch_unwind(AssertUnwindSafe(|| self.operator.prepare(&wanted))).unwrap_or_default();
                let mut rows = rows.into_iter();
                edge.iter().map(|item| if wants(item) { rows.next() } else { None }).collect()
            })
            .collect()
    }

    fn fault(&mut self, position: u32, timer: Option<TimerCause>, fault: Fault) -> NodeFault {
        self.effects = Effects::default();
        NodeFault { node: self.id.clone(), position, timer, code: fault.code.into(), text: fault.text }
    }
}

/// The edge whose next record comes first.
fn next_head<'a>(edges: &'a [Rc<Vec<Item>>], next: &[usize]) -> Option<(usize, &'a Item)> {
    let mut first: Option<(usize, &Item)> = None;
    for (edge, items) in edges.iter().enumerate() {
        if let Some(item) = items.get(next[edge])
            && first.is_none_or(|(rank, head)| item.order(edge, head, rank).is_lt())
        {
            first = Some((edge, item));
        }
    }
    first
}

/// Runs an operator's call; a panic in it becomes a fault like any other.
fn guarded(call: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(Fault::new("panic", panic_text(&*panic))))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
