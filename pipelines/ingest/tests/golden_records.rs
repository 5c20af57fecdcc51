//! The first record of each kind of every sample file, as JSON, against `tests/golden/`. To renew the files after an
//! intended change, run with `TIDEWIRE_RENEW_GOLDEN=1` and read the difference against the raw lines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{import, workspace};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use tidewire_ingest::{ImportOptions, Item};

#[test]
fn first_records_of_every_sample_file() {
    let samples = workspace().join("samples");
    for (folder, name) in [
        ("binance", "usdm_btcusdt_20240808.gz"),
        ("binance", "usdm_ethusdt_20240808.gz"),
        ("binance", "spot_btcusdt_20240808.gz"),
        ("binance", "cm_btcusd_perp_20240808.gz"),
        ("news", "crypto_news_20220704.csv"),
    ] {
        let (items, _) = import(&samples.join(folder).join(name), ImportOptions::default());
        let mut kinds = BTreeSet::new();
        let mut text = String::new();
        for item in &items {
            if let Item::Record { record, .. } = item
                && kinds.insert(record.kind())
            {
                writeln!(text, "{}", serde_json::to_string_pretty(&as_json(item)).unwrap()).unwrap();
            }
        }
        compare(&format!("{}.json", name.split('.').next().unwrap()), &text);
    }
}

fn as_json(item: &Item) -> Value {
    let Item::Record { line, topic, key, timestamp_ms, received_ns, record } = item else {
        panic!("{item:?}")
    };
    let mut body = serde_json::to_value(record).unwrap();
    shorten(&mut body);
    json!({
        "line": line, "topic": topic, "key": key, "timestamp_ms": timestamp_ms, "received_ns": received_ns,
        "kind": record.kind().name(), "record": body,
    })
}

/// Of long lists the first three, the last, and how many there are.
fn shorten(value: &mut Value) {
    match value {
        Value::Array(list) if list.len() > 5 => {
            let count = list.len();
            let last = list.pop().unwrap();
            list.truncate(3);
            list.push(json!(format!("... {count} in all")));
            list.push(last);
        }
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("TIDEWIRE_RENEW_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(golden == text, "{} differs; now it is:\n{text}", path.display());
}
