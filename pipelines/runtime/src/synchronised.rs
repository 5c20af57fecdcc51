//! Synchronised running over a log: rounds of virtual time, with the tasks of acyclic stages on several threads.

mod hands;
mod pace;
mod ready;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use smol_str::SmolStr;
use tidewire_engine::log::{CommitError, Log, LogError, Member, NewRecord, TopicPartition, Transaction};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::sync::{
    Offsets, Placed, Ranges, RoundPart, Serial, SyncError, components, deliver, is_cycle,
};
use tidewire_schemas::SchemaBook;

use hands::{Answer, End, Epochs, Hand, Heads, Makes, Order};
use pace::Pace;
use ready::Ready;

pub use state::RunState;

/// Virtual time of one round, in milliseconds: one transaction each.
pub const ROUND_MS: i64 = 1_000;
/// How often it is looked whether others write to the run's topics.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long a group may take to place the tasks.
const PLACING: Duration = Duration::from_secs(60);
/// How often it is looked whether the group has placed the tasks.
const PLACING_WAIT: Duration = Duration::from_millis(20);

/// How to run.
#[derive(Clone, Debug)]
pub struct SyncOptions {
    /// Threads for the tasks of stages that are in no cycle.
    pub workers: usize,
    /// Virtual seconds a second of wall time; `None` runs as fast as it goes.
    pub speed: Option<f64>,
    /// How long virtual time goes on after the last record, in milliseconds, so that windows close.
    pub drain_ms: i64,
    /// What is read of external inputs; of partitions that are not named, all.
    pub ranges: Arc<Ranges>,
    /// The topic on which it is kept how far the run has come, so that the next one with the same inputs goes on from
    /// there. Without it, the pipeline must be new to the log.
    pub state_topic: Option<SmolStr>,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self { workers: 1, speed: None, drain_ms: 2_000, ranges: Arc::default(), state_topic: None }
    }
}

/// What a round did.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Virtual time reached, in milliseconds since 1970.
    pub virtual_ms: i64,
    /// Virtual time at which the inputs began.
    pub began_ms: i64,
    /// Input records taken in this round, over all stages.
    pub records: u64,
    /// Virtual time that a run before had reached, from which this one went on.
    pub resumed_ms: Option<i64>,
    /// What was written in this round, by partition, in order.
    pub written: &'a [(TopicPartition, Vec<NewRecord>)],
    /// Wall time of the round without waiting, in microseconds.
    pub round_us: u64,
    /// Wall time of its commit, in microseconds.
    pub commit_us: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncSummary {
    /// Rounds committed.
    pub rounds: u64,
    /// Input records taken, over all stages.
    pub records: u64,
    /// Output records written.
    pub outputs: u64,
    /// The same by topic, journals among them.
    pub by_topic: BTreeMap<SmolStr, u64>,
    /// First and last virtual time, in milliseconds.
    pub span_ms: Option<(i64, i64)>,
    /// Records and timers that operators failed at; they are dead-lettered.
    pub faults: u64,
    /// Whether it was told to stop before the inputs ended.
    pub stopped: bool,
    /// Virtual time that a run before had reached, from which this one went on.
    pub resumed_ms: Option<i64>,
}

/// Why a run could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A task failed.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log did not take a round.
    #[error("the log did not take the round that ends at {virtual_ms} ms: {error}")]
    Commit {
        /// Virtual time of the round's end.
        virtual_ms: i64,
        /// Why.
        error: CommitError,
    },
    /// The pipeline ran on this log before.
    #[error(
        "pipeline {pipeline} has run on this log before (group {group}): a synchronised run begins at the start of its \
         inputs, so give it a fresh log, or another pipeline name"
    )]
    NotFresh {
        /// The pipeline.
        pipeline: SmolStr,
        /// The group that has committed.
        group: String,
    },
    /// The log gives offsets of its own besides the records'.
    #[error(
        "{at} ends at offset {found}, expected {expected}: somebody else writes to the pipeline's topics"
    )]
    NotAlone {
        /// The partition.
        at: TopicPartition,
        /// Where it ends.
        found: u64,
        /// Where it should end.
        expected: u64,
    },
    /// A thread ended by a panic of our own.
    #[error("a thread of the run ended: {0}")]
    Thread(String),
}

/// The group under which a synchronised run of `pipeline` commits.
pub fn group_of(pipeline: &str) -> String {
    format!("{pipeline}.synchronised")
}

