//! Walks both runs topic by topic and finds the records that differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use smol_str::SmolStr;
use tidewire_engine::identity::{CAUSE_HEADER, ID_HEADER};
use tidewire_engine::log::{NewRecord, StoredRecord, TopicPartition};
use tidewire_schemas::{EventTime, Kind, Record, wire};

use super::counts::{Class, Counts, Things};
use super::fields::{FieldDiff, TIMESTAMP};
use super::ids::{self, Identified, identify};
use super::matcher::Matcher;
use super::run::Run;
use super::stream::{Stream, read_one};
use super::{Progress, Request, Side};
use crate::records::{Shower, Shown, hex, text};

/// Bytes of records that wait for their counterpart and are kept in memory; of more only the place is kept, and they
/// are read again when they are needed.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Most differences whose causes are looked for; more are counted only.
pub const MAX_EXPLAINED: usize = 500_000;
/// How often progress is told, in records.
const TELL_EVERY: u64 = 4_096;

/// Where a record of a difference lies, and what its headers say.
#[derive(Clone, Debug)]
pub struct Lies {
    /// The partition.
    pub at: TopicPartition,
    /// The offset.
    pub offset: u64,
    /// Its timestamp in milliseconds.
    pub timestamp_ms: i64,
    /// Its identity in its run.
    pub id: Option<SmolStr>,
    /// Its cause in its run.
    pub cause: Option<SmolStr>,
}

/// A record that is not the same in both runs.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The topic.
    pub topic: SmolStr,
    /// What became of it.
    pub class: Class,
    /// Which record it is, if it can be read.
    pub kind: Option<Kind>,
    /// Its key.
    pub key: SmolStr,
    /// What identifies it within its topic.
    pub id: SmolStr,
    /// Its event time.
    pub event_time: EventTime,
    /// The window that it sums up.
    pub window: Option<(EventTime, EventTime)>,
    /// The operator that made it, where its id tells.
    pub operator: Option<SmolStr>,
    /// What it is about.
    pub subjects: Vec<SmolStr>,
    /// The input record that it is about, for late records and dead letters.
    pub source: Option<SmolStr>,
    /// Where it lies in A.
    pub a: Option<Lies>,
    /// Where it lies in B.
    pub b: Option<Lies>,
}

impl Difference {
    /// Where it lies, by side.
    pub fn sides(&self) -> impl Iterator<Item = (Side, &Lies)> {
        let (a, b) = (self.a.iter(), self.b.iter());
        a.map(|lies| (Side::A, lies)).chain(b.map(|lies| (Side::B, lies)))
    }

    /// The earlier of its timestamps, in milliseconds.
    pub fn first_ms(&self) -> i64 {
        self.sides().map(|(_, lies)| lies.timestamp_ms).min().unwrap_or(0)
    }

    /// The later of its timestamps, in milliseconds.
    pub fn last_ms(&self) -> i64 {
        self.sides().map(|(_, lies)| lies.timestamp_ms).max().unwrap_or(0)
    }
}

/// What the walk found.
#[derive(Debug, Default)]
pub struct Walked {
    /// Records by topic and kind.
    pub counts: BTreeMap<(SmolStr, SmolStr), Counts>,
    /// The differences, at most [`MAX_EXPLAINED`].
    pub differences: Vec<Difference>,
    /// Differences beyond these.
    pub beyond: u64,
    /// Signals.
    pub signals: Things,
    /// Orders.
    pub orders: Things,
}

/// A record that waits for its counterpart.
struct Waiting {
    at: TopicPartition,
    offset: u64,
    timestamp_ms: i64,
    /// Absent once too many bytes wait.
    record: Option<NewRecord>,
}

