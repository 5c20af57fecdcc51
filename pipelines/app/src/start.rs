//! Makes a log ready for a pipeline: its topics, its limits, and a note of what is started.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_engine::log::{Log, LogError, NewRecord, TopicPartition, TopicSpec};
use tidewire_engine::partition::partition_of_compound;
use tidewire_engine::plan::MergeOrder;
use tidewire_engine::reader::PartitionReader;
use tidewire_schemas::{Record, RiskLimits, SchemaBook, topics};

use crate::files::Loaded;
use crate::notes::{self, PIPELINES, PipelineNote};
use crate::pipeline::{Pipeline, limits_key};
use crate::records::text;
use crate::topic_check::{check, wanted};

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Keys of limits that were written.
    pub limits_written: Vec<SmolStr>,
    /// Keys of limits that are in the log with other values than in the file: the log's hold.
    pub limits_kept: Vec<SmolStr>,
    /// What should be known of the topics.
    pub warnings: Vec<String>,
}

/// Refuses topics with which the pipeline would give wrong results, makes those that are missing, and writes its limits unless
/// limits of the same key are there.
pub fn prepare(log: &dyn Log, book: &SchemaBook, pipeline: &Pipeline) -> anyhow::Result<Prepared> {
    let warnings = check_topics(log, pipeline)?;
    make_topics(log, pipeline).context("making the pipeline's topics")?;
    let limits = put_limits(log, book, &pipeline.limits).context("writing risk limits")?;
    Ok(Prepared { warnings, ..limits })
}

/// Notes the pipeline file in the log, unless it is the one noted last: `status` and `verify` read it.
pub fn note_pipeline(log: &dyn Log, loaded: &Loaded, synchronised: bool) -> anyhow::Result<()> {
    note_pipeline_in(log, loaded, synchronised, MergeOrder::Event)
}

/// As [`note_pipeline`], of stages that merge their inputs in this order.
pub fn note_pipeline_in(
    log: &dyn Log,
    loaded: &Loaded,
    synchronised: bool,
    order: MergeOrder,
) -> anyhow::Result<()> {
    let note = PipelineNote {
        pipeline: loaded.pipeline.name.to_string(),
        file: loaded.file.clone(),
        text: loaded.text.clone(),
        overrides: loaded.overrides.clone(),
        synchronised,
        merged_by: order.into(),
    };
    let before: Vec<PipelineNote> = notes::all(log, PIPELINES)?;
    let last = before.iter().rev().find(|other| other.pipeline == note.pipeline);
    if last == Some(&note) {
        return Ok(());
    }
    notes::add(log, PIPELINES, &note.pipeline, &note)
}

/// Refuses topics with which the pipeline would give wrong results; tells of what may be lost later.
fn check_topics(log: &dyn Log, pipeline: &Pipeline) -> anyhow::Result<Vec<String>> {
    let findings = check(log, pipeline, false).context("checking the pipeline's topics")?;
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| finding.is_error);
    if errors.is_empty() {
        return Ok(warnings.iter().map(ToString::to_string).collect());
    }
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    bail!("the log and the pipeline file do not fit:\n  {}", errors.join("\n  "))
}

/// Makes the topics of a pipeline that are not there; returns which.
pub fn make_topics(log: &dyn Log, pipeline: &Pipeline) -> Result<Vec<TopicSpec>, LogError> {
    let mut made = Vec::new();
    for spec in wanted(pipeline) {
        if log.topic(&spec.name)?.is_none() {
            log.create_topic(&spec)?;
            made.push(spec);
        }
    }
    Ok(made)
}

/// Writes limits that are not in the log. Their time is that of the pipeline file, by default 1970: so they hold for
/// recordings of any year.
pub fn put_limits(log: &dyn Log, book: &SchemaBook, limits: &[RiskLimits]) -> anyhow::Result<Prepared> {
    let mut prepared = Prepared::default();
    if limits.is_empty() {
        return Ok(prepared);
    }
    let Some(topic) = log.topic(topics::RISK_LIMITS)? else {
        bail!("the pipeline has risk limits, but no stage reads {}", topics::RISK_LIMITS);
    };
    let (known, same) = limits_in_log(log, book, topic.partitions, limits)?;
    for limit in limits {
        let key = limits_key(limit);
        if same.contains(&key) {
            continue;
        }
        if known.contains(&key) {
            prepared.limits_kept.push(key);
            continue;
        }
        let mut value = Vec::new();
        book.encode(&Record::from(limit.clone()), &mut value)?;
        let record = NewRecord {
            timestamp_ms: limit.event_time.as_ms(),
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(value.into()),
            headers: Vec::new(),
        };
        let at = TopicPartition::new(topics::RISK_LIMITS, partition_of_compound(&key, topic.partitions));
        log.append(&at, vec![record])?;
        prepared.limits_written.push(key);
    }
    Ok(prepared)
}

/// Keys of limits in the log, and those of them whose last record is as in the file.
fn limits_in_log(
    log: &dyn Log,
    book: &SchemaBook,
    partitions: u32,
    limits: &[RiskLimits],
) -> anyhow::Result<(BTreeSet<SmolStr>, BTreeSet<SmolStr>)> {
    let (mut known, mut same) = (BTreeSet::new(), BTreeSet::new());
    let wanted: BTreeMap<SmolStr, Record> =
        limits.iter().map(|limit| (limits_key(limit), Record::from(limit.clone()))).collect();
    for partition in 0..partitions {
        let mut reader =
            PartitionReader::from_start(log, TopicPartition::new(topics::RISK_LIMITS, partition))?;
        while let Some(stored) = reader.next_record()? {
            let Some(key) = stored.record.key.as_deref().map(|key| SmolStr::from(text(key))) else {
                continue;
            };
            let Some(wanted) = wanted.get(&key) else { continue };
            let found = stored.record.value.as_deref().and_then(|value| book.decode(value).ok());
            if found.as_ref() == Some(wanted) {
                same.insert(key.clone());
            } else {
                same.remove(&key);
            }
            known.insert(key);
        }
    }
    Ok((known, same))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;
    use tidewire_engine::memory::MemoryLog;
    use tidewire_schemas::Amount;

    fn limits(account: &str, value: i64) -> RiskLimits {
        let max_order_value = Amount::from_units(i128::from(value) * 1_000_000_000_000).ok();
        let all = || "*".into();
        RiskLimits {
            account: account.into(),
            strategy: all(),
            instrument: all(),
            max_order_value,
            ..RiskLimits::default()
        }
    }

    fn log() -> MemoryLog {
        let log = MemoryLog::new();
        log.create_topic(&TopicSpec::new(topics::RISK_LIMITS, 2).compacted(0)).unwrap();
        log
    }

    #[test]
    fn limits_are_written_once() {
        let (log, book) = (log(), SchemaBook::of_this_build());
        let wanted = [limits("a", 1), limits("b", 2)];
        let first = put_limits(&log, &book, &wanted).unwrap();
        assert_eq!(first.limits_written, ["a/*/*", "b/*/*"]);
        let second = put_limits(&log, &book, &wanted).unwrap();
        assert_eq!(second, Prepared::default());
    }

    #[test]
    fn limits_that_were_changed_in_the_log_hold() {
        let (log, book) = (log(), SchemaBook::of_this_build());
        put_limits(&log, &book, &[limits("a", 1)]).unwrap();
        let again = put_limits(&log, &book, &[limits("a", 5)]).unwrap();
        assert_eq!(again.limits_kept, ["a/*/*"]);
        assert_eq!(again.limits_written, Vec::<SmolStr>::new());
    }
}
