//! What we write fastavro reads, and the other way round: the same values, the same bytes.
//!
//! fastavro is Avro in Python, written by other people from the same specification.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests"
)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "runs Python on a file of its own")]

mod common;

use common::sample::{Fill, hex, sample, unhex};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidewire_schemas::resolve::Plan;
use tidewire_schemas::{Kind, Record};

const FASTAVRO: &str = "fastavro==1.12.1";
const DRAWS: u64 = 40;

#[test]
fn fastavro_agrees() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let python = environment(&folder.join("fastavro"));
    let file = folder.join("exchange.json");

    let kinds: Vec<Value> = Kind::ALL
        .iter()
        .map(|kind| json!({"name": kind.name(), "schema": kind.schema_json(), "bodies": []}))
        .collect();
    fs::write(&file, json!({"kinds": kinds}).to_string()).unwrap();
    run(&python, "make", &file);

    let mut exchange: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for (&kind, entry) in Kind::ALL.iter().zip(exchange["kinds"].as_array_mut().unwrap()) {
        let theirs: Vec<Vec<u8>> =
            entry["bodies"].as_array().unwrap().iter().map(|b| unhex(b.as_str().unwrap())).collect();
        assert_eq!(theirs.len(), 40, "{kind}");
        let drawn = (0..DRAWS).map(|seed| common::draw(&common::datum(kind.schema_json()), seed));
        let fixed = [Fill::Full, Fill::Least].map(|fill| sample(kind.schema_json(), fill));
        let all: Vec<Vec<u8>> = theirs.into_iter().chain(drawn).chain(fixed).collect();
        entry["shown"] = all.iter().map(|body| shown(kind, body)).collect();
        entry["bodies"] = all.iter().map(|body| hex(body)).collect();
    }
    exchange["resolutions"] = common::evolutions::all().into_iter().map(resolution).collect();
    fs::write(&file, exchange.to_string()).unwrap();
    run(&python, "check", &file);
}

/// What we read, after the check that we write the same bytes.
fn shown(kind: Kind, body: &[u8]) -> Value {
    let record = Record::decode(kind, body).unwrap_or_else(|e| panic!("{kind}: {e}: {}", hex(body)));
    let mut again = Vec::new();
    record.encode(&mut again);
    assert_eq!(hex(&again), hex(body), "{kind}");
    serde_json::to_value(&record).unwrap()
}

fn resolution((name, writer, reader): (&str, String, String)) -> Value {
    let plan = Plan::new(&writer, &reader).unwrap_or_else(|e| panic!("{name}: {e}"));
    let data = common::datum(&writer);
    let bodies: Vec<Vec<u8>> = (0..DRAWS).map(|seed| common::draw(&data, seed)).collect();
    let rewritten = bodies.iter().map(|body| {
        let mut out = Vec::new();
        plan.rewrite(body, &mut out).unwrap_or_else(|e| panic!("{name}: {e}"));
        hex(&out)
    });
    let rewritten: Vec<String> = rewritten.collect();
    let bodies: Vec<String> = bodies.iter().map(|body| hex(body)).collect();
    json!({"name": name, "writer": writer, "reader": reader, "bodies": bodies, "rewritten": rewritten})
}

fn run(python: &Path, mode: &str, file: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with_fastavro.py");
    let output = Command::new(python).arg(script).arg(mode).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{mode}: {text}");
}

/// A Python with the pinned fastavro, made once in the target folder.
fn environment(folder: &Path) -> PathBuf {
    const NEEDED: &str = "this test needs python3 with venv and pip, and a package index: on Debian or Ubuntu \
        `apt install python3-venv`";
    let python = folder.join("bin/python");
    let ready = folder.join(FASTAVRO);
    if ready.exists() {
        return python;
    }
    _ = fs::remove_dir_all(folder);
    let done = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{NEEDED} ({command:?}: {})", String::from_utf8_lossy(&output.stderr).trim()),
        Err(e) => panic!("{NEEDED} ({command:?}: {e})"),
    };
    done(Command::new("python3").args(["-m", "venv"]).arg(folder));
    done(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        FASTAVRO,
    ]));
    fs::write(ready, "").unwrap();
    python
}
