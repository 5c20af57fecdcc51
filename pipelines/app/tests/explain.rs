//! `explain` and `step` on the log of a demo: each order's causes back to the ticks, by the binary as it is used.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;
use tidewire_schemas::EventTime;

thread_local! {
    /// A copy of the demo's folder for each test: a process that goes through another one ends with it.
    static COPY: TempDir = {
        let copy = tempfile::tempdir().unwrap();
        copy_all(&demo().path().join("data"), &copy.path().join("data"));
        copy
    };
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy_all(&entry.path(), &to),
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), to).unwrap()),
            _ => {}
        }
    }
}

fn here(name: &str) -> PathBuf {
    COPY.with(|copy| copy.path().join(name))
}

/// The log of one demo.
fn demo() -> &'static TempDir {
    static DEMO: OnceLock<TempDir> = OnceLock::new();
    DEMO.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let made = command(&["demo"], folder.path().join("data")).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    })
}

fn command(args: &[&str], data: PathBuf) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(args).arg("--data").arg(data).stdin(Stdio::null());
    command.env_remove("TIDEWIRE_DATA").env_remove("TIDEWIRE_LOG");
    command
}

fn run(args: &[&str]) -> Output {
    command(args, here("data")).output().unwrap()
}

fn ok(args: &[&str]) -> String {
    let output = run(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{out}\n{err}");
    out
}

fn fails(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}\n{}", text(&output.stdout));
    text(&output.stderr)
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).unwrap()
}

fn lines(args: &[&str]) -> Vec<Value> {
    ok(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A decimal in billionths of billionths: exact for all that the sample has.
fn units(value: &Value) -> i128 {
    let text = value.as_str().unwrap();
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{places:0<18}").parse().unwrap()
}

/// All records of a tree that are shown in full.
fn all<'a>(node: &'a Value, into: &mut Vec<&'a Value>) {
    if node["shown_elsewhere"] == false {
        into.push(node);
    }
    node["children"].as_array().unwrap().iter().for_each(|child| all(child, into));
}

fn nodes(explanation: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    all(&explanation["root"], &mut found);
    found
}

fn find<'a>(nodes: &[&'a Value], wanted: impl Fn(&Value) -> bool) -> &'a Value {
    nodes.iter().find(|node| wanted(node)).unwrap()
}

/// An order of the demo that was filled, and its account.
fn an_order() -> String {
    let orders = lines(&["tail", "orders.v1", "--json"]);
    orders[orders.len() / 2]["value"]["order_id"].as_str().unwrap().to_owned()
}

#[test]
fn every_order_comes_out_again_byte_by_byte_and_reaches_records_from_outside() {
    let every = json(&["explain", "--every", "order", "--json"]);
    let orders = lines(&["tail", "orders.v1", "--json"]);
    let pending = orders.iter().filter(|order| order["value"]["status"] == "PENDING_NEW").count();
    assert!(pending > 50, "{pending}");
    assert_eq!(every["orders"], pending);
    assert_eq!(every["same_bytes"], pending);
    assert_eq!(every["without_external_leaf"], 0);
}

#[test]
fn the_leaves_of_an_orders_tree_are_records_of_the_log() {
    let id = an_order();
    let explanation = json(&["explain", &id, "--json", "--prove"]);
    assert_eq!(explanation["proof"]["verdict"], "same", "{explanation:#}");
    assert_eq!(explanation["size"]["cut_short"], false);
    let nodes = nodes(&explanation);
    let leaves: Vec<&&Value> = nodes.iter().filter(|node| node["external"] == true).collect();
    let kinds: Vec<&str> = leaves.iter().filter_map(|leaf| leaf["kind"].as_str()).collect();
    for kind in ["Trade", "BookDelta", "Instrument", "RiskLimits", "SentimentScore"] {
        assert!(kinds.contains(&kind), "{kind} is not among {kinds:?}");
    }
    let mut topics: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for leaf in leaves {
        let place = leaf["place"].as_str().unwrap();
        let topic = place.split('/').next().unwrap();
        let records = topics.entry(topic.to_owned()).or_insert_with(|| {
            let records = lines(&["tail", topic, "--json"]).into_iter();
            let place = |record: &Value| format!("{topic}/{}@{}", record["partition"], record["offset"]);
            records.map(|record| (place(&record), record)).collect()
        });
        let record = records.get(place).unwrap_or_else(|| panic!("{place} is not in the log"));
        assert_eq!(record["value"], leaf["value"], "{place}");
        assert_eq!(record["headers"].get("tw-id"), None, "{place}");
    }
    // What passed between stages is on the way: intent, signal, vector, bar.
    for kind in ["OrderIntent", "Signal", "FeatureVector", "FeatureValue", "Bar", "MarkPrice"] {
        assert!(nodes.iter().any(|node| node["kind"] == kind), "{kind}");
    }
    for node in nodes.iter().filter(|node| !node["identity"].is_null() && !node["made"].is_null()) {
        assert_eq!(node["made"]["same_bytes"], true, "{}", node["place"]);
    }
    assert!(ok(&["explain", &id, "--prove"]).contains("proved: same bytes"));
}

