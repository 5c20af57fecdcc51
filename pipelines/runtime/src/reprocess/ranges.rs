//! Which part of the inputs is run again: from times or offsets to offsets by partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smol_str::SmolStr;
use tidewire_engine::intake::available_ms;
use tidewire_engine::log::{Bounds, Log, LogError, NewRecord, TopicPartition};
use tidewire_engine::plan::{Role, StageSpec};
use tidewire_engine::sync::{OffsetRange, Ranges};
use tidewire_schemas::EventTime;

use super::{InputOrder, ReprocessOptions};

/// Bytes read in one piece.
const READ_BYTES: usize = 4 << 20;

/// The part of the inputs that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Of data, records from the first of this time on, in milliseconds; without it from the first that is kept.
    pub from_ms: Option<i64>,
    /// Of all inputs, records up to the first of this time, in milliseconds; without it to the end.
    pub to_ms: Option<i64>,
    /// Partitions that begin at an offset.
    pub from_offsets: BTreeMap<TopicPartition, u64>,
    /// Partitions that end before an offset.
    pub to_offsets: BTreeMap<TopicPartition, u64>,
    /// Whether the log is a stretch of another: that a partition begins after `from_ms` does not mean that records of
    /// the range are gone.
    pub of_stretch: bool,
}

/// An input that no stage of the pipeline writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// The topic.
    pub topic: SmolStr,
    /// Its partitions.
    pub partitions: u32,
    /// Whether some stage reads it as data, so that a range applies to its start. What is only broadcast or controls is
    /// state: it is read from its start.
    pub is_data: bool,
    /// Whether some stage reads it as control.
    pub is_control: bool,
}

/// The external inputs of all stages, each once.
pub fn externals(stages: &[Arc<StageSpec>]) -> Vec<External> {
    let mut all: BTreeMap<SmolStr, External> = BTreeMap::new();
    for input in stages.iter().flat_map(|spec| &spec.inputs).filter(|input| input.external) {
        let external = all.entry(input.topic.clone()).or_insert_with(|| External {
            topic: input.topic.clone(),
            partitions: input.partitions,
            is_data: false,
            is_control: false,
        });
        external.is_data |= matches!(input.role, Role::Driving | Role::Keyed);
        external.is_control |= input.role == Role::Control;
    }
    all.into_values().collect()
}

/// Why there is no such range.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It ends before it begins.
    #[error("the range ends at {to}, not after its begin at {from}")]
    Backwards {
        /// Its begin.
        from: EventTime,
        /// Its end.
        to: EventTime,
    },
    /// The offsets of a partition end before they begin.
    #[error("{at}: the range ends at offset {until}, not after its begin at offset {from}")]
    OffsetsBackwards {
        /// The partition.
        at: TopicPartition,
        /// Its begin.
        from: u64,
        /// Its end.
        until: u64,
    },
    /// An offset of a partition that is not read.
    #[error("{at} is no input from outside; those are {known}")]
    NoInput {
        /// The partition.
        at: TopicPartition,
        /// What there is.
        known: String,
    },
    /// Retention has taken records of the range.
    #[error(
        "{at} begins at offset {start}: offset {asked} was deleted by retention, or is not in the bundle; begin with \
         `--from-offset {topic}/{partition}@{start}` or later, or reprocess the files it was imported from",
        topic = at.topic, partition = at.partition
    )]
    Deleted {
        /// The partition.
        at: TopicPartition,
        /// What was asked for.
        asked: u64,
        /// What is left.
        start: u64,
    },
    /// Retention may have taken records of the range.
    #[error(
        "{at} begins at offset {start} with a record of {first}, after {from}: what was before it was deleted by \
         retention; begin with `--from {first}`, or reprocess the files it was imported from"
    )]
    DeletedBefore {
        /// The partition.
        at: TopicPartition,
        /// What is left.
        start: u64,
        /// Time of the first record left.
        first: EventTime,
        /// What was asked for.
        from: EventTime,
    },
    /// An offset that was never written.
    #[error("{at} ends at offset {end}: offset {asked} was never written; end with an earlier one")]
    BeyondEnd {
        /// The partition.
        at: TopicPartition,
        /// What was asked for.
        asked: u64,
        /// The end.
        end: u64,
    },
    /// No records.
    #[error("the range holds no record of {topics}: {held}")]
    Empty {
        /// The data inputs.
        topics: String,
        /// What they hold.
        held: String,
    },
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// Finds the offsets of a range in every partition of the external inputs. Where they are still to be sorted, there may
/// be records of the range as far outside as they may be out of order: sorting leaves out what is not of it.
pub fn resolve(
    log: &dyn Log,
    stages: &[Arc<StageSpec>],
    options: &ReprocessOptions,
    stop: &AtomicBool,
) -> Result<Ranges, RangeError> {
    let (order, asked) = (options.order, &options.asked);
    if let (Some(from), Some(to)) = (asked.from_ms, asked.to_ms)
        && from >= to
    {
        return Err(RangeError::Backwards { from: EventTime::from_ms(from), to: EventTime::from_ms(to) });
    }
    let externals = externals(stages);
    check_named(&externals, asked)?;
    let slack_ms = if order == InputOrder::Event { options.max_disorder_ms } else { 0 };
    let wide = Asked {
        from_ms: asked.from_ms.map(|from_ms| from_ms.saturating_sub(slack_ms)),
        to_ms: asked.to_ms.map(|to_ms| to_ms.saturating_add(slack_ms)),
        ..asked.clone()
    };
    let (mut ranges, mut records) = (Ranges::default(), false);
    for external in &externals {
        if log.topic(&external.topic)?.is_none() {
            continue;
        }
        for partition in 0..external.partitions {
            let at = TopicPartition::new(external.topic.clone(), partition);
            let range = of_partition(log, &at, external, order, &wide, stop)?;
            records |= external.is_data && range.from < range.until;
            ranges.set(at, range);
        }
    }
    if records { Ok(ranges) } else { Err(empty(log, stages, order, stop)?) }
}

