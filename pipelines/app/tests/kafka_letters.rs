//! On a real Apache Kafka: records that can not be decoded are dead-lettered with their origin, and `dead-letters replay`
//! sends them round again. Those of a schema that is known by then come out; those that are no record come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewire_engine::log::Log;
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_runtime::registry::{LogRegistry, SchemaRegistry, open_book, registered};
use tidewire_schemas::{
    Aggressor, EventTime, Kind, Price, Quantity, ReceivedTime, Record, SchemaBook, Trade,
};
use tidewire_tests::clients::{self, Isolation, NewRecord};
use tidewire_tests::cluster::Cluster;
use tidewire_tests::instrument_in;
use tidewire_tests::process::Running;

const PARTITIONS: u32 = 2;
const TICKS: &str = "letters.ticks";
const BARS: &str = "letters.bars";
/// The beginning of the first bar.
const START_MS: i64 = 1_723_161_600_000;
/// Trades of a newer schema.
const NEWER: i64 = 10;
const NO_RECORD: &[u8] = b"\x07no record";
/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PIPELINE: &str = r#"
[pipeline]
name = "letters"
partitions = 2

[topics."letters.ticks"]
kinds = ["Trade"]
[topics."letters.bars"]
kinds = ["Bar"]

[[stage]]
name = "features"

[[stage.input]]
id = "ticks"
topic = "letters.ticks"
role = "driving"
idle_after_ms = 500

[[stage.operator]]
id = "bars"
type = "time_bars"
from = ["ticks"]
interval_ms = 1_000

[[stage.output]]
topic = "letters.bars"
from = ["bars"]
"#;

struct Place {
    cluster: Cluster,
    book: SchemaBook,
    file: PathBuf,
}

impl Place {
    fn tidewire(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.args(["--log-level", "warn", "--bootstrap", self.cluster.bootstrap()]);
        command
    }

    fn said(&self, words: &[&str]) -> String {
        let output = self.tidewire().args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Dead letters from the ticks: partition and offset of each.
    fn letters(&self) -> Vec<(u64, u64)> {
        let listed = self.said(&["dead-letters", "list", "--json", "--source", TICKS]);
        let letters = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        letters
            .map(|letter| (letter["partition"].as_u64().unwrap(), letter["offset"].as_u64().unwrap()))
            .collect()
    }

    /// Instrument and number of trades of each bar.
    fn bars(&self) -> Vec<(String, i64)> {
        let seen = clients::try_read(self.cluster.bootstrap(), &[BARS], Isolation::Settled);
        let bar = |value: Vec<u8>| match self.book.decode(&value).unwrap() {
            Record::Bar(bar) => (bar.instrument.to_string(), bar.trade_count),
            other => panic!("{other:?}"),
        };
        seen.unwrap_or_default().into_iter().map(|seen| bar(seen.value.unwrap())).collect()
    }
}

/// An instrument that lies in this partition.
fn instrument(partition: u32) -> String {
    instrument_in(partition, PARTITIONS)
}

fn trade(book: &SchemaBook, partition: u32, number: i64) -> NewRecord {
    let (instrument, time_ms) = (instrument(partition), START_MS + number * 50);
    let trade = Trade {
        instrument: instrument.clone().into(),
        event_time: EventTime::from_ms(time_ms),
        received_time: ReceivedTime::from_ms(time_ms),
        trade_id: number,
        price: Price::from_units(1_000_000_000_000).unwrap(),
        quantity: Quantity::from_units(2_000_000_000_000).unwrap(),
        aggressor: Aggressor::Buyer,
        market: true,
    };
    let mut value = Vec::new();
    book.encode(&Record::Trade(trade), &mut value).unwrap();
    NewRecord {
        topic: TICKS.to_owned(),
        partition: Some(partition),
        timestamp_ms: Some(time_ms),
        key: Some(instrument.into_bytes()),
        value: Some(value),
        headers: Vec::new(),
    }
}

/// The schema of trades with one field more, which has a default.
fn newer_schema() -> String {
    let mut schema: Value = serde_json::from_str(Kind::Trade.schema_json()).unwrap();
    let more = serde_json::json!({"name": "venue_flags", "type": ["null", "string"], "default": null});
    schema["fields"].as_array_mut().unwrap().push(more);
    schema.to_string()
}

/// A trade as a writer with the newer schema encodes it: that field is empty.
fn newer(mut record: NewRecord, id: u32) -> NewRecord {
    let value = record.value.as_mut().unwrap();
    value[1..5].copy_from_slice(&id.to_be_bytes());
    value.push(0);
    record
}

fn eventually<T>(what: &str, running: &mut Running, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        running.check_alive();
        assert!(begun.elapsed() < PATIENCE, "{what} did not come: {}", running.said());
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn letters_are_sent_round_again() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::of_nodes(1);
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(KafkaOptions::new(cluster.bootstrap())).unwrap());
    let book = open_book(&*log).unwrap();
    let file = folder.path().join("letters.toml");
    std::fs::write(&file, PIPELINE).unwrap();
    let place = Place { cluster, book, file };
    clients::create_topics(place.cluster.bootstrap(), &[(TICKS, PARTITIONS)]);

    // Partition 0 holds what everybody knows, partition 1 what nobody knows yet, and something that is no record.
    let unknown = registered(&*log).unwrap().iter().map(|known| known.id).max().unwrap() + 1;
    let mut records: Vec<NewRecord> = (0..20).map(|number| trade(&place.book, 0, number)).collect();
    records.extend((0..NEWER).map(|number| newer(trade(&place.book, 1, number), unknown)));
    let mut garbage = trade(&place.book, 1, NEWER);
    garbage.value = Some(NO_RECORD.to_vec());
    records.push(garbage);
    clients::write(place.cluster.bootstrap(), records);

    let mut command = place.tidewire();
    let mut running = Running::start(command.arg("run").arg(&place.file), folder.path(), "run");
    let all = usize::try_from(NEWER).unwrap() + 1;
    let letters = eventually("the dead letters", &mut running, || {
        Some(place.letters()).filter(|letters| letters.len() >= all)
    });
    let wanted: Vec<(u64, u64)> = (0..all as u64).map(|offset| (1, offset)).collect();
    assert_eq!(letters, wanted, "each once, with its origin");
    eventually("the first bar", &mut running, || Some(place.bars()).filter(|bars| bars.len() == 1));

    // Now the schema is known.
    let id = LogRegistry::new(Arc::clone(&log)).register("letters.ticks-later", &newer_schema()).unwrap();
    assert_eq!(id, unknown);
    // A schema that was not there is not asked for again at once.
    std::thread::sleep(Duration::from_secs(4));
    let sent = place.said(&["dead-letters", "replay", "--source", TICKS]);
    assert!(sent.contains(&format!("{all} sent, 0 left out")), "{sent}");
    let bars =
        eventually("the second bar", &mut running, || Some(place.bars()).filter(|bars| bars.len() == 2));
    assert!(bars.contains(&(instrument(0), 20)) && bars.contains(&(instrument(1), NEWER)), "{bars:?}");
    // What is no record comes back, from where it lies now.
    let letters = eventually("the letter that comes back", &mut running, || {
        Some(place.letters()).filter(|letters| letters.len() > all)
    });
    assert_eq!(letters[all..], [(1, 2 * all as u64 - 1)]);
    running.terminate();

    let ticks = clients::read(place.cluster.bootstrap(), &[TICKS], Isolation::Settled);
    let replayed: BTreeSet<String> = ticks.iter().filter_map(|seen| seen.header("tw-replayed")).collect();
    assert_eq!(replayed.len(), all, "each says which letter it was: {replayed:?}");
}
