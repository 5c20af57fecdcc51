//! The cluster of one seed: its log, its workers, its clock, and those who look on.

use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};
use tidewire_schemas::{Record, SchemaBook};

use super::Report;
use super::books::Books;
use super::compaction::Ages;
use super::feed::{Coming, Feed, append};
use super::follow::Follow;
use super::letters::Letters;
use super::network::Network;
use super::random::Random;
use super::scenario::Scenario;
use super::stages::{create_topics, stages};
use super::trace::{Broken, Trace};
use super::windows::WindowSums;
use crate::log::{Log, LogError};
use crate::memory::MemoryLog;
use crate::plan::StageSpec;
use crate::worker::{Step, Worker, WorkerError, WorkerOptions};

/// Where the clock starts, in milliseconds: years after the events of the feed.
const START_MS: i64 = 1_800_000_000_000;

/// A running worker.
pub struct Seat {
    /// Place of its stage.
    pub stage: usize,
    /// Its name.
    pub name: SmolStr,
    /// The worker.
    pub worker: Worker,
    /// Whether it takes no new records.
    pub recover_only: bool,
}

/// A cluster, and what is known of it.
pub struct Cluster {
    /// What the seed decided beforehand.
    pub scenario: Scenario,
    /// The log.
    pub log: MemoryLog,
    /// The workers' way to it.
    pub network: Network,
    /// The schemas.
    pub book: Arc<SchemaBook>,
    /// The stages as workers that start now run them.
    pub builds: Vec<Arc<StageSpec>>,
    /// Workers.
    pub seats: Vec<Seat>,
    /// What the outside has still to append.
    pub feed: Feed,
    /// The clock, in milliseconds.
    pub now_ms: i64,
    /// What the seed decides as it goes.
    pub random: Random,
    /// What happened.
    pub trace: Trace,
    /// Ages of what lies in compacted topics.
    pub ages: Ages,
    /// What was done, in numbers.
    pub report: Report,
    follow: Follow,
    books: Books,
    letters: Letters,
    windows: WindowSums,
    started: u32,
}

impl Cluster {
    /// The cluster of a scenario, its workers started; inputs are there if the scenario says so.
    pub fn new(scenario: Scenario, trace: Trace) -> Result<Self, Broken> {
        let log = match scenario.control_records {
            true => MemoryLog::with_control_records(),
            false => MemoryLog::new(),
        };
        let book = Arc::new(SchemaBook::of_this_build());
        let builds = stages(&scenario);
        create_topics(&log, &builds, scenario.replay_retention_ms).map_err(set_up)?;
        let network = Network::new(log.clone(), scenario.seed, scenario.short_reads);
        let follow = Follow::new(log.clone(), Arc::clone(&book), builds.clone(), scenario.complete)?;
        let mut cluster = Self {
            feed: Feed::of(&scenario, &book),
            random: Random::new(scenario.seed, 4),
            letters: Letters::new(builds.clone(), Arc::clone(&book)),
            report: Report { seed: scenario.seed, ..Report::default() },
            scenario,
            log,
            network,
            book,
            builds,
            seats: Vec::new(),
            now_ms: START_MS,
            trace,
            ages: Ages::default(),
            follow,
            books: Books::default(),
            windows: WindowSums::default(),
            started: 0,
        };
        cluster.clock(0);
        for coming in std::mem::take(&mut cluster.feed.before) {
            cluster.append(&coming)?;
        }
        if cluster.scenario.complete {
            cluster.append_coming(usize::MAX)?;
        }
        for stage in 0..cluster.builds.len() {
            for _ in 0..cluster.scenario.workers[stage] {
                cluster.start(stage, None, false)?;
            }
        }
        Ok(cluster)
    }

    /// Lets the clock go on.
    pub fn clock(&mut self, ms: i64) {
        self.ages.note(&self.log, self.now_ms);
        self.now_ms += ms;
        self.log.set_now_ms(u64::try_from(self.now_ms).unwrap_or(0));
    }

    /// Appends the next records of the feed. Returns how many.
    pub fn append_coming(&mut self, most: usize) -> Result<usize, Broken> {
        let count = most.min(self.feed.coming.len());
        for coming in self.feed.coming.drain(..count).collect::<Vec<_>>() {
            self.append(&coming)?;
        }
        Ok(count)
    }

    fn append(&mut self, coming: &Coming) -> Result<(), Broken> {
        let offset = append(&self.log, coming).map_err(set_up)?;
        self.letters.appended(coming, offset);
        if let Ok(record) = self.book.decode(coming.record.value.as_deref().unwrap_or_default()) {
            self.books.appended(&record);
            if let (Record::Trade(trade), false) = (&record, coming.unusable) {
                self.windows.appended(coming.at.partition, offset, trade);
            }
        }
        self.report.records += 1;
        Ok(())
    }

