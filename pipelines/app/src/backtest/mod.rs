//! Many settings of one pipeline over the same inputs, each as if it were run alone.

pub mod grid;
mod inputs;
pub mod page;
mod plot;
mod shelf;
pub mod show;
pub mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tidewire_engine::log::Log;
use tidewire_engine::memory::MemoryLog;
use tidewire_schemas::SchemaBook;

use self::grid::{Grid, Setting};
use self::tally::{Instruments, Tally};
use crate::files::Loaded;
use crate::reprocess::{Job, Limits, in_memory_with};

pub use inputs::{Inputs, load};

/// Bytes that inputs may take of memory where nothing else is said, in MiB.
pub const MAX_INPUT_MIB: u64 = 2_048;

/// What a setting came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The setting.
    pub setting: Setting,
    /// Its counts.
    pub tally: Tally,
    /// Input records taken, over all stages.
    pub records: u64,
    /// Records and timers that operators failed at.
    pub faults: u64,
    /// First and last virtual time, in milliseconds.
    pub span_ms: Option<(i64, i64)>,
    /// How long it ran.
    pub wall: Duration,
}

/// What all settings share.
pub struct Backtest<'a> {
    /// The pipeline without any setting.
    pub base: &'a Loaded,
    /// The settings.
    pub grid: &'a Grid,
    /// Their inputs.
    pub inputs: Arc<dyn Log>,
    /// How they are taken.
    pub options: tidewire_runtime::reprocess::ReprocessOptions,
    /// Schemas.
    pub book: &'a Arc<SchemaBook>,
    /// Whose risk limits hold.
    pub limits: Limits,
    /// Settings that run at a time.
    pub workers: usize,
}

impl Backtest<'_> {
    /// Runs all settings; returns those that are done, in the order of their numbers. Told to stop, those under way end
    /// where they are, and are left out. `on_done` is called once for each that is done.
    ///
    /// # Errors
    /// When a setting can not be run to its end.
    pub fn run(&self, stop: &AtomicBool, mut on_done: impl FnMut(&Outcome)) -> anyhow::Result<Vec<Outcome>> {
        let instruments = tally::instruments(&*self.inputs, self.book)?;
        let settings = &self.grid.settings;
        let workers = self.workers.clamp(1, settings.len().max(1));
        let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (tell, told) = sync_channel::<anyhow::Result<Option<Outcome>>>(workers);
        let mut outcomes = Vec::new();
        let mut failed = None;
        std::thread::scope(|scope| -> anyhow::Result<()> {
            for number in 0..workers {
                let (tell, next, ended, instruments) = (tell.clone(), &next, &ended, &instruments);
                let work = move || {
                    while !ended.load(Ordering::SeqCst) && !stop.load(Ordering::SeqCst) {
                        let Some(setting) = settings.get(next.fetch_add(1, Ordering::SeqCst)) else { break };
                        if tell.send(self.one(setting, instruments, stop)).is_err() {
                            break;
                        }
                    }
                };
                std::thread::Builder::new()
                    .name(format!("backtest-{number}"))
                    .spawn_scoped(scope, work)
                    .context("a thread could not be started")?;
            }
            drop(tell);
            for outcome in told {
                match outcome {
                    Ok(Some(outcome)) => {
                        on_done(&outcome);
                        outcomes.push(outcome);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        ended.store(true, Ordering::SeqCst);
                        failed.get_or_insert(error);
                    }
                }
            }
            Ok(())
        })?;
        outcomes.sort_by_key(|outcome: &Outcome| outcome.setting.number);
        failed.map_or(Ok(outcomes), Err)
    }

    /// One setting; `None` when it was told to stop.
    fn one(
        &self,
        setting: &Setting,
        instruments: &Instruments,
        stop: &AtomicBool,
    ) -> anyhow::Result<Option<Outcome>> {
        let started = Instant::now();
        let loaded = self.grid.load(setting, self.base)?;
        let job = Job {
            log: &self.inputs,
            book: self.book,
            loaded: &loaded,
            options: self.options.clone(),
            limits: self.limits,
            files: Vec::new(),
            inputs: None,
            reading: Default::default(),
        };
        let outputs = Arc::new(MemoryLog::new());
        let (mut tally, mut failed) = (Tally::default(), None);
        let summary = in_memory_with(&job, &outputs, stop, |progress| {
            if failed.is_some() {
                return;
            }
            if let Err(error) = tally.take(progress.written, self.book, instruments) {
                failed = Some(error);
            }
            // Stages hand their records on themselves, so nobody reads these again.
            for (at, _) in progress.written {
                if let Ok(bounds) = outputs.bounds(at) {
                    let _ = outputs.truncate_before(at, bounds.stable_end);
                }
            }
        });
        let doing = || format!("running {}", self.grid.describe(setting));
        let summary = summary.with_context(doing)?;
        if let Some(error) = failed {
            return Err(error.context(doing()));
        }
        if summary.stopped {
            return Ok(None);
        }
        Ok(Some(Outcome {
            setting: setting.clone(),
            tally,
            records: summary.records,
            faults: summary.faults,
            span_ms: summary.span_ms,
            wall: started.elapsed(),
        }))
    }
}
