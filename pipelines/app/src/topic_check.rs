//! Compares the topics of a log with what a pipeline needs of them.

use std::fmt;

use smol_str::SmolStr;
use tidewire_engine::log::{Log, LogError, TopicPartition, TopicSpec};
use tidewire_engine::partition::partition_of_compound;

use crate::pipeline::Pipeline;
use crate::records::text;

/// Records read of each partition to see how its writers spread keys.
const SAMPLE_BYTES: usize = 64 << 10;
/// Least of a broker's bound on times ahead of its clock that is looked at: ten minutes.
const LEAST_AHEAD_MS: u64 = 600_000;

/// Something that is not as the pipeline needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the pipeline must not run so. If not, it may, and something may be lost later.
    pub is_error: bool,
    /// The topic.
    pub topic: SmolStr,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_error { "error" } else { "warning" };
        write!(f, "{kind}: topic {}: {}", self.topic, self.text)
    }
}

/// What a pipeline's topics are to be, journals and changelogs among them.
pub fn wanted(pipeline: &Pipeline) -> Vec<TopicSpec> {
    let mut wanted: Vec<TopicSpec> =
        pipeline.topics.iter().map(|plan| plan.spec(pipeline.replay_retention_ms)).collect();
    let most = most_tasks(pipeline);
    for stage in &pipeline.stages {
        let changelog = TopicSpec::new(stage.changelog_topic(), stage.tasks());
        wanted.push(changelog.compacted(pipeline.replay_retention_ms));
        if !wanted.iter().any(|spec| spec.name == stage.epochs_topic()) {
            wanted.push(TopicSpec::new(stage.epochs_topic(), most));
        }
    }
    wanted
}

/// The most tasks of a stage: partitions of the topic of epoch records, which all stages share.
pub fn most_tasks(pipeline: &Pipeline) -> u32 {
    pipeline.stages.iter().map(|stage| stage.tasks()).max().unwrap_or(1)
}

/// Looks at every topic of a pipeline that is there. With `missing`, those that are not are findings too.
pub fn check(log: &dyn Log, pipeline: &Pipeline, missing: bool) -> Result<Vec<Finding>, LogError> {
    let mut findings = Findings(Vec::new());
    for wanted in wanted(pipeline) {
        let Some(found) = log.topic(&wanted.name)? else {
            if missing {
                findings
                    .error(&wanted.name, "is not there: `tidewire topics create --pipeline FILE` makes it");
            }
            continue;
        };
        let plan = pipeline.topics.iter().find(|plan| plan.name == wanted.name);
        partitions(&mut findings, &wanted, &found, plan.is_none());
        keeping(&mut findings, &wanted, &found);
        settings(&mut findings, log, &wanted, &found)?;
        if plan.is_some_and(|plan| !plan.key.is_empty() && plan.partitions > 1) {
            partitioner(&mut findings, log, &wanted, &found)?;
        }
    }
    Ok(findings.0)
}

struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, topic: &SmolStr, text: impl Into<String>) {
        self.0.push(Finding { is_error: true, topic: topic.clone(), text: text.into() });
    }

    fn warning(&mut self, topic: &SmolStr, text: impl Into<String>) {
        self.0.push(Finding { is_error: false, topic: topic.clone(), text: text.into() });
    }
}

/// Partition counts decide which task has which key, so they are never silently taken from the log.
fn partitions(findings: &mut Findings, wanted: &TopicSpec, found: &TopicSpec, own: bool) {
    if found.partitions == wanted.partitions {
        return;
    }
    let (there, need) = (found.partitions, wanted.partitions);
    let text = if own {
        format!(
            "has {there} partitions, and its stage now needs {need}: the state of a key would be looked for in another \
             task. Go back to the recorded number, or process the inputs again into fresh topics"
        )
    } else {
        format!(
            "has {there} partitions in the log, and {need} in the pipeline file: set `[topics.\"{}\"] partitions = \
             {there}`; where a stage has state already, its inputs are to be processed again into fresh topics",
            wanted.name
        )
    };
    findings.error(&wanted.name, text);
}

fn keeping(findings: &mut Findings, wanted: &TopicSpec, found: &TopicSpec) {
    let name = &wanted.name;
    match (wanted.compacted, found.compacted) {
        (false, true) => findings.error(
            name,
            "is compacted, which takes records that a re-run needs: set cleanup.policy=delete, or `compacted = true` in \
             the pipeline file",
        ),
        (true, false) => findings.warning(name, "is not compacted, so it grows without end: set cleanup.policy=compact"),
        (true, true) if found.compaction_lag_ms < wanted.compaction_lag_ms => findings.error(
            name,
            format!(
                "is compacted after {} ms, and a re-run may need records of the last {} ms: set \
                 min.compaction.lag.ms={}, or a shorter `replay_retention_ms`",
                found.compaction_lag_ms, wanted.compaction_lag_ms, wanted.compaction_lag_ms
            ),
        ),
        _ => {}
    }
    if !found.compacted {
        shorter(findings, name, "retention.ms", found.retention_ms, wanted.retention_ms);
        shorter(findings, name, "retention.bytes", found.retention_bytes, wanted.retention_bytes);
    }
}

fn shorter(findings: &mut Findings, name: &SmolStr, what: &str, found: Option<u64>, wanted: Option<u64>) {
    let Some(found) = found.filter(|found| wanted.is_none_or(|wanted| *found < wanted)) else { return };
    let need = wanted.map_or("-1".to_owned(), |wanted| wanted.to_string());
    let event_time = match what {
        "retention.ms" => {
            " (it counts by the records' own times: a recording of a past year is deleted at once)"
        }
        _ => "",
    };
    findings.warning(name, format!("has {what}={found}, the pipeline file wants {need}{event_time}"));
}

