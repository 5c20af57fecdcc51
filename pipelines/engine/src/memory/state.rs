//! All that a [`MemoryLog`](super::MemoryLog) holds, behind its lock.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::faults::CommitFault;
use super::partition::{HeldId, Partition};
use crate::group::{Group, MemberId};
use crate::log::{CommitError, CommittedOffset, LogError, NewRecord, TopicPartition, TopicSpec, Transaction};
use crate::log_limits::{self, check_partition};

#[derive(Debug)]
struct Topic {
    spec: TopicSpec,
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct GroupState {
    driving: SmolStr,
    group: Group,
}

/// A transaction that is held open.
#[derive(Debug)]
pub(super) struct Held {
    /// Who sent it.
    pub(super) member: SmolStr,
    group: SmolStr,
    offsets: Vec<(TopicPartition, CommittedOffset)>,
    commit: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) now_ms: u64,
    pub(super) control_records: bool,
    topics: BTreeMap<SmolStr, Topic>,
    groups: BTreeMap<SmolStr, GroupState>,
    offsets: BTreeMap<(SmolStr, TopicPartition), CommittedOffset>,
    held: BTreeMap<HeldId, Held>,
    next_held: HeldId,
}

impl State {
    pub(super) fn create_topic(&mut self, spec: &TopicSpec) -> Result<(), LogError> {
        if let Some(found) = self.spec(&spec.name) {
            return log_limits::check_same(found, spec);
        }
        log_limits::check_topic(spec)?;
        log_limits::check_topic_count(self.topics.len())?;
        let partitions = (0..spec.partitions).map(|_| Partition::default()).collect();
        self.topics.insert(spec.name.clone(), Topic { spec: spec.clone(), partitions });
        Ok(())
    }

    pub(super) fn specs(&self) -> impl Iterator<Item = &TopicSpec> {
        self.topics.values().map(|topic| &topic.spec)
    }

    pub(super) fn spec(&self, name: &str) -> Option<&TopicSpec> {
        self.topics.get(name).map(|topic| &topic.spec)
    }

    pub(super) fn partition(&mut self, at: &TopicPartition) -> Result<&mut Partition, LogError> {
        check_partition(at, self.spec(&at.topic))?;
        let partition =
            self.topics.get_mut(&at.topic).and_then(|t| t.partitions.get_mut(at.partition as usize));
        partition.ok_or_else(|| LogError::UnknownTopic(at.topic.clone()))
    }

    pub(super) fn append(&mut self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        let spec = check_partition(at, self.spec(&at.topic))?;
        log_limits::check_records(at, spec.compacted, &records)?;
        let now_ms = self.now_ms;
        Ok(self.partition(at)?.append(records, now_ms, None))
    }

    pub(super) fn committed(
        &self,
        group: &str,
        at: &TopicPartition,
    ) -> Result<Option<CommittedOffset>, LogError> {
        check_partition(at, self.spec(&at.topic))?;
        let moves = |held: &Held| held.group == group && held.offsets.iter().any(|(other, _)| other == at);
        if self.held.values().any(moves) {
            return Err(LogError::Unstable { group: SmolStr::new(group), at: at.clone() });
        }
        Ok(self.offsets.get(&(SmolStr::new(group), at.clone())).cloned())
    }

    pub(super) fn join(&mut self, group: &str, member: &str, driving: &str) -> Result<MemberId, LogError> {
        log_limits::check_name("group", group)?;
        log_limits::check_name("member", member)?;
        let tasks =
            self.spec(driving).ok_or_else(|| LogError::UnknownTopic(SmolStr::new(driving)))?.partitions;
        let new = || GroupState { driving: SmolStr::new(driving), group: Group::new(tasks) };
        let state = self.groups.entry(SmolStr::new(group)).or_insert_with(new);
        log_limits::check_join(group, member, driving, &state.driving, &state.group)?;
        if state.driving != driving {
            *state = new();
        }
        let id = state.group.join(member);
        // As a transactional producer's start does: what its former life left open is ended first.
        self.settle(|held| held.member == member);
        Ok(id)
    }

    pub(super) fn group(&self, name: &str) -> Result<&Group, LogError> {
        self.groups.get(name).map(|state| &state.group).ok_or_else(|| unknown_group(name))
    }

    pub(super) fn group_mut(&mut self, name: &str) -> Result<&mut Group, LogError> {
        self.groups.get_mut(name).map(|state| &mut state.group).ok_or_else(|| unknown_group(name))
    }

