//! What is known of topics, so that it is not asked for again with every record.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use smol_str::SmolStr;
use tidewire_engine::log::{LogError, TopicSpec};
use tidewire_engine::log_limits::check_same;

use super::admin::{Admin, FoundTopic};
use super::context::Quiet;

/// How long all brokers may take to hear of a topic that was made.
const MADE: Duration = Duration::from_secs(10);
/// For how long a topic that was there must be unknown to count as gone.
const GONE: Duration = Duration::from_secs(2);
/// For how long a topic must differ from what is wanted to be refused.
const DIFFERS: Duration = Duration::from_secs(2);
/// Between two questions.
const NAP: Duration = Duration::from_millis(50);

/// Topics that were looked up. Their number is bounded by what a pipeline names.
pub struct Layouts {
    admin: Admin,
    metadata: Arc<BaseConsumer<Quiet>>,
    known: Mutex<BTreeMap<SmolStr, FoundTopic>>,
}

impl Layouts {
    /// Nothing is known yet.
    pub fn new(admin: Admin, metadata: Arc<BaseConsumer<Quiet>>) -> Self {
        Self { admin, metadata, known: Mutex::default() }
    }

    /// The topic as it was when it was first looked up; an error if it is not there.
    pub fn get(&self, topic: &SmolStr) -> Result<FoundTopic, LogError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned();
        match known {
            Some(known) => Ok(known),
            None => self.look_up(topic)?.ok_or_else(|| LogError::UnknownTopic(topic.clone())),
        }
    }

    /// The topic as it is now. One that was there is not taken for gone because one broker says so.
    pub fn look_up(&self, topic: &SmolStr) -> Result<Option<FoundTopic>, LogError> {
        let is_known = self.known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(topic);
        let found = self.ask(topic, if is_known { GONE } else { Duration::ZERO })?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &found {
            Some(found) => known.insert(topic.clone(), found.clone()),
            None => known.remove(topic),
        };
        Ok(found)
    }

    /// Makes a topic unless it is there, and waits until it is to be seen as it was made. A broker that just heard of a
    /// topic may not have heard of its settings, so one that differs is looked at again before it is refused.
    pub fn create(&self, spec: &TopicSpec) -> Result<(), LogError> {
        if self.look_up(&spec.name)?.is_none() {
            self.admin.create(spec, &self.metadata)?;
        }
        let begun = Instant::now();
        loop {
            match self.look_up(&spec.name)?.map(|found| check_same(&found.spec, spec)) {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) if begun.elapsed() >= DIFFERS => return Err(error),
                None if begun.elapsed() >= MADE => return Err(LogError::UnknownTopic(spec.name.clone())),
                _ => std::thread::sleep(NAP),
            }
        }
    }

    /// Asks until a broker knows the topic, or `patience` is over: brokers hear of changes one after another, and any of
    /// them may be asked.
    fn ask(&self, topic: &SmolStr, patience: Duration) -> Result<Option<FoundTopic>, LogError> {
        let begun = Instant::now();
        loop {
            let found = self.admin.topic(topic, &self.metadata)?;
            if found.is_some() || begun.elapsed() >= patience {
                return Ok(found);
            }
            std::thread::sleep(NAP);
        }
    }

    /// All topics as they are now.
    pub fn all(&self) -> Result<Vec<FoundTopic>, LogError> {
        self.admin.topics(&self.metadata)
    }

    /// The settings of a topic by Kafka's names.
    pub fn settings(&self, topic: &str) -> Result<Vec<(String, String)>, LogError> {
        self.admin.settings(topic, &self.metadata)
    }

    /// Whether the broker sets the timestamps of its records.
    pub fn append_time(&self, topic: &SmolStr) -> Result<bool, LogError> {
        Ok(self.get(topic)?.append_time)
    }

    /// Whether it is compacted.
    pub fn is_compacted(&self, topic: &SmolStr) -> Result<bool, LogError> {
        Ok(self.get(topic)?.spec.compacted)
    }
}
