//! `tidewire status`: where each task stands, and what it waits for.

use std::io::{self, Write};

use serde_json::{Value, json};
use tidewire_engine::log::Log;
use tidewire_engine::plan::StageSpec;
use tidewire_runtime::clock::now_ms;
use tidewire_schemas::EventTime;

use crate::cli::{self, Context};
use crate::journal::{InputStand, TaskStand, stands};
use crate::notes::{self, IMPORTS, ImportNote};
use crate::open;
use crate::pipeline::describe::role;
use crate::recorded::{Recorded, pipelines};
use crate::table::{Align, Table, grouped};

/// By the epoch records in the log, so it works while a process runs and when none does. A task's watermark is held
/// back by the input partition whose newest record, less its out-of-orderness, is the oldest; an input that was silent
/// for longer than its `idle_after_ms` of the task's own time does not count.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show every input partition.
    #[arg(long)]
    inputs: bool,
    /// Only this stage.
    #[arg(long)]
    stage: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_read(context)?;
    let log = &*open.log;
    let mut out = io::stdout().lock();
    let mut all = Vec::new();
    for recorded in pipelines(log)? {
        let stands = stands(log, &open.book, recorded.stages())?;
        let wanted = |stage: &StageSpec| args.stage.as_ref().is_none_or(|name| stage.name == *name);
        let shown: Vec<(&StageSpec, &Vec<TaskStand>)> = recorded
            .stages()
            .iter()
            .map(|stage| &**stage)
            .zip(&stands)
            .filter(|(stage, _)| wanted(stage))
            .collect();
        if args.json {
            all.push(pipeline_value(log, &recorded, &shown, open.is_elsewhere())?);
            continue;
        }
        let how = if recorded.note.synchronised { "synchronised" } else { "live" };
        let process =
            if open.is_elsewhere() { "a process has the log open" } else { "no process has the log open" };
        writeln!(
            out,
            "pipeline {} ({}), last started {how}; {process}",
            recorded.note.pipeline, recorded.note.file
        )?;
        for (stage, tasks) in shown {
            writeln!(out)?;
            show_stage(&mut out, stage, tasks, args.inputs, recorded.note.synchronised)?;
        }
    }
    if args.json {
        serde_json::to_writer_pretty(&mut out, &all)?;
        writeln!(out)?;
        return Ok(cli::OK);
    }
    for note in notes::all::<ImportNote>(log, IMPORTS)?.iter().filter(|note| note.complete) {
        for text in &note.notes {
            writeln!(out, "\n{}: {text}", note.file)?;
        }
    }
    Ok(cli::OK)
}

fn show_stage(
    out: &mut dyn Write,
    stage: &StageSpec,
    tasks: &[TaskStand],
    inputs: bool,
    synchronised: bool,
) -> io::Result<()> {
    writeln!(out, "stage {} (consumer group {})", stage.name, stage.group())?;
    let mut table = Table::new(&[
        ("task", Align::Right),
        ("epoch", Align::Right),
        ("committed", Align::Left),
        ("lag", Align::Right),
        (if stage.has_watermark() { "watermark" } else { "time" }, Align::Left),
        ("held back by", Align::Left),
    ]);
    for task in tasks {
        let Some(last) = &task.last else {
            table.row([task.task.to_string(), "-".to_owned(), "never".to_owned(), grouped(lag(task))]);
            continue;
        };
        table.row([
            task.task.to_string(),
            grouped(u64::try_from(last.epoch).unwrap_or(0)),
            stamp(last.stamp_ms, synchronised),
            grouped(lag(task)),
            last.watermark_ms.map_or_else(|| "none yet".to_owned(), time),
            held_by(stage, task),
        ]);
    }
    table.write(out, "  ")?;
    for task in tasks {
        for input in &task.inputs {
            if let Some(why) = idle_words(input) {
                writeln!(out, "  task {}: {} is idle: {why}", task.task, input.at)?;
            }
        }
    }
    if inputs { show_inputs(out, tasks) } else { Ok(()) }
}

