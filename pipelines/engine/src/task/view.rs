//! What a task shows of itself to those who look on: positions, time, and what its operators hold and did.

use smol_str::SmolStr;
use tidewire_contract::{Entry, Key, StateSize, Timer};
use tidewire_schemas::EventTime;

use super::Task;
use crate::dataflow::MonotonicNs;
use crate::intake::Source;
use crate::log::TopicPartition;
use crate::node::Work;
use crate::plan::Role;
use crate::trace::{Trace, TraceFilter, Tracer};

/// A task at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    /// Its number.
    pub task: u32,
    /// The last closed epoch.
    pub epoch: u64,
    /// The watermark, in milliseconds; none in a stage that has no watermark, or before there is one.
    pub watermark_ms: Option<i64>,
    /// Running maximum of record times, in milliseconds.
    pub stream_time_ms: Option<i64>,
    /// Its input partitions.
    pub sources: Vec<SourceView>,
    /// Its operators, in the order of the stage.
    pub operators: Vec<OperatorView>,
}

/// One input partition of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceView {
    /// The name of the input in the pipeline file.
    pub input: SmolStr,
    /// The partition.
    pub at: TopicPartition,
    /// How it is read.
    pub role: Role,
    /// The first offset that no epoch took.
    pub next_offset: u64,
    /// Whether it would hold the watermark back, but nothing came from it for longer than it may be silent.
    pub idle: bool,
    /// Whether it holds the watermark back.
    pub holds_back: bool,
}

/// One operator of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorView {
    /// Its id in the stage.
    pub id: SmolStr,
    /// State held.
    pub size: StateSize,
    /// Timers that wait.
    pub timers: usize,
    /// What it did since the task began to run.
    pub work: Work,
}

impl Task {
    /// The task as it is now. Walks all keys.
    pub fn view(&self) -> TaskView {
        let holder = self.tide.holder().filter(|_| self.spec.has_watermark());
        let counts = |source: &Source| source.is_external_data() && self.spec.has_watermark();
        let sources = self.intake.sources().iter().zip(&self.engine.positions).enumerate();
        TaskView {
            task: self.number,
            epoch: self.epoch,
            watermark_ms: self.tide.passed().filter(|_| self.spec.has_watermark()).map(EventTime::as_ms),
            stream_time_ms: self.tide.stream_time().map(EventTime::as_ms),
            sources: sources
                .map(|(place, (source, next_offset))| SourceView {
                    input: self.spec.inputs[source.input].id.clone(),
                    at: source.at.clone(),
                    role: source.role,
                    next_offset: *next_offset,
                    idle: counts(source) && self.tide.is_idle(place),
                    holds_back: holder.as_ref().is_some_and(|holder| holder.source == place),
                })
                .collect(),
            operators: self.graph.nodes().iter().map(|node| node.borrow().view()).collect(),
        }
    }

    /// Counts what the operators do from here, with the time they take if there is a clock.
    pub fn begin_count(&self, clock: Option<MonotonicNs>) {
        self.graph.begin_count(clock);
    }

    /// Notes the operators' calls from here on. What comes out stays the same.
    pub fn begin_trace(&mut self, filter: TraceFilter) {
        self.graph.set_tracer(Some(Tracer::new(filter)));
    }

    /// Hands over what was noted since it was asked for last.
    pub fn take_trace(&mut self) -> Trace {
        self.graph.tracer().map(|tracer| tracer.borrow_mut().take()).unwrap_or_default()
    }

    /// Whether calls are noted.
    pub fn is_traced(&self) -> bool {
        self.graph.tracer().is_some()
    }

    /// Notes no more calls.
    pub fn end_trace(&mut self) {
        self.graph.set_tracer(None);
    }

    /// The layout of an operator's state, as text.
    pub fn layout_of(&self, node: usize) -> Option<String> {
        self.graph.nodes().get(node).map(|node| node.borrow().state_layout().1)
    }

    /// What an operator keeps for a key, or for the task: the entries as a flush would write them.
    pub fn state_of(&self, node: usize, key: Option<&str>) -> Vec<Entry> {
        let names = self.graph.names().borrow();
        let id = match key.map(|key| names.get(key)) {
            // A key that the task never saw has no state.
            Some(None) => return Vec::new(),
            Some(id) => id,
            None => None,
        };
        self.graph.nodes().get(node).map(|node| node.borrow().entries(id)).unwrap_or_default()
    }

    /// The timers that a key waits for at an operator.
    pub fn timers_of(&self, node: usize, key: &Key) -> Vec<Timer> {
        self.graph.nodes().get(node).map(|node| node.borrow().timers_of(key)).unwrap_or_default()
    }
}
