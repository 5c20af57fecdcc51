//! Groups of the embedded log. They live as long as the process that has the log open.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_engine::group::{Group, MemberId};
use tidewire_engine::log::{Assignment, CommitError, LogError, Member, Transaction};
use tidewire_engine::log_limits;

use super::{EmbeddedLog, lock};

/// All groups that were joined since the log was opened.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<SmolStr, DrivenGroup>,
}

#[derive(Debug)]
struct DrivenGroup {
    driving: SmolStr,
    group: Group,
}

impl Groups {
    fn group(&mut self, name: &str) -> Result<&mut DrivenGroup, LogError> {
        self.groups.get_mut(name).ok_or_else(|| LogError::Invalid(format!("nobody ever joined group {name}")))
    }
}

impl EmbeddedLog {
    /// Takes a member out of its group, as a broker does when heartbeats stop: whatever it still sends is refused, and
    /// its tasks go to others. For a worker that hangs. False if it was not in.
    pub fn expire(&self, group: &str, member: &str) -> bool {
        let expired = {
            let _writer = lock(&self.writer);
            lock(&self.groups).group(group).is_ok_and(|driven| driven.group.expire(member))
        };
        self.signal.notify();
        expired
    }

    pub(super) fn join_group(
        &self,
        group: &str,
        member: &str,
        driving: &str,
    ) -> Result<Box<dyn Member>, LogError> {
        log_limits::check_name("group", group)?;
        log_limits::check_name("member", member)?;
        let topic =
            self.index().spec(driving).cloned().ok_or_else(|| LogError::UnknownTopic(driving.into()))?;
        let log = self.me.upgrade().ok_or_else(|| LogError::Invalid("the log is being closed".to_owned()))?;
        let new = || DrivenGroup { driving: topic.name.clone(), group: Group::new(topic.partitions) };
        let id = {
            // A commit under way ends first: what was fenced writes nothing later.
            let _writer = lock(&self.writer);
            let mut groups = lock(&self.groups);
            let driven = groups.groups.entry(group.into()).or_insert_with(new);
            log_limits::check_join(group, member, driving, &driven.driving, &driven.group)?;
            if driven.driving != driving {
                *driven = new();
            }
            driven.group.join(member)
        };
        self.signal.notify();
        Ok(Box::new(EmbeddedMember { log, group: group.into(), id }))
    }

    /// Whether a member may commit this now.
    pub(super) fn check_member(
        &self,
        group: &SmolStr,
        member: &MemberId,
        transaction: &Transaction,
    ) -> Result<(), CommitError> {
        let mut groups = lock(&self.groups);
        let driven = groups.group(group)?;
        let moved = transaction.offsets.iter().filter(|(at, _)| at.topic == driven.driving);
        driven.group.check_commit(member, transaction.generation, moved.map(|(at, _)| at.partition))
    }
}

struct EmbeddedMember {
    log: Arc<EmbeddedLog>,
    group: SmolStr,
    id: MemberId,
}

impl Member for EmbeddedMember {
    fn poll(&mut self) -> Result<Assignment, LogError> {
        lock(&self.log.groups).group(&self.group)?.group.assignment(&self.id).map_err(LogError::Fenced)
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        self.log.write_transaction(&self.group, &self.id, &transaction)
    }

    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError> {
        {
            let _writer = lock(&self.log.writer);
            lock(&self.log.groups)
                .group(&self.group)?
                .group
                .release(&self.id, tasks)
                .map_err(LogError::Fenced)?;
        }
        self.log.signal.notify();
        Ok(())
    }

    fn leave(self: Box<Self>) -> Result<(), LogError> {
        Ok(())
    }
}

impl Drop for EmbeddedMember {
    fn drop(&mut self) {
        {
            let _writer = lock(&self.log.writer);
            if let Ok(driven) = lock(&self.log.groups).group(&self.group) {
                driven.group.leave(&self.id);
            }
        }
        self.log.signal.notify();
    }
}
