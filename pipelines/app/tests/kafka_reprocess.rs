//! Reprocessing from topics of a real Apache Kafka gives what it gives on the embedded log, also after a kill. What came
//! out of Kafka is read by a client that is not ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tidewire_engine::log::{CommittedOffset, Log, TopicPartition, TopicSpec, Transaction};
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_tests::clients::{self, Isolation, Seen};
use tidewire_tests::cluster::Cluster;
use tidewire_tests::outputs::{partitions, read};
use tidewire_tests::{eventually, root};

/// Bytes in front of the body: a zero and the schema's id, which each log gives out for itself.
const PREFIX_BYTES: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// A record without what each log gives out for itself: offset and schema id.
type Content = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

fn body(value: Vec<u8>) -> Vec<u8> {
    value.get(PREFIX_BYTES..).unwrap_or_default().to_vec()
}

/// As the other client saw it: the time of a record on a compacted topic is in its header.
fn of_seen(seen: &Seen) -> Content {
    let own = seen.header("time-ms").filter(|_| seen.is_append_time);
    let timestamp_ms = own.map_or(seen.timestamp_ms, |text| text.parse().unwrap());
    let headers = seen.headers.iter().filter(|(name, _)| !(seen.is_append_time && name == "time-ms"));
    (timestamp_ms, seen.key.clone(), seen.value.clone().map(body), headers.cloned().collect())
}

fn tidewire(site: &[String], words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(["--log-level", "warn"]).args(site).args(words).stdin(Stdio::null());
    command
}

