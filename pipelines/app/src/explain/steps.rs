//! Recorded epochs run again call by call, with breakpoints.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde::Serialize;
use serde_json::{Value, json};
use smol_str::SmolStr;
use tidewire_contract::{Key, NodeLayout};
use tidewire_engine::intake::Source;
use tidewire_engine::plan::Upstream;
use tidewire_engine::task::Task;
use tidewire_engine::trace::{Call, Took, TraceFilter, TraceStates};

use super::condition::Condition;
use super::grow::{brief, place_text};
use super::past::{Past, Start};
use super::states::{changes, show_entries, shown};
use super::tree::{Brief, Change};
use super::words;

/// Where to stop.
#[derive(Clone, Debug, Default)]
pub struct Breakpoint {
    /// Only at this key.
    pub key: Option<Key>,
    /// Only at this operator, by its place.
    pub node: Option<usize>,
    /// Only where a record taken or given is so.
    pub when: Option<Condition>,
    /// Whether the states of other operators may be asked for at any stop.
    pub with_others: bool,
}

/// One call, as it is shown.
#[derive(Debug, Serialize)]
pub struct Step {
    /// The epoch.
    pub epoch: u64,
    /// The position in it.
    pub position: u32,
    /// The operator.
    pub operator: String,
    /// What it is.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The key.
    pub key: String,
    /// Whether the record came by broadcast; the state is the task's then.
    pub broadcast: bool,
    /// Watermark, stream time and stamp as the operator saw them.
    pub time: Value,
    /// What made it act, in words.
    pub trigger: String,
    /// The record that it took; none for a timer.
    pub took: Option<Brief>,
    /// The log record at the position.
    pub origin: Option<String>,
    /// What it gave out.
    pub gave: Vec<Brief>,
    /// Windows that the record missed.
    pub late: usize,
    /// Timers set and taken back.
    pub timers: Vec<String>,
    /// The state before.
    pub state_before: Value,
    /// The state after.
    pub state_after: Value,
    /// What differs between the two.
    pub changed: Vec<Change>,
    /// Whether the breakpoint's condition holds here.
    #[serde(skip)]
    pub is_hit: bool,
}

/// What the one who looks says after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// To the next call.
    Next,
    /// To the next call where the condition holds.
    Continue,
    /// To the next epoch.
    NextEpoch,
    /// No further.
    Stop,
}

/// An epoch while it is stepped through.
pub struct EpochSteps<'a> {
    past: &'a Past<'a>,
    task: &'a Task,
    layouts: &'a [Option<NodeLayout>],
    /// The calls, in their order.
    calls: Vec<Call>,
}

