//! `tidewire doctor`: each thing that makes a replay impossible is found, on a log that is spoilt in that one way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::Value;
use tidewire::doctor::{Examined, Finding, Patient, Severity, examine};
use tidewire::pipeline::{Deployment, Pipeline};
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Keys, Operator, OperatorType, Whole};
use tidewire_engine::driver::{StageBuilder, TestDriver};
use tidewire_engine::log::{Log, TopicPartition, TopicSpec};
use tidewire_engine::memory::MemoryLog;
use tidewire_engine::plan::Role;
use tidewire_schemas::{FeatureValue, Instrument, Kind, Trade};

const TICKS: &str = "market.ticks.v1";
const INSTRUMENTS: &str = "reference.instruments.v1";
const CHANGELOG: &str = "test.features.changelog";
const EPOCHS: &str = "test.epochs";
const HOUR_MS: u64 = 3_600_000;

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Counts trades; if told to, it adds how often any of its kind was called in this process.
struct Counter {
    drifts: bool,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    drifts: bool,
}

impl Configured for Counter {
    const NAME: &'static str = "counter";
    const ABOUT: &'static str = "Counts.";
    type Settings = Settings;
    fn new(settings: Settings) -> Result<Self, String> {
        Ok(Self { drifts: settings.drifts })
    }
}

impl Operator for Counter {
    type State = Whole<u64>;
    type Shared = Whole<u64>;
    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::Trade],
            broadcasts: vec![Kind::Instrument],
            emits: vec![Kind::FeatureValue],
            ..Interface::default()
        }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Whole<u64>,
        _: &Whole<u64>,
    ) -> Result<(), Fault> {
        **state += 1;
        let drift = if self.drifts { CALLS.fetch_add(1, Ordering::SeqCst) } else { 0 };
        let value = (**state + drift) as f64;
        cx.emit(FeatureValue {
            instrument: input.key.clone(),
            event_time: input.time,
            name: "n".into(),
            value,
        });
        Ok(())
    }
    fn on_broadcast(
        &self,
        _: &mut Cx<'_>,
        _: &Input<'_>,
        _: &mut Keys<'_, Whole<u64>>,
        shared: &mut Whole<u64>,
    ) -> Result<(), Fault> {
        **shared += 1;
        Ok(())
    }
}

/// A stage that ran over 300 trades and some instruments, with many cuts, on topics as they are given.
fn ran(topics: &[TopicSpec], drifts: bool) -> TestDriver {
    let log = MemoryLog::new();
    for topic in topics {
        log.create_topic(topic).unwrap();
    }
    let spec = StageBuilder::new("features")
        .input(TICKS, Role::Driving, 1)
        .input(INSTRUMENTS, Role::Broadcast, 1)
        .node("count", OperatorType::of::<Counter>(), &format!("drifts = {drifts}"), &[TICKS, INSTRUMENTS])
        .output("features.values.v1", 1, &["count"], &["instrument"])
        .with(|spec| (spec.caps.max_records, spec.flush_interval_ms) = (5, 50))
        .build();
    let mut driver = TestDriver::on(log, spec);
    for i in 0..300_i64 {
        let (key, time_ms) = (["A.X", "B.X"][usize::try_from(i % 2).unwrap()], i * 100);
        if i % 60 == 1 {
            let instrument = Instrument { instrument: "A.X".into(), ..Instrument::default() };
            driver.append(INSTRUMENTS, "A.X", time_ms, instrument);
        }
        driver.append(TICKS, key, time_ms, Trade { instrument: key.into(), trade_id: i, ..Trade::default() });
    }
    while driver.step_once().unwrap().worked {
        driver.clock(9);
    }
    assert!(driver.epochs().iter().filter(|record| record.flush).count() > 5);
    driver
}

/// Long after everything ran.
const LATER_MS: i64 = 1_000_000_000;

fn examined(driver: &TestDriver, keep_ms: u64) -> Examined {
    examined_on(&**driver.log(), driver, keep_ms, LATER_MS)
}

