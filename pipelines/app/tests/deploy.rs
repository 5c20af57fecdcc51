//! The files of `deploy/` and the documents fit the program: no dashboard shows a metric that is not there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidewire::http::METRICS;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of metrics that a text speaks of.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("tidewire_") || word.starts_with("process_"));
    ours.map(ToOwned::to_owned).collect()
}

/// Series of a metric as queries name them.
fn series() -> BTreeSet<String> {
    let of = |name: &str, kind: &str| match kind {
        "histogram" => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec(),
        _ => vec![name.to_owned()],
    };
    METRICS.iter().flat_map(|metric| of(metric.name, metric.kind)).collect()
}

fn without_parts(name: &str) -> &str {
    let parts = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    parts.filter(|name| METRICS.iter().any(|metric| metric.name == *name)).unwrap_or(name)
}

fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

fn alert_expressions(rules: &str) -> String {
    // Names of alerts begin with a capital, so the whole text may be looked at.
    rules.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

#[test]
fn dashboards_and_alerts_name_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboards/tidewire.json")).unwrap();
    let shown = expressions(&dashboard);
    assert!(shown.len() > 30, "the dashboard's queries are found");
    let known = series();
    let alerts = alert_expressions(&read("deploy/prometheus/alerts.yml"));
    for text in shown.iter().chain([&alerts]) {
        for name in names(text) {
            assert!(known.contains(&name), "{name} is not in /metrics: {text}");
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        for name in names(variable["definition"].as_str().unwrap_or_default()) {
            assert!(known.contains(&name), "{name} is not in /metrics");
        }
    }
    assert!(!known.contains("tidewire_no_such_metric"));
}

#[test]
fn every_metric_is_shown_or_said_to_be_left_out() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboards/tidewire.json")).unwrap();
    let text = expressions(&dashboard).join("\n");
    let shown: BTreeSet<String> = names(&text).iter().map(|name| without_parts(name).to_owned()).collect();
    let docs = read("docs/operations.md");
    let left_out = docs.lines().find(|line| line.contains("Not on it: ")).unwrap();
    let left_out = names(left_out.split_once("Not on it: ").unwrap().1);
    for metric in METRICS {
        let (is_shown, is_left_out) = (shown.contains(metric.name), left_out.contains(metric.name));
        assert!(
            is_shown || is_left_out,
            "{} is on no dashboard, and docs/operations.md does not say so",
            metric.name
        );
        assert!(!(is_shown && is_left_out), "{} is said to be left out, but is shown", metric.name);
    }
}

#[test]
fn every_metric_is_documented_as_it_is() {
    let docs = read("docs/operations.md");
    for metric in METRICS {
        let row = format!("| `{}` | {} | ", metric.name, metric.kind);
        let line = docs.lines().find(|line| line.starts_with(&row));
        let line = line.unwrap_or_else(|| panic!("docs/operations.md has no row that begins with {row}"));
        assert!(line.ends_with(&format!("| {} |", metric.help)), "{line}\nis not: {}", metric.help);
    }
    let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    for line in
        docs.lines().filter(|line| line.starts_with("| `tidewire_") || line.starts_with("| `process_"))
    {
        let name = line.split('`').nth(1).unwrap();
        assert!(known.contains(name), "{name} is documented, but not there");
    }
}

#[test]
fn every_alert_is_documented_and_tested() {
    let (rules, docs) = (read("deploy/prometheus/alerts.yml"), read("docs/operations.md"));
    let tests = read("deploy/prometheus/alerts.test.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    for alert in &alerts {
        assert!(docs.contains(&format!("| `{alert}` |")), "{alert} is not in docs/operations.md");
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is not tested");
    }
    for line in docs.lines().filter(|line| line.starts_with("| `Tidewire")) {
        let name = line.split('`').nth(1).unwrap();
        assert!(alerts.contains(&name), "{name} is documented, but not there");
    }
}

#[test]
fn compose_asks_for_what_the_example_has_and_opens_loopback_alone() {
    let (compose, example) = (read("docker-compose.yml"), read("deploy/env.example"));
    let code: String =
        compose.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let wanted: BTreeSet<&str> =
        code.split("${").skip(1).map(|rest| rest.split([':', '}']).next().unwrap()).collect();
    let given: BTreeSet<&str> = example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    assert_eq!(wanted, given);
    for secret in ["PASSWORD", "KEY"] {
        for line in example.lines().filter(|line| line.contains(secret) && !line.starts_with('#')) {
            assert!(line.ends_with('='), "{line}: no password stands in the open");
        }
    }
    let published = code
        .lines()
        .filter(|line| line.contains("_PORT") && line.contains(":-") && !line.contains("ADVERTISED"));
    let mut ports = 0;
    for line in published.filter(|line| !line.contains("advertise")) {
        assert!(line.contains("\"127.0.0.1:${"), "{line}: open to others than this machine");
        ports += 1;
    }
    assert!(ports >= 9, "{ports}");
    // One block a service: what every one of them must have.
    let services = code.split("\nservices:\n").nth(1).unwrap().split("\nnetworks:").next().unwrap();
    let blocks: Vec<&str> = services.split("\n\n").filter(|block| !block.trim().is_empty()).collect();
    assert_eq!(blocks.len(), 11);
    for block in blocks {
        let name = block.trim().split(':').next().unwrap();
        assert!(block.contains("mem_limit:"), "{name} has no bound on its memory");
        assert!(block.contains("healthcheck:") || name == "provision", "{name} has no health check");
        assert!(block.contains("<<: *"), "{name} lacks what all have in common");
    }
}
