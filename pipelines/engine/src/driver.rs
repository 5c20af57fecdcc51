//! A stage under test: the production step on a log in memory, with a clock that moves only when told.

use std::sync::Arc;

use bytes::Bytes;
use smol_str::{SmolStr, format_smolstr};
use tidewire_contract::OperatorType;
use tidewire_schemas::{DeadLetter, EpochRecord, Kind, LateRecord, Record, SchemaBook, topics};

use crate::identity::{CAUSE_HEADER, Identity, RECEIVED_HEADER};
use crate::log::{Log, LogError, NewRecord, StoredRecord, TopicPartition, TopicSpec};
use crate::memory::MemoryLog;
use crate::partition::partition_of_compound;
use crate::plan::{Caps, InputSpec, MergeOrder, NodeSpec, OnError, OutputSpec, Role, StageSpec, Upstream};
use crate::recovery::epoch_record;
use crate::worker::{Step, Worker, WorkerError, WorkerOptions};

/// Steps without an end mean that a test hangs: this many are enough for any.
const MAX_STEPS: usize = 100_000;

/// Puts a stage together, for tests and programs that have no pipeline file.
pub struct StageBuilder {
    spec: StageSpec,
}

impl StageBuilder {
    /// A stage without inputs, operators and outputs.
    pub fn new(name: &str) -> Self {
        let spec = StageSpec {
            pipeline: "test".into(),
            name: name.into(),
            inputs: Vec::new(),
            nodes: Vec::new(),
            outputs: Vec::new(),
            side_partitions: 1,
            caps: Caps::default(),
            order: MergeOrder::default(),
            flush_interval_ms: 10_000,
            on_error: OnError::DeadLetter,
            makes_orders: false,
            build_digest: [0; 16],
            pipeline_digest: [0; 16],
        };
        Self { spec }
    }

    /// Adds an input; the first one with [`Role::Driving`] decides the tasks. Its name is the topic's.
    pub fn input(mut self, topic: &str, role: Role, partitions: u32) -> Self {
        self.spec.inputs.push(InputSpec {
            id: topic.into(),
            topic: topic.into(),
            role,
            partitions,
            external: true,
            out_of_orderness_ms: 0,
            idle_after_ms: 1_000,
            max_future_skew_ms: None,
        });
        self
    }

    /// Changes the input that was added last.
    pub fn tuned(mut self, change: impl FnOnce(&mut InputSpec)) -> Self {
        if let Some(input) = self.spec.inputs.last_mut() {
            change(input);
        }
        self
    }

    /// Adds an operator with its settings in TOML, fed by inputs and earlier operators by their names.
    ///
    /// # Panics
    /// On settings that are no TOML and names that are not known: a test's own mistake.
    #[expect(
        clippy::panic,
        clippy::expect_used,
        reason = "only tests build stages by hand, and want to fail at once"
    )]
    pub fn node(mut self, id: &str, operator: OperatorType, settings: &str, from: &[&str]) -> Self {
        let upstream = |name: &&str| {
            let input = self.spec.inputs.iter().position(|input| input.id == *name).map(Upstream::Input);
            let node = self.spec.nodes.iter().position(|node| node.id == *name).map(Upstream::Node);
            input.or(node).unwrap_or_else(|| panic!("operator {id}: nothing is called {name}"))
        };
        let from = from.iter().map(upstream).collect();
        let settings = settings.parse().expect("settings are TOML");
        self.spec.nodes.push(NodeSpec { id: id.into(), operator, settings, from });
        self
    }

    /// Adds an output topic that takes everything the operators `from` give out, keyed by `key_fields`.
    pub fn output(mut self, topic: &str, partitions: u32, from: &[&str], key_fields: &[&str]) -> Self {
        let nodes = self.spec.nodes.iter().enumerate();
        self.spec.outputs.push(OutputSpec {
            topic: topic.into(),
            from: nodes
                .filter(|(_, node)| from.contains(&node.id.as_str()))
                .map(|(place, _)| place)
                .collect(),
            kinds: Vec::new(),
            key_fields: key_fields.iter().map(|field| SmolStr::new(*field)).collect(),
            partitions,
        });
        self
    }

    /// Changes anything else.
    pub fn with(mut self, change: impl FnOnce(&mut StageSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// The stage.
    pub fn build(self) -> StageSpec {
        self.spec
    }
}

/// Makes every topic that a stage reads and writes.
pub fn create_topics(log: &dyn Log, spec: &StageSpec, replay_retention_ms: u64) -> Result<(), LogError> {
    let make = |name: &str, partitions: u32| {
        if log.topic(name)?.is_some() {
            return Ok(());
        }
        let compacted = topics::find(name).is_some_and(|topic| topic.compacted);
        let topic = TopicSpec::new(name, partitions);
        log.create_topic(&if compacted { topic.compacted(replay_retention_ms) } else { topic })
    };
    for input in &spec.inputs {
        make(&input.topic, input.partitions)?;
    }
    for output in &spec.outputs {
        make(&output.topic, output.partitions)?;
    }
    make(topics::LATE, spec.side_partitions)?;
    make(topics::DEAD_LETTERS, spec.side_partitions)?;
    make(&spec.epochs_topic(), spec.tasks())?;
    if log.topic(&spec.changelog_topic())?.is_none() {
        log.create_topic(
            &TopicSpec::new(spec.changelog_topic(), spec.tasks()).compacted(replay_retention_ms),
        )?;
    }
    Ok(())
}

/// An output as a test sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The topic.
    pub topic: SmolStr,
    /// The partition.
    pub partition: u32,
    /// The key.
    pub key: SmolStr,
    /// The log's timestamp, in milliseconds.
    pub time_ms: i64,
    /// Who made it.
    pub id: Option<Identity>,
    /// What caused it.
    pub cause: String,
    /// The record.
    pub record: Record,
}

