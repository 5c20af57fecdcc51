//! The graph of a task on timely dataflow. Nothing outside this file knows timely.
//!
//! A task is one single-threaded timely worker with one dataflow. Exactly one bundle passes each edge in an epoch, even an
//! empty one, so an operator runs once it has one of each upstream, and the epoch is over when every operator has run.
//! Timely's own times stay where they are: to have each epoch pass as a timestamp through the frontiers of all operators
//! costs more than what most epochs do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use smol_str::SmolStr;
use tidewire_contract::Interner;
use timely::WorkerConfig;
use timely::communication::Allocator;
use timely::communication::allocator::thread::Thread;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concatenate;
use timely::dataflow::operators::generic::Operator as _;
use timely::dataflow::operators::vec::input::Input as _;
use timely::dataflow::{InputHandleVec, Stream};
use timely::worker::Worker;

use crate::frame::{Frame, Item, TimerCause};
use crate::node::{EpochCx, Node, NodeFault, NodeOutput};
use crate::plan::{NodeSpec, Upstream};
use crate::trace::Tracer;

/// What passes an edge in one epoch.
#[derive(Clone)]
struct Bundle {
    from: Upstream,
    items: Rc<Vec<Item>>,
}

/// An epoch as it is handed to the graph.
pub struct Epoch {
    /// Positions and times.
    pub frame: Rc<Frame>,
    /// The records of each input, in order.
    pub inputs: Vec<Vec<Item>>,
    /// Timers to leave out.
    pub skipped_timers: BTreeMap<TimerCause, (SmolStr, SmolStr)>,
}

/// What all operators of the graph share in an epoch.
struct Shared {
    names: RefCell<Interner>,
    epoch: RefCell<Option<Epoch>>,
    outputs: RefCell<Vec<Option<NodeOutput>>>,
    /// Operators that ran in this epoch.
    ran: Cell<usize>,
    fault: RefCell<Option<NodeFault>>,
    clock: Cell<Option<MonotonicNs>>,
    /// Whether calls are noted; looked at once an operator and epoch.
    tracing: Cell<bool>,
    tracer: RefCell<Tracer>,
}

/// Nanoseconds since some moment, passed in by those who measure: what it says reaches no result.
pub type MonotonicNs = fn() -> u64;

/// The running graph of one task.
pub struct Graph {
    worker: Worker,
    input: InputHandleVec<u64, Bundle>,
    nodes: Vec<Rc<RefCell<Node>>>,
    shared: Rc<Shared>,
}

impl Graph {
    /// Builds the operators and connects them.
    pub fn new(specs: &[NodeSpec]) -> Result<Self, String> {
        let mut nodes = Vec::with_capacity(specs.len());
        for spec in specs {
            let operator = spec.build().map_err(|error| format!("operator {}: {error}", spec.id))?;
            nodes.push(Rc::new(RefCell::new(Node::new(spec.id.clone(), operator))));
        }
        let shared = Rc::new(Shared {
            names: RefCell::default(),
            epoch: RefCell::default(),
            outputs: RefCell::new(specs.iter().map(|_| None).collect()),
            ran: Cell::default(),
            fault: RefCell::default(),
            clock: Cell::default(),
            tracing: Cell::default(),
            tracer: RefCell::default(),
        });
        let mut worker = Worker::new(WorkerConfig::default(), Allocator::Thread(Thread::default()), None);
        let input = connect(&mut worker, specs, &nodes, &shared);
        Ok(Self { worker, input, nodes, shared })
    }

    /// The operators, in the order of the stage.
    pub fn nodes(&self) -> &[Rc<RefCell<Node>>] {
        &self.nodes
    }

    /// Counts what the operators do from here, with the time they take if there is a clock.
    pub fn begin_count(&self, clock: Option<MonotonicNs>) {
        self.shared.clock.set(clock);
        self.nodes.iter().for_each(|node| node.borrow_mut().begin_count());
    }

    /// Notes calls from here on, or no more.
    pub fn set_tracer(&self, tracer: Option<Tracer>) {
        self.shared.tracing.set(tracer.is_some());
        *self.shared.tracer.borrow_mut() = tracer.unwrap_or_default();
    }

    /// What notes calls, if they are noted.
    pub fn tracer(&self) -> Option<&RefCell<Tracer>> {
        self.shared.tracing.get().then_some(&self.shared.tracer)
    }

    /// The task's keys.
    pub fn names(&self) -> &RefCell<Interner> {
        &self.shared.names
    }

