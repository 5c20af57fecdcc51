//! Shows what is in a bundle.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};
use tidewire_runtime::bundle::{BundleLog, BundleTask};
use tidewire_schemas::EventTime;

use crate::records::hex;
use crate::table::{Align, Table, grouped};

/// A topic of a bundle: partitions with records, records, their bytes, and bytes in the file.
type Totals = (u64, u64, u64, u64);

fn by_topic(log: &BundleLog) -> BTreeMap<String, Totals> {
    let mut topics: BTreeMap<String, Totals> = BTreeMap::new();
    for view in log.partitions().filter(|view| view.records > 0) {
        let totals = topics.entry(view.at.topic.to_string()).or_default();
        totals.0 += 1;
        totals.1 += view.records;
        totals.2 += view.bytes;
        totals.3 += view.stored_bytes;
    }
    topics
}

pub fn as_value(log: &BundleLog) -> Value {
    let about = log.about();
    let topics: Vec<Value> = by_topic(log)
        .into_iter()
        .map(|(topic, (partitions, records, bytes, stored_bytes))| {
            json!({
                "topic": topic,
                "partitions_with_records": partitions,
                "records": records,
                "bytes": bytes,
                "stored_bytes": stored_bytes,
            })
        })
        .collect();
    json!({
        "file": log.path().display().to_string(),
        "bytes": log.bytes(),
        "digest": hex(log.digest()),
        "version": about.version,
        "made_by_build": about.made_by_build,
        "from": about.from,
        "to": about.to,
        "keys": about.keys,
        "order": about.order,
        "tasks": about.tasks,
        "topics": topics,
        "left_out": about.left_out,
    })
}

pub fn show(out: &mut dyn Write, log: &BundleLog) -> io::Result<()> {
    let about = log.about();
    writeln!(out, "{}: {} bytes, digest {}", log.path().display(), grouped(log.bytes()), hex(log.digest()))?;
    writeln!(out, "made by version {}, build {}", about.version, about.made_by_build)?;
    let or = |text: &Option<String>, otherwise: &str| text.clone().unwrap_or_else(|| otherwise.to_owned());
    writeln!(
        out,
        "asked for  from {} to {}",
        or(&about.from, "the first epoch"),
        or(&about.to, "the last epoch")
    )?;
    if let Some(order) = &about.order {
        writeln!(out, "order      {order}")?;
    }
    if about.is_restricted() {
        writeln!(out, "keys       {} alone", about.keys.join(", "))?;
    }
    writeln!(out)?;
    let mut table = Table::new(&[
        ("stage", Align::Left),
        ("task", Align::Right),
        ("state of epoch", Align::Right),
        ("epochs", Align::Right),
        ("stream time", Align::Left),
        ("recorded by build", Align::Left),
    ]);
    for task in &about.tasks {
        table.row([
            task.stage.clone(),
            task.task.to_string(),
            task.after_epoch.to_string(),
            format!("{}..{}", task.after_epoch + 1, task.last_epoch),
            span(task),
            task.builds
                .iter()
                .map(|build| build.chars().take(12).collect::<String>())
                .collect::<Vec<_>>()
                .join(", "),
        ]);
    }
    table.write(out, "")?;
    writeln!(out)?;
    let mut table = Table::new(&[
        ("topic", Align::Left),
        ("partitions", Align::Right),
        ("records", Align::Right),
        ("bytes", Align::Right),
        ("in the file", Align::Right),
    ]);
    for (topic, (partitions, records, bytes, stored)) in by_topic(log) {
        table.row([topic, partitions.to_string(), grouped(records), grouped(bytes), grouped(stored)]);
    }
    table.write(out, "")?;
    writeln!(out, "\nnot in it:")?;
    for sentence in &about.left_out {
        writeln!(out, "- {sentence}")?;
    }
    Ok(())
}

/// The stream time that was asked for.
fn span(task: &BundleTask) -> String {
    let time = |ms: Option<i64>| ms.map_or_else(|| "-".to_owned(), |ms| EventTime::from_ms(ms).to_string());
    format!("{} to {}", time(task.first_time_ms), time(task.last_time_ms))
}
