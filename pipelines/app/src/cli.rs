//! The command line: global options, the commands, and exit codes.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::backtest::grid::GridError;
use crate::commands::{
    backtest, bundle, check, dead_letters, demo, diff, doctor, explain, health, import, operators, promote,
    reprocess, run, schemas, sink, status, step, tail, topics, verify,
};
use crate::files::load_config;
use crate::logging::{self, LogFormat};
use crate::open::Durability;
use crate::pipeline::{Deployment, PipelineError};

/// Everything went well.
pub const OK: u8 = 0;
/// It could not be done; the reason is on stderr.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// `verify`, `diff` or `explain --prove` found a difference.
pub const DIFFERS: u8 = 3;
/// The pipeline file, or a setting of a backtest, has problems.
pub const BAD_PIPELINE: u8 = 4;
/// Ended by a second Ctrl-C, or because stopping took too long.
pub const ABORTED: u8 = 130;

const AFTER_HELP: &str = "\
Exit codes:
  0    done
  1    failed; the reason is on stderr
  2    the command line is wrong
  3    `verify`, `diff` or `explain --prove` found a difference
  4    the pipeline file has problems
  130  ended by a second Ctrl-C or SIGTERM, or because stopping took longer than `--stop-timeout`

Examples:
  tidewire demo                             run the whole thing on the recorded sample, nothing else needed
  tidewire check pipelines/market-intel.toml
  tidewire import trades.csv --instrument BTCUSDT.BINANCE_SPOT
  tidewire run pipelines/market-intel.toml
  tidewire tail signals.v1 --follow
  tidewire status";

/// Heads, in the help of each command, the options that all of them take.
const GLOBAL: &str = "Global options";

/// Real-time market intelligence: ticks, news and sentiment in; features, signals, orders and alerts out.
#[derive(Debug, Parser)]
#[command(name = "tidewire", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Cli {
    /// Folder of the embedded log, or a bundle to read from [default: ./data; for `demo` a new folder in the system's
    /// temporary one].
    #[arg(long, global = true, help_heading = GLOBAL, env = "TIDEWIRE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Brokers of a Kafka cluster, host:port parted by commas: the log is there instead of in a folder.
    #[arg(long, global = true, help_heading = GLOBAL, env = "TIDEWIRE_BOOTSTRAP", value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// TOML file with [kafka] and other tables of docs/configuration.md; for `run` the pipeline file's own come first.
    #[arg(long, global = true, help_heading = GLOBAL, env = "TIDEWIRE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Addresses of a schema registry, parted by commas [default: the log's own registry].
    #[arg(long, global = true, help_heading = GLOBAL, env = "TIDEWIRE_REGISTRY", value_name = "URL")]
    registry: Option<String>,
    /// When a commit counts as done: `fsync` survives loss of power, `buffered` the end of the process alone.
    #[arg(long, global = true, help_heading = GLOBAL, env = "TIDEWIRE_DURABILITY", value_name = "WHEN")]
    durability: Option<Durability>,
    /// What is logged to stderr: error, warn, info, debug or trace, or a filter such as tidewire_runtime=debug
    /// [default: warn; info with `--log-format json`].
    #[arg(long, global = true, help_heading = GLOBAL, env = "TIDEWIRE_LOG", value_name = "LEVEL")]
    log_level: Option<String>,
    /// How it is logged: text for people, or JSON, one object a line, instead of all other lines on stderr.
    #[arg(long, global = true, help_heading = GLOBAL, env = "TIDEWIRE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
    /// Look at the run that `reprocess --into PREFIX` made instead of the live one.
    #[arg(long, global = true, help_heading = GLOBAL, env = "TIDEWIRE_PREFIX", value_name = "PREFIX")]
    prefix: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the shipped pipeline on the shipped recording, from nothing.
    Demo(demo::Args),
    /// Run the stages of a pipeline file until Ctrl-C.
    Run(run::Args),
    /// Write features and positions to the stores of a pipeline file until Ctrl-C.
    Sink(sink::Args),
    /// Check a pipeline file and draw what would run.
    Check(check::Args),
    /// Write recorded feeds to the log: Binance captures, news, trades or bars, as text, CSV or Parquet.
    Import(import::Args),
    /// Print the records of a topic.
    Tail(tail::Args),
    /// List, describe or make topics.
    Topics(topics::Args),
    /// List, check, register or serve schemas.
    Schemas(schemas::Args),
    /// Show where each task stands, and what it waits for.
    Status(status::Args),
    /// Run recorded epochs again and compare every byte of their outputs.
    Verify(verify::Args),
    /// Run recorded inputs through a pipeline again, into topics of a prefix.
    Reprocess(reprocess::Args),
    /// Run many settings of a pipeline over the same recorded inputs.
    Backtest(backtest::Args),
    /// Let readers of live topics go on in the topics of a run that `reprocess` made.
    Promote(promote::Args),
    /// Compare two runs record by record, and say why they differ.
    Diff(diff::Args),
    /// Find what would make a replay impossible, before it matters.
    Doctor(doctor::Args),
    /// Put a stretch of time into one file, to be looked into and run again elsewhere.
    Bundle(bundle::Args),
    /// Show why a record is there: its causes back to ticks and news, with what each operator saw.
    Explain(explain::Args),
    /// Run recorded epochs of a task again one call at a time, with breakpoints.
    Step(step::Args),
    /// List, show or send again records that could not be processed.
    DeadLetters(dead_letters::Args),
    /// Ask a running process whether it is well: for health checks of containers.
    Health(health::Args),
    /// List the operators that a pipeline file can name.
    Operators(operators::Args),
}