#[test]
fn a_bar_is_made_of_the_trades_of_its_window_and_the_average_follows_its_formula() {
    let explanation = json(&["explain", &an_order(), "--json"]);
    let nodes = nodes(&explanation);
    let bar = find(&nodes, |node| node["kind"] == "Bar");
    let value = &bar["value"];
    // By hand: the market trades of the instrument in the window, as they lie in the input.
    let (start, end) = (value["window_start"].as_str().unwrap(), value["window_end"].as_str().unwrap());
    let time_of = |text: &str| text.parse::<EventTime>().unwrap();
    let window = time_of(start)..time_of(end);
    let ticks = lines(&["tail", "market.ticks.v1", "--key", bar["key"].as_str().unwrap(), "--json"]);
    let is_in = |tick: &&Value| {
        let time = time_of(tick["value"]["event_time"].as_str().unwrap());
        tick["kind"] == "Trade" && window.contains(&time) && tick["value"]["market"] == true
    };
    let trades: Vec<&Value> = ticks.iter().filter(is_in).collect();
    let places: Vec<String> = trades
        .iter()
        .map(|trade| format!("market.ticks.v1/{}@{}", trade["partition"], trade["offset"]))
        .collect();
    let gathered = &bar["made"]["gathered"][0];
    let shown: Vec<&str> =
        gathered["inputs"].as_array().unwrap().iter().map(|input| input["place"].as_str().unwrap()).collect();
    assert_eq!(shown, places);
    assert_eq!(gathered["earlier_in_cut"], false);
    assert_eq!(gathered["count"], trades.len());
    assert_eq!(value["trade_count"], trades.len());
    let volume: i128 = trades.iter().map(|trade| units(&trade["value"]["quantity"])).sum();
    assert_eq!(volume, units(&value["volume"]));
    // The bar was closed by time, and by the record that moved time that far.
    let trigger = bar["made"]["trigger"].as_str().unwrap();
    assert!(trigger.starts_with(&format!("its timer for {end} fired")), "{trigger}");
    assert!(bar["cause"].as_str().unwrap().starts_with("timer:bars_1s/"), "{}", bar["cause"]);
    let children = bar["children"].as_array().unwrap();
    assert!(children.iter().any(|child| child["role"] == "moved time on"));
    assert!(children.iter().any(|child| child["role"] == "set the timer"));

    let average = find(&nodes, |node| node["value"]["name"] == "ema_fast" && node["kind"] == "FeatureValue");
    let (made, x) = (&average["made"], &average["children"][0]);
    let close: f64 = value["close"].as_str().unwrap().parse().unwrap();
    assert_eq!(x["number"], bar["number"], "the average's cause is the bar");
    let before = made["state_before"]["value"].as_f64().unwrap();
    assert_eq!(made["state_before"]["count"], 5);
    let weight = 2.0 / (made["settings"]["period"].as_f64().unwrap() + 1.0);
    let wanted = before + (close - before) * weight;
    assert!((average["value"]["value"].as_f64().unwrap() - wanted).abs() < 1e-9);
    let changes = made["state_changes"].as_array().unwrap();
    let change = changes.iter().find(|change| change["path"] == "value").unwrap();
    assert_eq!(change["before"], made["state_before"]["value"]);
    assert_eq!(change["after"], average["value"]["value"]);
}

#[test]
fn a_refused_intent_shows_the_check_its_value_and_the_limit() {
    let decisions = lines(&["tail", "risk.decisions.v1", "--json"]);
    let refused = decisions
        .iter()
        .find(|decision| decision["value"]["reason"] == "OrderExceedsLimit")
        .expect("the demo refuses some for their position");
    let id = refused["value"]["id"].as_str().unwrap();
    let explanation = json(&["explain", id, "--json"]);
    let root = &explanation["root"];
    assert_eq!(root["value"]["approved"], false);
    let checks = root["value"]["checks"].as_array().unwrap();
    let failed = checks.iter().find(|check| check["verdict"] == "FAIL").unwrap();
    assert_eq!(failed["check"], "maximum_position");
    assert_eq!(failed["limit"], "0.1");
    let why = explanation["why"].as_str().unwrap();
    let wanted = format!("maximum_position: {} against a limit of 0.1", failed["value"].as_str().unwrap());
    assert!(why.contains(&wanted), "{why}");
    // The limit is a record too.
    let limits: Vec<&Value> =
        root["children"].as_array().unwrap().iter().filter(|child| child["kind"] == "RiskLimits").collect();
    assert!(limits.iter().any(|limits| limits["value"]["max_position"] == "0.1"), "{root:#}");
    assert!(limits.iter().all(|limits| limits["key"].as_str().unwrap().starts_with("paper-tight/")));
    let shown = ok(&["explain", id]);
    assert!(shown.contains("FAIL maximum_position"), "{shown}");
    // The intent tells what became of it.
    let intent = json(&["explain", root["value"]["intent_id"].as_str().unwrap(), "--json"]);
    assert_eq!(intent["root"]["kind"], "OrderIntent");
    assert!(intent["why"].as_str().unwrap().contains("was refused with OrderExceedsLimit"));
    assert_eq!(intent["after"][0]["kind"], "RiskDecision");
}

