//! A running process as its operator sees it: pages, metrics, logs and signals of the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidewire::http::METRICS;
use tidewire_tests::eventually;

/// What a pipe holds on Linux.
const PAGE_BYTES: usize = 4_096;
const PIPE_PAGES: usize = 16;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

const TRADES: &str = "time,price,quantity,side\n\
    2024-08-08T23:54:15.100Z,61800.30,0.006,buy\n\
    2024-08-08T23:54:15.900Z,61801.10,0.010,sell\n\
    2024-08-08T23:54:17.500Z,61799.00,0.500,buy\n\
    2024-08-08T23:54:12.000Z,61790.00,0.250,buy\n";

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
max_future_skew_ms = 1_000

[[stage.operator]]
id = "bars"
type = "time_bars"
from = ["ticks"]
interval_ms = 1_000

[[stage.output]]
topic = "features.bars.v1"
from = ["bars"]
"#;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bars.toml"), BARS).unwrap();
        std::fs::write(folder.path().join("trades.csv"), TRADES).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        let ours = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("TIDEWIRE"));
        for name in ours {
            command.env_remove(name);
        }
        command.args(args).arg("--data").arg(self.path("data")).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn import(&self) {
        let args =
            ["import", "trades.csv", "--instrument", "BTCUSDT.BINANCE_USDM", "--topic-partitions", "2"];
        let done = self.command(&args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Starts `run` with these options besides, and waits until it says where its pages are.
    fn run(&self, more: &[&str]) -> Running {
        let mut args = vec!["run", "bars.toml", "--http", "127.0.0.1:0"];
        args.extend(more);
        let mut child = self.command(&args).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let base = loop {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended: {said}");
            said += &line;
            if let Some((_, rest)) = line.split_once("health and metrics: ") {
                let end = rest.find(['"', '\n']).unwrap();
                break rest[..end].to_owned();
            }
        };
        Running { child, stderr, said, base }
    }
}

/// A running process; ended when the test is.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
    base: String,
}

