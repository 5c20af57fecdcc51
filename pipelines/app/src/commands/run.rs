//! `tidewire run`: the stages of a pipeline file, live, until Ctrl-C.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::builder::BoolishValueParser;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use smol_str::{SmolStr, format_smolstr};
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_engine::recovery::RecoveryProgress;
use tidewire_runtime::live::{self, LiveEvent, LiveOptions, LiveSummary};
use tidewire_runtime::synchronised::{self, SyncOptions, group_of};
use tidewire_schemas::EventTime;

use crate::cli::{self, Context};
use crate::files::load_pipeline;
use crate::http::{Http, HttpOptions, STALL_AFTER};
use crate::interrupt;
use crate::logging;
use crate::open::{self, OpenLog};
use crate::pipeline::{Deployment, Pipeline, plural};
use crate::start::{Prepared, note_pipeline, prepare};
use crate::table::grouped;

/// How long the end of the process may take where nothing is said.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest name of a member.
const MAX_MEMBER_CHARS: usize = 120;
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
///   tidewire run market-intel --http 127.0.0.1:9464 --log-format json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The pipeline file, or the name of one that ships, such as market-intel.
    file: PathBuf,
    /// Threads a stage; a stage has no more than it has tasks [default: 1, or `workers` of the file's [run]].
    #[arg(long, env = "TIDEWIRE_WORKERS", value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Serve /healthz, /readyz and /metrics here; port 0 takes a free one and says which [default: `listen` of the file's
    /// [http], or nowhere].
    #[arg(long, env = "TIDEWIRE_HTTP", value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// After Ctrl-C or SIGTERM, how many seconds the end may take: then the process aborts, which loses nothing
    /// [default: 30, or `stop_timeout_ms` of the file's [run]].
    #[arg(long, env = "TIDEWIRE_STOP_TIMEOUT", value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    stop_timeout: Option<u32>,
    /// Recover every task, write its state, and end: with the recorded build, before a changed one takes over.
    #[arg(long, env = "TIDEWIRE_RECOVER_ONLY", value_parser = BoolishValueParser::new())]
    recover_only: bool,
    /// Run all stages in this one process under one virtual time, over what the inputs hold now, from their start to
    /// their end: the result is the same each time. The pipeline must not have run on this log before.
    #[arg(long, conflicts_with_all = ["recover_only", "accept_change"])]
    synchronised: bool,
    /// Go on though the changed build or file gives other outputs for what was recorded; not for stages that make
    /// orders.
    #[arg(long, env = "TIDEWIRE_ACCEPT_CHANGE", value_parser = BoolishValueParser::new())]
    accept_change: bool,
    /// Begins the names of this process's writers. Unique among the processes of a pipeline, for of two of one name the
    /// later one shuts the earlier one out; one that is the same after a restart shuts out what its former self left
    /// [default: pipeline, host and process].
    #[arg(long, env = "TIDEWIRE_MEMBER", value_name = "NAME", value_parser = member_name)]
    member: Option<SmolStr>,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let loaded = load_pipeline(&args.file)?;
    let pipeline = &loaded.pipeline;
    let chosen = Chosen::new(args, &pipeline.deployment, &context.deployment);
    // First of all: one who stops it while it still begins is heard as well.
    let stop = interrupt::stop_flag_within(Some(chosen.stop_timeout))?;
    let open = open::to_run(context, pipeline)?;
    if !args.synchronised {
        check_not_synchronised(&*open.log, pipeline)?;
    }
    let prepared = prepare(&*open.log, &open.book, pipeline)?;
    note_pipeline(&*open.log, &loaded, args.synchronised)?;
    announce(args, pipeline, &prepared, &open.place.to_string());
    let house = match open.embedded() {
        Some(log) => {
            Some(log.keep_house(KEEP_HOUSE_EVERY, KEEP_HOUSE_BYTES).context("starting the log's upkeep")?)
        }
        None => None,
    };
    if args.synchronised {
        return run_synchronised(chosen.workers, pipeline, &open, &stop);
    }
    let http = serve(&chosen, pipeline, &open.log, &stop)?;
    let options = LiveOptions {
        workers: chosen.workers,
        recover_only: args.recover_only,
        accept_change: args.accept_change,
        member_prefix: args.member.clone().unwrap_or_else(|| default_member(&pipeline.name)),
        watch: http.as_ref().map(Http::watch),
    };
    let mut screen = Screen::new();
    let done =
        live::run(&open.log, &open.book, &pipeline.stages, &options, &stop, |event| screen.take(event));
    screen.clear();
    drop(http);
    drop(house);
    let summary = done?;
    Ok(finish(&summary, args.recover_only))
}

/// What may be said by flag, in the environment, in the pipeline file or in that of `--config`: the first that says it
/// holds.
struct Chosen {
    workers: usize,
    stop_timeout: Duration,
    listen: Option<SocketAddr>,
    stall_after: Duration,
}