/// The range holds nothing: says what there is.
pub fn empty(
    log: &dyn Log,
    stages: &[Arc<StageSpec>],
    order: InputOrder,
    stop: &AtomicBool,
) -> Result<RangeError, RangeError> {
    let data: Vec<External> = externals(stages).into_iter().filter(|external| external.is_data).collect();
    let topics: Vec<&str> = data.iter().map(|external| external.topic.as_str()).collect();
    Ok(RangeError::Empty { topics: topics.join(", "), held: held(log, &data, order, stop)? })
}

fn check_named(externals: &[External], asked: &Asked) -> Result<(), RangeError> {
    for at in asked.from_offsets.keys().chain(asked.to_offsets.keys()) {
        let known = |external: &External| external.topic == at.topic && at.partition < external.partitions;
        if !externals.iter().any(known) {
            let all = externals.iter().map(|one| match one.partitions {
                1 => format!("{}/0", one.topic),
                count => format!("{}/0 to {}", one.topic, count - 1),
            });
            return Err(RangeError::NoInput { at: at.clone(), known: all.collect::<Vec<_>>().join(", ") });
        }
    }
    Ok(())
}

fn of_partition(
    log: &dyn Log,
    at: &TopicPartition,
    external: &External,
    order: InputOrder,
    asked: &Asked,
    stop: &AtomicBool,
) -> Result<OffsetRange, RangeError> {
    let bounds = log.bounds(at)?;
    let (start, end) = (bounds.start, bounds.stable_end);
    for offset in [asked.from_offsets.get(at), asked.to_offsets.get(at)].into_iter().flatten() {
        if *offset > end {
            return Err(RangeError::BeyondEnd { at: at.clone(), asked: *offset, end });
        }
    }
    let from_ms = asked.from_ms.filter(|_| external.is_data && !asked.from_offsets.contains_key(at));
    let to_ms = asked.to_ms.filter(|_| !asked.to_offsets.contains_key(at));
    let mut range = OffsetRange { from: start, until: end };
    if from_ms.is_some() || to_ms.is_some() {
        range = by_time(log, at, (order, asked.of_stretch), bounds, (from_ms, to_ms), stop)?;
    }
    if let Some(from) = asked.from_offsets.get(at) {
        if *from < start {
            return Err(RangeError::Deleted { at: at.clone(), asked: *from, start });
        }
        range.from = *from;
    }
    if let Some(until) = asked.to_offsets.get(at) {
        if *until < start {
            return Err(RangeError::Deleted { at: at.clone(), asked: *until, start });
        }
        range.until = *until;
    }
    if range.from > range.until {
        if asked.from_offsets.contains_key(at) || asked.to_offsets.contains_key(at) {
            let (from, until) = (range.from, range.until);
            return Err(RangeError::OffsetsBackwards { at: at.clone(), from, until });
        }
        range.until = range.from;
    }
    Ok(range)
}

