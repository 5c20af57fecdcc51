//! `tidewire step`: recorded epochs run again one call at a time.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::json;
use tidewire_engine::plan::StageSpec;
use tidewire_schemas::EventTime;

use crate::cli::{self, Context};
use crate::explain::past::Past;
use crate::explain::states::short;
use crate::explain::steps::{self, Breakpoint, EpochSteps, Go, Step};
use crate::explain::{Condition, plain, text};
use crate::files::load_pipeline;
use crate::open;
use crate::recorded::{as_recorded, pipelines};

/// Most entries of a list in a state that are shown.
const MAX_STATE_ITEMS: usize = 6;

const KEYS: &str = "\
  Enter  the next call that --key and --operator let through
  c      on to the next one where --when holds
  s      the states of all operators for this key, as of now
  e      on to the next epoch
  q      no further
  h      this";

/// Runs recorded epochs of one task again, from the nearest cut, and stops at calls of operators: what each took, its
/// state before and what changed of it, and what it gave out. On a terminal it asks how to go on; else it prints each
/// stop, at most --max of them. Nothing is written.
///
/// Examples:
///   tidewire step --stage signals --task 1 --operator ema_fast
///   tidewire step --stage signals --task 1 --key BTCUSDT.BINANCE_USDM --from 2024-08-08T23:54:30Z
///   tidewire step --stage risk --task 0 --operator orders --when 'approved = false' --json
///   tidewire step --stage signals --task 2 --operator bars_1s --when 'volume >= 1.5' --from 10 --to 20
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The stage.
    #[arg(long, value_name = "NAME")]
    stage: String,
    /// The task.
    #[arg(long, value_name = "N")]
    task: u32,
    /// The first epoch, by its number or the event time reached [default: the first that can be run again].
    #[arg(long, value_name = "EPOCH|TIME")]
    from: Option<EpochAt>,
    /// The last epoch, by its number or the event time reached [default: the last one recorded].
    #[arg(long, value_name = "EPOCH|TIME")]
    to: Option<EpochAt>,
    /// Stop only at this key.
    #[arg(long)]
    key: Option<String>,
    /// Stop only at this operator, by its id in the stage.
    #[arg(long, value_name = "ID")]
    operator: Option<String>,
    /// Stop only where a field of the record taken, or of one given, is so: FIELD OP VALUE, with = != < <= > >=.
    #[arg(long, value_name = "CONDITION")]
    when: Option<Condition>,
    /// Run with this pipeline file instead of the recorded one.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Most stops that are printed where nobody is asked.
    #[arg(long, value_name = "N", default_value_t = 100)]
    max: u64,
    /// Print each stop as one JSON object, and ask nothing.
    #[arg(long)]
    json: bool,
}

/// An epoch by its number, or by the event time that it reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EpochAt {
    Number(i64),
    Time(EventTime),
}

impl FromStr for EpochAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<i64>() {
            return if number > 0 {
                Ok(Self::Number(number))
            } else {
                Err("epochs are counted from 1".to_owned())
            };
        }
        text.parse().map(Self::Time).map_err(|error| {
            format!("use the number of an epoch, or a time such as 2024-08-08T23:57:00Z ({error})")
        })
    }
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_read(context)?;
    let stages = match &args.file {
        Some(file) => as_recorded(&*open.log, &load_pipeline(file)?)?,
        None => pipelines(&*open.log)?.iter().flat_map(|recorded| recorded.stages().to_vec()).collect(),
    };
    let spec = stage(&stages, &args.stage, args.task)?;
    let asks = !args.json && io::stdin().is_terminal() && io::stdout().is_terminal();
    let at = Breakpoint { with_others: asks, ..breakpoint(args, &spec)? };
    let past = Past { log: &*open.log, book: &open.book, spec, task: args.task, only: open.only_keys() };
    let Some((first, last)) = span(&past, args)? else { return Ok(cli::OK) };
    let cuts = past.cuts()?;
    let start = past.start_before(first, &cuts, 0)?;
    let (mut shown, mut differing) = (0, None);
    let mut out = io::stdout().lock();
    if asks {
        writeln!(out, "{}/{}: {}; h for help", past.spec.name, past.task, words(first, last))?;
    }
    let look = |steps: &EpochSteps<'_>, place: usize, step: &Step| {
        shown += 1;
        if args.json {
            serde_json::to_writer(&mut out, step)?;
            writeln!(out)?;
        } else {
            show(&mut out, step)?;
        }
        match asks {
            true => ask(&mut out, steps, place),
            false if shown >= args.max => Ok(Go::Stop),
            false => Ok(Go::Continue),
        }
    };
    steps::run(&past, start, (first, last), &at, look, |epoch, what| {
        differing.get_or_insert_with(|| (epoch, what.to_owned()));
    })?;
    let mut err = io::stderr();
    if let Some((epoch, what)) = differing {
        writeln!(
            err,
            "epoch {epoch} gives something else than was recorded ({what}): from there on this is what this build and \
             file do, not what happened"
        )?;
    }
    match shown {
        0 => writeln!(err, "no call in {} is as asked for", words(first, last))?,
        _ if !asks && shown >= args.max => writeln!(err, "stopped after --max {} stops", args.max)?,
        _ => {}
    }
    Ok(cli::OK)
}

fn words(first: i64, last: i64) -> String {
    if last == i64::MAX { format!("epochs from {first} on") } else { format!("epochs {first} to {last}") }
}

