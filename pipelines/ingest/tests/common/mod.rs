//! What the tests of this folder share.
#![allow(dead_code, reason = "each test file takes what it needs")]

use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use tidewire_ingest::{ImportOptions, Importer, Item, Summary};

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The whole public feeds: in `TIDEWIRE_SHARED`, or beside the checkout. `None`, and a line that says so, where they
/// are not there; tests then run on the sample that ships.
pub fn feeds() -> Option<PathBuf> {
    let shared =
        std::env::var_os("TIDEWIRE_SHARED").map_or_else(|| workspace().join("../shared"), PathBuf::from);
    let folder = shared.join("data");
    if folder.join("binance").is_dir() {
        return Some(folder);
    }
    eprintln!(
        "the whole feeds are not at {}: set TIDEWIRE_SHARED; testing with samples/ only",
        folder.display()
    );
    None
}

/// A file with this content.
pub fn file_of(content: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_ref()).unwrap();
    file
}

/// All items of a file, and its summary.
pub fn import(path: &Path, options: ImportOptions) -> (Vec<Item>, Summary) {
    let mut importer = Importer::open(path, options).unwrap_or_else(|e| panic!("{e}"));
    let items = importer.by_ref().map(|item| item.unwrap_or_else(|e| panic!("{e}"))).collect();
    assert_eq!(importer.bytes_read(), importer.bytes_total());
    (items, importer.summary().clone())
}

/// All items of a text, and its summary.
pub fn import_text(text: impl AsRef<[u8]>, options: ImportOptions) -> (Vec<Item>, Summary) {
    import(file_of(text).path(), options)
}

/// A capture of the sample that ships.
pub fn sample(name: &str) -> PathBuf {
    workspace().join("samples/binance").join(format!("{name}_20240808.gz"))
}

/// The first lines of a capture of the sample.
pub fn sample_lines(name: &str, count: usize) -> Vec<String> {
    let file = std::fs::File::open(sample(name)).unwrap();
    let text = std::io::BufReader::new(flate2::read::MultiGzDecoder::new(file));
    std::io::BufRead::lines(text).take(count).map(Result::unwrap).collect()
}

/// The records among the items.
pub fn records(items: &[Item]) -> Vec<&tidewire_schemas::Record> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Record { record, .. } => Some(record),
            Item::Rejected { .. } => None,
        })
        .collect()
}

/// Line, code and text of the rejected lines.
pub fn rejected(items: &[Item]) -> Vec<(u64, &'static str, String)> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Record { .. } => None,
            Item::Rejected { line, reason, .. } => Some((*line, reason.code(), reason.to_string())),
        })
        .collect()
}

/// Numbers that look random but are the same in every run (xorshift).
pub struct Dice(pub u64);

impl Dice {
    /// One of the numbers below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}
