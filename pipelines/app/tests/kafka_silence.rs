//! On a real Apache Kafka: partitions that never have data, fall silent or begin late hold no window open, and `status`
//! says who is idle and why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_runtime::registry::open_book;
use tidewire_schemas::{
    Aggressor, EventTime, Price, Quantity, ReceivedTime, Record, SchemaBook, SentimentScore, Trade, topics,
};
use tidewire_tests::clients::{self, Isolation, NewRecord};
use tidewire_tests::cluster::Cluster;
use tidewire_tests::instrument_in;
use tidewire_tests::process::Running;
use tidewire_tests::unique;

const PARTITIONS: u32 = 4;
/// Between two trades: ten to a bar of a second.
const STEP_MS: i64 = 100;
/// The beginning of the first bar.
const START_MS: i64 = 1_723_161_600_000;
/// What comes late comes so much later, by its own time.
const LATER_MS: i64 = START_MS + 3_600_000;
/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(120);

struct Place {
    bootstrap: &'static str,
    name: String,
    book: SchemaBook,
    file: PathBuf,
}

impl Place {
    fn topic(&self, what: &str) -> String {
        format!("{}.{what}", self.name)
    }

    fn tidewire(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.args(["--log-level", "warn", "--bootstrap", self.bootstrap]);
        command
    }

    /// Trades of the instrument of a partition, one each `STEP_MS`, ten in each second.
    fn trades(&self, partition: u32, from_ms: i64, to_ms: i64) -> Vec<NewRecord> {
        let times = (from_ms..to_ms).step_by(usize::try_from(STEP_MS).unwrap());
        let instrument = instrument(partition);
        let trade = |time_ms: i64| Trade {
            instrument: instrument.clone().into(),
            event_time: EventTime::from_ms(time_ms),
            received_time: ReceivedTime::from_ms(time_ms),
            trade_id: time_ms,
            price: Price::from_units(1_000_000_000_000).unwrap(),
            quantity: Quantity::from_units(2_000_000_000_000).unwrap(),
            aggressor: Aggressor::Buyer,
            market: true,
        };
        let record =
            |time_ms| self.record("ticks", None, &instrument, time_ms, &Record::Trade(trade(time_ms)));
        times.map(record).collect()
    }

    fn score(&self, partition: u32, time_ms: i64) -> NewRecord {
        let time = EventTime::from_ms(time_ms);
        let score = SentimentScore {
            asset: "BTC".into(),
            event_time: time,
            published_time: time,
            received_time: ReceivedTime::from_ms(time_ms),
            news_id: None,
            score: 0.5,
            confidence: 1.0,
            subjectivity: None,
            model: "test".into(),
            source: "test".into(),
        };
        self.record("scores", Some(partition), "BTC", time_ms, &score.into())
    }

    fn record(
        &self,
        topic: &str,
        partition: Option<u32>,
        key: &str,
        time_ms: i64,
        value: &Record,
    ) -> NewRecord {
        let mut bytes = Vec::new();
        self.book.encode(value, &mut bytes).unwrap();
        NewRecord {
            topic: self.topic(topic),
            partition,
            timestamp_ms: Some(time_ms),
            key: Some(key.as_bytes().to_vec()),
            value: Some(bytes),
            headers: Vec::new(),
        }
    }

    /// The number of trades in each bar, by instrument and second.
    fn bars(&self) -> BTreeMap<(String, i64), i64> {
        let mut bars = BTreeMap::new();
        for seen in clients::read(self.bootstrap, &[&self.topic("bars")], Isolation::Settled) {
            let Record::Bar(bar) = self.book.decode(seen.value.as_deref().unwrap()).unwrap() else {
                panic!()
            };
            let key = (bar.instrument.to_string(), bar.window_start.as_ms());
            assert!(bars.insert(key, bar.trade_count).is_none(), "{bar:?} is there twice");
        }
        bars
    }

