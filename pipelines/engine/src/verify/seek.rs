//! Finds a place in a partition by numbers that ascend in it, without reading all of it.

use crate::log::{Log, LogError, StoredRecord, TopicPartition};

/// A stretch of offsets as short as this is read through.
const SEEK_OFFSETS: u64 = 2_048;
/// Bytes asked of the log for one look.
const LOOK_BYTES: usize = 256 << 10;
/// Most reads of one look: where records of interest are rarer than that, the rest is read through.
const MAX_LOOKS: usize = 16;

/// An offset in `from..until` before which nothing that is looked for lies. `before` says of a record whether it lies
/// before what is looked for, or nothing if it belongs to somebody else; the answers must be true first, then false.
///
/// # Errors
/// When the log can not be read.
pub fn seek(
    log: &dyn Log,
    at: &TopicPartition,
    mut from: u64,
    mut until: u64,
    before: impl Fn(&StoredRecord) -> Option<bool>,
) -> Result<u64, LogError> {
    while until.saturating_sub(from) > SEEK_OFFSETS {
        let middle = from + (until - from) / 2;
        match look(log, at, middle, until, &before)? {
            Found::Before => from = middle,
            Found::NotBefore => until = middle,
            Found::TooRare => break,
        }
    }
    Ok(from)
}

enum Found {
    Before,
    NotBefore,
    TooRare,
}

fn look(
    log: &dyn Log,
    at: &TopicPartition,
    mut from: u64,
    until: u64,
    before: &impl Fn(&StoredRecord) -> Option<bool>,
) -> Result<Found, LogError> {
    for _ in 0..MAX_LOOKS {
        let fetched = log.read(at, from, LOOK_BYTES)?;
        let mut said = fetched.records.iter().filter(|stored| stored.offset < until).filter_map(before);
        match said.next() {
            Some(true) => return Ok(Found::Before),
            Some(false) => return Ok(Found::NotBefore),
            None => {}
        }
        if fetched.at_end || fetched.next_offset >= until || fetched.next_offset <= from {
            // Nothing of ours up to the end of the stretch: what is looked for can only lie before the middle.
            return Ok(Found::NotBefore);
        }
        from = fetched.next_offset;
    }
    Ok(Found::TooRare)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::log::{NewRecord, TopicSpec};
    use crate::memory::MemoryLog;

    #[test]
    fn the_place_is_found_among_records_of_others() {
        let log = MemoryLog::new();
        let at = TopicPartition::new("t", 0);
        log.create_topic(&TopicSpec::new("t", 1)).unwrap();
        // Every fifth record is ours; the others have no say.
        let records = |range: std::ops::Range<i64>| {
            range.map(|timestamp_ms| NewRecord { timestamp_ms, ..NewRecord::default() }).collect::<Vec<_>>()
        };
        for start in (0..20_000).step_by(1_000) {
            log.append(&at, records(start..start + 1_000)).unwrap();
        }
        for wanted in [0, 1, 4_999, 5_000, 12_345, 19_995, 30_000] {
            let found = seek(&log, &at, 0, 20_000, |stored| {
                let number = stored.record.timestamp_ms;
                (number % 5 == 0).then_some(number < wanted)
            });
            let found = i64::try_from(found.unwrap()).unwrap();
            assert!(found <= wanted, "{found} is past {wanted}");
            assert!(wanted.min(20_000) - found <= 2 * 2_048, "{found} is far before {wanted}");
        }
    }
}
