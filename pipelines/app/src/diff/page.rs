//! A comparison as one page for the browser: nothing is loaded from elsewhere, and its size has a bound.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde_json::Value;
use tidewire_schemas::EventTime;

use super::counts::{Class, Counts};
use super::fields::FieldDiff;
use super::report::{Report, RunFacts, Shown};
use super::show::{facts, lies_at};
use crate::safe::Safe;
use crate::table::grouped;

/// Most differences on a page.
const MAX_DIFFERENCES: usize = 2_000;
/// Most first causes on a page.
const MAX_CAUSES: usize = 200;
/// Most fields of a difference on a page.
const MAX_FIELDS: usize = 100;
/// Longest value on a page, in characters.
const MAX_VALUE: usize = 1_000;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
pub fn page(report: &Report) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let verdict = match report.total().differences() {
        0 => "The runs are the same".to_owned(),
        1 => "The runs differ in 1 record".to_owned(),
        many => format!("The runs differ in {} records", grouped(many)),
    };
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'\">\n<title>tidewire diff {} {}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>{verdict}</h1>\n",
        Safe(&report.runs[0].name),
        Safe(&report.runs[1].name),
    )?;
    summary(&mut out, report)?;
    causes(&mut out, report)?;
    topics(&mut out, report)?;
    differences(&mut out, report)?;
    write!(out, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n")?;
    Ok(out)
}

fn summary(out: &mut String, report: &Report) -> fmt::Result {
    let total = report.total();
    write!(out, "<div class=\"soft\">{} records compared", grouped(total.all()))?;
    if report.from.is_some() || report.to.is_some() {
        let time = |time: Option<EventTime>| time.map_or_else(|| "…".to_owned(), |time| time.to_string());
        write!(out, ", event times from {} to {}", time(report.from), time(report.to))?;
    }
    writeln!(out, "</div>\n<div class=\"runs\">")?;
    for (name, run) in ["A", "B"].iter().zip(&report.runs) {
        run_card(out, name, run)?;
    }
    writeln!(out, "</div>\n<div class=\"tiles\">")?;
    let tiles = [
        ("same", total.same, "in both runs, the same"),
        ("changed", total.changed, "in both runs, with other fields"),
        ("missing", total.missing, "in A only"),
        ("extra", total.extra, "in B only"),
    ];
    for (name, count, what) in tiles {
        writeln!(
            out,
            "<div class=\"card tile\"><div class=\"signal {name}\"><strong>{}</strong>{name}</div>\
             <div class=\"soft\">{what}</div></div>",
            grouped(count)
        )?;
    }
    writeln!(out, "</div>\n<ul class=\"facts\">")?;
    for (name, counts) in [("signals", report.signals), ("orders", report.orders)] {
        if counts.all() > 0 {
            writeln!(out, "<li>{name}: {}</li>", in_words(counts))?;
        }
    }
    if !report.is_same() {
        for fact in facts(report) {
            writeln!(out, "<li>{}</li>", Safe(&fact))?;
        }
    }
    for note in &report.notes {
        writeln!(out, "<li>{}</li>", Safe(note))?;
    }
    writeln!(out, "</ul>")
}

fn in_words(counts: Counts) -> String {
    let all = [
        (counts.same, "same"),
        (counts.changed, "changed"),
        (counts.missing, "missing"),
        (counts.extra, "extra"),
    ];
    all.map(|(count, word)| format!("{} {word}", grouped(count))).join(", ")
}

fn run_card(out: &mut String, name: &str, run: &RunFacts) -> fmt::Result {
    writeln!(
        out,
        "<div class=\"card\"><b>{name}</b> <code>{}</code><dl><dt>pipeline</dt><dd>{}</dd><dt>order</dt><dd>{}</dd>\
         <dt>epochs</dt><dd>{}</dd><dt>build</dt><dd class=\"mono\">{}</dd><dt>log</dt><dd>{}</dd></dl></div>",
        Safe(&run.name),
        Safe(&run.pipelines.join(", ")),
        run.order.name(),
        grouped(run.epochs),
        Safe(&run.builds.join(", ")),
        Safe(&run.place)
    )
}

