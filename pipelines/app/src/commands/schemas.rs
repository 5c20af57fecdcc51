//! `tidewire schemas`: what is registered, whether this build goes with it, and a registry for development.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use tidewire_runtime::registry::server::RegistryServer;
use tidewire_runtime::registry::{
    LogRegistry, Placement, Registered, RestRegistry, SchemaRegistry, Source, standard_placements,
};

use crate::cli::{self, Context};
use crate::files::load_pipeline;
use crate::interrupt;
use crate::open::{self, BareLog, OpenFor};
use crate::pipeline::{Deployment, Pipeline};
use crate::placements::placements;
use crate::table::{Align, Table};

/// How often `serve` looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(200);

/// The registry is the log's own, unless `--registry` or `[schema_registry]` of the pipeline file, or of the file of
/// `--config`, names another one.
///
/// Examples:
///   tidewire schemas list
///   tidewire schemas show signals.v1-tidewire.Signal
///   tidewire schemas check pipelines/market-intel.toml
///   tidewire schemas register pipelines/market-intel.toml
///   tidewire schemas serve --listen 127.0.0.1:8081
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List subjects with their versions and ids.
    List {
        /// Only subjects that begin so.
        #[arg(default_value = "")]
        prefix: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a schema.
    Show {
        /// Its subject, or its id.
        schema: String,
        /// Its version under the subject [default: the last one].
        #[arg(long, value_name = "N")]
        version: Option<u32>,
    },
    /// Tell which of this build's schemas are registered for a pipeline's topics, and which may not be. The exit code
    /// is 1 if one may not be registered, or is missing where nothing registers it by itself.
    Check {
        /// The pipeline file, or the name of one that ships, such as market-intel.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Register this build's schemas for a pipeline's topics. Nothing is registered if one of them is refused.
    Register {
        /// The pipeline file, or the name of one that ships, such as market-intel.
        file: PathBuf,
    },
    /// Serve the log's schemas as a Confluent schema registry until Ctrl-C. For development: whoever reaches the
    /// address may register.
    Serve {
        /// Address and port; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
        listen: SocketAddr,
    },
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    match &args.what {
        What::List { prefix, json } => list(prefix, *json, context),
        What::Show { schema, version } => show(schema, *version, context),
        What::Check { file, json } => check(file, *json, context),
        What::Register { file } => register(file, context),
        What::Serve { listen } => serve(*listen, context),
    }
}

fn list(prefix: &str, as_json: bool, context: &Context) -> anyhow::Result<u8> {
    let registry = connect(context, &Deployment::default(), OpenFor::Reading)?;
    let mut all: Vec<Registered> = Vec::new();
    for subject in registry.subjects()?.iter().filter(|subject| subject.starts_with(prefix)) {
        all.extend(registry.versions(subject)?);
    }
    let mut out = io::stdout().lock();
    if as_json {
        let shown = all.iter().map(|entry| {
            json!({ "subject": entry.subject, "version": entry.version, "id": entry.id, "schema": entry.schema })
        });
        serde_json::to_writer_pretty(&mut out, &shown.collect::<Vec<_>>())?;
        writeln!(out)?;
        return Ok(cli::OK);
    }
    if all.is_empty() {
        writeln!(out, "no schemas are registered in {}", registry.place())?;
        return Ok(cli::OK);
    }
    let mut table = Table::new(&[("subject", Align::Left), ("version", Align::Right), ("id", Align::Right)]);
    for entry in all {
        table.row([entry.subject, entry.version.to_string(), entry.id.to_string()]);
    }
    table.write(&mut out, "")?;
    Ok(cli::OK)
}

fn show(schema: &str, version: Option<u32>, context: &Context) -> anyhow::Result<u8> {
    let registry = connect(context, &Deployment::default(), OpenFor::Reading)?;
    let text = match (schema.parse::<u32>(), version) {
        (Ok(id), None) => registry
            .schema(id)?
            .with_context(|| format!("no schema has the id {id}; `tidewire schemas list` lists them"))?
            .to_string(),
        _ => {
            let versions = registry.versions(schema)?;
            let wanted = |entry: &&Registered| version.is_none_or(|wanted| wanted == entry.version);
            match versions.iter().rfind(wanted) {
                Some(entry) => entry.schema.clone(),
                None if versions.is_empty() => {
                    bail!("there is no subject {schema}; `tidewire schemas list` lists them")
                }
                None => bail!("subject {schema} has the versions {}", numbers(&versions)),
            }
        }
    };
    let mut out = io::stdout().lock();
    match serde_json::from_str::<Value>(&text) {
        Ok(value) => serde_json::to_writer_pretty(&mut out, &value)?,
        Err(_) => write!(out, "{text}")?,
    }
    writeln!(out)?;
    Ok(cli::OK)
}

/// How this build's schema stands under a subject.
struct Standing {
    subject: String,
    id: Option<u32>,
    /// Why it may not be registered.
    problems: Vec<String>,
}

impl Standing {
    fn word(&self) -> &'static str {
        match (self.id, self.problems.is_empty()) {
            (Some(_), _) => "registered",
            (None, true) => "missing",
            (None, false) => "incompatible",
        }
    }
}

