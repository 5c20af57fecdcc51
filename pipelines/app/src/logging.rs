//! The process's own log: events with fields, on stderr, as text or as JSON.

use std::io;
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people, beside the lines that commands write to stderr.
    #[default]
    Text,
    /// One JSON object a line, and nothing else on stderr.
    Json,
}

/// What is logged where nothing is said: in JSON the events stand for the lines that people get.
const LEVEL_OF_TEXT: &str = "warn,tidewire_runtime::narrate=off";
const LEVEL_OF_JSON: &str = "info";

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Starts the log. May be called once in a process.
pub fn start(level: Option<&str>, format: LogFormat) -> Result<(), String> {
    let level = level.unwrap_or(match format {
        LogFormat::Text => LEVEL_OF_TEXT,
        LogFormat::Json => LEVEL_OF_JSON,
    });
    let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    let _ = FORMAT.set(format);
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => logging.with_target(false).try_init(),
        LogFormat::Json => {
            logging.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
    }
    .map_err(|error| error.to_string())
}

/// Whether stderr is JSON, so that lines for people are left out.
pub fn is_json() -> bool {
    FORMAT.get() == Some(&LogFormat::Json)
}
