//! `reprocess`: what comes of it is what came before, it can be ended at any moment, and the live run is left alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::Value;
use smol_str::SmolStr;
use tempfile::TempDir;
use tidewire::files::load_pipeline;
use tidewire::reprocess::{Job, Limits, in_memory};
use tidewire_engine::identity::RECEIVED_HEADER;
use tidewire_engine::log::{CommittedOffset, Log, NewRecord, StoredRecord, TopicPartition, Transaction};
use tidewire_engine::memory::MemoryLog;
use tidewire_ingest::ImportOptions;
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions, open_any};
use tidewire_runtime::prefixed::PrefixedLog;
use tidewire_runtime::registry::open_book;
use tidewire_runtime::reprocess::{InputOrder, ReprocessOptions};
use tidewire_tests::random::Random;

const BARS: &str = r#"
[pipeline]
name = "bars"
partitions = 2

[[stage]]
name = "features"

[[stage.input]]
id = "ticks"
topic = "market.ticks.v1"
role = "driving"

[[stage.operator]]
id = "bars"
type = "time_bars"
from = ["ticks"]
interval_ms = 1_000

[[stage.output]]
topic = "features.bars.v1"
from = ["bars"]
"#;

const IN_ORDER: &str = "time,price,quantity,side\n\
    2024-08-08T23:54:15.100Z,61800.30,0.006,buy\n\
    2024-08-08T23:54:15.900Z,61801.10,0.010,sell\n\
    2024-08-08T23:54:17.500Z,61799.00,0.500,buy\n\
    2024-08-08T23:54:30.100Z,61810.00,0.006,buy\n\
    2024-08-08T23:54:35.900Z,61812.00,0.010,sell\n";

/// The fourth trade comes twelve seconds after later ones.
const WITH_LATE: &str = "time,price,quantity,side\n\
    2024-08-08T23:54:15.100Z,61800.30,0.006,buy\n\
    2024-08-08T23:54:18.000Z,61800.70,0.006,buy\n\
    2024-08-08T23:54:30.100Z,61810.00,0.006,buy\n\
    2024-08-08T23:54:17.500Z,61799.00,0.500,buy\n\
    2024-08-08T23:54:35.900Z,61812.00,0.010,sell\n";

/// All records of each partition.
type Dump = BTreeMap<TopicPartition, Vec<StoredRecord>>;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With what `demo` leaves.
    fn with_demo() -> Self {
        let place = Self::new();
        place.ok(&["demo", "--json"]);
        place
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.args(args).arg("--data").arg(self.data()).stdin(Stdio::null());
        command.env_remove("TIDEWIRE_DATA").env_remove("TIDEWIRE_LOG");
        command
    }

    fn run(&self, args: &[&str], code: i32) -> Output {
        let output = self.command(args).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
        output
    }

    fn ok(&self, args: &[&str]) -> String {
        String::from_utf8(self.run(args, 0).stdout).unwrap()
    }

    fn fails(&self, args: &[&str]) -> String {
        String::from_utf8(self.run(args, 1).stderr).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    fn reprocess(&self, file: &str, into: &str, more: &[&str]) -> Value {
        self.json(&[&["reprocess", file, "--into", into, "--json"], more].concat())
    }

    fn log(&self) -> Arc<dyn Log> {
        EmbeddedLog::open(self.data(), EmbeddedOptions::default()).unwrap()
    }

    /// What lies under a prefix, but for notes that tell the time of day.
    fn under(&self, prefix: &str) -> Dump {
        let log = self.log();
        let own = PrefixedLog::topics_under(&*log, prefix).unwrap();
        dump(&PrefixedLog::new(log, prefix).unwrap(), |topic| own.contains(topic) && !topic.starts_with('_'))
    }
}

fn dump(log: &dyn Log, wanted: impl Fn(&str) -> bool) -> Dump {
    let mut all = Dump::new();
    for topic in log.topics().unwrap().into_iter().filter(|topic| wanted(&topic.name)) {
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(topic.name.clone(), partition);
            let (mut from, mut records) = (0, Vec::new());
            loop {
                let fetched = log.read(&at, from, 1 << 20).unwrap();
                records.extend(fetched.records);
                if fetched.at_end {
                    break;
                }
                from = fetched.next_offset;
            }
            all.insert(at, records);
        }
    }
    all
}

fn same(one: &Dump, other: &Dump) {
    let topics = |dump: &Dump| dump.keys().cloned().collect::<Vec<_>>();
    assert_eq!(topics(one), topics(other));
    for (at, records) in one {
        let differs = records.iter().zip(&other[at]).position(|(one, other)| one != other);
        if let Some(place) = differs {
            panic!("{at}: record {place} is\n{:?}\nand\n{:?}", records[place], other[at][place]);
        }
        assert_eq!(records.len(), other[at].len(), "{at}");
    }
}

