//! Bundles by the real binary: what is in them, that they verify, what stays out, and what is said of damaged ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod keys;
mod orders;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;
use tidewire_engine::log::{Log, StoredRecord, TopicPartition};
use tidewire_runtime::bundle::BundleLog;

/// A stretch in the middle of the recording.
const FROM: &str = "2024-08-08T23:54:40Z";
const TO: &str = "2024-08-08T23:54:55Z";
const BTC: &str = "BTCUSDT.BINANCE_USDM";

/// The log of one demo, for all tests. They only read it.
fn demo() -> &'static Path {
    static DEMO: OnceLock<TempDir> = OnceLock::new();
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    let folder = DEMO.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        ok(&["demo", "--json"], &folder.path().join("data"));
        folder
    });
    DATA.get_or_init(|| folder.path().join("data"))
}

/// One at a time has the log open: whoever goes through another process must ask again once that is gone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(args: &[&str], data: &Path) -> Output {
    let _alone = alone();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(args).arg("--data").arg(data).stdin(Stdio::null());
    command.env_remove("TIDEWIRE_DATA").env_remove("TIDEWIRE_LOG").env_remove("TIDEWIRE_BOOTSTRAP");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ok(args: &[&str], data: &Path) -> String {
    let output = run(args, data);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{out}\n{err}");
    out
}

fn fails(args: &[&str], data: &Path, code: i32) -> String {
    let output = run(args, data);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    err
}

fn json(args: &[&str], data: &Path) -> Value {
    serde_json::from_str(&ok(args, data)).unwrap()
}

/// Makes a bundle of the demo's log; returns what it says of itself.
fn bundle(folder: &TempDir, name: &str, more: &[&str]) -> (PathBuf, Value) {
    let path = folder.path().join(name);
    let mut args = vec!["bundle", path.to_str().unwrap(), "--json"];
    args.extend(more);
    let said = json(&args, demo());
    (path, said)
}

/// Every record of a bundle.
fn records(path: &Path) -> Vec<(TopicPartition, StoredRecord)> {
    let log = BundleLog::open(path).unwrap();
    let mut all = Vec::new();
    let partitions: Vec<_> = log.partitions().collect();
    for view in partitions {
        let mut from = view.start;
        loop {
            let fetched = log.read(&view.at, from, 1 << 16).unwrap();
            all.extend(fetched.records.into_iter().map(|stored| (view.at.clone(), stored)));
            if fetched.at_end {
                break;
            }
            from = fetched.next_offset;
        }
    }
    all
}

