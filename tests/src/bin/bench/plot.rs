//! One HTML page of results: charts, and all figures in a table.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;

use tidewire_tests::results::{Figure, Results, UNKNOWN};

use crate::lines::{self, GREY, Lines};
use crate::numbers::shown;
use crate::rows::{self, Bar, Rows};

/// From so many files on, lines over the files say more than bars beside each other.
const LINES_FROM: usize = 4;

/// Characters of a commit that tell it from others.
const COMMIT: usize = 10;

const HEAD: &str = r##"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>Results of benches</title>
<style>
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --faint: #d8dde3; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e4e8ec; --faint: #3a4149; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 980px; padding: 0 10px; }
svg { height: auto; max-width: 100%; }
svg [fill="#111111"] { fill: var(--ink); }
svg [stroke="#111111"] { stroke: var(--ink); }
svg [stroke="#DDDDDD"] { stroke: var(--faint); }
figure { margin: 1.5em 0; }
figcaption { font-weight: bold; }
table { border-collapse: collapse; font-size: 13px; }
th, td { border-bottom: 1px solid var(--faint); padding: 2px 12px 2px 0; text-align: left; vertical-align: top; }
td { white-space: nowrap; }
td.number { text-align: right; }
.wide { overflow-x: auto; }
.key { border-radius: 2px; display: inline-block; height: 11px; margin: 0 6px 0 0; width: 11px; }
.keys span.name { margin-right: 18px; white-space: nowrap; }
</style>
</head>
<body>
<h1>Results of benches</h1>
"##;

/// The page of files, by name and content.
pub fn page(files: &[(String, Results)]) -> Result<String, Box<dyn Error>> {
    let mut page = HEAD.to_owned();
    // What a record is differs by workload, so figures of two do not stand beside each other.
    let subject = |results: &Results| {
        let workload = results.settings.get("workload").map(|name| format!(", {name}")).unwrap_or_default();
        results.bench.clone() + &workload
    };
    let mut subjects: Vec<String> = Vec::new();
    for (_, results) in files {
        if !subjects.contains(&subject(results)) {
            subjects.push(subject(results));
        }
    }
    for name in subjects {
        let mut of_it: Vec<&(String, Results)> =
            files.iter().filter(|(_, results)| subject(results) == name).collect();
        // What nobody knows the time of is old.
        of_it.sort_by_key(|(_, results)| (results.taken_at != UNKNOWN, results.taken_at.clone()));
        section(&mut page, &name, &of_it)?;
    }
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

fn section(page: &mut String, name: &str, files: &[&(String, Results)]) -> Result<(), Box<dyn Error>> {
    writeln!(page, "<section>\n<h2>{}</h2>\n<ul>", escaped(name))?;
    for (place, (file, results)) in files.iter().enumerate() {
        let settings: Vec<String> =
            results.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let line = format!(
            "{file}: commit {}, taken at {}, on {}; {}",
            results.commit,
            results.taken_at,
            results.machine,
            settings.join(", ")
        );
        writeln!(
            page,
            "<li>{}{}</li>",
            key(place, files.len() > 1 && files.len() < LINES_FROM),
            escaped(&line)
        )?;
    }
    page.push_str("</ul>\n");
    let are_lines = files.len() >= LINES_FROM;
    let drawn = names(files, |figure| are_lines || percentile(&figure.name).is_none());
    for unit in units(files, &drawn) {
        if are_lines {
            over_files(page, files, &drawn, &unit)?;
        } else {
            bars(page, files, &drawn, &unit)?;
        }
    }
    // Of many files the first and the last: all of them would lie on top of each other.
    let ends = [&files[..1], &files[files.len() - 1..]].concat();
    let files_of_percentiles = if are_lines { &ends } else { files };
    let drawn = names(files_of_percentiles, |figure| percentile(&figure.name).is_some());
    for unit in units(files_of_percentiles, &drawn) {
        percentiles(page, files_of_percentiles, &drawn, &unit)?;
    }
    table(page, files)?;
    page.push_str("</section>\n");
    Ok(())
}

/// Names of figures, as they come.
fn names<'a>(files: &[&'a (String, Results)], which: impl Fn(&Figure) -> bool) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for figure in files.iter().flat_map(|(_, results)| &results.figures).filter(|figure| which(figure)) {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    names
}