    /// Starts a worker, under a name of its own or one that was used before. Nothing happens in an outage.
    pub fn start(&mut self, stage: usize, name: Option<SmolStr>, recover_only: bool) -> Result<(), Broken> {
        self.started += 1;
        let spec = Arc::clone(&self.builds[stage]);
        let name = name.unwrap_or_else(|| format_smolstr!("{}-{}", spec.name, self.started));
        let hold_ms = self.scenario.hold_ms;
        let options =
            WorkerOptions { member: name.clone(), recover_only, hold_ms, ..WorkerOptions::default() };
        let log: Arc<dyn Log> = Arc::new(self.network.clone());
        match Worker::new(log, spec, Arc::clone(&self.book), options) {
            Ok(worker) => {
                self.trace.note(format!("{name} starts"));
                self.network.forget_ghost(&name);
                self.seats.push(Seat { stage, name, worker, recover_only });
                Ok(())
            }
            Err(error) => self.excuse(&name, "starting", &error),
        }
    }

    /// One step of a worker. A worker that must be replaced is gone afterwards. Returns whether it did anything.
    pub fn step(&mut self, place: usize) -> Result<bool, Broken> {
        let Some(seat) = self.seats.get_mut(place) else { return Ok(false) };
        let name = seat.name.clone();
        match seat.worker.step(self.now_ms) {
            Ok(step) => {
                let (recover_only, worked) = (seat.recover_only, step.worked);
                self.look_at(&name, &step)?;
                if recover_only && step.finished {
                    self.seats.remove(place);
                }
                Ok(worked)
            }
            Err(error) => {
                self.seats.remove(place);
                self.excuse(&name, "a step", &error)?;
                Ok(true)
            }
        }
    }

    /// Stops a worker cleanly.
    pub fn stop(&mut self, place: usize) -> Result<(), Broken> {
        if place >= self.seats.len() {
            return Ok(());
        }
        let Seat { name, worker, .. } = self.seats.remove(place);
        self.trace.note(format!("{name} stops"));
        match worker.stop(self.now_ms) {
            Ok(step) => self.look_at(&name, &step),
            Err(error) => self.excuse(&name, "stopping", &error),
        }
    }

    /// Kills a worker. Its session goes on if `session_lives`.
    pub fn crash(&mut self, place: usize, session_lives: bool) {
        if place >= self.seats.len() {
            return;
        }
        let Seat { name, worker, .. } = self.seats.remove(place);
        if session_lives {
            self.network.kill(&name);
        }
        drop(worker);
        let session = if session_lives { "its session goes on" } else { "its session ends" };
        self.trace.note(format!("{name} is killed, {session}"));
    }

    /// Checks everything that can be checked now. False if an open transaction is in the way.
    pub fn check(&mut self) -> Result<bool, Broken> {
        let Some(made) = self.follow.check()? else { return Ok(false) };
        for made in made {
            self.letters.take(&made)?;
            self.books.take(&made)?;
            self.windows.take(&made)?;
        }
        self.report.epochs = self.follow.epochs;
        self.report.outputs = self.follow.outputs;
        self.report.dead_letters = self.letters.found;
        self.report.late = self.letters.found_late;
        self.report.orders = self.books.approvals;
        Ok(true)
    }

    /// Checks what must hold once everything was consumed.
    pub fn check_complete(&self) -> Result<(), Broken> {
        self.follow.check_all_taken()?;
        self.letters.check_complete()?;
        self.windows.check_complete()?;
        self.books.check_complete(self.scenario.stages > 2)
    }

    /// What was read of the log so far.
    pub fn follow(&self) -> &Follow {
        &self.follow
    }

    fn look_at(&mut self, name: &str, step: &Step) -> Result<(), Broken> {
        if step.worked {
            let Step { epochs, records, outputs, recovered, faults, .. } = step;
            let recovered: Vec<u32> = recovered.iter().map(|(task, _)| *task).collect();
            self.report.recoveries += recovered.len() as u64;
            self.trace.note(format!(
                "{name} steps: {epochs} epochs, {records} records, {outputs} outputs, recovered {recovered:?}, \
                 {} faults",
                faults.len()
            ));
        }
        match step.halted.first() {
            None => Ok(()),
            Some((task, why)) => Err(Broken::new("no task halts", format!("{name}, task {task}: {why}"))),
        }
    }

    /// Lets pass what an outage or a fence explains.
    fn excuse(&mut self, name: &str, doing: &str, error: &WorkerError) -> Result<(), Broken> {
        self.trace.note(format!("{name}, {doing}: {error}"));
        match error {
            WorkerError::Fenced(_) => Ok(()),
            WorkerError::Log(LogError::Store { .. }) if self.network.is_out() => Ok(()),
            _ => Err(Broken::new("workers go on", format!("{name}, {doing}: {error}"))),
        }
    }
}

fn set_up(error: LogError) -> Broken {
    Broken::new("set-up", error.to_string())
}
