//! Grows the tree of a record: who made it, what that one took and held, and so on back to records from outside.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidewire_contract::Key;
use tidewire_engine::frame::TimerCause;
use tidewire_engine::identity::{CAUSE_HEADER, ID_HEADER, Identity, is_left_out};
use tidewire_engine::log::{NewRecord, StoredRecord, TopicPartition};
use tidewire_engine::trace::Took;
use tidewire_schemas::{EventTime, Record};

use super::find::parse_place;
use super::session::{Need, Session, Stop, TaskId};
use super::states::{changes, shown};
use super::stretch::ItemId;
use super::tree::{Brief, Made, TreeNode};
use super::words;
use crate::records::{Shower, Shown, hex, text};

/// Bytes of the schema prefix, which differ from log to log.
const PREFIX_BYTES: usize = 5;
/// Most records in a tree.
pub const MAX_RECORDS: usize = 500;

/// A record, wherever it is met.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordId {
    /// In the log.
    Place(TopicPartition, u64),
    /// Between two operators.
    Item(TaskId, ItemId),
}

/// One task's stretch while its records are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Within {
    /// The task.
    pub task: TaskId,
    /// Its stretch.
    pub stretch: usize,
    /// The output whose making is looked at.
    pub sequence: u64,
}

/// See the module.
pub struct Grower<'s, 'a> {
    /// What is known.
    pub session: &'s Session<'a>,
    /// How many records deep.
    pub depth: usize,
    /// Of a feature vector, only this value.
    pub focus: Option<String>,
    pub(super) seen: BTreeMap<RecordId, usize>,
    /// Calls whose states are wanted, by stretch.
    pub numbers: BTreeMap<usize, BTreeSet<u64>>,
    /// Records in the tree.
    pub records: usize,
    /// Those from outside.
    pub external: usize,
    /// Records of the tree whose bytes are the same again.
    pub same: usize,
    /// Whether bounds left something out.
    pub cut_short: bool,
    /// The record asked for as it comes out now, where that is not what lies in the log.
    pub run_again: Option<Value>,
}

impl<'s, 'a> Grower<'s, 'a> {
    /// Nothing grown yet.
    pub fn new(session: &'s Session<'a>, depth: usize, focus: Option<String>) -> Self {
        Self {
            session,
            depth,
            focus,
            seen: BTreeMap::new(),
            numbers: BTreeMap::new(),
            records: 0,
            external: 0,
            same: 0,
            cut_short: false,
            run_again: None,
        }
    }

