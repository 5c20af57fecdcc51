//! `tidewire verify`: runs recorded epochs again and compares every byte of their outputs.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::verify::{Difference, VerifyReport, verify_task};
use tidewire_schemas::SchemaBook;

use crate::cli::{self, Context};
use crate::commands::bundle::{say_what_it_holds, verify_restricted};
use crate::files::load_pipeline;
use crate::open;
use crate::recorded::pipelines;
use crate::records::json_of;
use crate::table::{Align, Table, grouped};

/// Nothing is written. Without a file, the pipelines are verified as they were started last on this log. The exit code
/// is 0 if everything is the same, 3 if something differs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Verify with this pipeline file instead of the recorded one.
    file: Option<PathBuf>,
    /// Only this stage.
    #[arg(long)]
    stage: Option<String>,
    /// Only this task.
    #[arg(long, value_name = "N")]
    task: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_read(context)?;
    let stages: Vec<Arc<StageSpec>> = match &args.file {
        Some(file) => load_pipeline(file)?.pipeline.stages,
        None => pipelines(&*open.log)?.iter().flat_map(|recorded| recorded.stages().to_vec()).collect(),
    };
    let wanted = stages.iter().filter(|stage| args.stage.as_ref().is_none_or(|name| stage.name == *name));
    let wanted: Vec<&Arc<StageSpec>> = wanted.collect();
    if wanted.is_empty() {
        let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        anyhow::bail!("there is no such stage; there are {}", names.join(", "));
    }
    if let Some(bundle) = open.bundle() {
        say_what_it_holds(bundle)?;
        if bundle.about().is_restricted() {
            return verify_restricted(&open, bundle, &wanted, args.task, args.json);
        }
    }
    let mut reports = Vec::new();
    let bar = progress();
    for stage in wanted {
        for task in (0..stage.tasks()).filter(|task| args.task.is_none_or(|wanted| wanted == *task)) {
            bar.set_message(format!("{}/{task}", stage.name));
            bar.set_position(0);
            let report = verify_task(&*open.log, stage, &open.book, task, |epochs| bar.set_position(epochs))?;
            reports.push((Arc::clone(stage), task, report));
        }
    }
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    if args.json {
        let all: Vec<Value> =
            reports.iter().map(|(stage, task, report)| as_value(stage, *task, report, &open.book)).collect();
        serde_json::to_writer_pretty(&mut out, &all)?;
        writeln!(out)?;
    } else {
        show(&mut out, &reports, &open.book)?;
    }
    let differs = reports.iter().any(|(_, _, report)| report.difference.is_some());
    Ok(if differs { cli::DIFFERS } else { cli::OK })
}

fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {msg}: {pos} epochs run again, {per_sec}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn show(
    out: &mut dyn Write,
    reports: &[(Arc<StageSpec>, u32, VerifyReport)],
    book: &SchemaBook,
) -> io::Result<()> {
    let mut table = Table::new(&[
        ("stage", Align::Left),
        ("task", Align::Right),
        ("epochs", Align::Right),
        ("records", Align::Right),
        ("outputs compared", Align::Right),
        ("compacted", Align::Right),
        ("result", Align::Left),
    ]);
    for (stage, task, report) in reports {
        let result = match (&report.difference, report.epochs) {
            (Some(difference), _) => format!("differs in epoch {}", difference.epoch),
            (None, 0) => "nothing recorded".to_owned(),
            (None, _) if report.began_after > 0 => {
                format!("same, from the cut of epoch {}", report.began_after)
            }
            (None, _) => "same".to_owned(),
        };
        table.row([
            stage.name.to_string(),
            task.to_string(),
            grouped(report.epochs),
            grouped(report.records),
            grouped(report.compared),
            grouped(report.compacted),
            result,
        ]);
    }
    table.write(out, "")?;
    for (stage, task, report) in reports {
        if let Some(difference) = &report.difference {
            writeln!(out)?;
            show_difference(out, stage, *task, difference, book)?;
        }
    }
    Ok(())
}

fn show_difference(
    out: &mut dyn Write,
    stage: &StageSpec,
    task: u32,
    difference: &Difference,
    book: &SchemaBook,
) -> io::Result<()> {
    writeln!(
        out,
        "first difference: stage {}, task {task}, epoch {}: {}",
        stage.name, difference.epoch, difference.what
    )?;
    if let Some(operator) = &difference.operator {
        writeln!(out, "  operator  {operator}")?;
    }
    if let Some(at) = &difference.at {
        let offset = difference.offset.map_or_else(String::new, |offset| format!("@{offset}"));
        writeln!(out, "  place     {at}{offset}")?;
    }
    if let Some(id) = &difference.id {
        writeln!(out, "  identity  {id}")?;
    }
    if let Some(key) = &difference.key {
        writeln!(out, "  key       {key}")?;
    }
    if let Some(record) = &difference.found {
        writeln!(out, "  recorded  {}", json_of(book, record))?;
    }
    if let Some(record) = &difference.rerun {
        writeln!(out, "  run again {}", json_of(book, record))?;
    }
    Ok(())
}

fn as_value(stage: &StageSpec, task: u32, report: &VerifyReport, book: &SchemaBook) -> Value {
    let difference = report.difference.as_ref().map(|difference| {
        json!({
            "epoch": difference.epoch,
            "what": difference.what,
            "operator": difference.operator,
            "at": difference.at.as_ref().map(ToString::to_string),
            "offset": difference.offset,
            "identity": difference.id,
            "key": difference.key,
            "recorded": difference.found.as_ref().map(|record| json_of(book, record)),
            "run_again": difference.rerun.as_ref().map(|record| json_of(book, record)),
        })
    });
    json!({
        "stage": stage.name,
        "task": task,
        "epochs": report.epochs,
        "records": report.records,
        "compared": report.compared,
        "compacted": report.compacted,
        "began_after_epoch": report.began_after,
        "difference": difference,
    })
}