fn examined_on(log: &dyn Log, driver: &TestDriver, keep_ms: u64, now_ms: i64) -> Examined {
    let pipeline = Pipeline {
        name: "test".into(),
        stages: vec![Arc::clone(driver.spec())],
        topics: Vec::new(),
        limits: Vec::new(),
        replay_retention_ms: 0,
        deployment: Deployment::default(),
        warnings: Vec::new(),
    };
    let patient = Patient { log, book: driver.book(), pipeline: &pipeline, note: None, keep_ms, now_ms };
    examine(&patient).unwrap()
}

/// The one error that is found.
fn error(examined: &Examined, check: &str) -> Finding {
    let errors: Vec<&Finding> =
        examined.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.len() == 1 && errors[0].check == check, "{errors:#?}");
    assert!(!errors[0].means.is_empty() && !errors[0].advice.is_empty());
    errors[0].clone()
}

#[test]
fn a_log_that_is_well_can_be_replayed_from_its_first_epoch() {
    let driver = ran(&[], false);
    let found = examined(&driver, 0);
    assert!(
        found.findings.iter().all(|finding| finding.severity != Severity::Error),
        "{:#?}",
        found.findings
    );
    let warnings = found.findings.iter().filter(|finding| finding.severity == Severity::Warning);
    assert_eq!(warnings.map(|finding| finding.check).collect::<Vec<_>>(), ["note"]);
    for check in ["retention", "replay", "re-run", "schemas"] {
        assert!(found.findings.iter().any(|finding| finding.check == check), "{check}");
    }
    let reach = &found.reach[0];
    assert_eq!((reach.begins_after, reach.first.unwrap().epoch), (Some(0), 1));
    assert_eq!(reach.kept.unwrap().last.epoch, driver.epochs().len() as u64);
}

#[test]
fn inputs_that_were_deleted_are_named_with_the_place_and_later_cuts_still_serve() {
    let driver = ran(&[], false);
    driver.log().truncate_before(&TopicPartition::new(TICKS, 0), 123).unwrap();
    let found = examined(&driver, 0);
    let finding = error(&found, "inputs");
    assert_eq!(finding.place(), "features/0, market.ticks.v1-0@123");
    let epochs = driver.epochs();
    let took = |record: &&tidewire_schemas::EpochRecord| {
        record
            .inputs
            .iter()
            .any(|input| input.topic == TICKS && input.records > 0 && input.first_offset < 123)
    };
    let last = epochs.iter().rfind(took).unwrap().epoch;
    assert!(finding.what.contains(&format!("epoch {last} took offsets")), "{}", finding.what);
    let cut = epochs.iter().find(|record| record.flush && record.epoch >= last).unwrap().epoch;
    assert_eq!(found.reach[0].begins_after, u64::try_from(cut).ok());
    // While it ran is not long ago, that is less than it is to reach back.
    let stamp_ms = epochs[usize::try_from(cut).unwrap()].stamp_ms;
    let replay = |now_ms: i64| {
        let found = examined_on(&**driver.log(), &driver, 100, now_ms).findings;
        found
            .iter()
            .any(|finding| finding.check == "replay" && finding.what.contains("less than the last 100 ms"))
    };
    assert!(replay(stamp_ms + 99) && !replay(stamp_ms + 100));
}

#[test]
fn inputs_that_were_compacted_are_counted() {
    let driver = ran(&[], false);
    driver.log().set_now_ms(1_000_000);
    assert!(driver.log().compact(INSTRUMENTS).unwrap() > 0);
    let finding = error(&examined(&driver, 0), "inputs");
    assert!(finding.what.contains("was compacted: offsets"), "{}", finding.what);
    assert_eq!(finding.topic.as_deref(), Some(INSTRUMENTS));
}

