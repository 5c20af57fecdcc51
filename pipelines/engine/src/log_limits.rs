//! What every log refuses, so that what runs on one log runs on all.

use smol_str::SmolStr;

use crate::group::Group;
use crate::log::{LogError, NewRecord, TopicPartition, TopicSpec, Transaction};

/// Most bytes of one record, by [`NewRecord::size`]: Kafka's default for a message.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;
/// Most bytes of one transaction or append, all its records together.
pub const MAX_TRANSACTION_BYTES: usize = 256 * 1024 * 1024;
/// Most headers of one record.
pub const MAX_HEADERS: usize = 64;
/// Most bytes of a header's name.
pub const MAX_HEADER_NAME_BYTES: usize = 255;
/// Most bytes of the metadata beside a committed offset: Kafka's default.
pub const MAX_METADATA_BYTES: usize = 4096;
/// Most bytes of a topic's, group's or member's name: Kafka's bound on topics.
pub const MAX_NAME_BYTES: usize = 249;
/// Most partitions of a topic.
pub const MAX_PARTITIONS: u32 = 4096;
/// Most topics of a log.
pub const MAX_TOPICS: usize = 10_000;
/// Most members of a group.
pub const MAX_MEMBERS: usize = 1024;

/// Refuses a topic that Kafka would not take.
pub fn check_topic(spec: &TopicSpec) -> Result<(), LogError> {
    check_name("topic", &spec.name)?;
    if spec.partitions == 0 || spec.partitions > MAX_PARTITIONS {
        return Err(LogError::Invalid(format!(
            "topic {}: {} partitions; choose 1 to {MAX_PARTITIONS}",
            spec.name, spec.partitions
        )));
    }
    Ok(())
}

/// Refuses names that are empty, too long, or have other characters than letters, digits, `.`, `_` and `-`.
pub fn check_name(kind: &str, name: &str) -> Result<(), LogError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty()
        || name.len() > MAX_NAME_BYTES
        || !name.bytes().all(legal)
        || name == "."
        || name == ".."
    {
        let shown: String = name.chars().take(60).collect();
        return Err(LogError::Invalid(format!(
            "{kind} name {shown:?}: use 1 to {MAX_NAME_BYTES} letters, digits, dots, underscores and hyphens"
        )));
    }
    Ok(())
}

/// Refuses records that are too large, or that have no key on a compacted topic. Returns their bytes.
pub fn check_records(at: &TopicPartition, compacted: bool, records: &[NewRecord]) -> Result<usize, LogError> {
    let mut bytes = 0;
    for (n, record) in records.iter().enumerate() {
        let size = record.size();
        if size > MAX_RECORD_BYTES {
            let what = format!("record {n} for {at} (timestamp {} ms)", record.timestamp_ms);
            return Err(LogError::TooLarge { what, size, limit: MAX_RECORD_BYTES });
        }
        if record.headers.len() > MAX_HEADERS {
            return Err(LogError::Invalid(format!(
                "record {n} for {at} has {} headers, more than the {MAX_HEADERS} allowed",
                record.headers.len()
            )));
        }
        if let Some((name, _)) = record.headers.iter().find(|(name, _)| name.len() > MAX_HEADER_NAME_BYTES) {
            let what = format!("a header's name in record {n} for {at}");
            return Err(LogError::TooLarge { what, size: name.len(), limit: MAX_HEADER_NAME_BYTES });
        }
        if compacted && record.key.is_none() {
            return Err(LogError::Invalid(format!(
                "record {n} for {at} has no key, but the topic is compacted by key"
            )));
        }
        bytes += size;
    }
    if bytes > MAX_TRANSACTION_BYTES {
        let what = format!("{} records for {at}", records.len());
        return Err(LogError::TooLarge { what, size: bytes, limit: MAX_TRANSACTION_BYTES });
    }
    Ok(bytes)
}

