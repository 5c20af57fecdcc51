//! Finds input records that came out of event-time order, as a task of the run takes them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use smol_str::SmolStr;
use tidewire_engine::identity::RECEIVED_HEADER;
use tidewire_engine::intake::Source;
use tidewire_engine::log::{NewRecord, TopicPartition};
use tidewire_engine::plan::Role;
use tidewire_engine::reader::PartitionReader;
use tidewire_schemas::EventTime;

use super::inputs::InputRecord;
use super::run::{Order, Run};
use super::{Progress, Side};
use crate::records::text;

/// Most late records that are kept to explain differences.
const MAX_KEPT: usize = 1_000_000;
/// Most keys of which the most delayed record is kept.
const MAX_KEYS: usize = 200_000;
/// Most late records of a key or topic, the last ones, among which the one that bears most is looked for.
const MAX_LOOKED_AT: usize = 32;
/// How often progress is told, in records.
const TELL_EVERY: u64 = 16_384;

/// An input record that came late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateInput {
    /// The record.
    pub record: InputRecord,
    /// By how much: how far event time had gone on when it came, or how long after its event time it was received.
    pub late_by_ms: i64,
    /// Whether records of a later event time had come before it.
    pub is_reordered: bool,
}

/// All that came late in a run.
#[derive(Clone, Debug, Default)]
pub struct Late {
    records: Vec<LateInput>,
    by_place: BTreeMap<(Side, SmolStr), usize>,
    /// By what they are about, in the order of event time.
    by_subject: BTreeMap<SmolStr, Vec<usize>>,
    /// By topic, likewise.
    by_topic: BTreeMap<SmolStr, Vec<usize>>,
}

impl Late {
    /// Looks through what a run took, task by task, in the order in which its tasks merged it.
    pub fn read(&mut self, side: Side, run: &Run, progress: Progress<'_>) -> anyhow::Result<()> {
        let mut scan =
            Scan { side, run, read: 0, seen: BTreeSet::new(), delayed: BTreeMap::new(), late: self };
        for stage in run.stages() {
            for task in 0..stage.tasks() {
                let sources = Source::of_task(&stage, task);
                let outside: Vec<&Source> = sources.iter().filter(|source| source.external).collect();
                if outside.iter().any(|source| matches!(source.role, Role::Driving | Role::Keyed)) {
                    scan.task(&outside, progress)
                        .with_context(|| format!("stage {}, task {task}", stage.name))?;
                }
            }
        }
        scan.finish();
        Ok(())
    }

    /// Takes records that lie elsewhere in another run.
    pub fn add_reordered(&mut self, records: &[InputRecord]) {
        for record in records {
            if !self.by_place.contains_key(&(record.side, record.place())) {
                self.push(LateInput { record: record.clone(), late_by_ms: 0, is_reordered: true });
            }
        }
    }

    /// Makes ready to be asked.
    pub fn index(&mut self) {
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        order.sort_by_key(|place| (self.records[*place].record.event_time_ms, *place));
        for place in &order {
            let record = &self.records[*place].record;
            self.by_topic.entry(record.at.topic.clone()).or_default().push(*place);
            for subject in &record.subjects {
                self.by_subject.entry(subject.clone()).or_default().push(*place);
            }
        }
    }

    /// A late record.
    pub fn get(&self, place: usize) -> Option<&LateInput> {
        self.records.get(place)
    }

    /// Whether nothing came late.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many records came out of order.
    pub fn reordered(&self) -> usize {
        self.records.iter().filter(|late| late.is_reordered).count()
    }

    /// The late record at this place.
    pub fn at(&self, side: Side, place: &SmolStr) -> Option<usize> {
        self.by_place.get(&(side, place.clone())).copied()
    }

    /// The latest record within a window of event time about any of these.
    pub fn within(&self, subjects: &[SmolStr], window: (EventTime, EventTime)) -> Option<usize> {
        let (from, to) = (window.0.as_ms(), window.1.as_ms());
        let lists = subjects.iter().filter_map(|subject| self.by_subject.get(subject));
        let inside = lists.flat_map(|list| {
            let first = list.partition_point(|place| self.records[*place].record.event_time_ms < from);
            list[first..].iter().take_while(|place| self.records[**place].record.event_time_ms < to)
        });
        inside
            .copied()
            .max_by_key(|place| (self.records[*place].is_reordered, self.records[*place].late_by_ms))
    }