/// Runs epochs again up to `last`, and shows each call that the breakpoint lets through, from epoch `first` on.
pub fn run(
    past: &Past<'_>,
    start: Start,
    (first, last): (i64, i64),
    at: &Breakpoint,
    mut look: impl FnMut(&EpochSteps<'_>, usize, &Step) -> anyhow::Result<Go>,
    mut differs: impl FnMut(i64, &str),
) -> anyhow::Result<()> {
    let layouts: Vec<Option<NodeLayout>> =
        (0..past.spec.nodes.len()).map(|node| NodeLayout::parse(&start.task.layout_of(node)?).ok()).collect();
    let filter = TraceFilter {
        keys: at.key.as_ref().map(|key| BTreeSet::from([key.clone()])),
        nodes: at.node.filter(|_| !at.with_others).map(|node| BTreeSet::from([node])),
        states: TraceStates::All,
    };
    let mut go = Go::Continue;
    past.run(
        start,
        last,
        |task, record| {
            if record.epoch >= first && !task.is_traced() {
                task.begin_trace(filter.clone());
            }
        },
        |task, rerun| {
            if let Some(what) = &rerun.difference {
                differs(rerun.record.epoch, what);
            }
            if rerun.record.epoch < first {
                return Ok(ControlFlow::Continue(()));
            }
            let mut calls = task.take_trace().calls;
            calls.retain(|call| at.key.as_ref().is_none_or(|key| *key == call.key));
            calls.sort_by_key(Call::place);
            let steps = EpochSteps { past, task, layouts: &layouts, calls };
            for (place, call) in steps.calls.iter().enumerate() {
                if at.node.is_some_and(|node| node != call.node) {
                    continue;
                }
                let step = steps.step(call, at);
                if go != Go::Next && !step.is_hit {
                    continue;
                }
                go = look(&steps, place, &step)?;
                match go {
                    Go::Stop => return Ok(ControlFlow::Break(())),
                    Go::NextEpoch => break,
                    Go::Next | Go::Continue => {}
                }
            }
            Ok(ControlFlow::Continue(()))
        },
    )
}

impl EpochSteps<'_> {
    fn step(&self, call: &Call, at: &Breakpoint) -> Step {
        let spec = &self.past.spec.nodes[call.node];
        let (before, after) = match (&call.state, &self.layouts[call.node]) {
            (Some(state), Some(layout)) => {
                (shown(layout, call, &state.before), shown(layout, call, &state.after))
            }
            _ => (Value::Null, Value::Null),
        };
        let origin = self.origin(call);
        let took = match &call.took {
            Took::Record { record, edge, .. } => {
                let of_log = matches!(spec.from.get(*edge), Some(Upstream::Input(_)));
                Some(Brief { place: origin.clone().filter(|_| of_log), ..brief(record, &call.key) })
            }
            Took::Timer(_) => None,
        };
        let gave: Vec<Brief> = call.gave.iter().map(|gave| brief(&gave.record, &gave.key)).collect();
        let is_hit = at
            .when
            .as_ref()
            .is_none_or(|when| took.iter().chain(&gave).any(|brief| when.holds(&brief.value)));
        Step {
            epoch: call.epoch,
            position: call.position,
            operator: spec.id.to_string(),
            type_name: spec.operator.name.to_owned(),
            key: call.key.to_string(),
            broadcast: call.broadcast,
            time: json!({
                "watermark": call.moment.watermark.map(|time| time.to_string()),
                "stream_time": call.moment.stream_time.to_string(),
                "stamp": call.moment.stamp.to_string(),
            }),
            trigger: words::trigger(call),
            took,
            origin,
            gave,
            late: call.late,
            timers: call.timers.iter().map(words::timer_change).collect(),
            changed: changes(&before, &after),
            state_before: before,
            state_after: after,
            is_hit,
        }
    }

    fn origin(&self, call: &Call) -> Option<String> {
        let (source, offset) = call.origin?;
        let sources = Source::of_task(&self.past.spec, self.past.task);
        Some(place_text(&sources.get(source)?.at, offset))
    }

    /// The state of every operator for the key of a call, as it was right after it.
    pub fn states(&self, place: usize) -> Vec<(SmolStr, Value)> {
        let Some(here) = self.calls.get(place) else { return Vec::new() };
        let nodes = self.past.spec.nodes.iter().enumerate();
        nodes
            .map(|(node, spec)| {
                let own = |call: &&Call| call.node == node && call.key == here.key && !call.broadcast;
                let upto = self.calls[..=place]
                    .iter()
                    .rev()
                    .find(own)
                    .and_then(|call| Some(&call.state.as_ref()?.after));
                let later = || {
                    self.calls[place..].iter().find(own).and_then(|call| Some(&call.state.as_ref()?.before))
                };
                // An operator without a call for the key in this epoch has the state that it ends with.
                let now = || self.task.state_of(node, Some(&here.key));
                let entries = upto.or_else(later).cloned().unwrap_or_else(now);
                let layout = self.layouts[node].as_ref();
                (spec.id.clone(), layout.map_or(Value::Null, |layout| show_entries(layout, false, &entries)))
            })
            .collect()
    }
}