/// Outputs without what tells when they were made, and without journals.
fn outputs(dump: Dump) -> BTreeMap<TopicPartition, Vec<NewRecord>> {
    let outputs = dump
        .into_iter()
        .filter(|(at, _)| !at.topic.ends_with(".epochs") && !at.topic.ends_with(".changelog"));
    let plain = |mut record: NewRecord| {
        record.headers.retain(|(name, _)| name != RECEIVED_HEADER);
        record
    };
    outputs
        .map(|(at, records)| (at, records.into_iter().map(|stored| plain(stored.record)).collect()))
        .collect()
}

fn samples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/binance");
    let names = ["usdm_btcusdt_20240808.gz", "usdm_ethusdt_20240808.gz", "spot_btcusdt_20240808.gz"];
    names.iter().map(|name| folder.join(name).to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_run_under_a_prefix_gives_what_was_there_and_leaves_the_rest_alone() {
    let place = Place::with_demo();
    let live = |log: &dyn Log| dump(log, |topic| !topic.starts_with("again."));
    let positions = |log: &dyn Log| {
        let at = |partition| TopicPartition::new("market.ticks.v1", partition);
        (0..4)
            .map(|partition| log.committed("market-intel.synchronised", &at(partition)).unwrap())
            .collect::<Vec<_>>()
    };
    let (before, stood) = {
        let log = place.log();
        (live(&*log), positions(&*log))
    };
    let done = place.reprocess("market-intel", "again", &["--order", "recorded"]);
    assert_eq!(done["complete"], true);
    let log = place.log();
    same(&before, &live(&*log));
    assert_eq!(stood, positions(&*log));
    drop(log);
    let again = place.under("again");
    let written: Dump = before.into_iter().filter(|(at, _)| again.contains_key(at)).collect();
    assert!(written.values().map(Vec::len).sum::<usize>() > 70_000);
    same(&written, &again);
    place.ok(&["verify", "--prefix", "again"]);

    let once_more = place.reprocess("market-intel", "again", &["--order", "recorded"]);
    assert_eq!((&once_more["complete"], &once_more["outputs"]), (&done["complete"], &done["outputs"]));
    same(&again, &place.under("again"));
    let error = place.fails(&["reprocess", "market-intel", "--into", "again"]);
    assert!(error.contains("holds another run") && error.contains("`--order`"), "{error}");
    let error = place.fails(&["reprocess", "market-intel", "--into", "market"]);
    assert!(error.contains("no run of tidewire made them"), "{error}");
    place.run(&["reprocess", "market-intel", "--into", "no/prefix"], 2);
}

#[test]
fn the_number_of_workers_does_not_show() {
    let place = Place::with_demo();
    for workers in ["1", "2", "4"] {
        place.reprocess("market-intel", &format!("w{workers}"), &["--workers", workers]);
    }
    let one = place.under("w1");
    same(&one, &place.under("w2"));
    same(&one, &place.under("w4"));
    place.ok(&["verify", "--prefix", "w4"]);
    place.ok(&["verify", "market-intel", "--prefix", "w1"]);
}

#[test]
fn late_records_are_late_by_availability_and_in_their_place_by_event_time() {
    let place = Place::new();
    let file = place.file("bars.toml", BARS);
    let trades = place.file("trades.csv", WITH_LATE);
    let instrument = ["--instrument", "BTCUSDT.BINANCE_USDM"];
    place.ok(&[&["import", trades.as_str(), "--pipeline", file.as_str()], &instrument[..]].concat());
    let counts =
        |done: &Value| (done["late"].as_u64().unwrap(), done["by_topic"]["features.bars.v1"].as_u64());
    let available = place.reprocess(&file, "a", &[]);
    let sorted = place.reprocess(&file, "e", &["--order", "event"]);
    assert_eq!(counts(&available), (1, Some(4)));
    assert_eq!(counts(&sorted), (0, Some(5)));
    for prefix in ["a", "e"] {
        place.ok(&["verify", "--prefix", prefix]);
    }
    let copies = &place.under("e")[&TopicPartition::new("market.ticks.v1", tick_partition(&place))];
    let origin = |stored: &StoredRecord| {
        String::from_utf8(stored.record.header("tw-origin").unwrap().to_vec()).unwrap()
    };
    let at = tick_partition(&place);
    let origins: Vec<String> = copies.iter().map(origin).collect();
    let wanted: Vec<String> =
        [0, 3, 1, 2, 4].iter().map(|offset| format!("market.ticks.v1/{at}@{offset}")).collect();
    assert_eq!(origins, wanted);

    // The same from files, which need no log.
    let from_files = [&["--files", trades.as_str()], &instrument[..]].concat();
    let available = place.reprocess(&file, "fa", &from_files);
    assert_eq!(counts(&available), (1, Some(4)));
    let sorted = place.reprocess(&file, "fe", &[&["--order", "event"], &from_files[..]].concat());
    assert_eq!(counts(&sorted), (0, Some(5)));
    assert_eq!(outputs(place.under("e"))[&bars_at(&place)], outputs(place.under("fe"))[&bars_at(&place)]);
    for prefix in ["fa", "fe"] {
        place.ok(&["verify", "--prefix", prefix]);
    }
    let too_late =
        place.fails(&["reprocess", &file, "--into", "x", "--order", "event", "--max-disorder", "5"]);
    assert!(too_late.contains("offset 3") && too_late.contains("--max-disorder"), "{too_late}");
}

fn tick_partition(place: &Place) -> u32 {
    partition_with_records(place, "market.ticks.v1")
}

fn bars_at(place: &Place) -> TopicPartition {
    TopicPartition::new("features.bars.v1", tick_partition(place))
}

fn partition_with_records(place: &Place, topic: &str) -> u32 {
    let log = place.log();
    let end = |partition| log.bounds(&TopicPartition::new(topic, partition)).unwrap().stable_end;
    (0..2).find(|partition| end(*partition) > 0).unwrap()
}

#[test]
fn records_in_order_give_the_same_in_every_order() {
    let place = Place::new();
    let file = place.file("bars.toml", BARS);
    let trades = place.file("trades.csv", IN_ORDER);
    place.ok(&["import", &trades, "--pipeline", &file, "--instrument", "BTCUSDT.BINANCE_USDM"]);
    for order in ["availability", "event", "recorded"] {
        place.reprocess(&file, order, &["--order", order]);
    }
    let available = outputs(place.under("availability"));
    assert_eq!(available, outputs(place.under("recorded")));
    let mut sorted = outputs(place.under("event"));
    sorted.retain(|at, _| available.contains_key(at));
    assert_eq!(available, sorted);
    assert_eq!(available[&bars_at(&place)].len(), 4);
}

#[test]
fn a_range_is_run_and_a_wrong_one_refused() {
    let place = Place::with_demo();
    let minute = ["--from", "2024-08-08T23:54:30Z", "--to", "2024-08-08T23:55:00Z"];
    for order in ["availability", "event"] {
        let done = place.reprocess("market-intel", order, &[&["--order", order], &minute[..]].concat());
        assert!(done["virtual_to"].as_str().unwrap() <= "2024-08-08T23:55:03Z", "{done}");
        let records = done["records"].as_u64().unwrap();
        assert!((10_000..40_000).contains(&records), "{records}");
        place.ok(&["verify", "--prefix", order]);
    }
    let by_offset = place.reprocess(
        "market-intel",
        "offsets",
        &["--from-offset", "market.ticks.v1/0@100", "--to-offset", "market.ticks.v1/0@200"],
    );
    let range = by_offset["ranges"]
        .as_array()
        .unwrap()
        .iter()
        .find(|range| range["topic"] == "market.ticks.v1" && range["partition"] == 0);
    assert_eq!((&range.unwrap()["from"], &range.unwrap()["until"]), (&100.into(), &200.into()));
    place.ok(&["verify", "--prefix", "offsets"]);
    for (args, words) in [
        (&["--from", "2024-08-08T23:55:00Z", "--to", "2024-08-08T23:54:00Z"][..], "not after its begin"),
        (&["--from", "2025-01-01T00:00:00Z"], "there are records from 2024-08-08T23:54:13"),
        (&["--to", "2020-01-01T00:00:00Z"], "there are records from"),
        (&["--from-offset", "market.ticks.v1/0@99999999"], "market.ticks.v1-0 ends at offset 22735"),
        (&["--from-offset", "market.ticks.v1/9@1"], "no input from outside"),
        (&["--from-offset", "signals.v1/0@1"], "market.ticks.v1/0 to 3"),
        (
            &["--from-offset", "market.ticks.v1/0@9", "--to-offset", "market.ticks.v1/0@5"],
            "ends at offset 5, not after its begin at offset 9",
        ),
    ] {
        let error = place.fails(&[&["reprocess", "market-intel", "--into", "bad"], args].concat());
        assert!(error.contains(words), "{args:?}: {error}");
    }
    assert!(place.under("bad").is_empty(), "a wrong range leaves nothing");
}

/// Runs a command, which is killed again and again until it is through, or interrupted once. Returns how often.
fn disturbed(place: &Place, args: &[&str], random: &mut Random, interrupts: bool) -> u32 {
    let mut disturbances = 0;
    loop {
        let errors = place.0.path().join("stderr");
        let into = std::fs::File::create(&errors).unwrap();
        let mut running = place.command(args).stdout(Stdio::null()).stderr(into).spawn().unwrap();
        // Each attempt gets further than the one before.
        let wait_ms = 40 + random.below(120) as u64 + u64::from(disturbances) * 100;
        std::thread::sleep(Duration::from_millis(wait_ms));
        if let Some(status) = running.try_wait().unwrap() {
            let said = std::fs::read_to_string(&errors).unwrap();
            assert_eq!(status.code(), Some(0), "after {disturbances}: {said}");
            return disturbances;
        }
        disturbances += 1;
        if interrupts {
            let id = running.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        } else {
            running.kill().unwrap();
        }
        let status = running.wait().unwrap();
        if status.success() {
            return disturbances;
        }
    }
}

#[test]
fn killed_at_random_moments_it_gives_what_an_undisturbed_run_gives() {
    let mut random = Random::new(20_240_808);
    for (order, interrupts) in [("availability", false), ("event", false), ("recorded", true)] {
        let (calm, stormy) = (Place::new(), Place::new());
        let files = samples();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let args = [
            &["reprocess", "market-intel", "--into", "p", "--workers", "2", "--order", order, "--files"],
            &files[..],
        ]
        .concat();
        calm.ok(&args);
        // Runs are to be killed, not the making of a log.
        stormy.ok(&["topics", "create", "other.v1"]);
        let disturbances = disturbed(&stormy, &args, &mut random, interrupts);
        assert!(disturbances > 1, "{order}: {disturbances} kills");
        same(&calm.under("p"), &stormy.under("p"));
        stormy.ok(&["verify", "--prefix", "p"]);
    }
}

#[test]
fn sorting_that_was_killed_goes_on() {
    let (calm, mut random) = (Place::with_demo(), Random::new(7));
    let args = ["reprocess", "market-intel", "--into", "p", "--order", "event"];
    calm.ok(&args);
    let stormy = Place::with_demo();
    disturbed(&stormy, &args, &mut random, false);
    same(&calm.under("p"), &stormy.under("p"));
}

#[test]
fn limits_of_the_file_hold_if_asked_and_never_reach_the_live_topic() {
    let place = Place::with_demo();
    let limits = |log: &dyn Log| dump(log, |topic| topic == "risk.limits.v1");
    let before = limits(&*place.log());
    let text = include_str!("../../market-intel.toml");
    let changed = text.replace("max_order_value = 60_000", "max_order_value = 1");
    assert_ne!(text, changed);
    let file = place.file("changed.toml", &changed);
    let by_log = place.reprocess(&file, "log", &[]);
    let by_file = place.reprocess(&file, "file", &["--limits", "file"]);
    same(&before, &limits(&*place.log()));
    let filled = |done: &Value| done["by_topic"]["executions.v1"].as_u64().unwrap_or(0);
    assert!(filled(&by_log) > filled(&by_file), "{by_log} {by_file}");
    let own: Vec<SmolStr> = place
        .under("file")
        .into_keys()
        .map(|at| at.topic)
        .filter(|topic| topic == "risk.limits.v1")
        .collect();
    assert_eq!(own.len(), 1);
}

#[test]
fn readers_go_on_in_the_run_where_they_stood() {
    let place = Place::with_demo();
    place.reprocess("market-intel", "part", &["--from", "2024-08-08T23:54:30Z"]);
    let topic = "features.bars.v1";
    let at = |topic: &str, partition| TopicPartition::new(topic, partition);
    // All of it goes through the process that has the log open, which is this one.
    let opened = open_any(place.data(), EmbeddedOptions::default()).unwrap();
    let log = opened.log();
    place.reprocess("market-intel", "again", &["--order", "recorded"]);
    let partition = (0..4).find(|it| log.bounds(&at(topic, *it)).unwrap().stable_end > 30).unwrap();
    let mut member = log.join("readers", "reader-1", topic).unwrap();
    let generation = member.poll().unwrap().generation;
    let position = CommittedOffset { offset: 30, metadata: String::new() };
    let offsets = vec![(at(topic, partition), position)];
    member.commit(Transaction { generation, appends: Vec::new(), offsets }).unwrap();
    fn promote<'a>(prefix: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["promote", prefix, "--group", "readers", "--topic", "features.bars.v1", "--json"], more].concat()
    }
    let error = place.fails(&promote("again", &["--yes"]));
    assert!(error.contains("readers are to be stopped first"), "{error}");
    member.leave().unwrap();
    drop(log);
    drop(opened);

    let of_partition = |shown: &Value| {
        let partitions = shown["groups"][0]["partitions"].as_array().unwrap().clone();
        partitions.into_iter().find(|moved| moved["partition"] == partition).unwrap()
    };
    let shown = place.json(&promote("again", &[]));
    let moved = of_partition(&shown);
    assert_eq!(
        (&moved["live"], &moved["position"], &moved["by"]),
        (&30.into(), &30.into(), &"record".into())
    );
    let there = at("again.features.bars.v1", partition);
    assert_eq!(place.log().committed("readers", &there).unwrap(), None, "only shown");
    place.json(&promote("again", &["--yes"]));
    let log = place.log();
    assert_eq!(log.committed("readers", &there).unwrap().unwrap().offset, 30);
    assert_eq!(
        log.committed("readers", &at(topic, partition)).unwrap().unwrap().offset,
        30,
        "the live one stays"
    );
    let last = log.read(&at(topic, partition), 29, 1).unwrap().records[0].record.timestamp_ms;
    drop(log);

    // A run of a part counts its records anew: time tells.
    let moved = of_partition(&place.json(&promote("part", &["--yes"])));
    assert_eq!(moved["by"], "time");
    let position = moved["position"].as_u64().unwrap();
    let bars = place.under("part").remove(&at(topic, partition)).unwrap();
    let times: Vec<i64> = bars.iter().map(|stored| stored.record.timestamp_ms).collect();
    assert!(times[usize::try_from(position).unwrap()] > last);
    assert!(times[..usize::try_from(position).unwrap()].iter().all(|time_ms| *time_ms <= last));

    let error = place.fails(&["promote", "again", "--group", "market-intel.risk"]);
    assert!(error.contains("is a stage of a pipeline"), "{error}");
    let error = place.fails(&["promote", "again", "--group", "strangers"]);
    assert!(error.contains("no position"), "{error}");
    let error = place.fails(&["promote", "nothing", "--group", "readers"]);
    assert!(error.contains("no run of prefix"), "{error}");
}

