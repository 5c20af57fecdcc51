//! Dead letters: everything that can not be processed has one, once, and nothing else has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};
use tidewire_schemas::{DeadLetter, Record, SchemaBook};

use super::feed::Coming;
use super::follow::Made;
use super::operators::{Mischief, is_poisoned, window_start_ms};
use super::stages::SHORT_WINDOW_MS;
use super::trace::Broken;
use crate::log::TopicPartition;
use crate::plan::{Role, StageSpec};

/// A record that a task must put among the dead letters: stage, task, topic, partition, offset.
type Case = (usize, u32, SmolStr, u32, u64);

/// What is expected among the dead letters, and what was found.
pub struct Letters {
    stages: Vec<Arc<StageSpec>>,
    book: Arc<SchemaBook>,
    expected: BTreeMap<Case, u32>,
    /// Trades that spoil a short window: where they lie, and the window's timer.
    spoilers: BTreeMap<(u32, u64), SmolStr>,
    /// Trades that were late for short windows.
    late: BTreeSet<(u32, u64)>,
    timers: BTreeMap<SmolStr, u32>,
    /// Dead letters found.
    pub found: u64,
    /// Late records of short windows found.
    pub found_late: u64,
}

impl Letters {
    /// None expected yet.
    pub fn new(stages: Vec<Arc<StageSpec>>, book: Arc<SchemaBook>) -> Self {
        Self {
            stages,
            book,
            expected: BTreeMap::new(),
            spoilers: BTreeMap::new(),
            late: BTreeSet::new(),
            timers: BTreeMap::new(),
            found: 0,
            found_late: 0,
        }
    }

    /// Takes note of a record that the outside appended.
    pub fn appended(&mut self, coming: &Coming, offset: u64) {
        if coming.unusable {
            self.expect_of_readers(&coming.at, offset);
            return;
        }
        let value = coming.record.value.as_deref().unwrap_or_default();
        let Ok(Record::Trade(trade)) = self.book.decode(value) else { return };
        match Mischief::of(&trade) {
            Mischief::None | Mischief::PoisonedIntent => {}
            Mischief::Panic | Mischief::Refused | Mischief::RefusedLater => {
                self.expect_of_readers(&coming.at, offset);
            }
            Mischief::TimerPanics | Mischief::PoisonedWindow => {
                let end_ms = window_start_ms(trade.event_time.as_ms(), SHORT_WINDOW_MS) + SHORT_WINDOW_MS;
                let timer = format_smolstr!("timer:short/{}@{}#0", trade.instrument, end_ms * 1_000);
                self.spoilers.insert((coming.at.partition, offset), timer);
            }
        }
    }

    /// Takes an output that was made.
    pub fn take(&mut self, made: &Made) -> Result<(), Broken> {
        match &made.record {
            Record::OrderIntent(intent) if is_poisoned(intent.quantity) => {
                self.expect_of_readers(&made.at, made.offset);
            }
            Record::LateRecord(late) if late.operator == "short" => {
                self.found_late += 1;
                if let (Ok(partition), Ok(offset)) =
                    (u32::try_from(late.source_partition), u64::try_from(late.source_offset))
                {
                    self.late.insert((partition, offset));
                }
            }
            Record::DeadLetter(letter) => self.take_letter(made, letter)?,
            _ => {}
        }
        Ok(())
    }

    fn take_letter(&mut self, made: &Made, letter: &DeadLetter) -> Result<(), Broken> {
        self.found += 1;
        let words = format!(
            "{}/{} at {} offset {}: {} ({})",
            letter.stage, made.task, made.at, made.offset, letter.error, letter.reason
        );
        let wrong = |what: &str| Err(Broken::new("dead letters", format!("{what}: {words}")));
        if letter.source_topic.is_empty() {
            let timer = letter.error.split(": ").next().unwrap_or_default();
            if !self.spoilers.values().any(|spoiled| spoiled == timer) {
                return wrong("a timer that nothing was wrong with");
            }
            let count = self.timers.entry(timer.into()).or_insert(0);
            *count += 1;
            return if *count > 1 { wrong("a timer twice") } else { Ok(()) };
        }
        let place = (u32::try_from(letter.source_partition), u64::try_from(letter.source_offset));
        let (Ok(partition), Ok(offset)) = place else { return wrong("a place that is none") };
        let case = (made.stage, made.task, letter.source_topic.clone(), partition, offset);
        let Some(count) = self.expected.get_mut(&case) else {
            return wrong("a record that nothing was wrong with");
        };
        *count += 1;
        if *count > 1 { wrong("a record twice") } else { Ok(()) }
    }

    /// Whether everything that had to be there is there.
    pub fn check_complete(&self) -> Result<(), Broken> {
        if let Some((stage, task, topic, partition, offset)) =
            self.expected.iter().find(|(_, count)| **count != 1).map(|(case, _)| case)
        {
            let stage = &self.stages[*stage].name;
            let detail = format!("{stage}/{task} has none for {topic}-{partition} offset {offset}");
            return Err(Broken::new("dead letters", detail));
        }
        let in_time = self.spoilers.iter().filter(|(place, _)| !self.late.contains(place));
        let spoiled: BTreeSet<&SmolStr> = in_time.map(|(_, timer)| timer).collect();
        if let Some(timer) = spoiled.iter().find(|timer| !self.timers.contains_key(**timer)) {
            return Err(Broken::new("dead letters", format!("none for {timer}")));
        }
        match self.timers.keys().find(|timer| !spoiled.contains(timer)) {
            None => Ok(()),
            Some(timer) => {
                let detail = format!("one for {timer}, but all that was wrong with its window came late");
                Err(Broken::new("dead letters", detail))
            }
        }
    }

    /// Every task that reads the partition must give the record a dead letter.
    fn expect_of_readers(&mut self, at: &TopicPartition, offset: u64) {
        for (stage, spec) in self.stages.iter().enumerate() {
            let Some(input) = spec.inputs.iter().find(|input| input.topic == at.topic) else { continue };
            let tasks = match input.role {
                Role::Driving | Role::Keyed => at.partition..at.partition + 1,
                Role::Broadcast | Role::Control => 0..spec.tasks(),
            };
            for task in tasks {
                self.expected.insert((stage, task, at.topic.clone(), at.partition, offset), 0);
            }
        }
    }
}
