//! Live running: threads that step workers until they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smol_str::{SmolStr, format_smolstr};
use tidewire_engine::fault::FaultAt;
use tidewire_engine::log::{Log, LogError};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::recovery::{RecoveryOptions, RecoveryProgress, RecoveryReport};
use tidewire_engine::worker::{Step, Worker, WorkerError, WorkerOptions};
use tidewire_schemas::SchemaBook;

use crate::clock::{monotonic_ns, now_ms};
use crate::watch::{Watch, Watched, Who};

/// How often a worker tells how far its recoveries have come.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How long a worker with nothing to do waits for the log before it looks at the clock again.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// How long an epoch that gave nothing out may stay open, in milliseconds.
const HOLD_MS: i64 = 50;
/// How long a worker waits before it joins again after it was fenced or the log failed.
const REJOIN_WAIT: Duration = Duration::from_millis(500);
/// Most of that wait, when it fails again and again.
const LONGEST_REJOIN_WAIT: Duration = Duration::from_secs(8);
/// Names that a worker writes under in turn, one each time that it joins. Whoever took its tasks over fences the name that
/// wrote last, and must not hit the worker that joined again meanwhile.
const NAMES: u32 = 8;
/// Events on their way to the caller. A worker waits when they are not taken.
const MAX_EVENTS: usize = 1024;
/// How often a worker in full work tells what it did.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How to run.
#[derive(Clone)]
pub struct LiveOptions {
    /// Threads a stage.
    pub workers: usize,
    /// Recover, flush and release all tasks, then return.
    pub recover_only: bool,
    /// Go on though a changed build gives other outputs, for stages that make no orders.
    pub accept_change: bool,
    /// Begins the writers' names, so that two processes do not fence each other.
    pub member_prefix: SmolStr,
    /// Who looks on.
    pub watch: Option<Arc<dyn Watch>>,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            recover_only: false,
            accept_change: false,
            member_prefix: "tidewire".into(),
            watch: None,
        }
    }
}

/// What happens while workers run.
#[derive(Clone, Debug)]
pub enum LiveEvent {
    /// Epochs were committed.
    Worked {
        /// The stage.
        stage: SmolStr,
        /// What was done, added up since the last such event of the worker.
        step: Step,
        /// Wall time of each epoch from read to durable commit, in microseconds.
        latencies_us: Vec<u64>,
    },
    /// Tasks of a worker are on their way back; an empty list says that none is any more.
    Recovering {
        /// The stage.
        stage: SmolStr,
        /// The writer's name.
        member: SmolStr,
        /// The tasks, and how far they have come.
        tasks: Vec<(u32, RecoveryProgress)>,
    },
    /// A task was recovered.
    Recovered {
        /// The stage.
        stage: SmolStr,
        /// The task.
        task: u32,
        /// What it took.
        report: RecoveryReport,
        /// Wall time since the worker began, in milliseconds.
        after_ms: u64,
    },
    /// An operator failed at a record or timer, which is dead-lettered.
    Fault {
        /// The stage.
        stage: SmolStr,
        /// The fault.
        fault: FaultAt,
    },
    /// A task stopped for good.
    Halted {
        /// The stage.
        stage: SmolStr,
        /// The task.
        task: u32,
        /// Why, and what can be done.
        why: String,
    },
    /// A worker lost its place or the log, and joins again.
    Rejoining {
        /// The stage.
        stage: SmolStr,
        /// Why.
        why: String,
    },
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveSummary {
    /// Input records in committed epochs.
    pub records: u64,
    /// Epochs committed.
    pub epochs: u64,
    /// Output records committed.
    pub outputs: u64,
    /// Faults.
    pub faults: u64,
    /// Tasks that stopped: stage, task, why.
    pub halted: Vec<(SmolStr, u32, String)>,
}

/// Why a run could not begin or go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LiveError {
    /// A worker can not go on, whatever is done.
    #[error("stage {stage}: {error}")]
    Worker {
        /// The stage.
        stage: SmolStr,
        /// Why.
        error: WorkerError,
    },
    /// A thread could not be started, or ended by a panic of our own.
    #[error("stage {stage}: a worker thread ended: {why}")]
    Thread {
        /// The stage.
        stage: SmolStr,
        /// Why.
        why: String,
    },
}