fn causes(out: &mut String, report: &Report) -> fmt::Result {
    if report.causes.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>First causes</h2>\n<div class=\"card scroll\"><table>\n<tr><th>#</th><th>kind</th><th>cause</th>\
         <th class=\"n\">differences</th><th class=\"n\">follow from them</th></tr>"
    )?;
    for (number, first) in report.causes.iter().enumerate().take(MAX_CAUSES) {
        let (kind, text) = (first.cause.kind(), first.cause.to_string());
        let text = text.strip_prefix(kind).map_or(text.as_str(), |rest| rest.trim_start_matches(": "));
        let text = if text.is_empty() { "no cause was found" } else { text };
        writeln!(
            out,
            "<tr><td class=\"n\">{}</td><td>{kind}</td><td class=\"wide\"><button class=\"cause\" \
             data-cause=\"{number}\">{}</button></td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            number + 1,
            Safe(text),
            grouped(first.direct),
            grouped(first.following)
        )?;
    }
    writeln!(out, "</table>")?;
    if report.causes.len() > MAX_CAUSES {
        let more = (report.causes.len() - MAX_CAUSES) as u64;
        writeln!(out, "<div class=\"soft\">and {} more</div>", grouped(more))?;
    }
    writeln!(out, "</div>")
}

fn topics(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(
        out,
        "<h2>Topics</h2>\n<div class=\"card scroll\"><table>\n<tr><th>topic</th><th>records</th>\
         <th class=\"n\">same</th><th class=\"n\">changed</th><th class=\"n\">missing</th><th class=\"n\">extra</th>\
         <th></th><th>causes</th></tr>"
    )?;
    for topic in &report.topics {
        let causes: Vec<String> =
            topic.causes.iter().map(|(kind, count)| format!("{kind} {}", grouped(*count))).collect();
        let mut head = (
            format!("<button class=\"cause\" data-topic=\"{0}\">{0}</button>", Safe(&topic.topic)),
            causes.join(", "),
        );
        for (kind, counts) in &topic.kinds {
            let (name, causes) = std::mem::take(&mut head);
            write!(out, "<tr><td>{name}</td><td>{}</td>", Safe(kind))?;
            for count in [counts.same, counts.changed, counts.missing, counts.extra] {
                write!(out, "<td class=\"n\">{}</td>", grouped(count))?;
            }
            write!(out, "<td>")?;
            share_bar(out, *counts)?;
            writeln!(out, "</td><td>{causes}</td></tr>")?;
        }
    }
    writeln!(out, "</table></div>")
}

/// A bar with the share of each class.
fn share_bar(out: &mut String, counts: Counts) -> fmt::Result {
    write!(out, "<div class=\"bar\">")?;
    let parts = [
        (counts.same, "same"),
        (counts.changed, "changed"),
        (counts.missing, "missing"),
        (counts.extra, "extra"),
    ];
    for (count, name) in parts.into_iter().filter(|(count, _)| *count > 0) {
        write!(
            out,
            "<i class=\"{name}\" style=\"flex:{count} 1 2px\" title=\"{} {name}\"></i>",
            grouped(count)
        )?;
    }
    write!(out, "</div>")
}

fn differences(out: &mut String, report: &Report) -> fmt::Result {
    if report.shown.is_empty() {
        return Ok(());
    }
    let shown = &report.shown[..report.shown.len().min(MAX_DIFFERENCES)];
    writeln!(out, "<h2 id=\"differences\">Differences</h2>\n<div class=\"filters\">")?;
    let topics: BTreeSet<&str> = shown.iter().map(|shown| shown.difference.topic.as_str()).collect();
    let kinds: BTreeSet<&str> = shown.iter().map(|shown| report.causes[shown.cause].cause.kind()).collect();
    let causes: BTreeSet<usize> = shown.iter().map(|shown| shown.cause).collect();
    let plain = |values: BTreeSet<&str>| -> Vec<(String, String)> {
        values.into_iter().map(|value| (value.to_owned(), value.to_owned())).collect()
    };
    let causes = causes.into_iter().map(|place| {
        (place.to_string(), clip(&format!("{}. {}", place + 1, report.causes[place].cause), 90))
    });
    select(out, "topic", "topic", plain(topics))?;
    select(out, "kind", "kind of cause", plain(kinds))?;
    select(out, "cause", "first cause", causes.collect())?;
    select(out, "class", "what became of it", plain(["changed", "missing", "extra"].into()))?;
    writeln!(
        out,
        "<label>text<input id=\"text\" type=\"search\" autocomplete=\"off\"></label></div>\n\
         <p class=\"soft\" id=\"shown\">{} differences on this page</p>",
        shown.len()
    )?;
    for one in shown {
        difference(out, report, one)?;
    }
    let all = report.total().differences();
    if all > shown.len() as u64 {
        writeln!(
            out,
            "<p class=\"soft\">{} of {} differences are on this page, the first of each topic; <code>--limit</code> \
             shows more, and <code>--topic</code>, <code>--key</code>, <code>--from</code> and <code>--to</code> \
             others.</p>",
            grouped(shown.len() as u64),
            grouped(all)
        )?;
    }
    Ok(())
}

