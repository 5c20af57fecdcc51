//! Several files as one stream in the order of their records' timestamps.
//!
//! Records of one partition come from several files where several instruments share it. One file after the other
//! would take event time back by the length of a file, and everything in the second would be late.

use crate::error::ImportError;
use crate::importer::Importer;
use crate::output::Item;
use crate::summary::Summary;

/// Merges importers by timestamp: each file keeps its own order, ties go by the order of the files. Rejected lines
/// come at their place in their file. Files that fail end; the others go on.
pub struct Merge {
    sources: Vec<Source>,
    by_received: bool,
}

/// An item of a merge.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// Which file, by its position in the list given to [`Merge::new`].
    pub file: usize,
    /// The item.
    pub item: Item,
}

struct Source {
    importer: Importer,
    head: Option<Result<Item, ImportError>>,
    /// Timestamp of the last record read; a rejected line is given out at it.
    time_ms: i64,
    ended: bool,
}

impl Merge {
    /// Merges these files.
    pub fn new(importers: Vec<Importer>) -> Merge {
        let sources = importers.into_iter().map(|importer| Source {
            importer,
            head: None,
            time_ms: i64::MIN,
            ended: false,
        });
        Merge { sources: sources.collect(), by_received: false }
    }

    /// Goes by the times at which records were received instead: the order in which they came.
    pub fn by_received(self) -> Merge {
        Merge { by_received: true, ..self }
    }

    /// Bytes taken from all files so far, as they lie on disk.
    pub fn bytes_read(&self) -> u64 {
        self.sources.iter().map(|source| source.importer.bytes_read()).sum()
    }

    /// Size of all files on disk in bytes.
    pub fn bytes_total(&self) -> u64 {
        self.sources.iter().map(|source| source.importer.bytes_total()).sum()
    }

    /// What came of each file so far, in the order of the files.
    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.sources.iter().map(|source| source.importer.summary())
    }
}

impl Iterator for Merge {
    type Item = Result<Merged, ImportError>;

    fn next(&mut self) -> Option<Result<Merged, ImportError>> {
        for source in &mut self.sources {
            source.fill(self.by_received);
        }
        let ready = self.sources.iter().enumerate().filter(|(_, source)| source.head.is_some());
        let (file, _) = ready.min_by_key(|(file, source)| (source.time_ms, *file))?;
        let item = self.sources.get_mut(file)?.head.take()?;
        Some(item.map(|item| Merged { file, item }))
    }
}

impl Source {
    /// Reads on until there is something to give, whose time is then known.
    fn fill(&mut self, by_received: bool) {
        if self.ended || self.head.is_some() {
            return;
        }
        let Some(item) = self.importer.next() else {
            self.ended = true;
            return;
        };
        if let Ok(Item::Record { timestamp_ms, received_ns, .. }) = &item {
            self.time_ms = if by_received { received_ns.div_euclid(1_000_000) } else { *timestamp_ms };
        }
        self.head = Some(item);
    }
}
