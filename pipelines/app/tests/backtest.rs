//! `backtest`: every setting comes out as if it were run alone, and problems are told before anything runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidewire::backtest::tally::{Digest, is_output};
use tidewire_engine::log::Log;
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::prefixed::PrefixedLog;

const PERIOD: &str = "TIDEWIRE__STAGE__SIGNALS__OPERATOR__EMA_FAST__PERIOD";
const DELAY: &str = "TIDEWIRE__STAGE__VENUE__OPERATOR__PAPER__DELAY_MS";
/// The news is of another day.
const NEWS: [&str; 4] = ["--news-from", "2024-08-08T23:54:14Z", "--news-to", "2024-08-08T23:55:50Z"];
const GRID: [&str; 4] = ["--grid", "signals.ema_fast.period=3,5", "--grid", "venue.paper.delay_ms=20,200"];

struct Place(TempDir);

impl Place {
    fn with_demo() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.run(&["demo", "--json"], &[], 0);
        place
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn command(&self, args: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.args(args).arg("--data").arg(self.data()).stdin(Stdio::null());
        command.env_remove("TIDEWIRE_DATA").env_remove("TIDEWIRE_LOG").envs(variables.iter().copied());
        command
    }

    fn run(&self, args: &[&str], variables: &[(&str, &str)], code: i32) -> Output {
        let output = self.command(args, variables).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
        output
    }

    fn backtest(&self, args: &[&str]) -> Value {
        let output = self.run(&[&["backtest", "market-intel", "--json"], args].concat(), &[], 0);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The digest of one setting that `reprocess` runs alone.
    fn alone(&self, prefix: &str, args: &[&str], period: &str, delay: &str) -> String {
        let all = [&["reprocess", "market-intel", "--into", prefix, "--workers", "1"], args].concat();
        self.run(&all, &[(PERIOD, period), (DELAY, delay)], 0);
        let log: Arc<dyn Log> = EmbeddedLog::open(self.data(), EmbeddedOptions::default()).unwrap();
        let own = PrefixedLog::topics_under(&*log, prefix).unwrap();
        let view = PrefixedLog::new(log, prefix).unwrap();
        // What it reads lies under the prefix too, where it was sorted or comes from files.
        let inputs = [
            "market.ticks.v1",
            "market.sentiment.v1",
            "market.news.v1",
            "reference.instruments.v1",
            "risk.limits.v1",
        ];
        let wanted = |topic: &str| own.contains(topic) && is_output(topic) && !inputs.contains(&topic);
        Digest::of_log(&view, wanted).unwrap().finish().to_hex().to_string()
    }
}

/// Digests by the values of the two parameters.
fn digests(done: &Value) -> BTreeMap<(String, String), String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |setting: &Value| {
        let values = &setting["parameters"];
        let key = (text(&values["signals.ema_fast.period"]), text(&values["venue.paper.delay_ms"]));
        (key, text(&setting["digest"]))
    };
    done["settings"].as_array().unwrap().iter().map(of).collect()
}

fn samples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let names = [
        "binance/usdm_btcusdt_20240808.gz",
        "binance/usdm_ethusdt_20240808.gz",
        "news/crypto_news_20220704.csv",
    ];
    names.iter().map(|name| folder.join(name).to_str().unwrap().to_owned()).collect()
}

#[test]
fn each_setting_equals_its_run_alone_whatever_the_workers() {
    let place = Place::with_demo();
    let by_workers = ["1", "2", "4"].map(|workers| {
        let done = place.backtest(&[&GRID[..], &["--workers", workers]].concat());
        assert_eq!(done["settings_done"], 4);
        digests(&done)
    });
    assert_eq!(by_workers[0], by_workers[1]);
    assert_eq!(by_workers[0], by_workers[2]);
    for (number, ((period, delay), digest)) in by_workers[0].iter().enumerate() {
        assert_eq!(*digest, place.alone(&format!("a{number}"), &[], period, delay), "{period} {delay}");
    }
    let distinct: std::collections::BTreeSet<&String> = by_workers[0].values().collect();
    assert_eq!(distinct.len(), 4, "the digest tells settings apart");
    // One drawn setting is the same as in the whole grid.
    let drawn = digests(&place.backtest(&[&GRID[..], &["--random", "1", "--seed", "3"]].concat()));
    assert_eq!(drawn.len(), 1);
    drawn.iter().for_each(|(key, digest)| assert_eq!(&by_workers[0][key], digest));
}

