//! Writes what importers give to the log: records to their topics, rejected lines to the dead letters.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_engine::identity::RECEIVED_HEADER;
use tidewire_engine::log::{Log, LogError, NewRecord, TopicPartition, TopicSpec};
use tidewire_engine::partition::partition_of_compound;
use tidewire_ingest::{Item, Merge, Merged};
use tidewire_schemas::{DeadLetter, EventTime, Record, SchemaBook, topics};

/// Bytes of records gathered before they are written.
const BATCH_BYTES: usize = 4 << 20;
/// Records gathered before they are written.
const BATCH_RECORDS: usize = 20_000;
/// How often progress is told, in items.
const TELL_EVERY: u64 = 2_000;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// Records, by topic.
    pub by_topic: BTreeMap<SmolStr, u64>,
    /// Records by file, rejected lines not counted.
    pub by_file: Vec<u64>,
    /// Rejected lines by file.
    pub rejected_by_file: Vec<u64>,
    /// Files that could not be read to their end, and why.
    pub failed: Vec<String>,
}

impl Fed {
    /// Records written, rejected lines not counted.
    pub fn records(&self) -> u64 {
        self.by_file.iter().sum()
    }

    /// Rejected lines.
    pub fn rejected(&self) -> u64 {
        self.rejected_by_file.iter().sum()
    }
}

/// Layout of topics that are made for an import: partitions by topic.
pub type Partitions<'a> = &'a dyn Fn(&str) -> u32;

/// Writes everything that `merge` gives. `files` are the files' names, in the order of the merge; `on_progress` is
/// told bytes read and records written.
pub fn feed(
    log: &dyn Log,
    book: &SchemaBook,
    mut merge: Merge,
    files: &[String],
    partitions: Partitions<'_>,
    mut on_progress: impl FnMut(u64, u64),
) -> anyhow::Result<(Fed, Merge)> {
    let mut writer = Writer {
        log,
        book,
        partitions,
        layouts: BTreeMap::new(),
        ready: BTreeMap::new(),
        bytes: 0,
        records: 0,
    };
    let zeros = vec![0; files.len()];
    let mut fed = Fed { by_file: zeros.clone(), rejected_by_file: zeros, ..Fed::default() };
    let mut last_ms = vec![0_i64; files.len()];
    let mut items = 0_u64;
    while let Some(merged) = merge.next() {
        match merged {
            Ok(Merged { file, item }) => {
                if let Item::Record { timestamp_ms, .. } = &item {
                    last_ms[file] = *timestamp_ms;
                }
                writer.take(item, &files[file], file, last_ms[file], &mut fed)?;
            }
            Err(error) => fed.failed.push(error.to_string()),
        }
        items += 1;
        if items.is_multiple_of(TELL_EVERY) {
            on_progress(merge.bytes_read(), fed.records());
        }
    }
    writer.flush().context("writing to the log")?;
    on_progress(merge.bytes_read(), fed.records());
    Ok((fed, merge))
}

struct Writer<'a> {
    log: &'a dyn Log,
    book: &'a SchemaBook,
    partitions: Partitions<'a>,
    layouts: BTreeMap<SmolStr, u32>,
    ready: BTreeMap<TopicPartition, Vec<NewRecord>>,
    bytes: usize,
    records: usize,
}

impl Writer<'_> {
    fn take(
        &mut self,
        item: Item,
        name: &str,
        file: usize,
        last_ms: i64,
        fed: &mut Fed,
    ) -> anyhow::Result<()> {
        match item {
            Item::Record { line, topic, key, timestamp_ms, received_ns, record } => {
                let mut value = Vec::with_capacity(160);
                self.book.encode(&record, &mut value)?;
                let received = Bytes::from(received_ns.to_string());
                let record = NewRecord {
                    timestamp_ms,
                    key: Some(Bytes::copy_from_slice(key.as_bytes())),
                    value: Some(value.into()),
                    headers: vec![(SmolStr::new_static(RECEIVED_HEADER), received)],
                };
                self.add(topic, &key, record).with_context(|| format!("{name}, line {line}"))?;
                *fed.by_topic.entry(topic.into()).or_default() += 1;
                fed.by_file[file] += 1;
            }
            Item::Rejected { line, reason, raw, .. } => {
                let letter = DeadLetter {
                    source_topic: name.into(),
                    source_partition: -1,
                    source_offset: -1,
                    line: i64::try_from(line).ok(),
                    stage: "import".into(),
                    operator: None,
                    reason: reason.code().into(),
                    error: reason.to_string().into(),
                    key: None,
                    value: Some(raw.into()),
                    headers: BTreeMap::new(),
                    source_timestamp_ms: last_ms,
                    event_time: EventTime::from_ms(last_ms),
                };
                let mut value = Vec::new();
                self.book.encode(&Record::from(letter), &mut value)?;
                let record = NewRecord {
                    timestamp_ms: last_ms,
                    key: Some(Bytes::copy_from_slice(name.as_bytes())),
                    value: Some(value.into()),
                    headers: Vec::new(),
                };
                self.add(topics::DEAD_LETTERS, name, record)
                    .with_context(|| format!("{name}, line {line}"))?;
                *fed.by_topic.entry(topics::DEAD_LETTERS.into()).or_default() += 1;
                fed.rejected_by_file[file] += 1;
            }
        }
        Ok(())
    }

    fn add(&mut self, topic: &str, key: &str, record: NewRecord) -> Result<(), LogError> {
        let partitions = match self.layouts.get(topic) {
            Some(partitions) => *partitions,
            None => {
                let partitions = make_topic(self.log, topic, self.partitions)?;
                self.layouts.insert(topic.into(), partitions);
                partitions
            }
        };
        let at = TopicPartition::new(topic, partition_of_compound(key, partitions));
        self.bytes += record.size();
        self.records += 1;
        self.ready.entry(at).or_default().push(record);
        if self.bytes >= BATCH_BYTES || self.records >= BATCH_RECORDS {
            self.flush()?;
        }
        Ok(())
    }

    /// Reference data first: a running pipeline then knows an instrument before its first tick.
    fn flush(&mut self) -> Result<(), LogError> {
        let ready = std::mem::take(&mut self.ready);
        let (first, then): (Vec<_>, Vec<_>) =
            ready.into_iter().partition(|(at, _)| at.topic == topics::INSTRUMENTS);
        for (at, records) in first.into_iter().chain(then) {
            self.log.append(&at, records)?;
        }
        (self.bytes, self.records) = (0, 0);
        Ok(())
    }
}

/// Makes a topic unless it is there; returns its partitions.
fn make_topic(log: &dyn Log, topic: &str, partitions: Partitions<'_>) -> Result<u32, LogError> {
    if let Some(found) = log.topic(topic)? {
        return Ok(found.partitions);
    }
    let spec = standard_topic(topic, partitions(topic));
    log.create_topic(&spec)?;
    Ok(spec.partitions)
}

/// A topic as a pipeline file without any word about it would make it.
pub fn standard_topic(topic: &str, partitions: u32) -> TopicSpec {
    let spec = TopicSpec::new(topic, partitions);
    match topics::find(topic) {
        Some(known) if known.compacted => spec.compacted(crate::pipeline::REPLAY_RETENTION_MS),
        _ => spec,
    }
}

/// BLAKE3 digest of a file in hexadecimal, by which a file imported before is known.
pub fn file_digest(path: &Path) -> anyhow::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file =
        std::fs::File::open(path).with_context(|| format!("{} can not be opened", path.display()))?;
    std::io::copy(&mut file, &mut hasher).with_context(|| format!("{} can not be read", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}
