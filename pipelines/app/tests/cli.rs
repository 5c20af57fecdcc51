//! The real binary from the outside: what it prints, what it leaves in the log, and its exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;
use tidewire_engine::log::{Log as _, NewRecord, TopicPartition};
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_tests::eventually;

const TRADES: &str = "time,price,quantity,side\n\
    2024-08-08T23:54:15.100Z,61800.30,0.006,buy\n\
    2024-08-08T23:54:15.900Z,61801.10,0.010,sell\n\
    2024-08-08T23:54:16.200Z,minus,0.010,sell\n\
    2024-08-08T23:54:17.500Z,61799.00,0.500,buy\n";

const LATER_TRADES: &str = "time,price,quantity,side\n\
    2024-08-08T23:54:20.100Z,61810.00,0.006,buy\n\
    2024-08-08T23:54:25.900Z,61812.00,0.010,sell\n";

const BARS: &str = r#"
[pipeline]
name = "bars"
partitions = 2

[engine]
flush_interval_ms = 200

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

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.args(args).arg("--data").arg(self.data()).stdin(Stdio::null());
        command.env_remove("TIDEWIRE_DATA").env_remove("TIDEWIRE_LOG");
        command
    }

    /// Runs it to its end, which must come in time.
    fn run(&self, args: &[&str]) -> Output {
        let mut running = Running::start(self.command(args));
        let (out, err) = (running.0.stdout.take().unwrap(), running.0.stderr.take().unwrap());
        let (out, err) = (read_all(out), read_all(err));
        let status = running.wait(&format!("{args:?}"));
        Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
    }

    /// Runs it and expects success; returns stdout.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{args:?}\n{out}\n{err}");
        out
    }

    /// Runs it and expects this exit code; returns stderr.
    fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
        err
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        self.ok(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn import(&self, name: &str, csv: &str) -> Value {
        let file = self.file(name, csv);
        self.json(&[
            "import",
            file.to_str().unwrap(),
            "--instrument",
            "BTCUSDT.BINANCE_USDM",
            "--topic-partitions",
            "2",
            "--json",
        ])
    }
}

/// A process that is ended when the test is.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Ctrl-C; returns the exit code and stderr.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let status = self.wait("after Ctrl-C");
        let mut err = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (status.code(), err)
    }
}

