//! A task: one stage on one partition number. Given records and a stamp, it does one epoch; it reads no log.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use smol_str::{SmolStr, format_smolstr};
use tidewire_contract::{KeyId, persist};
use tidewire_schemas::{EventTime, Record, SchemaBook, SkippedRecord};

use crate::bugs::{self, Bug};
use crate::dataflow::{Epoch, Graph};
use crate::digest::Digest;
use crate::fault::{FaultAt, Skip, Skips, TaskError};
use crate::frame::{AT_RECORD, Frame, Item, Step};
use crate::intake::{Batch, Head, Intake, Source, Span, Taken};
use crate::log::TopicPartition;
use crate::node::NodeFault;
use crate::only::KeyScope;
use crate::outputs::{Drafts, Output, Reject, add_input_to_digest};
use crate::plan::{Caps, MergeOrder, Role, StageSpec};
use crate::tide::Tide;

mod closing;
mod restore;
mod view;

pub use closing::{Closed, Closing};
pub use restore::RestoreError;
pub use view::{OperatorView, SourceView, TaskView};

/// Ends that are not confirmed for longer than this mean that the log is away; less is the time that asking takes.
const OUTAGE_MS: i64 = 1_500;

/// Where the stamps of an epoch come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// One stamp for the whole epoch, in milliseconds: processing time.
    At(i64),
    /// Virtual time is the stamp: a synchronised run. It is stream time, or the time of availability where records
    /// are merged by that.
    Virtual,
}

/// What an epoch gathered so far. Its memory is used again for the next.
#[derive(Default)]
struct Open {
    spans: Vec<Option<Span>>,
    digests: Vec<Digest>,
    counts: Vec<i64>,
    skipped: Vec<Vec<SkippedRecord>>,
    skipped_timers: Vec<SmolStr>,
    outputs: Vec<Output>,
    output_digest: Digest,
    time_advance_ms: Option<i64>,
    synchronised: bool,
    /// Bytes of the records taken.
    bytes: usize,
    /// Per source, the greatest time in the merge of the records taken; none for control inputs.
    greatest_ms: Vec<Option<i64>>,
}

impl Open {
    fn new(sources: usize) -> Self {
        Self {
            spans: vec![None; sources],
            digests: vec![Digest::default(); sources],
            counts: vec![0; sources],
            skipped: vec![Vec::new(); sources],
            greatest_ms: vec![None; sources],
            ..Self::default()
        }
    }

    fn clear(&mut self) {
        self.spans.fill(None);
        self.digests.iter_mut().for_each(Digest::reset);
        self.counts.fill(0);
        self.skipped.iter_mut().for_each(Vec::clear);
        self.skipped_timers.clear();
        self.outputs.clear();
        self.output_digest.reset();
        self.time_advance_ms = None;
        self.synchronised = false;
        self.bytes = 0;
        self.greatest_ms.fill(None);
    }
}

persist! {
    /// What the engine itself keeps in a cut.
    #[derive(Clone, Debug, Default)]
    struct EngineState {
        stamp_ms: i64,
        silent_since_ms: Option<i64>,
        last_flush_ms: Option<i64>,
        positions: Vec<u64>,
    }
}

/// One stage on one partition number.
pub struct Task {
    spec: Arc<StageSpec>,
    number: u32,
    book: Arc<SchemaBook>,
    graph: Graph,
    pub(crate) tide: Tide,
    pub(crate) intake: Intake,
    sequence: u64,
    epoch: u64,
    /// The last epoch with a flush.
    cut_epoch: u64,
    engine: EngineState,
    /// The stamp since which the ends of the inputs are not known.
    unconfirmed_since_ms: Option<i64>,
    state_sum: u64,
    orphans: Vec<Bytes>,
    open: Open,
    pub(crate) only: KeyScope,
    /// Sequence numbers of outputs of the keys that `only` notes.
    pub(crate) noted: Vec<u64>,
}

