//! The seeded simulation of the engine: many seeds without a broken invariant, and bugs put in that it must find.
//!
//! Settings by environment: `SIM_SEED` runs one seed alone, `SIM_SEEDS` so many, `SIM_FIRST` is the first of them,
//! `SIM_EVENTS` how many events a failure shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use tidewire_engine::bugs::{self, Bug};
use tidewire_engine::sim::{self, Action, Failure, Report};

/// Seeds of a run that nobody asked for more of: about a minute on two cores.
const DEFAULT_SEEDS: u64 = 5_000;
/// Within so many seeds each bug that was put in must be found.
const SEEDS_TO_FIND_A_BUG: u64 = 25;

#[expect(clippy::disallowed_methods, reason = "a test is told by its environment what to run")]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")))
}

fn run(seed: u64) -> Result<Report, Box<Failure>> {
    let events = setting("SIM_EVENTS").and_then(|events| usize::try_from(events).ok());
    sim::run(seed, events.unwrap_or(sim::EVENTS))
}

/// Runs seeds on all cores; shows the first that fails.
#[expect(clippy::disallowed_methods, reason = "seeds know nothing of each other")]
fn run_all(seeds: &[u64]) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
    let shares = seeds.chunks(seeds.len().div_ceil(threads).max(1));
    let failed: Vec<Box<Failure>> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            shares.map(|share| scope.spawn(move || share.iter().find_map(|seed| run(*seed).err()))).collect();
        runs.into_iter().filter_map(|run| run.join().expect("a seed does not panic")).collect()
    });
    if let Some(failure) = failed.first() {
        panic!("{failure}");
    }
}

#[test]
fn kept_seeds_are_clean() {
    let lines = include_str!("sim_seeds.txt").lines().filter(|line| !line.starts_with('#'));
    let seeds: Vec<u64> = lines
        .filter_map(|line| line.split_whitespace().next())
        .map(|seed| seed.parse().expect("a line of sim_seeds.txt begins with a seed"))
        .collect();
    run_all(&seeds);
}

#[test]
#[expect(clippy::disallowed_macros, reason = "who runs one seed wants to see what it did")]
fn seeds_are_clean() {
    if let Some(seed) = setting("SIM_SEED") {
        match run(seed) {
            Ok(report) => println!("{report:#?}"),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let first = setting("SIM_FIRST").unwrap_or(1);
    let count = setting("SIM_SEEDS").unwrap_or(DEFAULT_SEEDS);
    run_all(&(first..first.saturating_add(count)).collect::<Vec<_>>());
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 1..=10 {
        let (one, other) = (run(seed).unwrap(), run(seed).unwrap());
        assert_eq!(one, other, "seed {seed}");
        assert_ne!(one.digest, run(seed + 1).unwrap().digest);
    }
}

/// A simulation in which nothing happens finds nothing: every kind of trouble and of record must be in a few seeds.
#[test]
fn a_hundred_seeds_have_everything_in_them() {
    let reports: Vec<Report> =
        (1..=100).map(|seed| run(seed).unwrap_or_else(|failure| panic!("{failure}"))).collect();
    let mut actions: BTreeMap<&str, u64> = BTreeMap::new();
    for report in &reports {
        for (action, count) in &report.actions {
            *actions.entry(action).or_insert(0) += count;
        }
    }
    for action in Action::ALL {
        let count = actions.get(&*format!("{action:?}")).copied().unwrap_or(0);
        assert!(count >= 30, "{action:?}: {count}");
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    for (what, count, least) in [
        ("records", sum(|report| report.records), 5_000),
        ("epochs", sum(|report| report.epochs), 5_000),
        ("outputs", sum(|report| report.outputs), 20_000),
        ("dead letters", sum(|report| report.dead_letters), 300),
        ("late records", sum(|report| report.late), 100),
        ("orders", sum(|report| report.orders), 400),
        ("recoveries", sum(|report| report.recoveries), 1_000),
        ("compacted records", sum(|report| report.compacted), 1_000),
        ("verified epochs", sum(|report| report.verified), 500),
    ] {
        assert!(count >= least, "{what}: {count}, fewer than {least}");
    }
    let rounds = reports.iter().map(|report| report.rounds).max();
    assert!(rounds.is_some_and(|rounds| rounds < 1_000), "{rounds:?}");
}

/// The first seed that finds `bug`, with what it says. Up to it, all seeds are clean without the bug.
fn find(bug: Bug) -> Failure {
    for seed in 1..=SEEDS_TO_FIND_A_BUG {
        if let Err(failure) = run(seed) {
            panic!("without a bug: {failure}");
        }
        if let Err(failure) = bugs::with(Some(bug), || run(seed)) {
            return *failure;
        }
    }
    panic!("{bug:?} is not found within {SEEDS_TO_FIND_A_BUG} seeds");
}

#[test]
fn a_skipped_entry_is_found() {
    find(Bug::SkippedEntry);
}

#[test]
fn a_batch_taken_twice_is_found() {
    find(Bug::BatchTwice);
}

#[test]
fn a_commit_of_a_zombie_is_found() {
    find(Bug::StaleGeneration);
}

#[test]
fn a_record_that_joined_out_of_order_is_found() {
    find(Bug::JoinedOutOfOrder);
}

#[test]
fn a_lost_timer_is_found() {
    find(Bug::LostTimer);
}

#[test]
fn an_input_idle_by_arrival_is_found() {
    // Nothing but an undisturbed run shows it: epoch records remember what was at its end, so re-runs agree.
    assert_eq!(find(Bug::WrongIdle).broken.invariant, "outputs as undisturbed");
}

#[test]
fn the_canary_is_found_and_a_failure_says_what_to_do() {
    let failure = find(Bug::PositionsLeftOut);
    let text = failure.to_string();
    assert!(text.contains(&format!("SIM_SEED={} ", failure.seed)), "{text}");
    assert!(text.contains(failure.broken.invariant) && failure.events.len() > 3, "{text}");
}