    pub(super) fn expire(&mut self, group: &str, member: &str) -> bool {
        self.group_mut(group).is_ok_and(|group| group.expire(member))
    }

    pub(super) fn commit(
        &mut self,
        group: &SmolStr,
        id: &MemberId,
        transaction: Transaction,
        fault: Option<CommitFault>,
    ) -> Result<(), CommitError> {
        if fault == Some(CommitFault::Expire) {
            self.expire(group, &id.name);
        }
        self.check_commit(group, id, &transaction)?;
        match fault {
            None | Some(CommitFault::Expire) => self.write(group, transaction, None).map_err(Into::into),
            Some(CommitFault::Abort) => Err(CommitError::Aborted("the log was told to abort".to_owned())),
            Some(CommitFault::UnknownNotWritten) => Err(unknown("the log was told not to answer")),
            Some(CommitFault::UnknownWritten) => {
                self.write(group, transaction, None)?;
                Err(unknown("the log was told not to answer"))
            }
            Some(CommitFault::HoldBack { commit }) => {
                let offsets = transaction.offsets.clone();
                let id =
                    (self.next_held, Held { member: id.name.clone(), group: group.clone(), offsets, commit });
                self.next_held += 1;
                self.write(group, transaction, Some(id))?;
                Err(unknown("the log was told to keep the transaction open"))
            }
        }
    }

    fn check_commit(
        &self,
        group: &SmolStr,
        id: &MemberId,
        transaction: &Transaction,
    ) -> Result<(), CommitError> {
        let gone = || CommitError::Fenced(format!("group {group} is gone"));
        let state = self.groups.get(group).ok_or_else(gone)?;
        let moved = transaction.offsets.iter().filter(|(at, _)| at.topic == state.driving);
        state.group.check_commit(id, transaction.generation, moved.map(|(at, _)| at.partition))?;
        Ok(log_limits::check_transaction(transaction, |name| self.spec(name))?)
    }

    fn write(
        &mut self,
        group: &SmolStr,
        transaction: Transaction,
        held: Option<(HeldId, Held)>,
    ) -> Result<(), LogError> {
        let (now_ms, control) = (self.now_ms, self.control_records);
        let held_id = held.as_ref().map(|(id, _)| *id);
        for (at, records) in transaction.appends {
            let empty = records.is_empty();
            let partition = self.partition(&at)?;
            partition.append(records, now_ms, held_id);
            if control && !empty && held_id.is_none() {
                partition.append_control();
            }
        }
        match held {
            Some((id, held)) => {
                self.held.insert(id, held);
            }
            None => self.write_offsets(group, transaction.offsets),
        }
        Ok(())
    }

    fn write_offsets(&mut self, group: &SmolStr, offsets: Vec<(TopicPartition, CommittedOffset)>) {
        self.offsets.extend(offsets.into_iter().map(|(at, offset)| ((group.clone(), at), offset)));
    }

    pub(super) fn settle(&mut self, which: impl Fn(&Held) -> bool) -> usize {
        let ids: Vec<HeldId> = self.held.iter().filter(|(_, held)| which(held)).map(|(id, _)| *id).collect();
        for id in &ids {
            let Some(held) = self.held.remove(id) else { continue };
            for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
                if partition.settle(*id, held.commit) && self.control_records {
                    partition.append_control();
                }
            }
            if held.commit {
                self.write_offsets(&held.group, held.offsets);
            }
        }
        ids.len()
    }

    pub(super) fn compact(&mut self, topic: &str) -> Result<u64, LogError> {
        let now_ms = self.now_ms;
        let topic = self.topics.get_mut(topic).ok_or_else(|| LogError::UnknownTopic(SmolStr::new(topic)))?;
        log_limits::check_compacted(&topic.spec)?;
        let lag_ms = topic.spec.compaction_lag_ms;
        Ok(topic.partitions.iter_mut().map(|partition| partition.compact(lag_ms, now_ms)).sum())
    }

    pub(super) fn apply_retention(&mut self) -> u64 {
        let now_ms = self.now_ms;
        let retain = |topic: &mut Topic| -> u64 {
            topic.partitions.iter_mut().map(|partition| partition.retain(&topic.spec, now_ms)).sum()
        };
        self.topics.values_mut().map(retain).sum()
    }
}

fn unknown(why: &str) -> CommitError {
    CommitError::Unknown(why.to_owned())
}

fn unknown_group(name: &str) -> LogError {
    LogError::Invalid(format!("nobody ever joined group {name}"))
}