    /// The tree of a record in the log.
    pub fn record(
        &mut self,
        at: &TopicPartition,
        offset: u64,
        role: &str,
        level: usize,
    ) -> Result<TreeNode, Stop> {
        let stored = match self.session.record(at, offset)? {
            Ok(stored) => stored,
            Err(why) => {
                let place = Some(place_text(at, offset));
                return Ok(TreeNode {
                    role: role.to_owned(),
                    place,
                    notes: vec![why],
                    ..TreeNode::default()
                });
            }
        };
        let mut node = self.leaf(at, &stored);
        role.clone_into(&mut node.role);
        if self.met(RecordId::Place(at.clone(), offset), &mut node) {
            return Ok(node);
        }
        let Some(id) = Identity::of(&stored.record) else {
            node.external = true;
            self.external += 1;
            return Ok(node);
        };
        if self.is_enough(level, &mut node) {
            return Ok(node);
        }
        let Some(task) = self.session.task_of(&id) else {
            node.notes.push(format!(
                "no pipeline noted in this log has a stage {} with a task {}",
                id.stage, id.task
            ));
            return Ok(node);
        };
        let epochs_at = self.session.past(task).epochs_at();
        let Some(epoch) = self.session.epoch_of(task, id.sequence)? else {
            node.notes.push(format!(
                "its epoch is not in {epochs_at} any more: it is older than the epoch records that are kept; \
                 what its headers tell follows"
            ));
            self.by_headers(&stored, level, &mut node)?;
            return Ok(node);
        };
        let mut keys = self.keys_for(&stored);
        keys.extend(self.session.keys_of(task, id.sequence).into_iter().flatten().cloned());
        let stretch = match self.session.stretch(task, epoch.epoch, &keys)? {
            Ok(stretch) => stretch,
            Err(why) => {
                node.notes
                    .push(format!("how it was made can not be shown: {why}; what its headers tell follows"));
                self.by_headers(&stored, level, &mut node)?;
                return Ok(node);
            }
        };
        let held = &self.session.stretches[stretch].1;
        if let Some((differing, what)) =
            held.difference.as_ref().filter(|(differing, _)| *differing <= epoch.epoch)
        {
            if level == 0 {
                self.run_again = held.output(id.sequence).map(|output| self.fields_of(&output.record));
            }
            let spec = &self.session.stages[task.0];
            let whose = if *epoch.build_digest != spec.build_digest {
                "this build, which is not the one that made it,"
            } else if *epoch.pipeline_digest != spec.pipeline_digest {
                "this pipeline file, which is not the one that it ran with,"
            } else {
                "this build"
            };
            node.notes.push(format!(
                "{whose} gives something else in epoch {differing} of {}/{} ({what}): what happened inside is not known \
                 from it; run the recorded build ({}) with the recorded file. What its headers tell follows",
                id.stage, id.task, hex(&epoch.build_digest)
            ));
            self.by_headers(&stored, level, &mut node)?;
            return Ok(node);
        }
        let within = Within { task, stretch, sequence: id.sequence };
        let Some(item) = held.item_of(id.sequence) else {
            if self.session.keys_of(task, id.sequence).is_none() {
                return Err(Stop::Need(Need::Keys { task, epoch: epoch.epoch, sequence: id.sequence }));
            }
            if held.dropped > 0 {
                node.notes
                    .push(format!("{} calls were not kept: there are too many for these keys", held.dropped));
            } else {
                node.notes.push("the engine itself wrote it; no operator made it".to_owned());
            }
            self.by_headers(&stored, level, &mut node)?;
            return Ok(node);
        };
        let same = held.output(id.sequence).map(|output| {
            let body = |value: &Option<bytes::Bytes>| {
                value.as_deref().unwrap_or_default().get(PREFIX_BYTES..).unwrap_or_default().to_vec()
            };
            output.record.key == stored.record.key
                && output.record.timestamp_ms == stored.record.timestamp_ms
                && output.record.header(CAUSE_HEADER) == stored.record.header(CAUSE_HEADER)
                && body(&output.record.value) == body(&stored.record.value)
        });
        self.same += usize::from(same == Some(true));
        if level == 0 && same == Some(false) {
            self.run_again = held.output(id.sequence).map(|output| self.fields_of(&output.record));
        }
        self.made(within, item, level, &mut node)?;
        if let Some(made) = &mut node.made {
            made.same_bytes = same;
        }
        Ok(node)
    }

    /// The tree of a record that passed between operators.
    pub fn item(
        &mut self,
        within: Within,
        item: ItemId,
        role: &str,
        level: usize,
    ) -> Result<Option<TreeNode>, Stop> {
        let stretch = &self.session.stretches[within.stretch].1;
        let Some(call) = stretch.maker(item) else { return Ok(None) };
        let Some(gave) = call.gave.iter().find(|gave| gave.ordinal == item.3) else { return Ok(None) };
        if let Some(sequence) = stretch.sequence_of(item)
            && let Some(output) = stretch.output(sequence)
        {
            let id = Identity {
                stage: self.session.stages[within.task.0].name.clone(),
                task: within.task.1,
                sequence,
            };
            if let Some(offset) = self.session.offset_of(&output.at, &id)? {
                return self.record(&output.at.clone(), offset, role, level).map(Some);
            }
        }
        let mut node = of_record(&gave.record, &gave.key);
        role.clone_into(&mut node.role);
        if self.met(RecordId::Item(within.task, item), &mut node) || self.is_enough(level, &mut node) {
            return Ok(Some(node));
        }
        self.made(within, item, level, &mut node)?;
        Ok(Some(node))
    }

