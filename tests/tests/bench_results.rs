//! `bench compare` and `bench plot`, as somebody at a terminal uses them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;
use tidewire_tests::results::{Better, Results};
use tidewire_tests::root;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Results that are the same each time.
fn results() -> Results {
    let mut results = Results::new("some");
    results.commit = "a".repeat(40);
    results.taken_at = "2026-01-31T12:00:00Z".to_owned();
    results.set("ticks", 1_000);
    results.add("ours/throughput", "ticks/s", Better::More, vec![90.0, 100.0, 110.0]);
    results.add("bare/throughput", "ticks/s", Better::More, vec![190.0, 200.0, 210.0]);
    results.set_ceiling("ours/throughput", "bare/throughput");
    results.add("ours/cpu", "us/tick", Better::Less, vec![10.0]);
    results.add("ours/bars <1s>", "outputs", Better::Neither, vec![500.0]);
    for (name, ms) in [("p50", 2.0), ("p99", 30.0), ("p99.9", 400.0)] {
        results.add(&format!("ours/latency/10/{name}"), "ms", Better::Less, vec![ms]);
    }
    results
}

/// Sets all repeats of a figure.
fn change(results: &mut Results, name: &str, repeats: &[f64]) {
    let figure = results.figures.iter_mut().find(|figure| figure.name == name).unwrap();
    figure.repeats = repeats.to_vec();
    figure.value = tidewire_tests::results::median(repeats.to_vec());
}

struct Bed(TempDir);

impl Bed {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, results: &Results) -> String {
        results.write(self.path(name)).unwrap();
        self.path(name).display().to_string()
    }

    /// Compares results with those that `changed` makes of them.
    fn compare(&self, changed: impl FnOnce(&mut Results), more: &[&str]) -> Output {
        let mut after = results();
        changed(&mut after);
        let (a, b) = (self.write("a.json", &results()), self.write("b.json", &after));
        bench(&[&["compare", &a, &b], more].concat())
    }

    /// The page of results.
    fn plot(&self, all: &[Results]) -> String {
        let page = self.path("page.html").display().to_string();
        let mut args = vec!["plot".to_owned(), page.clone()];
        args.extend(all.iter().enumerate().map(|(place, one)| self.write(&format!("{place}.json"), one)));
        let output = bench(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", err(&output));
        std::fs::read_to_string(page).unwrap()
    }
}

/// The line of a figure, its cells split at the gaps between columns.
fn line(output: &Output, name: &str) -> Vec<String> {
    let text = out(output);
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with(name))
        .unwrap_or_else(|| panic!("{name}: {text}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

#[test]
fn what_got_better_and_worse_is_told() {
    let output = Bed::new().compare(
        |after| {
            change(after, "ours/throughput", &[120.0, 130.0, 140.0]);
            change(after, "ours/cpu", &[12.0]);
            change(after, "ours/latency/10/p99", &[15.0]);
            change(after, "ours/bars <1s>", &[501.0]);
        },
        &[],
    );
    assert!(output.status.success() && err(&output).is_empty(), "{}", err(&output));
    assert_eq!(
        line(&output, "ours/throughput"),
        ["ours/throughput", "ticks/s", "100", "130", "+30.0 %", "better"]
    );
    assert_eq!(line(&output, "ours/cpu"), ["ours/cpu", "us/tick", "10.0", "12.0", "+20.0 %", "worse"]);
    assert_eq!(line(&output, "ours/latency/10/p99 ")[4..], ["-50.0 %", "better"]);
    assert_eq!(line(&output, "ours/bars")[4..], ["+0.2 %", "differs"]);
    let text = out(&output);
    let ends: Vec<usize> = text.lines().filter_map(|line| line.find(" %")).collect();
    assert!(
        ends.len() == 8 && ends.iter().all(|end| *end == ends[0]),
        "columns stand below each other: {text}"
    );
}

#[test]
fn what_lies_within_the_spread_is_the_same() {
    let output = Bed::new().compare(
        |after| {
            // A fifth less, but the ranges touch.
            change(after, "ours/throughput", &[70.0, 80.0, 90.0]);
            change(after, "ours/cpu", &[10.29]);
            change(after, "ours/latency/10/p50", &[2.07]);
        },
        &["--fail-above", "0"],
    );
    assert_eq!(line(&output, "ours/throughput")[4..], ["-20.0 %", "same"]);
    assert_eq!(line(&output, "ours/cpu")[4..], ["+2.9 %", "same"]);
    assert_eq!(line(&output, "ours/latency/10/p50")[4..], ["+3.5 %", "worse"]);
    let output = Bed::new().compare(|after| change(after, "ours/throughput", &[70.0, 80.0, 89.9]), &[]);
    assert_eq!(line(&output, "ours/throughput")[4..], ["-20.0 %", "worse"], "the ranges do not touch");
}

#[test]
fn a_share_of_a_ceiling_is_compared() {
    let output = Bed::new().compare(
        |after| {
            change(after, "bare/throughput", &[390.0, 400.0, 410.0]);
            after.set_ceiling("ours/throughput", "bare/throughput");
        },
        &["--fail-above", "10"],
    );
    assert_eq!(
        line(&output, "of bare"),
        ["of bare/throughput", "share", "0.500", "0.250", "-50.0 %", "worse"]
    );
    assert!(output.status.success(), "no figure is worse");
}

#[test]
fn a_figure_that_is_worse_fails_the_comparison_where_that_is_asked_for() {
    let slower = |after: &mut Results| change(after, "ours/cpu", &[11.0]);
    for (percent, code) in [("5", 1), ("9.9", 1), ("10.1", 0)] {
        let output = Bed::new().compare(slower, &["--fail-above", percent]);
        assert_eq!(output.status.code(), Some(code), "{percent}");
        assert_eq!(err(&output).contains("ours/cpu"), code == 1, "{}", err(&output));
    }
    let quicker = Bed::new().compare(|after| change(after, "ours/cpu", &[5.0]), &["--fail-above", "0"]);
    assert_eq!(quicker.status.code(), Some(0));
}

#[test]
fn a_figure_that_is_missing_and_what_differs_besides_are_told() {
    let output = Bed::new().compare(
        |after| {
            after.figures.retain(|figure| figure.name != "ours/cpu");
            after.add("ours/memory", "MB", Better::Less, vec![7.0]);
            after.machine.cores += 1;
            after.set("ticks", 2_000);
            after.set("workers", 2);
        },
        &[],
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(line(&output, "ours/cpu"), ["ours/cpu", "us/tick", "10.0", "-", "-", "only in A"]);
    assert_eq!(line(&output, "ours/memory"), ["ours/memory", "MB", "-", "7.00", "-", "only in B"]);
    let said = err(&output);
    assert!(said.contains("the machines differ"), "{said}");
    assert!(said.contains("ticks is 1000 in A, 2000 in B"), "{said}");
    assert!(said.contains("workers is not set in A, 2 in B"), "{said}");
    assert!(said.contains("1 figures of A are not in B"), "{said}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let bed = Bed::new();
    let a = bed.write("a.json", &results());
    let other = bed.write("other.json", &Results { bench: "other".to_owned(), ..results() });
    let newer = bed.write("newer.json", &Results { schema: 2, ..results() });
    std::fs::write(bed.path("broken.json"), "{").unwrap();
    let broken = bed.path("broken.json").display().to_string();
    let none = bed.path("none.json").display().to_string();
    for (b, what) in
        [(&other, "some and of other"), (&newer, "schema 2"), (&broken, "no JSON"), (&none, "JSON=FILE")]
    {
        let output = bench(&["compare", &a, b]);
        let said = err(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(b.as_str()) && said.contains(what), "{said}");
    }
    // A forgotten name of the page must not cost a file of results.
    assert_eq!(bench(&["plot", &a, &other]).status.code(), Some(2));
    assert!(Results::read(&a).is_ok());
}

/// Fails unless elements are closed in the order in which they were opened, and nothing but known entities stands in text.
fn check_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = page.strip_prefix("<!DOCTYPE html>").expect("a document type");
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("not closed: <{piece}"));
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "at </{name}>");
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap());
        }
        assert!(tag.matches('"').count().is_multiple_of(2), "<{tag}>");
        for entity in text.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "apos;"];
            assert!(known.iter().any(|name| entity.starts_with(name)), "&{entity}");
        }
    }
    assert!(open.is_empty(), "{open:?} is not closed");
}

