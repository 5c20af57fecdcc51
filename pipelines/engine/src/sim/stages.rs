//! The simulated pipeline: features by instrument, risk by account, a venue by instrument.

use std::sync::Arc;

use tidewire_schemas::{Kind, topics};

use super::operators::{ECHO, RISK, SIGNAL, VENUE, WINDOWS};
use super::scenario::Scenario;
use crate::driver::StageBuilder;
use crate::log::{Log, LogError, TopicSpec};
use crate::plan::{OutputSpec, Role, StageSpec};

/// Partitions of the topic of sentiment scores.
pub const SENTIMENT_PARTITIONS: u32 = 2;
/// Partitions of the topics of marks.
const MARKS_PARTITIONS: u32 = 2;
/// Partitions of late records and dead letters.
const SIDE_PARTITIONS: u32 = 2;
/// Width of the short windows, in milliseconds.
pub const SHORT_WINDOW_MS: i64 = 100;
/// Width of the long windows, in milliseconds.
pub const LONG_WINDOW_MS: i64 = 350;
/// How far ahead of its received time an event time may be, in milliseconds.
pub const MAX_FUTURE_SKEW_MS: i64 = 10_000;
/// How far records may be out of order and still be in time, in milliseconds.
const OUT_OF_ORDERNESS_MS: i64 = 40;
/// After how much stream time an input is idle, in milliseconds.
const IDLE_AFTER_MS: i64 = 150;

/// The stages of a scenario.
pub fn stages(scenario: &Scenario) -> Vec<Arc<StageSpec>> {
    let mut all = vec![features(scenario), risk(scenario)];
    if scenario.stages > 2 {
        all.push(venue(scenario));
    }
    let bounded = all.into_iter().zip(scenario.caps).zip(scenario.flush_interval_ms);
    bounded
        .map(|((mut spec, caps), flush_interval_ms)| {
            spec.pipeline = "sim".into();
            spec.caps = caps;
            spec.flush_interval_ms = flush_interval_ms;
            spec.side_partitions = SIDE_PARTITIONS;
            Arc::new(spec)
        })
        .collect()
}

/// The stage by another build and pipeline file, with the same outputs.
pub fn rebuilt(spec: &StageSpec, build: u8) -> StageSpec {
    let mut spec = spec.clone();
    spec.build_digest = [build; 16];
    spec.pipeline_digest = [build.wrapping_mul(3); 16];
    for node in spec.nodes.iter_mut().filter(|node| node.operator.name != ECHO.name) {
        node.settings.insert("note".into(), toml::Value::String(format!("build {build}")));
    }
    spec
}

/// Makes every topic that the stages read and write.
pub fn create_topics(
    log: &dyn Log,
    stages: &[Arc<StageSpec>],
    replay_retention_ms: u64,
) -> Result<(), LogError> {
    let tasks = stages.iter().map(|spec| spec.tasks()).max().unwrap_or(1);
    for spec in stages {
        let inputs = spec.inputs.iter().map(|input| (input.topic.clone(), input.partitions));
        let outputs = spec.outputs.iter().map(|output| (output.topic.clone(), output.partitions));
        let side = [topics::LATE, topics::DEAD_LETTERS].map(|name| (name.into(), SIDE_PARTITIONS));
        for (name, partitions) in inputs.chain(outputs).chain(side) {
            let compacted = topics::find(&name).is_some_and(|topic| topic.compacted);
            let topic = TopicSpec::new(name, partitions);
            log.create_topic(&if compacted { topic.compacted(replay_retention_ms) } else { topic })?;
        }
        log.create_topic(&TopicSpec::new(spec.epochs_topic(), tasks))?;
        let changelog = TopicSpec::new(spec.changelog_topic(), spec.tasks());
        log.create_topic(&changelog.compacted(replay_retention_ms))?;
    }
    Ok(())
}