impl Task {
    /// A task that has not seen anything.
    ///
    /// # Errors
    /// When an operator can not be made from its settings.
    pub fn new(spec: Arc<StageSpec>, number: u32, book: Arc<SchemaBook>) -> Result<Self, String> {
        let graph = Graph::new(&spec.nodes)?;
        let sources = Source::of_task(&spec, number);
        let tide = Tide::new(&spec, &sources);
        let mut task = Self {
            graph,
            tide,
            open: Open::new(sources.len()),
            intake: Intake::new(sources, &[]),
            spec,
            number,
            book,
            sequence: 0,
            epoch: 0,
            cut_epoch: 0,
            engine: EngineState::default(),
            unconfirmed_since_ms: None,
            state_sum: 0,
            orphans: Vec::new(),
            only: KeyScope::All,
            noted: Vec::new(),
        };
        task.engine.positions = task.intake.positions();
        Ok(task)
    }

    /// The stage.
    pub fn spec(&self) -> &Arc<StageSpec> {
        &self.spec
    }
    /// The partition number.
    pub fn number(&self) -> u32 {
        self.number
    }
    /// The last closed epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    /// The sequence number of the last output.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
    /// Sets the sequence that numbering goes on after: for a change that was accepted though outputs differ.
    pub fn continue_after(&mut self, sequence: u64) {
        self.sequence = sequence;
    }
    /// What is at hand.
    pub fn intake(&self) -> &Intake {
        &self.intake
    }
    /// Takes over what another task of the same number had at hand.
    pub fn take_intake_of(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.intake, &mut other.intake);
    }
    /// What is at hand, to be added to.
    pub fn intake_mut(&mut self) -> &mut Intake {
        &mut self.intake
    }
    /// Time.
    pub fn tide(&self) -> &Tide {
        &self.tide
    }
    /// Whether records or time were taken since the last closed epoch.
    pub fn is_open(&self) -> bool {
        self.open.counts.iter().any(|count| *count > 0) || self.open.time_advance_ms.is_some()
    }
    /// What the open epoch gave out so far.
    pub fn outputs(&self) -> &[Output] {
        &self.open.outputs
    }
    /// Whether the open epoch holds time alone, no record.
    pub fn is_silent_epoch(&self) -> bool {
        self.open.time_advance_ms.is_some() && self.open.counts.iter().all(|count| *count == 0)
    }
    /// Where the task stands in the driving input.
    pub fn driving_position(&self) -> (TopicPartition, u64) {
        let driving = self.intake.sources().iter().position(|source| source.role == Role::Driving);
        let place = driving.unwrap_or(0);
        let at = self.intake.sources()[place].at.clone();
        (at, self.engine.positions.get(place).copied().unwrap_or(0))
    }
    /// Digest of all state as of the last flush.
    pub fn state_sum(&self) -> u64 {
        self.state_sum
    }
    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<EventTime> {
        self.graph.nodes().iter().filter_map(|node| node.borrow().next_timer()).min()
    }
    /// Whether a flush is due at `stamp_ms`.
    pub fn flush_due(&self, stamp_ms: i64) -> bool {
        self.engine.last_flush_ms.is_none_or(|last| stamp_ms - last >= self.spec.flush_interval_ms)
    }
    /// Whether a cut is due though nothing comes any more. A task that went quiet is cut all the same: what its epochs
    /// since the last cut took would else grow older than the compacted inputs are kept.
    pub fn quiet_cut_due(&self, stamp_ms: i64) -> bool {
        !self.is_open() && self.epoch > self.cut_epoch && self.flush_due(stamp_ms)
    }
    /// The stamp an epoch at `now_ms` has: stamps never go back, and an open epoch has its own.
    pub fn stamp_at(&self, now_ms: i64) -> i64 {
        if self.is_open() { self.engine.stamp_ms } else { now_ms.max(self.engine.stamp_ms) }
    }

    /// How far time has gone on if all inputs are silent and their ends were just confirmed: at least one timer is
    /// due then. `None` while there is nothing to do.
    ///
    /// A stretch in which the ends could not be confirmed does not count: while a log is away nobody can write to it, so
    /// nothing came that might have come.
    pub fn silence(&mut self, stamp_ms: i64) -> Option<EventTime> {
        if !self.intake.is_silent() {
            self.unconfirmed_since_ms.get_or_insert(stamp_ms);
            return None;
        }
        if let Some(since_ms) = self.unconfirmed_since_ms.take()
            && stamp_ms - since_ms > OUTAGE_MS
        {
            self.engine.silent_since_ms = self.engine.silent_since_ms.map(|_| stamp_ms);
        }
        let base = if self.spec.has_watermark() { self.tide.stream_time()? } else { self.tide.passed()? };
        let waited_ms = stamp_ms - self.engine.silent_since_ms?;
        // Counted from the last record, so that what silence added before is not added again.
        let since = self.last_record_time().unwrap_or(base);
        let reached = since.plus_ms(waited_ms.saturating_sub(self.tide.patience_ms()));
        let due = self.next_timer()?;
        (reached >= due && self.tide.passed().is_none_or(|passed| reached > passed)).then_some(reached)
    }

    fn last_record_time(&self) -> Option<EventTime> {
        let greatest = self.tide.partitions().iter().filter_map(|partition| partition.greatest_ms).max();
        greatest.map(EventTime::from_ms)
    }

    /// Takes a batch through the graph. May be called several times before [`Task::close`].
    ///
    /// # Errors
    /// After a fault the task is of no use: recover it, and leave out what failed.
    pub fn process(&mut self, batch: Batch, stamp: Stamp, skips: &Skips) -> Result<(), TaskError> {
        self.extend_spans(&batch);
        if batch.taken.is_empty() {
            return Ok(());
        }
        self.begin(stamp);
        if let Stamp::At(_) = stamp {
            self.engine.silent_since_ms = Some(self.engine.stamp_ms);
            self.unconfirmed_since_ms = None;
        }
        let mut run = Run::new(self.tide.moment(self.stamp(stamp)), self.spec.inputs.len());
        run.steps.reserve(batch.taken.len());
        let mut counts = vec![0; run.inputs.len()];
        for taken in &batch.taken {
            counts[self.intake.sources()[taken.source].input] += 1;
        }
        for (records, count) in run.inputs.iter_mut().zip(counts) {
            records.reserve(count);
        }
        for (position, taken) in (0..).zip(&batch.taken) {
            add_input_to_digest(&mut self.open.digests[taken.source], taken);
            self.open.counts[taken.source] += 1;
            match self.admit_unless_passing(taken, skips) {
                None => {}
                Some(Ok((record, key))) => {
                    let source = &self.intake.sources()[taken.source];
                    if source.role != Role::Control {
                        self.tide.observe(taken.source, taken.stored.record.timestamp_ms);
                    }
                    run.inputs[source.input].push(Item {
                        position,
                        tick: AT_RECORD,
                        ordinal: position,
                        key,
                        broadcast: matches!(source.role, Role::Broadcast | Role::Control),
                        time: EventTime::from_ms(taken.stored.record.timestamp_ms),
                        record,
                        timer: None,
                    });
                }
                Some(Err(skip)) => {
                    self.note_skipped(taken, &skip);
                    run.rejects.push(Reject {
                        position,
                        operator: skip.operator,
                        reason: skip.reason,
                        error: skip.error,
                    });
                }
            }
            if stamp == Stamp::Virtual && self.spec.order == MergeOrder::Availability {
                let source = &self.intake.sources()[taken.source];
                self.engine.stamp_ms = self.engine.stamp_ms.max(source.time_ms(&taken.stored.record));
            }
            run.steps.push(self.step(stamp));
        }
        self.run(run, &batch.taken, skips)
    }

    /// Lets time go on to `to` without records: due timers fire.
    ///
    /// # Errors
    /// As [`Task::process`].
    pub fn advance(&mut self, to: EventTime, stamp: Stamp, skips: &Skips) -> Result<(), TaskError> {
        self.begin(stamp);
        let mut run = Run::new(self.tide.moment(self.stamp(stamp)), self.spec.inputs.len());
        let stream_time = self.tide.stream_time().unwrap_or_default();
        // Stream time at each timer is the timer's own: the size of this step must not show.
        let now = match (stamp, self.spec.order) {
            (Stamp::Virtual, MergeOrder::Event) => to,
            (Stamp::Virtual, MergeOrder::Availability) => {
                self.engine.stamp_ms = self.engine.stamp_ms.max(to.as_ms().saturating_add(self.lag_ms()));
                self.stamp(stamp)
            }
            (Stamp::At(_), _) => self.stamp(stamp),
        };
        run.steps.push(Step { passed: self.tide.passed().max(Some(to)), stream_time, stamp: now });
        self.open.time_advance_ms = Some(to.as_ms());
        let done = self.run(run, &[], skips);
        self.tide.advance(to);
        done
    }

    /// Whether a record may join the open epoch: a re-run merges the epoch's records by time, so what would be merged
    /// otherwise than it was taken begins a new one. Within a source order is kept whatever the times are, so only the
    /// records of others count.
    pub fn may_join(&self, head: Head) -> bool {
        let taken = &self.open.greatest_ms;
        self.open.time_advance_ms.is_none()
            && match head.time_ms {
                // A re-run takes control records first, source by source.
                None => {
                    taken.iter().all(Option::is_none)
                        && self.open.counts[head.source + 1..].iter().all(|count| *count == 0)
                }
                Some(time_ms) => (0..).zip(taken).all(|(source, greatest_ms)| {
                    source == head.source
                        || greatest_ms
                            .is_none_or(|greatest_ms| (greatest_ms, source) < (time_ms, head.source))
                }),
            }
    }

    /// Whether everything at hand may join the open epoch.
    pub fn may_go_on(&self) -> bool {
        bugs::on(Bug::JoinedOutOfOrder) || self.intake.heads().all(|head| self.may_join(head))
    }

    /// Whether the open epoch has nothing that anybody waits for, and room for what is at hand.
    pub fn may_stay_open(&self) -> bool {
        let room = self.room();
        let has_room = room.max_records > 0 && room.max_bytes > 0;
        self.open.outputs.is_empty() && self.open.time_advance_ms.is_none() && has_room && self.may_go_on()
    }

    /// What the epoch may still take of `caps`.
    pub fn room(&self) -> Caps {
        let caps = self.spec.caps;
        let records = self.open.counts.iter().sum::<i64>();
        Caps {
            max_records: caps.max_records.saturating_sub(usize::try_from(records).unwrap_or(usize::MAX)),
            max_bytes: caps.max_bytes.saturating_sub(self.open.bytes),
            ..caps
        }
    }

    fn begin(&mut self, stamp: Stamp) {
        match stamp {
            Stamp::At(stamp_ms) => self.engine.stamp_ms = self.stamp_at(stamp_ms),
            Stamp::Virtual => self.open.synchronised = true,
        }
    }

    fn stamp(&self, stamp: Stamp) -> EventTime {
        match (stamp, self.spec.order) {
            (Stamp::Virtual, MergeOrder::Event) => self.tide.stream_time().unwrap_or_default(),
            _ => EventTime::from_ms(self.engine.stamp_ms),
        }
    }

    /// Virtual time of a synchronised run, in milliseconds.
    pub fn virtual_now_ms(&self) -> i64 {
        self.stamp(Stamp::Virtual).as_ms()
    }

    /// How far virtual time is past stream time, in milliseconds: what lies between event and receipt. 0 where stream
    /// time is virtual time. When nothing comes, both go on alike.
    pub fn lag_ms(&self) -> i64 {
        match (self.spec.order, self.tide.stream_time()) {
            (MergeOrder::Availability, Some(stream)) => self.engine.stamp_ms.saturating_sub(stream.as_ms()),
            _ => 0,
        }
    }

    fn step(&self, stamp: Stamp) -> Step {
        Step {
            passed: self.tide.passed(),
            stream_time: self.tide.stream_time().unwrap_or_default(),
            stamp: self.stamp(stamp),
        }
    }

    fn extend_spans(&mut self, batch: &Batch) {
        bugs::note_ends(batch.spans.iter().map(|span| span.at_end));
        for (position, span) in self.engine.positions.iter_mut().zip(&batch.spans) {
            *position = span.next;
        }
        self.open.bytes += batch.bytes;
        for (greatest_ms, span) in self.open.greatest_ms.iter_mut().zip(&batch.spans) {
            *greatest_ms = (*greatest_ms).max(span.greatest_ms);
        }
        for (open, span) in self.open.spans.iter_mut().zip(&batch.spans) {
            if span.first != span.next || span.at_end {
                let first = open.map_or(span.first, |open| open.first);
                *open = Some(Span { first, ..*span });
            }
        }
    }

    /// Decides whether a record goes to the operators, and decodes it.
    /// As [`Task::admit`]; nothing for a record that passes the operators by.
    fn admit_unless_passing(
        &mut self,
        taken: &Taken,
        skips: &Skips,
    ) -> Option<Result<(Record, KeyId), Skip>> {
        if self.passes_by(taken, skips) { None } else { Some(self.admit(taken, skips)) }
    }

    fn admit(&self, taken: &Taken, skips: &Skips) -> Result<(Record, KeyId), Skip> {
        let refuse = |reason: &str, error: SmolStr| Skip { operator: None, reason: reason.into(), error };
        if let Some(skip) = skips.records.get(&(taken.source, taken.stored.offset)) {
            return Err(skip.clone());
        }
        let record = &taken.stored.record;
        let source = &self.intake.sources()[taken.source];
        if let Some(received_ms) = source.received_before_ms(record) {
            let error = format_smolstr!(
                "event time is {} ms ahead of the received time, more than the {} ms allowed",
                record.timestamp_ms.saturating_sub(received_ms),
                source.max_future_skew_ms.unwrap_or_default()
            );
            return Err(refuse("future-skew", error));
        }
        let key = record.key.as_deref().ok_or_else(|| refuse("no-key", "the record has no key".into()))?;
        let key = std::str::from_utf8(key).map_err(|_| refuse("no-key", "the key is not UTF-8".into()))?;
        let value =
            record.value.as_deref().ok_or_else(|| refuse("undecodable", "the record has no value".into()))?;
        let decoded =
            self.book.decode(value).map_err(|error| refuse("undecodable", format_smolstr!("{error}")))?;
        Ok((decoded, self.graph.names().borrow_mut().intern(key)))
    }

    fn note_skipped(&mut self, taken: &Taken, skip: &Skip) {
        self.open.skipped[taken.source].push(SkippedRecord {
            offset: signed(taken.stored.offset),
            reason: skip.reason.clone(),
            operator: skip.operator.clone(),
            error: skip.error.clone(),
        });
    }

    /// Runs the graph over an epoch, or part of one, and seals what it gave out.
    fn run(&mut self, run: Run, taken: &[Taken], skips: &Skips) -> Result<(), TaskError> {
        let frame = Rc::new(Frame { before: run.before, steps: run.steps });
        let epoch =
            Epoch { frame: Rc::clone(&frame), inputs: run.inputs, skipped_timers: skips.timers.clone() };
        if let Some(tracer) = self.graph.tracer() {
            tracer.borrow_mut().begin_pass(self.epoch + 1);
        }
        let nodes = self.graph.run(epoch).map_err(|fault| self.locate(fault, taken))?;
        if let Some(tracer) = self.graph.tracer() {
            tracer.borrow_mut().end_pass(taken);
        }
        for (_, _, timer) in nodes.iter().flat_map(|node| &node.skipped) {
            if let Some((code, text)) = skips.timers.get(timer) {
                self.open.skipped_timers.push(format_smolstr!("{timer}\n{code}\n{text}"));
            }
        }
        let drafts = Drafts {
            spec: &self.spec,
            task: self.number,
            sources: self.intake.sources(),
            taken,
            frame: &frame,
            nodes: &nodes,
            rejects: &run.rejects,
            skipped_timers: &skips.timers,
            names: &self.graph.names().borrow(),
            book: &self.book,
            only: &self.only,
            tracer: self.graph.tracer(),
        };
        let outputs = drafts.seal(&mut self.sequence, &mut self.open.output_digest, &mut self.noted)?;
        self.open.outputs.extend(outputs);
        Ok(())
    }

    fn locate(&self, fault: NodeFault, taken: &[Taken]) -> TaskError {
        let record = taken.get(fault.position as usize);
        let at = match (&fault.timer, record) {
            (Some(timer), _) => timer.to_string(),
            (None, Some(taken)) => {
                format!("{}@{}", self.intake.sources()[taken.source].at, taken.stored.offset)
            }
            (None, None) => "no record".to_owned(),
        };
        let record =
            record.filter(|_| fault.timer.is_none()).map(|taken| (taken.source, taken.stored.offset));
        TaskError::Fault(Box::new(FaultAt {
            node: fault.node,
            at,
            record,
            timer: fault.timer,
            code: fault.code,
            text: fault.text,
        }))
    }
}

/// What one pass through the graph is made of.
struct Run {
    before: tidewire_contract::Moment,
    steps: Vec<Step>,
    inputs: Vec<Vec<Item>>,
    rejects: Vec<Reject>,
}

impl Run {
    fn new(before: tidewire_contract::Moment, inputs: usize) -> Self {
        Self { before, steps: Vec::new(), inputs: vec![Vec::new(); inputs], rejects: Vec::new() }
    }
}

/// Avro has no unsigned numbers; counts never come near the bound.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