/// Walks a partition for the first record of each time. A record can not be had before those that lie ahead of it: its
/// time is the greatest so far.
fn by_time(
    log: &dyn Log,
    at: &TopicPartition,
    (order, of_stretch): (InputOrder, bool),
    bounds: Bounds,
    (from_ms, to_ms): (Option<i64>, Option<i64>),
    stop: &AtomicBool,
) -> Result<OffsetRange, RangeError> {
    let end = bounds.stable_end;
    let (mut from, mut until) = (from_ms.map_or(Some(bounds.start), |_| None), None);
    let (mut next, mut first) = (bounds.start, true);
    'read: while next < end {
        if stop.load(Ordering::SeqCst) {
            return Err(RangeError::Stopped);
        }
        let fetched = log.read(at, next, READ_BYTES)?;
        for stored in fetched.records.iter().filter(|stored| stored.offset < end) {
            let time_ms = time_of(order, &stored.record);
            // Where the range begins a little earlier than asked for, what is missing there may be of no interest.
            if first
                && bounds.start > 0
                && !of_stretch
                && order != InputOrder::Event
                && let Some(from_ms) = from_ms.filter(|from_ms| *from_ms < time_ms)
            {
                return Err(RangeError::DeletedBefore {
                    at: at.clone(),
                    start: bounds.start,
                    first: EventTime::from_ms(time_ms),
                    from: EventTime::from_ms(from_ms),
                });
            }
            first = false;
            if from.is_none() && from_ms.is_some_and(|from_ms| time_ms >= from_ms) {
                from = Some(stored.offset);
            }
            if to_ms.is_some_and(|to_ms| time_ms >= to_ms) {
                until = Some(stored.offset);
                break 'read;
            }
            if from.is_some() && to_ms.is_none() {
                break 'read;
            }
        }
        if fetched.next_offset <= next {
            break;
        }
        next = fetched.next_offset;
    }
    let until = until.unwrap_or(end);
    Ok(OffsetRange { from: from.unwrap_or(until), until })
}

/// The time of a record in an order.
pub fn time_of(order: InputOrder, record: &NewRecord) -> i64 {
    match order {
        InputOrder::Availability => available_ms(record),
        InputOrder::Event | InputOrder::Recorded => record.timestamp_ms,
    }
}

/// What data inputs hold, in words.
fn held(
    log: &dyn Log,
    data: &[External],
    order: InputOrder,
    stop: &AtomicBool,
) -> Result<String, RangeError> {
    let mut span: Option<(i64, i64)> = None;
    for external in data {
        if log.topic(&external.topic)?.is_none() {
            continue;
        }
        for partition in 0..external.partitions {
            let at = TopicPartition::new(external.topic.clone(), partition);
            let bounds = log.bounds(&at)?;
            let mut next = bounds.start;
            while next < bounds.stable_end {
                if stop.load(Ordering::SeqCst) {
                    return Err(RangeError::Stopped);
                }
                let fetched = log.read(&at, next, READ_BYTES)?;
                for stored in &fetched.records {
                    let time_ms = time_of(order, &stored.record);
                    span = Some(
                        span.map_or((time_ms, time_ms), |(from, to)| (from.min(time_ms), to.max(time_ms))),
                    );
                }
                if fetched.next_offset <= next {
                    break;
                }
                next = fetched.next_offset;
            }
        }
    }
    Ok(match span {
        Some((from, to)) => {
            format!("there are records from {} to {}", EventTime::from_ms(from), EventTime::from_ms(to))
        }
        None => {
            "the log has none; write some with `tidewire import`, or name files with `--files`".to_owned()
        }
    })
}
