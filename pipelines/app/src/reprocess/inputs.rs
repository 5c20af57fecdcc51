//! Puts the inputs of a run under its prefix, as far as they are not read where they lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use smol_str::SmolStr;
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_engine::sync::Ranges;
use tidewire_ingest::{Importer, Merge};
use tidewire_runtime::prefixed::PrefixedLog;
use tidewire_runtime::reprocess::{
    Copied, CopyError, InputOrder, ReprocessError, copy_inputs, copy_partition, count_records, externals,
    resolve,
};
use tidewire_schemas::topics;

use super::{Job, Limits};
use crate::commands::import::name_of;
use crate::feed::{FeedOptions, feed_with};

/// How far that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Bytes of the files read, of so many.
    Reading(u64, u64),
    /// Records put in order.
    Sorting(u64),
    /// Records copied as they lie.
    Copying(u64),
}

/// Puts them there; returns what is to be read of them. `None`: told to stop meanwhile. What an attempt before wrote is
/// left as it is.
pub fn put(
    job: &Job<'_>,
    view: &Arc<PrefixedLog>,
    ranges: Ranges,
    stop: &AtomicBool,
    on_told: &mut impl FnMut(Told),
) -> anyhow::Result<Option<Ranges>> {
    if !copy_limits(job, &**view, &ranges, stop)? {
        return Ok(None);
    }
    if !job.files.is_empty() {
        let tell = |bytes, total, _| on_told(Told::Reading(bytes, total));
        if !feed_files(job, &**view, true, stop, tell)? {
            return Ok(None);
        }
        // They lie in the order asked for.
        let mut options = job.options.clone();
        if options.order == InputOrder::Event {
            options.order = InputOrder::Recorded;
        }
        return Ok(Some(without_limits(&resolve(&**view, &job.loaded.pipeline.stages, &options, stop)?)));
    }
    let sorts = job.options.order == InputOrder::Event;
    if !sorts && job.inputs.is_none() {
        return Ok(Some(without_limits(&ranges)));
    }
    let stages = &job.loaded.pipeline.stages;
    let mut copied: Vec<SmolStr> = Vec::new();
    for external in externals(stages) {
        if external.topic != topics::RISK_LIMITS && job.source().topic(&external.topic)?.is_some() {
            copied.push(external.topic);
        }
    }
    let mut done = 0;
    let tell = |records| {
        done += records;
        on_told(if sorts { Told::Sorting(done) } else { Told::Copying(done) });
    };
    let what = (stages.as_slice(), &ranges, copied.as_slice());
    match copy_inputs(&**job.source(), &**view, what, job.recode(), &job.options, stop, tell) {
        Ok(written) => Ok(Some(written)),
        Err(ReprocessError::Copy(CopyError::Stopped)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The limits lie under the prefix, and are read whole: those of the pipeline file are not there yet.
fn without_limits(ranges: &Ranges) -> Ranges {
    let others = ranges.iter().filter(|(at, _)| at.topic != topics::RISK_LIMITS);
    others.map(|(at, range)| (at.clone(), range)).collect()
}

/// Copies the risk limits of the log, if they are to hold; false when told to stop. Limits of the file that the log does
/// not have come behind them, so they must not be written to the live topic.
pub fn copy_limits(job: &Job<'_>, to: &dyn Log, ranges: &Ranges, stop: &AtomicBool) -> anyhow::Result<bool> {
    let topic = topics::RISK_LIMITS;
    let is_read = externals(&job.loaded.pipeline.stages).iter().any(|external| external.topic == topic);
    let Some(found) = job.source().topic(topic)? else { return Ok(true) };
    if !is_read || job.limits == Limits::File {
        return Ok(true);
    }
    if let Some(own) = to.topic(topic)?
        && own.partitions != found.partitions
    {
        bail!(
            "topic {topic} has {} partitions in the log, and {} in the pipeline file: set `[topics.\"{topic}\"] \
             partitions = {}`, or take `--limits file`",
            found.partitions,
            own.partitions,
            found.partitions
        );
    }
    for partition in 0..found.partitions {
        let at = TopicPartition::new(topic, partition);
        let range = ranges.of(&at);
        // Behind the copies there may be limits of the file from an attempt before.
        let kept = job.source().bounds(&at)?.stable_end.min(range.until).saturating_sub(range.from);
        if kept > 0 && count_records(to, &at)? >= kept {
            continue;
        }
        let recode = job.recode();
        let copied = Copied { range, window_ms: (None, None), sorter: None, with_origin: false, recode };
        match copy_partition(&**job.source(), to, &at, copied, stop, &mut |_| {}) {
            Ok(_) => {}
            Err(CopyError::Stopped) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Writes the files of a job to a log, in the order that it asks for; false when told to stop. `goes_on`: what is there
/// already of an earlier attempt is passed over. `on_progress` is told bytes read, of how many, and records written.
pub fn feed_files(
    job: &Job<'_>,
    to: &dyn Log,
    goes_on: bool,
    stop: &AtomicBool,
    mut on_progress: impl FnMut(u64, u64, u64),
) -> anyhow::Result<bool> {
    let importers: Vec<Importer> =
        job.files.iter().map(|file| Importer::open(file, job.reading.clone())).collect::<Result<_, _>>()?;
    let total = importers.iter().map(Importer::bytes_total).sum();
    let mut merge = Merge::new(importers);
    if job.options.order == InputOrder::Availability {
        merge = merge.by_received();
    }
    let names: Vec<String> = job.files.iter().map(|file| name_of(file)).collect();
    let partitions = |topic: &str| {
        let plan = job.loaded.pipeline.topics.iter().find(|plan| plan.name == topic);
        plan.map_or(1, |plan| plan.partitions)
    };
    let sorts_ms = (job.options.order == InputOrder::Event).then_some(job.options.max_disorder_ms);
    let options = FeedOptions { goes_on, sorts_ms, stop: Some(stop) };
    let (fed, _) = feed_with(options, to, job.book, merge, (&names, &partitions), |bytes, records| {
        on_progress(bytes, total, records);
    })?;
    if !fed.failed.is_empty() {
        bail!("{}", fed.failed.join("\n"));
    }
    Ok(!stop.load(Ordering::SeqCst))
}