fn show_inputs(out: &mut dyn Write, tasks: &[TaskStand]) -> io::Result<()> {
    let mut table = Table::new(&[
        ("task", Align::Right),
        ("input", Align::Left),
        ("partition", Align::Left),
        ("role", Align::Left),
        ("next", Align::Right),
        ("end", Align::Right),
        ("lag", Align::Right),
        ("newest record", Align::Left),
    ]);
    for task in tasks {
        for input in &task.inputs {
            table.row([
                task.task.to_string(),
                input.id.to_string(),
                input.at.to_string(),
                role(input.role).to_owned(),
                input.next_offset.to_string(),
                input.end.to_string(),
                grouped(input.lag()),
                input.greatest_ms.map_or_else(|| "-".to_owned(), time),
            ]);
        }
    }
    table.write(out, "  ")
}

fn lag(task: &TaskStand) -> u64 {
    task.inputs.iter().map(InputStand::lag).sum()
}

/// Who holds the watermark back, in words.
fn held_by(stage: &StageSpec, task: &TaskStand) -> String {
    if !stage.has_watermark() {
        return "nothing: time is that of its records".to_owned();
    }
    let watermark_ms = task.last.as_ref().and_then(|record| record.watermark_ms);
    match task.holder.and_then(|place| task.inputs.get(place)) {
        None => "nothing: all inputs are idle".to_owned(),
        Some(input) if watermark_ms > input.allows_ms => {
            "nothing: all inputs were silent, and time went on".to_owned()
        }
        Some(input) => {
            let newest = input.greatest_ms.map_or_else(String::new, time);
            format!("{} (newest record {newest})", input.at)
        }
    }
}

fn idle_words(input: &InputStand) -> Option<String> {
    if !input.idle {
        return None;
    }
    let allowed = input.idle_after_ms;
    Some(match input.behind_ms {
        None => "no record yet".to_owned(),
        Some(behind) => {
            format!("its last record is {behind} ms of stream time ago; it may be silent for {allowed} ms")
        }
    })
}

fn time(ms: i64) -> String {
    EventTime::from_ms(ms).to_string()
}

/// When the last epoch was, and how long ago; virtual time has no distance to now.
fn stamp(stamp_ms: i64, synchronised: bool) -> String {
    if synchronised {
        return format!("{} (virtual)", time(stamp_ms));
    }
    let ago_s = now_ms().saturating_sub(stamp_ms).max(0) / 1_000;
    format!("{} ({ago_s} s ago)", time(stamp_ms))
}

fn pipeline_value(
    log: &dyn Log,
    recorded: &Recorded,
    shown: &[(&StageSpec, &Vec<TaskStand>)],
    is_elsewhere: bool,
) -> anyhow::Result<Value> {
    let imports: Vec<ImportNote> = notes::all(log, IMPORTS)?;
    let stages = shown.iter().map(|(stage, tasks)| {
        json!({
            "stage": stage.name,
            "group": stage.group(),
            "tasks": tasks.iter().map(|task| task_value(stage, task)).collect::<Vec<_>>(),
        })
    });
    Ok(json!({
        "pipeline": recorded.note.pipeline,
        "file": recorded.note.file,
        "synchronised": recorded.note.synchronised,
        "process_has_log_open": is_elsewhere,
        "stages": stages.collect::<Vec<_>>(),
        "imports": imports.iter().filter(|note| note.complete).collect::<Vec<_>>(),
    }))
}

fn task_value(stage: &StageSpec, task: &TaskStand) -> Value {
    let last = task.last.as_ref();
    let inputs = task.inputs.iter().map(|input| {
        json!({
            "input": input.id,
            "topic": input.at.topic,
            "partition": input.at.partition,
            "role": role(input.role),
            "next_offset": input.next_offset,
            "end": input.end,
            "lag": input.lag(),
            "greatest_event_time_ms": input.greatest_ms,
            "idle": input.idle,
            "idle_why": idle_words(input),
        })
    });
    json!({
        "task": task.task,
        "epoch": last.map(|record| record.epoch),
        "stamp_ms": last.map(|record| record.stamp_ms),
        "last_flush_epoch": task.last_flush,
        "writer": last.map(|record| record.writer.as_str()),
        "lag": lag(task),
        "watermark_ms": last.and_then(|record| record.watermark_ms),
        "stream_time_ms": last.and_then(|record| record.stream_time_ms),
        "held_back_by": if stage.has_watermark() { task.holder.map(|place| task.inputs[place].at.to_string()) } else { None },
        "inputs": inputs.collect::<Vec<_>>(),
    })
}
