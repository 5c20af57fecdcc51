//! Compares what the two runs took from outside: the same records, and in the same order?

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use smol_str::SmolStr;
use tidewire_engine::log::{NewRecord, StoredRecord, TopicPartition};
use tidewire_engine::reader::PartitionReader;
use tidewire_schemas::wire;

use super::ids::subjects;
use super::matcher::{IdDigest, Matcher};
use super::run::Run;
use super::stream::Stream;
use super::{Progress, Side};
use crate::records::text;

/// Most input records of one run only that are kept to explain differences; more are counted only.
const MAX_KEPT: usize = 200_000;
/// Offsets between two records of a stretch that no record may have, such as those of control records.
const MAX_GAP: u64 = 2;
/// How often progress is told, in records.
const TELL_EVERY: u64 = 16_384;

/// An input record that only one run took, or that it took in another place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRecord {
    /// The run that took it.
    pub side: Side,
    /// The partition.
    pub at: TopicPartition,
    /// The offset.
    pub offset: u64,
    /// Its key.
    pub key: SmolStr,
    /// Its event time, in milliseconds.
    pub event_time_ms: i64,
    /// What it is about.
    pub subjects: Vec<SmolStr>,
    /// The stretch it belongs to, where only one run took it.
    pub stretch: usize,
}

/// Input records that lie beside each other and that only one run took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first of them.
    pub first: InputRecord,
    /// How many.
    pub records: u64,
    /// Whether the other run took other records in their place.
    pub altered: bool,
}

impl InputRecord {
    /// Its place as causes name it.
    pub fn place(&self) -> SmolStr {
        SmolStr::from(format!("{}/{}@{}", self.at.topic, self.at.partition, self.offset))
    }
}

/// What the comparison of inputs came to.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Whether the inputs were compared: epoch records tell what was taken.
    pub compared: bool,
    /// Records that both runs took.
    pub same: u64,
    /// Records that only A took.
    pub only_a: u64,
    /// Records that only B took.
    pub only_b: u64,
    /// The first of these, by event time.
    pub only_one: Vec<InputRecord>,
    /// These by stretches, the earliest first.
    pub stretches: Vec<Stretch>,
    /// Partitions whose records the two runs hold in another order, with the first record that shows it.
    pub reordered: Vec<InputRecord>,
}

/// Compares what the two runs took of these topics.
pub fn compare(
    a: &Run,
    b: &Run,
    topics: &BTreeSet<SmolStr>,
    progress: Progress<'_>,
) -> anyhow::Result<Inputs> {
    let mut inputs = Inputs { compared: a.epochs.count > 0 && b.epochs.count > 0, ..Inputs::default() };
    if !inputs.compared {
        return Ok(inputs);
    }
    let mut read = 0;
    for topic in topics {
        let shared = a.shares(b, topic)?;
        for group in groups(a, b, topic)? {
            if shared && group[0] == group[1] {
                // The same records of the same log: there is nothing to compare.
                inputs.same += group[0].values().map(|(first, next)| next - first).sum::<u64>();
                continue;
            }
            compare_group([a, b], &group, &mut inputs, &mut read, progress)
                .with_context(|| format!("comparing input {topic}"))?;
        }
    }
    inputs.find_stretches();
    Ok(inputs)
}

impl Inputs {
    /// Puts the records of one run only into the order of event time, and those beside each other into stretches.
    fn find_stretches(&mut self) {
        let mut stretches: Vec<(Stretch, u64)> = Vec::new();
        self.only_one.sort_by(|one, other| {
            (one.side, &one.at, one.offset).cmp(&(other.side, &other.at, other.offset))
        });
        for record in &mut self.only_one {
            match stretches.last_mut() {
                Some((stretch, last))
                    if (stretch.first.side, &stretch.first.at) == (record.side, &record.at)
                        && record.offset <= *last + 1 + MAX_GAP =>
                {
                    (stretch.records, *last) = (stretch.records + 1, record.offset);
                }
                _ => {
                    let first = record.clone();
                    stretches.push((Stretch { first, records: 1, altered: false }, record.offset));
                }
            }
            record.stretch = stretches.len() - 1;
        }
        // What lies at one place in both runs, but differs, is one record that was altered.
        let mut renumbered: Vec<usize> = (0..stretches.len()).collect();
        let mut of_a: BTreeMap<(TopicPartition, u64, u64), usize> = BTreeMap::new();
        for place in 0..stretches.len() {
            let (stretch, last) = &stretches[place];
            let lies = (stretch.first.at.clone(), stretch.first.offset, *last);
            match stretch.first.side {
                Side::A => drop(of_a.insert(lies, place)),
                Side::B => {
                    if let Some(other) = of_a.get(&lies) {
                        renumbered[place] = *other;
                        stretches[*other].0.altered = true;
                    }
                }
            }
        }
        for record in &mut self.only_one {
            record.stretch = renumbered[record.stretch];
        }
        self.stretches = stretches.into_iter().map(|(stretch, _)| stretch).collect();
        self.only_one.sort_by_key(|record| (record.event_time_ms, record.at.clone(), record.offset));
    }
}

