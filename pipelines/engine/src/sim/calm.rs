//! The end of a run: nothing is disturbed any more, so everything must be consumed, and stay as it is.

use super::cluster::Cluster;
use super::straight;
use super::trace::Broken;
use crate::intake::Source;
use crate::plan::StageSpec;
use crate::verify::verify_task;

/// Rounds, each a step of every worker, after which what is not done stalls.
const MAX_ROUNDS: u32 = 4_000;
/// How far the clock goes when nothing is left to do, in milliseconds: windows close in silence.
const SILENCE_MS: i64 = 60_000;
/// How often that is done with no effect before the run is over.
const QUIET_TIMES: u32 = 2;
/// One seed in so many is verified as a whole at its end; its epochs were all run again before.
const VERIFIED_ONE_IN: u64 = 4;

impl Cluster {
    /// Clears all trouble, runs until nothing is left to do, and checks everything.
    pub fn calm_down(&mut self) -> Result<(), Broken> {
        self.trace.note("all trouble ends".to_owned());
        self.end_trouble()?;
        self.run_until_quiet()?;
        self.check_at_rest()?;
        self.check_complete()?;
        if let Some(lines) = self.follow().lines() {
            straight::compare(&self.scenario, &self.book, lines)?;
        }
        self.verify()?;
        self.check_recoverable()
    }

    fn end_trouble(&mut self) -> Result<(), Broken> {
        self.end_outage();
        self.network.clear_holdups();
        self.log.faults().clear();
        while self.deliver_one() {}
        for name in self.network.ghosts() {
            self.network.end_session(&name);
        }
        self.settle_all();
        self.seats.retain(|seat| !seat.recover_only);
        self.append_coming(usize::MAX).map(|_| ())
    }

    fn run_until_quiet(&mut self) -> Result<(), Broken> {
        let mut quiet = 0;
        for _ in 0..MAX_ROUNDS {
            self.report.rounds += 1;
            self.start_missing()?;
            let mut worked = false;
            // From the last to the first, because a worker that must be replaced leaves its place.
            for place in (0..self.seats.len()).rev() {
                worked |= self.step(place)?;
            }
            if worked {
                quiet = 0;
            } else if quiet == QUIET_TIMES {
                return Ok(());
            } else {
                quiet += 1;
                self.clock(SILENCE_MS);
                self.trace.note(format!("{SILENCE_MS} ms go by"));
            }
        }
        Err(Broken::new("nothing stalls", format!("there is still work after {MAX_ROUNDS} rounds")))
    }

    /// A stage without a worker gets one.
    fn start_missing(&mut self) -> Result<(), Broken> {
        for stage in 0..self.builds.len() {
            if !self.seats.iter().any(|seat| seat.stage == stage) {
                self.start(stage, None, false)?;
            }
        }
        Ok(())
    }

    fn check_at_rest(&mut self) -> Result<(), Broken> {
        if !self.check()? {
            return Err(Broken::new("nothing stalls", "a transaction is still open"));
        }
        for (stage, spec) in self.builds.iter().enumerate() {
            let seats = self.seats.iter().filter(|seat| seat.stage == stage);
            let mut held: Vec<u32> =
                seats.clone().flat_map(|seat| seat.worker.tasks()).map(|t| t.number()).collect();
            held.sort_unstable();
            if held != (0..spec.tasks()).collect::<Vec<_>>() {
                let detail = format!("{}: tasks {held:?} of {} run", spec.name, spec.tasks());
                return Err(Broken::new("nothing stalls", detail));
            }
            let loads = seats.clone().map(|seat| seat.worker.tasks().count());
            if loads.clone().max() > loads.clone().min().map(|least| least + 1) {
                let detail = format!("{}: the workers hold {:?} tasks", spec.name, loads.collect::<Vec<_>>());
                return Err(Broken::new("tasks are spread evenly", detail));
            }
            for task in 0..spec.tasks() {
                self.check_cut(stage, task, spec)?;
            }
            let mut tasks = seats.flat_map(|seat| seat.worker.tasks());
            if let Some((task, timer)) = tasks.find_map(|task| Some((task.number(), task.next_timer()?))) {
                let detail = format!("{}/{task}: the timer at {} ms did not fire", spec.name, timer.as_ms());
                return Err(Broken::new("nothing stalls", detail));
            }
        }
        Ok(())
    }

    /// `tidewire verify` must find every epoch as it was, as long as their inputs are all there.
    fn verify(&mut self) -> Result<(), Broken> {
        if self.ages.inputs_compacted() || !self.scenario.seed.is_multiple_of(VERIFIED_ONE_IN) {
            return Ok(());
        }
        for spec in &self.builds {
            for task in 0..spec.tasks() {
                let report = verify_task(&self.log, spec, &self.book, task, |_| {});
                let report = report.map_err(|error| Broken::new("verification", error.to_string()))?;
                if let Some(difference) = report.difference {
                    let detail = format!("{}/{task}: {difference:?}", spec.name);
                    return Err(Broken::new("verification", detail));
                }
                self.report.verified += report.epochs;
            }
        }
        Ok(())
    }

    /// A task at rest is cut: nothing that recovery would read again is left to grow old.
    fn check_cut(&self, stage: usize, task: u32, spec: &StageSpec) -> Result<(), Broken> {
        for (place, source) in Source::of_task(spec, task).iter().enumerate() {
            let again = self.follow().read_again(stage, task, place);
            if !again.is_empty() {
                let detail = format!("{}/{task}: {} {again:?} is in no cut", spec.name, source.at);
                return Err(Broken::new("a task at rest is cut", detail));
            }
        }
        Ok(())
    }

    /// Everything is killed once more: what was committed must be there again, and nothing new.
    fn check_recoverable(&mut self) -> Result<(), Broken> {
        let outputs = self.report.outputs;
        while !self.seats.is_empty() {
            self.crash(0, false);
        }
        // All of it is old by now: a second pass takes the tombstones too.
        for topic in self.builds.iter().map(|spec| spec.changelog_topic()).collect::<Vec<_>>() {
            for _ in 0..2 {
                self.compact(&topic)?;
            }
        }
        self.run_until_quiet()?;
        self.check_at_rest()?;
        if self.report.outputs != outputs {
            let detail = format!("{} outputs, {outputs} before all workers were killed", self.report.outputs);
            return Err(Broken::new("recovery makes nothing new", detail));
        }
        self.check_complete()
    }
}