/// A stage on a log in memory.
pub struct TestDriver {
    log: Arc<MemoryLog>,
    spec: Arc<StageSpec>,
    book: Arc<SchemaBook>,
    worker: Option<Worker>,
    now_ms: i64,
    next_output: std::collections::BTreeMap<TopicPartition, u64>,
    last: Step,
    started: u32,
}

#[expect(clippy::expect_used, reason = "a test wants to fail at once, and here")]
impl TestDriver {
    /// Starts the stage. The clock stands at 0.
    pub fn new(spec: StageSpec) -> Self {
        Self::on(MemoryLog::with_control_records(), spec)
    }

    /// Starts the stage on a log that was prepared.
    pub fn on(log: MemoryLog, spec: StageSpec) -> Self {
        create_topics(&log, &spec, 0).expect("topics can be made");
        let mut driver = Self {
            log: Arc::new(log),
            spec: Arc::new(spec),
            book: Arc::new(SchemaBook::of_this_build()),
            worker: None,
            now_ms: 0,
            next_output: std::collections::BTreeMap::new(),
            last: Step::default(),
            started: 0,
        };
        driver.start();
        driver
    }

    /// The log below.
    pub fn log(&self) -> &Arc<MemoryLog> {
        &self.log
    }
    /// The stage.
    pub fn spec(&self) -> &Arc<StageSpec> {
        &self.spec
    }
    /// The schemas.
    pub fn book(&self) -> &Arc<SchemaBook> {
        &self.book
    }
    /// The running worker.
    pub fn worker(&self) -> Option<&Worker> {
        self.worker.as_ref()
    }
    /// What the steps of the last call did, added up where it makes sense.
    pub fn last_step(&self) -> &Step {
        &self.last
    }

    /// Appends a record to an input without running anything.
    pub fn append(&self, topic: &str, key: &str, time_ms: i64, record: impl Into<Record>) {
        let mut value = Vec::new();
        self.book.encode(&record.into(), &mut value).expect("every kind is registered");
        self.append_raw(topic, key, time_ms, value);
    }

    /// Appends bytes as they are.
    pub fn append_raw(&self, topic: &str, key: &str, time_ms: i64, value: Vec<u8>) {
        let partitions =
            self.log.topic(topic).expect("the log answers").expect("the topic exists").partitions;
        let record = NewRecord {
            timestamp_ms: time_ms,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(value.into()),
            headers: Vec::new(),
        };
        let at = TopicPartition::new(topic, partition_of_compound(key, partitions));
        self.log.append(&at, vec![record]).expect("the log takes it");
    }

    /// Appends a record with a received time, for checks of clock skew.
    pub fn append_received(
        &self,
        topic: &str,
        key: &str,
        time_ms: i64,
        received_ms: i64,
        record: impl Into<Record>,
    ) {
        let mut value = Vec::new();
        self.book.encode(&record.into(), &mut value).expect("every kind is registered");
        let received = format!("{}", received_ms * 1_000_000);
        let record = NewRecord {
            timestamp_ms: time_ms,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(value.into()),
            headers: vec![(RECEIVED_HEADER.into(), received.into())],
        };
        let partitions =
            self.log.topic(topic).expect("the log answers").expect("the topic exists").partitions;
        let at = TopicPartition::new(topic, partition_of_compound(key, partitions));
        self.log.append(&at, vec![record]).expect("the log takes it");
    }

    /// Appends a record and runs until there is nothing to do.
    pub fn pipe(&mut self, topic: &str, key: &str, time_ms: i64, record: impl Into<Record>) -> Vec<Seen> {
        self.append(topic, key, time_ms, record);
        self.run()
    }

    /// Moves the clock on by `ms` of stamps and runs: in silence, windows close.
    pub fn wait_ms(&mut self, ms: i64) -> Vec<Seen> {
        self.now_ms += ms;
        self.run()
    }

    /// Moves the clock on without running anything.
    pub fn clock(&mut self, ms: i64) {
        self.now_ms += ms;
    }

    /// One step of the worker.
    pub fn step_once(&mut self) -> Result<Step, WorkerError> {
        let worker = self.worker.as_mut().ok_or_else(|| WorkerError::Fenced("no worker runs".to_owned()))?;
        worker.step(self.now_ms)
    }

