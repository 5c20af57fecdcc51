//! From what operators gave out to the records that are sent: order, identity, cause, key and digest.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use smol_str::{SmolStr, format_smolstr};
use tidewire_contract::{Interner, LateNote};
use tidewire_schemas::{DeadLetter, EventTime, LateRecord, Record, topics};
use tidewire_schemas::{NotRegistered, SchemaBook};

use crate::digest::Digest;
use crate::frame::{AT_RECORD, Frame, Item, TimerCause};
use crate::identity::{CAUSE_HEADER, ID_HEADER, RECEIVED_HEADER, cause_of_record, cause_of_timer};
use crate::intake::{Source, Taken};
use crate::log::{NewRecord, TopicPartition};
use crate::node::NodeOutput;
use crate::only::KeyScope;
use crate::partition::{partition_of, partition_of_compound};
use crate::plan::{MergeOrder, StageSpec};
use crate::trace::Tracer;

/// Bytes of the schema prefix, which digests leave out: ids differ from log to log.
const PREFIX_BYTES: usize = 5;

/// An input record that was passed over, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Its place in the epoch.
    pub position: u32,
    /// The operator that could not take it, if it came that far.
    pub operator: Option<SmolStr>,
    /// A short constant to count by.
    pub reason: SmolStr,
    /// What a person needs to know.
    pub error: SmolStr,
}

/// A record ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where it goes.
    pub at: TopicPartition,
    /// The record, with its headers.
    pub record: NewRecord,
    /// The operator that made it, by its place; absent for what the engine itself writes.
    pub node: Option<usize>,
}

/// Everything that decides what an epoch sends.
pub struct Drafts<'a> {
    /// The stage.
    pub spec: &'a StageSpec,
    /// The task's number.
    pub task: u32,
    /// The task's sources.
    pub sources: &'a [Source],
    /// The epoch's records by position.
    pub taken: &'a [Taken],
    /// Positions and times.
    pub frame: &'a Frame,
    /// What each operator gave out.
    pub nodes: &'a [NodeOutput],
    /// What was passed over.
    pub rejects: &'a [Reject],
    /// Words for timers that were passed over: code and text.
    pub skipped_timers: &'a BTreeMap<TimerCause, (SmolStr, SmolStr)>,
    /// The task's keys.
    pub names: &'a Interner,
    /// Encodes.
    pub book: &'a SchemaBook,
    /// Keys whose outputs alone are sent, or noted.
    pub only: &'a KeyScope,
    /// What notes calls, if they are noted.
    pub tracer: Option<&'a RefCell<Tracer>>,
}

/// Where a draft stands among the others: position, tick, output, operator, ordinal.
type Place = (u32, i64, usize, usize, u32);

struct Draft {
    place: Place,
    topic: SmolStr,
    partition: u32,
    key: SmolStr,
    time: EventTime,
    cause: Bytes,
    /// Whether an operator held it under a key that is asked for.
    is_wanted: bool,
    body: Body,
}

enum Body {
    Emitted { node: usize, index: usize },
    Made(Box<Record>),
}

