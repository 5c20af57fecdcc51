//! Compares what comes out for some keys with what was recorded for them.

use std::sync::Arc;

use bytes::Bytes;
use tidewire_schemas::{EpochRecord, SchemaBook};

use super::OnlyDifference;
use super::recorded::Recorded;
use crate::identity::{CAUSE_HEADER, ID_HEADER};
use crate::log::{Log, LogError, NewRecord, StoredRecord, TopicPartition};
use crate::outputs::Output;
use crate::plan::StageSpec;

/// Bytes of the schema prefix, which is not compared.
const PREFIX_BYTES: usize = 5;

/// See the module. Epochs are compared in their order.
pub struct Comparer<'a> {
    spec: Arc<StageSpec>,
    book: &'a SchemaBook,
    recorded: Recorded<'a>,
    compared: u64,
    compacted: u64,
}

impl<'a> Comparer<'a> {
    /// For the outputs of a task after sequence number `after`.
    pub fn new(
        log: &'a dyn Log,
        spec: &Arc<StageSpec>,
        book: &'a SchemaBook,
        task: u32,
        after: u64,
    ) -> Result<Self, LogError> {
        let recorded = Recorded::new(log, spec, task, after)?;
        Ok(Self { spec: Arc::clone(spec), book, recorded, compared: 0, compacted: 0 })
    }

    /// Outputs found the same in the log so far.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// Outputs that compaction has taken since.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Compares the outputs of an epoch with the recorded ones of these sequence numbers, in their order.
    pub fn compare(
        &mut self,
        record: &EpochRecord,
        outputs: &[Output],
        wanted: &[u64],
    ) -> Result<Option<OnlyDifference>, LogError> {
        for (place, output) in outputs.iter().enumerate() {
            let Some(sequence) = wanted.get(place) else {
                return Ok(Some(self.describe(record, Some(output), "missing", None)));
            };
            let what = match self.recorded.take(&output.at, *sequence)? {
                None if self.recorded.is_compacted(&output.at.topic) => {
                    self.compacted += 1;
                    continue;
                }
                None => {
                    let found = self.recorded.find(*sequence)?;
                    return Ok(Some(self.describe(record, Some(output), "missing", found)));
                }
                Some(stored) => match unlike(&stored.record, &output.record) {
                    None => {
                        self.compared += 1;
                        continue;
                    }
                    Some(what) => (what, stored),
                },
            };
            let found = Some((output.at.clone(), what.1));
            return Ok(Some(self.describe(record, Some(output), what.0, found)));
        }
        match wanted.get(outputs.len()) {
            None => Ok(None),
            Some(sequence) => {
                let found = self.recorded.find(*sequence)?;
                Ok(Some(self.describe(record, None, "extra", found)))
            }
        }
    }

    fn describe(
        &self,
        record: &EpochRecord,
        output: Option<&Output>,
        what: &str,
        found: Option<(TopicPartition, StoredRecord)>,
    ) -> OnlyDifference {
        let decode = |value: &Option<Bytes>| self.book.decode(value.as_deref()?).ok().map(Box::new);
        let text = |bytes: Option<&Bytes>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let (at, stored) = found.unzip();
        let node = output.and_then(|output| self.spec.nodes.get(output.node?));
        let key = stored.as_ref().map(|stored| &stored.record).or(output.map(|output| &output.record));
        OnlyDifference {
            epoch: record.epoch,
            what: what.to_owned(),
            operator: node.map(|node| node.id.clone()),
            at: at.or_else(|| output.map(|output| output.at.clone())),
            offset: stored.as_ref().map(|stored| stored.offset),
            id: stored.as_ref().and_then(|stored| text(stored.record.header(ID_HEADER))),
            key: key.and_then(|record| text(record.key.as_ref())),
            rerun: output.and_then(|output| decode(&output.record.value)),
            found: stored.as_ref().and_then(|stored| decode(&stored.record.value)),
        }
    }
}

/// What of a recorded output is not as in the re-run. Its sequence number is another one.
fn unlike(found: &NewRecord, rerun: &NewRecord) -> Option<&'static str> {
    let body = |record: &NewRecord| {
        record.value.as_ref().map(|value| value.get(PREFIX_BYTES..).unwrap_or_default().to_vec())
    };
    if found.key != rerun.key {
        Some("key")
    } else if body(found) != body(rerun) {
        Some("value")
    } else if found.timestamp_ms != rerun.timestamp_ms {
        Some("timestamp")
    } else if found.header(CAUSE_HEADER) != rerun.header(CAUSE_HEADER) {
        Some("cause")
    } else {
        None
    }
}
