//! Synchronised running over a log: rounds of virtual time, with the tasks of acyclic stages on several threads.

mod pace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smol_str::SmolStr;
use tidewire_engine::log::{
    CommitError, CommittedOffset, Log, LogError, Member, NewRecord, TopicPartition, Transaction,
};
use tidewire_engine::mark::Mark;
use tidewire_engine::plan::{Role, StageSpec};
use tidewire_engine::sync::{
    Offsets, Placed, RoundPart, Serial, SyncError, SyncTask, components, deliver, is_cycle, place_output,
};
use tidewire_engine::worker::journal_record;
use tidewire_schemas::{EpochRecord, SchemaBook};

use pace::Pace;

/// Virtual time of one round, in milliseconds: one transaction each.
pub const ROUND_MS: i64 = 1_000;
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
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self { workers: 1, speed: None, drain_ms: 2_000 }
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
    /// First and last virtual time, in milliseconds.
    pub span_ms: Option<(i64, i64)>,
    /// Records and timers that operators failed at; they are dead-lettered.
    pub faults: u64,
    /// Whether it was told to stop before the inputs ended.
    pub stopped: bool,
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
    check_fresh(&**log, stages)?;
    let driving = first.driving().map(|input| input.topic.clone()).unwrap_or_default();
    let group = group_of(&first.pipeline);
    let member = log.join(&group, "synchronised", &driving)?;
    let member = placed(&**log, member, &group)?;
    let mut run = Run::new(log, book, stages, options.workers, member)?;
    let summary = run.drive(options, stop, &mut on_progress);
    run.finish()?;
    summary
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

/// What a thread is told.
enum Order {
    /// Look ahead: the time of the next record at hand over all its tasks.
    Peek,
    /// One stage's round.
    Round { stage: usize, horizon_ms: i64, delivered: Arc<Vec<Placed>>, end: End },
}

/// Whether time is at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Not,
    /// The inputs are at their end; time goes on.
    Draining,
    /// The last round: everything is flushed.
    Last,
}

enum Answer {
    Head(Option<i64>),
    Round(Vec<RoundPart>),
}

struct Hand {
    orders: SyncSender<Order>,
    answers: Receiver<Result<Answer, SyncError>>,
    thread: JoinHandle<()>,
}

impl Hand {
    fn ask(&self) -> Result<Answer, RunError> {
        let answer = self.answers.recv();
        Ok(answer.map_err(|_| RunError::Thread("it no longer answers".to_owned()))??)
    }
}

struct Run<'a> {
    log: &'a Arc<dyn Log>,
    book: &'a Arc<SchemaBook>,
    stages: &'a [Arc<StageSpec>],
    parts: Vec<Part>,
    hands: Vec<Hand>,
    member: Box<dyn Member>,
    offsets: Offsets,
    records: u64,
    faults: u64,
}

impl<'a> Run<'a> {
    fn new(
        log: &'a Arc<dyn Log>,
        book: &'a Arc<SchemaBook>,
        stages: &'a [Arc<StageSpec>],
        workers: usize,
        member: Box<dyn Member>,
    ) -> Result<Self, RunError> {
        let commits_as = stages.first().map(|spec| group_of(&spec.pipeline)).unwrap_or_default();
        let mut parts = Vec::new();
        let mut parallel: Vec<usize> = Vec::new();
        for group in components(stages) {
            if is_cycle(stages, &group) {
                parts.push(Part::Serial(Serial::new(stages, &group, book, &commits_as)?));
            } else {
                parallel.extend(&group);
                parts.extend(group.into_iter().map(Part::Parallel));
            }
        }
        let mut hands = Vec::new();
        let workers = workers.max(1);
        for number in 0..workers {
            let mine =
                parallel.iter().flat_map(|stage| (0..stages[*stage].tasks()).map(|task| (*stage, task)));
            let mine: Vec<(usize, u32)> = mine
                .enumerate()
                .filter(|(place, _)| place % workers == number)
                .map(|(_, task)| task)
                .collect();
            hands.push(start_hand(number, log, book, stages, mine, &commits_as)?);
        }
        let offsets = Offsets::default();
        Ok(Self { log, book, stages, parts, hands, member, offsets, records: 0, faults: 0 })
    }

