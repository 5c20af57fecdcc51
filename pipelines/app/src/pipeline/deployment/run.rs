//! `[run]`: how a process of the pipeline runs.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::super::fields::Fields;
use super::super::problem::Problems;
use super::super::tree::Table;

/// Most threads a stage.
const MAX_WORKERS: i64 = 1_024;
/// Longest time to stop: an hour.
const MAX_STOP_MS: i64 = 3_600_000;

/// What the table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunTable {
    /// `workers`: threads a stage.
    pub workers: Option<NonZeroUsize>,
    /// `stop_timeout_ms`: how long the end may take.
    pub stop_timeout: Option<Duration>,
}

impl RunTable {
    pub(super) fn read(table: &Table, problems: &mut Problems) -> Self {
        let mut fields = Fields::new(table, "[run]");
        let workers = fields.integer("workers", 1..=MAX_WORKERS, problems);
        let stop_ms = fields.integer("stop_timeout_ms", 1_000..=MAX_STOP_MS, problems);
        fields.finish(problems);
        Self {
            workers: workers.and_then(|workers| usize::try_from(workers).ok()).and_then(NonZeroUsize::new),
            stop_timeout: stop_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::load_deployment;

    #[test]
    fn the_table_is_read_within_bounds() {
        let text = "[run]\nworkers = 3\nstop_timeout_ms = 10_000\n";
        let table = load_deployment("f.toml", text, Vec::new()).unwrap().run.unwrap();
        assert_eq!((table.workers.unwrap().get(), table.stop_timeout.unwrap().as_secs()), (3, 10));
        let problems = |text: &str| load_deployment("f.toml", text, Vec::new()).unwrap_err().to_string();
        assert!(problems("[run]\nworkers = 0").contains("from 1 to 1024"));
        assert!(problems("[run]\nstop_timeout_ms = 1").contains("from 1000 to"));
        assert!(problems("[run]\nworker = 1").contains("the nearest name is `workers`"));
    }
}