#[test]
fn ranges_orders_and_files_give_what_reprocess_gives() {
    let place = Place::with_demo();
    let files = samples();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let range = ["--from", "2024-08-08T23:54:40Z", "--to", "2024-08-08T23:55:20Z"];
    let one = ["--grid", "signals.ema_fast.period=3", "--grid", "venue.paper.delay_ms=50"];
    let cases: [Vec<&str>; 5] = [
        range.to_vec(),
        [&["--order", "event"], &range[..]].concat(),
        vec!["--order", "recorded"],
        [&NEWS[..], &["--files"], &files[..]].concat(),
        [&["--order", "event"], &NEWS[..], &["--files"], &files[..]].concat(),
    ];
    for (number, args) in cases.iter().enumerate() {
        let found = digests(&place.backtest(&[&one[..], &args[..]].concat()));
        let alone = place.alone(&format!("p{number}"), args, "3", "50");
        assert_eq!(found.into_values().collect::<Vec<_>>(), [alone], "{args:?}");
    }
}

#[test]
fn files_need_no_log_and_results_go_where_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, html) = (folder.path().join("all.csv"), folder.path().join("all.html"));
    let files = samples();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(["backtest", "market-intel", "--grid", "signals.ema_fast.period=3,4,5"]);
    command
        .args(["--csv", csv.to_str().unwrap(), "--html", html.to_str().unwrap(), "--files"])
        .args(&files)
        .args(NEWS);
    command.env_remove("TIDEWIRE_DATA").current_dir(folder.path());
    let output = command.output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("pnl USDT") && out.contains("warning: 3 settings were tried"), "{out}");
    let csv = std::fs::read_to_string(csv).unwrap();
    assert_eq!(csv.lines().count(), 4);
    assert!(csv.starts_with("number,signals.ema_fast.period,pnl_USDT,"), "{csv}");
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("<polyline") && html.contains("3 settings were tried") && !html.contains("http:"));
    assert!(!folder.path().join("data").exists(), "nothing is made");
}

#[test]
fn problems_are_told_at_once_and_nothing_runs() {
    let place = Place::with_demo();
    let fails = |args: &[&str], code| {
        let output = place.run(&[&["backtest", "market-intel"], args].concat(), &[], code);
        String::from_utf8(output.stderr).unwrap()
    };
    let error = fails(
        &[
            "--grid",
            "signals.ema_fas.period=3",
            "--grid",
            "signals.rsi.period=9,-3",
            "--grid",
            "signals.trend.cooldown=1",
        ],
        4,
    );
    for words in ["`ema_fast`", "signals.rsi.period=-3", "`cooldown_ms`", "nothing was started"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let error =
        fails(&["--grid", "signals.ema_fast.period=2..200", "--grid", "signals.rsi.period=2..200"], 1);
    assert!(error.contains("39601 settings"), "{error}");
    let error = fails(&["--grid", "risk.limit.0.max_order_value=1,60000"], 1);
    assert!(error.contains("--limits file"), "{error}");
    let done = place.backtest(&["--grid", "risk.limit.0.max_order_value=1,60000", "--limits", "file"]);
    let fills = |place: usize| done["settings"][place]["fills"].as_u64().unwrap();
    assert_ne!(fills(0), fills(1), "{done}");
    let error = fails(&["--grid", "signals.ema_fast.period=3", "--max-input-mib", "1"], 1);
    assert!(error.contains("--from") && error.contains("--max-input-mib"), "{error}");
    let error = fails(&["--from", "2025-01-01T00:00:00Z"], 1);
    assert!(error.contains("there are records from"), "{error}");
}

#[test]
fn an_interrupt_shows_what_is_done() {
    let place = Place::with_demo();
    let args = [
        "backtest",
        "market-intel",
        "--json",
        "--workers",
        "1",
        "--grid",
        "signals.trend.cooldown_ms=1000..1500",
    ];
    let running = place.command(&args, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(5_000));
    let id = running.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = done["settings_done"].as_u64().unwrap();
    assert_eq!(done["stopped"], true);
    assert!(count > 0 && count < 501, "{count}");
    assert_eq!(done["settings"].as_array().unwrap().len() as u64, count);
}
