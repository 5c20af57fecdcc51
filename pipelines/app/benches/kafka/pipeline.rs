//! The pipeline that is measured: every tick gives one signal.
//!
//! A quote's microprice lies on the side of the larger quantity. The load gives each instrument a larger bid and a
//! larger offer in turn, so a rule that compares microprice and mid changes its mind at every quote. The signal bears
//! the quote's event time, which is the time at which it was meant to be sent.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewire_engine::log::{Log, TopicPartition, TopicSpec};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_runtime::registry::open_book;
use tidewire_schemas::SchemaBook;

use crate::cluster::Cluster;
use crate::load;
use crate::produce::PATIENCE;

/// A log with a pipeline's topics. Topics of one name are one cluster's, so they are emptied for each bed.
pub struct Bed {
    pub bootstrap: String,
    pub book: Arc<SchemaBook>,
    pub log: Arc<KafkaLog>,
    pub ticks: String,
    pub signals: String,
    pub partitions: u32,
    name: String,
    text: String,
    folder: TempDir,
}

/// What a pipeline is written with.
pub struct Names {
    pub pipeline: String,
    pub ticks: String,
    pub signals: String,
    pub partitions: u32,
}

impl Bed {
    /// With the one stage of [`signals_stage`].
    pub fn new(cluster: &Cluster, name: &str, partitions: u32) -> Self {
        Self::of(cluster, name, partitions, signals_stage)
    }

    /// With a pipeline that reads the ticks and gives the signals.
    pub fn of(cluster: &Cluster, name: &str, partitions: u32, text: impl Fn(&Names) -> String) -> Self {
        let log = Arc::new(KafkaLog::connect(KafkaOptions::new(&cluster.bootstrap)).unwrap());
        let book = Arc::new(open_book(&*log).unwrap());
        let name = format!("{name}-{}", std::process::id());
        let (ticks, signals) = (format!("ticks.{name}"), format!("signals.{name}"));
        for topic in [&ticks, &signals] {
            log.create_topic(&TopicSpec::new(topic.as_str(), partitions)).unwrap();
        }
        let bootstrap = cluster.bootstrap.clone();
        let names = Names { pipeline: name, ticks, signals, partitions };
        let text = text(&names);
        let Names { pipeline: name, ticks, signals, .. } = names;
        let folder = tempfile::tempdir().unwrap();
        Self { bootstrap, book, log, ticks, signals, partitions, name, text, folder }
    }

    /// All topics that the pipeline needs.
    pub fn create_topics(&self) {
        let mut create = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        create.args(["topics", "create", "--bootstrap", &self.bootstrap, "--pipeline"]).arg(self.file());
        let created = create.output().unwrap();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    }

    fn file(&self) -> PathBuf {
        let path = self.folder.path().join("pipeline.toml");
        std::fs::write(&path, &self.text).unwrap();
        path
    }

    /// Sends a tick to each partition and waits until each was taken.
    pub fn wait_until_it_runs(&self) {
        load::one_each(self);
        let group = format!("{}.signals", self.name);
        let begun = Instant::now();
        let taken = |p| {
            let at = TopicPartition::new(self.ticks.as_str(), p);
            self.log
                .committed_unstable(&group, &at)
                .ok()
                .flatten()
                .is_some_and(|position| position.offset > 0)
        };
        while !(0..self.partitions).all(taken) {
            assert!(begun.elapsed() < PATIENCE, "the ticks are not taken");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A stage in which every tick whose sizes turned round gives a signal. Tables that follow belong to it.
pub fn signals_stage(names: &Names) -> String {
    let Names { pipeline: name, ticks, signals, partitions } = names;
    format!(
        r#"
        [pipeline]
        name = "{name}"
        partitions = {partitions}

        [topics."{ticks}"]
        partitions = {partitions}
        kinds = ["Quote"]

        [topics."{signals}"]
        partitions = {partitions}

        [[stage]]
        name = "signals"

        [[stage.input]]
        id = "ticks"
        topic = "{ticks}"
        role = "driving"

        [[stage.operator]]
        id = "mid"
        type = "mid"
        from = ["ticks"]

        [[stage.operator]]
        id = "micro"
        type = "microprice"
        from = ["ticks"]

        [[stage.operator]]
        id = "vector"
        type = "as_of"
        from = ["mid", "micro"]
        features = ["mid", "microprice"]
        trigger = "microprice"

        [[stage.operator]]
        id = "rule"
        type = "momentum"
        from = ["vector"]
        strategy = "imbalance"
        fast = "microprice"
        slow = "mid"
        horizon_ms = 86_400_000

        [[stage.output]]
        topic = "{signals}"
        from = ["rule"]
        "#
    )
}

/// `tidewire run`, until it is stopped.
pub struct Running {
    child: Child,
}

impl Running {
    pub fn start(bed: &Bed, workers: u64) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_tidewire"))
            .arg("run")
            .arg(bed.file())
            .args(["--bootstrap", &bed.bootstrap, "--workers", &workers.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM: it finishes its epoch.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(status.success(), "{status}: {said}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
