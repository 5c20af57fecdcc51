//! A cluster with a backlog, and the shipped pipeline on it: where storms happen.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewire_engine::log::{Log, LogError, TopicPartition, TopicSpec};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_runtime::registry::open_book;
use tidewire_schemas::{Record, SchemaBook, topics};

use crate::backlog::{Backlog, Wish};
use crate::clients::{self, Isolation, Seen};
use crate::cluster::Cluster;
use crate::outputs::Outputs;
use crate::process::Running;
use crate::shipped::lasting_pipeline;

/// After how long a silent member of a group counts as gone: the least that brokers take.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// The stage that reads the ticks.
pub const STAGE_A: &str = "signals";
/// The shipped pipeline.
const PIPELINE: &str = "market-intel";
/// How long nothing may come out before a run counts as done.
const QUIET: Duration = Duration::from_secs(5);
/// How long a run may stand still before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(180);

/// A cluster of its own with all the ticks already written, before anything runs.
pub struct Site {
    /// The cluster.
    pub cluster: Cluster,
    /// Files of the run.
    pub folder: TempDir,
    /// The schemas by their ids.
    pub book: SchemaBook,
    tidewire: PathBuf,
    pipeline: PathBuf,
    partitions: u32,
    log: KafkaLog,
}

impl Site {
    /// Starts a cluster of so many nodes and writes what is wished. A small `max_records` makes a run long enough to be
    /// hit in the middle.
    pub fn make(tidewire: &Path, nodes: u32, wish: Wish, max_records: u32) -> Self {
        let cluster = Cluster::of_nodes(nodes);
        let folder = tempfile::tempdir().unwrap();
        let partitions = wish.partitions;
        let pipeline = pipeline(folder.path(), partitions, max_records);
        let log = KafkaLog::connect(KafkaOptions::new(cluster.bootstrap())).unwrap();
        let book = open_book(&log).unwrap();
        let site = Self { cluster, folder, book, tidewire: tidewire.to_owned(), pipeline, partitions, log };
        for topic in [topics::NEWS, topics::SENTIMENT, topics::INSTRUMENTS] {
            site.succeeds(&["topics", "create", topic]);
        }
        site.succeeds(&["topics", "create", topics::TICKS, "--partitions", &partitions.to_string()]);
        Backlog::make(tidewire, &site.book, wish).write(site.cluster.bootstrap());
        site
    }

    /// `tidewire` on this cluster. `LOG_LEVEL` sets how much it tells of itself.
    pub fn tidewire(&self) -> Command {
        let level = std::env::var("LOG_LEVEL").unwrap_or_else(|_| "warn".to_owned());
        let mut command = Command::new(&self.tidewire);
        command.args(["--log-level", &level, "--bootstrap", self.cluster.bootstrap()]);
        command
    }

    /// One more process that runs the pipeline, with one worker a stage.
    pub fn run(&self, name: &str) -> Running {
        let mut command = self.tidewire();
        Running::start(
            command.arg("run").arg(&self.pipeline).args(["--workers", "1"]),
            self.folder.path(),
            name,
        )
    }

    /// The share of the ticks whose results are committed, as far as the cluster answers.
    pub fn share(&self) -> Result<f64, LogError> {
        let group = format!("{PIPELINE}.{STAGE_A}");
        let (mut done, mut all) = (0, 0);
        for partition in 0..self.partitions {
            let at = TopicPartition::new(topics::TICKS, partition);
            all += self.log.bounds(&at)?.stable_end;
            done += self.log.committed_unstable(&group, &at)?.map_or(0, |committed| committed.offset);
        }
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        Ok(done as f64 / f64::max(all as f64, 1.0))
    }

    /// A number that changes whenever something comes out.
    fn written(&self) -> Option<u64> {
        let mut written = 0;
        for topic in self.output_topics()? {
            for partition in 0..topic.partitions {
                let at = TopicPartition::new(topic.name.clone(), partition);
                written += self.log.bounds(&at).ok()?.high_watermark;
            }
        }
        Some(written)
    }

    /// Waits until so much is done; nobody may end meanwhile. Returns how much is.
    pub fn wait_for_share(&self, wanted: f64, running: &mut [Running]) -> f64 {
        let (mut moved, mut last) = (Instant::now(), 0.0);
        loop {
            running.iter_mut().for_each(Running::check_alive);
            match self.share() {
                Ok(share) if share >= wanted => return share,
                Ok(share) if share > last => (moved, last) = (Instant::now(), share),
                stuck => {
                    let said = || said(running);
                    assert!(
                        moved.elapsed() < PATIENCE,
                        "{stuck:?} after {last} for {PATIENCE:?}: {}",
                        said()
                    );
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until all ticks are taken and nothing more comes out.
    pub fn wait_until_done(&self, running: &mut [Running]) {
        self.wait_for_share(1.0, running);
        let (started, mut quiet_since, mut last) = (Instant::now(), Instant::now(), None);
        while quiet_since.elapsed() < QUIET {
            running.iter_mut().for_each(Running::check_alive);
            let written = self.written();
            if written.is_none() || written != last {
                (last, quiet_since) = (written, Instant::now());
            }
            assert!(started.elapsed() < PATIENCE, "no end after {PATIENCE:?}: {}", said(running));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// All that came out, as a client that is not ours sees it.
    pub fn outputs(&self) -> Outputs {
        let outputs = self.output_topics().expect("the cluster answers");
        let names: Vec<&str> = outputs.iter().map(|topic| topic.name.as_str()).collect();
        Outputs::seen(&clients::read(self.cluster.bootstrap(), &names, Isolation::Settled))
    }

    /// The epoch records, as that client sees them.
    pub fn epochs(&self) -> Vec<(Seen, Record)> {
        let topic = format!("{PIPELINE}.epochs");
        let seen = clients::read(self.cluster.bootstrap(), &[&topic], Isolation::Settled);
        let decoded = |seen: Seen| {
            let record = self.book.decode(seen.value.as_deref().unwrap()).unwrap();
            (seen, record)
        };
        seen.into_iter().map(decoded).collect()
    }

    /// `verify` repeats every recorded epoch of every stage, and finds each byte as it lies there. Returns what it says.
    pub fn verify(&self) -> String {
        self.succeeds(&["verify", self.pipeline.to_str().unwrap()])
    }

    /// Runs a command that must succeed, and returns what it says.
    pub fn succeeds(&self, words: &[&str]) -> String {
        let output = self.tidewire().args(words).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        said
    }

    fn output_topics(&self) -> Option<Vec<TopicSpec>> {
        let inner = |name: &str| {
            name == topics::TICKS
                || name.starts_with('_')
                || name.ends_with(".epochs")
                || name.ends_with(".changelog")
        };
        let all = self.log.topics().ok()?;
        Some(all.into_iter().filter(|topic| !inner(&topic.name)).collect())
    }
}

fn said(running: &[Running]) -> String {
    running.iter().map(Running::said).collect::<Vec<_>>().join("\n---\n")
}

/// The shipped pipeline over so many partitions.
fn pipeline(folder: &Path, partitions: u32, max_records: u32) -> PathBuf {
    let mut text = lasting_pipeline(&[
        ("partitions = 4", format!("partitions = {partitions}")),
        ("[engine]\n", format!("[engine]\nmax_records = {max_records}\n")),
    ]);
    text += &format!("\n[kafka]\nsession_timeout_ms = {}\n", SESSION_TIMEOUT.as_millis());
    let path = folder.join("market-intel.toml");
    std::fs::write(&path, text).unwrap();
    path
}
