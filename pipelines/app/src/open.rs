//! Opens the embedded log, or reaches it through the process that has it open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use tidewire_engine::log::Log;
use tidewire_runtime::embedded::{self, EmbeddedLog, EmbeddedOptions, Opened, open_any};
use tidewire_runtime::registry::{open_book, read_book};
use tidewire_schemas::SchemaBook;

use crate::cli::Context;

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

/// An open log with its schemas.
pub struct OpenLog {
    /// The folder.
    pub dir: PathBuf,
    /// How it was reached; keeps it open.
    pub opened: Opened,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Its schemas.
    pub book: Arc<SchemaBook>,
}

impl OpenLog {
    /// Whether another process has it open.
    pub fn is_elsewhere(&self) -> bool {
        self.opened.embedded().is_none()
    }
}

/// Opens the log in `dir`, made if it is not there, to be written to.
pub fn to_write(context: &Context, dir: &Path) -> anyhow::Result<OpenLog> {
    let opened = open_any(dir, options(context)).with_context(|| failed(dir))?;
    let log = opened.log();
    let book = Arc::new(open_book(&*log).with_context(|| failed(dir))?);
    Ok(OpenLog { dir: dir.to_owned(), opened, log, book })
}

/// Opens a log that must be there, to be read.
pub fn to_read(context: &Context) -> anyhow::Result<OpenLog> {
    let dir = context.data();
    check_there(&dir)?;
    let opened = open_any(&dir, options(context)).with_context(|| failed(&dir))?;
    let log = opened.log();
    let book = Arc::new(read_book(&*log).with_context(|| failed(&dir))?);
    Ok(OpenLog { dir, opened, log, book })
}

/// Opens the log in `dir` in this process, as stages need it: groups live in one process.
pub fn here(context: &Context, dir: &Path) -> anyhow::Result<(OpenLog, Arc<EmbeddedLog>)> {
    let open = to_write(context, dir)?;
    match open.opened.embedded().cloned() {
        Some(log) => Ok((open, log)),
        None => bail!(
            "another process has the log in {} open; on the embedded log all stages run in one process. \
             Stop that process, or run it with more `--workers`",
            dir.display()
        ),
    }
}

/// Refuses a folder without a log, so that a misspelt name does not make an empty one.
fn check_there(dir: &Path) -> anyhow::Result<()> {
    if dir.join("format").exists() {
        return Ok(());
    }
    bail!(
        "there is no log in {}: name its folder with `--data DIR`, or make one with `tidewire import` or `tidewire run`",
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
