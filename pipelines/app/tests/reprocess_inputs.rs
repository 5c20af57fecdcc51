//! `reprocess --inputs`: what another log holds, a folder or a bundle, run again into a log of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidewire_engine::log::{Log, StoredRecord, TopicPartition};
use tidewire_engine::partition::partition_of_compound;
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::registry::{LogRegistry, SchemaRegistry as _};

/// The log of one demo, for all tests. They only read it.
fn demo() -> &'static str {
    static DEMO: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, data) = DEMO.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data").to_str().unwrap().to_owned();
        ok(&["demo", "--json", "--data", &data]);
        (folder, data)
    });
    data
}

/// One at a time has the demo's log open: whoever goes through another process must ask again once that is gone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(args).stdin(Stdio::null());
    command.env_remove("TIDEWIRE_DATA").env_remove("TIDEWIRE_LOG").env_remove("TIDEWIRE_BOOTSTRAP");
    command
}

fn run(args: &[&str], code: i32) -> Output {
    let output = command(args).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    output
}

fn ok(args: &[&str]) -> String {
    String::from_utf8(run(args, 0).stdout).unwrap()
}

fn fails(args: &[&str]) -> String {
    String::from_utf8(run(args, 1).stderr).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).unwrap()
}

/// A folder for what a test makes.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Makes a bundle of the demo's log.
    fn bundle(&self, name: &str, more: &[&str]) -> String {
        let path = self.path(name);
        ok(&[&["bundle", &path, "--json", "--data", demo()], more].concat());
        path
    }
}

/// Places, times, keys and values of a topic's records, and the header that tells where a copy is from.
fn tail(data: &str, topic: &str, more: &[&str]) -> Vec<(String, Option<String>)> {
    let text = ok(&[&["tail", topic, "--json", "--data", data], more].concat());
    let line = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        let fields = ["partition", "offset", "timestamp", "key", "kind", "value"];
        let shown = fields.iter().map(|field| format!("{field}={}", record[field])).collect::<Vec<_>>();
        (shown.join(" "), record["headers"]["tw-origin"].as_str().map(str::to_owned))
    };
    text.lines().map(line).collect()
}

fn values(data: &str, topic: &str, more: &[&str]) -> Vec<String> {
    tail(data, topic, more).into_iter().map(|(record, _)| record).collect()
}

/// All records under the prefix, but for notes that tell the time of day.
fn under(data: &str, prefix: &str) -> Vec<(TopicPartition, Vec<StoredRecord>)> {
    let log = EmbeddedLog::open(data, EmbeddedOptions::default()).unwrap();
    let mut all = Vec::new();
    let own = |name: &str| name.strip_prefix(prefix).is_some_and(|rest| !rest.starts_with("._"));
    for topic in log.topics().unwrap().into_iter().filter(|topic| own(&topic.name)) {
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(topic.name.clone(), partition);
            let (mut from, mut records) = (0, Vec::new());
            loop {
                let fetched = log.read(&at, from, 1 << 20).unwrap();
                records.extend(fetched.records);
                if fetched.at_end {
                    break;
                }
                from = fetched.next_offset;
            }
            all.push((at, records));
        }
    }
    all
}

/// That every task verified something and found it the same; returns how many outputs were compared.
fn verified(data: &str, prefix: &str) -> u64 {
    let verified = json(&["verify", "--prefix", prefix, "--data", data, "--json"]);
    let summary = &verified["summary"];
    assert_eq!((&summary["differing"], &summary["failures"]), (&0.into(), &0.into()), "{verified:#}");
    summary["compared"].as_u64().unwrap()
}