/// The drawings of a page, without its tables.
fn drawings(page: &str) -> String {
    page.split("<figure>").skip(1).map(|rest| rest.split("</figure>").next().unwrap()).collect()
}

/// Results of a commit, a day after those of the commit before.
fn on_day(day: usize) -> Results {
    let (commit, taken_at) = (format!("{day}").repeat(40), format!("2026-02-0{day}T12:00:00Z"));
    Results { commit, taken_at, ..results() }
}

#[test]
fn a_page_shows_every_figure() {
    for files in [1, 2, 5] {
        let all: Vec<Results> = (1..=files).map(on_day).collect();
        let page = Bed::new().plot(&all);
        check_well_formed(&page);
        let drawn = drawings(&page);
        for figure in &results().figures {
            let name = figure.name.replace('<', "&lt;").replace('>', "&gt;");
            assert!(page.contains(&format!("<td>{name}</td>")), "{name} is not in the table");
            let series = name.rsplit_once("/p").map_or(name.as_str(), |(series, _)| series);
            assert!(drawn.contains(series), "{name} is not drawn");
        }
        for one in &all {
            assert!(drawn.contains(&one.commit[..10]) || files == 1, "{} has no name", one.commit);
        }
        assert!(drawn.contains("p99.9") && drawn.contains("logarithmic"));
        assert!(page.contains("0.50 of bare/throughput"));
        assert!(!page.contains("<script") && !page.contains("href="), "the page stands for itself");
    }
}

#[test]
fn a_wrong_value_changes_the_drawing() {
    for files in [1, 2, 5] {
        let all: Vec<Results> = (1..=files).map(on_day).collect();
        let bed = Bed::new();
        let right = drawings(&bed.plot(&all));
        assert_eq!(right, drawings(&bed.plot(&all)));
        for figure in &results().figures {
            let mut wrong = all.clone();
            change(&mut wrong[0], &figure.name, &[figure.value * 1.5]);
            assert_ne!(right, drawings(&bed.plot(&wrong)), "{} of {files} files", figure.name);
        }
    }
}

#[test]
fn lines_follow_the_time_and_not_the_order_of_files() {
    let all: Vec<Results> = [3, 1, 4, 2].map(on_day).into();
    let drawn = drawings(&Bed::new().plot(&all));
    let places: Vec<usize> = (1..=4).map(|day| drawn.find(&on_day(day).commit[..10]).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn results_that_are_kept_are_of_this_schema() {
    for (name, bench) in [
        ("bars.json", "peers"),
        ("embedded-bars.json", "embedded"),
        ("embedded-market-intel.json", "embedded"),
    ] {
        let results = Results::read(root().join("docs/measurements").join(name)).unwrap();
        assert_eq!(results.bench, bench);
        assert!(results.figures.iter().any(|figure| figure.ratio.is_some()), "{name}");
    }
}