impl Chosen {
    fn new(args: &Args, file: &Deployment, config: &Deployment) -> Self {
        let files = [file, config];
        let of_run = files.iter().filter_map(|file| file.run.as_ref());
        let of_http = files.iter().filter_map(|file| file.http.as_ref());
        let (workers, timeout) =
            (of_run.clone().find_map(|run| run.workers), of_run.clone().find_map(|run| run.stop_timeout));
        let args_timeout = args.stop_timeout.map(|s| Duration::from_secs(s.into()));
        Self {
            workers: args.workers.or(workers).map_or(1, NonZeroUsize::get),
            stop_timeout: args_timeout.or(timeout).unwrap_or(STOP_TIMEOUT),
            listen: args.http.or(of_http.clone().find_map(|http| http.listen)),
            stall_after: of_http.clone().find_map(|http| http.stall_after).unwrap_or(STALL_AFTER),
        }
    }
}

/// Names go into transactional ids and thread names: the characters of names in pipeline files, and dots.
fn member_name(text: &str) -> Result<SmolStr, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > MAX_MEMBER_CHARS || !text.chars().all(fits) {
        return Err(format!("up to {MAX_MEMBER_CHARS} letters, digits, `.`, `_` and `-`"));
    }
    Ok(text.into())
}

/// In containers every process has the same number, so the host is part of it.
fn default_member(pipeline: &str) -> SmolStr {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let id = std::process::id();
    let name = format!("{pipeline}-{host}-{id}");
    if host.is_empty() || member_name(&name).is_err() {
        format_smolstr!("{pipeline}-{id}")
    } else {
        name.into()
    }
}

