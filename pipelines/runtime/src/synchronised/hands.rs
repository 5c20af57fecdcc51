//! The threads of a synchronised run: each holds tasks of stages that are in no cycle, and does what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tidewire_engine::log::Log;
use tidewire_engine::plan::StageSpec;
use tidewire_engine::sync::{Placed, Ranges, RoundPart, SyncError, SyncTask, deliver};
use tidewire_schemas::SchemaBook;

use super::RunError;

/// What every task of a run is made from.
#[derive(Clone)]
pub struct Makes {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Its schemas.
    pub book: Arc<SchemaBook>,
    /// The stages.
    pub stages: Vec<Arc<StageSpec>>,
    /// What is read of external inputs.
    pub ranges: Arc<Ranges>,
    /// Epochs committed by a run that is gone on with, by stage and task.
    pub resumes: Option<Epochs>,
}

/// The last epoch of each task, by the place of its stage and its number.
pub type Epochs = BTreeMap<(usize, u32), u64>;

impl Makes {
    /// A task, by the place of its stage and its number.
    pub fn task(&self, stage: usize, number: u32) -> Result<SyncTask, SyncError> {
        let (spec, book, ranges) = (&self.stages[stage], &self.book, &self.ranges);
        match &self.resumes {
            Some(epochs) => {
                let committed = epochs.get(&(stage, number)).copied().unwrap_or(0);
                SyncTask::resumed(stage, spec, number, book, ranges, (&*self.log, committed))
            }
            None => SyncTask::new(stage, spec, number, book, ranges),
        }
    }
}

/// What a thread is told.
pub enum Order {
    /// Look ahead: the time of the next record at hand over all its tasks.
    Peek,
    /// One stage's round.
    Round {
        /// Place of the stage.
        stage: usize,
        /// Everything before this time is taken.
        horizon_ms: i64,
        /// What earlier stages made in this round.
        delivered: Arc<Vec<Placed>>,
        /// Whether time is at its end.
        end: End,
    },
}

/// Whether time is at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The inputs go on.
    Not,
    /// The inputs are at their end; time goes on.
    Draining,
    /// The last round: everything is flushed.
    Last,
}

/// The least times at hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heads {
    /// Of everything, control records left out.
    pub all_ms: Option<i64>,
    /// Of data from outside.
    pub data_ms: Option<i64>,
}

impl Heads {
    /// Reads ahead, and takes account of what is at hand for a task.
    pub fn look(&mut self, log: &dyn Log, task: &mut SyncTask) -> Result<(), SyncError> {
        task.read_to(log, i64::MIN)?;
        self.add(Self { all_ms: task.first_time_ms(), data_ms: task.first_data_time_ms() });
        Ok(())
    }

    /// The lesser of both.
    pub fn add(&mut self, other: Self) {
        let least = |one: Option<i64>, other| one.into_iter().chain(other).min();
        self.all_ms = least(self.all_ms, other.all_ms);
        self.data_ms = least(self.data_ms, other.data_ms);
    }
}

/// What a thread answers.
pub enum Answer {
    /// What is at hand.
    Head(Heads),
    /// What its tasks of the stage did.
    Round(Vec<RoundPart>),
}

/// A thread.
pub struct Hand {
    orders: SyncSender<Order>,
    answers: Receiver<Result<Answer, SyncError>>,
    thread: JoinHandle<()>,
}

impl Hand {
    /// Starts a thread with its tasks, each given by the place of its stage and its number.
    pub fn start(number: usize, makes: &Makes, mine: Vec<(usize, u32)>) -> Result<Self, RunError> {
        let (orders, to_do) = sync_channel(1);
        let (done, answers) = sync_channel(1);
        let makes = makes.clone();
        let work = move || {
            let made: Result<Vec<SyncTask>, SyncError> =
                mine.iter().map(|(stage, task)| makes.task(*stage, *task)).collect();
            let mut tasks = match made {
                Ok(tasks) => tasks,
                Err(error) => {
                    let _ = done.send(Err(error));
                    return;
                }
            };
            while let Ok(order) = to_do.recv() {
                let answer = obey(&*makes.log, &mut tasks, &order);
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
        Ok(Self { orders, answers, thread })
    }

    /// Tells it what to do.
    pub fn tell(&self, order: Order) -> Result<(), RunError> {
        self.orders.send(order).map_err(|_| RunError::Thread("it takes no orders".to_owned()))
    }

    /// Ends it.
    pub fn end(self) -> Result<(), RunError> {
        drop(self.orders);
        drop(self.answers);
        self.thread.join().map_err(|_| RunError::Thread("it panicked".to_owned()))
    }

    /// Waits for its answer.
    pub fn ask(&self) -> Result<Answer, RunError> {
        let answer = self.answers.recv();
        Ok(answer.map_err(|_| RunError::Thread("it no longer answers".to_owned()))??)
    }
}

fn obey(log: &dyn Log, tasks: &mut [SyncTask], order: &Order) -> Result<Answer, SyncError> {
    match order {
        Order::Peek => {
            let mut heads = Heads::default();
            for task in tasks {
                heads.look(log, task)?;
            }
            Ok(Answer::Head(heads))
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