impl Drafts<'_> {
    /// Puts all that the epoch gave out into its one order, numbers it from `sequence` + 1 and encodes it. Numbers of
    /// outputs whose keys are asked for go to `noted`.
    ///
    /// # Errors
    /// When the schema of a record was not registered with the log.
    pub fn seal(
        &self,
        sequence: &mut u64,
        digest: &mut Digest,
        noted: &mut Vec<u64>,
    ) -> Result<Vec<Output>, NotRegistered> {
        let mut drafts = Vec::new();
        self.draft_rejects(&mut drafts);
        self.draft_emitted(&mut drafts);
        self.draft_late(&mut drafts);
        self.draft_skipped_timers(&mut drafts);
        drafts.sort_unstable_by_key(|draft| draft.place);
        if self.only.drops_others() {
            drafts.retain(|draft| draft.is_wanted);
        }
        drafts
            .into_iter()
            .map(|draft| {
                *sequence += 1;
                if draft.is_wanted && self.only.notes() {
                    noted.push(*sequence);
                }
                let output = self.encode(draft, *sequence)?;
                add_to_digest(digest, &output);
                Ok(output)
            })
            .collect()
    }

    fn draft_emitted(&self, drafts: &mut Vec<Draft>) {
        for (rank, output) in self.spec.outputs.iter().enumerate() {
            for &node in &output.from {
                for (index, item) in self.nodes[node].items.iter().enumerate() {
                    let record = &item.record;
                    if !output.kinds.is_empty() && !output.kinds.contains(&record.kind()) {
                        continue;
                    }
                    // An output that names no fields takes the key under which the operator gave the record out.
                    let key = key_of(record, &output.key_fields)
                        .unwrap_or_else(|| self.names.name(item.key).clone());
                    drafts.push(Draft {
                        place: (item.position, item.tick, rank + 1, node, item.ordinal),
                        topic: output.topic.clone(),
                        partition: partition_of_compound(&key, output.partitions),
                        key,
                        time: item.time,
                        cause: self.cause(item.position, item.timer.as_deref()),
                        is_wanted: self.only.wants(self.names.name(item.key)),
                        body: Body::Emitted { node, index },
                    });
                }
            }
        }
    }

    /// The key of the log record that an item follows from, for records of what happened to it.
    fn key_at(&self, item: &Item) -> Option<SmolStr> {
        if let Some(timer) = &item.timer {
            return Some(timer.key.clone());
        }
        let key = self.taken.get(item.position as usize)?.stored.record.key.as_ref()?;
        std::str::from_utf8(key).ok().map(SmolStr::new)
    }

    fn draft_late(&self, drafts: &mut Vec<Draft>) {
        for (node, output) in self.nodes.iter().enumerate() {
            for (index, (item, note)) in output.late.iter().enumerate() {
                let ordinal = u32::try_from(index).unwrap_or(u32::MAX);
                let key = self.key_at(item).unwrap_or_default();
                drafts.push(Draft {
                    place: (item.position, item.tick, usize::MAX, node, ordinal),
                    topic: topics::LATE.into(),
                    partition: partition_of_compound(&key, self.spec.side_partitions),
                    key,
                    time: self.stream_time(item.position),
                    cause: self.cause(item.position, item.timer.as_deref()),
                    is_wanted: self.only.wants(self.names.name(item.key)),
                    body: Body::Made(Box::new(self.late_record(node, item, note))),
                });
            }
        }
    }

    fn late_record(&self, node: usize, item: &Item, note: &LateNote) -> Record {
        let mut body = Vec::new();
        item.record.encode(&mut body);
        let (topic, partition, offset) = self.origin(item.position);
        LateRecord {
            source_topic: topic,
            source_partition: partition,
            source_offset: offset,
            operator: self.spec.nodes[node].id.clone(),
            window_start: note.window_start,
            window_end: note.window_end,
            watermark: self.frame.moment(item.position, item.tick).watermark.unwrap_or_default(),
            event_time: item.record.event_time().unwrap_or(item.time),
            kind: item.record.kind().name().into(),
            body: body.into(),
        }
        .into()
    }

    fn draft_rejects(&self, drafts: &mut Vec<Draft>) {
        for reject in self.rejects {
            let Some(taken) = self.taken.get(reject.position as usize) else { continue };
            let record = &taken.stored.record;
            let (topic, partition, offset) = self.origin(reject.position);
            let time = self.stream_time(reject.position);
            let letter = DeadLetter {
                source_topic: topic,
                source_partition: partition,
                source_offset: offset,
                line: None,
                stage: self.spec.name.clone(),
                operator: reject.operator.clone(),
                reason: reject.reason.clone(),
                error: reject.error.clone(),
                key: record.key.clone(),
                value: record.value.clone(),
                headers: record.headers.iter().cloned().collect(),
                source_timestamp_ms: record.timestamp_ms,
                event_time: time,
            };
            let key = record.key.clone().unwrap_or_default();
            drafts.push(Draft {
                place: (reject.position, AT_RECORD, 0, 0, 0),
                topic: topics::DEAD_LETTERS.into(),
                partition: partition_of(&key, self.spec.side_partitions),
                key: SmolStr::new(String::from_utf8_lossy(&key)),
                time,
                cause: self.cause(reject.position, None),
                is_wanted: self.sources[taken.source].is_whole()
                    || self.only.wants_bytes(record.key.as_deref()),
                body: Body::Made(Box::new(letter.into())),
            });
        }
    }

    fn draft_skipped_timers(&self, drafts: &mut Vec<Draft>) {
        for (node, output) in self.nodes.iter().enumerate() {
            for (ordinal, (position, tick, timer)) in (0..).zip(&output.skipped) {
                let Some((reason, error)) = self.skipped_timers.get(timer) else { continue };
                let time = self.stream_time(*position).max(EventTime::from_micros(*tick));
                let letter = DeadLetter {
                    source_topic: SmolStr::default(),
                    source_partition: -1,
                    source_offset: -1,
                    line: None,
                    stage: self.spec.name.clone(),
                    operator: Some(timer.node.clone()),
                    reason: reason.clone(),
                    error: format_smolstr!("{timer}: {error}"),
                    key: Some(Bytes::copy_from_slice(timer.key.as_bytes())),
                    value: None,
                    headers: BTreeMap::new(),
                    source_timestamp_ms: timer.at.as_ms(),
                    event_time: time,
                };
                drafts.push(Draft {
                    place: (*position, *tick, 0, node, ordinal),
                    topic: topics::DEAD_LETTERS.into(),
                    partition: partition_of(timer.key.as_bytes(), self.spec.side_partitions),
                    key: timer.key.clone(),
                    time,
                    cause: cause_of_timer(timer),
                    is_wanted: self.only.wants(&timer.key),
                    body: Body::Made(Box::new(letter.into())),
                });
            }
        }
    }

    fn stream_time(&self, position: u32) -> EventTime {
        self.frame.steps[position as usize].stream_time
    }

    fn origin(&self, position: u32) -> (SmolStr, i32, i64) {
        match self.taken.get(position as usize) {
            Some(taken) => {
                let at = &self.sources[taken.source].at;
                let partition = i32::try_from(at.partition).unwrap_or(i32::MAX);
                (at.topic.clone(), partition, i64::try_from(taken.stored.offset).unwrap_or(i64::MAX))
            }
            None => (SmolStr::default(), -1, -1),
        }
    }

    fn cause(&self, position: u32, timer: Option<&TimerCause>) -> Bytes {
        match (timer, self.taken.get(position as usize)) {
            (Some(timer), _) => cause_of_timer(timer),
            (None, Some(taken)) => cause_of_record(&self.sources[taken.source].at, &taken.stored),
            (None, None) => Bytes::new(),
        }
    }

    fn encode(&self, draft: Draft, sequence: u64) -> Result<Output, NotRegistered> {
        let mut value = Vec::with_capacity(128);
        match &draft.body {
            Body::Emitted { node, index } => {
                let item = &self.nodes[*node].items[*index];
                self.book.encode(&item.record, &mut value)?;
                if let Some(tracer) = self.tracer {
                    let at = TopicPartition { topic: draft.topic.clone(), partition: draft.partition };
                    tracer.borrow_mut().sent(*node, item.ordinal, sequence, &at);
                }
            }
            Body::Made(record) => self.book.encode(record, &mut value)?,
        }
        let id = format_smolstr!("{}/{}/{sequence}", self.spec.name, self.task);
        let mut headers = vec![
            (SmolStr::new_static(ID_HEADER), Bytes::copy_from_slice(id.as_bytes())),
            (SmolStr::new_static(CAUSE_HEADER), draft.cause),
        ];
        if self.spec.order == MergeOrder::Availability {
            // Other stages are to have it no earlier than it was made.
            let made_ns = i128::from(self.frame.steps[draft.place.0 as usize].stamp.as_micros()) * 1_000;
            headers.push((SmolStr::new_static(RECEIVED_HEADER), Bytes::from(made_ns.to_string())));
        }
        let node = match draft.body {
            Body::Emitted { node, .. } => Some(node),
            Body::Made(_) => None,
        };
        Ok(Output {
            node,
            at: TopicPartition { topic: draft.topic, partition: draft.partition },
            record: NewRecord {
                timestamp_ms: draft.time.as_ms(),
                key: Some(Bytes::copy_from_slice(draft.key.as_bytes())),
                value: Some(value.into()),
                headers,
            },
        })
    }
}

