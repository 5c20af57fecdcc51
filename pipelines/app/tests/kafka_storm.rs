//! The shipped pipeline on a real Apache Kafka, through what befalls processes and brokers: nothing is lost, nothing is
//! there twice, every order once, stage A gives what an undisturbed run gives, and `verify` repeats the rest.
//!
//! What came out is read by a client that is not ours. `ROUNDS` sets the number of blows to processes (3 for CI, 30 for
//! the soak), `TELLINGS` how often the recording is told: the backlog must outlast the rounds. `CAPTURES` names a folder
//! of other captures, and `PARTITIONS` how many partitions the ticks have, each with an instrument of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidewire_tests::backlog::Wish;
use tidewire_tests::epochs;
use tidewire_tests::outputs::Outputs;
use tidewire_tests::process::Running;
use tidewire_tests::random::Random;
use tidewire_tests::site::{SESSION_TIMEOUT, STAGE_A, Site};

/// Small epochs make the run long enough to be hit in the middle.
const MAX_RECORDS: u32 = 32;
/// How much of a scaling up or down is looked at.
const SCALING_MS: i64 = 20_000;

fn tidewire() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tidewire"))
}

fn variable(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn wish() -> Wish {
    Wish { partitions: variable("PARTITIONS", 12), instruments: 1, tellings: variable("TELLINGS", 1) }
}

/// One storm at a time: clusters and processes of several would only take each other's time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What comes out when nothing happens.
fn undisturbed() -> &'static Outputs {
    static OUTPUTS: OnceLock<Outputs> = OnceLock::new();
    OUTPUTS.get_or_init(|| {
        let site = Site::make(tidewire(), 1, wish(), MAX_RECORDS);
        let mut running = [site.run("undisturbed")];
        site.wait_until_done(&mut running);
        running.into_iter().for_each(Running::terminate);
        let outputs = site.outputs();
        outputs.check_identities();
        let (orders, fills) = outputs.check_books(&site.book);
        assert!(orders > 0 && fills > 0, "there are orders and fills");
        outputs
    })
}

/// Everything that must be true of a run that is over.
fn check(site: &Site, what: &str) {
    let outputs = site.outputs();
    let identities = outputs.check_identities();
    let (orders, fills) = outputs.check_books(&site.book);
    let epochs = epochs::check(&epochs::by_task(&site.epochs()));
    let compared = outputs.check_equal(undisturbed(), STAGE_A);
    assert!(
        orders > 0 && fills > 0 && compared > 1_000,
        "{orders} orders, {fills} fills, {compared} compared"
    );
    println!("{}", site.verify());
    println!(
        "{what}: {identities} identities once each, {orders} orders once each, {fills} fills, {epochs} epochs, \
         {compared} outputs of stage A equal"
    );
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    Terminate,
    /// Past the session time-out: the others take over, and it wakes as one whose time is over.
    Pause,
}

#[test]
fn processes_are_killed_stopped_and_frozen() {
    let _alone = alone();
    let rounds = variable("ROUNDS", 3);
    let mut random = Random::new(20_240_808);
    let site = Site::make(tidewire(), 1, wish(), MAX_RECORDS);
    let mut running: Vec<Running> = (0..3).map(|number| site.run(&format!("process-{number}"))).collect();

    let mut targets: Vec<f64> = (0..rounds).map(|_| 0.02 + 0.78 * random.share()).collect();
    targets.sort_by(f64::total_cmp);
    let mut blows = Vec::new();
    for (round, target) in targets.into_iter().enumerate() {
        let share = site.wait_for_share(target, &mut running);
        std::thread::sleep(Duration::from_secs_f64(random.share()));
        if blows.is_empty() {
            blows = vec![Blow::Kill, Blow::Terminate, Blow::Pause];
        }
        let blow = blows.remove(random.below(blows.len()));
        let victim = random.below(running.len());
        println!("round {round}: {blow:?} of process {victim} at {:.1} %", share * 100.0);
        assert!(share < 0.99, "the backlog outlasts the rounds: set TELLINGS higher");
        strike(&site, &mut running, blow, victim, &mut random);
    }
    zombie_with_timers(&site, &mut running, random.below(3));
    site.wait_until_done(&mut running);
    running.into_iter().for_each(Running::terminate);
    check(&site, &format!("{rounds} rounds"));
}

