//! `tidewire verify` on a bundle: what it holds, and the comparison where it is restricted to keys.

use std::io::{self, Write as _};
use std::sync::Arc;

use serde_json::{Value, json};
use tidewire_engine::only::{Asked, OnlyReport, compare};
use tidewire_engine::plan::StageSpec;
use tidewire_runtime::bundle::{BundleLog, BundleNotes, BundleTask};
use tidewire_schemas::SchemaBook;

use crate::cli;
use crate::open::OpenLog;
use crate::records::json_of;
use crate::table::{Align, Table, grouped};

/// Says which epochs a bundle holds, to people.
pub fn say_what_it_holds(bundle: &BundleLog) -> io::Result<()> {
    let mut err = io::stderr().lock();
    for task in &bundle.about().tasks {
        let (stage, first) = (&task.stage, task.after_epoch + 1);
        writeln!(err, "the bundle holds epochs {first}..{} of {stage}/{}", task.last_epoch, task.task)?;
    }
    Ok(())
}

/// Verifies a bundle that is restricted to keys: its epochs are run again with these keys alone, and what comes out is
/// compared with the outputs that are theirs.
pub fn verify_restricted(
    open: &OpenLog,
    bundle: &BundleLog,
    stages: &[&Arc<StageSpec>],
    task: Option<u32>,
    is_json: bool,
) -> anyhow::Result<u8> {
    let keys = open.only_keys().unwrap_or_default();
    let mut reports = Vec::new();
    for held in bundle.about().tasks.iter().filter(|held| task.is_none_or(|wanted| wanted == held.task)) {
        let Some(spec) = stages.iter().find(|spec| spec.name == held.stage && spec.pipeline == held.pipeline)
        else {
            continue;
        };
        let asked = Asked {
            keys: Arc::clone(&keys),
            from: held.after_epoch + 1,
            to: held.last_epoch,
            is_partial: true,
        };
        let mut notes = BundleNotes::new(&*open.log, &spec.group(), held.task)?;
        let report = compare(&*open.log, spec, &open.book, held.task, &asked, Some(&mut notes), |_, _| {})?;
        reports.push((held, report));
    }
    let mut out = io::stdout().lock();
    if is_json {
        let all: Vec<Value> =
            reports.iter().map(|(held, report)| as_value(held, report, bundle, &open.book)).collect();
        serde_json::to_writer_pretty(&mut out, &json!({ "tasks": all }))?;
        writeln!(out)?;
    } else {
        show(&mut out, &reports, bundle, &open.book)?;
    }
    let differs = reports.iter().any(|(_, report)| report.difference.is_some());
    Ok(if differs { cli::DIFFERS } else { cli::OK })
}

fn show(
    out: &mut impl io::Write,
    reports: &[(&BundleTask, OnlyReport)],
    bundle: &BundleLog,
    book: &SchemaBook,
) -> io::Result<()> {
    writeln!(out, "run again with {} alone", bundle.about().keys.join(", "))?;
    let columns = ["stage", "task", "epochs", "records", "compared", "compacted", "result"];
    let columns: Vec<(&str, Align)> = columns
        .iter()
        .map(|name| (*name, if matches!(*name, "stage" | "result") { Align::Left } else { Align::Right }))
        .collect();
    let mut table = Table::new(&columns);
    for (held, report) in reports {
        let result = match &report.difference {
            Some(difference) => format!("differs in epoch {}", difference.epoch),
            None => format!("same, from the cut of epoch {}", report.began_after),
        };
        table.row([
            held.stage.clone(),
            held.task.to_string(),
            grouped(report.epochs),
            grouped(report.records),
            grouped(report.compared),
            grouped(report.compacted),
            result,
        ]);
    }
    table.write(out, "")?;
    for (held, report) in reports {
        if report.difference.is_some() {
            let value = as_value(held, report, bundle, book);
            writeln!(out, "\nfirst difference of {}/{}: {:#}", held.stage, held.task, value["difference"])?;
        }
    }
    Ok(())
}

fn as_value(held: &BundleTask, report: &OnlyReport, bundle: &BundleLog, book: &SchemaBook) -> Value {
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
        "stage": held.stage,
        "task": held.task,
        "keys": bundle.about().keys,
        "epochs": report.epochs,
        "records": report.records,
        "compared": report.compared,
        "compacted": report.compacted,
        "began_after_epoch": report.began_after,
        "difference": difference,
    })
}
