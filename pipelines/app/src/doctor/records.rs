//! Whether the records of the topics can be read: their schemas are known to the registry, and this build takes them.

use std::collections::BTreeSet;

use smol_str::SmolStr;
use tidewire_engine::log::TopicPartition;
use tidewire_schemas::wire;

use super::{Finding, Patient};

const SCHEMAS: &str = "schemas";
/// Bytes looked at of each end of a partition.
const SAMPLE_BYTES: usize = 64 << 10;
/// Offsets before the end of a partition at which its tail is looked at.
const TAIL_OFFSETS: u64 = 256;

/// Looks at the first and last records of every partition that the stages read or write.
pub fn look(patient: &Patient<'_>, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    let stages = &patient.pipeline.stages;
    let inputs = stages.iter().flat_map(|stage| &stage.inputs).map(|input| input.topic.clone());
    let outputs = stages.iter().flat_map(|stage| &stage.outputs).map(|output| output.topic.clone());
    let epochs = stages.iter().map(|stage| stage.epochs_topic());
    let topics: BTreeSet<SmolStr> = inputs.chain(outputs).chain(epochs).collect();
    let (before, mut seen) = (findings.len(), BTreeSet::new());
    for name in &topics {
        let Some(topic) = patient.log.topic(name)? else { continue };
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(name.clone(), partition);
            let bounds = patient.log.bounds(&at)?;
            let tail = bounds.stable_end.saturating_sub(TAIL_OFFSETS).max(bounds.start);
            let starts: BTreeSet<u64> =
                [bounds.start, tail].into_iter().filter(|from| *from < bounds.stable_end).collect();
            for from in starts {
                for stored in patient.log.read(&at, from, SAMPLE_BYTES)?.records {
                    let Some(value) = stored.record.value.as_deref() else { continue };
                    let Ok((id, _)) = wire::split_prefix(value) else { continue };
                    if !seen.insert((name.clone(), id)) {
                        continue;
                    }
                    if let Err(error) = patient.book.kind_of(value) {
                        findings.push(unreadable(id, &error.to_string()).at(&at, Some(stored.offset)));
                    }
                }
            }
        }
    }
    if findings.len() == before && !seen.is_empty() {
        let ids: BTreeSet<u32> = seen.iter().map(|(_, id)| *id).collect();
        findings.push(Finding::ok(
            SCHEMAS,
            format!("the {} schemas of records looked at can be read", ids.len()),
        ));
    }
    Ok(())
}

fn unreadable(id: u32, error: &str) -> Finding {
    Finding::error(SCHEMAS, format!("records of schema id {id} can not be read: {error}")).so(
        "they are dead letters in a `reprocess`, and `verify` and `explain` can not show them",
        "name the registry that gave the id with `--registry`, or register the schema there again",
    )
}