/// The key that an output's fields make, if the record has them all.
fn key_of(record: &Record, fields: &[SmolStr]) -> Option<SmolStr> {
    match fields {
        [] => None,
        [field] => record.text(field).map(SmolStr::new),
        _ => {
            let parts: Option<Vec<&str>> = fields.iter().map(|field| record.text(field)).collect();
            parts.map(|parts| SmolStr::from(parts.join("/")))
        }
    }
}

/// Adds a record to a digest of outputs: where it goes, its key, its body and its identity.
pub fn add_to_digest(digest: &mut Digest, output: &Output) {
    let body = output.record.value.as_deref().unwrap_or_default();
    let id = output.record.header(ID_HEADER).map(|id| &**id).unwrap_or_default();
    digest.update(output.at.topic.as_bytes());
    digest.update(&output.at.partition.to_le_bytes());
    for part in
        [output.record.key.as_deref().unwrap_or_default(), body.get(PREFIX_BYTES..).unwrap_or_default(), id]
    {
        digest.update_field(part);
    }
}

/// Adds a record of an input to a digest.
pub fn add_input_to_digest(digest: &mut Digest, taken: &Taken) {
    digest.update(&taken.stored.offset.to_le_bytes());
    digest.update(&taken.stored.record.timestamp_ms.to_le_bytes());
    for part in [&taken.stored.record.key, &taken.stored.record.value] {
        digest.update_field(part.as_deref().unwrap_or_default());
    }
}