fn strike(site: &Site, running: &mut Vec<Running>, blow: Blow, victim: usize, random: &mut Random) {
    match blow {
        Blow::Kill | Blow::Terminate => {
            let process = running.remove(victim);
            if blow == Blow::Kill {
                process.kill()
            } else {
                process.terminate()
            }
            std::thread::sleep(Duration::from_secs_f64(2.0 * random.share()));
            running.insert(victim, site.run(&format!("process-{}", unix_ms())));
        }
        Blow::Pause => {
            running[victim].pause();
            std::thread::sleep(SESSION_TIMEOUT + Duration::from_secs_f64(1.0 + 3.0 * random.share()));
            running[victim].resume();
        }
    }
}

/// All ticks are taken, but windows are open and timers due when the process stands still. The others fire them; when it
/// wakes it has nothing but these timers, and must commit nothing: the checks of epochs and identities would find it.
fn zombie_with_timers(site: &Site, running: &mut [Running], victim: usize) {
    site.wait_for_share(1.0, running);
    running[victim].pause();
    std::thread::sleep(SESSION_TIMEOUT + Duration::from_secs(5));
    running[victim].resume();
}

/// On three brokers with three replicas each. A single broker that is started again may forget the end of a transaction
/// that it acknowledged, whoever the client is: docs/decisions/0015-rdkafka.md.
#[test]
fn brokers_are_lost_and_come_back() {
    let _alone = alone();
    let site = Site::make(tidewire(), 3, wish(), MAX_RECORDS);
    let mut running: Vec<Running> = (0..2).map(|number| site.run(&format!("process-{number}"))).collect();
    site.wait_for_share(0.15, &mut running);
    // Longer than the shipped pipeline takes to call an input idle or a feed stale: an outage is neither.
    (1..=3).for_each(|node| site.cluster.pause(node));
    std::thread::sleep(Duration::from_secs(6));
    (1..=3).for_each(|node| site.cluster.resume(node));
    site.wait_for_share(0.3, &mut running);
    site.cluster.kill(2);
    site.wait_for_share(0.45, &mut running);
    site.cluster.start_node(2);
    site.wait_for_share(0.55, &mut running);
    site.cluster.stop_node(1);
    site.cluster.start_node(1);
    let share = site.wait_for_share(0.65, &mut running);
    site.cluster.kill(3);
    assert!(share < 0.99, "the backlog outlasts the losses");
    site.wait_until_done(&mut running);
    running.into_iter().for_each(Running::terminate);
    check(&site, "all brokers stood still, one was killed, one stopped, one lost for good");
}

#[test]
fn scaled_up_and_down() {
    let _alone = alone();
    let site = Site::make(tidewire(), 1, wish(), MAX_RECORDS);
    let mut running = vec![site.run("process-0")];
    site.wait_for_share(0.15, &mut running);
    let up_ms = unix_ms();
    running.push(site.run("process-1"));
    running.push(site.run("process-2"));
    site.wait_for_share(0.6, &mut running);
    let down_ms = unix_ms();
    running.drain(1..).for_each(Running::terminate);
    site.wait_until_done(&mut running);
    running.into_iter().for_each(Running::terminate);

    let journal = epochs::by_task(&site.epochs());
    for (what, at_ms) in [("1 -> 3", up_ms), ("3 -> 1", down_ms)] {
        let stood = epochs::standstills(&journal, STAGE_A, at_ms, at_ms + SCALING_MS);
        assert!(!stood.is_empty(), "stage A was at work while it was scaled");
        println!(
            "{what} processes: partitions stood still for {} ms (median), {} ms (worst)",
            stood[stood.len() / 2],
            stood[stood.len() - 1]
        );
    }
    check(&site, "1 -> 3 -> 1 processes");
}

fn unix_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