#[test]
fn runs_in_memory_share_their_inputs_and_need_no_disk() {
    let place = Place::with_demo();
    let log = place.log();
    let book = Arc::new(open_book(&*log).unwrap());
    let loaded = load_pipeline(Path::new("market-intel")).unwrap();
    let job = |log, order| Job {
        inputs: None,
        log,
        book: &book,
        loaded: &loaded,
        options: ReprocessOptions { order, ..ReprocessOptions::default() },
        limits: Limits::Log,
        files: Vec::new(),
        reading: ImportOptions::default(),
    };
    let inner =
        |topic: &str| topic.starts_with('_') || topic.ends_with(".epochs") || topic.ends_with(".changelog");
    let inputs = ["market.ticks.v1", "market.sentiment.v1", "reference.instruments.v1", "market.news.v1"];
    let is_output = |topic: &str| !inner(topic) && !inputs.contains(&topic);
    let expected = outputs(dump(&*log, is_output));
    // Inputs are put into memory once, for all runs.
    let shared: Arc<dyn Log> = Arc::new(MemoryLog::new());
    for topic in log.topics().unwrap().into_iter().filter(|topic| inputs.contains(&topic.name.as_str())) {
        shared.create_topic(&topic).unwrap();
    }
    for (at, records) in dump(&*log, |topic| inputs.contains(&topic)) {
        shared.append(&at, records.into_iter().map(|stored| stored.record).collect()).unwrap();
    }
    let run = |inputs, order| {
        let never = AtomicBool::new(false);
        let (written, summary) = in_memory(&job(inputs, order), &never, |_| {}).unwrap();
        assert!(summary.records > 60_000, "{summary:?}");
        outputs(dump(&*written, is_output))
    };
    std::thread::scope(|scope| {
        let runs: Vec<_> =
            [&log, &shared].map(|inputs| scope.spawn(|| run(inputs, InputOrder::Recorded))).into();
        for run in runs {
            let mut found = run.join().unwrap();
            found.retain(|at, _| expected.contains_key(at));
            assert_eq!(expected, found);
        }
    });
    let sorted = run(&shared, InputOrder::Event);
    assert!(sorted[&TopicPartition::new("features.bars.v1", 0)].len() > 10);
}
