//! Opens the log that was named: a Kafka cluster, or the embedded one, here or through the process that has it open.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use tidewire_engine::log::Log;
use tidewire_engine::only::OnlyKeys;
use tidewire_runtime::bundle::BundleLog;
use tidewire_runtime::embedded::{self, EmbeddedLog, EmbeddedOptions, Opened, RemoteLog, open_any};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_runtime::prefixed::PrefixedLog;
use tidewire_runtime::registry::{
    LearningLog, Placement, RegistryError, RegistryOptions, RestOptions, Source, open_book_with,
    read_book_with,
};
use tidewire_schemas::SchemaBook;

use crate::bundle::book_of;
use crate::cli::Context;
use crate::pipeline::{Deployment, Pipeline};
use crate::placements::placements;

/// How often sinks look whether the log can be reached.
const WAIT_FOR_RUN: Duration = Duration::from_millis(100);
/// How long a run waits for other processes to be done with its folder.
const WAIT_FOR_LOOKERS: Duration = Duration::from_secs(2);

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
    /// In a file, to be read.
    Bundle(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dir) => write!(f, "{}", dir.display()),
            Self::Bundle(file) => write!(f, "bundle {}", file.display()),
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
    /// The bundle, if it is one.
    bundle: Option<Arc<BundleLog>>,
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

    /// The bundle, if the log is one.
    pub fn bundle(&self) -> Option<&BundleLog> {
        self.bundle.as_deref()
    }

    /// The keys that the log is restricted to, if it is a bundle of some.
    pub fn only_keys(&self) -> Option<Arc<OnlyKeys>> {
        let keys = &self.bundle()?.about().keys;
        (!keys.is_empty()).then(|| Arc::new(OnlyKeys::new(keys.iter().map(String::as_str))))
    }

    /// The embedded log, if it is one that this process has open.
    pub fn embedded(&self) -> Option<&Arc<EmbeddedLog>> {
        self.opened.as_ref().and_then(Opened::embedded)
    }
}

/// A log without its schemas.
pub struct BareLog {
    /// Where it is.
    pub place: Place,
    /// How an embedded one was reached; keeps it open.
    opened: Option<Opened>,
    /// The bundle, if it is one.
    bundle: Option<Arc<BundleLog>>,
    /// The log.
    pub log: Arc<dyn Log>,
}

/// What a log is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFor {
    /// A folder must be there.
    Reading,
    /// A folder is made if it is not there.
    Writing,
}

/// Opens the log, made if it is a folder that is not there, to be written to.
pub fn to_write(context: &Context) -> anyhow::Result<OpenLog> {
    write_with(context, &Deployment::default(), &[])
}

/// Opens the log that a pipeline file or the command line names, with subjects for the pipeline's topics.
pub fn to_write_for(context: &Context, pipeline: &Pipeline) -> anyhow::Result<OpenLog> {
    write_with(context, &pipeline.deployment, &placements(pipeline))
}

fn write_with(
    context: &Context,
    deployment: &Deployment,
    placements: &[Placement],
) -> anyhow::Result<OpenLog> {
    let bare = without_schemas(context, deployment, OpenFor::Writing)?;
    let registry = registry_options(context, deployment)?;
    with_book(bare, &registry, |log| open_book_with(log, &registry, placements))
}

/// Opens a log that must be there, to be read.
pub fn to_read(context: &Context) -> anyhow::Result<OpenLog> {
    to_read_for(context, &Deployment::default())
}

/// Opens the log, which must be there, that `deployment`, of a pipeline file, or the command line names.
pub fn to_read_for(context: &Context, deployment: &Deployment) -> anyhow::Result<OpenLog> {
    let bare = open_bare(context, deployment, OpenFor::Reading)?;
    let registry = registry_options(context, deployment)?;
    let open = with_book(bare, &registry, |log| read_book_with(log, &registry))?;
    let Some(prefix) = &context.prefix else { return Ok(open) };
    let log = Arc::new(of_prefix(&open.log, prefix)?);
    Ok(OpenLog { log, ..open })
}

