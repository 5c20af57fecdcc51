//! What verification found, for people and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::verify::{Difference, Stretch, VerifyReport};
use tidewire_schemas::{EventTime, SchemaBook};

use crate::records::json_of;
use crate::table::{Align, Table, grouped};
use crate::verify::{Options, Summary, Tally, began_at, fields};

/// Everything, for people.
pub fn tallies(
    out: &mut dyn Write,
    tallies: &[Tally],
    sum: &Summary,
    options: &Options,
    book: &SchemaBook,
) -> io::Result<()> {
    table(out, tallies)?;
    summary(out, sum, options)?;
    for tally in tallies {
        for error in &tally.errors {
            writeln!(out, "\ncould not be verified: {error}")?;
        }
        let what = if options.sample.is_some() { "difference" } else { "first difference" };
        for found in &tally.differences {
            writeln!(out)?;
            difference(out, what, &tally.stage, tally.task, found, book)?;
        }
    }
    Ok(())
}

/// One line a task.
pub fn table(out: &mut dyn Write, tallies: &[Tally]) -> io::Result<()> {
    let mut table = Table::new(&[
        ("stage", Align::Left),
        ("task", Align::Right),
        ("epochs", Align::Right),
        ("records", Align::Right),
        ("outputs compared", Align::Right),
        ("compacted", Align::Right),
        ("result", Align::Left),
    ]);
    for tally in tallies {
        let report = &tally.report;
        table.row([
            tally.stage.name.to_string(),
            tally.task.to_string(),
            grouped(report.epochs),
            grouped(report.records),
            grouped(report.compared),
            grouped(report.compacted),
            result(tally),
        ]);
    }
    table.write(out, "")
}

fn result(tally: &Tally) -> String {
    let report = &tally.report;
    let mut text = match (&report.difference, &tally.note) {
        (Some(difference), _) => format!("differs in epoch {}", difference.epoch),
        (None, Some(_)) => "no epoch in the range".to_owned(),
        (None, None) if tally.failures > 0 => "could not be verified".to_owned(),
        (None, None) if report.epochs == 0 && tally.stretches > 0 => "no stretch drawn".to_owned(),
        (None, None) if report.epochs == 0 && tally.stopped => "stopped".to_owned(),
        (None, None) if report.epochs == 0 => "nothing recorded".to_owned(),
        (None, None) => "same".to_owned(),
    };
    if tally.stretches > 0 {
        text += &format!(", {} of {} stretches", grouped(tally.drawn), grouped(tally.stretches));
    } else if report.began_after > 0 {
        text += &format!(", from the cut of epoch {}", report.began_after);
    } else if report.not_compared > 0 {
        text += ", from the very beginning";
    }
    if report.not_compared > 0 {
        text += &format!(", {} more run and not compared", grouped(report.not_compared));
    }
    if report.deleted > 0 {
        text += &format!(", {} outputs deleted by retention", grouped(report.deleted));
    }
    if tally.stopped && report.epochs > 0 {
        text += ", stopped before the end";
    }
    text
}

/// How much was verified, and how fast.
pub fn summary(out: &mut dyn Write, sum: &Summary, options: &Options) -> io::Result<()> {
    let share = match options.sample {
        Some(_) => format!(", {} of {} stretches drawn", grouped(sum.drawn), grouped(sum.stretches)),
        None => String::new(),
    };
    writeln!(
        out,
        "{} epochs and {} records of {} tasks in {:.1} s on {} threads{share}: {} records/s, {:.0} times real time \
         ({:.1} s of events)",
        grouped(sum.epochs),
        grouped(sum.records),
        sum.tasks,
        sum.wall.as_secs_f64(),
        options.workers,
        grouped(sum.records_per_s() as u64),
        sum.times_real_time(),
        sum.span_ms as f64 / 1_000.0,
    )
}

/// One difference, with everything that is known of it.
pub fn difference(
    out: &mut dyn Write,
    title: &str,
    stage: &StageSpec,
    task: u32,
    difference: &Difference,
    book: &SchemaBook,
) -> io::Result<()> {
    writeln!(
        out,
        "{title}: stage {}, task {task}, epoch {}: {}",
        stage.name, difference.epoch, difference.what
    )?;
    let fields = fields(difference, book);
    if let Some(operator) = &difference.operator {
        writeln!(out, "  operator  {operator}")?;
    }
    match began_at(stage, difference, &fields) {
        Some(origin) => writeln!(out, "  began at  {origin}, which gives this feature its value")?,
        None if !difference.upstream.is_empty() => {
            writeln!(
                out,
                "  fed by    {} (on no topic: it may have begun there)",
                difference.upstream.join(", ")
            )?;
        }
        None => {}
    }
    if let Some(at) = &difference.at {
        let offset = difference.offset.map_or_else(String::new, |offset| format!("@{offset}"));
        writeln!(out, "  place     {at}{offset}")?;
    }
    let lines = [("identity", &difference.id), ("cause", &difference.cause), ("key", &difference.key)];
    for (name, text) in lines {
        if let Some(text) = text {
            writeln!(out, "  {name:<8}  {text}")?;
        }
    }
    for field in &fields {
        writeln!(
            out,
            "  field     {}: recorded {}, run again {}",
            field.field, field.recorded, field.run_again
        )?;
    }
    if fields.is_empty() && difference.what == "value" && difference.found.is_some() {
        writeln!(out, "  field     none: the bytes differ where no field shows it, as in a NaN")?;
    }
    if let Some(record) = &difference.found {
        writeln!(out, "  recorded  {}", json_of(book, record))?;
    }
    if let Some(record) = &difference.rerun {
        writeln!(out, "  run again {}", json_of(book, record))?;
    }
    Ok(())
}

