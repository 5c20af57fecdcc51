//! The folder of an embedded log: who may use it, and which format it has.
//!
//! ```text
//! format     "tidewire-log 1": what this folder is
//! lock       held by the process that has the log open
//! endpoint   where that process listens, see `server`
//! store/     the key-value store
//! store.new/ one that is being made
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use tidewire_engine::log::LogError;

const MAGIC: &str = "tidewire-log";
const VERSION: u32 = 1;
/// Files that a first opening, cut short, may leave behind.
const EARLY_FILES: [&str; 5] = ["lock", "format.new", "endpoint", "endpoint.new", "socket"];

/// Why a folder could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A process has it open already. [`open_any`](super::open_any) goes through that process instead.
    #[error("the log in {dir} is open already{holder}; stop that process, or go through it")]
    InUse {
        /// The folder.
        dir: String,
        /// What that process said of itself.
        holder: String,
    },
    /// Anything else.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<OpenError> for LogError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Log(error) => error,
            in_use @ OpenError::InUse { .. } => LogError::Invalid(in_use.to_string()),
        }
    }
}

/// A folder that this process has locked.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be, locks it and checks its format.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let doing = |what: &str| format!("{what} the log's folder {}", dir.display());
        fs::create_dir_all(dir).map_err(|e| io_error(doing("making"), &e))?;
        let lock = lock(dir)?;
        let folder = Self { path: dir.to_owned(), _lock: lock };
        folder.check_format().map_err(|e| LogError::Store { at: doing("opening"), error: e })?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    fn check_format(&self) -> Result<(), String> {
        let path = self.path.join("format");
        match fs::read_to_string(&path) {
            Ok(text) => read_format(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check_empty()?;
                self.write_format().map_err(|e| format!("can not write {}: {e}", path.display()))
            }
            Err(error) => Err(format!("can not read {}: {error}", path.display())),
        }
    }

    /// Refuses to settle among files that are not ours.
    fn check_empty(&self) -> Result<(), String> {
        for entry in fs::read_dir(&self.path).map_err(|e| e.to_string())? {
            let name = entry.map_err(|e| e.to_string())?.file_name();
            if !EARLY_FILES.iter().any(|early| name == *early) {
                return Err(format!(
                    "it has files ({}) but is not a Tidewire log; choose an empty folder",
                    name.to_string_lossy()
                ));
            }
        }
        Ok(())
    }

    fn write_format(&self) -> io::Result<()> {
        write_whole(&self.path, "format", &format!("{MAGIC} {VERSION}\n"))
    }
}

fn read_format(text: &str) -> Result<(), String> {
    let version = text.trim().strip_prefix(MAGIC).and_then(|rest| rest.trim().parse::<u32>().ok());
    match version {
        Some(VERSION) => Ok(()),
        Some(newer) if newer > VERSION => {
            Err(format!("it has format {newer}, this build knows formats up to {VERSION}: use a newer build"))
        }
        _ => {
            Err("its file `format` is not a Tidewire log's: restore it, or choose another folder".to_owned())
        }
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let failed = |error: &io::Error| io_error(format!("locking {}", path.display()), error);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.as_mut().map_err(|e| failed(e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.take(64).read_to_string(&mut holder).is_ok_and(|len| len > 0);
            let holder = if known { format!(" ({})", holder.trim()) } else { String::new() };
            return Err(OpenError::InUse { dir: dir.display().to_string(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(failed(&error).into()),
    }
    // For people only: the lock itself is what counts.
    let named = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(format!("process {}\n", std::process::id()).as_bytes()));
    named.map_err(|e| failed(&e))?;
    file.try_clone().map_err(|e| failed(&e).into())
}

/// Writes a small file so that readers see all of it or the one before.
pub(super) fn write_whole(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()
}

fn io_error(at: String, error: &io::Error) -> LogError {
    LogError::Store { at, error: error.to_string() }
}
