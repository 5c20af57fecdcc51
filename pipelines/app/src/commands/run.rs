//! `tidewire run`: the stages of a pipeline file, live, until Ctrl-C.

use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use smol_str::format_smolstr;
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_runtime::live::{self, LiveEvent, LiveOptions, LiveSummary};
use tidewire_runtime::synchronised::{self, SyncOptions, group_of};
use tidewire_schemas::EventTime;

use crate::cli::{self, Context};
use crate::files::load_pipeline;
use crate::interrupt;
use crate::open::{self, OpenLog};
use crate::pipeline::{Pipeline, plural};
use crate::start::{Prepared, note_pipeline, prepare};
use crate::table::grouped;

/// How often retention and compaction are looked at.
const KEEP_HOUSE_EVERY: Duration = Duration::from_secs(10);
/// Bytes that one round of that may read.
const KEEP_HOUSE_BYTES: u64 = 64 << 20;
/// How often the line on the terminal is written anew.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// Topics that are missing are made, and the file's risk limits are written unless the log has them. Tasks go on where
/// they were committed. Ctrl-C ends the epoch at hand, writes the state and leaves; a second one aborts, which loses
/// nothing either. Other commands (import, tail, status) reach the log through this process meanwhile.
///
/// Examples:
///   tidewire run pipelines/market-intel.toml
///   tidewire run market-intel --workers 4 --data /var/lib/tidewire
///   tidewire run market-intel --bootstrap localhost:9092      on Kafka; start it as often as wanted to scale out
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The pipeline file, or the name of one that ships, such as market-intel.
    file: PathBuf,
    /// Threads a stage; a stage has no more than it has tasks.
    #[arg(long, value_name = "N", default_value = "1")]
    workers: NonZeroUsize,
    /// Recover every task, write its state, and end: with the recorded build, before a changed one takes over.
    #[arg(long)]
    recover_only: bool,
    /// Run all stages in this one process under one virtual time, over what the inputs hold now, from their start to
    /// their end: the result is the same each time. The pipeline must not have run on this log before.
    #[arg(long, conflicts_with_all = ["recover_only", "accept_change"])]
    synchronised: bool,
    /// Go on though the changed build or file gives other outputs for what was recorded; not for stages that make
    /// orders.
    #[arg(long)]
    accept_change: bool,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let loaded = load_pipeline(&args.file)?;
    let pipeline = &loaded.pipeline;
    let open = open::to_run(context, &pipeline.deployment)?;
    if !args.synchronised {
        check_not_synchronised(&*open.log, pipeline)?;
    }
    let prepared = prepare(&*open.log, &open.book, pipeline)?;
    note_pipeline(&*open.log, &loaded, args.synchronised)?;
    announce(args, pipeline, &prepared, &open.place.to_string())?;
    let stop = interrupt::stop_flag()?;
    let house = match open.embedded() {
        Some(log) => {
            Some(log.keep_house(KEEP_HOUSE_EVERY, KEEP_HOUSE_BYTES).context("starting the log's upkeep")?)
        }
        None => None,
    };
    if args.synchronised {
        return run_synchronised(args, pipeline, &open, &stop);
    }
    let options = LiveOptions {
        workers: args.workers.get(),
        recover_only: args.recover_only,
        accept_change: args.accept_change,
        member_prefix: format_smolstr!("{}-{}", pipeline.name, std::process::id()),
    };
    let mut screen = Screen::new();
    let done =
        live::run(&open.log, &open.book, &pipeline.stages, &options, &stop, |event| screen.take(event));
    screen.clear();
    drop(house);
    let summary = done?;
    finish(&summary, args.recover_only)
}

fn run_synchronised(
    args: &Args,
    pipeline: &Pipeline,
    open: &OpenLog,
    stop: &AtomicBool,
) -> anyhow::Result<u8> {
    let options = SyncOptions { workers: args.workers.get(), ..SyncOptions::default() };
    let screen = Screen::new();
    let mut done = 0;
    let summary = synchronised::run(&open.log, &open.book, &pipeline.stages, &options, stop, |progress| {
        done += progress.records;
        let time = EventTime::from_ms(progress.virtual_ms);
        screen.bar.set_message(format!("{time}: {} records", grouped(done)));
    })?;
    screen.clear();
    writeln!(
        io::stderr().lock(),
        "{}: {} records in, {} out, {} rounds, {} faults",
        if summary.stopped { "stopped" } else { "done" },
        grouped(summary.records),
        grouped(summary.outputs),
        grouped(summary.rounds),
        grouped(summary.faults),
    )?;
    Ok(cli::OK)
}

/// A synchronised run numbers its epochs for itself: live tasks could not go on after it.
fn check_not_synchronised(log: &dyn Log, pipeline: &Pipeline) -> anyhow::Result<()> {
    let Some(driving) = pipeline.stages.first().and_then(|stage| stage.driving()) else { return Ok(()) };
    let Some(topic) = log.topic(&driving.topic)? else { return Ok(()) };
    let group = group_of(&pipeline.name);
    for partition in 0..topic.partitions {
        if log.committed(&group, &TopicPartition::new(driving.topic.clone(), partition))?.is_some() {
            bail!(
                "this log holds a synchronised run of {} (from `demo`), which a live run can not go on from: \
                 name another folder with `--data`, or another cluster",
                pipeline.name
            );
        }
    }
    Ok(())
}