    /// The record up to a time that bears most on what is about any of these, or follows from these topics, whatever it
    /// is about: of those that came last the one that came latest, and of like ones the last.
    pub fn before<'a>(
        &self,
        subjects: &[SmolStr],
        topics: impl Iterator<Item = &'a SmolStr>,
        ms: i64,
    ) -> Option<usize> {
        let related = subjects.iter().filter_map(|subject| self.by_subject.get(subject));
        let lists = related.chain(topics.filter_map(|topic| self.by_topic.get(topic)));
        let mut found: Vec<usize> = Vec::new();
        for list in lists {
            let end = list.partition_point(|place| self.records[*place].record.event_time_ms <= ms);
            found.extend(&list[end.saturating_sub(MAX_LOOKED_AT)..end]);
        }
        let lateness = |place: &usize| self.records[*place].late_by_ms;
        // What came out of order comes first; a record that was only delayed stands in where there is none.
        if found.iter().any(|place| self.records[*place].is_reordered) {
            found.retain(|place| self.records[*place].is_reordered);
        }
        let least = found.iter().map(lateness).max()? / 2;
        found.retain(|place| lateness(place) >= least);
        found.into_iter().max_by_key(|place| (self.records[*place].record.event_time_ms, *place))
    }

    fn push(&mut self, late: LateInput) {
        if self.records.len() < MAX_KEPT {
            self.by_place.insert((late.record.side, late.record.place()), self.records.len());
            self.records.push(late);
        }
    }
}

struct Scan<'a> {
    side: Side,
    run: &'a Run,
    read: u64,
    /// Places noted already: broadcast partitions are read by every task.
    seen: BTreeSet<(TopicPartition, u64)>,
    /// The most delayed record of each key.
    delayed: BTreeMap<(SmolStr, SmolStr), LateInput>,
    late: &'a mut Late,
}

impl Scan<'_> {
    fn task(&mut self, sources: &[&Source], progress: Progress<'_>) -> anyhow::Result<()> {
        let log = &*self.run.log;
        let mut readers = Vec::new();
        for source in sources {
            if let Some((first, next)) = self.run.epochs.taken.get(&source.at) {
                let start = log.bounds(&source.at)?.start;
                readers.push(PartitionReader::new(log, source.at.clone(), (*first).max(start), *next));
            }
        }
        let mut greatest_ms = i64::MIN;
        loop {
            let mut least: Option<(i64, usize)> = None;
            for (place, reader) in readers.iter_mut().enumerate() {
                if let Some(stored) = reader.peek_record()? {
                    let head = (self.merge_ms(&stored.record), place);
                    least = Some(least.map_or(head, |least| least.min(head)));
                }
            }
            let Some((_, place)) = least else { return Ok(()) };
            let at = readers[place].at().clone();
            let Some(stored) = readers[place].next_record()? else { return Ok(()) };
            self.read += 1;
            if self.read.is_multiple_of(TELL_EVERY) {
                progress(&format!("looking for late records in {}", at.topic), self.read);
            }
            let time_ms = stored.record.timestamp_ms;
            let behind_ms = greatest_ms.saturating_sub(time_ms);
            greatest_ms = greatest_ms.max(time_ms);
            let delay_ms = match self.run.order {
                Order::Event => 0,
                Order::Availability | Order::Live => received_ms(&stored.record).saturating_sub(time_ms),
            };
            if behind_ms <= 0 && delay_ms <= 0 {
                continue;
            }
            let is_reordered = behind_ms > 0;
            let late_by_ms = if is_reordered { behind_ms } else { delay_ms };
            self.note(at, stored.offset, &stored.record, late_by_ms, is_reordered);
        }
    }

    fn note(
        &mut self,
        at: TopicPartition,
        offset: u64,
        record: &NewRecord,
        late_by_ms: i64,
        is_reordered: bool,
    ) {
        let key = record.key.as_deref();
        let late = LateInput {
            record: InputRecord {
                side: self.side,
                offset,
                key: SmolStr::from(key.map(text).unwrap_or_default()),
                event_time_ms: record.timestamp_ms,
                subjects: super::ids::subjects(key, None),
                at: at.clone(),
                stretch: 0,
            },
            late_by_ms,
            is_reordered,
        };
        if is_reordered {
            if self.seen.insert((at, offset)) {
                self.late.push(late);
            }
            return;
        }
        // Only delayed: the first of each key is enough, since from there on time is another one.
        let name = (at.topic, late.record.key.clone());
        if self.delayed.len() < MAX_KEYS || self.delayed.contains_key(&name) {
            let first = self.delayed.entry(name).or_insert_with(|| late.clone());
            if late.record.event_time_ms < first.record.event_time_ms {
                *first = late;
            }
        }
    }

    fn finish(self) {
        for late in self.delayed.into_values() {
            self.late.push(late);
        }
    }

    /// The time by which the run's tasks merged it.
    fn merge_ms(&self, record: &NewRecord) -> i64 {
        match self.run.order {
            Order::Event => record.timestamp_ms,
            Order::Availability | Order::Live => received_ms(record),
        }
    }
}

/// When a record was received; its timestamp where that is not told.
fn received_ms(record: &NewRecord) -> i64 {
    let header = record.header(RECEIVED_HEADER).and_then(|value| std::str::from_utf8(value).ok());
    let nanos = header.and_then(|text| text.parse::<i64>().ok());
    nanos.map_or(record.timestamp_ms, |nanos| nanos.div_euclid(1_000_000))
}