fn features(scenario: &Scenario) -> StageSpec {
    let tasks = scenario.partitions[0];
    let external = |input: &mut crate::plan::InputSpec| {
        input.out_of_orderness_ms = OUT_OF_ORDERNESS_MS;
        input.idle_after_ms = IDLE_AFTER_MS;
        input.max_future_skew_ms = Some(MAX_FUTURE_SKEW_MS);
    };
    let short = format!("width_ms = {SHORT_WINDOW_MS}\npanics = true");
    let long = format!("width_ms = {LONG_WINDOW_MS}\nrefuses = true");
    let signal = format!("accounts = {}", scenario.accounts);
    let (ticks, sentiment) = (topics::TICKS, topics::SENTIMENT);
    StageBuilder::new("features")
        .input(ticks, Role::Driving, tasks)
        .tuned(external)
        .input(sentiment, Role::Broadcast, SENTIMENT_PARTITIONS)
        .tuned(external)
        .input(topics::INSTRUMENTS, Role::Broadcast, 1)
        .tuned(external)
        .input(topics::CONTROL, Role::Control, 1)
        .node("short", WINDOWS, &short, &[ticks, sentiment])
        .node("long", WINDOWS, &long, &[ticks])
        .node("signal", SIGNAL, &signal, &["short", ticks, sentiment, topics::INSTRUMENTS, topics::CONTROL])
        .node("echo", ECHO, "", &["signal", "short"])
        .output(topics::FEATURES, tasks, &["short", "long", "signal", "echo"], &["instrument"])
        .with(of_kinds(&[Kind::FeatureValue]))
        .output(topics::MARKS, MARKS_PARTITIONS, &["signal"], &["instrument"])
        .with(of_kinds(&[Kind::MarkPrice]))
        .output(topics::INTENTS, scenario.partitions[1], &["signal"], &["account"])
        .with(of_kinds(&[Kind::OrderIntent]))
        .build()
}

fn risk(scenario: &Scenario) -> StageSpec {
    let tasks = scenario.partitions[1];
    let inputs = [topics::INTENTS, topics::EXECUTIONS, topics::MARKS, topics::RISK_LIMITS, topics::CONTROL];
    StageBuilder::new("risk")
        .input(topics::INTENTS, Role::Driving, tasks)
        .tuned(|input| input.external = false)
        .input(topics::EXECUTIONS, Role::Keyed, tasks)
        .tuned(|input| input.external = false)
        .input(topics::MARKS, Role::Broadcast, MARKS_PARTITIONS)
        .tuned(|input| input.external = false)
        .input(topics::RISK_LIMITS, Role::Control, 1)
        .input(topics::CONTROL, Role::Control, 1)
        .node("risk", RISK, "", &inputs)
        .output(topics::RISK_DECISIONS, tasks, &["risk"], &["account"])
        .with(of_kinds(&[Kind::RiskDecision]))
        .output(topics::ORDERS, tasks, &["risk"], &["account"])
        .with(of_kinds(&[Kind::Order]))
        .output(topics::VENUE_COMMANDS, scenario.partitions[2], &["risk"], &["instrument"])
        .with(of_kinds(&[Kind::NewOrder]))
        .output(topics::POSITIONS, tasks, &["risk"], &["account", "instrument"])
        .with(of_kinds(&[Kind::Position]))
        .output(topics::RISK_METRICS, tasks, &["risk"], &["account"])
        .with(of_kinds(&[Kind::RiskMetrics]))
        .with(|spec| spec.makes_orders = true)
        .build()
}

fn venue(scenario: &Scenario) -> StageSpec {
    StageBuilder::new("venue")
        .input(topics::VENUE_COMMANDS, Role::Driving, scenario.partitions[2])
        .tuned(|input| input.external = false)
        .input(topics::MARKS, Role::Broadcast, MARKS_PARTITIONS)
        .tuned(|input| input.external = false)
        .node("venue", VENUE, "", &[topics::VENUE_COMMANDS, topics::MARKS])
        .output(topics::EXECUTIONS, scenario.partitions[1], &["venue"], &["account"])
        .build()
}

fn of_kinds(kinds: &'static [Kind]) -> impl FnOnce(&mut StageSpec) {
    move |spec| {
        if let Some(OutputSpec { kinds: filter, .. }) = spec.outputs.last_mut() {
            *filter = kinds.to_vec();
        }
    }
}
