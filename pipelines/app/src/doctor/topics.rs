//! Whether the topics are there as the stages need them, and keep their records for long enough.

use smol_str::SmolStr;
use tidewire_engine::log::{LogError, TopicPartition, TopicSpec};

use super::{Finding, Patient};
use crate::span::shown;
use crate::topic_check::wanted;

/// Name of the check that finds topics that are missing or have other partitions.
pub const THERE: &str = "topics";
const RETENTION: &str = "retention";
const COMPACTION: &str = "compaction";
const OUTPUTS: &str = "outputs";

/// What a topic is to a pipeline; the first that holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Epochs,
    Changelog,
    Input,
    Output,
}

impl Part {
    fn of(patient: &Patient<'_>, topic: &str) -> Self {
        let stages = &patient.pipeline.stages;
        if stages.iter().any(|stage| stage.epochs_topic() == topic) {
            Self::Epochs
        } else if stages.iter().any(|stage| stage.changelog_topic() == topic) {
            Self::Changelog
        } else if stages.iter().flat_map(|stage| &stage.inputs).any(|input| input.topic == topic) {
            Self::Input
        } else {
            Self::Output
        }
    }

    fn loss(self) -> &'static str {
        match self {
            Self::Epochs => {
                "epochs whose records are gone can not be run again: `verify` and `explain` begin after them"
            }
            Self::Changelog => {
                "earlier cuts are left with a part of their state, so `verify`, recovery and `explain` can only begin \
                 from later ones"
            }
            Self::Input => {
                "epochs that took what is gone can not be run again, and `reprocess` does not see it: its results are \
                 others"
            }
            Self::Output => "what is gone can not be compared by `verify` nor shown by `explain`",
        }
    }
}

/// Looks at all topics of the pipeline.
pub fn look(patient: &Patient<'_>, findings: &mut Vec<Finding>) -> Result<(), LogError> {
    let (before, all) = (findings.len(), wanted(patient.pipeline));
    for wanted in &all {
        match patient.log.topic(&wanted.name)? {
            Some(found) => {
                partitions(findings, wanted, &found);
                keeping(patient, findings, wanted, &found)?;
            }
            None => findings.push(Finding::error(THERE, "is not there").of_topic(&wanted.name).so(
                "no stage that reads or writes it can be replayed",
                "has the pipeline run on this log? `tidewire topics create --pipeline FILE` makes it",
            )),
        }
    }
    if findings.len() == before {
        let kept = shown(patient.keep_ms);
        findings.push(Finding::ok(
            RETENTION,
            format!("all {} topics keep what a replay of the last {kept} needs", all.len()),
        ));
    }
    if findings.iter().all(|finding| finding.check != THERE) {
        deleted_outputs(patient, findings)?;
    }
    Ok(())
}

fn partitions(findings: &mut Vec<Finding>, wanted: &TopicSpec, found: &TopicSpec) {
    if found.partitions != wanted.partitions {
        let what =
            format!("has {} partitions, and the pipeline wants {}", found.partitions, wanted.partitions);
        findings.push(Finding::error(THERE, what).of_topic(&wanted.name).so(
            "keys lie in other partitions than they did, so recorded epochs can not be run again with these stages",
            "verify with the file as it was when the epochs were recorded; to go on, reprocess into fresh topics",
        ));
    }
}

fn keeping(
    patient: &Patient<'_>,
    findings: &mut Vec<Finding>,
    wanted: &TopicSpec,
    found: &TopicSpec,
) -> Result<(), LogError> {
    let (part, keep) = (Part::of(patient, &wanted.name), shown(patient.keep_ms));
    let name: &SmolStr = &wanted.name;
    let finding = |check, what: String| match part {
        // What is only compared is no loss for the run itself.
        Part::Output => Finding::warning(check, what).of_topic(name),
        _ => Finding::error(check, what).of_topic(name),
    };
    if found.compacted {
        if !wanted.compacted {
            let advice = "set cleanup.policy=delete, or `compacted = true` for it in the pipeline file";
            findings.push(
                finding(COMPACTION, "is compacted, though the pipeline does not want it".to_owned())
                    .so(part.loss(), advice),
            );
        } else if found.compaction_lag_ms < patient.keep_ms {
            let what = format!(
                "is compacted after {}, less than the {keep} that are to be replayed",
                shown(found.compaction_lag_ms)
            );
            let advice = format!(
                "set min.compaction.lag.ms={0} on Kafka; where the pipeline makes it, `replay_retention_ms = {0}`",
                patient.keep_ms
            );
            findings.push(finding(COMPACTION, what).so(part.loss(), advice));
        }
        return Ok(());
    }
    if let Some(retention_ms) = found.retention_ms.filter(|ms| *ms < patient.keep_ms) {
        let settings = patient.log.topic_settings(name)?;
        let by_event_time =
            settings.iter().any(|(name, value)| name == "message.timestamp.type" && value == "CreateTime");
        let counted = match by_event_time {
            true => ", counted by event time: recordings of a past year are deleted at once",
            false => "",
        };
        let what = format!(
            "deletes records after {}, less than the {keep} that are to be replayed{counted}",
            shown(retention_ms)
        );
        let advice = format!("set retention.ms to at least {}, or -1 and a bound in bytes", patient.keep_ms);
        findings.push(finding(RETENTION, what).so(part.loss(), advice));
    }
    if let Some(bytes) = found.retention_bytes {
        let what =
            format!("keeps at most {bytes} bytes a partition: how long that lasts depends on the load");
        let advice = "compare the growth of its partitions (`tidewire topics`) with the bound, and raise it if need be";
        findings.push(Finding::warning(RETENTION, what).of_topic(name).so(part.loss(), advice));
    }
    Ok(())
}

/// Outputs that are not there any more are not compared.
fn deleted_outputs(patient: &Patient<'_>, findings: &mut Vec<Finding>) -> Result<(), LogError> {
    let outputs = patient.pipeline.stages.iter().flat_map(|stage| &stage.outputs);
    let mut names: Vec<&SmolStr> = outputs.map(|output| &output.topic).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let Some(topic) = patient.log.topic(name)?.filter(|topic| !topic.compacted) else { continue };
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(name.clone(), partition);
            let start = patient.log.bounds(&at)?.start;
            if start > 0 {
                findings.push(
                    Finding::warning(OUTPUTS, format!("begins at offset {start}: earlier outputs were deleted"))
                        .at(&at, Some(start))
                        .so(
                            "`verify` counts them as deleted, and compares the others; `explain` can not show them",
                            "a longer retention keeps more from now on",
                        ),
                );
                break;
            }
        }
    }
    Ok(())
}