fn succeeds(site: &[String], words: &[&str]) -> String {
    let output = tidewire(site, words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn inputs() -> Vec<PathBuf> {
    let names = [
        "binance/usdm_btcusdt_20240808.gz",
        "binance/spot_btcusdt_20240808.gz",
        "news/crypto_news_20220704.csv",
    ];
    names.iter().map(|name| root().join("samples").join(name)).collect()
}

#[test]
fn a_run_from_kafka_into_a_prefix_is_that_of_the_embedded_log() {
    let (cluster, folder) = (Cluster::of_nodes(1), tempfile::tempdir().unwrap());
    let data = folder.path().join("data");
    let embedded = ["--data".to_owned(), data.display().to_string()];
    let kafka = ["--bootstrap".to_owned(), cluster.bootstrap().to_owned()];
    let again = ["reprocess", "market-intel", "--into", "again"];
    for site in [&embedded[..], &kafka[..]] {
        let files = inputs();
        let mut import = vec!["import", "--pipeline", "market-intel"];
        import.extend(files.iter().map(|file| file.to_str().unwrap()));
        // The news is of another day: moved into the span of the ticks, as the demo does.
        import.extend(["--news-from", "2024-08-08T23:54:15Z", "--news-to", "2024-08-08T23:55:51Z"]);
        succeeds(site, &import);
    }
    succeeds(&embedded, &again);
    // Killed once it has written something.
    let mut killed = tidewire(&kafka, &again).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log = KafkaLog::connect(KafkaOptions::new(cluster.bootstrap())).unwrap();
    let epochs = TopicPartition::new("again.market-intel.epochs", 0);
    eventually("the first rounds", PATIENCE, || {
        let there = log.topic(&epochs.topic).ok().flatten().is_some();
        (there && log.bounds(&epochs).is_ok_and(|bounds| bounds.stable_end > 20)).then_some(())
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    println!("{}", succeeds(&kafka, &again));

    let ours = EmbeddedLog::open(&data, EmbeddedOptions::default()).unwrap();
    let topics: Vec<String> =
        ours.topics().unwrap().into_iter().map(|topic| topic.name.to_string()).collect();
    let is_outer = |topic: &&str| {
        topic.starts_with("again.")
            && !(topic.starts_with("again._") || topic.ends_with(".changelog") || topic.ends_with(".epochs"))
    };
    let outer: Vec<&str> = topics.iter().map(String::as_str).filter(is_outer).collect();
    let mut seen: BTreeMap<TopicPartition, Vec<Content>> = BTreeMap::new();
    for record in clients::read(cluster.bootstrap(), &outer, Isolation::Settled) {
        let at = TopicPartition::new(record.topic.as_str(), record.partition);
        seen.entry(at).or_default().push(of_seen(&record));
    }
    let mut compared = 0;
    for at in outer.iter().flat_map(|topic| partitions(&*ours, topic)) {
        let of_ours = |record: tidewire_engine::log::NewRecord| -> Content {
            let headers =
                record.headers.iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect();
            let value = record.value.map(|value| body(value.to_vec()));
            (record.timestamp_ms, record.key.map(|key| key.to_vec()), value, headers)
        };
        let expected: Vec<Content> =
            read(&*ours, &at).into_iter().map(|stored| of_ours(stored.record)).collect();
        let found = seen.remove(&at).unwrap_or_default();
        assert_eq!(expected.len(), found.len(), "{at}");
        for (place, (expected, found)) in expected.iter().zip(&found).enumerate() {
            assert_eq!(expected, found, "{at}, record {place}");
        }
        compared += expected.len();
    }
    assert!(compared > 500 && seen.is_empty(), "{compared} {:?}", seen.keys());
    println!("{compared} records are equal");
    succeeds(&kafka, &["verify", "--prefix", "again"]);
    // Others ask whoever has it open, and here nobody would answer.
    drop(ours);
    told_alike(&embedded, &kafka);
    bundled(&kafka, folder.path());
    promoted(&log, &kafka);
}

fn json(site: &[String], words: &[&str]) -> Value {
    serde_json::from_str(&succeeds(site, &[words, &["--json"]].concat())).unwrap()
}

/// Whoever asks why, or what another setting would have given, is told on a cluster what is told on the embedded log.
fn told_alike(embedded: &[String], kafka: &[String]) {
    let both = |words: &[&str]| (json(embedded, words), json(kafka, words));
    let (ours, theirs) = both(&["explain", "--every", "order", "--prefix", "again"]);
    println!("orders explained on Kafka: {theirs:#}");
    for figure in ["orders", "same_bytes", "records", "external"] {
        assert!(ours[figure].as_u64().unwrap() > 0, "{ours:#}");
        assert_eq!(ours[figure], theirs[figure], "{figure}");
    }
    assert_eq!(theirs["orders"], theirs["same_bytes"]);

    for site in [embedded, kafka] {
        succeeds(site, &["reprocess", "market-intel", "--into", "event", "--order", "event"]);
    }
    let (ours, theirs) = (difference(embedded), difference(kafka));
    println!("availability and event time on Kafka: {}", theirs["counts"]);
    assert!(ours["counts"]["changed"].as_u64().unwrap() > 0, "{}", ours["counts"]);
    assert_eq!(ours["counts"], theirs["counts"]);
    assert_eq!(ours["cause_count"], theirs["cause_count"]);

    let grid = ["backtest", "market-intel", "--grid", "signals.ema_fast.period=3,5"];
    let (ours, theirs) = both(&grid);
    let digests = |of: &Value| -> Vec<Value> {
        of["settings"].as_array().unwrap().iter().map(|run| run["digest"].clone()).collect()
    };
    assert_eq!(digests(&ours).len(), 2, "{ours:#}");
    assert_eq!(digests(&ours), digests(&theirs));
    assert_ne!(digests(&ours)[0], digests(&ours)[1]);
}

/// What differs between the two runs; the exit code says that something does.
fn difference(site: &[String]) -> Value {
    let output = tidewire(site, &["diff", "again", "event", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A bundle of a run on a cluster verifies where the cluster is not.
fn bundled(kafka: &[String], folder: &Path) {
    let file = folder.join("again.tidewire");
    succeeds(kafka, &["bundle", file.to_str().unwrap(), "--prefix", "again"]);
    let here = ["--data".to_owned(), file.display().to_string()];
    let verified = json(&here, &["verify"]);
    println!("the bundle of the run on Kafka: {verified:#}");
    let stop = json(&here, &["step", "--stage", "risk", "--task", "0", "--max", "1"]);
    assert!(stop["epoch"].as_u64().is_some(), "{stop:#}");
}

/// A group is moved to the run's topic once its members have gone.
fn promoted(log: &KafkaLog, kafka: &[String]) {
    // The live topic holds what the run's does, up to some record.
    let at = |partition| TopicPartition::new("features.bars.v1", partition);
    let there = |partition| TopicPartition::new("again.features.bars.v1", partition);
    let partition = (0..4).find(|it| log.bounds(&there(*it)).unwrap().stable_end > 20).unwrap();
    log.create_topic(&TopicSpec::new("features.bars.v1", 4)).unwrap();
    let (mut first, mut from) = (Vec::new(), 0);
    // A cluster gives what it has at hand, which may be less.
    while first.len() < 10 {
        let fetched = log.read(&there(partition), from, 1 << 20).unwrap();
        from = fetched.next_offset;
        first.extend(fetched.records);
    }
    first.truncate(10);
    log.append(&at(partition), first.iter().map(|stored| stored.record.clone()).collect()).unwrap();
    let mut member = log.join("readers", "reader-1", "features.bars.v1").unwrap();
    let assignment = eventually("the tasks", PATIENCE, || {
        let assignment = member.poll().unwrap();
        (assignment.tasks.len() == 4).then_some(assignment)
    });
    let offsets = vec![(at(partition), CommittedOffset { offset: 5, metadata: String::new() })];
    let transaction = Transaction { generation: assignment.generation, appends: Vec::new(), offsets };
    member.commit(transaction).unwrap();
    let promote = ["promote", "again", "--group", "readers", "--topic", "features.bars.v1", "--yes"];
    let refused = tidewire(kafka, &promote).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("has 1 members"), "{said}");
    member.leave().unwrap();
    println!("{}", succeeds(kafka, &promote));
    let committed = log.committed("readers", &there(partition)).unwrap().unwrap();
    assert_eq!(committed.offset, first[4].offset + 1);
    assert_eq!(log.committed("readers", &at(partition)).unwrap().unwrap().offset, 5);
}