fn announce(args: &Args, pipeline: &Pipeline, prepared: &Prepared, dir: &str) -> io::Result<()> {
    let mut err = io::stderr().lock();
    for warning in &pipeline.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    for warning in &prepared.warnings {
        writeln!(err, "{warning}")?;
    }
    if !prepared.limits_written.is_empty() {
        writeln!(err, "risk limits written: {}", prepared.limits_written.join(", "))?;
    }
    for key in &prepared.limits_kept {
        writeln!(err, "risk limits of {key} differ from the file's: those in the log hold")?;
    }
    let stages: Vec<String> = pipeline
        .stages
        .iter()
        .map(|stage| {
            let tasks = stage.tasks() as usize;
            format!("{} ({tasks} {})", stage.name, plural(tasks, "task", "tasks"))
        })
        .collect();
    let doing = if args.recover_only { "recovering" } else { "running" };
    writeln!(err, "{doing} {} on {dir}: {}; Ctrl-C stops", pipeline.name, stages.join(", "))
}

fn finish(summary: &LiveSummary, recover_only: bool) -> anyhow::Result<u8> {
    let mut err = io::stderr().lock();
    let doing = if recover_only { "recovered" } else { "stopped" };
    writeln!(
        err,
        "{doing}: {} records in, {} out, {} epochs, {} faults",
        grouped(summary.records),
        grouped(summary.outputs),
        grouped(summary.epochs),
        grouped(summary.faults),
    )?;
    if summary.halted.is_empty() {
        return Ok(cli::OK);
    }
    for (stage, task, why) in &summary.halted {
        writeln!(err, "halted: stage {stage}, task {task}: {why}")?;
    }
    Ok(cli::FAILED)
}

/// One line on a terminal; elsewhere only what must be known.
struct Screen {
    bar: ProgressBar,
    latencies_us: Option<Histogram<u64>>,
    since: Instant,
    records: u64,
    outputs: u64,
    epochs: u64,
    total: u64,
}

impl Screen {
    fn new() -> Self {
        let bar = if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {msg}");
            let bar = ProgressBar::new_spinner()
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        };
        let latencies_us = Histogram::new(3).ok();
        Self { bar, latencies_us, since: Instant::now(), records: 0, outputs: 0, epochs: 0, total: 0 }
    }

    fn take(&mut self, event: LiveEvent) {
        match event {
            LiveEvent::Worked { step, latencies_us, .. } => {
                self.records += step.records;
                self.outputs += step.outputs;
                self.epochs += step.epochs;
                self.total += step.records;
                if let Some(histogram) = &mut self.latencies_us {
                    latencies_us.into_iter().for_each(|us| histogram.saturating_record(us.max(1)));
                }
                self.show();
            }
            LiveEvent::Recovered { stage, task, report, after_ms } => {
                if report.epochs > 0 || report.changelog_records > 0 {
                    self.say(&format!(
                        "recovered {stage}/{task} in {after_ms} ms: {} changelog records, {} epochs run again{}",
                        report.changelog_records,
                        report.epochs,
                        if report.changed { ", by a changed build or file with the same outputs" } else { "" },
                    ));
                }
            }
            LiveEvent::Fault { stage, fault } => self.say(&format!(
                "dead letter: {stage}: operator {} failed at {}: {} ({})",
                fault.node, fault.at, fault.text, fault.code
            )),
            LiveEvent::Halted { stage, task, why } => self.say(&format!("halted: {stage}/{task}: {why}")),
            LiveEvent::Rejoining { stage, why } => self.say(&format!("{stage} joins again: {why}")),
        }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "{text}");
        });
    }

    fn show(&mut self) {
        let elapsed = self.since.elapsed();
        if elapsed < SHOW_EVERY {
            return;
        }
        let per_second = |count: u64| (count as f64 / elapsed.as_secs_f64()) as u64;
        let measured = self.latencies_us.as_ref().filter(|histogram| !histogram.is_empty());
        let latency = measured.map_or_else(String::new, |histogram| {
            let ms = |us: u64| us as f64 / 1_000.0;
            format!(
                ", epoch p50 {:.1} ms, p99 {:.1} ms",
                ms(histogram.value_at_quantile(0.5)),
                ms(histogram.value_at_quantile(0.99))
            )
        });
        self.bar.set_message(format!(
            "{} records in all; {}/s in, {}/s out, {} epochs/s{latency}",
            grouped(self.total),
            grouped(per_second(self.records)),
            grouped(per_second(self.outputs)),
            grouped(per_second(self.epochs)),
        ));
        (self.records, self.outputs, self.epochs, self.since) = (0, 0, 0, Instant::now());
        if let Some(histogram) = &mut self.latencies_us {
            histogram.clear();
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
