//! A stretch of a task's epochs, run again and noted call by call.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use tidewire_contract::{Key, NodeLayout};
use tidewire_engine::identity::Identity;
use tidewire_engine::outputs::Output;
use tidewire_engine::plan::{Role, Upstream};
use tidewire_engine::trace::{Call, StateChange, Took, TraceFilter, TraceStates};
use tidewire_schemas::EpochRecord;

use super::past::{Cuts, Past, Rerun};

/// What an item is within a task: epoch, pass, operator, and its place among what that one gave out.
pub type ItemId = (u64, u64, usize, u32);

/// What is to be run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The epochs whose calls are needed run from the cut before this one...
    pub first: i64,
    /// ... to this one.
    pub last: i64,
    /// How many cuts earlier to begin.
    pub back: usize,
    /// The keys that matter.
    pub keys: BTreeSet<Key>,
}

/// A stretch that was run again.
pub struct Stretch {
    /// What was wanted of it.
    pub wanted: Wanted,
    /// The epoch of the cut that it began from; 0 is the very beginning.
    pub began_after: i64,
    /// Where each source stood then.
    pub positions: Vec<u64>,
    /// Greatest event time by then, in milliseconds.
    pub began_at_ms: Option<i64>,
    /// The epochs.
    pub epochs: BTreeMap<i64, EpochRecord>,
    /// The first epoch that came out otherwise than recorded, and how.
    pub difference: Option<(i64, String)>,
    /// The calls, in the order of each operator.
    pub calls: Vec<Call>,
    /// Calls that were left out, because there were too many.
    pub dropped: u64,
    /// How the operators' states are read.
    pub layouts: Vec<Option<NodeLayout>>,
    makers: BTreeMap<ItemId, usize>,
    by_node: BTreeMap<(usize, Key), Vec<usize>>,
    by_broadcast: BTreeMap<usize, Vec<usize>>,
    items_by_sequence: BTreeMap<u64, ItemId>,
    sequences: BTreeMap<ItemId, u64>,
    outputs: BTreeMap<u64, Output>,
    states: BTreeMap<u64, StateChange>,
}

impl Stretch {
    /// Runs it.
    pub fn run(past: &Past<'_>, cuts: &Cuts, wanted: Wanted) -> anyhow::Result<Self> {
        let start = past.start_before(wanted.first, cuts, wanted.back)?;
        let layouts = (0..past.spec.nodes.len())
            .map(|node| NodeLayout::parse(&start.task.layout_of(node)?).ok())
            .collect();
        let mut start = start;
        let mut stretch = Self {
            began_after: start.after,
            positions: start.task.intake().positions(),
            began_at_ms: start.task.tide().stream_time().map(tidewire_schemas::EventTime::as_ms),
            layouts,
            epochs: BTreeMap::new(),
            difference: None,
            calls: Vec::new(),
            dropped: 0,
            makers: BTreeMap::new(),
            by_node: BTreeMap::new(),
            by_broadcast: BTreeMap::new(),
            items_by_sequence: BTreeMap::new(),
            sequences: BTreeMap::new(),
            outputs: BTreeMap::new(),
            states: BTreeMap::new(),
            wanted: wanted.clone(),
        };
        start.task.begin_trace(stretch.filter(TraceStates::None));
        past.run(
            start,
            wanted.last,
            |_, _| {},
            |task, rerun| {
                let trace = task.take_trace();
                stretch.take(trace, rerun);
                Ok(ControlFlow::Continue(()))
            },
        )?;
        stretch.index();
        Ok(stretch)
    }

    /// Runs it once more for the states before and after these calls.
    pub fn add_states(&mut self, past: &Past<'_>, cuts: &Cuts, numbers: BTreeSet<u64>) -> anyhow::Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let mut start = past.start_before(self.wanted.first, cuts, self.wanted.back)?;
        start.task.begin_trace(self.filter(TraceStates::Of(numbers)));
        let states = &mut self.states;
        past.run(
            start,
            self.wanted.last,
            |_, _| {},
            |task, _| {
                for call in task.take_trace().calls {
                    if let Some(state) = call.state {
                        states.insert(call.number, state);
                    }
                }
                Ok(ControlFlow::Continue(()))
            },
        )
    }

    fn filter(&self, states: TraceStates) -> TraceFilter {
        TraceFilter { keys: Some(self.wanted.keys.clone()), nodes: None, states }
    }

    fn take(&mut self, trace: tidewire_engine::trace::Trace, rerun: Rerun) {
        self.dropped += trace.dropped;
        self.calls.extend(trace.calls);
        let mut sent = BTreeSet::new();
        for item in trace.sent {
            let Some(sequence) = rerun.recorded_sequence(item.sequence) else { continue };
            let id = (item.epoch, item.pass, item.node, item.ordinal);
            self.items_by_sequence.insert(sequence, id);
            self.sequences.insert(id, sequence);
            sent.insert(sequence);
        }
        for output in &rerun.closed.outputs {
            if let Some(sequence) =
                Identity::of(&output.record).and_then(|id| rerun.recorded_sequence(id.sequence))
                && sent.contains(&sequence)
            {
                self.outputs.insert(sequence, output.clone());
            }
        }
        if let (None, Some(what)) = (&self.difference, rerun.difference) {
            self.difference = Some((rerun.record.epoch, what));
        }
        self.epochs.insert(rerun.record.epoch, rerun.record);
    }

