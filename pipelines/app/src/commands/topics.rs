//! `tidewire topics`: what is in the log.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};
use tidewire_engine::log::{Bounds, Log, TopicPartition, TopicSpec};
use tidewire_schemas::topics;

use crate::cli::{self, Context};
use crate::feed::standard_topic;
use crate::files::load_pipeline;
use crate::open;
use crate::pipeline::{DEFAULT_PARTITIONS, default_partitions, nearest};
use crate::start::make_topics;
use crate::table::{Align, Table, grouped};
use crate::topic_check::{check, wanted};

/// Examples:
///   tidewire topics
///   tidewire topics describe market.ticks.v1
///   tidewire topics create market.ticks.v1 --partitions 8
///   tidewire topics create --pipeline pipelines/market-intel.toml --bootstrap localhost:9092
///   tidewire topics check pipelines/market-intel.toml --bootstrap localhost:9092
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List all topics (the default).
    List,
    /// Show one topic, partition by partition.
    Describe {
        /// The topic.
        topic: String,
    },
    /// Compare the topics with what a pipeline needs: partitions, compaction, retention, timestamps, partitioner.
    Check {
        /// The pipeline file, or the name of one that ships.
        pipeline: PathBuf,
    },
    /// Make a topic, or all that a pipeline needs.
    Create {
        /// The topic.
        #[arg(required_unless_present = "pipeline", conflicts_with = "pipeline")]
        topic: Option<String>,
        /// Make all topics of this pipeline file that are not there, journals and changelogs among them.
        #[arg(long, value_name = "FILE", conflicts_with = "partitions")]
        pipeline: Option<PathBuf>,
        /// Partitions [default: 4 for keyed topics, 1 for reference data].
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
        partitions: Option<u32>,
    },
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    match args.what.as_ref().unwrap_or(&What::List) {
        What::List => list(args.json, context),
        What::Describe { topic } => describe(args.json, topic, context),
        What::Check { pipeline } => check_pipeline(args.json, pipeline, context),
        What::Create { topic: Some(topic), partitions, .. } => create(topic, *partitions, context),
        What::Create { pipeline, .. } => create_all(pipeline.as_deref(), context),
    }
}

fn list(as_json: bool, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_read(context)?;
    let mut out = io::stdout().lock();
    let mut table = Table::new(&[
        ("topic", Align::Left),
        ("partitions", Align::Right),
        ("offsets", Align::Right),
        ("kept", Align::Left),
    ]);
    let mut all = Vec::new();
    for spec in open.log.topics()? {
        let bounds = bounds(&*open.log, &spec)?;
        let offsets: u64 = bounds.iter().map(|bounds| bounds.stable_end.saturating_sub(bounds.start)).sum();
        if as_json {
            all.push(as_value(&spec, &bounds));
        } else {
            table.row([spec.name.to_string(), spec.partitions.to_string(), grouped(offsets), kept(&spec)]);
        }
    }
    if as_json {
        serde_json::to_writer_pretty(&mut out, &all)?;
        writeln!(out)?;
    } else if table.is_empty() {
        writeln!(out, "the log in {} has no topics", open.place)?;
    } else {
        table.write(&mut out, "")?;
    }
    Ok(cli::OK)
}

fn describe(as_json: bool, topic: &str, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_read(context)?;
    let spec = find(&*open.log, topic)?;
    let bounds = bounds(&*open.log, &spec)?;
    let mut out = io::stdout().lock();
    if as_json {
        serde_json::to_writer_pretty(&mut out, &as_value(&spec, &bounds))?;
        writeln!(out)?;
        return Ok(cli::OK);
    }
    writeln!(out, "{}: {} partitions, {}", spec.name, spec.partitions, kept(&spec))?;
    if let Some(known) = topics::find(topic) {
        let kinds: Vec<&str> = known.kinds.iter().map(|kind| kind.name()).collect();
        let key = if known.key.is_empty() { "as the source's".to_owned() } else { known.key.join("/") };
        writeln!(out, "records: {}; key: {key}", kinds.join(", "))?;
    }
    let mut table = Table::new(&[
        ("partition", Align::Right),
        ("start", Align::Right),
        ("end", Align::Right),
        ("open", Align::Right),
    ]);
    for (partition, bounds) in bounds.iter().enumerate() {
        let pending = bounds.high_watermark.saturating_sub(bounds.stable_end);
        let cells = [partition as u64, bounds.start, bounds.stable_end, pending];
        table.row(cells.map(|number| number.to_string()));
    }
    table.write(&mut out, "  ")?;
    Ok(cli::OK)
}