#[test]
fn alerts_signals_features_identities_and_places_are_explained() {
    let alert = &lines(&["tail", "alerts.v1", "--limit", "1", "--json"])[0];
    let id = alert["value"]["id"].as_str().unwrap();
    let explanation = json(&["explain", id, "--json"]);
    assert_eq!(explanation["root"]["made"]["operator"], "jump");
    assert_eq!(explanation["root"]["children"][0]["kind"], "Trade");
    assert!(explanation["why"].as_str().unwrap().contains(alert["value"]["text"].as_str().unwrap()));
    // The same record by its identity and by its place.
    let place = format!("alerts.v1/{}@{}", alert["partition"], alert["offset"]);
    for name in [alert["headers"]["tw-id"].as_str().unwrap(), &place] {
        let other = json(&["explain", name, "--json"]);
        assert_eq!(other["root"], explanation["root"], "{name}");
    }
    let vector = &lines(&["tail", "features.values.v1", "--last", "1", "--json"])[0];
    let (key, time) = (vector["key"].as_str().unwrap(), vector["value"]["event_time"].as_str().unwrap());
    let feature = json(&["explain", &format!("{key}/rsi@{time}"), "--json"]);
    assert_eq!(feature["root"]["value"], vector["value"]);
    let latest = feature["root"]["children"].as_array().unwrap();
    let roles: Vec<&str> = latest.iter().filter_map(|child| child["role"].as_str()).collect();
    assert!(roles.contains(&"latest rsi") && !roles.contains(&"latest ema_fast"), "{roles:?}");
    let signal = &lines(&["tail", "signals.v1", "--limit", "1", "--json"])[0];
    let explanation = json(&["explain", signal["value"]["id"].as_str().unwrap(), "--json"]);
    assert_eq!(explanation["root"]["kind"], "Signal");
    assert!(explanation["after"].as_array().unwrap().iter().any(|later| later["kind"] == "OrderIntent"));
    let tick = json(&["explain", "market.ticks.v1/1@5", "--json"]);
    assert_eq!(tick["root"]["external"], true);
    assert_eq!(tick["proof"]["verdict"], "unknown");
}

#[test]
fn what_is_not_there_is_said_with_its_place() {
    for (id, wanted) in [
        ("no-such-id", "nothing has the id no-such-id"),
        ("risk/0/99999999", "its sequence was never reached"),
        ("nobody/0/1", "there are signals (4 tasks), risk (4 tasks), venue (4 tasks)"),
        ("market.ticks.v1/1@99999999", "market.ticks.v1-1 ends at offset"),
        ("no-such-topic/0@1", "topic no-such-topic does not exist"),
        ("BTCUSDT.BINANCE_SPOT/no_such@2024-08-08T23:54:40Z", "there are ema_fast, ema_slow"),
        ("NONE.NOWHERE/rsi@2024-08-08T23:54:40Z", "no feature vector of NONE.NOWHERE"),
    ] {
        let error = fails(&["explain", id]);
        assert!(error.contains(wanted), "{id}: {error}");
    }
    let error = fails(&["step", "--stage", "none", "--task", "0"]);
    assert!(error.contains("there are signals, risk, venue"), "{error}");
    let error = fails(&["step", "--stage", "risk", "--task", "4"]);
    assert!(error.contains("stage risk has 4 tasks"), "{error}");
    let error = fails(&["step", "--stage", "risk", "--task", "0", "--operator", "none"]);
    assert!(error.contains("there are orders"), "{error}");
}

