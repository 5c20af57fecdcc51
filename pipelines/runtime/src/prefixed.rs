//! A run beside the live one: its topics and groups begin with a prefix, and nobody above needs to know.
//!
//! A record's identity, its digest and the epoch records name topics without the prefix, so a run under a prefix can be
//! compared with any other byte by byte.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use smol_str::{SmolStr, format_smolstr};
use tidewire_engine::log::{
    Assignment, Bounds, CommitError, CommittedOffset, Fetched, Log, LogError, Member, NewRecord, Scope,
    TopicPartition, TopicSpec, Transaction,
};
use tidewire_engine::log_limits::check_name;

/// A log in which some topics are those of a prefix: `market.v1` is `PREFIX.market.v1` below. All others are what they
/// are. Groups are always those of the prefix.
pub struct PrefixedLog {
    log: Arc<dyn Log>,
    prefix: SmolStr,
    own: Arc<RwLock<BTreeSet<SmolStr>>>,
}

impl PrefixedLog {
    /// The run of `prefix` as it lies in `log`: its own topics are those that are there under the prefix.
    ///
    /// # Errors
    /// When the prefix can not begin the name of a topic, or the log fails.
    pub fn new(log: Arc<dyn Log>, prefix: &str) -> Result<Self, LogError> {
        check_name("prefix", prefix)?;
        let own = Self::topics_under(&*log, prefix)?;
        Ok(Self { log, prefix: prefix.into(), own: Arc::new(RwLock::new(own)) })
    }

    /// Names, without the prefix, of the topics that lie in `log` under it.
    pub fn topics_under(log: &dyn Log, prefix: &str) -> Result<BTreeSet<SmolStr>, LogError> {
        let all = log.topics()?;
        let under = all.iter().filter_map(|topic| topic.name.strip_prefix(prefix)?.strip_prefix('.'));
        Ok(under.map(SmolStr::new).collect())
    }

    /// Makes these topics the run's own before they are there, so that none of them is taken for the live one.
    pub fn reserve(&self, names: impl IntoIterator<Item = SmolStr>) {
        self.own.write().unwrap_or_else(PoisonError::into_inner).extend(names);
    }

    /// The prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The log below.
    pub fn below(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// Whether a topic is one of the run's own.
    pub fn owns(&self, topic: &str) -> bool {
        self.own.read().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }

    /// A topic's name in the log below.
    pub fn name_below(&self, topic: &str) -> SmolStr {
        if self.owns(topic) { format_smolstr!("{}.{topic}", self.prefix) } else { topic.into() }
    }

    fn place(&self, at: &TopicPartition) -> TopicPartition {
        TopicPartition { topic: self.name_below(&at.topic), partition: at.partition }
    }

    fn group(&self, group: &str) -> String {
        format!("{}.{group}", self.prefix)
    }
}

impl Log for PrefixedLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.reserve([spec.name.clone()]);
        self.log.create_topic(&TopicSpec { name: self.name_below(&spec.name), ..spec.clone() })
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        let under = format!("{}.", self.prefix);
        let mut topics: Vec<TopicSpec> = Vec::new();
        for topic in self.log.topics()? {
            match topic.name.strip_prefix(under.as_str()) {
                Some(name) => topics.push(TopicSpec { name: name.into(), ..topic }),
                None if !self.owns(&topic.name) => topics.push(topic),
                None => {}
            }
        }
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(topics)
    }

    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        let found = self.log.topic(&self.name_below(name))?;
        Ok(found.map(|topic| TopicSpec { name: name.into(), ..topic }))
    }

    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.log.fetch(&self.place(at), from, max_bytes)
    }

    fn read(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        self.log.read(&self.place(at), from, max_bytes)
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        self.log.bounds(&self.place(at))
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        self.log.committed(&self.group(group), &self.place(at))
    }

    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        self.log.append(&self.place(at), records)
    }

    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError> {
        // A writer's name is the cluster's, not the group's: without the prefix it would shut the live one out.
        let member = format!("{}.{member}", self.prefix);
        let member = self.log.join(&self.group(group), &member, &self.name_below(driving))?;
        Ok(Box::new(PrefixedMember { member, prefix: self.prefix.clone(), own: Arc::clone(&self.own) }))
    }

    fn topic_settings(&self, name: &str) -> Result<Vec<(String, String)>, LogError> {
        self.log.topic_settings(&self.name_below(name))
    }

    fn fence(&self, writer: &str, scope: &Scope) -> Result<(), LogError> {
        let scope = Scope {
            group: self.group(&scope.group),
            driving: self.name_below(&scope.driving),
            partitions: scope.partitions.iter().map(|at| self.place(at)).collect(),
        };
        self.log.fence(&format!("{}.{writer}", self.prefix), &scope)
    }

    fn committed_unstable(
        &self,
        group: &str,
        at: &TopicPartition,
    ) -> Result<Option<CommittedOffset>, LogError> {
        self.log.committed_unstable(&self.group(group), &self.place(at))
    }

    fn group_members(&self, group: &str) -> Result<Option<usize>, LogError> {
        self.log.group_members(&self.group(group))
    }

    fn offsets_of_commit(&self) -> u64 {
        self.log.offsets_of_commit()
    }

    fn wait(&self, timeout: Duration) {
        self.log.wait(timeout);
    }
}