fn create(topic: &str, partitions: Option<u32>, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_write(context)?;
    let partitions = partitions.unwrap_or_else(|| default_partitions(topic, DEFAULT_PARTITIONS));
    let spec = standard_topic(topic, partitions);
    if open.log.topic(topic)?.is_some() {
        bail!("topic {topic} is there already: `tidewire topics describe {topic}` shows it");
    }
    open.log.create_topic(&spec)?;
    writeln!(io::stdout(), "made {}: {} partitions, {}", spec.name, spec.partitions, kept(&spec))?;
    Ok(cli::OK)
}

fn create_all(file: Option<&Path>, context: &Context) -> anyhow::Result<u8> {
    let pipeline = load_pipeline(file.unwrap_or(Path::new("market-intel")))?.pipeline;
    let open = open::to_write_for(context, &pipeline)?;
    let made = make_topics(&*open.log, &pipeline)?;
    let mut out = io::stdout().lock();
    for spec in &made {
        writeln!(out, "made {}: {} partitions, {}", spec.name, spec.partitions, kept(spec))?;
    }
    let (made, all) = (made.len(), wanted(&pipeline).len());
    writeln!(out, "{made} of {} {all} topics made, the others are there", pipeline.name)?;
    Ok(cli::OK)
}

fn check_pipeline(as_json: bool, file: &Path, context: &Context) -> anyhow::Result<u8> {
    let pipeline = load_pipeline(file)?.pipeline;
    let open = open::to_read_for(context, &pipeline.deployment)?;
    let findings = check(&*open.log, &pipeline, true)?;
    let mut out = io::stdout().lock();
    if as_json {
        let all: Vec<Value> = findings
            .iter()
            .map(|found| json!({ "topic": found.topic, "error": found.is_error, "text": found.text }))
            .collect();
        serde_json::to_writer_pretty(&mut out, &all)?;
        writeln!(out)?;
    } else if findings.is_empty() {
        let count = wanted(&pipeline).len();
        writeln!(out, "all {count} topics are as {} needs them", pipeline.name)?;
    } else {
        for finding in &findings {
            writeln!(out, "{finding}")?;
        }
    }
    Ok(if findings.iter().any(|finding| finding.is_error) { cli::FAILED } else { cli::OK })
}

/// The topic's layout, or an error that names the nearest topic.
pub fn find(log: &dyn Log, topic: &str) -> anyhow::Result<TopicSpec> {
    if let Some(spec) = log.topic(topic)? {
        return Ok(spec);
    }
    let all = log.topics()?;
    let names: Vec<&str> = all.iter().map(|spec| spec.name.as_str()).collect();
    match nearest(topic, &names) {
        Some(near) => bail!("there is no topic {topic}; the nearest name is {near}"),
        None => bail!("there is no topic {topic}; `tidewire topics` lists them"),
    }
}

fn bounds(log: &dyn Log, spec: &TopicSpec) -> anyhow::Result<Vec<Bounds>> {
    let all =
        (0..spec.partitions).map(|partition| log.bounds(&TopicPartition::new(spec.name.clone(), partition)));
    Ok(all.collect::<Result<_, _>>()?)
}

fn kept(spec: &TopicSpec) -> String {
    let mut words = Vec::new();
    if spec.compacted {
        words.push(format!("last of each key after {} ms", spec.compaction_lag_ms));
    }
    words.extend(spec.retention_ms.map(|ms| format!("{ms} ms")));
    words.extend(spec.retention_bytes.map(|bytes| format!("{bytes} bytes a partition")));
    if words.is_empty() { "everything".to_owned() } else { words.join(", ") }
}

fn as_value(spec: &TopicSpec, bounds: &[Bounds]) -> Value {
    let partitions = bounds.iter().enumerate().map(|(partition, bounds)| {
        json!({
            "partition": partition,
            "start": bounds.start,
            "end": bounds.stable_end,
            "high_watermark": bounds.high_watermark,
        })
    });
    json!({
        "name": spec.name,
        "compacted": spec.compacted,
        "compaction_lag_ms": spec.compaction_lag_ms,
        "retention_ms": spec.retention_ms,
        "retention_bytes": spec.retention_bytes,
        "partitions": partitions.collect::<Vec<_>>(),
    })
}
