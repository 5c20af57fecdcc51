//! What a task has at hand from its inputs, and the one order it is taken in.

use std::collections::VecDeque;

use crate::identity::RECEIVED_HEADER;
use crate::log::{Fetched, NewRecord, StoredRecord, TopicPartition};
use crate::plan::{Caps, MergeOrder, Role, StageSpec};

/// One partition that a task reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Place of its input in the stage: its rank.
    pub input: usize,
    /// How it is read.
    pub role: Role,
    /// Whether no stage of this pipeline writes it.
    pub external: bool,
    /// The partition.
    pub at: TopicPartition,
    /// How far ahead of its received time an event time may be; beyond it the record is a dead letter.
    pub max_future_skew_ms: Option<i64>,
    /// By which time the merge takes its records.
    pub order: MergeOrder,
}

impl Source {
    /// All partitions that task `task` reads, by rank of the input, then partition.
    pub fn of_task(spec: &StageSpec, task: u32) -> Vec<Source> {
        let mut sources = Vec::new();
        for (input, read) in spec.inputs.iter().enumerate() {
            let partitions = match read.role {
                Role::Driving | Role::Keyed => task..task + 1,
                Role::Broadcast | Role::Control => 0..read.partitions,
            };
            for partition in partitions {
                let at = TopicPartition::new(read.topic.clone(), partition);
                let (role, external) = (read.role, read.external);
                let (max_future_skew_ms, order) = (read.max_future_skew_ms, spec.order);
                sources.push(Source { input, role, external, at, max_future_skew_ms, order });
            }
        }
        sources
    }

    /// Received time of a record whose event time is further ahead of it than allowed.
    pub fn received_before_ms(&self, record: &NewRecord) -> Option<i64> {
        let (most_ms, received_ms) = (self.max_future_skew_ms?, received_ms(record)?);
        (record.timestamp_ms.saturating_sub(received_ms) > most_ms).then_some(received_ms)
    }

    /// The time by which the merge takes a record. One from the future is taken when it was received: it is a dead
    /// letter, and must not hold up what lies behind it until its time has come.
    pub fn time_ms(&self, record: &NewRecord) -> i64 {
        match self.order {
            MergeOrder::Event => self.received_before_ms(record).unwrap_or(record.timestamp_ms),
            MergeOrder::Availability => available_ms(record),
        }
    }

    /// Whether its records are taken before everything at hand. In the order of availability a control record waits
    /// for its time as any other: what was not decided yet must not hold.
    pub fn is_first(&self) -> bool {
        self.role == Role::Control && self.order == MergeOrder::Event
    }

    /// Whether it is data from outside that the work is spread by.
    pub fn is_data(&self) -> bool {
        self.external && matches!(self.role, Role::Driving | Role::Keyed)
    }

    /// Whether every task reads all of it, so that its keys are not the task's own.
    pub fn is_whole(&self) -> bool {
        matches!(self.role, Role::Broadcast | Role::Control)
    }

    /// Whether the merge waits for it, and the watermark counts it.
    pub fn is_external_data(&self) -> bool {
        self.external && self.role != Role::Control
    }
}

/// A record taken into an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which of the task's sources it came from.
    pub source: usize,
    /// The record.
    pub stored: StoredRecord,
}

/// What one epoch takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The records in their order.
    pub taken: Vec<Taken>,
    /// Per source, where the next epoch goes on, and whether nothing more was there.
    pub spans: Vec<Span>,
    /// Bytes of the records.
    pub bytes: usize,
}

/// How far an epoch took one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first offset that was not yet taken before the epoch.
    pub first: u64,
    /// The first offset not taken after it.
    pub next: u64,
    /// Whether the log said that nothing more was there.
    pub at_end: bool,
    /// The greatest time, in the merge, of the records taken; none for a control input.
    pub greatest_ms: Option<i64>,
}

/// The next record at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its time; none for a control record, which is taken before everything.
    pub time_ms: Option<i64>,
    /// Its source.
    pub source: usize,
}

#[derive(Debug, Default)]
struct Buffer {
    /// Records with their times in the merge.
    records: VecDeque<(i64, StoredRecord)>,
    bytes: usize,
    fetch_from: u64,
    taken_to: u64,
    at_end: bool,
}

impl Buffer {
    fn pop(&mut self) -> Option<(i64, StoredRecord)> {
        let (time_ms, stored) = self.records.pop_front()?;
        self.bytes = self.bytes.saturating_sub(stored.record.size());
        self.taken_to = if self.records.is_empty() { self.fetch_from } else { stored.offset + 1 };
        Some((time_ms, stored))
    }
}

/// The records read ahead from each source.
#[derive(Debug)]
pub struct Intake {
    sources: Vec<Source>,
    buffers: Vec<Buffer>,
}

