//! `sink` is killed at random moments while a run goes on, and so is its Redis: in the end the Redis holds what the
//! topics say, read by redis-cli and folded from `tail`. No output of any process shows the password. On the embedded log,
//! and on a real Apache Kafka.
//!
//! `KILLS` sets the number of kills (the default suits CI).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../../../tests/tests/sinks/redis_server.rs"]
mod redis_server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis_server::{PASSWORD, RedisServer};
use serde_json::Value;
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_runtime::embedded::RemoteLog;
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_tests::backlog::import_by;
use tidewire_tests::cluster::Cluster;
use tidewire_tests::shipped::lasting_pipeline;

const TOPICS: [&str; 2] = ["features.values.v1", "positions.v1"];
/// How long nothing may change before a run counts as done.
const QUIET: Duration = Duration::from_secs(3);
/// How long a run may take at most.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where the log is.
enum Place {
    Folder(PathBuf),
    Cluster(Cluster),
}

fn tidewire(place: &Place) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    match place {
        Place::Folder(data) => command.arg("--data").arg(data).args(["--durability", "buffered"]),
        Place::Cluster(cluster) => command.args(["--bootstrap", cluster.bootstrap()]),
    };
    command.stdin(Stdio::null());
    // Small epochs make the run long enough to be hit in the middle.
    command.env("TIDEWIRE__ENGINE__MAX_RECORDS", "64");
    command
}