    /// Runs an epoch until the graph is quiescent; returns what each operator gave out.
    /// After a fault the state of the graph is of no use any more.
    pub fn run(&mut self, mut epoch: Epoch) -> Result<Vec<NodeOutput>, NodeFault> {
        let inputs = std::mem::take(&mut epoch.inputs);
        *self.shared.epoch.borrow_mut() = Some(epoch);
        for (place, items) in inputs.into_iter().enumerate() {
            self.input.send(Bundle { from: Upstream::Input(place), items: Rc::new(items) });
        }
        self.input.flush();
        self.shared.ran.set(0);
        while self.shared.ran.get() < self.nodes.len() {
            self.worker.step();
        }
        *self.shared.epoch.borrow_mut() = None;
        if let Some(fault) = self.shared.fault.borrow_mut().take() {
            return Err(fault);
        }
        let mut outputs = self.shared.outputs.borrow_mut();
        Ok(outputs.iter_mut().map(|output| output.take().unwrap_or_default()).collect())
    }
}

/// Lifts each operator into the dataflow; returns its one input.
fn connect(
    worker: &mut Worker,
    specs: &[NodeSpec],
    nodes: &[Rc<RefCell<Node>>],
    shared: &Rc<Shared>,
) -> InputHandleVec<u64, Bundle> {
    worker.dataflow::<u64, _, _>(|scope| {
        let (input, source) = scope.new_input::<Bundle>();
        let mut streams: Vec<Stream<'_, u64, Vec<Bundle>>> = Vec::with_capacity(specs.len());
        for (place, spec) in specs.iter().enumerate() {
            let fed = spec.from.iter().any(|upstream| matches!(upstream, Upstream::Input(_)));
            let above = spec.from.iter().filter_map(|upstream| match upstream {
                Upstream::Node(node) => streams.get(*node).cloned(),
                Upstream::Input(_) => None,
            });
            let from: Vec<_> = above.chain(fed.then(|| source.clone())).collect();
            let merged = scope.concatenate(from);
            streams.push(lift(merged, spec, place, Rc::clone(&nodes[place]), Rc::clone(shared)));
        }
        input
    })
}

/// One operator in the dataflow.
fn lift<'scope>(
    merged: Stream<'scope, u64, Vec<Bundle>>,
    spec: &NodeSpec,
    place: usize,
    node: Rc<RefCell<Node>>,
    shared: Rc<Shared>,
) -> Stream<'scope, u64, Vec<Bundle>> {
    let from = spec.from.clone();
    let mut edges: Vec<Option<Rc<Vec<Item>>>> = vec![None; from.len()];
    merged.unary(Pipeline, &spec.id, |_, _| {
        move |input, output| {
            input.for_each_time(|time, bundles| {
                for bundle in bundles.flat_map(|bundles| bundles.drain(..)) {
                    for (edge, _) in edges.iter_mut().zip(&from).filter(|(_, from)| **from == bundle.from) {
                        *edge = Some(Rc::clone(&bundle.items));
                    }
                }
                if edges.iter().all(Option::is_some) {
                    let taken: Vec<_> = edges.iter_mut().filter_map(Option::take).collect();
                    let items = run_node(&node, place, &taken, &shared);
                    output.session(&time).give(Bundle { from: Upstream::Node(place), items });
                }
            });
        }
    })
}

/// Runs one operator, unless one before it failed; keeps what it gave out and passes it on.
fn run_node(node: &RefCell<Node>, place: usize, edges: &[Rc<Vec<Item>>], shared: &Shared) -> Rc<Vec<Item>> {
    shared.ran.set(shared.ran.get() + 1);
    if shared.fault.borrow().is_some() {
        return Rc::default();
    }
    let epoch = shared.epoch.borrow();
    let Some(epoch) = epoch.as_ref() else {
        return Rc::default();
    };
    let cx = EpochCx {
        frame: &epoch.frame,
        names: &shared.names,
        skipped_timers: &epoch.skipped_timers,
        place,
        tracer: shared.tracing.get().then_some(&shared.tracer),
    };
    let clock = shared.clock.get();
    let begun_ns = clock.map(|clock| clock());
    let mut node = node.borrow_mut();
    let done = node.run(&cx, edges);
    if let (Some(clock), Some(begun_ns)) = (clock, begun_ns) {
        node.add_busy_ns(clock().saturating_sub(begun_ns));
    }
    match done {
        Ok(output) => {
            let items = Rc::clone(&output.items);
            shared.outputs.borrow_mut()[place] = Some(output);
            items
        }
        Err(fault) => {
            *shared.fault.borrow_mut() = Some(fault);
            Rc::default()
        }
    }
}
