//! `tidewire verify`: runs recorded epochs again and compares every byte of their outputs.

mod show;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidewire_engine::log::Log;
use tidewire_engine::plan::StageSpec;
use tidewire_engine::verify::{Edge, Range, Sample, VerifyReport};
use tidewire_schemas::EventTime;

use crate::cli::{self, Context};
use crate::commands::bundle::{say_what_it_holds, verify_restricted};
use crate::files::load_pipeline;
use crate::http::{Http, HttpOptions, STALL_AFTER};
use crate::interrupt;
use crate::logging;
use crate::open::{self, OpenLog, Place};
use crate::pipeline::Deployment;
use crate::recorded::{as_recorded, pipelines};
use crate::span::Span;
use crate::table::grouped;
use crate::verify::{self, Event, Job, Options, Progress, Summary, Tally};

/// How often new cuts are looked for where nothing is said.
const EVERY: Duration = Duration::from_secs(10);
/// Threads on Kafka where nothing is said: so many places of one partition can be read at once.
const MAX_DEFAULT_ON_KAFKA: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
/// How often the line on the terminal is written anew.
const SHOW_EVERY: Duration = Duration::from_millis(250);

/// Nothing is written. Without a file, the pipelines are verified as they were started last on this log. A range takes
/// numbers of epochs, which count for each task by itself, or times: an epoch stands at its stream time, the greatest event
/// time that its task had seen. It is begun from the latest usable cut before it. The exit code is 0 if everything is the
/// same, 3 if something differs.
///
/// Examples:
///   tidewire verify
///   tidewire verify my.toml --stage signals           what that file would have given
///   tidewire verify --from 2024-08-08T23:54:30Z --to 2024-08-08T23:55:00Z
///   tidewire verify --stage risk --task 2 --from 118 --to 118
///   tidewire verify --sample 10% --seed 7             a tenth of the stretches between cuts
///   tidewire verify --follow --sample 5% --http 127.0.0.1:9465     beside a running pipeline, until Ctrl-C
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Verify with this pipeline file instead of the recorded one.
    file: Option<PathBuf>,
    /// Only this stage.
    #[arg(long)]
    stage: Option<String>,
    /// Only this task.
    #[arg(long, value_name = "N")]
    task: Option<u32>,
    /// The first epoch: its number, or a time that stands for the first epoch at or after that stream time.
    #[arg(long, value_name = "EPOCH|TIME", value_parser = edge)]
    from: Option<Edge>,
    /// The last epoch: its number, or a time that stands for the last epoch at or before that stream time.
    #[arg(long, value_name = "EPOCH|TIME", value_parser = edge)]
    to: Option<Edge>,
    /// Threads [default: one for each core, on Kafka at most 8]. The result does not depend on it.
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Verify this share of the stretches between cuts, such as 10%, drawn by a hash of stage, task and cut.
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    sample: Option<u32>,
    /// Draw other stretches.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "sample")]
    seed: u64,
    /// Go on as new cuts appear, until Ctrl-C, and verify each stretch once.
    #[arg(long, short, conflicts_with = "to")]
    follow: bool,
    /// How often `--follow`, which it stands for, looks for new cuts: 10s, 1m [default: 10s].
    #[arg(long, value_name = "TIME", conflicts_with = "to")]
    every: Option<Span>,
    /// With `--follow`, serve /healthz, /readyz and /metrics here; port 0 takes a free one and says which.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Print JSON: one value, with `--follow` one object a line for each stretch.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn follows(&self) -> bool {
        self.follow || self.every.is_some()
    }

    fn options(&self, place: &Place) -> Options {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let is_kafka = matches!(place, Place::Kafka(_));
        let cores = if is_kafka { cores.min(MAX_DEFAULT_ON_KAFKA) } else { cores };
        Options {
            range: Range { from: self.from, to: self.to },
            sample: self.sample.map(|share_ppm| Sample { share_ppm, seed: self.seed }),
            workers: self.workers.unwrap_or(cores),
        }
    }
}

fn edge(text: &str) -> Result<Edge, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse() {
            Ok(0) => Err("epochs are counted from 1".to_owned()),
            Ok(epoch) => Ok(Edge::Epoch(epoch)),
            Err(error) => Err(format!("{error}")),
        };
    }
    let time = EventTime::from_str(text);
    time.map(Edge::Time).map_err(|error| {
        format!("use the number of an epoch, or a time such as 2024-08-08T23:57:00Z ({error})")
    })
}

