//! The topics that a pipeline reads and writes: partitions, retention, and the records they carry.

use std::collections::BTreeMap;

use smol_str::SmolStr;
use tidewire_engine::log::TopicSpec;
use tidewire_schemas::{Kind, topics};

use super::declared::{Declared, TopicDeclared};
use super::problem::Problems;

/// Partitions of a keyed topic where nothing else is said.
pub const DEFAULT_PARTITIONS: u32 = 4;

/// Topics with few records, most of them read whole by every task: one partition is enough.
const SMALL: [&str; 7] = [
    topics::INSTRUMENTS,
    topics::NEWS,
    topics::SENTIMENT,
    topics::RISK_LIMITS,
    topics::CONTROL,
    topics::LATE,
    topics::DEAD_LETTERS,
];

/// Partitions of a topic where the pipeline file does not say: `keyed` for those that work is spread by, 1 for
/// reference data, limits and what was passed over.
pub fn default_partitions(topic: &str, keyed: u32) -> u32 {
    if SMALL.contains(&topic) { 1 } else { keyed }
}

/// A topic as the pipeline file wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: SmolStr,
    /// Its partitions.
    pub partitions: u32,
    /// Whether only the last record of a key is kept in the end.
    pub compacted: bool,
    /// Delete records older than this.
    pub retention_ms: Option<u64>,
    /// Delete the oldest records of a partition beyond this.
    pub retention_bytes: Option<u64>,
    /// The records on it; `None` if that is not known.
    pub kinds: Option<Vec<Kind>>,
    /// Fields that make the key of a topic that every pipeline has.
    pub key: &'static [&'static str],
}

impl TopicPlan {
    fn standard(topic: &topics::Topic, keyed: u32) -> Self {
        Self {
            name: topic.name.into(),
            partitions: default_partitions(topic.name, keyed),
            compacted: topic.compacted,
            retention_ms: None,
            retention_bytes: None,
            kinds: Some(topic.kinds.to_vec()),
            key: topic.key,
        }
    }

    fn own(declared: &TopicDeclared, keyed: u32) -> Self {
        Self {
            name: declared.name.name.clone(),
            partitions: keyed,
            compacted: false,
            retention_ms: None,
            retention_bytes: None,
            kinds: None,
            key: &[],
        }
    }

    /// How the log is to make it. A compacted topic keeps every record for `replay_retention_ms`.
    pub fn spec(&self, replay_retention_ms: u64) -> TopicSpec {
        let spec = TopicSpec {
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            ..TopicSpec::new(self.name.clone(), self.partitions)
        };
        if self.compacted { spec.compacted(replay_retention_ms) } else { spec }
    }
}

/// All topics that the pipeline file may name.
pub struct TopicBook {
    topics: BTreeMap<SmolStr, TopicPlan>,
}

impl TopicBook {
    /// The standard topics and the file's own, with what the file says of them.
    pub fn new(declared: &Declared, problems: &mut Problems) -> Self {
        let keyed = declared.partitions.unwrap_or(DEFAULT_PARTITIONS);
        let standard = topics::ALL.iter().map(|topic| (topic.name.into(), TopicPlan::standard(topic, keyed)));
        let mut topics: BTreeMap<SmolStr, TopicPlan> = standard.collect();
        for said in &declared.topics {
            let name = &said.name.name;
            if let Err(error) = tidewire_engine::log_limits::check_name("topic", name) {
                problems.add(&said.name.place, error.to_string());
                continue;
            }
            if said.kinds.is_some() && topics::find(name).is_some() {
                let text = format!("the records of `{name}` are fixed; `kinds` is for topics of your own");
                problems.add(&said.name.place, text);
            }
            let plan = topics.entry(name.clone()).or_insert_with(|| TopicPlan::own(said, keyed));
            plan.partitions = said.partitions.unwrap_or(plan.partitions);
            plan.retention_ms = said.retention_ms.or(plan.retention_ms);
            plan.retention_bytes = said.retention_bytes.or(plan.retention_bytes);
            plan.compacted = said.compacted.unwrap_or(plan.compacted);
            if topics::find(name).is_none() {
                plan.kinds = said.kinds.clone().or_else(|| plan.kinds.take());
            }
        }
        let book = Self { topics };
        book.check_sides(declared, problems);
        book
    }

    /// The topic of that name.
    pub fn get(&self, name: &str) -> Option<&TopicPlan> {
        self.topics.get(name)
    }

    /// The topic of that name, to be added to.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut TopicPlan> {
        self.topics.get_mut(name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(SmolStr::as_str)
    }

    /// Partitions of a topic; 1 for one that is not known, which was noted.
    pub fn partitions(&self, name: &str) -> u32 {
        self.get(name).map_or(1, |topic| topic.partitions)
    }

    /// The topics of late records and of dead letters have one number of partitions.
    fn check_sides(&self, declared: &Declared, problems: &mut Problems) {
        if self.partitions(topics::LATE) == self.partitions(topics::DEAD_LETTERS) {
            return;
        }
        let said = declared.topics.iter().find(|said| {
            said.partitions.is_some()
                && [topics::LATE, topics::DEAD_LETTERS].contains(&said.name.name.as_str())
        });
        if let Some(said) = said {
            let (late, dead) = (topics::LATE, topics::DEAD_LETTERS);
            problems.add(
                &said.name.place,
                format!("`{late}` and `{dead}` must have the same number of partitions"),
            );
        }
    }
}
