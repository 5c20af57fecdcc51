//! Schemas are drafts until the first release; from then on this build reads all that any release wrote
//! (BACKWARD_TRANSITIVE).
//!
//! `released/<version>/` keeps a release: `<Record>.avsc` and, as `<Record>.hex`, its golden bytes. It is made once by
//! `RELEASE=<version> cargo test -p tidewire-schemas --test released` and never changed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests"
)]
#![allow(clippy::disallowed_methods, reason = "reads and writes the released schemas")]

mod common;

use common::sample::unhex;
use std::fs;
use std::path::{Path, PathBuf};
use tidewire_schemas::resolve::check_backward;
use tidewire_schemas::wire::put_prefix;
use tidewire_schemas::{Kind, SchemaBook};

#[test]
fn this_build_reads_every_release() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    if let Some(version) = std::env::var_os("RELEASE") {
        keep(&root, &root.join("released").join(version));
    }
    let Ok(releases) = fs::read_dir(root.join("released")) else {
        return; // No release yet.
    };
    for release in releases {
        let folder = release.unwrap().path();
        assert_eq!(problems(&folder), Vec::<String>::new(), "{}", folder.display());
    }
}

/// The check finds what it is for: a release with a field that is no more readable, and one that is.
#[test]
fn a_broken_release_is_found() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("broken-release");
    _ = fs::remove_dir_all(&folder);
    keep(Path::new(env!("CARGO_MANIFEST_DIR")), &folder);
    assert_eq!(problems(&folder), Vec::<String>::new());

    let trade = folder.join("Trade.avsc");
    let text = fs::read_to_string(&trade).unwrap();
    fs::write(&trade, text.replacen("\"scale\":12", "\"scale\":8", 1)).unwrap();
    let found = problems(&folder);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("Trade.price") && found[0].contains("scale"), "{found:?}");

    fs::write(&trade, text.replacen("\"name\":\"Trade\"", "\"name\":\"Trades\"", 1)).unwrap();
    assert!(problems(&folder)[0].contains("Trade.avsc"), "{:?}", problems(&folder));
}

/// What this build cannot read of a release.
fn problems(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "avsc") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let schema = fs::read_to_string(&path).unwrap();
        let Some(kind) = Kind::from_name(&name) else {
            found.push(format!("{name}: no record of this build"));
            continue;
        };
        if let Err(e) = check_backward(&schema, kind.schema_json()) {
            found.push(format!("{name}.avsc: {e}"));
        }
        let mut book = SchemaBook::new();
        _ = book.add_writer(1, &schema);
        for line in fs::read_to_string(path.with_extension("hex")).unwrap().lines() {
            let mut bytes = Vec::new();
            put_prefix(&mut bytes, 1);
            bytes.extend(unhex(line));
            if let Err(e) = book.decode(&bytes) {
                found.push(format!("{name}.hex: {e}"));
                break;
            }
        }
    }
    found.sort();
    found
}

/// Keeps this build's schemas and golden bytes as a release.
fn keep(root: &Path, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for &kind in Kind::ALL {
        fs::write(folder.join(format!("{kind}.avsc")), kind.schema_json()).unwrap();
        let hex = format!("{kind}.hex");
        fs::copy(root.join("golden").join(&hex), folder.join(&hex)).unwrap();
    }
}
