//! Opens a log, or goes through the process that has it open.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_engine::log::{Log, LogError};

use super::{EmbeddedLog, EmbeddedOptions, OpenError, RemoteLog, Server};

/// How long another process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// A log, opened by this process or reached through another one.
#[derive(Debug)]
pub enum Opened {
    /// This process has it open, and lets others reach it.
    Here {
        /// Answers other processes; ends before the log is closed.
        server: Server,
        /// The log.
        log: Arc<EmbeddedLog>,
    },
    /// Another process has it open.
    Through(Arc<RemoteLog>),
}

impl Opened {
    /// The log, whoever has it open.
    pub fn log(&self) -> Arc<dyn Log> {
        match self {
            Self::Here { log, .. } => Arc::clone(log) as Arc<dyn Log>,
            Self::Through(log) => Arc::clone(log) as Arc<dyn Log>,
        }
    }

    /// The log, if this process has it open.
    pub fn embedded(&self) -> Option<&Arc<EmbeddedLog>> {
        match self {
            Self::Here { log, .. } => Some(log),
            Self::Through(_) => None,
        }
    }
}

/// Opens the log in `dir` and lets other processes reach it; or connects to the process that has it open.
pub fn open_any(dir: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Opened, LogError> {
    let dir = dir.as_ref();
    let start = Instant::now();
    loop {
        match EmbeddedLog::open(dir, options.clone()) {
            Ok(log) => return Ok(Opened::Here { server: Server::start(Arc::clone(&log))?, log }),
            Err(OpenError::Log(error)) => return Err(error),
            Err(OpenError::InUse { .. }) => {}
        }
        match RemoteLog::connect(dir) {
            Ok(log) => return Ok(Opened::Through(Arc::new(log))),
            Err(error) if start.elapsed() >= PATIENCE => return Err(error),
            // It is just starting or just ending.
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
