//! Runs a pipeline again over recorded inputs: into topics of a prefix, or into memory.

mod inputs;
mod note;
mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail};
use smol_str::SmolStr;
use tidewire_engine::log::{Log, TopicSpec};
use tidewire_engine::memory::MemoryLog;
use tidewire_engine::sync::Ranges;
use tidewire_ingest::ImportOptions;
use tidewire_runtime::prefixed::PrefixedLog;
use tidewire_runtime::reprocess::{Recode, ReprocessOptions, externals, resolve};
use tidewire_runtime::synchronised::{self, Progress, RunState, SyncOptions, SyncSummary};
use tidewire_schemas::{SchemaBook, topics};

use crate::files::Loaded;
use crate::notes::PIPELINES;
use crate::start::{make_topics, note_pipeline_in, prepare, put_limits};
use crate::topic_check::wanted;

pub use inputs::{Told, feed_files};
pub use note::{InputsNote, RunNote, order_name};
pub use source::Source;

use note::Found;

/// Topic, under the prefix, of what a run was asked for and how far it has come.
pub const REPROCESS: &str = "_reprocess";

/// Whose risk limits hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Limits {
    /// Those of the log, and of the file where the log has none: as in a live run.
    #[default]
    Log,
    /// Those of the file alone.
    File,
}

/// What is run.
pub struct Job<'a> {
    /// The log that is written to; it has the inputs too, unless they come from elsewhere.
    pub log: &'a Arc<dyn Log>,
    /// Its schemas.
    pub book: &'a Arc<SchemaBook>,
    /// The pipeline.
    pub loaded: &'a Loaded,
    /// How.
    pub options: ReprocessOptions,
    /// Whose limits hold.
    pub limits: Limits,
    /// Another log that holds the inputs.
    pub inputs: Option<&'a Source>,
    /// Files that are the inputs, instead of what a log holds.
    pub files: Vec<PathBuf>,
    /// How files are read.
    pub reading: ImportOptions,
}

impl<'a> Job<'a> {
    /// The log that the inputs are read from.
    fn source(&self) -> &'a Arc<dyn Log> {
        self.inputs.map_or(self.log, Source::log)
    }

    /// How values of another log are written for this one.
    fn recode(&self) -> Option<Recode<'a>> {
        self.inputs.map(|source| Recode { from: source.book(), to: self.book })
    }
}

/// A run under a prefix, with its inputs in place.
pub struct Ready {
    /// The log as the run sees it.
    pub view: Arc<PrefixedLog>,
    /// What it reads of its inputs.
    pub ranges: Ranges,
    /// How far it has come in an attempt before.
    pub before: Option<RunState>,
    options: SyncOptions,
}

