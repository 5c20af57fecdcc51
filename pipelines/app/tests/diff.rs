//! `tidewire diff` from the outside: runs of the shipped sample, and what the command says of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tidewire_tests::root;

/// Runs the binary in `dir`.
fn tidewire(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(args).current_dir(dir).stdin(Stdio::null());
    command.env_remove("TIDEWIRE_DATA").env_remove("TIDEWIRE_LOG").envs(variables.iter().copied());
    command.output().unwrap()
}

/// Runs it and expects this exit code; returns stdout and stderr.
fn expect(dir: &Path, args: &[&str], variables: &[(&str, &str)], code: i32) -> (String, String) {
    let output = tidewire(dir, args, variables);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    (out, err)
}

fn json(dir: &Path, args: &[&str], code: i32) -> Value {
    serde_json::from_str(&expect(dir, &[args, &["--json"]].concat(), &[], code).0).unwrap()
}

/// A folder's log with the sample's ticks and news, not run yet.
fn import(dir: &Path, data: &str) {
    let samples = root().join("samples");
    let captures = ["usdm_btcusdt", "usdm_ethusdt", "spot_btcusdt"];
    let files: Vec<PathBuf> =
        captures.iter().map(|name| samples.join(format!("binance/{name}_20240808.gz"))).collect();
    let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let common = ["--pipeline", "market-intel", "--data", data];
    expect(dir, &[&["import"], &files[..], &common].concat(), &[], 0);
    let news = samples.join("news/crypto_news_20220704.csv");
    let span = ["--news-from", "2024-08-08T23:54:12Z", "--news-to", "2024-08-08T23:55:47Z"];
    expect(dir, &[&["import", news.to_str().unwrap()], &span[..], &common].concat(), &[], 0);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn two_demos_are_the_same_and_what_can_not_be_compared_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for data in ["one", "two"] {
        expect(dir, &["demo", "--data", data], &[], 0);
    }
    for args in [["./one", "./two"], ["one", "one"]] {
        let found = json(dir, &[&["diff"][..], &args].concat(), 0);
        assert_eq!(found["same"], true, "{args:?}");
        assert!(found["counts"]["same"].as_u64().unwrap() > 3_000, "{}", found["counts"]);
        assert!(found["topics"].as_array().unwrap().len() >= 12, "{}", found["topics"]);
        assert!(
            found["orders"]["same"].as_u64().unwrap() > 50 && found["signals"]["same"].as_u64().unwrap() > 20
        );
    }
    let (out, _) = expect(dir, &["diff", "-", "./two", "--data", "one", "--topic", "signals.v1"], &[], 0);
    assert!(out.contains("the runs are the same") && !out.contains("orders.v1"), "{out}");

    let (_, error) = expect(dir, &["diff", "-", "nope", "--data", "one"], &[], 1);
    assert!(
        error.contains("there is no run of prefix nope in") && error.contains("/one, and no other"),
        "{error}"
    );
    let (_, error) = expect(dir, &["diff", "./one", "./three"], &[], 1);
    assert!(error.contains("there is no log in ./three"), "{error}");
    let (_, error) = expect(dir, &["diff", "-", "./two"], &[], 1);
    assert!(error.contains("there is no log in"), "{error}");
    let (_, error) = expect(dir, &["diff", "one", "two", "--tolerance", "vwpa=1"], &[], 2);
    assert!(error.contains("no record has a field `vwpa`"), "{error}");
    let (_, error) = expect(dir, &["diff", "one", "two", "--prefix", "x"], &[], 1);
    assert!(error.contains("`tidewire diff - x`"), "{error}");
    import(dir, "bare");
    let (_, error) = expect(dir, &["diff", "one", "bare"], &[], 1);
    assert!(error.contains("no pipeline has run on this log"), "{error}");
}