/// The shipped pipeline with a sink.
fn pipeline(folder: &Path) -> PathBuf {
    let mut text = lasting_pipeline(&[]);
    text.push_str(
        "\n[[sink]]\nname = \"cache\"\ntype = \"redis\"\nurl_env = \"TEST_REDIS_URL\"\nkey_prefix = \"mirror\"\n\
         batch_max_records = 40\nretry_max_ms = 200\n",
    );
    let path = folder.join("market-intel.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A process that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command, folder: &Path, number: usize) -> (Running, PathBuf) {
    let log = folder.join(format!("said-{number}"));
    let file = std::fs::File::create(&log).unwrap();
    let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
    (Running(child), log)
}

fn sink(place: &Place, pipeline: &Path, url: &str) -> Command {
    let mut command = tidewire(place);
    // Whatever is logged is searched for the password.
    command.args(["--log-level", "trace"]).arg("sink").arg(pipeline).env("TEST_REDIS_URL", url);
    command
}

fn kill(mut running: Running) {
    running.0.kill().unwrap();
    running.0.wait().unwrap();
}

fn end(mut running: Running, said: &Path) {
    assert!(Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap().success());
    let status = running.0.wait().unwrap();
    assert!(status.success(), "{status}: {}", std::fs::read_to_string(said).unwrap());
}

fn connect(place: &Place) -> Box<dyn Log> {
    let begun = Instant::now();
    loop {
        let connected: Result<Box<dyn Log>, _> = match place {
            Place::Folder(data) => RemoteLog::connect(data).map(|log| Box::new(log) as _),
            Place::Cluster(cluster) => {
                KafkaLog::connect(KafkaOptions::new(cluster.bootstrap())).map(|log| Box::new(log) as _)
            }
        };
        match connected {
            Ok(log) => return log,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Records in the sink's topics, and how many of them it has committed.
fn progress(log: &dyn Log) -> (u64, u64) {
    let (mut all, mut done) = (0, 0);
    for topic in TOPICS {
        let partitions = log.topic(topic).unwrap().map_or(0, |topic| topic.partitions);
        for at in (0..partitions).map(|partition| TopicPartition::new(topic, partition)) {
            let end = log.bounds(&at).unwrap().stable_end;
            all += end;
            let group = format!("market-intel.sink.cache.{topic}");
            let committed =
                log.committed_unstable(&group, &at).unwrap().map_or(0, |committed| committed.offset);
            // The end of the last transaction is no record: nobody commits a position for it.
            done += if committed > 0 && committed + log.offsets_of_commit() >= end { end } else { committed };
        }
    }
    (all, done)
}

/// The last value of each key, as `tail` shows them: another reader than the sink.
fn fold(place: &Place) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut last = BTreeMap::new();
    for topic in TOPICS {
        let output = tidewire(place).args(["tail", topic, "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let mut records: Vec<(Value, &str)> =
            text.lines().map(|line| (serde_json::from_str(line).unwrap(), line)).collect();
        assert!(records.len() > 20, "{topic}: {} records", records.len());
        records.sort_by_key(|(record, _)| (record["partition"].as_u64(), record["offset"].as_u64()));
        for (record, line) in records {
            let family = if topic == TOPICS[0] { "features" } else { "positions" };
            let name = format!("{family}:{}", record["key"].as_str().unwrap());
            last.insert(name, fields(topic, &record, line));
        }
    }
    last
}

fn fields(topic: &str, record: &Value, line: &str) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = ["partition", "offset"]
        .map(|name| (format!("@{name}"), record[name].to_string()))
        .into_iter()
        .chain([("@topic".to_owned(), topic.to_owned())])
        .collect();
    let value = record["value"].as_object().unwrap();
    for (name, value) in value {
        match value {
            Value::Null => {}
            Value::Object(_) => fields.extend(numbers(line)),
            _ if name == "event_time" => {
                drop(fields.insert("@event_time".to_owned(), value.as_str().unwrap().into()))
            }
            // A vector's instrument is its key.
            _ if name == "instrument" && topic == TOPICS[0] => {}
            other => drop(fields.insert(name.clone(), other.as_str().unwrap().to_owned())),
        }
    }
    fields
}

/// The features of a line. Its numbers are exact, but serde_json reads some of them as the double beside.
fn numbers(line: &str) -> BTreeMap<String, String> {
    let (_, values) = line.split_once(r#""values":{"#).unwrap();
    let (values, _) = values.split_once('}').unwrap();
    let pairs = values.split(',').map(|pair| pair.rsplit_once(':').unwrap());
    pairs.map(|(name, text)| (name.trim_matches('"').to_owned(), bits(text.parse().unwrap()))).collect()
}

/// Numbers by their bits: the text of a float may differ.
fn bits(value: f64) -> String {
    format!("{:016x}", value.to_bits())
}

fn in_redis(redis: &RedisServer) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut contents = redis.contents("mirror");
    for (name, fields) in &mut contents {
        if name.starts_with("features:") {
            for (_, text) in fields.iter_mut().filter(|(field, _)| !field.starts_with('@')) {
                *text = bits(text.parse().unwrap());
            }
        }
    }
    contents
}

fn check_secret(said: &Path) {
    let text = String::from_utf8_lossy(&std::fs::read(said).unwrap()).into_owned();
    for secret in [PASSWORD, &PASSWORD.replace('/', "%2F"), "hunter2"] {
        assert!(!text.contains(secret), "{} shows {secret}: {text}", said.display());
    }
}

#[test]
fn killed_at_random_moments_the_store_holds_what_the_topics_say() {
    let folder = tempfile::tempdir().unwrap();
    storm(folder.path(), &Place::Folder(folder.path().join("log")));
}

#[test]
fn on_kafka_too() {
    let folder = tempfile::tempdir().unwrap();
    storm(folder.path(), &Place::Cluster(Cluster::of_nodes(1)));
}

fn storm(folder: &Path, place: &Place) {
    let kills: u32 = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    let pipeline = pipeline(folder);
    let redis = RedisServer::start();
    import_by(&mut tidewire(place));

    let url = redis.right_url();
    let mut said = Vec::new();
    let mut started = 0;
    let mut begin = |command: &mut Command| {
        started += 1;
        let (child, log) = start(command, folder, started);
        said.push(log.clone());
        (child, log)
    };
    // The sink is there first, and waits for the run.
    let (mut victim, _) = begin(&mut sink(place, &pipeline, &url));
    let (running, run_said) = begin(tidewire(place).arg("run").arg(&pipeline));
    let log = connect(place);
    let mut random = 20_240_808_u64;
    let (mut hit, mut last) = (0, 0);
    for number in 0..kills {
        // Until it has moved on a little, and then some more, so that it is hit in the middle of something.
        let begun = Instant::now();
        loop {
            let (all, done) = progress(&*log);
            if done > last {
                hit += u32::from(done < all);
                last = done;
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{done} of {all} after {number} kills");
            std::thread::sleep(Duration::from_millis(2));
            if done == all && begun.elapsed() > QUIET {
                break;
            }
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((random >> 33) % 30_000));
        kill(victim);
        if number % 4 == 3 {
            redis.kill();
            redis.start_again();
        }
        (victim, _) = begin(&mut sink(place, &pipeline, &url));
    }
    let (begun, mut quiet_since, mut before) = (Instant::now(), Instant::now(), (0, 1));
    while quiet_since.elapsed() < QUIET {
        let now = progress(&*log);
        if now != before || now.0 != now.1 {
            (before, quiet_since) = (now, Instant::now());
        }
        assert!(begun.elapsed() < PATIENCE, "not done: {now:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("{kills} kills, {hit} with records left to write; {} records in the end", before.0);
    let wanted = fold(place);
    assert_eq!(in_redis(&redis), wanted);
    assert!(wanted.len() > 5, "{:?}", wanted.keys());
    assert!(hit > 0, "every kill came when all was done");

    // A wrong password is said, and not shown.
    let (mut wrong, _) = begin(&mut sink(place, &pipeline, &redis.url("hunter2")));
    assert_eq!(wrong.0.wait().unwrap().code(), Some(1));
    end(victim, &said[said.len() - 2]);
    end(running, &run_said);
    for log in &said {
        check_secret(log);
    }
    let wrong = std::fs::read_to_string(said.last().unwrap()).unwrap();
    assert!(wrong.contains("check the user and password"), "{wrong}");
}
