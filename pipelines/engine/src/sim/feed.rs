//! The outside: ticks with disorder and silence, broadcasts, control records, and what can not be processed.

use std::collections::VecDeque;

use bytes::Bytes;
use smol_str::{SmolStr, format_smolstr};
use tidewire_schemas::{
    ControlAction, ControlCommand, EventTime, Instrument, Quantity, Record, RiskLimits, SchemaBook,
    SentimentScore, Trade, topics,
};

use super::operators::{Mischief, price, quantity};
use super::random::Random;
use super::scenario::Scenario;
use super::stages::{MAX_FUTURE_SKEW_MS, SENTIMENT_PARTITIONS};
use crate::identity::RECEIVED_HEADER;
use crate::log::{Log, LogError, NewRecord, TopicPartition};
use crate::partition::partition_of_compound;

/// Event time of the first record, in milliseconds: long before the clock, as in a capture.
const FIRST_EVENT_MS: i64 = 1_700_000_000_000;

/// A record that the outside will append.
#[derive(Clone, Debug)]
pub struct Coming {
    /// Where it goes.
    pub at: TopicPartition,
    /// The record.
    pub record: NewRecord,
    /// Whether no stage can take it, whatever its operators do.
    pub unusable: bool,
}

/// All that the outside appends: before the start, and then in this order.
#[derive(Debug, Default)]
pub struct Feed {
    /// Descriptions and limits that are there before anything starts, several of each key.
    pub before: Vec<Coming>,
    /// The rest.
    pub coming: VecDeque<Coming>,
}

impl Feed {
    /// The feed of a scenario.
    pub fn of(scenario: &Scenario, book: &SchemaBook) -> Self {
        let mut maker = Maker { scenario, book, random: Random::new(scenario.seed, 2) };
        let before =
            (0..scenario.instruments + 4).map(|count| maker.reference(count, FIRST_EVENT_MS)).collect();
        let coming = maker.coming();
        Self { before, coming }
    }
}

/// Appends a record of the outside; returns its offset.
pub fn append(log: &dyn Log, coming: &Coming) -> Result<u64, LogError> {
    log.append(&coming.at, vec![coming.record.clone()])
}

/// The name of an instrument.
fn instrument(number: u64) -> SmolStr {
    format_smolstr!("I{number}.SIM")
}

/// When a partition's instruments trade, in steps of the feed.
#[derive(Clone, Copy)]
struct Hours {
    from: u64,
    to: u64,
    silent_from: u64,
    silent_to: u64,
}

impl Hours {
    fn are_at(&self, step: u64) -> bool {
        (self.from..self.to).contains(&step) && !(self.silent_from..self.silent_to).contains(&step)
    }
}

struct Maker<'a> {
    scenario: &'a Scenario,
    book: &'a SchemaBook,
    random: Random,
}