fn select(out: &mut String, id: &str, label: &str, values: Vec<(String, String)>) -> fmt::Result {
    write!(out, "<label>{label}<select id=\"{id}\"><option value=\"\">all</option>")?;
    for (value, text) in values {
        write!(out, "<option value=\"{}\">{}</option>", Safe(&value), Safe(&text))?;
    }
    writeln!(out, "</select></label>")
}

fn difference(out: &mut String, report: &Report, shown: &Shown) -> fmt::Result {
    let difference = &shown.difference;
    let (class, cause) = (difference.class.name(), &report.causes[shown.cause].cause);
    let kind = difference.kind.map_or("record", |kind| kind.name());
    writeln!(
        out,
        "<details data-topic=\"{}\" data-kind=\"{}\" data-cause=\"{}\" data-class=\"{class}\"><summary>\
         <span class=\"tag {class}\">{class}</span> <span class=\"topic\">{}</span> {kind} <code>{}</code> \
         <span class=\"soft\">{}, {}</span></summary><div class=\"body\"><dl>",
        Safe(&difference.topic),
        cause.kind(),
        shown.cause,
        Safe(&difference.topic),
        Safe(&clip(&difference.id, MAX_VALUE)),
        difference.event_time,
        cause.kind(),
    )?;
    let mut line =
        |name: &str, text: &str| writeln!(out, "<dt>{name}</dt><dd>{}</dd>", Safe(&clip(text, MAX_VALUE)));
    line("key", &difference.key)?;
    if let Some(before) = &shown.follows {
        let (class, id) = (before.class.name(), &before.id);
        line("follows from", &format!("{class} {} {id} of {}", before.topic, before.event_time))?;
    }
    line("first cause", &format!("{}. {cause}", shown.cause + 1))?;
    for (side, lies) in difference.sides() {
        let id = lies.id.as_deref().unwrap_or_default();
        let cause = lies.cause.as_deref().map_or_else(String::new, |cause| format!(", from {cause}"));
        line(side.name(), &format!("{} {id}{cause}", lies_at(lies)))?;
    }
    writeln!(out, "</dl>")?;
    fields(out, difference.class, &shown.fields)?;
    writeln!(out, "</div></details>")
}

fn fields(out: &mut String, class: Class, fields: &[FieldDiff]) -> fmt::Result {
    if fields.is_empty() {
        return Ok(());
    }
    let row = if class == Class::Changed { "both" } else { "one" };
    writeln!(out, "<div class=\"scroll\"><table><tr><th>field</th><th>A</th><th>B</th></tr>")?;
    for field in fields.iter().take(MAX_FIELDS) {
        writeln!(
            out,
            "<tr class=\"{row}\"><td class=\"mono\">{}</td><td class=\"a mono\">{}</td><td class=\"b mono\">{}</td></tr>",
            Safe(&field.field),
            Safe(&text(&field.a)),
            Safe(&text(&field.b))
        )?;
    }
    if fields.len() > MAX_FIELDS {
        writeln!(out, "<tr><td colspan=\"3\">and {} fields more</td></tr>", fields.len() - MAX_FIELDS)?;
    }
    writeln!(out, "</table></div>")
}

fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    clip(&text, MAX_VALUE)
}

fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        let text = "</script><img src=x onerror=alert(1)>\"'&\u{202e}\u{0}";
        let safe = Safe(text).to_string();
        for bad in ['<', '>', '"', '\'', '\u{202e}', '\u{0}'] {
            assert!(!safe.contains(bad), "{safe}");
        }
        assert!(safe.starts_with("&lt;/script&gt;"));
        assert_eq!(clip("äöü", 2), "äö…");
    }
}