/// Everything that is in a record.
fn bytes_of(stored: &StoredRecord) -> Vec<u8> {
    let record = &stored.record;
    let mut bytes =
        [record.key.clone(), record.value.clone()].into_iter().flatten().collect::<Vec<Bytes>>().concat();
    for (name, value) in &record.headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

fn holds(stored: &StoredRecord, text: &str) -> bool {
    bytes_of(stored).windows(text.len()).any(|window| window == text.as_bytes())
}

/// That every task verified something and found it the same; returns how many outputs were compared.
fn all_the_same(verified: &Value) -> u64 {
    let tasks = verified["tasks"].as_array().unwrap();
    assert!(tasks.iter().all(|task| task["difference"].is_null()), "{verified:#}");
    tasks.iter().map(|task| task["compared"].as_u64().unwrap()).sum()
}

#[test]
fn a_stretch_verifies_from_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (path, said) = bundle(&folder, "all.tidewire", &["--from", FROM, "--to", TO]);
    let tasks = said["tasks"].as_array().unwrap();
    assert!(
        tasks.iter().any(|task| task["after_epoch"].as_u64().unwrap() > 0),
        "it begins from cuts: {said:#}"
    );
    let stages: Vec<&str> = tasks.iter().map(|task| task["stage"].as_str().unwrap()).collect();
    assert!(["signals", "risk", "venue"].iter().all(|stage| stages.contains(stage)));

    let verified = json(&["verify", "--json"], &path);
    assert!(all_the_same(&verified) > 500, "{verified:#}");
    for held in tasks {
        let found = verified["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|task| task["stage"] == held["stage"] && task["task"] == held["task"]);
        let epochs = held["last_epoch"].as_u64().unwrap() - held["after_epoch"].as_u64().unwrap();
        assert_eq!(found.unwrap()["epochs"], epochs, "all epochs from the cut on");
    }
    let told = text(&run(&["verify"], &path).stderr);
    assert!(told.contains("the bundle holds epochs"), "{told}");

    // It is much smaller than the log, and the rest of the commands that read work on it.
    let whole: u64 =
        said["topics"].as_array().unwrap().iter().map(|topic| topic["bytes"].as_u64().unwrap()).sum();
    assert!(said["bytes"].as_u64().unwrap() < whole / 2, "{said:#}");
    let ticks = ok(&["tail", "market.ticks.v1", "--json"], &path);
    let all_ticks = ok(&["tail", "market.ticks.v1", "--json"], demo());
    assert!(ticks.lines().count() > 1_000 && ticks.lines().count() < all_ticks.lines().count() * 2 / 3);
    let first: Value = serde_json::from_str(ticks.lines().next().unwrap()).unwrap();
    let same = all_ticks.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(same.into_iter().any(|tick| tick == first), "records are as they were, offsets too");
    assert!(ok(&["topics"], &path).contains("orders.v1"));
    assert!(ok(&["status"], &path).contains("signals"));
    assert!(ok(&["bundle", path.to_str().unwrap(), "--show"], &path).contains("market.ticks.v1"));
}

#[test]
fn the_same_stretch_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--from", FROM, "--to", TO, "--stage", "risk"];
    let (first, said) = bundle(&folder, "first.tidewire", &more);
    let (second, again) = bundle(&folder, "second.tidewire", &more);
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    assert_eq!(said["digest"], again["digest"]);
    // A bundle of a bundle holds the same records.
    let third = folder.path().join("third.tidewire");
    ok(&["bundle", third.to_str().unwrap()], &first);
    assert_eq!(records(&first), records(&third));

    let error = fails(&["bundle", first.to_str().unwrap()], demo(), 1);
    assert!(error.contains("is there already") && error.contains("--force"), "{error}");
    ok(&["bundle", first.to_str().unwrap(), "--force", "--stage", "venue"], demo());
    assert_ne!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left behind");
}

#[test]
fn epochs_are_named_by_number_too() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--stage", "signals", "--task", "1", "--from", "30", "--to", "33"];
    let (path, said) = bundle(&folder, "epochs.tidewire", &more);
    let tasks = said["tasks"].as_array().unwrap();
    assert_eq!(
        (tasks.len(), tasks[0]["first_epoch"].as_u64(), tasks[0]["last_epoch"].as_u64()),
        (1, Some(30), Some(33))
    );
    assert!(tasks[0]["after_epoch"].as_u64().unwrap() < 30);
    let verified = json(&["verify", "--json", "--stage", "signals", "--task", "1"], &path);
    all_the_same(&verified);

    let none = folder.path().join("none.tidewire");
    let none = none.to_str().unwrap();
    let error = fails(&["bundle", none, "--from", "2030-01-01T00:00:00Z"], demo(), 1);
    assert!(error.contains("no epoch of these stages"), "{error}");
    let error = fails(&["bundle", none, "--stage", "signal"], demo(), 1);
    assert!(error.contains("no stage signal; there are signals, risk, venue"), "{error}");
    fails(&["bundle", none, "--from", "yesterday"], demo(), 2);
    assert!(!Path::new(none).exists());
}