    /// Runs until there is nothing to do; returns the records that came out since the last call.
    pub fn run(&mut self) -> Vec<Seen> {
        self.try_run().expect("the worker goes on");
        self.outputs()
    }

    /// Runs until there is nothing to do.
    pub fn try_run(&mut self) -> Result<(), WorkerError> {
        self.last = Step::default();
        for _ in 0..MAX_STEPS {
            let Some(worker) = &mut self.worker else { return Ok(()) };
            let step = worker.step(self.now_ms)?;
            self.last.records += step.records;
            self.last.epochs += step.epochs;
            self.last.outputs += step.outputs;
            self.last.state_bytes += step.state_bytes;
            self.last.recovered.extend(step.recovered);
            self.last.faults.extend(step.faults);
            self.last.halted.extend(step.halted);
            self.last.finished |= step.finished;
            if !step.worked {
                return Ok(());
            }
        }
        Err(WorkerError::Fenced(format!("not quiet after {MAX_STEPS} steps")))
    }

    /// Kills the worker and starts another: it recovers from the log alone.
    pub fn crash(&mut self) {
        self.worker = None;
        self.start();
    }

    /// Stops the worker cleanly, with a flush.
    pub fn stop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop(self.now_ms).expect("a clean stop");
        }
    }

    /// Goes on with another build or pipeline file of the same stage.
    pub fn restart_with(&mut self, options: WorkerOptions, change: impl FnOnce(&mut StageSpec)) {
        self.worker = None;
        let mut spec = (*self.spec).clone();
        change(&mut spec);
        self.spec = Arc::new(spec);
        self.start_with(options);
    }

    /// All epoch records so far.
    pub fn epochs(&self) -> Vec<EpochRecord> {
        let all = self.records(&self.spec.epochs_topic());
        all.iter().filter_map(|(_, stored)| epoch_record(stored, &self.book)).collect()
    }

    /// All late records so far.
    pub fn late(&self) -> Vec<LateRecord> {
        let all = self.records(topics::LATE);
        all.iter().filter_map(|(_, stored)| LateRecord::try_from(self.decode(stored)).ok()).collect()
    }

    /// All dead letters so far.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let all = self.records(topics::DEAD_LETTERS);
        all.iter().filter_map(|(_, stored)| DeadLetter::try_from(self.decode(stored)).ok()).collect()
    }

    /// All records of a topic as they lie, partition by partition.
    pub fn records(&self, topic: &str) -> Vec<(u32, StoredRecord)> {
        let partitions = self.log.topic(topic).expect("the log answers").map_or(0, |topic| topic.partitions);
        let mut all = Vec::new();
        for partition in 0..partitions {
            let records = self.log.records(&TopicPartition::new(topic, partition)).expect("the log answers");
            all.extend(records.into_iter().map(|stored| (partition, stored)));
        }
        all
    }

    /// Output records since the last call, topic by topic.
    pub fn outputs(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let spec = Arc::clone(&self.spec);
        for output in &spec.outputs {
            for (partition, stored) in self.records(&output.topic) {
                let at = TopicPartition::new(output.topic.clone(), partition);
                let next = self.next_output.entry(at).or_insert(0);
                if stored.offset >= *next {
                    *next = stored.offset + 1;
                    seen.push(self.see(&output.topic, partition, &stored));
                }
            }
        }
        seen
    }

    fn see(&self, topic: &SmolStr, partition: u32, stored: &StoredRecord) -> Seen {
        let text = |bytes: Option<&Bytes>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Seen {
            topic: topic.clone(),
            partition,
            key: text(stored.record.key.as_ref()).unwrap_or_default().into(),
            time_ms: stored.record.timestamp_ms,
            id: Identity::of(&stored.record),
            cause: text(stored.record.header(CAUSE_HEADER)).unwrap_or_default(),
            record: self.decode(stored),
        }
    }

    fn decode(&self, stored: &StoredRecord) -> Record {
        self.book
            .decode(stored.record.value.as_deref().unwrap_or_default())
            .expect("what we wrote can be read")
    }

    fn start(&mut self) {
        self.start_with(WorkerOptions::default());
    }

    fn start_with(&mut self, mut options: WorkerOptions) {
        self.started += 1;
        options.member = format_smolstr!("test-{}", self.started);
        if self.started > 1 {
            // A crashed member's session is over before the next one gets its tasks.
            self.log.expire(&self.spec.group(), &format!("test-{}", self.started - 1));
        }
        let log: Arc<dyn Log> = Arc::clone(&self.log) as Arc<dyn Log>;
        let worker = Worker::new(log, Arc::clone(&self.spec), Arc::clone(&self.book), options);
        self.worker = Some(worker.expect("the group takes the worker"));
    }
}

/// The kinds of the records seen, for short assertions.
pub fn kinds(seen: &[Seen]) -> Vec<Kind> {
    seen.iter().map(|seen| seen.record.kind()).collect()
}
