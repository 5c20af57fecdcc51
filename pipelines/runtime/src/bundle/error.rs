//! Why a bundle can not be written or read.

use std::path::{Path, PathBuf};

use tidewire_engine::log::{LogError, TopicPartition};

/// Why a bundle can not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file system failed.
    #[error("bundle {}: {doing}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Its own words.
        error: std::io::Error,
    },
    /// It is another kind of file.
    #[error("{} is no bundle: it does not begin as one; make one with `tidewire bundle`", path.display())]
    NoBundle {
        /// The file.
        path: PathBuf,
    },
    /// It is of another format.
    #[error("bundle {} has format {found}, this build knows format {known}: use a newer build", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format of this build.
        known: u32,
    },
    /// Its bytes are not those that were written.
    #[error("bundle {} is damaged: {what}; copy it again from where it was made", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// There is a file of that name.
    #[error("{} is there already: name another file, or write over it with --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A record can not be kept.
    #[error("{at}, offset {offset}: a record of {bytes} bytes is larger than a bundle can hold ({limit})")]
    TooLarge {
        /// Where it lies.
        at: TopicPartition,
        /// Its offset.
        offset: u64,
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Records came in a wrong order, or twice.
    #[error("{at}, offset {offset}: offsets must ascend")]
    Order {
        /// Where it lies.
        at: TopicPartition,
        /// Its offset.
        offset: u64,
    },
}

impl BundleError {
    pub(super) fn io(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, doing, error }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }
}

impl From<BundleError> for LogError {
    fn from(error: BundleError) -> Self {
        LogError::Store { at: "reading".to_owned(), error: error.to_string() }
    }
}
