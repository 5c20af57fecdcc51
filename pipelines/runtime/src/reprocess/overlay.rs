//! One log seen over another: some topics are read from the one below, all else is in the one above.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tidewire_engine::log::{
    Bounds, CommittedOffset, Fetched, Log, LogError, Member, NewRecord, Scope, TopicPartition, TopicSpec,
};

/// Reads shared topics from one log, and has everything else in another. Nothing is written to the shared ones.
pub struct Overlay {
    below: Arc<dyn Log>,
    above: Arc<dyn Log>,
    shared: BTreeSet<SmolStr>,
}

impl Overlay {
    /// Takes the topics `shared` from `below`. They are made in `above` too, and stay empty there: groups have their
    /// positions in them.
    pub fn new(below: Arc<dyn Log>, above: Arc<dyn Log>, shared: &[SmolStr]) -> Result<Self, LogError> {
        for name in shared {
            let found = below.topic(name)?.ok_or_else(|| LogError::UnknownTopic(name.clone()))?;
            if above.topic(name)?.is_none() {
                above.create_topic(&TopicSpec::new(name.clone(), found.partitions))?;
            }
        }
        Ok(Self { below, above, shared: shared.iter().cloned().collect() })
    }

    fn of(&self, topic: &str) -> &dyn Log {
        if self.shared.contains(topic) { &*self.below } else { &*self.above }
    }
}

impl Log for Overlay {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.above.create_topic(spec)
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        let mut topics = self.above.topics()?;
        topics.retain(|spec| !self.shared.contains(&spec.name));
        topics.extend(self.below.topics()?.into_iter().filter(|spec| self.shared.contains(&spec.name)));
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(topics)
    }

    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        self.of(name).topic(name)
    }

    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.of(&at.topic).fetch(at, from, max_bytes)
    }

    fn read(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.of(&at.topic).read(at, from, max_bytes)
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        self.of(&at.topic).bounds(at)
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        self.above.committed(group, at)
    }

    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        if self.shared.contains(&at.topic) {
            return Err(LogError::Invalid(format!("{at} is shared with other runs and only read")));
        }
        self.above.append(at, records)
    }

    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError> {
        self.above.join(group, member, driving)
    }

    fn topic_settings(&self, name: &str) -> Result<Vec<(String, String)>, LogError> {
        self.of(name).topic_settings(name)
    }

    fn fence(&self, writer: &str, scope: &Scope) -> Result<(), LogError> {
        self.above.fence(writer, scope)
    }

    fn committed_unstable(
        &self,
        group: &str,
        at: &TopicPartition,
    ) -> Result<Option<CommittedOffset>, LogError> {
        self.above.committed_unstable(group, at)
    }

    fn group_members(&self, group: &str) -> Result<Option<usize>, LogError> {
        self.above.group_members(group)
    }

    fn offsets_of_commit(&self) -> u64 {
        self.above.offsets_of_commit()
    }

    fn wait(&self, timeout: Duration) {
        self.above.wait(timeout);
    }
}
