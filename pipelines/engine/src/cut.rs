//! Cuts: a task's state in its changelog, written when a flush is due and read back at recovery.

use std::collections::BTreeMap;

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_contract::{Key, NodeSink, Persist as _, entry_hash};
use tidewire_schemas::{CutMarker, NodeShape, Record};
use tidewire_schemas::{NotRegistered, SchemaBook};

use crate::bugs::{self, Bug};
use crate::dataflow::Graph;
use crate::log::{NewRecord, StoredRecord};
use crate::only::KeyScope;
use crate::plan::NodeSpec;

/// Why a cut can not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The state was written in another layout, by an older or newer build.
    #[error(
        "state of operator {node} ({operator}) was written in another layout (version {found}, now {wanted}): \
         run the build that wrote it, or reprocess into fresh topics"
    )]
    OtherShape {
        /// The operator's id.
        node: SmolStr,
        /// What it is.
        operator: SmolStr,
        /// Version in the changelog.
        found: i32,
        /// Version of this build.
        wanted: u32,
    },
    /// Bytes that are not what they must be.
    #[error("changelog entry at offset {offset}: {problem}")]
    Malformed {
        /// Its offset.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// Entries are missing or were changed: the sum of their hashes is not the one that the cut names.
    #[error("the changelog does not hold the state of epoch {epoch}: entries are missing or altered")]
    WrongDigest {
        /// The epoch of the cut.
        epoch: i64,
    },
}

/// The changelog of a task, read up to a cut.
#[derive(Debug, Default)]
pub struct Changelog {
    entries: BTreeMap<Bytes, (u64, Bytes)>,
    marker: Option<CutMarker>,
    records: u64,
    /// The sum of the entries' hashes, as they say themselves.
    sum: u64,
}

const STATE: u8 = b's';
const TIMER: u8 = b't';
const TOUCH: u8 = b'u';
/// Key of the markers of cuts.
pub const MARKER: &[u8] = b"m";

impl Changelog {
    /// Takes the next record of the changelog.
    pub fn take(&mut self, stored: StoredRecord, book: &SchemaBook) -> Result<(), CutError> {
        self.records += 1;
        let malformed =
            |problem: &str| CutError::Malformed { offset: stored.offset, problem: problem.to_owned() };
        let key = stored.record.key.clone().ok_or_else(|| malformed("no key"))?;
        if &*key == MARKER {
            let value = stored.record.value.as_deref().unwrap_or_default();
            let record = book.decode(value).map_err(|error| malformed(&error.to_string()))?;
            let marker = CutMarker::try_from(record).map_err(|error| malformed(&error.to_string()))?;
            self.marker = Some(marker);
            return Ok(());
        }
        let before = match &stored.record.value {
            None => self.entries.remove(&key),
            Some(value) => {
                self.sum = self.sum.wrapping_add(said_hash(value));
                self.entries.insert(key, (stored.offset, value.clone()))
            }
        };
        self.sum = self.sum.wrapping_sub(before.map_or(0, |(_, value)| said_hash(&value)));
        Ok(())
    }

    /// Whether the records read so far hold all of the state that their last marker stands for. True before the first
    /// marker, where there is no state. Cheap: the entries' bytes themselves are checked only when they are restored.
    pub fn is_whole(&self) -> bool {
        self.marker.as_ref().is_none_or(|marker| self.sum.to_le_bytes() == *marker.state_digest)
    }

    /// The cut that the records read so far end with.
    pub fn marker(&self) -> Option<&CutMarker> {
        self.marker.as_ref()
    }

