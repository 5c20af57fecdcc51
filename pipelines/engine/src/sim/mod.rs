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

/// Runs a seed to its end.
///
/// # Errors
/// When an invariant does not hold: which, what was found, and the last events before it.
pub fn run(seed: u64) -> Result<Report, Box<Failure>> {
    let failure = |broken, trace: &Trace| Box::new(Failure { seed, broken, events: trace.last() });
    let mut cluster =
        Cluster::new(Scenario::of(seed)).map_err(|broken| failure(broken, &Trace::default()))?;
    let done = catch_unwind(AssertUnwindSafe(|| run_to_end(&mut cluster)));
    let done = done.unwrap_or_else(|_| Err(Broken::new("no panic", "the engine panicked: see above")));
    match done {
        Ok(()) => Ok(Report { digest: cluster.trace.digest(), ..cluster.report.clone() }),
        Err(broken) => Err(failure(broken, &cluster.trace)),
    }
}

fn run_to_end(cluster: &mut Cluster) -> Result<(), Broken> {
    for _ in 0..cluster.scenario.steps {
        cluster.disturb()?;
    }
    cluster.calm_down()
}
