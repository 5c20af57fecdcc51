//! `tidewire import`: recorded feeds into the log.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use smol_str::SmolStr;
use tidewire_ingest::{Format, ImportOptions, Importer, Merge, Summary, Venue};
use tidewire_runtime::clock::now_ms;
use tidewire_schemas::EventTime;

use crate::cli::{self, Context};
use crate::feed::{Fed, feed, file_digest};
use crate::files::load_pipeline;
use crate::notes::{self, IMPORTS, ImportNote};
use crate::open::{self, Place};
use crate::pipeline::{DEFAULT_PARTITIONS, TopicPlan, default_partitions, plural};
use crate::shell::Words;
use crate::table::grouped;

/// The format is found out by the first line of each file, or by the columns of a Parquet file. Several files become one stream in the order of event time.
/// Lines that can not be taken go to dead-letters.v1 with file, line number and reason: see `tidewire dead-letters`.
/// While a process runs on the same log, records go through it and are processed as they come.
///
/// Examples:
///   tidewire import usdm_btcusdt.gz spot_btcusdt.gz
///   tidewire import news.csv --news-from 2024-08-08T23:54:00Z --news-to 2024-08-09T00:00:00Z
///   tidewire import trades.csv --instrument BTCUSDT.BINANCE_SPOT
///   tidewire import bars.parquet --instrument BTCUSDT.BINANCE_SPOT --bar-interval-ms 60000
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Files: text, gzip or Parquet.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// Partitions of keyed topics that are made; reference data gets 1.
    #[arg(long, value_name = "N", conflicts_with = "pipeline", value_parser = clap::value_parser!(u32).range(1..=4096))]
    topic_partitions: Option<u32>,
    /// Make topics as this pipeline file wants them.
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// Import a file that was imported before once more.
    #[arg(long)]
    again: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// How recorded files are read.
#[derive(Clone, Debug, clap::Args)]
pub struct Reading {
    /// Format of the files: binance, news, trades or bars.
    #[arg(long)]
    format: Option<Format>,
    /// Market of a Binance capture: spot, usdm or coinm.
    #[arg(long)]
    venue: Option<Venue>,
    /// Instrument of files that do not name it, such as BTCUSDT.BINANCE_SPOT.
    #[arg(long, value_name = "ID")]
    instrument: Option<SmolStr>,
    /// CSV or Parquet file with instruments beyond those that ship; docs/import.md describes it.
    #[arg(long, value_name = "FILE")]
    instruments: Option<PathBuf>,
    /// Venue's clock less the recorder's, in microseconds; by default it is estimated.
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    venue_offset_us: Option<i64>,
    /// Length of the bars of a file that does not tell it, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i64).range(1..))]
    bar_interval_ms: Option<i64>,
    /// Move news so that the first item was published then; needs --news-to.
    #[arg(long, value_name = "TIME", requires = "news_to")]
    news_from: Option<EventTime>,
    /// Move news so that the last item was published then; needs --news-from.
    #[arg(long, value_name = "TIME", requires = "news_from")]
    news_to: Option<EventTime>,
    /// From publication of news to its receipt, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    news_delay_ms: i64,
}

impl Reading {
    /// What importers are told.
    pub fn options(&self) -> ImportOptions {
        ImportOptions {
            format: self.format,
            venue: self.venue,
            instrument: self.instrument.clone(),
            instruments: self.instruments.clone(),
            venue_offset_us: self.venue_offset_us,
            bar_interval_ms: self.bar_interval_ms,
            news_span: self.news_from.zip(self.news_to),
            news_delay_ms: self.news_delay_ms,
        }
    }

    /// Adds the options as they are written on a command line, but for those that have their defaults.
    pub fn words(&self, words: &mut Words) {
        words.option("--format", self.format);
        words.option("--venue", self.venue);
        words.option("--instrument", self.instrument.as_ref());
        words.option("--instruments", self.instruments.as_ref().map(|file| file.display()));
        words.option("--venue-offset-us", self.venue_offset_us);
        words.option("--bar-interval-ms", self.bar_interval_ms);
        words.option("--news-from", self.news_from);
        words.option("--news-to", self.news_to);
        words.option("--news-delay-ms", Some(self.news_delay_ms).filter(|own| *own != 0));
    }
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let plans = match &args.pipeline {
        Some(file) => load_pipeline(file)?.pipeline.topics,
        None => Vec::new(),
    };
    let keyed = args.topic_partitions.unwrap_or(DEFAULT_PARTITIONS);
    let partitions = |topic: &str| {
        let plan = plans.iter().find(|plan: &&TopicPlan| plan.name == topic);
        plan.map_or_else(|| default_partitions(topic, keyed), |plan| plan.partitions)
    };
    let options = args.reading.options();
    let importers: Vec<Importer> =
        args.files.iter().map(|file| Importer::open(file, options.clone())).collect::<Result<_, _>>()?;
    let open = open::to_write(context)?;
    let names: Vec<String> = args.files.iter().map(|file| name_of(file)).collect();
    let digests: Vec<String> = args.files.iter().map(|file| file_digest(file)).collect::<Result<_, _>>()?;
    check_new(&*open.log, &names, &digests, args.again)?;
    for (name, digest) in names.iter().zip(&digests) {
        notes::add(&*open.log, IMPORTS, digest, &begun_note(name, digest))?;
    }
    let bar = progress_bar(importers.iter().map(Importer::bytes_total).sum());
    let done = feed(&*open.log, &open.book, Merge::new(importers), &names, &partitions, |bytes, records| {
        bar.set_position(bytes);
        bar.set_message(format!("{} records", grouped(records)));
    });
    bar.finish_and_clear();
    let (fed, merge) = done?;
    let summaries: Vec<Summary> = merge.summaries().cloned().collect();
    for ((place, name), digest) in names.iter().enumerate().zip(&digests) {
        let note = finished_note(name, digest, &fed, place, &summaries[place]);
        notes::add(&*open.log, IMPORTS, digest, &note)?;
    }
    show(args.json, &open.place, &fed, &summaries)?;
    if fed.failed.is_empty() {
        return Ok(cli::OK);
    }
    bail!("{}", fed.failed.join("\n"))
}

