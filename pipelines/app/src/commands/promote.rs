//! `tidewire promote`: lets readers of live topics go on in the topics of a run under a prefix.

use std::collections::BTreeSet;
use std::io::{self, Write};

use anyhow::bail;
use serde_json::json;
use smol_str::{SmolStr, format_smolstr};
use tidewire_engine::log::Log;
use tidewire_runtime::prefixed::PrefixedLog;
use tidewire_runtime::sink::group_of_sink;
use tidewire_runtime::synchronised::RunState;

use crate::cli::{self, Context};
use crate::notes::{self, PIPELINES};
use crate::open;
use crate::promote::{Match, Plan, check_idle, commit, plan};
use crate::recorded::{Recorded, pipelines};
use crate::reprocess::REPROCESS;
use crate::table::{Align, Table, grouped};

/// Nothing is committed without `--yes`: first it is shown where each reader would go on. A reader goes on behind the
/// record it read last, if the run has the same one; else with the first of a later time. Sinks of the run's pipeline
/// file are looked at by themselves; other consumer groups are named.
///
/// Examples:
///   tidewire promote again --group dashboards
///   tidewire promote again --group dashboards --topic signals.v1 --yes
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The prefix of the run.
    into: String,
    /// A consumer group that reads topics of the live run; may be said for several.
    #[arg(long, value_name = "GROUP")]
    group: Vec<SmolStr>,
    /// Only this topic; may be said for several [default: all that the run wrote].
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<SmolStr>,
    /// Commit the positions. The readers are to be stopped.
    #[arg(long)]
    yes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_write(context)?;
    let view = open::of_prefix(&open.log, &args.into)?;
    match RunState::last(&view, REPROCESS)? {
        Some(state) if state.complete => {}
        Some(_) => bail!(
            "the run of prefix {} is not complete: the command that began it goes on with it",
            args.into
        ),
        None => bail!("prefix {} holds no run of `tidewire reprocess`", args.into),
    }
    let of_run = pipelines(&view)?;
    let topics = chosen(&view, &of_run, &args.topic)?;
    let stages = readers(&*open.log, &topics)?;
    if let Some((group, topic)) = stages.iter().find(|(group, _)| args.group.contains(group)) {
        bail!("{group} is a stage of a pipeline, which reads {topic}: {}", by_hand(&args.into));
    }
    let mut plans = Vec::new();
    for topic in &topics {
        for group in &args.group {
            plans.extend(plan(&view, topic, group, group)?);
        }
        for group in sinks(&of_run, context, topic) {
            plans.extend(plan(&view, topic, &group, &format_smolstr!("{}.{group}", args.into))?);
        }
    }
    for group in &args.group {
        if !plans.iter().any(|plan| plan.group == *group) {
            bail!("group {group} has no position in {}: it has read none of them", topics.join(", "));
        }
    }
    let mut problems = Vec::new();
    for plan in &plans {
        if args.yes {
            commit(&*open.log, plan)?;
        } else if let Err(error) = check_idle(&*open.log, plan) {
            problems.push(error.to_string());
        }
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &as_json(args, &plans, &stages, &problems))?;
        writeln!(out)?;
    } else {
        show(&mut out, args, &plans, &stages, &problems)?;
    }
    Ok(cli::OK)
}

/// The output topics of the run that are looked at.
fn chosen(view: &PrefixedLog, of_run: &[Recorded], wanted: &[SmolStr]) -> anyhow::Result<Vec<SmolStr>> {
    let outputs = of_run.iter().flat_map(Recorded::stages).flat_map(|stage| &stage.outputs);
    let outputs: BTreeSet<SmolStr> =
        outputs.map(|output| output.topic.clone()).filter(|topic| view.owns(topic)).collect();
    if let Some(unknown) = wanted.iter().find(|topic| !outputs.contains(*topic)) {
        let all: Vec<&str> = outputs.iter().map(SmolStr::as_str).collect();
        bail!("the run of prefix {} wrote no topic {unknown}; it wrote {}", view.prefix(), all.join(", "));
    }
    Ok(outputs.into_iter().filter(|topic| wanted.is_empty() || wanted.contains(topic)).collect())
}

