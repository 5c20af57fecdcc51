//! The engine under simulation: one seed runs a small cluster on a log in memory, with crashes, zombies, rebalances,
//! lost answers, outages, bad records, upgrades and compaction, and checks what must hold whatever happens.
//!
//! A seed decides everything: the same seed is the same run, to the last event. What is simulated is the world around
//! the engine (log, network, clock, operators of a small pipeline); the engine itself is the one that runs.
//! `docs/simulation.md` says what is checked and how a failing seed is run again.

mod books;
mod calm;
mod chaos;
mod cluster;
mod compaction;
mod feed;
mod follow;
mod letters;
mod network;
pub mod operators;
mod random;
mod scenario;
mod stages;
mod straight;
mod trace;
mod windows;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use smol_str::SmolStr;

use cluster::Cluster;
use trace::Trace;

pub use scenario::{Action, Scenario};
pub use trace::{Broken, Failure};

/// What a run did, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Records that the outside appended.
    pub records: u64,
    /// Epochs that were checked.
    pub epochs: u64,
    /// Outputs that were checked.
    pub outputs: u64,
    /// Dead letters among them.
    pub dead_letters: u64,
    /// Intents that were approved into orders.
    pub orders: u64,
    /// Tasks that were recovered.
    pub recoveries: u64,
    /// Records that compaction took.
    pub compacted: u64,
    /// Records that were late for a window.
    pub late: u64,
    /// Rounds it took to consume everything once nothing was disturbed any more.
    pub rounds: u32,
    /// Epochs that were verified once more at the end, by what `tidewire verify` does.
    pub verified: u64,
    /// How often each action was drawn.
    pub actions: BTreeMap<String, u64>,
    /// A digest of everything that happened.
    pub digest: SmolStr,
}

impl Report {
    fn count(&mut self, action: Action) {
        *self.actions.entry(format!("{action:?}")).or_insert(0) += 1;
    }
}

/// Events that a failure tells of, where nobody asks for more.
pub const EVENTS: usize = 40;

/// Runs a seed to its end; a failure tells of the last `events` events.
///
/// # Errors
/// When an invariant does not hold: which, what was found, and what happened before.
pub fn run(seed: u64, events: usize) -> Result<Report, Box<Failure>> {
    let failure = |broken, events| Box::new(Failure { seed, broken, events });
    let cluster = Cluster::new(Scenario::of(seed), Trace::new(events));
    let mut cluster = cluster.map_err(|broken| failure(broken, Vec::new()))?;
    let done = catch_unwind(AssertUnwindSafe(|| run_to_end(&mut cluster)));
    let done = done.unwrap_or_else(|_| Err(Broken::new("no panic", "the engine panicked: see above")));
    match done {
        Ok(()) => Ok(Report { digest: cluster.trace.digest(), ..cluster.report.clone() }),
        Err(broken) => Err(failure(broken, cluster.trace.last())),
    }
}

fn run_to_end(cluster: &mut Cluster) -> Result<(), Broken> {
    for _ in 0..cluster.scenario.steps {
        cluster.disturb()?;
    }
    cluster.calm_down()
}