/// Runs all stages over what their inputs hold, from the start to the end, then lets time drain.
pub fn run(
    log: &Arc<dyn Log>,
    book: &Arc<SchemaBook>,
    stages: &[Arc<StageSpec>],
    options: &SyncOptions,
    stop: &AtomicBool,
    mut on_progress: impl FnMut(&Progress<'_>),
) -> Result<SyncSummary, RunError> {
    let Some(first) = stages.first() else { return Ok(SyncSummary::default()) };
    let driving = first.driving().map(|input| input.topic.clone()).unwrap_or_default();
    let group = group_of(&first.pipeline);
    // Joining comes first: it ends what a run before left open.
    let member = log.join(&group, &group, &driving)?;
    let member = placed(&**log, member, &group)?;
    let before = match &options.state_topic {
        Some(topic) => RunState::last(&**log, topic)?,
        None => None,
    };
    match &before {
        Some(state) if state.complete => return Ok(summary_of(state, Some(state.horizon_ms))),
        Some(_) => {}
        None => check_fresh(&**log, stages)?,
    }
    let mut run = Run::new(log, book, stages, options, before, member)?;
    let summary = run.drive(options, stop, &mut on_progress);
    run.finish()?;
    summary
}

fn summary_of(state: &RunState, resumed_ms: Option<i64>) -> SyncSummary {
    SyncSummary {
        rounds: state.rounds,
        records: state.records,
        outputs: state.outputs.values().sum(),
        by_topic: state.outputs.clone(),
        span_ms: (state.rounds > 0).then_some((state.began_ms, state.horizon_ms)),
        faults: state.faults,
        stopped: false,
        resumed_ms,
    }
}

/// Waits until the group has placed its tasks with us.
fn placed(log: &dyn Log, mut member: Box<dyn Member>, group: &str) -> Result<Box<dyn Member>, RunError> {
    let begun = Instant::now();
    while member.poll()?.tasks.is_empty() {
        if begun.elapsed() > PLACING {
            let at = format!("joining group {group}");
            let error = "the group gave no tasks; is another run of it under way?".to_owned();
            return Err(LogError::Unavailable { at, error }.into());
        }
        log.wait(PLACING_WAIT);
    }
    Ok(member)
}

/// A synchronised run numbers epochs from the beginning: nothing may be there yet.
fn check_fresh(log: &dyn Log, stages: &[Arc<StageSpec>]) -> Result<(), RunError> {
    for spec in stages {
        let Some(driving) = spec.driving() else { continue };
        for group in [spec.group(), group_of(&spec.pipeline)] {
            for partition in 0..driving.partitions {
                let at = TopicPartition::new(driving.topic.clone(), partition);
                if log.committed(&group, &at)?.is_some() {
                    return Err(RunError::NotFresh { pipeline: spec.pipeline.clone(), group });
                }
            }
        }
    }
    Ok(())
}

enum Part {
    /// A stage that is in no cycle: its tasks are on the threads.
    Parallel(usize),
    /// A cycle, run here.
    Serial(Serial),
}

struct Run<'a> {
    log: &'a Arc<dyn Log>,
    book: &'a Arc<SchemaBook>,
    stages: &'a [Arc<StageSpec>],
    parts: Vec<Part>,
    hands: Vec<Hand>,
    member: Box<dyn Member>,
    offsets: Offsets,
    state_topic: Option<SmolStr>,
    state: RunState,
    epochs: Epochs,
    resumed_ms: Option<i64>,
    /// When it was last looked whether others write to the run's topics.
    checked: Option<Instant>,
}