/// Refuses a transaction that no log could take. `topic` looks a topic's layout up.
pub fn check_transaction<'a>(
    transaction: &Transaction,
    mut topic: impl FnMut(&SmolStr) -> Option<&'a TopicSpec>,
) -> Result<(), LogError> {
    let mut seen: Vec<&TopicPartition> = Vec::with_capacity(transaction.appends.len());
    let mut bytes = 0;
    for (at, records) in &transaction.appends {
        let spec = check_partition(at, topic(&at.topic))?;
        bytes += check_records(at, spec.compacted, records)?;
        seen.push(at);
    }
    check_once(seen, "records")?;
    if bytes > MAX_TRANSACTION_BYTES {
        return Err(LogError::TooLarge {
            what: "a transaction".to_owned(),
            size: bytes,
            limit: MAX_TRANSACTION_BYTES,
        });
    }
    for (at, position) in &transaction.offsets {
        check_partition(at, topic(&at.topic))?;
        let size = position.metadata.len();
        if size > MAX_METADATA_BYTES {
            let what = format!("the metadata of the position in {at}");
            return Err(LogError::TooLarge { what, size, limit: MAX_METADATA_BYTES });
        }
    }
    check_once(transaction.offsets.iter().map(|(at, _)| at).collect(), "positions")
}

/// Refuses a partition that is not there; `spec` is what is known of its topic.
pub fn check_partition<'a>(
    at: &TopicPartition,
    spec: Option<&'a TopicSpec>,
) -> Result<&'a TopicSpec, LogError> {
    let spec = spec.ok_or_else(|| LogError::UnknownTopic(at.topic.clone()))?;
    if at.partition < spec.partitions {
        return Ok(spec);
    }
    Err(LogError::UnknownPartition {
        topic: at.topic.clone(),
        partition: at.partition,
        partitions: spec.partitions,
    })
}

/// Refuses one topic too many.
pub fn check_topic_count(topics: usize) -> Result<(), LogError> {
    match topics < MAX_TOPICS {
        true => Ok(()),
        false => Err(LogError::Invalid(format!("the log has {topics} topics, as many as it can hold"))),
    }
}

/// Refuses to compact a topic that keeps every record.
pub fn check_compacted(spec: &TopicSpec) -> Result<(), LogError> {
    match spec.compacted {
        true => Ok(()),
        false => Err(LogError::Invalid(format!("topic {} is not a compacted one", spec.name))),
    }
}

/// Refuses a member that asks for another driving topic than the group has, or one member too many.
pub fn check_join(group: &str, member: &str, wanted: &str, found: &str, now: &Group) -> Result<(), LogError> {
    if wanted != found && !now.is_empty() {
        return Err(LogError::Invalid(format!(
            "group {group} spreads the partitions of {found}; {member} can not join it for {wanted}"
        )));
    }
    let members = now.members().count();
    if members >= MAX_MEMBERS && !now.members().any(|name| name == member) {
        return Err(LogError::Invalid(format!(
            "group {group} has {members} members, as many as it can hold"
        )));
    }
    Ok(())
}

/// What is said when a topic is there with another layout; nothing when it is the same.
pub fn check_same(found: &TopicSpec, wanted: &TopicSpec) -> Result<(), LogError> {
    if found == wanted {
        return Ok(());
    }
    Err(LogError::TopicDiffers { topic: wanted.name.clone(), found: layout(found), wanted: layout(wanted) })
}

fn layout(spec: &TopicSpec) -> String {
    let cleanup = match spec.compacted {
        true => format!("compacted after {} ms", spec.compaction_lag_ms),
        false => "not compacted".to_owned(),
    };
    let kept =
        |bound: Option<u64>, unit: &str| bound.map_or("no bound".to_owned(), |n| format!("{n} {unit}"));
    format!(
        "{} partitions, {cleanup}, retention {} and {}",
        spec.partitions,
        kept(spec.retention_ms, "ms"),
        kept(spec.retention_bytes, "bytes")
    )
}

fn check_once(mut partitions: Vec<&TopicPartition>, what: &str) -> Result<(), LogError> {
    partitions.sort_unstable();
    match partitions.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => {
            Err(LogError::Invalid(format!("a transaction has {what} for {} twice; merge them", pair[0])))
        }
    }
}
