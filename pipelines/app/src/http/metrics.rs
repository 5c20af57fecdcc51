//! Every metric: its name, its labels, and what it says. `docs/operations.md` has the same table; a test compares them.
//!
//! Labels are names out of the pipeline file, numbers of tasks and partitions, and short constants: how many series
//! there are is set by the pipeline, never by its records.

use std::hash::Hash;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A metric as it is documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name, as Prometheus has it.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
}

macro_rules! labels {
    ($($(#[$meta:meta])* $name:ident { $($field:ident : $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name { $(#[doc = "Label of this name."] pub $field: $type),* }
    )*};
}

labels! {
    /// By stage.
    ByStage { stage: String }
    /// By worker of this process.
    ByWorker { stage: String, worker: u64 }
    /// By stage and outcome.
    ByOutcome { stage: String, outcome: &'static str }
    /// By task.
    ByTask { stage: String, task: u32 }
    /// By task and what its epochs were made for.
    ByKind { stage: String, task: u32, kind: &'static str }
    /// By task and status.
    ByStatus { stage: String, task: u32, status: &'static str }
    /// By task and topic.
    ByTopic { stage: String, task: u32, topic: String }
    /// By task and input partition.
    ByInput { stage: String, task: u32, topic: String, partition: u32 }
    /// By task and reason.
    ByReason { stage: String, task: u32, reason: String }
    /// By operator of a task.
    ByOperator { stage: String, task: u32, operator: String }
    /// By operator and code.
    ByCode { stage: String, operator: String, code: String }
    /// What runs.
    ByBuild { version: String, build: String, pipeline: String }
    /// One series.
    Alone {}
}

/// A counter of things.
pub type Count<L> = Family<L, Counter>;
/// A counter of seconds.
pub type Seconds<L> = Family<L, Counter<f64, AtomicU64>>;
/// A value that goes up and down.
pub type Level<L> = Family<L, Gauge>;
/// A value with a fraction that goes up and down.
pub type Value<L> = Family<L, Gauge<f64, AtomicU64>>;
/// Durations in seconds.
pub type Durations<L> = Family<L, Histogram, Buckets>;

/// From 100 microseconds to 52 seconds, each bound twice the one before.
#[derive(Clone, Debug, Default)]
pub struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.000_1, 2.0, 20))
    }
}

/// Makes a metric that has no series yet.
trait Make {
    fn make() -> Self;
}

impl<L: Clone + Eq + Hash, M: Default> Make for Family<L, M> {
    fn make() -> Self {
        Self::default()
    }
}

impl<L: Clone + Eq + Hash> Make for Durations<L> {
    fn make() -> Self {
        Self::new_with_constructor(Buckets)
    }
}

