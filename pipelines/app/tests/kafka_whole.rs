//! The same inputs, written whole before the start, give the same on the embedded log and on a real Apache Kafka.
//!
//! What came out of Kafka is read by a client that is not ours. `CAPTURES` names a folder of Binance captures to take
//! instead of the sample that ships.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewire_engine::log::{Log, NewRecord, TopicPartition};
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::registry::open_book;
use tidewire_schemas::{Record, SchemaBook};
use tidewire_tests::backlog::captures;
use tidewire_tests::clients::{self, Isolation, Seen};
use tidewire_tests::cluster::Cluster;
use tidewire_tests::outputs::{Outputs, partitions, read};
use tidewire_tests::process::Running;
use tidewire_tests::root;
use tidewire_tests::shipped::lasting_pipeline;

/// Bytes in front of the body: a zero and the schema's id, which each log gives out for itself.
const PREFIX: usize = 5;
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// Nothing left to be taken for so long means that a live run is done.
const QUIET: Duration = Duration::from_secs(8);

/// Where a run is: the options that name its log.
struct Site {
    options: Vec<String>,
    folder: tempfile::TempDir,
}

impl Site {
    fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data").display().to_string();
        Self {
            options: vec!["--data".to_owned(), data, "--durability".to_owned(), "buffered".to_owned()],
            folder,
        }
    }

    fn kafka(cluster: &Cluster) -> Self {
        let options = vec!["--bootstrap".to_owned(), cluster.bootstrap().to_owned()];
        Self { options, folder: tempfile::tempdir().unwrap() }
    }

    fn tidewire(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.args(["--log-level", "warn"]).args(&self.options).args(words);
        command
    }

    fn succeeds(&self, words: &[&str]) -> String {
        let output = self.tidewire(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Imports everything before anything runs. The producer has no transactions.
    fn import(&self, file: &Path) {
        self.succeeds(&["topics", "create", "--pipeline", file.to_str().unwrap()]);
        let files = captures();
        let mut words = vec!["import"];
        words.extend(files.iter().map(|file| file.to_str().unwrap()));
        let news = root().join("samples/news/crypto_news_20220704.csv");
        if std::env::var_os("CAPTURES").is_none() {
            words.push(news.to_str().unwrap());
            words.extend(["--news-from", "2024-08-08T23:54:15Z", "--news-to", "2024-08-08T23:55:51Z"]);
        }
        println!("{}", self.succeeds(&words).lines().last().unwrap_or_default());
    }

    /// Runs live until everything is taken and nothing more comes.
    fn run_live(&self, file: &Path) {
        let mut running =
            Running::start(&mut self.tidewire(&["run", file.to_str().unwrap()]), self.folder.path(), "run");
        let (begun, mut quiet_since) = (Instant::now(), Instant::now());
        while quiet_since.elapsed() < QUIET {
            std::thread::sleep(Duration::from_millis(500));
            running.check_alive();
            assert!(begun.elapsed() < PATIENCE, "no end: {}", running.said());
            let now = self.tidewire(&["status", "--json"]).output().unwrap();
            let Ok(status) = serde_json::from_slice::<Value>(&now.stdout) else { continue };
            // Timers go on in silence, and epochs with them; what counts is that nothing is left to be taken.
            if lag(&status) != Some(0) {
                quiet_since = Instant::now();
            }
        }
        running.terminate();
    }

    fn log(&self) -> std::sync::Arc<EmbeddedLog> {
        EmbeddedLog::open(self.folder.path().join("data"), EmbeddedOptions::default()).unwrap()
    }
}

/// The lag over all tasks, once all have run.
fn lag(status: &Value) -> Option<u64> {
    let stages = status.as_array().into_iter().flatten().filter_map(|pipeline| pipeline["stages"].as_array());
    let tasks = stages.flatten().filter_map(|stage| stage["tasks"].as_array()).flatten();
    let lags: Option<Vec<u64>> = tasks.map(|task| task["epoch"].as_u64().and(task["lag"].as_u64())).collect();
    lags.filter(|lags| !lags.is_empty()).map(|lags| lags.iter().sum())
}

fn pipeline(folder: &Path) -> PathBuf {
    let path = folder.join("market-intel.toml");
    std::fs::write(&path, lasting_pipeline(&[])).unwrap();
    path
}

/// A record without what each log gives out for itself: offset and schema id.
type Content = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

fn body(value: Vec<u8>) -> Vec<u8> {
    value.get(PREFIX..).unwrap_or_default().to_vec()
}

fn of_ours(record: &NewRecord) -> Content {
    let headers = record.headers.iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect();
    let value = record.value.as_ref().map(|value| body(value.to_vec()));
    (record.timestamp_ms, record.key.as_ref().map(|key| key.to_vec()), value, headers)
}

/// As the other client saw it: the time of a record on a compacted topic is in its header.
fn of_seen(seen: &Seen) -> Content {
    let own = seen.header("time-ms").filter(|_| seen.is_append_time);
    let timestamp_ms = own.map_or(seen.timestamp_ms, |text| text.parse().unwrap());
    let headers = seen.headers.iter().filter(|(name, _)| !(seen.is_append_time && name == "time-ms"));
    (timestamp_ms, seen.key.clone(), seen.value.clone().map(body), headers.cloned().collect())
}

fn is_inner(topic: &str) -> bool {
    topic.starts_with('_') || topic.ends_with(".changelog") || topic.ends_with(".epochs")
}

/// What an epoch came to, without the offsets that it took.
fn epochs<'a>(book: &SchemaBook, values: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut all: Vec<String> = values
        .filter_map(|value| match book.decode(value).unwrap() {
            Record::EpochRecord(epoch) => Some(format!(
                "{}/{:03}/{:06}: {:?}, {} outputs, {:?}, state {:?}, watermark {:?}",
                epoch.stage,
                epoch.task,
                epoch.epoch,
                epoch.kind,
                epoch.output_count,
                epoch.output_digest,
                epoch.state_digest,
                epoch.watermark_ms
            )),
            _ => None,
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_synchronised_run_gives_the_same_in_every_topic() {
    let (cluster, files) = (Cluster::of_nodes(1), tempfile::tempdir().unwrap());
    let file = pipeline(files.path());
    let (embedded, kafka) = (Site::embedded(), Site::kafka(&cluster));
    for site in [&embedded, &kafka] {
        site.import(&file);
        site.succeeds(&["run", file.to_str().unwrap(), "--synchronised"]);
    }
    let log = embedded.log();
    let topics: Vec<String> = log.topics().unwrap().into_iter().map(|topic| topic.name.to_string()).collect();
    let outer: Vec<&str> = topics.iter().map(String::as_str).filter(|topic| !is_inner(topic)).collect();
    let mut seen: BTreeMap<TopicPartition, Vec<Content>> = BTreeMap::new();
    for record in clients::read(cluster.bootstrap(), &outer, Isolation::Settled) {
        let at = TopicPartition::new(record.topic.as_str(), record.partition);
        seen.entry(at).or_default().push(of_seen(&record));
    }
    let mut compared = 0;
    for at in outer.iter().flat_map(|topic| partitions(&*log, topic)) {
        let ours: Vec<Content> = read(&*log, &at).iter().map(|stored| of_ours(&stored.record)).collect();
        let theirs = seen.remove(&at).unwrap_or_default();
        assert_eq!(ours.len(), theirs.len(), "{at}");
        for (place, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(ours, theirs, "{at}, record {place}");
        }
        compared += ours.len();
    }
    assert!(seen.is_empty(), "{:?}", seen.keys());
    let journal = topics.iter().find(|topic| topic.ends_with(".epochs")).unwrap();
    let ours: Vec<_> = partitions(&*log, journal).iter().flat_map(|at| read(&*log, at)).collect();
    let book = open_book(&*log).unwrap();
    let ours = epochs(&book, ours.iter().filter_map(|stored| stored.record.value.as_deref()));
    let theirs = clients::read(cluster.bootstrap(), &[journal], Isolation::Settled);
    let theirs = epochs(&book, theirs.iter().filter_map(|seen| seen.value.as_deref()));
    assert_eq!(ours, theirs);
    println!("{compared} records in {} topics and {} epochs are equal", outer.len(), ours.len());
    println!("{}", kafka.succeeds(&["verify"]));
}

#[test]
fn live_stage_a_gives_the_same() {
    let (cluster, files) = (Cluster::of_nodes(1), tempfile::tempdir().unwrap());
    let file = pipeline(files.path());
    let (embedded, kafka) = (Site::embedded(), Site::kafka(&cluster));
    for site in [&embedded, &kafka] {
        site.import(&file);
        site.run_live(&file);
    }
    let log = embedded.log();
    let expected = Outputs::of_log(&*log);
    let topics: Vec<String> = log.topics().unwrap().into_iter().map(|topic| topic.name.to_string()).collect();
    let outer: Vec<&str> = topics.iter().map(String::as_str).filter(|topic| !is_inner(topic)).collect();
    let found = Outputs::seen(&clients::read(cluster.bootstrap(), &outer, Isolation::Settled));
    found.check_identities();
    let compared = found.check_equal(&expected, "signals");
    assert!(compared > 1_000, "{compared}");
    println!("{compared} outputs of stage A are equal");
    println!("{}", kafka.succeeds(&["verify"]));
}