/// What each side took of some partitions: offset ranges.
type Group = [BTreeMap<TopicPartition, (u64, u64)>; 2];

/// Partitions that are compared with each other: those of one number, or all where there are not as many.
fn groups(a: &Run, b: &Run, topic: &str) -> anyhow::Result<Vec<Group>> {
    let taken = |run: &Run| -> BTreeMap<TopicPartition, (u64, u64)> {
        let of_topic = run.epochs.taken.iter().filter(|(at, _)| at.topic == topic);
        of_topic.map(|(at, range)| (at.clone(), *range)).collect()
    };
    let partitions =
        |run: &Run| -> anyhow::Result<_> { Ok(run.log.topic(topic)?.map_or(0, |spec| spec.partitions)) };
    let (left, right) = (taken(a), taken(b));
    if partitions(a)? != partitions(b)? {
        return Ok(vec![[left, right]]);
    }
    let all: BTreeSet<&TopicPartition> = left.keys().chain(right.keys()).collect();
    let one = |taken: &BTreeMap<TopicPartition, (u64, u64)>, at: &TopicPartition| {
        taken.get(at).map(|range| (at.clone(), *range)).into_iter().collect()
    };
    Ok(all.into_iter().map(|at| [one(&left, at), one(&right, at)]).collect())
}

fn compare_group(
    runs: [&Run; 2],
    group: &Group,
    inputs: &mut Inputs,
    read: &mut u64,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    let mut streams = [stream(runs[0], &group[0])?, stream(runs[1], &group[1])?];
    let mut matcher = Matcher::default();
    let (mut order, mut side) = (OrderWatch::default(), Side::B);
    // With several partitions the order of one is not that of the other.
    let ordered = group.iter().all(|taken| taken.len() <= 1);
    loop {
        side = match (streams[0].peek()?.is_some(), streams[1].peek()?.is_some()) {
            (false, false) => break,
            (true, false) => Side::A,
            (false, true) => Side::B,
            (true, true) if side == Side::A => Side::B,
            (true, true) => Side::A,
        };
        let Some((at, stored)) = streams[side as usize].next()? else { break };
        *read += 1;
        if read.is_multiple_of(TELL_EVERY) {
            progress(&format!("input {}", at.topic), *read);
        }
        let digest = digest(&stored.record);
        let Some((a, b)) = matcher.offer(side, digest, input_record(side, at, &stored))? else { continue };
        inputs.same += 1;
        if ordered && let Some(record) = order.note(a, b) {
            inputs.reordered.push(record);
        }
    }
    let (only_a, only_b) = matcher.rest();
    inputs.only_a += only_a.len() as u64;
    inputs.only_b += only_b.len() as u64;
    let room = MAX_KEPT.saturating_sub(inputs.only_one.len());
    let mut rest: Vec<InputRecord> = only_a.into_iter().chain(only_b).collect();
    rest.sort_by_key(|record| (record.event_time_ms, record.offset));
    inputs.only_one.extend(rest.into_iter().take(room));
    Ok(())
}

fn stream<'a>(run: &'a Run, taken: &BTreeMap<TopicPartition, (u64, u64)>) -> anyhow::Result<Stream<'a>> {
    let mut readers = Vec::with_capacity(taken.len());
    for (at, (first, next)) in taken {
        let start = run.log.bounds(at)?.start;
        readers.push(PartitionReader::new(&*run.log, at.clone(), (*first).max(start), *next));
    }
    Ok(Stream::of(readers))
}

fn input_record(side: Side, at: TopicPartition, stored: &StoredRecord) -> InputRecord {
    let key = stored.record.key.as_deref();
    InputRecord {
        side,
        at,
        offset: stored.offset,
        key: SmolStr::from(key.map(text).unwrap_or_default()),
        event_time_ms: stored.record.timestamp_ms,
        subjects: subjects(key, None),
        stretch: 0,
    }
}

/// Digest of all that an operator sees of a record; ids of schemas differ from log to log.
fn digest(record: &NewRecord) -> IdDigest {
    let value = record.value.as_deref().unwrap_or_default();
    let body = wire::split_prefix(value).map_or(value, |(_, body)| body);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&record.timestamp_ms.to_le_bytes());
    for part in [record.key.as_deref().unwrap_or_default(), body] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    IdDigest::from_le_bytes(short)
}

/// Finds the first record that lies before another in one run and behind it in the other.
#[derive(Default)]
struct OrderWatch {
    furthest: Option<(u64, u64)>,
    found: bool,
}

impl OrderWatch {
    fn note(&mut self, a: InputRecord, b: InputRecord) -> Option<InputRecord> {
        let (left, right) = (a.offset, b.offset);
        let Some((furthest_a, furthest_b)) = self.furthest else {
            self.furthest = Some((left, right));
            return None;
        };
        if (left > furthest_a) == (right > furthest_b) {
            self.furthest = Some((furthest_a.max(left), furthest_b.max(right)));
            return None;
        }
        // Told once a partition: it only serves to say that the order differs.
        let first = !std::mem::replace(&mut self.found, true);
        first.then_some(if left > furthest_a { b } else { a })
    }
}