#[test]
fn nothing_is_written_to_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = bundle(&folder, "b.tidewire", &["--stage", "venue", "--from", FROM, "--to", TO]);
    let before = std::fs::read(&path).unwrap();
    let csv = folder.path().join("trades.csv");
    std::fs::write(&csv, "time,price,quantity,side\n2024-08-08T23:54:15.100Z,1.0,1.0,buy\n").unwrap();
    let import = ["import", csv.to_str().unwrap(), "--instrument", BTC];
    for args in [&["run", "market-intel"][..], &["demo"], &["topics", "create", "t"], &import] {
        let error = fails(args, &path, 1);
        assert!(error.contains("can only be read"), "{args:?}: {error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn damaged_bundles_are_told_by_their_block() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = bundle(&folder, "b.tidewire", &["--stage", "venue", "--from", FROM, "--to", TO]);
    let bytes = std::fs::read(&path).unwrap();
    let show = ["bundle", "--show", path.to_str().unwrap()];
    for place in 0..40 {
        let mut changed = bytes.clone();
        let at = (place * bytes.len() / 40 + place * 7) % bytes.len();
        changed[at] ^= 1 << (place % 8);
        std::fs::write(&path, &changed).unwrap();
        let error = fails(&show, demo(), 1);
        assert!(error.contains("b.tidewire"), "byte {at}: {error}");
    }
    let mut changed = bytes.clone();
    changed[300] ^= 4;
    std::fs::write(&path, &changed).unwrap();
    let error = fails(&show, demo(), 1);
    assert!(error.contains("block 0 of") && error.contains("is damaged"), "{error}");
    for cut in [0, 5, 11, 12, 60, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        fails(&show, demo(), 1);
        fails(&["topics"], &path, 1);
    }
    std::fs::write(&path, "no bundle at all, but a longer file of text than its head has bytes").unwrap();
    let error = fails(&["topics"], &path, 1);
    assert!(error.contains("is no bundle"), "{error}");
}

#[test]
fn what_says_where_and_how_it_ran_stays_out() {
    const SECRET: &str = "hunter2";
    const FILE: &str = r#"
# The password of the cluster is hunter2.
[pipeline]
name = "bars"
partitions = 2

[http]
listen = "127.0.0.1:0" # hunter2

[run]
workers = 1

[[sink]]
name = "hunter2"
type = "redis"
url_env = "hunter2"

[[stage]]
name = "features"

[[stage.input]]
id = "ticks"
topic = "market.ticks.v1"
role = "driving"

[[stage.operator]]
id = "bars"
type = "time_bars"
from = ["ticks"]
interval_ms = 1_000

[[stage.output]]
topic = "features.bars.v1"
from = ["bars"]
"#;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (csv, file) = (folder.path().join("trades.csv"), folder.path().join("hunter2-folder"));
    std::fs::create_dir(&file).unwrap();
    let file = file.join("bars.toml");
    std::fs::write(&file, FILE).unwrap();
    let lines: Vec<String> =
        (10..40).map(|second| format!("2024-08-08T23:54:{second}.100Z,61800.30,0.006,buy")).collect();
    std::fs::write(&csv, format!("time,price,quantity,side\n{}\n", lines.join("\n"))).unwrap();
    ok(&["import", csv.to_str().unwrap(), "--instrument", BTC, "--topic-partitions", "2"], &data);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(["run", file.to_str().unwrap(), "--synchronised", "--data", data.to_str().unwrap()]);
    command.env("TIDEWIRE__HTTP__LISTEN", "127.0.0.1:0").env("TIDEWIRE__RUN__WORKERS", "1");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(ok(&["tail", "_pipelines", "--json"], &data).contains(SECRET), "the log has it");

    let path = folder.path().join("b.tidewire");
    ok(&["bundle", path.to_str().unwrap()], &data);
    for (at, stored) in records(&path) {
        assert!(
            !holds(&stored, SECRET) && !holds(&stored, "TIDEWIRE__"),
            "{at} {}",
            text(&bytes_of(&stored))
        );
    }
    assert!(!serde_json::to_string(BundleLog::open(&path).unwrap().about()).unwrap().contains(SECRET));
    assert!(all_the_same(&json(&["verify", "--json"], &path)) > 20);
}