/// Runs all stages until `stop` is set (or, with `recover_only`, until all tasks are recovered); then each worker
/// finishes its epoch, flushes and leaves. `on_event` is called on this thread.
pub fn run(
    log: &Arc<dyn Log>,
    book: &Arc<SchemaBook>,
    stages: &[Arc<StageSpec>],
    options: &LiveOptions,
    stop: &Arc<AtomicBool>,
    mut on_event: impl FnMut(LiveEvent),
) -> Result<LiveSummary, LiveError> {
    let (events, received) = sync_channel(MAX_EVENTS);
    let mut threads = Vec::new();
    for spec in stages {
        let workers = options.workers.clamp(1, spec.tasks().max(1) as usize);
        for number in 0..workers {
            let member = format_smolstr!("{}-{}-{number}", options.member_prefix, spec.name);
            let thread = WorkerThread {
                log: Arc::clone(log),
                book: Arc::clone(book),
                spec: Arc::clone(spec),
                options: WorkerOptions {
                    member: member.clone(),
                    recovery: RecoveryOptions { accept_change: options.accept_change },
                    recover_only: options.recover_only,
                    hold_ms: HOLD_MS,
                    clock: options.watch.is_some().then_some(monotonic_ns),
                },
                who: Arc::new(Who { stage: spec.name.clone(), worker: number, member: member.clone() }),
                watch: options.watch.clone(),
                stop: Arc::clone(stop),
                events: events.clone(),
            };
            let handle = std::thread::Builder::new()
                .name(member.to_string())
                .spawn(move || thread.run())
                .map_err(|error| LiveError::Thread { stage: spec.name.clone(), why: error.to_string() })?;
            threads.push((spec.name.clone(), handle));
        }
    }
    drop(events);
    let summary = gather(&received, &mut on_event);
    finish(threads, stop)?;
    Ok(summary)
}

/// Takes events until every worker is gone.
fn gather(received: &Receiver<LiveEvent>, on_event: &mut impl FnMut(LiveEvent)) -> LiveSummary {
    let mut summary = LiveSummary::default();
    while let Ok(event) = received.recv() {
        match &event {
            LiveEvent::Worked { step, .. } => {
                summary.records += step.records;
                summary.epochs += step.epochs;
                summary.outputs += step.outputs;
            }
            LiveEvent::Fault { .. } => summary.faults += 1,
            LiveEvent::Halted { stage, task, why } => {
                summary.halted.push((stage.clone(), *task, why.clone()));
            }
            LiveEvent::Recovering { .. } | LiveEvent::Recovered { .. } | LiveEvent::Rejoining { .. } => {}
        }
        on_event(event);
    }
    summary
}

type Ended = Result<(), WorkerError>;

fn finish(threads: Vec<(SmolStr, JoinHandle<Ended>)>, stop: &AtomicBool) -> Result<(), LiveError> {
    let mut first = Ok(());
    for (stage, handle) in threads {
        let ended = match handle.join() {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => LiveError::Worker { stage, error },
            Err(_) => LiveError::Thread { stage, why: "it panicked".to_owned() },
        };
        // One that can not go on ends the run: the others finish their epochs.
        stop.store(true, Ordering::SeqCst);
        if first.is_ok() {
            first = Err(ended);
        }
    }
    first
}

struct WorkerThread {
    log: Arc<dyn Log>,
    book: Arc<SchemaBook>,
    spec: Arc<StageSpec>,
    options: WorkerOptions,
    stop: Arc<AtomicBool>,
    events: SyncSender<LiveEvent>,
    who: Arc<Who>,
    watch: Option<Arc<dyn Watch>>,
}

impl WorkerThread {
    fn run(&self) -> Ended {
        let mut watched = Watched::new(&self.who, self.watch.clone());
        let ended = self.run_watched(&mut watched);
        watched.ended(ended.as_ref().err().map(ToString::to_string).as_deref());
        ended
    }

