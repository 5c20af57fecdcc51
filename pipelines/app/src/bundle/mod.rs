//! Bundles: from a request to the file, over any log.

mod changelog;
mod needs;
mod note;
mod order;
mod plan;
mod schemas;
mod write;

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use tidewire_engine::log::Log;
use tidewire_engine::only::OnlyKeys;
use tidewire_engine::plan::StageSpec;
use tidewire_runtime::bundle::{About, Finished};
use tidewire_schemas::{EventTime, SchemaBook};

pub use schemas::book_of;

use crate::build;
use crate::recorded::Recorded;
use crate::records::hex;
use plan::TaskPlan;

/// One end of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The number of an epoch, of each task.
    Epoch(u64),
    /// A time as records have it; an epoch stands where its stream time does.
    Time(EventTime),
}

impl std::fmt::Display for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Epoch(epoch) => write!(f, "epoch {epoch}"),
            Self::Time(time) => write!(f, "{time}"),
        }
    }
}

impl std::str::FromStr for Edge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Epoch).map_err(|error| error.to_string());
        }
        text.parse().map(Self::Time).map_err(|error| {
            format!("use the number of an epoch, or a time such as 2024-08-08T23:57:00Z ({error})")
        })
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Where it begins; without it with the first epoch kept.
    pub from: Option<Edge>,
    /// Where it ends; without it with the last epoch.
    pub to: Option<Edge>,
    /// These stages alone; all if empty.
    pub stages: Vec<String>,
    /// This task alone.
    pub task: Option<u32>,
    /// What belongs to other keys stays out; all keys if empty.
    pub keys: Vec<String>,
    /// The way of this order alone.
    pub order: Option<String>,
}

/// What is being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Looking for the epochs and the cut of a task, or running its epochs again.
    Task(String),
    /// Writing a topic.
    Topic(String),
}

/// Writes a bundle of what is asked for.
///
/// # Errors
/// When there is nothing of it in the log, when an input is not kept any more, or when outputs of some keys alone are not
/// those that were recorded.
pub fn make(
    log: &Arc<dyn Log>,
    book: &Arc<SchemaBook>,
    recorded: &[Recorded],
    request: &Request,
    path: &Path,
    overwrite: bool,
    mut on_progress: impl FnMut(Progress),
) -> anyhow::Result<(About, Finished)> {
    let mut request = request.clone();
    if let Some(order) = request.order.clone() {
        order::narrow(&**log, book, recorded, &order, &mut request)?;
    }
    let stages = stages(recorded, &request)?;
    let keys = Arc::new(OnlyKeys::new(request.keys.iter().map(String::as_str)));
    let mut plans = Vec::new();
    for spec in &stages {
        for task in (0..spec.tasks()).filter(|task| request.task.is_none_or(|wanted| wanted == *task)) {
            if request.task.is_none() && !plan::may_hold(spec, task, &request.keys) {
                continue;
            }
            on_progress(Progress::Task(format!("{}/{task}", spec.name)));
            if let Some(mut plan) = TaskPlan::find(&**log, spec, book, task, &request)? {
                if !keys.is_empty() {
                    plan.note_outputs(&**log, book, &keys)?;
                }
                plans.push(plan);
            }
        }
    }
    if plans.is_empty() {
        let (from, to) = (edge(request.from, "the first epoch"), edge(request.to, "the last epoch"));
        bail!(
            "no epoch of these stages, tasks and keys lies from {from} to {to}; `tidewire status` shows where they stand"
        );
    }
    let about = About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made_by_build: hex(&build::digest()?),
        from: request.from.map(|edge| edge.to_string()),
        to: request.to.map(|edge| edge.to_string()),
        keys: keys.iter().map(ToString::to_string).collect(),
        order: request.order.clone(),
        tasks: plans.iter().map(|plan| plan.about.clone()).collect(),
        left_out: left_out(&stages, recorded, &plans, &keys),
    };
    let finished =
        write::write(&**log, book, recorded, &plans, &keys, &about, path, overwrite, &mut on_progress)?;
    Ok((about, finished))
}

fn edge(edge: Option<Edge>, otherwise: &str) -> String {
    edge.map_or_else(|| otherwise.to_owned(), |edge| edge.to_string())
}

fn stages(recorded: &[Recorded], request: &Request) -> anyhow::Result<Vec<Arc<StageSpec>>> {
    let all: Vec<&Arc<StageSpec>> = recorded.iter().flat_map(Recorded::stages).collect();
    for name in &request.stages {
        if !all.iter().any(|stage| stage.name == *name) {
            let names: Vec<&str> = all.iter().map(|stage| stage.name.as_str()).collect();
            bail!("there is no stage {name}; there are {}", names.join(", "));
        }
    }
    let wanted = all
        .into_iter()
        .filter(|stage| request.stages.is_empty() || request.stages.iter().any(|name| stage.name == *name));
    Ok(wanted.cloned().collect())
}

fn left_out(
    stages: &[Arc<StageSpec>],
    recorded: &[Recorded],
    plans: &[TaskPlan],
    keys: &OnlyKeys,
) -> Vec<String> {
    let mut said = vec![
        "records and epochs outside the stretch, and so causes that lie there".to_owned(),
        "[kafka], [schema_registry], [http], [run] and [[sink]] of the pipeline file, its comments, and variables that \
         set them"
            .to_owned(),
        "positions of consumer groups and notes of imports".to_owned(),
    ];
    if !keys.is_empty() {
        said.push(
            "of other keys: keys, values and headers of their records, their state, their outputs; broadcast and control \
             records are whole"
                .to_owned(),
        );
    }
    let all: Vec<&Arc<StageSpec>> = recorded.iter().flat_map(Recorded::stages).collect();
    let absent: Vec<&str> = all
        .iter()
        .filter(|spec| !stages.iter().any(|stage| stage.group() == spec.group()))
        .map(|spec| spec.name.as_str())
        .collect();
    if !absent.is_empty() {
        said.push(format!("stages: {}", absent.join(", ")));
    }
    let quiet: Vec<String> = stages
        .iter()
        .flat_map(|spec| (0..spec.tasks()).map(move |task| (spec, task)))
        .filter(|(spec, task)| !plans.iter().any(|plan| plan.is_of(spec, *task)))
        .map(|(spec, task)| format!("{}/{task}", spec.name))
        .collect();
    if !quiet.is_empty() {
        said.push(format!(
            "tasks that were not asked for, or have no epoch in the stretch: {}",
            quiet.join(", ")
        ));
    }
    said
}