/// Units of figures, as they come.
fn units(files: &[&(String, Results)], names: &[&str]) -> Vec<String> {
    let mut units: Vec<String> = Vec::new();
    for (_, results) in files {
        for figure in names.iter().filter_map(|name| results.find(name)) {
            if !units.contains(&figure.unit) {
                units.push(figure.unit.clone());
            }
        }
    }
    units
}

/// Splits off a percentile: `a/latency/10000/p99.9` is 99.9 of `a/latency/10000`.
fn percentile(name: &str) -> Option<(&str, f64)> {
    let (series, last) = name.rsplit_once('/').unwrap_or(("", name));
    Some((series, last.strip_prefix('p')?.parse().ok()?))
}

fn of_unit<'a>(results: &'a Results, name: &str, unit: &str) -> Option<&'a Figure> {
    results.find(name).filter(|figure| figure.unit == unit)
}

fn share(figure: &Figure) -> String {
    match (&figure.ceiling, figure.ratio) {
        (Some(ceiling), Some(ratio)) => format!("{ratio:.2} of {ceiling}"),
        _ => String::new(),
    }
}

fn bars(
    page: &mut String,
    files: &[&(String, Results)],
    names: &[&str],
    unit: &str,
) -> Result<(), Box<dyn Error>> {
    let figures = files.iter().flat_map(|(_, results)| &results.figures);
    let ceilings: BTreeSet<&str> = figures.filter_map(|figure| figure.ceiling.as_deref()).collect();
    let mut rows = Rows { unit: unit.to_owned(), rows: Vec::new() };
    for name in names {
        let mut bars = Vec::new();
        for (place, (_, results)) in files.iter().enumerate() {
            let Some(figure) = of_unit(results, name, unit) else { continue };
            let mut label = format!("{} {unit}", shown(figure.value));
            if figure.ratio.is_some() {
                label = format!("{label}, {}", share(figure));
            }
            let colour = if files.len() == 1 && ceilings.contains(name) { GREY } else { place };
            bars.push(Bar { value: figure.value, label, range: figure.range(), colour });
        }
        if !bars.is_empty() {
            rows.rows.push(((*name).to_owned(), bars));
        }
    }
    let mut keys = String::new();
    if files.len() > 1 {
        keys = legend(files.iter().map(|(file, results)| format!("{file}, {}", short(&results.commit))));
    } else if rows.rows.iter().any(|(name, _)| ceilings.contains(name.as_str())) {
        keys = format!("<span class=\"name\">{}ceiling</span>", key(GREY, true));
    }
    chart(page, unit, &keys, &rows::svg(&rows)?)
}

fn over_files(
    page: &mut String,
    files: &[&(String, Results)],
    names: &[&str],
    unit: &str,
) -> Result<(), Box<dyn Error>> {
    let mut series = Vec::new();
    for name in names {
        let values: Vec<Option<f64>> = files
            .iter()
            .map(|(_, results)| of_unit(results, name, unit).map(|figure| figure.value))
            .collect();
        if values.iter().any(Option::is_some) {
            series.push(((*name).to_owned(), values));
        }
    }
    let values = || series.iter().flat_map(|(_, values)| values).flatten().copied();
    let least = values().fold(f64::INFINITY, f64::min);
    // Beyond this the lower lines would lie on the axis.
    let logarithmic = least > 0.0 && values().fold(0.0, f64::max) > 20.0 * least;
    let places = files.iter().map(|(_, results)| short(&results.commit)).collect();
    lines_chart(page, Lines { unit: unit.to_owned(), places, series, logarithmic }, "by commit")
}