    /// How many records were read.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Gives the entries to the operators of `graph`, as far as they are of keys in `scope`; returns the sum of the hashes
    /// of all, and the keys of entries whose operator is no longer there.
    pub fn restore(
        &self,
        graph: &Graph,
        specs: &[NodeSpec],
        scope: &KeyScope,
    ) -> Result<(u64, Vec<Bytes>), CutError> {
        let Some(marker) = &self.marker else { return Ok((0, Vec::new())) };
        check_shapes(marker, graph, specs)?;
        let (mut sum, mut kept, mut orphans) = (0_u64, 0_u64, Vec::new());
        for (key, (offset, value)) in &self.entries {
            let malformed =
                |problem: &str| CutError::Malformed { offset: *offset, problem: problem.to_owned() };
            let entry = EntryKey::read(key).ok_or_else(|| malformed("a key that is no entry's"))?;
            let (hash, value) = value.split_first_chunk::<8>().ok_or_else(|| malformed("no hash"))?;
            let hash = u64::from_le_bytes(*hash);
            if hash != entry_hash(&[key, value]) {
                return Err(malformed("the entry's hash is not that of its bytes"));
            }
            sum = sum.wrapping_add(hash);
            let Some(place) = specs.iter().position(|spec| spec.id == entry.node) else {
                orphans.push(key.clone());
                continue;
            };
            kept = kept.wrapping_add(hash);
            if scope.drops_others() && !scope.wants_owner(entry.owner().as_ref()) {
                continue;
            }
            let mut node = graph.nodes()[place].borrow_mut();
            let done = match (entry.tag, &entry.key) {
                (TIMER, Some(key)) => node.restore_timer(key, entry.sub, hash),
                (TOUCH, _) => node.restore_touch(entry.sub, value, hash),
                (_, key) => node.restore(graph.names(), key.as_ref(), entry.sub, value, hash),
            };
            done.map_err(|error| malformed(&error.to_string()))?;
        }
        // Where the entries of other keys were left out, there is no sum to compare with.
        if sum.to_le_bytes() != *marker.state_digest && !scope.is_partial() {
            return Err(CutError::WrongDigest { epoch: marker.epoch });
        }
        Ok((kept, orphans))
    }
}

/// The hash that an entry's value begins with.
fn said_hash(value: &[u8]) -> u64 {
    value.split_first_chunk::<8>().map_or(0, |(hash, _)| u64::from_le_bytes(*hash))
}

/// Whether a record of a changelog is a marker.
pub(crate) fn is_marker(stored: &StoredRecord) -> bool {
    stored.record.key.as_deref() == Some(MARKER)
}

/// The operator and the key whose state an entry holds; `None` if it is no entry.
pub(crate) fn owner_of_entry(key: &[u8]) -> Option<(SmolStr, Option<Key>)> {
    let entry = EntryKey::read(key)?;
    Some((entry.node, entry.key))
}

/// The key whose state an entry of a changelog holds; `Some(None)` for what belongs to the task as a whole, `None` if it
/// is no entry.
pub fn owner_of(key: &[u8]) -> Option<Option<Key>> {
    Some(EntryKey::read(key)?.owner())
}

/// Whether a key of a changelog is that of the markers, which end cuts.
pub fn is_marker_key(key: &[u8]) -> bool {
    key == MARKER
}

fn check_shapes(marker: &CutMarker, graph: &Graph, specs: &[NodeSpec]) -> Result<(), CutError> {
    let now = shapes(graph, specs);
    for found in &marker.shapes {
        if let Some(wanted) = now.iter().find(|shape| shape.node == found.node)
            && wanted != found
        {
            return Err(CutError::OtherShape {
                node: found.node.clone(),
                operator: found.operator.clone(),
                found: found.version,
                wanted: wanted.version.unsigned_abs(),
            });
        }
    }
    Ok(())
}

/// The layouts of all operators' states in this build.
pub fn shapes(graph: &Graph, specs: &[NodeSpec]) -> Vec<NodeShape> {
    let nodes = specs.iter().zip(graph.nodes());
    nodes
        .map(|(spec, node)| {
            let (version, layout) = node.borrow().state_layout();
            NodeShape {
                node: spec.id.clone(),
                operator: spec.operator.name.into(),
                version: i32::try_from(version).unwrap_or(i32::MAX),
                shape_digest: Bytes::copy_from_slice(&blake3::hash(layout.as_bytes()).as_bytes()[..16]),
            }
        })
        .collect()
}

/// What is written besides the entries.
pub struct CutHead {
    /// The marker, but for its digest.
    pub marker: CutMarker,
    /// Keys of entries to be removed because their operator is gone.
    pub orphans: Vec<Bytes>,
}

