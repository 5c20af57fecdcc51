//! The newest stretch of each task, run twice: whether it can be restored, and whether it gives the same both times.

use tidewire_engine::rerun::RerunError;
use tidewire_engine::verify::{VerifyError, is_outage, rerun_epochs};

use super::{Finding, Patient, Reach};

const RERUN: &str = "re-run";
/// Most epochs of a task that are run.
const MAX_EPOCHS: u64 = 2_000;

/// Runs what follows the last cut of each task twice.
pub fn look(patient: &Patient<'_>, reach: &[Reach], findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    let (before, mut epochs) = (findings.len(), 0);
    for reach in reach {
        let Some(stage) = patient.pipeline.stages.iter().find(|stage| *stage.name == *reach.stage) else {
            continue;
        };
        let Some(kept) = reach.kept else { continue };
        let from = match reach.last_cut {
            Some(cut) => cut + 1,
            None if kept.first.epoch == 1 => 1,
            None => continue,
        };
        let to = kept.last.epoch.min(from.saturating_add(MAX_EPOCHS - 1));
        let run = || rerun_epochs(patient.log, stage, patient.book, reach.task, from, to);
        let twice = run().and_then(|first| Ok((first, run()?)));
        let (first, second) = match twice {
            Ok(twice) => twice,
            Err(VerifyError::Log(error)) if is_outage(&error) => return Err(error.into()),
            Err(error) => {
                findings.push(failed(&error).of_stage(stage, Some(reach.task)));
                continue;
            }
        };
        epochs += first.len();
        if let Some((a, _)) = first.iter().zip(&second).find(|(a, b)| a != b) {
            let what = format!("epoch {} gave two results when it was run twice", a.epoch);
            findings.push(Finding::error(RERUN, what).of_stage(stage, Some(reach.task)).so(
                "an operator is not deterministic: no replay of this stage proves anything, and a recovery may halt",
                "look for unordered maps, clocks and randomness in the stage's operators (docs/replay.md)",
            ));
        } else if let Some(found) = first.iter().find(|rerun| rerun.difference.is_some()) {
            let what = found.difference.clone().unwrap_or_default();
            let what = format!("epoch {} run again gives {what}", found.epoch);
            let finding = match reach.is_same_build && reach.is_same_file {
                true => Finding::error(RERUN, what).so(
                    "inputs, state or the machine's arithmetic are not what they were when it was recorded",
                    "`tidewire verify` names the first difference",
                ),
                false => Finding::warning(RERUN, what).so(
                    "this build or file gives other results than those recorded: `verify` will show differences",
                    "`tidewire verify` names the first one; the recorded build repeats what is there",
                ),
            };
            findings.push(finding.of_stage(stage, Some(reach.task)));
        }
    }
    if findings.len() == before && epochs > 0 {
        findings.push(Finding::ok(RERUN, format!("the newest {epochs} epochs give what they gave, twice")));
    }
    Ok(())
}

fn failed(error: &VerifyError) -> Finding {
    let advice = match error {
        VerifyError::Restore { .. } => {
            "replay with the build and file that wrote the state, or reprocess into fresh topics"
        }
        VerifyError::Rerun { error: RerunError::InputChanged { .. }, .. } => {
            "see that inputs are kept, and not compacted, for as long as they are to be replayed"
        }
        _ => "`tidewire verify` says more",
    };
    Finding::error(RERUN, error.to_string())
        .so("the newest epochs can not be run again, nor can a recovery run them", advice)
}