/// The run of a prefix, which must be there.
pub fn of_prefix(log: &Arc<dyn Log>, prefix: &str) -> anyhow::Result<PrefixedLog> {
    if PrefixedLog::topics_under(&**log, prefix)?.is_empty() {
        bail!(
            "there is no run of prefix {prefix}: no topic begins with `{prefix}.`; `tidewire topics list` shows what \
             there is"
        );
    }
    Ok(PrefixedLog::new(Arc::clone(log), prefix)?)
}

/// Opens the log as a pipeline's stages need it: on a folder, groups live in one process.
pub fn to_run(context: &Context, pipeline: &Pipeline) -> anyhow::Result<OpenLog> {
    let bare = alone(|| without_schemas(context, &pipeline.deployment, OpenFor::Writing))?;
    let registry = registry_options(context, &pipeline.deployment)?;
    with_book(bare, &registry, |log| open_book_with(log, &registry, &placements(pipeline)))
}

/// Opens the embedded log in `dir` in this process, for a pipeline.
pub fn here(context: &Context, dir: &Path, pipeline: &Pipeline) -> anyhow::Result<OpenLog> {
    refuse_prefix(context)?;
    let bare = alone(|| folder(context, dir))?;
    let registry = registry_options(context, &Deployment::default())?;
    with_book(bare, &registry, |log| open_book_with(log, &registry, &placements(pipeline)))
}