/// Collects what changed since the last flush, ending with the marker; `sum` is carried on.
pub fn write_cut(
    graph: &Graph,
    specs: &[NodeSpec],
    head: CutHead,
    sum: &mut u64,
    book: &SchemaBook,
) -> Result<Vec<NewRecord>, NotRegistered> {
    let mut records = Vec::new();
    let stamp_ms = head.marker.stamp_ms;
    for key in head.orphans {
        records.push(NewRecord { timestamp_ms: stamp_ms, key: Some(key), value: None, headers: Vec::new() });
    }
    let names = graph.names().borrow();
    for (spec, node) in specs.iter().zip(graph.nodes()) {
        let mut timers = EntrySink { tag: TIMER, node: &spec.id, stamp_ms, sum: 0, records: Vec::new() };
        let mut state = EntrySink { tag: STATE, node: &spec.id, stamp_ms, sum: 0, records: Vec::new() };
        let mut touches = EntrySink { tag: TOUCH, node: &spec.id, stamp_ms, sum: 0, records: Vec::new() };
        node.borrow_mut().flush(&names, [&mut timers, &mut state, &mut touches]);
        for sink in [timers, state, touches] {
            *sum = sum.wrapping_add(sink.sum);
            records.extend(sink.records);
        }
    }
    let mut marker = head.marker;
    marker.state_digest = Bytes::copy_from_slice(&sum.to_le_bytes());
    let mut value = Vec::new();
    book.encode(&Record::from(marker), &mut value)?;
    records.push(NewRecord {
        timestamp_ms: stamp_ms,
        key: Some(Bytes::from_static(MARKER)),
        value: Some(value.into()),
        headers: Vec::new(),
    });
    Ok(records)
}

struct EntrySink<'a> {
    tag: u8,
    node: &'a SmolStr,
    stamp_ms: i64,
    sum: u64,
    records: Vec<NewRecord>,
}

impl EntrySink<'_> {
    fn push(&mut self, key: Bytes, value: Option<Bytes>) {
        self.records.push(NewRecord {
            timestamp_ms: self.stamp_ms,
            key: Some(key),
            value,
            headers: Vec::new(),
        });
    }
}

impl NodeSink for EntrySink<'_> {
    fn put(&mut self, key: Option<&Key>, sub: &[u8], value: &[u8], old_hash: u64) -> u64 {
        let entry = EntryKey { tag: self.tag, node: self.node.clone(), key: key.cloned(), sub }.write();
        let hash = entry_hash(&[&entry, value]);
        if bugs::on(Bug::SkippedEntry) && hash.is_multiple_of(64) {
            return hash;
        }
        let mut bytes = Vec::with_capacity(8 + value.len());
        bytes.extend_from_slice(&hash.to_le_bytes());
        bytes.extend_from_slice(value);
        self.sum = self.sum.wrapping_sub(old_hash).wrapping_add(hash);
        self.push(entry, Some(bytes.into()));
        hash
    }

    fn remove(&mut self, key: Option<&Key>, sub: &[u8], old_hash: u64) {
        let entry = EntryKey { tag: self.tag, node: self.node.clone(), key: key.cloned(), sub }.write();
        self.sum = self.sum.wrapping_sub(old_hash);
        self.push(entry, None);
    }
}

/// The key of a changelog entry: what it is, the operator, the key whose state it is, the place in that state.
struct EntryKey<'a> {
    tag: u8,
    node: SmolStr,
    key: Option<Key>,
    sub: &'a [u8],
}

impl<'a> EntryKey<'a> {
    fn write(&self) -> Bytes {
        let mut bytes = vec![self.tag];
        self.node.save(&mut bytes);
        self.key.save(&mut bytes);
        bytes.extend_from_slice(self.sub);
        bytes.into()
    }

    /// The key that it belongs to. When keys were touched is kept by the task, with the key in the place.
    fn owner(&self) -> Option<Key> {
        if self.tag == TOUCH { Key::load(&mut &*self.sub).ok() } else { self.key.clone() }
    }

    fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let tag = u8::load(bytes).ok()?;
        let node = SmolStr::load(bytes).ok()?;
        let key = Option::<Key>::load(bytes).ok()?;
        Some(Self { tag, node, key, sub: bytes })
    }
}