macro_rules! metrics {
    ($($field:ident: $type:ty, $kind:literal, $name:literal, $help:literal;)*) => {
        /// All metrics, to be set.
        #[derive(Clone, Debug)]
        pub struct Metrics { $(#[doc = $help] pub $field: $type),* }

        /// All metrics, as they are documented.
        pub const METRICS: &[Described] = &[$(Described { name: $name, kind: $kind, help: $help }),*];

        impl Metrics {
            /// Metrics that `registry` shows.
            pub fn new(registry: &mut Registry) -> Self {
                let metrics = Self { $($field: <$type>::make()),* };
                $(registry.register(
                    // The encoder adds this ending to counters.
                    $name.strip_suffix("_total").unwrap_or($name),
                    $help,
                    metrics.$field.clone(),
                );)*
                metrics
            }
        }
    };
}

metrics! {
    build: Level<ByBuild>, "gauge", "tidewire_build_info", "Always 1: version, digest of the build, and the pipeline that runs";

    input_records: Count<ByInput>, "counter", "tidewire_input_records_total", "Records in committed epochs, by task and input partition";
    output_records: Count<ByTopic>, "counter", "tidewire_output_records_total", "Records committed to topics";
    late_records: Count<ByTask>, "counter", "tidewire_late_records_total", "Records that missed their windows, written to late.v1";
    dead_letters: Count<ByReason>, "counter", "tidewire_dead_letters_total", "Records and timers that could not be processed, written to dead-letters.v1";
    faults: Count<ByCode>, "counter", "tidewire_faults_total", "Failures of operators; each costs its task a recovery";

    epochs: Count<ByKind>, "counter", "tidewire_epochs_total", "Committed epochs";
    epoch_duration: Durations<ByWorker>, "histogram", "tidewire_epoch_duration_seconds", "From the first read to the durable commit, for a worker's epochs of one transaction together";
    commit_duration: Durations<ByWorker>, "histogram", "tidewire_commit_duration_seconds", "Time of a commit, whatever its outcome";
    commits: Count<ByOutcome>, "counter", "tidewire_commits_total", "Commits by outcome: done, aborted, unknown, fenced, failed";
    event_latency: Durations<ByStage>, "histogram", "tidewire_event_latency_seconds", "From the newest event time of an epoch's inputs to its durable commit: means something for live feeds alone";
    last_epoch: Level<ByTask>, "gauge", "tidewire_task_epoch", "Number of the last committed epoch";

    input_lag: Level<ByInput>, "gauge", "tidewire_input_lag_records", "Offsets of an input partition that no committed epoch took yet";
    input_idle: Level<ByInput>, "gauge", "tidewire_input_idle", "1 while an input partition is silent and no longer holds the watermark back";
    input_holds: Level<ByInput>, "gauge", "tidewire_input_holds_watermark", "1 for the input partition that holds the watermark back";
    watermark: Value<ByTask>, "gauge", "tidewire_watermark_timestamp_seconds", "Watermark, in event time";
    watermark_delay: Value<ByTask>, "gauge", "tidewire_watermark_delay_seconds", "How far the watermark is behind the wall clock";

    operator_input: Count<ByOperator>, "counter", "tidewire_operator_input_records_total", "Records that an operator took";
    operator_output: Count<ByOperator>, "counter", "tidewire_operator_output_records_total", "Records that an operator gave";
    operator_timers: Count<ByOperator>, "counter", "tidewire_operator_timers_total", "Timers that fired";
    operator_late: Count<ByOperator>, "counter", "tidewire_operator_late_records_total", "Records that missed a window of an operator";
    operator_busy: Seconds<ByOperator>, "counter", "tidewire_operator_busy_seconds_total", "Time that an operator worked";
    state_keys: Level<ByOperator>, "gauge", "tidewire_state_keys", "Keys for which an operator holds state";
    state_entries: Level<ByOperator>, "gauge", "tidewire_state_entries", "Entries of state that an operator holds";
    state_bytes: Level<ByOperator>, "gauge", "tidewire_state_bytes", "Bytes of an operator's state as it lies in the changelog, as of the last flush";
    state_timers: Level<ByOperator>, "gauge", "tidewire_state_timers", "Timers that wait";
    state_written: Count<ByTask>, "counter", "tidewire_state_written_bytes_total", "Bytes written to changelogs";

    task_status: Level<ByStatus>, "gauge", "tidewire_task_status", "1 for the status of a task held by this process: recovering, running, halted";
    rebalances: Count<ByWorker>, "counter", "tidewire_rebalances_total", "Changes of the tasks that a worker holds";
    rejoins: Count<ByWorker>, "counter", "tidewire_rejoins_total", "Times that a worker lost its place or the log and joined again";
    restores: Count<ByTask>, "counter", "tidewire_restores_total", "Recoveries of a task";
    restore_duration: Durations<ByStage>, "histogram", "tidewire_restore_duration_seconds", "From a task's assignment or fault to its being recovered";
    restored_records: Count<ByTask>, "counter", "tidewire_restored_changelog_records_total", "Changelog records read in recoveries";
    restored_epochs: Count<ByTask>, "counter", "tidewire_restored_epochs_total", "Epochs run again in recoveries";

    worker_quiet: Value<ByWorker>, "gauge", "tidewire_worker_last_step_seconds", "Time since a worker's last step: one that turns has less than a second, or the time of its commit";
    log_up: Level<Alone>, "gauge", "tidewire_log_up", "1 while the log answers";
    log_probe: Value<Alone>, "gauge", "tidewire_log_probe_seconds", "Time that the log took to answer when it was last asked";

    verify_epochs: Count<ByTask>, "counter", "tidewire_verify_epochs_total", "Epochs that `verify --follow` ran again and compared";
    verify_records: Count<ByTask>, "counter", "tidewire_verify_records_total", "Input records of the epochs that `verify --follow` compared";
    verify_differences: Count<ByTask>, "counter", "tidewire_verify_differences_total", "Stretches in which `verify --follow` found a difference";
    verify_failures: Count<ByTask>, "counter", "tidewire_verify_failures_total", "Stretches that `verify --follow` could not run again";
    verify_position: Level<ByTask>, "gauge", "tidewire_verify_position", "Number of the last epoch that `verify --follow` ran again";

    process_cpu: Seconds<Alone>, "counter", "process_cpu_seconds_total", "Processor time of the process";
    process_memory: Level<Alone>, "gauge", "process_resident_memory_bytes", "Memory of the process that is in RAM";
    process_virtual: Level<Alone>, "gauge", "process_virtual_memory_bytes", "Memory that the process mapped";
    process_fds: Level<Alone>, "gauge", "process_open_fds", "Open files and sockets";
    process_max_fds: Level<Alone>, "gauge", "process_max_fds", "Most open files and sockets that are allowed";
    process_threads: Level<Alone>, "gauge", "process_threads", "Threads";
    process_start: Value<Alone>, "gauge", "process_start_time_seconds", "When the process started, since 1970";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_prometheus_wants() {
        for metric in METRICS {
            let ours = metric.name.starts_with("tidewire_") || metric.name.starts_with("process_");
            assert!(ours, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == "counter", "{}", metric.name);
            assert!(metric.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", metric.name);
            assert!(metric.kind != "histogram" || metric.name.ends_with("_seconds"), "{}", metric.name);
        }
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before, "a name stands twice");
    }

    #[test]
    fn what_is_shown_has_help_and_type() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let by = ByTask { stage: "features".to_owned(), task: 3 };
        metrics.restores.get_or_create(&by).inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap_or_default();
        let wanted = "# HELP tidewire_restores Recoveries of a task.\n# TYPE tidewire_restores counter\n\
                      tidewire_restores_total{stage=\"features\",task=\"3\"} 1\n# EOF\n";
        assert_eq!(text, wanted);
    }
}