/// Opens a log that no other process has open. One that only looks at it, such as `tail`, is gone in a moment, and is
/// waited for; nothing is written through it meanwhile.
fn alone(open: impl Fn() -> anyhow::Result<BareLog>) -> anyhow::Result<BareLog> {
    let begun = Instant::now();
    loop {
        let bare = open()?;
        if bare.opened.as_ref().is_none_or(|opened| opened.embedded().is_some()) {
            return Ok(bare);
        }
        if begun.elapsed() > WAIT_FOR_LOOKERS {
            bail!(
                "another process has the log in {} open; on the embedded log all stages run in one process. \
                 Stop that process, or run it with more `--workers`",
                bare.place
            );
        }
        drop(bare);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Opens the log for those who look after its schemas themselves.
pub fn without_schemas(
    context: &Context,
    deployment: &Deployment,
    purpose: OpenFor,
) -> anyhow::Result<BareLog> {
    refuse_prefix(context)?;
    open_bare(context, deployment, purpose)
}

/// A run of a prefix is there to be looked at: what writes would else write to the live topics beside it.
pub fn refuse_prefix(context: &Context) -> anyhow::Result<()> {
    match &context.prefix {
        Some(prefix) => {
            bail!("this command writes, or takes the log whole: it does not take `--prefix {prefix}`")
        }
        None => Ok(()),
    }
}

fn open_bare(context: &Context, deployment: &Deployment, purpose: OpenFor) -> anyhow::Result<BareLog> {
    if let Some(file) = context.bundle() {
        return bundle(file, purpose);
    }
    if let Some(options) = kafka_options(context, deployment)? {
        let place = Place::Kafka(options.bootstrap.clone());
        let log = KafkaLog::connect(options).with_context(|| failed(&place))?;
        return Ok(BareLog { place, opened: None, bundle: None, log: Arc::new(log) });
    }
    let dir = context.data();
    if purpose == OpenFor::Reading {
        check_there(&dir)?;
    }
    folder(context, &dir)
}

/// Opens a bundle. What would be written to it is refused before anything is done.
fn bundle(file: &Path, purpose: OpenFor) -> anyhow::Result<BareLog> {
    let log = Arc::new(BundleLog::open(file)?);
    let place = Place::Bundle(file.to_owned());
    if purpose == OpenFor::Writing {
        bail!(read_only(&place));
    }
    Ok(BareLog { place, opened: None, log: Arc::clone(&log) as Arc<dyn Log>, bundle: Some(log) })
}

fn read_only(place: &Place) -> String {
    format!(
        "{place} can only be read: this command writes. Name a folder with `--data DIR`, or a cluster with \
         `--bootstrap HOST:PORT`"
    )
}

fn folder(context: &Context, dir: &Path) -> anyhow::Result<BareLog> {
    if dir.is_file() {
        return bundle(dir, OpenFor::Writing);
    }
    let place = Place::Folder(dir.to_owned());
    let opened = open_any(dir, options(context)).with_context(|| failed(&place))?;
    let log = opened.log();
    Ok(BareLog { place, opened: Some(opened), bundle: None, log })
}

/// A log with its book, which learns the schemas that are registered from now on.
fn with_book(
    bare: BareLog,
    registry: &RegistryOptions,
    book: impl FnOnce(&dyn Log) -> Result<SchemaBook, RegistryError>,
) -> anyhow::Result<OpenLog> {
    if let Some(bundle) = bare.bundle {
        // All schemas of its records are in it, whatever registry the log had.
        let book = Arc::new(book_of(&*bare.log).with_context(|| failed(&bare.place))?);
        return Ok(OpenLog { place: bare.place, opened: None, bundle: Some(bundle), log: bare.log, book });
    }
    let book = Arc::new(book(&*bare.log).with_context(|| failed(&bare.place))?);
    let registry = registry.connect(&bare.log)?;
    let log = Arc::new(LearningLog::new(bare.log, Arc::clone(&book), registry));
    Ok(OpenLog { place: bare.place, opened: bare.opened, bundle: None, log, book })
}

/// The registry that was named: on the command line first, then in the pipeline file, then in the file of `--config`.
/// How it is talked to stands in the first of these files that has a table.
pub fn registry_options(context: &Context, deployment: &Deployment) -> anyhow::Result<RegistryOptions> {
    let url = context.registry.as_deref();
    match deployment.schema_registry.as_ref().or(context.deployment.schema_registry.as_ref()) {
        Some(table) => table.options(url),
        None => {
            let source = url.map_or(Source::Log, |url| Source::Rest(RestOptions::new(url.split(','))));
            Ok(RegistryOptions { source, ..RegistryOptions::default() })
        }
    }
}

/// Opens the log as sinks need it. A folder's log is left to the process that runs the stages: sinks go through it, and
/// wait for it, so that neither keeps the other from starting. `None`: told to stop meanwhile.
pub fn for_sinks(
    context: &Context,
    deployment: &Deployment,
    stop: &AtomicBool,
) -> anyhow::Result<Option<(Place, Arc<dyn Log>)>> {
    let Some((place, log)) = through_run(context, deployment, stop, "sinks go")? else { return Ok(None) };
    Ok(Some(match &context.prefix {
        Some(prefix) => (place, Arc::new(of_prefix(&log, prefix)?)),
        None => (place, log),
    }))
}

/// Opens the log, to be read for as long as it is written to. As with sinks, a folder's log is left to the process that
/// runs the stages. `None`: told to stop meanwhile.
pub fn to_follow(
    context: &Context,
    deployment: &Deployment,
    stop: &AtomicBool,
) -> anyhow::Result<Option<OpenLog>> {
    let registry = registry_options(context, deployment)?;
    if kafka_options(context, deployment)?.is_none() {
        check_there(&context.data())?;
    }
    let Some((place, log)) = through_run(context, deployment, stop, "the check goes")? else {
        return Ok(None);
    };
    let bare = BareLog { place, opened: None, bundle: None, log };
    let open = with_book(bare, &registry, |log| read_book_with(log, &registry))?;
    let Some(prefix) = &context.prefix else { return Ok(Some(open)) };
    let log = Arc::new(of_prefix(&open.log, prefix)?);
    Ok(Some(OpenLog { log, ..open }))
}

fn through_run(
    context: &Context,
    deployment: &Deployment,
    stop: &AtomicBool,
    who_goes: &str,
) -> anyhow::Result<Option<(Place, Arc<dyn Log>)>> {
    if let Some(file) = context.bundle() {
        bail!(read_only(&Place::Bundle(file.to_owned())));
    }
    if let Some(options) = kafka_options(context, deployment)? {
        let place = Place::Kafka(options.bootstrap.clone());
        let log = KafkaLog::connect(options).with_context(|| failed(&place))?;
        return Ok(Some((place, Arc::new(log))));
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
                    "waiting for `tidewire run` to have the log in {shown} open: {who_goes} through it"
                )?;
            }
        }
        std::thread::sleep(WAIT_FOR_RUN);
    }
    Ok(None)
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

fn failed(place: &Place) -> String {
    match place {
        Place::Folder(dir) => format!("the log in {} can not be opened", dir.display()),
        Place::Kafka(_) => format!("the log on {place} can not be opened"),
        Place::Bundle(_) => format!("{place} can not be opened"),
    }
}
