//! Finds a record in a partition by a number that ascends along it, with few reads.

use tidewire_engine::identity::Identity;
use tidewire_engine::log::{Log, LogError, StoredRecord, TopicPartition};

/// Bytes read at each look.
const PROBE_BYTES: usize = 64 << 10;
/// So few offsets are read one after another.
const FEW_OFFSETS: u64 = 64;

/// The first record whose number is at least `wanted`. Records without a number are passed by; the others' ascend.
pub fn first_at_least(
    log: &dyn Log,
    at: &TopicPartition,
    wanted: i64,
    number: impl Fn(&StoredRecord) -> Option<i64>,
) -> Result<Option<StoredRecord>, LogError> {
    let bounds = log.bounds(at)?;
    let (mut from, mut until, mut best) = (bounds.start, bounds.stable_end, None);
    while from < until {
        let middle = if until - from <= FEW_OFFSETS { from } else { from + (until - from) / 2 };
        match first_with_number(log, at, middle, until, &number)? {
            None => until = middle,
            Some((stored, found)) if found >= wanted => {
                best = Some(stored);
                until = middle;
            }
            Some((stored, _)) => from = stored.offset + 1,
        }
    }
    Ok(best)
}

fn first_with_number(
    log: &dyn Log,
    at: &TopicPartition,
    mut from: u64,
    until: u64,
    number: &impl Fn(&StoredRecord) -> Option<i64>,
) -> Result<Option<(StoredRecord, i64)>, LogError> {
    while from < until {
        let fetched = log.read(at, from, PROBE_BYTES)?;
        for stored in fetched.records.into_iter().filter(|stored| stored.offset < until) {
            if let Some(found) = number(&stored) {
                return Ok(Some((stored, found)));
            }
        }
        if fetched.next_offset <= from {
            break;
        }
        from = fetched.next_offset;
    }
    Ok(None)
}

/// A record of ours in a partition by its identity: a writer's sequences ascend along each.
pub fn by_identity(
    log: &dyn Log,
    at: &TopicPartition,
    wanted: &Identity,
) -> Result<Option<StoredRecord>, LogError> {
    let sequence = |stored: &StoredRecord| {
        let id = Identity::of(&stored.record)?;
        (id.stage == wanted.stage && id.task == wanted.task).then(|| i64::try_from(id.sequence).ok())?
    };
    let sequence_wanted = i64::try_from(wanted.sequence).unwrap_or(i64::MAX);
    let found = first_at_least(log, at, sequence_wanted, sequence)?;
    Ok(found.filter(|stored| sequence(stored) == Some(sequence_wanted)))
}

/// One record by its place; nothing where compaction has taken it.
pub fn by_offset(log: &dyn Log, at: &TopicPartition, offset: u64) -> Result<Option<StoredRecord>, LogError> {
    let bounds = log.bounds(at)?;
    if offset < bounds.start {
        return Err(LogError::Truncated { at: at.clone(), asked: offset, start: bounds.start });
    }
    if offset >= bounds.stable_end {
        return Err(LogError::BeyondEnd { at: at.clone(), asked: offset, end: bounds.stable_end });
    }
    let fetched = log.read(at, offset, 1)?;
    Ok(fetched.records.into_iter().find(|stored| stored.offset == offset))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use bytes::Bytes;
    use tidewire_engine::identity::ID_HEADER;
    use tidewire_engine::log::{NewRecord, TopicSpec};
    use tidewire_engine::memory::MemoryLog;

    #[test]
    fn any_record_of_any_writer_is_found_and_no_other() {
        let log = MemoryLog::new();
        log.create_topic(&TopicSpec::new("t", 1)).unwrap();
        let at = TopicPartition::new("t", 0);
        // Writer 0 writes even sequences throughout; writer 1 a few in the midst; some records are nobody's.
        let mut records = Vec::new();
        for number in 0..2_000_u64 {
            let id = match number {
                _ if number % 7 == 0 => None,
                900..920 => Some(format!("s/1/{number}")),
                _ => Some(format!("s/0/{}", number * 2)),
            };
            let headers = id.map(|id| (ID_HEADER.into(), Bytes::from(id))).into_iter().collect();
            records.push(NewRecord { headers, ..NewRecord::default() });
        }
        log.append(&at, records).unwrap();
        let find = |id: &str| {
            let found = by_identity(&log, &at, &id.parse().unwrap()).unwrap();
            found.map(|stored| stored.offset)
        };
        for number in (0..2_000_u64).filter(|number| number % 7 != 0) {
            let id = if (900..920).contains(&number) { (1, number) } else { (0, number * 2) };
            assert_eq!(find(&format!("s/{}/{}", id.0, id.1)), Some(number));
        }
        for absent in ["s/0/3", "s/0/5000", "s/1/1", "s/1/921", "s/2/4", "other/0/4"] {
            assert_eq!(find(absent), None, "{absent}");
        }
    }
}