impl Intake {
    /// Nothing at hand; reading starts at `positions`, one for each source.
    pub fn new(sources: Vec<Source>, positions: &[u64]) -> Self {
        let buffers = sources
            .iter()
            .enumerate()
            .map(|(source, _)| {
                let from = positions.get(source).copied().unwrap_or(0);
                Buffer { fetch_from: from, taken_to: from, ..Buffer::default() }
            })
            .collect();
        Self { sources, buffers }
    }

    /// The partitions read.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Where each source stands: the first offset not taken.
    pub fn positions(&self) -> Vec<u64> {
        self.buffers.iter().map(|buffer| buffer.taken_to).collect()
    }

    /// Goes on at `next`, as a recorded epoch did. Nothing may be at hand.
    pub fn skip_to(&mut self, source: usize, next: u64) {
        let buffer = &mut self.buffers[source];
        buffer.fetch_from = next.max(buffer.fetch_from);
        buffer.taken_to = next.max(buffer.taken_to);
    }

    /// Sources to be read now, with the offset to read from: those with less than half of `prefetch_bytes` at hand.
    pub fn wanted(&self, prefetch_bytes: usize) -> Vec<(usize, u64)> {
        let short = self.buffers.iter().enumerate().filter(|(_, buffer)| buffer.bytes < prefetch_bytes / 2);
        short.map(|(source, buffer)| (source, buffer.fetch_from)).collect()
    }

    /// Adds what a read of `source` returned.
    pub fn offer(&mut self, source: usize, fetched: Fetched) {
        let buffer = &mut self.buffers[source];
        buffer.bytes += fetched.records.iter().map(|stored| stored.record.size()).sum::<usize>();
        let idle = buffer.records.is_empty();
        let read = &self.sources[source];
        buffer
            .records
            .extend(fetched.records.into_iter().map(|stored| (read.time_ms(&stored.record), stored)));
        buffer.fetch_from = fetched.next_offset.max(buffer.fetch_from);
        buffer.at_end = fetched.at_end;
        if idle && buffer.records.is_empty() {
            buffer.taken_to = buffer.fetch_from;
        }
    }

    /// Whether every source was read to its end and nothing is at hand: silence, if it lasts.
    pub fn is_silent(&self) -> bool {
        self.buffers.iter().all(|buffer| buffer.at_end && buffer.records.is_empty())
    }

    /// Records at hand.
    pub fn at_hand(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.records.len()).sum()
    }

    /// Whether nothing is at hand.
    pub fn is_empty(&self) -> bool {
        self.buffers.iter().all(|buffer| buffer.records.is_empty())
    }

    /// Takes a closed batch: control records first, then a merge by (timestamp, rank, partition) as long as each
    /// external source has its next record at hand or was read to its end.
    pub fn take(&mut self, caps: &Caps) -> Batch {
        self.take_before(caps, i64::MAX)
    }

    /// As [`Intake::take`], but only as long as the next record is of a time before `horizon_ms`.
    pub fn take_before(&mut self, caps: &Caps, horizon_ms: i64) -> Batch {
        let mut spans: Vec<Span> =
            self.buffers.iter().map(|buffer| Span { first: buffer.taken_to, ..Span::default() }).collect();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < caps.max_records && bytes < caps.max_bytes {
            let Some(Head { time_ms, source }) = self.head() else { break };
            if time_ms.is_some_and(|time_ms| time_ms >= horizon_ms) {
                break;
            }
            let Some((_, stored)) = self.buffers[source].pop() else { break };
            bytes += stored.record.size();
            spans[source].greatest_ms = spans[source].greatest_ms.max(time_ms);
            taken.push(Taken { source, stored });
        }
        for (span, buffer) in spans.iter_mut().zip(&self.buffers) {
            span.next = buffer.taken_to;
            span.at_end = buffer.at_end && buffer.records.is_empty();
        }
        Batch { taken, spans, bytes }
    }

    /// The offset to read `source` from, if it may still hold records before `horizon_ms` that are not at hand.
    pub fn short_of(&self, source: usize, horizon_ms: i64) -> Option<u64> {
        let buffer = &self.buffers[source];
        let reaches = buffer.records.iter().any(|(time_ms, _)| *time_ms >= horizon_ms);
        (!reaches).then_some(buffer.fetch_from)
    }

    /// The next record at hand, for a runner that orders several tasks.
    pub fn head(&self) -> Option<Head> {
        self.head_of(self.next_source()?)
    }

    /// The next record at hand of each source that has one.
    pub fn heads(&self) -> impl Iterator<Item = Head> {
        (0..self.sources.len()).filter_map(|source| self.head_of(source))
    }

    fn head_of(&self, source: usize) -> Option<Head> {
        let time_ms = self.buffers[source].records.front()?.0;
        Some(Head { time_ms: (!self.sources[source].is_first()).then_some(time_ms), source })
    }

    /// The least time at hand, control records left out.
    pub fn first_time_ms(&self) -> Option<i64> {
        let data = self.sources.iter().zip(&self.buffers).filter(|(source, _)| source.role != Role::Control);
        data.filter_map(|(_, buffer)| Some(buffer.records.front()?.0)).min()
    }

    fn next_source(&self) -> Option<usize> {
        let mut least: Option<(i64, usize)> = None;
        let mut waits = false;
        for (place, (source, buffer)) in self.sources.iter().zip(&self.buffers).enumerate() {
            match buffer.records.front() {
                Some(_) if source.is_first() => return Some(place),
                Some((time_ms, _)) => {
                    if least.is_none_or(|(best, _)| *time_ms < best) {
                        least = Some((*time_ms, place));
                    }
                }
                None => waits |= !buffer.at_end && (source.external || source.role == Role::Control),
            }
        }
        if waits { None } else { least.map(|(_, place)| place) }
    }
}

