//! What the journal of a run must hold, and what it says of how the run went.

use std::collections::BTreeMap;

use tidewire_schemas::Record;

use crate::clients::Seen;

/// The epochs of each task, `(stage, task)`: number and stamp in milliseconds, in the order of the journal.
pub type Epochs = BTreeMap<(String, i32), Vec<(i64, i64)>>;

/// Sorts epoch records by task.
pub fn by_task(journal: &[(Seen, Record)]) -> Epochs {
    let mut epochs = Epochs::new();
    for (_, record) in journal {
        let record = record.as_epoch_record().expect("the journal holds epoch records");
        let task = (record.stage.to_string(), record.task);
        epochs.entry(task).or_default().push((record.epoch, record.stamp_ms));
    }
    epochs
}

/// Each task's epochs are numbered without a gap and none is there twice, as it would be had a writer committed after
/// another took its place; and stamps never go back. Returns how many epochs there are.
pub fn check(epochs: &Epochs) -> usize {
    for (task, numbers) in epochs {
        for (place, pair) in numbers.windows(2).enumerate() {
            let [(before, stamp_before), (epoch, stamp)] = pair else { continue };
            assert_eq!(*epoch, before + 1, "{task:?}: record {place} of the journal");
            assert!(stamp >= stamp_before, "{task:?}: epoch {epoch} is stamped before the one before it");
        }
    }
    epochs.values().map(Vec::len).sum()
}

/// The longest time in milliseconds between two epochs of each task of a stage that overlaps the span, ascending: how
/// long each partition stood still at most.
pub fn standstills(epochs: &Epochs, stage: &str, from_ms: i64, to_ms: i64) -> Vec<i64> {
    let of_stage = epochs.iter().filter(|((of, _), _)| of == stage);
    let longest = |stamps: &Vec<(i64, i64)>| {
        let pairs = stamps.windows(2).map(|pair| (pair[0].1, pair[1].1));
        pairs.filter(|(before, after)| *after >= from_ms && *before <= to_ms).map(|(a, b)| b - a).max()
    };
    let mut all: Vec<i64> = of_stage.filter_map(|(_, stamps)| longest(stamps)).collect();
    all.sort_unstable();
    all
}
