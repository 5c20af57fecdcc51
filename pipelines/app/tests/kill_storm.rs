//! `run` is killed at random moments and started again: nothing is lost, nothing is there twice, and what stage A
//! gave out is what an undisturbed run gives.
//!
//! `KILLS` sets the number of kills for each number of workers (50 for the full storm; the default suits CI).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_engine::log::{Log, TopicPartition};
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions, RemoteLog};
use tidewire_runtime::registry::open_book;
use tidewire_schemas::SchemaBook;
use tidewire_tests::backlog::import;
use tidewire_tests::outputs::{Outputs, partitions};
use tidewire_tests::process::Running;
use tidewire_tests::random::Random;
use tidewire_tests::shipped::lasting_pipeline;

const TICKS: &str = "market.ticks.v1";
/// How long nothing may change before a run counts as done.
const QUIET: Duration = Duration::from_secs(3);
/// How long a run may take at most.
const PATIENCE: Duration = Duration::from_secs(300);

fn tidewire(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.arg("--data").arg(data).arg("--log-level").arg("error").stdin(Stdio::null());
    // Small epochs make the run long enough to be hit in the middle.
    command.env("TIDEWIRE__ENGINE__MAX_RECORDS", "64");
    command
}

fn pipeline(folder: &Path) -> PathBuf {
    let path = folder.join("market-intel.toml");
    std::fs::write(&path, lasting_pipeline(&[])).unwrap();
    path
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn start(data: &Path, pipeline: &Path, workers: usize) -> Running {
    let mut command = tidewire(data);
    command.arg("run").arg(pipeline).args(["--workers", &workers.to_string()]);
    Running::start(&mut command, data.parent().unwrap(), "run")
}

/// Connects to a process that is just starting.
fn connect(data: &Path, running: &mut Running) -> RemoteLog {
    let started = Instant::now();
    loop {
        match RemoteLog::connect(data) {
            Ok(log) => return log,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        running.check_alive();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Share of the ticks that stage A has committed, and a number that changes whenever anything is written.
fn progress(log: &dyn Log, group: &str) -> Option<(f64, u64)> {
    let (mut done, mut all, mut written) = (0, 0, 0);
    for at in partitions(log, TICKS) {
        all += log.bounds(&at).ok()?.stable_end;
        done += log.committed(group, &at).ok()?.map_or(0, |committed| committed.offset);
    }
    for topic in log.topics().ok()? {
        // Epoch records of time alone go on for ever: what counts is what comes out.
        if topic.name.ends_with(".epochs") || topic.name.ends_with(".changelog") {
            continue;
        }
        for partition in 0..topic.partitions {
            written += log.bounds(&TopicPartition::new(topic.name.clone(), partition)).ok()?.stable_end;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    Some((done as f64 / f64::max(all as f64, 1.0), written))
}

/// Waits until all ticks are taken and nothing more comes out.
fn wait_until_done(data: &Path, running: &mut Running, group: &str) {
    let log = connect(data, running);
    let (started, mut quiet_since, mut last) = (Instant::now(), Instant::now(), 0);
    loop {
        running.check_alive();
        if let Some((share, written)) = progress(&log, group) {
            if share < 1.0 || written != last {
                (last, quiet_since) = (written, Instant::now());
            }
            if quiet_since.elapsed() >= QUIET {
                return;
            }
        }
        assert!(started.elapsed() < PATIENCE, "not done after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn open(data: &Path) -> (Arc<dyn Log>, SchemaBook) {
    let log: Arc<dyn Log> = EmbeddedLog::open(data, EmbeddedOptions::default()).unwrap();
    let book = open_book(&*log).unwrap();
    (log, book)
}

fn verify(data: &Path, pipeline: &Path) {
    let output = tidewire(data).arg("verify").arg(pipeline).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

#[test]
fn killed_at_random_moments_nothing_is_lost_or_doubled() {
    let kills: u32 = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8);
    let folder = tempfile::tempdir().unwrap();
    let pipeline = pipeline(folder.path());
    let loaded = folder.path().join("loaded");
    import(Path::new(env!("CARGO_BIN_EXE_tidewire")), &loaded);
    let group = "market-intel.signals";

    let straight = folder.path().join("straight");
    copy(&loaded, &straight);
    let mut running = start(&straight, &pipeline, 1);
    wait_until_done(&straight, &mut running, group);
    running.interrupt();
    let expected = {
        let (log, book) = open(&straight);
        let all = Outputs::of_log(&*log);
        all.check_identities();
        assert!(all.check_books(&book).1 > 0, "there are fills");
        all
    };

    let mut random = Random::new(20_240_808);
    for workers in [1, 2, 4] {
        let data = folder.path().join(format!("storm-{workers}"));
        copy(&loaded, &data);
        let mut targets: Vec<f64> = (0..kills).map(|_| 0.01 + 0.98 * random.share()).collect();
        targets.sort_by(f64::total_cmp);
        let mut hit = 0;
        for target in targets {
            let mut running = start(&data, &pipeline, workers);
            let log = connect(&data, &mut running);
            let mut share = 0.0;
            while share < target {
                running.check_alive();
                share = progress(&log, group).map_or(share, |(share, _)| share);
            }
            // Not always just behind a commit.
            std::thread::sleep(Duration::from_micros(
                u64::try_from((random.share() * 5_000.0) as i64).unwrap_or(0),
            ));
            running.kill();
            hit += u32::from(share < 0.99);
        }
        let mut running = start(&data, &pipeline, workers);
        wait_until_done(&data, &mut running, group);
        running.interrupt();
        let (identities, fills, compared) = {
            let (log, book) = open(&data);
            let all = Outputs::of_log(&*log);
            (all.check_identities(), all.check_books(&book).1, all.check_equal(&expected, "signals"))
        };
        verify(&data, &pipeline);
        assert!(fills > 0 && compared > 1_000, "{fills} fills, {compared} compared");
        println!(
            "{workers} workers: {kills} kills ({hit} below 99 %), {compared} outputs of stage A equal, \
             {identities} identities once each, {fills} fills"
        );
    }
}