#[test]
fn a_folder_is_run_again_into_a_log_with_other_schema_ids() {
    let _alone = alone();
    let place = Place::new();
    let data = place.path("other");
    {
        // The first id is taken, so those of all kinds are others than in the demo's log.
        let log: Arc<dyn Log> = EmbeddedLog::open(&data, EmbeddedOptions::default()).unwrap();
        let schema = r#"{"type":"record","name":"Other","fields":[{"name":"a","type":"long"}]}"#;
        assert_eq!(LogRegistry::new(&*log).register("other-value", schema).unwrap(), 1);
    }
    let again = ["reprocess", "market-intel", "--into", "again", "--json", "--data", &data];
    let done = json(&[&again[..], &["--inputs", demo(), "--order", "recorded"]].concat());
    assert_eq!(done["complete"], true);
    assert_eq!(done["inputs"], *Path::new(demo()).canonicalize().unwrap().to_str().unwrap());
    for topic in ["signals.v1", "orders.v1", "positions.v1"] {
        let (live, run) = (values(demo(), topic, &[]), values(&data, topic, &["--prefix", "again"]));
        assert!(live.len() > 10, "{topic}");
        assert_eq!(live, run, "{topic}");
    }
    // The copies keep place, time, key and value, and say where they are from.
    for topic in ["reference.instruments.v1", "market.sentiment.v1"] {
        let (live, copies) = (values(demo(), topic, &[]), tail(&data, topic, &["--prefix", "again"]));
        assert!(!copies.is_empty());
        assert!(copies.iter().all(|(_, origin)| origin.as_ref().is_some_and(|at| at.starts_with(topic))));
        assert_eq!(live, copies.into_iter().map(|(record, _)| record).collect::<Vec<_>>());
    }
    let topics = ok(&["topics", "--data", &data]);
    assert!(!topics.lines().any(|line| line.starts_with("market.ticks.v1")), "{topics}");
    assert!(verified(&data, "again") > 3_000);

    let here = fails(&[&again[..6], &[demo(), "--inputs", demo()]].concat());
    assert!(here.contains("is the log at hand"), "{here}");
}

#[test]
fn a_bundle_is_run_again_where_the_log_is_not() {
    let _alone = alone();
    let place = Place::new();
    let stretch = ["--from", "2024-08-08T23:54:40Z", "--to", "2024-08-08T23:54:50Z"];
    let bundle = place.bundle("stretch.tidewire", &stretch);
    let (data, undisturbed) = (place.path("run"), place.path("undisturbed"));
    let again = |data: &str, bundle: &str, more: &[&str]| {
        let args =
            ["reprocess", "market-intel", "--into", "again", "--json", "--inputs", bundle, "--data", data];
        run(&[&args[..], more].concat(), 0)
    };
    let output = again(&undisturbed, &bundle, &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("begins from nothing") && said.contains("warmed up"), "{said}");
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(done["outputs"].as_u64().unwrap() > 1_000, "{done}");
    assert!(verified(&undisturbed, "again") > 50);
    let ticks = values(&bundle, "market.ticks.v1", &[]).len();
    assert_eq!(values(&undisturbed, "market.ticks.v1", &["--prefix", "again"]).len(), ticks);

    // A folder that is there: this is about the run, not about the making of a log.
    drop(EmbeddedLog::open(&data, EmbeddedOptions::default()).unwrap());
    // Killed at any moment, the same command goes on and gives the same. The bundle may be moved meanwhile.
    for after_ms in [20, 35, 50, 65, 80, 100] {
        let args = ["reprocess", "market-intel", "--into", "again", "--inputs", &bundle, "--data", &data];
        let mut child = command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        let _ = child.kill();
        child.wait().unwrap();
    }
    let moved = place.path("moved.tidewire");
    std::fs::rename(&bundle, &moved).unwrap();
    again(&data, &moved, &[]);
    let (one, other) = (under(&undisturbed, "again"), under(&data, "again"));
    assert_eq!(one.len(), other.len());
    for ((at, records), (_, others)) in one.iter().zip(&other) {
        let plain =
            |records: &[StoredRecord]| records.iter().map(|stored| stored.record.clone()).collect::<Vec<_>>();
        assert!(plain(records) == plain(others), "{at}: {} and {} records", records.len(), others.len());
    }

    // Another bundle is another run. A part of one is none that retention took.
    let shorter =
        place.bundle("shorter.tidewire", &["--from", "2024-08-08T23:54:45Z", "--to", "2024-08-08T23:54:50Z"]);
    let refused =
        fails(&["reprocess", "market-intel", "--into", "again", "--inputs", &shorter, "--data", &data]);
    assert!(refused.contains("holds another run") && refused.contains("`--inputs`"), "{refused}");
    let part = ["reprocess", "market-intel", "--into", "part", "--json", "--inputs", &moved, "--data", &data];
    let from = ["--from", "2024-08-08T23:54:45Z", "--order", "event"];
    json(&[&part[..], &from[..]].concat());
    let part = values(&data, "market.ticks.v1", &["--prefix", "part"]).len();
    assert!(part > 0 && part < ticks, "{part} of {ticks}");
    verified(&data, "part");
    ok(&["verify", "--prefix", "again", "--data", &data]);
}

