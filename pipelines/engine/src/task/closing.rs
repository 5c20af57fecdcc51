//! The end of an epoch: its record, and the cut when a flush is due.

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_contract::Persist as _;
use tidewire_schemas::{
    CutMarker, EpochKind, EpochRecord, EventTime, InputPosition, InputProgress, NotRegistered,
};

use super::{Open, Task, signed};
use crate::cut::{CutHead, shapes, write_cut};
use crate::log::NewRecord;
use crate::outputs::Output;

/// A closed epoch: what one transaction carries for this task.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// Records for other topics.
    pub outputs: Vec<Output>,
    /// The journal entry.
    pub record: EpochRecord,
    /// Changelog records, when a flush was due.
    pub changelog: Option<Vec<NewRecord>>,
}

/// What to close an epoch with.
#[derive(Clone, Debug)]
pub struct Closing {
    /// What the epoch was made for.
    pub kind: EpochKind,
    /// Whether state is flushed.
    pub flush: bool,
    /// The writer's transactional id.
    pub writer: SmolStr,
    /// An offset in the topic of epoch records, at or before the place of the record of the next epoch.
    pub epochs_from: u64,
}

impl Task {
    /// Ends the epoch: numbers it, describes it, and flushes state if asked.
    pub fn close(&mut self, closing: Closing) -> Result<Closed, NotRegistered> {
        self.epoch += 1;
        let outputs = std::mem::take(&mut self.open.outputs);
        let open = &self.open;
        if open.synchronised {
            self.engine.stamp_ms = self.engine.stamp_ms.max(self.virtual_now_ms());
        }
        let mut changelog = None;
        if closing.flush {
            self.cut_epoch = self.epoch;
            self.engine.last_flush_ms = Some(self.engine.stamp_ms);
            let head = CutHead {
                marker: self.marker(closing.epochs_from),
                orphans: std::mem::take(&mut self.orphans),
            };
            changelog =
                Some(write_cut(&self.graph, &self.spec.nodes, head, &mut self.state_sum, &self.book)?);
        }
        let record = EpochRecord {
            pipeline: self.spec.pipeline.clone(),
            stage: self.spec.name.clone(),
            task: i32::try_from(self.number).unwrap_or(i32::MAX),
            epoch: signed(self.epoch),
            stamp_ms: self.engine.stamp_ms,
            kind: closing.kind,
            closing_sequence: signed(self.sequence),
            inputs: self.progress(open),
            watermark_ms: self.tide.passed().map(EventTime::as_ms),
            stream_time_ms: self.tide.stream_time().map(EventTime::as_ms),
            time_advance_ms: open.time_advance_ms,
            skipped_timers: open.skipped_timers.clone(),
            output_count: i64::try_from(outputs.len()).unwrap_or(i64::MAX),
            output_digest: open.output_digest.short(),
            state_digest: closing.flush.then(|| Bytes::copy_from_slice(&self.state_sum.to_le_bytes())),
            flush: closing.flush,
            writer: closing.writer,
            build_digest: Bytes::copy_from_slice(&self.spec.build_digest),
            schema_digest: Bytes::copy_from_slice(schema_digest()),
            pipeline_digest: Bytes::copy_from_slice(&self.spec.pipeline_digest),
            synchronised: open.synchronised,
        };
        self.open.clear();
        Ok(Closed { outputs, record, changelog })
    }

    fn progress(&self, open: &Open) -> Vec<InputProgress> {
        let mut inputs = Vec::new();
        for (place, source) in self.intake.sources().iter().enumerate() {
            let Some(span) = open.spans[place] else { continue };
            inputs.push(InputProgress {
                topic: source.at.topic.clone(),
                partition: i32::try_from(source.at.partition).unwrap_or(i32::MAX),
                first_offset: signed(span.first),
                next_offset: signed(span.next),
                records: open.counts[place],
                digest: open.digests[place].short(),
                at_end: span.at_end,
                greatest_event_time_ms: self.tide.partitions()[place].greatest_ms,
                skipped: open.skipped[place].clone(),
            });
        }
        inputs
    }

    fn marker(&self, epochs_from: u64) -> CutMarker {
        let mut engine = Vec::new();
        self.engine.save(&mut engine);
        self.tide.save(&mut engine);
        let positions = self.intake.sources().iter().zip(&self.engine.positions).zip(self.tide.partitions());
        CutMarker {
            epoch: signed(self.epoch),
            closing_sequence: signed(self.sequence),
            stamp_ms: self.engine.stamp_ms,
            positions: positions
                .map(|((source, next), seen)| InputPosition {
                    topic: source.at.topic.clone(),
                    partition: i32::try_from(source.at.partition).unwrap_or(i32::MAX),
                    next_offset: signed(*next),
                    greatest_event_time_ms: seen.greatest_ms,
                })
                .collect(),
            engine: engine.into(),
            state_digest: Bytes::new(),
            shapes: shapes(&self.graph, &self.spec.nodes),
            build_digest: Bytes::copy_from_slice(&self.spec.build_digest),
            pipeline_digest: Bytes::copy_from_slice(&self.spec.pipeline_digest),
            epochs_from: signed(epochs_from),
        }
    }
}

/// Digest of all schemas of this build.
fn schema_digest() -> &'static [u8; 16] {
    static DIGEST: std::sync::OnceLock<[u8; 16]> = std::sync::OnceLock::new();
    DIGEST.get_or_init(|| {
        let mut hasher = blake3::Hasher::new();
        for kind in tidewire_schemas::Kind::ALL {
            hasher.update(kind.schema_json().as_bytes());
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        digest
    })
}