/// The walk over one topic after the other.
pub struct Walk<'a> {
    runs: [&'a Run; 2],
    request: &'a Request,
    showers: [Shower<'a>; 2],
    schemas_match: BTreeMap<(u32, u32), bool>,
    found: Walked,
    read: u64,
    waiting_bytes: usize,
}

impl<'a> Walk<'a> {
    /// A walk that has not begun.
    pub fn new(a: &'a Run, b: &'a Run, request: &'a Request) -> Self {
        Self {
            runs: [a, b],
            request,
            showers: [Shower::new(&a.book), Shower::new(&b.book)],
            schemas_match: BTreeMap::new(),
            found: Walked::default(),
            read: 0,
            waiting_bytes: 0,
        }
    }

    /// What was found.
    pub fn finish(self) -> Walked {
        self.found
    }

    /// Compares a topic, partition by partition where both runs have as many, else as a whole.
    pub fn topic(&mut self, topic: &SmolStr, progress: Progress<'_>) -> anyhow::Result<()> {
        let count = |run: &Run| -> anyhow::Result<u32> {
            Ok(run.log.topic(topic)?.map_or(0, |spec| spec.partitions))
        };
        let (a, b) = (count(self.runs[0])?, count(self.runs[1])?);
        let parts = |count: u32| -> Vec<TopicPartition> {
            (0..count).map(|partition| TopicPartition::new(topic.clone(), partition)).collect()
        };
        if a == b || a == 0 || b == 0 {
            for at in parts(a.max(b)) {
                self.streams(topic, std::slice::from_ref(&at), std::slice::from_ref(&at), progress)?;
            }
            return Ok(());
        }
        self.streams(topic, &parts(a), &parts(b), progress)
    }

    fn streams(
        &mut self,
        topic: &SmolStr,
        a: &[TopicPartition],
        b: &[TopicPartition],
        progress: Progress<'_>,
    ) -> anyhow::Result<()> {
        let logs = [Arc::clone(&self.runs[0].log), Arc::clone(&self.runs[1].log)];
        let mut streams = [Stream::new(&*logs[0], a)?, Stream::new(&*logs[1], b)?];
        let mut matcher = Matcher::default();
        let mut last = Side::B;
        self.waiting_bytes = 0;
        loop {
            self.read += 1;
            if self.read.is_multiple_of(TELL_EVERY) {
                progress(topic, self.read);
            }
            if matcher.is_empty() && self.take_same(topic, &mut streams)? {
                continue;
            }
            let [of_a, of_b] = &mut streams;
            let side = match (of_a.head_ms()?, of_b.head_ms()?) {
                (None, None) => break,
                (Some(_), None) => Side::A,
                (None, Some(_)) => Side::B,
                // The side that is behind in time goes on; at one time they take turns.
                (Some(a), Some(b)) if a != b => {
                    if a < b {
                        Side::A
                    } else {
                        Side::B
                    }
                }
                (Some(_), Some(_)) => {
                    if last == Side::A {
                        Side::B
                    } else {
                        Side::A
                    }
                }
            };
            last = side;
            let Some((at, stored)) = streams[side as usize].next()? else { break };
            let known = self.identify(side, &stored.record);
            if !self.request.wants(stored.record.key.as_deref(), known.event_time) {
                continue;
            }
            let waiting = self.waiting(at, stored);
            if let Some((a, b)) =
                matcher.offer(side, known.digest, waiting).with_context(|| format!("topic {topic}"))?
            {
                self.pair(topic, a, b)?;
            }
        }
        let (missing, extra) = matcher.rest();
        for (side, rest) in [(Side::A, missing), (Side::B, extra)] {
            for waiting in rest {
                self.alone(topic, side, waiting)?;
            }
        }
        Ok(())
    }

    /// Takes the next record of both sides if they are the same to the byte, so that like runs are compared fast.
    fn take_same(&mut self, topic: &SmolStr, streams: &mut [Stream<'_>; 2]) -> anyhow::Result<bool> {
        let [a, b] = streams;
        let (Some(left), Some(right)) = (a.peek()?, b.peek()?) else { return Ok(false) };
        let (left, right) = (&left.record, &right.record);
        if left.timestamp_ms != right.timestamp_ms || left.key != right.key || !self.same_bytes(left, right) {
            return Ok(false);
        }
        let value = left.value.as_deref().unwrap_or_default();
        let kind = self.runs[0].book.kind_of(value).ok();
        if matches!(kind, Some(Kind::Signal | Kind::Order)) || !self.request.wants_all() {
            let known = self.identify(Side::A, left);
            if self.request.wants(left.key.as_deref(), known.event_time) {
                self.count_same(topic, &known);
            }
        } else {
            self.count(topic, kind).same += 1;
        }
        a.next()?;
        b.next()?;
        Ok(true)
    }

    fn same_bytes(&mut self, a: &NewRecord, b: &NewRecord) -> bool {
        let (Some(a), Some(b)) = (a.value.as_deref(), b.value.as_deref()) else {
            return a.value.is_none() && b.value.is_none();
        };
        match (wire::split_prefix(a), wire::split_prefix(b)) {
            (Ok((left, a)), Ok((right, b))) => a == b && self.same_schema(left, right),
            _ => a == b,
        }
    }

    /// Ids of schemas differ from log to log.
    fn same_schema(&mut self, a: u32, b: u32) -> bool {
        let [left, right] = self.runs;
        let same = || {
            let (left, right) = (left.book.schema_of(a), right.book.schema_of(b));
            left == right && (left.is_some() || a == b)
        };
        *self.schemas_match.entry((a, b)).or_insert_with(same)
    }

    fn identify(&self, side: Side, record: &NewRecord) -> Identified {
        let decoded =
            record.value.as_deref().and_then(|value| self.runs[side as usize].book.decode(value).ok());
        identify(record, decoded)
    }

    fn waiting(&mut self, at: TopicPartition, stored: StoredRecord) -> Waiting {
        let size = stored.record.size();
        let keep = self.waiting_bytes + size <= MAX_WAITING_BYTES;
        if keep {
            self.waiting_bytes += size;
        }
        let timestamp_ms = stored.record.timestamp_ms;
        Waiting { at, offset: stored.offset, timestamp_ms, record: keep.then_some(stored.record) }
    }

    /// The record that waited.
    fn record(&mut self, side: Side, waiting: &mut Waiting) -> anyhow::Result<NewRecord> {
        match waiting.record.take() {
            Some(record) => {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(record.size());
                Ok(record)
            }
            None => Ok(read_one(&*self.runs[side as usize].log, &waiting.at, waiting.offset)?.record),
        }
    }

    fn pair(&mut self, topic: &SmolStr, mut a: Waiting, mut b: Waiting) -> anyhow::Result<()> {
        let (left, right) = (self.record(Side::A, &mut a)?, self.record(Side::B, &mut b)?);
        let known = self.identify(Side::A, &left);
        if self.fields(&left, &right).is_empty() {
            self.count_same(topic, &known);
            return Ok(());
        }
        let lies = (Some(lies(a, &left)), Some(lies(b, &right)));
        let about = ids::subjects(right.key.as_deref(), self.identify(Side::B, &right).record.as_ref());
        self.differs(topic, Class::Changed, &left, known, lies, about);
        Ok(())
    }

    fn alone(&mut self, topic: &SmolStr, side: Side, mut waiting: Waiting) -> anyhow::Result<()> {
        let record = self.record(side, &mut waiting)?;
        let known = self.identify(side, &record);
        let lies = Some(lies(waiting, &record));
        let (class, lies) = match side {
            Side::A => (Class::Missing, (lies, None)),
            Side::B => (Class::Extra, (None, lies)),
        };
        self.differs(topic, class, &record, known, lies, Vec::new());
        Ok(())
    }

    fn count_same(&mut self, topic: &SmolStr, known: &Identified) {
        self.count(topic, known.kind).same += 1;
        match &known.record {
            Some(Record::Signal(signal)) => self.found.signals.same(signal.id.clone()),
            Some(record) => {
                if let Some(order) = ids::order_of(record) {
                    self.found.orders.same(order);
                }
            }
            None => {}
        }
    }

    fn count(&mut self, topic: &SmolStr, kind: Option<Kind>) -> &mut Counts {
        let kind = SmolStr::new_static(kind.map_or("", Kind::name));
        self.found.counts.entry((topic.clone(), kind)).or_default()
    }

    fn differs(
        &mut self,
        topic: &SmolStr,
        class: Class,
        record: &NewRecord,
        known: Identified,
        (a, b): (Option<Lies>, Option<Lies>),
        also_about: Vec<SmolStr>,
    ) {
        self.count(topic, known.kind).add(class);
        let side = match class {
            Class::Changed => None,
            Class::Missing => Some(Side::A),
            Class::Extra => Some(Side::B),
        };
        match &known.record {
            Some(Record::Signal(signal)) => self.found.signals.differs(signal.id.clone(), side),
            Some(record) => {
                if let Some(order) = ids::order_of(record) {
                    self.found.orders.differs(order, side);
                }
            }
            None => {}
        }
        if self.found.differences.len() >= MAX_EXPLAINED {
            self.found.beyond += 1;
            return;
        }
        let mut subjects = ids::subjects(record.key.as_deref(), known.record.as_ref());
        subjects.extend(also_about);
        subjects.sort_unstable();
        subjects.dedup();
        self.found.differences.push(Difference {
            topic: topic.clone(),
            class,
            kind: known.kind,
            key: SmolStr::from(record.key.as_deref().map(text).unwrap_or_default()),
            id: known.id,
            event_time: known.event_time,
            operator: known.record.as_ref().and_then(ids::operator_of),
            window: known.record.as_ref().and_then(ids::window),
            subjects,
            source: known.record.as_ref().and_then(ids::source_of),
            a,
            b,
        });
    }

    /// The fields in which two records differ.
    fn fields(&mut self, a: &NewRecord, b: &NewRecord) -> Vec<FieldDiff> {
        let mut found = Vec::new();
        if self.request.timestamps {
            let (a, b) = (EventTime::from_ms(a.timestamp_ms), EventTime::from_ms(b.timestamp_ms));
            let (a, b) = (json!({ TIMESTAMP: a.to_string() }), json!({ TIMESTAMP: b.to_string() }));
            found = self.request.rules.compare("", &a, &b);
        }
        if !self.same_bytes(a, b) {
            let [left, right] = &mut self.showers;
            found.extend(differing(self.request, left, Some(a), right, Some(b)));
        }
        found
    }

    /// The fields of a difference, read again; all fields of a record that is in one run only.
    pub fn fields_of(&mut self, difference: &Difference) -> anyhow::Result<Vec<FieldDiff>> {
        let mut records = [None, None];
        for (side, lies) in difference.sides() {
            let stored = read_one(&*self.runs[side as usize].log, &lies.at, lies.offset)?;
            records[side as usize] = Some(stored.record);
        }
        if let [Some(a), Some(b)] = &records {
            return Ok(self.fields(a, b));
        }
        let [left, right] = &mut self.showers;
        Ok(differing(self.request, left, records[0].as_ref(), right, records[1].as_ref()))
    }
}

fn differing(
    request: &Request,
    left: &mut Shower<'_>,
    a: Option<&NewRecord>,
    right: &mut Shower<'_>,
    b: Option<&NewRecord>,
) -> Vec<FieldDiff> {
    let value = |shower: &mut Shower<'_>, record: Option<&NewRecord>| {
        let Some(record) = record else { return (String::new(), json!(null)) };
        match shower.show(record.value.as_deref()) {
            Shown::Record(kind, value) => (kind, value),
            Shown::Json(value) => (String::new(), value),
            Shown::Nothing => (String::new(), json!(null)),
            Shown::Bytes(bytes, _) => (String::new(), json!({ "bytes": hex(&bytes) })),
        }
    };
    let ((of_a, a), (of_b, b)) = (value(left, a), value(right, b));
    let kind = if of_a.is_empty() { &of_b } else { &of_a };
    // A record on one side only is shown field by field too.
    let empty = || json!({});
    let (a, b) = match (a.is_null(), b.is_null()) {
        (true, false) if b.is_object() => (empty(), b),
        (false, true) if a.is_object() => (a, empty()),
        _ => (a, b),
    };
    request.rules.compare(kind, &a, &b)
}

fn lies(waiting: Waiting, record: &NewRecord) -> Lies {
    let header = |name: &str| record.header(name).map(|value| SmolStr::from(text(value)));
    Lies {
        at: waiting.at,
        offset: waiting.offset,
        timestamp_ms: waiting.timestamp_ms,
        id: header(ID_HEADER),
        cause: header(CAUSE_HEADER).filter(|cause| !cause.is_empty()),
    }
}