#[test]
fn what_can_not_be_run_is_refused_before_anything_is_written() {
    let _alone = alone();
    let place = Place::new();
    let restricted = place.bundle("btc.tidewire", &["--stage", "signals", "--key", "BTCUSDT.BINANCE_USDM"]);
    let data = place.path("data");
    let into = ["reprocess", "market-intel", "--into", "again"];
    let error = fails(&[&into[..], &["--data", &restricted]].concat());
    assert!(error.contains(&format!("`--inputs {restricted}`")) && error.contains("`--data DIR`"), "{error}");
    let error = fails(&[&into[..], &["--inputs", &place.path("nowhere"), "--data", &data]].concat());
    assert!(error.contains("there is no log"), "{error}");
    assert!(!PathBuf::from(&data).exists());
    run(&[&into[..], &["--inputs", demo(), "--files", "x.gz", "--data", &data]].concat(), 2);

    let bundle =
        place.bundle("all.tidewire", &["--from", "2024-08-08T23:54:45Z", "--to", "2024-08-08T23:54:47Z"]);
    let other = place.path("other.toml");
    let shipped = include_str!("../../market-intel.toml");
    let changed = shipped.replacen("partitions = 4", "partitions = 3", 1);
    assert_ne!(shipped, changed);
    std::fs::write(&other, changed).unwrap();
    let error = fails(&["reprocess", &other, "--into", "again", "--inputs", &bundle, "--data", &data]);
    assert!(error.contains("has 4 partitions in bundle"), "{error}");
    assert!(!ok(&["topics", "--data", &data]).contains("again."));
}

#[test]
fn captures_in_parquet_give_what_the_same_captures_give_as_text() {
    let place = Place::new();
    let data = place.path("data");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ingest/tests/parquet");
    let mut found = Vec::new();
    for (prefix, name) in [("text", "capture.txt"), ("parquet", "capture.parquet")] {
        let file = folder.join(name).to_str().unwrap().to_owned();
        let done = json(&[
            "reprocess",
            "market-intel",
            "--into",
            prefix,
            "--files",
            &file,
            "--json",
            "--data",
            &data,
        ]);
        assert!(done["records"].as_u64().unwrap() > 300, "{done}");
        let own = under(&data, prefix).into_iter().filter(|(at, _)| {
            // A rejected line differs, and journals name what wrote them.
            !["dead-letters.v1", "epochs", "changelog"].iter().any(|end| at.topic.ends_with(end))
        });
        let plain = own.map(|(at, records)| {
            let topic = at.topic.strip_prefix(prefix).unwrap().to_owned();
            let records = records.into_iter().map(|stored| stored.record).collect::<Vec<_>>();
            (topic, at.partition, records)
        });
        found.push(plain.collect::<Vec<_>>());
        ok(&["verify", "market-intel", "--prefix", prefix, "--data", &data]);
    }
    let made: usize = found[0]
        .iter()
        .filter(|(topic, ..)| topic.contains("features"))
        .map(|(.., records)| records.len())
        .sum();
    assert!(made > 0, "nothing was made of the captures");
    assert_eq!(found[0].len(), found[1].len());
    for (text, parquet) in found[0].iter().zip(&found[1]) {
        assert!(text == parquet, "{}-{} differs", text.0, text.1);
    }
}