#[test]
fn a_gap_in_the_epoch_records_and_a_changelog_without_a_whole_cut_are_found() {
    let driver = ran(&[], false);
    // The same log, but for one epoch record.
    let (log, from) = (MemoryLog::new(), driver.log());
    for topic in from.topics().unwrap() {
        log.create_topic(&topic).unwrap();
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(topic.name.clone(), partition);
            let mut records: Vec<_> =
                from.records(&at).unwrap().into_iter().map(|stored| stored.record).collect();
            if topic.name == EPOCHS {
                records.remove(20);
            }
            log.append(&at, records).unwrap();
        }
    }
    let found = examined_on(&log, &driver, 0, LATER_MS);
    let finding = error(&found, "epochs");
    assert_eq!(finding.what, "epoch 21 is missing: what comes next is epoch 22");
    assert!(found.reach[0].begins_after.unwrap() >= 21);

    driver.log().truncate_before(&TopicPartition::new(EPOCHS, 0), 10).unwrap();
    let changelog = TopicPartition::new(CHANGELOG, 0);
    let end = driver.log().bounds(&changelog).unwrap().stable_end;
    driver.log().truncate_before(&changelog, end).unwrap();
    let found = examined(&driver, 0);
    let finding = error(&found, "replay");
    assert_eq!(finding.topic.as_deref(), Some(CHANGELOG));
    assert_eq!((found.reach[0].begins_after, found.reach[0].first), (None, None));
}

#[test]
fn what_is_kept_too_short_is_found_before_it_is_gone() {
    let short = |name: &str| TopicSpec { retention_ms: Some(1_000), ..TopicSpec::new(name, 1) };
    let driver = ran(&[short(TICKS), short("features.values.v1"), short(EPOCHS)], false);
    // Only what the pipeline lists is looked at; journals and changelogs always are.
    let found = examined(&driver, HOUR_MS);
    let errors: Vec<String> = found
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| format!("{} {}", finding.check, finding.place()))
        .collect();
    assert_eq!(errors, [format!("compaction {CHANGELOG}"), format!("retention {EPOCHS}")]);
    assert!(
        examined(&driver, 1_000)
            .findings
            .iter()
            .all(|finding| finding.check != "retention" || finding.severity == Severity::Ok)
    );
}

#[test]
fn an_operator_that_is_not_deterministic_is_found() {
    let finding = error(&examined(&ran(&[], true), 0), "re-run");
    assert!(finding.what.contains("gave two results when it was run twice"), "{}", finding.what);
    assert_eq!(finding.place(), "features/0");
}

#[test]
fn records_of_an_unknown_schema_are_found() {
    let driver = ran(&[], false);
    driver.append_raw(TICKS, "A.X", 999_000, vec![0, 0, 0, 39, 15, 1, 2, 3]);
    let finding = error(&examined(&driver, 0), "schemas");
    assert!(finding.what.contains("schema id 9999"), "{}", finding.what);
    assert_eq!((finding.topic.as_deref(), finding.offset), (Some(TICKS), Some(300)));
}

#[test]
fn the_command_tells_it_and_exits_with_one_if_there_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let tidewire = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.args(args).arg("--data").arg(&data).env_remove("TIDEWIRE_DATA").output().unwrap()
    };
    assert!(tidewire(&["demo", "--json"]).status.success());
    let well = tidewire(&["doctor", "--json"]);
    assert_eq!(well.status.code(), Some(0), "{}", String::from_utf8_lossy(&well.stdout));
    let value: Value = serde_json::from_slice(&well.stdout).unwrap();
    assert_eq!((&value["errors"], &value["warnings"]), (&0.into(), &0.into()), "{value:#}");
    let replay = value["pipelines"][0]["replay"].as_array().unwrap();
    assert_eq!(replay.len(), 12);
    assert!(replay.iter().all(|task| task["replay_from"]["epoch"] == 1), "{value:#}");
    let ill = tidewire(&["doctor", "--keep", "30d"]);
    assert_eq!(ill.status.code(), Some(1));
    let text = String::from_utf8_lossy(&ill.stdout).into_owned();
    assert!(
        text.contains("market-intel.signals.changelog: is compacted after 7 d, less than the 30 d"),
        "{text}"
    );
    let other = folder.path().join("other.toml");
    let shipped = tidewire::files::SHIPPED[0].1;
    std::fs::write(&other, shipped.replacen("period = 5\n", "period = 6\n", 1)).unwrap();
    let changed = tidewire(&["doctor", other.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&changed.stdout).into_owned();
    assert_eq!(changed.status.code(), Some(0), "{text}");
    assert!(text.contains("with another pipeline file") && text.contains("run again gives"), "{text}");
    let none = tidewire(&["doctor", "--keep", "soon"]);
    assert_eq!(none.status.code(), Some(2));
}