/// What a file is called in the log.
pub fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// What is noted before a file is imported: its records may be there in part from now on.
fn begun_note(name: &str, digest: &str) -> ImportNote {
    ImportNote {
        file: name.to_owned(),
        digest: digest.to_owned(),
        complete: false,
        records: 0,
        rejected: 0,
        notes: Vec::new(),
        at_ms: now_ms(),
    }
}

/// What is noted of a file whose records are all in the log; `place` is its place among those that were fed.
pub fn finished_note(name: &str, digest: &str, fed: &Fed, place: usize, summary: &Summary) -> ImportNote {
    ImportNote {
        complete: true,
        records: fed.by_file[place],
        rejected: fed.rejected_by_file[place],
        notes: shift_note(summary).into_iter().collect(),
        ..begun_note(name, digest)
    }
}

/// What is to be said wherever news is shown that was moved in time.
pub fn shift_note(summary: &Summary) -> Option<String> {
    let shift = summary.news_shift?;
    Some(format!(
        "news was moved in time: published {} to {}, shown as {} to {}",
        shift.original.0, shift.original.1, shift.mapped.0, shift.mapped.1
    ))
}

/// A file imported twice would count every record twice.
fn check_new(
    log: &dyn tidewire_engine::log::Log,
    names: &[String],
    digests: &[String],
    again: bool,
) -> anyhow::Result<()> {
    for (place, name) in names.iter().enumerate() {
        if digests[..place].contains(&digests[place]) {
            bail!("{name} is named twice, or two files are the same");
        }
    }
    if again {
        return Ok(());
    }
    let before: Vec<ImportNote> = notes::all(log, IMPORTS)?;
    for (name, digest) in names.iter().zip(digests) {
        let mut same = before.iter().filter(|note| note.digest == *digest);
        if let Some(note) = same.clone().find(|note| note.complete) {
            bail!(
                "{name} was imported before, as {} ({} records); with `--again` its records are written once more",
                note.file,
                note.records
            );
        }
        if same.next().is_some() {
            bail!(
                "an import of {name} was cut short, after a part of its records. Import it into a fresh log \
                 (`--data DIR`); with `--again` all its records are written, that part for the second time"
            );
        }
    }
    Ok(())
}

/// A bar on a terminal; nothing elsewhere.
pub fn progress_bar(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {msg}  {elapsed}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(as_json: bool, place: &Place, fed: &Fed, summaries: &[Summary]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        let files = summaries.iter().enumerate().map(|(place, summary)| {
            json!({
                "file": summary.path.display().to_string(),
                "format": summary.format.name(),
                "records": fed.by_file[place],
                "rejected": summary.rejected,
                "first_event_time": summary.first_event_time.map(|time| time.to_string()),
                "last_event_time": summary.last_event_time.map(|time| time.to_string()),
                "news_moved": shift_note(summary),
            })
        });
        let done = json!({
            "data": place.to_string(),
            "records": fed.records(),
            "rejected": fed.rejected(),
            "by_topic": fed.by_topic,
            "files": files.collect::<Vec<_>>(),
            "failed": fed.failed,
        });
        serde_json::to_writer(&mut out, &done).context("writing to stdout")?;
        writeln!(out)?;
        return Ok(());
    }
    for summary in summaries {
        write!(out, "{summary}")?;
    }
    let (records, rejected) = (fed.records(), fed.rejected());
    writeln!(out, "{} {} written to {}", grouped(records), plural_u64(records, "record", "records"), place)?;
    if rejected > 0 {
        let lines = plural_u64(rejected, "line", "lines");
        writeln!(out, "{} {lines} rejected: `tidewire dead-letters list` shows them", grouped(rejected))?;
    }
    Ok(())
}

fn plural_u64<'a>(count: u64, one: &'a str, many: &'a str) -> &'a str {
    plural(usize::try_from(count).unwrap_or(usize::MAX), one, many)
}
