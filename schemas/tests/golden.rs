//! The bytes of this build are the bytes of the build before: `golden/<Record>.hex`, a full and a least record each,
//! and what they hold as `golden/<Record>.json`.
//!
//! A change of a schema changes them. Until the first release they may be made anew:
//! `GOLDEN=write cargo test -p tidewire-schemas --test golden`. From then on a new field only adds to them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests"
)]
#![allow(clippy::disallowed_methods, reason = "reads and writes the golden files")]

mod common;

use common::sample::{Fill, hex, sample, unhex};
use std::fs;
use std::path::PathBuf;
use tidewire_schemas::{Kind, Record};

#[test]
fn golden_bytes_are_read_and_written() {
    for &kind in Kind::ALL {
        let (hex_file, json_file) = (file(kind, "hex"), file(kind, "json"));
        if std::env::var_os("GOLDEN").is_some_and(|v| v == "write") {
            write(kind, &hex_file, &json_file);
        }
        let lines = fs::read_to_string(&hex_file).expect("no golden bytes; see the head of this file");
        let shown = fs::read_to_string(&json_file).unwrap();
        let shown: Vec<serde_json::Value> = serde_json::from_str(&shown).unwrap();
        assert_eq!(lines.lines().count(), 2, "{kind}");
        for (line, shown) in lines.lines().zip(&shown) {
            let record = Record::decode(kind, &unhex(line)).unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert_eq!(&serde_json::to_value(&record).unwrap(), shown, "{kind}");
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(hex(&bytes), line, "{kind}");
        }
    }
}

/// A full record sets every field to something that a default or another field would not give.
#[test]
fn golden_records_have_every_field() {
    for &kind in Kind::ALL {
        let shown: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_str(&fs::read_to_string(file(kind, "json")).unwrap()).unwrap();
        for field in kind.fields() {
            assert_ne!(shown[0][*field], shown[1][*field], "{kind}.{field}");
        }
    }
}

/// No file is left over from a record that is no more.
#[test]
fn golden_files_are_those_of_the_records() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(Kind::from_name(&name).is_some(), "{}", path.display());
    }
}

fn write(kind: Kind, hex_file: &PathBuf, json_file: &PathBuf) {
    let samples = [Fill::Full, Fill::Least].map(|fill| sample(kind.schema_json(), fill));
    let shown: Vec<_> = samples.iter().map(|bytes| Record::decode(kind, bytes).unwrap()).collect();
    fs::write(hex_file, samples.iter().map(|bytes| hex(bytes) + "\n").collect::<String>()).unwrap();
    fs::write(json_file, serde_json::to_string_pretty(&shown).unwrap() + "\n").unwrap();
}

fn file(kind: Kind, extension: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{kind}.{extension}"))
}
