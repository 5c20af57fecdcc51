//! Event time of a task: watermark, stream time and idle inputs, from the sequence of records alone.

use tidewire_contract::{Moment, Persist as _, PersistError, persist};
use tidewire_schemas::EventTime;

use crate::bugs;
use crate::intake::Source;
use crate::plan::StageSpec;

persist! {
    /// What is known of one input partition.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct PartitionTime {
        /// Greatest event time taken, in milliseconds.
        pub greatest_ms: Option<i64>,
        /// Event time of the last record taken, in milliseconds.
        pub last_ms: Option<i64>,
    }
}

/// How one partition counts towards the watermark.
#[derive(Clone, Debug)]
struct Rule {
    counts: bool,
    out_of_orderness_ms: i64,
    idle_after_ms: i64,
}

/// The time of a task.
#[derive(Clone, Debug)]
pub struct Tide {
    rules: Vec<Rule>,
    partitions: Vec<PartitionTime>,
    has_watermark: bool,
    passed: Option<EventTime>,
    stream_time: Option<EventTime>,
}

/// Who holds the watermark back, for people who ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Place among the task's input partitions.
    pub source: usize,
    /// What it allows: its greatest event time less its out-of-orderness, in milliseconds.
    pub allows_ms: i64,
}

impl Tide {
    /// Time before anything came.
    pub fn new(spec: &StageSpec, sources: &[Source]) -> Self {
        let rules = sources
            .iter()
            .map(|source| {
                let input = &spec.inputs[source.input];
                Rule {
                    counts: source.is_external_data(),
                    out_of_orderness_ms: input.out_of_orderness_ms,
                    idle_after_ms: input.idle_after_ms,
                }
            })
            .collect();
        Self {
            rules,
            partitions: vec![PartitionTime::default(); sources.len()],
            has_watermark: spec.has_watermark(),
            passed: None,
            stream_time: None,
        }
    }

    /// Takes the time of a record into account.
    pub fn observe(&mut self, source: usize, time_ms: i64) {
        let partition = &mut self.partitions[source];
        partition.greatest_ms = Some(partition.greatest_ms.map_or(time_ms, |greatest| greatest.max(time_ms)));
        partition.last_ms = Some(time_ms);
        let time = EventTime::from_ms(time_ms);
        let stream_time = self.stream_time.map_or(time, |stream_time| stream_time.max(time));
        self.stream_time = Some(stream_time);
        let reached = if self.has_watermark {
            self.holder().map(|holder| EventTime::from_ms(holder.allows_ms))
        } else {
            Some(stream_time)
        };
        self.passed = self.passed.max(reached);
    }

    /// Lets time go on in silence, up to `to`.
    pub fn advance(&mut self, to: EventTime) {
        self.passed = self.passed.max(Some(to));
        self.stream_time = self.stream_time.max(Some(to));
    }

    /// The input partition that holds the watermark back: the least among those that are not idle.
    pub fn holder(&self) -> Option<Holder> {
        let stream_ms = self.stream_time?.as_ms();
        let active =
            self.rules.iter().zip(&self.partitions).enumerate().filter_map(|(source, (rule, seen))| {
                let (greatest_ms, last_ms) = (seen.greatest_ms?, seen.last_ms?);
                let idle = bugs::wrong_idle(source)
                    .unwrap_or(stream_ms.saturating_sub(last_ms) > rule.idle_after_ms);
                (rule.counts && !idle).then(|| Holder {
                    source,
                    allows_ms: greatest_ms.saturating_sub(rule.out_of_orderness_ms),
                })
            });
        active.min_by_key(|holder| holder.allows_ms)
    }

    /// Whether a partition is idle: nothing came from it while stream time moved on by its `idle_after`.
    pub fn is_idle(&self, source: usize) -> bool {
        match (self.stream_time, self.partitions[source].last_ms) {
            (Some(stream), Some(last_ms)) => {
                stream.as_ms().saturating_sub(last_ms) > self.rules[source].idle_after_ms
            }
            _ => true,
        }
    }

    /// How long all must be silent before time goes on without them, in milliseconds.
    pub fn patience_ms(&self) -> i64 {
        let counted = self.rules.iter().filter(|rule| rule.counts);
        counted.map(|rule| rule.idle_after_ms.saturating_add(rule.out_of_orderness_ms)).max().unwrap_or(0)
    }

    /// What is known of each input partition.
    pub fn partitions(&self) -> &[PartitionTime] {
        &self.partitions
    }

    /// The time that timers go by: the watermark, or stream time where there is none.
    pub fn passed(&self) -> Option<EventTime> {
        self.passed
    }

    /// Running maximum of record times.
    pub fn stream_time(&self) -> Option<EventTime> {
        self.stream_time
    }

    /// Time as operators see it.
    pub fn moment(&self, stamp: EventTime) -> Moment {
        Moment { watermark: self.passed, stream_time: self.stream_time.unwrap_or_default(), stamp }
    }

    /// Appends all that is known, for a cut.
    pub fn save(&self, out: &mut Vec<u8>) {
        (self.passed, self.stream_time).save(out);
        self.partitions.save(out);
    }

    /// Takes back what [`Tide::save`] wrote.
    pub fn load(&mut self, bytes: &mut &[u8]) -> Result<(), PersistError> {
        (self.passed, self.stream_time) = <_>::load(bytes)?;
        let partitions = Vec::<PartitionTime>::load(bytes)?;
        if partitions.len() != self.partitions.len() {
            return Err(PersistError("another number of input partitions"));
        }
        self.partitions = partitions;
        Ok(())
    }
}