impl Running {
    fn wait(&mut self, what: &str) -> ExitStatus {
        let begun = Instant::now();
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return status,
                None if begun.elapsed() > PATIENCE => panic!("{what}: it does not end"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn bars(place: &Place) -> Vec<Value> {
    let output = place.run(&["tail", "features.bars.v1", "--json"]);
    if !output.status.success() {
        return Vec::new();
    }
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_imported_is_there_to_be_read() {
    let place = Place::new();
    let done = place.import("trades.csv", TRADES);
    assert_eq!(done["records"], 4, "three trades and the instrument: {done}");
    assert_eq!(done["rejected"], 1);
    assert_eq!(done["by_topic"]["market.ticks.v1"], 3);

    let trades = place.lines(&["tail", "market.ticks.v1", "--json"]);
    assert_eq!(trades.len(), 3);
    assert_eq!(trades[0]["kind"], "Trade");
    assert_eq!(trades[0]["key"], "BTCUSDT.BINANCE_USDM");
    assert_eq!(trades[0]["timestamp"], "2024-08-08T23:54:15.100Z");
    assert_eq!(trades[0]["value"]["price"], "61800.3");
    assert_eq!(trades[0]["value"]["aggressor"], "BUYER");
    assert_eq!(trades[0]["headers"]["received-ns"], "1723161255100000000");
    let offsets: Vec<u64> = trades.iter().filter_map(|trade| trade["offset"].as_u64()).collect();
    assert_eq!(offsets, [0, 1, 2]);

    let partition = trades[0]["partition"].to_string();
    let count = |args: &[&str]| place.ok(args).lines().count();
    assert_eq!(count(&["tail", "market.ticks.v1", "--limit", "2"]), 2);
    assert_eq!(count(&["tail", "market.ticks.v1", "--last", "1"]), 1);
    assert_eq!(count(&["tail", "market.ticks.v1", "--from", "latest"]), 0);
    assert_eq!(count(&["tail", "market.ticks.v1", "--from", "2", "--partition", &partition]), 1);
    assert_eq!(count(&["tail", "market.ticks.v1", "--from", "2024-08-08T23:54:15.900Z"]), 2);
    assert_eq!(count(&["tail", "market.ticks.v1", "--key", "ETHUSDT.BINANCE_USDM"]), 0);
    let line = place.ok(&["tail", "market.ticks.v1", "--limit", "1"]);
    assert!(
        line.starts_with(&format!(
            "2024-08-08T23:54:15.100Z  {partition}@0  BTCUSDT.BINANCE_USDM  Trade instrument="
        )),
        "{line}"
    );

    let topics = place.json(&["topics", "--json"]);
    let topic = topics.as_array().unwrap().iter().find(|topic| topic["name"] == "market.ticks.v1").unwrap();
    let ends =
        topic["partitions"].as_array().unwrap().iter().map(|partition| partition["end"].as_u64().unwrap());
    assert_eq!(ends.sum::<u64>(), 3);
    assert!(place.ok(&["topics", "describe", "market.ticks.v1"]).contains("key: instrument"));
    let error = place.fails(&["tail", "market.tick.v1"], 1);
    assert!(error.contains("the nearest name is market.ticks.v1"), "{error}");
    let error = place.fails(&["tail", "market.ticks.v1", "--from", "1"], 1);
    assert!(error.contains("--partition"), "{error}");
}

#[test]
fn rejected_lines_are_dead_letters_with_their_line() {
    let place = Place::new();
    place.import("trades.csv", TRADES);
    let letters = place.lines(&["dead-letters", "list", "--json"]);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["source"], "trades.csv");
    assert_eq!(letters[0]["line"], 4);
    assert_eq!(letters[0]["reason"], "bad-value");
    assert!(place.ok(&["dead-letters", "list"]).contains("trades.csv, line 4"));
    let shown = place.ok(&["dead-letters", "show", "0@0"]);
    assert!(shown.contains("2024-08-08T23:54:16.200Z,minus,0.010,sell"), "{shown}");
    let sent = place.ok(&["dead-letters", "replay", "--all"]);
    assert!(sent.contains("left out: a line of a file") && sent.contains("0 sent, 1 left out"), "{sent}");
    place.fails(&["dead-letters", "replay"], 1);
    place.fails(&["dead-letters", "show", "0@7"], 1);
    assert!(place.ok(&["dead-letters", "list", "--reason", "overflow"]).contains("no dead letters"));
}

#[test]
fn a_file_is_imported_once() {
    let place = Place::new();
    place.import("trades.csv", TRADES);
    let copy = place.file("copy.csv", TRADES);
    let args = ["import", copy.to_str().unwrap(), "--instrument", "BTCUSDT.BINANCE_USDM"];
    let error = place.fails(&args, 1);
    assert!(error.contains("copy.csv was imported before, as trades.csv (4 records)"), "{error}");
    place.ok(&[&args[..], &["--again"]].concat());
    assert_eq!(place.ok(&["tail", "market.ticks.v1"]).lines().count(), 6);
    let missing = place.fails(&["import", "no-such-file.csv"], 1);
    assert!(missing.contains("no-such-file.csv"), "{missing}");
}

#[test]
fn commands_that_only_read_make_no_log() {
    let place = Place::new();
    for args in [
        &["topics"][..],
        &["tail", "x"],
        &["status"],
        &["verify"],
        &["verify", "--follow"],
        &["doctor"],
        &["dead-letters", "list"],
    ] {
        let error = place.fails(args, 1);
        assert!(error.contains("there is no log in"), "{error}");
    }
    assert!(!place.data().exists());
    place.import("trades.csv", TRADES);
    let error = place.fails(&["status"], 1);
    assert!(error.contains("no pipeline has run on this log"), "{error}");
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let place = Place::new();
    place.fails(&["no-such-command"], 2);
    place.fails(&["tail"], 2);
    let bad = place.file("bad.toml", &BARS.replacen("time_bars", "time_bar", 1));
    for command in ["check", "run"] {
        let error = place.fails(&[command, bad.to_str().unwrap()], 4);
        assert!(error.contains("bad.toml:19:8: unknown operator `time_bar`"), "{error}");
        assert!(error.contains("1 problem; nothing was started"), "{error}");
    }
    assert!(!place.data().exists(), "a bad file makes no log");
    let good = place.file("good.toml", BARS);
    assert!(place.ok(&["check", good.to_str().unwrap()]).contains("stage features: 2 tasks"));
    let described = place.json(&["check", "market-intel", "--json"]);
    assert_eq!(described["stages"].as_array().unwrap().len(), 3);
    assert_eq!(described["warnings"].as_array().unwrap().len(), 0, "{}", described["warnings"]);
    assert!(place.ok(&["operators"]).contains("time_bars"));
}

#[test]
fn a_pipeline_runs_is_fed_and_is_looked_at() {
    let place = Place::new();
    let file = place.file("bars.toml", BARS);
    let file = file.to_str().unwrap();
    place.import("trades.csv", TRADES);
    let running = Running::start(place.command(&["run", file]));
    // In silence time goes on, so the last window closes too.
    eventually("bars", PATIENCE, || (bars(&place).len() == 2).then_some(()));

    // What is imported meanwhile goes through the running process.
    let later = place.import("later.csv", LATER_TRADES);
    assert_eq!(later["records"], 3);
    let made = eventually("later bars", PATIENCE, || Some(bars(&place)).filter(|bars| bars.len() == 4));
    assert_eq!(made[0]["value"]["volume"], "0.016");
    assert_eq!(made[0]["headers"]["tw-id"].as_str().unwrap().split('/').next(), Some("features"));

    let status = place.json(&["status", "--json"]);
    assert_eq!(status[0]["pipeline"], "bars");
    assert_eq!(status[0]["process_has_log_open"], true);
    let tasks = status[0]["stages"][0]["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    assert!(tasks.iter().all(|task| task["lag"] == 0), "{status}");
    assert!(tasks.iter().any(|task| task["epoch"].as_i64().is_some_and(|epoch| epoch >= 1)), "{status}");
    let error = place.fails(&["run", file], 1);
    assert!(error.contains("another process has the log in"), "{error}");

    let (code, err) = running.interrupt();
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("stopped: 5 records in, 4 out"), "{err}");
    let shown = place.ok(&["status", "--inputs"]);
    assert!(shown.contains("pipeline bars") && shown.contains("no process has the log open"), "{shown}");
    assert!(shown.contains("market.ticks.v1-"), "{shown}");

    assert!(place.ok(&["verify"]).contains("same"));
    let changed = place.file("changed.toml", &BARS.replacen("interval_ms = 1_000", "interval_ms = 2_000", 1));
    let output = place.run(&["verify", changed.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("first difference: stage features"), "{}", text(&output.stdout));

    // A second start goes on and makes nothing twice.
    let running = Running::start(place.command(&["run", file]));
    std::thread::sleep(Duration::from_millis(500));
    let (code, err) = running.interrupt();
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("stopped: 0 records in, 0 out"), "{err}");
    assert_eq!(bars(&place).len(), 4);
}

#[test]
fn partitions_that_do_not_fit_are_refused() {
    let place = Place::new();
    place.import("trades.csv", TRADES);
    let file = place.file("bars.toml", &BARS.replacen("partitions = 2", "partitions = 8", 1));
    let error = place.fails(&["run", file.to_str().unwrap()], 1);
    assert!(
        error.contains("topic market.ticks.v1: has 2 partitions in the log, and 8 in the pipeline file"),
        "{error}"
    );
    assert!(error.contains("[topics.\"market.ticks.v1\"] partitions = 2"), "{error}");
}

#[test]
fn a_dead_letter_of_a_stage_can_be_sent_again() {
    let place = Place::new();
    place.import("trades.csv", TRADES);
    let letters = place.lines(&["dead-letters", "list", "--json"]).len();
    {
        let log = EmbeddedLog::open(place.data(), EmbeddedOptions::default()).unwrap();
        let record = NewRecord {
            timestamp_ms: 1_723_161_258_000,
            key: Some(Bytes::from_static(b"BTCUSDT.BINANCE_USDM")),
            value: Some(Bytes::from_static(b"no record at all")),
            headers: Vec::new(),
        };
        log.append(&TopicPartition::new("market.ticks.v1", 0), vec![record]).unwrap();
    }
    let file = place.file("bars.toml", BARS);
    let running = Running::start(place.command(&["run", file.to_str().unwrap()]));
    let of_stage = || {
        let all = place.lines(&["dead-letters", "list", "--json", "--stage", "features"]);
        (!all.is_empty()).then_some(all)
    };
    let found = eventually("the dead letter", PATIENCE, of_stage);
    assert_eq!(found[0]["source"], "market.ticks.v1");
    assert_eq!(found[0]["partition"], 0);
    let at = found[0]["place"].as_str().unwrap().to_owned();
    let would = place.ok(&["dead-letters", "replay", &at, "--dry-run"]);
    assert!(would.contains("would go to market.ticks.v1-0"), "{would}");
    let sent = place.ok(&["dead-letters", "replay", &at]);
    assert!(sent.contains("1 sent, 0 left out"), "{sent}");
    // It is as undecodable as before, and comes back.
    eventually("the dead letter again", PATIENCE, || of_stage().filter(|all| all.len() == 2));
    let again = place.ok(&["dead-letters", "replay", &at]);
    assert!(again.contains("left out: sent again before"), "{again}");
    assert_eq!(place.lines(&["dead-letters", "list", "--json"]).len(), letters + 2);
    let (code, err) = running.interrupt();
    assert_eq!(code, Some(0), "{err}");
    let records = place.lines(&["tail", "market.ticks.v1", "--json", "--partition", "0", "--last", "1"]);
    assert_eq!(records[0]["headers"]["tw-replayed"], format!("dead-letters.v1/{at}"));
    assert!(records[0]["problem"].is_string(), "{}", records[0]);
}

#[test]
fn tail_follows_what_comes() {
    let place = Place::new();
    place.import("trades.csv", TRADES);
    let mut tail = Running::start(place.command(&["tail", "market.ticks.v1", "--follow", "--json"]));
    let mut lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    for _ in 0..3 {
        next();
    }
    // Whoever came first holds the log: here the import goes through `tail`.
    place.import("later.csv", LATER_TRADES);
    assert_eq!(next()["value"]["price"], "61810");
    assert_eq!(next()["value"]["price"], "61812");
    let (code, err) = tail.interrupt();
    assert_eq!(code, Some(0), "{err}");
}

#[test]
fn the_demo_gives_the_same_whatever_the_number_of_workers() {
    let (one, three) = (Place::new(), Place::new());
    let first = one.json(&["demo", "--json", "--workers", "1"]);
    let second = three.json(&["demo", "--json", "--workers", "3"]);
    for part in [
        "by_topic",
        "signals",
        "orders",
        "approved",
        "refused",
        "fills",
        "alerts",
        "profit_and_loss",
        "records",
        "span_ms",
    ] {
        assert_eq!(first[part], second[part], "{part}");
    }
    for topic in ["signals.v1", "orders.v1", "positions.v1", "market-intel.epochs"] {
        let args = ["tail", topic, "--json"];
        assert_eq!(one.ok(&args), three.ok(&args), "{topic}");
    }
    let sum = |part: &Value| part.as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
    assert!(sum(&first["signals"]) >= 20, "{first}");
    assert!(first["fills"].as_u64().unwrap() >= 20, "{first}");
    assert!(first["refused"].as_object().unwrap().len() >= 3, "refusals of several kinds: {first}");
    assert_eq!(first["faults"], 0, "{first}");
    assert!(first["notes"][0].as_str().unwrap().contains("news was moved in time"), "{first}");
    let status = one.ok(&["status"]);
    assert!(status.contains("news was moved in time"), "{status}");
    assert!(one.ok(&["verify"]).contains("same"));
    let error = one.fails(&["run", "market-intel"], 1);
    assert!(error.contains("holds a synchronised run of market-intel"), "{error}");
    let error = one.fails(&["demo"], 1);
    assert!(error.contains("fresh"), "{error}");
}

#[test]
fn the_folder_of_a_demo_without_one_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidewire")).args(["demo", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let dir = Path::new(told["data"].as_str().unwrap());
    assert!(dir.join("format").exists());
    std::fs::remove_dir_all(dir).unwrap();
}