impl Ready {
    /// Runs it to its end, or until it is told to stop; the same job goes on from there.
    pub fn run(
        &self,
        job: &Job<'_>,
        stop: &AtomicBool,
        on_progress: impl FnMut(&Progress<'_>),
    ) -> anyhow::Result<SyncSummary> {
        let view: Arc<dyn Log> = Arc::clone(&self.view) as Arc<dyn Log>;
        let stages = job.options.order.set_on(&job.loaded.pipeline.stages);
        Ok(synchronised::run(&view, job.book, &stages, &self.options, stop, on_progress)?)
    }
}

/// Makes a run under `prefix` ready, from nothing or from where an attempt before was ended. Inputs that are to be sorted,
/// or come from files or another log, are written under the prefix first. `None`: told to stop meanwhile.
///
/// # Errors
/// When the prefix is in use by anything else, or the range is wrong; then nothing was written.
pub fn make_ready(
    job: &Job<'_>,
    prefix: &str,
    stop: &AtomicBool,
    mut on_told: impl FnMut(Told),
) -> anyhow::Result<Option<Ready>> {
    let view = Arc::new(PrefixedLog::new(Arc::clone(job.log), prefix)?);
    let wanted_note = RunNote::of(job)?;
    let own = own_topics(job)?;
    let mut found = note::find(&view, prefix, &wanted_note)?;
    if matches!(found, Found::Nothing) {
        // Errors in the range come before anything is written.
        let ranges = if job.files.is_empty() {
            let resolved = || resolve(&**job.source(), &job.loaded.pipeline.stages, &job.options, stop);
            match job.inputs {
                Some(source) => {
                    source.check_layout(&job.loaded.pipeline)?;
                    resolved().with_context(|| format!("the inputs in {}", source.place()))?
                }
                None => resolved()?,
            }
        } else {
            Ranges::default()
        };
        view.reserve(own.iter().cloned());
        note::begin(&*view, &wanted_note, &ranges)?;
        found = Found::Begun(ranges);
    }
    view.reserve(own);
    let ranges = match found {
        Found::Ready(ranges) => ranges,
        Found::Begun(ranges) => {
            if let Some(source) = job.inputs {
                // Copies are kept whole, however old their times are.
                source.make_topics(&*view, &job.loaded.pipeline)?;
            }
            make_topics(&*view, &job.loaded.pipeline).context("making the topics of the prefix")?;
            let Some(ranges) = inputs::put(job, &view, ranges, stop, &mut on_told)? else { return Ok(None) };
            prepare(&*view, job.book, &job.loaded.pipeline)?;
            note_pipeline_in(&*view, job.loaded, true, job.options.order.merge())?;
            note::ready(&*view, &ranges)?;
            ranges
        }
        Found::Nothing => bail!("the run of prefix {prefix} can not be found again"),
    };
    let before = RunState::last(&*view, REPROCESS)?;
    let options = SyncOptions {
        workers: job.options.workers,
        drain_ms: job.options.drain_ms,
        ranges: Arc::new(ranges.clone()),
        state_topic: Some(REPROCESS.into()),
        ..SyncOptions::default()
    };
    Ok(Some(Ready { view, ranges, before, options }))
}

/// Topics that lie under the prefix: all that the run writes, and its copies of inputs.
fn own_topics(job: &Job<'_>) -> anyhow::Result<Vec<SmolStr>> {
    let externals = externals(&job.loaded.pipeline.stages);
    let mut own: Vec<SmolStr> = [REPROCESS, PIPELINES].map(SmolStr::new).to_vec();
    for spec in wanted(&job.loaded.pipeline) {
        let is_input = externals.iter().any(|external| external.topic == spec.name);
        let copied = spec.name == topics::RISK_LIMITS || !job.files.is_empty() || job.inputs.is_some();
        if !is_input || copied || job.log.topic(&spec.name)?.is_none() {
            own.push(spec.name);
        }
    }
    Ok(own)
}

/// Runs a pipeline over the inputs that lie in `job.log`, into a new log in memory, which is returned. It needs no disk,
/// and of memory what it writes. Runs side by side may share the log with the inputs: put into memory, and sorted there
/// beforehand, they are read and sorted only once.
pub fn in_memory(
    job: &Job<'_>,
    stop: &AtomicBool,
    on_progress: impl FnMut(&Progress<'_>),
) -> anyhow::Result<(Arc<MemoryLog>, SyncSummary)> {
    let outputs = Arc::new(MemoryLog::new());
    let summary = in_memory_with(job, &outputs, stop, on_progress)?;
    Ok((outputs, summary))
}

/// As [`in_memory`], into a log that is at hand, so that what was written can be taken out of it on the way: no stage reads
/// it again.
pub fn in_memory_with(
    job: &Job<'_>,
    outputs: &Arc<MemoryLog>,
    stop: &AtomicBool,
    on_progress: impl FnMut(&Progress<'_>),
) -> anyhow::Result<SyncSummary> {
    if !job.files.is_empty() || job.inputs.is_some() {
        bail!("files and the inputs of another log are put into a log first");
    }
    let pipeline = &job.loaded.pipeline;
    let own = own_topics(job)?;
    for spec in wanted(pipeline).into_iter().filter(|spec| own.contains(&spec.name)) {
        outputs.create_topic(&TopicSpec { retention_ms: None, retention_bytes: None, ..spec })?;
    }
    inputs::copy_limits(job, &**outputs, &Ranges::default(), stop)?;
    put_limits(&**outputs, job.book, &pipeline.limits)?;
    let outputs_log: Arc<dyn Log> = Arc::clone(outputs) as Arc<dyn Log>;
    Ok(tidewire_runtime::reprocess::run(
        job.log,
        &outputs_log,
        job.book,
        &pipeline.stages,
        &job.options,
        stop,
        on_progress,
    )?)
}