/// A member whose transactions go to the run's own topics.
struct PrefixedMember {
    member: Box<dyn Member>,
    prefix: SmolStr,
    own: Arc<RwLock<BTreeSet<SmolStr>>>,
}

impl PrefixedMember {
    fn below(&self, mut transaction: Transaction) -> Transaction {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        let places = transaction.appends.iter_mut().map(|(at, _)| at);
        for at in places.chain(transaction.offsets.iter_mut().map(|(at, _)| at)) {
            if own.contains(&at.topic) {
                at.topic = format_smolstr!("{}.{}", self.prefix, at.topic);
            }
        }
        transaction
    }
}

impl Member for PrefixedMember {
    fn poll(&mut self) -> Result<Assignment, LogError> {
        self.member.poll()
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        let transaction = self.below(transaction);
        self.member.commit(transaction)
    }

    fn begin_commit(&mut self, transaction: Transaction) -> Option<Result<(), CommitError>> {
        let transaction = self.below(transaction);
        self.member.begin_commit(transaction)
    }

    fn outcome(&mut self, wait: bool) -> Option<Result<(), CommitError>> {
        self.member.outcome(wait)
    }

    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError> {
        self.member.release(tasks)
    }

    fn leave(self: Box<Self>) -> Result<(), LogError> {
        self.member.leave()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use tidewire_engine::memory::MemoryLog;

    use super::*;

    fn record(text: &str) -> NewRecord {
        NewRecord {
            key: Some(text.to_owned().into()),
            value: Some(text.to_owned().into()),
            ..NewRecord::default()
        }
    }

    fn keys(log: &dyn Log, at: &TopicPartition) -> Vec<String> {
        let fetched = log.fetch(at, 0, 1 << 20).unwrap();
        let keys = fetched.records.iter().map(|stored| stored.record.key.clone().unwrap());
        keys.map(|key| String::from_utf8(key.to_vec()).unwrap()).collect()
    }

    /// A log with the topics `in` and `out` of the live run, and a view of the prefix `p` whose own topic is `out`.
    fn logs() -> (Arc<MemoryLog>, PrefixedLog) {
        let below = Arc::new(MemoryLog::new());
        for name in ["in", "out", "p.other.out"] {
            below.create_topic(&TopicSpec::new(name, 1)).unwrap();
        }
        let log = PrefixedLog::new(below.clone(), "p").unwrap();
        log.reserve(["out".into()]);
        (below, log)
    }

    #[test]
    fn own_topics_are_those_of_the_prefix_and_all_others_the_live_ones() {
        let (below, log) = logs();
        assert_eq!(log.topic("out").unwrap(), None, "reserved, and so not the live one");
        log.create_topic(&TopicSpec::new("out", 1)).unwrap();
        assert_eq!(log.topic("out").unwrap().unwrap().name, "out");
        let (read, written) = (TopicPartition::new("in", 0), TopicPartition::new("out", 0));
        below.append(&read, vec![record("tick")]).unwrap();
        below.append(&written, vec![record("live")]).unwrap();
        log.append(&written, vec![record("again")]).unwrap();
        assert_eq!(keys(&log, &read), ["tick"]);
        assert_eq!(keys(&log, &written), ["again"]);
        assert_eq!(keys(&*below, &written), ["live"]);
        assert_eq!(keys(&*below, &TopicPartition::new("p.out", 0)), ["again"]);
        let names: Vec<SmolStr> = log.topics().unwrap().into_iter().map(|topic| topic.name).collect();
        assert_eq!(names, ["in", "other.out", "out"]);
    }

    #[test]
    fn transactions_and_positions_are_those_of_the_prefix() {
        let (below, log) = logs();
        log.create_topic(&TopicSpec::new("out", 1)).unwrap();
        let (read, written) = (TopicPartition::new("in", 0), TopicPartition::new("out", 0));
        below.append(&read, vec![record("tick")]).unwrap();
        let mut member = log.join("group", "member", "in").unwrap();
        let generation = member.poll().unwrap().generation;
        let position = CommittedOffset { offset: 1, metadata: "m".to_owned() };
        let transaction = Transaction {
            generation,
            appends: vec![(written.clone(), vec![record("again")])],
            offsets: vec![(read.clone(), position.clone())],
        };
        member.commit(transaction).unwrap();
        assert_eq!(keys(&log, &written), ["again"]);
        assert_eq!(keys(&*below, &written), Vec::<String>::new());
        assert_eq!(log.committed("group", &read).unwrap(), Some(position.clone()));
        assert_eq!(below.committed("group", &read).unwrap(), None);
        assert_eq!(below.committed("p.group", &read).unwrap(), Some(position));
    }

    #[test]
    fn a_prefix_must_fit_the_name_of_a_topic() {
        let below: Arc<dyn Log> = Arc::new(MemoryLog::new());
        for wrong in ["", "a/b", "a b"] {
            assert!(PrefixedLog::new(Arc::clone(&below), wrong).is_err(), "{wrong:?}");
        }
    }
}