fn stage(stages: &[Arc<StageSpec>], name: &str, task: u32) -> anyhow::Result<Arc<StageSpec>> {
    let Some(spec) = stages.iter().find(|stage| stage.name == name) else {
        let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        bail!("there is no stage {name}; there are {}", names.join(", "));
    };
    if task >= spec.tasks() {
        bail!("stage {name} has {} tasks, so no task {task}; they are counted from 0", spec.tasks());
    }
    Ok(Arc::clone(spec))
}

fn breakpoint(args: &Args, spec: &StageSpec) -> anyhow::Result<Breakpoint> {
    let node = args.operator.as_ref().map(|id| {
        spec.nodes.iter().position(|node| node.id == *id).with_context(|| {
            let ids: Vec<&str> = spec.nodes.iter().map(|node| node.id.as_str()).collect();
            format!("stage {} has no operator {id}; there are {}", spec.name, ids.join(", "))
        })
    });
    let key = args.key.as_deref().map(Into::into);
    Ok(Breakpoint { key, node: node.transpose()?, when: args.when.clone(), with_others: false })
}

/// The numbers of the first and the last epoch.
fn span(past: &Past<'_>, args: &Args) -> anyhow::Result<Option<(i64, i64)>> {
    let find = |at: EpochAt| match at {
        EpochAt::Number(number) => past.first_epoch(number, |record| record.epoch),
        EpochAt::Time(time) => {
            past.first_epoch(time.as_ms(), |record| record.stream_time_ms.unwrap_or(i64::MIN))
        }
    };
    let first = match args.from {
        Some(at) => find(at)?.map(|record| record.epoch),
        None => first_to_run(past)?,
    };
    let Some(first) = first else {
        writeln!(io::stderr(), "{}/{} has no epochs from there on", past.spec.name, past.task)?;
        return Ok(None);
    };
    let last = match args.to {
        Some(at) => find(at)?.map_or(i64::MAX, |record| record.epoch),
        None => i64::MAX,
    };
    Ok(Some((first, last.max(first))))
}

/// The first epoch kept if it is the very first, else the one behind the earliest cut.
fn first_to_run(past: &Past<'_>) -> anyhow::Result<Option<i64>> {
    let Some(first) = past.first_epoch(i64::MIN, |record| record.epoch)? else { return Ok(None) };
    if first.epoch == 1 {
        return Ok(Some(1));
    }
    let cuts = past.cuts()?;
    let after = cuts.list.iter().find(|cut| cut.epoch + 1 >= first.epoch);
    Ok(Some(after.map_or(first.epoch, |cut| cut.epoch + 1)))
}

/// Asks how to go on.
fn ask(out: &mut dyn Write, steps: &EpochSteps<'_>, place: usize) -> anyhow::Result<Go> {
    loop {
        write!(out, "> ")?;
        out.flush()?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            writeln!(out)?;
            return Ok(Go::Stop);
        }
        match line.trim() {
            "" | "n" => return Ok(Go::Next),
            "c" => return Ok(Go::Continue),
            "e" => return Ok(Go::NextEpoch),
            "q" => return Ok(Go::Stop),
            "s" => {
                for (operator, state) in steps.states(place) {
                    if !state.is_null() && state != json!({}) {
                        text::block(
                            out,
                            "  ",
                            &format!("{operator}: "),
                            &plain(&short(&state, MAX_STATE_ITEMS)),
                        )?;
                    }
                }
            }
            _ => writeln!(out, "{KEYS}")?,
        }
    }
}

/// One stop.
fn show(out: &mut dyn Write, step: &Step) -> io::Result<()> {
    writeln!(
        out,
        "epoch {}  position {}  {} ({})  {}{}",
        step.epoch,
        step.position,
        step.operator,
        step.type_name,
        step.key,
        if step.broadcast { "  broadcast" } else { "" }
    )?;
    let time = |name: &str| step.time.get(name).map(plain).unwrap_or_default();
    let times = format!(
        "watermark {}  stream time {}  stamp {}",
        time("watermark"),
        time("stream_time"),
        time("stamp")
    );
    text::block(out, "  ", "time    ", &times)?;
    match &step.took {
        Some(took) => text::block(out, "  ", "took    ", &text::one_line(took))?,
        None => {
            let moved = step.origin.as_deref().map_or_else(String::new, |at| format!("; {at} moved time on"));
            text::block(out, "  ", "took    ", &format!("{}{moved}", step.trigger))?;
        }
    }
    let state = if step.broadcast { "of the task: " } else { "" };
    if !step.state_before.is_null() {
        let before = plain(&short(&step.state_before, MAX_STATE_ITEMS));
        text::block(out, "  ", "state   ", &format!("{state}{}", before.trim_matches(['{', '}'])))?;
    }
    for change in &step.changed {
        let path = if change.path.is_empty() { "all" } else { &change.path };
        let value = |value| plain(&short(value, MAX_STATE_ITEMS));
        let line = format!("{path}: {} -> {}", value(&change.before), value(&change.after));
        text::block(out, "  ", "changed ", &line)?;
    }
    for timer in &step.timers {
        text::block(out, "  ", "timer   ", timer)?;
    }
    for gave in &step.gave {
        text::block(out, "  ", "gave    ", &text::one_line(gave))?;
    }
    if step.late > 0 {
        writeln!(out, "  late    it missed {} windows", step.late)?;
    }
    writeln!(out)
}
