//! The disturbed part of a run: at each step the seed chooses what happens.

use std::sync::Arc;

use smol_str::SmolStr;

use super::cluster::Cluster;
use super::network::Holdup;
use super::scenario::{Action, MAX_WORKERS};
use super::stages::rebuilt;
use super::trace::Broken;
use crate::memory::CommitFault;

/// Steps a recovering worker gets, at most, to come to the epochs that it runs again.
const STEPS_TO_RERUN: u32 = 20;

impl Cluster {
    /// One step of the disturbed part.
    pub fn disturb(&mut self) -> Result<(), Broken> {
        if self.network.is_out() && self.random.chance(25) {
            self.end_outage();
        }
        let weights = std::mem::take(&mut self.scenario.weights);
        let action = Action::ALL[self.random.weighted(&weights)];
        self.scenario.weights = weights;
        self.report.count(action);
        let place = self.random.place(self.seats.len());
        match action {
            Action::Step => self.step(place).map(|_| ()),
            Action::Clock => {
                let ms = if self.random.chance(6) { 2_000 } else { self.random.between(0, 120) };
                self.clock(ms);
                Ok(())
            }
            Action::Produce => {
                let most = self.random.place(6) + 1;
                let count = self.append_coming(most)?;
                if count > 0 {
                    self.trace.note(format!("{count} records are appended"));
                }
                Ok(())
            }
            Action::Check => self.check().map(|_| ()),
            Action::Crash => {
                let session_lives = self.random.chance(60);
                self.crash(place, session_lives);
                Ok(())
            }
            Action::EndSession => {
                self.end_a_session();
                Ok(())
            }
            Action::Start => self.start_one(),
            Action::Stop => self.stop_one(place),
            Action::FailCommit => {
                self.fail_commits(place);
                Ok(())
            }
            Action::Pause => {
                self.hold_up(place, Holdup::Pause);
                Ok(())
            }
            Action::Deliver => {
                self.deliver_one();
                Ok(())
            }
            Action::Rebalance => {
                self.hold_up(place, Holdup::Rebalance);
                Ok(())
            }
            Action::Expire => {
                self.expire(place);
                Ok(())
            }
            Action::Settle => {
                self.settle_all();
                Ok(())
            }
            Action::Outage => self.lose_the_log(),
            Action::Build => {
                self.build();
                Ok(())
            }
            Action::Compact => self.compact_some(),
            Action::RecoverOnly => {
                let stage = self.random.place(self.builds.len());
                self.start(stage, None, true)
            }
        }
    }

    /// Calls get through again.
    pub fn end_outage(&mut self) {
        if self.network.end_outage() {
            self.trace.note("the outage ends".to_owned());
        }
    }

    /// Transactions that are held open end.
    pub fn settle_all(&mut self) {
        let settled = self.log.settle_all();
        if settled > 0 {
            self.trace.note(format!("{settled} open transactions end"));
        }
    }

    /// A commit that was held up arrives. False if there is none.
    pub fn deliver_one(&mut self) -> bool {
        let place = self.random.place(self.network.late_commits());
        let Some((name, outcome)) = self.network.deliver(place) else { return false };
        let outcome = match outcome {
            Ok(()) => "it is taken".to_owned(),
            Err(error) => error.to_string(),
        };
        self.trace.note(format!("a commit of {name} arrives late: {outcome}"));
        true
    }

    /// A worker stops, sometimes with a transaction that is aborted again and again.
    fn stop_one(&mut self, place: usize) -> Result<(), Broken> {
        if self.random.chance(40)
            && let Some(seat) = self.seats.get(place)
        {
            let aborts = self.random.below(6) + 1;
            for _ in 0..aborts {
                self.log.faults().next_commit(&seat.name, CommitFault::Abort);
            }
            self.trace.note(format!("the next {aborts} commits of {} will be aborted", seat.name));
            let seats = self.seats.len();
            self.step(place)?;
            if self.seats.len() < seats {
                return Ok(());
            }
        }
        self.stop(place)
    }

    /// The log is out of reach after some calls; often right under a worker that runs epochs again.
    fn lose_the_log(&mut self) -> Result<(), Broken> {
        let recovering = self.seats.iter().position(|seat| seat.worker.is_recovering());
        let place = recovering.filter(|_| self.random.chance(70));
        for _ in 0..STEPS_TO_RERUN {
            let Some(seat) = place.and_then(|place| self.seats.get(place)) else { break };
            if !seat.worker.is_recovering() || seat.worker.reruns() {
                break;
            }
            // One that waits for an open transaction would go on waiting.
            self.settle_all();
            self.step(place.unwrap_or_default())?;
        }
        let calls = u32::try_from(self.random.below(if place.is_some() { 6 } else { 15 })).unwrap_or(0);
        self.network.begin_outage(calls);
        self.trace.note(format!("an outage begins after {calls} calls"));
        match place {
            Some(place) => self.step(place).map(|_| ()),
            None => Ok(()),
        }
    }

    fn start_one(&mut self) -> Result<(), Broken> {
        let stage = self.random.place(self.builds.len());
        if self.seats.iter().filter(|seat| seat.stage == stage).count() >= MAX_WORKERS {
            return Ok(());
        }
        // A name that was used before fences who bore it, dead or alive.
        let prefix = format!("{}-", self.builds[stage].name);
        let mut names: Vec<SmolStr> = self.network.ghosts();
        names.extend(self.seats.iter().map(|seat| seat.name.clone()));
        names.retain(|name| name.starts_with(&prefix));
        let again = self.random.chance(25).then(|| names.get(self.random.place(names.len())).cloned());
        self.start(stage, again.flatten(), false)
    }

    fn end_a_session(&mut self) {
        let ghosts = self.network.ghosts();
        if let Some(name) = ghosts.get(self.random.place(ghosts.len())) {
            self.network.end_session(name);
            self.trace.note(format!("the session of {name} ends"));
        }
    }

    fn fail_commits(&mut self, place: usize) {
        let Some(seat) = self.seats.get(place) else { return };
        for _ in 0..=self.random.below(3) {
            let fault = match self.random.below(10) {
                0..3 => CommitFault::Abort,
                3 => CommitFault::UnknownWritten,
                4 => CommitFault::UnknownNotWritten,
                5..7 => CommitFault::HoldBack { commit: true },
                7..9 => CommitFault::HoldBack { commit: false },
                _ => CommitFault::Expire,
            };
            self.log.faults().next_commit(&seat.name, fault);
            self.trace.note(format!("a commit of {} will meet {fault:?}", seat.name));
        }
    }

    fn hold_up(&mut self, place: usize, holdup: Holdup) {
        if let Some(seat) = self.seats.get(place) {
            self.network.hold_up(&seat.name, holdup);
            self.trace.note(format!("the next commit of {} will meet {holdup:?}", seat.name));
        }
    }

    fn expire(&mut self, place: usize) {
        if let Some(seat) = self.seats.get(place) {
            self.log.expire(&self.builds[seat.stage].group(), &seat.name);
            self.trace.note(format!("{} is taken for dead", seat.name));
        }
    }

    /// Workers that start from now on run another build.
    fn build(&mut self) {
        let stage = self.random.place(self.builds.len());
        let build = u8::try_from(self.random.below(200)).unwrap_or(0) + 1;
        self.builds[stage] = Arc::new(rebuilt(&self.builds[stage], build));
        self.trace.note(format!("{} is built again: build {build}", self.builds[stage].name));
    }
}