/// Groups of stages of live pipelines, with the topics among these that they read.
fn readers(log: &dyn Log, topics: &[SmolStr]) -> anyhow::Result<Vec<(SmolStr, SmolStr)>> {
    if notes::all::<notes::PipelineNote>(log, PIPELINES)?.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for stage in pipelines(log)?.iter().flat_map(Recorded::stages) {
        for input in stage.inputs.iter().filter(|input| topics.contains(&input.topic)) {
            all.push((SmolStr::from(stage.group()), input.topic.clone()));
        }
    }
    Ok(all)
}

/// Groups of the sinks that read a topic.
fn sinks(of_run: &[Recorded], context: &Context, topic: &SmolStr) -> Vec<SmolStr> {
    let mut groups = Vec::new();
    for recorded in of_run {
        let pipeline = &recorded.loaded.pipeline;
        let own = &pipeline.deployment.sinks;
        let tables = if own.is_empty() { &context.deployment.sinks } else { own };
        for table in tables.iter().filter(|table| table.topics.contains(topic)) {
            groups.push(group_of_sink(&pipeline.name, &table.name, table.generation, topic));
        }
    }
    groups
}

fn by_hand(prefix: &str) -> String {
    format!(
        "where a stage stands is in its changelog beside its state, which can not be moved to another topic. To let it \
         work on the run's topics, name `{prefix}.<topic>` as its input in a pipeline file under another `name`, which \
         begins with no state, or `tidewire reprocess` that pipeline too"
    )
}

fn describe(by: &Match) -> String {
    match by {
        Match::Start => "nothing read before".to_owned(),
        Match::Record(identity) => format!("behind the same record, {identity}"),
        Match::Time(time) => format!("first after {time}"),
        Match::End(time) => format!("the end: nothing after {time}"),
    }
}

fn show(
    out: &mut dyn Write,
    args: &Args,
    plans: &[Plan],
    stages: &[(SmolStr, SmolStr)],
    problems: &[String],
) -> io::Result<()> {
    let columns = [
        ("group", Align::Left),
        ("topic", Align::Left),
        ("partition", Align::Right),
        ("stood at", Align::Right),
        ("goes on at", Align::Right),
        ("of", Align::Right),
        ("found", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for plan in plans {
        for moved in &plan.moved {
            table.row([
                plan.group_there.to_string(),
                plan.topic_there.to_string(),
                moved.partition.to_string(),
                moved.live.map_or_else(|| "-".to_owned(), grouped),
                grouped(moved.to),
                grouped(moved.end),
                describe(&moved.by),
            ]);
        }
    }
    if plans.is_empty() {
        writeln!(out, "no group to look at: name one with `--group`")?;
    } else {
        table.write(out, "")?;
    }
    for problem in problems {
        writeln!(out, "not yet: {problem}")?;
    }
    for (group, topic) in stages {
        writeln!(out, "{group} reads {topic}, and is left where it is: {}", by_hand(&args.into))?;
    }
    if plans.is_empty() {
        return Ok(());
    }
    if args.yes {
        writeln!(out, "committed. Start each reader with the topic `{}.<topic>`;", args.into)?;
    } else {
        writeln!(
            out,
            "nothing was committed. Stop the readers, say it again with `--yes`, and start each with the topic"
        )?;
        writeln!(out, "`{}.<topic>`;", args.into)?;
    }
    writeln!(out, "sinks of the pipeline file are started with `tidewire sink FILE --prefix {}`", args.into)
}

fn as_json(
    args: &Args,
    plans: &[Plan],
    stages: &[(SmolStr, SmolStr)],
    problems: &[String],
) -> serde_json::Value {
    let plans = plans.iter().map(|plan| {
        let partitions = plan.moved.iter().map(|moved| {
            let by = match &moved.by {
                Match::Start => "start",
                Match::Record(_) => "record",
                Match::Time(_) => "time",
                Match::End(_) => "end",
            };
            json!({
                "partition": moved.partition, "live": moved.live, "position": moved.to, "end": moved.end, "by": by,
            })
        });
        json!({
            "topic": plan.topic,
            "promoted_topic": plan.topic_there,
            "group": plan.group,
            "promoted_group": plan.group_there,
            "partitions": partitions.collect::<Vec<_>>(),
        })
    });
    let stages = stages.iter().map(|(group, topic)| json!({ "group": group, "topic": topic }));
    json!({
        "prefix": args.into,
        "committed": args.yes,
        "groups": plans.collect::<Vec<_>>(),
        "left_alone": stages.collect::<Vec<_>>(),
        "problems": problems,
    })
}
