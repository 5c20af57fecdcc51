//! `tidewire sink`: the stores of a pipeline file, until Ctrl-C.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use tidewire_engine::log::Log;
use tidewire_runtime::registry::{RegistryOptions, read_book_with};
use tidewire_runtime::sink::{self, Schemas, SinkCounters, SinkEvent, SinkNews};

use crate::cli::{self, Context};
use crate::files::load_pipeline;
use crate::interrupt;
use crate::open;
use crate::pipeline::{Pipeline, SinkTable};
use crate::table::grouped;

/// Writes what topics hold to the stores that the file's [[sink]] tables name. Each sink is a consumer group: start it as
/// often as wanted, kill it when you like. A record counts once, and an older one never wins. A store that is down stops
/// its own sink alone, which goes on by itself. On an embedded log `tidewire run` must have the log open.
///
/// Examples:
///   tidewire sink pipelines/my.toml
///   tidewire sink pipelines/my.toml --name cache --bootstrap localhost:9092
///   REDIS_URL=redis://:password@localhost tidewire sink my.toml     with `url_env = "REDIS_URL"` in the file
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The pipeline file, or the name of one that ships.
    file: PathBuf,
    /// Only this sink; may be given several times.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let loaded = load_pipeline(&args.file)?;
    let pipeline = &loaded.pipeline;
    let mut specs = Vec::new();
    let mut shown = Vec::new();
    for table in chosen(args, pipeline, &context.deployment.sinks)? {
        let (spec, url) = table.spec(&pipeline.name)?;
        shown.push(format!("{} ({}) to {url}", spec.name, spec.topics.join(", ")));
        specs.push(spec);
    }
    let stop = interrupt::stop_flag()?;
    let Some((place, log)) = open::for_sinks(context, &pipeline.deployment, &stop)? else {
        return Ok(cli::OK);
    };
    writeln!(io::stderr(), "writing from {place}: {}; Ctrl-C stops", shown.join("; "))?;
    let counters = SinkCounters::default();
    let schemas = schemas_of(&log, open::registry_options(context, &pipeline.deployment)?);
    let prefix = format!("{}-{}", pipeline.name, std::process::id());
    let done = sink::run(&log, &schemas, &specs, &counters, &prefix, &stop, |event| say(&event));
    finish(&counters)?;
    done?;
    Ok(cli::OK)
}

/// The sinks to run: those of the pipeline file, or of the file of `--config` where it has none.
fn chosen<'a>(
    args: &Args,
    pipeline: &'a Pipeline,
    configured: &'a [SinkTable],
) -> anyhow::Result<Vec<&'a SinkTable>> {
    let own = &pipeline.deployment.sinks;
    let tables = if own.is_empty() { configured } else { own };
    if tables.is_empty() {
        bail!("{} has no [[sink]]: docs/sinks.md shows how one is written", args.file.display());
    }
    let names = || tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = args.name.iter().find(|name| !tables.iter().any(|table| table.name == **name)) {
        bail!("there is no sink called {unknown}: there is {}", names());
    }
    let wanted =
        |table: &&SinkTable| args.name.is_empty() || args.name.iter().any(|name| table.name == *name);
    let chosen: Vec<&SinkTable> = tables.iter().filter(wanted).collect();
    for table in &chosen {
        if let Some(topic) =
            table.topics.iter().find(|topic| !pipeline.topics.iter().any(|plan| plan.name == **topic))
        {
            bail!(
                "sink {} reads {topic}, which no stage of {} reads or writes: name others with `topics = [...]`",
                table.name,
                pipeline.name
            );
        }
    }
    Ok(chosen)
}

fn schemas_of(log: &Arc<dyn Log>, registry: RegistryOptions) -> Schemas {
    let log = Arc::clone(log);
    Arc::new(move || read_book_with(&*log, &registry).map_err(|error| error.to_string()))
}

fn say(event: &SinkEvent) {
    let SinkEvent { sink, topic, what } = event;
    let text = match what {
        SinkNews::Retrying { attempts: 1, error, .. } => format!("waits, and tries again: {error}"),
        SinkNews::Retrying { attempts, error, .. } => {
            format!("still waits, after {attempts} attempts: {error}")
        }
        SinkNews::Recovered { attempts } => format!("goes on, after {attempts} attempts"),
        SinkNews::DeadLetter { place, reason, error } => format!("dead letter: {place}: {error} ({reason})"),
        SinkNews::Skipped { at, from, to } => {
            format!("{at}: offsets {from} to {} were deleted before they were read", to.saturating_sub(1))
        }
        SinkNews::Rejoining { why } => format!("joins again: {why}"),
        SinkNews::Stopped { why } => format!("stopped: {why}"),
    };
    let _ = writeln!(io::stderr(), "{sink}, {topic}: {text}");
}

fn finish(counters: &SinkCounters) -> io::Result<()> {
    let mut err = io::stderr().lock();
    for ((sink, topic), stats) in counters.snapshot() {
        writeln!(
            err,
            "{sink}, {topic}: {} records written, {} known already, {} dead letters, {} attempts made again",
            grouped(stats.applied),
            grouped(stats.stale),
            grouped(stats.dead_letters),
            grouped(stats.retries),
        )?;
    }
    Ok(())
}