fn percentiles(
    page: &mut String,
    files: &[&(String, Results)],
    names: &[&str],
    unit: &str,
) -> Result<(), Box<dyn Error>> {
    let mut places: Vec<f64> = names.iter().filter_map(|name| percentile(name)).map(|(_, at)| at).collect();
    places.sort_by(f64::total_cmp);
    places.dedup_by_key(|at| at.to_bits());
    let mut series: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    for (file, results) in files {
        for name in names {
            let Some((figure, (of, at))) = of_unit(results, name, unit).zip(percentile(name)) else {
                continue;
            };
            let of = if files.len() > 1 {
                format!("{of}, {file}, {}", short(&results.commit))
            } else {
                of.to_owned()
            };
            let Some(place) = places.iter().position(|place| place.to_bits() == at.to_bits()) else {
                continue;
            };
            let row = series.iter().position(|(name, _)| *name == of).unwrap_or_else(|| {
                series.push((of, vec![None; places.len()]));
                series.len() - 1
            });
            series[row].1[place] = Some(figure.value);
        }
    }
    let places = places.iter().map(|at| format!("p{at}")).collect();
    let lines = Lines { unit: unit.to_owned(), places, series, logarithmic: true };
    lines_chart(page, lines, "by percentile, on a logarithmic scale")
}

fn lines_chart(page: &mut String, lines: Lines, by: &str) -> Result<(), Box<dyn Error>> {
    let keys = legend(lines.series.iter().map(|(name, _)| name.clone()));
    chart(page, &format!("{} {by}", lines.unit), &keys, &lines::svg(&lines)?)
}

fn chart(page: &mut String, title: &str, keys: &str, svg: &str) -> Result<(), Box<dyn Error>> {
    let title = escaped(title);
    let svg = svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{title}\" "), 1);
    writeln!(
        page,
        "<figure>\n<figcaption>{title}</figcaption>\n<div class=\"keys\">{keys}</div>\n{svg}</figure>"
    )?;
    Ok(())
}

fn legend(names: impl Iterator<Item = String>) -> String {
    let entry = |(number, name): (usize, String)| {
        format!("<span class=\"name\">{}{}</span> ", key(number, true), escaped(&name))
    };
    names.enumerate().map(entry).collect()
}

/// A patch of a colour.
fn key(number: usize, is_shown: bool) -> String {
    let plotters::style::RGBColor(red, green, blue) = lines::colour(number);
    if !is_shown {
        return String::new();
    }
    format!("<span class=\"key\" style=\"background: #{red:02x}{green:02x}{blue:02x}\"></span>")
}

fn table(page: &mut String, files: &[&(String, Results)]) -> Result<(), Box<dyn Error>> {
    page.push_str("<div class=\"wide\">\n<table>\n<tr><th>figure</th><th>unit</th>");
    for (file, results) in files {
        write!(page, "<th>{}</th>", escaped(&format!("{file}, {}", short(&results.commit))))?;
    }
    page.push_str("</tr>\n");
    for name in names(files, |_| true) {
        let found = files.iter().find_map(|(_, results)| results.find(name));
        let unit = found.map_or("", |figure| &figure.unit);
        write!(page, "<tr><td>{}</td><td>{}</td>", escaped(name), escaped(unit))?;
        for (_, results) in files {
            let cell = of_unit(results, name, unit).map(|figure| {
                let spread = figure.range().map(|(from, to)| format!(" ({} to {})", shown(from), shown(to)));
                let share = Some(share(figure)).filter(|share| !share.is_empty());
                format!(
                    "{}{}{}",
                    shown(figure.value),
                    spread.unwrap_or_default(),
                    share.map(|share| format!(", {share}")).unwrap_or_default()
                )
            });
            write!(page, "<td class=\"number\">{}</td>", escaped(&cell.unwrap_or_else(|| "-".to_owned())))?;
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n</div>\n");
    Ok(())
}

/// A commit short enough for a label; that files differed from it still shows.
fn short(commit: &str) -> String {
    let (id, changes) = commit.split_once('+').map_or((commit, ""), |(id, _)| (id, "+"));
    id.chars().take(COMMIT).chain(changes.chars()).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