    fn run_watched(&self, watched: &mut Watched) -> Ended {
        let mut wait = REJOIN_WAIT;
        let mut joined = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let began = Instant::now();
            let served = self.serve(watched, joined);
            joined = (joined + 1) % NAMES;
            if began.elapsed() > LONGEST_REJOIN_WAIT {
                wait = REJOIN_WAIT;
            }
            match served {
                Ok(()) => return Ok(()),
                Err(WorkerError::Fenced(why)) => self.wait_to_rejoin(why, &mut wait, watched),
                Err(WorkerError::Log(error @ LogError::Unavailable { .. })) => {
                    self.wait_to_rejoin(error.to_string(), &mut wait, watched);
                }
                Err(error) => {
                    self.stop.store(true, Ordering::SeqCst);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Waits longer each time that it fails again soon.
    fn wait_to_rejoin(&self, why: String, wait: &mut Duration, watched: &Watched) {
        watched.rejoins(&why);
        self.tell(LiveEvent::Rejoining { stage: self.spec.name.clone(), why });
        let until = Instant::now() + *wait;
        while Instant::now() < until && !self.stop.load(Ordering::SeqCst) {
            std::thread::sleep(IDLE_WAIT);
        }
        *wait = (*wait * 2).min(LONGEST_REJOIN_WAIT);
    }

    /// The name that it writes under after it joined so many times before.
    fn name(&self, joined: u32) -> SmolStr {
        let member = &self.options.member;
        if joined == 0 { member.clone() } else { format_smolstr!("{member}.{joined}") }
    }

    fn serve(&self, watched: &mut Watched, joined: u32) -> Ended {
        let begun = Instant::now();
        let options = WorkerOptions { member: self.name(joined), ..self.options.clone() };
        let mut worker = Worker::watched(
            Arc::clone(&self.log),
            Arc::clone(&self.spec),
            Arc::clone(&self.book),
            options,
            |member| watched.around(member),
        )?;
        let (mut sum, mut latencies_us, mut told) = (Step::default(), Vec::new(), Instant::now());
        let mut progress_told = None;
        loop {
            if self.stop.load(Ordering::SeqCst) {
                let started = Instant::now();
                let step = worker.stop(now_ms())?;
                watched.stepped(started, &step);
                add(&mut sum, &step);
                self.report(&mut sum, &mut latencies_us);
                return Ok(());
            }
            let started = Instant::now();
            let step = worker.step(now_ms())?;
            let epoch_took = watched.stepped(started, &step);
            latencies_us.extend(epoch_took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)));
            watched.sample(&worker, &step);
            self.tell_of(&step, begun);
            self.tell_of_recoveries(&worker, watched, &mut progress_told);
            add(&mut sum, &step);
            if !step.worked || told.elapsed() >= REPORT_EVERY {
                self.report(&mut sum, &mut latencies_us);
                told = Instant::now();
            }
            if step.finished {
                return Ok(());
            }
            if !step.worked {
                self.log.wait(IDLE_WAIT);
            }
        }
    }

    fn tell_of(&self, step: &Step, begun: Instant) {
        let stage = &self.spec.name;
        for (task, report) in &step.recovered {
            let after_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.tell(LiveEvent::Recovered { stage: stage.clone(), task: *task, report: *report, after_ms });
        }
        for fault in &step.faults {
            self.tell(LiveEvent::Fault { stage: stage.clone(), fault: fault.clone() });
        }
        for (task, why) in &step.halted {
            self.tell(LiveEvent::Halted { stage: stage.clone(), task: *task, why: why.clone() });
        }
    }

    /// Now and then, how far recoveries have come; `told` is when that was last said, until the last one is through.
    fn tell_of_recoveries(&self, worker: &Worker, watched: &mut Watched, told: &mut Option<Instant>) {
        let recovering = worker.is_recovering();
        if !recovering && told.is_none() {
            return;
        }
        let begun = *told.get_or_insert_with(Instant::now);
        if recovering && begun.elapsed() < PROGRESS_EVERY {
            return;
        }
        let tasks: Vec<_> = worker.recoveries().collect();
        watched.recovers(&tasks);
        *told = recovering.then(Instant::now);
        let (stage, member) = (self.spec.name.clone(), self.options.member.clone());
        self.tell(LiveEvent::Recovering { stage, member, tasks });
    }

    fn report(&self, sum: &mut Step, latencies_us: &mut Vec<u64>) {
        if sum.epochs > 0 {
            self.tell(LiveEvent::Worked {
                stage: self.spec.name.clone(),
                step: std::mem::take(sum),
                latencies_us: std::mem::take(latencies_us),
            });
        }
    }

    fn tell(&self, event: LiveEvent) {
        // Nobody listens any more only when the run is over.
        let _ = self.events.send(event);
    }
}

fn add(sum: &mut Step, step: &Step) {
    sum.records += step.records;
    sum.epochs += step.epochs;
    sum.outputs += step.outputs;
    sum.state_bytes += step.state_bytes;
}
