//! `tidewire check`: checks a pipeline file and draws what would run.

use std::io::{self, Write as _};
use std::path::PathBuf;

use serde_json::json;

use crate::cli;
use crate::files::load_pipeline;
use crate::pipeline::{describe, draw};

/// Nothing is started and no log is opened. Problems are told all at once, with file, line and column.
///
/// Example: tidewire check pipelines/market-intel.toml
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline file, or the name of one that ships, such as market-intel.
    file: PathBuf,
    /// Print what would run as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let loaded = load_pipeline(&args.file)?;
    let pipeline = &loaded.pipeline;
    let mut out = io::stdout().lock();
    if !args.json {
        write!(out, "{}", draw::draw(pipeline))?;
        return Ok(cli::OK);
    }
    let topics = pipeline.topics.iter().map(|topic| {
        json!({
            "name": topic.name,
            "partitions": topic.partitions,
            "compacted": topic.compacted,
            "retention_ms": topic.retention_ms,
            "retention_bytes": topic.retention_bytes,
            "kinds": topic.kinds.as_ref().map(|kinds| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>()),
        })
    });
    let described = json!({
        "pipeline": pipeline.name,
        "stages": pipeline.stages.iter().map(|stage| describe::stage(stage)).collect::<Vec<_>>(),
        "topics": topics.collect::<Vec<_>>(),
        "limits": pipeline.limits.len(),
        "replay_retention_ms": pipeline.replay_retention_ms,
        "warnings": pipeline.warnings,
    });
    serde_json::to_writer_pretty(&mut out, &described)?;
    writeln!(out)?;
    Ok(cli::OK)
}