/// A percentage as millionths.
fn share(text: &str) -> Result<u32, String> {
    let percent: Option<f64> = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
    let percent = percent.filter(|percent| *percent > 0.0 && *percent <= 100.0);
    let percent = percent.ok_or("use a percentage above 0, up to 100, such as 10% or 0.5%")?;
    // At least one millionth, so that what is above nothing stays so.
    Ok(((percent * 10_000.0).round() as u32).max(1))
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    check_range(args)?;
    let stop = interrupt::stop_flag()?;
    let deployment = match &args.file {
        Some(file) => load_pipeline(file)?.pipeline.deployment,
        None => Deployment::default(),
    };
    if args.follows() && context.bundle().is_some() {
        bail!("a bundle does not grow: leave out `--follow` and `--every`");
    }
    let open = if args.follows() {
        match open::to_follow(context, &deployment, &stop)? {
            Some(open) => open,
            None => return Ok(cli::OK),
        }
    } else {
        if args.http.is_some() {
            bail!("`--http` serves while a check goes on: add `--follow`");
        }
        open::to_read_for(context, &deployment)?
    };
    let stages: Vec<Arc<StageSpec>> = match &args.file {
        Some(file) => as_recorded(&*open.log, &load_pipeline(file)?)?,
        None => pipelines(&*open.log)?.iter().flat_map(|recorded| recorded.stages().to_vec()).collect(),
    };
    let tasks = chosen(args, &stages)?;
    let options = args.options(&open.place);
    if let Some(bundle) = open.bundle() {
        say_what_it_holds(bundle)?;
        if bundle.about().is_restricted() {
            if args.from.is_some() || args.to.is_some() || args.sample.is_some() {
                bail!("a bundle of some keys is verified whole: leave out --from, --to and --sample");
            }
            let named = |stage: &&Arc<StageSpec>| tasks.iter().any(|(chosen, _)| chosen.name == stage.name);
            let wanted: Vec<&Arc<StageSpec>> = stages.iter().filter(named).collect();
            return verify_restricted(&open, bundle, &wanted, args.task, args.json);
        }
    }
    let jobs = verify::jobs(&*open.log, &open.book, &tasks, &options.range)?;
    if args.follows() {
        follow(args, &open, &jobs, &options, &stop)
    } else {
        once(args, &open, &jobs, &options, &stop)
    }
}

fn check_range(args: &Args) -> anyhow::Result<()> {
    match (args.from, args.to) {
        (Some(Edge::Epoch(from)), Some(Edge::Epoch(to))) if from > to => {
            bail!("--from {from} is after --to {to}")
        }
        (Some(Edge::Time(from)), Some(Edge::Time(to))) if from > to => {
            bail!("--from {from} is after --to {to}")
        }
        _ => Ok(()),
    }
}

fn chosen(args: &Args, stages: &[Arc<StageSpec>]) -> anyhow::Result<Vec<(Arc<StageSpec>, u32)>> {
    let wanted = stages.iter().filter(|stage| args.stage.as_ref().is_none_or(|name| stage.name == *name));
    let wanted: Vec<&Arc<StageSpec>> = wanted.collect();
    if wanted.is_empty() {
        let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        bail!("there is no such stage; there are {}", names.join(", "));
    }
    let tasks: Vec<(Arc<StageSpec>, u32)> = wanted
        .iter()
        .flat_map(|stage| (0..stage.tasks()).map(|task| (Arc::clone(stage), task)))
        .filter(|(_, task)| args.task.is_none_or(|wanted| wanted == *task))
        .collect();
    if let Some(task) = args.task.filter(|_| tasks.is_empty()) {
        let most = wanted.iter().map(|stage| stage.tasks()).max().unwrap_or(0);
        bail!("there is no task {task}: tasks are counted from 0, and there are {most}");
    }
    Ok(tasks)
}

fn once(
    args: &Args,
    open: &OpenLog,
    jobs: &[Job],
    options: &Options,
    stop: &AtomicBool,
) -> anyhow::Result<u8> {
    let screen = Screen::new(jobs.iter().map(Job::count).sum());
    let begun = Instant::now();
    let tallies = verify::verify(&*open.log, &open.book, jobs, options, &screen, stop);
    let summary = Summary::of(&tallies, begun.elapsed());
    screen.bar.finish_and_clear();
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(
            out,
            "{}",
            serde_json::to_string_pretty(&show::value(&tallies, &summary, options, &open.book))?
        )?;
    } else {
        show::tallies(&mut out, &tallies, &summary, options, &open.book)?;
    }
    for (tally, difference) in tallies.iter().filter_map(|tally| Some((tally, tally.differences.first()?))) {
        log_difference(&tally.stage, tally.task, difference, &open.book);
    }
    Ok(exit_code(&tallies))
}

/// Something differs; or it could not all be verified; or all is well.
fn exit_code(tallies: &[Tally]) -> u8 {
    if tallies.iter().any(|tally| tally.differing > 0) {
        cli::DIFFERS
    } else if tallies.iter().any(|tally| tally.failures > 0 || tally.stopped) {
        cli::FAILED
    } else {
        cli::OK
    }
}