#[test]
fn what_another_pipeline_file_gives_is_not_shown_as_what_happened() {
    let shipped = include_str!("../../market-intel.toml");
    let changed = here("changed.toml");
    std::fs::write(&changed, shipped.replacen("period = 5\n", "period = 6\n", 1)).unwrap();
    let changed = changed.to_str().unwrap();
    let id = "trend:BTCUSDT.BINANCE_SPOT:0";
    let output = run(&["explain", id, "--file", changed, "--prove", "--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let explanation: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(explanation["proof"]["verdict"], "differs");
    let root = &explanation["root"];
    assert!(root["made"].is_null());
    let notes = root["notes"].to_string();
    assert!(
        notes.contains("this pipeline file, which is not the one that it ran with, gives something else"),
        "{notes}"
    );
    assert!(notes.contains("a timer led to it: operator vector"), "{notes}");
    // The file that it ran with gives the same.
    let output = run(&["explain", id, "--prove"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_page_stands_alone() {
    let page = here("why.html");
    ok(&["explain", &an_order(), "--html", page.to_str().unwrap()]);
    let page = std::fs::read_to_string(page).unwrap();
    for wanted in ["<!doctype html>", "<details", "market.ticks.v1/", "maximum_order_value"] {
        assert!(page.contains(wanted), "{wanted}");
    }
    for banned in ["<script", "<link", "<img", "http://", "https://", "url(", "@import"] {
        assert!(!page.contains(banned), "{banned}");
    }
    assert_eq!(page.matches("<details").count(), page.matches("</details>").count());
}

#[test]
fn breakpoints_stop_where_they_are_set_and_states_tell_what_the_operator_did() {
    let key = "BTCUSDT.BINANCE_SPOT";
    let task = &lines(&["tail", "market.ticks.v1", "--key", key, "--limit", "1", "--json"])[0]["partition"];
    let task = task.to_string();
    let base = ["step", "--stage", "signals", "--task", &task, "--json", "--max", "100000"];
    let steps = |more: &[&str]| lines(&[&base[..], more].concat());

    let bars = lines(&["tail", "features.bars.v1", "--key", key, "--json"]);
    let seconds: Vec<&Value> = bars.iter().filter(|bar| bar["value"]["interval_ms"] == 1_000).collect();
    let taken = steps(&["--operator", "ema_fast", "--key", key]);
    assert_eq!(taken.len(), seconds.len(), "one stop for each bar");
    let mut held: Option<Value> = None;
    for (step, bar) in taken.iter().zip(&seconds) {
        assert_eq!(step["operator"], "ema_fast");
        assert_eq!(step["took"]["value"], bar["value"]);
        // What it left is what it finds.
        assert_eq!(step["state_before"], held.take().unwrap_or_default());
        let before = step["state_before"]["count"].as_u64().unwrap_or(0);
        assert_eq!(step["state_after"]["count"].as_u64().unwrap(), (before + 1).min(5));
        assert_eq!(step["gave"].as_array().unwrap().len(), usize::from(before >= 4));
        let paths: Vec<&str> =
            step["changed"].as_array().unwrap().iter().filter_map(|change| change["path"].as_str()).collect();
        let same_value = step["state_before"]["value"] == step["state_after"]["value"];
        let wanted = ["count", "last", "value"].into_iter();
        let wanted: Vec<&str> = wanted
            .filter(|path| (*path != "count" || before < 5) && (*path != "value" || !same_value))
            .collect();
        assert_eq!(paths, wanted);
        held = Some(step["state_after"].clone());
    }

    let large = steps(&["--operator", "bars_1s", "--key", key, "--when", "volume >= 0.5"]);
    let wanted =
        seconds.iter().filter(|bar| units(&bar["value"]["volume"]) >= 500_000_000_000_000_000).count();
    assert!(wanted > 0 && wanted < seconds.len());
    assert_eq!(large.len(), wanted);
    for step in &large {
        assert!(step["took"].is_null(), "bars are given when their timers fire");
        assert!(step["trigger"].as_str().unwrap().starts_with("its timer for"));
    }

    let (first, last) = (taken[10]["epoch"].to_string(), taken[20]["epoch"].to_string());
    let stretch = steps(&["--operator", "ema_fast", "--key", key, "--from", &first, "--to", &last]);
    assert_eq!(stretch[..], taken[10..=20], "a stretch from a cut is as the whole from the beginning");
    let from = seconds[10]["value"]["event_time"].as_str().unwrap();
    let by_time = steps(&["--operator", "ema_fast", "--key", key, "--from", from]);
    assert!(by_time.len() <= taken.len() - 10 + 1 && !by_time.is_empty());

    let output = run(&["step", "--stage", "signals", "--task", &task, "--max", "3"]);
    assert_eq!(text(&output.stdout).matches("\nepoch ").count() + 1, 3, "{}", text(&output.stdout));
    let told = text(&output.stderr);
    assert!(told.contains("stopped after --max 3 stops"), "{told}");
}

#[test]
fn tracing_changes_nothing() {
    // Every epoch of a task, with all calls and states noted, gives the digests that were recorded without.
    let output = run(&["step", "--stage", "risk", "--task", "2", "--json", "--max", "100000"]);
    assert!(output.status.success());
    assert!(output.stdout.len() > 10_000);
    assert_eq!(text(&output.stderr), "");
}