    /// Notes that a record is shown; true if it was before.
    fn met(&mut self, id: RecordId, node: &mut TreeNode) -> bool {
        if let Some(number) = self.seen.get(&id) {
            node.number = *number;
            node.shown_elsewhere = true;
            return true;
        }
        self.records += 1;
        node.number = self.records;
        self.seen.insert(id, self.records);
        false
    }

    fn is_enough(&mut self, level: usize, node: &mut TreeNode) -> bool {
        let why = if level >= self.depth {
            format!("what led to it lies deeper than {} records: use a greater --depth", self.depth)
        } else if self.records >= MAX_RECORDS {
            format!("what led to it is left out: the tree has {MAX_RECORDS} records already")
        } else {
            return false;
        };
        self.cut_short = true;
        node.notes.push(why);
        true
    }

    /// A record as it lies in the log, without what led to it.
    pub(super) fn leaf(&self, at: &TopicPartition, stored: &StoredRecord) -> TreeNode {
        let record = &stored.record;
        let header = |name| record.header(name).map(|value| text(value));
        let (kind, value, notes) = match Shower::new(self.session.book).show(record.value.as_deref()) {
            Shown::Record(kind, value) => (kind, value, None),
            Shown::Json(value) => (String::new(), value, None),
            Shown::Nothing if is_left_out(record) => {
                (String::new(), Value::Null, Some("of a key that was left out of the bundle".to_owned()))
            }
            Shown::Nothing => (String::new(), Value::Null, Some("it deletes its key".to_owned())),
            Shown::Bytes(bytes, why) => (String::new(), Value::from(hex(&bytes)), Some(why)),
        };
        let event_time = value.get("event_time").and_then(Value::as_str).map(str::to_owned);
        TreeNode {
            kind,
            place: Some(place_text(at, stored.offset)),
            identity: header(ID_HEADER),
            cause: header(CAUSE_HEADER),
            key: record.key.as_deref().map(text).unwrap_or_default(),
            event_time: event_time.or_else(|| Some(EventTime::from_ms(record.timestamp_ms).to_string())),
            value,
            notes: notes.into_iter().collect(),
            ..TreeNode::default()
        }
    }

    fn fields_of(&self, record: &NewRecord) -> Value {
        match Shower::new(self.session.book).show(record.value.as_deref()) {
            Shown::Record(_, value) | Shown::Json(value) => value,
            Shown::Nothing | Shown::Bytes(..) => Value::Null,
        }
    }