#[test]
fn some_keys_alone_give_what_they_give_among_all() {
    let _alone = alone();
    let place = Place::new();
    let (data, key) = (place.path("data"), "ETHUSDT.BINANCE_USDM");
    let stretch = ["--stage", "signals", "--from", "2024-08-08T23:54:45Z", "--to", "2024-08-08T23:55:30Z"];
    let task = partition_of_compound(key, 4).to_string();
    let whole = place.bundle("all.tidewire", &[&stretch[..], &["--task", &task]].concat());
    let restricted = place.bundle("btc.tidewire", &[&stretch[..], &["--key", key]].concat());
    for (prefix, bundle) in [("whole", &whole), ("btc", &restricted)] {
        let args = ["reprocess", "market-intel", "--into", prefix, "--inputs", bundle, "--data", &data];
        let said = String::from_utf8(run(&args, 0).stderr).unwrap();
        assert_eq!(said.contains(&format!("records of {key} alone")), prefix == "btc", "{said}");
    }
    // Among all there is another instrument in that partition.
    let others = values(&data, "features.bars.v1", &["--prefix", "whole", "--key", "BTCUSDT.BINANCE_SPOT"]);
    assert!(others.len() > 10, "{}", others.len());
    let of_key = |prefix: &str, topic: &str| -> Vec<String> {
        let text = ok(&["tail", topic, "--json", "--prefix", prefix, "--key", key, "--data", &data]);
        let plain = |line: &str| {
            let record: Value = serde_json::from_str(line).unwrap();
            // When it could be known is that of all records too.
            let received = &record["headers"]["received-ns"];
            format!("{} {received} {} {}", record["timestamp"], record["kind"], record["value"])
        };
        text.lines().map(plain).collect()
    };
    let mut count = 0;
    for topic in ["features.bars.v1", "features.values.v1", "signals.v1", "alerts.v1", "marks.v1"] {
        let (found, expected) = (of_key("btc", topic), of_key("whole", topic));
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{topic}, record {place}");
        }
        assert_eq!(found.len(), expected.len(), "{topic}");
        count += found.len();
    }
    assert!(count > 100, "{count}");
    // Records of which only the time is there are no dead letters, and the run can be run again as any other.
    let letters = values(&data, "dead-letters.v1", &["--prefix", "btc"]);
    assert!(letters.is_empty(), "{letters:?}");
    ok(&["verify", "market-intel", "--prefix", "btc", "--data", &data]);
}

#[test]
fn files_give_what_their_records_give_from_a_log() {
    let place = Place::new();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let file = |name: &str| samples.join(name).to_str().unwrap().to_owned();
    let files = [file("binance/usdm_ethusdt_20240808.gz"), file("news/crypto_news_20220704.csv")];
    let news = ["--news-from", "2024-08-08T23:54:15Z", "--news-to", "2024-08-08T23:55:51Z"];
    let reading = [&files.each_ref().map(String::as_str)[..], &news].concat();
    let (log, empty) = (place.path("log"), place.path("empty"));
    ok(&[&["import", "--pipeline", "market-intel", "--data", &log], &reading[..]].concat());
    ok(&["reprocess", "market-intel", "--into", "p", "--data", &log]);
    ok(&[&["reprocess", "market-intel", "--into", "p", "--data", &empty, "--files"], &reading[..]].concat());
    let prefix = ["--prefix", "p"];
    // Limits are those of the pipeline file, so there are orders, and refusals.
    assert!(values(&empty, "orders.v1", &prefix).len() > 10);
    for topic in ["risk.limits.v1", "features.values.v1", "risk.decisions.v1", "orders.v1", "positions.v1"] {
        let (found, expected) = (values(&empty, topic, &prefix), values(&log, topic, &prefix));
        assert!(found == expected, "{topic}: {} and {} records", found.len(), expected.len());
    }
}
