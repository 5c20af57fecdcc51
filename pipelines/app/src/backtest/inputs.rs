//! Reads the inputs of a backtest into memory, once for all its settings.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use smol_str::SmolStr;
use tidewire_engine::log::{Log, TopicPartition, TopicSpec};
use tidewire_engine::sync::{OffsetRange, Ranges};
use tidewire_runtime::reprocess::{
    InputOrder, ReprocessError, ReprocessOptions, copy_inputs, externals, resolve,
};
use tidewire_schemas::topics;

use super::shelf::Shelf;
use crate::reprocess::{Job, feed_files};

/// Bytes read in one piece.
const READ_BYTES: usize = 4 << 20;

/// Inputs in memory, and how runs take them.
pub struct Inputs {
    /// The records.
    pub shelf: Shelf,
    /// How they are taken: what was to be sorted is sorted, and what is not of the range is not there.
    pub options: ReprocessOptions,
}

/// Reads what `job` asks for. `None`: told to stop meanwhile. `on_records` is told how many records were read.
///
/// # Errors
/// When the range is wrong, or the inputs take more than `max_bytes`.
pub fn load(
    job: &Job<'_>,
    max_bytes: u64,
    stop: &AtomicBool,
    mut on_records: impl FnMut(u64),
) -> anyhow::Result<Option<Inputs>> {
    let shelf = Shelf::new(max_bytes);
    let whole = ReprocessOptions { asked: Default::default(), workers: 1, ..job.options.clone() };
    if !job.files.is_empty() {
        if !read_files(job, &shelf, stop, &mut on_records)? {
            return Ok(None);
        }
        // They lie in the order asked for, and are cut to the range where they lie.
        let options =
            ReprocessOptions { order: sorted(job.options.order), asked: job.options.asked.clone(), ..whole };
        resolve(&shelf, &job.loaded.pipeline.stages, &options, stop)?;
        copy(job, &shelf, topics::RISK_LIMITS, &Ranges::default(), stop, &mut on_records)?;
        return Ok(Some(Inputs { shelf, options }));
    }
    let stages = &job.loaded.pipeline.stages;
    let ranges = resolve(&**job.log, stages, &job.options, stop)?;
    let sorts = job.options.order == InputOrder::Event;
    let mut to_sort: Vec<SmolStr> = Vec::new();
    for external in externals(stages) {
        if sorts && external.topic != topics::RISK_LIMITS {
            to_sort.push(external.topic);
        } else if !copy(job, &shelf, &external.topic, &ranges, stop, &mut on_records)? {
            return Ok(None);
        }
    }
    if sorts {
        let from = (stages.as_slice(), &ranges, to_sort.as_slice());
        match copy_inputs(&**job.log, &shelf, from, None, &job.options, stop, on_records) {
            Ok(_) => {}
            Err(ReprocessError::Copy(_)) if stop.load(Ordering::SeqCst) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(Inputs { shelf, options: ReprocessOptions { order: sorted(job.options.order), ..whole } }))
}

/// What is sorted already is taken as it lies.
fn sorted(order: InputOrder) -> InputOrder {
    match order {
        InputOrder::Event => InputOrder::Recorded,
        other => other,
    }
}

/// Copies the range of a topic, offsets and all; false when told to stop.
fn copy(
    job: &Job<'_>,
    shelf: &Shelf,
    topic: &str,
    ranges: &Ranges,
    stop: &AtomicBool,
    on_records: &mut impl FnMut(u64),
) -> anyhow::Result<bool> {
    let Some(found) = job.log.topic(topic)? else { return Ok(true) };
    shelf.create_topic(&TopicSpec::new(topic, found.partitions))?;
    for partition in 0..found.partitions {
        let at = TopicPartition::new(topic, partition);
        let bounds = job.log.bounds(&at)?;
        let range: OffsetRange = ranges.of(&at);
        let (start, end) = (range.from.max(bounds.start), range.until.min(bounds.stable_end));
        let mut next = start;
        while next < end {
            if stop.load(Ordering::SeqCst) {
                return Ok(false);
            }
            let mut fetched = job.log.read(&at, next, READ_BYTES)?;
            fetched.records.retain(|stored| stored.offset < end);
            on_records(fetched.records.len() as u64);
            shelf.put(&at, fetched.records)?;
            if fetched.next_offset <= next {
                break;
            }
            next = fetched.next_offset;
        }
        shelf.set_bounds(&at, start, end)?;
    }
    Ok(true)
}

fn read_files(
    job: &Job<'_>,
    shelf: &Shelf,
    stop: &AtomicBool,
    on_records: &mut impl FnMut(u64),
) -> anyhow::Result<bool> {
    let mut told = 0;
    feed_files(job, shelf, false, stop, |_, _, records| {
        on_records(records - told);
        told = records;
    })
    .context("reading the files into memory")
}
