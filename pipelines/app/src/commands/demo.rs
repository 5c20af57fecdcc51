//! `tidewire demo`: the shipped pipeline on the shipped recordings, from raw messages to paper fills.

mod sample;
mod show;
mod tally;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidewire_ingest::{ImportOptions, Importer, Merge, Summary};
use tidewire_runtime::synchronised::{self, SyncOptions};
use tidewire_schemas::{EventTime, topics};

use self::tally::Tally;
use super::import::{finished_note, progress_bar, shift_note};
use crate::cli::{self, Context};
use crate::feed::{feed, file_digest};
use crate::files::{Loaded, load_pipeline};
use crate::interrupt::stop_flag;
use crate::notes::{self, IMPORTS};
use crate::open::{self, Durability, OpenLog};
use crate::start::{note_pipeline, prepare};

/// Virtual time that goes on after the last record, so that its windows close, in milliseconds.
const DRAIN_MS: i64 = 2_000;

/// Ticks of 95 seconds of four Binance markets and 40 headlines go into a fresh log and through all three stages of
/// the pipeline `market-intel`: books, bars, indicators, signals, risk checks, orders and paper fills. Virtual time
/// makes every run the same, whatever the speed and the number of workers.
///
/// Examples:
///   tidewire demo
///   tidewire demo --speed 10x
///   tidewire demo --data ./demo --workers 2
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// How fast virtual time goes: as the recording did, ten times that, or as fast as the machine can.
    #[arg(long, value_enum, default_value_t = Speed::Max)]
    speed: Speed,
    /// Threads for stages that are in no cycle. The result does not depend on it.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Speed {
    #[value(name = "1x")]
    Real,
    #[value(name = "10x")]
    Ten,
    Max,
}

impl Speed {
    fn factor(self) -> Option<f64> {
        match self {
            Self::Real => Some(1.0),
            Self::Ten => Some(10.0),
            Self::Max => None,
        }
    }
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let dir = fresh_folder(context)?;
    // What the demo writes can be made again: it need not survive loss of power.
    let context =
        Context { durability: Some(context.durability.unwrap_or(Durability::Buffered)), ..context.clone() };
    let loaded = load_pipeline(Path::new("market-intel"))?;
    let open = open::here(&context, &dir, &loaded.pipeline)?;
    prepare(&*open.log, &open.book, &loaded.pipeline)?;
    let stop = stop_flag()?;
    let mut tally = Tally::default();
    import_sample(&open, &loaded, &mut tally)?;
    note_pipeline(&*open.log, &loaded, true)?;

    let options = SyncOptions {
        workers: usize::from(args.workers),
        speed: args.speed.factor(),
        drain_ms: DRAIN_MS,
        ..SyncOptions::default()
    };
    let started = Instant::now();
    let mut live = Live::new(tally.ends_ms);
    let summary =
        synchronised::run(&open.log, &open.book, &loaded.pipeline.stages, &options, &stop, |progress| {
            tally.take(progress, &open.book);
            live.show(progress.virtual_ms, &tally);
        })?;
    live.clear();
    tally.wall = started.elapsed();
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &show::json(&tally, &summary, &dir))?;
        writeln!(out)?;
    } else {
        show::summary(&mut out, &tally, &summary, &dir)?;
    }
    Ok(cli::OK)
}

/// The folder of the demo's log: the one named, which must be empty, or a new one.
fn fresh_folder(context: &Context) -> anyhow::Result<PathBuf> {
    let Some(dir) = &context.data else {
        let dir = tempfile::Builder::new()
            .prefix("tidewire-demo-")
            .tempdir()
            .context("making a temporary folder")?;
        return Ok(dir.keep());
    };
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} is not empty: a demo begins on a fresh log; name another folder with `--data DIR`",
            dir.display()
        );
    }
    Ok(dir.clone())
}

/// Writes the shipped recordings to the log. The news is of another day, and is moved into the span of the ticks.
fn import_sample(open: &OpenLog, loaded: &Loaded, tally: &mut Tally) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let captures = sample::unpack(folder.path())?;
    let partitions = |topic: &str| {
        let plan = loaded.pipeline.topics.iter().find(|plan| plan.name == topic);
        plan.map_or(1, |plan| plan.partitions)
    };
    let mut span: Option<(EventTime, EventTime)> = None;
    let mut import = |files: &[PathBuf], options: &ImportOptions| -> anyhow::Result<Vec<Summary>> {
        let importers: Vec<Importer> =
            files.iter().map(|file| Importer::open(file, options.clone())).collect::<Result<_, _>>()?;
        let names: Vec<String> =
            files.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect();
        let bar = progress_bar(importers.iter().map(Importer::bytes_total).sum());
        let merge = Merge::new(importers);
        let (fed, merge) =
            feed(&*open.log, &open.book, merge, &names, &partitions, |bytes, _| bar.set_position(bytes))?;
        bar.finish_and_clear();
        if !fed.failed.is_empty() {
            bail!("the shipped sample can not be read: {}", fed.failed.join("; "));
        }
        for (place, summary) in merge.summaries().enumerate() {
            let note = finished_note(&names[place], &file_digest(&files[place])?, &fed, place, summary);
            notes::add(&*open.log, IMPORTS, &note.digest, &note)?;
        }
        for (topic, count) in &fed.by_topic {
            *tally.by_topic.entry(topic.clone()).or_default() += count;
        }
        Ok(merge.summaries().cloned().collect())
    };
    let ticks = import(&captures.ticks, &ImportOptions::default())?;
    for summary in &ticks {
        if let (Some(first), Some(last)) = (summary.first_event_time, summary.last_event_time) {
            span = Some(span.map_or((first, last), |(from, to)| (from.min(first), to.max(last))));
        }
    }
    let options = ImportOptions { news_span: span, ..ImportOptions::default() };
    let news = import(std::slice::from_ref(&captures.news), &options)?;
    tally.notes.extend(news.iter().filter_map(shift_note));
    tally.ends_ms = span.map_or(0, |(_, to)| to.as_ms());
    let held = |topic: &str| open.log.topic(topic);
    if held(topics::TICKS)?.is_none() {
        bail!("the shipped sample holds no ticks");
    }
    Ok(())
}

/// What is shown on a terminal while the run goes on.
struct Live {
    bar: ProgressBar,
    began_ms: Option<i64>,
    ends_ms: i64,
}

impl Live {
    fn new(ends_ms: i64) -> Self {
        let bar = if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:30} {elapsed}\n{msg}");
            ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        };
        Self { bar, began_ms: None, ends_ms }
    }

    fn show(&mut self, virtual_ms: i64, tally: &Tally) {
        let began_ms = *self.began_ms.get_or_insert(virtual_ms - synchronised::ROUND_MS);
        self.bar.set_length((self.ends_ms + DRAIN_MS - began_ms).max(1).unsigned_abs());
        self.bar.set_position((virtual_ms - began_ms).max(0).unsigned_abs());
        if !self.bar.is_hidden() {
            self.bar.set_message(show::live(virtual_ms, tally));
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