fn check(file: &Path, as_json: bool, context: &Context) -> anyhow::Result<u8> {
    let pipeline = load_pipeline(file)?.pipeline;
    let registry = connect(context, &pipeline.deployment, OpenFor::Reading)?;
    let all = standings(&*registry, &wanted(&pipeline))?;
    let count = |word: &str| all.iter().filter(|standing| standing.word() == word).count();
    let (missing, refused) = (count("missing"), count("incompatible"));
    let mut out = io::stdout().lock();
    if as_json {
        let shown = all.iter().map(|standing| {
            json!({
                "subject": standing.subject,
                "state": standing.word(),
                "id": standing.id,
                "problems": standing.problems,
            })
        });
        serde_json::to_writer_pretty(&mut out, &shown.collect::<Vec<_>>())?;
        writeln!(out)?;
    } else {
        let mut table = Table::new(&[("subject", Align::Left), ("state", Align::Left), ("id", Align::Right)]);
        for standing in &all {
            let id = standing.id.map_or_else(String::new, |id| id.to_string());
            table.row([standing.subject.clone(), standing.word().to_owned(), id]);
        }
        table.write(&mut out, "")?;
        write_problems(&mut out, &all)?;
        if missing > 0 {
            writeln!(
                out,
                "{missing} are missing: `tidewire schemas register {}` registers them",
                file.display()
            )?;
        }
    }
    let ready = refused == 0 && (missing == 0 || registry.auto_register);
    Ok(if ready { cli::OK } else { cli::FAILED })
}

fn register(file: &Path, context: &Context) -> anyhow::Result<u8> {
    let pipeline = load_pipeline(file)?.pipeline;
    let registry = connect(context, &pipeline.deployment, OpenFor::Writing)?;
    let placements = wanted(&pipeline);
    let all = standings(&*registry, &placements)?;
    let mut out = io::stdout().lock();
    if all.iter().any(|standing| standing.word() == "incompatible") {
        write_problems(&mut out, &all)?;
        bail!("nothing was registered in {}: the schemas above are incompatible", registry.place());
    }
    let new: Vec<(String, &str)> = placements
        .iter()
        .zip(&all)
        .filter(|(_, standing)| standing.id.is_none())
        .map(|(placement, _)| (placement.subject(), placement.kind.schema_json()))
        .collect();
    let ids = registry.register_all(&new)?;
    for ((subject, _), id) in new.iter().zip(ids) {
        writeln!(out, "registered {subject} as id {id}")?;
    }
    writeln!(out, "{} registered, {} were there", new.len(), all.len() - new.len())?;
    Ok(cli::OK)
}

fn serve(listen: SocketAddr, context: &Context) -> anyhow::Result<u8> {
    let open = open::without_schemas(context, &Deployment::default(), OpenFor::Writing)?;
    let stop = interrupt::stop_flag()?;
    let server = RegistryServer::start(Arc::clone(&open.log), listen)
        .with_context(|| format!("the registry can not listen on {listen}"))?;
    writeln!(io::stdout(), "schema registry on http://{}", server.address())?;
    while !stop.load(Ordering::SeqCst) {
        std::thread::sleep(LOOK);
    }
    server.stop();
    Ok(cli::OK)
}

/// A registry, and the log that it lies in.
struct Connected {
    registry: Box<dyn SchemaRegistry>,
    /// Whether a run registers what is missing.
    auto_register: bool,
    /// Keeps the log open, for other processes too.
    _log: Option<BareLog>,
}

impl Deref for Connected {
    type Target = dyn SchemaRegistry;

    fn deref(&self) -> &Self::Target {
        &*self.registry
    }
}

/// The registry that the command line, the pipeline file or the file of `--config` names.
fn connect(context: &Context, deployment: &Deployment, purpose: OpenFor) -> anyhow::Result<Connected> {
    let options = open::registry_options(context, deployment)?;
    let auto_register = options.auto_register;
    match &options.source {
        Source::Log => {
            let open = open::without_schemas(context, deployment, purpose)?;
            let registry = Box::new(LogRegistry::new(Arc::clone(&open.log)));
            Ok(Connected { registry, auto_register, _log: Some(open) })
        }
        Source::Rest(rest) => {
            Ok(Connected { registry: Box::new(RestRegistry::new(rest)?), auto_register, _log: None })
        }
    }
}

/// What a run of the pipeline needs: the standard topics' subjects, and those of topics of its own.
fn wanted(pipeline: &Pipeline) -> Vec<Placement> {
    let mut all = standard_placements();
    for placement in placements(pipeline) {
        if !all.contains(&placement) {
            all.push(placement);
        }
    }
    all
}

fn standings(registry: &dyn SchemaRegistry, placements: &[Placement]) -> anyhow::Result<Vec<Standing>> {
    let mut all = Vec::with_capacity(placements.len());
    for placement in placements {
        let (subject, schema) = (placement.subject(), placement.kind.schema_json());
        let id = registry.lookup(&subject, schema)?;
        let problems = match id {
            Some(_) => Vec::new(),
            None => registry.check(&subject, schema)?,
        };
        all.push(Standing { subject, id, problems });
    }
    Ok(all)
}

fn write_problems(out: &mut impl io::Write, all: &[Standing]) -> io::Result<()> {
    for standing in all.iter().filter(|standing| !standing.problems.is_empty()) {
        writeln!(out, "{} is incompatible:", standing.subject)?;
        for problem in &standing.problems {
            writeln!(out, "  {problem}")?;
        }
    }
    Ok(())
}

fn numbers(versions: &[Registered]) -> String {
    versions.iter().map(|entry| entry.version.to_string()).collect::<Vec<_>>().join(", ")
}