impl Running {
    fn get(&self, page: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let mut answer = agent.get(format!("{}{page}", self.base)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    fn ready(&self) {
        eventually("ready", PATIENCE, || (self.get("/readyz").0 == 200).then_some(()));
    }

    /// Values by series.
    fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = series.map(|line| line.rsplit_once(' ').unwrap());
        pairs.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for the end; returns the exit code and all of stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let mut said = std::mem::take(&mut self.said);
        self.stderr.read_to_string(&mut said).unwrap();
        let code = eventually("the end", PATIENCE, || self.child.try_wait().unwrap()).code();
        (code, said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of the metric that a series belongs to.
fn metric_of(series: &str) -> String {
    let name = series.split('{').next().unwrap();
    let parts = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    let histogram = parts.filter(|name| METRICS.iter().any(|metric| metric.name == *name));
    histogram.unwrap_or(name).to_owned()
}

#[test]
fn what_is_done_shows_in_the_metrics() {
    let place = Place::new();
    place.import();
    let running = place.run(&[]);
    running.ready();
    let sum = |metrics: &BTreeMap<String, f64>, name: &str, with: &str| -> f64 {
        let ours = metrics.iter().filter(|(series, _)| metric_of(series) == name && series.contains(with));
        ours.map(|(_, value)| *value).sum()
    };
    let metrics = eventually("all records and a look at the state", PATIENCE, || {
        let metrics = running.metrics();
        let read = sum(&metrics, "tidewire_input_records_total", "topic=\"market.ticks.v1\"");
        let looked = sum(&metrics, "tidewire_operator_input_records_total", "operator=\"bars\"");
        let lag_known = metrics.keys().any(|series| metric_of(series) == "tidewire_input_lag_records");
        (read == 4.0 && looked == 4.0 && lag_known).then_some(metrics)
    });
    assert_eq!(sum(&metrics, "tidewire_task_status", "status=\"running\""), 2.0);
    assert_eq!(sum(&metrics, "tidewire_task_status", ""), 2.0, "a task has one status");
    // The trade of 23:54:12 comes after its second was closed: out_of_orderness is 0.
    assert_eq!(sum(&metrics, "tidewire_late_records_total", ""), 1.0);
    assert_eq!(sum(&metrics, "tidewire_output_records_total", "topic=\"late.v1\""), 1.0);
    assert_eq!(sum(&metrics, "tidewire_operator_late_records_total", "operator=\"bars\""), 1.0);
    assert!(sum(&metrics, "tidewire_output_records_total", "topic=\"features.bars.v1\"") >= 2.0);
    assert_eq!(sum(&metrics, "tidewire_dead_letters_total", ""), 0.0);
    assert_eq!(sum(&metrics, "tidewire_restores_total", ""), 2.0);
    assert_eq!(sum(&metrics, "tidewire_log_up", ""), 1.0);
    let done = sum(&metrics, "tidewire_commits_total", "outcome=\"done\"");
    assert!(done >= 1.0);
    let timed: f64 = metrics
        .iter()
        .filter(|(series, _)| series.starts_with("tidewire_commit_duration_seconds_count"))
        .map(|(_, value)| *value)
        .sum();
    assert_eq!(timed, sum(&metrics, "tidewire_commits_total", ""), "every commit is timed");
    assert!(sum(&metrics, "tidewire_state_keys", "operator=\"bars\"") >= 1.0);
    let lag = eventually("no lag", PATIENCE, || {
        let metrics = running.metrics();
        let lag = sum(&metrics, "tidewire_input_lag_records", "topic=\"market.ticks.v1\"");
        (lag == 0.0).then_some(lag)
    });
    assert_eq!(lag, 0.0);

    let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    for series in metrics.keys() {
        assert!(known.contains(metric_of(series).as_str()), "{series} is not in the table of metrics");
    }
    let bytes = eventually("a flush and a look at it", PATIENCE, || {
        let bytes = sum(&running.metrics(), "tidewire_state_bytes", "operator=\"bars\"");
        (bytes > 0.0).then_some(bytes)
    });
    assert!(bytes < 10_000.0, "{bytes}");
}

#[test]
fn the_pages_say_how_it_is() {
    let place = Place::new();
    place.import();
    let running = place.run(&[]);
    running.ready();
    assert_eq!(running.get("/healthz").0, 200);
    let verdict: Value = serde_json::from_str(&running.get("/readyz").1).unwrap();
    assert_eq!(verdict, serde_json::json!({ "status": "ok", "problems": [] }));
    assert_eq!(running.get("/").0, 200);
    assert_eq!(running.get("/secrets").0, 404);

    let address = running.base.strip_prefix("http://").unwrap();
    let health = |more: &[&str]| {
        let args = [&["health", "--http", address], more].concat();
        place.command(&args).output().unwrap()
    };
    assert_eq!(health(&[]).status.code(), Some(0));
    assert_eq!(health(&["--ready"]).status.code(), Some(0));
    // The address is taken now.
    let second = Place::new().command(&["run", "bars.toml", "--http", address]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains(&format!("can not listen on {address}")));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = free.local_addr().unwrap().to_string();
    drop(free);
    let nobody = place.command(&["health", "--http", &taken]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("does not answer"));
}

#[test]
fn a_halted_task_makes_the_process_not_ready_and_says_why() {
    let place = Place::new();
    place.import();
    let seldom = BARS.replace("flush_interval_ms = 200", "flush_interval_ms = 600_000");
    std::fs::write(place.path("bars.toml"), &seldom).unwrap();
    let running = place.run(&[]);
    let read = |records: f64| {
        let metrics = running.metrics();
        let ours = metrics.iter().filter(|(series, _)| series.starts_with("tidewire_input_records_total"));
        (ours.map(|(_, value)| *value).sum::<f64>() == records).then_some(())
    };
    // The first epoch has a cut; those after it are run again.
    eventually("the first epoch", PATIENCE, || read(4.0));
    let later = TRADES.replace("T23:54", "T23:58");
    std::fs::write(place.path("trades.csv"), later).unwrap();
    place.import();
    eventually("all epochs", PATIENCE, || read(8.0));
    running.signal("-KILL");
    drop(running);
    // Another interval gives other bars for what was recorded.
    let other = seldom.replace("interval_ms = 1_000", "interval_ms = 500");
    std::fs::write(place.path("bars.toml"), other).unwrap();
    let running = place.run(&[]);
    let problems = eventually("halted", PATIENCE, || {
        let (status, text) = running.get("/readyz");
        (status == 503 && text.contains("halted")).then_some(text)
    });
    let verdict: Value = serde_json::from_str(&problems).unwrap();
    assert_eq!(verdict["status"], "not ready");
    assert!(problems.contains("features/") && problems.contains("--recover-only"), "{problems}");
    assert_eq!(running.get("/healthz").0, 200, "a restart would not mend it");
    let halted = running.metrics();
    assert!(halted.keys().any(|series| series.contains("status=\"halted\"")), "{halted:?}");
    running.signal("-TERM");
    let (code, said) = running.end();
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn sigterm_ends_the_epoch_flushes_and_leaves() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let place = Place::new();
        place.import();
        let running = place.run(&[]);
        running.ready();
        running.signal(signal);
        let (code, said) = running.end();
        assert_eq!(code, Some(0), "{signal}: {said}");
        assert!(said.contains("finishing the epoch") && said.contains("stopped: "), "{signal}: {said}");
        let status = place.command(&["status", "--json"]).output().unwrap();
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        for task in status[0]["stages"][0]["tasks"].as_array().unwrap() {
            if !task["epoch"].is_null() {
                assert_eq!(
                    task["epoch"], task["last_flush_epoch"],
                    "{signal}: the last epoch has the state: {task}"
                );
            }
        }
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let place = Place::new();
    place.import();
    let running = place.run(&[]);
    running.ready();
    // Both wait until the process goes on, so neither can be overtaken by its end.
    running.signal("-STOP");
    running.signal("-TERM");
    running.signal("-INT");
    running.signal("-CONT");
    let (code, said) = running.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("aborted; the next start recovers"), "{said}");
}

#[test]
fn stopping_has_a_time_limit() {
    let place = Place::new();
    place.import();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = place.command(&["run", "bars.toml", "--http", "127.0.0.1:0", "--stop-timeout", "1"]);
    let mut child = command.stderr(writer.try_clone().unwrap()).spawn().unwrap();
    drop(command);
    let mut stderr = BufReader::new(reader);
    let mut line = String::new();
    while !line.contains("health and metrics: ") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
    }
    // From now on nobody reads what it says, and the pipe is full: its last words can not be written.
    let pages = Arc::new(AtomicUsize::new(0));
    let filler = std::thread::spawn({
        let (pages, mut writer) = (Arc::clone(&pages), writer);
        move || {
            while writer.write_all(&[b' '; PAGE_BYTES]).is_ok() {
                pages.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    eventually("a full pipe", PATIENCE, || (pages.load(Ordering::SeqCst) >= PIPE_PAGES).then_some(()));
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let code = eventually("the end", PATIENCE, || child.try_wait().unwrap()).code();
    assert_eq!(code, Some(130));
    drop(stderr);
    filler.join().unwrap();
}

#[test]
fn in_json_stderr_is_json_alone() {
    let place = Place::new();
    place.import();
    let running = place.run(&["--log-format", "json"]);
    running.ready();
    eventually("late", PATIENCE, || {
        let metrics = running.metrics();
        metrics.keys().any(|series| series.starts_with("tidewire_late_records_total")).then_some(())
    });
    running.signal("-TERM");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let find = |message: &str| {
        let found =
            lines.iter().find(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message)));
        found.unwrap_or_else(|| panic!("{message} is not told: {said}"))
    };
    assert_eq!(find("worker joined its group")["stage"], "features");
    let recovered = find("task recovered");
    assert_eq!(recovered["stage"], "features");
    assert!(recovered["task"].is_u64() && recovered["epochs"].is_u64(), "{recovered}");
    assert!(find("task assigned")["task"].is_u64());
    find("running bars");
    find("finishing the epoch");
    find("worker stopped");
    find("stopped: ");
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
    // What ends the process before it runs is JSON as well.
    let failed = place.command(&["run", "missing.toml", "--log-format", "json"]).output().unwrap();
    let line: Value = serde_json::from_slice(&failed.stderr).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert_eq!(failed.status.code(), Some(1));
}
