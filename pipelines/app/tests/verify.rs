//! `tidewire verify` on the log of a demo and beside a running pipeline: ranges, samples, threads, and what it names when
//! a record or an operator's arithmetic is another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;
use tidewire::files::SHIPPED;
use tidewire::pipeline::{Setting, load};
use tidewire::verify::{Options, Progress, Tally, began_at, fields, jobs, verify};
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator, OperatorType};
use tidewire_engine::log::{Log as _, NewRecord, StoredRecord, TopicPartition, TopicSpec};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::verify::{Edge, Range, VerifyReport};
use tidewire_operators::{OPERATORS, ema};
use tidewire_runtime::embedded::{Durability, EmbeddedLog, EmbeddedOptions, RemoteLog};
use tidewire_runtime::registry::{RegistryOptions, read_book_with};
use tidewire_schemas::{EventTime, Record, SchemaBook};
use tidewire_tests::eventually;
use tidewire_tests::process::Running;

const PATIENCE: Duration = Duration::from_secs(60);
const FROM: &str = "2024-08-08T23:54:50Z";
const TO: &str = "2024-08-08T23:55:20Z";

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.arg("--data").arg(data).env_remove("TIDEWIRE_DATA").env_remove("TIDEWIRE_LOG");
    command
}

/// The log of a demo, made once; it is not opened but for being copied.
fn demo() -> &'static Path {
    static DEMO: OnceLock<TempDir> = OnceLock::new();
    let folder = DEMO.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let made = command(&folder.path().join("demo")).args(["demo", "--json"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    });
    Box::leak(folder.path().join("demo").into_boxed_path())
}

/// A copy of it, for a test alone.
fn copy() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("log");
    assert!(Command::new("cp").arg("-r").arg(demo()).arg(&to).status().unwrap().success());
    (folder, to)
}

fn open(data: &Path) -> Arc<EmbeddedLog> {
    let options = EmbeddedOptions { durability: Durability::Buffered, ..EmbeddedOptions::default() };
    EmbeddedLog::open(data, options).unwrap()
}

/// A copy record by record, with what `change` makes of each.
fn altered(
    topic: impl Fn(TopicSpec) -> TopicSpec,
    mut change: impl FnMut(&str, u32, &StoredRecord, &SchemaBook) -> Option<NewRecord>,
) -> (TempDir, PathBuf) {
    let (folder, from) = copy();
    let to = folder.path().join("altered");
    let (from, log) = (open(&from), open(&to));
    let book = read_book_with(&*from, &RegistryOptions::default()).unwrap();
    for spec in from.topics().unwrap() {
        log.create_topic(&topic(spec.clone())).unwrap();
        for partition in 0..spec.partitions {
            let at = TopicPartition::new(spec.name.clone(), partition);
            let (mut next, end) = (0, from.bounds(&at).unwrap().stable_end);
            while next < end {
                let fetched = from.read(&at, next, 1 << 20).unwrap();
                next = fetched.next_offset.max(next + 1);
                let records = fetched.records.iter();
                let records: Vec<NewRecord> =
                    records.filter_map(|stored| change(&spec.name, partition, stored, &book)).collect();
                if !records.is_empty() {
                    log.append(&at, records).unwrap();
                }
            }
        }
    }
    (folder, to)
}

fn run(data: &Path, args: &[&str]) -> Output {
    command(data).arg("verify").args(args).output().unwrap()
}