/// A stretch of a check that goes on: for people only if something differs in it.
pub fn stretch(
    as_json: bool,
    stage: &StageSpec,
    task: u32,
    stretch: &Stretch,
    book: &SchemaBook,
) -> io::Result<()> {
    let Some(report) = &stretch.report else { return Ok(()) };
    let mut out = io::stdout().lock();
    if as_json {
        let mut value = report_value(stage, task, report, book);
        value["to_epoch"] = stretch.to.into();
        serde_json::to_writer(&mut out, &value)?;
        writeln!(out)?;
    } else if let Some(found) = &report.difference {
        difference(&mut out, "difference", stage, task, found, book)?;
    }
    out.flush()
}

/// Everything, as JSON.
pub fn value(tallies: &[Tally], sum: &Summary, options: &Options, book: &SchemaBook) -> Value {
    let tasks = tallies.iter().map(|tally| {
        let mut value = report_value(&tally.stage, tally.task, &tally.report, book);
        if options.sample.is_some() {
            value["stretches"] = tally.stretches.into();
            value["drawn"] = tally.drawn.into();
            let differences = tally.differences.iter();
            value["differences"] =
                differences.map(|found| difference_value(&tally.stage, found, book)).collect();
        }
        value["errors"] = tally.errors.iter().cloned().collect();
        value["note"] = tally.note.clone().into();
        value["stopped"] = tally.stopped.into();
        value
    });
    json!({ "tasks": tasks.collect::<Vec<_>>(), "summary": summary_value(sum, options) })
}

/// The summary as JSON.
pub fn summary_value(sum: &Summary, options: &Options) -> Value {
    json!({
        "tasks": sum.tasks,
        "epochs": sum.epochs,
        "records": sum.records,
        "compared": sum.compared,
        "stretches": options.sample.map(|_| sum.stretches),
        "drawn": options.sample.map(|_| sum.drawn),
        "differing": sum.differing,
        "failures": sum.failures,
        "workers": options.workers,
        "event_time_s": sum.span_ms as f64 / 1_000.0,
        "wall_s": sum.wall.as_secs_f64(),
        "records_per_s": sum.records_per_s(),
        "times_real_time": sum.times_real_time(),
    })
}

fn report_value(stage: &StageSpec, task: u32, report: &VerifyReport, book: &SchemaBook) -> Value {
    let time = |ms: i64| EventTime::from_ms(ms).to_string();
    json!({
        "stage": stage.name,
        "task": task,
        "epochs": report.epochs,
        "records": report.records,
        "compared": report.compared,
        "compacted": report.compacted,
        "deleted": report.deleted,
        "began_after_epoch": report.began_after,
        "not_compared": report.not_compared,
        "last_epoch": report.last.map(|last| last.epoch),
        "last_stream_time": report.last.and_then(|last| last.stream_time).map(|time| time.to_string()),
        "from_stream_time": report.span_ms.map(|(from, _)| time(from)),
        "difference": report.difference.as_ref().map(|found| difference_value(stage, found, book)),
    })
}

fn difference_value(stage: &StageSpec, difference: &Difference, book: &SchemaBook) -> Value {
    let fields = fields(difference, book);
    let began_at = began_at(stage, difference, &fields);
    let fields = fields.iter().map(
        |field| json!({ "field": field.field, "recorded": field.recorded, "run_again": field.run_again }),
    );
    json!({
        "epoch": difference.epoch,
        "what": difference.what,
        "operator": difference.operator,
        "began_at": began_at,
        "upstream": difference.upstream,
        "at": difference.at.as_ref().map(ToString::to_string),
        "offset": difference.offset,
        "identity": difference.id,
        "cause": difference.cause,
        "key": difference.key,
        "fields": fields.collect::<Vec<_>>(),
        "recorded": difference.found.as_ref().map(|record| json_of(book, record)),
        "run_again": difference.rerun.as_ref().map(|record| json_of(book, record)),
    })
}
