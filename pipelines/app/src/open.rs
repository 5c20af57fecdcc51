//! Opens the log that was named: a Kafka cluster, or the embedded one, here or through the process that has it open.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use tidewire_engine::log::Log;
use tidewire_runtime::embedded::{self, EmbeddedLog, EmbeddedOptions, Opened, RemoteLog, open_any};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_runtime::registry::{open_book, read_book};
use tidewire_schemas::SchemaBook;

use crate::cli::Context;
use crate::pipeline::Deployment;

/// How often sinks look whether the log can be reached.
const WAIT_FOR_RUN: Duration = Duration::from_millis(100);

/// What a successful commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// Loss of power: every commit waits for the disk.
    Fsync,
    /// The end of the process, by kill -9 too.
    Buffered,
}

impl From<Durability> for embedded::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Fsync => Self::Fsync,
            Durability::Buffered => Self::Buffered,
        }
    }
}

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a folder.
    Folder(PathBuf),
    /// On a cluster with these brokers.
    Kafka(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dir) => write!(f, "{}", dir.display()),
            Self::Kafka(bootstrap) => write!(f, "kafka {bootstrap}"),
        }
    }
}

/// An open log with its schemas.
pub struct OpenLog {
    /// Where it is.
    pub place: Place,
    /// How an embedded one was reached; keeps it open.
    opened: Option<Opened>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Its schemas.
    pub book: Arc<SchemaBook>,
}

impl OpenLog {
    /// Whether another process has it open. Nobody has a cluster for itself.
    pub fn is_elsewhere(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.embedded().is_none())
    }

    /// The embedded log, if it is one that this process has open.
    pub fn embedded(&self) -> Option<&Arc<EmbeddedLog>> {
        self.opened.as_ref().and_then(Opened::embedded)
    }
}

/// Opens the log, made if it is a folder that is not there, to be written to.
pub fn to_write(context: &Context) -> anyhow::Result<OpenLog> {
    to_write_for(context, &Deployment::default())
}

/// Opens the log that `deployment`, of a pipeline file, or the command line names.
pub fn to_write_for(context: &Context, deployment: &Deployment) -> anyhow::Result<OpenLog> {
    match kafka_options(context, deployment)? {
        Some(options) => on_kafka(options, true),
        None => folder_to_write(context, &context.data()),
    }
}

/// Opens a log that must be there, to be read.
pub fn to_read(context: &Context) -> anyhow::Result<OpenLog> {
    to_read_for(context, &Deployment::default())
}

/// Opens the log, which must be there, that `deployment`, of a pipeline file, or the command line names.
pub fn to_read_for(context: &Context, deployment: &Deployment) -> anyhow::Result<OpenLog> {
    if let Some(options) = kafka_options(context, deployment)? {
        return on_kafka(options, false);
    }
    let dir = context.data();
    check_there(&dir)?;
    let opened = open_any(&dir, options(context)).with_context(|| failed(&dir))?;
    let log = opened.log();
    let book = Arc::new(read_book(&*log).with_context(|| failed(&dir))?);
    Ok(OpenLog { place: Place::Folder(dir), opened: Some(opened), log, book })
}

/// Opens the log as stages need it: on a folder, groups live in one process.
pub fn to_run(context: &Context, deployment: &Deployment) -> anyhow::Result<OpenLog> {
    let open = to_write_for(context, deployment)?;
    check_here(open)
}

/// Opens the log as sinks need it. A folder's log is left to the process that runs the stages: sinks go through it, and
/// wait for it, so that neither keeps the other from starting. `None`: told to stop meanwhile.
pub fn for_sinks(
    context: &Context,
    deployment: &Deployment,
    stop: &AtomicBool,
) -> anyhow::Result<Option<(Place, Arc<dyn Log>)>> {
    if let Some(options) = kafka_options(context, deployment)? {
        let open = on_kafka(options, true)?;
        return Ok(Some((open.place, open.log)));
    }
    let dir = context.data();
    let mut told = false;
    while !stop.load(Ordering::SeqCst) {
        match RemoteLog::connect(&dir) {
            Ok(log) => return Ok(Some((Place::Folder(dir), Arc::new(log)))),
            Err(_) if told => {}
            Err(_) => {
                told = true;
                let shown = dir.display();
                writeln!(
                    io::stderr(),
                    "waiting for `tidewire run` to have the log in {shown} open: sinks go through it"
                )?;
            }
        }
        std::thread::sleep(WAIT_FOR_RUN);
    }
    Ok(None)
}

/// Opens the embedded log in `dir` in this process.
pub fn here(context: &Context, dir: &Path) -> anyhow::Result<OpenLog> {
    check_here(folder_to_write(context, dir)?)
}

fn check_here(open: OpenLog) -> anyhow::Result<OpenLog> {
    if open.is_elsewhere() {
        bail!(
            "another process has the log in {} open; on the embedded log all stages run in one process. \
             Stop that process, or run it with more `--workers`",
            open.place
        );
    }
    Ok(open)
}

/// The cluster that was named: on the command line first, then in the pipeline file, then in the file of `--config`.
/// Its security is that of the first of these files that has a table.
fn kafka_options(context: &Context, deployment: &Deployment) -> anyhow::Result<Option<KafkaOptions>> {
    let bootstrap = context.bootstrap.as_deref();
    match deployment.kafka.as_ref().or(context.deployment.kafka.as_ref()) {
        Some(table) => table.options(bootstrap),
        None => Ok(bootstrap.map(KafkaOptions::new)),
    }
}

fn on_kafka(options: KafkaOptions, writes: bool) -> anyhow::Result<OpenLog> {
    let place = Place::Kafka(options.bootstrap.clone());
    let failed = || format!("the log on {place} can not be opened");
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(options).with_context(failed)?);
    let book = if writes { open_book(&*log) } else { read_book(&*log) };
    let book = Arc::new(book.with_context(failed)?);
    Ok(OpenLog { place, opened: None, log, book })
}

fn folder_to_write(context: &Context, dir: &Path) -> anyhow::Result<OpenLog> {
    let opened = open_any(dir, options(context)).with_context(|| failed(dir))?;
    let log = opened.log();
    let book = Arc::new(open_book(&*log).with_context(|| failed(dir))?);
    Ok(OpenLog { place: Place::Folder(dir.to_owned()), opened: Some(opened), log, book })
}

/// Refuses a folder without a log, so that a misspelt name does not make an empty one.
fn check_there(dir: &Path) -> anyhow::Result<()> {
    if dir.join("format").exists() {
        return Ok(());
    }
    bail!(
        "there is no log in {}: name its folder with `--data DIR`, or make one with `tidewire import` or `tidewire run`; \
         a cluster is named with `--bootstrap HOST:PORT`",
        dir.display()
    )
}

fn options(context: &Context) -> EmbeddedOptions {
    let durability = context.durability.map(embedded::Durability::from).unwrap_or_default();
    EmbeddedOptions { durability, ..EmbeddedOptions::default() }
}

fn failed(dir: &Path) -> String {
    format!("the log in {} can not be opened", dir.display())
}
