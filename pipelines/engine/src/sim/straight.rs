//! The first stage once more, undisturbed: one worker, large epochs, inputs complete before the start.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewire_schemas::{SchemaBook, topics};

use super::feed::{Feed, append};
use super::follow::Line;
use super::scenario::Scenario;
use super::stages::{create_topics, stages};
use super::trace::Broken;
use crate::identity::Identity;
use crate::log::{Log, LogError, TopicPartition};
use crate::memory::MemoryLog;
use crate::plan::{Caps, StageSpec};
use crate::worker::{Worker, WorkerError, WorkerOptions};

/// Steps that are more than enough.
const MAX_STEPS: u32 = 2_000;
/// How far the clock goes when nothing is left to do, in milliseconds.
const SILENCE_MS: i64 = 1_000_000;

/// Compares what the disturbed first stage gave out with what it gives out undisturbed.
pub fn compare(
    scenario: &Scenario,
    book: &Arc<SchemaBook>,
    disturbed: &BTreeMap<(u32, u64), Line>,
) -> Result<(), Broken> {
    let undisturbed = run(scenario, book).map_err(|error| Broken::new("set-up", error.to_string()))?;
    let broken = |detail: String| Err(Broken::new("outputs as undisturbed", detail));
    for ((task, sequence), line) in &undisturbed {
        match disturbed.get(&(*task, *sequence)) {
            None => return broken(format!("features/{task}/{sequence} is missing: {line:?}")),
            Some(other) if other != line => {
                return broken(format!("features/{task}/{sequence} is {other:?}, undisturbed {line:?}"));
            }
            Some(_) => {}
        }
    }
    match disturbed.keys().find(|id| !undisturbed.contains_key(id)) {
        None => Ok(()),
        Some((task, sequence)) => broken(format!("features/{task}/{sequence} is one too many")),
    }
}

fn run(scenario: &Scenario, book: &Arc<SchemaBook>) -> Result<BTreeMap<(u32, u64), Line>, WorkerError> {
    let log = Arc::new(MemoryLog::new());
    let all = stages(scenario);
    create_topics(&*log, &all, scenario.replay_retention_ms)?;
    let Feed { before, coming } = Feed::of(scenario, book);
    for coming in before.iter().chain(&coming) {
        append(&*log, coming)?;
    }
    let caps = Caps { max_faults_per_minute: usize::MAX, ..Caps::default() };
    let spec = Arc::new(StageSpec { caps, flush_interval_ms: 10_000, ..(*all[0]).clone() });
    let options = WorkerOptions { member: "straight".into(), ..WorkerOptions::default() };
    let mut worker =
        Worker::new(Arc::clone(&log) as Arc<dyn Log>, Arc::clone(&spec), Arc::clone(book), options)?;
    let (mut now_ms, mut quiet) = (0, 0);
    for _ in 0..MAX_STEPS {
        if worker.step(now_ms)?.worked {
            quiet = 0;
        } else if quiet == 2 {
            return Ok(lines(&log, &spec)?);
        } else {
            quiet += 1;
            now_ms += SILENCE_MS;
        }
    }
    Err(LogError::Invalid(format!("the undisturbed run does not end within {MAX_STEPS} steps")).into())
}

fn lines(log: &MemoryLog, spec: &StageSpec) -> Result<BTreeMap<(u32, u64), Line>, LogError> {
    let mut lines = BTreeMap::new();
    let outputs = spec.outputs.iter().map(|output| output.topic.as_str());
    for topic in outputs.chain([topics::LATE, topics::DEAD_LETTERS]) {
        for partition in 0..log.topic(topic)?.map_or(0, |topic| topic.partitions) {
            let at = TopicPartition::new(topic, partition);
            for stored in log.records(&at)? {
                if let Some(id) = Identity::of(&stored.record) {
                    lines.insert((id.task, id.sequence), Line::of(&at, &stored.record));
                }
            }
        }
    }
    Ok(lines)
}