impl<'a> Run<'a> {
    fn new(
        log: &'a Arc<dyn Log>,
        book: &'a Arc<SchemaBook>,
        stages: &'a [Arc<StageSpec>],
        options: &SyncOptions,
        before: Option<RunState>,
        member: Box<dyn Member>,
    ) -> Result<Self, RunError> {
        let makes = Makes {
            log: Arc::clone(log),
            book: Arc::clone(book),
            stages: stages.to_vec(),
            ranges: Arc::clone(&options.ranges),
            resumes: before.as_ref().map(RunState::epochs),
        };
        let mut parts = Vec::new();
        let mut parallel: Vec<usize> = Vec::new();
        for group in components(stages) {
            if is_cycle(stages, &group) {
                parts.push(Part::Serial(Serial::new(stages, &group, |stage, task| makes.task(stage, task))?));
            } else {
                parallel.extend(&group);
                parts.extend(group.into_iter().map(Part::Parallel));
            }
        }
        let mut hands = Vec::new();
        let workers = options.workers.max(1);
        for number in 0..workers {
            let mine =
                parallel.iter().flat_map(|stage| (0..stages[*stage].tasks()).map(|task| (*stage, task)));
            let mine: Vec<(usize, u32)> = mine
                .enumerate()
                .filter(|(place, _)| place % workers == number)
                .map(|(_, task)| task)
                .collect();
            hands.push(Hand::start(number, &makes, mine)?);
        }
        let resumed_ms = before.as_ref().map(|state| state.horizon_ms);
        let epochs = makes.resumes.unwrap_or_default();
        let (offsets, state_topic) = (Offsets::default(), options.state_topic.clone());
        let state = before.unwrap_or_default();
        Ok(Self {
            log,
            book,
            stages,
            parts,
            hands,
            member,
            offsets,
            state_topic,
            state,
            epochs,
            resumed_ms,
            checked: None,
        })
    }