/// What all commands share.
#[derive(Clone, Debug)]
pub struct Context {
    /// The folder or bundle that was named, if one was.
    pub data: Option<PathBuf>,
    /// When a commit counts as done, if that was said.
    pub durability: Option<Durability>,
    /// Brokers that were named on the command line.
    pub bootstrap: Option<String>,
    /// Addresses of a schema registry that were named on the command line.
    pub registry: Option<String>,
    /// The run that is looked at, where it is not the live one.
    pub prefix: Option<String>,
    /// The file of `--config`.
    pub config: Option<PathBuf>,
    /// What it says.
    pub deployment: Deployment,
}

impl Context {
    /// The bundle that was named: `--data` with a file.
    pub fn bundle(&self) -> Option<&Path> {
        self.data.as_deref().filter(|path| path.is_file())
    }

    /// The folder of the log.
    pub fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| PathBuf::from("./data"))
    }
}

/// Reads the command line, does what it says, and tells how it went.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = cli.log_level.as_deref().filter(|level| !level.is_empty());
    if let Err(error) = logging::start(level, cli.log_format) {
        let _ = writeln!(io::stderr(), "error: --log-level {}: {error}", level.unwrap_or_default());
        return ExitCode::from(USAGE);
    }
    let deployment = match cli.config.as_deref().map(load_config).transpose() {
        Ok(deployment) => deployment.unwrap_or_default(),
        Err(error) => return ExitCode::from(report(&error)),
    };
    let context = Context {
        data: cli.data,
        durability: cli.durability,
        bootstrap: cli.bootstrap,
        registry: cli.registry,
        prefix: cli.prefix.filter(|prefix| !prefix.is_empty()),
        config: cli.config,
        deployment,
    };
    let done = match &cli.command {
        Command::Demo(args) => demo::run(args, &context),
        Command::Run(args) => run::run(args, &context),
        Command::Sink(args) => sink::run(args, &context),
        Command::Status(args) => status::run(args, &context),
        Command::Verify(args) => verify::run(args, &context),
        Command::Reprocess(args) => reprocess::run(args, &context),
        Command::Backtest(args) => backtest::run(args, &context),
        Command::Promote(args) => promote::run(args, &context),
        Command::Diff(args) => diff::run(args, &context),
        Command::Doctor(args) => doctor::run(args, &context),
        Command::Bundle(args) => bundle::run(args, &context),
        Command::Step(args) => step::run(args, &context),
        Command::Explain(args) => explain::run(args, &context),
        Command::Check(args) => check::run(args),
        Command::Import(args) => import::run(args, &context),
        Command::Tail(args) => tail::run(args, &context),
        Command::Schemas(args) => schemas::run(args, &context),
        Command::Topics(args) => topics::run(args, &context),
        Command::DeadLetters(args) => dead_letters::run(args, &context),
        Command::Health(args) => health::run(args),
        Command::Operators(args) => operators::run(args),
    };
    ExitCode::from(done.unwrap_or_else(|error| report(&error)))
}

/// Says what went wrong; returns the exit code for it.
fn report(error: &anyhow::Error) -> u8 {
    // Whoever reads us has read enough: `tidewire tail ... | head`.
    if error.chain().any(is_broken_pipe) {
        return OK;
    }
    if let Some(problems) = error.downcast_ref::<PipelineError>() {
        say_error(&problems.to_string(), "");
        return BAD_PIPELINE;
    }
    if error.is::<GridError>() {
        say_error(&error.to_string(), "");
        return BAD_PIPELINE;
    }
    say_error(&format!("{error:#}"), "error: ");
    FAILED
}

fn say_error(text: &str, prefix: &str) {
    if logging::is_json() {
        tracing::error!("{text}");
    } else {
        let _ = writeln!(io::stderr(), "{prefix}{text}");
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_exit_code_is_documented() {
        let docs = include_str!("../../../docs/cli.md");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(
                docs.contains(&format!("`tidewire {name}")) || docs.contains(&format!("| `{name}` |")),
                "{name}"
            );
        }
        for code in [OK, FAILED, USAGE, DIFFERS, BAD_PIPELINE, ABORTED] {
            assert!(docs.contains(&format!("| {code} |")), "{code}");
            assert!(AFTER_HELP.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
