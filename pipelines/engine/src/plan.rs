//! What a stage is made of: its inputs, its graph of operators, its outputs and its bounds.
//!
//! A pipeline file becomes these structs; nothing in the engine reads files.

use smol_str::SmolStr;
use tidewire_contract::{AnyOperator, OperatorType, Settings};
use tidewire_schemas::{Kind, topics};

use crate::log::{Scope, TopicPartition};

/// How a stage reads an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its partitions are the stage's tasks.
    Driving,
    /// Co-partitioned with the driving input: task p reads partition p.
    Keyed,
    /// Read whole by every task.
    Broadcast,
    /// Read whole by every task, and taken before any data at hand.
    Control,
}

/// One input of a stage.
#[derive(Clone, Debug)]
pub struct InputSpec {
    /// The name by which operators refer to it.
    pub id: SmolStr,
    /// The topic.
    pub topic: SmolStr,
    /// How it is read.
    pub role: Role,
    /// Number of partitions of the topic.
    pub partitions: u32,
    /// False for a topic that a stage of the same pipeline writes: it is taken as it lies.
    pub external: bool,
    /// How much older than the newest a record may come and still be in time.
    pub out_of_orderness_ms: i64,
    /// After how much stream time without a record the input no longer holds the watermark back.
    pub idle_after_ms: i64,
    /// How far ahead of its received time an event time may be; beyond it the record is a dead letter.
    pub max_future_skew_ms: Option<i64>,
}

/// What feeds an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Upstream {
    /// An input of the stage, by its place.
    Input(usize),
    /// Another operator, by its place; always an earlier one.
    Node(usize),
}

/// One operator of a stage.
#[derive(Clone)]
pub struct NodeSpec {
    /// Its id in the stage, unique.
    pub id: SmolStr,
    /// What it is.
    pub operator: OperatorType,
    /// Its settings.
    pub settings: Settings,
    /// What feeds it, in the order that breaks ties.
    pub from: Vec<Upstream>,
}

impl NodeSpec {
    /// Makes the operator.
    pub fn build(&self) -> Result<Box<dyn AnyOperator>, String> {
        (self.operator.build)(&self.settings)
    }
}

/// One output topic of a stage.
#[derive(Clone, Debug)]
pub struct OutputSpec {
    /// The topic.
    pub topic: SmolStr,
    /// The operators whose records go there, by their places.
    pub from: Vec<usize>,
    /// Only records of these kinds; all if empty.
    pub kinds: Vec<Kind>,
    /// Fields that make the key, joined by `/`; the topic is partitioned by the first. If empty, the key at hand.
    pub key_fields: Vec<SmolStr>,
    /// Number of partitions of the topic.
    pub partitions: u32,
}

/// What is done with a record that an operator can not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnError {
    /// It goes to the dead letters, and the stage goes on.
    #[default]
    DeadLetter,
    /// The stage stops and names it.
    Halt,
}

/// Bounds of a stage. Every queue and batch has one.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Most records in an epoch of a task.
    pub max_records: usize,
    /// Most bytes of records in an epoch of a task.
    pub max_bytes: usize,
    /// Bytes read ahead per input partition.
    pub prefetch_bytes: usize,
    /// Records at hand that make it worth to take them while the log still commits the epoch before. Fewer wait: what they
    /// take then is little, and each pass through the operators has a price of its own.
    pub ahead_records: usize,
    /// Most faults a minute (of stamps) before a task halts.
    pub max_faults_per_minute: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            max_records: 16_384,
            max_bytes: 4 << 20,
            prefetch_bytes: 4 << 20,
            ahead_records: 1_024,
            max_faults_per_minute: 600,
        }
    }
}

/// By which time a task merges the records of its inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MergeOrder {
    /// By the records' timestamps, control records first. In a synchronised run stream time is the stamp.
    #[default]
    Event,
    /// By the time each record was received, so that nothing is known before it could be; the stamp is the running
    /// maximum of that time. Only for synchronised runs. A record without a received time counts at its timestamp.
    Availability,
}

/// A stage, whole.
#[derive(Clone)]
pub struct StageSpec {
    /// The pipeline's name.
    pub pipeline: SmolStr,
    /// The stage's name.
    pub name: SmolStr,
    /// Its inputs; a place in this list is an input's rank. Exactly one is [`Role::Driving`].
    pub inputs: Vec<InputSpec>,
    /// Its operators, each after what feeds it.
    pub nodes: Vec<NodeSpec>,
    /// Its outputs.
    pub outputs: Vec<OutputSpec>,
    /// Partitions of the topics of late records and of dead letters.
    pub side_partitions: u32,
    /// Bounds.
    pub caps: Caps,
    /// By which time the inputs are merged.
    pub order: MergeOrder,
    /// How often state is flushed to the changelog, in milliseconds of stamps.
    pub flush_interval_ms: i64,
    /// What is done with a record that an operator can not take.
    pub on_error: OnError,
    /// Whether its outputs include orders, so that a changed build may not be waved through.
    pub makes_orders: bool,
    /// Digest of the build that runs.
    pub build_digest: [u8; 16],
    /// Digest of what the pipeline file says of this stage.
    pub pipeline_digest: [u8; 16],
}

impl StageSpec {
    /// The consumer group: `<pipeline>.<stage>`.
    pub fn group(&self) -> String {
        format!("{}.{}", self.pipeline, self.name)
    }

    /// The changelog topic.
    pub fn changelog_topic(&self) -> SmolStr {
        SmolStr::from(format!("{}.{}.changelog", self.pipeline, self.name))
    }

    /// The topic of epoch records.
    pub fn epochs_topic(&self) -> SmolStr {
        SmolStr::from(format!("{}.epochs", self.pipeline))
    }

    /// The driving input.
    pub fn driving(&self) -> Option<&InputSpec> {
        self.inputs.iter().find(|input| input.role == Role::Driving)
    }

    /// The number of tasks.
    pub fn tasks(&self) -> u32 {
        self.driving().map_or(0, |input| input.partitions)
    }

    /// Where the transactions of its writers reach.
    pub fn scope(&self) -> Scope {
        let own = [self.changelog_topic(), self.epochs_topic()].map(|topic| (topic, self.tasks()));
        let side = [topics::LATE, topics::DEAD_LETTERS].map(|topic| (topic.into(), self.side_partitions));
        let outputs = self.outputs.iter().map(|output| (output.topic.clone(), output.partitions));
        let mut partitions: Vec<TopicPartition> = outputs
            .chain(own)
            .chain(side)
            .flat_map(|(topic, count)| {
                (0..count).map(move |partition| TopicPartition::new(topic.clone(), partition))
            })
            .collect();
        partitions.sort_unstable();
        partitions.dedup();
        let driving = self.driving().map(|input| input.topic.clone()).unwrap_or_default();
        Scope { group: self.group(), driving, partitions }
    }

    /// Whether time is the watermark of external inputs. Otherwise it is the running maximum of record times.
    pub fn has_watermark(&self) -> bool {
        self.driving().is_some_and(|input| input.external)
    }
}