    fn drive(
        &mut self,
        options: &SyncOptions,
        stop: &AtomicBool,
        on_progress: &mut impl FnMut(&Progress<'_>),
    ) -> Result<SyncSummary, RunError> {
        let mut horizon_ms = if self.resumed_ms.is_some() {
            self.next_horizon(options.drain_ms)?
        } else {
            let heads = self.next_heads()?;
            let Some(first_ms) = heads.all_ms else { return Ok(SyncSummary::default()) };
            // State such as reference data may be of any age.
            self.state.began_ms = heads.data_ms.unwrap_or(first_ms);
            floor_to_round(first_ms) + ROUND_MS
        };
        let pace = Pace::new(options.speed, self.resumed_ms.unwrap_or(self.state.began_ms));
        loop {
            let stopped = stop.load(Ordering::SeqCst) || pace.wait_until(horizon_ms, stop);
            if stopped && self.state_topic.is_some() {
                // A run that can be gone on with leaves no trace of where it was stopped.
                return Ok(SyncSummary { stopped, ..summary_of(&self.state, self.resumed_ms) });
            }
            let started = Instant::now();
            let end = match self.state.ends_ms {
                _ if stopped => End::Last,
                None => End::Not,
                Some(ends_ms) if horizon_ms > ends_ms => End::Last,
                Some(_) => End::Draining,
            };
            let before = self.state.records;
            let transaction = self.round(horizon_ms, end)?;
            let round_us = micros(started);
            let committing = Instant::now();
            let written = transaction.appends.clone();
            self.member
                .commit(transaction)
                .map_err(|error| RunError::Commit { virtual_ms: horizon_ms, error })?;
            self.offsets.committed(&**self.log, written.iter().map(|(at, _)| at));
            self.check_alone(end == End::Last)?;
            on_progress(&Progress {
                virtual_ms: horizon_ms,
                began_ms: self.state.began_ms,
                records: self.state.records - before,
                resumed_ms: self.resumed_ms,
                written: &written,
                round_us,
                commit_us: micros(committing),
            });
            if end == End::Last {
                return Ok(SyncSummary { stopped, ..summary_of(&self.state, self.resumed_ms) });
            }
            horizon_ms = self.next_horizon(options.drain_ms)?;
        }
    }

    /// The end of the round after the one committed last.
    fn next_horizon(&mut self, drain_ms: i64) -> Result<i64, RunError> {
        let horizon_ms = self.state.horizon_ms;
        let head = self.next_heads()?.all_ms;
        if head.is_none() && self.state.ends_ms.is_none() {
            self.state.ends_ms = Some(horizon_ms + drain_ms);
        }
        // Stretches without any record are passed over, but for what timers make of them.
        Ok((horizon_ms + ROUND_MS).max(match head {
            Some(head_ms) => floor_to_round(head_ms) + ROUND_MS,
            None => horizon_ms,
        }))
    }

    /// The least times of what is at hand for any task.
    fn next_heads(&mut self) -> Result<Heads, RunError> {
        for hand in &self.hands {
            hand.tell(Order::Peek)?;
        }
        let mut heads = Heads::default();
        for hand in &self.hands {
            if let Answer::Head(of_hand) = hand.ask()? {
                heads.add(of_hand);
            }
        }
        for part in &mut self.parts {
            let Part::Serial(serial) = part else { continue };
            for task in serial.tasks_mut() {
                heads.look(&**self.log, task)?;
            }
        }
        Ok(heads)
    }

    /// Everything up to the horizon, as one transaction.
    fn round(&mut self, horizon_ms: i64, end: End) -> Result<Transaction, RunError> {
        let mut ready = Ready::default();
        for place in 0..self.parts.len() {
            let round_parts = match &mut self.parts[place] {
                Part::Parallel(stage) => {
                    let stage = *stage;
                    let delivered = Arc::new(ready.delivered.clone());
                    let parts = self.round_on_hands(stage, horizon_ms, &delivered, end)?;
                    ready.place_outputs(&**self.log, &mut self.offsets, &self.stages[stage], &parts)?;
                    parts
                }
                Part::Serial(serial) => {
                    for task in serial.tasks_mut() {
                        task.read_to(&**self.log, horizon_ms)?;
                    }
                    for placed in &ready.delivered {
                        deliver(serial.tasks_mut(), placed);
                    }
                    let made = serial.run_to(&**self.log, &mut self.offsets, horizon_ms)?;
                    made.into_iter().for_each(|placed| ready.add(placed));
                    let tasks = serial.tasks_mut().iter_mut();
                    tasks.map(|task| task.end_round(end == End::Last)).collect::<Result<_, _>>()?
                }
            };
            for part in &round_parts {
                self.state.records += part.records;
                self.state.faults += part.faults;
                if let Some((_, _, epoch)) = &part.position {
                    self.epochs.insert((part.stage, part.task), *epoch);
                }
                let of = (&*self.stages[part.stage], &**self.book);
                ready.journal(&**self.log, &mut self.offsets, of, part)?;
            }
        }
        self.account(&mut ready, horizon_ms, end)?;
        let generation = self.member.poll()?.generation;
        let appends = ready.appends.into_iter().collect();
        Ok(Transaction { generation, appends, offsets: ready.offsets })
    }

    /// Keeps account of the round, with the round itself if it is to be gone on from.
    fn account(&mut self, ready: &mut Ready, horizon_ms: i64, end: End) -> Result<(), RunError> {
        self.state.rounds += 1;
        self.state.horizon_ms = horizon_ms;
        self.state.complete = end == End::Last;
        for (at, records) in &ready.appends {
            *self.state.outputs.entry(at.topic.clone()).or_default() += records.len() as u64;
        }
        if let Some(topic) = &self.state_topic {
            self.state.epochs =
                self.epochs.iter().map(|((stage, task), epoch)| (*stage, *task, *epoch)).collect();
            let at = TopicPartition::new(topic.clone(), 0);
            ready.place(&**self.log, &mut self.offsets, at, self.state.record()?)?;
        }
        Ok(())
    }

    fn round_on_hands(
        &self,
        stage: usize,
        horizon_ms: i64,
        delivered: &Arc<Vec<Placed>>,
        end: End,
    ) -> Result<Vec<RoundPart>, RunError> {
        for hand in &self.hands {
            hand.tell(Order::Round { stage, horizon_ms, delivered: Arc::clone(delivered), end })?;
        }
        let mut parts = Vec::new();
        for hand in &self.hands {
            if let Answer::Round(done) = hand.ask()? {
                parts.extend(done);
            }
        }
        parts.sort_by_key(|part| part.task);
        Ok(parts)
    }

    /// Offsets were given out ahead of the commit: the log must agree. Asked now and then, for each partition is a
    /// question to a broker.
    fn check_alone(&mut self, is_last: bool) -> Result<(), RunError> {
        if !is_last && self.checked.is_some_and(|checked| checked.elapsed() < CHECK_EVERY) {
            return Ok(());
        }
        self.checked = Some(Instant::now());
        for (at, expected) in self.offsets.ends() {
            let found = self.log.bounds(at)?.high_watermark;
            // The record that ends a transaction is written a moment after the commit.
            if !(expected - self.log.offsets_of_commit()..=expected).contains(&found) {
                return Err(RunError::NotAlone { at: at.clone(), found, expected });
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), RunError> {
        for hand in self.hands {
            hand.end()?;
        }
        Ok(self.member.leave()?)
    }
}

fn floor_to_round(time_ms: i64) -> i64 {
    time_ms - time_ms.rem_euclid(ROUND_MS)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
