//! Shows a comparison as text, and causes in words.

use std::fmt;
use std::io::{self, Write};

use serde_json::Value;
use tidewire_schemas::EventTime;

use super::causes::Cause;
use super::counts::{Class, Counts};
use super::inputs::InputRecord;
use super::report::{Report, RunFacts, Shown};
use super::walk::Lies;
use crate::table::{Align, Table, grouped};

/// Longest value that is shown in text.
const MAX_SHOWN: usize = 120;
/// Most fields of a record that are shown in text.
const MAX_FIELDS: usize = 24;

/// Writes the whole report; at most `limit` first causes.
pub fn show(out: &mut dyn Write, report: &Report, limit: usize) -> io::Result<()> {
    for (name, run) in ["A", "B"].iter().zip(&report.runs) {
        writeln!(out, "{name}  {}", describe(run))?;
    }
    if let (from, to) = (report.from, report.to)
        && (from.is_some() || to.is_some())
    {
        let time = |time: Option<EventTime>| time.map_or_else(|| "...".to_owned(), |time| time.to_string());
        writeln!(out, "event times from {} to {}", time(from), time(to))?;
    }
    writeln!(out)?;
    show_counts(out, report)?;
    if !report.is_same() {
        show_facts(out, report)?;
        show_causes(out, report, limit)?;
        show_differences(out, report)?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

/// A run in one line.
pub fn describe(run: &RunFacts) -> String {
    format!(
        "{}: {} ({} order, {} epochs) in {}",
        run.name,
        run.pipelines.join(", "),
        run.order.name(),
        grouped(run.epochs),
        run.place
    )
}

fn show_counts(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let right = Align::Right;
    let mut table = Table::new(&[
        ("topic", Align::Left),
        ("records", Align::Left),
        ("same", right),
        ("changed", right),
        ("missing", right),
        ("extra", right),
        ("causes", Align::Left),
    ]);
    let mut row = |topic: &str, kind: &str, counts: Counts, causes: String| {
        let numbers = [counts.same, counts.changed, counts.missing, counts.extra].map(grouped);
        table.row([topic.to_owned(), kind.to_owned()].into_iter().chain(numbers).chain([causes]));
    };
    for topic in &report.topics {
        let causes: Vec<String> =
            topic.causes.iter().map(|(kind, count)| format!("{kind} {}", grouped(*count))).collect();
        let mut causes = causes.join(", ");
        for (kind, counts) in &topic.kinds {
            row(&topic.topic, kind, *counts, std::mem::take(&mut causes));
        }
    }
    row("all", "", report.total(), String::new());
    table.write(out, "")?;
    for (name, counts) in [("signals", report.signals), ("orders", report.orders)] {
        if counts.all() > 0 {
            writeln!(
                out,
                "{name}: {} same, {} changed, {} missing, {} extra",
                grouped(counts.same),
                grouped(counts.changed),
                grouped(counts.missing),
                grouped(counts.extra)
            )?;
        }
    }
    Ok(())
}

fn show_facts(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    writeln!(out)?;
    for line in facts(report) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// What is known to be the same or another in both runs, a line each.
pub fn facts(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if report.settings.is_empty() {
        lines.push("settings: the same".to_owned());
    }
    for change in &report.settings {
        lines.push(format!("setting: {}: {} -> {}", change.name(), value(&change.a), value(&change.b)));
    }
    let [a, b] = &report.runs;
    if a.epochs > 0 && b.epochs > 0 {
        let same = a.builds == b.builds && a.schemas == b.schemas;
        lines.push(format!(
            "code: {}",
            if same { "the same build and schemas" } else { "another build or other schemas" }
        ));
    }
    let inputs = &report.inputs;
    if inputs.compared {
        let mut line = format!("inputs: {} records the same", grouped(inputs.same));
        if inputs.only_a + inputs.only_b > 0 {
            line += &format!(", {} only in A, {} only in B", grouped(inputs.only_a), grouped(inputs.only_b));
        }
        if let Some(first) = inputs.only_one.first() {
            line += &format!("; the first that only {} has is {}", first.side.name(), place(first));
        }
        if !inputs.reordered.is_empty() {
            line += "; in another order";
        }
        lines.push(line);
    }
    lines
}

fn show_causes(out: &mut dyn Write, report: &Report, limit: usize) -> io::Result<()> {
    writeln!(out, "\nfirst causes:")?;
    for (number, first) in report.causes.iter().enumerate().take(limit) {
        writeln!(
            out,
            "  {}. {}: {}, {} follow",
            number + 1,
            first.cause,
            counted(first.direct, "difference"),
            grouped(first.following)
        )?;
    }
    if report.causes.len() > limit {
        writeln!(out, "  and {} more", grouped((report.causes.len() - limit) as u64))?;
    }
    Ok(())
}

fn show_differences(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    for topic in &report.topics {
        let of_topic: Vec<&Shown> =
            report.shown.iter().filter(|shown| shown.difference.topic == topic.topic).collect();
        if of_topic.is_empty() {
            continue;
        }
        let all = topic.total.differences();
        let shown = of_topic.len() as u64;
        let more = if shown < all { format!(", the first {}", grouped(shown)) } else { String::new() };
        writeln!(out, "\n{}: {}{more}", topic.topic, counted(all, "difference"))?;
        for shown in of_topic {
            show_difference(out, report, shown)?;
        }
    }
    Ok(())
}

fn show_difference(out: &mut dyn Write, report: &Report, shown: &Shown) -> io::Result<()> {
    let difference = &shown.difference;
    let kind = difference.kind.map_or("record", |kind| kind.name());
    let places: Vec<String> =
        difference.sides().map(|(side, lies)| format!("{} {}", side.name(), lies_at(lies))).collect();
    writeln!(
        out,
        "  {}  {} {kind}  key {}  id {}  ({})",
        difference.event_time,
        difference.class.name(),
        difference.key,
        difference.id,
        places.join(", ")
    )?;
    if difference.class == Class::Changed {
        let mut table = Table::new(&[("field", Align::Left), ("A", Align::Left), ("B", Align::Left)]);
        for field in shown.fields.iter().take(MAX_FIELDS) {
            table.row([field.field.clone(), value(&field.a), value(&field.b)]);
        }
        table.write(out, "      ")?;
        if shown.fields.len() > MAX_FIELDS {
            writeln!(out, "      and {} fields more", shown.fields.len() - MAX_FIELDS)?;
        }
    }
    writeln!(out, "      {}", why(report, shown))
}

/// Why a record differs, in words.
pub fn why(report: &Report, shown: &Shown) -> String {
    let cause = format!("{}. {}", shown.cause + 1, report.causes[shown.cause].cause);
    match &shown.follows {
        Some(before) => {
            let class = before.class.name();
            format!(
                "follows from: {class} {} {} at {}; first cause {cause}",
                before.topic, before.id, before.event_time
            )
        }
        None => format!("cause {cause}"),
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        match self {
            Self::Setting(change) => {
                write!(f, ": {}: {} -> {}", change.name(), value(&change.a), value(&change.b))
            }
            Self::Code { a, b } => {
                write!(f, ": {} -> {}", a.join(", "), b.join(", "))
            }
            Self::Input(stretch) if stretch.altered => {
                write!(f, ": {} is another record in B{}", place(&stretch.first), more(stretch.records))
            }
            Self::Input(stretch) => {
                let side = stretch.first.side.name();
                write!(f, ": only {side} took {}{}", place(&stretch.first), more(stretch.records))
            }
            Self::Late(late) if late.is_reordered && late.late_by_ms > 0 => {
                write!(f, ": {} came {} ms late", place(&late.record), grouped_ms(late.late_by_ms))
            }
            Self::Late(late) if late.is_reordered => {
                write!(f, ": {} lies in another place", place(&late.record))
            }
            Self::Late(late) => {
                let ms = grouped_ms(late.late_by_ms);
                write!(f, ": {} was received {ms} ms after its event time", place(&late.record))
            }
            Self::Unknown => Ok(()),
        }
    }
}

fn grouped_ms(ms: i64) -> String {
    grouped(u64::try_from(ms).unwrap_or(0))
}

fn more(records: u64) -> String {
    if records > 1 { format!(" and {} more behind it", grouped(records - 1)) } else { String::new() }
}

fn place(record: &InputRecord) -> String {
    let time = EventTime::from_ms(record.event_time_ms);
    format!("{}@{} ({} of {time}, {})", record.at, record.offset, record.key, record.side.name())
}

/// Where a record lies, without its topic.
pub fn lies_at(lies: &Lies) -> String {
    format!("{}@{}", lies.at.partition, lies.offset)
}

/// A value for people, not too long.
pub fn value(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A number of things.
pub fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}
