//! Recorded inputs, run again: which part of them, in which order, and where what comes of it goes.

mod copy;
mod overlay;
mod ranges;
mod sorter;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use smol_str::SmolStr;
use tidewire_engine::log::{Log, LogError, TopicPartition, TopicSpec};
use tidewire_engine::plan::{MergeOrder, StageSpec};
use tidewire_engine::sync::{OffsetRange, Ranges};
use tidewire_schemas::SchemaBook;

use crate::synchronised::{self, Progress, RunError, SyncOptions, SyncSummary};

pub use copy::{Copied, CopyError, ORIGIN_HEADER, Recode, copy_partition, count_records, way_out};
pub use overlay::Overlay;
pub use ranges::{Asked, External, RangeError, empty, externals, resolve, time_of};
pub use sorter::{MAX_HELD_BYTES, Sorter, TooLate};

/// How far out of order records may come and still be put in the order of event time, in milliseconds: ten minutes.
pub const MAX_DISORDER_MS: i64 = 600_000;
/// How long virtual time goes on after the last record, in milliseconds, so that windows close.
pub const DRAIN_MS: i64 = 2_000;

/// In which order recorded inputs are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputOrder {
    /// As they became available: nothing is known before it could be, and what came late is late.
    #[default]
    Availability,
    /// In the order of event time, each partition sorted first: nothing is late.
    Event,
    /// By timestamp, each partition as it lies: as `demo` and `run --synchronised` do.
    Recorded,
}

impl InputOrder {
    /// How stages merge their inputs then.
    pub fn merge(self) -> MergeOrder {
        match self {
            Self::Availability => MergeOrder::Availability,
            Self::Event | Self::Recorded => MergeOrder::Event,
        }
    }

    /// The stages, set to this order.
    pub fn set_on(self, stages: &[Arc<StageSpec>]) -> Vec<Arc<StageSpec>> {
        let order = self.merge();
        stages.iter().map(|spec| Arc::new(StageSpec { order, ..StageSpec::clone(spec) })).collect()
    }
}

/// How inputs are run again.
#[derive(Clone, Debug)]
pub struct ReprocessOptions {
    /// Threads for the tasks of stages that are in no cycle. The result does not depend on it.
    pub workers: usize,
    /// How long virtual time goes on after the last record, in milliseconds.
    pub drain_ms: i64,
    /// In which order.
    pub order: InputOrder,
    /// Which part of the inputs.
    pub asked: Asked,
    /// How far out of order records may come where they are sorted, in milliseconds.
    pub max_disorder_ms: i64,
}

impl Default for ReprocessOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            drain_ms: DRAIN_MS,
            order: InputOrder::default(),
            asked: Asked::default(),
            max_disorder_ms: MAX_DISORDER_MS,
        }
    }
}

/// Why inputs could not be run again.
#[derive(Debug, thiserror::Error)]
pub enum ReprocessError {
    /// The range is wrong.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The inputs could not be sorted.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The run failed.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Runs the inputs that lie in `inputs` again, into `outputs`: one that needs no disk, such as a log in memory, will do.
/// The topics that the stages write must be there; so must topics that are read but are not in `inputs`. A topic that
/// is read and in both is taken from `outputs`. Nothing is written to `inputs`.
///
/// Runs side by side may share `inputs`. Each needs the memory of what it writes.
pub fn run(
    inputs: &Arc<dyn Log>,
    outputs: &Arc<dyn Log>,
    book: &Arc<SchemaBook>,
    stages: &[Arc<StageSpec>],
    options: &ReprocessOptions,
    stop: &AtomicBool,
    on_progress: impl FnMut(&Progress<'_>),
) -> Result<SyncSummary, ReprocessError> {
    let stages = options.order.set_on(stages);
    let mut shared = Vec::new();
    for external in externals(&stages) {
        // What is in neither is told by the run itself.
        if inputs.topic(&external.topic)?.is_some() && outputs.topic(&external.topic)?.is_none() {
            shared.push(external.topic);
        }
    }
    let mut log: Arc<dyn Log> = Arc::new(Overlay::new(Arc::clone(inputs), Arc::clone(outputs), &shared)?);
    let mut ranges = resolve(&*log, &stages, options, stop)?;
    if options.order == InputOrder::Event {
        ranges =
            copy_inputs(&**inputs, &**outputs, (&stages, &ranges, &shared), None, options, stop, |_| {})?;
        log = Arc::clone(outputs);
    }
    let options = SyncOptions {
        workers: options.workers,
        drain_ms: options.drain_ms,
        ranges: Arc::new(ranges),
        ..SyncOptions::default()
    };
    Ok(synchronised::run(&log, book, &stages, &options, stop, on_progress)?)
}

/// Writes what `ranges` name of the external inputs `topics` to topics of the same names in `to`: each partition as it
/// lies, or where that is asked for in the order of event time. What is there already of an earlier attempt is left as it is. Returns what is to be read of the copies;
/// `on_records` is told how many records were read.
pub fn copy_inputs(
    from: &dyn Log,
    to: &dyn Log,
    (stages, ranges, topics): (&[Arc<StageSpec>], &Ranges, &[SmolStr]),
    recode: Option<Recode<'_>>,
    options: &ReprocessOptions,
    stop: &AtomicBool,
    mut on_records: impl FnMut(u64),
) -> Result<Ranges, ReprocessError> {
    let asked = &options.asked;
    let sorts = options.order == InputOrder::Event;
    let (mut written, mut records) = (Ranges::default(), 0);
    for external in externals(stages).into_iter().filter(|external| topics.contains(&external.topic)) {
        let topic = external.topic.as_str();
        let Some(found) = from.topic(topic)? else { continue };
        to.create_topic(&TopicSpec::new(topic, found.partitions))?;
        for partition in 0..found.partitions {
            let at = TopicPartition::new(topic, partition);
            // Control records have no place by time: they come first.
            let sorter =
                (sorts && !external.is_control).then(|| Sorter::new(options.max_disorder_ms, MAX_HELD_BYTES));
            // As records lie, the range is one of offsets: what was late has an earlier time than those ahead of it.
            let from_ms =
                asked.from_ms.filter(|_| sorts && external.is_data && !asked.from_offsets.contains_key(&at));
            let to_ms = asked.to_ms.filter(|_| sorts && !asked.to_offsets.contains_key(&at));
            let copied = Copied {
                range: ranges.of(&at),
                window_ms: (from_ms, to_ms),
                sorter,
                with_origin: true,
                recode,
            };
            let made = copy_partition(from, to, &at, copied, stop, &mut on_records)?;
            records += if external.is_data { made } else { 0 };
            written.set(at.clone(), OffsetRange { from: 0, until: to.bounds(&at)?.stable_end });
        }
    }
    if records == 0 {
        return Err(empty(from, stages, options.order, stop)?.into());
    }
    Ok(written)
}
