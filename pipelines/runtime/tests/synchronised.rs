//! Synchronised and live running of three stages, two of them in a cycle, on a log in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../../engine/tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{feature, stage, trade};
use serde::Deserialize;
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, MapState, Operator, OperatorType, Timer};
use tidewire_engine::driver::{StageBuilder, create_topics};
use tidewire_engine::log::{Log, NewRecord, TopicPartition};
use tidewire_engine::memory::MemoryLog;
use tidewire_engine::partition::partition_of;
use tidewire_engine::plan::{Role, StageSpec};
use tidewire_engine::verify::verify_task;
use tidewire_runtime::live::{self, LiveOptions};
use tidewire_runtime::synchronised::{self, RunError, SyncOptions};
use tidewire_schemas::{Kind, Record, SchemaBook};

/// Answers "sum" with an "order", and "fill" with a "position".
struct Approve;
/// Gives each "order" back as a "fill" after 20 ms.
struct Fill;

#[derive(Deserialize)]
struct NoSettings {}

impl Configured for Approve {
    const NAME: &'static str = "approve";
    const ABOUT: &'static str = "Approves.";
    type Settings = NoSettings;
    fn new(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Configured for Fill {
    const NAME: &'static str = "fill";
    const ABOUT: &'static str = "Fills.";
    type Settings = NoSettings;
    fn new(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Operator for Approve {
    type State = MapState<u64, f64>;
    type Shared = ();
    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::FeatureValue],
            emits: vec![Kind::FeatureValue],
            ..Interface::default()
        }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Self::State,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::FeatureValue(value) = input.record else { return Ok(()) };
        let count = state.len() as u64;
        match value.name.as_str() {
            "sum" => {
                state.insert(count, value.value);
                cx.emit(feature("order", input.key, input.time, value.value + count as f64));
            }
            "fill" => {
                let total: f64 = state.iter().map(|(_, value)| value).sum();
                cx.emit(feature("position", input.key, input.time, total));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Operator for Fill {
    type State = MapState<i64, f64>;
    type Shared = ();
    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::FeatureValue],
            emits: vec![Kind::FeatureValue],
            delays: true,
            ..Interface::default()
        }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Self::State,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::FeatureValue(value) = input.record else { return Ok(()) };
        if value.name == "order" {
            let at = cx.moment().stream_time.plus_ms(20);
            state.insert(at.as_ms(), value.value);
            cx.set_timer(at, 0);
        }
        Ok(())
    }
    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        state: &mut Self::State,
        (): &(),
    ) -> Result<(), Fault> {
        let value = state.remove(&timer.at.as_ms()).unwrap();
        cx.emit(feature("fill", &timer.key, timer.at, value));
        Ok(())
    }
}

fn internal(input: &mut tidewire_engine::plan::InputSpec) {
    input.external = false;
    input.idle_after_ms = 0;
}

fn pipeline() -> Vec<Arc<StageSpec>> {
    let risk = StageBuilder::new("risk")
        .input("features.values.v1", Role::Driving, 3)
        .tuned(internal)
        .input("executions.v1", Role::Keyed, 3)
        .tuned(internal)
        .input("control.v1", Role::Control, 1)
        .node("approve", OperatorType::of::<Approve>(), "", &["features.values.v1", "executions.v1"])
        .output("orders.v1", 2, &["approve"], &["instrument"])
        .build();
    let venue = StageBuilder::new("venue")
        .input("orders.v1", Role::Driving, 2)
        .tuned(internal)
        .node("fill", OperatorType::of::<Fill>(), "", &["orders.v1"])
        .output("executions.v1", 3, &["fill"], &["instrument"])
        .build();
    vec![Arc::new(stage(3, |_| {})), Arc::new(risk), Arc::new(venue)]
}

/// A log twice, as the runners and as the tests see it, its schemas and the stages.
type Loaded = (Arc<dyn Log>, Arc<MemoryLog>, Arc<SchemaBook>, Vec<Arc<StageSpec>>);

fn loaded() -> Loaded {
    let (log, book, stages) = (Arc::new(MemoryLog::new()), Arc::new(SchemaBook::of_this_build()), pipeline());
    for spec in &stages {
        create_topics(&*log, spec, 0).unwrap();
    }
    let mut seed = 99_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let put = |topic: &str, key: &str, time_ms: i64, record: Record| {
        let mut value = Vec::new();
        book.encode(&record, &mut value).unwrap();
        let partitions = log.topic(topic).unwrap().unwrap().partitions;
        let record = NewRecord {
            timestamp_ms: time_ms,
            key: Some(bytes::Bytes::copy_from_slice(key.as_bytes())),
            value: Some(value.into()),
            headers: Vec::new(),
        };
        log.append(&TopicPartition::new(topic, partition_of(key.as_bytes(), partitions)), vec![record])
            .unwrap();
    };
    for i in 0..600_i64 {
        let key = format!("{}.X", ["A", "B", "C", "D", "E"][random(5) as usize]);
        let time_ms = 1_000_000 + i * 61 - i64::try_from(random(90)).unwrap();
        put("market.ticks.v1", &key, time_ms, trade(&key, i, time_ms, "1.25").into());
    }
    put("control.v1", "*", 99_000_000, tidewire_schemas::ControlCommand::default().into());
    (Arc::clone(&log) as Arc<dyn Log>, log, book, stages)
}

/// Every record of every topic, as it lies.
fn everything(log: &MemoryLog) -> Vec<String> {
    let mut all = Vec::new();
    for topic in log.topics().unwrap() {
        for partition in 0..topic.partitions {
            for stored in log.records(&TopicPartition::new(topic.name.clone(), partition)).unwrap() {
                all.push(format!("{} {partition} {stored:?}", topic.name));
            }
        }
    }
    all
}

#[test]
fn synchronised_runs_are_equal_whatever_the_number_of_workers() {
    let never = AtomicBool::new(false);
    let mut first: Option<Vec<String>> = None;
    for workers in [1, 2, 4, 1, 3] {
        let (log, memory, book, stages) = loaded();
        let options = SyncOptions { workers, ..SyncOptions::default() };
        let summary = synchronised::run(&log, &book, &stages, &options, &never, |_| {}).unwrap();
        assert!(summary.rounds > 20 && summary.records > 1000, "{summary:?}");
        let all = everything(&memory);
        let orders = memory.records(&TopicPartition::new("orders.v1", 0)).unwrap();
        assert!(orders.len() > 50, "{}", orders.len());
        match &first {
            None => first = Some(all),
            Some(first) => {
                for (found, expected) in all.iter().zip(first) {
                    assert_eq!(found, expected, "{workers} workers");
                }
                assert_eq!(all.len(), first.len());
            }
        }
        for spec in &stages {
            for task in 0..spec.tasks() {
                let report = verify_task(&*log, spec, &book, task, |_| {}).unwrap();
                assert_eq!(report.difference, None, "{}/{task}: {report:?}", spec.name);
                assert!(report.epochs > 0);
            }
        }
        let again = synchronised::run(&log, &book, &stages, &options, &never, |_| {});
        assert!(matches!(again, Err(RunError::NotFresh { .. })), "{again:?}");
    }
}

#[test]
fn live_runs_verify_and_a_changed_operator_is_found() {
    let (log, memory, book, stages) = loaded();
    let stop = Arc::new(AtomicBool::new(false));
    let watch = Arc::clone(&stop);
    let seen = Arc::clone(&memory);
    let watcher = std::thread::spawn(move || {
        // Until the cycle has been through once more than there are windows, or ten seconds have passed.
        for _ in 0..200 {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let fills: usize =
                (0..3).map(|p| seen.records(&TopicPartition::new("executions.v1", p)).unwrap().len()).sum();
            if fills > 30 {
                break;
            }
        }
        watch.store(true, Ordering::SeqCst);
    });
    let options = LiveOptions { workers: 2, ..LiveOptions::default() };
    let summary = live::run(&log, &book, &stages, &options, &stop, |_| {}).unwrap();
    watcher.join().unwrap();
    assert!(summary.halted.is_empty() && summary.records > 1000, "{summary:?}");
    let mut compared = 0;
    for spec in &stages {
        for task in 0..spec.tasks() {
            let report = verify_task(&*log, spec, &book, task, |_| {}).unwrap();
            assert_eq!(report.difference, None, "{}/{task}: {report:?}", spec.name);
            compared += report.compared;
        }
    }
    assert!(compared > 500, "{compared}");
    // The comparison can fail: a changed setting is found at its first effect.
    let mut changed = (*stages[0]).clone();
    changed.nodes[2].settings = "scale = 1.0000001".parse().unwrap();
    let report = verify_task(&*log, &Arc::new(changed), &book, 0, |_| {}).unwrap();
    let difference = report.difference.unwrap();
    assert_eq!((difference.what.as_str(), difference.operator.as_deref()), ("value", Some("count")));
}

#[test]
fn what_makes_an_operator_fail_is_dead_lettered_and_the_rest_is_as_if_it_had_not_come() {
    let never = AtomicBool::new(false);
    let outcome = |with_fault: bool| {
        let (log, memory, book, stages) = loaded();
        if with_fault {
            // At the end of a partition, and so in the last rounds, with much done before.
            let mut value = Vec::new();
            book.encode(&trade("A.X", 666, 1_036_000, "1").into(), &mut value).unwrap();
            let key = Some(bytes::Bytes::from_static(b"A.X"));
            let record =
                NewRecord { timestamp_ms: 1_036_000, key, value: Some(value.into()), headers: Vec::new() };
            log.append(&TopicPartition::new("market.ticks.v1", partition_of(b"A.X", 3)), vec![record])
                .unwrap();
        }
        let summary =
            synchronised::run(&log, &book, &stages, &SyncOptions::default(), &never, |_| {}).unwrap();
        assert_eq!(summary.faults, u64::from(with_fault));
        for spec in &stages {
            for task in 0..spec.tasks() {
                let report = verify_task(&*log, spec, &book, task, |_| {}).unwrap();
                assert_eq!(report.difference, None, "{}/{task}: {report:?}", spec.name);
            }
        }
        let mut bodies = Vec::new();
        for topic in ["features.values.v1", "orders.v1", "executions.v1"] {
            for partition in 0..log.topic(topic).unwrap().unwrap().partitions {
                for stored in memory.records(&TopicPartition::new(topic, partition)).unwrap() {
                    bodies.push((topic, stored.record.key, stored.record.value));
                }
            }
        }
        bodies.sort();
        let letters = memory.records(&TopicPartition::new("dead-letters.v1", 0)).unwrap().len();
        (bodies, letters)
    };
    let (expected, none) = outcome(false);
    let (found, one) = outcome(true);
    assert_eq!((none, one), (0, 1));
    assert_eq!(found, expected);
}
