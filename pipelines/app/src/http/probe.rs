//! Asks the log every few seconds: whether it answers, and how far its partitions are ahead of the tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use smol_str::SmolStr;
use tidewire_engine::log::{Log, LogError, TopicPartition};

use super::metrics::Alone;
use super::watching::{Watching, by_input};

/// How often the log is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often until it answered for the first time.
const ASK_AT_FIRST: Duration = Duration::from_millis(250);

/// Asks until `stop` says so or is dropped. `known` is a topic that must be there.
pub fn run(log: &Arc<dyn Log>, watching: &Watching, known: &SmolStr, stop: &Receiver<()>) {
    loop {
        let begun = Instant::now();
        watching.board().log.asked = Some(begun);
        let answer = ask(&**log, watching, known);
        let took = begun.elapsed();
        let answers = answer.is_ok();
        {
            let mut board = watching.board();
            board.log.asked = None;
            board.log.answer = Some(answer.map_err(|error| error.to_string()));
        }
        watching.metrics.log_up.get_or_create(&Alone {}).set(answers.into());
        watching.metrics.log_probe.get_or_create(&Alone {}).set(took.as_secs_f64());
        // A slow log is not asked all the time.
        let wait = if answers { ASK_EVERY.max(took.saturating_mul(10)) } else { ASK_AT_FIRST.max(took) };
        match stop.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Asks for the ends of all partitions that tasks of this process read, each once, and sets the lags.
fn ask(log: &dyn Log, watching: &Watching, known: &SmolStr) -> Result<(), LogError> {
    let positions: Vec<(SmolStr, u32, TopicPartition, u64)> = {
        let board = watching.board();
        let of_task = |((stage, task), held): (&(SmolStr, u32), &super::board::TaskBoard)| {
            let positions = held.positions.iter();
            let positions = positions.map(|(at, next)| (stage.clone(), *task, at.clone(), *next));
            positions.collect::<Vec<_>>()
        };
        board.tasks.iter().flat_map(of_task).collect()
    };
    let partitions: BTreeSet<&TopicPartition> = positions.iter().map(|(_, _, at, _)| at).collect();
    if partitions.is_empty() {
        return log.bounds(&TopicPartition::new(known.clone(), 0)).map(|_| ());
    }
    let mut ends = BTreeMap::new();
    for at in partitions {
        ends.insert(at.clone(), log.bounds(at)?.stable_end);
    }
    // Only tasks that are still held: a series that was removed must not come back.
    let board = watching.board();
    for (stage, task, at, next) in &positions {
        if board.tasks.contains_key(&(stage.clone(), *task)) {
            let lag = ends.get(at).map_or(0, |end| end.saturating_sub(*next));
            let by = by_input(stage, *task, &at.topic, at.partition);
            let lag = i64::try_from(lag).unwrap_or(i64::MAX);
            watching.metrics.input_lag.get_or_create(&by).set(lag);
        }
    }
    Ok(())
}