    fn drive(
        &mut self,
        options: &SyncOptions,
        stop: &AtomicBool,
        on_progress: &mut impl FnMut(&Progress<'_>),
    ) -> Result<SyncSummary, RunError> {
        let mut summary = SyncSummary::default();
        let Some(began_ms) = self.next_head()? else { return Ok(summary) };
        let pace = Pace::new(options.speed, began_ms);
        let mut horizon_ms = floor_to_round(began_ms) + ROUND_MS;
        let mut ends_ms = None;
        loop {
            summary.stopped = stop.load(Ordering::SeqCst) || pace.wait_until(horizon_ms, stop);
            let started = Instant::now();
            let end = match ends_ms {
                _ if summary.stopped => End::Last,
                None => End::Not,
                Some(ends_ms) if horizon_ms > ends_ms => End::Last,
                Some(_) => End::Draining,
            };
            let before = self.records;
            let transaction = self.round(horizon_ms, end)?;
            let round_us = micros(started);
            let committing = Instant::now();
            let written = transaction.appends.clone();
            let outputs: usize = written.iter().map(|(_, records)| records.len()).sum();
            self.member
                .commit(transaction)
                .map_err(|error| RunError::Commit { virtual_ms: horizon_ms, error })?;
            self.offsets.committed(&**self.log, written.iter().map(|(at, _)| at));
            self.check_alone(&written)?;
            summary.rounds += 1;
            summary.outputs += outputs as u64;
            summary.records = self.records;
            summary.faults = self.faults;
            summary.span_ms = Some((began_ms, horizon_ms));
            on_progress(&Progress {
                virtual_ms: horizon_ms,
                began_ms,
                records: self.records - before,
                written: &written,
                round_us,
                commit_us: micros(committing),
            });
            if end == End::Last {
                return Ok(summary);
            }
            let head = self.next_head()?;
            if head.is_none() && ends_ms.is_none() {
                ends_ms = Some(horizon_ms + options.drain_ms);
            }
            // Stretches without any record are passed over, but for what timers make of them.
            horizon_ms = (horizon_ms + ROUND_MS).max(match head {
                Some(head_ms) => floor_to_round(head_ms) + ROUND_MS,
                None => horizon_ms,
            });
        }
    }

    /// The least time of what is at hand for any task.
    fn next_head(&mut self) -> Result<Option<i64>, RunError> {
        for hand in &self.hands {
            hand.orders.send(Order::Peek).map_err(|_| RunError::Thread("it takes no orders".to_owned()))?;
        }
        let mut least: Option<i64> = None;
        let mut add = |head: Option<i64>| least = [least, head].into_iter().flatten().min();
        for hand in &self.hands {
            if let Answer::Head(head) = hand.ask()? {
                add(head);
            }
        }
        for part in &mut self.parts {
            let Part::Serial(serial) = part else { continue };
            for task in serial.tasks_mut() {
                task.read_to(&**self.log, i64::MIN)?;
                add(task.first_time_ms());
            }
        }
        Ok(least)
    }

    /// Everything up to the horizon, as one transaction.
    fn round(&mut self, horizon_ms: i64, end: End) -> Result<Transaction, RunError> {
        let mut ready = Ready { appends: BTreeMap::new(), offsets: Vec::new(), delivered: Vec::new() };
        for place in 0..self.parts.len() {
            let round_parts = match &mut self.parts[place] {
                Part::Parallel(stage) => {
                    let stage = *stage;
                    let delivered = Arc::new(ready.delivered.clone());
                    let parts = self.round_on_hands(stage, horizon_ms, &delivered, end)?;
                    self.place_outputs(&mut ready, &parts)?;
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
            self.journal(&mut ready, &round_parts)?;
        }
        let generation = self.member.poll()?.generation;
        let appends = ready.appends.into_iter().collect();
        Ok(Transaction { generation, appends, offsets: ready.offsets })
    }

    fn round_on_hands(
        &self,
        stage: usize,
        horizon_ms: i64,
        delivered: &Arc<Vec<Placed>>,
        end: End,
    ) -> Result<Vec<RoundPart>, RunError> {
        for hand in &self.hands {
            let order = Order::Round { stage, horizon_ms, delivered: Arc::clone(delivered), end };
            hand.orders.send(order).map_err(|_| RunError::Thread("it takes no orders".to_owned()))?;
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

    /// Puts the outputs of all tasks of a stage into one order by time, task and sequence.
    fn place_outputs(&mut self, ready: &mut Ready, parts: &[RoundPart]) -> Result<(), RunError> {
        let mut outputs: Vec<_> = parts
            .iter()
            .flat_map(|part| part.outputs.iter().map(move |output| (part.task, output)))
            .collect();
        // The sort is stable: a task's outputs keep their own order.
        outputs.sort_by_key(|(task, output)| (output.record.timestamp_ms, *task));
        for (_, output) in outputs {
            ready.add(place_output(&**self.log, &mut self.offsets, output.clone())?);
        }
        Ok(())
    }

    /// Adds epoch records, changelogs and positions.
    fn journal(&mut self, ready: &mut Ready, parts: &[RoundPart]) -> Result<(), RunError> {
        for part in parts {
            self.records += part.records;
            self.faults += part.faults;
            let spec = &self.stages[part.stage];
            for closed in &part.closed {
                let at = TopicPartition::new(spec.epochs_topic(), part.task);
                let record = journal_record(spec, self.book, closed).map_err(SyncError::from)?;
                ready.add(place(&**self.log, &mut self.offsets, at, record)?);
                for record in closed.changelog.iter().flatten() {
                    let at = TopicPartition::new(spec.changelog_topic(), part.task);
                    ready.add(place(&**self.log, &mut self.offsets, at, record.clone())?);
                }
                if let Some(position) = driving_position(spec, part.task, &closed.record) {
                    ready.offsets.retain(|(at, _)| *at != position.0);
                    ready.offsets.push(position);
                }
            }
        }
        Ok(())
    }

    /// Offsets were given out ahead of the commit: the log must agree.
    fn check_alone(&self, written: &[(TopicPartition, Vec<NewRecord>)]) -> Result<(), RunError> {
        for (at, expected) in self.offsets.ends() {
            if written.iter().any(|(other, _)| other == at) {
                let found = self.log.bounds(at)?.high_watermark;
                // The record that ends a transaction is written a moment after the commit.
                if !(expected - self.log.offsets_of_commit()..=expected).contains(&found) {
                    return Err(RunError::NotAlone { at: at.clone(), found, expected });
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), RunError> {
        for hand in self.hands {
            drop(hand.orders);
            drop(hand.answers);
            hand.thread.join().map_err(|_| RunError::Thread("it panicked".to_owned()))?;
        }
        Ok(self.member.leave()?)
    }
}

/// What a round is to write.
struct Ready {
    appends: BTreeMap<TopicPartition, Vec<NewRecord>>,
    offsets: Vec<(TopicPartition, CommittedOffset)>,
    delivered: Vec<Placed>,
}

impl Ready {
    fn add(&mut self, placed: Placed) {
        self.appends.entry(placed.at.clone()).or_default().push(placed.stored.record.clone());
        self.delivered.push(placed);
    }
}

fn place(
    log: &dyn Log,
    offsets: &mut Offsets,
    at: TopicPartition,
    record: NewRecord,
) -> Result<Placed, LogError> {
    place_output(log, offsets, tidewire_engine::outputs::Output { at, record, node: None })
}

/// The committed position of the driving input, with the epoch beside it, as in a live run.
fn driving_position(
    spec: &StageSpec,
    task: u32,
    record: &EpochRecord,
) -> Option<(TopicPartition, CommittedOffset)> {
    let driving = spec.inputs.iter().find(|input| input.role == Role::Driving)?;
    let progress = record
        .inputs
        .iter()
        .find(|progress| progress.topic == driving.topic && u32::try_from(progress.partition) == Ok(task))?;
    let offset = u64::try_from(progress.next_offset).unwrap_or(0);
    let at = TopicPartition::new(driving.topic.clone(), task);
    // Nobody goes on writing under the name of such a run.
    let mark = Mark { epoch: u64::try_from(record.epoch).unwrap_or(0), writer: None, released: true };
    Some((at, CommittedOffset { offset, metadata: mark.to_string() }))
}

/// Starts a thread with its tasks.
fn start_hand(
    number: usize,
    log: &Arc<dyn Log>,
    book: &Arc<SchemaBook>,
    stages: &[Arc<StageSpec>],
    mine: Vec<(usize, u32)>,
    commits_as: &str,
) -> Result<Hand, RunError> {
    let (orders, to_do) = sync_channel(1);
    let (done, answers) = sync_channel(1);
    let (log, book, stages) = (Arc::clone(log), Arc::clone(book), stages.to_vec());
    let commits_as = commits_as.to_owned();
    let work = move || {
        let make =
            |(stage, task): &(usize, u32)| SyncTask::new(*stage, &stages[*stage], *task, &book, &commits_as);
        let made: Result<Vec<SyncTask>, SyncError> = mine.iter().map(make).collect();
        let mut tasks = match made {
            Ok(tasks) => tasks,
            Err(error) => {
                let _ = done.send(Err(error));
                return;
            }
        };
        while let Ok(order) = to_do.recv() {
            let answer = obey(&*log, &mut tasks, &order);
            let failed = answer.is_err();
            if done.send(answer).is_err() || failed {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name(format!("synchronised-{number}"))
        .spawn(work)
        .map_err(|error| RunError::Thread(error.to_string()))?;
    Ok(Hand { orders, answers, thread })
}

fn obey(log: &dyn Log, tasks: &mut [SyncTask], order: &Order) -> Result<Answer, SyncError> {
    match order {
        Order::Peek => {
            let mut least: Option<i64> = None;
            for task in tasks {
                task.read_to(log, i64::MIN)?;
                least = [least, task.first_time_ms()].into_iter().flatten().min();
            }
            Ok(Answer::Head(least))
        }
        Order::Round { stage, horizon_ms, delivered, end } => {
            let mut parts = Vec::new();
            for task in tasks.iter_mut().filter(|task| task.stage() == *stage) {
                task.read_to(log, *horizon_ms)?;
                for placed in delivered.iter() {
                    deliver(std::slice::from_mut(task), placed);
                }
                task.run_to(log, *horizon_ms)?;
                task.wait_to(log, *horizon_ms)?;
                parts.push(task.end_round(*end == End::Last)?);
            }
            Ok(Answer::Round(parts))
        }
    }
}

fn floor_to_round(time_ms: i64) -> i64 {
    time_ms - time_ms.rem_euclid(ROUND_MS)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
