//! The first difference: of what differs for one cause, the record that lies furthest up in the graph.

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_contract::Key;
use tidewire_schemas::{EpochRecord, Record, SchemaBook};

use super::Difference;
use crate::fault::FaultAt;
use crate::identity::{CAUSE_HEADER, ID_HEADER};
use crate::log::{StoredRecord, TopicPartition};
use crate::outputs::Output;
use crate::plan::{StageSpec, Upstream};

/// An output, how it differs, and what lies in the log in its place.
type Other<'a> = (&'a Output, &'static str, Option<(TopicPartition, StoredRecord)>);

/// Outputs of one cause that are not as they were.
#[derive(Default)]
pub(super) struct Differing<'a> {
    found: Vec<Other<'a>>,
}

impl<'a> Differing<'a> {
    /// Adds one that differs, if it is the first one or has the same cause.
    pub fn add(
        &mut self,
        output: &'a Output,
        what: &'static str,
        found: Option<(TopicPartition, StoredRecord)>,
    ) {
        let cause = |output: &Output| output.record.header(CAUSE_HEADER).cloned();
        if self.found.first().is_none_or(|(first, _, _)| cause(first) == cause(output)) {
            self.found.push((output, what, found));
        }
    }

    /// The difference that the others follow from, as far as outputs show it.
    pub fn first(self, spec: &StageSpec, book: &SchemaBook, record: &EpochRecord) -> Option<Difference> {
        // Each operator comes after what feeds it, so of those that feed the first one, the least place is furthest up.
        let above = self.found.first().and_then(|(first, _, _)| first.node).map(|node| feeding(spec, node));
        let above = above.unwrap_or_default();
        let up = |output: &Output| output.node.filter(|node| above.contains(node)).unwrap_or(usize::MAX);
        let (output, what, found) = self.found.into_iter().min_by_key(|(output, _, _)| up(output))?;
        let (at, stored) = match found {
            Some((at, stored)) => (Some(at), Some(stored)),
            None => (None, None),
        };
        let rerun = decode(book, &output.record.value);
        let named = match rerun.as_deref() {
            Some(Record::LateRecord(late)) => Some(late.operator.clone()),
            Some(Record::DeadLetter(letter)) => letter.operator.clone(),
            _ => None,
        };
        let node = output.node.and_then(|node| spec.nodes.get(node)).map(|node| node.id.clone());
        Some(Difference {
            epoch: record.epoch,
            what: what.to_owned(),
            operator: node.or(named),
            upstream: output.node.map(|node| unseen(spec, node)).unwrap_or_default(),
            at: Some(at.unwrap_or_else(|| output.at.clone())),
            offset: stored.as_ref().map(|stored| stored.offset),
            id: text(output.record.header(ID_HEADER)),
            cause: text(output.record.header(CAUSE_HEADER)),
            key: text(output.record.key.as_ref()),
            rerun,
            found: stored.and_then(|stored| decode(book, &stored.record.value)),
        })
    }
}

/// A record that was written, and that the re-run did not give.
pub(super) fn extra(book: &SchemaBook, epoch: i64, found: (TopicPartition, StoredRecord)) -> Difference {
    let (at, stored) = found;
    Difference {
        at: Some(at),
        offset: Some(stored.offset),
        id: text(stored.record.header(ID_HEADER)),
        cause: text(stored.record.header(CAUSE_HEADER)),
        key: text(stored.record.key.as_ref()),
        found: decode(book, &stored.record.value),
        ..nothing(epoch, "extra".to_owned())
    }
}

/// An epoch whose outputs are all there, but which did not end as it was recorded: named by the operator whose state is
/// another, where the changelog shows it.
pub(super) fn of_epoch(
    spec: &StageSpec,
    record: &EpochRecord,
    what: String,
    owner: Option<(SmolStr, Option<Key>)>,
) -> Difference {
    let Some((operator, key)) = owner else { return nothing(record.epoch, what) };
    let place = spec.nodes.iter().position(|node| node.id == operator);
    Difference {
        upstream: place.map(|place| unseen(spec, place)).unwrap_or_default(),
        operator: Some(operator),
        key: key.map(|key| key.to_string()),
        ..nothing(record.epoch, what)
    }
}

/// An operator that fails at what it took when the epoch was recorded.
pub(super) fn failed(spec: &StageSpec, epoch: i64, fault: FaultAt) -> Difference {
    let place = spec.nodes.iter().position(|node| node.id == fault.node);
    Difference {
        upstream: place.map(|place| unseen(spec, place)).unwrap_or_default(),
        operator: Some(fault.node),
        cause: Some(fault.at),
        ..nothing(epoch, format!("fails now: {}: {}", fault.code, fault.text))
    }
}

fn nothing(epoch: i64, what: String) -> Difference {
    Difference {
        epoch,
        what,
        operator: None,
        upstream: Vec::new(),
        at: None,
        offset: None,
        id: None,
        cause: None,
        key: None,
        rerun: None,
        found: None,
    }
}

/// The operators that feed one, directly or through others, by their places.
fn feeding(spec: &StageSpec, node: usize) -> Vec<usize> {
    let mut found = Vec::new();
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        for upstream in spec.nodes.get(node).map(|node| node.from.as_slice()).unwrap_or_default() {
            if let Upstream::Node(place) = upstream
                && !found.contains(place)
            {
                found.push(*place);
                open.push(*place);
            }
        }
    }
    found.sort_unstable();
    found
}

/// Those of them that write to no topic.
fn unseen(spec: &StageSpec, node: usize) -> Vec<SmolStr> {
    let is_written = |place: &usize| spec.outputs.iter().any(|output| output.from.contains(place));
    let unseen = feeding(spec, node).into_iter().filter(|place| !is_written(place));
    unseen.filter_map(|place| spec.nodes.get(place)).map(|node| node.id.clone()).collect()
}

fn decode(book: &SchemaBook, value: &Option<Bytes>) -> Option<Box<Record>> {
    book.decode(value.as_deref()?).ok().map(Box::new)
}

fn text(bytes: Option<&Bytes>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}
