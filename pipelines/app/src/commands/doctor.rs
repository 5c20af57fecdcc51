//! `tidewire doctor`: what would make a replay impossible.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use tidewire_engine::log::Log;
use tidewire_runtime::clock::now_ms;

use crate::cli::{self, Context};
use crate::doctor::{Examined, Finding, Patient, Reach, Severity, examine};
use crate::files::{Loaded, load_pipeline, load_text};
use crate::notes::{self, PIPELINES, PipelineNote};
use crate::open;
use crate::pipeline::{Deployment, plural};
use crate::span::Span;
use crate::table::{Align, Table};

/// Looks at everything that `verify`, `reprocess` and `explain` need: whether topics keep their records for long enough,
/// whether inputs, epoch records and cuts fit together, whether this build is the one that was recorded, and whether the
/// newest epochs give the same when they are run twice. Nothing is written. The exit code is 1 if there are errors.
///
/// Examples:
///   tidewire doctor
///   tidewire doctor --keep 30d                what stands in the way of a replay of the last thirty days
///   tidewire doctor my.toml --bootstrap localhost:9092 --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Examine with this pipeline file instead of the recorded ones.
    file: Option<PathBuf>,
    /// How far back a replay is to be possible: 12h, 7d [default: the pipeline's `replay_retention_ms`].
    #[arg(long, value_name = "TIME")]
    keep: Option<Span>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let named = args.file.as_deref().map(load_pipeline).transpose()?;
    let nothing = Deployment::default();
    let deployment = named.as_ref().map_or(&nothing, |loaded| &loaded.pipeline.deployment);
    let open = open::to_read_for(context, deployment)?;
    let log = &*open.log;
    let mut last = Vec::new();
    for note in notes::all::<PipelineNote>(log, PIPELINES)? {
        last.retain(|other: &PipelineNote| other.pipeline != note.pipeline);
        last.push(note);
    }
    let mut shown = Vec::new();
    match named {
        Some(loaded) => {
            let note = last.into_iter().find(|note| note.pipeline == loaded.pipeline.name);
            shown.push((
                loaded.pipeline.name.to_string(),
                examined(args, log, &open, &loaded, note.as_ref())?,
            ));
        }
        None => {
            for note in &last {
                let loaded = load_text(note.file.clone(), note.text.clone(), note.overrides.clone());
                let examined = match loaded {
                    Ok(loaded) => examined(args, log, &open, &loaded, Some(note))?,
                    Err(error) => alone(refused(note, &error)),
                };
                shown.push((note.pipeline.clone(), examined));
            }
            if shown.is_empty() {
                shown.push((String::new(), alone(nothing_noted(log)?)));
            }
        }
    }
    let mut out = io::stdout().lock();
    if args.json {
        let all: Vec<Value> = shown.iter().map(|(name, examined)| value(name, examined)).collect();
        let count = |severity| shown.iter().map(|(_, examined)| examined.count(severity)).sum::<usize>();
        let all = json!({
            "pipelines": all,
            "errors": count(Severity::Error),
            "warnings": count(Severity::Warning),
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
    } else {
        for (name, examined) in &shown {
            show(&mut out, name, examined)?;
        }
    }
    let errors = shown.iter().any(|(_, examined)| examined.count(Severity::Error) > 0);
    Ok(if errors { cli::FAILED } else { cli::OK })
}

impl Examined {
    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

fn examined(
    args: &Args,
    log: &dyn Log,
    open: &open::OpenLog,
    loaded: &Loaded,
    note: Option<&PipelineNote>,
) -> anyhow::Result<Examined> {
    let asked_ms = args.keep.map(|keep| u64::try_from(keep.0.as_millis()).unwrap_or(u64::MAX));
    let keep_ms = asked_ms.unwrap_or(loaded.pipeline.replay_retention_ms);
    examine(&Patient { log, book: &open.book, pipeline: &loaded.pipeline, note, keep_ms, now_ms: now_ms() })
}

fn alone(finding: Finding) -> Examined {
    Examined { findings: vec![finding], reach: Vec::new() }
}

fn refused(note: &PipelineNote, error: &anyhow::Error) -> Finding {
    let what = format!("{} was started with a file that this build does not take: {error:#}", note.file);
    Finding::error("note", what).of_topic(PIPELINES).so(
        "without a file neither `verify` nor `explain` knows its stages",
        "use the build that ran it, or name a file that this build takes: `tidewire doctor FILE`",
    )
}

fn nothing_noted(log: &dyn Log) -> anyhow::Result<Finding> {
    let epochs: Vec<String> = log
        .topics()?
        .iter()
        .filter(|topic| topic.name.ends_with(".epochs"))
        .map(|topic| topic.name.to_string())
        .collect();
    let what = match epochs.is_empty() {
        true => "no pipeline has run on this log".to_owned(),
        false => format!("there are epoch records ({}), but no note of the pipelines", epochs.join(", ")),
    };
    Ok(Finding::error("note", what).of_topic(PIPELINES).so(
        "`verify`, `status` and `explain` find stages only where a file is named",
        "name the pipeline file: `tidewire doctor FILE`; a pipeline is started with `tidewire run FILE`",
    ))
}

fn value(name: &str, examined: &Examined) -> Value {
    json!({
        "pipeline": name,
        "findings": examined.findings.iter().map(Finding::value).collect::<Vec<_>>(),
        "replay": examined.reach.iter().map(Reach::value).collect::<Vec<_>>(),
    })
}

fn show(out: &mut dyn Write, name: &str, examined: &Examined) -> io::Result<()> {
    if !name.is_empty() {
        writeln!(out, "pipeline {name}")?;
    }
    if !examined.reach.is_empty() {
        let mut table = Table::new(&[
            ("stage", Align::Left),
            ("task", Align::Right),
            ("epochs kept", Align::Left),
            ("can be replayed from", Align::Left),
        ]);
        for reach in &examined.reach {
            let kept = reach.kept.map_or_else(
                || "nothing recorded".to_owned(),
                |kept| format!("{} to {}", kept.first.epoch, kept.last.epoch),
            );
            let from = match (reach.kept, reach.begins_after, reach.first) {
                (None, _, _) => String::new(),
                (_, Some(0), Some(first)) => format!("{first}, from nothing"),
                (_, Some(after), Some(first)) => format!("{first}, from the cut of epoch {after}"),
                (_, Some(after), None) => format!("what follows the cut of epoch {after}"),
                (_, None, _) => "nowhere".to_owned(),
            };
            table.row([reach.stage.to_string(), reach.task.to_string(), kept, from]);
        }
        table.write(out, "")?;
    }
    for finding in &examined.findings {
        let place = finding.place();
        let place = if place.is_empty() { place } else { format!("{place}: ") };
        writeln!(out, "{:<8} {:<10}  {place}{}", finding.severity.name(), finding.check, finding.what)?;
        for (title, text) in [("means", &finding.means), ("do", &finding.advice)] {
            if !text.is_empty() {
                writeln!(out, "         {title}: {text}")?;
            }
        }
    }
    let (errors, warnings) = (examined.count(Severity::Error), examined.count(Severity::Warning));
    writeln!(
        out,
        "{errors} {}, {warnings} {}",
        plural(errors, "error", "errors"),
        plural(warnings, "warning", "warnings")
    )
}