    fn index(&mut self) {
        for (place, call) in self.calls.iter().enumerate() {
            for gave in &call.gave {
                self.makers.insert((call.epoch, call.pass, call.node, gave.ordinal), place);
            }
            if call.broadcast {
                self.by_broadcast.entry(call.node).or_default().push(place);
            } else {
                self.by_node.entry((call.node, call.key.clone())).or_default().push(place);
            }
        }
    }

    /// Whether it has this epoch, and these keys.
    pub fn has(&self, epoch: i64, keys: &BTreeSet<Key>) -> bool {
        self.epochs.contains_key(&epoch) && self.wanted.keys.is_superset(keys)
    }

    /// The call that gave out an item.
    pub fn maker(&self, item: ItemId) -> Option<&Call> {
        self.makers.get(&item).map(|place| &self.calls[*place])
    }

    /// The item that an output of the task is.
    pub fn item_of(&self, sequence: u64) -> Option<ItemId> {
        self.items_by_sequence.get(&sequence).copied()
    }

    /// The output that an item became first, if it left the task.
    pub fn sequence_of(&self, item: ItemId) -> Option<u64> {
        self.sequences.get(&item).copied()
    }

    /// An output as it came out now.
    pub fn output(&self, sequence: u64) -> Option<&Output> {
        self.outputs.get(&sequence)
    }

    /// The state before and after a call, once it was asked for.
    pub fn state(&self, number: u64) -> Option<&StateChange> {
        self.states.get(&number)
    }

    /// Earlier calls of the same operator for the same key, newest first.
    pub fn earlier<'a>(&'a self, call: &Call) -> impl Iterator<Item = &'a Call> + use<'a> {
        let all = self.by_node.get(&(call.node, call.key.clone())).map_or(&[][..], Vec::as_slice);
        let number = call.number;
        let upto = all.partition_point(|place| self.calls[*place].number < number);
        all[..upto].iter().rev().map(|place| &self.calls[*place])
    }

    /// Broadcast records that the operator took before, newest first.
    pub fn earlier_broadcasts<'a>(&'a self, call: &Call) -> impl Iterator<Item = &'a Call> + use<'a> {
        let all = self.by_broadcast.get(&call.node).map_or(&[][..], Vec::as_slice);
        let number = call.number;
        let upto = all.partition_point(|place| self.calls[*place].number < number);
        all[..upto].iter().rev().map(|place| &self.calls[*place])
    }
}

/// The keys of the calls that led to an output, found in its epoch alone where the keys are not known beforehand.
pub fn keys_of(past: &Past<'_>, cuts: &Cuts, epoch: i64, sequence: u64) -> anyhow::Result<BTreeSet<Key>> {
    let start = past.start_before(epoch, cuts, 0)?;
    let mut keys = BTreeSet::new();
    past.run(
        start,
        epoch,
        |task, record| {
            if record.epoch == epoch {
                task.begin_trace(TraceFilter::default());
            }
        },
        |task, rerun| {
            if rerun.record.epoch == epoch {
                let trace = task.take_trace();
                let mut makers = BTreeMap::new();
                for call in &trace.calls {
                    for gave in &call.gave {
                        makers.insert((call.pass, call.node, gave.ordinal), call);
                    }
                }
                let sent =
                    trace.sent.iter().find(|sent| rerun.recorded_sequence(sent.sequence) == Some(sequence));
                let mut at = sent.map(|sent| (sent.pass, sent.node, sent.ordinal));
                while let Some(call) = at.and_then(|at| makers.get(&at)) {
                    keys.insert(call.key.clone());
                    at = match (&call.took, upstream(past, call)) {
                        (Took::Record { ordinal, .. }, Some(Upstream::Node(node))) => {
                            Some((call.pass, node, *ordinal))
                        }
                        _ => None,
                    };
                }
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(keys)
}

/// What feeds the edge by which a call's record came.
pub fn upstream(past: &Past<'_>, call: &Call) -> Option<Upstream> {
    match call.took {
        Took::Record { edge, .. } => past.spec.nodes.get(call.node)?.from.get(edge).copied(),
        Took::Timer(_) => None,
    }
}

/// Inputs that an operator takes by broadcast or control, by their places in the stage.
pub fn broadcast_inputs(past: &Past<'_>, node: usize) -> Vec<usize> {
    let from = past.spec.nodes.get(node).map_or(&[][..], |node| node.from.as_slice());
    let inputs = from.iter().filter_map(|upstream| match upstream {
        Upstream::Input(input) => Some(*input),
        Upstream::Node(_) => None,
    });
    inputs.filter(|input| matches!(past.spec.inputs[*input].role, Role::Broadcast | Role::Control)).collect()
}
