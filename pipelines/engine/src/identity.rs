//! Who made a record, and what caused it: the headers that every record of ours carries.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::frame::TimerCause;
use crate::log::{NewRecord, StoredRecord, TopicPartition};

/// Header with a record's [`Identity`].
pub const ID_HEADER: &str = "tw-id";
/// Header with a record's cause.
pub const CAUSE_HEADER: &str = "tw-cause";
/// Header with the time a record was received, in nanoseconds since 1970, on normalized topics.
pub const RECEIVED_HEADER: &str = "received-ns";

/// Header of a record without key and value of which only the place and the time are there: what it held belongs to a key
/// that was left out. Operators do not see it; time goes by it as by any other.
pub const LEFT_OUT_HEADER: &str = "tw-left-out";

/// Whether a record is only a place and a time.
pub fn is_left_out(record: &NewRecord) -> bool {
    record.key.is_none() && record.value.is_none() && record.header(LEFT_OUT_HEADER).is_some()
}

/// The name of a record of ours: the writer, and the writer's count. Written `stage/task/sequence`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The stage that made it.
    pub stage: SmolStr,
    /// The task of that stage.
    pub task: u32,
    /// The task's count of what it made, from 1.
    pub sequence: u64,
}

impl Identity {
    /// The identity in a record's headers, if it is one of ours.
    pub fn of(record: &NewRecord) -> Option<Self> {
        std::str::from_utf8(record.header(ID_HEADER)?).ok()?.parse().ok()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.stage, self.task, self.sequence)
    }
}

impl FromStr for Identity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "an identity is written stage/task/sequence";
        let mut parts = text.rsplitn(3, '/');
        let sequence = parts.next().and_then(|part| part.parse().ok()).ok_or(WRONG)?;
        let task = parts.next().and_then(|part| part.parse().ok()).ok_or(WRONG)?;
        let stage = parts.next().filter(|part| !part.is_empty()).ok_or(WRONG)?;
        Ok(Self { stage: stage.into(), task, sequence })
    }
}

/// The cause of what a record of the log led to: a record of ours by its identity, another by its place.
pub fn cause_of_record(at: &TopicPartition, stored: &StoredRecord) -> Bytes {
    match stored.record.header(ID_HEADER) {
        Some(id) => id.clone(),
        None => Bytes::from(format!("{}/{}@{}", at.topic, at.partition, stored.offset)),
    }
}

/// The cause of what a timer led to: the operator, the key and the time.
pub fn cause_of_timer(timer: &TimerCause) -> Bytes {
    Bytes::from(timer.to_string())
}

impl fmt::Display for TimerCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timer:{}/{}@{}#{}", self.node, self.key, self.at.as_micros(), self.tag)
    }
}

impl FromStr for TimerCause {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a timer is written timer:operator/key@microseconds#tag";
        let (rest, tag) = text.strip_prefix("timer:").and_then(|rest| rest.rsplit_once('#')).ok_or(WRONG)?;
        let (rest, at) = rest.rsplit_once('@').ok_or(WRONG)?;
        let (node, key) = rest.split_once('/').ok_or(WRONG)?;
        let at = at.parse().map_err(|_| WRONG)?;
        let tag = tag.parse().map_err(|_| WRONG)?;
        Ok(Self { node: node.into(), key: key.into(), at: tidewire_schemas::EventTime::from_micros(at), tag })
    }
}

/// What the identities of a task's outputs begin with.
pub fn sequence_prefix(stage: &str, task: u32) -> String {
    format!("{stage}/{task}/")
}

/// The sequence number of a record, if the task with that prefix made it.
pub fn sequence_of(stored: &StoredRecord, prefix: &str) -> Option<u64> {
    let id = std::str::from_utf8(stored.record.header(ID_HEADER)?).ok()?;
    id.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_and_timers_are_read_as_they_are_written() {
        let id = Identity { stage: "features".into(), task: 3, sequence: 42 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("features/3".parse::<Identity>().is_err());
        let timer = TimerCause {
            node: "bars".into(),
            key: "acct/BTC#USD@X".into(),
            at: tidewire_schemas::EventTime::from_micros(-5),
            tag: 7,
        };
        assert_eq!(timer.to_string().parse(), Ok(timer));
    }
}