fn follow(
    args: &Args,
    open: &OpenLog,
    jobs: &[Job],
    options: &Options,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<u8> {
    let http = serve(args, &open.log, jobs, stop)?;
    let shown = http.as_ref().map(Http::verifying);
    for job in jobs {
        if let Some(shown) = &shown {
            shown.begins(&job.stage.name, job.task);
        }
    }
    say(&format!("verifying what is on {}, as cuts appear; Ctrl-C stops", open.place));
    let failed_write = Mutex::new(None);
    let on_event = |event: Event<'_>| {
        let told = match event {
            Event::Turned => {
                if let Some(shown) = &shown {
                    shown.turned();
                }
                Ok(())
            }
            Event::Waits(stage, task, error) => {
                tracing::warn!(stage = %stage.name, task, %error, "verification waits for the log");
                Ok(())
            }
            Event::Failed(stage, task, error) => {
                tracing::error!(stage = %stage.name, task, %error, "verification failed");
                if let Some(shown) = &shown {
                    shown.failed(&stage.name, task);
                }
                Ok(())
            }
            Event::Done(stage, task, stretch) => {
                if let Some(shown) = &shown {
                    shown.done(&stage.name, task, stretch);
                }
                let difference = stretch.report.as_ref().and_then(|report| report.difference.as_ref());
                if let Some(difference) = difference {
                    log_difference(stage, task, difference, &open.book);
                }
                show::stretch(args.json, stage, task, stretch, &open.book)
            }
        };
        if let Err(error) = told {
            *failed_write.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            stop.store(true, Ordering::SeqCst);
        }
    };
    let every = args.every.map_or(EVERY, |every| every.0);
    let begun = Instant::now();
    let mut tallies = verify::follow(&*open.log, &open.book, jobs, options, every, &on_event, stop)?;
    drop(http);
    if let Some(error) = failed_write.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error.into());
    }
    // It ends by being told to: that is no failure.
    tallies.iter_mut().for_each(|tally| tally.stopped = false);
    let summary = Summary::of(&tallies, begun.elapsed());
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(
            &mut out,
            &serde_json::json!({ "summary": show::summary_value(&summary, options) }),
        )?;
        writeln!(out)?;
    } else {
        show::table(&mut out, &tallies)?;
        show::summary(&mut out, &summary, options)?;
    }
    Ok(exit_code(&tallies))
}

fn serve(
    args: &Args,
    log: &Arc<dyn Log>,
    jobs: &[Job],
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Option<Http>> {
    let Some(listen) = args.http else { return Ok(None) };
    let first = jobs.first().map(|job| &job.stage);
    let options = HttpOptions {
        listen,
        stall_after: STALL_AFTER,
        pipeline: first.map(|stage| stage.pipeline.clone()).unwrap_or_default(),
        known_topic: first.map(|stage| stage.epochs_topic()).unwrap_or_default(),
    };
    let http = Http::start(&options, log, stop)?;
    say(&format!("health and metrics: http://{}", http.at));
    Ok(Some(http))
}

/// An event of the process's log, for those who gather it.
fn log_difference(
    stage: &StageSpec,
    task: u32,
    difference: &tidewire_engine::verify::Difference,
    book: &tidewire_schemas::SchemaBook,
) {
    let fields = verify::fields(difference, book);
    let field = fields.first().map(|found| found.field.as_str()).unwrap_or_default();
    tracing::error!(
        stage = %stage.name,
        task,
        epoch = difference.epoch,
        what = %difference.what,
        operator = difference.operator.as_deref().unwrap_or_default(),
        at = difference.at.as_ref().map(ToString::to_string).unwrap_or_default(),
        offset = difference.offset,
        key = difference.key.as_deref().unwrap_or_default(),
        field,
        "verification found a difference"
    );
}

/// A line for people; in JSON an event.
fn say(text: &str) {
    if logging::is_json() {
        tracing::info!("{text}");
    } else {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// One line on a terminal.
struct Screen {
    bar: ProgressBar,
    records: AtomicU64,
    begun: Instant,
    shown: Mutex<Instant>,
}

impl Screen {
    fn new(epochs: u64) -> Self {
        let bar = if io::stderr().is_terminal() && !logging::is_json() {
            let style =
                ProgressStyle::with_template("{spinner} {bar:30} {pos} of {len} epochs, {msg}, {eta} left");
            let bar = ProgressBar::new(epochs);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        };
        let begun = Instant::now();
        Self { bar, records: AtomicU64::new(0), begun, shown: Mutex::new(begun) }
    }
}

impl Progress for Screen {
    fn epoch(&self, _: &VerifyReport, records: u64) {
        let all = self.records.fetch_add(records, Ordering::Relaxed) + records;
        if self.bar.is_hidden() {
            return;
        }
        self.bar.inc(1);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.elapsed() >= SHOW_EVERY {
            *shown = Instant::now();
            let per_s = all as f64 / self.begun.elapsed().as_secs_f64().max(1e-9);
            self.bar.set_message(format!("{} records/s", grouped(per_s as u64)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn ranges_and_shares_are_read() {
        assert_eq!(edge("118"), Ok(Edge::Epoch(118)));
        let time = EventTime::from_str("2024-08-08T23:57:00Z").unwrap();
        assert_eq!(edge("2024-08-08T23:57:00Z"), Ok(Edge::Time(time)));
        for wrong in ["0", "", "yesterday", "99999999999999999999999"] {
            assert!(edge(wrong).is_err(), "{wrong}");
        }
        for (given, wanted) in [("10%", 100_000), ("100", 1_000_000), ("0.5%", 5_000), ("0.0000001%", 1)] {
            assert_eq!(share(given), Ok(wanted), "{given}");
        }
        for wrong in ["0", "101%", "-1", "all", "NaN%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
