//! `tidewire reprocess`: recorded inputs through a pipeline again, into topics of a prefix.

mod show;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use smol_str::SmolStr;
use tidewire_engine::log::TopicPartition;
use tidewire_engine::log_limits::check_name;
use tidewire_runtime::bundle::BundleLog;

use self::show::{Done, Live};
use super::taking::Taking;
use crate::cli::{self, Context};
use crate::files::load_pipeline;
use crate::interrupt::stop_flag;
use crate::open::{self, Durability};
use crate::pipeline::Pipeline;
use crate::reprocess::{Job, Source, make_ready};

/// What comes of it goes to topics named `PREFIX.<topic>`, under groups of their own: the live run is not touched, and
/// may go on meanwhile. All other commands look at it with `--prefix PREFIX`. A run that was ended, by Ctrl-C or by
/// kill -9, goes on with the same command where it stood, and gives what it would have given undisturbed.
/// docs/reprocess.md has the whole of it.
///
/// Examples:
///   tidewire reprocess market-intel --into again
///   tidewire reprocess changed.toml --into changed --from 2024-08-08T23:54:00Z --to 2024-08-09T00:00:00Z
///   tidewire reprocess market-intel --into sorted --order event
///   tidewire reprocess market-intel --into files --files usdm_btcusdt.gz news.csv
///   tidewire reprocess market-intel --into again --inputs incident.tidewire --data ./incident
///   tidewire status --prefix again
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The pipeline file, or the name of one that ships, such as market-intel.
    file: PathBuf,
    /// Begins the names of all topics and groups of the run.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    into: SmolStr,
    /// Begin a partition with this offset; may be said for several.
    #[arg(long, value_name = "TOPIC/PARTITION@OFFSET", value_parser = Place::from_str, conflicts_with = "files")]
    from_offset: Vec<Place>,
    /// End a partition before this offset; may be said for several.
    #[arg(long, value_name = "TOPIC/PARTITION@OFFSET", value_parser = Place::from_str, conflicts_with = "files")]
    to_offset: Vec<Place>,
    /// Threads; the result does not depend on it [default: as many as the machine has cores].
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Another log that holds the inputs: a bundle, or the folder of an embedded log. They are copied under the prefix.
    #[arg(long, value_name = "PATH", conflicts_with = "files")]
    inputs: Option<PathBuf>,
    #[command(flatten)]
    taking: Taking,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// An offset of a partition.
#[derive(Clone, Debug)]
struct Place(TopicPartition, u64);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (at, offset) = text.rsplit_once('@')?;
            let (topic, partition) = at.rsplit_once('/')?;
            Some(Self(TopicPartition::new(topic, partition.parse().ok()?), offset.parse().ok()?))
        };
        read().ok_or_else(|| "written topic/partition@offset, such as market.ticks.v1/0@1200".to_owned())
    }
}

fn prefix(text: &str) -> Result<SmolStr, String> {
    check_name("prefix", text).map_err(|error| error.to_string())?;
    Ok(text.into())
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let loaded = load_pipeline(&args.file)?;
    if let Some(file) = context.bundle() {
        let bundle = BundleLog::open(file)?;
        let shown = bundle.path().display();
        bail!(
            "bundle {shown} can only be read, and a run is written: name it with `--inputs {shown}`, and with `--data DIR` \
             the folder of a log for the run, which is made if it is not there"
        );
    }
    let stop = stop_flag()?;
    let source =
        args.inputs.as_deref().map(|path| Source::open(path, context, &loaded.pipeline)).transpose()?;
    if let Some(source) = &source {
        say_of_stretch(source, &loaded.pipeline);
    }
    // What is run again can be made again: it need not survive loss of power.
    let context =
        Context { durability: Some(context.durability.unwrap_or(Durability::Buffered)), ..context.clone() };
    let open = open::to_write_for(&context, &loaded.pipeline)?;
    let places = |places: &[Place]| -> BTreeMap<TopicPartition, u64> {
        places.iter().map(|Place(at, offset)| (at.clone(), *offset)).collect()
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut options = args.taking.options(args.workers.map_or(cores, NonZeroUsize::get));
    options.asked.from_offsets = places(&args.from_offset);
    options.asked.to_offsets = places(&args.to_offset);
    options.asked.of_stretch = source.as_ref().is_some_and(Source::is_stretch);
    let job = Job {
        log: &open.log,
        book: &open.book,
        loaded: &loaded,
        options,
        limits: args.taking.limits,
        inputs: source.as_ref(),
        files: args.taking.files.clone(),
        reading: args.taking.reading.options(),
    };
    let started = Instant::now();
    let mut live = Live::new();
    let ready = make_ready(&job, &args.into, &stop, |told| live.preparing(told))?;
    let Some(ready) = ready else {
        live.clear();
        show::say(&format!("stopped before the run began; the same command goes on. Prefix {}", args.into));
        return Ok(cli::FAILED);
    };
    if ready.before.as_ref().is_some_and(|state| state.complete) {
        live.say(&format!("prefix {} is complete: nothing is left to do", args.into));
    }
    let view: Arc<dyn tidewire_engine::log::Log> = Arc::clone(&ready.view) as _;
    live.begin(&*view, &ready, &job)?;
    let summary = ready.run(&job, &stop, |progress| live.running(progress))?;
    live.clear();
    let done = Done {
        prefix: &args.into,
        pipeline: &loaded.pipeline.name,
        order: job.options.order,
        summary: &summary,
        began: ready.before.as_ref(),
        wall: started.elapsed(),
        run: live.elapsed(),
        place: &open.place,
        inputs: source.as_ref().map(|source| source.place().to_string()),
        ranges: &ready.ranges,
    };
    let mut out = io::stdout().lock();
    if args.json {
        show::json(&mut out, &done)?
    } else {
        show::text(&mut out, &done)?
    }
    Ok(if summary.stopped { cli::FAILED } else { cli::OK })
}

/// A bundle is a stretch: says what that means for the run.
fn say_of_stretch(source: &Source, pipeline: &Pipeline) {
    if !source.is_stretch() {
        return;
    }
    show::say(&format!(
        "{} begins within a longer run, and this run begins from nothing: until windows, averages and positions have \
         warmed up, results are not those of the live run",
        source.place()
    ));
    if let Some(words) = source.of_keys_alone() {
        show::say(&format!("{}: {words}", source.place()));
    }
    let absent = source.absent(pipeline);
    if !absent.is_empty() {
        show::say(&format!(
            "{} has no epoch of {}: what only these stages read from outside is not in it",
            source.place(),
            absent.join(", ")
        ));
    }
}