impl Maker<'_> {
    fn coming(&mut self) -> VecDeque<Coming> {
        let steps = self.scenario.records;
        let hours: Vec<Hours> = (0..self.scenario.partitions[0]).map(|_| self.hours(steps)).collect();
        let step_ms = self.random.between(2, 40);
        let mut coming = VecDeque::new();
        for step in 0..steps {
            let time_ms = FIRST_EVENT_MS + i64::try_from(step).unwrap_or(0) * step_ms;
            coming.push_back(match self.random.below(100) {
                0..6 => self.score(time_ms),
                6..9 => self.reference(step, time_ms),
                9..12 => self.control(step, time_ms),
                12..15 => self.limit(time_ms),
                15..20 if self.scenario.mischief => self.unusable(time_ms),
                _ => self.trade(step, time_ms, &hours),
            });
        }
        coming
    }

    /// Some partitions start late, end early, or are silent in between.
    fn hours(&mut self, steps: u64) -> Hours {
        let mut hours = Hours { from: 0, to: steps, silent_from: 0, silent_to: 0 };
        if self.random.chance(30) {
            hours.from = self.random.below(steps);
        }
        if self.random.chance(20) {
            hours.to = hours.from + self.random.below(steps);
        }
        if self.random.chance(40) {
            hours.silent_from = self.random.below(steps);
            hours.silent_to = hours.silent_from + self.random.below(steps / 2 + 1);
        }
        hours
    }

    fn trade(&mut self, step: u64, time_ms: i64, hours: &[Hours]) -> Coming {
        let tasks = self.scenario.partitions[0];
        // An instrument that trades now, if a few tries find one.
        let mut key = instrument(self.random.below(self.scenario.instruments));
        for _ in 0..4 {
            if hours.get(partition_of_compound(&key, tasks) as usize).is_some_and(|hours| hours.are_at(step))
            {
                break;
            }
            key = instrument(self.random.below(self.scenario.instruments));
        }
        let disorder_ms = if self.random.chance(5) { 700 } else { 45 };
        let time_ms = time_ms - self.random.between(0, disorder_ms);
        let mischief = match self.scenario.mischief && self.random.chance(6) {
            true => Mischief::ALL[self.random.place(Mischief::ALL.len())],
            false => Mischief::None,
        };
        let trade = Trade {
            instrument: key.clone(),
            event_time: EventTime::from_ms(time_ms),
            trade_id: mischief.trade_id(i64::try_from(step).unwrap_or(0)),
            price: price(100),
            quantity: quantity(self.random.between(1, 5)),
            market: true,
            ..Trade::default()
        };
        self.usable(topics::TICKS, tasks, &key, time_ms, trade)
    }

    fn score(&mut self, time_ms: i64) -> Coming {
        let asset = format_smolstr!("asset-{}", self.random.below(5));
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let score = self.random.between(-3, 3) as f64;
        let time_ms = time_ms - self.random.between(0, 60);
        let record = SentimentScore { asset: asset.clone(), score, ..SentimentScore::default() };
        self.usable(topics::SENTIMENT, SENTIMENT_PARTITIONS, &asset, time_ms, record)
    }

    fn reference(&mut self, count: u64, time_ms: i64) -> Coming {
        let key = instrument(count % self.scenario.instruments);
        let lot = Quantity::from_units(i128::from(self.random.between(1, 9))).unwrap_or_default();
        let record = Instrument { instrument: key.clone(), lot_size: lot, ..Instrument::default() };
        self.usable(topics::INSTRUMENTS, 1, &key, time_ms, record)
    }

    fn control(&mut self, step: u64, time_ms: i64) -> Coming {
        let command = if step.is_multiple_of(3) { ControlAction::Halt } else { ControlAction::Resume };
        let record = ControlCommand { scope: "*".into(), command, ..ControlCommand::default() };
        self.usable(topics::CONTROL, 1, "*", time_ms, record)
    }

    fn limit(&mut self, time_ms: i64) -> Coming {
        let account = format_smolstr!("acct-{}", self.random.below(self.scenario.accounts));
        let limit = self.random.between(3, 30);
        let record = RiskLimits {
            account: account.clone(),
            max_position: Some(quantity(limit)),
            ..RiskLimits::default()
        };
        self.usable(topics::RISK_LIMITS, 1, &account, time_ms, record)
    }

    /// A record that can not be decoded, has no key, or comes from the future.
    fn unusable(&mut self, time_ms: i64) -> Coming {
        let (topic, partitions) = match self.random.below(6) {
            0 => (topics::SENTIMENT, SENTIMENT_PARTITIONS),
            1 => (topics::CONTROL, 1),
            // Where a topic may be compacted before it is read, nobody can say which of its records are read.
            2 if self.scenario.complete => (topics::INSTRUMENTS, 1),
            _ => (topics::TICKS, self.scenario.partitions[0]),
        };
        let key = instrument(self.random.below(self.scenario.instruments));
        let mut coming = self.usable(topic, partitions, &key, time_ms, Trade::default());
        coming.unusable = true;
        let record = &mut coming.record;
        match self.random.below(5) {
            0 => record.value = Some(Bytes::from_static(&[7, 0, 0, 0, 1, 2])),
            1 => record.value = Some(Bytes::from_static(&[0, 0, 0, 99, 99, 1])),
            2 => record.value = None,
            // A compacted topic takes no record without a key.
            3 if topic != topics::INSTRUMENTS => record.key = None,
            4 if topic != topics::CONTROL => {
                let received_ns = time_ms * 1_000_000;
                record.timestamp_ms = time_ms + MAX_FUTURE_SKEW_MS + 1;
                record.headers.push((RECEIVED_HEADER.into(), received_ns.to_string().into()));
            }
            _ => record.value = Some(Bytes::new()),
        }
        coming
    }

    fn usable(
        &self,
        topic: &str,
        partitions: u32,
        key: &str,
        time_ms: i64,
        record: impl Into<Record>,
    ) -> Coming {
        let mut value = Vec::new();
        // Every kind is registered in the book of this build.
        let _ = self.book.encode(&record.into(), &mut value);
        Coming {
            at: TopicPartition::new(topic, partition_of_compound(key, partitions)),
            record: NewRecord {
                timestamp_ms: time_ms,
                key: Some(Bytes::copy_from_slice(key.as_bytes())),
                value: Some(value.into()),
                headers: Vec::new(),
            },
            unusable: false,
        }
    }
}