    fn wait_for_bars(&self, expected: &BTreeMap<(String, i64), i64>, running: &mut Running) {
        let started = Instant::now();
        loop {
            running.check_alive();
            let bars = clients::try_read(self.bootstrap, &[&self.topic("bars")], Isolation::Settled);
            if bars.is_ok_and(|bars| bars.len() >= expected.len()) {
                return assert_eq!(self.bars(), *expected);
            }
            assert!(started.elapsed() < PATIENCE, "expected {expected:?}: {}", running.said());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Why each idle input of a task is idle, as `status` says: by topic and partition.
    fn idle(&self, task: usize) -> BTreeMap<String, String> {
        let output = self.tidewire().args(["status", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ours =
            all.as_array().unwrap().iter().find(|pipeline| pipeline["pipeline"] == *self.name).unwrap();
        let inputs = ours["stages"][0]["tasks"][task]["inputs"].as_array().unwrap();
        let words = inputs.iter().filter_map(|input| {
            let name = input["topic"].as_str()?.rsplit_once('.')?.1;
            Some((format!("{name}-{}", input["partition"]), input["idle_why"].as_str()?.to_owned()))
        });
        words.collect()
    }
}

/// An instrument that lies in this partition.
fn instrument(partition: u32) -> String {
    instrument_in(partition, PARTITIONS)
}

/// So many full bars of ten trades, and one of `rest` trades.
fn bars_of(partition: u32, from_ms: i64, full: i64, rest: i64) -> BTreeMap<(String, i64), i64> {
    let bar = |number: i64, count| ((instrument(partition), from_ms + number * 1_000), count);
    let all = (0..full).map(|number| bar(number, 10)).chain([bar(full, rest)]);
    all.filter(|(_, count)| *count > 0).collect()
}

fn pipeline(name: &str) -> String {
    format!(
        r#"
[pipeline]
name = "{name}"
partitions = {PARTITIONS}

[topics."{name}.ticks"]
kinds = ["Trade"]
[topics."{name}.scores"]
partitions = 3
kinds = ["SentimentScore"]
[topics."{name}.bars"]
kinds = ["Bar"]

[[stage]]
name = "features"

[[stage.input]]
id = "ticks"
topic = "{name}.ticks"
role = "driving"
idle_after_ms = 500

[[stage.input]]
id = "scores"
topic = "{name}.scores"
role = "broadcast"
idle_after_ms = 500

[[stage.operator]]
id = "bars"
type = "time_bars"
from = ["ticks"]
interval_ms = 1_000

[[stage.operator]]
id = "mood"
type = "sentiment"
from = ["ticks", "scores"]
half_life_ms = 600_000

[[stage.output]]
topic = "{name}.bars"
from = ["bars"]
"#
    )
}

fn place(folder: &std::path::Path) -> Place {
    let bootstrap = Cluster::shared().bootstrap();
    let name = unique("quiet");
    let file = folder.join("pipeline.toml");
    std::fs::write(&file, pipeline(&name)).unwrap();
    let book = open_book(&KafkaLog::connect(KafkaOptions::new(bootstrap)).unwrap()).unwrap();
    let place = Place { bootstrap, name, book, file };
    let (ticks, scores) = (place.topic("ticks"), place.topic("scores"));
    clients::create_topics(bootstrap, &[(&ticks, PARTITIONS), (&scores, 3)]);
    place
}

#[test]
fn silent_partitions_hold_no_window_open() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    // Ticks: partition 0 goes on, 1 never has any, 2 falls silent within a bar, 3 begins an hour later. Scores: partition 0
    // never has any, 1 falls silent, 2 begins an hour later.
    let mut before =
        [place.trades(0, START_MS, START_MS + 6_000), place.trades(2, START_MS, START_MS + 3_300)];
    before.iter_mut().for_each(|records| records.push(place.score(1, START_MS + 500)));
    clients::write(place.bootstrap, before.concat());

    let mut command = place.tidewire();
    let mut running = Running::start(command.arg("run").arg(&place.file), folder.path(), "run");
    // The last bars close though nothing more comes.
    let mut expected = bars_of(0, START_MS, 6, 0);
    expected.extend(bars_of(2, START_MS, 3, 3));
    place.wait_for_bars(&expected, &mut running);
    let idle = place.idle(0);
    assert_eq!(idle["scores-0"], "no record yet");
    assert_eq!(idle["scores-2"], "no record yet");
    assert!(idle["scores-1"].contains("it may be silent for 500 ms"), "{idle:?}");
    assert!(place.idle(2)["ticks-2"].contains("it may be silent for 500 ms"), "{:?}", place.idle(2));

    let mut late = place.trades(0, LATER_MS, LATER_MS + 2_000);
    late.extend(place.trades(3, LATER_MS, LATER_MS + 2_500));
    late.push(place.score(2, LATER_MS + 500));
    clients::write(place.bootstrap, late);
    expected.extend(bars_of(0, LATER_MS, 2, 0));
    expected.extend(bars_of(3, LATER_MS, 2, 5));
    place.wait_for_bars(&expected, &mut running);
    let idle = place.idle(0);
    assert_eq!(idle["scores-0"], "no record yet");
    assert!(idle["scores-1"].contains("of stream time ago"), "{idle:?}");
    assert_ne!(idle.get("scores-2").map(String::as_str), Some("no record yet"), "it has begun");
    running.terminate();

    let late = clients::read(place.bootstrap, &[topics::LATE, topics::DEAD_LETTERS], Isolation::Settled);
    let ours = |cause: String| cause.starts_with(&place.name);
    assert!(!late.iter().any(|seen| seen.header("tw-cause").is_some_and(ours)), "nothing was late");
}