fn json(data: &Path, code: i32, args: &[&str]) -> Value {
    let output = run(data, &[args, &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fails(data: &Path, args: &[&str]) -> String {
    let output = run(data, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn ranges_by_time_and_by_epoch_begin_from_the_cut_before_them() {
    let (_folder, data) = copy();
    let whole = json(&data, 0, &[]);
    let summary = &whole["summary"];
    assert!(summary["epochs"].as_u64().unwrap() > 500, "{summary}");
    let (span_s, speed) =
        (summary["event_time_s"].as_f64().unwrap(), summary["times_real_time"].as_f64().unwrap());
    assert!((90.0..100.0).contains(&span_s), "{summary}");
    assert!((speed * summary["wall_s"].as_f64().unwrap() - span_s).abs() < 0.5, "{summary}");

    let range = json(&data, 0, &["--from", FROM, "--to", TO]);
    let task = range["tasks"].as_array().unwrap().iter().find(|task| task["stage"] == "signals").unwrap();
    let (began, passed) =
        (task["began_after_epoch"].as_u64().unwrap(), task["not_compared"].as_u64().unwrap());
    assert!(began > 0 && passed > 0, "{task}");
    assert!(task["last_stream_time"].as_str().unwrap() <= TO, "{task}");
    let epochs = task["epochs"].as_u64().unwrap();
    assert!((20..40).contains(&epochs), "{task}");
    // The same by numbers.
    let (first, last) = (began + passed + 1, task["last_epoch"].as_u64().unwrap());
    let args = ["--stage", "signals", "--task", "0", "--from", &first.to_string(), "--to", &last.to_string()];
    let by_number = json(&data, 0, &args);
    assert_eq!(by_number["tasks"][0], *task);
    assert_eq!(last - first + 1, epochs);
    // A cut before the range is not run, and what is outside is not called extra.
    let one = json(&data, 0, &["--stage", "signals", "--task", "0", "--from", "1", "--to", "1"]);
    assert_eq!((&one["tasks"][0]["epochs"], &one["tasks"][0]["began_after_epoch"]), (&1.into(), &0.into()));

    for (args, wanted) in [
        (&["--from", "9", "--to", "8"][..], "--from 9 is after --to 8"),
        (&["--from", TO, "--to", FROM][..], "is after --to"),
        (
            &["--from", "100000"],
            "epoch 100000 is not there yet: the epoch records in market-intel.epochs-0 end with",
        ),
        (&["--to", "100000", "--task", "1"], "epoch 100000 is not there yet"),
        (&["--from", "2030-01-01T00:00:00Z"], "stream time 2030-01-01T00:00:00Z is not there yet"),
        (&["--to", "2001-01-01T00:00:00Z"], "no epoch lies from epoch 1"),
        (&["--task", "17"], "there is no task 17"),
        (&["--http", "127.0.0.1:0"], "add `--follow`"),
    ] {
        let error = fails(&data, args);
        assert!(error.contains(wanted), "{args:?}: {error}");
    }
    for wrong in
        [&["--from", "0"][..], &["--from", "then"], &["--sample", "0"], &["--seed", "1"], &["--workers", "0"]]
    {
        assert_eq!(run(&data, wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn the_result_does_not_depend_on_the_threads_and_samples_on_the_seed_alone() {
    let (_folder, data) = copy();
    let of = |args: &[&str]| json(&data, 0, args)["tasks"].clone();
    let one = of(&["--workers", "1"]);
    assert_eq!(one, of(&["--workers", "2"]));
    assert_eq!(one, of(&["--workers", "4"]));
    let sample = json(&data, 0, &["--sample", "40%", "--workers", "1"]);
    assert_eq!(sample["tasks"], of(&["--sample", "40%", "--workers", "4"]));
    assert_ne!(sample["tasks"], of(&["--sample", "40%", "--seed", "1"]));
    let count = |of: &str| sample["summary"][of].as_u64().unwrap();
    let (drawn, all) = (count("drawn"), count("stretches"));
    assert!(all > 100 && (all * 25 / 100..all * 55 / 100).contains(&drawn), "{drawn} of {all}");
    let whole = json(&data, 0, &["--sample", "100%"]);
    let epochs = |tasks: &Value| {
        tasks.as_array().unwrap().iter().filter_map(|task| task["epochs"].as_u64()).sum::<u64>()
    };
    assert_eq!(epochs(&whole["tasks"]), epochs(&one), "all stretches are all epochs");
    assert!(epochs(&sample["tasks"]) < epochs(&one));
}

#[test]
fn a_record_that_was_changed_in_a_topic_is_named_with_its_field() {
    let mut place = None;
    let (_folder, data) = altered(
        |spec| spec,
        |topic, partition, stored, book| {
            let mut record = stored.record.clone();
            if topic == "features.values.v1" && stored.offset == 40 && place.is_none() {
                let mut vector = book.decode(record.value.as_deref().unwrap()).unwrap();
                if let Record::FeatureVector(vector) = &mut vector {
                    *vector.values.get_mut("rsi").unwrap() += 1e-9;
                }
                let mut value = Vec::new();
                book.encode(&vector, &mut value).unwrap();
                record.value = Some(value.into());
                place = Some(partition);
            }
            Some(record)
        },
    );
    let place = place.expect("a record was changed");
    let found = json(&data, 3, &[]);
    assert_eq!(found["summary"]["differing"], 1);
    let task = found["tasks"].as_array().unwrap().iter().find(|task| !task["difference"].is_null()).unwrap();
    let difference = &task["difference"];
    assert_eq!(
        (&difference["what"], &difference["operator"]),
        (&"value".into(), &"vector".into()),
        "{difference}"
    );
    assert_eq!(difference["at"], format!("features.values.v1-{place}"));
    assert_eq!(difference["offset"], 40);
    assert_eq!(difference["began_at"], "rsi");
    let fields = difference["fields"].as_array().unwrap();
    assert_eq!((fields.len(), &fields[0]["field"]), (1, &"values.rsi".into()));
    let value = |of: &str| fields[0][of].as_f64().unwrap();
    assert!((value("recorded") - value("run_again") - 1e-9).abs() < 1e-12, "{difference}");
    assert!(
        !difference["key"].is_null()
            && !difference["cause"].is_null()
            && difference["recorded"]["kind"] == "FeatureVector"
    );
    let shown = run(&data, &["--stage", "signals"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("  field     values.rsi: recorded ") && text.contains("  began at  rsi"), "{text}");
    assert!(String::from_utf8_lossy(&shown.stderr).contains("verification found a difference"));
    // A stretch that does not hold it is the same; one that does is not.
    let epoch = difference["epoch"].as_u64().unwrap();
    let task = task["task"].to_string();
    let only = |from: u64, to: u64, code: i32| {
        let args =
            ["--stage", "signals", "--task", &task, "--from", &from.to_string(), "--to", &to.to_string()];
        json(&data, code, &args);
    };
    only(1, epoch - 1, 0);
    only(epoch, epoch, 3);
    only(epoch + 1, epoch + 20, 0);
}

/// `ema` with one line changed: it takes each closing price a cent higher.
struct OtherEma(ema::Ema);

impl Configured for OtherEma {
    const NAME: &'static str = "ema";
    const ABOUT: &'static str = "An average with a mistake";
    type Settings = ema::Settings;
    fn new(settings: Self::Settings) -> Result<Self, String> {
        ema::Ema::new(settings).map(Self)
    }
}

impl Operator for OtherEma {
    type State = <ema::Ema as Operator>::State;
    type Shared = <ema::Ema as Operator>::Shared;
    fn interface(&self) -> Interface {
        self.0.interface()
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Self::State,
        shared: &Self::Shared,
    ) -> Result<(), Fault> {
        let Some(bar) = input.record.as_bar() else { return Ok(()) };
        let mut bar = bar.clone();
        bar.close = bar.close.checked_add("0.01".parse().unwrap()).unwrap();
        let record = Record::from(bar);
        self.0.on_record(cx, &Input { record: &record, ..*input }, state, shared)
    }
}

struct Silent;

impl Progress for Silent {
    fn epoch(&self, _: &VerifyReport, _: u64) {}
}

fn verified(data: &Path, stages: &[Arc<StageSpec>], range: Range) -> (Vec<Tally>, Arc<SchemaBook>) {
    let log = open(data);
    let book = Arc::new(read_book_with(&*log, &RegistryOptions::default()).unwrap());
    let tasks: Vec<_> = (0..stages[0].tasks()).map(|task| (Arc::clone(&stages[0]), task)).collect();
    let options = Options { range, sample: None, workers: NonZeroUsize::MIN };
    let jobs = jobs(&*log, &book, &tasks, &range).unwrap();
    (verify(&*log, &book, &jobs, &options, &Silent, &AtomicBool::new(false)), book)
}

#[test]
fn a_changed_line_of_arithmetic_is_found_at_its_first_effect() {
    let (_folder, data) = copy();
    let (name, text) = SHIPPED[0];
    let stages = |operators: &[OperatorType]| load(name, text, operators, Setting::default()).unwrap().stages;
    let mut operators = OPERATORS.to_vec();
    *operators.iter_mut().find(|operator| operator.name == "ema").unwrap() = OperatorType::of::<OtherEma>();
    let (same, _) = verified(&data, &stages(OPERATORS), Range::default());
    assert!(same.iter().all(|tally| tally.differing == 0 && tally.failures == 0));

    // From a cut on, at which the averages are defined: the first vector after it shows the change.
    let time: EventTime = FROM.parse().unwrap();
    let range = Range { from: Some(Edge::Time(time)), to: None };
    let changed = stages(&operators);
    let (tallies, book) = verified(&data, &changed, range);
    let mut seen = 0;
    for tally in tallies.iter().filter(|tally| tally.report.records > 0 && tally.differing > 0) {
        let difference = &tally.differences[0];
        let fields = fields(difference, &book);
        assert_eq!(difference.operator.as_deref(), Some("vector"), "{difference:?}");
        assert!(fields[0].field.starts_with("values.ema_"), "{fields:?}");
        assert_eq!(
            Some(&fields[0].field["values.".len()..]),
            began_at(&changed[0], difference, &fields).as_deref()
        );
        assert_eq!(tally.report.epochs, 1, "in the first epoch of the range");
        seen += 1;
    }
    assert!(seen >= 2, "{seen}");
    // From the beginning the state shows it first: no average is given out before its period is over.
    let (tallies, _) = verified(&data, &changed, Range::default());
    let difference = &tallies.iter().find(|tally| tally.differing > 0).unwrap().differences[0];
    assert_eq!(
        (difference.what.as_str(), difference.operator.as_deref()),
        ("state of another digest", Some("ema_fast"))
    );
    assert!(difference.key.is_some() && difference.epoch < 30, "{difference:?}");
}

const BARS: &str = r#"
[pipeline]
name = "bars"
partitions = 1

[engine]
flush_interval_ms = 200

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

fn trades(folder: &Path, data: &Path, minute: u32) {
    let lines: String =
        (0..20).map(|s| format!("2024-08-08T23:{minute}:{s:02}.100Z,61800.{s:02},0.006,buy\n")).collect();
    let file = folder.join(format!("{minute}.csv"));
    std::fs::write(&file, format!("time,price,quantity,side\n{lines}")).unwrap();
    let done = command(data)
        .args([
            "import",
            file.to_str().unwrap(),
            "--instrument",
            "BTCUSDT.BINANCE_USDM",
            "--topic-partitions",
            "1",
        ])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_check_beside_a_running_pipeline_finds_what_is_made_later() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("bars.toml"));
    std::fs::write(&file, BARS).unwrap();
    trades(folder.path(), &data, 10);
    let running = Running::start(command(&data).arg("run").arg(&file), folder.path(), "run");
    eventually("the run", PATIENCE, || RemoteLog::connect(&data).ok());
    let mut check = Running::start(
        command(&data).args(["verify", "--json", "--every", "200ms", "--http", "127.0.0.1:0"]),
        folder.path(),
        "check",
    );
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(folder.path().join("check.stdout")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    eventually("a verified stretch", PATIENCE, || (!lines().is_empty()).then_some(()));
    for minute in 11..13 {
        let before = lines().len();
        trades(folder.path(), &data, minute);
        eventually("a stretch of what came later", PATIENCE, || (lines().len() > before).then_some(()));
    }
    assert!(lines().iter().all(|line| line["difference"].is_null()), "{:?}", lines());
    let address =
        check.said().lines().find_map(|line| line.strip_prefix("health and metrics: ").map(str::to_owned));
    let address = address.expect("the address is told").replace("http://", "");
    let ask = |page: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        write!(stream, "GET /{page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(ask("healthz").starts_with("HTTP/1.1 200"), "{}", ask("healthz"));
    assert!(ask("readyz").starts_with("HTTP/1.1 200"), "{}", ask("readyz"));
    let metrics = ask("metrics");
    assert!(
        metrics.contains("tidewire_verify_differences_total{stage=\"features\",task=\"0\"} 0"),
        "{metrics}"
    );
    assert!(metrics.contains("tidewire_verify_position{stage=\"features\",task=\"0\"}"), "{metrics}");

    // Someone writes into the output topic in the task's name: what the task writes there next is not in its place.
    let remote = RemoteLog::connect(&data).unwrap();
    let at = TopicPartition::new("features.bars.v1", 0);
    let mut forged = remote.read(&at, 0, 1 << 20).unwrap().records.pop().unwrap().record;
    forged.headers.retain(|(name, _)| name != "tw-id");
    forged.headers.push(("tw-id".into(), Bytes::from_static(b"features/0/100000")));
    remote.append(&at, vec![forged]).unwrap();
    trades(folder.path(), &data, 13);
    let found = eventually("the difference", PATIENCE, || {
        lines().into_iter().find(|line| !line["difference"].is_null())
    });
    assert_eq!(found["difference"]["what"], "missing", "{found}");
    eventually("the metric", PATIENCE, || {
        let text = ask("metrics");
        text.contains("tidewire_verify_differences_total{stage=\"features\",task=\"0\"} 1").then_some(())
    });
    let all = lines();
    let ends: Vec<u64> = all.iter().filter_map(|line| line["to_epoch"].as_u64()).collect();
    assert!(ends.windows(2).all(|pair| pair[0] < pair[1]), "no stretch twice: {ends:?}");
    let killed = Command::new("kill").args(["-TERM", &check.pid().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(check.wait(PATIENCE).and_then(|status| status.code()), Some(3), "{}", check.said());
    let summary = lines().pop().unwrap();
    assert!(summary["summary"]["differing"].as_u64().unwrap() >= 1, "{summary}");
    assert!(check.said().contains("verification found a difference"), "{}", check.said());
    running.terminate();
}