    /// The keys of the operators that may have led to a record: its own, its cause's, and what it speaks of.
    fn keys_for(&self, stored: &StoredRecord) -> BTreeSet<Key> {
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let mut add = |key: &str| _ = keys.insert(Key::new(key));
        if let Some(key) = stored.record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) {
            add(key);
        }
        if let Some(cause) = stored.record.header(CAUSE_HEADER).map(|cause| text(cause)) {
            if let Ok(timer) = cause.parse::<TimerCause>() {
                add(&timer.key);
            } else if let Some((at, offset)) = parse_place(&cause)
                && let Ok(Ok(found)) = self.session.record(&at, offset)
                && let Some(key) = found.record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
            {
                add(key);
            }
        }
        if let Some(Ok(record)) = stored.record.value.as_deref().map(|value| self.session.book.decode(value))
        {
            for field in ["instrument", "account", "scope"] {
                record.text(field).into_iter().for_each(&mut add);
            }
        }
        keys
    }

    /// What can be told without running anything again: the cause that the headers name, and its cause, and so on.
    fn by_headers(&mut self, stored: &StoredRecord, level: usize, node: &mut TreeNode) -> Result<(), Stop> {
        let Some(cause) = stored.record.header(CAUSE_HEADER).map(|cause| text(cause)) else { return Ok(()) };
        if let Ok(timer) = cause.parse::<TimerCause>() {
            node.notes.push(format!(
                "a timer led to it: operator {}, key {}, set for {}",
                timer.node, timer.key, timer.at
            ));
            return Ok(());
        }
        let place = match (parse_place(&cause), cause.parse::<Identity>()) {
            (Some(place), _) => Some(place),
            (None, Ok(id)) => self.session.place_of(&id)?,
            (None, Err(_)) => None,
        };
        match place {
            Some((at, offset)) => node.children.push(self.record(&at, offset, "cause", level + 1)?),
            None => node.notes.push(format!("its cause, {cause}, is not in the log any more")),
        }
        Ok(())
    }

    /// Who made an item, and of what.
    fn made(&mut self, within: Within, item: ItemId, level: usize, node: &mut TreeNode) -> Result<(), Stop> {
        let session = self.session;
        let stretch = &session.stretches[within.stretch].1;
        let Some(call) = stretch.maker(item) else { return Ok(()) };
        self.numbers.entry(within.stretch).or_default().insert(call.number);
        let past = session.past(within.task);
        let spec = &past.spec.nodes[call.node];
        let epoch = i64::try_from(call.epoch).unwrap_or(i64::MAX);
        let record = stretch.epochs.get(&epoch);
        let build = record.map(|record| record.build_digest.to_vec()).unwrap_or_default();
        let mut made = Made {
            pipeline: past.spec.pipeline.to_string(),
            stage: past.spec.name.to_string(),
            task: past.task,
            epoch,
            operator: spec.id.to_string(),
            type_name: spec.operator.name.to_owned(),
            settings: serde_json::to_value(&spec.settings).unwrap_or_default(),
            key: call.key.to_string(),
            stamp: call.moment.stamp.to_string(),
            watermark: call.moment.watermark.map(|time| time.to_string()),
            stream_time: call.moment.stream_time.to_string(),
            trigger: words::trigger(call),
            position: call.position,
            timers: call.timers.iter().map(words::timer_change).collect(),
            same_build: build == past.spec.build_digest,
            same_file: record.is_some_and(|record| *record.pipeline_digest == past.spec.pipeline_digest),
            build: hex(&build),
            from_cut: stretch.began_after,
            ..Made::default()
        };
        if let (Some(state), Some(Some(layout))) =
            (stretch.state(call.number), stretch.layouts.get(call.node))
        {
            let (before, after) = (shown(layout, call, &state.before), shown(layout, call, &state.after));
            made.state_changes = changes(&before, &after);
            made.state_before = before;
        }
        for gave in call.gave.iter().filter(|gave| gave.ordinal != item.3) {
            let id = (call.epoch, call.pass, call.node, gave.ordinal);
            made.given_with_it.push(self.brief_of(within, id, &gave.record, &gave.key)?);
        }
        let (cause, mut children) = self.cause(within, call, level)?;
        node.children.extend(cause);
        node.children.append(&mut children);
        let gave = call.gave.iter().find(|gave| gave.ordinal == item.3).map(|gave| &gave.record);
        let (groups, gathered) = self.gather(within, call, gave, level)?;
        made.gathered = groups;
        node.children.extend(gathered);
        node.children.extend(self.known(within, call, level)?);
        if let (Took::Timer(_), Some((at, offset))) = (&call.took, self.origin(within, call)) {
            node.children.push(self.moved_time(&at, offset, level)?);
        }
        node.made = Some(Box::new(made));
        Ok(())
    }
}

/// `topic/partition@offset`.
pub fn place_text(at: &TopicPartition, offset: u64) -> String {
    format!("{}/{}@{offset}", at.topic, at.partition)
}

/// A record in short.
pub fn brief(record: &Record, key: &Key) -> Brief {
    Brief {
        kind: record.kind().name().to_owned(),
        place: None,
        key: key.to_string(),
        event_time: record.event_time().map(|time| time.to_string()),
        value: serde_json::to_value(record).unwrap_or_default(),
    }
}

pub(super) fn of_record(record: &Record, key: &Key) -> TreeNode {
    let Brief { kind, key, event_time, value, .. } = brief(record, key);
    TreeNode { kind, key, event_time, value, ..TreeNode::default() }
}
