//! Writes what importers give to the log: records to their topics, rejected lines to the dead letters.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_engine::identity::RECEIVED_HEADER;
use tidewire_engine::log::{Log, LogError, NewRecord, TopicPartition, TopicSpec};
use tidewire_engine::partition::partition_of_compound;
use tidewire_ingest::{Item, Merge, Merged};
use tidewire_runtime::reprocess::{MAX_HELD_BYTES, Sorter, count_records, way_out};
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

/// How files are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct FeedOptions<'a> {
    /// As many records of a partition as are there already are left out: they are of an attempt before.
    pub goes_on: bool,
    /// Puts all records in the order of event time; records may come as many milliseconds out of order.
    pub sorts_ms: Option<i64>,
    /// Ends it early.
    pub stop: Option<&'a AtomicBool>,
}

/// Writes everything that `merge` gives. `files` are the files' names, in the order of the merge; `on_progress` is
/// told bytes read and records written.
pub fn feed(
    log: &dyn Log,
    book: &SchemaBook,
    merge: Merge,
    files: &[String],
    partitions: Partitions<'_>,
    on_progress: impl FnMut(u64, u64),
) -> anyhow::Result<(Fed, Merge)> {
    feed_with(FeedOptions::default(), log, book, merge, (files, partitions), on_progress)
}

/// As [`feed`], with options. Once told to stop, it ends where it is.
pub fn feed_with(
    options: FeedOptions<'_>,
    log: &dyn Log,
    book: &SchemaBook,
    mut merge: Merge,
    (files, partitions): (&[String], Partitions<'_>),
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
        goes_on: options.goes_on,
        left_out: BTreeMap::new(),
        sorter: options.sorts_ms.map(|sorts_ms| Sorter::new(sorts_ms, MAX_HELD_BYTES)),
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
            if options.stop.is_some_and(|stop| stop.load(Ordering::SeqCst)) {
                return Ok((fed, merge));
            }
        }
    }
    writer.put_sorted(true).context("writing to the log")?;
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
    goes_on: bool,
    /// Records of each partition that are there already.
    left_out: BTreeMap<TopicPartition, u64>,
    /// Where records are to be sorted: those that wait for earlier ones.
    sorter: Option<Sorter<(TopicPartition, NewRecord)>>,
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
                let place = || format!("{name}, line {line}");
                let at = self.place(topic, &key).with_context(place)?;
                self.sort(at, record).with_context(place)?;
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
                let at = self.place(topics::DEAD_LETTERS, name)?;
                self.put(at, record).with_context(|| format!("{name}, line {line}"))?;
                *fed.by_topic.entry(topics::DEAD_LETTERS.into()).or_default() += 1;
                fed.rejected_by_file[file] += 1;
            }
        }
        Ok(())
    }

    fn place(&mut self, topic: &str, key: &str) -> Result<TopicPartition, LogError> {
        let partitions = match self.layouts.get(topic) {
            Some(partitions) => *partitions,
            None => {
                let partitions = make_topic(self.log, topic, self.partitions)?;
                self.layouts.insert(topic.into(), partitions);
                partitions
            }
        };
        Ok(TopicPartition::new(topic, partition_of_compound(key, partitions)))
    }

    /// Passes a record on, once nothing may come before it.
    fn sort(&mut self, at: TopicPartition, record: NewRecord) -> anyhow::Result<()> {
        let Some(sorter) = &mut self.sorter else { return Ok(self.put(at, record)?) };
        if let Err(late) = sorter.push(record.timestamp_ms, record.size(), (at, record)) {
            let (time, passed) = (EventTime::from_ms(late.time_ms), EventTime::from_ms(late.passed_ms));
            bail!("a record of {time} came after records up to {passed} were in place: {}", way_out(&late));
        }
        Ok(self.put_sorted(false)?)
    }

    fn put_sorted(&mut self, all: bool) -> Result<(), LogError> {
        loop {
            let next =
                self.sorter.as_mut().and_then(|sorter| if all { sorter.pop() } else { sorter.pop_ready() });
            let Some((at, record)) = next else { return Ok(()) };
            self.put(at, record)?;
        }
    }

    fn put(&mut self, at: TopicPartition, record: NewRecord) -> Result<(), LogError> {
        if self.goes_on {
            if !self.left_out.contains_key(&at) {
                self.left_out.insert(at.clone(), count_records(self.log, &at)?);
            }
            if let Some(left_out) = self.left_out.get_mut(&at).filter(|left_out| **left_out > 0) {
                *left_out -= 1;
                return Ok(());
            }
        }
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