/// Starts what is served, if an address was given.
fn serve(
    chosen: &Chosen,
    pipeline: &Pipeline,
    log: &Arc<dyn Log>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Option<Http>> {
    let Some(listen) = chosen.listen else { return Ok(None) };
    let known = pipeline.stages.first().and_then(|stage| stage.driving());
    let options = HttpOptions {
        listen,
        stall_after: chosen.stall_after,
        pipeline: pipeline.name.clone(),
        known_topic: known.map(|input| input.topic.clone()).unwrap_or_default(),
    };
    let http = Http::start(&options, log, stop)?;
    say(&format!("health and metrics: http://{}", http.at));
    Ok(Some(http))
}

/// A line for people; in JSON an event.
fn say(text: &str) {
    if logging::is_json() {
        tracing::info!("{text}");
    } else {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

fn run_synchronised(
    workers: usize,
    pipeline: &Pipeline,
    open: &OpenLog,
    stop: &AtomicBool,
) -> anyhow::Result<u8> {
    let options = SyncOptions { workers, ..SyncOptions::default() };
    let screen = Screen::new();
    let mut done = 0;
    let summary = synchronised::run(&open.log, &open.book, &pipeline.stages, &options, stop, |progress| {
        done += progress.records;
        let time = EventTime::from_ms(progress.virtual_ms);
        screen.bar.set_message(format!("{time}: {} records", grouped(done)));
    })?;
    screen.clear();
    say(&format!(
        "{}: {} records in, {} out, {} rounds, {} faults",
        if summary.stopped { "stopped" } else { "done" },
        grouped(summary.records),
        grouped(summary.outputs),
        grouped(summary.rounds),
        grouped(summary.faults),
    ));
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

fn announce(args: &Args, pipeline: &Pipeline, prepared: &Prepared, dir: &str) {
    let of_file = pipeline.warnings.iter().map(|warning| format!("warning: {warning}"));
    for warning in of_file.chain(prepared.warnings.iter().cloned()) {
        if logging::is_json() {
            tracing::warn!("{warning}");
        } else {
            say(&warning);
        }
    }
    if !prepared.limits_written.is_empty() {
        say(&format!("risk limits written: {}", prepared.limits_written.join(", ")));
    }
    for key in &prepared.limits_kept {
        say(&format!("risk limits of {key} differ from the file's: those in the log hold"));
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
    say(&format!("{doing} {} on {dir}: {}; Ctrl-C stops", pipeline.name, stages.join(", ")));
}

fn finish(summary: &LiveSummary, recover_only: bool) -> u8 {
    let doing = if recover_only { "recovered" } else { "stopped" };
    say(&format!(
        "{doing}: {} records in, {} out, {} epochs, {} faults",
        grouped(summary.records),
        grouped(summary.outputs),
        grouped(summary.epochs),
        grouped(summary.faults),
    ));
    for (stage, task, why) in &summary.halted {
        if logging::is_json() {
            tracing::error!(%stage, task, reason = %why, "halted");
        } else {
            say(&format!("halted: stage {stage}, task {task}: {why}"));
        }
    }
    if summary.halted.is_empty() { cli::OK } else { cli::FAILED }
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
    /// By writer: the stage, and its tasks that are on their way back.
    recovering: BTreeMap<SmolStr, (SmolStr, Vec<(u32, RecoveryProgress)>)>,
}

impl Screen {
    fn new() -> Self {
        let bar = if io::stderr().is_terminal() && !logging::is_json() {
            let style = ProgressStyle::with_template("{spinner} {msg}");
            let bar = ProgressBar::new_spinner()
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        };
        let latencies_us = Histogram::new(3).ok();
        Self {
            bar,
            latencies_us,
            since: Instant::now(),
            records: 0,
            outputs: 0,
            epochs: 0,
            total: 0,
            recovering: BTreeMap::new(),
        }
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
            LiveEvent::Recovering { stage, member, tasks } => {
                if tasks.is_empty() {
                    self.recovering.remove(&member);
                } else {
                    self.recovering.insert(member, (stage, tasks));
                }
                self.bar.set_message(recovering_line(self.recovering.values()));
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

    /// For people: the process's log tells the same with fields.
    fn say(&self, text: &str) {
        if logging::is_json() {
            return;
        }
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
        let recovering = match self.recovering.is_empty() {
            true => String::new(),
            false => format!("; {}", recovering_line(self.recovering.values())),
        };
        self.bar.set_message(format!(
            "{} records in all; {}/s in, {}/s out, {} epochs/s{latency}{recovering}",
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

/// How far all recoveries have come, for one line.
fn recovering_line<'a>(workers: impl Iterator<Item = &'a (SmolStr, Vec<(u32, RecoveryProgress)>)>) -> String {
    let mut by_stage: BTreeMap<&SmolStr, (usize, RecoveryProgress)> = BTreeMap::new();
    for (stage, tasks) in workers {
        let (count, sum) = by_stage.entry(stage).or_default();
        *count += tasks.len();
        for (_, progress) in tasks {
            sum.changelog_done += progress.changelog_done;
            sum.changelog_all += progress.changelog_all;
            sum.epochs_done += progress.epochs_done;
            sum.epochs_all += progress.epochs_all;
        }
    }
    let stages = by_stage.into_iter().map(|(stage, (count, sum))| {
        format!(
            "{stage} {count} {}, {} of {} changelog records, {} of {} epochs",
            plural(count, "task", "tasks"),
            grouped(sum.changelog_done),
            grouped(sum.changelog_all),
            grouped(sum.epochs_done),
            grouped(sum.epochs_all),
        )
    });
    let stages: Vec<String> = stages.collect();
    if stages.is_empty() { String::new() } else { format!("recovering: {}", stages.join("; ")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::pipeline::load_deployment;

    #[test]
    fn recoveries_are_added_up_by_stage() {
        let progress = |done| RecoveryProgress {
            changelog_done: done,
            changelog_all: 1_000,
            epochs_done: 0,
            epochs_all: 3,
        };
        let workers = [
            ("features".into(), vec![(0, progress(200)), (1, progress(300))]),
            ("features".into(), vec![(2, progress(1_000))]),
            ("risk".into(), vec![(0, progress(1))]),
        ];
        assert_eq!(
            recovering_line(workers.iter()),
            "recovering: features 3 tasks, 1,500 of 3,000 changelog records, 0 of 9 epochs; \
             risk 1 task, 1 of 1,000 changelog records, 0 of 3 epochs"
        );
        assert_eq!(recovering_line([].iter()), "");
    }

    fn args(workers: Option<usize>, http: Option<&str>, stop_timeout: Option<u32>) -> Args {
        Args {
            file: PathBuf::new(),
            workers: workers.and_then(NonZeroUsize::new),
            http: http.map(|http| http.parse().unwrap()),
            stop_timeout,
            recover_only: false,
            synchronised: false,
            accept_change: false,
            member: None,
        }
    }

    #[test]
    fn the_flag_goes_before_the_pipeline_file_and_that_before_the_configuration() {
        let read = |text: &str| load_deployment("f.toml", text, Vec::new()).unwrap();
        let file = read("[run]\nworkers = 2\n");
        let config = read(
            "[run]\nworkers = 3\nstop_timeout_ms = 4_000\n[http]\nlisten = \"127.0.0.1:5\"\nstall_after_ms = 6_000\n",
        );
        let show = |chosen: &Chosen| {
            let listen = chosen.listen.map_or_else(String::new, |listen| listen.to_string());
            (chosen.workers, chosen.stop_timeout.as_secs(), listen, chosen.stall_after.as_secs())
        };
        let nothing = Deployment::default();
        let none = args(None, None, None);
        assert_eq!(show(&Chosen::new(&none, &nothing, &nothing)), (1, 30, String::new(), 60));
        assert_eq!(show(&Chosen::new(&none, &file, &config)), (2, 4, "127.0.0.1:5".to_owned(), 6));
        let all = args(Some(7), Some("127.0.0.1:8"), Some(9));
        assert_eq!(show(&Chosen::new(&all, &file, &config)), (7, 9, "127.0.0.1:8".to_owned(), 6));
    }

    #[test]
    fn names_of_members_can_be_names_of_writers() {
        assert_eq!(member_name("tidewire-0").unwrap(), "tidewire-0");
        for wrong in ["", "a b", "a/b", &"a".repeat(MAX_MEMBER_CHARS + 1)] {
            assert!(member_name(wrong).is_err(), "{wrong}");
        }
        assert!(default_member("bars").starts_with("bars-"));
    }
}