/// What only a log with settings of its own has.
fn settings(
    findings: &mut Findings,
    log: &dyn Log,
    wanted: &TopicSpec,
    found: &TopicSpec,
) -> Result<(), LogError> {
    let settings = log.topic_settings(&wanted.name)?;
    let get = |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    match (wanted.compacted, get("message.timestamp.type")) {
        // One that is not compacted, such as a copy of inputs, loses nothing by its age.
        (true, Some("CreateTime")) if found.compacted => findings.error(
            &wanted.name,
            "has timestamps of its writers, and compaction counts its lag by them: set \
             message.timestamp.type=LogAppendTime",
        ),
        (false, Some("LogAppendTime")) => findings.error(
            &wanted.name,
            "has timestamps of the broker, so event time is lost: set message.timestamp.type=CreateTime",
        ),
        _ => {}
    }
    let ahead = get("message.timestamp.after.max.ms").and_then(|text| text.parse::<u64>().ok());
    if let Some(ahead_ms) = ahead.filter(|ahead_ms| !wanted.compacted && *ahead_ms < LEAST_AHEAD_MS) {
        findings.warning(
            &wanted.name,
            format!("takes records at most {ahead_ms} ms ahead of the broker's clock; a venue's clock may be further"),
        );
    }
    let number = |name: &str| get(name).and_then(|text| text.parse::<u64>().ok());
    if let (Some(replicas), Some(in_sync)) = (number("replication.factor"), number("min.insync.replicas"))
        && replicas > 2
        && in_sync < 2
    {
        findings.warning(
            &wanted.name,
            "has min.insync.replicas=1: what one broker took may be lost with it; set it to 2",
        );
    }
    Ok(())
}

/// Whether the keys in a topic lie where this pipeline looks for them: by murmur2, as Java clients of Kafka do it.
fn partitioner(
    findings: &mut Findings,
    log: &dyn Log,
    wanted: &TopicSpec,
    found: &TopicSpec,
) -> Result<(), LogError> {
    if found.partitions != wanted.partitions {
        return Ok(());
    }
    for partition in 0..found.partitions {
        let at = TopicPartition::new(wanted.name.clone(), partition);
        let bounds = log.bounds(&at)?;
        if bounds.stable_end <= bounds.start {
            continue;
        }
        let fetched = log.read(&at, bounds.start, SAMPLE_BYTES)?;
        for stored in fetched.records {
            let Some(key) = stored.record.key.as_deref().map(text) else { continue };
            let should = partition_of_compound(&key, found.partitions);
            if should != partition {
                findings.error(
                    &wanted.name,
                    format!(
                        "has key {key:?} at {at}, offset {}, and by murmur2 it belongs to partition {should}: its writer \
                         uses another partitioner; with librdkafka set partitioner=murmur2_random",
                        stored.offset
                    ),
                );
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;
    use bytes::Bytes;
    use std::path::Path;
    use tidewire_engine::log::NewRecord;
    use tidewire_engine::memory::MemoryLog;

    fn pipeline() -> Pipeline {
        crate::files::load_pipeline(Path::new("market-intel")).unwrap().pipeline
    }

    fn errors(log: &MemoryLog) -> Vec<String> {
        let findings = check(log, &pipeline(), false).unwrap();
        findings.iter().filter(|finding| finding.is_error).map(ToString::to_string).collect()
    }

    #[test]
    fn topics_as_they_were_made_pass() {
        let (log, pipeline) = (MemoryLog::new(), pipeline());
        assert!(
            check(&log, &pipeline, true).unwrap().iter().all(|finding| finding.text.contains("not there"))
        );
        for spec in wanted(&pipeline) {
            log.create_topic(&spec).unwrap();
        }
        assert_eq!(check(&log, &pipeline, true).unwrap(), []);
    }

    #[test]
    fn what_would_give_wrong_results_is_an_error() {
        for (spec, words) in [
            (TopicSpec::new("market.ticks.v1", 3), "set `[topics.\"market.ticks.v1\"] partitions = 3`"),
            (TopicSpec::new("market-intel.risk.changelog", 2).compacted(u64::MAX), "fresh topics"),
            (TopicSpec::new("market.ticks.v1", 4).compacted(1), "cleanup.policy=delete"),
            (TopicSpec::new("marks.v1", 4).compacted(1), "min.compaction.lag.ms=604800000"),
        ] {
            let log = MemoryLog::new();
            log.create_topic(&spec).unwrap();
            let errors = errors(&log);
            assert!(errors.len() == 1 && errors[0].contains(words), "{errors:?}");
        }
    }

    #[test]
    fn another_partitioner_is_found() {
        let log = MemoryLog::new();
        log.create_topic(&TopicSpec::new("market.ticks.v1", 4)).unwrap();
        let key = "BTCUSDT.BINANCE_USDM";
        let right = partition_of_compound(key, 4);
        let record = NewRecord { key: Some(Bytes::from_static(key.as_bytes())), ..NewRecord::default() };
        log.append(&TopicPartition::new("market.ticks.v1", right), vec![record.clone()]).unwrap();
        assert_eq!(errors(&log), Vec::<String>::new());
        log.append(&TopicPartition::new("market.ticks.v1", (right + 1) % 4), vec![record]).unwrap();
        assert!(errors(&log)[0].contains("partitioner=murmur2_random"), "{:?}", errors(&log));
    }
}