#[test]
fn a_changed_setting_is_named_and_all_that_follows_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    import(dir, "five");
    copy(&dir.join("five"), &dir.join("six"));
    let run = ["run", "market-intel", "--synchronised", "--data"];
    expect(dir, &[&run[..], &["five"]].concat(), &[], 0);
    let period = [("TIDEWIRE__STAGE__SIGNALS__OPERATOR__EMA_FAST__PERIOD", "6")];
    expect(dir, &[&run[..], &["six"]].concat(), &period, 0);

    let found = json(dir, &["diff", "five", "six", "--html", "page.html"], 3);
    let topic =
        |name: &str| found["topics"].as_array().unwrap().iter().find(|topic| topic["topic"] == name).unwrap();
    let differing = |topic: &Value| {
        ["changed", "missing", "extra"].iter().map(|class| topic[*class].as_u64().unwrap()).sum::<u64>()
    };
    // Nothing upstream of it.
    for name in ["features.bars.v1", "marks.v1"] {
        assert!(topic(name)["same"].as_u64().unwrap() > 100);
        assert_eq!(differing(topic(name)), 0, "{name}");
    }
    for name in ["features.values.v1", "signals.v1", "orders.v1", "executions.v1", "positions.v1"] {
        assert!(differing(topic(name)) > 0, "{name}");
        assert_eq!(topic(name)["causes"]["changed setting"], differing(topic(name)), "{name}");
    }
    assert_eq!(found["cause_count"], 1, "{}", found["causes"]);
    let cause = &found["causes"][0];
    assert_eq!(cause["detail"]["setting"], "stage signals, operator ema_fast, period");
    assert_eq!((cause["detail"]["a"].as_u64(), cause["detail"]["b"].as_u64()), (Some(5), Some(6)));
    let (direct, following) = (cause["direct"].as_u64().unwrap(), cause["following"].as_u64().unwrap());
    assert!(direct > 0 && following > 0);
    assert_eq!(direct + following, differing(&found["counts"]));
    assert_eq!(found["inputs"]["only_a"], 0);
    assert!(found["inputs"]["same"].as_u64().unwrap() > 10_000);
    // What a stage made of a record that differs follows from it.
    let order = |difference: &&Value| difference["topic"] == "orders.v1";
    let order = found["differences"].as_array().unwrap().iter().find(order).unwrap();
    assert_eq!(order["follows_from"]["topic"], "intents.v1", "{order}");

    let page = std::fs::read_to_string(dir.join("page.html")).unwrap();
    assert!(page.contains("operator ema_fast, period: 5") && page.ends_with("</html>\n"));
    let (text, _) = expect(dir, &["diff", "five", "six", "--limit", "1"], &[], 3);
    assert!(text.contains("1. changed setting: stage signals, operator ema_fast, period: 5 -> 6"), "{text}");
    // Bars alone are the same, and a field that does not count makes no difference.
    expect(dir, &["diff", "five", "six", "--topic", "features.bars.v1"], &[], 0);
    let values = ["--topic", "features.values.v1"];
    expect(dir, &[&["diff", "five", "six"], &values[..]].concat(), &[], 3);
    expect(dir, &[&["diff", "five", "six", "--ignore", "values.ema_fast"], &values[..]].concat(), &[], 0);
    expect(
        dir,
        &[&["diff", "five", "six", "--tolerance", "values.ema_fast=1%"], &values[..]].concat(),
        &[],
        0,
    );
}

#[test]
fn what_order_alone_makes_is_late_arrival() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    import(dir, "data");
    for (prefix, order) in [("arrival", "availability"), ("time", "event"), ("again", "event")] {
        let args = ["reprocess", "market-intel", "--into", prefix, "--order", order, "--data", "data"];
        expect(dir, &args, &[], 0);
    }
    let same = json(dir, &["diff", "time", "again", "--data", "data"], 0);
    assert!(same["counts"]["same"].as_u64().unwrap() > 1_000, "{}", same["counts"]);

    // The recorder's clock is behind the venues': news is late by as much.
    let found = json(dir, &["diff", "arrival", "time", "--data", "data"], 3);
    assert_eq!(
        (found["a"]["order"].as_str(), found["b"]["order"].as_str()),
        (Some("availability"), Some("event"))
    );
    let causes = found["causes"].as_array().unwrap();
    assert!(causes.iter().all(|cause| cause["cause"] == "late arrival"), "{}", found["causes"]);
    assert_eq!((found["inputs"]["only_a"].as_u64(), found["inputs"]["only_b"].as_u64()), (Some(0), Some(0)));
    let news = |cause: &&Value| cause["detail"]["topic"] == "market.sentiment.v1";
    let late_by_ms = causes.iter().find(news).unwrap()["detail"]["late_by_ms"].as_i64().unwrap();
    assert!((1_000..1_600).contains(&late_by_ms), "{late_by_ms}");

    let (_, error) = expect(dir, &["diff", "arrival", "nope", "--data", "data"], &[], 1);
    assert!(error.contains("there are again, arrival, time"), "{error}");
}
