//! Verification beside production: stretches are verified as new cuts end them, until it is told to stop.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidewire_engine::log::{Log, LogError};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::verify::{Sample, Stretch, Stretches, VerifyError, is_outage};
use tidewire_schemas::SchemaBook;

use super::{Job, JobEpochs, Options, Tally};

/// How often one who waits looks whether it was told to stop.
const TURN: Duration = Duration::from_millis(200);

/// What is told of a check that goes on, from its threads.
pub enum Event<'e> {
    /// It turns.
    Turned,
    /// A stretch was verified, or was not drawn.
    Done(&'e StageSpec, u32, &'e Stretch),
    /// A stretch could not be verified.
    Failed(&'e StageSpec, u32, &'e str),
    /// The log does not answer: the same stretch is tried again.
    Waits(&'e StageSpec, u32, &'e LogError),
}

/// Verifies stretches of the jobs' tasks as cuts end them, and looks for new ones every `every`, until `stop` is set. No
/// stretch is verified twice, nothing is written.
///
/// # Errors
/// When the tasks' topics can not be read at the start.
pub fn follow(
    log: &dyn Log,
    book: &Arc<SchemaBook>,
    jobs: &[Job],
    options: &Options,
    every: Duration,
    on_event: &(dyn Fn(Event<'_>) + Sync),
    stop: &AtomicBool,
) -> Result<Vec<Tally>, LogError> {
    let sample = options.sample.unwrap_or(Sample::ALL);
    let mut tasks = Vec::with_capacity(jobs.len());
    for job in jobs {
        let from = match job.epochs {
            JobEpochs::Some(from, _) => from.unwrap_or(0),
            _ => 0,
        };
        let stretches = Stretches::new(log, &job.stage, book, job.task, sample, from..=u64::MAX, true)?;
        let mut tally = Tally::new(Arc::clone(&job.stage), job.task);
        if let JobEpochs::NotKept(error) = &job.epochs {
            tally.failed(error.to_string());
        }
        tasks.push(Mutex::new((stretches, tally)));
    }
    while !stop.load(Ordering::SeqCst) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..options.workers.get().min(tasks.len()) {
                scope.spawn(|| {
                    while let Some(task) = tasks.get(next.fetch_add(1, Ordering::SeqCst)) {
                        let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
                        let (stretches, tally) = &mut *task;
                        catch_up(stretches, tally, on_event, stop);
                    }
                });
            }
        });
        let begun = Instant::now();
        while begun.elapsed() < every && !stop.load(Ordering::SeqCst) {
            on_event(Event::Turned);
            std::thread::sleep(TURN.min(every));
        }
    }
    Ok(tasks.into_iter().map(|task| task.into_inner().unwrap_or_else(PoisonError::into_inner).1).collect())
}

/// Verifies what there is of one task.
fn catch_up(
    stretches: &mut Stretches<'_>,
    tally: &mut Tally,
    on_event: &(dyn Fn(Event<'_>) + Sync),
    stop: &AtomicBool,
) {
    let (stage, number) = (Arc::clone(stretches.spec()), stretches.number());
    while !stop.load(Ordering::SeqCst) {
        let next = stretches.next(&mut |_| {
            on_event(Event::Turned);
            !stop.load(Ordering::SeqCst)
        });
        match next {
            Ok(Some(stretch)) => {
                tally.take_stretch(&stretch);
                on_event(Event::Done(&stage, number, &stretch));
            }
            Ok(None) => return,
            Err(VerifyError::Log(error)) if is_outage(&error) => {
                on_event(Event::Waits(&stage, number, &error));
                return;
            }
            Err(error) => {
                let text = error.to_string();
                tally.failed(text.clone());
                on_event(Event::Failed(&stage, number, &text));
            }
        }
    }
}