/// Puts the records of a recorded epoch, given by source, into the order that [`Intake::take`] gave them.
pub fn replay_order(sources: &[Source], mut by_source: Vec<VecDeque<StoredRecord>>) -> Vec<Taken> {
    let mut taken = Vec::with_capacity(by_source.iter().map(VecDeque::len).sum());
    for (source, records) in sources
        .iter()
        .zip(0..)
        .zip(&mut by_source)
        .filter_map(|((read, place), records)| read.is_first().then_some((place, records)))
    {
        taken.extend(records.drain(..).map(|stored| Taken { source, stored }));
    }
    loop {
        let heads = sources.iter().zip(&by_source).zip(0..);
        let heads = heads
            .filter_map(|((read, records), source)| Some((read.time_ms(&records.front()?.record), source)));
        let Some((_, source)) = heads.min() else { return taken };
        let source: usize = source;
        if let Some(stored) = by_source[source].pop_front() {
            taken.push(Taken { source, stored });
        }
    }
}

/// When a record was there to be read: its received time, or its timestamp if it has none.
pub fn available_ms(record: &NewRecord) -> i64 {
    received_ms(record).unwrap_or(record.timestamp_ms)
}

fn received_ms(record: &NewRecord) -> Option<i64> {
    let text = std::str::from_utf8(record.header(RECEIVED_HEADER)?).ok()?;
    text.parse::<i64>().ok().map(|nanos| nanos.div_euclid(1_000_000))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;

    use super::*;

    /// A driving and a control input, and what lies in them: timestamp and received time.
    fn merged(order: MergeOrder, data: &[(i64, i64)], control: &[(i64, i64)]) -> Vec<(usize, i64)> {
        let source = |input, role, topic| Source {
            input,
            role,
            external: true,
            at: TopicPartition::new(topic, 0),
            max_future_skew_ms: None,
            order,
        };
        let sources = vec![source(0, Role::Driving, "data"), source(1, Role::Control, "control")];
        let stored = |records: &[(i64, i64)]| -> VecDeque<StoredRecord> {
            let all = (0..).zip(records).map(|(offset, (timestamp_ms, received_ms))| {
                let received = Bytes::from((received_ms * 1_000_000).to_string());
                let headers = vec![(RECEIVED_HEADER.into(), received)];
                let timestamp_ms = *timestamp_ms;
                StoredRecord { offset, record: NewRecord { timestamp_ms, headers, ..NewRecord::default() } }
            });
            all.collect()
        };
        let mut intake = Intake::new(sources.clone(), &[]);
        for (source, records) in [data, control].into_iter().enumerate() {
            let records: Vec<StoredRecord> = stored(records).into();
            let next_offset = records.len() as u64;
            intake.offer(source, Fetched { records, next_offset, at_end: true });
        }
        let plain = |taken: Vec<Taken>| -> Vec<(usize, i64)> {
            taken.iter().map(|taken| (taken.source, taken.stored.record.timestamp_ms)).collect()
        };
        let taken = plain(intake.take(&Caps::default()).taken);
        // What is run again is taken in the same order.
        assert_eq!(plain(replay_order(&sources, vec![stored(data), stored(control)])), taken);
        taken
    }

    #[test]
    fn by_availability_nothing_is_taken_before_it_was_received() {
        // The control record was decided at 15 and came at 25; the last data record came late, and after all others.
        let (data, control) = ([(10, 11), (20, 21), (30, 31), (12, 40)], [(15, 25)]);
        assert_eq!(
            merged(MergeOrder::Availability, &data, &control),
            [(0, 10), (0, 20), (1, 15), (0, 30), (0, 12)]
        );
        assert_eq!(merged(MergeOrder::Event, &data, &control), [(1, 15), (0, 10), (0, 20), (0, 30), (0, 12)]);
    }

    #[test]
    fn a_record_behind_one_that_was_received_later_waits_for_it() {
        let data = [(10, 30), (11, 12)];
        let merged = merged(MergeOrder::Availability, &data, &[(5, 20)]);
        assert_eq!(merged, [(1, 5), (0, 10), (0, 11)]);
    }
}
